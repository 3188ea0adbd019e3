//! DescribeLogDirs (35): the data directory, and how much each partition holds.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use wire::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use super::Call;
use crate::broker::Topic;
use crate::broker::access::right;
use crate::front::kafka::errors;

/// What a partition takes, in the answer and before it.
const PARTITION_BYTES: usize = 120;

pub(super) async fn answer(request: DescribeLogDirsRequest, call: Call) -> DescribeLogDirsResponse {
    let broker = call.broker();
    let cluster = match call.door.cluster(right::Describe) {
        Ok(cluster) => cluster,
        Err(refusal) => {
            return DescribeLogDirsResponse {
                error_code: errors::code(&refusal),
                ..DescribeLogDirsResponse::default()
            };
        }
    };
    let topics: Vec<(Arc<Topic>, Option<HashSet<i32>>)> = match request.topics {
        None => call
            .door
            .topics_of(&cluster)
            .into_iter()
            .map(|topic| (topic, None))
            .collect(),
        Some(topics) => named_once(topics)
            .into_iter()
            .filter_map(|(name, partitions)| {
                let topic = call.door.topic_of(&cluster, &name).ok()?;
                Some((topic, Some(partitions)))
            })
            .collect(),
    };
    let partitions = topics.iter().map(|(topic, _)| topic.partition_count());
    let bytes = partitions.map(|count| 128 + count as usize * PARTITION_BYTES);
    if let Err(misuse) = call.answer.hold(bytes.sum()).await {
        return DescribeLogDirsResponse {
            results: vec![DescribeLogDirsResult {
                error_code: misuse.code(),
                log_dir: broker.config().data_dir.display().to_string(),
                total_bytes: -1,
                usable_bytes: -1,
                ..DescribeLogDirsResult::default()
            }],
            ..DescribeLogDirsResponse::default()
        };
    }
    let topics = topics
        .into_iter()
        .map(|(topic, wanted)| DescribeLogDirsTopic {
            name: topic.name.as_str().to_owned(),
            partitions: broker
                .partition_sizes(&cluster, &topic)
                .into_iter()
                .map(|size| DescribeLogDirsPartition {
                    partition_index: size.partition.to_wire(),
                    partition_size: i64::try_from(size.bytes).unwrap_or(i64::MAX),
                    ..DescribeLogDirsPartition::default()
                })
                .filter(|size| {
                    wanted
                        .as_ref()
                        .is_none_or(|wanted| wanted.contains(&size.partition_index))
                })
                .collect(),
        })
        .collect();
    let dir = broker.log_dir(&cluster).await;
    let bytes =
        |bytes: Option<u64>| bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            log_dir: dir.path.display().to_string(),
            topics,
            total_bytes: bytes(dir.bytes_total),
            usable_bytes: bytes(dir.bytes_free),
            ..DescribeLogDirsResult::default()
        }],
        ..DescribeLogDirsResponse::default()
    }
}

/// Each topic once with all its partitions, however often the request names it.
fn named_once(topics: Vec<DescribableLogDirTopic>) -> BTreeMap<String, HashSet<i32>> {
    let mut named: BTreeMap<String, HashSet<i32>> = BTreeMap::new();
    for topic in topics {
        named
            .entry(topic.topic)
            .or_default()
            .extend(topic.partitions);
    }
    named
}
