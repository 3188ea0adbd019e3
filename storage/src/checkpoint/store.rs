//! Writes checkpoints to the two files in turn, and finds the newest one again.
//!
//! Callers: the settler, under its lock; the start of the store. What a store costs is what changed: it appends the entries
//! that are new since this file was written, behind the row that it holds, and then writes its head. The row is begun anew,
//! streamed through a buffer, once it is twice as long as it was when it was begun (so a byte of an entry is written three
//! times at most for each file), after some thousand appends (so that no byte lies unread for ever), where there is no
//! space for it to grow, and once after each start.
//! Invariant: `behind` of a file holds each log whose entry may differ from what the file's row gives.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use model::{LeaderEpoch, LogId};
use uuid::Uuid;

use super::{
    Checkpoint, HEAD_BYTES, Head, LogEntry, MAGIC, Slot, SlotState, VERSION, WalPosition,
    encode_forgotten, is_damage, of_another_store, read_slot,
};
use crate::fields::{ENVELOPE_HEADER_BYTES, open_envelope};
use crate::io::{Disk, DiskFile, OpenHow};
use crate::wal::pool::is_full;

/// A row may always become as long as the first block of the file: to write that block is what any store costs.
const ROW_BYTES_FLOOR: u64 = 4096 - HEAD_BYTES as u64;
/// A row may become this many times as long as it was when it was begun.
const ROW_GROWTH: u64 = 2;
/// No row is appended to more often: what a sector forgets meanwhile is written again within hours, while the other file
/// still has it.
const APPENDS_MAX: u32 = 4096;
/// A file grows in steps, so that few syncs have to note its new length.
const FILE_STEP_BYTES: u64 = 16 << 10;
/// Memory for entries on their way to the disk, and for a check.
const BUFFER_BYTES: usize = 256 << 10;

/// Both files, as recovery finds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The valid checkpoint with the larger sequence.
    pub newest: Option<Checkpoint>,
    /// Files that hold no valid checkpoint, with the reason. After a power cut one of the two may be torn.
    pub invalid: Vec<(Slot, String)>,
}

/// Writes checkpoints in turn.
#[derive(Debug)]
pub struct CheckpointStore {
    directory: PathBuf,
    store: Uuid,
    next: Slot,
    sequence: u64,
    /// The row that each file holds; None if the next one is begun anew.
    rows: [Option<Row>; 2],
    /// Whether each file's name is known to be durable.
    is_listed: [bool; 2],
    /// Bytes written since it was opened.
    written_bytes: u64,
}

/// What a file holds behind its head.
#[derive(Debug)]
struct Row {
    /// How long it was when it was begun.
    begun_bytes: u64,
    begun_logs: usize,
    bytes: u64,
    checksum: crc32fast::Hasher,
    appends: u32,
    /// The logs whose entries changed since.
    behind: HashSet<LogId>,
}

impl Row {
    /// Whether what changed is appended. How long it is, is known only once it is written: the mean of the row tells.
    fn takes_more(&self) -> bool {
        let mean = self.begun_bytes / (self.begun_logs.max(1) as u64) + 1;
        let more = mean.saturating_mul(self.behind.len() as u64);
        let limit = ROW_BYTES_FLOOR.max(self.begun_bytes.saturating_mul(ROW_GROWTH));
        self.appends < APPENDS_MAX && self.bytes + more <= limit
    }
}

/// What a checkpoint says besides its logs.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The leader epoch of the broker that stores it.
    pub leader_epoch: LeaderEpoch,
    /// Where replay begins.
    pub wal: WalPosition,
}

impl CheckpointStore {
    /// Reads both files past the page cache, where a failed sync may have left lies, and sets the turn: the next store
    /// goes to the file that does not count. The directory must exist. Of the one that does not count only the checksum is
    /// looked at.
    pub fn open(
        disk: &dyn Disk,
        directory: &Path,
        store: Uuid,
    ) -> io::Result<(CheckpointStore, Loaded)> {
        let mut loaded = Loaded {
            newest: None,
            invalid: Vec::new(),
        };
        let mut next = Slot::A;
        let mut order = Vec::new();
        for slot in Slot::ALL {
            order.push((claimed_sequence(disk, &slot.path(directory))?, slot));
        }
        order.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        for (_, slot) in order {
            let path = slot.path(directory);
            if loaded.newest.is_some() {
                let trouble = trouble_with(disk, &path, store)?;
                loaded.invalid.extend(trouble.map(|reason| (slot, reason)));
                continue;
            }
            match read_slot(disk, &path, store)? {
                SlotState::Absent => {}
                SlotState::Invalid(reason) => loaded.invalid.push((slot, reason)),
                SlotState::Valid(found) => {
                    loaded.newest = Some(found);
                    next = slot.other();
                }
            }
        }
        let store = CheckpointStore {
            directory: directory.to_owned(),
            store,
            next,
            sequence: loaded.newest.as_ref().map_or(0, |newest| newest.sequence),
            rows: [None, None],
            is_listed: [false, false],
            written_bytes: 0,
        };
        Ok((store, loaded))
    }

    /// Stores a checkpoint durably, and gives its sequence. `logs` are all that it names, and `entry` says what of one;
    /// `changed` are those that may differ since the last call, the ones that are gone too. After an error nothing is known
    /// about the file that was written, and the one before still counts. After one that says that there is no space the
    /// caller may try again; after any other it must not.
    pub fn store<L>(
        &mut self,
        disk: &dyn Disk,
        moment: Moment,
        changed: &HashSet<LogId>,
        logs: &HashMap<LogId, L>,
        entry: impl Fn(LogId, &L) -> LogEntry,
    ) -> io::Result<u64> {
        for row in self.rows.iter_mut().flatten() {
            row.behind.extend(changed);
        }
        let sequence = self.sequence + 1;
        let (path, index) = (self.next.path(&self.directory), self.next.index());
        let how = match disk.exists(&path)? {
            true => OpenHow::ReadWrite,
            false => OpenHow::CreateNew,
        };
        let file = disk.open(&path, how)?;
        // Until it is durable the next one that goes there is begun anew.
        let row = self.rows[index].take();
        let write_entry = |log: LogId, out: &mut Vec<u8>| match logs.get(&log) {
            Some(known) => entry(log, known).encode(out),
            None => encode_forgotten(log, out),
        };
        let appended = match row.filter(Row::takes_more) {
            Some(row) => match append(file.as_ref(), row, write_entry, &mut self.written_bytes) {
                Err(error) if is_full(&error) => None,
                appended => Some(appended?),
            },
            None => None,
        };
        let row = match appended {
            Some(row) => row,
            None => begin(
                file.as_ref(),
                logs.keys().copied(),
                write_entry,
                &mut self.written_bytes,
            )?,
        };
        assert!(
            row.behind.is_empty() && row.begun_bytes <= row.bytes,
            "the row says what is so now"
        );
        let head = Head {
            store: self.store,
            sequence,
            leader_epoch: moment.leader_epoch,
            wal: moment.wal,
            logs: u32::try_from(logs.len()).expect("logs fit u32"),
            row_bytes: row.bytes,
            row_checksum: row.checksum.clone().finalize(),
        };
        let head = head.encode();
        file.write_at(0, &head)?;
        self.written_bytes += head.len() as u64;
        file.sync_data()?;
        if !std::mem::replace(&mut self.is_listed[index], true) {
            disk.sync_dir(&self.directory)?;
        }
        assert!(
            self.rows[index].is_none(),
            "what a file holds is known once its head is durable"
        );
        self.sequence = sequence;
        self.rows[index] = Some(row);
        self.next = self.next.other();
        Ok(sequence)
    }

    /// Bytes written into both files since this was opened.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// How often was appended to the row that was written last.
    #[cfg(test)]
    pub(super) fn appends(&self) -> u32 {
        let row = &self.rows[self.next.other().index()];
        row.as_ref().map_or(0, |row| row.appends)
    }
}

/// Begins the row anew.
fn begin(
    file: &dyn DiskFile,
    logs: impl Iterator<Item = LogId>,
    write_entry: impl Fn(LogId, &mut Vec<u8>),
    written_bytes: &mut u64,
) -> io::Result<Row> {
    let mut row = Row {
        begun_bytes: 0,
        begun_logs: 0,
        bytes: 0,
        checksum: crc32fast::Hasher::new(),
        appends: 0,
        behind: HashSet::new(),
    };
    row.begun_logs = write_entries(file, &mut row, logs, write_entry)?;
    assert!(
        (row.begun_logs == 0) == (row.bytes == 0),
        "no log's entry is empty"
    );
    row.begun_bytes = row.bytes;
    *written_bytes += row.bytes;
    Ok(row)
}

/// Appends what changed.
fn append(
    file: &dyn DiskFile,
    mut row: Row,
    write_entry: impl Fn(LogId, &mut Vec<u8>),
    written_bytes: &mut u64,
) -> io::Result<Row> {
    let behind = std::mem::take(&mut row.behind);
    let (before_bytes, row_before_bytes) = (file.len()?, row.bytes);
    let wanted = behind.len();
    let written = write_entries(file, &mut row, behind.into_iter(), write_entry)?;
    assert!(
        written == wanted && row.bytes >= row_before_bytes,
        "an entry for each log that changed, behind those that are there"
    );
    let end = HEAD_BYTES as u64 + row.bytes;
    let grown = end.next_multiple_of(FILE_STEP_BYTES);
    if end > before_bytes && grown > end {
        let zeros = vec![0; usize::try_from(grown - end).expect("less than a step")];
        file.write_at(end, &zeros)?;
        *written_bytes += zeros.len() as u64;
    }
    *written_bytes += row.bytes - row_before_bytes;
    row.appends += 1;
    Ok(row)
}

/// Writes entries behind the row, some at a time. Gives how many.
fn write_entries(
    file: &dyn DiskFile,
    row: &mut Row,
    logs: impl Iterator<Item = LogId>,
    write_entry: impl Fn(LogId, &mut Vec<u8>),
) -> io::Result<usize> {
    let mut buffer = Vec::new();
    let mut count = 0;
    let mut flush = |buffer: &mut Vec<u8>| {
        file.write_at(HEAD_BYTES as u64 + row.bytes, buffer)?;
        row.checksum.update(buffer);
        row.bytes += buffer.len() as u64;
        buffer.clear();
        io::Result::Ok(())
    };
    for log in logs {
        write_entry(log, &mut buffer);
        count += 1;
        if buffer.len() >= BUFFER_BYTES {
            flush(&mut buffer)?;
        }
    }
    if !buffer.is_empty() {
        flush(&mut buffer)?;
    }
    Ok(count)
}

/// The sequence that a file claims to have, of any version that is known; nothing of it is checked.
fn claimed_sequence(disk: &dyn Disk, path: &Path) -> io::Result<Option<u64>> {
    const AT: usize = ENVELOPE_HEADER_BYTES + 16;
    if !disk.exists(path)? {
        return Ok(None);
    }
    let file = disk.open(path, OpenHow::Read)?;
    file.drop_cache()?;
    let mut head = [0; AT + 8];
    match file.read_exact_at(0, &mut head) {
        Ok(()) => Ok(head[AT..].first_chunk().copied().map(u64::from_le_bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is wrong with a file that is not needed now, if anything is. One that is absent is not.
fn trouble_with(disk: &dyn Disk, path: &Path, store: Uuid) -> io::Result<Option<String>> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let file = disk.open(path, OpenHow::Read)?;
    file.drop_cache()?;
    let checked = check_row(file.as_ref(), store);
    match checked {
        Ok(Checked::Sound) => Ok(None),
        Ok(Checked::Invalid(reason)) => Ok(Some(reason)),
        Ok(Checked::Otherwise) => Ok(match read_slot(disk, path, store)? {
            SlotState::Invalid(reason) => Some(reason),
            SlotState::Absent | SlotState::Valid(_) => None,
        }),
        Err(error) if is_damage(&error) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// What the checksums of a file say.
enum Checked {
    Sound,
    Invalid(String),
    /// It has no head of version 3: an earlier version, or nothing that can be read.
    Otherwise,
}

/// Looks at the checksums of a file, without its entries in memory.
fn check_row(file: &dyn DiskFile, store: Uuid) -> io::Result<Checked> {
    let length = file.len()?;
    if length < HEAD_BYTES as u64 {
        return Ok(Checked::Otherwise);
    }
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(0, &mut head)?;
    let body = match open_envelope(MAGIC, VERSION, &head) {
        Ok(opened) if opened.version == VERSION => opened.body,
        _ => return Ok(Checked::Otherwise),
    };
    let head = match Head::decode(body) {
        Ok(head) if head.store == store => head,
        Ok(head) => return Ok(Checked::Invalid(of_another_store(head.store))),
        Err(error) => return Ok(Checked::Invalid(error.to_string())),
    };
    let (have, need) = (length - HEAD_BYTES as u64, head.row_bytes);
    if have < need {
        return Ok(Checked::Invalid(format!(
            "cut short: {have} of {need} bytes"
        )));
    }
    let mut checksum = crc32fast::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut position = HEAD_BYTES as u64;
    let end = position + head.row_bytes;
    while position < end {
        let left = usize::try_from(end - position).unwrap_or(usize::MAX);
        let chunk = &mut buffer[..left.min(BUFFER_BYTES)];
        file.read_exact_at(position, chunk)?;
        checksum.update(chunk);
        position += chunk.len() as u64;
    }
    Ok(match head.check_row(checksum.finalize()) {
        Ok(()) => Checked::Sound,
        Err(error) => Checked::Invalid(error.to_string()),
    })
}
