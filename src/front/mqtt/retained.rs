//! What subscriptions are still to be given of retained messages (§3.3.1.3).
//! Callers: `outbound`. Invariants: nothing is queued: a subscription has its place in the list of all names, and while its client takes
//! nothing, it is looked no further. What was retained after the subscription began comes to it from the log, and not from here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::packet::Qos;
use super::readable::{Readable, renew};
use super::state::Front;
use super::topic::TopicFilter;
use crate::broker::access::Door;
use crate::broker::place::Place;
use crate::broker::retained::{Kept, KeptAt, Looked};
use crate::broker::sessions::Positions;

/// What a subscription says of its retained messages.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) filter: TopicFilter,
    /// The highest that they are sent with.
    pub(super) qos: Qos,
    /// Whether the client's own are left out.
    pub(super) no_local: bool,
    /// What they carry.
    pub(super) id: Option<u32>,
}

/// A look that goes on.
struct Look {
    asked: Arc<Asked>,
    topics: Vec<Readable>,
    /// Where the logs' own messages begin for it.
    since: Positions,
    behind: Option<Arc<str>>,
}

/// All of a client that go on.
#[derive(Default)]
pub(super) struct Looks(VecDeque<Look>);

/// What comes next.
pub(super) enum Next {
    /// A message, for this subscription, and behind which name it was found.
    Message(Arc<Kept>, Arc<Asked>, Arc<str>),
    /// Nothing so far: it is to be looked further.
    Further,
    /// Nothing any more.
    Nothing,
}

impl Look {
    /// Whether the message comes from the log, too.
    fn is_to_come(&self, place: Option<Place>) -> bool {
        place.is_some_and(|place| self.since.has(place.topic) && !self.since.is_past(&place))
    }
}

impl Looks {
    /// Begins one, in place of the one of the same filter.
    pub(super) fn begin(
        &mut self,
        asked: Asked,
        topics: Vec<Readable>,
        since: Positions,
        behind: Option<Arc<str>>,
    ) {
        self.end(asked.filter.as_str());
        self.0.push_back(Look {
            asked: Arc::new(asked),
            topics,
            since,
            behind,
        });
    }

    /// Ends that of a filter.
    pub(super) fn end(&mut self, filter: &str) {
        self.0.retain(|look| look.asked.filter.as_str() != filter);
    }

    /// Behind which name that of a filter goes on.
    pub(super) fn behind(&self, filter: &str) -> Option<Arc<str>> {
        let mut looks = self.0.iter();
        let look = looks.find(|look| look.asked.filter.as_str() == filter)?;
        Some(look.behind.clone().unwrap_or_else(|| "".into()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn end_first(&mut self) {
        self.0.pop_front();
        if self.0.is_empty() {
            // Memory that an idle connection would hold.
            self.0 = VecDeque::new();
        }
    }

    /// Looks a bit further.
    pub(super) fn next(&mut self, front: &Front, door: &Door) -> Next {
        let Some(look) = self.0.front_mut() else {
            return Next::Nothing;
        };
        let asked = Arc::clone(&look.asked);
        // The right may have been taken since.
        let is_denied = |topic: &Readable| renew(door, topic, &asked.filter).is_err();
        if look.topics.iter().any(is_denied) {
            self.end_first();
            return Next::Further;
        }
        let filter = &asked.filter;
        let before = look.behind.clone().unwrap_or_else(|| "".into());
        let looked = match filter.prefix() {
            // One name.
            None if look.behind.as_deref().is_some_and(|it| !it.is_empty()) => Looked::End,
            None => {
                look.behind = Some(filter.as_str().into());
                let found = front.broker.retained(filter.as_str());
                found.map_or(Looked::End, Looked::Found)
            }
            Some(prefix) => {
                let behind = look.behind.as_deref();
                let wants = |name: &str| filter.matches(name);
                front.broker.next_retained(prefix, behind, wants)
            }
        };
        match looked {
            Looked::Found(KeptAt { kept, place }) => {
                look.behind = Some(Arc::clone(&kept.name));
                match look.is_to_come(place) {
                    true => Next::Further,
                    false => Next::Message(kept, asked, before),
                }
            }
            Looked::Further(name) => {
                look.behind = Some(name);
                Next::Further
            }
            Looked::End => {
                self.end_first();
                Next::Further
            }
        }
    }
}
