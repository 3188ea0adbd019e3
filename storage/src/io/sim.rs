//! A disk in memory that behaves as badly as real ones may: the exam's power cuts run on it.
//!
//! Callers: tests, here and in other crates. Every file has what is durable and what the process sees; what lies between is
//! a set of dirty 512-byte sectors that a power cut keeps, drops or tears, each by itself. Names are the same: creations,
//! renames and removals are pending until their directory is synced, and a power cut keeps some of them.
//! It can be full, and the process can be short of descriptors.
//! What is in memory is known by the sector: what was written, unless past the page cache, and what was read.
//! A failed sync behaves as the kernel's: the sectors are clean afterwards, and never reach the disk.
//! Invariant: everything is decided by seeds, so that a run can be repeated.

mod disk;
mod file;
mod names;
mod world;

pub use disk::SimDisk;

/// What a power cut keeps or loses as one.
pub const SECTOR_BYTES: usize = 512;

/// What a directory takes of the disk's capacity, and what a file's length is rounded up to.
pub const BLOCK_BYTES: u64 = 4096;

/// What a process may ask of the disk, for choosing where it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `open` without creating.
    Open,
    /// `open` that creates.
    Create,
    /// `read_at`.
    Read,
    /// `write_vectored_at`.
    Write,
    /// `sync_data`.
    SyncData,
    /// `set_len`.
    SetLen,
    /// `create_dir_all`.
    CreateDir,
    /// `sync_dir`.
    SyncDir,
    /// `FileSystem::sync`.
    SyncFilesystem,
    /// `rename` and `link`.
    Rename,
    /// `remove_file` and `remove_dir`.
    Remove,
}

impl Operation {
    /// Whether it may change what is on the disk: these are counted, and a power cut can be set at each.
    fn changes(self) -> bool {
        !matches!(self, Operation::Open | Operation::Read)
    }
}

/// An error that the disk gives on purpose.
#[derive(Clone, Debug)]
pub struct Fault {
    /// At which operation.
    pub operation: Operation,
    /// On paths that contain this.
    pub path_contains: String,
    /// How many matching operations go well before.
    pub skip: u64,
    /// How many fail then.
    pub times: u64,
    /// With which `errno`.
    pub errno: i32,
}

#[cfg(test)]
mod tests;
