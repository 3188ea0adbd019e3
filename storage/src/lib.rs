//! The log engine: write-ahead log, segments, recovery, cleanup. No sockets, no protocol words, no consumer groups.
//!
//! [`Storage::open`] recovers a data directory; [`Storage::log`] gives a partition's [`Log`]; [`Log::append`] and
//! [`Log::read`] are the rest. All partitions' appends of one moment are one frame in the write-ahead log and one sync; the
//! settler moves them into segments later, off the path of the acks.

#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod acknowledged;
pub mod backup;
pub mod checkpoint;
pub mod cleanup;
mod components;
mod config;
mod damage;
mod data_dir;
mod demand;
mod downsample;
mod engine;
pub mod epochs;
mod error;
pub mod fields;
pub mod inspect;
pub mod io;
mod key_indexer;
mod log;
pub mod manifest;
mod metrics;
mod open;
mod pinned;
pub mod producers;
mod purge;
mod recovery;
mod registry;
pub mod repair;
pub mod rewrite;
#[cfg(test)]
mod sample_tests;
pub mod scrub;
pub mod segment;
mod settler;
mod signals;
pub mod steady;
mod storage;
mod waiter;
pub mod wal;

pub use cleanup::CompactionMetrics;
pub use components::{EXIT_CODE_STORAGE_FAILED, Env, OnFailure, Threads};
pub use config::{LiveSettings, StorageConfig};
pub use damage::Damage;
pub use downsample::{
    Downsample, DownsampleCounts, DownsampleError, DownsampledKeys, DownsampledWindow,
    Downsampling, Sources, Windows,
};
pub use error::{
    AppendAllError, AppendError, DeleteRecordsError, OpenError, ReadError, StorageFailed,
    TimedOffset,
};
pub use fields::FormatError;
pub use io::{Clock, Disk, ManualClock, RealDisk, SystemClock};
pub use log::{
    Appended, AppendedAll, Bounds, Chunk, Durable, GapReason, Log, LogAppend, LogScan, LogSettings,
    ScanCounts, ScanRange, Scanned, ToldLog,
};
pub use metrics::{Health, KeyIndexMetrics, Metrics};
pub use producers::{ProducerAccounts, ProducerState, SequenceError};
pub use purge::PurgeError;
pub use recovery::{Fate, RecoveryReport};
pub use segment::key_index::Sought;
pub use segment::summary::{Stats, WindowKey};
pub use storage::Storage;
pub use waiter::Waiter;
pub use wal::appends::{AppendBatch, AppendSize, GROUP_BATCHES_MAX, Purpose};
pub use wal::gate::Admission;
pub use wal::stall::{AppendWaits, STALL_AFTER, SYNC_BUCKETS_MICROS, SyncDurations};
pub use wal::walk::TornTail;
