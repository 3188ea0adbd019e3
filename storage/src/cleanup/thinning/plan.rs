//! What thinning would do to a log: which segments a tier has reached, which of them are written together, and what holds the
//! others back. Pure; called by the plans' dispatch.

use std::collections::HashMap;

use model::Timestamp;
use model::topic_config::thin::ThinTiers;

use crate::cleanup::holds::{self, Hold};
use crate::cleanup::reason::{HeldBack, Reason, age_ms};
use crate::cleanup::{LogView, Outcome, Plan, Policy, SegmentPlan, SegmentView};
use crate::log::LogSettings;
use crate::segment::SegmentId;

/// So many neighbouring segments that no tier has anything to take from become one.
const MERGE_MIN: usize = 8;

/// What thinning goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thinning {
    /// The tiers; at least one.
    pub tiers: ThinTiers,
    /// What becomes one segment has no more bytes than this.
    pub segment_bytes: u64,
    /// What becomes one segment was appended within this time, so that retention by age stays about as exact as it was.
    pub segment_ms: u64,
    /// What is known of segments that were looked at.
    pub looked: HashMap<SegmentId, Looked>,
}

/// What is known of a segment that was thinned, or looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// All of its windows were reached by at least this tier, from 1; 0 if not all were.
    pub tier: u8,
    /// Windows that were open are not before this time of the broker closed to all tiers: until then nobody looks again.
    pub again_at: Timestamp,
}

impl Thinning {
    /// That of a log, of which nothing is known yet. None if it is not thinned.
    pub fn of(settings: &LogSettings) -> Option<Thinning> {
        Some(Thinning {
            tiers: settings.thinning.clone()?,
            segment_bytes: settings.segment_bytes,
            segment_ms: settings.segment_ms,
            looked: HashMap::new(),
        })
    }
}

/// From when on records of the log may be appended that no sealed segment holds.
pub(super) fn sealed_until(view: &LogView, now: Timestamp) -> Timestamp {
    let mut unsealed = view
        .segments
        .iter()
        .filter(|segment| !segment.sealed && segment.bytes > 0);
    let active = unsealed.next().map(|segment| segment.first_append_time);
    active.or(view.tail_begin).unwrap_or(now).min(now)
}

/// Plans which segments are written again.
pub fn plan(view: &LogView, thinning: &Thinning, holds: &[Hold], now: Timestamp) -> Plan {
    let until = sealed_until(view, now);
    let judged = view.segments.iter().map(|segment| SegmentPlan {
        segment: *segment,
        outcome: match judge(view, segment, thinning, holds, until, now) {
            Ok(reason) => Outcome::Rewrite { reason, group: 0 },
            Err(held_back) => Outcome::Keep(held_back),
        },
    });
    let mut segments: Vec<SegmentPlan> = judged.collect();
    group(&mut segments, thinning);
    Plan {
        log: view.log,
        policy: Policy::Thin,
        rolls_active: false,
        segments,
        raise_start_to: None,
    }
}

/// The tier that has reached a segment and is to thin it, or what holds it back.
fn judge(
    view: &LogView,
    segment: &SegmentView,
    thinning: &Thinning,
    holds: &[Hold],
    until: Timestamp,
    now: Timestamp,
) -> Result<Reason, HeldBack> {
    if segment.bytes == 0 {
        return Err(HeldBack::Empty);
    }
    if !segment.sealed {
        return Err(HeldBack::ActiveSegment);
    }
    if segment.end_offset <= view.start_offset {
        return Err(HeldBack::BelowStart);
    }
    if let Some((_, error)) = view.set_aside.iter().find(|(id, _)| *id == segment.id) {
        let error = error.clone();
        return Err(HeldBack::SetAside { error });
    }
    // Of a segment that has a key that is held the other records are thinned.
    let of_all = holds.iter().filter(|hold| hold.key.is_none());
    if let Some(hold) = holds::first_on(of_all, &(segment.id.base..segment.end_offset)) {
        let name = hold.name.clone();
        return Err(HeldBack::Hold { name });
    }
    let age_ms = age_ms(now, segment.last_append_time);
    let mut reached = None;
    let tiers = &thinning.tiers;
    for (number, tier) in (1u8..).zip(tiers.tiers()) {
        if age_ms < tier.age_ms {
            break;
        }
        let closed_at = i64::try_from(tier.window_ms).unwrap_or(i64::MAX);
        let closed_at = segment.last_append_time.millis().saturating_add(closed_at);
        let is_closed =
            age_ms >= tier.age_ms.saturating_add(tier.window_ms) && closed_at <= until.millis();
        if !is_closed {
            if reached.is_none() {
                let window_ms = tier.window_ms;
                reached = Some(Err(HeldBack::OpenWindow {
                    tier: number,
                    window_ms,
                }));
            }
            break;
        }
        let tier_age_ms = tier.age_ms;
        reached = Some(Ok((
            number,
            Reason::Tier {
                tier: number,
                age_ms,
                tier_age_ms,
            },
        )));
    }
    let first = tiers
        .tiers()
        .first()
        .expect("a topic that is thinned has a tier");
    let tier_age_ms = first.age_ms;
    let (number, reason) = reached.unwrap_or(Err(HeldBack::TierAge {
        age_ms,
        tier_age_ms,
    }))?;
    match thinning.looked.get(&segment.id) {
        Some(looked) if looked.tier >= number || until < looked.again_at => {
            Err(HeldBack::Thinned { tier: number })
        }
        _ => Ok(reason),
    }
}

/// Numbers the groups that are written together, and has many small neighbours merged.
fn group(segments: &mut [SegmentPlan], thinning: &Thinning) {
    let mut number = 0;
    let mut from = 0;
    while from < segments.len() {
        let to = from + together(&segments[from..], thinning);
        let group = &mut segments[from..to];
        let bytes = group.iter().map(|plan| plan.segment.bytes).sum();
        let count = group.len();
        let mut is_written = true;
        for plan in group {
            match &mut plan.outcome {
                Outcome::Rewrite { group, .. } => *group = number,
                Outcome::Keep(HeldBack::Thinned { .. }) if count >= MERGE_MIN => {
                    let reason = Reason::SmallNeighbours { count, bytes };
                    plan.outcome = Outcome::Merge {
                        reason,
                        group: number,
                    };
                }
                _ => is_written = false,
            }
        }
        number += usize::from(is_written);
        from = to;
    }
}

/// How many of these segments, from the first on, may become one; at least 1.
fn together(segments: &[SegmentPlan], thinning: &Thinning) -> usize {
    // Those of other tiers age at another time.
    let kind = |plan: &SegmentPlan| match plan.outcome {
        Outcome::Rewrite {
            reason: Reason::Tier { tier, .. },
            ..
        } => Some((true, tier)),
        Outcome::Keep(HeldBack::Thinned { tier }) => Some((false, tier)),
        _ => None,
    };
    let first = &segments[0];
    let mut bytes = 0u64;
    let fits = |plan: &&SegmentPlan| {
        bytes = bytes.saturating_add(plan.segment.bytes);
        let span = plan
            .segment
            .last_append_time
            .millis_since(first.segment.first_append_time);
        kind(plan).is_some()
            && kind(plan) == kind(first)
            && bytes <= thinning.segment_bytes
            && u64::try_from(span).unwrap_or(0) <= thinning.segment_ms
    };
    segments.iter().take_while(fits).count().max(1)
}
