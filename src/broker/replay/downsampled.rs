//! A topic in windows of time: what its records come to, per partition, key and window.
//!
//! Caller: a front. Each partition is told by the storage (`storage::Downsampling`), step by step on the blocking pool, within the
//! turns of all readers and what all decompression may hold. Invariant: what is known of windows takes [`WINDOWS_BYTES`] at
//! most, over all partitions; where that is too little the request is refused, and nothing was given of it.

use std::sync::Arc;

use model::topic_config::thin::{Selector, ValueAt};
use model::{PartitionId, Timestamp};
use storage::{Downsample, DownsampleCounts, DownsampleError, DownsampledKeys, Downsampling};
pub use storage::{DownsampledWindow, Sources, Stats, WindowKey};

use super::request::{KeyFilter, ReplayError, Scanned};
use crate::broker::access::{Caller, Granted, right};
use crate::broker::open_readers::ReaderName;
use crate::broker::{Broker, Refusal, Topic, read_refusal};

/// What the windows of one request may take in memory.
pub const WINDOWS_BYTES: usize = 64 << 20;
/// Stored bytes that are read before others have their turn.
const TURN_BYTES: u64 = 1 << 20;

/// What is asked of a topic.
#[derive(Clone, Debug)]
pub struct DownsampleRequest {
    /// The length of windows, in milliseconds: 1 or more.
    pub window_ms: i64,
    /// Which partitions; None for all.
    pub partitions: Option<Vec<PartitionId>>,
    /// Windows that overlap with times from here on; None for all.
    pub from: Option<Timestamp>,
    /// Windows that overlap with times before; None for all.
    pub to: Option<Timestamp>,
    /// Which keys; None for all, and for records without one.
    pub key: Option<KeyFilter>,
    /// Which values.
    pub values: Vec<ValueAt>,
}

/// What a topic came to.
#[derive(Debug, Default)]
pub struct Downsampled {
    /// The windows, by partition, key and beginning.
    pub windows: Vec<(PartitionId, WindowKey, DownsampledWindow)>,
    /// How much was looked at.
    pub scanned: Scanned,
    /// Windows of summaries that were taken in.
    pub summed_windows: u64,
    /// Ranges of offsets that are lost or hold no records that can be read.
    pub gaps: u64,
}

impl Downsampled {
    fn count(&mut self, counts: DownsampleCounts) {
        self.scanned.records += counts.records;
        self.scanned.bytes += counts.bytes;
        self.scanned.skipped_bytes += counts.skipped_bytes;
        self.summed_windows += counts.summed_windows;
        self.gaps += counts.gaps;
    }
}

/// Why a topic is not told in windows.
#[derive(Debug, thiserror::Error)]
pub enum DownsampleRefusal {
    /// It cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// There are more windows than memory for them.
    #[error(
        "the answer takes more than {} MiB: ask for longer windows, fewer keys or a shorter time",
        WINDOWS_BYTES >> 20
    )]
    TooManyWindows,
    /// Cleanup replaces what is read, again and again.
    #[error("cleanup is at work on what is read; ask again in a moment")]
    Unsettled,
}

impl From<Refusal> for DownsampleRefusal {
    fn from(refusal: Refusal) -> DownsampleRefusal {
        ReplayError::from(refusal).into()
    }
}

impl From<DownsampleError> for DownsampleRefusal {
    fn from(error: DownsampleError) -> DownsampleRefusal {
        match error {
            DownsampleError::Read(error) => read_refusal(error).into(),
            DownsampleError::TooMany { .. } => DownsampleRefusal::TooManyWindows,
            DownsampleError::Unsettled => DownsampleRefusal::Unsettled,
        }
    }
}

impl Broker {
    /// The values that a topic's thinning looks at, by which its summaries are kept. None if it is not thinned.
    pub fn thinned_values(&self, topic: &Granted<Arc<Topic>, right::Read>) -> Vec<ValueAt> {
        let log = topic.partitions().next().map(|first| topic.log(first));
        let Some(Ok(log)) = log else {
            return Vec::new();
        };
        let mut values: Vec<ValueAt> = Vec::new();
        let tiers = log.settings().thinning.clone();
        let first = tiers.iter().flat_map(|tiers| tiers.tiers().first());
        for selector in first.flat_map(|tier| &tier.keep) {
            let value = match selector {
                Selector::Min(value) | Selector::Max(value) => value,
                Selector::Change { value, .. } => value,
                Selector::First | Selector::Last | Selector::If(_) => continue,
            };
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
        values
    }

    /// Tells a topic in windows of time. What is appended meanwhile need not be in them. Of what is removed before it was looked at, the
    /// loss ledger says that the caller was overtaken.
    pub async fn downsample(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
        request: DownsampleRequest,
        caller: &Caller,
    ) -> Result<Downsampled, DownsampleRefusal> {
        let times = (request.from.is_some() || request.to.is_some()).then(|| {
            let from = request.from.unwrap_or(Timestamp::from_millis(i64::MIN));
            from..request.to.unwrap_or(Timestamp::from_millis(i64::MAX))
        });
        let mut ask = Downsample {
            window_ms: request.window_ms,
            times,
            keys: match request.key {
                None => DownsampledKeys::All,
                Some(KeyFilter::Is(key)) => DownsampledKeys::Is(key),
                Some(KeyFilter::Prefix(prefix)) => DownsampledKeys::Prefix(prefix),
            },
            values: request.values,
            memory_bytes: WINDOWS_BYTES,
        };
        let mut found = Downsampled::default();
        let mut partitions = Vec::new();
        let who = ReaderName::of(caller);
        for partition in super::partitions_of(topic, request.partitions)? {
            let log = topic.log(partition)?;
            let open = self.open_reader(&who, log.id(), log.bounds().start);
            partitions.push((partition, log, open));
        }
        for (partition, log, open) in partitions {
            let mut steps = log.downsample(Arc::new(ask.clone()));
            let mut is_over = false;
            while !is_over {
                let gaps = steps.counts().gaps;
                (steps, is_over) = self.downsample_on(steps).await?;
                if steps.counts().gaps > gaps {
                    self.note_new_damage();
                }
                open.is_at(steps.next_offset());
            }
            found.count(steps.counts());
            let (windows, bytes) = steps.into_windows();
            ask.memory_bytes = ask.memory_bytes.saturating_sub(bytes);
            let windows = windows.into_iter();
            found
                .windows
                .extend(windows.map(|(at, window)| (partition, at, window)));
        }
        Ok(found)
    }

    /// A step, and whether it was the last.
    async fn downsample_on(
        &self,
        mut steps: Downsampling,
    ) -> Result<(Downsampling, bool), DownsampleRefusal> {
        let shared = &self.shared;
        let _turn = shared.readers.turn().await;
        let work = move || {
            let stepped = steps.step(TURN_BYTES);
            stepped.map(|is_over| (steps, is_over))
        };
        Ok(shared.inflation.run_any(work).await?)
    }
}
