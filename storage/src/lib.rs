//! The log engine: write-ahead log, segments, recovery, cleanup. No sockets, no protocol words, no consumer groups.
//!
//! [`Storage::open`] recovers a data directory; [`Storage::log`] gives a partition's [`Log`]; [`Log::append`] and
//! [`Log::read`] are the rest. All partitions' appends of one moment are one frame in the write-ahead log and one sync; the
//! settler lays them down into segments later, off the path of the acks.

#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod acknowledged;
pub mod checkpoint;
mod cleaner;
pub mod cleanup;
mod committer;
pub mod epochs;
mod error;
pub mod fields;
mod gate;
pub mod inspect;
pub mod io;
mod live;
mod log;
pub mod manifest;
mod newer;
mod orphans;
mod pinned;
pub mod producers;
mod recovery;
mod restore;
pub mod scrub;
pub mod segment;
mod segments;
mod settler;
mod stall;
pub mod steady;
mod storage;
mod waiter;
pub mod wal;

pub use error::{
    AppendError, DeleteRecordsError, OpenError, ReadError, StorageFailed, TimedOffset,
};
pub use fields::FormatError;
pub use gate::{Admission, AppendSize, Purpose};
pub use io::{Clock, Disk, ManualClock, RealDisk, SystemClock};
pub use live::LiveSettings;
pub use log::{AppendBatch, Appended, Bounds, Chunk, Durable, Log, LogSettings};
pub use orphans::Fate;
pub use producers::{ProducerState, SequenceError};
pub use recovery::{Damage, RecoveryReport};
pub use stall::{AppendWaits, STALL_AFTER, SYNC_BUCKETS_MICROS, SyncDurations};
pub use storage::{
    EXIT_CODE_STORAGE_FAILED, Env, Health, Metrics, OnFailure, Storage, StorageConfig, Threads,
};
pub use waiter::Waiter;
pub use wal::walk::TornTail;
