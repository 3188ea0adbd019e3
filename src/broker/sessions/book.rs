//! The sessions in memory: each as its records say, and who is connected. Callers: `sessions`. Pure.
//! Invariant: of one client one connection holds the session at a time; the next one waits for it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Notify;

use super::positions::Positions;
use super::progress::{Progress, low};
use super::record::{Cursor, KeptSession, Sending, SessionKey, SessionRecord};

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
    /// Told when the holder leaves.
    pub left: Arc<Notify>,
}

pub(super) struct Holder {
    pub number: u64,
    pub progress: Arc<Progress>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Book {
    pub entries: HashMap<SessionKey, Entry>,
    /// As it was written last.
    pub mark: Positions,
    pub kept: usize,
    next_number: u64,
}

/// A cursor that is to be written, and what it is for.
pub(super) struct Moved {
    pub key: SessionKey,
    number: Option<u64>,
    before: Arc<Cursor>,
    pub cursor: Arc<Cursor>,
}

impl Book {
    /// What a record says holds from now on.
    pub fn apply(&mut self, record: &SessionRecord) {
        match record {
            SessionRecord::Mark(mark) => self.mark = mark.clone(),
            SessionRecord::Session(key, session) => {
                let entry = self.entry(key);
                let was_kept = entry.state.session.is_some();
                entry.state.session = session.clone();
                entry.state.was_cut = false;
                match (was_kept, session.is_some()) {
                    (false, true) => self.kept += 1,
                    (true, false) => self.kept -= 1,
                    _ => {}
                }
                self.forget_empty(key);
            }
            SessionRecord::Received(key, id, is_received) => {
                let received = &mut self.entry(key).state.received;
                match is_received {
                    true => received.insert(*id),
                    false => received.remove(id),
                };
                self.forget_empty(key);
            }
            SessionRecord::Sending(key, sending) => {
                self.entry(key).state.sending = sending.clone().unwrap_or_default();
                self.forget_empty(key);
            }
            SessionRecord::Cursor(key, cursor) => {
                self.entry(key).state.cursor = cursor.clone().unwrap_or_default();
                self.forget_empty(key);
            }
        }
    }

    fn entry(&mut self, key: &SessionKey) -> &mut Entry {
        self.entries.entry(key.clone()).or_default()
    }

    fn forget_empty(&mut self, key: &SessionKey) {
        let is_empty = |entry: &Entry| {
            let state = &entry.state;
            entry.holder.is_none()
                && state.session.is_none()
                && state.received.is_empty()
                && *state.sending == Sending::default()
                && *state.cursor == Cursor::default()
        };
        if self.entries.get(key).is_some_and(is_empty) {
            self.entries.remove(key);
        }
    }

    /// Holds a session, or tells what to wait for.
    pub fn hold(&mut self, key: &SessionKey) -> Result<(u64, Arc<Progress>), Arc<Notify>> {
        let number = self.next_number;
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.holder.is_some() {
            return Err(Arc::clone(&entry.left));
        }
        self.next_number += 1;
        let progress = Arc::new(Progress::default());
        entry.holder = Some(Holder {
            number,
            progress: Arc::clone(&progress),
        });
        Ok((number, progress))
    }

    /// Ends a hold.
    pub fn leave(&mut self, key: &SessionKey, number: u64) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.holder.as_ref().is_some_and(|it| it.number == number) {
            entry.holder = None;
            entry.left.notify_waiters();
            self.forget_empty(key);
        }
    }

    /// Cursors that are to be written before the mark may be here.
    pub fn moved(&self, mark: &Positions) -> Vec<Moved> {
        let kept = self.entries.iter();
        let kept = kept.filter(|(_, entry)| entry.state.session.is_some());
        let moved = kept.filter_map(|(key, entry)| {
            let before = &entry.state.cursor;
            let cursor = match &entry.holder {
                // It was connected at the end of the last process.
                None if before.keeps_up => Cursor {
                    keeps_up: false,
                    ..Cursor::clone(before)
                },
                None => return None,
                Some(holder) => {
                    let now = holder.progress.cursor()?;
                    let low = low(&now);
                    match (before.keeps_up, low.reaches(mark)) {
                        (true, true) => return None,
                        (false, true) => Cursor {
                            keeps_up: true,
                            read: low,
                            unacked: Vec::new(),
                        },
                        (_, false) => now,
                    }
                }
            };
            (cursor != **before).then(|| Moved {
                key: key.clone(),
                number: entry.holder.as_ref().map(|it| it.number),
                before: Arc::clone(before),
                cursor: Arc::new(cursor),
            })
        });
        moved.collect()
    }

    /// Whether nothing else has happened to a session since.
    pub fn is_still(&self, moved: &Moved) -> bool {
        self.entries.get(&moved.key).is_some_and(|entry| {
            entry.holder.as_ref().map(|it| it.number) == moved.number
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
            }
            state.was_cut = state
                .session
                .as_ref()
                .is_some_and(|it| it.ended_at.is_none());
        }
        self.mark = mark;
    }
}
