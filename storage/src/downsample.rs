//! A log in windows of time: how many records each key has in each, and count, sum, smallest and largest of some values. What
//! thinning took is known by its summaries; everything else is read.
//!
//! Caller: the broker's downsampled replay, on a thread that may block, step by step. Windows are those of thinning: per key, at
//! multiples of their length since 1970. Memory is bounded: what is known of windows may take so many bytes, and beside that there
//! are one section of a summary and one run of batches.
//! Invariants: a record counts once, by the summary of its segment or by itself. A segment counts as it was at one moment: what a
//! rewrite has replaced meanwhile is looked at again, and where the new segment begins before what counts already, all of the log is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::str::FromStr as _;
use std::sync::Arc;

use bytes::Bytes;
use model::batch::{Batch, DecompressLimit, RecordRef, split_unverified};
use model::topic_config::thin::{ThinTiers, ValueAt};
use model::{Offset, Timestamp};

use crate::cleanup::thinning::{Number, ThinPolicy, number_at, start};
use crate::error::ReadError;
use crate::log::{Log, LogScan, ScanRange, Scanned};
use crate::manifest::SegmentKind;
use crate::segment::SegmentId;
use crate::segment::key_index::Sought;
use crate::segment::summary::{Stats, Summary, SummaryReader, WindowKey, read_summary};

/// Stored bytes that are copied at a time.
const RUN_BYTES: usize = 256 << 10;
/// What a window takes beside its key and values: itself in a map that is partly empty.
const WINDOW_BYTES: usize = 2 * size_of::<(WindowKey, DownsampledWindow)>();
/// How often what was read may be replaced meanwhile.
const RETRIES_MAX: u32 = 64;

/// What is asked of a log.
#[derive(Clone, Debug)]
pub struct Downsample {
    /// The length of windows, in milliseconds: 1 or more.
    pub window_ms: i64,
    /// Windows that overlap with these times are told, as wholes. None for all.
    pub times: Option<Range<Timestamp>>,
    /// Of which keys.
    pub keys: DownsampledKeys,
    /// Of which values.
    pub values: Vec<ValueAt>,
    /// What the windows that are known may take in memory.
    pub memory_bytes: usize,
}

/// Which keys are wanted.
#[derive(Clone, Debug, Default)]
pub enum DownsampledKeys {
    /// All, and records without one.
    #[default]
    All,
    /// This one.
    Is(Bytes),
    /// Those that begin so.
    Prefix(Bytes),
}

impl DownsampledKeys {
    fn accept(&self, key: Option<&[u8]>) -> bool {
        match self {
            DownsampledKeys::All => true,
            DownsampledKeys::Is(wanted) => key == Some(wanted),
            DownsampledKeys::Prefix(wanted) => key.is_some_and(|key| key.starts_with(wanted)),
        }
    }
}

/// What is known of a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DownsampledWindow {
    /// How many records.
    pub records: u64,
    /// Of each value that was asked for: of how many records, and what.
    pub values: Vec<(u64, Option<Stats>)>,
    /// From where it is known.
    pub sources: Sources,
}

/// From where something is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// From records, of which none is missing that is not told of elsewhere.
    pub raw: bool,
    /// From summaries of what thinning has taken.
    pub summary: bool,
    /// From records of a segment from which cleanup has taken some, of which nothing tells.
    pub kept: bool,
}

impl std::ops::BitOrAssign for Sources {
    fn bitor_assign(&mut self, other: Sources) {
        self.raw |= other.raw;
        self.summary |= other.summary;
        self.kept |= other.kept;
    }
}

/// Why a log cannot be told in windows.
#[derive(Debug, thiserror::Error)]
pub enum DownsampleError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There are more windows than memory for them.
    #[error("the windows take more than {bytes_max} bytes")]
    TooMany {
        /// The bound.
        bytes_max: usize,
    },
    /// Cleanup replaces segments faster than they are read.
    #[error("cleanup replaced what was being read, {RETRIES_MAX} times")]
    Unsettled,
}

/// All windows, in the order of keys and beginnings. A window of a summary that does not go into the length that is asked for
/// stands as it is.
pub type Windows = BTreeMap<WindowKey, DownsampledWindow>;

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DownsampleCounts {
    /// Records.
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Bytes that an index passed over.
    pub skipped_bytes: u64,
    /// Windows of summaries.
    pub summed_windows: u64,
    /// Ranges of offsets that are lost or hold no records that can be read.
    pub gaps: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Downsampling {
    log: Arc<Log>,
    ask: Arc<Downsample>,
    /// The times of all windows that are wanted.
    times: Option<Range<Timestamp>>,
    /// Whether a record without a value is a removal, which thinning does not count.
    compacts: bool,
    /// What lies before counts already.
    next: Offset,
    end: Offset,
    known: Known,
    part: Option<Part>,
    retries: u32,
    counts: DownsampleCounts,
    policies: HashMap<String, Option<Arc<ThinPolicy>>>,
    numbers: Vec<Number>,
}

/// Windows, and what they take in memory.
#[derive(Debug, Default)]
struct Known {
    windows: Windows,
    bytes: usize,
}

/// What is being read: a sealed segment, or all that is not sealed.
#[derive(Debug)]
struct Part {
    id: Option<SegmentId>,
    offsets: Range<Offset>,
    kind: SegmentKind,
    summary: Option<SummaryReader>,
    has_summary: bool,
    section: Option<Section>,
    scan: LogScan,
    /// It counts once all of it was read.
    known: Known,
}

/// A section of a summary: which records it counts.
#[derive(Debug)]
struct Section {
    counted: Vec<Range<Offset>>,
    windows: HashMap<Arc<[u8]>, HashSet<(i64, i64)>>,
    keyless: HashSet<(i64, i64)>,
    lengths: Vec<i64>,
    policy: Arc<ThinPolicy>,
}

impl Section {
    fn end(&self) -> Offset {
        self.counted.last().map_or(Offset::ZERO, |range| range.end)
    }

    /// Whether the section counts a record. `numbers` is memory for its values.
    fn counts(&self, record: &RecordRef<'_>, compacts: bool, numbers: &mut Vec<Number>) -> bool {
        if !self
            .counted
            .iter()
            .any(|range| range.contains(&record.offset))
        {
            return false;
        }
        let windows = match record.key {
            Some(key) => self.windows.get(key),
            None => Some(&self.keyless),
        };
        let time = record.timestamp.millis();
        let is_in = windows.is_some_and(|windows| {
            let mut lengths = self.lengths.iter();
            lengths.any(|length| windows.contains(&(*length, start(time, *length))))
        });
        // What thinning cannot read it does not count, and keeps.
        let is_removal = compacts && record.value.is_none();
        numbers.clear();
        is_in && !is_removal && self.policy.reads(record.value, numbers)
    }
}

/// The times of all windows of this length that overlap with these.
fn whole(times: &Range<Timestamp>, window_ms: i64) -> Range<Timestamp> {
    let (from, to) = (times.start.millis(), times.end.millis());
    let end = match to {
        i64::MAX => to,
        to => start(to.saturating_sub(1), window_ms).saturating_add(window_ms),
    };
    Timestamp::from_millis(start(from, window_ms))..Timestamp::from_millis(end)
}

impl Known {
    fn window(&mut self, at: WindowKey, values: usize) -> &mut DownsampledWindow {
        let bytes = &mut self.bytes;
        self.windows.entry(at).or_insert_with_key(|at| {
            let key = at.key.as_ref().map_or(0, |key| key.len());
            *bytes += WINDOW_BYTES + key + values * size_of::<(u64, Option<Stats>)>();
            DownsampledWindow {
                values: vec![(0, None); values],
                ..DownsampledWindow::default()
            }
        })
    }

    fn merge(&mut self, other: Known) {
        for (at, more) in other.windows {
            let window = self.window(at, more.values.len());
            window.records = window.records.saturating_add(more.records);
            window.sources |= more.sources;
            for (value, (count, stats)) in window.values.iter_mut().zip(more.values) {
                if let Some(stats) = stats {
                    add(value, count, &stats);
                }
            }
        }
    }
}

fn add(value: &mut (u64, Option<Stats>), count: u64, stats: &Stats) {
    value.0 = value.0.saturating_add(count);
    value.1.get_or_insert(Stats::NONE).merge(stats);
}

impl Log {
    /// Begins to tell the log in windows. What is appended later need not be in them. Reads nothing before its first step.
    pub fn downsample(self: &Arc<Log>, ask: Arc<Downsample>) -> Downsampling {
        assert!(ask.window_ms > 0, "a window has a length");
        let bounds = self.bounds();
        Downsampling {
            log: Arc::clone(self),
            times: ask.times.as_ref().map(|times| whole(times, ask.window_ms)),
            compacts: self.settings().compaction.is_some(),
            ask,
            next: bounds.start,
            end: bounds.durable_end,
            known: Known::default(),
            part: None,
            retries: 0,
            counts: DownsampleCounts::default(),
            policies: HashMap::new(),
            numbers: Vec::new(),
        }
    }
}

impl Downsampling {
    /// Reads on, about so many bytes. True at the end. Blocks.
    pub fn step(&mut self, bytes_max: u64) -> Result<bool, DownsampleError> {
        let until = self.read_bytes() + bytes_max;
        while self.read_bytes() < until {
            let part = match self.part.take() {
                Some(part) => Some(part),
                None => self.begin()?,
            };
            let Some(mut part) = part else {
                return Ok(true);
            };
            match self.read_on(&mut part)? {
                true => self.part = Some(part),
                false => self.end_part(part)?,
            }
        }
        Ok(false)
    }

    fn read_bytes(&self) -> u64 {
        let part = self.part.as_ref();
        self.counts.bytes + part.map_or(0, |part| part.scan.counts().bytes)
    }

    /// What lies before counts already.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// How much it has looked at.
    pub fn counts(&self) -> DownsampleCounts {
        self.counts
    }

    /// What it has found, at the end, and what that takes in memory.
    pub fn into_windows(self) -> (Windows, usize) {
        (self.known.windows, self.known.bytes)
    }

    /// The next segment, or what is behind the last one. None at the end.
    fn begin(&mut self) -> Result<Option<Part>, DownsampleError> {
        loop {
            let (first, log_start) = {
                let state = self.log.cell().locked();
                if state.deleted {
                    return Err(ReadError::Deleted.into());
                }
                let mut sealed = state.segments.sealed();
                let next = self.next.max(state.bounds.start);
                let first = sealed.find(|(_, sealed)| sealed.end_offset > next);
                let first = first.map(|(entry, sealed)| (*entry, sealed.end_offset));
                (first, state.bounds.start)
            };
            self.next = self.next.max(log_start);
            if self.next >= self.end {
                return Ok(None);
            }
            let Some((entry, end)) = first else {
                let offsets = self.next..self.end;
                return Ok(Some(self.part(None, offsets, SegmentKind::Plain, None)));
            };
            if entry.id.base < self.next && self.next > log_start {
                // It stands for segments of which some count already.
                self.retry()?;
                self.known = Known::default();
                self.next = log_start;
                continue;
            }
            let (disk, directory) = self.log.place();
            let summary = read_summary(disk, &directory, self.log.id(), entry.id);
            let summary = summary.map_err(|source| self.io(source))?;
            return Ok(Some(self.part(
                Some(entry.id),
                self.next..end,
                entry.kind,
                summary,
            )));
        }
    }

    fn part(
        &self,
        id: Option<SegmentId>,
        offsets: Range<Offset>,
        kind: SegmentKind,
        summary: Option<SummaryReader>,
    ) -> Part {
        let scan = self.log.scan(ScanRange {
            offsets: offsets.clone(),
            times: self.times.clone(),
            key: match &self.ask.keys {
                DownsampledKeys::Is(key) => Some(Sought::Key(key.clone())),
                DownsampledKeys::All | DownsampledKeys::Prefix(_) => None,
            },
            run_bytes: RUN_BYTES,
        });
        Part {
            id,
            offsets,
            kind,
            has_summary: summary.is_some(),
            summary,
            section: None,
            scan,
            known: Known::default(),
        }
    }

    fn io(&self, source: io::Error) -> DownsampleError {
        let from = self.next;
        ReadError::Io { from, source }.into()
    }

    fn retry(&mut self) -> Result<(), DownsampleError> {
        self.retries += 1;
        match self.retries > RETRIES_MAX {
            true => Err(DownsampleError::Unsettled),
            false => Ok(()),
        }
    }

    /// Takes in the next batches of a part. False at its end.
    fn read_on(&mut self, part: &mut Part) -> Result<bool, DownsampleError> {
        match part.scan.next_step()? {
            None => {
                while self.next_section(part)? {}
                Ok(false)
            }
            Some(Scanned::Gap { .. }) => {
                self.counts.gaps += 1;
                Ok(true)
            }
            Some(Scanned::Run { batches, offsets }) => {
                for batch in split_unverified(batches) {
                    let batch =
                        batch.expect("the storage gives whole batches that it has verified");
                    if !batch.header().is_control() && !self.take_batch(part, &batch, &offsets)? {
                        self.counts.gaps += 1;
                    }
                    self.check_memory(part)?;
                }
                Ok(true)
            }
        }
    }

    fn check_memory(&self, part: &Part) -> Result<(), DownsampleError> {
        let bytes_max = self.ask.memory_bytes;
        match self.known.bytes + part.known.bytes > bytes_max {
            true => Err(DownsampleError::TooMany { bytes_max }),
            false => Ok(()),
        }
    }

    /// Takes in a batch's records. False if some cannot be read.
    fn take_batch(
        &mut self,
        part: &mut Part,
        batch: &Batch,
        offsets: &Range<Offset>,
    ) -> Result<bool, DownsampleError> {
        let Ok(mut records) = batch.records(DecompressLimit::default()) else {
            return Ok(false);
        };
        while let Some(record) = records.next_ref() {
            let Ok(record) = record else {
                return Ok(false);
            };
            if offsets.contains(&record.offset) {
                self.take_record(part, &record)?;
            }
        }
        Ok(true)
    }

    fn take_record(
        &mut self,
        part: &mut Part,
        record: &RecordRef<'_>,
    ) -> Result<(), DownsampleError> {
        self.counts.records += 1;
        let is_behind = |section: &Section| section.end() <= record.offset;
        while part.section.as_ref().is_none_or(is_behind) && self.next_section(part)? {}
        let times = self.times.as_ref();
        let is_wanted = times.is_none_or(|times| times.contains(&record.timestamp));
        if !is_wanted || !self.ask.keys.accept(record.key) {
            return Ok(());
        }
        let section = part.section.as_ref();
        let numbers = &mut self.numbers;
        if section.is_some_and(|section| section.counts(record, self.compacts, numbers)) {
            return Ok(());
        }
        let is_whole = part.kind == SegmentKind::Plain || part.has_summary;
        let ask = &self.ask;
        let at = WindowKey {
            key: record.key.map(Arc::from),
            start: start(record.timestamp.millis(), ask.window_ms),
            window_ms: ask.window_ms,
        };
        let window = part.known.window(at, ask.values.len());
        window.records += 1;
        window.sources |= Sources {
            raw: is_whole,
            kept: !is_whole,
            summary: false,
        };
        for (value, at) in window.values.iter_mut().zip(&ask.values) {
            let number = record.value.and_then(|value| number_at(at, value));
            if let Some(number) = number {
                add(value, 1, &Stats::one(number.to_f64()));
            }
        }
        Ok(())
    }

    /// Takes in the next section of a part's summary. False if there is none.
    fn next_section(&mut self, part: &mut Part) -> Result<bool, DownsampleError> {
        let Some(summary) = &mut part.summary else {
            return Ok(false);
        };
        let read = summary.next_section();
        let Some(section) = read.map_err(|source| self.io(source))? else {
            part.summary = None;
            return Ok(false);
        };
        let Some(policy) = self.policy(&section.tiers) else {
            // Its own words cannot be read: nothing of it is known, and what is left of the records counts.
            part.has_summary = false;
            part.section = None;
            return Ok(true);
        };
        self.take_windows(part, &section);
        self.check_memory(part)?;
        let mut counts = Section {
            counted: section.counted,
            windows: HashMap::new(),
            keyless: HashSet::new(),
            lengths: Vec::new(),
            policy,
        };
        for window in section.windows {
            let WindowKey {
                key,
                start,
                window_ms,
            } = window.at;
            if !counts.lengths.contains(&window_ms) {
                counts.lengths.push(window_ms);
            }
            let of_key = match key {
                Some(key) => counts.windows.entry(key).or_default(),
                None => &mut counts.keyless,
            };
            of_key.insert((window_ms, start));
        }
        part.section = Some(counts);
        Ok(true)
    }

    /// Adds what a section tells of the wanted windows.
    fn take_windows(&mut self, part: &mut Part, section: &Summary) {
        let ask = &self.ask;
        let places: Vec<Option<usize>> = ask
            .values
            .iter()
            .map(|value| {
                let name = value.to_string();
                section.values.iter().position(|known| *known == name)
            })
            .collect();
        for window in &section.windows {
            let length = window.at.window_ms;
            let overlaps = self.times.as_ref().is_none_or(|times| {
                let end = window.at.start.saturating_add(length);
                window.at.start < times.end.millis() && end > times.start.millis()
            });
            if !overlaps || !ask.keys.accept(window.at.key.as_deref()) {
                continue;
            }
            self.counts.summed_windows += 1;
            let mut at = window.at.clone();
            if ask.window_ms % length == 0 {
                at.start = start(at.start, ask.window_ms);
                at.window_ms = ask.window_ms;
            }
            let summed = part.known.window(at, ask.values.len());
            summed.records = summed.records.saturating_add(window.count);
            summed.sources.summary = true;
            for (value, place) in summed.values.iter_mut().zip(&places) {
                if let Some(place) = place {
                    add(value, window.count, &window.stats[*place]);
                }
            }
        }
    }

    fn policy(&mut self, tiers: &str) -> Option<Arc<ThinPolicy>> {
        if let Some(known) = self.policies.get(tiers) {
            return known.clone();
        }
        let read = ThinTiers::from_str(tiers).ok();
        let policy = read.and_then(|tiers| ThinPolicy::new(&tiers)).map(Arc::new);
        self.policies.insert(tiers.to_owned(), policy.clone());
        policy
    }

    /// A part counts, if all of it was read from one segment.
    fn end_part(&mut self, part: Part) -> Result<(), DownsampleError> {
        let counts = part.scan.counts();
        self.counts.bytes += counts.bytes;
        self.counts.skipped_bytes += counts.skipped_bytes;
        let is_as_it_was = match part.id {
            Some(id) => self.log.cell().has_segment(id),
            None => {
                // Some of it may have been sealed; what was written again since may have been read for it.
                let state = self.log.cell().locked();
                let mut sealed = state.segments.sealed();
                sealed.all(|(entry, sealed)| {
                    sealed.end_offset <= part.offsets.start || entry.kind == SegmentKind::Plain
                })
            }
        };
        if !is_as_it_was {
            return self.retry();
        }
        self.next = part.offsets.end;
        self.known.merge(part.known);
        Ok(())
    }
}
