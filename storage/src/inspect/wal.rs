//! Lists what a file of the write-ahead log holds, and verifies the part that a start would replay.
//!
//! Callers: `alluvium log dump` on a `.wal` file, and `verify_store`. Reads only; the file may be in use.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use model::batch::BatchHeader;
use model::{LogId, Offset};
use serde::Serialize;
use uuid::Uuid;

use super::{BatchLine, Finding, Verify};
use crate::checkpoint::{Checkpoint, WalPosition};
use crate::io::{Disk, DiskFile, OpenHow, read_file};
use crate::recovery::newer::Newer;
use crate::recovery::replay::batch_of;
use crate::recovery::store_file::decode_store;
use crate::wal::format::{EntryKind, FRAME_VERSION, Frame, FrameHead};
use crate::wal::pool::{file_name, sequence_of};
use crate::wal::reader::{first_store, read_frame, scan_heads};
use crate::wal::walk::{Event, Source, walk};

/// One thing that a WAL file holds, in order of position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WalItem {
    /// A frame: what was written at once.
    Frame(WalFrame),
    /// A place where a frame should begin, and none can be read. Frames follow behind it.
    Unreadable {
        /// Where it begins.
        position: u64,
        /// Where the next frame begins.
        end_position: u64,
        /// Whether a later frame knows that what stood here was durable: then it is damage, and not a torn tail.
        was_durable: bool,
    },
}

/// A frame of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalFrame {
    /// Where it begins in the file.
    pub position: u64,
    /// What it takes in the file, with its padding.
    pub bytes: u64,
    /// Its number: one more than the frame before, over all files.
    pub sequence: u64,
    /// Every frame below this number was durable when this one was built.
    pub durable_sequence: u64,
    /// Whether a later frame, in this file or the next one, knows that this one was durable. The last frames of the log are
    /// not known to be: the sync that covers them has no witness.
    pub known_durable: bool,
    /// When it was built, by the broker's clock, in milliseconds.
    pub append_time: i64,
    /// The leader epoch of the start that wrote it.
    pub leader_epoch: u32,
    /// Its batches' length together.
    pub batch_bytes: u64,
    /// Whether the checksum over its batches is right.
    pub intact: bool,
    /// What it holds; empty in the frame with which a start begins.
    pub entries: Vec<WalEntry>,
}

/// An entry of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalEntry {
    /// The log, as `<uuid>-<partition>`.
    pub log: String,
    /// `batch`, or `start-raised`: the log begins at `offset` from here on.
    pub kind: &'static str,
    /// The batch's base offset, or the new start.
    pub offset: u64,
    /// The offset after the batch's last one; for other kinds the same as `offset`.
    pub end_offset: u64,
    /// Where the batch stands in the file.
    pub position: u64,
    /// The batch's length; 0 for other kinds.
    pub bytes: u32,
    /// The batch; None for other kinds, and where its header cannot be read. Its `fault` says whether it is damaged.
    pub batch: Option<BatchLine>,
}

/// What a WAL file holds in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WalSummary {
    /// The file's number, which is its name.
    pub file_sequence: u64,
    /// The store that it belongs to.
    pub store: Option<Uuid>,
    /// The file's length.
    pub bytes: u64,
    /// Where its last frame ends. What follows are zeros, or frames of an earlier use of the file.
    pub used_bytes: u64,
    /// Frames.
    pub frames: u64,
    /// Batches.
    pub batches: u64,
    /// Bytes of batches.
    pub batch_bytes: u64,
    /// Places that cannot be read.
    pub unreadable: u64,
    /// Frames whose batches' checksum is wrong.
    pub damaged_frames: u64,
    /// Every frame below this number is known to have been durable; 0 if none is.
    pub durable_sequence: u64,
}

/// Calls `visit` for everything that a file of the write-ahead log holds, in order. The store's id comes from `STORE`, two
/// directories above, or else from the first frame. What a recycled file held under an earlier name is not shown.
/// Errors: the disk's; a path that is no WAL file's is `InvalidInput`.
pub fn dump_wal(
    disk: &dyn Disk,
    path: &Path,
    visit: &mut dyn FnMut(WalItem),
) -> io::Result<WalSummary> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let sequence = sequence_of(&name).ok_or_else(|| {
        let reason = format!("{name} is no name of a file of the write-ahead log");
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    })?;
    let file = disk.open(path, OpenHow::Read)?;
    let mut summary = WalSummary {
        file_sequence: sequence,
        bytes: file.len()?,
        ..WalSummary::default()
    };
    summary.store = match store_of(disk, path)? {
        Some(store) => Some(store),
        None => first_store(&*file, sequence)?,
    };
    let Some(store) = summary.store else {
        return Ok(summary);
    };
    let heads = scan_heads(&*file, store, sequence, 0)?;
    summary.durable_sequence = durable_sequence(disk, path, store, sequence, &heads)?;
    let mut position = 0;
    for (at, head) in heads {
        if at > position {
            summary.unreadable += 1;
            visit(WalItem::Unreadable {
                position,
                end_position: at,
                was_durable: head.sequence <= summary.durable_sequence,
            });
        }
        position = at + head.padded_bytes();
        let Some(frame) = read_frame(&*file, store, sequence, at)? else {
            continue;
        };
        summary.frames += 1;
        summary.damaged_frames += u64::from(!frame.intact);
        summary.used_bytes = position;
        let line = frame_line(at, &frame, summary.durable_sequence);
        let batches = line.entries.iter().filter(|entry| entry.bytes > 0).count();
        summary.batches += batches as u64;
        summary.batch_bytes += line.batch_bytes;
        visit(WalItem::Frame(line));
    }
    Ok(summary)
}

fn store_of(disk: &dyn Disk, path: &Path) -> io::Result<Option<Uuid>> {
    let Some(root) = path.parent().and_then(Path::parent) else {
        return Ok(None);
    };
    let path = root.join("STORE");
    if !disk.exists(&path)? {
        return Ok(None);
    }
    Ok(decode_store(&read_file(disk, &path, 1 << 20)?).ok())
}

/// What the frames of this file and the first one of the next know to be durable.
fn durable_sequence(
    disk: &dyn Disk,
    path: &Path,
    store: Uuid,
    sequence: u64,
    heads: &[(u64, FrameHead)],
) -> io::Result<u64> {
    let here = heads.iter().map(|(_, head)| head.durable_sequence).max();
    let next = path.with_file_name(file_name(sequence + 1));
    let behind = if disk.exists(&next)? {
        let file: std::sync::Arc<dyn DiskFile> = disk.open(&next, OpenHow::Read)?;
        let frame = read_frame(&*file, store, sequence + 1, 0)?;
        frame.map(|frame| frame.head.durable_sequence)
    } else {
        None
    };
    Ok(here.max(behind).unwrap_or(0))
}

fn frame_line(position: u64, frame: &Frame, durable_sequence: u64) -> WalFrame {
    let head = &frame.head;
    let entries = frame.parts().map(|(entry, position, bytes)| WalEntry {
        log: entry.log.to_string(),
        kind: match entry.kind {
            EntryKind::Batch => "batch",
            EntryKind::StartRaised => "start-raised",
        },
        offset: entry.offset.get(),
        end_offset: entry.end_offset().get(),
        position,
        bytes: entry.bytes,
        batch: BatchHeader::parse(&bytes).ok().map(|header| {
            let whole = frame.intact || batch_of(frame, entry, bytes.clone()).is_some();
            let fault = (!whole).then(|| "the batch is damaged".to_owned());
            BatchLine::new(position, &header, fault)
        }),
    });
    WalFrame {
        position,
        bytes: head.padded_bytes(),
        sequence: head.sequence,
        durable_sequence: head.durable_sequence,
        known_durable: head.sequence < durable_sequence,
        append_time: head.append_time.millis(),
        leader_epoch: head.leader_epoch.get(),
        batch_bytes: head.batch_bytes,
        intact: frame.intact,
        entries: entries.collect(),
    }
}

impl Verify<'_> {
    /// Walks what a start would replay.
    pub(super) fn wal(
        &mut self,
        data_dir: &Path,
        store: Option<Uuid>,
        checkpoint: Option<&Checkpoint>,
    ) -> io::Result<()> {
        let directory = data_dir.join("wal");
        let Some(store) = store else { return Ok(()) };
        if !self.disk.exists(&directory)? {
            return Ok(());
        }
        let from = checkpoint.map_or(WalPosition::BEGINNING, |checkpoint| checkpoint.wal);
        let entries = checkpoint.iter().flat_map(|checkpoint| &checkpoint.logs);
        let settled: HashMap<LogId, Offset> = entries
            .map(|entry| (entry.log, entry.settled_end))
            .collect();
        let mut sources = Vec::new();
        for entry in self.disk.list(&directory)? {
            let Some(sequence) = sequence_of(&entry.name).filter(|found| *found >= from.file)
            else {
                continue;
            };
            let file = self
                .disk
                .open(&directory.join(&entry.name), OpenHow::Read)?;
            let bytes = file.len()?;
            sources.push(Source {
                sequence,
                file,
                bytes,
            });
        }
        let walked = walk(&sources, store, from, &mut |event| match event {
            Event::Frame { source, frame, .. } => {
                self.summary.wal_frames += 1;
                let path = directory.join(file_name(sources[source].sequence));
                self.count_frame(&settled, &path, &frame);
                self.frame(&path, &frame);
            }
            Event::Lost(lost) => self.find(Finding {
                path: directory.join(file_name(lost.file)),
                position: Some(lost.position),
                log: None,
                from_offset: None,
                to_offset: None,
                reason: lost.to_string(),
                is_damage: true,
                stops_start: false,
            }),
        })?;
        if let Some(found) = walked.newer {
            let newer = Newer {
                path: directory.join(file_name(found.file)),
                found: found.version.into(),
                known: FRAME_VERSION.into(),
            };
            let reason = format!("position {}: {newer}", found.position);
            self.refusal(&newer.path, reason);
            return Ok(());
        }
        if let Some(torn) = walked.torn {
            let path = directory.join(file_name(torn.file));
            let reason = format!(
                "{} frames from position {} on are a torn tail, which nobody was promised",
                torn.frames, torn.position
            );
            self.note(&path, None, reason);
        }
        Ok(())
    }

    /// Counts the batches that no segment holds yet.
    fn count_frame(&mut self, settled: &HashMap<LogId, Offset>, path: &Path, frame: &Frame) {
        for (entry, position, bytes) in frame.parts() {
            let end = settled.get(&entry.log).copied().unwrap_or(Offset::ZERO);
            if entry.kind != EntryKind::Batch || entry.offset < end {
                continue;
            }
            if self.unsettled.insert(entry.log, end).is_none() {
                self.summary.logs += 1;
            }
            if let Some(header) = batch_of(frame, entry, bytes) {
                self.count(&header);
                self.summary.wal_records += u64::from(header.record_count.unsigned_abs());
                self.unsettled_state(entry.log, path, position, &header);
            }
        }
    }

    fn frame(&mut self, path: &Path, frame: &Frame) {
        if frame.intact {
            return;
        }
        for (entry, position, bytes) in frame.parts() {
            if entry.kind == EntryKind::Batch && batch_of(frame, entry, bytes).is_none() {
                let offsets: std::ops::Range<Offset> = entry.offset..entry.end_offset();
                self.damage(path, entry.log, position, offsets, "the batch is damaged");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::verify_store;
    use crate::io::{ManualClock, SimDisk};
    use crate::{Env, LogSettings, Storage, StorageConfig};
    use model::batch::{Batch, BatchBuilder};
    use model::codec::Codec;
    use model::topic_config::TopicConfig;
    use model::{PartitionId, Timestamp, TopicId};
    use std::path::PathBuf;
    use std::sync::Arc;

    /// A killed store whose WAL holds the start's frame, two with a batch of two records, and a raised start.
    fn store() -> (SimDisk, PathBuf) {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 256 << 10;
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
        let env = Env::manual(Arc::new(disk.clone()), clock);
        let (storage, _) = Storage::open(config, env).unwrap();
        let id = LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0));
        let log = storage.create_log(id, LogSettings::from(&TopicConfig::default()));
        for _ in 0..2 {
            let mut builder = BatchBuilder::new(Codec::Lz4);
            for _ in 0..2 {
                let time = Timestamp::from_millis(5);
                builder.push(time, None, Some(b"value"), &[]).unwrap();
            }
            let batch = Batch::parse(builder.build().unwrap()).unwrap();
            let admission = storage.try_admit(100).unwrap();
            let _ = log.append(vec![batch.into()], admission).unwrap();
            storage.commit_once();
        }
        drop(log.delete_records(Offset::new(1)).unwrap());
        storage.commit_once();
        disk.cut_power();
        drop(storage);
        disk.restart_process();
        (disk, PathBuf::from("/data/wal").join(file_name(1)))
    }

    fn dump(disk: &SimDisk, path: &Path) -> (WalSummary, Vec<WalItem>) {
        let mut items = Vec::new();
        let summary = dump_wal(disk, path, &mut |item| items.push(item)).unwrap();
        (summary, items)
    }

    #[test]
    fn frames_are_listed_with_their_entries_and_with_what_is_known_to_be_durable() {
        let (disk, path) = store();
        let (summary, items) = dump(&disk, &path);
        assert_eq!(
            (summary.frames, summary.batches, summary.unreadable),
            (4, 2, 0)
        );
        let frames: Vec<&WalFrame> = items
            .iter()
            .map(|item| match item {
                WalItem::Frame(frame) => frame,
                other => panic!("{other:?}"),
            })
            .collect();
        let known: Vec<(u64, bool)> = frames
            .iter()
            .map(|frame| (frame.sequence, frame.known_durable))
            .collect();
        assert_eq!(known, [(1, true), (2, true), (3, true), (4, false)]);
        assert!(frames[0].entries.is_empty());
        let entry = &frames[2].entries[0];
        assert_eq!(
            (entry.kind, entry.offset, entry.end_offset),
            ("batch", 2, 4)
        );
        assert_eq!(entry.batch.as_ref().unwrap().codec, "lz4");
        assert_eq!(frames[3].entries[0].kind, "start-raised");
        assert_eq!(frames[3].entries[0].offset, 1);
    }

    #[test]
    fn damage_is_told_from_a_torn_tail() {
        let (disk, path) = store();
        disk.flip(&path, 4096 + 10, 1);
        let (summary, items) = dump(&disk, &path);
        assert_eq!((summary.frames, summary.unreadable), (3, 1));
        let hole = WalItem::Unreadable {
            position: 4096,
            end_position: 8192,
            was_durable: true,
        };
        assert_eq!(items[1], hole);
        let mut findings = Vec::new();
        let summary = verify_store(&disk, Path::new("/data"), &mut |finding| {
            findings.push(finding);
        })
        .unwrap();
        assert_eq!((summary.damaged, summary.wal_frames), (1, 3));
        assert_eq!(findings[0].path, path);
    }

    #[test]
    fn a_batch_with_a_flipped_bit_is_named_with_its_offsets() {
        let (disk, path) = store();
        disk.flip(&path, 4096 + 120 + 30, 1);
        let (summary, items) = dump(&disk, &path);
        assert_eq!(summary.damaged_frames, 1);
        let WalItem::Frame(frame) = &items[1] else {
            panic!("{items:?}");
        };
        let batch = frame.entries[0].batch.as_ref();
        assert!(!frame.intact && batch.is_none_or(|batch| batch.fault.is_some()));
        let mut findings = Vec::new();
        verify_store(&disk, Path::new("/data"), &mut |finding| {
            findings.push(finding);
        })
        .unwrap();
        assert_eq!(
            (findings[0].from_offset, findings[0].to_offset),
            (Some(0), Some(2))
        );
    }

    #[test]
    fn another_files_name_is_refused() {
        let (disk, _) = store();
        let error = dump_wal(&disk, Path::new("/data/STORE"), &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
