//! What the settings keys share: which resource is meant, and the wire's numbers for sources.

use std::sync::Arc;

use crate::broker::access::{Cluster, Door, Group, RightOn, right};
use crate::broker::audit::On;
use crate::broker::share::DEAD_LETTER_TOPIC;
use crate::broker::{Origin, Refusal, Resource, Topic};
use crate::front::kafka::errors::{Failure, Misuse};

/// Kafka's number for topics as resources.
pub(super) const TOPIC: i8 = 2;
/// Kafka's number for brokers as resources.
pub(super) const BROKER: i8 = 4;
/// Kafka's number for brokers' loggers as resources.
pub(super) const BROKER_LOGGER: i8 = 8;
/// Kafka's number for groups as resources.
pub(super) const GROUP: i8 = 32;

/// The resource that a type and a name stand for, with the right to its settings.
pub(super) fn resource<'a, R>(
    kind: i8,
    name: &'a str,
    right: R,
    door: &'a Door,
) -> Result<Resource<'a, R>, Failure>
where
    R: RightOn<Arc<Topic>> + RightOn<Cluster> + RightOn<Group<'a>>,
{
    let this = door.broker().config().node_id;
    Ok(match kind {
        TOPIC => {
            model::TopicName::parse(name).map_err(Refusal::from)?;
            Resource::Topic(door.topic(name, right)?)
        }
        BROKER if name.is_empty() => Resource::Cluster(door.cluster(right)?),
        BROKER if name.parse() == Ok(this) => Resource::Broker(door.cluster(right)?),
        BROKER_LOGGER if name.parse() == Ok(this) => Resource::Loggers(door.cluster(right)?),
        BROKER | BROKER_LOGGER => {
            let name = name.to_owned();
            return Err(Misuse::OtherBroker { name, this }.into());
        }
        GROUP if name.is_empty() => return Err(Misuse::GroupUnnamed.into()),
        GROUP => Resource::Group(door.group(name, right)?),
        kind => return Err(Misuse::ResourceWithoutSettings { kind }.into()),
    })
}

/// Refuses a group's topic for dead letters that who names it may not write to: what is rejected would be written there for it.
pub(super) fn check_dead_letters<'s>(
    kind: i8,
    mut settings: impl Iterator<Item = (&'s str, Option<&'s str>)>,
    door: &Door,
) -> Result<(), Failure> {
    let named = settings.find(|(name, _)| kind == GROUP && *name == DEAD_LETTER_TOPIC);
    let topic = named.and_then(|(_, topic)| topic).unwrap_or_default();
    match topic.is_empty() {
        true => Ok(()),
        false => match door.topic(topic, right::Write) {
            Err(denied @ Refusal::Denied { .. }) => Err(denied.into()),
            // It may come, and the settings themselves are checked elsewhere.
            Ok(_) | Err(_) => Ok(()),
        },
    }
}

/// What was changed, of those resources whose settings can be.
pub(super) fn on(kind: i8, name: &str) -> On<'_> {
    match kind {
        TOPIC => On::Topic(name),
        GROUP => On::Group(name),
        _ => On::Broker(name),
    }
}

/// Kafka's `DescribeConfigsResponse.ConfigSource`.
pub(super) fn source(origin: Origin) -> i8 {
    match origin {
        Origin::Topic => 1,
        Origin::Broker => 2,
        Origin::Cluster => 3,
        Origin::Static => 4,
        Origin::Default => 5,
        Origin::Logger => 6,
        Origin::Group => 8,
    }
}
