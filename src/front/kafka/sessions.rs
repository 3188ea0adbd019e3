//! Fetch sessions (KIP-227): what a client fetches again and again is remembered, so that a request names only what changed, and
//! an answer only what is new.
//!
//! Callers: the Fetch API. A full fetch with epoch 0 gets a session if there is a place for it; the session's id is random, so
//! that nobody comes by it by guessing. Each incremental fetch carries the next epoch: one that comes out of turn is refused,
//! and the client begins anew with a full fetch. Between its fetches a session also keeps which partitions are idle and
//! watched, so that the next one takes locks only for those in which something happened.
//! Invariants: no more than [`SLOTS_MAX`] sessions and [`PARTITIONS_MAX`] partitions of all of them are kept; a session names its
//! topics by id or by name for all of its life. Lock order: a session, then the slots.
//! Source: `FetchSession.scala` of Kafka 3.9, by its behaviour.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::{Offset, PartitionId};
use tokio::time::Instant;
use uuid::Uuid;
use wire::messages::fetch::{FetchPartition, FetchRequest, PartitionData};

use super::errors::Misuse;
use crate::broker::access::{Granted, right};
use crate::broker::open_readers::{OpenReader, ReaderName};
use crate::broker::{Idle, Topic, Watch};

/// Sessions that are kept: Kafka's default of `max.incremental.fetch.session.cache.slots`. Who gets none fetches in full, which
/// costs time and loses nothing.
const SLOTS_MAX: usize = 1000;
/// Partitions of all sessions together, some 200 bytes each.
const PARTITIONS_MAX: usize = 1 << 18;
/// A session that was not used for so long makes room for any other one; one that has been there for so long, for a larger one.
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// The epoch of a full fetch that asks for a session.
const EPOCH_INITIAL: i32 = 0;
/// The epoch of a full fetch that asks for none.
const EPOCH_FINAL: i32 = -1;
/// The id that stands for no session.
const NO_SESSION: i32 = 0;
/// From this version on topics are named by id.
pub(super) const VERSION_TOPIC_IDS: i16 = 13;

/// A topic as the client names it: by name, or by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct TopicName {
    pub name: String,
    pub id: Uuid,
}

/// A partition of a fetch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub topic: Arc<TopicName>,
    pub partition: i32,
}

/// A topic that may be read.
pub(super) type ReadTopic = Granted<Arc<Topic>, right::Read>;

/// A partition as it is asked for now.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub key: Key,
    pub wanted: FetchPartition,
    /// Where nothing had happened when the session's last fetch looked, and of which topic that is.
    pub idle: Option<(ReadTopic, Idle)>,
}

/// What a fetch found in a partition, as the client would be told.
pub(super) struct Found {
    pub asked: Asked,
    /// None if nothing has happened in it.
    pub data: Option<PartitionData>,
    pub idle: Option<(ReadTopic, Idle)>,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_id: HashMap<i32, Slot>,
    /// Of all sessions.
    partitions: usize,
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    created_at: Instant,
    used_at: Instant,
    partitions: usize,
}

/// What one client fetches.
#[derive(Debug)]
struct Session {
    /// Whose it is.
    reader: Option<ReaderName>,
    uses_ids: bool,
    /// The epoch of its next fetch.
    epoch: i32,
    /// In the order in which the limits of a fetch are spent: who was given records goes to the end.
    partitions: BTreeMap<u64, Kept>,
    turns: HashMap<Key, u64>,
    next_turn: u64,
    watch: Watch,
}

/// A partition of a session.
#[derive(Debug)]
struct Kept {
    asked: Asked,
    /// What the client was told last; -1 if it is to be told again.
    high_watermark: i64,
    log_start_offset: i64,
}

/// How a fetch goes on.
#[derive(Debug)]
pub(super) enum Begun {
    /// In full, without a session.
    Sessionless,
    /// In full, for a session.
    New(Watch),
    /// In a session.
    Next(Next),
}

/// An incremental fetch under way.
#[derive(Debug)]
pub(super) struct Next {
    pub id: i32,
    /// The epoch of the fetch that follows.
    epoch: i32,
    pub watch: Watch,
    session: Arc<Mutex<Session>>,
}

impl Sessions {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots
            .lock()
            .expect("nothing panics while it holds the slots")
    }

    /// What a request does to the sessions before it fetches.
    pub fn begin(
        &self,
        request: &FetchRequest,
        version: i16,
        now: Instant,
    ) -> Result<Begun, Misuse> {
        let id = request.session_id;
        if [EPOCH_INITIAL, EPOCH_FINAL].contains(&request.session_epoch) {
            // A full fetch ends the session that it names.
            self.slots().remove(id);
            return Ok(match request.session_epoch {
                EPOCH_FINAL => Begun::Sessionless,
                _ => Begun::New(Watch::default()),
            });
        }
        let session = self
            .slots()
            .find(id)
            .ok_or(Misuse::FetchSessionIdNotFound)?;
        let mut state = locked(&session);
        if state.epoch != request.session_epoch {
            return Err(Misuse::InvalidFetchSessionEpoch);
        }
        if state.uses_ids != (version >= VERSION_TOPIC_IDS) {
            return Err(Misuse::FetchSessionTopicId);
        }
        state.change(request);
        if state.partitions.is_empty() {
            self.slots().remove(id);
            return Ok(Begun::Sessionless);
        }
        state.epoch = next_epoch(state.epoch);
        let (epoch, partitions) = (state.epoch, state.partitions.len());
        let watch = state.watch.clone();
        drop(state);
        if !self.slots().touch(id, partitions, now) {
            return Err(Misuse::FetchSessionIdNotFound);
        }
        Ok(Begun::Next(Next {
            id,
            epoch,
            watch,
            session,
        }))
    }

    /// Makes a session of what a full fetch has found; its id, or 0 if there is no place for it.
    pub fn create(&self, version: i16, watch: Watch, found: &[Found], now: Instant) -> i32 {
        let mut slots = self.slots();
        if found.is_empty() || !slots.make_room(found.len(), now) {
            return NO_SESSION;
        }
        let mut session = Session {
            reader: None,
            uses_ids: version >= VERSION_TOPIC_IDS,
            epoch: next_epoch(EPOCH_INITIAL),
            partitions: BTreeMap::new(),
            turns: HashMap::new(),
            next_turn: 0,
            watch,
        };
        for found in found {
            let kept = session.add(found.asked.clone());
            kept.asked.idle.clone_from(&found.idle);
            if let Some(data) = &found.data {
                kept.note(data);
            }
        }
        slots.add(session, now)
    }
}

impl Sessions {
    /// Says whose a session is.
    pub fn name(&self, id: i32, reader: ReaderName) {
        let session = self.slots().find(id);
        if let Some(session) = session {
            locked(&session).reader = Some(reader);
        }
    }

    /// Who fetches a partition of a topic: of the sessions that were used not long ago, whose clients may be there still. Never waits
    /// for the disk.
    pub fn reading(&self, topic: &Topic, partition: PartitionId, now: Instant) -> Vec<OpenReader> {
        let sessions: Vec<Arc<Mutex<Session>>> = {
            let slots = self.slots();
            let is_used =
                |slot: &&Slot| now.saturating_duration_since(slot.used_at) <= EVICTION_AGE;
            let used = slots.by_id.values().filter(is_used);
            used.map(|slot| Arc::clone(&slot.session)).collect()
        };
        let names = [
            TopicName {
                name: topic.name.as_str().to_owned(),
                id: Uuid::nil(),
            },
            TopicName {
                name: String::new(),
                id: topic.id.as_uuid(),
            },
        ];
        let Ok(partition) = i32::try_from(partition.get()) else {
            return Vec::new();
        };
        let keys = names.map(|name| Key {
            topic: Arc::new(name),
            partition,
        });
        let reading = |session: Arc<Mutex<Session>>| {
            let session = locked(&session);
            let turn = keys.iter().find_map(|key| session.turns.get(key))?;
            let wanted = &session.partitions.get(turn)?.asked.wanted;
            let next = Offset::from_wire(wanted.fetch_offset)?;
            Some(session.reader.as_ref()?.at(next))
        };
        sessions.into_iter().filter_map(reading).collect()
    }
}

impl Next {
    /// All that the session fetches, in its order.
    pub fn asked(&self) -> Vec<Asked> {
        let session = locked(&self.session);
        let kept = session.partitions.values();
        kept.map(|kept| kept.asked.clone()).collect()
    }

    /// What of an answer is new to the client. Refused if another fetch has begun meanwhile.
    pub fn finish(&self, found: Vec<Found>) -> Result<Vec<Found>, Misuse> {
        let mut session = locked(&self.session);
        if session.epoch != self.epoch {
            return Err(Misuse::InvalidFetchSessionEpoch);
        }
        let mut news = Vec::new();
        for found in found {
            if session.note(&found) {
                news.push(found);
            }
        }
        Ok(news)
    }
}

impl Session {
    /// What a request adds, changes and forgets.
    fn change(&mut self, request: &FetchRequest) {
        for asked in asked_of(request) {
            let Some(turn) = self.turns.get(&asked.key) else {
                self.add(asked);
                continue;
            };
            let kept = self.partitions.get_mut(turn).expect("each turn is one's");
            if kept.asked.wanted != asked.wanted {
                kept.asked = asked;
            }
        }
        for topic in &request.forgotten_topics_data {
            let name = Arc::new(TopicName {
                name: topic.topic.clone(),
                id: topic.topic_id,
            });
            for partition in &topic.partitions {
                let key = Key {
                    topic: Arc::clone(&name),
                    partition: *partition,
                };
                if let Some(turn) = self.turns.remove(&key) {
                    self.partitions.remove(&turn);
                }
            }
        }
    }

    fn add(&mut self, asked: Asked) -> &mut Kept {
        let turn = self.next_turn;
        self.next_turn += 1;
        if let Some(earlier) = self.turns.insert(asked.key.clone(), turn) {
            // Named twice: the last one counts.
            self.partitions.remove(&earlier);
        }
        self.partitions.entry(turn).or_insert(Kept {
            asked,
            high_watermark: -1,
            log_start_offset: -1,
        })
    }

    /// Notes what was found; true if the client is to be told.
    fn note(&mut self, found: &Found) -> bool {
        let Some(turn) = self.turns.get_mut(&found.asked.key) else {
            return false;
        };
        let Some(data) = &found.data else {
            return false;
        };
        let mut kept = self.partitions.remove(turn).expect("each turn is one's");
        kept.asked.idle.clone_from(&found.idle);
        let is_news = kept.note(data);
        if has_records(data) {
            *turn = self.next_turn;
            self.next_turn += 1;
        }
        self.partitions.insert(*turn, kept);
        is_news
    }
}

impl Kept {
    /// Notes what the client is told; true if it is new to it. Errors, and a log that has diverged, are told every time.
    fn note(&mut self, data: &PartitionData) -> bool {
        let is_trouble = data.error_code != 0 || data.diverging_epoch.epoch >= 0;
        let is_news = is_trouble
            || has_records(data)
            || data.high_watermark != self.high_watermark
            || data.log_start_offset != self.log_start_offset;
        // When the trouble is over, the client is told that too.
        self.high_watermark = if is_trouble { -1 } else { data.high_watermark };
        self.log_start_offset = data.log_start_offset;
        is_news
    }
}

impl Slots {
    fn find(&self, id: i32) -> Option<Arc<Mutex<Session>>> {
        self.by_id.get(&id).map(|slot| Arc::clone(&slot.session))
    }

    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.by_id.remove(&id) {
            self.partitions -= slot.partitions;
        }
    }

    /// A session is used, and has so many partitions now. False if it is gone, or has become too large to be kept.
    fn touch(&mut self, id: i32, partitions: usize, now: Instant) -> bool {
        let Some(slot) = self.by_id.get_mut(&id) else {
            return false;
        };
        slot.used_at = now;
        self.partitions = self.partitions - slot.partitions + partitions;
        slot.partitions = partitions;
        if self.partitions > PARTITIONS_MAX {
            self.remove(id);
            return false;
        }
        true
    }

    /// Whether there is a place for a session of this size: a free one, that of a session that is not used any more, or that of
    /// a smaller one that has had its time.
    fn make_room(&mut self, partitions: usize, now: Instant) -> bool {
        while self.by_id.len() >= SLOTS_MAX || self.partitions + partitions > PARTITIONS_MAX {
            let Some(id) = self.evictable(partitions, now) else {
                return false;
            };
            self.remove(id);
        }
        true
    }

    fn evictable(&self, partitions: usize, now: Instant) -> Option<i32> {
        let is_old = |since: Instant| now.saturating_duration_since(since) > EVICTION_AGE;
        let unused = self.by_id.iter().min_by_key(|(_, slot)| slot.used_at);
        if let Some((id, _)) = unused.filter(|(_, slot)| is_old(slot.used_at)) {
            return Some(*id);
        }
        let had_its_time = self
            .by_id
            .iter()
            .filter(|(_, slot)| is_old(slot.created_at));
        let smallest = had_its_time.min_by_key(|(_, slot)| (slot.partitions, slot.used_at));
        let (id, _) = smallest.filter(|(_, slot)| slot.partitions < partitions)?;
        Some(*id)
    }

    fn add(&mut self, session: Session, now: Instant) -> i32 {
        let id = loop {
            let [.., a, b, c, d] = Uuid::new_v4().into_bytes();
            let id = i32::from_be_bytes([a & 0x7f, b, c, d]);
            if id != NO_SESSION && !self.by_id.contains_key(&id) {
                break id;
            }
        };
        let partitions = session.partitions.len();
        self.partitions += partitions;
        let slot = Slot {
            session: Arc::new(Mutex::new(session)),
            created_at: now,
            used_at: now,
            partitions,
        };
        self.by_id.insert(id, slot);
        assert!(self.by_id.len() <= SLOTS_MAX, "room was made for it");
        id
    }
}

/// What a request names, in its order.
pub(super) fn asked_of(request: &FetchRequest) -> impl Iterator<Item = Asked> + '_ {
    request.topics.iter().flat_map(|topic| {
        let name = Arc::new(TopicName {
            name: topic.topic.clone(),
            id: topic.topic_id,
        });
        topic.partitions.iter().map(move |wanted| Asked {
            key: Key {
                topic: Arc::clone(&name),
                partition: wanted.partition,
            },
            wanted: wanted.clone(),
            idle: None,
        })
    })
}

fn locked(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session
        .lock()
        .expect("nothing panics while it holds a session")
}

fn has_records(data: &PartitionData) -> bool {
    data.records
        .as_ref()
        .is_some_and(|records| !records.is_empty())
}

/// Epochs go from 1 on, and begin again with 1.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests;
