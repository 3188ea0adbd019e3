//! The records of shared subscriptions in the state log `shares`: keys and values, byte for byte.
//! Callers: a group's machine gives them to the runtime, and the coordinator reads them back at start. Drawn in docs/formats.md, with golden
//! bytes in the tests; the last record of a key counts, and one without a value deletes it.
//!
//! All integers are big-endian. `string` is a u16 length and UTF-8.
//!
//! ```text
//! key      | version u8 = 1 | kind u8 | group string | kinds 2 and 3: topic id 16 bytes | partition u32 |
//!                                                    | kind 3 only: incarnation u64 | first offset u64 |
//! kind 1   a group:     | version u8 = 1 | created i64 ms |
//! kind 2   a start:     | version u8 = 1 | incarnation u64 | offset u64 |
//! kind 3   a run:       | version u8 = 1 | end offset u64 | state u8: 0 available, 1 acknowledged, 2 archived, 3 rejected and 4 delivered too
//!                                          often, without a dead letter yet | deliveries u16 |
//! kind 4   settings:    | version u8 = 1 | count u16 | name string, value string, … |
//! kind 5   an owner:    | version u8 = 1 | principal string |
//! ```
//!
//! A run belongs to the start of its incarnation; where there is none it counts for nothing, and is removed. So a partition begins anew, or
//! ends, with one record, however many runs it has.

use bytes::{Buf as _, BufMut as _, BytesMut};
use model::state_log::{SHARES_KINDS, SHARES_VERSION, StateLogKind, UnknownRecord};
use model::{Offset, PartitionId, Timestamp, TopicId};
use uuid::Uuid;

use super::partition::{StoredRun, StoredState};
use super::runs::Reason;
use crate::broker::state_log::{Change, StateRecord};

const KIND_GROUP: u8 = 1;
const KIND_START: u8 = 2;
const KIND_RUN: u8 = 3;
const KIND_SETTINGS: u8 = 4;
const KIND_OWNER: u8 = 5;
const _: () = assert!(KIND_GROUP == *SHARES_KINDS.start() && KIND_OWNER == *SHARES_KINDS.end());

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionId,
}

/// What a group did to a partition from one beginning to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// A record with its value; None deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareRecord {
    /// Of kind 1: when the group came into being.
    Group(String, Option<Timestamp>),
    /// Of kind 2.
    Start(String, Place, Option<(Incarnation, Offset)>),
    /// Of kind 3.
    Run(String, Place, Incarnation, Offset, Option<StoredRun>),
    /// Of kind 4: names and values.
    Settings(String, Option<Vec<(String, String)>>),
    /// Of kind 5: on whose account the group is.
    Owner(String, Option<String>),
}

/// Bytes in the state log that are not a record of a version that we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharesError {
    /// Written by a later release.
    #[error(transparent)]
    Unknown(#[from] UnknownRecord),
    /// Not what any release writes.
    #[error("malformed record: {0}")]
    Malformed(&'static str),
}

/// How long the key and value of a run, and so of a start too, are together.
pub fn run_record_bytes(group: &str) -> usize {
    2 + 2 + group.len() + 16 + 4 + 8 + 8 + 1 + 8 + 1 + 2
}

/// The longest record of a group's beginning or end.
pub fn group_record_bytes(group: &str) -> usize {
    2 + 2 + group.len() + 1 + 8
}

/// How long the record of settings is.
pub fn settings_record_bytes(group: &str, settings: &[(String, String)]) -> usize {
    let bytes = |(name, value): &(String, String)| 4 + name.len() + value.len();
    2 + 2 + group.len() + 1 + 2 + settings.iter().map(bytes).sum::<usize>()
}

/// How long the record of an owner is, or of its end.
pub fn owner_record_bytes(group: &str, owner: &str) -> usize {
    2 + 2 + group.len() + 1 + 2 + owner.len()
}

fn key_of(kind: u8, group: &str) -> BytesMut {
    let mut key = BytesMut::new();
    key.put_u8(SHARES_VERSION);
    key.put_u8(kind);
    put_string(&mut key, group);
    key
}

fn place_key_of(kind: u8, group: &str, place: Place) -> BytesMut {
    let mut key = key_of(kind, group);
    key.put_slice(place.topic.as_uuid().as_bytes());
    key.put_u32(place.partition.get());
    key
}

fn value() -> BytesMut {
    let mut value = BytesMut::new();
    value.put_u8(SHARES_VERSION);
    value
}

impl StateRecord for ShareRecord {
    const LOG: StateLogKind = StateLogKind::Shares;
    type Unknown = SharesError;

    fn encode(&self) -> Change {
        match self {
            ShareRecord::Group(group, created) => {
                let value = created.map(|created| {
                    let mut value = value();
                    value.put_i64(created.millis());
                    value.freeze()
                });
                (key_of(KIND_GROUP, group).freeze(), value)
            }
            ShareRecord::Start(group, place, start) => {
                let value = start.map(|(incarnation, offset)| {
                    let mut value = value();
                    value.put_u64(incarnation.0);
                    value.put_u64(offset.get());
                    value.freeze()
                });
                (place_key_of(KIND_START, group, *place).freeze(), value)
            }
            ShareRecord::Run(group, place, incarnation, base, run) => {
                let mut key = place_key_of(KIND_RUN, group, *place);
                key.put_u64(incarnation.0);
                key.put_u64(base.get());
                let value = run.map(|run| {
                    let (state, count) = match run.state {
                        StoredState::Available(count) => (0, count),
                        StoredState::Acknowledged => (1, 0),
                        StoredState::Archived => (2, 0),
                        StoredState::Archiving(count, Reason::Rejected) => (3, count),
                        StoredState::Archiving(count, Reason::DeliveredTooOften) => (4, count),
                    };
                    let mut value = value();
                    value.put_u64(run.end.get());
                    value.put_u8(state);
                    value.put_u16(count);
                    value.freeze()
                });
                (key.freeze(), value)
            }
            ShareRecord::Settings(group, settings) => {
                let value = settings.as_ref().map(|settings| {
                    let mut out = value();
                    let count = u16::try_from(settings.len());
                    out.put_u16(count.expect("there are few settings"));
                    for (name, value) in settings {
                        put_string(&mut out, name);
                        put_string(&mut out, value);
                    }
                    out.freeze()
                });
                (key_of(KIND_SETTINGS, group).freeze(), value)
            }
            ShareRecord::Owner(group, owner) => {
                let value = owner.as_ref().map(|owner| {
                    let mut value = value();
                    put_string(&mut value, owner);
                    value.freeze()
                });
                (key_of(KIND_OWNER, group).freeze(), value)
            }
        }
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, SharesError> {
        StateLogKind::Shares.check_key(key)?;
        StateLogKind::Shares.check_value(value)?;
        let (mut key, mut value) = (key, value);
        key.advance(1);
        value.advance(1);
        let kind = u8_of(&mut key)?;
        let group = string_of(&mut key)?;
        let record = match kind {
            KIND_GROUP => {
                let created = Timestamp::from_millis(u64_of(&mut value)?.cast_signed());
                ShareRecord::Group(group, Some(created))
            }
            KIND_START => {
                let place = place_of(&mut key)?;
                let incarnation = Incarnation(u64_of(&mut value)?);
                let offset = offset_of(&mut value)?;
                ShareRecord::Start(group, place, Some((incarnation, offset)))
            }
            KIND_RUN => {
                let place = place_of(&mut key)?;
                let incarnation = Incarnation(u64_of(&mut key)?);
                let base = offset_of(&mut key)?;
                let run = run_of(base, &mut value)?;
                ShareRecord::Run(group, place, incarnation, base, Some(run))
            }
            KIND_SETTINGS => ShareRecord::Settings(group, Some(settings_of(&mut value)?)),
            _ => ShareRecord::Owner(group, Some(string_of(&mut value)?)),
        };
        match key.is_empty() && value.is_empty() {
            true => Ok(record),
            false => Err(SharesError::Malformed("it goes on behind its end")),
        }
    }
}

fn run_of(base: Offset, value: &mut &[u8]) -> Result<StoredRun, SharesError> {
    let end = offset_of(value)?;
    let state = u8_of(value)?;
    let count = u16_of(value)?;
    let state = match (state, count) {
        (0, 1..) => StoredState::Available(count),
        (1, 0) => StoredState::Acknowledged,
        (2, 0) => StoredState::Archived,
        (3, 1..) => StoredState::Archiving(count, Reason::Rejected),
        (4, 1..) => StoredState::Archiving(count, Reason::DeliveredTooOften),
        _ => return Err(SharesError::Malformed("no state")),
    };
    match end > base {
        true => Ok(StoredRun { end, state }),
        false => Err(SharesError::Malformed("an empty run")),
    }
}

fn settings_of(value: &mut &[u8]) -> Result<Vec<(String, String)>, SharesError> {
    let count = u16_of(value)?;
    let pair = |_| Ok((string_of(value)?, string_of(value)?));
    (0..count).map(pair).collect()
}

fn put_string(out: &mut BytesMut, text: &str) {
    let bytes = u16::try_from(text.len()).expect("names are bounded where they come in");
    out.put_u16(bytes);
    out.put_slice(text.as_bytes());
}

const SHORT: SharesError = SharesError::Malformed("too short");

fn u8_of(bytes: &mut &[u8]) -> Result<u8, SharesError> {
    bytes.try_get_u8().map_err(|_| SHORT)
}

fn u16_of(bytes: &mut &[u8]) -> Result<u16, SharesError> {
    bytes.try_get_u16().map_err(|_| SHORT)
}

fn u64_of(bytes: &mut &[u8]) -> Result<u64, SharesError> {
    bytes.try_get_u64().map_err(|_| SHORT)
}

fn offset_of(bytes: &mut &[u8]) -> Result<Offset, SharesError> {
    let offset = Offset::new(u64_of(bytes)?);
    match offset <= Offset::MAX {
        true => Ok(offset),
        false => Err(SharesError::Malformed("no offset")),
    }
}

fn place_of(key: &mut &[u8]) -> Result<Place, SharesError> {
    let (id, rest) = key.split_first_chunk::<16>().ok_or(SHORT)?;
    *key = rest;
    Ok(Place {
        topic: TopicId::from_uuid(Uuid::from_bytes(*id)),
        partition: PartitionId::new(key.try_get_u32().map_err(|_| SHORT)?),
    })
}

fn string_of(bytes: &mut &[u8]) -> Result<String, SharesError> {
    let length = usize::from(u16_of(bytes)?);
    let (text, rest) = bytes.split_at_checked(length).ok_or(SHORT)?;
    *bytes = rest;
    let text = std::str::from_utf8(text).map_err(|_| SharesError::Malformed("not UTF-8"))?;
    Ok(text.to_owned())
}

/// For fuzzing: a key and a value either are no record, or are the very bytes that the record is written as.
pub fn check_record(key: &[u8], value: &[u8]) {
    if let Ok(record) = ShareRecord::decode(key, value) {
        let (again, kept) = record.encode();
        assert!(again == key, "a key has one form");
        assert!(
            kept.is_some_and(|kept| kept == value),
            "a value has one form"
        );
    }
}
