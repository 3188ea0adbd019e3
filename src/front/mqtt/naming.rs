//! What the records of a Kafka topic are called: by the topic that they were published to, and as records of their Kafka topic.
//! Callers: whoever reads the log for subscribers. Pure.

use std::cell::OnceCell;

use bytes::Bytes;
use model::TopicName;
use model::batch::RecordRef;

use super::record::name_of;
use super::topic::{self, KAFKA, TopicFilter};
use crate::broker::replay::{Filter, KeyFilter};

/// Of one Kafka topic.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub(super) topic: TopicName,
    /// Whether a record's key is the topic that it was published to, if no header says another one.
    pub(super) keys_are_names: bool,
}

/// What a key index can tell of the records that a filter matches: all of them pass it. One without wildcards is of records that have its name
/// as their key or in the header that says it, whatever routes there were when they came; one of a Kafka topic's records is of a key.
pub(super) fn looked_up_by(filter: &TopicFilter) -> Filter {
    let mut found = Filter::default();
    if filter.prefix().is_some() {
        return found;
    }
    let bytes = |name: &str| Bytes::copy_from_slice(name.as_bytes());
    match filter.as_str().strip_prefix(KAFKA) {
        None => found.name = Some(bytes(filter.as_str())),
        // Without a key it is of all records whose keys can stand in no topic.
        Some(rest) => {
            found.key = rest
                .split_once('/')
                .map(|(_, key)| KeyFilter::Is(bytes(key)))
        }
    }
    found
}

/// Of one record.
#[derive(Debug)]
pub(super) struct Names<'a> {
    /// The topic that it was published to.
    published: Option<&'a str>,
    kafka_topic: &'a str,
    key: Option<&'a [u8]>,
    /// As a record of its Kafka topic, once somebody has asked.
    kafka: OnceCell<Box<str>>,
}

impl Naming {
    /// The names of a record.
    pub(super) fn names<'a>(&'a self, record: &RecordRef<'a>) -> Names<'a> {
        Names {
            published: name_of(record, self.keys_are_names),
            kafka_topic: self.topic.as_str(),
            key: record.key,
            kafka: OnceCell::new(),
        }
    }
}

impl<'a> Names<'a> {
    /// The topic that it was published to, if it is a message.
    pub(super) fn published(&self) -> Option<&'a str> {
        self.published
    }

    /// `$kafka/<topic>/<key>`; without the key where it has none, or one that can stand in no topic.
    pub(super) fn kafka(&self) -> &str {
        self.kafka.get_or_init(|| {
            let head = format!("{KAFKA}{}", self.kafka_topic);
            let key = self.key.and_then(|key| std::str::from_utf8(key).ok());
            let whole = key.map(|key| format!("{head}/{key}"));
            whole.filter(|it| topic::is_name(it)).unwrap_or(head).into()
        })
    }

    /// The name by which a filter would match it.
    pub(super) fn by(&self, is_of_kafka: bool) -> Option<&str> {
        match is_of_kafka {
            true => Some(self.kafka()),
            false => self.published,
        }
    }

    /// Whether a filter matches it.
    pub(super) fn is_matched_by(&self, filter: &TopicFilter) -> bool {
        let name = self.by(filter.is_of_kafka());
        name.is_some_and(|name| filter.matches(name))
    }

    /// Of a record that was published to a topic, in a Kafka topic `mqtt`, under its topic as the key.
    #[cfg(test)]
    pub(super) fn of_published(name: &'a str) -> Names<'a> {
        Names {
            published: Some(name),
            kafka_topic: "mqtt",
            key: Some(name.as_bytes()),
            kafka: OnceCell::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_called_by_its_kafka_topic_and_key_if_that_may_stand_in_a_topic() {
        let called = |key: Option<&[u8]>| {
            let names = Names {
                published: None,
                kafka_topic: "orders",
                key,
                kafka: OnceCell::new(),
            };
            names.kafka().to_owned()
        };
        for (key, name) in [
            (Some(&b"7"[..]), "$kafka/orders/7"),
            (Some(b"a/b"), "$kafka/orders/a/b"),
            (Some(b""), "$kafka/orders/"),
            (None, "$kafka/orders"),
            (Some(b"a+b"), "$kafka/orders"),
            (Some(b"\xff"), "$kafka/orders"),
            (Some(&[b'x'; 65_530]), "$kafka/orders"),
        ] {
            assert_eq!(called(key), name);
        }
    }
}
