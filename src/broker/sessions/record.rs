//! Records of the state log `sessions`. Drawn in `docs/formats.md`. Caller: the book.
//! Integers are big-endian, `bytes` a u32 length and the bytes, `string` the same with UTF-8, `string?` a u8, 1 and a string, or 0;
//! times are the store's steady ones.
//!
//! ```text
//! session-key  | user string? | client id string |
//! positions    | topic count u32 | topic id 16 bytes, partition count u32, offset i64 of each partition | ... |
//! place        | topic id 16 bytes | partition u32 | offset i64 |
//!
//! session/ session-key            | version u8 = 1 | expiry u32 s | ended i64 ms, -1 while connected | will | subscription count u32 |
//!                                 | subscriptions: filter string | options u8 | id u32, 0 none | since positions |
//!                                 |   | retained string?: behind which name they are still to be given |
//!   will                          | u8 = 0 none | or u8 = 1 | delay u32 s | topic string | payload bytes | retain u8 |
//!                                 |   | expiry u32? (u8, and u32 if it is 1) | header count u32 | headers: name bytes, value bytes |
//! session-received/ id u16 session-key | version u8 = 1 |
//! session-sending/ session-key    | version u8 = 1 | sent to positions | count u32 | pending: packet id u16 | place | released u8 |
//! session-cursor/ session-key     | version u8 = 1 | keeps up u8 | read positions | count u32 | unacked: packet id u16 | place |
//! session-mark                    | version u8 = 1 | positions |
//! ```

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use model::state_log::{
    SESSION_CURSOR_KEY_HEAD, SESSION_KEY_HEAD, SESSION_MARK_KEY, SESSION_RECEIVED_KEY_HEAD,
    SESSION_SENDING_KEY_HEAD, SESSIONS_VERSION, StateLogKind, UnknownRecord,
};
use model::{Offset, PartitionId, Timestamp, TopicId};

use super::positions::Positions;
use crate::broker::access::Principal;
use crate::broker::place::Place;
use crate::broker::state_log::fields::{Fields, Malformed, put_bytes};
use crate::broker::state_log::{Change, StateRecord};

/// What stands for a connection that is there.
const CONNECTED: i64 = -1;

/// Whose session it is: client ids are each user's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The user.
    pub owner: Principal,
    /// What the client calls itself.
    pub client_id: Arc<str>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// How long it outlives its connection, in seconds.
    pub expiry_seconds: u32,
    /// Since when nobody is connected; None while somebody is.
    pub ended_at: Option<Timestamp>,
    /// What is published when its client went without a word.
    pub will: Option<Arc<KeptWill>>,
    /// What it subscribes to, in order.
    pub subscriptions: Vec<KeptSubscription>,
}

/// A message that is published if a client does not come back in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptWill {
    /// How long it waits, in seconds.
    pub delay_seconds: u32,
    /// Where it goes.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// Whether it stays for later subscribers.
    pub retain: bool,
    /// How long it is of use, in seconds.
    pub expiry_seconds: Option<u32>,
    /// What else it says.
    pub headers: Vec<(Bytes, Bytes)>,
}

/// A subscription, in words of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSubscription {
    /// Which names.
    pub filter: Arc<str>,
    /// How.
    pub options: u8,
    /// What its messages carry; 0 is none.
    pub id: u32,
    /// Where it begins.
    pub since: Positions,
    /// Behind which name retained messages are still to be given to it; None: none are. The empty name is before all.
    pub retained: Option<Arc<str>>,
}

/// What is sent exactly once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// What lies before was sent, or is pending.
    pub sent_to: Positions,
    /// What is not done, in the order in which it was sent.
    pub pending: Vec<Pending>,
}

/// A message that is being sent exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its identifier.
    pub packet_id: u16,
    /// Its record.
    pub place: Place,
    /// Whether the client has it, and is only to forget the identifier.
    pub is_released: bool,
}

/// How far a session has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Whether it is with the mark from here on.
    pub keeps_up: bool,
    /// What lies before was sent.
    pub read: Positions,
    /// What was sent at least once, and not acknowledged.
    pub unacked: Vec<(u16, Place)>,
}

/// What a part of a session takes in memory beside its own bytes, about: a record's, a place's, a subscription's, a header's.
const PART_BYTES: u64 = 64;

fn bytes_of(positions: &Positions) -> u64 {
    let topics = positions.topics();
    let all = topics.map(|(_, offsets)| PART_BYTES + 8 * offsets.len() as u64);
    all.sum()
}

impl SessionKey {
    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> u64 {
        (self.owner.name().len() + self.client_id.len()) as u64
    }
}

impl KeptWill {
    fn bytes(&self) -> u64 {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| PART_BYTES + (name.len() + value.len()) as u64);
        2 * PART_BYTES + (self.topic.len() + self.payload.len()) as u64 + headers.sum::<u64>()
    }
}

impl KeptSession {
    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> u64 {
        let subscriptions = self.subscriptions.iter().map(|it| {
            let behind = it.retained.as_ref().map_or(0, |name| name.len());
            2 * PART_BYTES + (it.filter.len() + behind) as u64 + bytes_of(&it.since)
        });
        let will = self.will.as_ref().map_or(0, |will| will.bytes());
        PART_BYTES + will + subscriptions.sum::<u64>()
    }
}

impl Sending {
    /// What it takes in memory, about; nothing if nothing is sent.
    pub(super) fn bytes(&self) -> u64 {
        match *self == Sending::default() {
            true => 0,
            false => bytes_of(&self.sent_to) + PART_BYTES * (1 + self.pending.len() as u64),
        }
    }
}

impl Cursor {
    /// What it takes in memory, about; nothing if it is nowhere.
    pub(super) fn bytes(&self) -> u64 {
        match *self == Cursor::default() {
            true => 0,
            false => bytes_of(&self.read) + PART_BYTES * (1 + self.unacked.len() as u64),
        }
    }
}

/// A record of the state log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionRecord {
    /// A session, or its end.
    Session(SessionKey, Option<Arc<KeptSession>>),
    /// An identifier that it has received, or the release of it.
    Received(SessionKey, u16, bool),
    /// What it is being sent.
    Sending(SessionKey, Option<Arc<Sending>>),
    /// How far it has come.
    Cursor(SessionKey, Option<Arc<Cursor>>),
    /// How far all have come that keep up.
    Mark(Positions),
}

/// Why a record is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownSession {
    /// It is a later release's, or of another kind.
    #[error("a session: {0}")]
    Unknown(#[from] UnknownRecord),
    /// It is none.
    #[error("a session: {0}")]
    Malformed(#[from] Malformed),
}

fn put_option(out: &mut BytesMut, text: Option<&str>) {
    out.put_u8(text.is_some().into());
    if let Some(text) = text {
        put_bytes(out, text.as_bytes());
    }
}

fn option<'a>(fields: &mut Fields<'a>, what: &'static str) -> Result<Option<&'a str>, Malformed> {
    let is_there = fields.flag(what)?;
    is_there.then(|| fields.string(what)).transpose()
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("there are bounds far below"));
}

fn put_place(out: &mut BytesMut, place: &Place) {
    out.put_slice(place.topic.as_uuid().as_bytes());
    out.put_u32(place.partition.get());
    out.put_i64(place.offset.to_wire());
}

fn place(fields: &mut Fields<'_>) -> Result<Place, Malformed> {
    Ok(Place {
        topic: fields.topic("a place's topic")?,
        partition: PartitionId::new(fields.u32("a place's partition")?),
        offset: fields.offset("a place's offset")?,
    })
}

fn put_positions(out: &mut BytesMut, positions: &Positions) {
    put_count(out, positions.topics().count());
    for (topic, offsets) in positions.topics() {
        out.put_slice(topic.as_uuid().as_bytes());
        put_count(out, offsets.len());
        for offset in offsets {
            out.put_i64(offset.to_wire());
        }
    }
}

fn positions(fields: &mut Fields<'_>) -> Result<Positions, Malformed> {
    let mut positions = Positions::default();
    let mut before: Option<TopicId> = None;
    for _ in 0..fields.u32("the count of topics")? {
        let topic = fields.topic("a topic")?;
        if before.replace(topic).is_some_and(|before| before >= topic) {
            return Err(Malformed("the order of topics"));
        }
        let mut offsets: Vec<Offset> = Vec::new();
        for _ in 0..fields.u32("the count of partitions")? {
            offsets.push(fields.offset("an offset")?);
        }
        positions.set_topic(topic, offsets);
    }
    Ok(positions)
}

impl SessionKey {
    fn put(&self, out: &mut BytesMut) {
        let user = match &self.owner {
            Principal::Anonymous => None,
            Principal::User(name) => Some(&**name),
        };
        put_option(out, user);
        put_bytes(out, self.client_id.as_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Result<SessionKey, Malformed> {
        let user = option(fields, "a session's user")?;
        Ok(SessionKey {
            owner: user.map_or(Principal::Anonymous, |name| Principal::User(name.into())),
            client_id: fields.string("a session's client id")?.into(),
        })
    }

    fn key(&self, head: &str, id: Option<u16>) -> Bytes {
        let mut out = BytesMut::from(head.as_bytes());
        if let Some(id) = id {
            out.put_u16(id);
        }
        self.put(&mut out);
        out.freeze()
    }
}

impl KeptWill {
    fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.delay_seconds);
        put_bytes(out, self.topic.as_bytes());
        put_bytes(out, &self.payload);
        out.put_u8(self.retain.into());
        out.put_u8(self.expiry_seconds.is_some().into());
        if let Some(seconds) = self.expiry_seconds {
            out.put_u32(seconds);
        }
        put_count(out, self.headers.len());
        for (name, value) in &self.headers {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<KeptWill, Malformed> {
        let mut will = KeptWill {
            delay_seconds: fields.u32("a will's delay")?,
            topic: fields.string("a will's topic")?.to_owned(),
            payload: Bytes::copy_from_slice(fields.bytes("a will's payload")?),
            retain: fields.flag("whether a will is retained")?,
            expiry_seconds: None,
            headers: Vec::new(),
        };
        if fields.flag("whether a will expires")? {
            will.expiry_seconds = Some(fields.u32("a will's expiry")?);
        }
        for _ in 0..fields.u32("the count of a will's headers")? {
            let name = Bytes::copy_from_slice(fields.bytes("a header's name")?);
            let value = Bytes::copy_from_slice(fields.bytes("a header's value")?);
            will.headers.push((name, value));
        }
        Ok(will)
    }
}

impl KeptSession {
    fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.expiry_seconds);
        out.put_i64(self.ended_at.map_or(CONNECTED, Timestamp::millis));
        out.put_u8(self.will.is_some().into());
        if let Some(will) = &self.will {
            will.put(out);
        }
        put_count(out, self.subscriptions.len());
        for it in &self.subscriptions {
            put_bytes(out, it.filter.as_bytes());
            out.put_u8(it.options);
            out.put_u32(it.id);
            put_positions(out, &it.since);
            put_option(out, it.retained.as_deref());
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<KeptSession, Malformed> {
        let expiry_seconds = fields.u32("a session's expiry")?;
        let ended = fields.time("a session's end")?;
        let ended_at = match ended.millis() {
            CONNECTED => None,
            ..CONNECTED => return Err(Malformed("a session's end")),
            _ => Some(ended),
        };
        let has_will = fields.flag("whether there is a will")?;
        let will = has_will.then(|| KeptWill::read(fields)).transpose()?;
        let mut subscriptions = Vec::new();
        for _ in 0..fields.u32("the count of subscriptions")? {
            subscriptions.push(KeptSubscription {
                filter: fields.string("a filter")?.into(),
                options: fields.u8("a subscription's options")?,
                id: fields.u32("a subscription's identifier")?,
                since: positions(fields)?,
                retained: option(fields, "a name")?.map(Arc::from),
            });
        }
        Ok(KeptSession {
            expiry_seconds,
            ended_at,
            will: will.map(Arc::new),
            subscriptions,
        })
    }
}

impl Sending {
    fn put(&self, out: &mut BytesMut) {
        put_positions(out, &self.sent_to);
        put_count(out, self.pending.len());
        for it in &self.pending {
            out.put_u16(it.packet_id);
            put_place(out, &it.place);
            out.put_u8(it.is_released.into());
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Sending, Malformed> {
        let sent_to = positions(fields)?;
        let mut pending = Vec::new();
        for _ in 0..fields.u32("the count of messages")? {
            pending.push(Pending {
                packet_id: fields.u16("an identifier")?,
                place: place(fields)?,
                is_released: fields.flag("a message's stage")?,
            });
        }
        Ok(Sending { sent_to, pending })
    }
}

impl Cursor {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.keeps_up.into());
        put_positions(out, &self.read);
        put_count(out, self.unacked.len());
        for (packet_id, place) in &self.unacked {
            out.put_u16(*packet_id);
            put_place(out, place);
        }
    }

    fn read_from(fields: &mut Fields<'_>) -> Result<Cursor, Malformed> {
        let keeps_up = fields.flag("whether it keeps up")?;
        let read = positions(fields)?;
        let mut unacked = Vec::new();
        for _ in 0..fields.u32("the count of messages")? {
            unacked.push((fields.u16("an identifier")?, place(fields)?));
        }
        Ok(Cursor {
            keeps_up,
            read,
            unacked,
        })
    }
}

impl StateRecord for SessionRecord {
    const LOG: StateLogKind = StateLogKind::Sessions;
    type Unknown = UnknownSession;

    fn encode(&self) -> Change {
        let value = |put: &dyn Fn(&mut BytesMut)| {
            let mut out = BytesMut::new();
            out.put_u8(SESSIONS_VERSION);
            put(&mut out);
            out.freeze()
        };
        match self {
            SessionRecord::Session(key, session) => (
                key.key(SESSION_KEY_HEAD, None),
                session.as_ref().map(|it| value(&|out| it.put(out))),
            ),
            SessionRecord::Received(key, id, is_received) => (
                key.key(SESSION_RECEIVED_KEY_HEAD, Some(*id)),
                is_received.then(|| value(&|_| ())),
            ),
            SessionRecord::Sending(key, sending) => (
                key.key(SESSION_SENDING_KEY_HEAD, None),
                sending.as_ref().map(|it| value(&|out| it.put(out))),
            ),
            SessionRecord::Cursor(key, cursor) => (
                key.key(SESSION_CURSOR_KEY_HEAD, None),
                cursor.as_ref().map(|it| value(&|out| it.put(out))),
            ),
            SessionRecord::Mark(positions) => (
                Bytes::from_static(SESSION_MARK_KEY.as_bytes()),
                Some(value(&|out| put_positions(out, positions))),
            ),
        }
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<SessionRecord, UnknownSession> {
        StateLogKind::Sessions.check(key, Some(value))?;
        let mut fields = Fields(value);
        fields.u8("its version")?;
        let behind = |head: &str| key.strip_prefix(head.as_bytes()).map(Fields);
        let record = if let Some(mut key) = behind(SESSION_KEY_HEAD) {
            let session = KeptSession::read(&mut fields)?;
            let of = SessionKey::read(&mut key)?;
            key.end()?;
            SessionRecord::Session(of, Some(Arc::new(session)))
        } else if let Some(mut key) = behind(SESSION_RECEIVED_KEY_HEAD) {
            let id = key.u16("an identifier")?;
            let of = SessionKey::read(&mut key)?;
            key.end()?;
            SessionRecord::Received(of, id, true)
        } else if let Some(mut key) = behind(SESSION_SENDING_KEY_HEAD) {
            let sending = Sending::read(&mut fields)?;
            let of = SessionKey::read(&mut key)?;
            key.end()?;
            SessionRecord::Sending(of, Some(Arc::new(sending)))
        } else if let Some(mut key) = behind(SESSION_CURSOR_KEY_HEAD) {
            let cursor = Cursor::read_from(&mut fields)?;
            let of = SessionKey::read(&mut key)?;
            key.end()?;
            SessionRecord::Cursor(of, Some(Arc::new(cursor)))
        } else {
            SessionRecord::Mark(positions(&mut fields)?)
        };
        fields.end()?;
        Ok(record)
    }
}

/// Reads a record's key and value as a start does, and writes them again. For fuzzing: what is read is written as it was.
pub fn read_again(key: &[u8], value: &[u8]) -> Option<(Bytes, Bytes)> {
    let (key, value) = SessionRecord::decode(key, value).ok()?.encode();
    Some((key, value.expect("what is read has a value")))
}
