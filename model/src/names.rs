//! Topic names, by Kafka's rules (its `Topic.validate`): what is parsed here is valid everywhere after.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use crate::PartitionId;

/// A valid topic name: 1 to 249 of `[a-zA-Z0-9._-]`, and neither `.` nor `..`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Source: Kafka's `Topic.INTERNAL_TOPICS`.
const INTERNAL: [&str; 3] = [
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
];
/// The topic of the audit log. Kafka has none.
pub const AUDIT_TOPIC: &str = "__audit_log";
/// The log of Kafka's controllers, which no client sees as a topic.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Why a text is not a topic name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The empty text.
    #[error("a topic name cannot be empty")]
    Empty,
    /// `.` or `..`.
    #[error("a topic name cannot be '.' or '..'")]
    Dots,
    /// Longer than [`TopicName::BYTES_MAX`].
    #[error("a topic name has at most {max} characters, this one has {bytes}", max = TopicName::BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A character outside `[a-zA-Z0-9._-]`.
    #[error(
        "a topic name consists of letters, digits, '.', '_' and '-', this one has {character:?}"
    )]
    Character {
        /// The first such character.
        character: char,
    },
}

impl TopicName {
    /// The longest name.
    pub const BYTES_MAX: usize = 249;

    /// Checks a text and makes it a name.
    pub fn parse(text: &str) -> Result<TopicName, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text == "." || text == ".." {
            return Err(InvalidName::Dots);
        }
        if text.len() > TopicName::BYTES_MAX {
            return Err(InvalidName::TooLong { bytes: text.len() });
        }
        match text
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        {
            Some(character) => Err(InvalidName::Character { character }),
            None => Ok(TopicName(Arc::from(text))),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two names that collide have in common: the name with `_` for each `.`, as metric names have it. None if the
    /// name has neither, and so collides with no other. Kafka refuses to create the second of such names.
    pub fn collision_key(&self) -> Option<String> {
        self.0
            .contains(['.', '_'])
            .then(|| self.0.replace('.', "_"))
    }

    /// Whether Kafka, or the broker, keeps its own state in the topic of this name, so that it takes no records from clients.
    pub fn is_internal(name: &str) -> bool {
        INTERNAL.contains(&name) || name == AUDIT_TOPIC
    }

    /// Whether Kafka keeps the name for itself, so that no client gets a topic of this name.
    pub fn is_reserved(name: &str) -> bool {
        TopicName::is_internal(name) || name == CLUSTER_METADATA
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TopicName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<TopicName, InvalidName> {
        TopicName::parse(text)
    }
}

impl Deref for TopicName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A partition as people and the protocol name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number within it.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// This topic's partition.
    pub fn new(topic: TopicName, partition: PartitionId) -> TopicPartition {
        TopicPartition { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for good in [
            "a",
            "...",
            "a.b_c-D9",
            "__consumer_offsets",
            &"x".repeat(249),
        ] {
            assert_eq!(TopicName::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(TopicName::parse(""), Err(InvalidName::Empty));
        assert_eq!(TopicName::parse("."), Err(InvalidName::Dots));
        assert_eq!(TopicName::parse(".."), Err(InvalidName::Dots));
        assert_eq!(
            TopicName::parse(&"x".repeat(250)),
            Err(InvalidName::TooLong { bytes: 250 })
        );
        for bad in [' ', '/', '\0', 'é', '\u{212a}', ':', '\\'] {
            assert_eq!(
                TopicName::parse(&format!("a{bad}b")),
                Err(InvalidName::Character { character: bad })
            );
        }
    }

    #[test]
    fn a_dot_and_an_underscore_collide() {
        let key = |text| TopicName::parse(text).unwrap().collision_key();
        assert_eq!(key("a.b_c"), key("a_b.c"));
        assert_ne!(key("a.b"), key("a.bc"));
        assert_eq!(key("a-b"), None);
    }

    #[test]
    fn what_kafka_keeps_for_itself_is_reserved() {
        for (name, internal, reserved) in [
            ("__consumer_offsets", true, true),
            ("__transaction_state", true, true),
            ("__share_group_state", true, true),
            ("__cluster_metadata", false, true),
            (AUDIT_TOPIC, true, true),
            ("_consumer_offsets", false, false),
            ("__consumer.offsets", false, false),
            ("__consumer_offsets2", false, false),
        ] {
            assert_eq!(TopicName::is_internal(name), internal, "{name}");
            assert_eq!(TopicName::is_reserved(name), reserved, "{name}");
        }
    }
}
