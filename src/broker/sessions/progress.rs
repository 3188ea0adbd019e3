//! How far a connected session has come, as its connection notes it while it works. Callers: fronts write, the mark reads.
//! Invariant: what it tells was sent, or is named as not acknowledged; it may be less than was done, and never more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

use model::{Offset, TopicId};

use super::positions::Positions;
use super::record::Cursor;
use crate::broker::place::Place;
use crate::broker::replay::ReadTo;

/// Whoever reads a topic for a session.
pub trait Reading: Debug + Send + Sync {
    /// How far it is, partition by partition: what lies before was sent, or never will be. It may be less, and is never more.
    fn offsets(&self) -> Vec<Offset>;
}

impl Reading for ReadTo {
    fn offsets(&self) -> Vec<Offset> {
        ReadTo::offsets(self)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Now>);

#[derive(Debug, Default)]
struct Now {
    is_there: bool,
    follows: Vec<(TopicId, Arc<dyn Reading>)>,
    unacked: BTreeMap<u16, Place>,
    /// Messages that were taken from the log, and that are kept nowhere else yet.
    unkept: BTreeSet<Place>,
}

impl Progress {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.0
            .lock()
            .expect("nothing panics while it notes progress")
    }

    /// From here on it tells all of its session; before that nothing.
    pub fn begin(&self) {
        self.now().is_there = true;
    }

    /// From here on it tells nothing again: what is left is kept by whoever ends the connection.
    pub fn end(&self) {
        self.now().is_there = false;
    }

    /// The session reads a topic.
    pub fn follows(&self, topic: TopicId, reading: Arc<dyn Reading>) {
        let mut now = self.now();
        now.follows.retain(|(other, _)| *other != topic);
        now.follows.reserve_exact(1);
        now.follows.push((topic, reading));
    }

    /// It reads it no longer.
    pub fn left(&self, topic: TopicId) {
        self.now().follows.retain(|(other, _)| *other != topic);
    }

    /// Adds the topics that it reads.
    pub(super) fn add_topics(&self, topics: &mut BTreeSet<TopicId>) {
        topics.extend(self.now().follows.iter().map(|(topic, _)| *topic));
    }

    /// A message was sent.
    pub fn sent(&self, packet_id: u16, place: Place) {
        self.now().unacked.insert(packet_id, place);
    }

    /// A message is done.
    pub fn acked(&self, packet_id: u16) {
        self.now().unacked.remove(&packet_id);
    }

    /// A message was taken that leaves when the session knows it: until [`Progress::kept`] it counts as not read.
    pub fn takes(&self, place: Place) {
        self.now().unkept.insert(place);
    }

    /// The session knows these by now.
    pub fn kept(&self, places: &[Place]) {
        let mut now = self.now();
        for place in places {
            now.unkept.remove(place);
        }
    }

    /// What is read, and not acknowledged; None before it tells, and after.
    pub fn cursor(&self) -> Option<Cursor> {
        let now = self.now();
        if !now.is_there {
            return None;
        }
        let mut read = Positions::default();
        for (topic, reading) in &now.follows {
            read.set_topic(*topic, reading.offsets());
        }
        for place in &now.unkept {
            go_back(&mut read, place);
        }
        let unacked = now.unacked.iter().map(|(id, place)| (*id, *place));
        let mut unacked: Vec<_> = unacked.collect();
        unacked.sort_unstable_by_key(|(_, place)| *place);
        Some(Cursor {
            keeps_up: false,
            read,
            unacked,
        })
    }
}

/// What lies before everything that is not done.
pub fn low(cursor: &Cursor) -> Positions {
    let mut low = cursor.read.clone();
    for (_, place) in &cursor.unacked {
        go_back(&mut low, place);
    }
    low
}

/// Where a place lies before, that is where it is.
fn go_back(read: &mut Positions, place: &Place) {
    if read.has(place.topic) && read.get(place.topic, place.partition) > place.offset {
        read.set(*place);
    }
}
