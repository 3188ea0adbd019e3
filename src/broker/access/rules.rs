//! Rules: who has which right on what.
//! Callers: `Door`, for every resource that it gives. Pure.
//! Where access is not controlled, everybody may do everything, by whichever protocol; where it is, what Kafka's access control
//! lists say. Beyond that, topics in which the broker's state would lie are not the clients': they cannot be written to, nor
//! created, and the log of the metadata is hidden under its name, as Kafka hides it.

use model::acl::{CLUSTER_NAME, Operation, ResourceType};
use model::{AUDIT_TOPIC, TopicName};

use super::acls::{Rules, allows_any};
use super::book::Access;
use super::{Caller, Protocol, ResourceKind, Right};
use crate::broker::Refusal;
use crate::broker::refusal::InternalOperation;

/// Kafka's `AdminUtils.ADMIN_CLIENT_ID`: Kafka lets its administrators' client write to internal topics, by its name.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// What a right is wanted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The topic of this name.
    Topic(&'a str),
    /// Messages of a topic whose names a filter stands for: the topic's name, `/` and the filter.
    Part(&'a str),
    /// The group with this id.
    Group(&'a str),
    /// The cluster: this broker, and all that is not one topic's or group's.
    Cluster,
}

impl Resource<'_> {
    /// Which kind it is.
    pub fn kind(self) -> ResourceKind {
        match self {
            Resource::Topic(_) | Resource::Part(_) => ResourceKind::Topic,
            Resource::Group(_) => ResourceKind::Group,
            Resource::Cluster => ResourceKind::Cluster,
        }
    }
}

/// Whether the caller has the right at all.
pub(super) fn may(access: &Access, caller: &Caller, resource: Resource<'_>, right: Right) -> bool {
    if !access.is_on() || is_of_temporary(caller, resource, right) {
        return true;
    }
    let (who, host) = (&caller.principal, caller.address.ip());
    if let Resource::Part(name) = resource {
        let asking = (who, caller.client_id.as_deref());
        let allowed = |rules: &Rules| {
            let part = split(name);
            rules.allow_part(asking, host, right.operation(), part)
        };
        return access.ask(allowed);
    }
    access.ask(|rules| {
        let allowed = |operation, on| rules.allow(who, host, operation, on);
        allowed(right.operation(), named(resource))
            || match (resource, right) {
                // Who may create topics of any name may create this one.
                (Resource::Topic(_), Right::Create) => allowed(Operation::Create, CLUSTER),
                // Who may write somewhere may be idempotent in doing so (KIP-679).
                (Resource::Cluster, Right::IdempotentWrite) => {
                    allows_any(rules, who, host, Operation::Write, ResourceType::Topic)
                }
                _ => false,
            }
    })
}

/// Whether rules about this very resource give the caller the right: what clients are told as their rights, as in Kafka, whose
/// answers leave out what comes from elsewhere.
pub(super) fn is_given(
    access: &Access,
    caller: &Caller,
    resource: Resource<'_>,
    right: Right,
) -> bool {
    if let Resource::Part(_) = resource {
        // It is told to nobody from elsewhere.
        return may(access, caller, resource, right);
    }
    let (who, host) = (&caller.principal, caller.address.ip());
    let operation = right.operation();
    !access.is_on() || access.ask(|rules| rules.allow(who, host, operation, named(resource)))
}

/// A resource, as rules name it.
pub(super) fn named(resource: Resource<'_>) -> (ResourceType, &str) {
    match resource {
        Resource::Topic(name) | Resource::Part(name) => (ResourceType::Topic, name),
        Resource::Group(id) => (ResourceType::Group, id),
        Resource::Cluster => CLUSTER,
    }
}

/// A part's topic and filter.
fn split(part: &str) -> (&str, &str) {
    part.split_once('/').unwrap_or((part, "#"))
}

/// The cluster, as rules name it.
const CLUSTER: (ResourceType, &str) = (ResourceType::Cluster, CLUSTER_NAME);

/// What the names of temporary topics begin with.
pub const TEMPORARY_TOPICS: &str = "amqp.temporary.";

/// Whether this is the name of a temporary topic: one that lives as long as a client's link. Who knows it may write to it, and which
/// connection reads it is that protocol's to say; others do not see it.
pub fn is_temporary(topic: &str) -> bool {
    let is_digit = |it: u8| matches!(it, b'0'..=b'9' | b'a'..=b'f');
    topic
        .strip_prefix(TEMPORARY_TOPICS)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(is_digit))
}

/// Whether no client sees the topic of this name as one, whatever it may do.
pub(super) fn is_hidden(topic: &str) -> bool {
    TopicName::is_reserved(topic) && !TopicName::is_internal(topic) || is_temporary(topic)
}

/// Whether a right is everybody's who comes by the protocol of temporary topics.
fn is_of_temporary(caller: &Caller, resource: Resource<'_>, right: Right) -> bool {
    matches!(resource, Resource::Topic(name) if is_temporary(name))
        && caller.protocol == Protocol::Amqp
        && matches!(right, Right::Read | Right::Write)
}

/// Refuses what the caller has no right to.
pub(super) fn check_right(
    access: &Access,
    caller: &Caller,
    resource: Resource<'_>,
    right: Right,
) -> Result<(), Refusal> {
    match may(access, caller, resource, right) {
        true => Ok(()),
        false => Err(Refusal::Denied {
            principal: caller.principal.clone(),
            right,
            resource: resource.kind(),
        }),
    }
}

/// Refuses what nobody may do who comes through a door.
pub(super) fn check_name(
    caller: &Caller,
    resource: Resource<'_>,
    right: Right,
) -> Result<(), Refusal> {
    match resource {
        Resource::Part(name) => check_name(caller, Resource::Topic(split(name).0), right),
        Resource::Topic(name) if is_temporary(name) && caller.protocol == Protocol::Amqp => Ok(()),
        Resource::Topic(name) if TopicName::is_reserved(name) || is_temporary(name) => {
            check_reserved(caller, name, right)
        }
        Resource::Topic(_) | Resource::Group(_) | Resource::Cluster => Ok(()),
    }
}

/// Whether it calls itself what Kafka's administrators' client does. In other protocols nobody's is called so.
fn is_kafkas_admin(caller: &Caller) -> bool {
    caller.protocol == Protocol::Kafka && caller.client_id.as_deref() == Some(ADMIN_CLIENT_ID)
}

/// The names that are not the clients'. Stores of earlier builds may hold such topics: they stay, and can be deleted.
fn check_reserved(caller: &Caller, name: &str, right: Right) -> Result<(), Refusal> {
    if !is_hidden(name) {
        let operation = match right {
            Right::Create => InternalOperation::Create,
            Right::DeleteRecords => InternalOperation::DeleteRecords,
            // What a client calls itself does not make it a writer of the audit log.
            Right::Write if name == AUDIT_TOPIC || !is_kafkas_admin(caller) => {
                InternalOperation::Write
            }
            _ => return Ok(()),
        };
        let name = TopicName::parse(name)?;
        return Err(Refusal::InternalTopic { name, operation });
    }
    match right {
        Right::Create => Err(Refusal::ReservedTopicName {
            name: TopicName::parse(name)?,
        }),
        Right::Delete => Ok(()),
        _ => Err(Refusal::UnknownTopicOrPartition),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Principal, Protocol};
    use super::*;

    fn caller(protocol: Protocol, client_id: &str) -> Caller {
        Caller {
            principal: Principal::Anonymous,
            address: ([127, 0, 0, 1], 1).into(),
            client_id: Some(client_id.to_owned()),
            protocol,
        }
    }

    /// The rights that are refused on a topic.
    fn refused(caller: &Caller, topic: &str) -> Vec<Right> {
        let is_refused =
            |right: &Right| check_name(caller, Resource::Topic(topic), *right).is_err();
        Right::ALL.into_iter().filter(is_refused).collect()
    }

    #[test]
    fn internal_topics_are_not_the_clients_and_the_metadata_is_hidden() {
        let client = caller(Protocol::Kafka, "app");
        assert_eq!(refused(&client, "readings"), []);
        for name in [
            "__consumer_offsets",
            "__transaction_state",
            "__share_group_state",
        ] {
            let wanted = [Right::Write, Right::Create, Right::DeleteRecords];
            assert_eq!(refused(&client, name), wanted, "{name}");
            let admin = caller(Protocol::Kafka, ADMIN_CLIENT_ID);
            let rest = [Right::Create, Right::DeleteRecords];
            assert_eq!(refused(&admin, name), rest, "{name}");
            for other in [Protocol::Amqp, Protocol::Http, Protocol::Mqtt] {
                let so_called = caller(other, ADMIN_CLIENT_ID);
                assert_eq!(refused(&so_called, name), wanted, "{name}, {other:?}");
            }
        }
        let admin = caller(Protocol::Kafka, ADMIN_CLIENT_ID);
        let wanted = [Right::Write, Right::Create, Right::DeleteRecords];
        assert_eq!(refused(&admin, AUDIT_TOPIC), wanted);
        for right in Right::ALL {
            let hidden = Resource::Topic("__cluster_metadata");
            match (right, check_name(&client, hidden, right)) {
                (Right::Delete, Ok(())) => {}
                (Right::Create, Err(Refusal::ReservedTopicName { .. })) => {}
                (_, Err(Refusal::UnknownTopicOrPartition)) => {}
                (right, other) => panic!("{right:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_temporary_topic_is_seen_by_its_protocol_alone() {
        let name = format!("{TEMPORARY_TOPICS}{}", "0a".repeat(16));
        let by = |protocol| refused(&caller(protocol, "app"), &name);
        assert_eq!(by(Protocol::Amqp), []);
        for protocol in [Protocol::Kafka, Protocol::Http, Protocol::Mqtt] {
            let all = Right::ALL.into_iter();
            let all: Vec<Right> = all.filter(|it| *it != Right::Delete).collect();
            assert_eq!(by(protocol), all);
        }
        for other in ["amqp.temporary.x", "amqp.temporary", &name[..40]] {
            assert!(!is_temporary(other) && !is_hidden(other), "{other}");
        }
    }

    #[test]
    fn the_protocol_makes_no_difference() {
        for topic in ["readings", "__consumer_offsets", "__cluster_metadata"] {
            let by = |protocol| refused(&caller(protocol, "app"), topic);
            assert_eq!(by(Protocol::Http), by(Protocol::Kafka), "{topic}");
        }
    }
}
