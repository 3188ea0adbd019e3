//! Operations: `authorized_operations` of answers, as bits of Kafka's `AclOperation`: what the door would let the client do.
//! Callers: the handlers that describe the cluster, topics and groups.

use crate::broker::access::{Door, Resource, Right};

/// When the client did not ask, or of a resource that is not there.
pub(super) const NOT_ASKED: i32 = i32::MIN;

/// Brokers among themselves have it; there is one only, and whoever may alter the cluster is told it, as by a Kafka without
/// an authorizer.
const CLUSTER_ACTION: i32 = 1 << 9;

const OF_GROUP: [Right; 5] = [
    Right::Read,
    Right::Describe,
    Right::Delete,
    Right::DescribeConfigs,
    Right::AlterConfigs,
];
const OF_TOPIC: [Right; 9] = [
    Right::Read,
    Right::Write,
    Right::Create,
    Right::Describe,
    Right::Delete,
    Right::DeleteRecords,
    Right::Alter,
    Right::DescribeConfigs,
    Right::AlterConfigs,
];
const OF_CLUSTER: [Right; 6] = [
    Right::Create,
    Right::IdempotentWrite,
    Right::Alter,
    Right::Describe,
    Right::DescribeConfigs,
    Right::AlterConfigs,
];

/// Of a group.
pub(super) fn of_group(asked: bool, id: &str, door: &Door) -> i32 {
    told(asked, &OF_GROUP, Resource::Group(id), door)
}

/// Of a topic.
pub(super) fn of_topic(asked: bool, name: &str, door: &Door) -> i32 {
    told(asked, &OF_TOPIC, Resource::Topic(name), door)
}

/// Of the cluster: none, if the client may not describe it.
pub(super) fn of_cluster(asked: bool, door: &Door) -> i32 {
    if asked && !door.may(Resource::Cluster, Right::Describe) {
        return 0;
    }
    let bits = told(asked, &OF_CLUSTER, Resource::Cluster, door);
    match asked && door.may(Resource::Cluster, Right::Alter) {
        true => bits | CLUSTER_ACTION,
        false => bits,
    }
}

fn told(asked: bool, rights: &[Right], resource: Resource<'_>, door: &Door) -> i32 {
    if !asked {
        return NOT_ASKED;
    }
    let held = rights.iter().filter(|right| door.may(resource, **right));
    held.fold(0, |bits, right| bits | bit(*right))
}

/// The bit of a right. Kafka has one for both deletions, and none for cleanup.
fn bit(right: Right) -> i32 {
    match right {
        Right::Read => 1 << 3,
        Right::Write => 1 << 4,
        Right::Create => 1 << 5,
        Right::Delete | Right::DeleteRecords => 1 << 6,
        Right::Clean | Right::Hold => 0,
        Right::Alter => 1 << 7,
        Right::Describe => 1 << 8,
        Right::DescribeConfigs => 1 << 10,
        Right::AlterConfigs => 1 << 11,
        Right::IdempotentWrite => 1 << 12,
    }
}
