//! Brings a message to the log: the topic that its route or its name says, made when it is needed, and the broker's door for single
//! messages.
//! Callers: `inbound`, and `session` for wills; `reading` for the topics of routes.

use std::sync::Arc;
use std::time::Duration;

use model::TopicName;

use super::ending::Ending;
use super::errors::{self, Never, NotStored};
use super::record::Message;
use super::routes::{Route, To};
use super::state::Front;
use crate::broker::access::{Caller, Door, Granted, Protocol, RightOn, right};
use crate::broker::publish::{self, PublishRefusal, Publishing};
use crate::broker::retained::Retain;
use crate::broker::sessions::{HeldSession, SessionRecord};
use crate::broker::{Layout, NewTopic, Refusal, Topic};
use crate::front::written;

type Writable = Granted<Arc<Topic>, right::Write>;

/// Publishes a message of a session as this client, with its identifier's record in the same frame.
pub(super) async fn publish_of(
    front: &Front,
    door: &Door,
    held: &HeldSession,
    message: &Message,
    changes: Vec<SessionRecord>,
) -> Result<Publishing, NotStored> {
    let to = destination(front, message)?;
    let topic = writable(front, door, (&to, message.name())).await?;
    let takes = held.takes_identifier();
    takes.map_err(|_| NotStored::End(Ending::SessionFull))?;
    let published = publish_to(held, (&topic, &to), message, changes);
    published
        .await
        .map_err(|refusal| errors::of_publish(&refusal))
}

/// The same of a session's will. Its rights were asked for, and its topic was there, when its client connected.
pub(super) async fn publish_will_of(
    front: &Front,
    held: &HeldSession,
    message: &Message,
    changes: Vec<SessionRecord>,
) -> Result<Publishing, PublishRefusal> {
    let own = front.broker.own_door(Protocol::Mqtt);
    let unknown = Refusal::UnknownTopicOrPartition;
    let to = front.settings.routes.to(message.name()).ok_or(unknown)?;
    let topic = match &to {
        To::Route { route, .. } => {
            routed(front, &own, (route, message.name()), right::Write).await?
        }
        To::Kafka { topic, .. } => own.topic(topic, right::Write)?,
    };
    publish_to(held, (&topic, &to), message, changes).await
}

async fn publish_to(
    held: &HeldSession,
    (topic, to): (&Writable, &To<'_>),
    message: &Message,
    changes: Vec<SessionRecord>,
) -> Result<Publishing, PublishRefusal> {
    let headers = message.headers(to.needs_topic());
    let as_record = publish::Message {
        key: to.key(),
        value: Some(&message.value),
        headers: &headers,
        time: None,
    };
    let retain = message.retain.then(|| retain_of(message, held.owner()));
    held.publish(topic, as_record, retain, changes).await
}

fn retain_of<'a>(message: &'a Message, owner: Option<&'a str>) -> Retain<'a> {
    Retain {
        name: message.name(),
        lifetime: message.expiry.map(|it| Duration::from_secs(it.into())),
        owner,
    }
}

/// Publishes a message as this client.
pub(super) async fn publish(
    front: &Front,
    door: &Door,
    message: &Message,
) -> Result<Publishing, NotStored> {
    let to = destination(front, message)?;
    let topic = writable(front, door, (&to, message.name())).await?;
    let headers = message.headers(to.needs_topic());
    let as_record = publish::Message {
        key: to.key(),
        value: Some(&message.value),
        headers: &headers,
        time: None,
    };
    let broker = &front.broker;
    let published = match message.retain {
        false => broker.publish(&topic, None, as_record).await,
        true => {
            let retain = retain_of(message, door.owner());
            broker.publish_retained(&topic, as_record, retain).await
        }
    };
    published.map_err(|refusal| errors::of_publish(&refusal))
}

fn destination<'a>(front: &'a Front, message: &'a Message) -> Result<To<'a>, NotStored> {
    let to = front.settings.routes.to(message.name());
    to.ok_or(NotStored::Never(Never::TopicName))
}

/// The topic that a message of this name goes to, as the client may write to it under that: made, if it is not there. Errors: what the message is to be answered.
pub(super) async fn writable(
    front: &Front,
    door: &Door,
    (to, name): (&To<'_>, &str),
) -> Result<Writable, NotStored> {
    match to {
        To::Route { route, .. } => {
            let topic = routed(front, door, (route, name), right::Write).await;
            topic.map_err(|refusal| errors::of_publish(&refusal.into()))
        }
        // The broker keeps these itself. The door refuses them, too; here it is 0x87 as well where one is hidden or not there, so that
        // which of them there are is not told.
        To::Kafka { topic, .. } if TopicName::is_reserved(topic) => {
            Err(NotStored::Never(Never::Denied))
        }
        To::Kafka { topic, .. } => {
            let topic = written::made(door, topic, right::Write).await;
            topic.map_err(errors::of_named)
        }
    }
}

/// The topic of a route, with a right that the client has on messages that a filter, or a name, stands for. The front makes it, on nobody's request, if it is not there.
pub(super) async fn routed<R: RightOn<Arc<Topic>> + Copy>(
    front: &Front,
    door: &Door,
    (route, filter): (&Route, &str),
    right: R,
) -> Result<Granted<Arc<Topic>, R>, Refusal> {
    match door.part(&route.topic, filter, right) {
        Err(Refusal::UnknownTopicOrPartition) => make(front, door.caller(), route).await?,
        found => return found,
    }
    door.part(&route.topic, filter, right)
}

async fn make(front: &Front, caller: &Caller, route: &Route) -> Result<(), Refusal> {
    let own = front.broker.own_door(Protocol::Mqtt);
    let name = match own.new_topic(&route.topic) {
        // Somebody else was faster.
        Err(Refusal::TopicExists { .. }) => return Ok(()),
        name => name?,
    };
    let new = NewTopic {
        name,
        layout: Layout::Counted {
            partitions: Some(route.partitions),
            replicas: None,
        },
        settings: Vec::new(),
    };
    match front.broker.create_by_use(new, caller).await {
        Ok(_) | Err(Refusal::TopicExists { .. }) => Ok(()),
        Err(refusal) => {
            // Its clients are told that nothing is taken, and not why.
            tracing::warn!(topic = %route.topic, %refusal, "the topic of an MQTT route cannot be made");
            Err(refusal)
        }
    }
}
