//! The disk and the clock as components.
//!
//! Everything in this crate that touches a file or asks for the time does it through [`Disk`] and [`Clock`], so that a
//! simulated disk can tear writes, lose syncs, fill up and fail under a seed. Two implementors of each: the real disk and the simulated
//! one, [`SystemClock`] and [`ManualClock`].
//! Invariant: errors are the operating system's own `io::Error`, so that a caller can tell a full disk (`StorageFull`) from
//! a broken one. Nothing here retries but for an interrupted call.

mod ahead;
mod aligned;
mod behind;
mod clock;
mod lock_holder;
mod map;
mod now;
mod real;
pub mod sim;
mod syncs;

pub use ahead::Ahead;
pub use aligned::{AlignedBuffer, DIRECT_ALIGNMENT_BYTES};
pub(crate) use behind::WriteBehind;
pub use clock::{Boot, Clock, ManualClock, SystemClock};
pub(crate) use lock_holder::lock_holder;
pub use map::{FileMap, Mapping};
pub use now::InMemory;
pub use real::RealDisk;
pub use sim::SimDisk;
pub use syncs::{SyncFailed, Syncs};

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write through the page cache.
    ReadWrite,
    /// A file that must not exist yet, to read and write through the page cache.
    CreateNew,
    /// An existing file, to read and write through the page cache and on to the disk (`O_DSYNC`): what a write has given is durable, and
    /// stays in memory.
    Through,
    /// An existing file, past the page cache (`O_DIRECT`): positions, lengths and memory must be multiples of
    /// [`DIRECT_ALIGNMENT_BYTES`]. Fails with `ErrorKind::Unsupported` where the file system has no direct writes.
    Direct,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name within the directory; a name that is not UTF-8 is shown with replacement characters.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The file's length; 0 for a directory.
    pub len: u64,
}

/// How a data directory is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockHow {
    /// For the one process that writes.
    Exclusive,
    /// For tools that only read: any number of them, but none beside a writer.
    Shared,
}

/// A lock on a data directory. It is given back when this is dropped, or when the process dies.
pub trait LockGuard: Send + Sync + Debug {}

/// The file system below a data directory. All calls block.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file. Errors: `NotFound`, `AlreadyExists`, `Unsupported` (see [`OpenHow`]), and the disk's own.
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory and those above it that are missing. Durable only after each parent's `sync_dir`.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable: files created, renamed and removed in it.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The file system that holds the directory `path`.
    fn file_system(&self, path: &Path) -> io::Result<Box<dyn FileSystem>>;
    /// Makes everything durable that was written to the file system that holds `path` (`syncfs`).
    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        self.file_system(path)?.sync()
    }
    /// Renames a file or directory; replaces a file that already has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, which must not be there yet. Fails where the file system has no such names.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file. Open handles and live maps of it stay valid.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in order of name.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether the path names anything.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes that may still be written to the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// How long a file may become that this process writes (`RLIMIT_FSIZE`). It may change at any time.
    fn file_bytes_max(&self) -> u64 {
        u64::MAX
    }
    /// Takes the lock on a file, creating the file for an exclusive one. Never waits: `WouldBlock` if another holds it.
    fn lock(&self, path: &Path, how: LockHow) -> io::Result<Box<dyn LockGuard>>;
}

/// A file system, held open. It reports write errors that happened since it was opened, also of files that are closed by then.
pub trait FileSystem: Send + Sync + Debug {
    /// Makes everything durable that was written to it, names included (`syncfs`). After an error nothing is known about
    /// what was written since it was opened.
    fn sync(&self) -> io::Result<()>;
}

/// An open file. Shared between threads; positions are explicit, so there is no cursor.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads until `buffer` is full or the file ends, and says how many bytes it read. May end before what cannot be read, which
    /// the next read then begins with.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Like [`DiskFile::read_at`], out of memory alone: fewer bytes, or `WouldBlock` for none, where the disk would be needed.
    fn read_at_now(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes of all slices, one after the other. On an error any part of them may have been written.
    fn write_vectored_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()>;
    /// Makes the file's bytes and length durable (`fdatasync`). After an error nothing is known about the file's bytes,
    /// and calling again proves nothing.
    fn sync_data(&self) -> io::Result<()>;
    /// The file's length now.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Takes space for the first `bytes` bytes, so that writing them does not find the disk full; the file becomes that long if it
    /// is shorter. Where the file system cannot reserve, nothing is done.
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    /// Asks the kernel to forget its clean cached pages in a range, so that the next read sees the disk.
    fn drop_cache_of(&self, range: Range<u64>) -> io::Result<()>;
    /// Tells that so many bytes from a position on are read next, so that the disk can begin: a hint.
    fn will_read(&self, _position: u64, _bytes: u64) {}
    /// Has the kernel read what is asked for, by a read or [`DiskFile::will_read`], and nothing beyond it. By itself it reads
    /// ahead as much at a time as the disk is set to, which may be 8 MiB, and a sync of the write-ahead log waits behind that: what
    /// works in the background says so of each file that it reads from end to end. A hint.
    fn read_no_further(&self) {}
    /// Maps the first `capacity` bytes, read-only. The capacity may lie past the end of the file: those bytes appear as the
    /// file grows, and must not be sliced before.
    fn map(&self, capacity: u64) -> io::Result<Arc<FileMap>>;

    /// Asks the kernel to forget all its clean cached pages.
    fn drop_cache(&self) -> io::Result<()> {
        self.drop_cache_of(0..u64::MAX)
    }

    /// Fills the whole buffer, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(position + done as u64, &mut buffer[done..])? {
                0 => return Err(ends_early(position, done, buffer.len())),
                read => done += read,
            }
        }
        Ok(())
    }

    /// Reads so many bytes into memory of their own, or fails with `UnexpectedEof`.
    fn read_new(&self, position: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.read_exact_at(position, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes all bytes of one slice.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_vectored_at(position, &[IoSlice::new(bytes)])
    }

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file that has `read` of the `wanted` bytes at a position.
fn ends_early(position: u64, read: usize, wanted: usize) -> io::Error {
    let end = position + read as u64;
    let text = format!("the file ends at {end}, wanted {wanted} bytes at {position}");
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// Reads a whole file, refusing one that is longer than `bytes_max` before anything is allocated for it.
pub fn read_file(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenHow::Read)?;
    let bytes = file.len()?;
    if bytes > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} has {bytes} bytes, at most {bytes_max} can be right",
                path.display()
            ),
        ));
    }
    file.read_new(0, usize::try_from(bytes).expect("bounded by bytes_max"))
}

/// Creates a file with these contents and makes them durable; the caller syncs the directory.
pub fn write_new_file(disk: &dyn Disk, path: &Path, contents: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenHow::CreateNew)?;
    file.write_at(0, contents)?;
    file.sync_data()
}

/// Creates a directory and those above it up to `root`, and makes each new name durable.
pub fn create_dir_durable(disk: &dyn Disk, root: &Path, path: &Path) -> io::Result<()> {
    disk.create_dir_all(path)?;
    let mut above = path.parent();
    while let Some(directory) = above {
        disk.sync_dir(directory)?;
        if directory == root {
            break;
        }
        above = directory.parent();
    }
    Ok(())
}
