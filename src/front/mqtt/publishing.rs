//! Brings a message to the log: the topic that the route names, made when it is needed, and the broker's door for single messages.
//! Callers: `inbound`, and `connection` for wills.

use std::sync::Arc;
use std::time::Duration;

use super::route::{self, Message};
use super::state::Front;
use crate::broker::access::{Caller, Door, Granted, Protocol, RightOn, right};
use crate::broker::publish::{self, PublishRefusal, Publishing};
use crate::broker::retained::Retain;
use crate::broker::sessions::{HeldSession, SessionRecord};
use crate::broker::{Layout, NewTopic, Refusal, Topic};

/// Publishes a message of a session, with changes of it in the same frame.
pub(super) async fn publish_of(
    front: &Front,
    door: &Door,
    held: &HeldSession,
    message: &Message,
    changes: Vec<SessionRecord>,
) -> Result<Publishing, PublishRefusal> {
    let topic = topic(front, door, right::Write).await?;
    let headers = message.headers();
    let as_record = publish::Message {
        key: Some(&message.key),
        value: Some(&message.value),
        headers: &headers,
        time: None,
    };
    let retain = message.retain.then(|| retain_of(front, message));
    held.publish(&topic, as_record, retain, changes).await
}

fn retain_of<'a>(front: &Front, message: &'a Message) -> Retain<'a> {
    Retain {
        name: std::str::from_utf8(&message.key).expect("a topic is text"),
        lifetime: message.expiry.map(|it| Duration::from_secs(it.into())),
        bytes_max: front.settings.retained_bytes_max,
    }
}

/// Publishes a message as this client.
pub(super) async fn publish(
    front: &Front,
    door: &Door,
    message: &Message,
) -> Result<Publishing, PublishRefusal> {
    let topic = topic(front, door, right::Write).await?;
    let headers = message.headers();
    let as_record = publish::Message {
        key: Some(&message.key),
        value: Some(&message.value),
        headers: &headers,
        time: None,
    };
    if !message.retain {
        return front.broker.publish(&topic, None, as_record).await;
    }
    let retain = retain_of(front, message);
    front
        .broker
        .publish_retained(&topic, as_record, retain)
        .await
}

/// The topic of the route, with a right that the client has. The front makes it, on nobody's request, if it is not there.
pub(super) async fn topic<R: RightOn<Arc<Topic>> + Copy>(
    front: &Front,
    door: &Door,
    right: R,
) -> Result<Granted<Arc<Topic>, R>, Refusal> {
    match door.topic(route::TOPIC, right) {
        Err(Refusal::UnknownTopicOrPartition) => make(front, door.caller()).await?,
        found => return found,
    }
    door.topic(route::TOPIC, right)
}

async fn make(front: &Front, caller: &Caller) -> Result<(), Refusal> {
    let own = front.broker.own_door(Protocol::Mqtt);
    let name = match own.new_topic(route::TOPIC) {
        // Somebody else was faster.
        Err(Refusal::TopicExists { .. }) => return Ok(()),
        name => name?,
    };
    let new = NewTopic {
        name,
        layout: Layout::Counted {
            partitions: Some(route::PARTITIONS),
            replicas: None,
        },
        settings: Vec::new(),
    };
    match front.broker.create_by_use(new, caller).await {
        Ok(_) | Err(Refusal::TopicExists { .. }) => Ok(()),
        Err(refusal) => Err(refusal),
    }
}
