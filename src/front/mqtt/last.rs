//! Last values as a subscription: `$last/<filter>` gives the newest message of each topic that the filter matches, and then what comes.
//! Callers: `feed`, in two steps: a reader goes over the log and notes here where the newest of each topic is, and a second one gives
//! what was noted, and all that is behind the end of the first. Invariant: what is noted is bounded; what is more than that is told.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use model::batch::RecordRef;
use model::{Offset, PartitionId};

use super::naming::{Names, Naming};
use super::routes::Routes;
use super::subscriptions::{Seen, Subscriptions};
use crate::broker::place::offset_of;
use crate::broker::replay::{Accept, Resume};

/// What such filters begin with.
pub(super) const PREFIX: &str = "$last/";

/// What topics may take that are noted, with some 100 bytes for each.
const NOTED_BYTES_MAX: usize = 16 << 20;
const OVERHEAD_BYTES: usize = 100;

/// Where the newest message of each topic is in a Kafka topic, below the ends at which it was asked for.
#[derive(Clone)]
pub(super) struct Newest {
    noted: Arc<Mutex<Noted>>,
    ends: Arc<[Offset]>,
    naming: Naming,
    routes: Routes,
}

#[derive(Default)]
struct Noted {
    /// None of a topic whose newest record says that there is no value any more.
    topics: HashMap<Box<str>, Option<(PartitionId, Offset)>>,
    bytes: usize,
    is_too_much: bool,
}

/// More topics match than are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

impl Newest {
    /// Nothing is noted yet.
    pub(super) fn new(ends: Vec<Offset>, naming: Naming, routes: Routes) -> Newest {
        Newest {
            noted: Arc::default(),
            ends: ends.into(),
            naming,
            routes,
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted
            .lock()
            .expect("nothing panics while it notes topics")
    }

    /// What the first reader shows each record: it notes, and takes nothing.
    pub(super) fn notes(&self, subscriptions: &Subscriptions) -> Accept {
        let (newest, wanted) = (self.clone(), subscriptions.clone());
        Arc::new(move |partition, record| {
            if record.offset < offset_of(&newest.ends, partition) {
                newest.note(&wanted, partition, record);
            }
            false
        })
    }

    fn note(&self, wanted: &Subscriptions, partition: PartitionId, record: &RecordRef<'_>) {
        let names = self.naming.names(record);
        let Some(wanted) = wanted.wanted(&seen(&names, partition, record)) else {
            return;
        };
        let Some(topic) = names.by(wanted.is_of_kafka) else {
            return;
        };
        // Where its messages went before its route was another one there is no newest of it.
        if !wanted.is_of_kafka && !self.routes.leads(topic, &self.naming.topic) {
            return;
        }
        // Of a topic all messages are in one partition, as a rule; those that others wrote elsewhere come behind, or before.
        let at = record.value.map(|_| (partition, record.offset));
        let mut noted = self.noted();
        if let Some(known) = noted.topics.get_mut(topic) {
            *known = at;
            return;
        }
        noted.bytes += topic.len() + OVERHEAD_BYTES;
        match noted.bytes > NOTED_BYTES_MAX {
            true => noted.is_too_much = true,
            false => drop(noted.topics.insert(topic.into(), at)),
        }
    }

    /// Where the second reader begins, and what it gives.
    pub(super) fn given(
        &self,
        subscriptions: &Subscriptions,
    ) -> Result<(Vec<Resume>, Accept), TooMuch> {
        let noted = std::mem::take(&mut *self.noted());
        if noted.is_too_much {
            return Err(TooMuch);
        }
        let newest: HashSet<_> = noted.topics.into_values().flatten().collect();
        let partitions = (0..).map(PartitionId::new).zip(self.ends.iter());
        let begins = partitions.map(|(partition, end)| {
            let of_partition = newest.iter().filter(|(of, _)| *of == partition);
            Resume {
                partition,
                offset: of_partition.map(|(_, at)| *at).min().unwrap_or(*end),
                since: None,
            }
        });
        let begins = begins.collect();
        let (ends, wanted) = (Arc::clone(&self.ends), subscriptions.clone());
        let naming = self.naming.clone();
        let accept: Accept = Arc::new(move |partition, record| {
            if record.offset < offset_of(&ends, partition) {
                return newest.contains(&(partition, record.offset));
            }
            let names = naming.names(record);
            wanted.want(&seen(&names, partition, record))
        });
        Ok((begins, accept))
    }
}

fn seen<'a>(names: &'a Names<'a>, partition: PartitionId, record: &RecordRef<'_>) -> Seen<'a> {
    Seen {
        names,
        // It is looked at when the message is sent.
        is_own: false,
        partition,
        offset: record.offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_topics_are_noted_than_there_is_room_for() {
        let routes = Routes::default();
        let topic = model::TopicName::parse("mqtt").expect("a name");
        let newest = Newest::new(Vec::new(), routes.naming(&topic), routes);
        let subscriptions = Subscriptions::default();
        assert!(newest.given(&subscriptions).is_ok());
        newest.noted().is_too_much = true;
        assert_eq!(newest.given(&subscriptions).err(), Some(TooMuch));
    }
}
