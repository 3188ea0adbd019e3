//! Temporary nodes: topics that are made for a link and gone with it.
//! Callers: `connection`, and `Front::serve` for those that a stop has left.
//! Invariants: nobody is told of them but by their names, which nobody guesses; who knows the name may send, and the connection that made the
//! node may receive. They are gone with their link, with their connection, or at the next start. Other protocols do not see them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use amqp::Map;
use amqp::endpoint::LinkId;

use super::bounds::TEMPORARIES_MAX;
use super::errors::NoLink;
use super::state::Front;
use crate::broker::access::{Door, Protocol, TEMPORARY_TOPICS, is_temporary, right};
use crate::broker::quotas::Mutation;
use crate::broker::{Broker, Layout, NewTopic};

/// The lifetime policy that there is: with the link (part 3, 3.5.10).
const DELETE_ON_CLOSE: &str = "amqp:delete-on-close:list";
const DELETE_ON_CLOSE_CODE: u64 = 0x2b;

/// The temporary nodes of a connection.
pub(super) struct Temporaries {
    front: Arc<Front>,
    all: BTreeMap<LinkId, String>,
}

impl Temporaries {
    pub(super) fn new(front: &Arc<Front>) -> Temporaries {
        Temporaries {
            front: Arc::clone(front),
            all: BTreeMap::new(),
        }
    }

    /// Makes a node with such properties for a link. Gives its address.
    pub(super) async fn make(
        &mut self,
        door: &Door,
        link: LinkId,
        properties: Option<Map<'_>>,
    ) -> Result<String, NoLink> {
        if !is_offered(properties) {
            return Err(NoLink::Lifetime);
        }
        if self.all.len() >= TEMPORARIES_MAX {
            return Err(NoLink::TooManyNodes);
        }
        door.mutate(1, Mutation::Strict)?;
        let broker = &self.front.broker;
        let name = format!("{TEMPORARY_TOPICS}{}", uuid::Uuid::new_v4().simple());
        let own = broker.own_door(Protocol::Amqp);
        let new = NewTopic {
            name: own.new_topic(&name)?,
            layout: Layout::Counted {
                partitions: Some(1),
                replicas: None,
            },
            // It does not outlive a stop.
            settings: vec![("durability".to_owned(), Some("os".to_owned()))],
        };
        let made = broker.create_topics(vec![new], false).await;
        for made in made {
            made?;
        }
        self.all.insert(link, name.clone());
        self.front.stats.temporaries.fetch_add(1, Relaxed);
        Ok(name)
    }

    /// Whether a node may be received from: it is none of others'.
    pub(super) fn check(&self, topic: &str) -> Result<(), NoLink> {
        match !is_temporary(topic) || self.all.values().any(|it| it == topic) {
            true => Ok(()),
            false => Err(NoLink::NotOwned),
        }
    }

    /// Links are gone, and with them their nodes.
    pub(super) fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool) {
        let gone = self.all.extract_if(.., |link, _| is_gone(*link));
        let gone: Vec<String> = gone.map(|(_, name)| name).collect();
        self.front
            .stats
            .temporaries
            .fetch_sub(gone.len() as u64, Relaxed);
        delete(&self.front.broker, gone);
    }
}

impl Drop for Temporaries {
    fn drop(&mut self) {
        self.forget(|_| true);
    }
}

fn is_offered(properties: Option<Map<'_>>) -> bool {
    let policy = properties.and_then(|it| it.get("lifetime-policy"));
    match policy {
        None | Some(amqp::Value::Null) => true,
        Some(amqp::Value::Described(it)) => match it.descriptor() {
            amqp::Value::Ulong(code) => code == DELETE_ON_CLOSE_CODE,
            other => other.text() == Some(DELETE_ON_CLOSE),
        },
        Some(_) => false,
    }
}

/// Deletes nodes, while others go on.
fn delete(broker: &Broker, names: Vec<String>) {
    if names.is_empty() {
        return;
    }
    let broker = broker.clone();
    tokio::spawn(async move { delete_all(&broker, names).await });
}

async fn delete_all(broker: &Broker, names: Vec<String>) {
    let own = broker.own_door(Protocol::Amqp);
    let topics = names.iter().map(|name| own.topic(name, right::Delete));
    let topics = topics.filter_map(Result::ok).collect();
    for deleted in broker.delete_topics(topics).await {
        if let Err(why) = deleted {
            tracing::warn!(%why, "a temporary node is there until the next start");
        }
    }
}

/// Deletes those that a stop has left.
pub(super) async fn delete_left(broker: &Broker) {
    let own = broker.own_door(Protocol::Amqp);
    let topics = own.topics(right::Delete).into_iter();
    let names = topics.map(|topic| topic.name.to_string());
    let names: Vec<String> = names.filter(|name| is_temporary(name)).collect();
    if !names.is_empty() {
        delete_all(broker, names).await;
    }
}
