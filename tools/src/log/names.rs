//! Which topic a log belongs to, and what it is set to: read from the metadata log's own records, where the broker keeps them.
//!
//! Callers: `log`, and `cleanup` over a directory. The records are keyed, and the last one counts: key `topic/<uuid>`, value a
//! JSON object with `name`, `partitions` and `settings`, none once the topic is deleted; key `broker-settings`, those made for
//! all topics while a broker ran. What cannot be read names no topic, and is kept as [`Names::trouble`] for who must know all.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::batch::{Batch, DecompressLimit};
use model::state_log::{self, BROKER_SETTINGS_KEY, StateLogKind, TOPIC_KEY_HEAD};
use model::{LogId, Offset, TopicId};
use serde::Deserialize;

/// Topics, by id.
#[derive(Debug, Default)]
pub(crate) struct Names {
    topics: BTreeMap<TopicId, Option<Topic>>,
    broker: BrokerSettings,
    trouble: Option<String>,
    /// What lies before it is known already.
    next: Offset,
}

/// What the metadata says of a topic.
#[derive(Debug, Deserialize)]
pub(crate) struct Topic {
    pub name: String,
    #[serde(default)]
    pub partitions: u32,
    /// Those that were made for it.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// Settings that were made while a broker ran, for all topics that say nothing.
#[derive(Debug, Default, Deserialize)]
struct BrokerSettings {
    cluster: BTreeMap<String, String>,
    broker: BTreeMap<String, String>,
}

impl Names {
    /// Takes a batch of the metadata log; batches come in order, some of them twice. What cannot be read tells no name.
    pub fn take(&mut self, bytes: Bytes, base: Offset) {
        let Ok(batch) = Batch::parse(bytes) else {
            return;
        };
        let count = u64::from(batch.header().last_offset_delta.unsigned_abs()) + 1;
        if base < self.next {
            return;
        }
        self.next = base.plus(count);
        let Ok(records) = batch.records(DecompressLimit::default()) else {
            self.trouble = Some(format!("the batch at offset {base} cannot be read"));
            return;
        };
        for record in records.map_while(Result::ok) {
            let key = record.key.as_deref().unwrap_or_default();
            let value = record.value.as_deref();
            if let Err(error) = StateLogKind::Metadata.check(key, value) {
                let key = String::from_utf8_lossy(key);
                self.trouble = Some(format!("the record {key:?}: {error}"));
            }
            let text = std::str::from_utf8(key).unwrap_or_default();
            let id = text.strip_prefix(TOPIC_KEY_HEAD);
            if let Some(id) = id.and_then(|id| id.parse().ok()) {
                let topic = value.and_then(|value| serde_json::from_slice(value).ok());
                self.topics.insert(TopicId::from_uuid(id), topic);
            } else if text == BROKER_SETTINGS_KEY {
                self.broker = value.and_then(settings_in).unwrap_or_default();
            }
        }
    }

    /// Why not all of the metadata is understood; None if it is.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The topics that there are.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        let topics = self.topics.iter();
        topics.filter_map(|(id, topic)| Some((*id, topic.as_ref()?)))
    }

    /// Settings that were made for all topics while a broker ran, in the order in which later ones go first.
    pub fn broker_settings(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.broker.cluster.iter().chain(&self.broker.broker);
        all.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `readings-0`; for the store's own logs what they hold; for a topic that nobody knows its id.
    pub fn of(&self, log: LogId) -> String {
        match (state_log::name_of(log), self.topic(log)) {
            (Some(name), _) => format!("({name})"),
            (None, Some(topic)) => format!("{topic}-{}", log.partition),
            (None, None) => log.to_string(),
        }
    }

    /// The topic's name; None for the store's own logs, and for topics that are deleted or not known.
    pub fn topic(&self, log: LogId) -> Option<&str> {
        let topic = self.topics.get(&log.topic_id)?.as_ref()?;
        Some(&topic.name)
    }
}

fn settings_in(value: &[u8]) -> Option<BrokerSettings> {
    #[derive(Deserialize)]
    struct Value {
        settings: BrokerSettings,
    }
    let value: Value = serde_json::from_slice(value).ok()?;
    Some(value.settings)
}

#[cfg(test)]
mod tests {
    use model::batch::{BatchBuilder, Codec};
    use model::{PartitionId, Timestamp};

    use super::*;

    fn batch(id: TopicId, value: Option<&str>) -> Bytes {
        let mut builder = BatchBuilder::new(Codec::None);
        let key = format!("topic/{}", id.as_uuid());
        let value = value.map(str::as_bytes);
        builder
            .push(Timestamp::from_millis(0), Some(key.as_bytes()), value, &[])
            .unwrap();
        builder.build().unwrap()
    }

    #[test]
    fn the_last_record_names_the_topic_and_none_does_after_its_deletion() {
        let id = TopicId::from_bytes([7; 16]);
        let log = LogId::new(id, PartitionId::new(3));
        let mut names = Names::default();
        assert_eq!(names.of(log), log.to_string());
        names.take(batch(id, Some("{\"name\":\"readings\"}")), Offset::new(5));
        assert_eq!(names.of(log), "readings-3");
        names.take(batch(id, Some("{\"name\":\"older\"}")), Offset::new(4));
        assert_eq!(names.of(log), "readings-3");
        names.take(batch(id, None), Offset::new(6));
        assert_eq!(names.topic(log), None);
        names.take(Bytes::from_static(b"no batch"), Offset::new(7));
        assert_eq!(names.of(LogId::METADATA), "(metadata)");
        assert_eq!(names.of(LogId::OFFSETS), "(groups)");
        assert_eq!(names.of(LogId::of_state(99)), "(state log 99)");
    }
}
