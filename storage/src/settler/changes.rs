//! Changes that others ask of a log's manifest, as data. The settler alone changes manifests: it takes them with its next round,
//! or by themselves where it is asked to, and answers each once a checkpoint names the outcome, or none will.
//!
//! Callers: rewrites ask; the settler's rounds take. A log's directory is claimed while files are made in it, so that the sweep
//! does not take them for the rest of a crash, and two rewrites of a log do not meet.
//! Invariant: a log for which something is asked is on the settler's list.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard};

use model::{LogId, Offset};

use crate::manifest::SegmentEntry;
use crate::segment::SegmentId;

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A new segment takes the place of neighbours, and compaction has looked at all before an offset.
    Replace {
        old: Vec<SegmentId>,
        new: SegmentEntry,
        compacted_to: Option<Offset>,
    },
    /// Compaction has looked at all before this offset.
    CompactedTo(Offset),
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A checkpoint names it, and the old files are gone.
    Applied,
    /// This segment is no longer one of the log's: nothing was changed.
    NoLongerLive(SegmentId),
    /// There was no space for the manifest or the checkpoint: nothing was changed.
    NoSpace,
    /// The log was deleted.
    Deleted,
}

/// A change, and who waits for it.
#[derive(Debug)]
pub(super) struct Asked {
    pub change: Change,
    answer: Sender<Outcome>,
}

impl Asked {
    pub fn answer(self, outcome: Outcome) {
        // Who asked may have given up at the store's end.
        let _ = self.answer.send(outcome);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    asked: Mutex<HashMap<LogId, Vec<Asked>>>,
    claimed: Mutex<HashSet<LogId>>,
    released: Condvar,
}

/// A log's directory is nobody else's to make files in, or to tidy, while this lives.
#[derive(Debug)]
pub(crate) struct Claim<'c> {
    changes: &'c Changes,
    log: LogId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.changes.claimed().remove(&self.log);
        self.changes.released.notify_all();
    }
}

impl Changes {
    /// Asks for a change; the caller puts the log on the settler's list. The answer may never come if the store ends.
    pub fn ask(&self, log: LogId, change: Change) -> Receiver<Outcome> {
        let (answer, outcome) = channel();
        let asked = Asked { change, answer };
        self.asked().entry(log).or_default().push(asked);
        outcome
    }

    /// The logs of which something is asked.
    pub(super) fn logs(&self) -> Vec<LogId> {
        self.asked().keys().copied().collect()
    }

    /// What is asked of a log.
    pub(super) fn take(&self, log: LogId) -> Vec<Asked> {
        self.asked().remove(&log).unwrap_or_default()
    }

    /// Claims a log's directory, as soon as nobody else has it. Blocks.
    pub fn claim(&self, log: LogId) -> Claim<'_> {
        let mut claimed = self.claimed();
        while !claimed.insert(log) {
            claimed = self
                .released
                .wait(claimed)
                .expect("nothing panics while it holds the claims");
        }
        Claim { changes: self, log }
    }

    /// Claims a log's directory, if nobody has it.
    pub(super) fn try_claim(&self, log: LogId) -> Option<Claim<'_>> {
        let is_free = self.claimed().insert(log);
        // Made where it is free only: when one is dropped, who has the directory loses it.
        is_free.then(|| Claim { changes: self, log })
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<LogId, Vec<Asked>>> {
        self.asked
            .lock()
            .expect("nothing panics while it holds the changes")
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<LogId>> {
        self.claimed
            .lock()
            .expect("nothing panics while it holds the claims")
    }
}

#[cfg(test)]
mod tests {
    use model::{PartitionId, TopicId};

    use super::*;

    #[test]
    fn who_asks_in_vain_for_a_directory_does_not_take_it_from_who_has_it() {
        let (changes, topic_id) = (Changes::default(), TopicId::random());
        let log = LogId {
            topic_id,
            partition: PartitionId::new(0),
        };
        let claim = changes.claim(log);
        for _ in 0..2 {
            assert!(changes.try_claim(log).is_none());
        }
        drop(claim);
        assert!(changes.try_claim(log).is_some());
    }
}
