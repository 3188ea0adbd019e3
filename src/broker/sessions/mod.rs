//! Sessions: what a client of a messaging protocol has while it is not connected.
//!
//! Callers: fronts whose protocols know sessions. A session is a set of cursors in logs, and no queue: its subscriptions, how far it has
//! read, which messages it was sent and has not acknowledged, which it sends exactly once. All of it is in the state log `sessions`,
//! durable when a call returns. A connected session that keeps up costs nothing: once a second one record, the mark, says how far all
//! of them have come that keep up; who falls behind has its own cursor written before. Invariants: of one client one connection holds
//! the session; the book changes in the order of the log; no cursor and no mark passes what was not acknowledged.

mod book;
mod further;
mod positions;
mod progress;
mod publish;
mod record;
#[cfg(test)]
mod tests;
mod timetable;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::{Offset, Timestamp};
use storage::{Clock, Purpose, Storage};
use tokio::sync::{Notify, watch};

use super::access::Accounts;
use super::allowance::{Allowance, Limit};
use super::groups::Bound;
use super::state_log::{Change, StateLog, StateLogError, StateRecord as _, change_bytes};
use super::{Broker, Refusal, state_refusal};
use book::{Book, Looked, Moved, Wanted};
pub use book::{SHARED, SessionState};
pub use positions::Positions;
pub use progress::{Progress, Reading};
pub use record::{
    Cursor, KeptSession, KeptSubscription, KeptWill, Pending, Sending, SessionKey, SessionRecord,
    UnknownSession, read_again,
};

/// How often the mark is written, if somebody has moved.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// Sessions that are looked at under the lock.
const LOOKED_AT_ONCE: usize = 1_000;
/// The longest record of a session: its subscriptions and its will.
const SESSION_BYTES_MAX: usize = 256 << 10;

/// Why they cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum SessionsError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownSession),
}

/// Why a session is not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionRefusal {
    /// As many are kept as may be, or they take as much as they may: all of them, or those of its owner.
    #[error("as much is kept of sessions as may be: {0}")]
    TooMany(#[from] Limit),
    /// What it subscribes to is too long.
    #[error("the session takes {bytes} bytes, and {bytes_max} are kept at most")]
    TooLong {
        /// With everything that it subscribes to.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The store takes nothing now.
    #[error(transparent)]
    Refused(Arc<Refusal>),
    /// The server stops.
    #[error("the server stops")]
    Abandoned,
}

/// All sessions.
pub(super) struct Sessions {
    log: StateLog<SessionRecord>,
    /// Held while changes are appended, so that the book changes in the order of the log.
    book: Mutex<Book>,
    clock: Arc<dyn Clock>,
    started: Timestamp,
}

/// What has come to its time of a session that is not connected. One that was connected when the server was killed counts from the
/// start, and has some grace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The session ends.
    pub session: bool,
    /// Its will goes.
    pub will: bool,
    /// Its connection has ended then, and nobody has kept that: it was cut with its server, or ended before it began.
    pub ended_at: Option<Timestamp>,
}

impl Due {
    /// What is due of a session, in a server that was started at some time, now.
    fn of(state: &SessionState, (started, now): (Timestamp, Timestamp), grace: Duration) -> Due {
        let Some(session) = &state.session else {
            // A remnant.
            return Due {
                session: true,
                ..Due::default()
            };
        };
        let (ended, least) = match session.ended_at {
            Some(ended) => (ended, Duration::ZERO),
            None if state.was_cut => (started, grace),
            None => {
                return Due {
                    ended_at: Some(now),
                    ..Due::default()
                };
            }
        };
        let is_over = |wait: Duration| {
            let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
            ended.plus_millis(wait) <= now
        };
        let is_over_after = |seconds: u32| is_over(Duration::from_secs(seconds.into()).max(least));
        let is_session_over = is_over_after(session.expiry_seconds);
        let will = session.will.as_ref();
        Due {
            session: is_session_over,
            will: will.is_some_and(|it| is_session_over || is_over_after(it.delay_seconds)),
            // From here on its time runs over further starts.
            ended_at: (state.was_cut && is_over(least)).then_some(ended),
        }
    }

    /// Whether anything is.
    pub fn is_any(self) -> bool {
        self != Due::default()
    }
}

/// A session that somebody holds: whoever comes next for it waits until this is dropped.
pub struct HeldSession {
    broker: Broker,
    key: Arc<SessionKey>,
    number: u64,
    progress: Arc<Progress>,
}

impl Sessions {
    /// Reads the log. Blocks on the disk.
    pub fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        accounts: Accounts,
    ) -> Result<Sessions, SessionsError> {
        let (log, records) = StateLog::open(storage, clock)?;
        let mut book = Book::new(accounts);
        for record in records {
            book.apply(&record?);
        }
        book.opened();
        let clock = storage.steady_clock();
        Ok(Sessions {
            log,
            book: Mutex::new(book),
            started: clock.now(),
            clock,
        })
    }

    /// Refuses one that is longer than sessions may be, or than the log takes.
    fn check_length(&self, session: &SessionRecord) -> Result<(), SessionRefusal> {
        let bytes = session.bytes();
        let bytes_max = SESSION_BYTES_MAX.min(self.log.record_bytes_max());
        match bytes > bytes_max {
            true => Err(SessionRefusal::TooLong { bytes, bytes_max }),
            false => Ok(()),
        }
    }

    fn due(&self, state: &SessionState, grace: Duration) -> Due {
        Due::of(state, (self.started, self.clock.now()), grace)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book
            .lock()
            .expect("nothing panics while it holds the sessions")
    }

    async fn append(&self, records: &[SessionRecord]) -> Result<(), SessionRefusal> {
        self.append_if(records, |_| Ok(())).await
    }

    /// Appends them if they may be, as is said once more when they are.
    async fn append_if(
        &self,
        records: &[SessionRecord],
        mut may: impl FnMut(&mut Book) -> Result<(), Limit> + Send,
    ) -> Result<(), SessionRefusal> {
        may(&mut self.book())?;
        let refused = |error| SessionRefusal::Refused(Arc::new(state_refusal(error)));
        let changes: Vec<Change> = records.iter().map(SessionRecord::encode).collect();
        let size = self.log.size_of(changes.iter().map(change_bytes));
        let admission = self.log.admit(size, Purpose::State).await;
        let written = {
            let mut book = self.book();
            may(&mut book)?;
            let written = self.log.append_changes(changes, admission);
            let written = written.map_err(refused)?;
            records.iter().for_each(|record| book.apply(record));
            written
        };
        written.wait().await.map_err(refused)
    }
}

impl Broker {
    /// Holds a client's session, if nobody else does.
    pub fn try_hold_session(&self, key: impl Into<Arc<SessionKey>>) -> Option<HeldSession> {
        self.hold_or_wait(&key.into()).ok()
    }

    /// The same, or what to wait for.
    fn hold_or_wait(&self, key: &Arc<SessionKey>) -> Result<HeldSession, Arc<Notify>> {
        let (number, progress) = self.shared.sessions.book().hold(key)?;
        Ok(HeldSession {
            broker: self.clone(),
            key: Arc::clone(key),
            number,
            progress,
        })
    }

    /// Holds a client's session, once nobody else does.
    pub async fn hold_session(&self, key: impl Into<Arc<SessionKey>>) -> HeldSession {
        let key = key.into();
        loop {
            let left = match self.hold_or_wait(&key) {
                Ok(held) => return held,
                Err(left) => left,
            };
            let ends = left.notified();
            tokio::pin!(ends);
            ends.as_mut().enable();
            // It may have left before it was waited for, and somebody else may hold it by now, whose end is told elsewhere.
            if self.shared.sessions.book().tells(&key, &left) {
                ends.await;
            }
        }
    }

    /// A session as it is kept, and whether its client is connected.
    pub fn session(&self, key: &SessionKey) -> Option<(SessionState, bool)> {
        let book = self.shared.sessions.book();
        let state = book.state(key).filter(|it| it.session.is_some())?;
        let is_held = book.entries.get(key).is_some_and(|it| it.holder.is_some());
        Some((state, is_held))
    }

    /// How many sessions are kept.
    pub fn session_count(&self) -> u64 {
        self.shared.sessions.book().kept()
    }

    /// Bounds how many sessions are kept, and what they take in memory. What is kept already stays.
    pub fn allow_sessions(&self, count: Allowance, bytes: Allowance) {
        self.shared.sessions.book().allow(count, bytes);
    }

    /// These bounds, and what is held.
    pub(super) fn session_bounds(&self, has_accounts: bool) -> Vec<Bound> {
        self.shared.sessions.book().bounds(has_accounts)
    }

    /// How many of them have this subscription, which shares messages.
    pub fn sessions_that_share(&self, filter: &str) -> usize {
        let book = self.shared.sessions.book();
        book.shared.get(filter).copied().unwrap_or(0)
    }

    /// Sessions that nobody holds and of which something is due.
    pub fn due_sessions(&self, grace: Duration) -> Vec<SessionKey> {
        let sessions = &self.shared.sessions;
        let book = sessions.book();
        book.due((sessions.started, sessions.clock.now()), grace)
    }

    /// Writes the mark once a second, until the server stops.
    pub(super) async fn mark_sessions(&self, mut shutdown: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(MARK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut mark = Positions::default();
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stops| *stops) => return,
                _ = look.tick() => {}
            }
            if let Err(error) = self.mark_at(&mark).await {
                tracing::debug!(%error, "the mark of sessions is not written for now");
            }
            mark = self.ends_of_followed();
        }
    }

    /// How far the topics reach that connected sessions read.
    fn ends_of_followed(&self) -> Positions {
        let mut topics = std::collections::BTreeSet::new();
        let mut behind = None;
        loop {
            let (all, last) = {
                let book = self.shared.sessions.book();
                book.progress(behind, LOOKED_AT_ONCE)
            };
            all.iter().for_each(|it| it.add_topics(&mut topics));
            behind = last;
            if behind.is_none() {
                break;
            }
        }
        let mut ends = Positions::default();
        for topic in topics {
            let Ok(topic) = self.topic_by_id(topic) else {
                continue;
            };
            let end = |partition| {
                let log = topic.log(partition).ok();
                log.map_or(Offset::ZERO, |log| log.bounds().durable_end)
            };
            let all: Vec<Offset> = topic.partitions().map(end).collect();
            ends.set_topic(topic.id, all);
        }
        ends
    }

    /// Writes the cursors of those that are not where they were, and behind them the mark.
    async fn mark_at(&self, mark: &Positions) -> Result<(), SessionRefusal> {
        let sessions = &self.shared.sessions;
        let (looked, last) = {
            let book = sessions.book();
            (book.look_at_left(), book.mark.clone())
        };
        let moved = |looked: Vec<Looked>| -> Vec<Moved> {
            let all = looked.into_iter();
            all.filter_map(|it| it.moved(mark, &last)).collect()
        };
        self.write_moved(moved(looked), &moved).await?;
        let mut behind = None;
        loop {
            let (looked, last) = sessions.book().look(behind, LOOKED_AT_ONCE);
            self.write_moved(moved(looked), &moved).await?;
            behind = last;
            if behind.is_none() {
                break;
            }
        }
        match *mark != last && !mark.is_empty() {
            true => sessions.append(&[SessionRecord::Mark(mark.clone())]).await,
            false => Ok(()),
        }
    }

    /// Writes these cursors. Of sessions to which something else has happened meanwhile it is looked again where they are, so that none
    /// is passed over.
    async fn write_moved(
        &self,
        mut moved: Vec<Moved>,
        look: &(impl Fn(Vec<Looked>) -> Vec<Moved> + Sync),
    ) -> Result<(), SessionRefusal> {
        let sessions = &self.shared.sessions;
        let refused = |error| SessionRefusal::Refused(Arc::new(state_refusal(error)));
        while !moved.is_empty() {
            let records = moved.iter().map(|it| {
                let cursor = Some(Arc::clone(&it.cursor));
                SessionRecord::Cursor(it.key.clone(), cursor)
            });
            let mut records: Vec<_> = records.map(|it| (it.encode(), it)).collect();
            let bytes = records.iter().map(|(change, _)| change_bytes(change));
            let count = sessions.log.count_for_one_append(bytes);
            let rest = moved.split_off(count);
            records.truncate(count);
            let bytes = records.iter().map(|(change, _)| change_bytes(change));
            let size = sessions.log.size_of(bytes);
            let admission = sessions.log.admit(size, Purpose::State).await;
            let (written, others) = {
                let mut book = sessions.book();
                let all = moved.into_iter().zip(records);
                let (still, others): (Vec<_>, Vec<_>) = all.partition(|it| book.is_still(&it.0));
                let (changes, still): (Vec<_>, Vec<_>) =
                    still.into_iter().map(|(_, record)| record).unzip();
                let written = sessions.log.append_changes(changes, admission);
                let written = written.map_err(refused)?;
                still.iter().for_each(|record| book.apply(record));
                let others = others.iter().filter_map(|it| book.look_at(&it.0.key));
                (written, others.collect())
            };
            written.wait().await.map_err(refused)?;
            moved = rest;
            moved.extend(look(others));
        }
        Ok(())
    }
}

impl HeldSession {
    /// Whose it is.
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    fn own_key(&self) -> SessionKey {
        SessionKey::clone(&self.key)
    }

    /// Where its connection notes how far it is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// As it is kept.
    pub fn state(&self) -> SessionState {
        let book = self.broker.shared.sessions.book();
        book.state(&self.key).expect("it is held")
    }

    /// Keeps it like this from now on, with a new place and what it is being sent, if these are given.
    pub async fn keep(
        &self,
        session: KeptSession,
        (cursor, sending): (Option<Cursor>, Option<Sending>),
    ) -> Result<(), SessionRefusal> {
        let session = Arc::new(session);
        let record = SessionRecord::Session(self.own_key(), Some(Arc::clone(&session)));
        let sessions = &self.broker.shared.sessions;
        sessions.check_length(&record)?;
        let moved = cursor.clone().and_then(|it| self.moves_to(it));
        let sent = sending.clone().and_then(|it| self.sends(it));
        let records = [Some(record), moved, sent];
        let records: Vec<_> = records.into_iter().flatten().collect();
        let wanted = Wanted {
            session: Some(&session),
            cursor: cursor.as_ref(),
            sending: sending.as_ref(),
            received: 0,
        };
        let may = |book: &mut Book| book.check(&self.key, wanted);
        sessions.append_if(&records, may).await
    }

    /// Whether it may be kept like this now.
    pub fn takes(&self, session: KeptSession) -> Result<(), SessionRefusal> {
        let sessions = &self.broker.shared.sessions;
        let wanted = Wanted {
            session: Some(&session),
            ..Wanted::default()
        };
        sessions.book().check(&self.key, wanted)?;
        sessions.check_length(&self.kept_as(session))
    }

    /// Whether it may note one more identifier.
    pub fn takes_identifier(&self) -> Result<(), SessionRefusal> {
        let wanted = Wanted {
            received: 1,
            ..Wanted::default()
        };
        let mut book = self.broker.shared.sessions.book();
        Ok(book.check(&self.key, wanted)?)
    }

    /// On whose account it is, if it is on somebody's.
    pub fn owner(&self) -> Option<&str> {
        let access = &self.broker.shared.access;
        access.accounts().of(&self.key.owner)
    }

    /// Keeps nothing of it any more.
    pub async fn discard(&self) -> Result<(), SessionRefusal> {
        self.write(self.ends()).await
    }

    /// The records that end it. They name all that may be written of it until they are, so that nothing is left behind them.
    pub fn ends(&self) -> Vec<SessionRecord> {
        let state = self.state();
        let key = || self.own_key();
        let received = state.received.iter();
        let mut records: Vec<_> = received
            .map(|id| SessionRecord::Received(key(), *id, false))
            .collect();
        if state.session.is_some()
            || *state.sending != Sending::default()
            || *state.cursor != Cursor::default()
        {
            records.push(SessionRecord::Session(key(), None));
            records.push(SessionRecord::Sending(key(), None));
            records.push(SessionRecord::Cursor(key(), None));
        }
        records
    }

    /// What of it is due.
    pub fn due(&self, grace: Duration) -> Due {
        self.broker.shared.sessions.due(&self.state(), grace)
    }

    /// Changes it.
    pub async fn write(&self, records: Vec<SessionRecord>) -> Result<(), SessionRefusal> {
        match records.is_empty() {
            true => Ok(()),
            false => self.broker.shared.sessions.append(&records).await,
        }
    }

    /// The record that it has come so far.
    pub fn is_at(&self, cursor: Cursor) -> SessionRecord {
        SessionRecord::Cursor(self.own_key(), Some(Arc::new(cursor)))
    }

    /// The same, if that is not what is kept.
    fn moves_to(&self, cursor: Cursor) -> Option<SessionRecord> {
        let is_new = *self.state().cursor != cursor;
        is_new.then(|| self.is_at(cursor))
    }

    /// The record of what it is being sent, if that is not what is kept.
    pub fn sends(&self, sending: Sending) -> Option<SessionRecord> {
        let is_new = *self.state().sending != sending;
        is_new.then(|| SessionRecord::Sending(self.own_key(), Some(Arc::new(sending))))
    }

    /// The record that keeps it like this.
    pub fn kept_as(&self, session: KeptSession) -> SessionRecord {
        SessionRecord::Session(self.own_key(), Some(Arc::new(session)))
    }

    /// Keeps what it is being sent exactly once.
    pub async fn sending(&self, sending: Sending) -> Result<(), SessionRefusal> {
        self.write(self.sends(sending).into_iter().collect()).await
    }

    /// An identifier is free again.
    pub async fn release(&self, packet_id: u16) -> Result<(), SessionRefusal> {
        let record = SessionRecord::Received(self.own_key(), packet_id, false);
        self.broker.shared.sessions.append(&[record]).await
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        let mut book = self.broker.shared.sessions.book();
        book.leave(&self.key, self.number);
    }
}
