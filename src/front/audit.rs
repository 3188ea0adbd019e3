//! What administrators change, as one line of the log each: what, who asked for it, and from where.
//! Callers: the fronts' handlers of requests that change something, once the change is durable.

use std::fmt;

use model::acl::Acl;

use crate::broker::access::Door;
use crate::broker::audit::On;

/// Of many partitions or settings in one change, so many are named.
pub(in crate::front) const NAMED_MAX: usize = 16;
/// A change that was made.
pub(in crate::front) enum Change<'a> {
    TopicCreated {
        topic: &'a str,
        partitions: u32,
        settings: &'a str,
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
        on: On<'a>,
        changes: &'a str,
    },
    /// All of them, so that those that are not named have their defaults again.
    SettingsReplaced {
        on: On<'a>,
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
    QueuePurged {
        group: &'a str,
        topic: &'a str,
        messages: u64,
    },
    QueueMoved {
        group: &'a str,
        topic: &'a str,
        to: &'a str,
        messages: u64,
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
            Change::SettingsChanged { on, changes } => {
                write!(f, "settings of {on} changed: {changes}")
            }
            Change::SettingsReplaced { on, settings } => {
                write!(f, "settings of {on} replaced by: {settings}")
            }
            Change::GroupDeleted { group } => write!(f, "group {group:?} deleted"),
            Change::OffsetsDeleted { group, partitions } => {
                write!(f, "offsets of group {group:?} deleted: {partitions}")
            }
            Change::QueuePurged {
                group,
                topic,
                messages,
            } => write!(
                f,
                "queue {topic} of group {group:?} purged, messages: {messages}"
            ),
            Change::QueueMoved {
                group,
                topic,
                to,
                messages,
            } => write!(
                f,
                "messages of queue {topic} of group {group:?} moved to {to}: {messages}"
            ),
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
    fn named(&self) -> (&'static str, On<'_>) {
        match self {
            Change::TopicCreated { topic, .. } => ("create", On::Topic(topic)),
            Change::TopicDeleted { topic } => ("delete", On::Topic(topic)),
            Change::TopicGrown { topic, .. } => ("alter", On::Topic(topic)),
            Change::RecordsDeleted { topic, .. } => ("delete_records", On::Topic(topic)),
            Change::SettingsChanged { on, .. } | Change::SettingsReplaced { on, .. } => {
                ("alter_configs", *on)
            }
            Change::GroupDeleted { group } => ("delete", On::Group(group)),
            Change::OffsetsDeleted { group, .. } => ("delete_offsets", On::Group(group)),
            Change::OffsetsSet { group, .. } => ("set_offsets", On::Group(group)),
            Change::QueuePurged { topic, .. } => ("purge", On::Topic(topic)),
            Change::QueueMoved { topic, .. } => ("move", On::Topic(topic)),
            Change::AclMade { acl } => ("create_acl", ruled(acl)),
            Change::AclRemoved { acl } => ("delete_acl", ruled(acl)),
        }
    }
}

fn ruled(acl: &Acl) -> On<'_> {
    On::Ruled(acl.resource_type.name(), &acl.name)
}

/// Logs a change that was made, here and in the audit log.
pub(in crate::front) fn log(door: &Door, change: &Change<'_>) {
    let caller = door.caller();
    let client = caller.client_id.as_deref().unwrap_or_default();
    let principal = &caller.principal;
    tracing::info!(client, address = %caller.address, %principal, "{change}");
    let (operation, on) = change.named();
    let detail = change.to_string();
    door.broker().note_change(caller, operation, on, &detail);
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
