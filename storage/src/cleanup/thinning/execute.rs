//! Thins a log as its plan says: reads the segments in question, decides, and writes those again of which something goes.
//!
//! Called by the cleaner. The records of the plan's segments, and of those around them whose windows reach into them, are looked at
//! ahead of what is written (`outlook.rs`): a piece of them is held at a time, within the memory for it, and of windows across
//! two pieces each keeps its own. A group of segments is written as its pieces are decided; summaries go to the disk section by
//! section. A failure leaves everything as it was but for the groups that were finished.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, RwLockReadGuard};

use bytes::Bytes;
use model::batch::{Batch, BatchHeader, DecompressLimit, Filter, Rest};
use model::{LogId, Offset, Timestamp};

use super::outlook::{Look, LookParts, Outlook, Pieces, summary_of};
use super::plan::{Looked, sealed_until};
use super::policy::ThinPolicy;
use crate::cleanup::hold_source::LogHolds;
use crate::cleanup::{LogView, Plan, Policy, SegmentView};
use crate::components::Threads;
use crate::log::LogCell;
use crate::rewrite::{
    Cancelled, KeepError, Keeper, Pace, Pages, RewriteError, RewriteParts, Rewritten, Verdict,
    new_id, rewrite, scan,
};
use crate::segment::SegmentId;
use crate::segment::summary::SummaryWriter;

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
    let summary = summary_of(parts, log, id)?;
    let tier = summary.tier;
    (summary.tiers.as_deref() == Some(tiers)).then_some(Looked {
        tier,
        again_at: Timestamp::from_millis(i64::MIN),
    })
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
    /// Asked again before something goes.
    pub holds: LogHolds<'a>,
    /// The time by which records age.
    pub now: Timestamp,
    /// Memory for one piece.
    pub memory_bytes: usize,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// The pace of a run for the thread that looks ahead, which ends with the run.
struct LookPace<'a> {
    pace: &'a dyn Pace,
    has_ended: &'a AtomicBool,
}

impl Pace for LookPace<'_> {
    fn piece_bytes(&self) -> usize {
        self.pace.piece_bytes()
    }

    fn spend(&self, bytes: u64) -> Result<(), Cancelled> {
        match self.has_ended.load(Relaxed) {
            true => Err(Cancelled),
            false => self.pace.spend(bytes),
        }
    }
}

/// The memory of a run, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    /// For the records that are looked at, in one piece or in two.
    piece_bytes: usize,
    /// So many windows a section of a summary has at most, but for those that a section had before.
    section_windows: usize,
}

impl Shares {
    /// A section costs so much for each window, while it is put together, encoded and waits for the next one.
    const WINDOW_BYTES: usize = 768;
    /// Larger sections would save nothing.
    const WINDOWS_MAX: usize = 1 << 16;

    fn of(memory_bytes: usize) -> Shares {
        let sections_bytes = memory_bytes / 4;
        Shares {
            piece_bytes: memory_bytes - sections_bytes,
            section_windows: (sections_bytes / Shares::WINDOW_BYTES).clamp(1, Shares::WINDOWS_MAX),
        }
    }
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
        let again_at = complete_until
            .millis()
            .saturating_add(self.policy.longest_window_ms());
        let again_at = Timestamp::from_millis(again_at);
        let piece_bytes = Shares::of(self.memory_bytes).piece_bytes;
        let written: HashSet<SegmentId> =
            groups.iter().flatten().map(|segment| segment.id).collect();
        let has_ended = AtomicBool::new(false);
        let pace = LookPace {
            pace: self.pace,
            has_ended: &has_ended,
        };
        let parts = LookParts {
            parts: self.parts,
            policy: self.policy,
            pace: &pace,
        };
        let look = |piece_bytes| {
            let segments = (range, written.clone());
            Look::new(parts, log, segments, piece_bytes)
        };
        std::thread::scope(|scope| {
            let pieces = match self.parts.threads {
                Threads::Manual => None,
                Threads::Own => {
                    // Nothing waits in it: two pieces are there at a time.
                    let (give, pieces) = sync_channel(0);
                    let look = look(piece_bytes / 2);
                    let thread = std::thread::Builder::new().name("log-thinning".to_owned());
                    let spawned = thread.spawn_scoped(scope, move || look.run(&give));
                    spawned.ok().map(|_| Pieces::Thread(pieces))
                }
            };
            let pieces = pieces.unwrap_or_else(|| Pieces::Look(Box::new(look(piece_bytes))));
            let begin = range.first().expect("a group has a segment").id.base;
            let mut outlook = Outlook::new(pieces, begin, self.now, complete_until);
            let written = groups
                .iter()
                .try_for_each(|group| self.write(log, group, &mut outlook, again_at, thinned));
            thinned.bytes_read += outlook.bytes_read();
            has_ended.store(true, Relaxed);
            written
        })
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

    /// Writes a group again, if something of it goes or it has more than one segment.
    fn write(
        &self,
        log: &Arc<LogCell>,
        group: &[SegmentView],
        outlook: &mut Outlook<'_>,
        again_at: Timestamp,
        thinned: &mut Thinned,
    ) -> Result<(), RewriteError> {
        let ids: Vec<SegmentId> = group.iter().map(|segment| segment.id).collect();
        let offsets = offsets_of(group);
        outlook.reach(offsets.start)?;
        if ids.len() == 1 && outlook.keeps_all_of(&offsets) {
            let tier = outlook.lowest_tier(&offsets).unwrap_or(u8::MAX);
            self.looked.set(log.id(), ids[0], Looked { tier, again_at });
            return Ok(());
        }
        let bytes = group.iter().map(|segment| segment.bytes).sum::<u64>();
        let mut keeper = ThinKeeper::new(self, log, &ids, offsets, outlook);
        thinned.bytes_read += bytes;
        if self.dry_run {
            let mut kept_bytes = 0;
            let pages = Pages::AsFound;
            let scanned = scan(
                self.parts,
                log,
                &ids,
                pages,
                self.pace,
                &mut |header, batch| {
                    kept_bytes += match keeper.judge(header, batch)? {
                        Verdict::Keep => batch.len() as u64,
                        Verdict::Drop => 0,
                        Verdict::Replace(rest) => rest.len() as u64,
                    };
                    Ok(())
                },
            );
            keeper.explain(scanned)?;
            if keeper.records_dropped > 0 || ids.len() > 1 {
                thinned.bytes_before += bytes;
                thinned.bytes_after += kept_bytes;
                thinned.records_removed += keeper.records_dropped;
            }
            return Ok(());
        }
        let done = rewrite(self.parts, log, &ids, None, self.pace, &mut keeper);
        let rewritten = keeper.explain(done)?;
        let (tier, records_dropped) = (keeper.tier, keeper.records_dropped);
        let id = rewritten.new.map_or(ids[0], |entry| entry.id);
        self.looked.set(log.id(), id, Looked { tier, again_at });
        if rewritten.new.is_none() {
            return Ok(());
        }
        thinned.bytes_before += rewritten.before.bytes;
        thinned.bytes_after += rewritten.after.bytes;
        thinned.bytes_written += rewritten.after.bytes;
        thinned.records_removed += records_dropped;
        tracing::info!(
            log = %log.id(), segment = %id, records_removed = records_dropped,
            bytes_before = rewritten.before.bytes, bytes_after = rewritten.after.bytes, "thinning wrote segments again"
        );
        thinned.rewrites.push(rewritten);
        Ok(())
    }
}

fn offsets_of(group: &[SegmentView]) -> Range<Offset> {
    let first = group.first().expect("a group has a segment");
    let last = group.last().expect("a group has a segment");
    first.id.base..last.end_offset
}

/// Drops the records of a group that are decided to go, and tells of each piece what was there.
struct ThinKeeper<'k, 'o> {
    thinner: &'k Thinner<'k>,
    log: LogId,
    /// The name of what is written.
    new: SegmentId,
    /// Those of the group.
    offsets: Range<Offset>,
    outlook: &'k mut Outlook<'o>,
    /// Before here everything is told.
    told_to: Offset,
    summary: Option<SummaryWriter>,
    /// The lowest tier of all windows; the highest number if there is none.
    tier: u8,
    filter: Filter,
    records_dropped: u64,
    /// From the first to the last batch of which something goes.
    gone: Option<Range<Offset>>,
    /// Why it could not go on.
    failed: Option<RewriteError>,
}

impl<'k, 'o> ThinKeeper<'k, 'o> {
    fn new(
        thinner: &'k Thinner<'k>,
        log: &LogCell,
        ids: &[SegmentId],
        offsets: Range<Offset>,
        outlook: &'k mut Outlook<'o>,
    ) -> ThinKeeper<'k, 'o> {
        ThinKeeper {
            thinner,
            log: log.id(),
            new: new_id(ids),
            told_to: offsets.start,
            offsets,
            outlook,
            summary: None,
            tier: u8::MAX,
            filter: Filter::new(DecompressLimit::default()),
            records_dropped: 0,
            gone: None,
            failed: None,
        }
    }

    /// So many records of a batch go.
    fn goes(&mut self, header: &BatchHeader, records: u64) {
        let from = self.gone.as_ref().map_or(header.base(), |gone| gone.start);
        self.gone = Some(from..header.next_offset());
        self.records_dropped += records;
    }

    /// Puts its own reason in the place of one that only says that there is one.
    fn explain<T>(&mut self, done: Result<T, RewriteError>) -> Result<T, RewriteError> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => done,
        }
    }

    /// Looks so far ahead that it is decided what goes of a batch.
    fn look_ahead(&mut self, header: &BatchHeader) -> Result<(), KeepError> {
        while !self.outlook.has_decided(header.next_offset()) {
            self.tell()?;
            self.outlook.advance().map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Tells of the present piece what is not told yet.
    fn tell(&mut self) -> Result<(), KeepError> {
        let end = self.outlook.decided_to().min(self.offsets.end);
        if self.told_to >= end {
            return Ok(());
        }
        let told = self.told_to..end;
        self.told_to = end;
        let Some(decided) = self.outlook.decided() else {
            return Ok(());
        };
        let windows = Shares::of(self.thinner.memory_bytes).section_windows;
        for part in decided.parts(&told, windows) {
            if self.thinner.dry_run {
                self.tier = self.tier.min(decided.lowest_tier(&part).unwrap_or(0));
                continue;
            }
            let summary = decided.summary(&part);
            self.tier = self.tier.min(summary.tier);
            let pushed = writer(&mut self.summary, self.thinner.parts, self.log, self.new)
                .and_then(|writer| writer.push(summary));
            if let Err(source) = pushed {
                let segment = self.new;
                self.failed = Some(RewriteError::of_disk(segment, source, 0));
                return Err(KeepError::Unable);
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: RewriteError) -> KeepError {
        self.failed = Some(error);
        KeepError::Unable
    }
}

/// The writer of a summary, which begins with its first section.
fn writer<'w>(
    summary: &'w mut Option<SummaryWriter>,
    parts: &RewriteParts,
    log: LogId,
    id: SegmentId,
) -> std::io::Result<&'w mut SummaryWriter> {
    if summary.is_none() {
        let data = &parts.files.data;
        let created = SummaryWriter::create(data.shared_disk(), &data.of_log(log), log, id)?;
        *summary = Some(created);
    }
    Ok(summary.as_mut().expect("it was made"))
}

impl Keeper for ThinKeeper<'_, '_> {
    fn judge(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<Verdict, KeepError> {
        self.look_ahead(header)?;
        let decided = self.outlook.decided().expect("it was looked at");
        let mut going = decided.going(header.base());
        let dropped = going.count_before(header.next_offset());
        if dropped == 0 {
            return Ok(Verdict::Keep);
        }
        if dropped == header.record_count.unsigned_abs() as usize {
            self.goes(header, dropped as u64);
            return Ok(Verdict::Drop);
        }
        let records = |source| KeepError::Records {
            base: header.base(),
            source,
        };
        let batch = Batch::parse_unverified(batch.clone()).map_err(records)?;
        let mut goes = |offset| going.goes(offset);
        let taken_out = self.filter.take_out(&batch, &mut goes);
        let (rest, gone) = taken_out.map_err(records)?;
        if gone > 0 {
            self.goes(header, gone.into());
        }
        Ok(match rest {
            Rest::Whole => Verdict::Keep,
            Rest::Rebuilt(rest) => Verdict::Replace(rest),
            Rest::Nothing => Verdict::Drop,
        })
    }

    fn finish(&mut self) -> Result<(), KeepError> {
        self.tell()
    }

    fn may_switch(&self) -> Result<Option<RwLockReadGuard<'_, ()>>, KeepError> {
        let stays = self.thinner.policy.held_keys();
        let holds = &self.thinner.holds;
        let guard = holds.may_go(&self.offsets, stays)?;
        if let Some(gone) = &self.gone {
            holds.tell(Policy::Thin, gone, self.records_dropped, self.new)?;
        }
        Ok(Some(guard))
    }

    fn summary(&mut self) -> Option<SummaryWriter> {
        self.summary.take()
    }
}
