//! A file of which nothing is read that is not in memory.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use super::{DiskFile, FileMap};

/// The same file, whose reads fail with `WouldBlock` where they would wait for the disk.
#[derive(Debug)]
pub struct InMemory<'a> {
    file: &'a dyn DiskFile,
    /// Its first bytes, as far as they are known; the kernel is not asked for them.
    front: &'a [u8],
}

impl<'a> InMemory<'a> {
    /// The file, of which `front` are the first bytes.
    pub fn new(file: &'a dyn DiskFile, front: &'a [u8]) -> InMemory<'a> {
        InMemory { file, front }
    }
}

impl DiskFile for InMemory<'_> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at_now(position, buffer)
    }

    fn read_at_now(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let known = usize::try_from(position)
            .ok()
            .and_then(|from| self.front.get(from..));
        match known.filter(|known| !known.is_empty()) {
            Some(known) => {
                let count = known.len().min(buffer.len());
                buffer[..count].copy_from_slice(&known[..count]);
                Ok(count)
            }
            None => self.file.read_at_now(position, buffer),
        }
    }

    fn write_vectored_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.file.write_vectored_at(position, slices)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.file.reserve(bytes)
    }

    fn drop_cache_of(&self, range: Range<u64>) -> io::Result<()> {
        self.file.drop_cache_of(range)
    }

    fn map(&self, capacity: u64) -> io::Result<Arc<FileMap>> {
        self.file.map(capacity)
    }
}
