//! Subscriptions that outlive their links, or that several links share: how they are called, and which are in use.
//! Callers: `connection` and `receiving` name them, `queue` uses them.
//!
//! A subscription is a group that shares records, as a queue is. Its id says whose it is: `sub:CONTAINER:NAME`, `sub::NAME` for one that belongs
//! to no client id, and `sub~…` for one that ends with its last consumer, or with the server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::TopicId;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::errors::NoLink;
use crate::broker::Broker;
use crate::broker::access::{Door, right};

/// What the ids of groups begin with that end with their last consumer.
const VOLATILE: &str = "sub~";
const KEPT: &str = "sub:";
/// How long somebody waits for a consumer that goes.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// A subscription as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The id of its group.
    pub(super) id: String,
    /// Whether it has one consumer at most.
    pub(super) is_alone: bool,
}

impl Named {
    /// By a link's name, up to a bar: behind it clients number their consumers.
    pub(super) fn of(link: &str, container: Option<&str>, is_kept: bool, is_alone: bool) -> Named {
        let (name, _) = link.split_once('|').unwrap_or((link, ""));
        let begin = if is_kept { KEPT } else { VOLATILE };
        let container = escaped(container.unwrap_or_default());
        Named {
            id: format!("{begin}{container}:{name}"),
            is_alone,
        }
    }

    fn is_volatile(&self) -> bool {
        self.id.starts_with(VOLATILE)
    }
}

/// A client id without what separates it from a name.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace(':', "%3A")
}

/// Which subscriptions have consumers.
#[derive(Debug, Default)]
pub(super) struct Uses {
    all: Mutex<HashMap<String, Use>>,
    ended: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    /// Consumers, with those that are going.
    count: u32,
    /// Those that are not going. None of them: it may be ending.
    staying: u32,
    is_alone: bool,
}

/// A subscription in use.
pub(super) struct InUse {
    uses: Arc<Uses>,
    door: Arc<Door>,
    named: Named,
    is_going: bool,
}

impl Uses {
    fn locked(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        self.all.lock().expect("nothing panics while it counts")
    }
}

impl InUse {
    /// Takes a subscription; waits for one who goes.
    /// Errors: others have it, or it is to be one's alone.
    pub(super) async fn take(
        uses: &Arc<Uses>,
        door: &Arc<Door>,
        named: Named,
    ) -> Result<InUse, NoLink> {
        let taken = async {
            loop {
                let ended = uses.ended.notified();
                match InUse::try_take(uses, door, &named) {
                    Some(taken) => return taken,
                    None => ended.await,
                }
            }
        };
        timeout(ENDING_MAX, taken)
            .await
            .unwrap_or(Err(NoLink::InUse))
    }

    /// None while the last consumer goes.
    fn try_take(
        uses: &Arc<Uses>,
        door: &Arc<Door>,
        named: &Named,
    ) -> Option<Result<InUse, NoLink>> {
        let mut all = uses.locked();
        match all.get_mut(&named.id) {
            Some(it) if it.staying == 0 => return None,
            Some(it) if it.is_alone || named.is_alone => return Some(Err(NoLink::InUse)),
            Some(it) => (it.count, it.staying) = (it.count + 1, it.staying + 1),
            None => {
                let first = Use {
                    count: 1,
                    staying: 1,
                    is_alone: named.is_alone,
                };
                all.insert(named.id.clone(), first);
            }
        }
        Some(Ok(InUse {
            uses: Arc::clone(uses),
            door: Arc::clone(door),
            named: named.clone(),
            is_going: false,
        }))
    }

    /// Whether it is one of this topic: one of another ends, and begins anew.
    pub(super) async fn is_of(&self, topic: TopicId) -> Result<(), NoLink> {
        let broker = self.door.broker();
        let group = self.door.group(&self.named.id, right::Read)?;
        let topics = broker.shared_topics(&group).unwrap_or_default();
        if topics.iter().any(|it| *it != topic) {
            if !self.is_first() {
                return Err(NoLink::InUse);
            }
            let ended = broker.end_subscription(&group).await;
            ended.map_err(NoLink::Group)?;
        }
        Ok(())
    }

    fn is_first(&self) -> bool {
        let all = self.uses.locked();
        { all.get(&self.named.id) }.is_some_and(|it| it.count == 1)
    }

    /// Says that it is going. True: it is the last one, and the subscription is to end with it.
    pub(super) fn goes(&mut self, is_closed: bool) -> bool {
        if std::mem::replace(&mut self.is_going, true) {
            return false;
        }
        let mut all = self.uses.locked();
        let Some(it) = all.get_mut(&self.named.id) else {
            return false;
        };
        it.staying -= 1;
        it.staying == 0 && (is_closed || self.named.is_volatile())
    }

    /// Ends the subscription. What it had not finished is nobody's.
    pub(super) async fn delete(&self) -> Result<(), NoLink> {
        let group = self.door.group(&self.named.id, right::Read)?;
        let ended = self.door.broker().end_subscription(&group).await;
        ended.map_err(NoLink::Group)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.goes(false);
        let mut all = self.uses.locked();
        if let Some(it) = all.get_mut(&self.named.id) {
            it.count -= 1;
            if it.count == 0 {
                all.remove(&self.named.id);
            }
        }
        drop(all);
        self.uses.ended.notify_waiters();
    }
}

/// Whether there is a subscription with this id.
/// Errors: there is none, or the caller may not consume of it.
pub(super) fn look_for(door: &Door, id: &str) -> Result<(), NoLink> {
    let group = door.group(id, right::Read)?;
    let topics = door.broker().shared_topics(&group);
    topics.map(drop).map_err(|_| NoLink::NoSubscription)
}

/// Ends those that a stop has left and that were to end with their consumers.
pub(super) async fn end_left(broker: &Broker) {
    broker.end_left_subscriptions(VOLATILE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_its_clients_and_its_names() {
        for (link, container, is_kept, id) in [
            ("s", Some("c"), true, "sub:c:s"),
            ("s|2", Some("c"), true, "sub:c:s"),
            ("s|global2", None, true, "sub::s"),
            ("s|volatile1", Some("c"), false, "sub~c:s"),
            // Nobody is called so that it is another's.
            ("b:s", Some("a"), true, "sub:a:b:s"),
            ("s", Some("a:b"), true, "sub:a%3Ab:s"),
            ("s", Some("a%3Ab"), true, "sub:a%253Ab:s"),
        ] {
            assert_eq!(Named::of(link, container, is_kept, true).id, id, "{link}");
        }
    }
}
