//! Pinned: files that are deleted and whose bytes readers still hold, so that the disk does not get their space back.
//! Callers: the segment cache and the WAL's pool note a file when they let it go; metrics ask how much there is.

use std::sync::{Mutex, Weak};

use crate::io::{FileMap, Mapping};

/// See the module.
#[derive(Debug, Default)]
pub struct Pinned {
    files: Mutex<Vec<(Weak<dyn Mapping>, u64)>>,
}

impl Pinned {
    /// Notes a file of `bytes` that is deleted, if somebody reads its map still.
    pub fn note(&self, map: &FileMap, bytes: u64) {
        if map.in_use() {
            self.locked().push((map.handle(), bytes));
        }
    }

    /// Files that are held, and their bytes.
    pub fn held(&self) -> (u64, u64) {
        let mut files = self.locked();
        files.retain(|(map, _)| map.strong_count() > 0);
        let bytes = files.iter().map(|(_, bytes)| bytes).sum();
        (files.len() as u64, bytes)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<(Weak<dyn Mapping>, u64)>> {
        let mut files = self
            .files
            .lock()
            .expect("nothing panics while it holds the list");
        // So that the list does not grow with what is over.
        if files.len() == files.capacity() {
            files.retain(|(map, _)| map.strong_count() > 0);
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_file_counts_until_its_last_reader_is_gone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1; 4096]).unwrap();
        let map = FileMap::of_file(file.as_file(), 4096).unwrap();
        let pinned = Pinned::default();
        pinned.note(&map, 4096);
        assert_eq!(pinned.held(), (0, 0), "nobody reads it");
        let slice = map.slice(10..20);
        pinned.note(&map, 4096);
        drop(map);
        assert_eq!(pinned.held(), (1, 4096));
        drop(slice);
        assert_eq!(pinned.held(), (0, 0));
    }
}
