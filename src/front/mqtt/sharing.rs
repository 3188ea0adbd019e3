//! Shared subscriptions (§4.8.2): which there are, who has a part in each, and whose turn it is.
//! Callers: `shared` joins for a client, `session` holds one for a session that goes on, and ends those that are nobody's.
//!
//! A shared subscription is a group of the broker that shares records, whose id is its filter as it is written, `$share/NAME/FILTER`. It begins
//! with its first subscriber, behind what is there already, and ends with the last session that has it. Invariant: a group of which nobody
//! has a part gives nothing to who comes later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Mutex as Turns, MutexGuard as Turn};

use super::errors::NotSubscribed;
use super::readable::read_by_id;
use super::topic::TopicFilter;
use crate::broker::access::{Door, Granted, Protocol, right};
use crate::broker::sessions::SHARED;
use crate::broker::share::{Begin, ShareError, ShareReadError, ShareReader};
use crate::broker::{Broker, Refusal, Topic};

/// All shared subscriptions.
pub(super) struct Sharing {
    broker: Broker,
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
}

struct Group {
    filter: Arc<str>,
    /// Connections that have a part.
    connected: AtomicUsize,
    /// Held while it begins or ends.
    begins: Turns<()>,
    /// Held by whom the next message is for. Who waits for it comes in the order in which it asked.
    turn: Turns<()>,
}

/// A connection's part in a shared subscription, until this is dropped.
pub(super) struct Part(Arc<Group>);

impl Part {
    fn of(group: &Arc<Group>) -> Part {
        group.connected.fetch_add(1, SeqCst);
        Part(Arc::clone(group))
    }

    /// Waits for its turn to be given a message.
    pub(super) async fn turn(&self) -> Turn<'_, ()> {
        self.0.turn.lock().await
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, SeqCst);
    }
}

impl Sharing {
    /// Those that are there already: of sessions that are kept, or left by a stop of the server.
    pub(super) fn new(broker: Broker) -> Sharing {
        let own = broker.own_door(Protocol::Mqtt);
        let sharing = Sharing {
            broker,
            groups: Mutex::default(),
        };
        for group in own.share_groups() {
            if group.id.starts_with(SHARED) {
                sharing.group(&group.id);
            }
        }
        sharing
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Group>>> {
        self.groups
            .lock()
            .expect("nothing panics while it holds shared subscriptions")
    }

    fn group(&self, filter: &str) -> Arc<Group> {
        let mut groups = self.groups();
        if let Some(group) = groups.get(filter) {
            return Arc::clone(group);
        }
        let filter: Arc<str> = filter.into();
        let group = Arc::new(Group {
            filter: Arc::clone(&filter),
            connected: AtomicUsize::new(0),
            begins: Turns::default(),
            turn: Turns::default(),
        });
        groups.insert(filter, Arc::clone(&group));
        group
    }

    /// Has a part in one that goes on, so that it does not end meanwhile.
    pub(super) fn hold(&self, filter: &str) -> Part {
        Part::of(&self.group(filter))
    }

    /// Joins, as this member. One that is nobody's begins anew, unless it goes on for the client. Durable when it returns.
    pub(super) async fn join(
        &self,
        door: &Door,
        topics: &[Granted<Arc<Topic>, right::Read>],
        (filter, goes_on): (&str, bool),
        member: Arc<str>,
    ) -> Result<(Part, Vec<ShareReader>), NotSubscribed> {
        let id = door.group(filter, right::Read).map_err(refused)?;
        let group = self.group(filter);
        let _begins = group.begins.lock().await;
        if !goes_on && !self.is_used(&group) {
            self.end(filter).await.map_err(group_refused)?;
        }
        let mut readers = Vec::new();
        for topic in topics {
            let member = (Arc::clone(&member), door.caller());
            let reader = self.broker.share_reader(topic, &id, Begin::Latest, member);
            readers.push(reader.await.map_err(|error| match error {
                ShareReadError::Group(error) => group_refused(error),
                ShareReadError::Read(_) => NotSubscribed::Failed,
            })?);
        }
        Ok((Part::of(&group), readers))
    }

    /// The topics that one has begun with and that are still there, whatever routes say now.
    pub(super) fn begun_with(
        &self,
        door: &Door,
        (filter, topics): (&str, &TopicFilter),
    ) -> Result<Vec<Granted<Arc<Topic>, right::Read>>, NotSubscribed> {
        let group = door.group(filter, right::Read).map_err(refused)?;
        let ids = match self.broker.shared_topics(&group) {
            Ok(ids) => ids,
            Err(ShareError::NotFound) => Vec::new(),
            Err(error) => return Err(group_refused(error)),
        };
        let there = ids.into_iter().filter(|id| self.broker.has_topic(*id));
        let granted = there.map(|id| read_by_id(door, id, topics).map_err(refused));
        granted.collect()
    }

    /// The filters of all that there are.
    pub(super) fn filters(&self) -> Vec<Arc<str>> {
        self.groups().keys().map(Arc::clone).collect()
    }

    /// Whether a session has it that is kept, or a connection. In this order: a session that is discarded is held before.
    fn is_used(&self, group: &Group) -> bool {
        self.broker.sessions_that_share(&group.filter) > 0 || group.connected.load(SeqCst) > 0
    }

    async fn end(&self, filter: &str) -> Result<(), ShareError> {
        let own = self.broker.own_door(Protocol::Mqtt);
        let group = own.group(filter, right::Read);
        let group = group.map_err(|_| ShareError::NotAvailable)?;
        match self.broker.end_subscription(&group).await {
            Err(ShareError::NotFound) => Ok(()),
            ended => ended,
        }
    }

    /// Ends those that are nobody's.
    pub(super) async fn end_unused(&self) {
        let unused: Vec<_> = {
            let groups = self.groups();
            let unused = groups.values().filter(|group| !self.is_used(group));
            unused.map(Arc::clone).collect()
        };
        for group in unused {
            let _begins = group.begins.lock().await;
            if self.is_used(&group) {
                continue;
            }
            if let Err(error) = self.end(&group.filter).await {
                tracing::debug!(filter = &*group.filter, %error, "a shared subscription stays for now");
                continue;
            }
            let mut groups = self.groups();
            // Beside this one and the map's: somebody is about to join.
            if Arc::strong_count(&group) == 2 {
                groups.remove(&group.filter);
            }
        }
    }
}

fn refused(refusal: Refusal) -> NotSubscribed {
    match refusal {
        // That of a topic by its id is told so.
        Refusal::Denied { .. } | Refusal::UnknownTopicId => NotSubscribed::Denied,
        _ => NotSubscribed::Failed,
    }
}

fn group_refused(error: ShareError) -> NotSubscribed {
    match error {
        ShareError::MaxSizeReached | ShareError::OffsetsMaxReached => NotSubscribed::TooMany,
        ShareError::InvalidGroupId => NotSubscribed::Filter,
        _ => NotSubscribed::Failed,
    }
}
