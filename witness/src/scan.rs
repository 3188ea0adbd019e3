//! Looks through one file, whatever it is. Where a record batch begins whose checksum is right, its keys are compared; between
//! batches the bytes themselves are.
//!
//! Whose a batch is stands in the path of its file, `<topic uuid>-<partition>`, or, in a file of the write-ahead log, in the frame
//! before it. One of which it is not known is taken for what is looked for.

use std::io;
use std::path::{Path, PathBuf};

use crate::batch::{Each, HEAD_BYTES, Head};
use crate::source::Source;
use crate::summary;
use crate::{Hit, LogOf, Quest, Report, Unread, What};

/// A key that is shorter stands in other bytes by chance: only whole records are compared with it.
pub const KEY_BYTES_RAW_MIN: usize = 8;

/// Where frames begin.
const FRAME_STEP: u64 = 4096;
const FRAME_HEAD_BYTES: usize = 80;
const FRAME_ENTRY_BYTES: usize = 40;
/// More entries has no frame.
const FRAME_ENTRIES_MAX: u32 = 1 << 20;
/// How much is looked through at a time for the next batch.
const STEP_BYTES: usize = 64 << 10;
/// Bytes of zeros, and of an active segment's padding, hold nothing.
const BLANK: [u8; 2] = [0, 0x7f];

/// Whether a file that has this path may change while it is read.
pub fn may_be_written(path: &Path) -> bool {
    path.starts_with("wal") || path.extension().is_some_and(|ending| ending == "log")
}

/// Whether records lie in a file of this path.
fn holds_records(path: &Path) -> bool {
    may_be_written(path) || path.starts_with("quarantine")
}

/// Whose a file is, by its path.
pub fn log_of(path: &Path) -> Option<LogOf> {
    let text = path.to_string_lossy();
    let mut found = None;
    let dashes = [8, 13, 18, 23];
    for (at, _) in text.char_indices() {
        let Some(id) = text.get(at..at + 36) else {
            continue;
        };
        let is_uuid = id
            .bytes()
            .enumerate()
            .all(|(index, byte)| match dashes.contains(&index) {
                true => byte == b'-',
                false => byte.is_ascii_hexdigit(),
            });
        let Some(rest) = text[at + 36..].strip_prefix('-').filter(|_| is_uuid) else {
            continue;
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let bytes = crate::from_hex(&id.replace('-', ""));
        let topic = bytes.and_then(|bytes| bytes.try_into().ok());
        if let (Some(topic), Ok(partition)) = (topic, rest[..digits].parse()) {
            found = Some((topic, partition));
        }
    }
    found
}

/// Looks through a file.
pub fn file(
    root: &Path,
    path: &Path,
    quest: &Quest,
    read: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Report> {
    let mut source = Source::open(&root.join(path), read)?;
    let mut report = Report {
        files: 1,
        bytes: source.len,
        ..Report::default()
    };
    let log = log_of(path);
    let is_summary = path.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        name.ends_with(".sum") || name.contains(".sum.")
    });
    if is_summary {
        let count = usize::try_from(source.len).map_err(io::Error::other)?;
        let bytes = source.at(0, count)?;
        if let Some(windows) = summary::windows_of(bytes, quest) {
            for position in windows {
                report.hit(Hit {
                    file: path.to_owned(),
                    position,
                    what: What::Window,
                });
            }
            return Ok(report);
        }
    }
    let mut scan = Scan {
        path: path.to_owned(),
        quest,
        log,
        owners: Vec::new(),
        report,
        each: None,
    };
    scan.all(&mut source)?;
    Ok(scan.report)
}

/// Shows each record of the logs that are looked for, where it is known whose it is.
pub fn records<'e>(
    root: &Path,
    path: &Path,
    quest: &Quest,
    each: &'e mut Each<'e>,
) -> io::Result<()> {
    let mut read = |_| true;
    let mut source = Source::open(&root.join(path), &mut read)?;
    let mut scan = Scan {
        path: path.to_owned(),
        quest,
        log: log_of(path),
        owners: Vec::new(),
        report: Report::default(),
        each: Some(each),
    };
    scan.all(&mut source)
}

struct Scan<'q, 'e> {
    path: PathBuf,
    quest: &'q Quest,
    /// By the path.
    log: Option<LogOf>,
    /// Where the batches of the frame at hand begin, and whose they are.
    owners: Vec<(u64, LogOf)>,
    report: Report,
    /// Who is shown records instead.
    each: Option<&'e mut Each<'e>>,
}

impl Scan<'_, '_> {
    fn all(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        let mut position = 0;
        let mut gap = 0;
        while position < source.len {
            let left = source.len - position;
            let head = Head::read(source.at(position, HEAD_BYTES)?, left);
            let count = head.and_then(|head| usize::try_from(head.bytes).ok());
            if let (Some(head), Some(count)) = (head, count) {
                let batch = source.at(position, count)?;
                if head.is_whole(batch) {
                    self.take(position, &head, batch);
                    self.between(source, gap, position)?;
                    position += head.bytes;
                    gap = position;
                    continue;
                }
            }
            if let Some(bytes) = self.frame(source, position)? {
                self.between(source, gap, position)?;
                position += bytes;
                gap = position;
                continue;
            }
            position = self.next(source, position + 1)?;
        }
        self.between(source, gap, source.len)
    }

    /// Where the next batch or frame may begin.
    fn next(&self, source: &mut Source<'_>, from: u64) -> io::Result<u64> {
        let bytes = source.at(from, STEP_BYTES)?;
        if bytes.len() <= HEAD_BYTES {
            return Ok(source.len);
        }
        let ahead = bytes.len() - HEAD_BYTES;
        let batch = bytes[16..16 + ahead].iter().position(|byte| *byte == 2);
        let batch = batch.map_or(ahead, |at| at) as u64;
        let frame = from.next_multiple_of(FRAME_STEP) - from;
        Ok(from + batch.min(if frame == 0 { batch } else { frame }))
    }

    /// Reads the table of a frame of the write-ahead log. Gives its length, if there is one.
    fn frame(&mut self, source: &mut Source<'_>, position: u64) -> io::Result<Option<u64>> {
        if self.log.is_some() || !position.is_multiple_of(FRAME_STEP) {
            return Ok(None);
        }
        let head = source.at(position, FRAME_HEAD_BYTES)?;
        let entries = head.get(60..64).and_then(|bytes| bytes.try_into().ok());
        let entries = entries.map_or(u32::MAX, u32::from_le_bytes);
        if !head.starts_with(b"WALF")
            || head.len() < FRAME_HEAD_BYTES
            || entries > FRAME_ENTRIES_MAX
        {
            return Ok(None);
        }
        let table_bytes = entries as usize * FRAME_ENTRY_BYTES;
        let bytes = FRAME_HEAD_BYTES + table_bytes;
        let whole = source.at(position, bytes)?;
        if whole.len() < bytes {
            return Ok(None);
        }
        self.owners.clear();
        let mut at = position + bytes as u64;
        for entry in whole[FRAME_HEAD_BYTES..].as_chunks::<FRAME_ENTRY_BYTES>().0 {
            let word = |from: usize| {
                u32::from_le_bytes([
                    entry[from],
                    entry[from + 1],
                    entry[from + 2],
                    entry[from + 3],
                ])
            };
            let mut topic = [0; 16];
            topic.copy_from_slice(&entry[..16]);
            if word(20) == 1 {
                self.owners.push((at, (topic, word(16))));
                at += u64::from(word(32));
            }
        }
        Ok(Some(bytes as u64))
    }

    fn take(&mut self, position: u64, head: &Head, batch: &[u8]) {
        self.report.batches += 1;
        let owner = self.owners.binary_search_by_key(&position, |(at, _)| *at);
        let owner = owner.ok().map(|index| self.owners[index].1);
        let log = self.log.or(owner);
        if !head.has_records() || log.is_some_and(|log| !self.quest.is_of(log)) {
            return;
        }
        if let Some(each) = &mut self.each {
            if log.is_some() && head.records(batch, *each).is_err() {
                self.report.unread_count += 1;
            }
            return;
        }
        let mut hits = Vec::new();
        let read = head.records(batch, &mut |offset, key, _| {
            if key.is_some_and(|key| self.quest.is_key(key)) && self.quest.is_at(log, offset) {
                hits.push(offset);
            }
        });
        // Of a segment's batch that breaks off nothing can be taken out: with what it has of the keys it is one that was not read.
        let stays = read.is_err() && self.path.starts_with("p");
        for offset in hits.iter().filter(|_| !stays) {
            self.report.hit(Hit {
                file: self.path.clone(),
                position,
                what: What::Record {
                    offset: *offset,
                    is_attributed: log.is_some(),
                },
            });
        }
        match read {
            Ok(records) => self.report.records += records,
            // Only what lies behind the end is of no concern.
            Err(_) if !self.quest.is_at(log, head.base) => {}
            Err(reason) => self.report.unread(Unread {
                file: self.path.clone(),
                position,
                offset: Some(head.base),
                reason: match hits.len() {
                    0 => reason,
                    count => format!("{reason}; of what can be read {count} records have a key"),
                },
            }),
        }
    }

    /// Searches what is no batch.
    fn between(&mut self, source: &mut Source<'_>, from: u64, to: u64) -> io::Result<()> {
        if self.each.is_some() || self.log.is_some_and(|log| !self.quest.is_of(log)) {
            return Ok(());
        }
        let keys = self.quest.keys.iter().filter(|key| !key.is_empty());
        let (long, short): (Vec<_>, Vec<_>) = keys.partition(|key| key.len() >= KEY_BYTES_RAW_MIN);
        let overlap = long.iter().map(|key| key.len() - 1).max().unwrap_or(0);
        let (mut at, mut is_blank) = (from, true);
        while at < to {
            let want = usize::try_from(to - at).unwrap_or(usize::MAX);
            let want = want.min(STEP_BYTES + overlap);
            let bytes = source.at(at, want)?;
            is_blank &= bytes.iter().all(|byte| BLANK.contains(byte));
            let step = STEP_BYTES.min(bytes.len());
            if !is_blank {
                for key in &long {
                    for found in bytes.windows(key.len()).enumerate() {
                        if found.0 < step && found.1 == key.as_slice() {
                            self.report.hit(Hit {
                                file: self.path.clone(),
                                position: at + found.0 as u64,
                                what: What::Bytes,
                            });
                        }
                    }
                }
            }
            if step == 0 {
                break;
            }
            at += step as u64;
        }
        if !is_blank && !short.is_empty() && holds_records(&self.path) {
            self.report.unread(Unread {
                file: self.path.clone(),
                position: from,
                offset: None,
                reason: format!(
                    "{} bytes are no record batch, and the key is too short to be told from others there",
                    to - from
                ),
            });
        }
        Ok(())
    }
}
