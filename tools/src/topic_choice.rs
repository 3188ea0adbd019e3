//! How commands are told which topics and partitions: a topic, some of its partitions, or a pattern of names.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use client::Client;
use model::{PartitionId, TopicName, TopicPartition};

use crate::failure::Failure;

/// A topic, or some of its partitions: `readings`, `readings:0,3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicChoice {
    /// The topic.
    pub topic: TopicName,
    /// Empty for all.
    pub partitions: Vec<PartitionId>,
}

impl std::str::FromStr for TopicChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<TopicChoice, String> {
        let (topic, numbers) = match text.split_once(':') {
            Some((topic, numbers)) => (topic, Some(numbers)),
            None => (text, None),
        };
        let partition = |number: &str| -> std::result::Result<PartitionId, String> {
            number
                .parse::<i32>()
                .ok()
                .and_then(PartitionId::from_wire)
                .ok_or_else(|| format!("{number:?} is no partition's number"))
        };
        Ok(TopicChoice {
            topic: TopicName::parse(topic).map_err(|error| error.to_string())?,
            partitions: match numbers {
                Some(numbers) => numbers
                    .split(',')
                    .map(partition)
                    .collect::<Result<_, _>>()?,
                None => Vec::new(),
            },
        })
    }
}

impl TopicChoice {
    /// Whether this partition is chosen.
    pub fn takes(&self, partition: &TopicPartition) -> bool {
        self.topic == partition.topic
            && (self.partitions.is_empty() || self.partitions.contains(&partition.partition))
    }
}

/// Whether the name is the pattern, in which `*` stands for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

/// The topics that these names and patterns stand for, each once, in order of their names where a pattern finds several. Internal
/// topics have to be named. A pattern that finds none is an error.
pub async fn expand(client: &Client, names: &[String]) -> Result<Vec<String>> {
    if !names.iter().any(|name| name.contains('*')) {
        return Ok(names.to_vec());
    }
    let known = client.refresh(None).await?;
    let mut all: Vec<&String> = known
        .topics
        .values()
        .filter(|topic| !topic.is_internal)
        .map(|topic| &topic.name)
        .collect();
    all.sort();
    let mut expanded: Vec<String> = Vec::new();
    for name in names {
        if !name.contains('*') {
            expanded.push(name.clone());
            continue;
        }
        let found = all.iter().filter(|topic| matches(name, topic));
        let found: Vec<String> = found.map(|topic| (*topic).clone()).collect();
        if found.is_empty() {
            bail!(Failure::NotFound(format!("no topic matches {name}")));
        }
        expanded.extend(found);
    }
    let mut seen = BTreeSet::new();
    expanded.retain(|name| seen.insert(name.clone()));
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_chosen_whole_or_by_partitions() {
        let choice: TopicChoice = "a.b:0,3".parse().unwrap();
        assert_eq!(choice.topic.as_str(), "a.b");
        assert_eq!(
            choice.partitions,
            [PartitionId::new(0), PartitionId::new(3)]
        );
        assert!("a".parse::<TopicChoice>().unwrap().partitions.is_empty());
        for wrong in ["", "a:", "a:x", "a:-1", "a b", "a:1,,2"] {
            assert!(wrong.parse::<TopicChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("a*", "ba", false),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("ab*bc", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
