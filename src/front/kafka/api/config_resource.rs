//! What the settings keys share: which resource is meant, and the wire's numbers for sources.

use crate::broker::{Broker, Origin, Refusal, Resource};
use crate::front::kafka::errors::{Failure, Misuse};

/// Kafka's number for topics as resources.
pub(super) const TOPIC: i8 = 2;
/// Kafka's number for brokers as resources.
pub(super) const BROKER: i8 = 4;
/// Kafka's number for brokers' loggers as resources.
pub(super) const BROKER_LOGGER: i8 = 8;
/// Kafka's number for groups as resources.
pub(super) const GROUP: i8 = 32;

/// The resource that a type and a name stand for.
pub(super) fn resource(kind: i8, name: &str, broker: &Broker) -> Result<Resource, Failure> {
    match kind {
        TOPIC => {
            model::TopicName::parse(name).map_err(Refusal::from)?;
            Ok(Resource::Topic(name.to_owned()))
        }
        BROKER if name.is_empty() => Ok(Resource::Cluster),
        BROKER if name.parse() == Ok(broker.config().node_id) => Ok(Resource::Broker),
        BROKER_LOGGER if name.parse() == Ok(broker.config().node_id) => Ok(Resource::Loggers),
        BROKER | BROKER_LOGGER => Err(Misuse::OtherBroker {
            name: name.to_owned(),
            this: broker.config().node_id,
        }
        .into()),
        GROUP if name.is_empty() => Err(Misuse::GroupUnnamed.into()),
        GROUP => Ok(Resource::Group(name.to_owned())),
        kind => Err(Misuse::ResourceWithoutSettings { kind }.into()),
    }
}

/// A resource in the words of a log line.
pub(super) fn shown(kind: i8, name: &str) -> String {
    match kind {
        TOPIC => format!("topic {name}"),
        BROKER if name.is_empty() => "all brokers".to_owned(),
        BROKER => format!("broker {name}"),
        BROKER_LOGGER => format!("the loggers of broker {name}"),
        GROUP => format!("group {name:?}"),
        other => format!("the resource {name:?} of type {other}"),
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
    }
}
