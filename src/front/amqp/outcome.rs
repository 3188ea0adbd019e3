//! What consumers say becomes of deliveries, and what that does with records.
//! Callers: `queue`, and `pinned` for what is said in a transaction.

use std::collections::BTreeMap;
use std::ops::Range;

use amqp::state::{DeliveryState, Modified, Rejected};
use model::Offset;

use crate::broker::share::{Given, Place, ShareConsumer, ShareError, Verdict};

/// What becomes of a delivery, without what else was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Accepted,
    Rejected,
    Released,
    Modified { failed: bool, elsewhere: bool },
}

impl Outcome {
    /// The outcome that a state is; None for one that is none.
    pub(super) fn of(state: &DeliveryState<'_>) -> Option<Outcome> {
        match state {
            DeliveryState::Accepted => Some(Outcome::Accepted),
            DeliveryState::Rejected(_) => Some(Outcome::Rejected),
            DeliveryState::Released => Some(Outcome::Released),
            DeliveryState::Modified(it) => Some(Outcome::Modified {
                failed: it.delivery_failed.unwrap_or(false),
                elsewhere: it.undeliverable_here.unwrap_or(false),
            }),
            DeliveryState::Received(_)
            | DeliveryState::Declared(_)
            | DeliveryState::Transactional(_) => None,
        }
    }

    /// What a disposition says; None if that is nothing.
    pub(super) fn said(state: Option<&DeliveryState<'_>>, is_settled: bool) -> Option<Outcome> {
        match (state.and_then(Outcome::of), is_settled) {
            (Some(outcome), _) => Some(outcome),
            // Forgotten without an outcome: it was not taken.
            (None, true) => Some(Outcome::Modified {
                failed: true,
                elsewhere: false,
            }),
            (None, false) => None,
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        match self {
            Outcome::Accepted => Verdict::Accept,
            // As Qpid JMS gives up what came too often.
            Outcome::Rejected
            | Outcome::Modified {
                failed: true,
                elsewhere: true,
            } => Verdict::Reject,
            Outcome::Modified { failed: true, .. } => Verdict::Release,
            Outcome::Released | Outcome::Modified { .. } => Verdict::Return,
        }
    }

    /// Whether others may have it, and not this consumer.
    pub(super) fn is_elsewhere(self) -> bool {
        let elsewhere = Outcome::Modified {
            failed: false,
            elsewhere: true,
        };
        self == elsewhere
    }

    pub(super) fn state(self) -> DeliveryState<'static> {
        match self {
            Outcome::Accepted => DeliveryState::Accepted,
            Outcome::Rejected => DeliveryState::Rejected(Rejected { error: None }),
            Outcome::Released => DeliveryState::Released,
            Outcome::Modified { failed, elsewhere } => DeliveryState::Modified(Modified {
                delivery_failed: Some(failed),
                undeliverable_here: Some(elsewhere),
                message_annotations: None,
            }),
        }
    }
}

/// Records by partition, those behind each other as one range.
#[derive(Default)]
pub(super) struct Ranges(BTreeMap<Place, Vec<Range<Offset>>>);

impl Ranges {
    pub(super) fn add(&mut self, place: Place, offset: Offset) {
        let ranges = self.0.entry(place).or_default();
        match ranges.last_mut() {
            Some(range) if range.end == offset => range.end = offset.plus(1),
            _ => ranges.push(offset..offset.plus(1)),
        }
    }

    /// Those of what was given, from an index on.
    pub(super) fn add_all(&mut self, given: &Given, from: usize) {
        for index in from..given.len() {
            if let Some((found, _)) = given.get(index) {
                self.add(given.place, found.record.offset);
            }
        }
    }

    /// Says the same of all of them.
    pub(super) async fn settle(
        self,
        said: &ShareConsumer,
        verdict: Verdict,
    ) -> Result<(), ShareError> {
        let mut became = Ok(());
        for (place, ranges) in self.0 {
            let verdicts: Vec<_> = ranges.into_iter().map(|range| (range, verdict)).collect();
            became = became.and(said.settle(place, &verdicts).await);
        }
        became
    }
}
