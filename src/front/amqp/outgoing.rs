//! Messages on their way to their nodes: what a delivery becomes, and where it goes.
//! Callers: `producing`, which publishes them, and `transactions`, which keep them until they are discharged.

use std::sync::Arc;

use amqp::endpoint::Delivery;
use model::PartitionId;

use super::address::{self, TargetNode};
use super::errors::{NoLink, NotStored, of_node, of_unfit};
use super::route::{Stored, stored};
use super::state::Front;
use crate::broker::Refusal;
use crate::broker::access::{Door, is_temporary, right};
use crate::broker::publish::{Message, Outgoing};
use crate::front::written::{Writable, made};

/// A node that is written to.
pub(super) struct Node {
    pub(super) name: TargetNode,
    pub(super) topic: Writable,
}

/// A message, and where it goes.
pub(super) struct Part {
    /// The place of its delivery among those that came with it.
    pub(super) owed: usize,
    pub(super) to: Arc<Node>,
    pub(super) stored: Stored,
    /// The session that it came by.
    pub(super) channel: u16,
}

/// A record's header: its name, and its value.
type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Headers of messages as the broker takes them.
pub(super) struct Headers<'a>(Vec<Vec<Header<'a>>>);

impl<'a> Headers<'a> {
    pub(super) fn of(parts: impl IntoIterator<Item = &'a Part>) -> Headers<'a> {
        let of_part = |part: &'a Part| {
            let headers = part.stored.headers.iter();
            headers
                .map(|(name, value)| (&name[..], Some(&value[..])))
                .collect()
        };
        Headers(parts.into_iter().map(of_part).collect())
    }

    /// The messages to a topic with so many partitions, of a connection with this number.
    pub(super) fn outgoing<'h>(
        &'h self,
        parts: impl IntoIterator<Item = &'h Part>,
        seed: u32,
        count: u32,
    ) -> Vec<Outgoing<'h>> {
        let of_part = |(part, headers): (&'h Part, &'h Vec<Header<'a>>)| {
            let stored = &part.stored;
            // A session keeps its order: without a key all goes to one partition.
            let of_session = seed.wrapping_add(part.channel.into()) % count.max(1);
            let of_session = Some(of_session).filter(|_| stored.key.is_none());
            Outgoing {
                partition: part.to.name.partition.or(of_session).map(PartitionId::new),
                message: Message {
                    key: stored.key.as_deref(),
                    value: stored.value.as_deref(),
                    headers,
                    time: stored.time,
                },
            }
        };
        parts.into_iter().zip(&self.0).map(of_part).collect()
    }
}

/// The topic of a node, as the client may write to it; made, if it is not there and use makes topics.
pub(super) async fn writable(door: &Door, name: &TargetNode) -> Result<Writable, NoLink> {
    let topic = match is_temporary(&name.topic) {
        // It is not made by its use.
        true => door.topic(&name.topic, right::Write)?,
        false => made(door, &name.topic, right::Write).await?,
    };
    let partition = name.partition.map(PartitionId::new);
    match partition.is_none_or(|partition| topic.has(partition)) {
        true => Ok(topic),
        false => Err(Refusal::UnknownTopicOrPartition.into()),
    }
}

/// What a delivery to a node, or to those that its messages name, becomes.
pub(super) async fn parts_of(
    front: &Front,
    door: &Door,
    (owed, channel): (usize, u16),
    to: Option<Arc<Node>>,
    delivery: &Delivery,
) -> Result<Vec<Part>, NotStored> {
    let publisher = to.as_ref().and_then(|it| it.name.publisher.as_deref());
    let now = front.broker.now();
    let all = stored(&delivery.payload, delivery.message_format, publisher, now);
    let all = all.map_err(|unfit| of_unfit(&unfit))?;
    let mut parts = Vec::with_capacity(all.len());
    for stored in all {
        let to = match &to {
            Some(to) => Arc::clone(to),
            // rabbitmq-server#7823: a message to nowhere is not accepted.
            None => {
                let name = address::target(stored.to.as_deref().unwrap_or_default());
                let name = name.map_err(|why| of_node(&why.into()))?;
                let topic = writable(door, &name).await.map_err(|why| of_node(&why))?;
                Arc::new(Node { name, topic })
            }
        };
        parts.push(Part {
            owed,
            to,
            stored,
            channel,
        });
    }
    Ok(parts)
}
