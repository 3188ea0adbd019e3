//! Opening a data directory: what the checkpoint and the WAL say is true again.
//!
//! Called once by [`crate::Storage::open`], before any thread runs. Replays frames from the checkpoint's position; nothing
//! is copied, every unsettled batch becomes an entry of its log's tail again.
//! A frame that cannot be read is the torn tail, which nobody was promised, unless a later frame says that it was durable:
//! then acknowledged data is damaged, and that is named, kept on record, and never cut off.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::batch::{Batch, BatchHeader};
use model::{LeaderEpoch, LogId, Offset, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint::WalPosition;
use crate::error::OpenError;
use crate::fields::{FormatError, envelope, open_envelope};
use crate::io::{Disk, read_file, write_new_file};
use crate::log::TailEntry;
use crate::wal::WalFile;
use crate::wal::format::{EntryKind, FRAME_VERSION, Frame, FrameEntry};
use crate::wal::pool::{UNFINISHED_SUFFIX, sequence_of};
use crate::wal::resume::LastEnd;
use crate::wal::walk::{Event, Source, TornTail, walk};

pub(crate) const STORE_MAGIC: &[u8; 8] = b"logstore";
pub(crate) const STORE_VERSION: u32 = 1;
/// Each of the two copies of the store's identity has a block of its own.
pub(crate) const STORE_COPY_BYTES: usize = 4096;
/// The version of the lines of `DAMAGE` that are written; version 1 had neither version nor checksum.
pub(crate) const DAMAGE_VERSION: u32 = 2;
/// What separates a line's checksum from what it covers.
const DAMAGE_CHECKSUM: &str = ",\"crc32\":\"";

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
        let missing =
            store_is_missing(disk, directory).map_err(OpenError::io("list", directory))?;
        if let Some(reason) = missing {
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
        Err(error) => Err(OpenError::Format {
            path,
            reason: store_trouble(&error),
        }),
    }
}

/// The bytes of `STORE`.
pub(crate) fn encode_store(store: Uuid) -> Vec<u8> {
    let mut copy = envelope(STORE_MAGIC, STORE_VERSION, store.as_bytes());
    copy.resize(STORE_COPY_BYTES, 0);
    copy.repeat(2)
}

/// Reads the store's identity from whichever copy is whole.
pub fn decode_store(bytes: &[u8]) -> Result<Uuid, FormatError> {
    let mut trouble = FormatError::Truncated {
        have: bytes.len(),
        need: STORE_COPY_BYTES,
    };
    for copy in bytes.chunks(STORE_COPY_BYTES) {
        match open_envelope(STORE_MAGIC, STORE_VERSION, copy) {
            Ok(opened) => match <[u8; 16]>::try_from(opened.body) {
                Ok(uuid) => return Ok(Uuid::from_bytes(uuid)),
                Err(_) => {
                    trouble = FormatError::Field {
                        field: "length of the store's id",
                        value: opened.body.len() as i128,
                    };
                }
            },
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}

/// What to do about a missing `STORE`; None if the directory is none of a store's yet.
pub(crate) fn store_is_missing(disk: &dyn Disk, directory: &Path) -> io::Result<Option<String>> {
    let wal = directory.join("wal");
    let is_store = disk.exists(&wal)? && !disk.list(&wal)?.is_empty();
    Ok(is_store.then(|| {
        "it is missing, though the directory holds a write-ahead log. It does not change after the store is created: put the \
         one from any copy of this data directory in its place"
            .to_owned()
    }))
}

/// What is wrong with `STORE`, and what to do about it.
pub(crate) fn store_trouble(error: &FormatError) -> String {
    format!(
        "neither of its two copies can be read ({error}). Without it the store does not open. It does not change after the \
         store is created: put the one from any copy of this data directory in its place"
    )
}

/// What the WAL holds, as replay saw it.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Every file that is needed, in order.
    pub files: Vec<Arc<WalFile>>,
    /// How the last of them ends.
    pub last_end: LastEnd,
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
    let (mut needed, mut unfinished) = (BTreeSet::new(), Vec::new());
    for entry in names {
        if entry.name.ends_with(UNFINISHED_SUFFIX) {
            unfinished.push(directory.join(&entry.name));
        }
        let Some(sequence) = sequence_of(&entry.name) else {
            continue;
        };
        replay.next_file = replay.next_file.max(sequence + 1);
        if sequence < from.file {
            replay.free.push(directory.join(&entry.name));
        } else {
            needed.insert(sequence);
        }
    }
    let mut files = Vec::with_capacity(needed.len());
    for sequence in needed {
        let path = directory.join(crate::wal::pool::file_name(sequence));
        let file =
            WalFile::open(disk, directory, sequence).map_err(OpenError::io("open", &path))?;
        file.file
            .drop_cache()
            .map_err(OpenError::io("drop the cache of", &path))?;
        files.push(Arc::new(file));
    }
    let sources: Vec<Source> = files.iter().map(|file| file.source()).collect();
    let mut report = std::mem::take(&mut replay.report);
    let mut leader_epoch = None;
    let walked = walk(&sources, store, from, &mut |event| match event {
        Event::Frame { source, frame, .. } => {
            leader_epoch = leader_epoch.max(Some(frame.head.leader_epoch));
            take(&files[source], &frame, &mut report, visit);
        }
        Event::Lost(lost) => visit(Found::Damaged(Damage {
            log: None,
            range: Offset::ZERO..Offset::ZERO,
            reason: lost.to_string(),
        })),
    })
    .map_err(OpenError::io("read the WAL in", directory))?;
    if let Some(newer) = walked.newer {
        // Before anything is changed: what follows is not a torn tail.
        return Err(OpenError::Newer {
            path: directory.join(crate::wal::pool::file_name(newer.file)),
            found: newer.version.into(),
            known: FRAME_VERSION.into(),
        });
    }
    for path in unfinished {
        disk.remove_file(&path)
            .map_err(OpenError::io("remove", &path))?;
    }
    replay.leader_epoch = leader_epoch;
    for (file, end) in files.into_iter().zip(&walked.ends) {
        if !end.used && file.sequence != from.file {
            replay.free.push(file.path.clone());
            continue;
        }
        file.file
            .sync_data()
            .map_err(OpenError::io("sync", &file.path))?;
        replay.last_end = match &walked.torn {
            _ if !end.has_rest => LastEnd::Clean(end.position),
            Some(torn) if torn.file == file.sequence && torn.position == end.position => {
                LastEnd::Torn(end.position)
            }
            _ => LastEnd::Unusable,
        };
        replay.files.push(file);
    }
    replay.next_frame = walked.next_frame;
    report.torn = walked.torn;
    replay.report = report;
    Ok(replay)
}

/// Gives what a frame holds. An intact frame's batches were checked when they came; a damaged frame's are each checked again.
fn take(
    file: &Arc<WalFile>,
    frame: &Frame,
    report: &mut RecoveryReport,
    visit: &mut dyn FnMut(Found),
) {
    report.frames += 1;
    report.bytes += frame.head.padded_bytes();
    for (entry, position, bytes) in frame.parts() {
        if entry.kind == EntryKind::StartRaised {
            visit(Found::StartRaised {
                log: entry.log,
                start: entry.offset,
            });
            continue;
        }
        let Some(header) = batch_of(frame, entry, bytes) else {
            visit(Found::Damaged(Damage {
                log: Some(entry.log),
                range: entry.offset..entry.end_offset(),
                reason: format!(
                    "WAL file {}, position {position}: the batch is damaged",
                    file.sequence
                ),
            }));
            continue;
        };
        report.batches += 1;
        let tail = TailEntry {
            base: entry.offset,
            next: header.next_offset(),
            file: Arc::clone(file),
            position: u32::try_from(position).expect("WAL files are far below 4 GiB"),
            bytes: entry.bytes,
            max_timestamp: header.max_time(),
            append_time: frame.head.append_time,
        };
        visit(Found::Batch {
            log: entry.log,
            header: Box::new(header),
            entry: tail,
            epoch: frame.head.leader_epoch,
        });
    }
}

/// The header of a batch of a frame, if the batch is whole and what the table says.
pub(crate) fn batch_of(frame: &Frame, entry: &FrameEntry, bytes: Bytes) -> Option<BatchHeader> {
    let batch = if frame.intact {
        Batch::parse_unverified(bytes)
    } else {
        Batch::parse(bytes)
    };
    let header = *batch.ok()?.header();
    let is_it = header.base() == entry.offset && header.next_offset() == entry.end_offset();
    is_it.then_some(header)
}

/// One line of the file `DAMAGE`: what was found damaged at some start stays on record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DamageLine {
    pub log: Option<String>,
    pub from: u64,
    pub to: u64,
    pub reason: String,
    pub found_ms: i64,
    /// None in lines of version 1.
    #[serde(default)]
    pub version: Option<u32>,
}

impl DamageLine {
    /// The line, with a checksum (CRC-32, IEEE) of all before the checksum's own field.
    fn encode(&self) -> String {
        let mut text = serde_json::to_string(self).expect("a line of plain fields is JSON");
        assert!(text.pop() == Some('}'), "an object");
        let checksum = crc32fast::hash(text.as_bytes());
        format!("{text}{DAMAGE_CHECKSUM}{checksum:08x}\"}}\n")
    }

    /// Reads a line back. The inner error is the version of one that is whole and not known.
    fn decode(line: &[u8]) -> Result<Result<DamageLine, u32>, String> {
        let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        let covered = text.rsplit_once(DAMAGE_CHECKSUM);
        if let Some((covered, stored)) = covered {
            let computed = format!("{:08x}\"}}", crc32fast::hash(covered.as_bytes()));
            if stored.trim_end() != computed {
                return Err("its checksum does not match".to_owned());
            }
            let head: serde_json::Value =
                serde_json::from_str(text).map_err(|error| error.to_string())?;
            let version = head["version"].as_u64().unwrap_or(0);
            if version != u64::from(DAMAGE_VERSION) {
                return Ok(Err(u32::try_from(version).unwrap_or(u32::MAX)));
            }
        }
        let line: DamageLine = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if covered.is_none() && line.version.is_some() {
            return Err("its checksum is missing".to_owned());
        }
        Ok(Ok(line))
    }
}

/// The version of a line of `DAMAGE` that is whole and not known.
pub(crate) fn newer_damage(bytes: &[u8]) -> Option<u32> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .find_map(|line| DamageLine::decode(line).ok()?.err())
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
    let read = |line: &[u8]| match DamageLine::decode(line) {
        Ok(Ok(line)) => Ok(line),
        Ok(Err(version)) => Err(format!("version {version} is not known")),
        Err(reason) => Err(reason),
    };
    Ok(lines
        .map(|line| match read(line) {
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
            version: Some(DAMAGE_VERSION),
        };
        bytes.extend_from_slice(line.encode().as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../tests/golden/store.v1");

    #[test]
    fn store_v1() {
        let store = Uuid::from_bytes(*b"golden store id ");
        assert_eq!(encode_store(store), GOLDEN);
        assert_eq!(decode_store(GOLDEN), Ok(store));
    }

    #[test]
    fn a_store_is_known_from_either_copy_and_never_from_a_damaged_one() {
        let store = decode_store(GOLDEN).unwrap();
        for bit in 0..36 * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                decode_store(&bytes),
                Ok(store),
                "bit {bit} of the first copy"
            );
            bytes[STORE_COPY_BYTES + bit / 8] ^= 1 << (bit % 8);
            assert!(decode_store(&bytes).is_err(), "bit {bit} of both copies");
        }
        for len in 0..STORE_COPY_BYTES + 36 {
            let whole = decode_store(&GOLDEN[..len]);
            assert_eq!(whole.is_ok(), len >= 36, "cut at {len}");
        }
    }
}
