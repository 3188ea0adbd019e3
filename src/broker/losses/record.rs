//! Records of the loss ledger: an entry for each loss, JSON under a key with its number. Drawn in `docs/formats.md`.
//!
//! Caller: the ledger; fronts show entries. Invariant: an entry is written in the least version that says all of it.

use std::sync::Arc;

use bytes::Bytes;
use model::state_log::{LOSS_KEY_HEAD, LOSSES_VERSION, StateLogKind};
use model::{LogId, PartitionId, TopicId};
use serde::{Deserialize, Serialize};

use crate::broker::state_log::{Change, StateRecord};

/// What took the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Retention, by time or size.
    Retention,
    /// The bound of the whole store.
    StoreBound,
    /// Somebody deleted them.
    DeleteRecords,
    /// They are damaged.
    Damage,
    /// Somebody had the records of their keys erased.
    Erasure,
    /// Compaction: there is a later record of the key.
    Compaction,
    /// Thinning.
    Thinning,
    /// Somebody deleted the topic.
    TopicDeleted,
    /// The group has given them up, and they have no dead letters.
    GivenUp,
}

impl Cause {
    /// Whether it takes the front of a partition, which then begins later.
    pub(super) fn takes_front(self) -> bool {
        match self {
            Cause::Retention | Cause::StoreBound | Cause::DeleteRecords => true,
            Cause::Damage
            | Cause::Erasure
            | Cause::Compaction
            | Cause::Thinning
            | Cause::TopicDeleted
            | Cause::GivenUp => false,
        }
    }

    /// Whether what it takes lies between records that stay: all of it is one entry.
    pub(super) fn is_scattered(self) -> bool {
        matches!(self, Cause::Compaction | Cause::Thinning | Cause::GivenUp)
    }

    /// Whether a release that knows version 1 alone knows it.
    fn is_of_version_1(self) -> bool {
        self.takes_front() || matches!(self, Cause::Damage | Cause::Erasure)
    }
}

/// Who lost something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// A consumer group.
    Group(String),
    /// Somebody who was reading: who it is, in words.
    Reader(String),
}

/// What a group lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// First, in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    pub(super) version: u32,
    /// The entry's number; it rises.
    pub number: u64,
    /// The consumer group; None for a reader.
    pub group: Option<String>,
    /// Who was reading, without a group. Such an entry is of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
    /// The topic.
    pub topic: String,
    pub(super) topic_id: uuid::Uuid,
    /// The partition.
    pub partition: u32,
    /// The first offset that the group had not read.
    pub from: u64,
    /// The offset after the last one.
    pub to: u64,
    /// How many records; no more than so many, where compaction had been there before.
    pub records: u64,
    /// When the first of them was appended, as far as that is known.
    pub first_ms: Option<i64>,
    /// When the last of them was appended.
    pub last_ms: Option<i64>,
    /// When it was noted first.
    pub at_ms: i64,
    /// When it was noted last.
    pub until_ms: i64,
    /// What took them.
    pub cause: Cause,
    /// Why, in words.
    pub reason: String,
    /// The segment that was written last without them, for what compaction and thinning take. Such an entry is of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<String>,
}

impl Loss {
    pub(super) fn is_whose(&self, who: &Who) -> bool {
        match who {
            Who::Group(group) => self.group.as_ref() == Some(group),
            Who::Reader(reader) => self.reader.as_ref() == Some(reader),
        }
    }

    /// The least version that says all of it.
    pub(super) fn version_of(&self) -> u32 {
        let is_of_1 =
            self.group.is_some() && self.segment.is_none() && self.cause.is_of_version_1();
        match self.cause {
            Cause::GivenUp => LOSSES_VERSION,
            _ if is_of_1 => 1,
            _ => 2,
        }
    }

    /// Whether somebody deleted the front of this log.
    pub(in crate::broker) fn is_deleted_from(&self, log: LogId) -> bool {
        self.cause == Cause::DeleteRecords && self.is_of(log.topic_id, log.partition)
    }

    /// Whether it tells of the deletion of this topic.
    pub(in crate::broker) fn is_of_deleted(&self, topic: TopicId) -> bool {
        self.cause == Cause::TopicDeleted && TopicId::from_uuid(self.topic_id) == topic
    }

    pub(super) fn is_of(&self, topic: TopicId, partition: PartitionId) -> bool {
        TopicId::from_uuid(self.topic_id) == topic && self.partition == partition.get()
    }
}

/// A record of the state log `losses`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LossRecord {
    Noted(Arc<Loss>),
    Dropped(u64),
}

/// Why a record is not understood.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?} of the loss ledger: {reason}")]
pub struct UnknownLoss {
    key: String,
    reason: String,
}

impl StateRecord for LossRecord {
    const LOG: StateLogKind = StateLogKind::Losses;
    type Unknown = UnknownLoss;

    fn encode(&self) -> Change {
        let (number, value) = match self {
            LossRecord::Noted(loss) => (loss.number, Some(&**loss)),
            LossRecord::Dropped(number) => (*number, None),
        };
        let value = value.map(|loss| serde_json::to_vec(loss).expect("plain fields are JSON"));
        (Bytes::from(key_of(number)), value.map(Bytes::from))
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<LossRecord, UnknownLoss> {
        let refuse = |reason: String| UnknownLoss {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        };
        StateLogKind::Losses
            .check(key, Some(value))
            .map_err(|error| refuse(error.to_string()))?;
        let loss: Loss =
            serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
        if loss.version != loss.version_of() || loss.group.is_some() == loss.reader.is_some() {
            return Err(refuse("it is none of its version".to_owned()));
        }
        if key != key_of(loss.number).as_bytes() {
            return Err(refuse(format!("it has the number {}", loss.number)));
        }
        Ok(LossRecord::Noted(Arc::new(loss)))
    }
}

fn key_of(number: u64) -> String {
    format!("{LOSS_KEY_HEAD}{number:020}")
}

/// Reads a record's key and value as a start does, and writes them again. For fuzzing: what is read is written as it was.
pub fn read_again(key: &[u8], value: &[u8]) -> Option<(Bytes, Bytes)> {
    let (key, value) = LossRecord::decode(key, value).ok()?.encode();
    Some((key, value.expect("what is read has a value")))
}
