//! The WAL's files: zero-filled beforehand, so that a sync has no file system metadata to commit, and used again by rename.
//!
//! A file's name is its sequence; a file that is used again gets a new, higher one, durable before its first frame. At most
//! `files_max` exist. A file into which a reader still holds slices is unlinked instead of recycled, so that the reader's
//! bytes stay right.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::walk::Source;
use crate::io::{Disk, DiskFile, FileMap, OpenHow};
use crate::pinned::Pinned;

/// Bytes of zeros written at once.
const ZERO_CHUNK_BYTES: usize = 1024 * 1024;
/// Zeros are synced piece by piece: 64 MiB at once would hold up the WAL's own syncs for 30 ms and more.
const ZERO_SYNC_BYTES: u64 = 4 << 20;
/// Files that are kept ready for the committer, renamed and durable.
const READY_FILES: usize = 2;

/// One file of the WAL, open and mapped.
#[derive(Debug)]
pub struct WalFile {
    /// Its number, which is its name.
    pub sequence: u64,
    /// Its path.
    pub path: PathBuf,
    /// To write, sync and read it.
    pub file: Arc<dyn DiskFile>,
    /// All of it, mapped once.
    pub map: Arc<FileMap>,
    /// Its length.
    pub bytes: u64,
}

impl WalFile {
    /// Opens and maps a file of the WAL.
    pub fn open(disk: &dyn Disk, directory: &Path, sequence: u64) -> io::Result<WalFile> {
        let path = directory.join(file_name(sequence));
        let file = disk.open(&path, OpenHow::ReadWrite)?;
        let bytes = file.len()?;
        let map = file.map(bytes)?;
        Ok(WalFile {
            sequence,
            path,
            file,
            map,
            bytes,
        })
    }

    /// The file, to walk over its frames.
    pub fn source(&self) -> Source {
        Source {
            sequence: self.sequence,
            file: Arc::clone(&self.file),
            bytes: self.bytes,
        }
    }
}

/// What a file's name ends with while it is filled with zeros. A start removes what a power cut left of these.
pub const UNFINISHED_SUFFIX: &str = ".new";

/// The name of a WAL file.
pub fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.wal")
}

/// The sequence that a name stands for; None if it is no WAL file's name.
pub fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The pool of WAL files.
#[derive(Debug)]
pub struct WalPool {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    file_bytes: u64,
    files_min: usize,
    files_max: usize,
    inner: Mutex<Inner>,
    /// Held while a file is made ready: files become ready in the order of their sequences, though making one anew takes
    /// far longer than using one again.
    preparing: Mutex<()>,
    changed: Condvar,
    available: AtomicUsize,
    disk_full: AtomicBool,
    held_back: AtomicBool,
    stopped: AtomicBool,
    /// How many want files that are given back to be removed.
    discarding: AtomicUsize,
    created: AtomicU64,
    pinned: Pinned,
}

/// Files that are given back are removed, and not used again, while this lives.
#[derive(Debug)]
pub struct Discarding<'p>(&'p AtomicUsize);

impl Drop for Discarding<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct Inner {
    ready: VecDeque<Arc<WalFile>>,
    free: Vec<PathBuf>,
    files: usize,
    next_sequence: u64,
    /// No file below this sequence is taken any more.
    next_taken: u64,
    /// The fewest available since the last look at the surplus.
    fewest: usize,
}

impl Inner {
    /// A file was removed.
    fn forget_one(&mut self) {
        assert!(self.files > 0, "a file that is removed was counted");
        self.files -= 1;
    }
}

impl WalPool {
    /// A pool over the files that recovery found: `free` may be used again at once, `held` are still needed.
    pub fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        file_bytes: u64,
        files: std::ops::RangeInclusive<usize>,
        free: Vec<PathBuf>,
        held: usize,
        next_sequence: u64,
    ) -> WalPool {
        let inner = Inner {
            ready: VecDeque::new(),
            files: free.len() + held,
            free,
            next_sequence,
            next_taken: 0,
            fewest: 0,
        };
        let pool = WalPool {
            disk,
            directory,
            file_bytes,
            files_min: *files.start(),
            files_max: *files.end(),
            inner: Mutex::new(inner),
            preparing: Mutex::new(()),
            changed: Condvar::new(),
            available: AtomicUsize::new(0),
            disk_full: AtomicBool::new(false),
            held_back: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            discarding: AtomicUsize::new(0),
            created: AtomicU64::new(0),
            pinned: Pinned::default(),
        };
        pool.publish(&pool.locked());
        pool
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("nothing panics while it holds the pool")
    }

    fn publish(&self, inner: &Inner) {
        assert!(
            inner.ready.len() + inner.free.len() <= inner.files,
            "what is not in use is counted"
        );
        self.available
            .store(inner.ready.len() + inner.free.len(), Ordering::Release);
    }

    /// The length of each file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Files that may be written without asking the file system for space.
    pub fn available(&self) -> usize {
        self.available.load(Ordering::Acquire)
    }

    /// Files in all, in use or not.
    pub fn files(&self) -> usize {
        self.locked().files
    }

    /// Files that were made and filled with zeros since the start, and not used again.
    pub fn created(&self) -> u64 {
        self.created.load(Ordering::Relaxed)
    }

    /// Removed files that are read still, and their bytes.
    pub fn pinned(&self) -> (u64, u64) {
        self.pinned.held()
    }

    /// How long a file may become that this process writes.
    pub fn file_bytes_limit(&self) -> u64 {
        self.disk.file_bytes_max()
    }

    /// Whether the process may not write a whole file: room in the files is then no room.
    pub fn is_limited(&self) -> bool {
        self.file_bytes_limit() < self.file_bytes
    }

    /// Whether the last file could not be made because the disk is full.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Acquire)
    }

    /// Whether the pool is used up but for what is ready: the settler should hurry.
    pub fn is_short(&self) -> bool {
        let inner = self.locked();
        inner.free.is_empty() && inner.files * 4 >= self.files_max * 3
    }

    /// Takes the next file, if one is ready.
    pub fn take(&self) -> Option<Arc<WalFile>> {
        let mut inner = self.locked();
        let file = inner.ready.pop_front();
        if let Some(file) = &file {
            // Recovery reads the files in this order.
            assert!(
                file.sequence >= inner.next_taken,
                "files are taken in the order of their sequences"
            );
            assert!(
                file.bytes == self.file_bytes,
                "one of another length is made anew before it is used again"
            );
            inner.next_taken = file.sequence + 1;
        }
        inner.fewest = inner.fewest.min(inner.ready.len() + inner.free.len());
        self.publish(&inner);
        self.changed.notify_all();
        file
    }

    /// Waits until a file may be ready, or something else changed.
    pub fn wait(&self, at_most: std::time::Duration) {
        let inner = self.locked();
        if inner.ready.is_empty() {
            drop(
                self.changed
                    .wait_timeout(inner, at_most)
                    .expect("nothing panics while it holds the pool"),
            );
        }
    }

    /// Waits until a file is missing from those kept ready, or the time is over.
    pub fn wait_for_work(&self, at_most: std::time::Duration) {
        let inner = self.locked();
        if inner.ready.len() >= READY_FILES || !self.can_make(&inner) {
            drop(
                self.changed
                    .wait_timeout(inner, at_most)
                    .expect("nothing panics while it holds the pool"),
            );
        }
    }

    /// Waits until a file was given back, or the time is over.
    pub fn wait_for_space(&self, at_most: std::time::Duration) {
        let inner = self.locked();
        drop(
            self.changed
                .wait_timeout(inner, at_most)
                .expect("nothing panics while it holds the pool"),
        );
    }

    fn can_make(&self, inner: &Inner) -> bool {
        let may_create =
            !self.held_back.load(Ordering::Acquire) && !self.stopped.load(Ordering::Acquire);
        !inner.free.is_empty() || (may_create && inner.files < self.files_max)
    }

    /// Makes one more file ready, from a free one or anew. False if enough are ready, or the pool is at its bound.
    pub fn prepare_one(&self) -> io::Result<bool> {
        self.prepare(|inner| inner.ready.len() < READY_FILES && self.can_make(inner))
    }

    /// Makes one more file ready whether or not the pool is at its bound: for a start that has no file to write on.
    pub fn prepare_beyond_bound(&self) -> io::Result<bool> {
        self.prepare(|_| true)
    }

    fn prepare(&self, is_wanted: impl FnOnce(&Inner) -> bool) -> io::Result<bool> {
        let _one_at_a_time = self
            .preparing
            .lock()
            .expect("nothing panics while it makes a file ready");
        let (recycled, sequence) = {
            let mut inner = self.locked();
            if !is_wanted(&inner) {
                return Ok(false);
            }
            let sequence = inner.next_sequence;
            inner.next_sequence += 1;
            (inner.free.pop(), sequence)
        };
        let path = self.directory.join(file_name(sequence));
        let made = match &recycled {
            Some(old) if self.is_whole(old)? => self.disk.rename(old, &path),
            // Of another length: the setting was changed.
            Some(old) => self.disk.remove_file(old).and_then(|()| self.create(&path)),
            None => self.create(&path),
        };
        let opened = made
            .and_then(|()| self.disk.sync_dir(&self.directory))
            .and_then(|()| WalFile::open(self.disk.as_ref(), &self.directory, sequence));
        let mut inner = self.locked();
        match opened {
            Ok(file) => {
                inner.files += usize::from(recycled.is_none());
                self.created
                    .fetch_add(u64::from(recycled.is_none()), Ordering::Relaxed);
                assert!(
                    inner
                        .ready
                        .back()
                        .is_none_or(|ready| ready.sequence < sequence),
                    "files become ready in the order of their sequences"
                );
                inner.ready.push_back(Arc::new(file));
                self.disk_full.store(false, Ordering::Release);
                self.publish(&inner);
                self.changed.notify_all();
                Ok(true)
            }
            Err(error) => {
                if is_full(&error) {
                    self.disk_full.store(true, Ordering::Release);
                }
                if let Some(old) = recycled {
                    // One of another length was removed, and nothing came in its place.
                    match self.disk.exists(&old) {
                        Ok(false) => inner.forget_one(),
                        _ => inner.free.push(old),
                    }
                }
                self.publish(&inner);
                Err(error)
            }
        }
    }

    fn is_whole(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk.open(path, OpenHow::Read)?.len()? == self.file_bytes)
    }

    /// A new file, all of it written with zeros and synced before it gets its name: a file that has one is whole. What was
    /// written of it goes again if that fails.
    fn create(&self, path: &Path) -> io::Result<()> {
        // What settles needs some space too, and gives files back. Nor is a disk written full to see that it is.
        if self.disk.free_bytes(&self.directory)? < self.file_bytes + self.file_bytes / 16 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut unfinished = path.to_owned().into_os_string();
        unfinished.push(UNFINISHED_SUFFIX);
        let unfinished = PathBuf::from(unfinished);
        let file = self.disk.open(&unfinished, OpenHow::CreateNew)?;
        let zeros = vec![0; ZERO_CHUNK_BYTES];
        let filled = (|| {
            let mut position = 0;
            while position < self.file_bytes {
                if self.stopped.load(Ordering::Acquire) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let bytes = ZERO_CHUNK_BYTES
                    .min(usize::try_from(self.file_bytes - position).unwrap_or(usize::MAX));
                file.write_at(position, &zeros[..bytes])?;
                position += bytes as u64;
                if position.is_multiple_of(ZERO_SYNC_BYTES) && position < self.file_bytes {
                    file.sync_data()?;
                }
            }
            file.sync_data()
        })();
        if filled.is_err() {
            self.disk.remove_file(&unfinished)?;
            return filled;
        }
        self.disk.rename(&unfinished, path)
    }

    /// Has files that are given back removed: what they hold is to be gone.
    pub fn discard(&self) -> Discarding<'_> {
        self.discarding.fetch_add(1, Ordering::AcqRel);
        Discarding(&self.discarding)
    }

    /// Takes a file back whose records have all settled. It is used again, unless a reader still holds slices of it, or it is to
    /// be discarded.
    pub fn give_back(&self, file: Arc<WalFile>) -> io::Result<()> {
        let held = Arc::strong_count(&file) > 1 || file.map.in_use();
        let discarded = self.discarding.load(Ordering::Acquire) > 0;
        if held || discarded || file.bytes != self.file_bytes {
            self.disk.remove_file(&file.path)?;
            self.pinned.note(&file.map, file.bytes);
            let mut inner = self.locked();
            inner.forget_one();
            self.changed.notify_all();
            return Ok(());
        }
        let mut inner = self.locked();
        assert!(
            !inner.free.contains(&file.path),
            "a file is given back once"
        );
        inner.free.push(file.path.clone());
        self.publish(&inner);
        self.changed.notify_all();
        Ok(())
    }

    /// Removes the files that were not needed since the last call, but for those that are always kept. Under a load that
    /// comes and goes, making files anew (each is written whole with zeros) would cost more than keeping them a while.
    pub fn trim(&self) -> io::Result<()> {
        let surplus = {
            let mut inner = self.locked();
            let unneeded = inner.fewest.saturating_sub(self.files_min);
            inner.fewest = inner.ready.len() + inner.free.len();
            unneeded
        };
        self.remove_free(surplus)
    }

    /// Removes what is not in use but for `keep` files: the space is needed elsewhere. Gives how many went. No file is made
    /// anew before there is space, see [`WalPool::hold_back`].
    pub fn give_up(&self, keep: usize) -> io::Result<usize> {
        // Nothing becomes ready meanwhile.
        let _one_at_a_time = self
            .preparing
            .lock()
            .expect("nothing panics while it makes a file ready");
        let mut count = 0;
        loop {
            let path = {
                let mut inner = self.locked();
                if inner.ready.len() + inner.free.len() <= keep {
                    return Ok(count);
                }
                let path = match inner.free.pop() {
                    Some(path) => path,
                    None => match inner.ready.pop_back() {
                        Some(file) => file.path.clone(),
                        None => return Ok(count),
                    },
                };
                inner.forget_one();
                self.publish(&inner);
                path
            };
            self.disk.remove_file(&path)?;
            count += 1;
        }
    }

    /// While this is set no file is made anew: what has to settle needs the space more.
    pub fn hold_back(&self, hold: bool) {
        self.held_back.store(hold, Ordering::Release);
        self.changed.notify_all();
    }

    /// No file is made any more, and one that is being made is given up.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn remove_free(&self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let Some(path) = ({
                let mut inner = self.locked();
                let path = inner.free.pop();
                self.publish(&inner);
                path
            }) else {
                return Ok(());
            };
            self.disk.remove_file(&path)?;
            self.locked().forget_one();
        }
        Ok(())
    }
}

/// Whether an error means that there is no space (or quota) left.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
