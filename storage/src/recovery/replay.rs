//! Replay: what the WAL says behind the checkpoint is true again.
//!
//! Called once by [`crate::Storage::open`], before any thread runs. Replays frames from the checkpoint's position; nothing
//! is copied, every unsettled batch becomes an entry of its log's tail again.
//! A frame that cannot be read is the torn tail, which nobody was promised, unless a later frame says that it was durable:
//! then acknowledged data is damaged, and that is named, kept on record, and never cut off.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::batch::{Batch, BatchHeader};
use model::{LeaderEpoch, LogId, Offset};
use uuid::Uuid;

use crate::checkpoint::WalPosition;
use crate::damage::Damage;
use crate::error::OpenError;
use crate::io::Disk;
use crate::log::TailEntry;
use crate::wal::WalFile;
use crate::wal::format::{EntryKind, FRAME_VERSION, Frame, FrameEntry};
use crate::wal::pool::{UNFINISHED_SUFFIX, file_name, sequence_of};
use crate::wal::resume::LastEnd;
use crate::wal::walk::{Event, FileEnd, Source, TornTail, walk};

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
pub(crate) enum Replayed {
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
    visit: &mut dyn FnMut(Replayed),
) -> Result<Replay, OpenError> {
    let found = WalFiles::find(disk, directory, from)?;
    let files = open_files(disk, directory, &found.needed)?;
    let mut replay = Replay {
        free: found.free,
        next_file: found.next_file,
        ..Replay::default()
    };
    let sources: Vec<Source> = files.iter().map(|file| file.source()).collect();
    let mut report = std::mem::take(&mut replay.report);
    let mut leader_epoch = None;
    let walked = walk(&sources, store, from, &mut |event| match event {
        Event::Frame { source, frame, .. } => {
            leader_epoch = leader_epoch.max(Some(frame.head.leader_epoch));
            take(&files[source], &frame, &mut report, visit);
        }
        Event::Lost(lost) => visit(Replayed::Damaged(Damage {
            log: None,
            range: Offset::ZERO..Offset::ZERO,
            reason: lost.to_string(),
        })),
    })
    .map_err(OpenError::io("read the WAL in", directory))?;
    if let Some(newer) = walked.newer {
        // Before anything is changed: what follows is not a torn tail.
        return Err(OpenError::Newer {
            path: directory.join(file_name(newer.file)),
            found: newer.version.into(),
            known: FRAME_VERSION.into(),
        });
    }
    for path in found.unfinished {
        disk.remove_file(&path)
            .map_err(OpenError::io("remove", &path))?;
    }
    assert!(
        files.len() == walked.ends.len(),
        "an end is told for each file that was walked"
    );
    replay.leader_epoch = leader_epoch;
    for (file, end) in files.into_iter().zip(&walked.ends) {
        if !end.used && file.sequence != from.file {
            replay.free.push(file.path.clone());
            continue;
        }
        file.file
            .sync_data()
            .map_err(OpenError::io("sync", &file.path))?;
        assert!(
            file.sequence < replay.next_file
                && replay
                    .files
                    .last()
                    .is_none_or(|last| last.sequence < file.sequence),
            "files are replayed in the order of their sequences, and new ones follow"
        );
        replay.last_end = last_end_of(&file, end, walked.torn.as_ref());
        replay.files.push(file);
    }
    replay.next_frame = walked.next_frame;
    report.torn = walked.torn;
    replay.report = report;
    Ok(replay)
}

/// The files of the WAL's directory, by what becomes of them.
struct WalFiles {
    /// The sequences of those that replay walks over.
    needed: BTreeSet<u64>,
    /// Those that lie before.
    free: Vec<PathBuf>,
    /// What a power cut left of files that were being made.
    unfinished: Vec<PathBuf>,
    /// One past the largest sequence.
    next_file: u64,
}

impl WalFiles {
    fn find(disk: &dyn Disk, directory: &Path, from: WalPosition) -> Result<WalFiles, OpenError> {
        let names = disk
            .list(directory)
            .map_err(OpenError::io("list", directory))?;
        let mut found = WalFiles {
            needed: BTreeSet::new(),
            free: Vec::new(),
            unfinished: Vec::new(),
            next_file: from.file + 1,
        };
        for entry in names {
            let path = directory.join(&entry.name);
            if entry.name.ends_with(UNFINISHED_SUFFIX) {
                found.unfinished.push(path);
                continue;
            }
            let Some(sequence) = sequence_of(&entry.name) else {
                continue;
            };
            found.next_file = found.next_file.max(sequence + 1);
            if sequence < from.file {
                found.free.push(path);
            } else {
                found.needed.insert(sequence);
            }
        }
        Ok(found)
    }
}

/// Opens the files that are walked over, past the page cache: after a failed sync it may hold lies.
fn open_files(
    disk: &dyn Disk,
    directory: &Path,
    sequences: &BTreeSet<u64>,
) -> Result<Vec<Arc<WalFile>>, OpenError> {
    let mut files = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let path = directory.join(file_name(*sequence));
        let file =
            WalFile::open(disk, directory, *sequence).map_err(OpenError::io("open", &path))?;
        file.file
            .drop_cache()
            .map_err(OpenError::io("drop the cache of", &path))?;
        files.push(Arc::new(file));
    }
    Ok(files)
}

/// How a file ends that replay needs.
fn last_end_of(file: &WalFile, end: &FileEnd, torn: Option<&TornTail>) -> LastEnd {
    match torn {
        _ if !end.has_rest => LastEnd::Clean(end.position),
        Some(torn) if torn.file == file.sequence && torn.position == end.position => {
            LastEnd::Torn(end.position)
        }
        _ => LastEnd::Unusable,
    }
}

/// Gives what a frame holds. An intact frame's batches were checked when they came; a damaged frame's are each checked again.
fn take(
    file: &Arc<WalFile>,
    frame: &Frame,
    report: &mut RecoveryReport,
    visit: &mut dyn FnMut(Replayed),
) {
    assert!(
        file.sequence == frame.head.file_sequence,
        "a recycled file's old frames never replay"
    );
    report.frames += 1;
    report.bytes += frame.head.padded_bytes();
    for (entry, position, bytes) in frame.parts() {
        if entry.kind == EntryKind::StartRaised {
            visit(Replayed::StartRaised {
                log: entry.log,
                start: entry.offset,
            });
            continue;
        }
        let Some(header) = batch_of(frame, entry, bytes) else {
            visit(Replayed::Damaged(Damage {
                log: Some(entry.log),
                range: entry.offset..entry.end_offset(),
                reason: format!(
                    "WAL file {}, position {position}: the batch is damaged",
                    file.sequence
                ),
            }));
            continue;
        };
        assert!(
            position + u64::from(entry.bytes) <= file.bytes,
            "a batch of a frame lies within its file"
        );
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
        visit(Replayed::Batch {
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
