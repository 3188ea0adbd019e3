//! Access control lists, as Kafka has them: who may or may not do what to which resources from where; and how they are kept.
//! Callers: the broker, which keeps and evaluates them; its fronts and the tools, which name them.
//! Invariants: an [`Acl`] that was checked can be matched by some request; the numbers of the wire are Kafka's and never change.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::state_log::{ACLS_VERSION, StateLogKind};

/// What stands for every host, as a name for every resource of a type, and behind `User:` for everybody.
pub const WILDCARD: &str = "*";
/// The one name of a [`ResourceType::Cluster`].
pub const CLUSTER_NAME: &str = "kafka-cluster";
/// How a principal begins; the user's name follows.
pub const USER_HEAD: &str = "User:";
/// The longest name of a resource, or of a principal.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Declares a type of Kafka's with its names and its numbers on the wire.
macro_rules! words {
    ($(#[$about:meta])* $name:ident: $what:literal; $($(#[$one:meta])* $word:ident $code:literal $text:literal,)+) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$one])* #[serde(rename = $text)] $word,)+
        }

        impl $name {
            /// Each of them.
            pub const ALL: &[$name] = &[$($name::$word),+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$word => $text,)+
                }
            }

            /// Its number on the wire.
            pub const fn code(self) -> i8 {
                match self {
                    $($name::$word => $code,)+
                }
            }

            /// The one with this number.
            pub fn of_code(code: i8) -> Option<$name> {
                Self::ALL.iter().copied().find(|one| one.code() == code)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<$name, UnknownWord> {
                let found = Self::ALL.iter().copied().find(|one| {
                    let same = |(a, b): (char, char)| a.eq_ignore_ascii_case(&b) || (a, b) == ('_', '-');
                    one.name().len() == text.len() && one.name().chars().zip(text.chars()).all(same)
                });
                found.ok_or_else(|| UnknownWord {
                    what: $what,
                    found: text.chars().take(80).collect(),
                    known: Self::ALL.iter().map(|one| one.name()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

/// A word that names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}: one of {known}")]
pub struct UnknownWord {
    what: &'static str,
    found: String,
    known: String,
}

words! {
    /// What a rule is about. There are no delegation tokens.
    ResourceType: "type of resource";
    /// Topics.
    Topic 2 "topic",
    /// Consumer groups.
    Group 3 "group",
    /// The cluster.
    Cluster 4 "cluster",
    /// Transactional ids.
    TransactionalId 5 "transactional_id",
    /// Users.
    User 7 "user",
}

words! {
    /// How a rule names resources.
    PatternType: "type of pattern";
    /// The one of this name; or all, if it is `*`.
    Literal 3 "literal",
    /// All whose names begin so.
    Prefixed 4 "prefixed",
}

words! {
    /// What a rule is about: Kafka's `AclOperation`.
    Operation: "operation";
    /// All of them.
    All 2 "all",
    /// Take records; be a member of a group.
    Read 3 "read",
    /// Append records.
    Write 4 "write",
    /// Call into being.
    Create 5 "create",
    /// Delete it, or records of it.
    Delete 6 "delete",
    /// Change its shape.
    Alter 7 "alter",
    /// Learn that it exists, and its shape.
    Describe 8 "describe",
    /// What brokers do among themselves.
    ClusterAction 9 "cluster_action",
    /// See settings.
    DescribeConfigs 10 "describe_configs",
    /// Change settings.
    AlterConfigs 11 "alter_configs",
    /// Be an idempotent producer.
    IdempotentWrite 12 "idempotent_write",
    /// Create a user's tokens.
    CreateTokens 13 "create_tokens",
    /// See a user's tokens.
    DescribeTokens 14 "describe_tokens",
    /// Prepare transactions of two phases.
    TwoPhaseCommit 15 "two_phase_commit",
}

words! {
    /// What a rule says.
    Permission: "permission";
    /// May not.
    Deny 2 "deny",
    /// May.
    Allow 3 "allow",
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    /// The type of the resources.
    pub resource_type: ResourceType,
    /// Their name, or how their names begin.
    pub name: String,
    /// Which of the two.
    pub pattern: PatternType,
    /// Who: `User:` and a name, or `User:*`.
    pub principal: String,
    /// From where: an address, or `*`.
    pub host: String,
    /// What.
    pub operation: Operation,
    /// Whether they may.
    pub permission: Permission,
}

/// Why a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAcl {
    /// No name.
    #[error("the name of a resource must not be empty")]
    Unnamed,
    /// A cluster's other name.
    #[error("the only valid name for the cluster is {CLUSTER_NAME}")]
    OtherCluster,
    /// No principal.
    #[error("{0:?} is no principal: User: and a name, or User:*")]
    Principal(String),
    /// No address.
    #[error("{0:?} is no host: an IP address, or *")]
    Host(String),
    /// A part of a topic that is none.
    #[error("a rule below a topic has the topic, / and an MQTT filter as its name: {0}")]
    Part(&'static str),
    /// A text that is too long.
    #[error("a name is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

impl Acl {
    /// Whether some request could match it.
    pub fn check(&self) -> Result<(), InvalidAcl> {
        if self.name.len() > TEXT_BYTES_MAX || self.principal.len() > TEXT_BYTES_MAX {
            return Err(InvalidAcl::TooLong);
        }
        if self.name.is_empty() {
            return Err(InvalidAcl::Unnamed);
        }
        if self.resource_type == ResourceType::Cluster && self.name != CLUSTER_NAME {
            return Err(InvalidAcl::OtherCluster);
        }
        if self.user().is_none_or(str::is_empty) {
            return Err(InvalidAcl::Principal(self.principal.clone()));
        }
        if self.host != WILDCARD && self.address().is_none() {
            let shown = self.host.chars().take(100).collect();
            return Err(InvalidAcl::Host(shown));
        }
        Ok(())
    }

    /// The user's name, or `*`.
    pub fn user(&self) -> Option<&str> {
        self.principal.strip_prefix(USER_HEAD)
    }

    /// The one address that it is about; None is all.
    pub fn address(&self) -> Option<IpAddr> {
        let address: IpAddr = self.host.parse().ok()?;
        Some(address.to_canonical())
    }

    /// How it is kept.
    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredRef {
            version: ACLS_VERSION,
            acl: self,
        };
        serde_json::to_vec(&stored).expect("plain fields are JSON")
    }

    /// Reads one that was kept.
    pub fn decode(value: &[u8]) -> Result<Acl, UnknownAcl> {
        StateLogKind::Acls
            .check_value(value)
            .map_err(|error| UnknownAcl(error.to_string()))?;
        let stored: Stored =
            serde_json::from_slice(value).map_err(|error| UnknownAcl(error.to_string()))?;
        let checked = stored.acl.check();
        checked.map_err(|error| UnknownAcl(error.to_string()))?;
        Ok(stored.acl)
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Acl {
            principal,
            operation,
            permission,
            ..
        } = self;
        write!(f, "{permission} {principal} {operation} on ")?;
        match (self.resource_type, self.pattern) {
            (ResourceType::Cluster, _) => f.write_str("the cluster"),
            (kind, PatternType::Literal) => write!(f, "{kind}:{}", self.name),
            (kind, PatternType::Prefixed) => write!(f, "{kind}:{}* (prefixed)", self.name),
        }?;
        write!(f, " from {}", self.host)
    }
}

/// As it is kept.
#[derive(Serialize)]
struct StoredRef<'a> {
    version: u32,
    acl: &'a Acl,
}

/// The same.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[allow(dead_code, reason = "it was checked before")]
    version: u32,
    acl: Acl,
}

/// A record that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownAcl(pub String);

/// Which names a filter means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PatternFilter {
    /// Patterns of any type with this name.
    #[default]
    Any,
    /// Patterns that match a resource of this name.
    Match,
    /// Patterns of this type with this name.
    Only(PatternType),
}

/// Chooses rules; what is None chooses all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AclFilter {
    /// The type of resources.
    pub resource_type: Option<ResourceType>,
    /// The name.
    pub name: Option<String>,
    /// How the name is meant.
    pub pattern: PatternFilter,
    /// The principal.
    pub principal: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The operation.
    pub operation: Option<Operation>,
    /// The permission.
    pub permission: Option<Permission>,
}

impl AclFilter {
    /// Whether it chooses this rule.
    pub fn matches(&self, acl: &Acl) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        is(self.resource_type.as_ref(), &acl.resource_type)
            && self.matches_name(acl)
            && is(self.principal.as_ref(), &acl.principal)
            && is(self.host.as_ref(), &acl.host)
            && is(self.operation.as_ref(), &acl.operation)
            && is(self.permission.as_ref(), &acl.permission)
    }

    fn matches_name(&self, acl: &Acl) -> bool {
        if let PatternFilter::Only(pattern) = self.pattern
            && pattern != acl.pattern
        {
            return false;
        }
        let Some(name) = &self.name else {
            return true;
        };
        match (self.pattern, acl.pattern) {
            (PatternFilter::Match, PatternType::Literal) => {
                acl.name == *name || acl.name == WILDCARD
            }
            (PatternFilter::Match, PatternType::Prefixed) => name.starts_with(&acl.name),
            _ => acl.name == *name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(name: &str, pattern: PatternType) -> Acl {
        Acl {
            resource_type: ResourceType::Topic,
            name: name.to_owned(),
            pattern,
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation: Operation::Read,
            permission: Permission::Allow,
        }
    }

    #[test]
    fn words_are_kafkas_numbers_and_are_read_as_they_are_written() {
        // Kafka's ResourceType, AclOperation, AclPermissionType and PatternType.
        let codes = |codes: Vec<i8>| codes;
        let types = ResourceType::ALL.iter().map(|one| one.code()).collect();
        assert_eq!(codes(types), [2, 3, 4, 5, 7]);
        let operations: Vec<i8> = Operation::ALL.iter().map(|one| one.code()).collect();
        assert_eq!(operations, (2..=15).collect::<Vec<i8>>());
        assert_eq!(Permission::of_code(2), Some(Permission::Deny));
        assert_eq!(Permission::of_code(3), Some(Permission::Allow));
        assert_eq!(PatternType::of_code(3), Some(PatternType::Literal));
        assert_eq!(PatternType::of_code(4), Some(PatternType::Prefixed));
        for one in Operation::ALL {
            assert_eq!(one.name().parse(), Ok(*one));
            assert_eq!(
                one.name().to_uppercase().replace('_', "-").parse(),
                Ok(*one)
            );
        }
        assert!("reed".parse::<Operation>().is_err());
        assert_eq!(ResourceType::of_code(6), None);
    }

    #[test]
    fn a_rule_that_nothing_could_match_is_none() {
        let valid = acl("a", PatternType::Literal);
        assert_eq!(valid.check(), Ok(()));
        let with = |change: fn(&mut Acl)| {
            let mut acl = valid.clone();
            change(&mut acl);
            acl.check().is_ok()
        };
        assert!(!with(|it| it.name.clear()));
        assert!(!with(|it| it.name = "a".repeat(5000)));
        assert!(!with(|it| it.resource_type = ResourceType::Cluster));
        assert!(!with(|it| it.principal = "alice".into()));
        assert!(!with(|it| it.principal = "Group:admins".into()));
        assert!(!with(|it| it.principal = "User:".into()));
        assert!(!with(|it| it.host = "db.example".into()));
        assert!(with(|it| it.host = "::1".into()));
        assert!(with(|it| it.host = "0:0:0:0:0:0:0:1".into()));
        assert!(with(|it| it.principal = "User:*".into()));
    }

    #[test]
    fn a_filter_means_names_as_kafkas_does() {
        let chosen = |name: &str, pattern| {
            let filter = AclFilter {
                name: Some(name.to_owned()),
                pattern,
                ..AclFilter::default()
            };
            let all = [
                acl("foo", PatternType::Literal),
                acl("*", PatternType::Literal),
                acl("fo", PatternType::Prefixed),
                acl("foo", PatternType::Prefixed),
                acl("bar", PatternType::Literal),
            ];
            let chosen: Vec<bool> = all.iter().map(|acl| filter.matches(acl)).collect();
            chosen
        };
        let (yes, no) = (true, false);
        assert_eq!(chosen("foo", PatternFilter::Any), [yes, no, no, yes, no]);
        assert_eq!(
            chosen("foo", PatternFilter::Match),
            [yes, yes, yes, yes, no]
        );
        let literal = PatternFilter::Only(PatternType::Literal);
        assert_eq!(chosen("foo", literal), [yes, no, no, no, no]);
        let prefixed = PatternFilter::Only(PatternType::Prefixed);
        assert_eq!(chosen("foo", prefixed), [no, no, no, yes, no]);
        assert!(AclFilter::default().matches(&acl("x", PatternType::Prefixed)));
    }

    /// What version 1 wrote. Never edited.
    const GOLDEN: &str = include_str!("../tests/golden/acl-v1.json");

    #[test]
    fn version_1_is_read_and_written_byte_by_byte() {
        let first = Acl {
            resource_type: ResourceType::TransactionalId,
            name: "täg-\"1\"".to_owned(),
            pattern: PatternType::Prefixed,
            principal: "User:CN=al ice,O=x".to_owned(),
            host: "10.0.0.7".to_owned(),
            operation: Operation::DescribeConfigs,
            permission: Permission::Deny,
        };
        let lines: Vec<&str> = GOLDEN.lines().collect();
        let all = [first, acl("*", PatternType::Literal)];
        assert_eq!(lines.len(), all.len());
        for (line, acl) in lines.iter().zip(&all) {
            assert_eq!(Acl::decode(line.as_bytes()).as_ref(), Ok(acl));
            assert_eq!(acl.encode(), line.as_bytes());
        }
        let later = lines[0].replacen("\"version\":1", "\"version\":2", 1);
        assert!(Acl::decode(later.as_bytes()).is_err());
        let more = lines[0].replacen("\"acl\":{", "\"acl\":{\"until\":1,", 1);
        assert!(Acl::decode(more.as_bytes()).is_err());
    }
}
