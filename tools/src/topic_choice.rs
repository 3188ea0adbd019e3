//! How commands that act on partitions are told which: a topic, or some of its partitions.

use model::{PartitionId, TopicName, TopicPartition};

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

    fn from_str(text: &str) -> Result<TopicChoice, String> {
        let (topic, numbers) = match text.split_once(':') {
            Some((topic, numbers)) => (topic, Some(numbers)),
            None => (text, None),
        };
        let partition = |number: &str| -> Result<PartitionId, String> {
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
}
