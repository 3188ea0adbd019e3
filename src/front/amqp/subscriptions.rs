//! Subscriptions that outlive their links, or that several links share: how they are called, and which are in use.
//! Callers: `connection` and `receiving` name them, `queue` uses them.
//!
//! A subscription is a group that shares records, as a queue is. Its id says whose it is: `sub:CONTAINER:NAME`, `sub::NAME` for one that belongs
//! to no client id, and `sub~…` for one that ends with its last consumer, or with the server. Behind that stands, for one with a selector,
//! `?` and a hash of it: with another selector it is another one, and the one before ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::TopicId;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::errors::NoLink;
use crate::broker::Broker;
use crate::broker::access::{Door, right};
use crate::broker::share::{self, ShareError};

/// What the ids of groups begin with that end with their last consumer.
const VOLATILE: &str = share::VOLATILE_SUBSCRIPTIONS;
const KEPT: &str = share::KEPT_SUBSCRIPTIONS;
/// How long somebody waits for a consumer that goes.
pub(super) const ENDING_MAX: Duration = Duration::from_secs(5);

/// A subscription as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// What is in use by its consumers: the id, but for the selector.
    name: String,
    /// The id of its group.
    pub(super) id: String,
    /// Whether it has one consumer at most.
    pub(super) is_alone: bool,
}

impl Named {
    /// By a link's name, up to a bar: behind it clients number their consumers.
    pub(super) fn of(
        link: &str,
        container: Option<&str>,
        (is_kept, is_alone): (bool, bool),
        selector: Option<&str>,
    ) -> Named {
        let (name, _) = link.split_once('|').unwrap_or((link, ""));
        let begin = if is_kept { KEPT } else { VOLATILE };
        let container = escaped(container.unwrap_or_default(), ':', "%3A");
        let name = escaped(name, '?', "%3F");
        let name = format!("{begin}{container}:{name}");
        Named {
            id: match selector {
                None => name.clone(),
                Some(text) => {
                    let hash = Sha256::digest(text);
                    let hash: String = { hash[..8].iter() }.map(|it| format!("{it:02x}")).collect();
                    format!("{name}?{hash}")
                }
            },
            name,
            is_alone,
        }
    }

    /// Whether a group is this one, with whatever selector.
    fn is_of(&self, id: &str) -> bool {
        let rest = id.strip_prefix(&self.name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?'))
    }

    fn is_volatile(&self) -> bool {
        self.id.starts_with(VOLATILE)
    }
}

/// A part of an id without what separates it from the next.
fn escaped(text: &str, separator: char, by: &str) -> String {
    text.replace('%', "%25").replace(separator, by)
}

/// Which subscriptions have consumers.
#[derive(Debug, Default)]
pub(super) struct Uses {
    all: Mutex<HashMap<String, Use>>,
    ended: Notify,
}

#[derive(Clone, Debug)]
struct Use {
    /// The id of its group.
    id: String,
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
        match all.get_mut(&named.name) {
            Some(it) if it.staying == 0 => return None,
            Some(it) if it.is_alone || named.is_alone || it.id != named.id => {
                return Some(Err(NoLink::InUse));
            }
            Some(it) => (it.count, it.staying) = (it.count + 1, it.staying + 1),
            None => {
                let first = Use {
                    id: named.id.clone(),
                    count: 1,
                    staying: 1,
                    is_alone: named.is_alone,
                };
                all.insert(named.name.clone(), first);
            }
        }
        Some(Ok(InUse {
            uses: Arc::clone(uses),
            door: Arc::clone(door),
            named: named.clone(),
            is_going: false,
        }))
    }

    /// Whether it is one of this topic and with its selector: one of another ends, and begins anew.
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
        if self.is_first() {
            self.end_where(|id| id != self.named.id).await?;
        }
        Ok(())
    }

    /// Ends those of its groups that are meant.
    async fn end_where(&self, is_meant: impl Fn(&str) -> bool) -> Result<(), NoLink> {
        let broker = self.door.broker();
        for id in broker.sharing_groups(|id| self.named.is_of(id) && is_meant(id)) {
            let group = self.door.group(&id, right::Read)?;
            match broker.end_subscription(&group).await {
                Ok(()) | Err(ShareError::NotFound) => {}
                Err(error) => return Err(NoLink::Group(error)),
            }
        }
        Ok(())
    }

    fn is_first(&self) -> bool {
        let all = self.uses.locked();
        { all.get(&self.named.name) }.is_some_and(|it| it.count == 1)
    }

    /// Says that it is going. True: it is the last one, and the subscription is to end with it.
    pub(super) fn goes(&mut self, is_closed: bool) -> bool {
        if std::mem::replace(&mut self.is_going, true) {
            return false;
        }
        let mut all = self.uses.locked();
        let Some(it) = all.get_mut(&self.named.name) else {
            return false;
        };
        it.staying -= 1;
        it.staying == 0 && (is_closed || self.named.is_volatile())
    }

    /// Ends the subscription. What it had not finished is nobody's.
    pub(super) async fn delete(&self) -> Result<(), NoLink> {
        self.end_where(|_| true).await
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.goes(false);
        let mut all = self.uses.locked();
        if let Some(it) = all.get_mut(&self.named.name) {
            it.count -= 1;
            if it.count == 0 {
                all.remove(&self.named.name);
            }
        }
        drop(all);
        self.uses.ended.notify_waiters();
    }
}

/// Whether there is such a subscription, with whatever selector.
/// Errors: there is none, or the caller may not consume of it.
pub(super) fn look_for(door: &Door, named: &Named) -> Result<(), NoLink> {
    door.group(&named.id, right::Read)?;
    let found = door.broker().sharing_groups(|id| named.is_of(id));
    match found.is_empty() {
        true => Err(NoLink::NoSubscription),
        false => Ok(()),
    }
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
            ("s?x", Some("c"), true, "sub:c:s%3Fx"),
        ] {
            let named = Named::of(link, container, (is_kept, true), None);
            assert_eq!(named.id, id, "{link}");
        }
    }

    #[test]
    fn with_another_selector_a_subscription_is_another_group_of_the_same_name() {
        let of = |name, selector| Named::of(name, Some("c"), (true, true), selector);
        let (plain, red) = (of("s", None), of("s", Some("color = 'red'")));
        assert_ne!(plain.id, red.id);
        assert_ne!(red.id, of("s", Some("color = 'blue'")).id);
        assert!(plain.is_of(&red.id) && red.is_of(&plain.id) && red.is_of(&red.id));
        for other in ["s2", "s?color", "s:"] {
            assert!(!plain.is_of(&of(other, None).id), "{other}");
        }
    }
}
