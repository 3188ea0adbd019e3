//! A batch that is being filled, and one that is to be appended.

use std::sync::Arc;

use model::batch::{Batch, BatchBuilder, BuildError, Codec, Compression, HEADER_BYTES};
use model::topic_config::{CompressionType, MessageTimestampType, TopicConfig};
use model::{PartitionId, Timestamp};
use tokio::sync::OwnedSemaphorePermit;

use super::message::Message;
use super::outcome::{Promise, Publishing};
use super::refusal::PublishRefusal;
use crate::broker::catalog::Topic;
use crate::broker::{Refusal, on_blocking_pool};

/// A batch is closed at this size, or at half of what its topic and the store take if that is less, so that in whatever codec it is
/// no longer than it may be. A larger record has a batch of its own. It is a little more than a block of the segment's index, which ends
/// with the batch that brings it to 16 KiB: a replay of one key reads the blocks that hold it, and no less than a batch.
const BATCH_BYTES: usize = 17 << 10;
/// The same where the batch is compressed, which takes more to be worth it and less on the disk.
const COMPRESSED_BATCH_BYTES: usize = 128 << 10;
/// What length, timestamp and offset of a record may take more than they do in a batch of its own.
const VARINTS_BYTES_MAX: usize = 20;
/// To encode more takes longer than to hand it over: it is done elsewhere.
const ENCODED_HERE_BYTES_MAX: usize = 8 << 10;

/// A batch that takes records.
#[derive(Debug)]
pub(super) struct OpenBatch {
    /// The topic as it was when the batch was opened: all its records are written by these settings.
    pub topic: Arc<Topic>,
    builder: BatchBuilder,
    bytes_max: usize,
    /// What a batch with one record may have, and any batch when it is encoded.
    encoded_bytes_max: u64,
    /// Whether a record went here because it has no key.
    pub holds_keyless: bool,
    /// The part of the budget that its records take.
    permit: Option<OwnedSemaphorePermit>,
    promise: Promise,
}

/// A batch that is encoded, with what is owed to those who wait for it.
#[derive(Debug)]
pub(super) struct Encoded {
    pub topic: Arc<Topic>,
    pub batch: Batch,
    pub permit: Option<OwnedSemaphorePermit>,
    pub promise: Promise,
}

impl OpenBatch {
    /// An empty one with room for so many bytes, in a store that takes batches of `store_bytes_max` at most.
    pub fn new(topic: Arc<Topic>, bytes: usize, store_bytes_max: u64) -> OpenBatch {
        let config = &topic.config;
        let encoded_bytes_max = config.max_message_bytes.min(store_bytes_max);
        let bytes_max = usize::try_from(encoded_bytes_max / 2).unwrap_or(usize::MAX);
        let compression = compression(config);
        let bytes_max = bytes_max.min(match compression.codec {
            Codec::None => BATCH_BYTES,
            _ => COMPRESSED_BATCH_BYTES,
        });
        OpenBatch {
            builder: BatchBuilder::with_capacity(compression, bytes.min(bytes_max)),
            topic,
            bytes_max,
            encoded_bytes_max,
            holds_keyless: false,
            permit: None,
            promise: Promise::default(),
        }
    }

    /// Whether a record that takes `alone_bytes` as a batch of its own goes into this one.
    pub fn takes(&self, topic: &Arc<Topic>, alone_bytes: usize) -> bool {
        let bytes = alone_bytes - HEADER_BYTES + VARINTS_BYTES_MAX;
        Arc::ptr_eq(topic, &self.topic)
            && (self.builder.is_empty() || self.builder.plain_bytes() + bytes <= self.bytes_max)
    }

    /// Adds a record, which the caller has checked, and which this batch takes.
    pub fn push(
        &mut self,
        partition: PartitionId,
        message: &Message<'_>,
        now: Timestamp,
    ) -> Result<Publishing, PublishRefusal> {
        let index = self.builder.record_count();
        let time = message.time.unwrap_or(now);
        self.builder
            .push_body(time, message.body())
            .map_err(|_| PublishRefusal::TooLarge {
                bytes: BatchBuilder::alone_bytes(&message.body()) as u64,
                bytes_max: i32::MAX.unsigned_abs().into(),
            })?;
        let index = u32::try_from(index).expect("a batch counts its records by i32");
        Ok(self.promise.publishing(partition, index))
    }

    /// Holds a part of the budget until its records are the store's.
    pub fn pay(&mut self, permit: Option<OwnedSemaphorePermit>) {
        match (&mut self.permit, permit) {
            (Some(held), Some(more)) => held.merge(more),
            (held @ None, more) => *held = more,
            (Some(_), None) => {}
        }
    }

    /// Its size so far, before it is compressed.
    pub fn plain_bytes(&self) -> usize {
        self.builder.plain_bytes()
    }

    /// Encodes it as [`OpenBatch::encode`] does, on the blocking pool if that takes long.
    pub async fn encoded(self, now: Timestamp) -> Option<Encoded> {
        encode_fitly(self.compressed_bytes(), move || self.encode(now)).await
    }

    /// How many bytes a codec has to go over: what is not compressed is written as it stands.
    pub fn compressed_bytes(&self) -> usize {
        match self.is_compressed() {
            true => self.plain_bytes(),
            false => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    fn is_compressed(&self) -> bool {
        compression(&self.topic.config).codec != Codec::None
    }

    /// Encodes it, with `now` as the time of all records if the topic wants that. Otherwise tells those who wait why not.
    pub fn encode(mut self, now: Timestamp) -> Option<Encoded> {
        let config = &self.topic.config;
        if config.message_timestamp_type == MessageTimestampType::LogAppendTime {
            self.builder.append_time(now);
        }
        let bytes_max = self.encoded_bytes_max;
        let batch = built(self.builder, bytes_max);
        match batch {
            Ok(batch) => Some(Encoded {
                topic: self.topic,
                batch,
                permit: self.permit,
                promise: self.promise,
            }),
            Err(refusal) => {
                self.promise.keep(Err(refusal.into()));
                None
            }
        }
    }
}

/// Encodes so many bytes here, or on the blocking pool if they are many.
pub(super) async fn encode_fitly<T: Send + 'static>(
    bytes: usize,
    encode: impl FnOnce() -> T + Send + 'static,
) -> T {
    match bytes > ENCODED_HERE_BYTES_MAX {
        true => on_blocking_pool(encode).await,
        false => encode(),
    }
}

/// Of messages that a codec made longer than their topic takes.
pub(super) fn too_long(config: &TopicConfig) -> PublishRefusal {
    let bytes_max = config.max_message_bytes;
    let bytes = bytes_max + 1;
    PublishRefusal::TooLarge { bytes, bytes_max }
}

fn built(builder: BatchBuilder, bytes_max: u64) -> Result<Batch, Refusal> {
    let bytes = builder.build().map_err(|error| match error {
        BuildError::Empty => unreachable!("a batch without records is not closed"),
        BuildError::TooLarge { bytes } => Refusal::BatchTooLarge {
            bytes: bytes as u64,
            bytes_max,
        },
        BuildError::Codec(error) => Refusal::CorruptBatch(error.into()),
    })?;
    if bytes.len() as u64 > bytes_max {
        let bytes = bytes.len() as u64;
        return Err(Refusal::BatchTooLarge { bytes, bytes_max });
    }
    Batch::parse_unverified(bytes).map_err(Refusal::CorruptBatch)
}

/// How the topic's batches are compressed: as it says, and otherwise not, because a publisher does not say.
fn compression(config: &TopicConfig) -> Compression {
    match config.compression_type {
        CompressionType::Producer => Codec::None.into(),
        CompressionType::Fixed(target) => target,
    }
}
