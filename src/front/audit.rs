//! What administrators change, as one line of the log each: what, who asked for it, and from where.
//! Callers: the fronts' handlers of requests that change something, once the change is durable.

use std::fmt;

use model::acl::Acl;

use crate::broker::access::Door;

/// Of many partitions or settings in one change, so many are named.
pub(in crate::front) const NAMED_MAX: usize = 16;
/// A change that was made.
pub(in crate::front) enum Change<'a> {
    TopicCreated {
        topic: &'a str,
        partitions: u32,
        settings: &'a str,
    },
    /// A client spoke of it, and `auto.create.topics.enable` is set.
    TopicCreatedByUse {
        topic: &'a str,
        partitions: u32,
    },
    TopicDeleted {
        topic: &'a str,
    },
    TopicGrown {
        topic: &'a str,
        partitions: u32,
    },
    RecordsDeleted {
        topic: &'a str,
        before: &'a str,
    },
    SettingsChanged {
        /// As in `topic readings` or `broker 1`.
        resource: &'a str,
        changes: &'a str,
    },
    /// All of them, so that those that are not named have their defaults again.
    SettingsReplaced {
        resource: &'a str,
        settings: &'a str,
    },
    GroupDeleted {
        group: &'a str,
    },
    OffsetsDeleted {
        group: &'a str,
        partitions: &'a str,
    },
    OffsetsSet {
        group: &'a str,
        offsets: &'a str,
    },
    AclMade {
        acl: &'a Acl,
    },
    AclRemoved {
        acl: &'a Acl,
    },
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::TopicCreated {
                topic,
                partitions,
                settings: "",
            } => write!(f, "topic {topic} created, partitions: {partitions}"),
            Change::TopicCreated {
                topic,
                partitions,
                settings,
            } => write!(
                f,
                "topic {topic} created, partitions: {partitions}, settings: {settings}"
            ),
            Change::TopicCreatedByUse { topic, partitions } => write!(
                f,
                "topic {topic} created because a client asked for it, partitions: {partitions}"
            ),
            Change::TopicDeleted { topic } => write!(f, "topic {topic} deleted"),
            Change::TopicGrown { topic, partitions } => {
                write!(f, "topic {topic} has more partitions: {partitions}")
            }
            Change::RecordsDeleted { topic, before } => {
                write!(
                    f,
                    "records of topic {topic} deleted before offset: {before}"
                )
            }
            Change::SettingsChanged { resource, changes } => {
                write!(f, "settings of {resource} changed: {changes}")
            }
            Change::SettingsReplaced { resource, settings } => {
                write!(f, "settings of {resource} replaced by: {settings}")
            }
            Change::GroupDeleted { group } => write!(f, "group {group:?} deleted"),
            Change::OffsetsDeleted { group, partitions } => {
                write!(f, "offsets of group {group:?} deleted: {partitions}")
            }
            Change::AclMade { acl } => write!(f, "rule made: {acl}"),
            Change::AclRemoved { acl } => write!(f, "rule removed: {acl}"),
            Change::OffsetsSet { group, offsets } => {
                write!(
                    f,
                    "offsets of group {group:?} set by a client that is no member: {offsets}"
                )
            }
        }
    }
}

impl Change<'_> {
    /// What was done, in a word, and to what.
    fn named(&self) -> (&'static str, String) {
        let topic = |operation, name: &str| (operation, format!("topic:{name}"));
        let group = |operation, name: &str| (operation, format!("group:{name}"));
        match self {
            Change::TopicCreated { topic: name, .. }
            | Change::TopicCreatedByUse { topic: name, .. } => topic("create", name),
            Change::TopicDeleted { topic: name } => topic("delete", name),
            Change::TopicGrown { topic: name, .. } => topic("alter", name),
            Change::RecordsDeleted { topic: name, .. } => topic("delete_records", name),
            Change::SettingsChanged { resource, .. }
            | Change::SettingsReplaced { resource, .. } => {
                ("alter_configs", resource.replacen(' ', ":", 1))
            }
            Change::GroupDeleted { group: name } => group("delete", name),
            Change::OffsetsDeleted { group: name, .. } => group("delete_offsets", name),
            Change::OffsetsSet { group: name, .. } => group("set_offsets", name),
            Change::AclMade { acl } => ("create_acl", acl_resource(acl)),
            Change::AclRemoved { acl } => ("delete_acl", acl_resource(acl)),
        }
    }
}

fn acl_resource(acl: &Acl) -> String {
    format!("{}:{}", acl.resource_type.name(), acl.name)
}

/// Logs a change that was made, here and in the audit log.
pub(in crate::front) fn log(door: &Door, change: &Change<'_>) {
    let caller = door.caller();
    let client = caller.client_id.as_deref().unwrap_or_default();
    let principal = &caller.principal;
    tracing::info!(client, address = %caller.address, %principal, "{change}");
    let (operation, resource) = change.named();
    let detail = change.to_string();
    door.broker()
        .note_change(caller, operation, &resource, &detail);
}

/// Some of many, in words.
pub(in crate::front) fn some(all: impl ExactSizeIterator<Item = String>) -> String {
    let left = all.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = all.take(NAMED_MAX).collect();
    let named = named.join(", ");
    if left == 0 {
        named
    } else {
        format!("{named} and {left} more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_some_are_named() {
        let names = |count: usize| some((0..count).map(|at| at.to_string()));
        assert_eq!(names(0), "");
        assert_eq!(names(2), "0, 1");
        assert!(names(20).ends_with("14, 15 and 4 more"));
    }
}
