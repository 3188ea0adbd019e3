//! Thins a log as its plan says: reads the segments in question, decides, and writes those again of which something goes.
//!
//! Called by the cleaner. Reads each segment of the plan, and those behind whose windows may go on there, once. What is held of
//! records is bounded: a piece that has reached its bound is decided by itself, and of windows across two pieces each keeps
//! its own. Which records go, and the summaries, are held of the whole plan until its segments are written, without a bound.
//! A failure leaves everything as it was but for the groups that were finished.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use model::batch::{Batch, BatchHeader, DecompressLimit, Filter, Rest};
use model::{LogId, Offset, Timestamp};

use super::piece::{Decided, Piece, Sample};
use super::plan::{Looked, sealed_until};
use super::policy::ThinPolicy;
use crate::cleanup::{LogView, Plan, SegmentView};
use crate::log::LogCell;
use crate::rewrite::{
    KeepError, Keeper, Pace, RewriteError, RewriteParts, Rewritten, Verdict, rewrite, scan,
};
use crate::segment::SegmentId;
use crate::segment::summary::{Summary, read_summary};

/// What is known of segments that were looked at, of all logs. Derived: a start reads it out of the summaries.
#[derive(Debug, Default)]
pub(crate) struct LookedSegments(Mutex<HashMap<LogId, LookedLog>>);

/// What is known of a log's segments, and by which tiers.
#[derive(Debug, Default)]
struct LookedLog {
    tiers: String,
    segments: HashMap<SegmentId, Looked>,
}

impl LookedSegments {
    /// What is known of a log's segments by these tiers. Looks at what is in memory only.
    pub fn of(&self, log: LogId, tiers: &str) -> HashMap<SegmentId, Looked> {
        let looked = self.locked();
        let known = looked.get(&log).filter(|known| known.tiers == tiers);
        known
            .map(|known| known.segments.clone())
            .unwrap_or_default()
    }

    /// Reads the summaries of segments of which nothing is known. What is known of others that the log no longer has, or by
    /// other tiers, is forgotten. Blocks.
    pub fn look_up(&self, parts: &RewriteParts, view: &LogView, tiers: &str) {
        let known = self.of(view.log, tiers);
        let mut segments = HashMap::new();
        for segment in view.segments.iter().filter(|segment| segment.sealed) {
            let id = segment.id;
            let looked = known.get(&id).copied();
            if let Some(looked) = looked.or_else(|| told(parts, view.log, id, tiers)) {
                segments.insert(id, looked);
            }
        }
        let tiers = tiers.to_owned();
        self.locked()
            .insert(view.log, LookedLog { tiers, segments });
    }

    /// Forgets a log that is not thinned.
    pub fn forget(&self, log: LogId) {
        self.locked().remove(&log);
    }

    /// Forgets the logs that are not there any more.
    pub fn keep(&self, is_there: &dyn Fn(LogId) -> bool) {
        self.locked().retain(|log, _| is_there(*log));
    }

    fn set(&self, log: LogId, id: SegmentId, looked: Looked) {
        if let Some(known) = self.locked().get_mut(&log) {
            known.segments.insert(id, looked);
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<LogId, LookedLog>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the list")
    }
}

/// What a segment's summary says, if it was thinned by the same tiers.
fn told(parts: &RewriteParts, log: LogId, id: SegmentId, tiers: &str) -> Option<Looked> {
    let summary = summary_of(parts, log, id).filter(|summary| summary.tiers == tiers)?;
    Some(Looked {
        tier: summary.tier,
        again_at: Timestamp::from_millis(i64::MIN),
    })
}

fn summary_of(parts: &RewriteParts, log: LogId, id: SegmentId) -> Option<Summary> {
    let data = &parts.files.data;
    match read_summary(data.disk(), &data.of_log(log), log, id) {
        Ok(summary) => summary,
        Err(error) => {
            tracing::warn!(%log, segment = %id, %error, "a summary cannot be read: it is not used");
            None
        }
    }
}

/// What thinning a log came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thinned {
    /// Records that went.
    pub records_removed: u64,
    /// Bytes of the segments that were written again, before.
    pub bytes_before: u64,
    /// The same after.
    pub bytes_after: u64,
    /// Bytes read, with those that were only looked at.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// What took the place of which segments.
    pub rewrites: Vec<Rewritten>,
}

/// What a run works with.
pub(crate) struct Thinner<'a> {
    pub parts: &'a RewriteParts,
    pub looked: &'a LookedSegments,
    pub policy: &'a ThinPolicy,
    pub pace: &'a dyn Pace,
    /// The time by which records age.
    pub now: Timestamp,
    /// Memory for one piece.
    pub memory_bytes: usize,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// What becomes of a group of segments.
#[derive(Debug, Default)]
struct Fate {
    /// Rising; half-open.
    dropped: Vec<Range<Offset>>,
    summary: Option<Summary>,
}

impl Thinner<'_> {
    /// Does what a plan says. Blocks. On an error what was finished is counted in `thinned`.
    pub fn run(
        &self,
        log: &Arc<LogCell>,
        view: &LogView,
        plan: &Plan,
        thinned: &mut Thinned,
    ) -> Result<(), RewriteError> {
        let groups = plan.groups();
        let (Some(first), Some(last)) = (groups.first(), groups.last()) else {
            return Ok(());
        };
        let from = first.first().expect("a group has a segment");
        let to = last.last().expect("a group has a segment");
        let (range, complete_until) = self.range(view, from, to);
        let mut fates: Vec<Fate> = Vec::new();
        fates.resize_with(groups.len(), Fate::default);
        let mut decide = |piece: Piece<'_>| {
            let decided = piece.decide(self.now, complete_until);
            for (fate, group) in fates.iter_mut().zip(&groups) {
                fate.take(&decided, &offsets_of(group));
            }
        };
        self.look(log, range, &mut decide)?;
        thinned.bytes_read += range.iter().map(|segment| segment.bytes).sum::<u64>();
        let again_at = complete_until
            .millis()
            .saturating_add(self.policy.longest_window_ms());
        let again_at = Timestamp::from_millis(again_at);
        for (group, fate) in groups.iter().zip(fates) {
            self.write(log, group, fate, again_at, thinned)?;
        }
        Ok(())
    }

    /// Which segments are looked at: those between, and those around them whose windows reach into them. And from when on records may
    /// have been appended that are not in them.
    fn range<'v>(
        &self,
        view: &'v LogView,
        from: &SegmentView,
        to: &SegmentView,
    ) -> (&'v [SegmentView], Timestamp) {
        let place = |id| view.segments.iter().position(|segment| segment.id == id);
        let mut start = place(from.id).expect("the plan is of this view");
        let mut end = place(to.id).expect("the plan is of this view") + 1;
        let window_ms = self.policy.longest_window_ms();
        let is_near = |earlier: &SegmentView, later: &SegmentView| {
            let gap = later
                .first_append_time
                .millis_since(earlier.last_append_time);
            gap <= window_ms
        };
        while start > 0 && is_near(&view.segments[start - 1], from) {
            start -= 1;
        }
        while let Some(next) = view.segments.get(end).filter(|next| next.sealed)
            && is_near(to, next)
        {
            end += 1;
        }
        let complete_until = match view.segments.get(end) {
            Some(next) if next.sealed => next.first_append_time,
            _ => sealed_until(view, self.now),
        };
        (&view.segments[start..end], complete_until)
    }

    /// Reads segments into pieces, and has each piece decided.
    fn look(
        &self,
        log: &Arc<LogCell>,
        segments: &[SegmentView],
        decide: &mut dyn FnMut(Piece<'_>),
    ) -> Result<(), RewriteError> {
        let mut piece = Piece::new(self.policy);
        for segment in segments {
            let summary = summary_of(self.parts, log.id(), segment.id);
            piece.begin_segment(segment.id.base, summary.as_ref());
            let mut each = |header: &BatchHeader, bytes: &Bytes| {
                show(&mut piece, header, bytes, segment.last_append_time);
                if piece.held_bytes() >= self.memory_bytes {
                    let full = std::mem::replace(&mut piece, Piece::new(self.policy));
                    decide(full);
                    piece.continue_segment(summary.as_ref());
                }
                Ok(())
            };
            scan(self.parts, log, &[segment.id], self.pace, &mut each)?;
        }
        decide(piece);
        Ok(())
    }

    /// Writes a group again, if something of it goes or it has more than one segment.
    fn write(
        &self,
        log: &Arc<LogCell>,
        group: &[SegmentView],
        fate: Fate,
        again_at: Timestamp,
        thinned: &mut Thinned,
    ) -> Result<(), RewriteError> {
        let ids: Vec<SegmentId> = group.iter().map(|segment| segment.id).collect();
        let tier = fate
            .summary
            .as_ref()
            .map_or(u8::MAX, |summary| summary.tier);
        let looked = Looked { tier, again_at };
        if fate.dropped.is_empty() && ids.len() == 1 {
            self.looked.set(log.id(), ids[0], looked);
            return Ok(());
        }
        let bytes = group.iter().map(|segment| segment.bytes).sum::<u64>();
        let mut keeper = ThinKeeper::new(fate);
        thinned.bytes_read += bytes;
        if self.dry_run {
            let mut kept_bytes = 0;
            scan(self.parts, log, &ids, self.pace, &mut |header, batch| {
                kept_bytes += match keeper.judge(header, batch)? {
                    Verdict::Keep => batch.len() as u64,
                    Verdict::Drop => 0,
                    Verdict::Replace(rest) => rest.len() as u64,
                };
                Ok(())
            })?;
            thinned.bytes_before += bytes;
            thinned.bytes_after += kept_bytes;
            thinned.records_removed += keeper.records_dropped;
            return Ok(());
        }
        let rewritten = rewrite(self.parts, log, &ids, None, self.pace, &mut keeper)?;
        thinned.bytes_before += rewritten.before.bytes;
        thinned.bytes_after += rewritten.after.bytes;
        thinned.bytes_written += rewritten.after.bytes;
        thinned.records_removed += keeper.records_dropped;
        let id = rewritten.new.map_or(ids[0], |entry| entry.id);
        self.looked.set(log.id(), id, looked);
        tracing::info!(
            log = %log.id(), segment = %id, records_removed = keeper.records_dropped,
            bytes_before = rewritten.before.bytes, bytes_after = rewritten.after.bytes, "thinning wrote segments again"
        );
        thinned.rewrites.push(rewritten);
        Ok(())
    }
}

impl Fate {
    /// Takes over what a piece says of a group.
    fn take(&mut self, decided: &Decided<'_>, offsets: &Range<Offset>) {
        if decided.lowest_tier(offsets).is_none() && !decided.tells_of(offsets) {
            return;
        }
        self.dropped.extend(decided.dropped(offsets));
        let summary = decided.summary(offsets);
        match &mut self.summary {
            Some(known) => known.merge(summary),
            None => self.summary = Some(summary),
        }
    }
}

fn offsets_of(group: &[SegmentView]) -> Range<Offset> {
    let first = group.first().expect("a group has a segment");
    let last = group.last().expect("a group has a segment");
    first.id.base..last.end_offset
}

/// Shows the records of a batch to a piece. Of a batch that cannot be read none is shown, so that all of it is kept.
fn show(piece: &mut Piece<'_>, header: &BatchHeader, bytes: &Bytes, appended: Timestamp) {
    if header.is_control() {
        return piece.pass_over();
    }
    let records = Batch::parse_unverified(bytes.clone())
        .and_then(|batch| batch.records(DecompressLimit::default()));
    let Ok(mut records) = records else {
        return piece.pass_over();
    };
    while let Some(record) = records.next_ref() {
        let Ok(record) = record else {
            return piece.forget_from(header.base());
        };
        piece.push(Sample {
            offset: record.offset,
            key: record.key,
            time: record.timestamp,
            appended,
            value: record.value,
        });
    }
}

/// Drops the records that were decided to go.
#[derive(Debug)]
struct ThinKeeper {
    fate: Fate,
    /// The first range that does not lie behind.
    at: usize,
    filter: Filter,
    records_dropped: u64,
}

impl ThinKeeper {
    fn new(fate: Fate) -> ThinKeeper {
        ThinKeeper {
            fate,
            at: 0,
            filter: Filter::new(DecompressLimit::default()),
            records_dropped: 0,
        }
    }
}

impl Keeper for ThinKeeper {
    fn judge(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<Verdict, KeepError> {
        let dropped = &self.fate.dropped;
        while dropped
            .get(self.at)
            .is_some_and(|range| range.end <= header.base())
        {
            self.at += 1;
        }
        let ahead = &dropped[self.at..];
        if ahead
            .first()
            .is_none_or(|range| range.start >= header.next_offset())
        {
            return Ok(Verdict::Keep);
        }
        let records = |source| KeepError::Records {
            base: header.base(),
            source,
        };
        let batch = Batch::parse_unverified(batch.clone()).map_err(records)?;
        let mut ahead = ahead.iter().peekable();
        let mut keep = |record: &model::batch::RecordRef<'_>| {
            while ahead.next_if(|range| range.end <= record.offset).is_some() {}
            ahead.peek().is_none_or(|range| record.offset < range.start)
        };
        let filtered = self
            .filter
            .apply(&batch, None, &mut keep)
            .map_err(records)?;
        self.records_dropped += u64::from(filtered.dropped);
        Ok(match filtered.rest {
            Rest::Whole => Verdict::Keep,
            Rest::Rebuilt(rest) => Verdict::Replace(rest),
            Rest::Nothing => Verdict::Drop,
        })
    }

    fn summary(&mut self) -> Option<Summary> {
        self.fate.summary.take()
    }
}
