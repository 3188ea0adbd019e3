//! The checkpoint: how far each partition has settled, and where the WAL's replay begins.
//!
//! Callers: the settler stores it after its syncs; recovery loads it. Two files, `checkpoint/A` and `checkpoint/B`, are
//! written in turn and never renamed: the valid one with the larger sequence counts, and a store that tears leaves the other.
//! Invariant: everything a checkpoint says is durable before it is stored. A WAL file is free only once two checkpoints in a
//! row lie past it: then the loss of either file costs nothing.
//!
//! Body, little-endian, inside an envelope (see `fields.rs`) with magic `chkpoint`, version 1. The file may be longer than
//! the envelope: what follows is the rest of an earlier, longer checkpoint.
//! ```text
//! | store uuid 16 | sequence 8 | leader epoch 4 | WAL file 8 | WAL position 8 | frame sequence 8 | logs 4 |
//! per log:
//! | topic uuid 16 | partition 4 | start offset 8 | settled end 8 | manifest number 8 | active 1 |
//! | [active = 1:] base offset 8 | generation 4 | bytes 8 | max timestamp 8 | first append time 8 | last append time 8 |
//! | length 4 | producer snapshot | length 4 | leader epochs |
//! ```

use std::io;
use std::path::{Path, PathBuf};

use model::{LeaderEpoch, LogId, Offset, Timestamp};
use uuid::Uuid;

use crate::fields::{Fields, FormatError, envelope, open_envelope, put_blob, put_log_id};
use crate::io::{Disk, OpenHow, read_file};
use crate::segment::SegmentId;

/// The magic of a checkpoint.
pub const MAGIC: &[u8; 8] = b"chkpoint";
/// The version that this build writes.
pub const VERSION: u32 = 2;
/// No checkpoint is longer: 1 KiB for each of a million logs.
pub(crate) const BYTES_MAX: u64 = 1 << 30;
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
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(56 + self.logs.len() * 160);
        body.extend_from_slice(self.store.as_bytes());
        body.extend_from_slice(&self.sequence.to_le_bytes());
        body.extend_from_slice(&self.leader_epoch.get().to_le_bytes());
        body.extend_from_slice(&self.wal.file.to_le_bytes());
        body.extend_from_slice(&self.wal.position.to_le_bytes());
        body.extend_from_slice(&self.wal.frame.to_le_bytes());
        let count = u32::try_from(self.logs.len()).expect("logs fit u32");
        body.extend_from_slice(&count.to_le_bytes());
        for log in &self.logs {
            log.encode(&mut body);
        }
        envelope(MAGIC, VERSION, &body)
    }

    /// Reads a checkpoint back; bytes after it are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
        let opened = open_envelope(MAGIC, VERSION, bytes)?;
        let mut fields = Fields::new(opened.body);
        let store = Uuid::from_bytes(fields.array()?);
        let sequence = fields.u64()?;
        let leader_epoch = LeaderEpoch::new(fields.u32()?);
        let wal = WalPosition {
            file: fields.u64()?,
            position: fields.u64()?,
            frame: fields.u64()?,
        };
        let count = fields.count(LOG_BYTES_MIN)?;
        let mut logs = Vec::with_capacity(count);
        for _ in 0..count {
            logs.push(LogEntry::decode(&mut fields, opened.version)?);
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

impl LogEntry {
    fn encode(&self, out: &mut Vec<u8>) {
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

    fn decode(fields: &mut Fields<'_>, version: u32) -> Result<LogEntry, FormatError> {
        let log = fields.log_id()?;
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
    next: Slot,
    sequence: u64,
}

impl CheckpointStore {
    /// Reads both files past the page cache, where a failed sync may have left lies, and sets the turn: the next store
    /// goes to the file that does not count. The directory must exist.
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
        for slot in Slot::ALL {
            match read_slot(disk, &slot.path(directory), store)? {
                SlotState::Absent => {}
                SlotState::Invalid(reason) => loaded.invalid.push((slot, reason)),
                SlotState::Valid(found) => {
                    if loaded
                        .newest
                        .as_ref()
                        .is_none_or(|newest| newest.sequence < found.sequence)
                    {
                        loaded.newest = Some(found);
                        next = slot.other();
                    }
                }
            }
        }
        let sequence = loaded.newest.as_ref().map_or(0, |newest| newest.sequence);
        Ok((
            CheckpointStore {
                directory: directory.to_owned(),
                next,
                sequence,
            },
            loaded,
        ))
    }

    /// Stores a checkpoint durably; its sequence is set here. After an error nothing is known about the file that was
    /// written, and the one before still counts: stop, don't try again.
    pub fn store(&mut self, disk: &dyn Disk, mut checkpoint: Checkpoint) -> io::Result<u64> {
        checkpoint.sequence = self.sequence + 1;
        let path = self.next.path(&self.directory);
        let is_new = !disk.exists(&path)?;
        let how = if is_new {
            OpenHow::CreateNew
        } else {
            OpenHow::ReadWrite
        };
        let file = disk.open(&path, how)?;
        file.write_at(0, &checkpoint.encode())?;
        file.sync_data()?;
        if is_new {
            disk.sync_dir(&self.directory)?;
        }
        self.sequence = checkpoint.sequence;
        self.next = self.next.other();
        Ok(self.sequence)
    }
}

/// Reads one of the two files.
pub fn read_slot(disk: &dyn Disk, path: &Path, store: Uuid) -> io::Result<SlotState> {
    if !disk.exists(path)? {
        return Ok(SlotState::Absent);
    }
    disk.open(path, OpenHow::Read)?.drop_cache()?;
    let bytes = match read_file(disk, path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error)
            if error.kind() == io::ErrorKind::InvalidData
                || error.raw_os_error() == Some(libc::EIO) =>
        {
            return Ok(SlotState::Invalid(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    Ok(match Checkpoint::decode(&bytes) {
        Ok(checkpoint) if checkpoint.store == store => SlotState::Valid(checkpoint),
        Ok(checkpoint) => SlotState::Invalid(format!("it belongs to store {}", checkpoint.store)),
        Err(error) => SlotState::Invalid(error.to_string()),
    })
}

#[cfg(test)]
mod tests;
