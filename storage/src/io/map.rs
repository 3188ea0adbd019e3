//! Maps of files: the one file with unsafe code.
//!
//! A [`FileMap`] hands out slices of a file as [`Bytes`] without copying; each slice keeps the map alive, also after the file
//! was unlinked. Callers: the WAL and the segments' readers.
//! Invariants: nobody slices past what was written and published; a mapped file is never cut below a published end, and the
//! published bytes never change. Under these a slice's bytes are stable, which is what a `&[u8]` promises.
//! Our own code that touches cold bytes uses `read_at`: a bad sector then is an error and not a SIGBUS. The kernel's own
//! reads of a slice, by a write to a socket, return EFAULT.

#![allow(unsafe_code)]

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

/// What stands behind a [`FileMap`]: the kernel's map, or the simulated disk's copy.
pub trait Mapping: Send + Sync + Debug {
    /// The bytes of a range; the result keeps `self` alive.
    fn slice(self: Arc<Self>, range: Range<u64>) -> Bytes;
    /// Whether some byte of the range would have to come from the disk.
    fn is_cold(&self, range: Range<u64>) -> bool;
    /// Brings the range into memory, blocking; a bad sector is an error.
    fn populate(&self, range: Range<u64>) -> io::Result<()>;
}

/// A read-only map of the front of a file.
#[derive(Debug)]
pub struct FileMap {
    mapping: Arc<dyn Mapping>,
    capacity: u64,
}

impl FileMap {
    /// Wraps what maps `capacity` bytes.
    pub fn new(mapping: Arc<dyn Mapping>, capacity: u64) -> FileMap {
        FileMap { mapping, capacity }
    }

    /// Maps the first `capacity` bytes of an open file.
    pub fn of_file(file: &impl AsFd, capacity: u64) -> io::Result<FileMap> {
        Ok(FileMap::new(
            Arc::new(KernelMap::new(file, capacity)?),
            capacity,
        ))
    }

    /// The bytes of a range that was written and published. Zero copy; the slice keeps the map alive.
    /// Panics if the range lies outside the capacity.
    pub fn slice(&self, range: Range<u64>) -> Bytes {
        self.check(&range);
        if range.is_empty() {
            return Bytes::new();
        }
        Arc::clone(&self.mapping).slice(range)
    }

    /// Whether some byte of the range is not in memory, so that touching it would block on the disk.
    pub fn is_cold(&self, range: Range<u64>) -> bool {
        self.check(&range);
        !range.is_empty() && self.mapping.is_cold(range)
    }

    /// Brings the range into memory. Blocks; an unreadable sector is an error, never a signal.
    pub fn populate(&self, range: Range<u64>) -> io::Result<()> {
        self.check(&range);
        if range.is_empty() {
            return Ok(());
        }
        self.mapping.populate(range)
    }

    /// Something that lives as long as the map and its slices.
    pub fn handle(&self) -> Weak<dyn Mapping> {
        Arc::downgrade(&self.mapping)
    }

    /// Whether slices of this map are still held by somebody.
    pub fn in_use(&self) -> bool {
        Arc::strong_count(&self.mapping) > 1
    }

    /// How many bytes are mapped.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    fn check(&self, range: &Range<u64>) {
        assert!(range.start <= range.end, "a range runs forwards: {range:?}");
        assert!(
            range.end <= self.capacity,
            "{range:?} lies outside the {} mapped bytes",
            self.capacity
        );
    }
}

#[derive(Debug)]
struct KernelMap {
    raw: MmapRaw,
}

impl KernelMap {
    fn new(file: &impl AsFd, capacity: u64) -> io::Result<KernelMap> {
        let len = usize::try_from(capacity).map_err(io::Error::other)?;
        let descriptor = file.as_fd().as_raw_fd();
        let raw = MmapOptions::new()
            .len(len)
            .no_probe_handle()
            .map_raw_read_only(descriptor)?;
        Ok(KernelMap { raw })
    }
}

/// A range of a map that keeps the map.
struct KernelSlice {
    map: Arc<KernelMap>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for KernelSlice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `FileMap::check` holds start + len within the map, which lives as long as `self`. The bytes were published
        // before anyone could name the range, so they lie inside the file and are not written again.
        unsafe { std::slice::from_raw_parts(self.map.raw.as_ptr().add(self.start), self.len) }
    }
}

impl Mapping for KernelMap {
    fn slice(self: Arc<Self>, range: Range<u64>) -> Bytes {
        let start = index(range.start);
        let len = index(range.end) - start;
        Bytes::from_owner(KernelSlice {
            map: self,
            start,
            len,
        })
    }

    fn is_cold(&self, range: Range<u64>) -> bool {
        let page = rustix::param::page_size();
        let start = index(range.start) / page * page;
        let len = index(range.end) - start;
        let mut residency = [0u8; 256];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(residency.len() * page);
            let pages = step.div_ceil(page);
            // SAFETY: the address is inside the map and page-aligned, because the map's own address is; `residency` has one
            // byte for each page asked about. The call reads no mapped memory.
            let result = unsafe {
                let address = self.raw.as_ptr().add(start + done);
                libc::mincore(address.cast_mut().cast(), step, residency.as_mut_ptr())
            };
            if result != 0 || residency[..pages].iter().any(|state| state & 1 == 0) {
                return true;
            }
            done += step;
        }
        false
    }

    fn populate(&self, range: Range<u64>) -> io::Result<()> {
        let start = index(range.start);
        let len = index(range.end) - start;
        match self.raw.advise_range(Advice::PopulateRead, start, len) {
            // Kernels before 5.14 only start reading ahead; the socket's write waits for the rest, and gets EFAULT if need be.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.raw.advise_range(Advice::WillNeed, start, len)
            }
            other => other,
        }
    }
}

fn index(position: u64) -> usize {
    usize::try_from(position).expect("within a map, whose length is a usize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn slices_outlive_the_file_and_the_map() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7u8; 10_000]).unwrap();
        let map = FileMap::of_file(file.as_file(), 1 << 20).unwrap();
        assert!(!map.in_use());
        let slice = map.slice(100..9_000);
        assert!(map.in_use());
        file.close().unwrap();
        drop(map);
        assert_eq!(slice, vec![7u8; 8_900]);
    }

    #[test]
    fn bytes_appear_in_the_map_as_the_file_grows() {
        let mut file = tempfile::tempfile().unwrap();
        let map = FileMap::of_file(&file, 1 << 20).unwrap();
        file.write_all(&[1u8; 5_000]).unwrap();
        assert_eq!(map.slice(0..5_000), vec![1u8; 5_000]);
        file.write_all(&[2u8; 5_000]).unwrap();
        assert_eq!(map.slice(5_000..10_000), vec![2u8; 5_000]);
    }

    #[test]
    fn populate_past_the_end_of_the_file_is_an_error_and_not_a_signal() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1u8; 5_000]).unwrap();
        let map = FileMap::of_file(&file, 1 << 20).unwrap();
        map.populate(0..5_000).unwrap();
        assert!(!map.is_cold(0..5_000));
        assert!(map.populate(500_000..600_000).is_err());
        assert!(map.is_cold(500_000..600_000));
    }
}
