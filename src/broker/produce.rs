//! Produce: checks a batch against its topic's rules, appends it, and knows when it is durable.
//! Callers: fronts. Invariants: what the producer sent is stored byte for byte, but for what the topic asks for (log append
//! time, another codec). Records are only decompressed where a rule needs to see them.
//! Source of the checks: Kafka's `LogValidator` and `ProduceRequest.validateRecords`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use model::batch::{
    Batch, BatchError, Codec, DecompressLimit, TimestampType, recompress, records_summary,
    with_log_append_time,
};
use model::topic_config::{CompressionType, MessageTimestampType, TopicConfig};
use model::{Offset, PartitionId, ProducerId, Timestamp};
use storage::{AppendBatch, Durable, Log};

use super::access::{Granted, right};
use super::catalog::Topic;
use super::inflation::TooLarge;
use super::producer_ids::NotClaimed;
use super::refusal::{InvalidRecord, InvalidTimestamp, StorageFault, UnsupportedCompression};
use super::{Broker, Refusal};

/// Records up to this size that need no decompression are looked at where the request runs: it takes less than handing them
/// to another thread.
const LOOKED_AT_BYTES_MAX: usize = 32 << 10;

/// One partition's records, as they came.
#[derive(Debug)]
pub struct Produce<'a> {
    /// The topic.
    pub topic: Granted<Arc<Topic>, right::Write>,
    /// The partition.
    pub partition: PartitionId,
    /// Exactly one batch.
    pub records: Bytes,
    /// On whose account the producers are that the partition comes to remember; nobody's if None.
    pub owner: Option<&'a str>,
    /// What the client waits for.
    pub acks: Acks,
    /// Which codecs clients of this one's version can read.
    pub codecs: KnownCodecs,
}

/// What a producer waits for. What is answered is durable in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Nothing: there is no answer.
    None,
    /// One replica.
    Leader,
    /// As many replicas as `min.insync.replicas` asks for.
    All,
}

/// The codecs that a version of a protocol knows: a batch in another one could not be read by its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownCodecs {
    /// All but zstd.
    BeforeZstd,
    /// All.
    All,
}

/// A record that is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError {
    /// Its place in the batch, from 0.
    pub index: u32,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// It has no key, and the topic is compacted.
    #[error("a compacted topic takes no record without a key")]
    NoKey,
    /// Its timestamp is too far from now.
    #[error("timestamp {timestamp} is outside {oldest} to {newest}, which the topic takes")]
    Timestamp {
        /// Its timestamp.
        timestamp: Timestamp,
        /// The earliest that the topic takes now.
        oldest: Timestamp,
        /// The latest that the topic takes now.
        newest: Timestamp,
    },
}

/// Why a batch is refused, and because of which records.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// Why.
    pub refusal: Refusal,
    /// Which records, where that can be told.
    pub records: Vec<RecordError>,
}

impl<R: Into<Refusal>> From<R> for Rejection {
    fn from(refusal: R) -> Rejection {
        Rejection {
            refusal: refusal.into(),
            records: Vec::new(),
        }
    }
}

/// A batch that has its offsets, and is not durable yet.
#[derive(Debug)]
pub struct Appending {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// When the broker stamped it, where the topic wants that.
    pub log_append_time: Option<Timestamp>,
    /// The partition's first offset.
    pub start_offset: Offset,
    durable: Durable,
}

impl Appending {
    /// Returns when the batch is as durable as its topic promises.
    pub async fn durable(self) -> Result<(), Refusal> {
        Ok(self.durable.await.map_err(StorageFault::Sync)?)
    }
}

impl Broker {
    /// Checks and appends. When this returns the batch has its place; that it is durable is told by [`Appending::durable`].
    pub async fn produce(&self, produce: Produce<'_>) -> Result<Appending, Rejection> {
        let appending = self.append(produce).await;
        if appending.is_err() {
            self.shared.refused.fetch_add(1, Relaxed);
        }
        appending
    }

    async fn append(&self, produce: Produce<'_>) -> Result<Appending, Rejection> {
        let config = &produce.topic.config;
        let log = produce.topic.log(produce.partition)?;
        if produce.acks == Acks::All && config.min_insync_replicas > 1 {
            return Err(Refusal::NotEnoughReplicas {
                min_insync_replicas: config.min_insync_replicas,
            }
            .into());
        }
        let batch = check_batch(produce.records, config, produce.codecs)?;
        let adopted = self.claim_producer(produce.owner, &batch, log)?;
        let now = self.shared.storage.clock().now();
        let batch = self.shape(batch, config, now).await?;
        let log_append_time =
            (config.message_timestamp_type == MessageTimestampType::LogAppendTime).then_some(now);
        let records = u64::try_from(batch.header().record_count).unwrap_or(0);
        let bytes = batch.bytes().len() as u64;
        let admission = self.shared.storage.admit(batch.bytes().len()).await;
        let appended = log.append(vec![AppendBatch::from(batch)], admission);
        if let (Err(_), Some(id)) = (&appended, adopted) {
            self.shared.producer_ids.owners().disown(id);
        }
        let appended = appended.map_err(super::append_refusal)?;
        if !appended.duplicate {
            produce.topic.traffic.appended(records, bytes);
        }
        Ok(Appending {
            base_offset: appended.base_offset,
            log_append_time,
            start_offset: appended.start_offset,
            durable: appended.durable,
        })
    }

    /// Sees that a batch's producer is on the account of who brings it, and not on another's: the id, if it was on nobody's before. A
    /// partition that knows a producer takes what comes of it, whoever brings it.
    fn claim_producer(
        &self,
        owner: Option<&str>,
        batch: &Batch,
        log: &Log,
    ) -> Result<Option<ProducerId>, Refusal> {
        let (Some(owner), Some((id, ..))) = (owner, batch.header().producer()) else {
            return Ok(None);
        };
        match self.shared.producer_ids.owners().claim(id, owner) {
            Ok(is_adopted) => Ok(is_adopted.then_some(id)),
            Err(_) if log.knows_producer(id) => Ok(None),
            Err(NotClaimed::Others) => Err(Refusal::ForeignProducerId { id }),
            Err(NotClaimed::TooMany(count)) => Err(too_many_producers(count)),
        }
    }

    /// Makes of a batch what its topic stores: looks into the records where a rule asks for it.
    async fn shape(
        &self,
        batch: Batch,
        config: &TopicConfig,
        now: Timestamp,
    ) -> Result<Batch, Rejection> {
        let stamps = config.message_timestamp_type == MessageTimestampType::LogAppendTime;
        let bounded = !stamps
            && (config.message_timestamp_before_max_ms.is_some()
                || config.message_timestamp_after_max_ms.is_some());
        let target = match config.compression_type {
            CompressionType::Producer => None,
            CompressionType::Fixed(target) => {
                Some(target).filter(|target| batch.header().codec() != Ok(target.codec))
            }
        };
        let checks = Checks {
            everything: self.config().validate_records,
            times: bounded,
            keys: config.cleanup_policy.compact,
        };
        let validate = checks.any();
        let is_plain = batch.header().codec() == Ok(Codec::None);
        let batch = if is_plain && target.is_none() && batch.bytes().len() <= LOOKED_AT_BYTES_MAX {
            if validate {
                let limit = DecompressLimit::default();
                check_records(&batch, config, checks, now, limit).map_err(Rejection::from)?;
            }
            batch
        } else if validate || target.is_some() {
            let max_message_bytes = config.max_message_bytes;
            let config = config.clone();
            let bytes = batch.bytes().len();
            let work = move |limit: DecompressLimit, is_last: bool| {
                if validate {
                    match check_records(&batch, &config, checks, now, limit) {
                        Ok(()) => {}
                        Err(Fault::TooLarge(_)) if !is_last => return Err(TooLarge),
                        Err(fault) => return Ok(Err(fault.into())),
                    }
                }
                let Some(target) = target else {
                    return Ok(Ok(batch.clone()));
                };
                match recompress(&batch, target, limit).and_then(Batch::parse) {
                    Ok(batch) => Ok(Ok(batch)),
                    Err(error) if TooLarge::is(&error) && !is_last => Err(TooLarge),
                    Err(error) => Ok(Err(Rejection::from(Refusal::CorruptBatch(error)))),
                }
            };
            let batch = self.shared.inflation.run(bytes, work).await?;
            let bytes = batch.bytes().len() as u64;
            if bytes > max_message_bytes {
                return Err(Rejection::from(Refusal::BatchTooLarge {
                    bytes,
                    bytes_max: max_message_bytes,
                }));
            }
            batch
        } else {
            batch
        };
        if !stamps {
            return Ok(batch);
        }
        let stamped = with_log_append_time(&batch, now);
        Batch::parse_unverified(stamped).map_err(|error| Refusal::CorruptBatch(error).into())
    }
}

fn too_many_producers(count: u64) -> Refusal {
    Refusal::TooManyProducers {
        count,
        setting: "producer.ids.per.principal.max",
        idle_minutes: 60,
    }
}

/// What the header alone can tell.
fn check_batch(
    records: Bytes,
    config: &TopicConfig,
    codecs: KnownCodecs,
) -> Result<Batch, Refusal> {
    if records.is_empty() {
        return Err(InvalidRecord::NotOneBatch.into());
    }
    let bytes = records.len() as u64;
    if let Some(length) = model::batch::peek_len(&records)
        && length < records.len()
    {
        return Err(InvalidRecord::NotOneBatch.into());
    }
    if bytes > config.max_message_bytes {
        return Err(Refusal::BatchTooLarge {
            bytes,
            bytes_max: config.max_message_bytes,
        });
    }
    // An older format is somebody's records, a newer one nobody's.
    if records
        .get(16)
        .is_some_and(|magic| i8::from_be_bytes([*magic]) < model::batch::MAGIC)
    {
        return Err(InvalidRecord::OldFormat.into());
    }
    let batch = Batch::parse(records).map_err(|error| match error {
        BatchError::Truncated { .. } | BatchError::Count { .. } => {
            InvalidRecord::Malformed(error).into()
        }
        _ => Refusal::CorruptBatch(error),
    })?;
    let header = batch.header();
    if header.base_offset != 0 {
        return Err(InvalidRecord::BaseOffset.into());
    }
    if header.record_count <= 0
        || i64::from(header.record_count) != i64::from(header.last_offset_delta) + 1
    {
        return Err(InvalidRecord::Count.into());
    }
    if header.is_control() {
        return Err(InvalidRecord::Control.into());
    }
    if header.is_transactional() {
        return Err(Refusal::TransactionsUnsupported);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(InvalidTimestamp::LogAppendTime.into());
    }
    match (header.codec(), codecs) {
        (Err(error), _) => Err(UnsupportedCompression::Unknown(error).into()),
        (Ok(codec @ Codec::Zstd), KnownCodecs::BeforeZstd) => {
            Err(UnsupportedCompression::NewerThanClient { codec }.into())
        }
        (Ok(_), _) => Ok(batch),
    }
}

/// What is wrong with records.
enum Fault {
    /// They are larger than this look at them may hold.
    TooLarge(Rejection),
    /// Anything else.
    Rejected(Rejection),
}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Fault {
        Fault::Rejected(rejection)
    }
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Rejection {
        match fault {
            Fault::TooLarge(rejection) | Fault::Rejected(rejection) => rejection,
        }
    }
}

/// Which of the rules ask for a look at the records.
#[derive(Clone, Copy)]
struct Checks {
    /// Whether the header's largest timestamp is the records'.
    everything: bool,
    /// Whether timestamps are near enough.
    times: bool,
    /// Whether each record has a key.
    keys: bool,
}

impl Checks {
    fn any(self) -> bool {
        self.everything || self.times || self.keys
    }
}

/// What only the records can tell.
fn check_records(
    batch: &Batch,
    config: &TopicConfig,
    checks: Checks,
    now: Timestamp,
    limit: DecompressLimit,
) -> Result<(), Fault> {
    let malformed = |error: BatchError| Rejection::from(InvalidRecord::Malformed(error));
    let summary = records_summary(batch, limit).map_err(|error| match TooLarge::is(&error) {
        true => Fault::TooLarge(malformed(error)),
        false => Fault::Rejected(malformed(error)),
    })?;
    if (checks.everything || checks.times)
        && let Some((_, largest)) = summary.max_timestamp
        && largest != batch.header().max_time()
    {
        let refusal = InvalidRecord::MaxTimestamp {
            header: batch.header().max_time(),
            records: largest,
        };
        return Err(Fault::Rejected(refusal.into()));
    }
    let times = checks.times.then(|| time_bounds(config, now));
    let inside = |time: Timestamp| times.as_ref().is_none_or(|times| times.contains(&time));
    let extremes = summary
        .min_timestamp
        .into_iter()
        .chain(summary.max_timestamp.map(|(_, time)| time));
    let is_keyed = !checks.keys || summary.first_without_key.is_none();
    if is_keyed && extremes.into_iter().all(inside) {
        return Ok(());
    }
    let mut errors = Vec::new();
    let mut records = batch.records(limit).map_err(malformed)?;
    for index in 0u32.. {
        let Some(record) = records.next_ref() else {
            break;
        };
        let record = record.map_err(malformed)?;
        // A record without a key is told for that alone.
        if checks.keys && record.key.is_none() {
            let fault = RecordFault::NoKey;
            errors.push(RecordError { index, fault });
        } else if let Some(times) = times.as_ref()
            && !times.contains(&record.timestamp)
        {
            let fault = RecordFault::Timestamp {
                timestamp: record.timestamp,
                oldest: *times.start(),
                newest: *times.end(),
            };
            errors.push(RecordError { index, fault });
        }
    }
    let without_key = |error: &RecordError| error.fault == RecordFault::NoKey;
    let refusal = if errors.iter().all(without_key) {
        InvalidRecord::NoKey {
            count: errors.len(),
        }
        .into()
    } else {
        InvalidTimestamp::Outside.into()
    };
    Err(Fault::Rejected(Rejection {
        refusal,
        records: errors,
    }))
}

/// The timestamps that the topic takes now.
pub(super) fn time_bounds(config: &TopicConfig, now: Timestamp) -> RangeInclusive<Timestamp> {
    let bound = |limit: Option<u64>| {
        limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
    };
    let oldest = now.plus_millis(-bound(config.message_timestamp_before_max_ms));
    let newest = now.plus_millis(bound(config.message_timestamp_after_max_ms));
    oldest..=newest
}
