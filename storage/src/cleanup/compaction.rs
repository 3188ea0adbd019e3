//! Compaction by key, planned from what is known of segments: which are read and written again, which only put together, and
//! what holds the others back. Pure; what a record's key decides is in
//! `compact_keeper.rs`.
//!
//! Source: Kafka's `LogCleanerManager`, but for the clock: lags count in the store's own time from the broker's append, so that
//! they are exact whatever devices say.
//! A hold ends what may be compacted: nothing from the first segment on that it wants is read or written again, because a record
//! may go only together with all older ones of its key.

use model::{Offset, Timestamp};

use super::holds::{self, Hold};
use super::reason::{DirtyRatio, HeldBack, Reason, age_ms};
use super::{LogView, Outcome, Plan, Policy, SegmentPlan, SegmentView};
use crate::log::LogSettings;

const MILLION: f64 = 1_000_000.0;

/// When a log is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// What a segment may hold.
    pub segment_bytes: u64,
    /// Which part of the bytes must be dirty, in millionths.
    pub min_dirty_ppm: u32,
    /// A segment is not compacted before its last batch has this age.
    pub min_lag_ms: u64,
    /// The log is compacted, whatever the ratio, when its first dirty batch has this age; None is never.
    pub max_lag_ms: Option<u64>,
    /// Somebody asks for it: whatever is dirty is dirty enough.
    pub asked: bool,
}

impl Compaction {
    /// Those of a log. None if it is not compacted.
    pub fn of(settings: &LogSettings, asked: bool) -> Option<Compaction> {
        let config = settings.compaction?;
        let ppm = (config.min_cleanable_dirty_ratio.get() * MILLION).round();
        Some(Compaction {
            segment_bytes: settings.segment_bytes,
            // A ratio lies between 0 and 1.
            min_dirty_ppm: ppm.clamp(0.0, MILLION) as u32,
            min_lag_ms: config.min_compaction_lag_ms,
            max_lag_ms: config.max_compaction_lag_ms,
            asked,
        })
    }
}

/// What of a log may be compacted now.
struct Eligible {
    /// So many of the first segments that are kept may be.
    count: usize,
    /// Why the next one may not; None if there is no next one.
    first_held: Option<HeldBack>,
    /// Why those behind it may not.
    behind: HeldBack,
}

/// Plans which segments are compacted.
pub fn plan(view: &LogView, rules: &Compaction, holds: &[Hold], now: Timestamp) -> Plan {
    let mut plan = Plan::keep_all(Policy::Compaction, view, &HeldBack::Clean);
    let passed = view.segments.iter();
    let passed = passed.take_while(|segment| segment.end_offset <= view.start_offset);
    let begin = passed.count();
    for gone in &mut plan.segments[..begin] {
        gone.outcome = Outcome::Keep(HeldBack::BelowStart);
    }
    let eligible = eligible(view, begin, rules, holds, now);
    let end = begin + eligible.count;
    if let Some(first_held) = eligible.first_held {
        plan.segments[end].outcome = Outcome::Keep(first_held);
        for behind in &mut plan.segments[end + 1..] {
            let held_back = match behind.segment.sealed {
                true => eligible.behind.clone(),
                false => HeldBack::ActiveSegment,
            };
            behind.outcome = Outcome::Keep(held_back);
        }
    }
    set_aside(view, &mut plan.segments[begin..end]);
    let ratio = dirty_ratio(&plan.segments[begin..end], view.compacted_to, rules);
    let overdue = overdue(view, rules, now);
    let reason = match overdue {
        Some(overdue) => Some(overdue),
        None if rules.asked => Some(Reason::Asked),
        None => ratio.is_reached().then_some(Reason::DirtyRatio(ratio)),
    };
    let is_unsealed = |(_, sealed): (Timestamp, bool)| !sealed;
    plan.rolls_active = overdue.is_some() && first_dirty(view).is_some_and(is_unsealed)
        || rules.asked && view.has_unsealed();
    match reason {
        Some(reason) if ratio.dirty_bytes > 0 => {
            group_all(&mut plan.segments[begin..end], rules.segment_bytes, reason);
        }
        _ => {
            for one in &mut plan.segments[begin..end] {
                let is_dirty = one.segment.end_offset > view.compacted_to;
                if is_dirty && matches!(one.outcome, Outcome::Keep(HeldBack::Clean)) {
                    one.outcome = Outcome::Keep(HeldBack::DirtyRatio(ratio));
                }
            }
            group_small(&mut plan.segments[begin..end], rules.segment_bytes);
        }
    }
    plan
}

/// Which part of a log is dirty, in millionths: the log where compaction gains most has the highest.
pub fn dirty_ppm(view: &LogView) -> u32 {
    let sealed = || view.segments.iter().filter(|segment| segment.sealed);
    let dirty = sealed().filter(|segment| segment.end_offset > view.compacted_to);
    let ratio = DirtyRatio {
        dirty_bytes: dirty.map(|segment| segment.bytes).sum(),
        bytes: sealed().map(|segment| segment.bytes).sum(),
        min_ppm: 0,
    };
    ratio.ppm()
}

/// For how long the first dirty batch is overdue, in milliseconds; 0 if it is not.
pub fn delay_ms(view: &LogView, rules: &Compaction, now: Timestamp) -> u64 {
    match overdue(view, rules, now) {
        Some(Reason::CompactionLag { age_ms, max_lag_ms }) => age_ms - max_lag_ms,
        _ => 0,
    }
}

/// When a log that is not to be compacted now may be next, if nothing else happens to it. None if only something new can make
/// it so.
pub fn next_due(view: &LogView, rules: &Compaction, now: Timestamp) -> Option<Timestamp> {
    let after = |time: Timestamp, ms: u64| {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        Timestamp::from_millis(time.millis().saturating_add(ms))
    };
    let overdue = rules
        .max_lag_ms
        .and_then(|max| Some(after(first_dirty(view)?.0, max)));
    let dirty = view
        .segments
        .iter()
        .filter(|segment| segment.sealed && segment.end_offset > view.compacted_to);
    let lags = dirty.map(|segment| after(segment.last_append_time, rules.min_lag_ms));
    overdue
        .into_iter()
        .chain(lags)
        .filter(|time| *time > now)
        .min()
}

/// How many segments from `begin` on may be compacted, and why the next may not.
fn eligible(
    view: &LogView,
    begin: usize,
    rules: &Compaction,
    holds: &[Hold],
    now: Timestamp,
) -> Eligible {
    for (count, segment) in view.segments[begin..].iter().enumerate() {
        let age_ms = age_ms(now, segment.last_append_time);
        let (held, behind) = if !segment.sealed {
            (HeldBack::ActiveSegment, HeldBack::ActiveSegment)
        } else if let Some(hold) = hold_on(view, segment, holds) {
            let name = hold.name.clone();
            (
                HeldBack::Hold { name: name.clone() },
                HeldBack::BehindHold { name },
            )
        } else if age_ms < rules.min_lag_ms {
            let lag = HeldBack::CompactionLag {
                age_ms,
                min_lag_ms: rules.min_lag_ms,
            };
            (lag, HeldBack::BehindLag)
        } else {
            continue;
        };
        return Eligible {
            count,
            first_held: Some(held),
            behind,
        };
    }
    Eligible {
        count: view.segments.len() - begin,
        first_held: None,
        behind: HeldBack::Clean,
    }
}

fn hold_on<'a>(view: &LogView, segment: &SegmentView, holds: &'a [Hold]) -> Option<&'a Hold> {
    let kept = segment.id.base.max(view.start_offset)..segment.end_offset;
    holds::first_on(holds, &kept)
}

fn dirty_ratio(segments: &[SegmentPlan], compacted_to: Offset, rules: &Compaction) -> DirtyRatio {
    let may = |one: &&SegmentPlan| matches!(one.outcome, Outcome::Keep(HeldBack::Clean));
    let bytes = |one: &SegmentPlan| one.segment.bytes;
    let dirty = segments
        .iter()
        .filter(may)
        .filter(|one| one.segment.end_offset > compacted_to);
    DirtyRatio {
        dirty_bytes: dirty.map(bytes).sum(),
        bytes: segments.iter().filter(may).map(bytes).sum(),
        min_ppm: rules.min_dirty_ppm,
    }
}

/// When the first batch that compaction has not seen was appended, as far as segments tell, and whether it is in a sealed one.
fn first_dirty(view: &LogView) -> Option<(Timestamp, bool)> {
    let from = view.compacted_to.max(view.start_offset);
    let is_aside = |segment: &SegmentView| view.set_aside.iter().any(|(id, _)| *id == segment.id);
    let dirty = view
        .segments
        .iter()
        .find(|one| one.bytes > 0 && one.end_offset > from && !is_aside(one));
    dirty
        .map(|segment| (segment.first_append_time, segment.sealed))
        .or(view.tail_begin.map(|time| (time, false)))
}

fn overdue(view: &LogView, rules: &Compaction, now: Timestamp) -> Option<Reason> {
    let max_lag_ms = rules.max_lag_ms?;
    let age_ms = age_ms(now, first_dirty(view)?.0);
    (age_ms >= max_lag_ms).then_some(Reason::CompactionLag { age_ms, max_lag_ms })
}

/// Marks the segments that could not be rewritten.
fn set_aside(view: &LogView, segments: &mut [SegmentPlan]) {
    for one in segments {
        let known = view.set_aside.iter().find(|(id, _)| *id == one.segment.id);
        if let Some((_, error)) = known {
            one.outcome = Outcome::Keep(HeldBack::SetAside {
                error: error.clone(),
            });
        }
    }
}

/// All segments are written again, neighbours together as far as they fit into one.
fn group_all(segments: &mut [SegmentPlan], segment_bytes: u64, reason: Reason) {
    let (mut group, mut bytes, mut is_open) = (0, 0u64, false);
    for one in segments {
        if !matches!(one.outcome, Outcome::Keep(HeldBack::Clean)) {
            group += usize::from(is_open);
            is_open = false;
            continue;
        }
        let size = one.segment.bytes;
        if is_open && bytes + size > segment_bytes {
            group += 1;
            is_open = false;
        }
        bytes = size + if is_open { bytes } else { 0 };
        is_open = true;
        one.outcome = Outcome::Rewrite { reason, group };
    }
}

/// Clean neighbours that are no larger than a quarter of a segment are put together as far as they fit into one. What is larger waits
/// for the next compaction, which puts neighbours together without writing anything twice.
fn group_small(segments: &mut [SegmentPlan], segment_bytes: u64) {
    let is_small = |one: &SegmentPlan| {
        matches!(one.outcome, Outcome::Keep(HeldBack::Clean))
            && one.segment.bytes <= segment_bytes / 4
    };
    let (mut group, mut from) = (0, 0);
    while from < segments.len() {
        let (mut count, mut bytes) = (0, 0u64);
        for one in segments[from..].iter().take_while(|one| is_small(one)) {
            if bytes + one.segment.bytes > segment_bytes {
                break;
            }
            bytes += one.segment.bytes;
            count += 1;
        }
        if count >= 2 {
            for one in &mut segments[from..from + count] {
                let reason = Reason::SmallNeighbours { count, bytes };
                one.outcome = Outcome::Merge { reason, group };
            }
            group += 1;
        }
        from += count.max(1);
    }
}

#[cfg(test)]
mod tests;
