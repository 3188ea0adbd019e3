//! Records of the state log `retained`: a message for each name. Drawn in `docs/formats.md`.
//!
//! ```text
//! key    | retained/ and the name |
//! value  | version u8 = 3 | kept at i64 ms | expires at i64 ms, -1 never | payload bytes | header count u32 | headers | record | owner bytes |
//! header | name bytes | value bytes |
//! record | topic id 16 bytes | has a key u8 | key bytes, if it has |
//! ```
//!
//! Version 2 has no owner, and is written where there is none; version 1 has no record, either. Times are the store's steady ones. Caller: the book.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use model::state_log::{RETAINED_KEY_HEAD, RETAINED_VERSION, StateLogKind, UnknownRecord};
use model::{Timestamp, TopicId};

use crate::broker::state_log::fields::{Fields, Malformed, put_bytes};
use crate::broker::state_log::{Change, StateRecord};

/// Of values that do not say of which record a message was kept.
const VERSION_WITHOUT_RECORD: u8 = 1;
/// Of values that are on nobody's account.
const VERSION_WITHOUT_OWNER: u8 = 2;
/// What stands for no time.
const NEVER: i64 = -1;

/// A message that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: Arc<str>,
    /// What it says; never empty.
    pub value: Bytes,
    /// What else it says, in order.
    pub headers: Vec<(Bytes, Bytes)>,
    /// When it came, by the store's steady time.
    pub at: Timestamp,
    /// When it is forgotten, likewise.
    pub expires_at: Option<Timestamp>,
    /// The record that it was published as; None of what a release kept that did not note it.
    pub of: Option<KeptOf>,
}

impl Kept {
    /// On whose account it is, if it is on somebody's.
    pub fn owner(&self) -> Option<&str> {
        self.of.as_ref()?.owner.as_deref()
    }
}

/// Which record a message was published as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptOf {
    /// In which topic.
    pub topic: TopicId,
    /// Under which key.
    pub key: Option<Bytes>,
    /// Who published it, if that is counted.
    pub owner: Option<Arc<str>>,
}

/// A record of the state log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RetainedRecord {
    Kept(Arc<Kept>),
    Removed(Arc<str>),
}

/// Why a record is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownRetained {
    /// It is a later release's, or of another kind.
    #[error("a retained message: {0}")]
    Unknown(#[from] UnknownRecord),
    /// It is none.
    #[error("a retained message: {0}")]
    Malformed(#[from] Malformed),
}

impl StateRecord for RetainedRecord {
    const LOG: StateLogKind = StateLogKind::Retained;
    type Unknown = UnknownRetained;

    fn encode(&self) -> Change {
        match self {
            RetainedRecord::Removed(name) => (key_of(name), None),
            RetainedRecord::Kept(kept) => {
                let mut out = BytesMut::with_capacity(64 + kept.value.len());
                let version = match (&kept.of, kept.owner()) {
                    (None, _) => VERSION_WITHOUT_RECORD,
                    (Some(_), None) => VERSION_WITHOUT_OWNER,
                    (Some(_), Some(_)) => RETAINED_VERSION,
                };
                out.put_u8(version);
                out.put_i64(kept.at.millis());
                out.put_i64(kept.expires_at.map_or(NEVER, Timestamp::millis));
                put_bytes(&mut out, &kept.value);
                let count = u32::try_from(kept.headers.len()).expect("a packet has fewer");
                out.put_u32(count);
                for (name, value) in &kept.headers {
                    put_bytes(&mut out, name);
                    put_bytes(&mut out, value);
                }
                if let Some(KeptOf { topic, key, owner }) = &kept.of {
                    out.put_slice(topic.as_uuid().as_bytes());
                    out.put_u8(key.is_some().into());
                    if let Some(key) = key {
                        put_bytes(&mut out, key);
                    }
                    if let Some(owner) = owner {
                        put_bytes(&mut out, owner.as_bytes());
                    }
                }
                (key_of(&kept.name), Some(out.freeze()))
            }
        }
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<RetainedRecord, UnknownRetained> {
        StateLogKind::Retained.check(key, Some(value))?;
        let name = &key[RETAINED_KEY_HEAD.len()..];
        let name = std::str::from_utf8(name).map_err(|_| Malformed("its name"))?;
        let mut fields = Fields(value);
        let version = fields.u8("its version")?;
        let at = fields.time("its time")?;
        let expires_at = fields.time("its end")?;
        let expires_at = match expires_at.millis() {
            NEVER => None,
            ..NEVER => return Err(Malformed("its end").into()),
            _ => Some(expires_at),
        };
        let payload = Bytes::copy_from_slice(fields.bytes("its payload")?);
        if payload.is_empty() {
            return Err(Malformed("its payload").into());
        }
        let mut headers = Vec::new();
        for _ in 0..fields.u32("the count of headers")? {
            let name = Bytes::copy_from_slice(fields.bytes("a header's name")?);
            let value = Bytes::copy_from_slice(fields.bytes("a header's value")?);
            headers.push((name, value));
        }
        let of = match version {
            VERSION_WITHOUT_RECORD => None,
            _ => {
                let topic = fields.topic("its topic")?;
                let has_key = fields.flag("whether it has a key")?;
                let key = has_key.then(|| fields.bytes("its key")).transpose()?;
                let key = key.map(Bytes::copy_from_slice);
                let owner = match version {
                    VERSION_WITHOUT_OWNER => None,
                    _ => Some(fields.string("its owner")?.into()),
                };
                Some(KeptOf { topic, key, owner })
            }
        };
        fields.end()?;
        Ok(RetainedRecord::Kept(Arc::new(Kept {
            name: name.into(),
            value: payload,
            headers,
            at,
            expires_at,
            of,
        })))
    }
}

/// The key of a name's records.
pub(super) fn key_of(name: &str) -> Bytes {
    Bytes::from(format!("{RETAINED_KEY_HEAD}{name}"))
}

/// Reads a record's key and value as a start does, and writes them again. For fuzzing: what is read is written as it was.
pub fn read_again(key: &[u8], value: &[u8]) -> Option<(Bytes, Bytes)> {
    let (key, value) = RetainedRecord::decode(key, value).ok()?.encode();
    Some((key, value.expect("what is read has a value")))
}
