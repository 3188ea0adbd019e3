//! The checkpoint: how far each partition has settled, and where the WAL's replay begins.
//!
//! Callers: the settler stores it after its syncs (`checkpoint/store.rs`); recovery loads it. Two files, `checkpoint/A` and
//! `checkpoint/B`, are written in turn and never renamed: the valid one with the larger sequence counts, and a write that
//! tears leaves the other. Each file holds all of its checkpoint, as a row of log entries of which the last of a log counts:
//! a new checkpoint appends the entries that changed since this file was written, and now and then the row is begun anew.
//! The head, written last and in place, says how long the row is and has its checksum: a file is valid as a whole or not at
//! all, and never falls back to what it said earlier, which no write-ahead log may reach any more.
//! Invariant: everything a checkpoint says is durable before it is stored. A WAL file is free only once two checkpoints in a
//! row lie past it: then the loss of either file costs nothing.
//!
//! Version 3, little-endian. The head is an envelope (see `fields.rs`) with magic `chkpoint`; what follows the row is the rest
//! of an earlier, longer one.
//! ```text
//! | envelope 20 | store uuid 16 | sequence 8 | leader epoch 4 | WAL file 8 | WAL position 8 | frame sequence 8 | logs 4 |
//! | row bytes 8 | row crc32 4 |
//! row, per entry:
//! | kind 1 | topic uuid 16 | partition 4 |
//! | [kind = 1:] start offset 8 | settled end 8 | manifest number 8 | active 1 |
//! | [active = 1:] base offset 8 | generation 4 | bytes 8 | max timestamp 8 | first append time 8 | last append time 8 |
//! |               heads known 1 | heads crc32 4 |
//! | [kind = 1:] length 4 | producer snapshot | length 4 | leader epochs |
//! ```
//! Kind 2 takes the log's earlier entry away. Versions 1 and 2 were one envelope around all entries, without kinds.

mod store;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use model::{LeaderEpoch, LogId, Offset, Timestamp};
use uuid::Uuid;

pub use self::store::{CheckpointStore, Loaded, Moment};
use crate::fields::{
    ENVELOPE_HEADER_BYTES, Fields, FormatError, envelope, open_envelope, put_blob, put_log_id,
};
use crate::io::{Disk, OpenHow, read_file};
use crate::segment::SegmentId;

/// The magic of a checkpoint.
pub const MAGIC: &[u8; 8] = b"chkpoint";
/// The version that this build writes.
pub const VERSION: u32 = 3;
/// The head of a file, from version 3 on; the row of entries follows it.
pub const HEAD_BYTES: usize = ENVELOPE_HEADER_BYTES + 16 + 8 + 4 + 8 + 8 + 8 + 4 + 8 + 4;
/// No checkpoint is longer: 1 KiB for each of a million logs, and as much again of what changed since.
pub(crate) const BYTES_MAX: u64 = 2 << 30;
/// The kinds of entries of a row.
const KIND_SETTLED: u8 = 1;
const KIND_FORGOTTEN: u8 = 2;
const LOG_BYTES_MIN: usize = 20 + 8 + 8 + 8 + 1 + 4 + 4;

/// Where the WAL's replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WalPosition {
    /// The sequence of the WAL file.
    pub file: u64,
    /// The position in it of the first frame that is not settled.
    pub position: u64,
    /// That frame's sequence.
    pub frame: u64,
}

impl WalPosition {
    /// Where a store's log begins, as long as there is no checkpoint.
    pub const BEGINNING: WalPosition = WalPosition {
        file: 0,
        position: 0,
        frame: 1,
    };
}

/// The active segment of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveSegment {
    /// Which file.
    pub id: SegmentId,
    /// How many of its bytes are settled; what follows is the rest of an unfinished settling.
    pub bytes: u64,
    /// The largest timestamp of its settled records.
    pub max_timestamp: Timestamp,
    /// When the broker appended its first batch.
    pub first_append_time: Timestamp,
    /// When the broker appended its last settled batch.
    pub last_append_time: Timestamp,
    /// CRC-32 of the first 21 bytes of each of its settled batches, in a row; None if it was begun by a release that stored
    /// checkpoints of version 1.
    pub heads_checksum: Option<u32>,
}

/// What is settled of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Which log.
    pub log: LogId,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The offset after the last one that is in a segment.
    pub settled_end: Offset,
    /// The number of the log's newest manifest; 0 for none.
    pub manifest: u64,
    /// The segment that is settled into; None before the first.
    pub active: Option<ActiveSegment>,
    /// The producers' state at the settled end, as `Producers::encode` gives it; empty for none.
    pub producers: Vec<u8>,
    /// The leader epochs at the settled end, as `Epochs::encode` gives them; empty for none.
    pub epochs: Vec<u8>,
}

/// How far everything has settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which store.
    pub store: Uuid,
    /// Rises by one with every store.
    pub sequence: u64,
    /// The leader epoch of the broker that stored it.
    pub leader_epoch: LeaderEpoch,
    /// Where replay begins.
    pub wal: WalPosition,
    /// The logs, in any order.
    pub logs: Vec<LogEntry>,
}

impl Checkpoint {
    /// The file's bytes, with an entry for each log.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Vec::new();
        for log in &self.logs {
            log.encode(&mut row);
        }
        let head = Head {
            store: self.store,
            sequence: self.sequence,
            leader_epoch: self.leader_epoch,
            wal: self.wal,
            logs: u32::try_from(self.logs.len()).expect("logs fit u32"),
            row_bytes: row.len() as u64,
            row_checksum: crc32fast::hash(&row),
        };
        let mut bytes = head.encode();
        bytes.append(&mut row);
        bytes
    }

    /// Reads a checkpoint back; bytes after it are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
        let opened = open_envelope(MAGIC, VERSION, bytes)?;
        if opened.version < 3 {
            return Checkpoint::decode_whole(opened.version, opened.body);
        }
        let head = Head::decode(opened.body)?;
        let row = head.row_in(opened.trailing)?;
        let found = crc32fast::hash(row);
        head.check_row(found)?;
        let logs = decode_row(row)?;
        if logs.len() != head.logs as usize {
            return Err(FormatError::Field {
                field: "count of logs",
                value: head.logs.into(),
            });
        }
        Ok(Checkpoint {
            store: head.store,
            sequence: head.sequence,
            leader_epoch: head.leader_epoch,
            wal: head.wal,
            logs,
        })
    }

    /// Versions 1 and 2: all of it in the envelope.
    fn decode_whole(version: u32, body: &[u8]) -> Result<Checkpoint, FormatError> {
        let mut fields = Fields::new(body);
        let store = Uuid::from_bytes(fields.array()?);
        let sequence = fields.u64()?;
        let leader_epoch = LeaderEpoch::new(fields.u32()?);
        let wal = WalPosition::decode(&mut fields)?;
        let count = fields.count(LOG_BYTES_MIN)?;
        let mut logs = Vec::with_capacity(count);
        for _ in 0..count {
            let log = fields.log_id()?;
            logs.push(LogEntry::decode(log, &mut fields, version)?);
        }
        fields.finish()?;
        Ok(Checkpoint {
            store,
            sequence,
            leader_epoch,
            wal,
            logs,
        })
    }
}

/// What a file of version 3 begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    store: Uuid,
    sequence: u64,
    leader_epoch: LeaderEpoch,
    wal: WalPosition,
    /// How many logs the row gives in the end.
    logs: u32,
    row_bytes: u64,
    row_checksum: u32,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEAD_BYTES - ENVELOPE_HEADER_BYTES);
        body.extend_from_slice(self.store.as_bytes());
        body.extend_from_slice(&self.sequence.to_le_bytes());
        body.extend_from_slice(&self.leader_epoch.get().to_le_bytes());
        body.extend_from_slice(&self.wal.file.to_le_bytes());
        body.extend_from_slice(&self.wal.position.to_le_bytes());
        body.extend_from_slice(&self.wal.frame.to_le_bytes());
        body.extend_from_slice(&self.logs.to_le_bytes());
        body.extend_from_slice(&self.row_bytes.to_le_bytes());
        body.extend_from_slice(&self.row_checksum.to_le_bytes());
        let bytes = envelope(MAGIC, VERSION, &body);
        assert!(bytes.len() == HEAD_BYTES, "the row begins behind it");
        bytes
    }

    fn decode(body: &[u8]) -> Result<Head, FormatError> {
        let mut fields = Fields::new(body);
        let head = Head {
            store: Uuid::from_bytes(fields.array()?),
            sequence: fields.u64()?,
            leader_epoch: LeaderEpoch::new(fields.u32()?),
            wal: WalPosition::decode(&mut fields)?,
            logs: fields.u32()?,
            row_bytes: fields.u64()?,
            row_checksum: fields.u32()?,
        };
        fields.finish()?;
        Ok(head)
    }

    /// The row, out of what follows the head.
    fn row_in<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], FormatError> {
        let need = usize::try_from(self.row_bytes).unwrap_or(usize::MAX);
        bytes.get(..need).ok_or(FormatError::Truncated {
            have: bytes.len(),
            need,
        })
    }

    fn check_row(&self, computed: u32) -> Result<(), FormatError> {
        let stored = self.row_checksum;
        if computed == stored {
            return Ok(());
        }
        Err(FormatError::Checksum { stored, computed })
    }
}

impl WalPosition {
    fn decode(fields: &mut Fields<'_>) -> Result<WalPosition, FormatError> {
        Ok(WalPosition {
            file: fields.u64()?,
            position: fields.u64()?,
            frame: fields.u64()?,
        })
    }
}

/// The logs that a row gives: of each the last entry, where its first one stands.
fn decode_row(row: &[u8]) -> Result<Vec<LogEntry>, FormatError> {
    let mut fields = Fields::new(row);
    let mut found: Vec<Option<LogEntry>> = Vec::new();
    let mut places: HashMap<LogId, usize> = HashMap::new();
    while !fields.rest().is_empty() {
        let kind = fields.u8()?;
        let log = fields.log_id()?;
        match kind {
            KIND_SETTLED => {
                let entry = LogEntry::decode(log, &mut fields, VERSION)?;
                let place = *places.entry(log).or_insert(found.len());
                match found.get_mut(place) {
                    Some(earlier) => *earlier = Some(entry),
                    None => found.push(Some(entry)),
                }
            }
            KIND_FORGOTTEN => {
                if let Some(earlier) = places.get(&log) {
                    found[*earlier] = None;
                }
            }
            other => {
                return Err(FormatError::Field {
                    field: "kind of entry",
                    value: other.into(),
                });
            }
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Appends the entry that takes a log's earlier one away.
fn encode_forgotten(log: LogId, out: &mut Vec<u8>) {
    out.push(KIND_FORGOTTEN);
    put_log_id(out, log);
}

impl LogEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(KIND_SETTLED);
        put_log_id(out, self.log);
        out.extend_from_slice(&self.start_offset.to_wire().to_le_bytes());
        out.extend_from_slice(&self.settled_end.to_wire().to_le_bytes());
        out.extend_from_slice(&self.manifest.to_le_bytes());
        out.push(u8::from(self.active.is_some()));
        if let Some(active) = &self.active {
            out.extend_from_slice(&active.id.base.to_wire().to_le_bytes());
            out.extend_from_slice(&active.id.generation.to_le_bytes());
            out.extend_from_slice(&active.bytes.to_le_bytes());
            out.extend_from_slice(&active.max_timestamp.millis().to_le_bytes());
            out.extend_from_slice(&active.first_append_time.millis().to_le_bytes());
            out.extend_from_slice(&active.last_append_time.millis().to_le_bytes());
            out.push(u8::from(active.heads_checksum.is_some()));
            out.extend_from_slice(&active.heads_checksum.unwrap_or(0).to_le_bytes());
        }
        put_blob(out, &self.producers);
        put_blob(out, &self.epochs);
    }

    /// Reads what follows the log's id.
    fn decode(log: LogId, fields: &mut Fields<'_>, version: u32) -> Result<LogEntry, FormatError> {
        let start_offset = fields.offset("start offset")?;
        let settled_end = fields.offset("settled end")?;
        let manifest = fields.u64()?;
        let active = match fields.u8()? {
            0 => None,
            1 => Some(ActiveSegment {
                id: SegmentId {
                    base: fields.offset("base offset")?,
                    generation: fields.u32()?,
                },
                bytes: fields.u64()?,
                max_timestamp: Timestamp::from_millis(fields.i64()?),
                first_append_time: Timestamp::from_millis(fields.i64()?),
                last_append_time: Timestamp::from_millis(fields.i64()?),
                heads_checksum: match version {
                    1 => None,
                    _ => heads_checksum(fields)?,
                },
            }),
            other => {
                return Err(FormatError::Field {
                    field: "active",
                    value: other.into(),
                });
            }
        };
        let producers = fields.blob()?.to_vec();
        let epochs = fields.blob()?.to_vec();
        Ok(LogEntry {
            log,
            start_offset,
            settled_end,
            manifest,
            active,
            producers,
            epochs,
        })
    }
}

fn heads_checksum(fields: &mut Fields<'_>) -> Result<Option<u32>, FormatError> {
    let (flag, checksum) = (fields.u8()?, fields.u32()?);
    match flag {
        0 => Ok(None),
        1 => Ok(Some(checksum)),
        other => Err(FormatError::Field {
            field: "heads checksum",
            value: other.into(),
        }),
    }
}

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `checkpoint/A`
    A,
    /// `checkpoint/B`
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Slot; 2] = [Slot::A, Slot::B];

    /// The file's path below the directory of checkpoints.
    pub fn path(self, directory: &Path) -> PathBuf {
        directory.join(match self {
            Slot::A => "A",
            Slot::B => "B",
        })
    }

    fn index(self) -> usize {
        match self {
            Slot::A => 0,
            Slot::B => 1,
        }
    }

    fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

/// What one of the two files holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// No such file.
    Absent,
    /// A valid checkpoint.
    Valid(Checkpoint),
    /// A torn store, or damage.
    Invalid(String),
}

/// Reads one of the two files, past the page cache, where a failed sync may have left lies.
pub fn read_slot(disk: &dyn Disk, path: &Path, store: Uuid) -> io::Result<SlotState> {
    if !disk.exists(path)? {
        return Ok(SlotState::Absent);
    }
    disk.open(path, OpenHow::Read)?.drop_cache()?;
    let bytes = match read_file(disk, path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if is_damage(&error) => return Ok(SlotState::Invalid(error.to_string())),
        Err(error) => return Err(error),
    };
    Ok(match Checkpoint::decode(&bytes) {
        Ok(checkpoint) if checkpoint.store == store => SlotState::Valid(checkpoint),
        Ok(checkpoint) => SlotState::Invalid(of_another_store(checkpoint.store)),
        Err(error) => SlotState::Invalid(error.to_string()),
    })
}

/// Whether it is the file that cannot be read, and not the disk.
fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData || error.raw_os_error() == Some(libc::EIO)
}

fn of_another_store(store: Uuid) -> String {
    format!("it belongs to store {store}")
}

#[cfg(test)]
mod tests;
