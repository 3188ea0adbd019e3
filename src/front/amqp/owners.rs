//! Who reads a partition for a consumer group alone, as Event Hubs' receivers ask for by an owner level (`com.microsoft:epoch`).
//! Callers: `connection`, when a receiver is attached and when another one takes its partition; `cursor` holds what was taken.
//! Invariants: of a partition and a group either one reader with an owner level is there, or any number without one. A reader with the same
//! level or a higher one takes the partition from all others, whichever connections they have; any other is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use amqp::performative::Attach;
use model::TopicId;
use tokio::sync::Notify;

use super::errors::NoLink;

/// The property of a link by which its receiver says its level.
const LEVEL: &str = "com.microsoft:epoch";

/// The owner level that a receiver asks for, if it does; only one that reads for a group has some.
pub(super) fn level_of(attach: &Attach<'_>, has_group: bool) -> Result<Option<i64>, NoLink> {
    let said = attach.properties.and_then(|it| it.get(LEVEL));
    let level = said.map(|said| {
        let level = said.integer().and_then(|it| i64::try_from(it).ok());
        let level = level.filter(|it| *it >= 0 && has_group);
        level.ok_or(NoLink::Level)
    });
    level.transpose()
}

/// What is read: a partition of a topic for a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Read {
    pub(super) topic: TopicId,
    pub(super) partition: u32,
    pub(super) group: String,
}

/// Readers of a connection that others have taken the partition from.
#[derive(Debug, Default)]
pub(super) struct Lost {
    readers: Mutex<Vec<(Number, i64)>>,
    told: Notify,
}

impl Lost {
    /// Waits until there may be some.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    /// Those that there are, each with the level of who has taken its partition.
    pub(super) fn take(&self) -> Vec<(Number, i64)> {
        let mut readers = self.readers.lock().expect("nothing panics while it adds");
        std::mem::take(&mut *readers)
    }

    fn tell(&self, reader: Number, level: i64) {
        let mut readers = self.readers.lock().expect("nothing panics while it adds");
        readers.push((reader, level));
        self.told.notify_one();
    }
}

/// Which reader it is: no other one has ever the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(u64);

/// A reader, as its partition knows it.
#[derive(Debug)]
struct Reader {
    number: Number,
    lost: Arc<Lost>,
}

/// Those of one partition and group.
#[derive(Debug, Default)]
struct Readers {
    /// The level of the only one.
    level: Option<i64>,
    all: Vec<Reader>,
}

#[derive(Debug, Default)]
struct State {
    readers: HashMap<Read, Readers>,
    /// Readers that there were.
    made: u64,
}

/// Those of all.
#[derive(Debug, Default)]
pub(super) struct Owners(Mutex<State>);

/// A reader's part in a partition, until it is dropped or taken.
#[derive(Debug)]
pub(super) struct Owned {
    owners: Arc<Owners>,
    read: Read,
    number: Number,
}

impl Owned {
    /// Which reader it is.
    pub(super) fn number(&self) -> Number {
        self.number
    }
}

impl Owners {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it looks")
    }

    /// Takes part as a reader, whose connection hears by `lost` when another one takes the partition.
    pub(super) fn take(
        self: &Arc<Owners>,
        read: Read,
        level: Option<i64>,
        lost: &Arc<Lost>,
    ) -> Result<Owned, NoLink> {
        let mut state = self.locked();
        let number = Number(state.made);
        let readers = state.readers.entry(read.clone()).or_default();
        match (level, readers.level) {
            (None, Some(theirs)) => return Err(NoLink::Owned(theirs)),
            (Some(ours), Some(theirs)) if ours < theirs => return Err(NoLink::Owned(theirs)),
            (None, None) => {}
            (Some(ours), _) => {
                for reader in readers.all.drain(..) {
                    reader.lost.tell(reader.number, ours);
                }
                readers.level = Some(ours);
            }
        }
        readers.all.push(Reader {
            number,
            lost: Arc::clone(lost),
        });
        state.made += 1;
        drop(state);
        Ok(Owned {
            owners: Arc::clone(self),
            read,
            number,
        })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut state = self.owners.locked();
        let Some(readers) = state.readers.get_mut(&self.read) else {
            return;
        };
        // One whose partition was taken is not there any more.
        readers.all.retain(|it| it.number != self.number);
        if readers.all.is_empty() {
            state.readers.remove(&self.read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(group: &str) -> Read {
        Read {
            topic: TopicId::ZERO,
            partition: 0,
            group: group.to_owned(),
        }
    }

    #[test]
    fn a_partition_has_one_owner_and_who_has_the_same_level_or_more_takes_it() {
        let owners = Arc::new(Owners::default());
        let lost = Arc::new(Lost::default());
        let take = |level| owners.take(read("g"), level, &lost);
        let first = take(None).expect("nobody owns it");
        let second = take(None).expect("nobody owns it");
        let owner = take(Some(0)).expect("it takes it");
        assert_eq!(lost.take(), [(first.number(), 0), (second.number(), 0)]);
        // What those still hold is nothing: the owner stays.
        drop((first, second));
        assert!(matches!(take(None), Err(NoLink::Owned(0))));
        let other = owners.take(read("other"), None, &lost);
        drop(other.expect("another group's readers are others"));
        let again = take(Some(0)).expect("the newest of a level has it");
        assert_eq!(lost.take(), [(owner.number(), 0)]);
        drop(owner);
        let higher = take(Some(7)).expect("it takes it");
        assert_eq!(lost.take(), [(again.number(), 7)]);
        assert!(matches!(take(Some(6)), Err(NoLink::Owned(7))));
        drop(again);
        assert!(matches!(take(None), Err(NoLink::Owned(7))));
        drop(higher);
        drop(take(None).expect("the owner is gone"));
        assert!(owners.locked().readers.is_empty());
        assert!(lost.take().is_empty());
    }
}
