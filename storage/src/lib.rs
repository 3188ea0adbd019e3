//! The log engine: write-ahead log, segments, recovery, cleanup. No sockets, no protocol words, no consumer groups.
//!
//! [`Storage::open`] recovers a data directory; [`Storage::log`] gives a partition's [`Log`]; [`Log::append`] and
//! [`Log::read`] are the rest. All partitions' appends of one moment are one frame in the write-ahead log and one sync; the
//! settler moves them into segments later, off the path of the acks.

#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod acknowledged;
pub mod checkpoint;
pub mod cleanup;
mod config;
mod damage;
pub mod epochs;
mod error;
pub mod fields;
pub mod inspect;
pub mod io;
mod log;
pub mod manifest;
mod metrics;
mod pinned;
pub mod producers;
mod recovery;
pub mod scrub;
pub mod segment;
mod settler;
pub mod steady;
mod storage;
mod waiter;
pub mod wal;

pub use config::{Env, LiveSettings, OnFailure, StorageConfig, Threads};
pub use damage::Damage;
pub use error::{
    AppendError, DeleteRecordsError, OpenError, ReadError, StorageFailed, TimedOffset,
};
pub use fields::FormatError;
pub use io::{Clock, Disk, ManualClock, RealDisk, SystemClock};
pub use log::{AppendBatch, Appended, Bounds, Chunk, Durable, Log, LogSettings};
pub use metrics::{Health, Metrics};
pub use producers::{ProducerState, SequenceError};
pub use recovery::{Fate, RecoveryReport};
pub use storage::{EXIT_CODE_STORAGE_FAILED, Storage};
pub use waiter::Waiter;
pub use wal::gate::{Admission, AppendSize, Purpose};
pub use wal::stall::{AppendWaits, STALL_AFTER, SYNC_BUCKETS_MICROS, SyncDurations};
pub use wal::walk::TornTail;
