//! The kinds of rights and of resources, as values: for rules, tables, refusals and texts.
//! Callers: `rules`, refusals, and the fronts' tables. Source: Kafka's `AclOperation`, but for the two deletions, which Kafka has
//! as one, and for cleanup and holds, which Kafka offers no requests for.

use std::fmt;

use model::acl::Operation;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Learn that it exists, and its shape.
    Describe,
    /// Take records from it; be a member of it.
    Read,
    /// Append records to it.
    Write,
    /// Call it into being.
    Create,
    /// Delete it.
    Delete,
    /// Delete records of it.
    DeleteRecords,
    /// Have its cleanup run now: what its settings would remove anyway.
    Clean,
    /// Keep records of it from cleanup, and end that.
    Hold,
    /// Change its shape.
    Alter,
    /// See its settings.
    DescribeConfigs,
    /// Change its settings.
    AlterConfigs,
    /// Get an id as an idempotent producer.
    IdempotentWrite,
}

impl Right {
    /// Each of them.
    pub const ALL: [Right; 12] = [
        Right::Describe,
        Right::Read,
        Right::Write,
        Right::Create,
        Right::Delete,
        Right::DeleteRecords,
        Right::Clean,
        Right::Hold,
        Right::Alter,
        Right::DescribeConfigs,
        Right::AlterConfigs,
        Right::IdempotentWrite,
    ];
}

impl Right {
    /// Kafka's word for it: what a rule about this right says.
    pub fn operation(self) -> Operation {
        match self {
            Right::Describe => Operation::Describe,
            Right::Read => Operation::Read,
            Right::Write => Operation::Write,
            Right::Create => Operation::Create,
            Right::Delete | Right::DeleteRecords => Operation::Delete,
            Right::Alter | Right::Clean | Right::Hold => Operation::Alter,
            Right::DescribeConfigs => Operation::DescribeConfigs,
            Right::AlterConfigs => Operation::AlterConfigs,
            Right::IdempotentWrite => Operation::IdempotentWrite,
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Right::Describe => "describe",
            Right::Read => "read",
            Right::Write => "write to",
            Right::Create => "create",
            Right::Delete => "delete",
            Right::DeleteRecords => "delete records of",
            Right::Clean => "run the cleanup of",
            Right::Hold => "hold records of",
            Right::Alter => "alter",
            Right::DescribeConfigs => "see the settings of",
            Right::AlterConfigs => "change the settings of",
            Right::IdempotentWrite => "be an idempotent producer of",
        })
    }
}

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// A topic.
    Topic,
    /// A group.
    Group,
    /// The cluster.
    Cluster,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResourceKind::Topic => "this topic",
            ResourceKind::Group => "this group",
            ResourceKind::Cluster => "the cluster",
        })
    }
}
