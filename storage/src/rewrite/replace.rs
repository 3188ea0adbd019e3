//! Neighbouring sealed segments become one: what is kept of them is written beside them, and the settler is asked for the switch.
//!
//! Callers: the cleanup's executor. All that fails before the switch leaves no file behind; what a kill leaves goes with the next
//! start. Where one segment would stay as it is, nothing is switched.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use bytes::Bytes;
use model::batch::{Batch, BatchHeader, without_records};
use model::{LogId, Offset};

use super::RewriteParts;
use super::beforehand::walk;
use super::error::RewriteError;
use super::keeper::{Keeper, Pace, Verdict};
use super::source::{Found, Source, index_of, live};
use crate::components::Threads;
use crate::epochs::Epochs;
use crate::log::LogCell;
use crate::manifest::{Manifest, Sealed, SegmentEntry};
use crate::producers::Producers;
use crate::segment::summary::{SummaryWriter, carry_on};
use crate::segment::{SegmentId, SparseWriter, remove_files};
use crate::settler::{Change, Outcome};

/// So much is written between two looks at the pace.
const SPEND_BYTES: u64 = 1 << 20;
/// Segments from this size on are closed by a thread of its own when they are unlinked; so a group keeps few of them open.
const OPEN_BYTES_MIN: u64 = 16 << 20;
/// How long the settler's answer is waited for before it is asked again, and looked whether the store ends.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How much there is in some segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of batches.
    pub bytes: u64,
    /// Batches.
    pub batches: u64,
    /// Records, by the batches' headers.
    pub records: u64,
}

impl Amount {
    /// Counts a batch.
    pub(crate) fn count(&mut self, header: &BatchHeader) {
        self.bytes += header.total_bytes() as u64;
        self.batches += 1;
        self.records += u64::from(header.record_count.unsigned_abs());
    }
}

/// What a rewrite did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The segments that were read.
    pub old: Vec<SegmentId>,
    /// The one that took their place. None if all of the only one was kept, so that it stayed.
    pub new: Option<SegmentEntry>,
    /// What was read.
    pub before: Amount,
    /// What was kept.
    pub after: Amount,
}

/// Compaction has looked at all of a log's sealed segments before an offset, and there was nothing to rewrite. Durable when it
/// returns. Blocks.
pub(crate) fn mark_compacted(
    parts: &RewriteParts,
    log: &Arc<LogCell>,
    to: Offset,
) -> Result<(), RewriteError> {
    change(parts, log, Change::CompactedTo(to)).map(drop)
}

/// Puts one new segment in the place of neighbouring sealed ones, with what `keeper` keeps of them; with `compacted_to` the
/// manifest says as well how far compaction has come. Durable when it returns, and the old files are unlinked. Blocks.
pub(crate) fn rewrite(
    parts: &RewriteParts,
    log: &Arc<LogCell>,
    segments: &[SegmentId],
    compacted_to: Option<Offset>,
    pace: &dyn Pace,
    keeper: &mut dyn Keeper,
) -> Result<Rewritten, RewriteError> {
    let _claim = parts.changes.claim(log.id());
    let job = Job::of(log, segments)?;
    let Written {
        new,
        before,
        after,
        read,
    } = job.write(parts, log, pace, keeper)?;
    let old = job.ids();
    let change_to = match &new {
        Some(new) => Some(Change::Replace {
            old: old.clone(),
            new: *new,
            compacted_to,
        }),
        None => compacted_to.map(Change::CompactedTo),
    };
    let told = new.as_ref().map_or(Ok(()), |new| {
        let summary = keeper.summary();
        write_summary_of(parts, log.id(), &old, new.id, summary)
    });
    let outcome = told.and_then(|()| {
        let source = |source| RewriteError::Keep {
            segment: old[0],
            source,
        };
        let _switches = match before.records > after.records {
            true => keeper.may_switch().map_err(source)?,
            false => None,
        };
        change_to.map_or(Ok(()), |to| change(parts, log, to))
    });
    if let (Err(error), Some(new)) = (&outcome, &new)
        && !matches!(error, RewriteError::Stopped)
    {
        // Nothing names it, and nothing will.
        let directory = parts.files.data.of_log(log.id());
        remove_files(parts.files.data.disk(), &directory, new.id);
    }
    if !read.is_empty() {
        parts.closing.close(read);
    }
    outcome.map(|()| Rewritten {
        old,
        new,
        before,
        after,
    })
}

/// Makes the summary of a new segment durable: this one, or what those of the old ones say.
fn write_summary_of(
    parts: &RewriteParts,
    log: LogId,
    old: &[SegmentId],
    new: SegmentId,
    summary: Option<SummaryWriter>,
) -> Result<(), RewriteError> {
    let (disk, directory) = (parts.files.data.shared_disk(), parts.files.data.of_log(log));
    let write = || {
        let is_written = match summary {
            Some(summary) => summary.finish().map(|()| true)?,
            None => carry_on(&disk, &directory, log, old, new)?,
        };
        match is_written {
            true => disk.sync_dir(&directory),
            false => Ok(()),
        }
    };
    write().map_err(|source| RewriteError::of_disk(new, source, 0))
}

/// Asks the settler for a change, and waits for its answer.
fn change(parts: &RewriteParts, log: &Arc<LogCell>, to: Change) -> Result<(), RewriteError> {
    let (segment, need_bytes) = match &to {
        Change::Replace { new, .. } => (new.id, new.sealed.map_or(0, |sealed| sealed.bytes)),
        Change::CompactedTo(offset) => (SegmentId::first(*offset), 0),
    };
    let answer = parts.changes.ask(log.id(), to);
    // A round that is under way may come to it first.
    parts.dirty.push_once(log);
    loop {
        parts.settler.apply_changes();
        match answer.recv_timeout(WATCH_INTERVAL) {
            Ok(Outcome::Applied) => return Ok(()),
            Ok(Outcome::NoLongerLive(segment)) => {
                return Err(RewriteError::NoLongerLive { segment });
            }
            Ok(Outcome::NoSpace) => {
                return Err(RewriteError::NoSpace {
                    segment,
                    need_bytes,
                });
            }
            Ok(Outcome::Deleted) => return Err(RewriteError::Deleted { log: log.id() }),
            Err(RecvTimeoutError::Disconnected) => return Err(RewriteError::Stopped),
            Err(RecvTimeoutError::Timeout) if parts.has_stopped() => {
                return Err(RewriteError::Stopped);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The name of what takes the place of neighbours: a generation above all of theirs.
pub(crate) fn new_id(old: &[SegmentId]) -> SegmentId {
    let generations = old.iter().map(|id| id.generation);
    SegmentId {
        base: old.first().expect("a rewrite is of a segment").base,
        generation: generations.max().expect("a rewrite is of a segment") + 1,
    }
}

/// A new segment that is written.
struct Written {
    /// None, and no file, if the only old one would stay as it is.
    new: Option<SegmentEntry>,
    before: Amount,
    after: Amount,
    /// The old ones that are large, open: unlinked so, they keep nobody waiting.
    read: Vec<Arc<Source>>,
}

/// The segments of one rewrite, as the manifest names them.
struct Job {
    manifest: Arc<Manifest>,
    sources: Vec<(SegmentEntry, Sealed)>,
}

/// What the index file says of producers and epochs at the end of a segment.
#[derive(Clone, Default)]
struct Carried {
    producers: Producers,
    epochs: Epochs,
}

impl Job {
    /// Errors: `NoLongerLive` for what is no sealed segment of the log, or no neighbour of the one before.
    fn of(log: &LogCell, segments: &[SegmentId]) -> Result<Job, RewriteError> {
        let first = *segments.first().expect("a rewrite is of a segment");
        let (manifest, ..) = live(log, first)?;
        let named = manifest
            .sealed()
            .skip_while(|(entry, _)| entry.id != first)
            .map(|(entry, sealed)| (*entry, *sealed));
        let sources: Vec<_> = named.take(segments.len()).collect();
        for (index, segment) in segments.iter().enumerate() {
            if sources.get(index).map(|(entry, _)| entry.id) != Some(*segment) {
                return Err(RewriteError::NoLongerLive { segment: *segment });
            }
        }
        Ok(Job { manifest, sources })
    }

    fn ids(&self) -> Vec<SegmentId> {
        self.sources.iter().map(|(entry, _)| entry.id).collect()
    }

    fn first(&self) -> &(SegmentEntry, Sealed) {
        self.sources.first().expect("a rewrite is of a segment")
    }

    fn end_offset(&self) -> Offset {
        let (_, last) = self.sources.last().expect("a rewrite is of a segment");
        last.end_offset
    }

    /// Writes the new segment, durably. None, and no file, if the only one would stay as it is: then nothing is written.
    fn write(
        &self,
        parts: &RewriteParts,
        log: &LogCell,
        pace: &dyn Pace,
        keeper: &mut dyn Keeper,
    ) -> Result<Written, RewriteError> {
        let id = new_id(&self.ids());
        let data = &parts.files.data;
        let need_bytes = self.sources.iter().map(|(_, sealed)| sealed.bytes).sum();
        let failed = |source| RewriteError::of_disk(id, source, need_bytes);
        let directory = data.of_log(log.id());
        let create_once = || {
            let (disk, directory) = (data.shared_disk(), directory.clone());
            let has_thread = parts.threads == Threads::Own;
            SparseWriter::create(disk, directory, log.id(), id, need_bytes, has_thread)
        };
        let create = || match create_once() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // What the rewrite before this one has replaced may not be given back yet.
                parts.closing.wait();
                create_once()
            }
            created => created,
        };
        let mut copy = Copy {
            writer: None,
            create: &create,
            first: self.first().0.id,
            failed: &failed,
            before: Amount::default(),
            after: Amount::default(),
            unspent: 0,
            read: Vec::new(),
        };
        if self.sources.len() > 1 || keeper.wants_new() {
            copy.begin()?;
        }
        let copied = self.copy(parts, log, pace, keeper, &mut copy);
        let finished = copied.and_then(|carried| {
            let Some(writer) = &mut copy.writer else {
                return Ok(None);
            };
            let since = self.first().1.first_append_time;
            let Carried { producers, epochs } = carried;
            let entry = writer.finish(self.end_offset(), since, producers, epochs);
            entry.map(Some).map_err(failed)
        });
        if finished.is_err()
            && let Some(writer) = copy.writer
        {
            writer.discard();
        }
        let (before, after) = (copy.before, copy.after);
        Ok(Written {
            new: finished?,
            before,
            after,
            read: copy.read,
        })
    }

    /// Reads the old segments, and writes what is kept of them. Gives what the index of the last one says.
    fn copy(
        &self,
        parts: &RewriteParts,
        log: &LogCell,
        pace: &dyn Pace,
        keeper: &mut dyn Keeper,
        copy: &mut Copy<'_>,
    ) -> Result<Carried, RewriteError> {
        let mut carried = Carried::default();
        let has_thread = parts.threads == Threads::Own;
        for (number, (entry, sealed)) in self.sources.iter().enumerate() {
            let is_last_source = number + 1 == self.sources.len();
            let source = Arc::new(Source::open(parts, log, *entry, *sealed)?);
            if is_last_source {
                carried = self.carried(parts, log, &source);
            }
            walk(source.batches(), parts.threads, pace, &mut |found| {
                if is_last_source && source.index.is_none() {
                    carried.note(found);
                }
                let is_last = is_last_source && found.is_last;
                match copy.judge(found, entry.id, is_last, keeper)? {
                    Kept::Same if copy.writer.is_none() => copy.after.count(&found.header),
                    Kept::Same => copy.push(&found.header, &found.bytes, found, pace)?,
                    Kept::Other(other) => {
                        copy.catch_up(&source, &found.header, pace)?;
                        if let Some((header, bytes)) = other {
                            copy.push(&header, &bytes, found, pace)?;
                        }
                    }
                }
                copy.spend(pace)?;
                Ok(ControlFlow::Continue(()))
            })?;
            if copy.writer.is_some() {
                source.goes();
                let is_large = has_thread && sealed.bytes >= OPEN_BYTES_MIN;
                copy.read.extend(is_large.then_some(source));
            }
        }
        let segment = self.first().0.id;
        keeper
            .finish()
            .map_err(|source| RewriteError::Keep { segment, source })?;
        Ok(carried)
    }

    /// What is known of producers and epochs at the end of the last segment: what its index says; without one, what the index of
    /// the segment before says, to which its batches are added.
    fn carried(&self, parts: &RewriteParts, log: &LogCell, last: &Source) -> Carried {
        if let Some(index) = &last.index {
            return Carried {
                producers: index.producers.clone(),
                epochs: index.epochs.clone(),
            };
        }
        let mut before = self.manifest.sealed().rev();
        let before = before.find(|(entry, _)| entry.id.base < last.entry.id.base);
        let index =
            before.and_then(|(entry, sealed)| index_of(parts, log.id(), entry.id, sealed.bytes));
        index.map_or_else(Carried::default, |index| Carried {
            producers: index.producers,
            epochs: index.epochs,
        })
    }
}

impl Carried {
    fn note(&mut self, found: &Found) {
        let header = &found.header;
        self.producers
            .record(header, header.base(), found.append_time);
        if let Some(epoch) = header.epoch() {
            self.epochs.begin(epoch, header.base());
        }
    }
}

/// The new segment as it is being written.
struct Copy<'f> {
    /// None as long as it does not differ from the only old one: mostly there is nothing to write.
    writer: Option<SparseWriter>,
    create: &'f dyn Fn() -> io::Result<SparseWriter>,
    /// The first segment that is replaced.
    first: SegmentId,
    failed: &'f dyn Fn(io::Error) -> RewriteError,
    before: Amount,
    after: Amount,
    /// Bytes that were written and that the pace does not know of.
    unspent: u64,
    /// See [`Written::read`].
    read: Vec<Arc<Source>>,
}

/// What is kept of a batch.
enum Kept {
    /// All of it, byte for byte.
    Same,
    /// Another in its place, or nothing.
    Other(Option<(BatchHeader, Bytes)>),
}

impl Copy<'_> {
    fn begin(&mut self) -> Result<(), RewriteError> {
        self.writer = Some((self.create)().map_err(self.failed)?);
        Ok(())
    }

    /// Has a batch judged. Of the last one of all at least its place is kept.
    fn judge(
        &mut self,
        found: &Found,
        segment: SegmentId,
        is_last: bool,
        keeper: &mut dyn Keeper,
    ) -> Result<Kept, RewriteError> {
        self.before.count(&found.header);
        let verdict = keeper
            .judge(&found.header, &found.bytes)
            .map_err(|source| RewriteError::Keep { segment, source })?;
        let kept = match verdict {
            Verdict::Keep => return Ok(Kept::Same),
            Verdict::Drop if is_last => without_records(&found.header),
            Verdict::Drop => return Ok(Kept::Other(None)),
            Verdict::Replace(bytes) => bytes,
        };
        if kept == found.bytes {
            return Ok(Kept::Same);
        }
        let header = checked(&kept, &found.header);
        Ok(Kept::Other(Some((header, kept))))
    }

    /// Before the first batch that is not kept as it is: begins to write, with the batches of the only source before it.
    fn catch_up(
        &mut self,
        source: &Arc<Source>,
        until: &BatchHeader,
        pace: &dyn Pace,
    ) -> Result<(), RewriteError> {
        if self.writer.is_some() {
            return Ok(());
        }
        self.begin()?;
        self.after = Amount::default();
        let mut batches = source.batches();
        while let Some(found) = batches.next_batch(pace)? {
            if found.header.base() >= until.base() {
                break;
            }
            self.push(&found.header, &found.bytes, &found, pace)?;
            self.spend(pace)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        header: &BatchHeader,
        bytes: &Bytes,
        found: &Found,
        pace: &dyn Pace,
    ) -> Result<(), RewriteError> {
        let writer = self.writer.as_mut().expect("it was begun");
        if !writer.has_room_for(header) {
            let segment = self.first;
            return Err(RewriteError::TooLarge { segment });
        }
        self.after.count(header);
        self.unspent += bytes.len() as u64;
        writer
            .push(header, bytes, found.append_time, 2 * pace.piece_bytes())
            .map_err(self.failed)
    }

    fn spend(&mut self, pace: &dyn Pace) -> Result<(), RewriteError> {
        if self.unspent >= SPEND_BYTES {
            pace.spend(std::mem::take(&mut self.unspent))?;
        }
        Ok(())
    }
}

/// The header of a batch that takes another's place.
fn checked(bytes: &Bytes, old: &BatchHeader) -> BatchHeader {
    let batch = Batch::parse(bytes.clone()).expect("a keeper gives whole batches");
    let new = *batch.header();
    assert!(
        new.base() == old.base() && new.last_offset_delta == old.last_offset_delta,
        "offsets never change: {} for {}",
        new.base(),
        old.base()
    );
    assert!(
        new.record_count <= old.record_count,
        "a rewrite adds no records"
    );
    new
}
