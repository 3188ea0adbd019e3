//! Files that were made: on the disk, bounded, the one that was not asked for the longest goes first.
//!
//! Callers: the routes of files. Invariants: what is in the directory and not in the table is an unfinished file; together the files
//! take no more bytes than they may, but for one that is just being made. Nothing here outlives the process: the directory is
//! emptied at a start, and what is made again has the same bytes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use super::name::FileName;

pub(super) struct Cache {
    directory: PathBuf,
    bytes_max: u64,
    table: Mutex<Table>,
    making: tokio::sync::Mutex<()>,
}

type Key = (String, FileName);

#[derive(Default)]
struct Table {
    files: HashMap<Key, Entry>,
    /// Counts what is asked for.
    asked: u64,
    /// Counts what is made: the next name on the disk.
    made: u64,
}

struct Entry {
    path: PathBuf,
    bytes: u64,
    etag: String,
    asked: u64,
}

/// A file that was made. It can be read also after it went from the cache.
pub(super) struct Made {
    pub file: File,
    pub bytes: u64,
    /// Its strong ETag, with its quotes.
    pub etag: String,
}

impl Cache {
    pub fn new(directory: PathBuf, bytes_max: u64) -> Cache {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, directory = %directory.display(), "files of an earlier start are left over");
            }
            _ => {}
        }
        Cache {
            directory,
            bytes_max,
            table: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    pub fn is_enabled(&self) -> bool {
        self.bytes_max > 0
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        let table = self.table.lock();
        table.expect("nothing panics while it holds the table")
    }

    /// Held by whoever makes a file.
    pub async fn making(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.making.lock().await
    }

    /// All that are there.
    pub fn names(&self) -> Vec<Key> {
        self.table().files.keys().cloned().collect()
    }

    /// How long a file is, if it is there.
    pub fn bytes_of(&self, topic: &str, name: &FileName) -> Option<u64> {
        let key = (topic.to_owned(), name.clone());
        Some(self.table().files.get(&key)?.bytes)
    }

    /// A file, if it is there.
    pub fn get(&self, topic: &str, name: &FileName) -> Option<Made> {
        let key = (topic.to_owned(), name.clone());
        let mut table = self.table();
        table.asked += 1;
        let asked = table.asked;
        let entry = table.files.get_mut(&key)?;
        entry.asked = asked;
        let Ok(file) = File::open(&entry.path) else {
            table.files.remove(&key);
            return None;
        };
        Some(Made {
            file,
            bytes: entry.bytes,
            etag: entry.etag.clone(),
        })
    }

    pub fn remove(&self, topic: &str, name: &FileName) {
        let key = (topic.to_owned(), name.clone());
        let removed = self.table().files.remove(&key);
        if let Some(entry) = removed {
            unlink(&entry);
        }
    }

    /// Removes all files of a topic, also one that is just being made. Blocks on whoever makes one; not for async code.
    pub fn forget(&self, topic: &str) {
        let _making = self.making.blocking_lock();
        for (of, name) in self.names() {
            if of == topic {
                self.remove(&of, &name);
            }
        }
    }

    /// A new file to write, and where it is. Blocks on the disk.
    pub fn create(&self) -> io::Result<(File, PathBuf)> {
        fs::create_dir_all(&self.directory)?;
        let number = {
            let mut table = self.table();
            table.made += 1;
            table.made
        };
        let path = self.directory.join(format!("{number}.parquet"));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok((file, path))
    }

    /// Takes in a file that was written, and has others go for it.
    pub fn add(&self, topic: &str, name: &FileName, path: PathBuf, bytes: u64, etag: String) {
        let mut table = self.table();
        table.asked += 1;
        let asked = table.asked;
        let entry = Entry {
            path,
            bytes,
            etag,
            asked,
        };
        let replaced = table.files.insert((topic.to_owned(), name.clone()), entry);
        if let Some(replaced) = replaced {
            unlink(&replaced);
        }
        let mut sum: u64 = table.files.values().map(|entry| entry.bytes).sum();
        while sum > self.bytes_max {
            let oldest = table.files.iter().min_by_key(|(_, entry)| entry.asked);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            let entry = table.files.remove(&key).expect("it was just found");
            sum -= entry.bytes;
            unlink(&entry);
        }
    }
}

fn unlink(entry: &Entry) {
    if let Err(error) = fs::remove_file(&entry.path) {
        tracing::warn!(%error, path = %entry.path.display(), "a file is left over until the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn name(number: u32) -> FileName {
        let text = format!("0-0-{number}-v1-0000000000000000.parquet");
        FileName::parse(&text).expect("a name")
    }

    fn put(cache: &Cache, number: u32, bytes: usize) {
        let (mut file, path) = cache.create().expect("a file");
        file.write_all(&vec![7; bytes]).expect("bytes");
        cache.add(
            "t",
            &name(number),
            path,
            bytes as u64,
            format!("\"{number}\""),
        );
    }

    #[test]
    fn what_was_not_asked_for_the_longest_goes_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = Cache::new(directory.path().join("c"), 100);
        put(&cache, 1, 40);
        put(&cache, 2, 40);
        let mut one = cache.get("t", &name(1)).expect("it is there");
        assert!(cache.get("u", &name(1)).is_none());
        put(&cache, 3, 40);
        assert!(cache.get("t", &name(2)).is_none());
        assert_eq!(cache.bytes_of("t", &name(3)), Some(40));
        cache.remove("t", &name(1));
        assert!(cache.get("t", &name(1)).is_none());
        let mut bytes = Vec::new();
        one.file
            .read_to_end(&mut bytes)
            .expect("it can still be read");
        assert_eq!(bytes.len(), 40);
        put(&cache, 4, 101);
        assert!(
            cache.names().is_empty(),
            "what is larger than all may be is not kept"
        );
        let left = fs::read_dir(directory.path().join("c")).expect("a directory");
        assert_eq!(left.count(), 0);
        put(&cache, 5, 1);
        drop(cache);
        let cache = Cache::new(directory.path().join("c"), 100);
        assert!(!directory.path().join("c").exists());
        assert!(cache.names().is_empty());
    }
}
