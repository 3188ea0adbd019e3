//! When something of a session comes to its time, so that nobody has to look at all of them for it. Caller: the book. Pure.
//! Invariant: whoever is due stands under a time that has passed, or waits for the end of the grace.

use std::collections::{BTreeMap, HashSet};

use model::Timestamp;

use super::record::{KeptSession, SessionKey};

/// When it is to be looked whether something of a session is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum When {
    /// Not before something else happens: its client is connected.
    #[default]
    Never,
    /// When clients have had their grace after a start.
    BehindGrace,
    /// At this time.
    At(Timestamp),
}

impl When {
    /// Of a session that nobody holds, and that was cut with its server or not.
    pub(super) fn of(session: Option<&KeptSession>, was_cut: bool) -> When {
        const AT_ONCE: When = When::At(Timestamp::from_millis(0));
        let Some(session) = session else {
            // A remnant.
            return AT_ONCE;
        };
        let Some(ended_at) = session.ended_at else {
            return match was_cut {
                true => When::BehindGrace,
                false => AT_ONCE,
            };
        };
        let will = session.will.as_ref().map(|will| will.delay_seconds);
        let seconds = will.map_or(session.expiry_seconds, |delay| {
            delay.min(session.expiry_seconds)
        });
        When::At(ended_at.plus_millis(i64::from(seconds) * 1_000))
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Timetable {
    by_time: BTreeMap<Timestamp, HashSet<SessionKey>>,
    behind_grace: HashSet<SessionKey>,
}

impl Timetable {
    /// A session has another time.
    pub(super) fn change(&mut self, key: &SessionKey, before: When, now: When) {
        if before == now {
            return;
        }
        match before {
            When::Never => {}
            When::BehindGrace => drop(self.behind_grace.remove(key)),
            When::At(time) => {
                if let Some(keys) = self.by_time.get_mut(&time) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.by_time.remove(&time);
                    }
                }
            }
        }
        match now {
            When::Never => {}
            When::BehindGrace => drop(self.behind_grace.insert(key.clone())),
            When::At(time) => drop(self.by_time.entry(time).or_default().insert(key.clone())),
        }
    }

    /// Sessions that may be due by now; those that were cut only when their grace is over.
    pub(super) fn due(
        &self,
        now: Timestamp,
        is_grace_over: bool,
    ) -> impl Iterator<Item = &SessionKey> {
        let of_time = self.by_time.range(..=now).flat_map(|(_, keys)| keys);
        let cut = is_grace_over.then_some(&self.behind_grace);
        of_time.chain(cut.into_iter().flatten())
    }
}
