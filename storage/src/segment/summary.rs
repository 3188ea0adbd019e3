//! What a thinned segment held before: count, and sum, smallest and largest of each value, per key and window.
//!
//! Written beside the segment when it is thinned, as `<base offset>.<generation>.sum`, and merged when it is thinned again, so
//! that a view of fewer points can be served later that knows all records. Callers: thinning's executor writes, every rewrite
//! carries it on, the tools read.
//! A file is a row of sections, each of which tells of a range of offsets, so that neither who writes nor who reads holds more
//! than one: a segment of tiny records has millions of windows. A window whose records lie in several sections stands in each of
//! them, with its part.
//! Invariants: the offsets of sections rise; in a section windows rise by key, time and length, and none comes twice; each counts
//! records of this segment only.
//!
//! ```text
//! per section, envelope (fields.rs) with magic "thinsums", version 2, around
//! | log id 20 | base offset i64 | generation u32 | section u32 | is last u8 |
//! | tiers blob | tier u8 | ranges u32 | per range: start i64, end i64 |
//! | values u32 | per value: name blob |
//! | windows u32 | per window: key kind u8 | key blob, if kind 1 | start i64 | length i64 | records u64 |
//!                 per value: sum f64 | smallest f64 | largest f64 |
//! ```
//! Key kind 0: no key, 1: this one, 2: that of the window before. A file of version 1 is one section, without the fields
//! `section` and `is last`.

use std::cmp::Ordering;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{LogId, Offset};

use super::SegmentId;
use crate::fields::{
    ENVELOPE_HEADER_BYTES, Fields, FormatError, envelope, envelope_bytes, open_envelope, put_blob,
    put_log_id,
};
use crate::io::{Disk, DiskFile, OpenHow};

/// The magic of a summary.
pub const MAGIC: &[u8; 8] = b"thinsums";
/// The version that this build writes.
pub const VERSION: u32 = 2;

/// A section: the windows of a range of one segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The setting `thin.tiers` by which the range was thinned.
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
    pub key: Option<Arc<[u8]>>,
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

/// Which section of a file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    number: u32,
    is_last: bool,
}

/// A section as it stands in a file.
struct Read<'a> {
    log: LogId,
    id: SegmentId,
    place: Place,
    section: Summary,
    trailing: &'a [u8],
}

impl Summary {
    fn encode(&self, log: LogId, id: SegmentId, place: Place) -> Vec<u8> {
        let mut body = Vec::new();
        put_log_id(&mut body, log);
        body.extend_from_slice(&id.base.to_wire().to_le_bytes());
        body.extend_from_slice(&id.generation.to_le_bytes());
        body.extend_from_slice(&place.number.to_le_bytes());
        body.push(place.is_last.into());
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

    /// The section at the front of some bytes.
    fn decode(bytes: &[u8]) -> Result<Read<'_>, FormatError> {
        let opened = open_envelope(MAGIC, VERSION, bytes)?;
        let mut fields = Fields::new(opened.body);
        let log = fields.log_id()?;
        let id = SegmentId {
            base: fields.offset("base offset")?,
            generation: fields.u32()?,
        };
        let place = match opened.version {
            1 => Place {
                number: 0,
                is_last: true,
            },
            _ => Place {
                number: fields.u32()?,
                is_last: take_flag(&mut fields)?,
            },
        };
        let mut section = Summary {
            tiers: take_text(&mut fields)?,
            tier: fields.u8()?,
            ..Summary::default()
        };
        for _ in 0..fields.count(RANGE_BYTES)? {
            let range = fields.offset("range start")?..fields.offset("range end")?;
            let before = section.counted.last().map(|before| before.end);
            if range.is_empty() || before.is_some_and(|before| before >= range.start) {
                return Err(field("range order", range.start.to_wire()));
            }
            section.counted.push(range);
        }
        for _ in 0..fields.count(4)? {
            section.values.push(take_text(&mut fields)?);
        }
        let each = WINDOW_BYTES_MIN + section.values.len() * STATS_BYTES;
        let mut key = None;
        for _ in 0..fields.count(each)? {
            let window = take_window(&mut fields, &mut key, section.values.len())?;
            let last = section.windows.last().map(|last| last.at.cmp(&window.at));
            if last.is_some_and(|order| order != Ordering::Less) {
                return Err(field("window order", window.at.start));
            }
            section.windows.push(window);
        }
        match fields.rest().len() {
            0 => Ok(Read {
                log,
                id,
                place,
                section,
                trailing: opened.trailing,
            }),
            bytes => Err(FormatError::Trailing { bytes }),
        }
    }
}

/// Follows the sections of a file: that they are whole, of one segment, and in order.
#[derive(Debug, Default)]
struct Order {
    whose: Option<(LogId, SegmentId)>,
    next: u32,
    is_ended: bool,
    /// Where the ranges of the sections so far end.
    end: Option<Offset>,
}

impl Order {
    fn check(&mut self, read: &Read<'_>) -> Result<(), FormatError> {
        let whose = (read.log, read.id);
        let number = i64::from(read.place.number);
        if *self.whose.get_or_insert(whose) != whose
            || self.is_ended
            || read.place.number != self.next
        {
            return Err(field("section", number));
        }
        let start = read.section.counted.first().map(|range| range.start);
        if start.zip(self.end).is_some_and(|(start, end)| start < end) {
            return Err(field("section order", number));
        }
        self.end = read
            .section
            .counted
            .last()
            .map(|range| range.end)
            .or(self.end);
        self.is_ended = read.place.is_last;
        self.next += 1;
        Ok(())
    }
}

/// A file's bytes; at least one section.
pub fn encode(log: LogId, id: SegmentId, sections: &[Summary]) -> Vec<u8> {
    assert!(!sections.is_empty(), "a summary tells something");
    let mut bytes = Vec::new();
    for (number, section) in (0..).zip(sections) {
        let is_last = number as usize + 1 == sections.len();
        bytes.extend(section.encode(log, id, Place { number, is_last }));
    }
    bytes
}

/// Reads a file back, and whose it is.
pub fn decode(bytes: &[u8]) -> Result<(LogId, SegmentId, Vec<Summary>), FormatError> {
    let mut order = Order::default();
    let mut sections = Vec::new();
    let mut rest = bytes;
    loop {
        let read = Summary::decode(rest)?;
        order.check(&read)?;
        sections.push(read.section);
        if order.is_ended {
            return match read.trailing.len() {
                0 => Ok((read.log, read.id, sections)),
                bytes => Err(FormatError::Trailing { bytes }),
            };
        }
        rest = read.trailing;
    }
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

fn take_flag(fields: &mut Fields<'_>) -> Result<bool, FormatError> {
    match fields.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(field("flag", other.into())),
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
    key: &mut Option<Option<Arc<[u8]>>>,
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

/// Reads a file section by section. All of it was checked when it was opened.
#[derive(Debug)]
pub struct SummaryReader {
    file: Arc<dyn DiskFile>,
    position: u64,
    bytes: u64,
    /// The setting by which all of it was thinned; None if there are several.
    pub tiers: Option<String>,
    /// All windows were reached by at least this tier.
    pub tier: u8,
}

/// What is at a segment's summary.
#[derive(Debug)]
pub enum Opened {
    /// There is none.
    None,
    /// It is damaged, or of another segment: without it nothing but the summary is missing.
    Unusable(String),
    /// It is whole.
    Whole(SummaryReader),
}

/// Opens a segment's summary, and checks all of it.
pub fn open_summary(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    id: SegmentId,
) -> io::Result<Opened> {
    if id.generation == 0 {
        return Ok(Opened::None);
    }
    let file = match disk.open(&id.summary_path(directory), OpenHow::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::None),
        Err(error) => return Err(error),
    };
    let bytes = file.len()?;
    let mut reader = SummaryReader {
        file,
        position: 0,
        bytes,
        tiers: None,
        tier: u8::MAX,
    };
    let mut order = Order::default();
    while !order.is_ended {
        match reader.next_checked(&mut order)? {
            Ok(section) => {
                if order.next == 1 {
                    reader.tiers = Some(section.tiers);
                } else if reader.tiers.as_ref() != Some(&section.tiers) {
                    reader.tiers = None;
                }
                reader.tier = reader.tier.min(section.tier);
            }
            Err(error) => return Ok(Opened::Unusable(error.to_string())),
        }
    }
    if order.whose != Some((log, id)) {
        let reason = "the summary is of another segment".to_owned();
        return Ok(Opened::Unusable(reason));
    }
    if reader.position != bytes {
        let bytes = bytes - reader.position;
        return Ok(Opened::Unusable(format!("{bytes} bytes too many")));
    }
    reader.position = 0;
    Ok(Opened::Whole(reader))
}

/// What a segment's summary says. None if it has none, or one that is damaged or of another segment, which is told in the log.
pub fn read_summary(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    id: SegmentId,
) -> io::Result<Option<SummaryReader>> {
    Ok(match open_summary(disk, directory, log, id)? {
        Opened::Whole(reader) => Some(reader),
        Opened::Unusable(reason) => {
            tracing::warn!(%log, segment = %id, reason, "a summary is not used");
            None
        }
        Opened::None => None,
    })
}

impl SummaryReader {
    /// The next section; None behind the last one.
    pub fn next_section(&mut self) -> io::Result<Option<Summary>> {
        if self.position == self.bytes {
            return Ok(None);
        }
        let bytes = self.take()?;
        let read = bytes.and_then(|bytes| Ok(Summary::decode(&bytes)?.section));
        match read {
            Ok(section) => Ok(Some(section)),
            // It was whole a moment ago.
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    fn next_checked(&mut self, order: &mut Order) -> io::Result<Result<Summary, FormatError>> {
        let bytes = self.take()?;
        Ok(bytes.and_then(|bytes| {
            let read = Summary::decode(&bytes)?;
            order.check(&read)?;
            Ok(read.section)
        }))
    }

    /// The bytes of the section at the position.
    fn take(&mut self) -> io::Result<Result<Vec<u8>, FormatError>> {
        let left = usize::try_from(self.bytes - self.position).unwrap_or(usize::MAX);
        let mut head = [0; ENVELOPE_HEADER_BYTES];
        if left < head.len() {
            return Ok(Err(FormatError::Truncated {
                have: left,
                need: head.len(),
            }));
        }
        self.file.read_exact_at(self.position, &mut head)?;
        let need = envelope_bytes(&head);
        if left < need {
            return Ok(Err(FormatError::Truncated { have: left, need }));
        }
        let mut bytes = vec![0; need];
        self.file.read_exact_at(self.position, &mut bytes)?;
        self.position += need as u64;
        Ok(Ok(bytes))
    }
}

/// Writes a segment's summary, section by section. Dropped before it is finished, it leaves no file behind.
pub struct SummaryWriter {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    log: LogId,
    id: SegmentId,
    file: Arc<dyn DiskFile>,
    position: u64,
    number: u32,
    /// The newest section: whether it is the last one is not known yet.
    pending: Option<Summary>,
    is_finished: bool,
}

impl SummaryWriter {
    /// Makes the file; what a rewrite that did not finish has left under its name goes.
    pub fn create(
        disk: Arc<dyn Disk>,
        directory: &Path,
        log: LogId,
        id: SegmentId,
    ) -> io::Result<SummaryWriter> {
        let path = id.summary_path(directory);
        match disk.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.open(&path, OpenHow::CreateNew)?;
        Ok(SummaryWriter {
            disk,
            path,
            log,
            id,
            file,
            position: 0,
            number: 0,
            pending: None,
            is_finished: false,
        })
    }

    /// Adds a section behind the others.
    pub fn push(&mut self, section: Summary) -> io::Result<()> {
        match self.pending.replace(section) {
            Some(before) => self.write(&before, false),
            None => Ok(()),
        }
    }

    fn write(&mut self, section: &Summary, is_last: bool) -> io::Result<()> {
        let number = self.number;
        let bytes = section.encode(self.log, self.id, Place { number, is_last });
        self.file.write_at(self.position, &bytes)?;
        self.position += bytes.len() as u64;
        self.number += 1;
        Ok(())
    }

    /// Makes it durable but for its name, which the caller syncs. At least one section was added.
    pub fn finish(mut self) -> io::Result<()> {
        let last = self.pending.take().expect("a summary tells something");
        self.write(&last, true)?;
        self.file.sync_data()?;
        self.is_finished = true;
        Ok(())
    }
}

impl std::fmt::Debug for SummaryWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SummaryWriter").field(&self.path).finish()
    }
}

impl Drop for SummaryWriter {
    fn drop(&mut self) {
        if !self.is_finished
            && let Err(error) = self.disk.remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "the rest of a summary could not be removed: the next start does");
        }
    }
}

/// Writes what the summaries of some segments say as that of the one that takes their place, durably but for its name. If one of
/// them was not thinned, the new one is not thinned as a whole. False if none of them has a summary: then there is no file.
pub fn carry_on(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    log: LogId,
    old: &[SegmentId],
    new: SegmentId,
) -> io::Result<bool> {
    let mut readers = Vec::new();
    for id in old {
        readers.extend(read_summary(&**disk, directory, log, *id)?);
    }
    let is_whole = readers.len() == old.len();
    if readers.is_empty() {
        return Ok(false);
    }
    let mut writer = SummaryWriter::create(Arc::clone(disk), directory, log, new)?;
    for reader in &mut readers {
        while let Some(mut section) = reader.next_section()? {
            section.tier = if is_whole { section.tier } else { 0 };
            writer.push(section)?;
        }
    }
    writer.finish()?;
    Ok(true)
}
