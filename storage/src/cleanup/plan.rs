//! What a cleanup policy wants done to a log, as data: for each segment what happens and why, or what holds it back.
//!
//! Policies make it, the executor does it, and whoever wants to know beforehand reads it.

use std::fmt;

use model::{LogId, Offset};

use super::policy::Policy;
use super::reason::{HeldBack, Reason};
use super::view::{LogView, SegmentView};

/// What happens to a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes as a whole.
    Remove(Reason),
    /// It is written again without the records that the policy drops.
    Rewrite {
        /// Why.
        reason: Reason,
        /// Segments of one group become one segment; a number from 0 within the plan.
        group: usize,
    },
    /// It becomes one segment with its neighbours; no record is dropped.
    Merge {
        /// Why.
        reason: Reason,
        /// As for `Rewrite`.
        group: usize,
    },
    /// It stays as it is: the first rule that holds it back.
    Keep(HeldBack),
}

impl Outcome {
    /// A short name, for machines.
    pub const fn name(&self) -> &'static str {
        match self {
            Outcome::Remove(_) => "remove",
            Outcome::Rewrite { .. } => "rewrite",
            Outcome::Merge { .. } => "merge",
            Outcome::Keep(_) => "keep",
        }
    }

    /// The rule that decided, by its short name.
    pub const fn rule(&self) -> &'static str {
        match self {
            Outcome::Remove(reason)
            | Outcome::Rewrite { reason, .. }
            | Outcome::Merge { reason, .. } => reason.name(),
            Outcome::Keep(held_back) => held_back.name(),
        }
    }

    /// The group that it is written with.
    pub const fn group(&self) -> Option<usize> {
        match self {
            Outcome::Rewrite { group, .. } | Outcome::Merge { group, .. } => Some(*group),
            Outcome::Remove(_) | Outcome::Keep(_) => None,
        }
    }
}

/// Why, in words.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Remove(reason)
            | Outcome::Rewrite { reason, .. }
            | Outcome::Merge { reason, .. } => reason.fmt(f),
            Outcome::Keep(held_back) => held_back.fmt(f),
        }
    }
}

/// A segment, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPlan {
    /// What the policy was shown of it.
    pub segment: SegmentView,
    /// What happens to it.
    pub outcome: Outcome,
}

/// What should be done to one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which log.
    pub log: LogId,
    /// By which policy.
    pub policy: Policy,
    /// The active segment is sealed and what is in the WAL only settled first, and then it is planned again.
    pub rolls_active: bool,
    /// All segments, in order.
    pub segments: Vec<SegmentPlan>,
    /// The new start offset, if it rises.
    pub raise_start_to: Option<Offset>,
}

impl Plan {
    /// A plan that keeps everything, for one reason.
    pub fn keep_all(policy: Policy, view: &LogView, held_back: &HeldBack) -> Plan {
        let segments = view.segments.iter().map(|segment| SegmentPlan {
            segment: *segment,
            outcome: Outcome::Keep(held_back.clone()),
        });
        Plan {
            log: view.log,
            policy,
            rolls_active: false,
            segments: segments.collect(),
            raise_start_to: None,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let keeps = |segment: &SegmentPlan| matches!(segment.outcome, Outcome::Keep(_));
        self.raise_start_to.is_none() && !self.rolls_active && self.segments.iter().all(keeps)
    }

    /// The segments that go as a whole, in order.
    pub fn removed(&self) -> impl Iterator<Item = (&SegmentView, &Reason)> {
        self.segments.iter().filter_map(|plan| match &plan.outcome {
            Outcome::Remove(reason) => Some((&plan.segment, reason)),
            _ => None,
        })
    }

    /// How many bytes go with segments that are removed as a whole.
    pub fn removed_bytes(&self) -> u64 {
        self.removed().map(|(segment, _)| segment.bytes).sum()
    }

    /// The groups of segments that are written together, in order.
    pub fn groups(&self) -> Vec<Vec<SegmentView>> {
        let mut groups: Vec<Vec<SegmentView>> = Vec::new();
        for plan in &self.segments {
            if let Some(group) = plan.outcome.group() {
                assert!(
                    group == groups.len() || group + 1 == groups.len(),
                    "a group's segments are neighbours"
                );
                if group == groups.len() {
                    groups.push(Vec::new());
                }
                groups[group].push(plan.segment);
            }
        }
        groups
    }
}
