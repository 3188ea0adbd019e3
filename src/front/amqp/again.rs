//! What a consumer of a topic may have to be sent again: it has nobody to share with, and nothing remembers it but its link.
//! Callers: `cursor`. Pure. What was sent is known by its place in the log, and is read there again.

use std::collections::BTreeMap;

use model::{Offset, PartitionId};

use super::outcome::Outcome;
use crate::broker::replay::Block;

/// A message is delivered so often at most, as those of queues are.
const DELIVERIES_MAX: u16 = 5;

/// A delivery that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
    /// How often it was delivered, with this time.
    pub(super) count: u16,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// What was sent and is not settled, by the delivery's id.
    sent: BTreeMap<u32, Sent>,
    /// What is to be sent again, and how often it was delivered.
    due: BTreeMap<(PartitionId, Offset), u16>,
    /// One of it that was read.
    read: Option<(Block, u16)>,
}

impl Again {
    /// Something was sent.
    pub(super) fn add(&mut self, id: u32, sent: Sent) {
        self.sent.insert(id, sent);
    }

    /// Takes a delivery out of what is not settled.
    pub(super) fn take(&mut self, id: u32) -> Option<Sent> {
        self.sent.remove(&id)
    }

    /// Its consumer has said what becomes of a delivery.
    pub(super) fn settle(&mut self, id: u32, outcome: Outcome) {
        if let Some(sent) = self.take(id) {
            match outcome {
                Outcome::Released => self.give_back(sent, false),
                Outcome::Modified {
                    failed,
                    elsewhere: false,
                } => self.give_back(sent, failed),
                Outcome::Accepted | Outcome::Rejected | Outcome::Modified { .. } => {}
            }
        }
    }

    /// It is to be sent again, if it was not sent too often; `counts` says whether it was delivered at all.
    pub(super) fn give_back(&mut self, sent: Sent, counts: bool) {
        let count = match counts {
            true => sent.count,
            false => sent.count.saturating_sub(1),
        };
        if count < DELIVERIES_MAX {
            self.due.insert((sent.partition, sent.offset), count);
        }
    }

    /// What is to be read, if nothing is read that was not sent.
    pub(super) fn next_due(&self) -> Option<(PartitionId, Offset)> {
        let first = self.due.keys().next().copied();
        first.filter(|_| self.read.is_none())
    }

    /// It was read; None: the log has it no more.
    pub(super) fn found(&mut self, due: (PartitionId, Offset), block: Option<Block>) {
        let count = self.due.remove(&due);
        self.read = block.filter(|block| !block.is_empty()).zip(count);
    }

    /// What was read, and how often it was delivered before.
    pub(super) fn take_read(&mut self) -> Option<(Block, u16)> {
        self.read.take()
    }

    /// Whether nothing is to be sent again now.
    pub(super) fn is_idle(&self) -> bool {
        self.due.is_empty() && self.read.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_comes_again_and_not_too_often() {
        let sent = |count| Sent {
            partition: PartitionId::new(0),
            offset: Offset::new(7),
            count,
        };
        let failed = Outcome::Modified {
            failed: true,
            elsewhere: false,
        };
        let elsewhere = Outcome::Modified {
            failed: false,
            elsewhere: true,
        };
        for (count, outcome, before) in [
            (1, Outcome::Accepted, None),
            (1, Outcome::Rejected, None),
            (1, elsewhere, None),
            (1, Outcome::Released, Some(0)),
            (3, Outcome::Released, Some(2)),
            (1, failed, Some(1)),
            (4, failed, Some(4)),
            (5, failed, None),
        ] {
            let mut again = Again::default();
            again.add(1, sent(count));
            again.settle(1, outcome);
            let due = again.due.values().next().copied();
            assert_eq!(due, before, "{outcome:?} {count}");
            assert_eq!(again.is_idle(), before.is_none());
            again.settle(1, failed);
            assert_eq!(
                again.due.len(),
                usize::from(before.is_some()),
                "it was settled"
            );
        }
    }
}
