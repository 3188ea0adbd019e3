//! Which Kafka topics a filter reads, as a client may read them.
//! Callers: whoever subscribes, or goes on with what was subscribed to.

use super::errors::NotSubscribed;
use super::publishing::routed;
use super::readable::Readable;
use super::state::Front;
use super::topic::TopicFilter;
use crate::broker::Refusal;
use crate::broker::access::{Door, right};
use crate::front::written;

/// The topics that messages of a filter go to, made if they are not there: those of routes, or the one that it names. All of them, or an
/// error.
pub(super) async fn read_by(
    front: &Front,
    door: &Door,
    filter: &TopicFilter,
) -> Result<Vec<Readable>, NotSubscribed> {
    if let Some(topic) = filter.kafka_topic() {
        let topic = written::made(door, topic, right::Read).await;
        return topic.map(|it| vec![it]).map_err(|refusal| match refusal {
            Refusal::UnknownTopicOrPartition
            | Refusal::InvalidTopicName(_)
            | Refusal::ReservedTopicName { .. }
            | Refusal::CollidingTopicName { .. } => NotSubscribed::Filter,
            refusal => refused(refusal),
        });
    }
    let mut topics = Vec::new();
    for route in front.settings.routes.read_by(filter) {
        let topic = routed(front, door, (route, filter.as_str()), right::Read).await;
        topics.push(topic.map_err(refused)?);
    }
    Ok(topics)
}

/// The same with those where such messages may be that came before their route was put before another one, as far as these are there and
/// the client may read them.
pub(super) async fn history_of(
    front: &Front,
    door: &Door,
    filter: &TopicFilter,
) -> Result<Vec<Readable>, NotSubscribed> {
    let mut topics = read_by(front, door, filter).await?;
    if !filter.is_of_kafka() {
        let once = front.settings.routes.once_read_by(filter).into_iter();
        topics.extend(once.filter_map(|route| {
            let filter = filter.as_str();
            door.part_if_allowed(&route.topic, filter, right::Read)
        }));
    }
    Ok(topics)
}

fn refused(refusal: Refusal) -> NotSubscribed {
    match refusal {
        Refusal::Denied { .. } => NotSubscribed::Denied,
        _ => NotSubscribed::Failed,
    }
}
