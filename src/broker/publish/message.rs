//! Messages as publishers bring them, and what their topic's rules say of each.

use std::ops::RangeInclusive;

use model::batch::{BatchBuilder, HeaderRef, RecordBody};
use model::topic_config::{MessageTimestampType, TopicConfig};
use model::{PartitionId, Timestamp};

use super::refusal::PublishRefusal;
use crate::broker::produce::{RecordFault, time_bounds};

/// What is to become a record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Message<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; None is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [HeaderRef<'a>],
    /// Its time; None is now.
    pub time: Option<Timestamp>,
}

/// A message, and where it goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing<'a> {
    /// The partition. None lets the key decide, or, without a key, the broker.
    pub partition: Option<PartitionId>,
    /// The message.
    pub message: Message<'a>,
}

impl Outgoing<'_> {
    /// Whether the broker chooses its partition.
    pub(super) fn is_keyless(&self) -> bool {
        self.partition.is_none() && self.message.key.is_none()
    }
}

impl<'a> Message<'a> {
    pub(super) fn body(&self) -> RecordBody<'a> {
        RecordBody {
            key: self.key,
            value: self.value,
            headers: self.headers,
        }
    }
}

/// A topic's rules at one moment, for one record at a time.
pub(super) struct Rules {
    keyed: bool,
    times: Option<RangeInclusive<Timestamp>>,
    bytes_max: u64,
}

impl Rules {
    /// The rules of a topic in a store that takes batches of so many bytes at most.
    pub fn of(config: &TopicConfig, now: Timestamp, store_bytes_max: u64) -> Rules {
        let stamps = config.message_timestamp_type == MessageTimestampType::LogAppendTime;
        let bounded = !stamps
            && (config.message_timestamp_before_max_ms.is_some()
                || config.message_timestamp_after_max_ms.is_some());
        Rules {
            keyed: config.cleanup_policy.compact,
            times: bounded.then(|| time_bounds(config, now)),
            bytes_max: config.max_message_bytes.min(store_bytes_max),
        }
    }

    /// What the record takes as a batch of its own; or why the topic does not take it.
    pub fn check(&self, message: &Message<'_>, now: Timestamp) -> Result<usize, PublishRefusal> {
        if self.keyed && message.key.is_none() {
            return Err(RecordFault::NoKey.into());
        }
        let timestamp = message.time.unwrap_or(now);
        if let Some(times) = &self.times
            && !times.contains(&timestamp)
        {
            let (oldest, newest) = (*times.start(), *times.end());
            return Err(RecordFault::Timestamp {
                timestamp,
                oldest,
                newest,
            }
            .into());
        }
        let bytes = BatchBuilder::alone_bytes(&message.body());
        if bytes as u64 > self.bytes_max {
            return Err(PublishRefusal::TooLarge {
                bytes: bytes as u64,
                bytes_max: self.bytes_max,
            });
        }
        Ok(bytes)
    }
}
