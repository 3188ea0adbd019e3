//! Records of the state log `erasures`: what was asked for and how far it is, what was done to each partition, the keys for as
//! long as they are needed, and the receipts.
//!
//! Callers: `erasures`. The keys themselves stand in a record of their own, as hexadecimal digits, which is removed when the
//! erasure is over; everything else knows them by their hash.

use std::sync::Arc;

use bytes::Bytes;
use model::hex::{from_hex, to_hex};
use model::state_log::{
    ERASURE_KEY_HEAD, ERASURE_PART_KEY_HEAD, ERASURE_WANTED_KEY_HEAD, ERASURES_VERSION,
    RECEIPT_KEY_HEAD, StateLogKind,
};
use model::{LogId, Offset, PartitionId, TopicId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::segment::SegmentId;

use crate::broker::state_log::{Change, StateRecord};

/// Where an erasure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// What there is of the keys is counted, and it is looked whether it may go.
    Looking,
    /// Segments are written again.
    Erasing,
    /// The write-ahead log is purged.
    Purging,
    /// Every file is searched.
    Verifying,
    /// The keys are removed from the state log.
    Forgetting,
    /// It is over.
    Ended,
}

/// How an erasure ended, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All of it was done, and verified.
    Done,
    /// Nothing was done: a hold forbids it, or a file in the quarantine.
    Refused,
    /// Somebody ended it. What it had done stays done.
    Cancelled,
}

/// A partition that an erasure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Which.
    pub partition: u32,
    /// Where it began when the erasure was asked for.
    pub start: u64,
    /// Records at this offset and behind it stay: it ended there then.
    pub before: u64,
}

/// What was asked for, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// First, in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    pub(super) version: u32,
    /// What it is called.
    pub id: String,
    /// The topic.
    pub topic: String,
    pub(super) topic_id: uuid::Uuid,
    /// One partition, or all.
    pub partition: Option<u32>,
    /// Hexadecimal digits that are hashed before each key.
    pub salt: String,
    /// SHA-256 of salt and key, of each.
    pub keys: Vec<String>,
    /// Why, if somebody said.
    pub reason: Option<String>,
    /// Who asked.
    pub by: String,
    /// When.
    pub asked_ms: i64,
    /// Whether files in the quarantine that hold the keys are removed.
    pub removes_quarantined: bool,
    /// The partitions, in order.
    pub parts: Vec<Part>,
    /// Where it is.
    pub phase: Phase,
    /// How it ended, once that is known.
    pub outcome: Option<Outcome>,
    /// Why it was refused.
    pub detail: Option<String>,
    /// Files that were removed from the quarantine.
    pub quarantine_removed: Vec<String>,
    /// The number of its receipt.
    pub receipt: Option<u64>,
    /// When it was over.
    pub ended_ms: Option<i64>,
}

impl Erasure {
    pub(super) fn log(&self, part: &Part) -> LogId {
        let topic = TopicId::from_uuid(self.topic_id);
        LogId::new(topic, PartitionId::new(part.partition))
    }

    /// Whether nothing more is done.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }
}

/// A segment that is being written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Doing {
    base: u64,
    generation: u32,
    pub records: u64,
    pub from: u64,
    pub to: u64,
    pub windows: u64,
}

impl Doing {
    pub fn of(found: &storage::cleanup::erase::Found) -> Doing {
        Doing {
            base: found.segment.base.get(),
            generation: found.segment.generation,
            records: found.records,
            from: found.offsets.start.get(),
            to: found.offsets.end.get(),
            windows: found.windows,
        }
    }

    pub fn is_of(&self, segment: SegmentId) -> bool {
        (segment.base.get(), segment.generation) == (self.base, self.generation)
    }

    pub fn offsets(&self) -> std::ops::Range<Offset> {
        Offset::new(self.from)..Offset::new(self.to)
    }
}

/// A batch whose records cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unreadable {
    /// Where it begins.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// What was done to a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartDone {
    pub(super) version: u32,
    /// Records that were found before anything was done.
    pub found: u64,
    /// Records that went.
    pub records: u64,
    /// Segments that were written again.
    pub segments: u64,
    /// Windows of summaries that went.
    pub windows: u64,
    pub(super) doing: Option<Doing>,
    /// Batches that cannot be read.
    pub undecodable: u64,
    /// The first of them.
    pub undecodable_listed: Vec<Unreadable>,
    /// Whether all of it was done.
    pub is_done: bool,
}

impl PartDone {
    pub(super) fn new() -> PartDone {
        PartDone {
            version: ERASURES_VERSION,
            ..PartDone::default()
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedKeys {
    version: u32,
    keys: Vec<String>,
}

/// A record of the state log `erasures`.
pub(super) enum ErasureRecord {
    Erasure(Arc<Erasure>),
    ErasureGone(String),
    Part(String, u32, PartDone),
    PartGone(String, u32),
    Wanted(String, Vec<Bytes>),
    WantedGone(String),
    Receipt(u64, Arc<str>),
}

/// Why a record is not understood.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?} of the erasures: {reason}")]
pub struct UnknownErasure {
    key: String,
    reason: String,
}

fn json(value: &impl Serialize) -> Option<Bytes> {
    let text = serde_json::to_vec(value).expect("plain fields are JSON");
    Some(text.into())
}

impl StateRecord for ErasureRecord {
    const LOG: StateLogKind = StateLogKind::Erasures;
    type Unknown = UnknownErasure;

    fn encode(&self) -> Change {
        let of_part =
            |id: &str, partition: u32| format!("{ERASURE_PART_KEY_HEAD}{id}/{partition:010}");
        let (key, value) = match self {
            ErasureRecord::Erasure(one) => (format!("{ERASURE_KEY_HEAD}{}", one.id), json(&**one)),
            ErasureRecord::ErasureGone(id) => (format!("{ERASURE_KEY_HEAD}{id}"), None),
            ErasureRecord::Part(id, partition, done) => (of_part(id, *partition), json(done)),
            ErasureRecord::PartGone(id, partition) => (of_part(id, *partition), None),
            ErasureRecord::Wanted(id, keys) => {
                let wanted = WantedKeys {
                    version: ERASURES_VERSION,
                    keys: keys.iter().map(to_hex).collect(),
                };
                (format!("{ERASURE_WANTED_KEY_HEAD}{id}"), json(&wanted))
            }
            ErasureRecord::WantedGone(id) => (format!("{ERASURE_WANTED_KEY_HEAD}{id}"), None),
            ErasureRecord::Receipt(number, text) => (
                format!("{RECEIPT_KEY_HEAD}{number:020}"),
                Some(Bytes::copy_from_slice(text.as_bytes())),
            ),
        };
        (Bytes::from(key), value)
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<ErasureRecord, UnknownErasure> {
        decode(key, value).map_err(|reason| UnknownErasure {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        })
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

fn decode(key: &[u8], value: &[u8]) -> Result<ErasureRecord, String> {
    StateLogKind::Erasures
        .check(key, Some(value))
        .map_err(|error| error.to_string())?;
    let key = std::str::from_utf8(key).map_err(|error| error.to_string())?;
    if let Some(number) = key.strip_prefix(RECEIPT_KEY_HEAD) {
        let number = number.parse().map_err(|_| "no number of a receipt")?;
        let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
        return Ok(ErasureRecord::Receipt(number, text.into()));
    }
    if let Some(id) = key.strip_prefix(ERASURE_WANTED_KEY_HEAD) {
        let wanted: WantedKeys = read(value)?;
        let keys = wanted.keys.iter().map(from_hex);
        let keys: Option<Vec<_>> = keys.map(|key| key.map(Bytes::from)).collect();
        let keys = keys.ok_or("a key that is no hexadecimal digits")?;
        return Ok(ErasureRecord::Wanted(id.to_owned(), keys));
    }
    if let Some(rest) = key.strip_prefix(ERASURE_PART_KEY_HEAD) {
        let place = rest.split_once('/');
        let place = place.and_then(|(id, partition)| Some((id, partition.parse().ok()?)));
        let (id, partition) = place.ok_or("no partition of an erasure")?;
        return Ok(ErasureRecord::Part(id.to_owned(), partition, read(value)?));
    }
    Ok(ErasureRecord::Erasure(Arc::new(read(value)?)))
}

/// Reads a record's key and value as a start does, and writes them again. For fuzzing: what is read is written as it was.
pub fn read_again(key: &[u8], value: &[u8]) -> Option<(Bytes, Bytes)> {
    let (key, value) = ErasureRecord::decode(key, value).ok()?.encode();
    Some((key, value.expect("what is read has a value")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erasure() -> Erasure {
        Erasure {
            version: 1,
            id: "1a2b3c4d".to_owned(),
            topic: "readings".to_owned(),
            topic_id: uuid::Uuid::from_u128(7),
            partition: None,
            salt: "00ff".to_owned(),
            keys: vec!["ab".to_owned()],
            reason: Some("request 12".to_owned()),
            by: "anonymous".to_owned(),
            asked_ms: 5,
            removes_quarantined: false,
            parts: vec![Part {
                partition: 0,
                start: 3,
                before: 9,
            }],
            phase: Phase::Looking,
            outcome: None,
            detail: None,
            quarantine_removed: Vec::new(),
            receipt: None,
            ended_ms: None,
        }
    }

    fn text(record: &ErasureRecord) -> (String, String) {
        let (key, value) = record.encode();
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        (text(key), text(value.expect("a value")))
    }

    #[test]
    fn records_come_back_as_they_were_written_and_in_the_documented_form() {
        let (key, value) = text(&ErasureRecord::Erasure(Arc::new(erasure())));
        assert_eq!(key, "erasure/1a2b3c4d");
        assert_eq!(
            value,
            "{\"version\":1,\"id\":\"1a2b3c4d\",\"topic\":\"readings\",\"topic_id\":\"00000000-0000-0000-0000-000000000007\",\
            \"partition\":null,\"salt\":\"00ff\",\"keys\":[\"ab\"],\"reason\":\"request 12\",\"by\":\"anonymous\",\"asked_ms\":5,\
            \"removes_quarantined\":false,\"parts\":[{\"partition\":0,\"start\":3,\"before\":9}],\"phase\":\"looking\",\
            \"outcome\":null,\"detail\":null,\"quarantine_removed\":[],\"receipt\":null,\"ended_ms\":null}"
        );
        let (key, value) = text(&ErasureRecord::Part("1a".to_owned(), 3, PartDone::new()));
        assert_eq!(key, "erasure-part/1a/0000000003");
        assert_eq!(
            value,
            "{\"version\":1,\"found\":0,\"records\":0,\"segments\":0,\"windows\":0,\"doing\":null,\"undecodable\":0,\
            \"undecodable_listed\":[],\"is_done\":false}"
        );
        let wanted = ErasureRecord::Wanted("1a".to_owned(), vec![Bytes::from_static(b"a\xff")]);
        let (key, value) = text(&wanted);
        assert_eq!(key, "erasure-wanted/1a");
        assert_eq!(value, "{\"version\":1,\"keys\":[\"61ff\"]}");
        let receipt = ErasureRecord::Receipt(4, "{\"version\":1}".into());
        assert_eq!(text(&receipt).0, "receipt/00000000000000000004");
        for record in [ErasureRecord::Erasure(Arc::new(erasure())), wanted, receipt] {
            let (key, value) = record.encode();
            let value = value.expect("a value");
            assert_eq!(read_again(&key, &value), Some((key, value)));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (key, value) in [
            ("erasure/1", "{\"version\":2}"),
            ("erasure/1", "{\"version\":1}"),
            ("erasure-part/1", "{\"version\":1}"),
            ("erasure-wanted/1", "{\"version\":1,\"keys\":[\"xy\"]}"),
            ("receipt/x", "{\"version\":1}"),
            ("later/1", "{\"version\":1}"),
        ] {
            assert!(
                read_again(key.as_bytes(), value.as_bytes()).is_none(),
                "{key}"
            );
        }
    }
}
