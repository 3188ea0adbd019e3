//! The machine's own disk, through rustix. Callers: `Storage::open` in production, and tests that need real files.

use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{self, Advice, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{
    DirEntry, Disk, DiskFile, FileMap, FileSystem, LockGuard, LockHow, OpenHow, ends_early,
};

/// The kernel takes at most this many slices in one call (`IOV_MAX`).
const SLICES_PER_CALL_MAX: usize = 1024;

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let flags = match how {
            OpenHow::Read => OFlags::RDONLY,
            OpenHow::ReadWrite => OFlags::RDWR,
            OpenHow::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            OpenHow::Through => OFlags::RDWR | OFlags::DSYNC,
            OpenHow::Direct => OFlags::RDWR | OFlags::DIRECT,
        };
        match fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)) {
            Ok(descriptor) => Ok(Arc::new(RealFile { descriptor })),
            Err(Errno::INVAL) if how == OpenHow::Direct => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Ok(fs::fsync(open_dir(path)?)?)
    }

    fn file_system(&self, path: &Path) -> io::Result<Box<dyn FileSystem>> {
        Ok(Box::new(RealFileSystem {
            root: open_dir(path)?,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::rename(from, to)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::link(from, to)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Ok(fs::unlink(path)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(fs::rmdir(path)?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: metadata.is_dir(),
                len: if metadata.is_dir() { 0 } else { metadata.len() },
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn file_bytes_max(&self) -> u64 {
        file_bytes_max()
    }

    fn lock(&self, path: &Path, how: LockHow) -> io::Result<Box<dyn LockGuard>> {
        let (flags, operation) = match how {
            LockHow::Exclusive => (
                OFlags::RDWR | OFlags::CREATE,
                FlockOperation::NonBlockingLockExclusive,
            ),
            LockHow::Shared => (OFlags::RDONLY, FlockOperation::NonBlockingLockShared),
        };
        let descriptor = fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))?;
        fs::flock(&descriptor, operation)?;
        Ok(Box::new(RealLock {
            _descriptor: descriptor,
        }))
    }
}

fn file_bytes_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    limit.current.unwrap_or(u64::MAX)
}

/// The error of a write past the limit on file sizes, which says so: `File too large` alone names no cause.
fn too_large() -> io::Error {
    let reason = match file_bytes_max() {
        u64::MAX => "the file system takes no file of this length".to_owned(),
        limit => {
            format!("the limit on file sizes is {limit} bytes (RLIMIT_FSIZE, `ulimit -f`)")
        }
    };
    io::Error::new(io::ErrorKind::FileTooLarge, reason)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[derive(Debug)]
struct RealFileSystem {
    root: OwnedFd,
}

impl FileSystem for RealFileSystem {
    fn sync(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.root)?)
    }
}

/// The kernel gives the lock back when the descriptor closes.
#[derive(Debug)]
struct RealLock {
    _descriptor: OwnedFd,
}

impl LockGuard for RealLock {}

#[derive(Debug)]
struct RealFile {
    descriptor: OwnedFd,
}

impl DiskFile for RealFile {
    fn read_at_now(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let read = rustix::io::preadv2(
                &self.descriptor,
                &mut [IoSliceMut::new(&mut buffer[done..])],
                position + done as u64,
                ReadWriteFlags::NOWAIT,
            );
            match read {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(_) if done > 0 => break,
                // A file system that cannot tell.
                Err(Errno::OPNOTSUPP) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(
                &self.descriptor,
                &mut buffer[done..],
                position + done as u64,
            ) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                // With O_DIRECT, what ended at the file's end in the middle of a block cannot be gone on with.
                Err(Errno::INVAL) if done > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Memory that the allocator must fill with zeros first costs a page fault for each page of it, however often it was used.
    fn read_new(&self, position: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let at = position + bytes.len() as u64;
            match rustix::io::pread(&self.descriptor, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(ends_early(position, bytes.len(), count)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more than was asked for.
        bytes.truncate(count);
        Ok(bytes)
    }

    fn write_vectored_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut slices = slices.to_vec();
        let mut rest = &mut slices[..];
        let mut position = position;
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let call = &rest[..rest.len().min(SLICES_PER_CALL_MAX)];
            match rustix::io::pwritev(&self.descriptor, call, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    position += count as u64;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::FBIG) => return Err(too_large()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(fs::fdatasync(&self.descriptor)?)
    }

    fn len(&self) -> io::Result<u64> {
        let stat = fs::fstat(&self.descriptor)?;
        u64::try_from(stat.st_size).map_err(io::Error::other)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Ok(fs::ftruncate(&self.descriptor, bytes)?)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        loop {
            match fs::fallocate(&self.descriptor, FallocateFlags::empty(), 0, bytes) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::FBIG) => return Err(too_large()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn will_read(&self, position: u64, bytes: u64) {
        let bytes = std::num::NonZeroU64::new(bytes);
        // Without it the read that follows waits longer, and nothing else.
        let _ = fs::fadvise(&self.descriptor, position, bytes, Advice::WillNeed);
    }

    fn read_no_further(&self) {
        // Without it others wait longer, and nothing else.
        let _ = fs::fadvise(&self.descriptor, 0, None, Advice::Random);
    }

    fn drop_cache_of(&self, range: Range<u64>) -> io::Result<()> {
        // Without a length it is all to the end of the file.
        let len = match range.end {
            u64::MAX => None,
            end => match NonZeroU64::new(end.saturating_sub(range.start)) {
                None => return Ok(()),
                len => len,
            },
        };
        Ok(fs::fadvise(
            &self.descriptor,
            range.start,
            len,
            Advice::DontNeed,
        )?)
    }

    fn map(&self, capacity: u64) -> io::Result<Arc<FileMap>> {
        Ok(Arc::new(FileMap::of_file(
            &self.descriptor.as_fd(),
            capacity,
        )?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{AlignedBuffer, DIRECT_ALIGNMENT_BYTES, read_file, write_new_file};

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn writes_every_byte_of_more_slices_than_the_kernel_takes_at_once() {
        let directory = directory();
        let path = directory.path().join("file");
        let file = RealDisk.open(&path, OpenHow::CreateNew).unwrap();
        let pieces: Vec<Vec<u8>> = (0..3_000u32)
            .map(|n| vec![n as u8; (n % 7) as usize])
            .collect();
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_vectored_at(5, &slices).unwrap();
        file.sync_data().unwrap();
        let contents = read_file(&RealDisk, &path, 1 << 20).unwrap();
        assert_eq!(contents[5..], pieces.concat());
        assert_eq!(file.len().unwrap(), contents.len() as u64);
    }

    #[test]
    fn what_is_read_anew_is_what_is_there_and_a_file_that_ends_early_is_named_as_such() {
        let directory = directory();
        let path = directory.path().join("file");
        let contents: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        write_new_file(&RealDisk, &path, &contents).unwrap();
        let file = RealDisk.open(&path, OpenHow::Read).unwrap();
        assert_eq!(file.read_new(0, 100_000).unwrap(), contents);
        assert_eq!(file.read_new(7, 9).unwrap(), contents[7..16]);
        assert_eq!(file.read_new(100_000, 0).unwrap(), b"");
        let error = file.read_new(99_990, 11).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let mut buffer = [0; 11];
        let as_read_into = file.read_exact_at(99_990, &mut buffer).unwrap_err();
        assert_eq!(error.to_string(), as_read_into.to_string());
    }

    #[test]
    fn of_a_file_that_is_to_be_read_no_further_the_disk_reads_what_was_asked_for() {
        const FILE_BYTES: u64 = 4 << 20;
        const ASKED: usize = 64 << 10;
        let directory = directory();
        let path = directory.path().join("file");
        write_new_file(&RealDisk, &path, &vec![7; FILE_BYTES as usize]).unwrap();
        let file = RealDisk.open(&path, OpenHow::Read).unwrap();
        let map = file.map(FILE_BYTES).unwrap();
        file.drop_cache().unwrap();
        let page = rustix::param::page_size() as u64;
        let in_memory = || {
            let pages = (0..FILE_BYTES).step_by(page as usize);
            let warm = pages.filter(|at| !map.is_cold(*at..at + page));
            warm.map(|at| at + page).max().unwrap_or(0)
        };
        if in_memory() > 0 {
            // A file system in memory.
            return;
        }
        file.read_no_further();
        for position in [0, ASKED as u64, 2 * ASKED as u64] {
            file.read_exact_at(position, &mut vec![0; ASKED]).unwrap();
            assert_eq!(in_memory(), position + ASKED as u64);
        }
    }

    #[test]
    fn a_second_writer_is_refused_and_a_reader_beside_it_too() {
        let directory = directory();
        let path = directory.path().join("LOCK");
        let held = RealDisk.lock(&path, LockHow::Exclusive).unwrap();
        for how in [LockHow::Exclusive, LockHow::Shared] {
            assert_eq!(
                RealDisk.lock(&path, how).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
        drop(held);
        let _first = RealDisk.lock(&path, LockHow::Shared).unwrap();
        let _second = RealDisk.lock(&path, LockHow::Shared).unwrap();
    }

    #[test]
    fn a_direct_read_ends_where_the_file_does_in_the_middle_of_a_block() {
        let directory = directory();
        let path = directory.path().join("file");
        write_new_file(&RealDisk, &path, &[7; 5000]).unwrap();
        let Ok(file) = RealDisk.open(&path, OpenHow::Direct) else {
            return;
        };
        let mut buffer = AlignedBuffer::default();
        buffer.extend_with(0, DIRECT_ALIGNMENT_BYTES);
        let read = file.read_at(4096, buffer.as_mut_slice()).unwrap();
        assert_eq!(read, 904);
        assert_eq!(buffer.as_slice()[..904], [7; 904]);
    }

    #[test]
    fn direct_writes_are_seen_by_buffered_reads() {
        let directory = directory();
        let path = directory.path().join("file");
        write_new_file(&RealDisk, &path, &[]).unwrap();
        let file = match RealDisk.open(&path, OpenHow::Direct) {
            Ok(file) => file,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::Unsupported);
                return;
            }
        };
        let mut buffer = AlignedBuffer::default();
        buffer.extend_from_slice(&[9; 5_000]);
        buffer.pad_to_block(0);
        file.write_at(DIRECT_ALIGNMENT_BYTES as u64, buffer.as_slice())
            .unwrap();
        let contents = read_file(&RealDisk, &path, 1 << 20).unwrap();
        assert_eq!(contents[4096..9_096], [9; 5_000]);
    }

    #[test]
    fn a_file_longer_than_its_bound_is_refused_before_it_is_read() {
        let directory = directory();
        let path = directory.path().join("file");
        write_new_file(&RealDisk, &path, &[0; 100]).unwrap();
        assert_eq!(
            read_file(&RealDisk, &path, 99).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            RealDisk.open(&path, OpenHow::CreateNew).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }

    #[test]
    fn lists_names_in_order_with_their_lengths() {
        let directory = directory();
        write_new_file(&RealDisk, &directory.path().join("b"), &[0; 3]).unwrap();
        write_new_file(&RealDisk, &directory.path().join("a"), &[]).unwrap();
        RealDisk
            .create_dir_all(&directory.path().join("c/d"))
            .unwrap();
        let entries = RealDisk.list(directory.path()).unwrap();
        let names: Vec<(&str, bool, u64)> = entries
            .iter()
            .map(|e| (e.name.as_str(), e.is_dir, e.len))
            .collect();
        assert_eq!(names, [("a", false, 0), ("b", false, 3), ("c", true, 0)]);
    }
}
