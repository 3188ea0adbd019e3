//! AlterReplicaLogDirs (34): a partition may be moved to the directory that it is in; there is no other.

use std::collections::BTreeMap;

use wire::messages::alter_replica_log_dirs::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
};

use super::{Call, held_partition};
use crate::broker::access::right;
use crate::front::kafka::errors::{self, Failure, Misuse};

pub(super) async fn answer(
    request: AlterReplicaLogDirsRequest,
    call: Call,
) -> AlterReplicaLogDirsResponse {
    let only_dir = call.broker().config().data_dir.display().to_string();
    let cluster = call.door.cluster(right::Alter);
    // One result for each topic, also if the request names it below several directories.
    let mut results: BTreeMap<String, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let found = cluster.as_ref().map_err(Clone::clone);
            let found = found.and_then(|cluster| call.door.topic_of(cluster, &topic.name));
            let moved = |index: i32| -> Result<(), Failure> {
                cluster.as_ref().map_err(Clone::clone)?;
                if dir.path != only_dir {
                    return Err(Misuse::LogDirNotFound.into());
                }
                held_partition(found.as_ref().map_err(Clone::clone)?, index)?;
                Ok(())
            };
            let one = |partition_index: i32| AlterReplicaLogDirPartitionResult {
                partition_index,
                error_code: moved(partition_index)
                    .map_or_else(|failure| failure.code(), |()| errors::NONE),
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
