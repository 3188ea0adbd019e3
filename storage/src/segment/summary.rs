//! What a thinned segment held before: count, and sum, smallest and largest of each value, per key and window.
//!
//! Written beside the segment when it is thinned, as `<base offset>.<generation>.sum`, and merged when it is thinned again, so
//! that a view of fewer points can be served later that knows all records. Callers: thinning's executor writes, every rewrite
//! carries it on, the tools read.
//! Invariant: windows rise by key, time and length, and none comes twice; each counts records of this segment only.
//!
//! ```text
//! envelope (fields.rs) with magic "thinsums", version 1, around
//! | log id 20 | base offset i64 | generation u32 | tiers blob | tier u8 | ranges u32 | per range: start i64, end i64 |
//! | values u32 | per value: name blob |
//! | windows u32 | per window: key kind u8 | key blob, if kind 1 | start i64 | length i64 | records u64 |
//!                 per value: sum f64 | smallest f64 | largest f64 |
//! ```
//! Key kind 0: no key, 1: this one, 2: that of the window before.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use model::{LogId, Offset};

use super::SegmentId;
use crate::fields::{Fields, FormatError, envelope, open_envelope, put_blob, put_log_id};
use crate::io::{Disk, read_file, write_new_file};

/// The magic of a summary.
pub const MAGIC: &[u8; 8] = b"thinsums";
/// The version that this build writes.
pub const VERSION: u32 = 1;

/// The windows of one segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The setting `thin.tiers` by which the segment was thinned.
    pub tiers: String,
    /// All of its windows were reached by at least this tier of it, counted from 1; 0 if not all were.
    pub tier: u8,
    /// Where the records stand that the windows count: ranges that rise and do not touch. A record elsewhere is of a segment that was
    /// not thinned before both became one, and is not counted, though its window is.
    pub counted: Vec<Range<Offset>>,
    /// The values that are summed up, as `thin.tiers` spells them.
    pub values: Vec<String>,
    /// In the order of their keys, beginnings and lengths.
    pub windows: Vec<Window>,
}

/// Which window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowKey {
    /// The key of its records; None for those that have none.
    pub key: Option<Box<[u8]>>,
    /// Where it begins: record time, in milliseconds since 1970.
    pub start: i64,
    /// Its length.
    pub window_ms: i64,
}

/// What was in a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Which one.
    pub at: WindowKey,
    /// How many records that could be read.
    pub count: u64,
    /// Of each of the summary's values.
    pub stats: Vec<Stats>,
}

/// What is known of a value over many records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// The sum.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Stats {
    /// Of no record.
    pub const NONE: Stats = Stats {
        sum: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
    };

    /// Of one record.
    pub fn one(value: f64) -> Stats {
        Stats {
            sum: value,
            min: value,
            max: value,
        }
    }

    /// Takes in what is known of others.
    pub fn merge(&mut self, other: &Stats) {
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

impl Summary {
    /// Takes in what another one tells of other records, by the same or another setting: windows that are the same are merged if
    /// the same values are summed up; otherwise what is told with more windows counts.
    pub fn merge(&mut self, other: Summary) {
        if self.values != other.values {
            if self.windows.len() < other.windows.len() {
                *self = other;
            }
            self.tier = 0;
            return;
        }
        if self.tiers != other.tiers {
            self.tier = 0;
        }
        self.tier = self.tier.min(other.tier);
        self.counted = joined(std::mem::take(&mut self.counted), other.counted);
        let mut windows: BTreeMap<WindowKey, (u64, Vec<Stats>)> = BTreeMap::new();
        for window in std::mem::take(&mut self.windows)
            .into_iter()
            .chain(other.windows)
        {
            let none = || (0, vec![Stats::NONE; window.stats.len()]);
            let (count, merged) = windows.entry(window.at).or_insert_with(none);
            *count = count.saturating_add(window.count);
            for (merged, stats) in merged.iter_mut().zip(&window.stats) {
                merged.merge(stats);
            }
        }
        let window = |(at, (count, stats))| Window { at, count, stats };
        self.windows = windows.into_iter().map(window).collect();
    }

    /// The file's bytes.
    pub fn encode(&self, log: LogId, id: SegmentId) -> Vec<u8> {
        let mut body = Vec::new();
        put_log_id(&mut body, log);
        body.extend_from_slice(&id.base.to_wire().to_le_bytes());
        body.extend_from_slice(&id.generation.to_le_bytes());
        put_blob(&mut body, self.tiers.as_bytes());
        body.push(self.tier);
        put_count(&mut body, self.counted.len());
        for range in &self.counted {
            body.extend_from_slice(&range.start.to_wire().to_le_bytes());
            body.extend_from_slice(&range.end.to_wire().to_le_bytes());
        }
        put_count(&mut body, self.values.len());
        for value in &self.values {
            put_blob(&mut body, value.as_bytes());
        }
        put_count(&mut body, self.windows.len());
        let mut key_before = None;
        for window in &self.windows {
            // A key stands once, before its first window.
            let same = key_before == Some(&window.at.key);
            let kind = match (&window.at.key, same) {
                (_, true) => KEY_SAME,
                (Some(_), _) => KEY_BYTES,
                (None, _) => KEY_NONE,
            };
            body.push(kind);
            if let (KEY_BYTES, Some(key)) = (kind, &window.at.key) {
                put_blob(&mut body, key);
            }
            key_before = Some(&window.at.key);
            body.extend_from_slice(&window.at.start.to_le_bytes());
            body.extend_from_slice(&window.at.window_ms.to_le_bytes());
            body.extend_from_slice(&window.count.to_le_bytes());
            assert!(
                window.stats.len() == self.values.len(),
                "each value is summed up"
            );
            for stats in &window.stats {
                for number in [stats.sum, stats.min, stats.max] {
                    body.extend_from_slice(&number.to_bits().to_le_bytes());
                }
            }
        }
        envelope(MAGIC, VERSION, &body)
    }

    /// Reads a file back, and whose it is.
    pub fn decode(bytes: &[u8]) -> Result<(LogId, SegmentId, Summary), FormatError> {
        let opened = open_envelope(MAGIC, VERSION, bytes)?;
        let mut fields = Fields::new(opened.body);
        let log = fields.log_id()?;
        let id = SegmentId {
            base: fields.offset("base offset")?,
            generation: fields.u32()?,
        };
        let mut summary = Summary {
            tiers: take_text(&mut fields)?,
            tier: fields.u8()?,
            ..Summary::default()
        };
        for _ in 0..fields.count(RANGE_BYTES)? {
            let range = fields.offset("range start")?..fields.offset("range end")?;
            let before = summary.counted.last().map(|before| before.end);
            if range.is_empty() || before.is_some_and(|before| before >= range.start) {
                return Err(field("range order", range.start.to_wire()));
            }
            summary.counted.push(range);
        }
        for _ in 0..fields.count(4)? {
            summary.values.push(take_text(&mut fields)?);
        }
        let each = WINDOW_BYTES_MIN + summary.values.len() * STATS_BYTES;
        let mut key = None;
        for _ in 0..fields.count(each)? {
            let window = take_window(&mut fields, &mut key, summary.values.len())?;
            let last = summary.windows.last().map(|last| last.at.cmp(&window.at));
            if last.is_some_and(|order| order != Ordering::Less) {
                return Err(field("window order", window.at.start));
            }
            summary.windows.push(window);
        }
        let trailing = fields.rest().len() + opened.trailing.len();
        match trailing {
            0 => Ok((log, id, summary)),
            bytes => Err(FormatError::Trailing { bytes }),
        }
    }
}

/// Two lists of ranges as one, in which none touches the next.
fn joined(mut ranges: Vec<Range<Offset>>, more: Vec<Range<Offset>>) -> Vec<Range<Offset>> {
    ranges.extend(more);
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<Offset>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

const RANGE_BYTES: usize = 16;
const KEY_NONE: u8 = 0;
const KEY_BYTES: u8 = 1;
const KEY_SAME: u8 = 2;
const WINDOW_BYTES_MIN: usize = 1 + 8 + 8 + 8;
const STATS_BYTES: usize = 24;

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a piece's memory ends before its windows");
    out.extend_from_slice(&count.to_le_bytes());
}

fn field(field: &'static str, value: i64) -> FormatError {
    FormatError::Field {
        field,
        value: value.into(),
    }
}

fn take_text(fields: &mut Fields<'_>) -> Result<String, FormatError> {
    let text = std::str::from_utf8(fields.blob()?);
    Ok(text
        .map_err(|_| field("text, which is no UTF-8", 0))?
        .to_owned())
}

fn take_window(
    fields: &mut Fields<'_>,
    key: &mut Option<Option<Box<[u8]>>>,
    values: usize,
) -> Result<Window, FormatError> {
    let kind = fields.u8()?;
    match kind {
        KEY_NONE => *key = Some(None),
        KEY_BYTES => *key = Some(Some(fields.blob()?.into())),
        KEY_SAME if key.is_some() => {}
        _ => return Err(field("key kind", kind.into())),
    }
    let at = WindowKey {
        key: key.clone().flatten(),
        start: fields.i64()?,
        window_ms: fields.i64()?,
    };
    if at.window_ms <= 0 {
        return Err(field("window length", at.window_ms));
    }
    let count = fields.u64()?;
    let mut stats = Vec::with_capacity(values);
    for _ in 0..values {
        let mut number = || Ok::<f64, FormatError>(f64::from_bits(fields.u64()?));
        stats.push(Stats {
            sum: number()?,
            min: number()?,
            max: number()?,
        });
    }
    Ok(Window { at, count, stats })
}

/// No summary is longer than an envelope can be.
const BYTES_MAX: u64 = u32::MAX as u64;

/// What a segment's summary says, or why it is not used. None if it has none.
pub fn load_summary(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    id: SegmentId,
) -> io::Result<Option<Result<Summary, String>>> {
    if id.generation == 0 {
        return Ok(None);
    }
    let bytes = match read_file(disk, &id.summary_path(directory), BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(match Summary::decode(&bytes) {
        Ok((of_log, of, summary)) if (of_log, of) == (log, id) => Ok(summary),
        Ok((of_log, of, _)) => Err(format!(
            "the summary is of segment {of} of the log {of_log}"
        )),
        Err(error) => Err(error.to_string()),
    }))
}

/// What a segment's summary says. None if it has none, or one that is damaged or of another segment, which is told in the log:
/// without it nothing but the summary is missing.
pub fn read_summary(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    id: SegmentId,
) -> io::Result<Option<Summary>> {
    Ok(match load_summary(disk, directory, log, id)? {
        Some(Ok(summary)) => Some(summary),
        Some(Err(reason)) => {
            tracing::warn!(%log, segment = %id, reason, "a summary is not used");
            None
        }
        None => None,
    })
}

/// Writes a segment's summary, durably but for its name.
pub fn write_summary(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    id: SegmentId,
    summary: &Summary,
) -> io::Result<()> {
    let path = id.summary_path(directory);
    match disk.remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new_file(disk, &path, &summary.encode(log, id))
}

/// What is told of segments that become one. If one of them was not thinned, the new one is not thinned as a whole.
pub fn read_all(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    ids: &[SegmentId],
) -> io::Result<Option<Summary>> {
    let mut all: Option<Summary> = None;
    let mut is_whole = true;
    for id in ids {
        let Some(summary) = read_summary(disk, directory, log, *id)? else {
            is_whole = false;
            continue;
        };
        match &mut all {
            Some(all) => all.merge(summary),
            None => all = Some(summary),
        }
    }
    if let Some(all) = all.as_mut().filter(|_| !is_whole) {
        all.tier = 0;
    }
    Ok(all)
}
