//! Which topic a log belongs to: read from the metadata log's own records, where the broker keeps them.
//!
//! The records are keyed, and the last one counts: key `topic/<uuid>`, value a JSON object with `name`, none once the topic
//! is deleted.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::batch::{Batch, DecompressLimit};
use model::state_log::{self, TOPIC_KEY_HEAD};
use model::{LogId, Offset, TopicId};

/// Names of topics, by id.
#[derive(Debug, Default)]
pub(super) struct Names {
    topics: BTreeMap<TopicId, Option<String>>,
    /// What lies before it is known already.
    next: Offset,
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
            return;
        };
        for record in records.map_while(Result::ok) {
            let key = record
                .key
                .as_deref()
                .and_then(|key| std::str::from_utf8(key).ok());
            let id = key.and_then(|key| key.strip_prefix(TOPIC_KEY_HEAD)?.parse().ok());
            if let Some(id) = id {
                let name = record.value.as_deref().and_then(name_in);
                self.topics.insert(TopicId::from_uuid(id), name);
            }
        }
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
        self.topics.get(&log.topic_id)?.as_deref()
    }
}

fn name_in(value: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(value).ok()?;
    Some(value.get("name")?.as_str()?.to_owned())
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
        assert_eq!(names.of(LogId::of_state(7)), "(state log 7)");
    }
}
