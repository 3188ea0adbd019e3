//! The records of the cluster's metadata log: what exists, kept as keyed records, last write wins.
//! Callers: `topics`, `configs`, `producer_ids`, and `Broker::open`, which replays them.
//! Shape: the key is `topic/<uuid>`, `broker-settings`, `producer-ids` or `producer-ids/<first id>`; the value is a JSON object with `version`.
//! Unknown keys, fields and versions end the opening: what we don't understand we must not act on.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::state_log::{
    BROKER_SETTINGS_KEY, METADATA_VERSION, PRODUCER_ID_OWNER_KEY_HEAD, PRODUCER_IDS_KEY,
    StateLogKind, TOPIC_KEY_HEAD,
};
use model::{TopicId, TopicName};
use serde::{Deserialize, Serialize};

use super::access::Owner;
use super::catalog::Topic;
use super::state_log::{Change, StateRecord};

/// One record of the metadata log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Topic(TopicRecord),
    /// Settings made while running: for the whole cluster (`None`) and for one broker id.
    BrokerSettings(BrokerSettings),
    /// Producer ids below this were given away.
    ProducerIds {
        next: i64,
    },
    /// On whose account the block of producer ids is that begins there; nobody's any more if None.
    ProducerIdOwner {
        begin: i64,
        owner: Option<Owner>,
    },
    /// The end of a topic.
    TopicRemoved(TopicId),
}

/// A topic that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicRecord {
    pub(super) id: TopicId,
    pub(super) name: TopicName,
    pub(super) partitions: u32,
    pub(super) settings: BTreeMap<String, String>,
    /// On whose account it is.
    pub(super) owner: Option<Owner>,
}

/// Broker settings made while running.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BrokerSettings {
    /// For every broker.
    pub(super) cluster: BTreeMap<String, String>,
    /// For this broker; these go first.
    pub(super) broker: BTreeMap<String, String>,
}

/// What earlier releases read too.
const VERSION_WITHOUT_OWNER: u32 = 1;

/// Why a record cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("metadata record {key:?}: {reason}")]
pub struct UnknownRecord {
    key: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicValue {
    /// First, in this and in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    version: u32,
    name: String,
    partitions: u32,
    settings: BTreeMap<String, String>,
    /// Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokerSettingsValue {
    version: u32,
    settings: BrokerSettings,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProducerIdsValue {
    version: u32,
    next: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProducerIdOwnerValue {
    version: u32,
    owner: String,
}

impl TopicRecord {
    pub(super) fn of(topic: &Topic) -> TopicRecord {
        TopicRecord {
            id: topic.id,
            name: topic.name.clone(),
            partitions: topic.partition_count(),
            settings: topic.overrides.clone(),
            owner: topic.owner.clone(),
        }
    }
}

impl StateRecord for Record {
    const LOG: StateLogKind = StateLogKind::Metadata;
    type Unknown = UnknownRecord;

    fn encode(&self) -> Change {
        match self {
            Record::Topic(topic) => (
                topic_key(topic.id),
                value(&TopicValue {
                    version: match topic.owner {
                        Some(_) => METADATA_VERSION,
                        None => VERSION_WITHOUT_OWNER,
                    },
                    name: topic.name.as_str().to_owned(),
                    partitions: topic.partitions,
                    settings: topic.settings.clone(),
                    owner: topic.owner.as_deref().map(str::to_owned),
                }),
            ),
            Record::BrokerSettings(settings) => (
                Bytes::from_static(BROKER_SETTINGS_KEY.as_bytes()),
                value(&BrokerSettingsValue {
                    version: VERSION_WITHOUT_OWNER,
                    settings: settings.clone(),
                }),
            ),
            Record::ProducerIds { next } => (
                Bytes::from_static(PRODUCER_IDS_KEY.as_bytes()),
                value(&ProducerIdsValue {
                    version: VERSION_WITHOUT_OWNER,
                    next: *next,
                }),
            ),
            Record::ProducerIdOwner { begin, owner } => (
                Bytes::from(format!("{PRODUCER_ID_OWNER_KEY_HEAD}{begin}")),
                owner.as_deref().and_then(|owner| {
                    value(&ProducerIdOwnerValue {
                        version: VERSION_WITHOUT_OWNER,
                        owner: owner.to_owned(),
                    })
                }),
            ),
            Record::TopicRemoved(id) => (topic_key(*id), None),
        }
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Record, UnknownRecord> {
        let text = String::from_utf8_lossy(key).into_owned();
        let refuse = |reason: String| UnknownRecord {
            key: text.clone(),
            reason,
        };
        StateLogKind::Metadata
            .check(key, Some(value))
            .map_err(|error| refuse(error.to_string()))?;
        match text.as_str() {
            BROKER_SETTINGS_KEY => {
                let read: BrokerSettingsValue = read(value).map_err(refuse)?;
                Ok(Record::BrokerSettings(read.settings))
            }
            PRODUCER_IDS_KEY => {
                let read: ProducerIdsValue = read(value).map_err(refuse)?;
                Ok(Record::ProducerIds { next: read.next })
            }
            other if other.starts_with(PRODUCER_ID_OWNER_KEY_HEAD) => {
                let begin = other
                    .strip_prefix(PRODUCER_ID_OWNER_KEY_HEAD)
                    .and_then(|begin| begin.parse().ok())
                    .filter(|begin| *begin >= 0)
                    .ok_or_else(|| refuse("not a number of a producer id".into()))?;
                let read: ProducerIdOwnerValue = read(value).map_err(refuse)?;
                let owner = Some(Owner::from(read.owner));
                Ok(Record::ProducerIdOwner { begin, owner })
            }
            other => {
                let id = other
                    .strip_prefix(TOPIC_KEY_HEAD)
                    .and_then(|id| uuid::Uuid::parse_str(id).ok())
                    .ok_or_else(|| refuse("not a key that this version knows".into()))?;
                let read: TopicValue = read(value).map_err(refuse)?;
                let name =
                    TopicName::parse(&read.name).map_err(|error| refuse(error.to_string()))?;
                Ok(Record::Topic(TopicRecord {
                    id: TopicId::from_uuid(id),
                    name,
                    partitions: read.partitions,
                    settings: read.settings,
                    owner: read.owner.map(Owner::from),
                }))
            }
        }
    }
}

/// The topic whose end a removed key is; None if it is another's.
pub(super) fn removed_topic(key: &[u8]) -> Option<TopicId> {
    let id = std::str::from_utf8(key)
        .ok()?
        .strip_prefix(TOPIC_KEY_HEAD)?;
    uuid::Uuid::parse_str(id).ok().map(TopicId::from_uuid)
}

fn topic_key(id: TopicId) -> Bytes {
    Bytes::from(format!("{TOPIC_KEY_HEAD}{}", id.as_uuid().hyphenated()))
}

fn value<T: Serialize>(value: &T) -> Option<Bytes> {
    Some(Bytes::from(
        serde_json::to_vec(value).expect("strings and numbers are always JSON"),
    ))
}

fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> TopicRecord {
        TopicRecord {
            id: TopicId::from_uuid(uuid::Uuid::from_u128(
                0x0123_4567_89ab_4def_8123_4567_89ab_cdef,
            )),
            name: TopicName::parse("buoys").unwrap(),
            partitions: 12,
            settings: BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]),
            owner: None,
        }
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let settings = BrokerSettings {
            cluster: BTreeMap::from([("log.retention.ms".to_owned(), "5".to_owned())]),
            broker: BTreeMap::new(),
        };
        for record in [
            Record::Topic(topic()),
            Record::Topic(TopicRecord {
                owner: Some("alice".into()),
                ..topic()
            }),
            Record::BrokerSettings(settings),
            Record::ProducerIds { next: 2000 },
            Record::ProducerIdOwner {
                begin: 1000,
                owner: Some("alice".into()),
            },
        ] {
            let (key, value) = record.encode();
            assert_eq!(Record::decode(&key, &value.unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn the_written_form_is_the_documented_one() {
        let (key, value) = Record::Topic(topic()).encode();
        assert_eq!(key, "topic/01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(
            value.unwrap(),
            r#"{"version":1,"name":"buoys","partitions":12,"settings":{"retention.ms":"1000"}}"#
        );
    }

    #[test]
    fn a_topic_on_an_account_is_written_as_documented_and_earlier_releases_refuse_it() {
        let record = Record::Topic(TopicRecord {
            owner: Some("alice".into()),
            ..topic()
        });
        assert_eq!(
            record.encode().1.unwrap(),
            r#"{"version":2,"name":"buoys","partitions":12,"settings":{"retention.ms":"1000"},"owner":"alice"}"#
        );
    }

    #[test]
    fn whose_a_block_of_producer_ids_is_is_written_as_documented() {
        let record = |owner| Record::ProducerIdOwner { begin: 1000, owner };
        let (key, value) = record(Some("alice".into())).encode();
        assert_eq!(key, "producer-ids/1000");
        assert_eq!(value.unwrap(), r#"{"version":1,"owner":"alice"}"#);
        assert_eq!(record(None).encode(), (key.clone(), None));
        let value = br#"{"version":1,"owner":"alice"}"#;
        assert!(Record::decode(b"producer-ids/x", value).is_err());
        assert!(Record::decode(b"producer-ids/-1", value).is_err());
        assert!(Record::decode(&key, br#"{"version":2,"owner":"alice"}"#).is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let (key, value) = Record::ProducerIds { next: 1 }.encode();
        let value = value.unwrap();
        assert!(Record::decode(b"producer-idz", &value).is_err());
        assert!(Record::decode(&key, br#"{"version":2,"next":1}"#).is_err());
        assert!(Record::decode(&key, br#"{"version":1,"next":1,"more":1}"#).is_err());
        assert!(Record::decode(b"topic/x", &value).is_err());
        assert!(Record::decode(&key, b"").is_err());
    }
}
