//! A Kafka topic as a client may read it: all of it, or what its filters stand for.
//! Callers: whoever reads for subscriptions, which ask again when rules have changed. Invariant: a topic of which the client may read a part
//! is read by filters that were checked, and by no others.

use std::sync::Arc;

use model::TopicId;

use super::subscriptions::Subscriptions;
use super::topic::TopicFilter;
use crate::broker::access::{Door, Granted, right};
use crate::broker::{Refusal, Topic};

/// A topic that a client may read, as far as its filter goes.
pub(super) type Readable = Granted<Arc<Topic>, right::Read>;

/// A topic by its id, as far as a filter reads it.
pub(super) fn read_by_id(
    door: &Door,
    id: TopicId,
    filter: &TopicFilter,
) -> Result<Readable, Refusal> {
    match filter.is_of_kafka() {
        true => door.topic_by_id(id, right::Read),
        false => door.part_by_id(id, filter.as_str(), right::Read),
    }
}

/// Refuses what a filter reads of a topic if the client may not read it any more.
pub(super) fn renew(door: &Door, topic: &Readable, filter: &TopicFilter) -> Result<(), Refusal> {
    match filter.is_of_kafka() {
        true => door.renew(topic).map(drop),
        false => door.renew_part(topic, filter.as_str()),
    }
}

/// The same of all filters that read it.
pub(super) fn renew_all(
    door: &Door,
    topic: &Readable,
    subscriptions: &Subscriptions,
) -> Result<(), Refusal> {
    let filters = subscriptions.filters();
    filters.iter().try_for_each(|it| renew(door, topic, it))
}
