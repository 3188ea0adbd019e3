//! Operations: `authorized_operations` of answers, as bits of Kafka's `AclOperation`. There is no access control, and without
//! it everyone may do whatever can be done with a resource, as in a Kafka without an authorizer.
//! Callers: the handlers that describe the cluster, topics and groups.

/// When the client did not ask, or of a resource that is not there.
pub(super) const NOT_ASKED: i32 = i32::MIN;

const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

/// Of a group.
pub(super) fn of_group(asked: bool) -> i32 {
    let settings = DESCRIBE_CONFIGS | ALTER_CONFIGS;
    if_asked(asked, READ | DESCRIBE | DELETE | settings)
}

/// Of a topic.
pub(super) fn of_topic(asked: bool) -> i32 {
    let contents = READ | WRITE | CREATE | DESCRIBE | DELETE | ALTER;
    if_asked(asked, contents | DESCRIBE_CONFIGS | ALTER_CONFIGS)
}

/// Of the cluster.
pub(super) fn of_cluster(asked: bool) -> i32 {
    let settings = DESCRIBE_CONFIGS | ALTER_CONFIGS;
    let cluster = CREATE | CLUSTER_ACTION | IDEMPOTENT_WRITE | ALTER | DESCRIBE;
    if_asked(asked, cluster | settings)
}

fn if_asked(asked: bool, operations: i32) -> i32 {
    if asked { operations } else { NOT_ASKED }
}
