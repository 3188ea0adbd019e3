//! Scenarios: scripts of requests, one file per family of APIs. A scenario names what it is at in `Pair::scene`, uses
//! topics and groups of its own, and leaves nothing behind that another would stumble over.
//! Callers: `oracle::main`; `generate` borrows a few of their requests.

mod acls;
mod cleaning;
mod cluster;
mod compacted;
mod configs;
mod groups;
mod names;
pub mod produce;
mod quotas;
mod read;
mod rights;
mod shares;
pub mod topics;
mod transactions;
mod users;
mod waits;

use super::pair::Pair;
use anyhow::Result;

/// One script.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it asks for.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(&mut Pair) -> Result<()>,
}

/// All of them, in the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "cluster",
        about: "ApiVersions, DescribeCluster, FindCoordinator, Sasl*",
        run: cluster::run,
    },
    Scenario {
        name: "topics",
        about: "CreateTopics, Metadata, DescribeTopicPartitions, CreatePartitions, DeleteTopics",
        run: topics::run,
    },
    Scenario {
        name: "produce",
        about: "Produce: right, wrong and idempotent batches; InitProducerId, DescribeProducers",
        run: produce::run,
    },
    Scenario {
        name: "read",
        about: "Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords",
        run: read::run,
    },
    Scenario {
        name: "waits",
        about: "Fetch: what ends its wait, and what does not",
        run: waits::run,
    },
    Scenario {
        name: "names",
        about: "topics whose names collide, and those that Kafka keeps for itself",
        run: names::run,
    },
    Scenario {
        name: "configs",
        about: "DescribeConfigs, AlterConfigs, DescribeLogDirs, elections, reassignments",
        run: configs::run,
    },
    Scenario {
        name: "compacted",
        about: "compacted topics: their settings, what they take, DeleteRecords",
        run: compacted::run,
    },
    Scenario {
        name: "cleaning",
        about: "which records of a compacted topic are left after cleaning, on both and by the rule",
        run: cleaning::run,
    },
    Scenario {
        name: "groups",
        about: "JoinGroup, SyncGroup, Heartbeat, LeaveGroup, offsets, in every state of a group",
        run: groups::run,
    },
    Scenario {
        name: "shares",
        about: "ShareGroupHeartbeat, ShareGroupDescribe, ShareFetch, ShareAcknowledge, offsets of share groups",
        run: shares::run,
    },
    Scenario {
        name: "acls",
        about: "DescribeAcls, CreateAcls, DeleteAcls: rules, filters, what is refused",
        run: acls::run,
    },
    Scenario {
        name: "rights",
        about: "requests of a client that may do this and not that, and the operations it is told it may do",
        run: rights::run,
    },
    Scenario {
        name: "users",
        about: "DescribeUserScramCredentials, AlterUserScramCredentials",
        run: users::run,
    },
    Scenario {
        name: "quotas",
        about: "DescribeClientQuotas, AlterClientQuotas",
        run: quotas::run,
    },
    // The last one: Kafka makes a topic for its transactions.
    Scenario {
        name: "transactions",
        about: "FindCoordinator for a transaction",
        run: transactions::run,
    },
];
