//! AlterReplicaLogDirs (34): a partition may be moved to the directory that it is in; there is no other.

use std::collections::BTreeMap;

use wire::messages::alter_replica_log_dirs::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
};

use super::Call;
use crate::front::kafka::errors::{self, Misuse};

pub(super) async fn answer(
    request: AlterReplicaLogDirsRequest,
    call: Call,
) -> AlterReplicaLogDirsResponse {
    let only_dir = call.broker.config().data_dir.display().to_string();
    // One result for each topic, also if the request names it below several directories.
    let mut results: BTreeMap<String, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let found = call.broker.topic(&topic.name);
            let one = |partition_index: i32| AlterReplicaLogDirPartitionResult {
                partition_index,
                error_code: match &found {
                    _ if dir.path != only_dir => errors::misuse(Misuse::LogDirNotFound),
                    Ok(topic) => match topic.log(partition_index) {
                        Ok(_) => errors::NONE,
                        Err(refusal) => errors::code(&refusal),
                    },
                    Err(refusal) => errors::code(refusal),
                },
            };
            results
                .entry(topic.name.clone())
                .or_default()
                .extend(topic.partitions.into_iter().map(one));
        }
    }
    AlterReplicaLogDirsResponse {
        results: results
            .into_iter()
            .map(|(topic_name, partitions)| AlterReplicaLogDirTopicResult {
                topic_name,
                partitions,
            })
            .collect(),
        ..AlterReplicaLogDirsResponse::default()
    }
}
