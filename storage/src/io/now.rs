//! A file of which nothing is read that is not in memory.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::{DiskFile, FileMap};

/// The same file, whose reads fail with `WouldBlock` where they would wait for the disk.
#[derive(Debug)]
pub struct InMemory<'a>(pub &'a dyn DiskFile);

impl DiskFile for InMemory<'_> {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at_now(position, buffer)
    }

    fn read_at_now(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at_now(position, buffer)
    }

    fn write_vectored_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_vectored_at(position, slices)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.0.drop_cache()
    }

    fn map(&self, capacity: u64) -> io::Result<Arc<FileMap>> {
        self.0.map(capacity)
    }
}
