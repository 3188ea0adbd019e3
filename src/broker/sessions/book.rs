//! The sessions in memory: each as its records say, and who is connected. Callers: `sessions`. Pure.
//! Invariant: of one client one connection holds the session at a time; the next one waits for it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use tokio::sync::Notify;

use super::positions::Positions;
use super::progress::{Progress, low};
use super::record::{Cursor, KeptSession, Sending, SessionKey, SessionRecord};
use super::timetable::{Timetable, When};
use crate::broker::access::Accounts;
use crate::broker::allowance::{Allowance, Holdings, Limit};
use crate::broker::groups;

/// What filters begin with whose subscriptions share messages.
pub const SHARED: &str = "$share/";
/// What an entry takes beside what is kept of it, about.
const OVERHEAD_BYTES: u64 = 512;
/// What an identifier takes that was received.
const RECEIVED_BYTES: u64 = 16;

/// All of a session.
#[derive(Clone, Debug, Default)]
pub struct SessionState {
    /// The session; None if nothing of it is kept.
    pub session: Option<Arc<KeptSession>>,
    /// Identifiers of messages that it sent exactly once and has not released.
    pub received: BTreeSet<u16>,
    /// What it is being sent.
    pub sending: Arc<Sending>,
    /// How far it is.
    pub cursor: Arc<Cursor>,
    /// Whether it was connected when the server was killed.
    pub was_cut: bool,
}

#[derive(Default)]
pub(super) struct Entry {
    pub state: SessionState,
    pub holder: Option<Holder>,
    /// Told when the holder leaves; None if nobody has waited for that.
    left: Option<Arc<Notify>>,
    /// As it stands in the timetable.
    when: When,
    /// What the parts of its state take.
    session_bytes: u64,
    place_bytes: u64,
    sending_bytes: u64,
    /// As it is counted.
    counted: Counted,
}

/// What is counted of an entry. It stands in each of them, and is no longer than it has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    /// Whether a session is kept.
    sessions: u32,
    /// As many as can be counted, which no session comes near: its parts are records of a frame at most.
    bytes: u32,
}

impl Entry {
    fn takes(&self, key: &SessionKey, is_empty: bool) -> Counted {
        let received = self.state.received.len() as u64 * RECEIVED_BYTES;
        let parts = self.session_bytes + self.place_bytes + self.sending_bytes + received;
        let bytes = match is_empty || parts == 0 {
            true => 0,
            false => OVERHEAD_BYTES + key.bytes() + parts,
        };
        Counted {
            sessions: self.state.session.is_some().into(),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }
}

/// How a session is to be from now on, as far as something of it is to be another.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    pub session: Option<&'a KeptSession>,
    pub cursor: Option<&'a Cursor>,
    pub sending: Option<&'a Sending>,
    /// Further identifiers.
    pub received: u64,
}

pub(super) struct Holder {
    pub number: u64,
    pub progress: Arc<Progress>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Book {
    pub entries: HashMap<Arc<SessionKey>, Box<Entry>>,
    /// Who holds sessions, by their numbers.
    holders: BTreeMap<u64, Arc<SessionKey>>,
    /// What most sessions are sent, and where those are that have read nothing.
    nothing: (Arc<Sending>, Arc<Cursor>),
    /// Sessions that nobody holds and that are with the mark still: their connections were killed.
    left_with_mark: HashSet<SessionKey>,
    /// As it was written last: who is with it has come so far at least.
    pub mark: Positions,
    /// How many are kept, and what all take.
    count: Holdings,
    bytes: Holdings,
    /// On whose accounts they are: client ids are each user's own, so that none goes from one to another.
    accounts: Accounts,
    /// How many sessions have each of the subscriptions that share messages.
    pub shared: HashMap<Arc<str>, usize>,
    timetable: Timetable,
    next_number: u64,
}

/// A session as a look found it, before a mark is written.
pub(super) struct Looked {
    key: SessionKey,
    number: Option<u64>,
    progress: Option<Arc<Progress>>,
    before: Arc<Cursor>,
}

/// A cursor that is to be written, and what it is for.
pub(super) struct Moved {
    pub key: SessionKey,
    number: Option<u64>,
    before: Arc<Cursor>,
    pub cursor: Arc<Cursor>,
}

impl Looked {
    /// The cursor that is to be written before this mark may be, behind the `last` one. It asks the session's connection, whose locks
    /// are others than the book's.
    pub fn moved(self, mark: &Positions, last: &Positions) -> Option<Moved> {
        let before = &self.before;
        let cursor = match self.progress.and_then(|progress| progress.cursor()) {
            // Nobody tells its place, and no mark may pass it: its connection was killed, or has not begun to tell.
            None if before.keeps_up => Cursor {
                keeps_up: false,
                ..with_mark(before, last)
            },
            None => return None,
            Some(now) => {
                let low = low(&now);
                // The last mark holds until this one is written, and for as long as this one names nothing.
                let keeps_up = [mark, last].iter().all(|it| low.reaches(it))
                    && now.unacked.iter().all(|(_, place)| low.has(place.topic));
                match (before.keeps_up, keeps_up) {
                    (true, true) => return None,
                    // Who reads nothing needs no mark.
                    (false, true) if !low.is_empty() => Cursor {
                        keeps_up: true,
                        read: low.sharing(mark),
                        unacked: Vec::new(),
                    },
                    _ => now,
                }
            }
        };
        (cursor != **before).then(|| Moved {
            key: self.key,
            number: self.number,
            before: self.before,
            cursor: Arc::new(cursor),
        })
    }
}

/// The subscriptions of a session that share messages.
fn shared(session: &KeptSession) -> impl Iterator<Item = &Arc<str>> {
    let filters = session.subscriptions.iter().map(|it| &it.filter);
    filters.filter(|filter| filter.starts_with(SHARED))
}

/// A cursor that is with the mark, as far as that has come.
fn with_mark(cursor: &Cursor, mark: &Positions) -> Cursor {
    let mut cursor = Cursor::clone(cursor);
    cursor.read.advance(mark);
    cursor
}

/// One of which nothing is kept.
fn new_entry((sending, cursor): &(Arc<Sending>, Arc<Cursor>)) -> Box<Entry> {
    Box::new(Entry {
        state: SessionState {
            sending: Arc::clone(sending),
            cursor: Arc::clone(cursor),
            ..SessionState::default()
        },
        ..Entry::default()
    })
}

impl Book {
    /// None yet.
    pub fn new(accounts: Accounts) -> Book {
        Book {
            accounts,
            ..Book::default()
        }
    }

    /// Bounds how many are kept, and what they take.
    pub fn allow(&mut self, count: Allowance, bytes: Allowance) {
        self.count.allow(count);
        self.bytes.allow(bytes);
    }

    /// How many are kept.
    pub fn kept(&self) -> u64 {
        self.count.held()
    }

    /// The bounds, and what is held.
    pub fn bounds(&self, has_accounts: bool) -> Vec<groups::Bound> {
        let mut bounds = self.count.bounds(has_accounts);
        bounds.extend(self.bytes.bounds(has_accounts));
        bounds
    }

    /// Whether a session may be kept like this.
    pub fn check(&mut self, key: &SessionKey, wanted: Wanted<'_>) -> Result<(), Limit> {
        let owner = self.accounts.of(&key.owner);
        let nothing = Entry::default();
        let entry = self.entries.get(key).map_or(&nothing, |entry| &**entry);
        let part = |new: Option<u64>, old: u64| new.unwrap_or(old);
        let parts = part(wanted.session.map(KeptSession::bytes), entry.session_bytes)
            + part(wanted.cursor.map(Cursor::bytes), entry.place_bytes)
            + part(wanted.sending.map(Sending::bytes), entry.sending_bytes);
        let received = entry.state.received.len() as u64 + wanted.received;
        let bytes = OVERHEAD_BYTES + key.bytes() + parts + received * RECEIVED_BYTES;
        let is_kept = wanted.session.is_some() || entry.state.session.is_some();
        let before = entry.counted;
        let of = |value: u32| (owner, u64::from(value));
        self.count.check(of(before.sessions), of(is_kept.into()))?;
        self.bytes.check(of(before.bytes), (owner, bytes))
    }

    /// What a record says holds from now on.
    pub fn apply(&mut self, record: &SessionRecord) {
        match record {
            SessionRecord::Mark(mark) => self.mark = mark.clone(),
            SessionRecord::Session(key, session) => {
                let entry = self.entry(key);
                let before = std::mem::replace(&mut entry.state.session, session.clone());
                entry.state.was_cut = false;
                entry.session_bytes = session.as_deref().map_or(0, KeptSession::bytes);
                self.count_shared(before.as_deref(), session.as_deref());
                self.changed(key);
            }
            SessionRecord::Received(key, id, is_received) => {
                let received = &mut self.entry(key).state.received;
                match is_received {
                    true => received.insert(*id),
                    false => received.remove(id),
                };
                self.changed(key);
            }
            SessionRecord::Sending(key, sending) => {
                let sending = sending.as_ref().unwrap_or(&self.nothing.0);
                let sending = Arc::clone(sending);
                let entry = self.entry(key);
                entry.state.sending = sending;
                entry.sending_bytes = entry.state.sending.bytes();
                self.changed(key);
            }
            SessionRecord::Cursor(key, cursor) => {
                let cursor = cursor.as_ref().unwrap_or(&self.nothing.1);
                let cursor = Arc::clone(cursor);
                let entry = self.entry(key);
                entry.state.cursor = cursor;
                entry.place_bytes = entry.state.cursor.bytes();
                match entry.holder.is_none() && entry.state.cursor.keeps_up {
                    true => self.left_with_mark.insert(key.clone()),
                    false => self.left_with_mark.remove(key),
                };
                self.changed(key);
            }
        }
    }

    fn count_shared(&mut self, before: Option<&KeptSession>, now: Option<&KeptSession>) {
        // Those that stay are there all the time.
        for filter in now.into_iter().flat_map(shared) {
            *self.shared.entry(Arc::clone(filter)).or_default() += 1;
        }
        for filter in before.into_iter().flat_map(shared) {
            if let Some(count) = self.shared.get_mut(filter) {
                *count -= 1;
                if *count == 0 {
                    self.shared.remove(filter);
                }
            }
        }
    }

    fn entry(&mut self, key: &SessionKey) -> &mut Entry {
        if !self.entries.contains_key(key) {
            let entry = new_entry(&self.nothing);
            self.entries.insert(Arc::new(key.clone()), entry);
        }
        self.entries.get_mut(key).expect("it was put there")
    }

    /// Something of an entry has changed: it has another time, or is none any more.
    fn changed(&mut self, key: &SessionKey) {
        let is_empty = |entry: &Entry| {
            let state = &entry.state;
            entry.holder.is_none()
                && state.session.is_none()
                && state.received.is_empty()
                && *state.sending == Sending::default()
                && *state.cursor == Cursor::default()
        };
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let now = match &entry.holder {
            _ if is_empty(entry) => When::Never,
            Some(_) => When::Never,
            None => When::of(entry.state.session.as_deref(), entry.state.was_cut),
        };
        let before = std::mem::replace(&mut entry.when, now);
        self.timetable.change(key, before, now);
        let now = entry.takes(key, is_empty(entry));
        let before = std::mem::replace(&mut entry.counted, now);
        let owner = self.accounts.of(&key.owner);
        let of = |value: u32| (owner, u64::from(value));
        self.count.change(of(before.sessions), of(now.sessions));
        self.bytes.change(of(before.bytes), of(now.bytes));
        if is_empty(entry) {
            self.entries.remove(key);
        }
    }

    /// Holds a session, or tells what to wait for.
    pub fn hold(&mut self, key: &Arc<SessionKey>) -> Result<(u64, Arc<Progress>), Arc<Notify>> {
        let number = self.next_number;
        let entry = self.entries.entry(Arc::clone(key));
        let entry = entry.or_insert_with(|| new_entry(&self.nothing));
        if entry.holder.is_some() {
            return Err(Arc::clone(entry.left.get_or_insert_default()));
        }
        self.next_number += 1;
        self.holders.insert(number, Arc::clone(key));
        self.left_with_mark.remove(&**key);
        let progress = Arc::new(Progress::default());
        entry.holder = Some(Holder {
            number,
            progress: Arc::clone(&progress),
        });
        self.changed(key);
        Ok((number, progress))
    }

    /// Whether somebody holds a session whose end is told there.
    pub fn tells(&self, key: &SessionKey, left: &Arc<Notify>) -> bool {
        self.entries.get(key).is_some_and(|entry| {
            let tells = entry.left.as_ref().is_some_and(|it| Arc::ptr_eq(it, left));
            entry.holder.is_some() && tells
        })
    }

    /// Ends a hold.
    pub fn leave(&mut self, key: &SessionKey, number: u64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.holder.as_ref().is_some_and(|it| it.number == number) {
            entry.holder = None;
            if let Some(left) = &entry.left {
                left.notify_waiters();
            }
            if entry.state.cursor.keeps_up {
                self.left_with_mark.insert(key.clone());
            }
            self.holders.remove(&number);
            self.changed(key);
        }
    }

    /// All of a session, and how far it is if it is with the mark.
    pub fn state(&self, key: &SessionKey) -> Option<SessionState> {
        let mut state = self.entries.get(key)?.state.clone();
        if state.cursor.keeps_up {
            state.cursor = Arc::new(with_mark(&state.cursor, &self.mark));
        }
        Some(state)
    }

    /// Looks at a session that has a place to be kept.
    pub fn look_at(&self, key: &SessionKey) -> Option<Looked> {
        let entry = self.entries.get(key)?;
        let session = entry.state.session.as_ref();
        // One without a time ends with its connection, and is kept for its will.
        session.filter(|session| session.expiry_seconds > 0)?;
        let holder = entry.holder.as_ref();
        Some(Looked {
            key: key.clone(),
            number: holder.map(|it| it.number),
            progress: holder.map(|it| Arc::clone(&it.progress)),
            before: Arc::clone(&entry.state.cursor),
        })
    }

    /// Looks at sessions that are with the mark and that nobody holds.
    pub fn look_at_left(&self) -> Vec<Looked> {
        let left = self.left_with_mark.iter();
        left.filter_map(|key| self.look_at(key)).collect()
    }

    /// Looks at so many of those that are held, behind a holder's number; and gives the number of the last, if there may be more.
    pub fn look(&self, behind: Option<u64>, count_max: usize) -> (Vec<Looked>, Option<u64>) {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let held = self.holders.range((from, Bound::Unbounded));
        let mut last = None;
        let held = held.take(count_max).inspect(|it| last = Some(*it.0));
        let looked = held.filter_map(|(_, key)| self.look_at(key)).collect();
        (looked, last)
    }

    /// Where so many of those that are held note how far they are; as [`Book::look`].
    pub fn progress(
        &self,
        behind: Option<u64>,
        count_max: usize,
    ) -> (Vec<Arc<Progress>>, Option<u64>) {
        let (looked, last) = self.look(behind, count_max);
        let all = looked.into_iter().filter_map(|it| it.progress);
        (all.collect(), last)
    }

    /// Whether nothing else has happened to a session since.
    pub fn is_still(&self, moved: &Moved) -> bool {
        self.entries.get(&moved.key).is_some_and(|entry| {
            entry.state.session.is_some()
                && entry.holder.as_ref().map(|it| it.number) == moved.number
                && Arc::ptr_eq(&entry.state.cursor, &moved.before)
        })
    }

    /// Sessions that keep up are as far as the mark; what was connected was cut.
    pub fn opened(&mut self) {
        let mark = std::mem::take(&mut self.mark);
        for entry in self.entries.values_mut() {
            let state = &mut entry.state;
            if state.cursor.keeps_up {
                let mut cursor = Cursor::clone(&state.cursor);
                cursor.read.advance(&mark);
                state.cursor = Arc::new(cursor);
                entry.place_bytes = entry.state.cursor.bytes();
            }
            let state = &mut entry.state;
            state.was_cut = state
                .session
                .as_ref()
                .is_some_and(|it| it.ended_at.is_none());
        }
        self.mark = mark;
        let all: Vec<Arc<SessionKey>> = self.entries.keys().cloned().collect();
        all.iter().for_each(|key| self.changed(key));
    }

    /// Sessions that nobody holds and of which something is due, in a server that was started at some time, now.
    pub fn due(&self, (started, now): (Timestamp, Timestamp), grace: Duration) -> Vec<SessionKey> {
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let is_grace_over = started.plus_millis(grace_ms) <= now;
        self.timetable.due(now, is_grace_over).cloned().collect()
    }
}
