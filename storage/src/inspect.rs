//! Looks at a data directory or a single file without changing anything: for the tools, while no broker runs.
//!
//! Callers: the command line, which prints what is found here. Damage is told with its file and position; nothing is
//! repaired, and one damaged file does not keep the others from being looked at.

mod state;
mod summaries;
mod wal;

pub use summaries::{SummedWindow, summed_windows};
pub use wal::{WalEntry, WalFrame, WalItem, WalSummary, dump_wal};

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use model::batch::{Batch, BatchHeader};
use model::state_log::StateLogKind;
use model::{LogId, Offset};
use serde::Serialize;
use uuid::Uuid;

use crate::checkpoint::{ActiveSegment, Checkpoint, Slot, SlotState, read_slot};
use crate::damage::{Damage, load_damage};
use crate::data_dir::has_settled;
use crate::error::OpenError;
use crate::fields::FormatError;
use crate::io::{Disk, DiskFile, OpenHow, read_file};
use crate::manifest::{self, Manifest, SegmentEntry, SegmentKind};
use crate::recovery::newer;
use crate::recovery::store_file::{
    RESTORING_FILE, decode_store, is_being_restored, no_checkpoint, store_is_missing, store_trouble,
};
use crate::segment::key_index::{KeyIndex, KeyIndexError};
use crate::segment::summary::{Opened, open_summary};
use crate::segment::verify::{SegmentVerifier, Verified};
use crate::segment::{
    INDEX_BYTES_MAX, IndexFile, PADDING, SegmentError, SegmentFileKind, SegmentId, SegmentIndex,
    check_heads, read_index_file,
};

use state::{Place, StateRecords, Unknown};

/// The damage that a data directory has on record.
pub fn damage_on_record(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<Damage>, OpenError> {
    load_damage(disk, data_dir)
}

/// A batch of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchLine {
    /// Where it starts in the file.
    pub position: u64,
    /// Its length.
    pub bytes: u64,
    /// The first record's offset.
    pub base_offset: u64,
    /// The last record's offset, inclusive.
    pub last_offset: u64,
    /// How many records.
    pub records: i32,
    /// How they are compressed; a number if this build does not know the codec.
    pub codec: String,
    /// The first record's timestamp.
    pub base_timestamp: i64,
    /// The largest timestamp.
    pub max_timestamp: i64,
    /// The leader epoch stamped on it.
    pub leader_epoch: i32,
    /// The idempotent producer's id, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// The first record's sequence, or -1.
    pub base_sequence: i32,
    /// Whether it belongs to a transaction.
    pub is_transactional: bool,
    /// Whether it holds a transaction's end.
    pub is_control: bool,
    /// The stored checksum.
    pub crc: u32,
    /// What is wrong with it; None if all is well.
    pub fault: Option<String>,
}

impl BatchLine {
    fn new(position: u64, header: &BatchHeader, fault: Option<String>) -> BatchLine {
        BatchLine {
            position,
            bytes: header.total_bytes() as u64,
            base_offset: header.base().get(),
            last_offset: header.last_offset().get(),
            records: header.record_count,
            codec: header.codec().map_or_else(
                |_| format!("{:?}", header.attributes),
                |codec| codec.name().to_owned(),
            ),
            base_timestamp: header.base_timestamp,
            max_timestamp: header.max_timestamp,
            leader_epoch: header.leader_epoch,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            is_transactional: header.is_transactional(),
            is_control: header.is_control(),
            crc: header.crc,
            fault,
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which file or directory.
    pub path: PathBuf,
    /// Where in the file.
    pub position: Option<u64>,
    /// The log, as `<uuid>-<partition>`.
    pub log: Option<String>,
    /// The first offset that is affected.
    pub from_offset: Option<u64>,
    /// The offset after the last one that is affected.
    pub to_offset: Option<u64>,
    /// What it is.
    pub reason: String,
    /// Whether records are affected. If not, it is something that is built again or set aside by itself.
    pub is_damage: bool,
    /// Whether a server refuses to start because of it, until somebody has done what the reason says.
    pub stops_start: bool,
}

/// What a verification looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Partitions with files, or with records in the write-ahead log.
    pub logs: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of batches, those in the write-ahead log included.
    pub bytes: u64,
    /// Batches, likewise.
    pub batches: u64,
    /// Records, by the batches' headers, likewise.
    pub records: u64,
    /// Records of these that are in the write-ahead log only.
    pub wal_records: u64,
    /// Frames of the write-ahead log that a start would replay.
    pub wal_frames: u64,
    /// Findings because of which a server refuses to start.
    pub refusals: u64,
    /// Findings that are damage.
    pub damaged: u64,
    /// Other findings.
    pub notes: u64,
}

/// Calls `visit` for each batch of a segment's log file, checked, with the index beside it if there is a usable one.
/// The file may be the active segment of a store that was killed: padding behind the last batch ends it.
/// Errors: the disk's, and damage behind which no batch can be found.
pub fn dump_segment(
    disk: &dyn Disk,
    path: &Path,
    visit: &mut dyn FnMut(BatchLine),
) -> Result<u64, SegmentError> {
    let id = segment_of(path, SegmentFileKind::Log)?;
    let io = |source| SegmentError::Io {
        segment: id,
        source,
    };
    let file = disk.open(path, OpenHow::Read).map_err(io)?;
    let bytes = file.len().map_err(io)?;
    let index = read_file(disk, &path.with_extension("idx"), INDEX_BYTES_MAX).ok();
    let index = index.and_then(|bytes| IndexFile::decode(&bytes).ok());
    let index = index
        .map(|index| index.index)
        .filter(|index| index.id() == id && index.bytes() == bytes);
    let bytes = match &index {
        Some(_) => bytes,
        None => padded_end(&*file, bytes).map_err(io)?,
    };
    // Without an index the name tells: only a rewrite leaves gaps, and makes a new generation.
    let kind = match &index {
        Some(index) => index.kind(),
        None if id.generation > 0 => SegmentKind::Sparse,
        None => SegmentKind::Plain,
    };
    let mut verifier = SegmentVerifier::new(id, kind, bytes, Offset::MAX);
    while let Some(verified) = verifier.next_batch(&*file, index.as_ref())? {
        visit(BatchLine::new(
            verified.position,
            &verified.header,
            verified.fault,
        ));
    }
    Ok(bytes)
}

/// Reads an index file.
pub fn dump_index(disk: &dyn Disk, path: &Path) -> io::Result<Result<IndexFile, String>> {
    let bytes = read_file(disk, path, INDEX_BYTES_MAX)?;
    Ok(IndexFile::decode(&bytes).map_err(|error| error.to_string()))
}

/// Reads the whole of a key index, and checks it.
pub fn dump_key_index(disk: &dyn Disk, path: &Path) -> io::Result<Result<KeyIndex, String>> {
    let file = disk.open(path, OpenHow::Read)?;
    let checked = KeyIndex::open(file).and_then(|found| found.check().map(|()| found));
    match checked {
        Ok(found) => Ok(Ok(found)),
        Err(KeyIndexError::Io(error)) => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Reads a manifest.
pub fn dump_manifest(disk: &dyn Disk, path: &Path) -> io::Result<Result<Manifest, String>> {
    let bytes = read_file(disk, path, 64 << 20)?;
    Ok(Manifest::decode(&bytes).map_err(|error| error.to_string()))
}

/// Reads a checkpoint.
pub fn dump_checkpoint(disk: &dyn Disk, path: &Path) -> io::Result<Result<Checkpoint, String>> {
    let bytes = read_file(disk, path, 1 << 30)?;
    Ok(Checkpoint::decode(&bytes).map_err(|error| error.to_string()))
}

/// Verifies all segments, manifests, indexes, checkpoints and the unsettled part of the write-ahead log below a data directory. Calls `report` for each finding.
/// Errors are the disk's where not even a directory can be listed; all else is a finding.
pub fn verify_store(
    disk: &dyn Disk,
    data_dir: &Path,
    report: &mut dyn FnMut(Finding),
) -> io::Result<Summary> {
    verify_store_watched(disk, data_dir, report, &mut |_| {})
}

/// Like [`verify_store`], and calls `watch` with what is verified so far after each batch.
pub fn verify_store_watched(
    disk: &dyn Disk,
    data_dir: &Path,
    report: &mut dyn FnMut(Finding),
    watch: &mut dyn FnMut(&Summary),
) -> io::Result<Summary> {
    verify(disk, data_dir, &|_| false, report, watch)
}

/// Like [`verify_store`], but of sealed segments whose log file `is_known` no batch is looked at, only their length; those of
/// the store's own logs are looked at all the same.
pub fn verify_store_but(
    disk: &dyn Disk,
    data_dir: &Path,
    is_known: &dyn Fn(&Path) -> bool,
    report: &mut dyn FnMut(Finding),
) -> io::Result<Summary> {
    verify(disk, data_dir, is_known, report, &mut |_| {})
}

/// Verifies one sealed segment with its index. Calls `report` for each finding.
pub fn verify_sealed(
    disk: &dyn Disk,
    directory: &Path,
    log: LogId,
    entry: &SegmentEntry,
    report: &mut dyn FnMut(Finding),
) -> io::Result<Summary> {
    let sealed = entry.sealed.as_ref().expect("a sealed segment");
    let told = Told {
        id: entry.id,
        kind: entry.kind,
        bytes: sealed.bytes,
        end_offset: sealed.end_offset,
        active: None,
    };
    let mut unwatched = |_: &Summary| {};
    let mut verify = Verify::new(disk, &|_| false, report, &mut unwatched);
    verify.segment(directory, log, &told)?;
    Ok(verify.summary)
}

fn verify(
    disk: &dyn Disk,
    data_dir: &Path,
    is_known: &dyn Fn(&Path) -> bool,
    report: &mut dyn FnMut(Finding),
    watch: &mut dyn FnMut(&Summary),
) -> io::Result<Summary> {
    let mut verify = Verify::new(disk, is_known, report, watch);
    if let Some(reason) = is_being_restored(disk, data_dir)? {
        verify.refusal(&data_dir.join(RESTORING_FILE), reason);
    }
    let store = verify.store(data_dir)?;
    let checkpoint = verify.checkpoints(data_dir, store)?;
    verify.newer(data_dir, checkpoint.as_ref());
    verify.wal(data_dir, store, checkpoint.as_ref())?;
    let partitions = data_dir.join("p");
    if disk.exists(&partitions)? {
        for spread in disk
            .list(&partitions)?
            .into_iter()
            .filter(|entry| entry.is_dir)
        {
            let spread = partitions.join(spread.name);
            for entry in disk.list(&spread)? {
                let directory = spread.join(&entry.name);
                match entry.name.parse::<LogId>() {
                    Ok(log) if entry.is_dir => verify.log(&directory, log, checkpoint.as_ref())?,
                    _ => verify.note(&directory, None, "nobody knows this"),
                }
            }
        }
    }
    verify.state_records()?;
    Ok(verify.summary)
}

/// What a manifest, or for the active one the checkpoint, tells of a segment.
struct Told<'a> {
    id: SegmentId,
    kind: SegmentKind,
    bytes: u64,
    end_offset: Offset,
    active: Option<&'a ActiveSegment>,
}

struct Verify<'a> {
    disk: &'a dyn Disk,
    /// Sealed segments that were verified before.
    is_known: &'a dyn Fn(&Path) -> bool,
    report: &'a mut dyn FnMut(Finding),
    watch: &'a mut dyn FnMut(&Summary),
    summary: Summary,
    /// Logs of which the write-ahead log holds something, and from which offset on it was counted there: a running server
    /// may have settled it before its segments are looked at.
    unsettled: HashMap<LogId, Offset>,
    state: StateRecords,
}

impl<'a> Verify<'a> {
    fn new(
        disk: &'a dyn Disk,
        is_known: &'a dyn Fn(&Path) -> bool,
        report: &'a mut dyn FnMut(Finding),
        watch: &'a mut dyn FnMut(&Summary),
    ) -> Verify<'a> {
        Verify {
            disk,
            is_known,
            report,
            watch,
            summary: Summary::default(),
            unsettled: HashMap::new(),
            state: StateRecords::default(),
        }
    }
}

impl Verify<'_> {
    fn find(&mut self, finding: Finding) {
        let counter = match (finding.stops_start, finding.is_damage) {
            (true, _) => &mut self.summary.refusals,
            (false, true) => &mut self.summary.damaged,
            (false, false) => &mut self.summary.notes,
        };
        *counter += 1;
        (self.report)(finding);
    }

    fn note(&mut self, path: &Path, log: Option<LogId>, reason: impl ToString) {
        self.find(Finding {
            path: path.to_owned(),
            position: None,
            log: log.map(|log| log.to_string()),
            from_offset: None,
            to_offset: None,
            reason: reason.to_string(),
            is_damage: false,
            stops_start: false,
        });
    }

    fn count(&mut self, header: &BatchHeader) {
        self.summary.batches += 1;
        self.summary.bytes += header.total_bytes() as u64;
        self.summary.records += u64::from(header.record_count.unsigned_abs());
    }

    /// Something for which a server refuses to start, in the words that it has for it.
    fn refusal(&mut self, path: &Path, reason: impl ToString) {
        self.find(Finding {
            path: path.to_owned(),
            position: None,
            log: None,
            from_offset: None,
            to_offset: None,
            reason: reason.to_string(),
            is_damage: false,
            stops_start: true,
        });
    }

    fn damage(
        &mut self,
        path: &Path,
        log: LogId,
        position: u64,
        offsets: std::ops::Range<Offset>,
        reason: impl ToString,
    ) {
        self.find(Finding {
            path: path.to_owned(),
            position: Some(position),
            log: Some(log.to_string()),
            from_offset: Some(offsets.start.get()),
            to_offset: Some(offsets.end.get()),
            reason: reason.to_string(),
            is_damage: true,
            stops_start: false,
        });
    }

    /// Which store it is. A server that cannot tell does not start.
    fn store(&mut self, data_dir: &Path) -> io::Result<Option<Uuid>> {
        let path = data_dir.join("STORE");
        if !self.disk.exists(&path)? {
            let reason = store_is_missing(self.disk, data_dir)?;
            if let Some(reason) = reason {
                self.refusal(&path, reason);
            }
            return Ok(None);
        }
        match decode_store(&read_file(self.disk, &path, 1 << 20)?) {
            Ok(store) => Ok(Some(store)),
            // Told with the others of its kind.
            Err(FormatError::Version { .. }) => Ok(None),
            Err(error) => {
                self.refusal(&path, store_trouble(&error));
                Ok(None)
            }
        }
    }

    /// Files that a later release wrote.
    fn newer(&mut self, data_dir: &Path, checkpoint: Option<&Checkpoint>) {
        let mut found = Vec::new();
        newer::find_in_store(self.disk, data_dir, &mut |newer| found.push(newer));
        newer::find_in_partitions(self.disk, data_dir, checkpoint, &mut |newer| {
            found.push(newer);
        });
        for newer in found {
            self.refusal(&newer.path.clone(), newer);
        }
    }

    fn checkpoints(
        &mut self,
        data_dir: &Path,
        store: Option<Uuid>,
    ) -> io::Result<Option<Checkpoint>> {
        let directory = data_dir.join("checkpoint");
        let mut newest: Option<Checkpoint> = None;
        let mut trouble = Vec::new();
        for slot in Slot::ALL {
            let path = slot.path(&directory);
            if !self.disk.exists(&path)? {
                continue;
            }
            let found = match store {
                Some(store) => match read_slot(self.disk, &path, store)? {
                    SlotState::Absent => continue,
                    SlotState::Valid(found) => Ok(found),
                    SlotState::Invalid(reason) => Err(reason),
                },
                None => dump_checkpoint(self.disk, &path)?,
            };
            match found {
                Ok(found)
                    if newest
                        .as_ref()
                        .is_none_or(|newest| newest.sequence < found.sequence) =>
                {
                    newest = Some(found);
                }
                Ok(_) => {}
                Err(reason) => {
                    self.note(&path, None, &reason);
                    trouble.push(format!("{slot:?}: {reason}"));
                }
            }
        }
        if newest.is_none() && has_settled(self.disk, data_dir).map_err(io::Error::other)? {
            self.refusal(&directory, no_checkpoint(&trouble));
        }
        Ok(newest)
    }

    fn log(
        &mut self,
        directory: &Path,
        log: LogId,
        checkpoint: Option<&Checkpoint>,
    ) -> io::Result<()> {
        if !self.unsettled.contains_key(&log) {
            self.summary.logs += 1;
        }
        let loaded = manifest::load(self.disk, directory, log)?;
        for rejected in &loaded.rejected {
            self.note(&directory.join(&rejected.name), Some(log), &rejected.reason);
        }
        let known =
            checkpoint.and_then(|checkpoint| checkpoint.logs.iter().find(|entry| entry.log == log));
        let wanted = known.map_or(0, |entry| entry.manifest);
        let start = known.map_or(Offset::ZERO, |entry| entry.start_offset);
        let end = known.map_or(Offset::ZERO, |entry| entry.settled_end);
        let manifest = loaded.manifest.filter(|manifest| manifest.number >= wanted);
        if manifest.is_none() && wanted > 0 {
            let reason = format!("manifest {wanted}, which the checkpoint names, is missing");
            self.damage(directory, log, 0, start..end, reason);
        }
        // What lies before the start was deleted; on a full disk its files go without a new manifest.
        let sealed = manifest.iter().flat_map(|manifest| manifest.sealed());
        for (entry, sealed) in sealed.filter(|(_, sealed)| sealed.end_offset > start) {
            let told = Told {
                id: entry.id,
                kind: entry.kind,
                bytes: sealed.bytes,
                end_offset: sealed.end_offset,
                active: None,
            };
            self.segment(directory, log, &told)?;
        }
        // A log without a sealed segment has no manifest, and its active segment is only in the checkpoint.
        if let Some(active) = known.and_then(|entry| entry.active.as_ref()) {
            let told = Told {
                id: active.id,
                kind: SegmentKind::Plain,
                bytes: active.bytes,
                end_offset: end,
                active: Some(active),
            };
            self.segment(directory, log, &told)?;
        }
        Ok(())
    }

    fn segment(&mut self, directory: &Path, log: LogId, told: &Told<'_>) -> io::Result<()> {
        let Told {
            id,
            kind,
            bytes,
            end_offset,
            active,
        } = *told;
        let is_sealed = active.is_none();
        let path = id.log_path(directory);
        self.summary.segments += 1;
        let opened = self
            .disk
            .open(&path, OpenHow::Read)
            .and_then(|file| Ok((file.len()?, file)));
        let (len, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.damage(&path, log, 0, id.base..end_offset, error);
                return Ok(());
            }
        };
        if len < bytes || (is_sealed && len != bytes) {
            let reason = format!("the file has {len} bytes, there should be {bytes}");
            self.damage(&path, log, len.min(bytes), id.base..end_offset, reason);
        }
        if is_sealed && len == bytes && !log.is_reserved() && (self.is_known)(&path) {
            return Ok(());
        }
        let index = if is_sealed {
            self.index(directory, log, id, bytes)?
        } else {
            None
        };
        if is_sealed && let Opened::Unusable(reason) = open_summary(self.disk, directory, log, id)?
        {
            self.note(&id.summary_path(directory), Some(log), reason);
        }
        self.key_index(directory, log, (id, index.as_ref()))?;
        let mut verifier = SegmentVerifier::new(id, kind, bytes.min(len), end_offset);
        self.batches(&mut verifier, &*file, index.as_ref(), &path, log, told)
    }

    /// All batches of a segment, as far as they can be found.
    fn batches(
        &mut self,
        verifier: &mut SegmentVerifier,
        file: &dyn DiskFile,
        index: Option<&SegmentIndex>,
        path: &Path,
        log: LogId,
        told: &Told<'_>,
    ) -> io::Result<()> {
        let Told {
            id,
            end_offset,
            active,
            ..
        } = *told;
        loop {
            let from = verifier.next_offset();
            match verifier.next_batch(file, index) {
                Ok(Some(verified)) => self.batch(path, log, verified)?,
                Ok(None) if verifier.next_offset() == end_offset => {
                    if let Some(active) = active
                        && let Err(error) =
                            check_heads(id, verifier.heads_checksum(), active.heads_checksum)
                    {
                        self.damage(path, log, 0, id.base..end_offset, error);
                    }
                    return Ok(());
                }
                Ok(None) => {
                    let found = verifier.next_offset();
                    let reason =
                        format!("the batches end at offset {found}, expected {end_offset}");
                    self.damage(
                        path,
                        log,
                        verifier.position(),
                        found.min(end_offset)..end_offset,
                        reason,
                    );
                    return Ok(());
                }
                Err(error) => {
                    let position = verifier.position();
                    if index.is_some_and(|index| verifier.resume_behind(index)) {
                        self.damage(path, log, position, from..verifier.next_offset(), error);
                    } else {
                        self.damage(path, log, position, from..end_offset, error);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// A key index that is not as it was written is only told of: the server makes it again. Of an active segment it is not known here
    /// which blocks it has.
    fn key_index(
        &mut self,
        directory: &Path,
        log: LogId,
        (id, index): (SegmentId, Option<&SegmentIndex>),
    ) -> io::Result<()> {
        let path = id.key_index_path(directory);
        let file = match self.disk.open(&path, OpenHow::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let checked = KeyIndex::open(file).and_then(|found| {
            found.check()?;
            Ok(found)
        });
        match checked {
            Ok(found) if index.is_some_and(|index| !found.is_of(log, index)) => {
                let reason = "it is not of this segment's blocks".to_owned();
                self.note(&path, Some(log), reason);
            }
            Ok(_) => {}
            Err(error) => self.note(&path, Some(log), error.to_string()),
        }
        Ok(())
    }

    /// One batch that was found: counted unless the write-ahead log has it too, and read where it is the broker's own state.
    fn batch(&mut self, path: &Path, log: LogId, found: Verified) -> io::Result<()> {
        let in_wal = self.unsettled.get(&log);
        if in_wal.is_none_or(|from| found.header.base() < *from) {
            self.count(&found.header);
        }
        (self.watch)(&self.summary);
        if log.is_reserved() && found.fault.is_none() {
            self.state_batch(&Place {
                log,
                path: path.to_owned(),
                position: found.position,
                bytes: found.header.total_bytes() as u64,
            })?;
        }
        if let Some(reason) = found.fault {
            self.damage(path, log, found.position, found.offsets, reason);
        }
        Ok(())
    }

    fn index(
        &mut self,
        directory: &Path,
        log: LogId,
        id: SegmentId,
        bytes: u64,
    ) -> io::Result<Option<SegmentIndex>> {
        match read_index_file(self.disk, directory, log, id, bytes)? {
            Ok(found) => Ok(Some(found.index)),
            Err(reason) => {
                self.note(&id.index_path(directory), Some(log), reason);
                Ok(None)
            }
        }
    }
}

fn segment_of(path: &Path, wanted: SegmentFileKind) -> Result<SegmentId, SegmentError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match SegmentId::parse(&name) {
        Some((id, kind)) if kind == wanted => Ok(id),
        _ => Err(SegmentError::Io {
            segment: SegmentId::first(Offset::ZERO),
            source: io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} is no name of a segment"),
            ),
        }),
    }
}

/// The file's length without what fills up the last block of a direct write: walks the batches' lengths up to it. Zeros end
/// it too: a file system may leave them where a write was cut.
fn padded_end(file: &dyn crate::io::DiskFile, bytes: u64) -> io::Result<u64> {
    let mut position = 0;
    let mut head = [0; model::batch::LENGTH_PREFIX_BYTES];
    while position < bytes {
        if file.read_at(position, &mut head)? < head.len()
            || [0, PADDING]
                .iter()
                .any(|fill| head.iter().all(|byte| byte == fill))
        {
            return Ok(position);
        }
        match model::batch::peek_len(&head) {
            Some(len) if len as u64 <= bytes - position => position += len as u64,
            _ => return Ok(bytes),
        }
    }
    Ok(position)
}

impl Verify<'_> {
    /// Reads the batch of a state log. One that cannot be read is told elsewhere.
    fn state_batch(&mut self, place: &Place) -> io::Result<()> {
        let Some(kind) = StateLogKind::of(place.log) else {
            return Ok(());
        };
        let mut bytes = vec![0; usize::try_from(place.bytes).map_err(io::Error::other)?];
        let file = self.disk.open(&place.path, OpenHow::Read)?;
        if file.read_exact_at(place.position, &mut bytes).is_err() {
            return Ok(());
        }
        if let Ok(batch) = Batch::parse(bytes.into()) {
            self.state.take(kind, place, &batch);
        }
        Ok(())
    }

    /// Notes a batch that is in the write-ahead log only.
    fn unsettled_state(&mut self, log: LogId, path: &Path, position: u64, header: &BatchHeader) {
        if StateLogKind::of(log).is_some() {
            let bytes = header.total_bytes() as u64;
            let path = path.to_owned();
            self.state.unsettled.push(Place {
                log,
                path,
                position,
                bytes,
            });
        }
    }

    /// Tells of the records that would stop a start. Last, when all batches of segments have been shown.
    fn state_records(&mut self) -> io::Result<()> {
        for place in std::mem::take(&mut self.state.unsettled) {
            self.state_batch(&place)?;
        }
        for ((log, _), unknown) in std::mem::take(&mut self.state.unknown) {
            let Unknown {
                path,
                position,
                offset,
                reason,
            } = unknown;
            self.find(Finding {
                path,
                position: Some(position),
                log: Some(log.to_string()),
                from_offset: Some(offset.get()),
                to_offset: Some(offset.plus(1).get()),
                reason: reason.to_string(),
                is_damage: false,
                stops_start: true,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
