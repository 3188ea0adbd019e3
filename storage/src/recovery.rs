//! Opening a data directory: what the checkpoint and the WAL say is true again.
//!
//! Called once by [`crate::Storage::open`], before any thread runs. Replays frames from the checkpoint's position; nothing
//! is copied, every unsettled batch becomes an entry of its log's tail again.
//! A frame that cannot be read is the torn tail, which nobody was promised, unless a later frame says that it was durable:
//! then acknowledged data is damaged, and that is named, kept on record, and never cut off.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::batch::{Batch, BatchHeader};
use model::{LeaderEpoch, LogId, Offset, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint::WalPosition;
use crate::error::OpenError;
use crate::fields::{envelope, open_envelope};
use crate::io::{Disk, read_file, write_new_file};
use crate::log::TailEntry;
use crate::wal::WalFile;
use crate::wal::format::{EntryKind, Frame};
use crate::wal::pool::sequence_of;
use crate::wal::reader::{read_frame, scan_heads};

const STORE_MAGIC: &[u8; 8] = b"logstore";
const STORE_VERSION: u32 = 1;
/// Each of the two copies of the store's identity has a block of its own.
const STORE_COPY_BYTES: usize = 4096;

/// Acknowledged records that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose; None if not even that can be told.
    pub log: Option<LogId>,
    /// Which offsets.
    pub range: Range<Offset>,
    /// What was found.
    pub reason: String,
}

/// The end of the WAL that was being written when the store stopped. Nobody was promised it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The WAL file.
    pub file: u64,
    /// Where the last whole frame ends.
    pub position: u64,
    /// How many later frames were found whole and dropped with it.
    pub frames: usize,
}

/// What recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the data directory is new.
    pub created: bool,
    /// Frames that were replayed.
    pub frames: u64,
    /// Batches that went into the logs' tails again.
    pub batches: u64,
    /// Bytes of the WAL that were read.
    pub bytes: u64,
    /// What was dropped at the end of the WAL.
    pub torn: Option<TornTail>,
    /// Acknowledged records that are damaged, now or at an earlier start.
    pub damage: Vec<Damage>,
    /// Checkpoint files that could not be read, with the reason.
    pub checkpoint_trouble: Vec<String>,
    /// The leader epoch of this start.
    pub leader_epoch: u32,
}

/// Who the store is: `STORE`, with two copies inside, so that one bad sector does not orphan the data.
pub(crate) fn open_store_file(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<(Uuid, bool), OpenError> {
    let path = directory.join("STORE");
    if !disk
        .exists(&path)
        .map_err(OpenError::io("look for", &path))?
    {
        let wal = directory.join("wal");
        let orphaned = disk.exists(&wal).map_err(OpenError::io("look for", &wal))?
            && !disk
                .list(&wal)
                .map_err(OpenError::io("list", &wal))?
                .is_empty();
        if orphaned {
            let reason = "it is missing, though the directory holds a write-ahead log: restore it from a copy".to_owned();
            return Err(OpenError::Format { path, reason });
        }
        let store = Uuid::new_v4();
        let temporary = directory.join("STORE.new");
        if disk
            .exists(&temporary)
            .map_err(OpenError::io("look for", &temporary))?
        {
            disk.remove_file(&temporary)
                .map_err(OpenError::io("remove", &temporary))?;
        }
        write_new_file(disk, &temporary, &encode_store(store))
            .map_err(OpenError::io("write", &temporary))?;
        disk.rename(&temporary, &path)
            .map_err(OpenError::io("create", &path))?;
        disk.sync_dir(directory)
            .map_err(OpenError::io("sync", directory))?;
        return Ok((store, true));
    }
    let bytes = read_file(disk, &path, 1 << 20).map_err(OpenError::io("read", &path))?;
    match decode_store(&bytes) {
        Ok(store) => Ok((store, false)),
        Err(reason) => Err(OpenError::Format { path, reason }),
    }
}

/// The bytes of `STORE`.
pub(crate) fn encode_store(store: Uuid) -> Vec<u8> {
    let mut copy = envelope(STORE_MAGIC, STORE_VERSION, store.as_bytes());
    copy.resize(STORE_COPY_BYTES, 0);
    copy.repeat(2)
}

/// Reads the store's identity from whichever copy is whole.
pub fn decode_store(bytes: &[u8]) -> Result<Uuid, String> {
    let mut reason = "it is empty".to_owned();
    for copy in bytes.chunks(STORE_COPY_BYTES) {
        match open_envelope(STORE_MAGIC, STORE_VERSION, copy) {
            Ok(opened) => match <[u8; 16]>::try_from(opened.body) {
                Ok(uuid) => return Ok(Uuid::from_bytes(uuid)),
                Err(_) => reason = "neither copy holds a store's id".to_owned(),
            },
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// What the WAL holds, as replay saw it.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Every file that is needed, in order.
    pub files: Vec<Arc<WalFile>>,
    /// Where the last of them goes on, if nothing of a torn tail lies behind.
    pub goes_on_at: Option<u64>,
    /// Files that may be used again at once.
    pub free: Vec<PathBuf>,
    /// One past the largest file sequence seen.
    pub next_file: u64,
    /// The number of the next frame.
    pub next_frame: u64,
    /// The largest leader epoch seen.
    pub leader_epoch: Option<LeaderEpoch>,
    pub report: RecoveryReport,
}

/// One thing that replay found, in order.
pub(crate) enum Found {
    Batch {
        log: LogId,
        header: Box<BatchHeader>,
        entry: TailEntry,
        epoch: LeaderEpoch,
    },
    StartRaised {
        log: LogId,
        start: Offset,
    },
    Damaged(Damage),
}

/// Walks the WAL from `from`, and calls `visit` for everything in it.
pub(crate) fn replay_wal(
    disk: &dyn Disk,
    directory: &Path,
    store: Uuid,
    from: WalPosition,
    visit: &mut dyn FnMut(Found),
) -> Result<Replay, OpenError> {
    let names = disk
        .list(directory)
        .map_err(OpenError::io("list", directory))?;
    let mut replay = Replay {
        next_file: from.file + 1,
        next_frame: from.frame,
        ..Replay::default()
    };
    let mut needed = BTreeMap::new();
    for entry in names {
        let Some(sequence) = sequence_of(&entry.name) else {
            continue;
        };
        replay.next_file = replay.next_file.max(sequence + 1);
        if sequence < from.file {
            replay.free.push(directory.join(&entry.name));
        } else {
            needed.insert(sequence, entry.len);
        }
    }
    let mut walk = Walk {
        store,
        expected: from.frame,
        torn: None,
        has_rest: false,
        visit,
    };
    for (sequence, _) in needed {
        let path = directory.join(crate::wal::pool::file_name(sequence));
        let file =
            WalFile::open(disk, directory, sequence).map_err(OpenError::io("open", &path))?;
        file.file
            .drop_cache()
            .map_err(OpenError::io("drop the cache of", &path))?;
        let file = Arc::new(file);
        let position = if sequence == from.file {
            from.position
        } else {
            0
        };
        let (used, end) = walk
            .file(&file, position, &mut replay)
            .map_err(OpenError::io("read", &path))?;
        if used || sequence == from.file {
            file.file
                .sync_data()
                .map_err(OpenError::io("sync", &path))?;
            replay.goes_on_at = (!walk.has_rest).then_some(end);
            replay.files.push(file);
        } else {
            replay.free.push(path);
        }
    }
    replay.next_frame = walk.expected;
    replay.report.torn = walk.torn;
    Ok(replay)
}

struct Walk<'a> {
    store: Uuid,
    /// The number that the next frame must have.
    expected: u64,
    /// Where the walk could not go on, until a later file shows that nothing was lost there.
    torn: Option<TornTail>,
    /// Whether frames of the file that was walked last lie behind the place where its walk ended.
    has_rest: bool,
    visit: &'a mut dyn FnMut(Found),
}

impl Walk<'_> {
    /// Walks one file. Whether it holds a frame that counts, and where the last of them ends.
    fn file(
        &mut self,
        file: &Arc<WalFile>,
        from: u64,
        replay: &mut Replay,
    ) -> std::io::Result<(bool, u64)> {
        let mut position = from;
        let mut used = false;
        self.has_rest = false;
        while position < file.bytes {
            let frame = read_frame(file.file.as_ref(), self.store, file.sequence, position)?;
            match frame {
                Some(frame)
                    if frame.head.sequence == self.expected
                        && (frame.intact || self.was_durable(file, &frame, position)?) =>
                {
                    position += frame.head.padded_bytes();
                    used = true;
                    self.torn = None;
                    self.take(file, frame, replay);
                }
                _ => match self.resume_after(file, position)? {
                    // A later frame was built when this one was durable: what lies between is damaged, not torn.
                    Some(later) => {
                        let reason = format!(
                            "WAL file {} cannot be read at position {position}, before frames that were written later",
                            file.sequence
                        );
                        (self.visit)(Found::Damaged(Damage {
                            log: None,
                            range: Offset::ZERO..Offset::ZERO,
                            reason,
                        }));
                        position = later.0;
                        self.expected = later.1;
                    }
                    None => {
                        let rest =
                            scan_heads(file.file.as_ref(), self.store, file.sequence, position)?;
                        if !rest.is_empty() {
                            self.has_rest = true;
                            self.torn = Some(TornTail {
                                file: file.sequence,
                                position,
                                frames: rest.len(),
                            });
                        }
                        break;
                    }
                },
            }
        }
        Ok((used, position))
    }

    /// Whether a later frame in this file knows that `frame` was durable.
    fn was_durable(&self, file: &WalFile, frame: &Frame, position: u64) -> std::io::Result<bool> {
        let after = position + frame.head.padded_bytes();
        let later = scan_heads(file.file.as_ref(), self.store, file.sequence, after)?;
        Ok(later
            .iter()
            .any(|(_, head)| head.durable_sequence > frame.head.sequence))
    }

    /// The next frame after an unreadable place, if some frame behind it knows that the place was durable.
    fn resume_after(&self, file: &WalFile, position: u64) -> std::io::Result<Option<(u64, u64)>> {
        let later = scan_heads(file.file.as_ref(), self.store, file.sequence, position)?;
        let mut later = later
            .into_iter()
            .filter(|(_, head)| head.sequence > self.expected)
            .peekable();
        let Some((at, head)) = later.peek().map(|(at, head)| (*at, head.sequence)) else {
            return Ok(None);
        };
        let promised = later.any(|(_, head)| head.durable_sequence > self.expected);
        Ok(promised.then_some((at, head)))
    }

    fn take(&mut self, file: &Arc<WalFile>, frame: Frame, replay: &mut Replay) {
        self.expected = frame.head.sequence + 1;
        replay.leader_epoch = replay.leader_epoch.max(Some(frame.head.leader_epoch));
        replay.report.frames += 1;
        replay.report.bytes += frame.head.padded_bytes();
        let mut at = 0;
        for entry in &frame.entries {
            if entry.kind == EntryKind::StartRaised {
                (self.visit)(Found::StartRaised {
                    log: entry.log,
                    start: entry.offset,
                });
                continue;
            }
            let bytes = frame.batches.slice(at..at + entry.bytes as usize);
            let position = frame.batches_position + at as u64;
            at += entry.bytes as usize;
            // An intact frame's batches were checked when they came; a damaged frame's are each checked again.
            let batch = if frame.intact {
                Batch::parse_unverified(bytes)
            } else {
                Batch::parse(bytes)
            };
            let batch = batch
                .ok()
                .filter(|batch| batch.header().base() == entry.offset);
            let Some(batch) = batch else {
                let reason = format!(
                    "WAL file {}, position {position}: the batch is damaged",
                    file.sequence
                );
                let range = entry.offset..entry.offset;
                (self.visit)(Found::Damaged(Damage {
                    log: Some(entry.log),
                    range,
                    reason,
                }));
                continue;
            };
            replay.report.batches += 1;
            let header = batch.header();
            let tail = TailEntry {
                base: entry.offset,
                next: header.next_offset(),
                file: Arc::clone(file),
                position: u32::try_from(position).expect("WAL files are far below 4 GiB"),
                bytes: entry.bytes,
                max_timestamp: header.max_time(),
                append_time: frame.head.append_time,
            };
            let epoch = frame.head.leader_epoch;
            (self.visit)(Found::Batch {
                log: entry.log,
                header: Box::new(*header),
                entry: tail,
                epoch,
            });
        }
    }
}

/// One line of the file `DAMAGE`: what was found damaged at some start stays on record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DamageLine {
    pub log: Option<String>,
    pub from: u64,
    pub to: u64,
    pub reason: String,
    pub found_ms: i64,
}

/// The damage that earlier starts found. A line that cannot be read is itself reported.
pub(crate) fn load_damage(disk: &dyn Disk, directory: &Path) -> Result<Vec<Damage>, OpenError> {
    let path = directory.join("DAMAGE");
    if !disk
        .exists(&path)
        .map_err(OpenError::io("look for", &path))?
    {
        return Ok(Vec::new());
    }
    let bytes = read_file(disk, &path, 64 << 20).map_err(OpenError::io("read", &path))?;
    let lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    Ok(lines
        .map(|line| match serde_json::from_slice::<DamageLine>(line) {
            Ok(line) => Damage {
                log: line.log.and_then(|log| log.parse().ok()),
                range: Offset::new(line.from)..Offset::new(line.to),
                reason: line.reason,
            },
            Err(error) => Damage {
                log: None,
                range: Offset::ZERO..Offset::ZERO,
                reason: format!("{}: a line cannot be read: {error}", path.display()),
            },
        })
        .collect())
}

/// Puts all known damage on record, durably: a new file in place of the old one.
pub(crate) fn store_damage(
    disk: &dyn Disk,
    directory: &Path,
    damage: &[Damage],
    now: Timestamp,
) -> Result<(), OpenError> {
    let mut bytes = Vec::new();
    for found in damage {
        let line = DamageLine {
            log: found.log.map(|log| log.to_string()),
            from: found.range.start.get(),
            to: found.range.end.get(),
            reason: found.reason.clone(),
            found_ms: now.millis(),
        };
        serde_json::to_writer(&mut bytes, &line).expect("a line of plain fields is JSON");
        bytes.push(b'\n');
    }
    let (path, temporary) = (directory.join("DAMAGE"), directory.join("DAMAGE.new"));
    if disk
        .exists(&temporary)
        .map_err(OpenError::io("look for", &temporary))?
    {
        disk.remove_file(&temporary)
            .map_err(OpenError::io("remove", &temporary))?;
    }
    write_new_file(disk, &temporary, &bytes).map_err(OpenError::io("write", &temporary))?;
    disk.rename(&temporary, &path)
        .map_err(OpenError::io("create", &path))?;
    disk.sync_dir(directory)
        .map_err(OpenError::io("sync", directory))
}
