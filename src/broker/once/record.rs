//! The record of a request that was done once: its key, what its payload was, and the answer.

use bytes::Bytes;
use model::hex::{from_hex, to_hex};
use model::state_log::{ONCE_KEY_HEAD, ONCE_VERSION, StateLogKind};
use model::{Timestamp, TopicId};
use serde::{Deserialize, Serialize};

use crate::broker::state_log::{Change, StateLogError, StateRecord};

/// What a payload is told by: its SHA-256, and what else belongs to it.
pub type Fingerprint = [u8; 32];

/// Which request: keys are the clients' own, for each topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnceKey {
    /// The topic.
    pub topic: TopicId,
    /// What the client calls it.
    pub name: String,
}

/// A record of the state log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnceRecord {
    /// The request was done.
    Done(OnceKey, Done),
    /// Its key may be used anew.
    Forgotten(OnceKey),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What the payload was.
    pub fingerprint: Fingerprint,
    /// When.
    pub at: Timestamp,
    /// What was answered, in words of whoever asked.
    pub answer: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    /// First, in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    version: u32,
    fingerprint: String,
    done_ms: i64,
    answer: String,
}

/// Why a record is not understood.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?} of the requests that were done once: {reason}")]
pub struct UnknownOnce {
    key: String,
    reason: String,
}

/// Why they cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownOnce),
}

impl OnceKey {
    fn bytes(&self) -> Bytes {
        Bytes::from(format!("{ONCE_KEY_HEAD}{}/{}", self.topic, self.name))
    }

    fn of(bytes: &[u8]) -> Option<OnceKey> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (topic, name) = text.strip_prefix(ONCE_KEY_HEAD)?.split_once('/')?;
        let topic = topic.parse().ok().map(TopicId::from_uuid)?;
        let name = name.to_owned();
        Some(OnceKey { topic, name })
    }
}

fn of_hex(text: &str) -> Option<Fingerprint> {
    from_hex(text)?.try_into().ok()
}

impl StateRecord for OnceRecord {
    const LOG: StateLogKind = StateLogKind::Once;
    type Unknown = UnknownOnce;

    fn encode(&self) -> Change {
        match self {
            OnceRecord::Forgotten(key) => (key.bytes(), None),
            OnceRecord::Done(key, done) => {
                let value = Value {
                    version: ONCE_VERSION,
                    fingerprint: to_hex(done.fingerprint),
                    done_ms: done.at.millis(),
                    answer: done.answer.clone(),
                };
                let value = serde_json::to_vec(&value).expect("plain fields are JSON");
                (key.bytes(), Some(value.into()))
            }
        }
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<OnceRecord, UnknownOnce> {
        let refuse = |reason: String| UnknownOnce {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        };
        StateLogKind::Once
            .check(key, Some(value))
            .map_err(|error| refuse(error.to_string()))?;
        let value: Value =
            serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
        let name = OnceKey::of(key).ok_or_else(|| refuse("it names no topic".to_owned()))?;
        let fingerprint = of_hex(&value.fingerprint);
        let done = Done {
            fingerprint: fingerprint.ok_or_else(|| refuse("no fingerprint".to_owned()))?,
            at: Timestamp::from_millis(value.done_ms),
            answer: value.answer,
        };
        Ok(OnceRecord::Done(name, done))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As version 1 wrote it.
    const KEY: &str = "once/00000000-0000-0000-0000-00000000002a/a/b";
    const VALUE: &str = "{\"version\":1,\"fingerprint\":\"0101010101010101010101010101010101010101010101010101010101010101\",\"done_ms\":5,\"answer\":\"{\\\"records\\\":1}\"}";

    #[test]
    fn a_record_of_version_1_is_read_and_written_as_it_was() {
        let record = OnceRecord::decode(KEY.as_bytes(), VALUE.as_bytes()).expect("known");
        let key = OnceKey {
            topic: TopicId::from_uuid(uuid::Uuid::from_u128(42)),
            name: "a/b".to_owned(),
        };
        let done = Done {
            fingerprint: [1; 32],
            at: Timestamp::from_millis(5),
            answer: "{\"records\":1}".to_owned(),
        };
        assert_eq!(record, OnceRecord::Done(key.clone(), done));
        let wanted = (Bytes::from(KEY), Some(Bytes::from(VALUE)));
        assert_eq!(record.encode(), wanted);
        assert_eq!(
            OnceRecord::Forgotten(key).encode(),
            (Bytes::from(KEY), None)
        );
        for (key, value) in [
            ("once/x/a", VALUE),
            ("hold/1", VALUE),
            (KEY, "{\"version\":2}"),
            (KEY, "{\"version\":1}"),
        ] {
            let read = OnceRecord::decode(key.as_bytes(), value.as_bytes());
            assert!(read.is_err(), "{key} {value}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(key in prop::collection::vec(any::<u8>(), 0..60), value in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(OnceRecord::decode(&key, &value));
            drop(OnceRecord::decode(KEY.as_bytes(), &value));
        }
    }
}
