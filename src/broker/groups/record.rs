//! The records of groups and committed offsets in the offsets state log: keys and values, byte for byte.
//! Callers: a group's machine gives them to the runtime, and the coordinator reads them back at start. Drawn in docs/formats.md, with golden
//! bytes in the tests below; the last record of a key counts, and one without a value deletes it.
//!
//! All integers are big-endian. `string` is a u16 length and UTF-8; `string?` is the same, with 0xffff for none;
//! `bytes` is a u32 length and the bytes.
//!
//! ```text
//! key      | version u8 = 1 | kind u8 | group string | kind 3 only: topic string | partition u32 |
//! kind 1   a group:    | version u8 = 1 | generation i32 | since i64 ms | protocol type string? | protocol string? |
//!                      | leader string? | member count u32 | members |
//!          a member:   | id string | instance id string? | client id string | host string |
//!                      | session timeout u32 ms | rebalance timeout u32 ms | protocol count u16 |
//!                      | protocols: name string, metadata bytes | assignment bytes |
//! kind 2   a promise:  | version u8 = 1 | generation i32 |
//! kind 3   an offset:  | version u8 = 1 | topic id 16 bytes | offset i64 | leader epoch i32, -1 none |
//!                      | committed i64 ms | expires i64 ms, -1 none | metadata string |
//! kind 4   an owner:   | version u8 = 1 | principal string |
//! ```

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::state_log::{GROUPS_KINDS, GROUPS_VERSION, StateLogKind, UnknownRecord};
use model::{LeaderEpoch, PartitionId, Timestamp, TopicId, TopicName};

use super::exchange::{ClientIdentity, Protocol};
use super::generation::Generation;
use super::offsets::{CommittedOffset, CommittedPlace};
use crate::broker::state_log::{Change, StateRecord};

const KIND_GROUP: u8 = 1;
const KIND_PROMISE: u8 = 2;
const KIND_OFFSET: u8 = 3;
const KIND_OWNER: u8 = 4;
const _: () = assert!(KIND_GROUP == *GROUPS_KINDS.start() && KIND_OWNER == *GROUPS_KINDS.end());
const NO_STRING: u16 = u16::MAX;

/// A group as it stands in the log: empty or stable, never in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// Its generation.
    pub generation: Generation,
    /// When it entered its state.
    pub since: Timestamp,
    /// The kind of group.
    pub protocol_type: Option<String>,
    /// The chosen strategy.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: Option<String>,
    /// Its members in the order in which they joined.
    pub members: Vec<StoredMember>,
}

/// A member as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMember {
    /// The member's id.
    pub member_id: String,
    /// The operator's name for a static member.
    pub instance_id: Option<String>,
    /// Who it is.
    pub client: ClientIdentity,
    /// A member not heard of for this long is dropped.
    pub session_timeout: Duration,
    /// How long a rebalance waits for it.
    pub rebalance_timeout: Duration,
    /// Supported strategies, best first.
    pub protocols: Vec<Protocol>,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RecordKey {
    /// A group.
    Group {
        /// The group's id.
        group: String,
    },
    /// The highest generation handed out.
    Promise {
        /// The group's id.
        group: String,
    },
    /// On whose account it is.
    Owner {
        /// The group's id.
        group: String,
    },
    /// One partition's committed offset.
    Offset {
        /// The group's id.
        group: String,
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionId,
    },
}

/// A record with its value; None deletes.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Of kind 1.
    Group(String, Option<StoredGroup>),
    /// Of kind 2.
    Promise(String, Option<Generation>),
    /// Of kind 4.
    Owner(String, Option<String>),
    /// Of kind 3.
    Offset(String, TopicName, PartitionId, Option<CommittedOffset>),
}

/// Bytes in the offsets state log that are not a record of a version that we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupsError {
    /// Written by a later release.
    #[error(transparent)]
    Unknown(#[from] UnknownRecord),
    /// Not what any release writes.
    #[error("malformed record: {0}")]
    Malformed(&'static str),
}

impl RecordKey {
    /// The key's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(GROUPS_VERSION);
        match self {
            RecordKey::Group { group } => {
                out.put_u8(KIND_GROUP);
                put_string(&mut out, group);
            }
            RecordKey::Promise { group } => {
                out.put_u8(KIND_PROMISE);
                put_string(&mut out, group);
            }
            RecordKey::Owner { group } => {
                out.put_u8(KIND_OWNER);
                put_string(&mut out, group);
            }
            RecordKey::Offset {
                group,
                topic,
                partition,
            } => {
                out.put_u8(KIND_OFFSET);
                put_string(&mut out, group);
                put_string(&mut out, topic.as_str());
                out.put_u32(partition.get());
            }
        }
        out.freeze()
    }

    /// Reads a key.
    pub fn decode(bytes: &[u8]) -> Result<RecordKey, GroupsError> {
        let mut reader = Reader::of_key(bytes)?;
        let kind = reader.u8()?;
        let group = reader.string()?;
        let key = match kind {
            KIND_GROUP => RecordKey::Group { group },
            KIND_PROMISE => RecordKey::Promise { group },
            KIND_OWNER => RecordKey::Owner { group },
            KIND_OFFSET => {
                let topic = TopicName::parse(&reader.string()?)
                    .map_err(|_| GroupsError::Malformed("topic name"))?;
                RecordKey::Offset {
                    group,
                    topic,
                    partition: PartitionId::new(reader.u32()?),
                }
            }
            _ => return Err(GroupsError::Malformed("key kind")),
        };
        reader.end(key)
    }
}

impl Record {
    /// Reads a record back.
    pub fn read(key: &[u8], value: Option<&[u8]>) -> Result<Record, GroupsError> {
        Ok(match RecordKey::decode(key)? {
            RecordKey::Group { group } => {
                Record::Group(group, value.map(decode_group).transpose()?)
            }
            RecordKey::Promise { group } => {
                Record::Promise(group, value.map(decode_promise).transpose()?)
            }
            RecordKey::Owner { group } => {
                Record::Owner(group, value.map(decode_owner).transpose()?)
            }
            RecordKey::Offset {
                group,
                topic,
                partition,
            } => Record::Offset(
                group,
                topic,
                partition,
                value.map(decode_offset).transpose()?,
            ),
        })
    }
}

impl StateRecord for Record {
    const LOG: StateLogKind = StateLogKind::Groups;
    type Unknown = GroupsError;

    fn encode(&self) -> Change {
        let (key, value) = match self {
            Record::Group(group, value) => (
                RecordKey::Group {
                    group: group.clone(),
                },
                value.as_ref().map(encode_group),
            ),
            Record::Promise(group, value) => (
                RecordKey::Promise {
                    group: group.clone(),
                },
                value.map(encode_promise),
            ),
            Record::Owner(group, value) => (
                RecordKey::Owner {
                    group: group.clone(),
                },
                value.as_deref().map(encode_owner),
            ),
            Record::Offset(group, topic, partition, value) => {
                let key = RecordKey::Offset {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                };
                (key, value.as_ref().map(encode_offset))
            }
        };
        (key.encode(), value)
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Record, GroupsError> {
        Record::read(key, Some(value))
    }
}

fn encode_group(group: &StoredGroup) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(GROUPS_VERSION);
    out.put_i32(group.generation.get());
    out.put_i64(group.since.millis());
    put_optional_string(&mut out, group.protocol_type.as_deref());
    put_optional_string(&mut out, group.protocol.as_deref());
    put_optional_string(&mut out, group.leader.as_deref());
    out.put_u32(u32::try_from(group.members.len()).expect("a group has fewer members than 2^32"));
    for member in &group.members {
        put_string(&mut out, &member.member_id);
        put_optional_string(&mut out, member.instance_id.as_deref());
        put_string(&mut out, &member.client.client_id);
        put_string(&mut out, &member.client.host);
        out.put_u32(saturating_millis(member.session_timeout));
        out.put_u32(saturating_millis(member.rebalance_timeout));
        let protocols = &member.protocols[..member.protocols.len().min(usize::from(u16::MAX))];
        out.put_u16(u16::try_from(protocols.len()).expect("cut above"));
        for protocol in protocols {
            put_string(&mut out, &protocol.name);
            put_bytes(&mut out, &protocol.metadata);
        }
        put_bytes(&mut out, &member.assignment);
    }
    out.freeze()
}

fn decode_group(bytes: &[u8]) -> Result<StoredGroup, GroupsError> {
    let mut reader = Reader::of_value(bytes)?;
    let mut group = StoredGroup {
        generation: reader.generation()?,
        since: Timestamp::from_millis(reader.i64()?),
        protocol_type: reader.optional_string()?,
        protocol: reader.optional_string()?,
        leader: reader.optional_string()?,
        members: Vec::new(),
    };
    for _ in 0..reader.u32()? {
        group.members.push(decode_member(&mut reader)?);
    }
    reader.end(group)
}

fn decode_member(reader: &mut Reader<'_>) -> Result<StoredMember, GroupsError> {
    let member_id = reader.string()?;
    let instance_id = reader.optional_string()?;
    let client = ClientIdentity {
        client_id: reader.string()?,
        host: reader.string()?,
    };
    let session_timeout = Duration::from_millis(reader.u32()?.into());
    let rebalance_timeout = Duration::from_millis(reader.u32()?.into());
    let mut protocols = Vec::new();
    for _ in 0..reader.u16()? {
        protocols.push(Protocol {
            name: reader.string()?,
            metadata: reader.bytes()?,
        });
    }
    let assignment = reader.bytes()?;
    Ok(StoredMember {
        member_id,
        instance_id,
        client,
        session_timeout,
        rebalance_timeout,
        protocols,
        assignment,
    })
}

fn encode_promise(generation: Generation) -> Bytes {
    let mut out = BytesMut::with_capacity(5);
    out.put_u8(GROUPS_VERSION);
    out.put_i32(generation.get());
    out.freeze()
}

fn decode_promise(bytes: &[u8]) -> Result<Generation, GroupsError> {
    let mut reader = Reader::of_value(bytes)?;
    let generation = reader.generation()?;
    reader.end(generation)
}

fn encode_owner(owner: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(owner_value_bytes(owner));
    out.put_u8(GROUPS_VERSION);
    put_string(&mut out, owner);
    out.freeze()
}

fn decode_owner(bytes: &[u8]) -> Result<String, GroupsError> {
    let mut reader = Reader::of_value(bytes)?;
    let owner = reader.string()?;
    reader.end(owner)
}

fn encode_offset(committed: &CommittedOffset) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + committed.metadata.len());
    out.put_u8(GROUPS_VERSION);
    out.put_slice(&committed.topic_id.to_bytes());
    out.put_i64(committed.offset.to_wire());
    out.put_i32(committed.leader_epoch.map_or(-1, LeaderEpoch::to_wire));
    out.put_i64(committed.committed_at.millis());
    out.put_i64(committed.expires_at.unwrap_or(Timestamp::NONE).millis());
    put_string(&mut out, &committed.metadata);
    out.freeze()
}

fn decode_offset(bytes: &[u8]) -> Result<CommittedOffset, GroupsError> {
    let mut reader = Reader::of_value(bytes)?;
    let committed = CommittedOffset {
        topic_id: TopicId::from_bytes(reader.array()?),
        offset: CommittedPlace::from_wire(reader.i64()?),
        leader_epoch: LeaderEpoch::from_wire(reader.i32()?),
        committed_at: Timestamp::from_millis(reader.i64()?),
        expires_at: Some(Timestamp::from_millis(reader.i64()?)).filter(|at| !at.is_none()),
        metadata: reader.string()?,
    };
    reader.end(committed)
}

/// The key's length in a group's own record, in its promise, and in its owner's.
pub(super) fn group_key_bytes(group: &str) -> usize {
    4 + group.len()
}

/// The key's length in the record of a committed offset.
pub(super) fn offset_key_bytes(group: &str, topic: &TopicName) -> usize {
    10 + group.len() + topic.as_str().len()
}

/// The value's length in the record of a committed offset.
pub(super) fn offset_value_bytes(metadata: &str) -> usize {
    47 + metadata.len()
}

/// The value's length in a group's owner's record.
pub(super) fn owner_value_bytes(owner: &str) -> usize {
    3 + owner.len()
}

/// The value's length in a promise.
pub(super) const PROMISE_VALUE_BYTES: usize = 5;

/// The value's length in a group's own record, without its members and its three names.
pub(super) const GROUP_VALUE_BYTES: usize = 23;

/// A member's length in its group's record.
pub(super) fn member_bytes(
    id: &str,
    instance_id: Option<&str>,
    client: &ClientIdentity,
    protocols: &[Protocol],
    assignment: &[u8],
) -> usize {
    let protocols: usize = protocols
        .iter()
        .map(|protocol| 6 + protocol.name.len() + protocol.metadata.len())
        .sum();
    let names =
        id.len() + instance_id.map_or(0, str::len) + client.client_id.len() + client.host.len();
    22 + names + protocols + assignment.len()
}

fn saturating_millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Every string here came over a wire whose strings are shorter than 32 KiB; what is longer is our bug.
fn put_string(out: &mut BytesMut, text: &str) {
    assert!(text.len() < usize::from(NO_STRING));
    out.put_u16(u16::try_from(text.len()).expect("asserted above"));
    out.put_slice(text.as_bytes());
}

fn put_optional_string(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_u16(NO_STRING),
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("a request is smaller than 4 GiB"));
    out.put_slice(bytes);
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// What follows a key's version.
    fn of_key(bytes: &'a [u8]) -> Result<Reader<'a>, GroupsError> {
        StateLogKind::Groups.check_key(bytes)?;
        Ok(Reader { bytes: &bytes[1..] })
    }

    /// What follows a value's version.
    fn of_value(bytes: &'a [u8]) -> Result<Reader<'a>, GroupsError> {
        StateLogKind::Groups.check_value(bytes)?;
        Ok(Reader { bytes: &bytes[1..] })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], GroupsError> {
        let (head, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(GroupsError::Malformed("ends early"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GroupsError> {
        let mut array = [0; N];
        self.take(N)?.copy_to_slice(&mut array);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, GroupsError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, GroupsError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, GroupsError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, GroupsError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn generation(&mut self) -> Result<Generation, GroupsError> {
        Generation::from_wire(self.i32()?).ok_or(GroupsError::Malformed("a generation below 0"))
    }

    fn i64(&mut self) -> Result<i64, GroupsError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn optional_string(&mut self) -> Result<Option<String>, GroupsError> {
        let length = self.u16()?;
        if length == NO_STRING {
            return Ok(None);
        }
        let text = std::str::from_utf8(self.take(usize::from(length))?)
            .map_err(|_| GroupsError::Malformed("not UTF-8"))?;
        Ok(Some(text.to_owned()))
    }

    fn string(&mut self) -> Result<String, GroupsError> {
        self.optional_string()?
            .ok_or(GroupsError::Malformed("a string is missing"))
    }

    fn bytes(&mut self) -> Result<Bytes, GroupsError> {
        let length =
            usize::try_from(self.u32()?).map_err(|_| GroupsError::Malformed("too long"))?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    fn end<T>(self, value: T) -> Result<T, GroupsError> {
        if self.bytes.is_empty() {
            Ok(value)
        } else {
            Err(GroupsError::Malformed("bytes left over"))
        }
    }
}
