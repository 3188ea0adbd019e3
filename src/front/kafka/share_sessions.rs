//! Share sessions (KIP-932): what a member of a share group fetches from, so that a request names only what changed.
//!
//! Callers: ShareFetch and ShareAcknowledge; a connection when it ends. A fetch with epoch 0 begins the member's session, and each
//! request after it carries the next epoch; one that comes out of turn is refused, and the client begins anew. With epoch -1 the session
//! ends, as it does with the connection that began it; whoever ends it releases what the member holds.
//! Invariants: no more than [`SESSIONS_MAX`] sessions and [`PARTITIONS_MAX`] partitions of all of them are kept, and nothing is evicted:
//! who is refused tries again.
//! Source: `SharePartitionManager` and `ShareSession` of Kafka 4.3, by their behaviour.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use super::errors::Misuse;
use crate::broker::Broker;
use crate::broker::access::{Protocol, right};

/// Sessions that are kept: Kafka's default of `group.share.max.share.sessions`.
const SESSIONS_MAX: usize = 2000;
/// Partitions of all sessions together, some 200 bytes each.
const PARTITIONS_MAX: usize = 1 << 18;
/// The epoch of a fetch that begins a session.
const EPOCH_INITIAL: i32 = 0;
/// The epoch of a request that ends it.
pub(super) const EPOCH_FINAL: i32 = -1;

/// Whose session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    pub group: String,
    pub member: String,
}

/// A partition as the protocol names it.
pub(super) type SharedPlace = (Uuid, i32);

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct ShareSessions {
    all: Mutex<All>,
    connections: AtomicU64,
}

#[derive(Debug, Default)]
struct All {
    by_key: HashMap<SessionKey, Session>,
    /// Of all sessions.
    partitions: usize,
}

#[derive(Debug)]
struct Session {
    /// The epoch of its next request.
    epoch: i32,
    connection: u64,
    /// In the order in which the limits of a fetch are spent: who was given records goes to the end.
    partitions: BTreeMap<u64, Kept>,
    turns: HashMap<SharedPlace, u64>,
    next_turn: u64,
}

#[derive(Debug)]
struct Kept {
    place: SharedPlace,
    /// Whether the next answer names it, whatever there is.
    must_tell: bool,
}

/// One connection's part in the sessions.
#[derive(Debug)]
pub(super) struct ConnectionShares {
    sessions: Arc<ShareSessions>,
    id: u64,
}

/// How a fetch goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It ends the session.
    Final,
    /// It fetches from these partitions, and the next one has this epoch.
    Fetch(Vec<SharedPlace>, i32),
}

/// What a fetch found in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    pub place: SharedPlace,
    pub has_records: bool,
    pub is_error: bool,
}

/// What a fetch asks of its session.
pub(super) struct Wish {
    pub epoch: i32,
    pub added: Vec<SharedPlace>,
    pub forgotten: Vec<SharedPlace>,
    pub has_acknowledgements: bool,
}

impl ShareSessions {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all
            .lock()
            .expect("nothing panics while it holds the share sessions")
    }

    /// A connection that has come.
    pub fn connect(self: &Arc<ShareSessions>) -> Arc<ConnectionShares> {
        Arc::new(ConnectionShares {
            sessions: Arc::clone(self),
            id: self.connections.fetch_add(1, Relaxed),
        })
    }

    /// How many sessions there are, and of how many partitions.
    pub fn count(&self) -> (usize, usize) {
        let all = self.all();
        (all.by_key.len(), all.partitions)
    }
}

impl ConnectionShares {
    /// What a fetch does to its session before it fetches.
    pub fn begin(&self, key: &SessionKey, wish: Wish) -> Result<Begun, Misuse> {
        let mut all = self.sessions.all();
        match wish.epoch {
            EPOCH_FINAL if all.by_key.contains_key(key) => return Ok(Begun::Final),
            EPOCH_FINAL => return Err(Misuse::ShareSessionNotFound),
            EPOCH_INITIAL if wish.has_acknowledgements => {
                return Err(Misuse::Share(
                    "a session does not begin with acknowledgements",
                ));
            }
            EPOCH_INITIAL => all.begin(key, self.id)?,
            epoch => all.at(key, epoch)?,
        }
        let is_new = wish.epoch == EPOCH_INITIAL;
        if let Err(misuse) = all.change(key, &wish, is_new) {
            all.remove(key);
            return Err(misuse);
        }
        let session = all.by_key.get_mut(key).expect("it was just found");
        session.epoch = next_epoch(wish.epoch);
        let places = session.partitions.values().map(|kept| kept.place);
        Ok(Begun::Fetch(places.collect(), session.epoch))
    }

    /// What acknowledgements without a fetch do to their session; whether they end it.
    pub fn acknowledge(&self, key: &SessionKey, epoch: i32) -> Result<bool, Misuse> {
        let mut all = self.sessions.all();
        match epoch {
            EPOCH_INITIAL => return Err(Misuse::InvalidShareSessionEpoch),
            EPOCH_FINAL if all.by_key.contains_key(key) => return Ok(true),
            EPOCH_FINAL => return Err(Misuse::ShareSessionNotFound),
            epoch => all.at(key, epoch)?,
        }
        let session = all.by_key.get_mut(key).expect("it was just found");
        session.epoch = next_epoch(epoch);
        Ok(false)
    }

    /// Notes what was found; whether the client is to be told of each. Refused if another request has come meanwhile.
    pub fn note(&self, key: &SessionKey, epoch: i32, news: &[News]) -> Result<Vec<bool>, Misuse> {
        let mut all = self.sessions.all();
        let session = all.by_key.get_mut(key);
        let session = session.ok_or(Misuse::ShareSessionNotFound)?;
        if session.epoch != epoch {
            return Err(Misuse::InvalidShareSessionEpoch);
        }
        Ok(news.iter().map(|news| session.note(news)).collect())
    }

    /// Ends a session.
    pub fn end(&self, key: &SessionKey) {
        self.sessions.all().remove(key);
    }

    /// The connection has ended, and with it its sessions: releases what their members hold.
    pub async fn close(&self, broker: &Broker) {
        let keys = self.sessions.all().remove_of(self.id);
        if keys.is_empty() {
            return;
        }
        let door = broker.own_door(Protocol::Kafka);
        for SessionKey { group, member } in keys {
            let Ok(group) = door.group(&group, right::Read) else {
                continue;
            };
            if let Err(error) = group.release(&member).await {
                // They come back when they have been held for long enough.
                tracing::debug!(%error, group = group.id(), member, "what a member holds is not released");
            }
        }
    }
}

impl All {
    fn remove(&mut self, key: &SessionKey) {
        if let Some(session) = self.by_key.remove(key) {
            self.partitions -= session.partitions.len();
        }
    }

    fn remove_of(&mut self, connection: u64) -> Vec<SessionKey> {
        let of = self.by_key.iter();
        let of = of.filter(|(_, session)| session.connection == connection);
        let keys: Vec<SessionKey> = of.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.remove(key);
        }
        keys
    }

    fn begin(&mut self, key: &SessionKey, connection: u64) -> Result<(), Misuse> {
        self.remove(key);
        if self.by_key.len() >= SESSIONS_MAX {
            return Err(Misuse::ShareSessionLimit);
        }
        let session = Session {
            epoch: EPOCH_INITIAL,
            connection,
            partitions: BTreeMap::new(),
            turns: HashMap::new(),
            next_turn: 0,
        };
        self.by_key.insert(key.clone(), session);
        Ok(())
    }

    /// Finds a session, if it expects this epoch.
    fn at(&mut self, key: &SessionKey, epoch: i32) -> Result<(), Misuse> {
        let session = self.by_key.get(key).ok_or(Misuse::ShareSessionNotFound)?;
        match session.epoch == epoch {
            true => Ok(()),
            false => Err(Misuse::InvalidShareSessionEpoch),
        }
    }

    fn change(&mut self, key: &SessionKey, wish: &Wish, is_new: bool) -> Result<(), Misuse> {
        let session = self.by_key.get_mut(key).expect("it was just found");
        let before = session.partitions.len();
        for place in &wish.added {
            session.add(*place, !is_new);
        }
        for place in &wish.forgotten {
            if let Some(turn) = session.turns.remove(place) {
                session.partitions.remove(&turn);
            }
        }
        self.partitions = self.partitions - before + session.partitions.len();
        match self.partitions > PARTITIONS_MAX {
            true => Err(Misuse::ShareSessionLimit),
            false => Ok(()),
        }
    }
}

impl Session {
    fn add(&mut self, place: SharedPlace, must_tell: bool) {
        if !self.turns.contains_key(&place) {
            let turn = self.next_turn;
            self.next_turn += 1;
            self.turns.insert(place, turn);
            self.partitions.insert(turn, Kept { place, must_tell });
        }
    }

    fn note(&mut self, news: &News) -> bool {
        let Some(turn) = self.turns.get_mut(&news.place) else {
            return false;
        };
        let mut kept = self.partitions.remove(turn).expect("each turn is one's");
        let is_told = kept.must_tell || news.has_records || news.is_error;
        // When the trouble is over, the client is told that too.
        kept.must_tell = news.is_error;
        if news.has_records {
            *turn = self.next_turn;
            self.next_turn += 1;
        }
        self.partitions.insert(*turn, kept);
        is_told
    }
}

/// Epochs go from 1 on, and begin again with 1.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(member: &str) -> SessionKey {
        SessionKey {
            group: "g".into(),
            member: member.into(),
        }
    }

    fn place(number: i32) -> SharedPlace {
        (Uuid::from_u128(7), number)
    }

    fn wish(epoch: i32, added: &[i32], forgotten: &[i32]) -> Wish {
        Wish {
            epoch,
            added: added.iter().copied().map(place).collect(),
            forgotten: forgotten.iter().copied().map(place).collect(),
            has_acknowledgements: false,
        }
    }

    fn fetch(places: &[i32], epoch: i32) -> Begun {
        Begun::Fetch(places.iter().copied().map(place).collect(), epoch)
    }

    #[test]
    fn a_session_goes_on_epoch_by_epoch_and_remembers_its_partitions() {
        let sessions = Arc::<ShareSessions>::default();
        let connection = sessions.connect();
        let begin = |wish| connection.begin(&key("a"), wish);
        assert_eq!(
            begin(wish(1, &[0], &[])).unwrap_err().code(),
            Misuse::ShareSessionNotFound.code()
        );
        assert_eq!(begin(wish(0, &[0, 1], &[])).unwrap(), fetch(&[0, 1], 1));
        assert_eq!(begin(wish(1, &[2], &[0])).unwrap(), fetch(&[1, 2], 2));
        for epoch in [1, 3] {
            let refused = begin(wish(epoch, &[], &[])).unwrap_err();
            assert_eq!(refused.code(), Misuse::InvalidShareSessionEpoch.code());
        }
        assert!(!connection.acknowledge(&key("a"), 2).unwrap());
        let refused = connection.acknowledge(&key("a"), 0).unwrap_err();
        assert_eq!(refused.code(), Misuse::InvalidShareSessionEpoch.code());
        assert_eq!(sessions.count(), (1, 2));
        assert_eq!(begin(wish(EPOCH_FINAL, &[], &[])).unwrap(), Begun::Final);
        connection.end(&key("a"));
        assert_eq!(sessions.count(), (0, 0));
        let mut early = wish(0, &[0], &[]);
        early.has_acknowledgements = true;
        assert!(begin(early).is_err());
    }

    #[test]
    fn who_was_given_records_goes_to_the_end_and_new_partitions_and_errors_are_told() {
        let sessions = Arc::<ShareSessions>::default();
        let connection = sessions.connect();
        let news = |number, has_records, is_error| News {
            place: place(number),
            has_records,
            is_error,
        };
        connection.begin(&key("a"), wish(0, &[0, 1], &[])).unwrap();
        let told = connection.note(&key("a"), 1, &[news(0, true, false), news(1, false, true)]);
        assert_eq!(told.unwrap(), [true, true]);
        let next = connection.begin(&key("a"), wish(1, &[2], &[])).unwrap();
        assert_eq!(next, fetch(&[1, 0, 2], 2));
        let quiet = [0, 1, 2].map(|number| news(number, false, false));
        let told = connection.note(&key("a"), 2, &quiet).unwrap();
        assert_eq!(
            told,
            [false, true, true],
            "its trouble is over, and it is new"
        );
        assert!(connection.note(&key("a"), 1, &quiet).is_err());
    }

    #[test]
    fn sessions_are_bounded_and_end_with_their_connection() {
        let sessions = Arc::<ShareSessions>::default();
        let (one, other) = (sessions.connect(), sessions.connect());
        for number in 0..SESSIONS_MAX {
            let by = if number % 2 == 0 { &one } else { &other };
            by.begin(&key(&number.to_string()), wish(0, &[0], &[]))
                .unwrap();
        }
        let refused = one.begin(&key("more"), wish(0, &[0], &[])).unwrap_err();
        assert_eq!(refused.code(), Misuse::ShareSessionLimit.code());
        one.begin(&key("0"), wish(0, &[1], &[]))
            .expect("its own place");
        assert_eq!(sessions.all().remove_of(one.id).len(), SESSIONS_MAX / 2);
        assert_eq!(sessions.count(), (SESSIONS_MAX / 2, SESSIONS_MAX / 2));
        let many: Vec<i32> = (0..i32::try_from(PARTITIONS_MAX).unwrap()).collect();
        assert!(one.begin(&key("large"), wish(0, &many, &[])).is_err());
        assert_eq!(sessions.count(), (SESSIONS_MAX / 2, SESSIONS_MAX / 2));
    }
}
