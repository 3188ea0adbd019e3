//! DescribeLogDirs (35): the data directory, and how much each partition holds.

use std::sync::Arc;

use wire::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};

use super::Call;
use crate::broker::Topic;

pub(super) async fn answer(request: DescribeLogDirsRequest, call: Call) -> DescribeLogDirsResponse {
    let broker = &call.broker;
    let topics: Vec<(Arc<Topic>, Option<Vec<i32>>)> = match request.topics {
        None => broker
            .topics()
            .into_iter()
            .map(|topic| (topic, None))
            .collect(),
        Some(topics) => topics
            .into_iter()
            .filter_map(|wanted| Some((broker.topic(&wanted.topic).ok()?, Some(wanted.partitions))))
            .collect(),
    };
    let topics = topics
        .into_iter()
        .map(|(topic, wanted)| DescribeLogDirsTopic {
            name: topic.name.as_str().to_owned(),
            partitions: broker
                .partition_sizes(&topic)
                .into_iter()
                .map(|size| DescribeLogDirsPartition {
                    partition_index: i32::try_from(size.partition).unwrap_or(i32::MAX),
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
    let dir = broker.log_dir().await;
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
