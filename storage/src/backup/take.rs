//! Takes a backup of a data directory, while a server runs on it or without one.
//!
//! The copy is a state that a power cut could have left: the newest checkpoint, the manifests and segments that it names, and the
//! frames of the write-ahead log behind it, as far as they are written. No lock is taken on the source. What moves meanwhile is
//! noticed and the pass begun again: a file of the log that was used again, a segment that was removed or replaced. Sealed
//! segments that are copied and checked stay copied, so that each pass has less to do than the one before.
//! What is found damaged is believed if two passes find the same: a file that a checkpoint of later still names was not removed.
//!
//! Caller: the command line. Everything that was acknowledged before the call is in the backup.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::Timestamp;
use uuid::Uuid;

use super::copying::{copy, hash_file, sha256_of, write};
use super::error::BackupError;
use super::frames::{CopiedFrames, copy_frames};
use super::journal::{JOURNAL_FILE, Journal};
use super::place::Place;
use super::plan::{LogPlan, Wanted, bytes_of, line};
use super::progress::Progress;
use super::summary::{
    SUMMARY_FILE, SUMMARY_VERSION, Summary, SummaryDamage, SummaryFile, SummaryHead,
};
use crate::checkpoint::{Checkpoint, Slot, SlotState, WalPosition, read_slot};
use crate::data_dir::{directory_of, has_settled};
use crate::inspect::{self, Finding};
use crate::io::{Disk, DiskFile, OpenHow, read_file};
use crate::manifest::{self, Manifest, SegmentEntry};
use crate::recovery::store_file::{decode_store, no_checkpoint, store_trouble};
use crate::segment::{INDEX_BYTES_MAX, SegmentFileKind, SegmentId};

/// A store that removes files all the time is tried so often at least, and for so long.
const PASSES_MIN: u32 = 12;
/// See [`PASSES_MIN`]: on a busy machine a pass takes as long as a file of a small store lives, and one of many comes through.
const TRIED_FOR: Duration = Duration::from_secs(60);
/// Files in the data directory itself are small ones.
const ROOT_FILE_BYTES_MAX: u64 = 64 << 20;
/// So many files of the source are held open; a process may open 1,024 as a rule.
const HELD_MAX: usize = 400;
/// A checkpoint that is being written is looked at again so often.
const CHECKPOINT_LOOKS: u32 = 50;

/// What is to be copied where.
#[derive(Clone, Debug)]
pub struct BackupOrder {
    /// The data directory.
    pub source: PathBuf,
    /// The place of its backups.
    pub place: PathBuf,
    /// How many backups the place keeps, this one included; at least one.
    pub keep: usize,
    /// Whether segments that an earlier backup has are read again, and copied again if they are not what they were.
    pub recheck: bool,
    /// When it is begun.
    pub now: Timestamp,
    /// The release that takes it.
    pub release: String,
}

/// A backup that was taken.
#[derive(Clone, Debug)]
pub struct BackupTaken {
    /// Where it is.
    pub directory: PathBuf,
    /// What it holds.
    pub summary: Summary,
    /// Bytes that were copied now.
    pub copied_bytes: u64,
    /// Bytes of sealed segments that an earlier backup, or an earlier attempt, had copied.
    pub reused_bytes: u64,
    /// How often it was begun until nothing moved.
    pub passes: u32,
    /// The numbers of older backups that were removed.
    pub removed: Vec<u64>,
}

/// Takes a backup. Blocks. `watch` hears of each piece that is copied. `ended` gives the time once it is done.
pub fn take_backup(
    disk: &dyn Disk,
    order: &BackupOrder,
    ended: &dyn Fn() -> Timestamp,
    watch: &mut dyn FnMut(&Progress),
) -> Result<BackupTaken, BackupError> {
    let store = store_of(disk, &order.source)?;
    let place = Place::open(disk, &order.place)?;
    place.remove_rests()?;
    let previous = match place.numbers()?.last() {
        Some(number) => {
            let directory = place.directory(*number);
            let summary = Summary::read(disk, &directory)?;
            Some((directory, summary))
        }
        None => None,
    };
    if let Some((_, before)) = &previous
        && before.head.store != store
    {
        return Err(BackupError::OtherStore {
            path: order.place.clone(),
            found: before.head.store,
            wanted: store,
        });
    }
    let mut taking = Taking {
        disk,
        order,
        store,
        journal: Journal::open(disk, &place.unfinished(), store)?,
        target: place.unfinished(),
        previous,
        held: HashMap::new(),
        progress: Progress::default(),
        watch,
    };
    let pass = taking.passes()?;
    taking.remove_leftovers(&pass)?;
    let summary = taking.summary(pass, ended());
    let path = taking.target.join(SUMMARY_FILE);
    write(disk, &path, &summary.encode())?;
    disk.sync_filesystem(&order.place)
        .map_err(BackupError::io("sync", &order.place))?;
    let (progress, number) = (taking.progress, summary.head.number);
    let directory = place.finish(number)?;
    let journal = directory.join(JOURNAL_FILE);
    disk.remove_file(&journal)
        .map_err(BackupError::io("remove", &journal))?;
    // As it is on the disk, with the sum that its last line has.
    let summary = Summary::read(disk, &directory)?;
    Ok(BackupTaken {
        summary,
        copied_bytes: progress.copied_bytes,
        reused_bytes: progress.reused_bytes,
        passes: progress.pass,
        removed: place.keep_newest(order.keep)?,
        directory,
    })
}

fn store_of(disk: &dyn Disk, source: &Path) -> Result<Uuid, BackupError> {
    let path = source.join("STORE");
    let bytes = match read_file(disk, &path, 1 << 20) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = source.to_owned();
            return Err(BackupError::NotAStore { path });
        }
        Err(error) => return Err(BackupError::io("read", path)(error)),
    };
    decode_store(&bytes).map_err(|error| BackupError::Unusable {
        path,
        reason: store_trouble(&error),
    })
}

/// What one pass has copied.
#[derive(Debug, Default)]
struct Pass {
    files: BTreeMap<String, SummaryFile>,
    checkpoint: u64,
    frames: CopiedFrames,
    /// Files that were named and not there.
    missing: BTreeSet<String>,
    damage: Vec<SummaryDamage>,
    refusals: Vec<Finding>,
    counted: inspect::Summary,
}

impl Pass {
    fn is_sound(&self) -> bool {
        let Pass {
            frames,
            missing,
            damage,
            refusals,
            ..
        } = self;
        frames.lost.is_empty() && missing.is_empty() && damage.is_empty() && refusals.is_empty()
    }

    fn finds_the_same(&self, other: &Pass) -> bool {
        (
            &self.frames.lost,
            &self.missing,
            &self.damage,
            &self.refusals,
        ) == (
            &other.frames.lost,
            &other.missing,
            &other.damage,
            &other.refusals,
        )
    }
}

struct Taking<'a> {
    disk: &'a dyn Disk,
    order: &'a BackupOrder,
    store: Uuid,
    journal: Journal,
    target: PathBuf,
    previous: Option<(PathBuf, Summary)>,
    /// Files of the source that are open, so that they can be read when they are removed.
    held: HashMap<String, Arc<dyn DiskFile>>,
    progress: Progress,
    watch: &'a mut dyn FnMut(&Progress),
}

impl Taking<'_> {
    /// Passes, until one is whole.
    fn passes(&mut self) -> Result<Pass, BackupError> {
        let mut before: Option<Pass> = None;
        let mut moved = self.order.source.join("wal");
        let since = Instant::now();
        let mut passes = 0;
        while passes < PASSES_MIN || since.elapsed() < TRIED_FOR {
            passes += 1;
            self.progress.pass = passes;
            self.progress.reused_bytes = 0;
            let Some(pass) = self.pass()? else {
                continue;
            };
            let is_believed = pass.is_sound()
                || before
                    .as_ref()
                    .is_some_and(|before| before.finds_the_same(&pass));
            if is_believed {
                return match pass.refusals.first() {
                    Some(finding) => Err(BackupError::NotSound {
                        finding: Box::new(finding.clone()),
                    }),
                    None => Ok(pass),
                };
            }
            let gone = pass
                .missing
                .first()
                .map(|path| self.order.source.join(path));
            moved = gone.unwrap_or(moved);
            before = Some(pass);
        }
        Err(BackupError::Moving {
            passes,
            path: moved,
        })
    }

    /// One pass. None if the write-ahead log moved on before it was read.
    fn pass(&mut self) -> Result<Option<Pass>, BackupError> {
        let checkpoint = self.checkpoint()?;
        let from = checkpoint
            .as_ref()
            .map_or(WalPosition::BEGINNING, |found| found.wal);
        let mut pass = Pass::default();
        let plan = match &checkpoint {
            Some(checkpoint) => self.plan(checkpoint, &mut pass)?,
            None => Vec::new(),
        };
        self.hold(&plan)?;
        let (disk, store) = (self.disk, self.store);
        let (source, target) = (self.order.source.clone(), self.target.clone());
        let (progress, watch) = (&mut self.progress, &mut *self.watch);
        let mut each = |bytes| progress.copied(bytes, watch);
        let Some(frames) = copy_frames(disk, &source, &target, store, from, &mut each)? else {
            return Ok(None);
        };
        for file in &frames.files {
            pass.files.insert(file.path.clone(), file.clone());
        }
        pass.frames = frames;
        self.root_files(&mut pass)?;
        if let Some(checkpoint) = &checkpoint {
            pass.checkpoint = checkpoint.sequence;
            self.store_checkpoint(checkpoint, &mut pass)?;
        }
        self.progress.total_bytes = plan.iter().map(LogPlan::bytes).sum();
        for log in &plan {
            self.log(log, &mut pass)?;
        }
        self.check(&mut pass)?;
        Ok(Some(pass))
    }

    /// The newest checkpoint. While one is being written the other one counts, and both are looked at again.
    fn checkpoint(&self) -> Result<Option<Checkpoint>, BackupError> {
        let directory = self.order.source.join("checkpoint");
        let mut trouble = Vec::new();
        for _ in 0..CHECKPOINT_LOOKS {
            let mut newest: Option<Checkpoint> = None;
            trouble.clear();
            for slot in Slot::ALL {
                let path = slot.path(&directory);
                match read_slot(self.disk, &path, self.store)
                    .map_err(BackupError::io("read", &path))?
                {
                    SlotState::Absent => {}
                    SlotState::Invalid(reason) => trouble.push(format!("{slot:?}: {reason}")),
                    SlotState::Valid(found) => {
                        if newest
                            .as_ref()
                            .is_none_or(|known| known.sequence < found.sequence)
                        {
                            newest = Some(found);
                        }
                    }
                }
            }
            if newest.is_some() || trouble.is_empty() {
                let has_none = newest.is_none()
                    && has_settled(self.disk, &self.order.source).map_err(|error| {
                        BackupError::Unusable {
                            path: self.order.source.clone(),
                            reason: error.to_string(),
                        }
                    })?;
                if !has_none {
                    return Ok(newest);
                }
            }
        }
        Err(BackupError::Unusable {
            path: directory,
            reason: no_checkpoint(&trouble),
        })
    }

    /// `STORE` and the other small files beside the folders.
    fn root_files(&mut self, pass: &mut Pass) -> Result<(), BackupError> {
        let source = &self.order.source;
        let names = self
            .disk
            .list(source)
            .map_err(BackupError::io("list", source))?;
        for entry in names.iter().filter(|entry| !entry.is_dir) {
            let name = entry.name.as_str();
            if matches!(name, "LOCK" | SUMMARY_FILE | JOURNAL_FILE) || name.ends_with(".new") {
                continue;
            }
            let from = source.join(name);
            let contents = match read_file(self.disk, &from, ROOT_FILE_BYTES_MAX) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read.map_err(BackupError::io("read", &from))?,
            };
            self.small(name.to_owned(), &contents, pass)?;
        }
        Ok(())
    }

    fn small(&mut self, path: String, contents: &[u8], pass: &mut Pass) -> Result<(), BackupError> {
        let written = write(self.disk, &self.target.join(&path), contents)?;
        let file = line(path, written.bytes, written.sha256);
        pass.files.insert(file.path.clone(), file);
        Ok(())
    }

    fn store_checkpoint(&mut self, found: &Checkpoint, pass: &mut Pass) -> Result<(), BackupError> {
        let directory = self.target.join("checkpoint");
        self.disk
            .create_dir_all(&directory)
            .map_err(BackupError::io("create", &directory))?;
        self.small("checkpoint/A".to_owned(), &found.encode(), pass)
    }

    /// What the checkpoint names, with the manifests, which are copied.
    fn plan<'c>(
        &mut self,
        checkpoint: &'c Checkpoint,
        pass: &mut Pass,
    ) -> Result<Vec<LogPlan<'c>>, BackupError> {
        let mut plan = Vec::new();
        for entry in &checkpoint.logs {
            if entry.manifest == 0 && entry.active.is_none() {
                continue;
            }
            let path = directory_of(Path::new(""), entry.log)
                .to_string_lossy()
                .into_owned();
            let directory = self.target.join(&path);
            self.disk
                .create_dir_all(&directory)
                .map_err(BackupError::io("create", &directory))?;
            let mut log = LogPlan {
                entry,
                path,
                sealed: Vec::new(),
            };
            if entry.manifest > 0 {
                let path = format!("{}/{}", log.path, manifest::file_name(entry.manifest));
                let from = self.order.source.join(&path);
                match read_file(self.disk, &from, ROOT_FILE_BYTES_MAX) {
                    Ok(contents) => {
                        if let Ok(found) = Manifest::decode(&contents) {
                            let kept = found
                                .sealed()
                                .filter(|(_, sealed)| sealed.end_offset > entry.start_offset);
                            log.sealed = kept.map(|(found, _)| *found).collect();
                        }
                        self.small(path, &contents, pass)?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        pass.missing.insert(path);
                    }
                    Err(error) => return Err(BackupError::io("read", from)(error)),
                }
            }
            plan.push(log);
        }
        Ok(plan)
    }

    fn log(&mut self, log: &LogPlan<'_>, pass: &mut Pass) -> Result<(), BackupError> {
        let others = self.others(log)?;
        for entry in &log.sealed {
            let id = entry.id;
            self.sealed(log, entry, pass)?;
            let head = format!("{id}.");
            for name in others.iter().filter(|name| name.starts_with(&head)) {
                let path = format!("{}/{name}", log.path);
                let bytes = u64::MAX;
                self.whole(path, bytes, pass)?;
            }
        }
        if let Some(active) = &log.entry.active {
            let path = format!("{}/{}", log.path, active.id.log_name());
            self.whole(path, active.bytes, pass)?;
        }
        Ok(())
    }

    /// What lies beside the segments and belongs to one, other than its index.
    fn others(&self, log: &LogPlan<'_>) -> Result<Vec<String>, BackupError> {
        let directory = self.order.source.join(&log.path);
        match self.disk.list(&directory) {
            Ok(entries) => Ok(entries
                .into_iter()
                .filter(|entry| !entry.is_dir && !entry.name.ends_with(".new"))
                .filter(|entry| {
                    let kind = SegmentId::parse(&entry.name).map(|(_, kind)| kind);
                    !matches!(kind, Some(SegmentFileKind::Log | SegmentFileKind::Index))
                })
                .map(|entry| entry.name)
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(BackupError::io("list", directory)(error)),
        }
    }

    /// A file that is copied anew each time: its first bytes.
    fn whole(&mut self, path: String, bytes: u64, pass: &mut Pass) -> Result<(), BackupError> {
        match self.copy_one(&path, bytes)? {
            Some(file) => drop(pass.files.insert(path, file)),
            None => drop(pass.missing.insert(path)),
        }
        Ok(())
    }

    /// Opens what is not copied yet, the oldest first, as long as there are descriptors for it: what is removed from now on
    /// can be read all the same.
    fn hold(&mut self, plan: &[LogPlan<'_>]) -> Result<(), BackupError> {
        self.held.clear();
        for log in plan {
            for entry in &log.sealed {
                let (path, index) = log.paths(entry.id);
                if self.journal.get(&path).is_some() {
                    continue;
                }
                if self.held.len() + 2 > HELD_MAX {
                    return Ok(());
                }
                for path in [path, index] {
                    if let Some(file) = self.open(&path)? {
                        self.held.insert(path, file);
                    }
                }
            }
        }
        Ok(())
    }

    /// A file of the source. None if it is not there.
    fn open(&mut self, path: &str) -> Result<Option<Arc<dyn DiskFile>>, BackupError> {
        if let Some(held) = self.held.remove(path) {
            return Ok(Some(held));
        }
        let from = self.order.source.join(path);
        match self.disk.open(&from, OpenHow::Read) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BackupError::io("open", from)(error)),
        }
    }

    /// An index of the source. None if it is not there, or cannot be read: it can be built again.
    fn index(&mut self, path: &str) -> Result<Option<Vec<u8>>, BackupError> {
        let Some(file) = self.open(path)? else {
            return Ok(None);
        };
        let bytes = file.len().map_err(BackupError::io("open", path))?;
        if bytes > INDEX_BYTES_MAX {
            return Ok(None);
        }
        let mut contents = vec![0; usize::try_from(bytes).unwrap_or(0)];
        match file.read_exact_at(0, &mut contents) {
            Ok(()) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(None),
            Err(error) => Err(BackupError::io("read", self.order.source.join(path))(error)),
        }
    }

    /// Copies a file's first bytes. None if it is not there.
    fn copy_one(&mut self, path: &str, bytes: u64) -> Result<Option<SummaryFile>, BackupError> {
        let Some(file) = self.open(path)? else {
            return Ok(None);
        };
        let target = self.target.join(path);
        let (progress, watch) = (&mut self.progress, &mut *self.watch);
        let mut each = |bytes| progress.copied(bytes, watch);
        let copied = copy(self.disk, &*file, &target, bytes, &mut each)?;
        let read_back = self
            .disk
            .open(&target, OpenHow::Read)
            .and_then(|file| hash_file(&*file, copied.bytes, &mut |_| {}))
            .map_err(BackupError::io("read back", &target))?;
        if read_back.as_deref() != Some(copied.sha256.as_str()) {
            return Err(BackupError::Unreliable { path: target });
        }
        let mut file = line(path.to_owned(), copied.bytes, copied.sha256);
        file.damaged = copied.unreadable > 0;
        Ok(Some(file))
    }

    fn sealed(
        &mut self,
        log: &LogPlan<'_>,
        entry: &SegmentEntry,
        pass: &mut Pass,
    ) -> Result<(), BackupError> {
        let (id, bytes) = (entry.id, bytes_of(entry));
        let (path, index_path) = log.paths(id);
        let index = self.index(&index_path)?;
        let wanted = Wanted {
            paths: [path, index_path],
            bytes,
            index: index.as_deref().map(sha256_of),
        };
        if let Some(files) = self.known(&wanted)? {
            self.progress.reused(bytes, self.watch);
            pass.files
                .extend(files.into_iter().map(|file| (file.path.clone(), file)));
            return Ok(());
        }
        let [path, index_path] = wanted.paths;
        let Some(mut file) = self.copy_one(&path, bytes)? else {
            pass.missing.insert(path);
            return Ok(());
        };
        let mut files = Vec::new();
        let index_target = self.target.join(&index_path);
        match &index {
            Some(contents) => {
                let written = write(self.disk, &index_target, contents)?;
                files.push(line(index_path, written.bytes, written.sha256));
            }
            None => self.remove_if_there(&index_target)?,
        }
        let directory = self.target.join(&log.path);
        let mut damage = Vec::new();
        let mut report = |finding: Finding| damage.push(finding);
        let counted =
            inspect::verify_sealed(self.disk, &directory, log.entry.log, entry, &mut report)
                .map_err(BackupError::io("verify", &directory))?;
        file.batches = Some(counted.batches);
        file.records = Some(counted.records);
        file.damaged = counted.damaged > 0;
        for finding in damage.iter().filter(|finding| finding.is_damage) {
            pass.damage.push(self.damage_of(finding));
        }
        files.push(file);
        // What is damaged is looked at again each time.
        if counted.damaged == 0 {
            self.journal.add(&files)?;
        }
        pass.files
            .extend(files.into_iter().map(|file| (file.path.clone(), file)));
        Ok(())
    }

    /// A segment that this attempt, one before, or the backup before has copied and checked already.
    fn known(&mut self, wanted: &Wanted) -> Result<Option<Vec<SummaryFile>>, BackupError> {
        let known = |path: &str| self.journal.get(path).cloned();
        if let Some(files) = wanted.files(known)
            && self.are_there(&files)?
        {
            return Ok(Some(files));
        }
        let Some((directory, before)) = &self.previous else {
            return Ok(None);
        };
        let Some(files) = wanted.files(|path| before.files.get(path).cloned()) else {
            return Ok(None);
        };
        for file in &files {
            let (from, to) = (directory.join(&file.path), self.target.join(&file.path));
            if self.order.recheck && !self.is_as_summed(&from, file)? {
                return Ok(None);
            }
            self.remove_if_there(&to)?;
            // Where no second name can be given it is copied again.
            if let Err(error) = self.disk.link(&from, &to) {
                tracing::debug!(from = %from.display(), %error, "a segment of the backup before cannot be used again");
                return Ok(None);
            }
        }
        if !self.are_there(&files)? {
            return Ok(None);
        }
        self.journal.add(&files)?;
        Ok(Some(files))
    }

    /// Whether files are there with the length that they must have.
    fn are_there(&self, files: &[SummaryFile]) -> Result<bool, BackupError> {
        for file in files {
            let path = self.target.join(&file.path);
            let length = self
                .disk
                .open(&path, OpenHow::Read)
                .and_then(|found| found.len());
            match length {
                Ok(length) if length == file.bytes => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(BackupError::io("open", path)(error)),
            }
        }
        Ok(true)
    }

    fn is_as_summed(&self, path: &Path, file: &SummaryFile) -> Result<bool, BackupError> {
        let opened = self.disk.open(path, OpenHow::Read);
        let found = opened.and_then(|found| hash_file(&*found, file.bytes, &mut |_| {}));
        match found {
            Ok(found) => Ok(found.as_deref() == Some(file.sha256.as_str())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(false),
            Err(error) => Err(BackupError::io("read", path)(error)),
        }
    }

    fn remove_if_there(&self, path: &Path) -> Result<(), BackupError> {
        match self.disk.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(BackupError::io("remove", path)),
        }
    }

    fn damage_of(&self, finding: &Finding) -> SummaryDamage {
        let path = finding
            .path
            .strip_prefix(&self.target)
            .unwrap_or(&finding.path);
        SummaryDamage {
            damage: path.to_string_lossy().into_owned(),
            log: finding.log.clone(),
            from: finding.from_offset,
            to: finding.to_offset,
            reason: finding.reason.clone(),
        }
    }

    /// Checks the copy as a whole: everything but the sealed segments, which were checked one by one.
    fn check(&mut self, pass: &mut Pass) -> Result<(), BackupError> {
        self.progress.is_checking = true;
        (self.watch)(&self.progress);
        self.progress.is_checking = false;
        self.remove_leftovers(pass)?;
        let known: BTreeSet<PathBuf> = pass
            .files
            .values()
            .filter(|file| file.batches.is_some())
            .map(|file| self.target.join(&file.path))
            .collect();
        let mut found = Vec::new();
        let counted = inspect::verify_store_but(
            self.disk,
            &self.target,
            &|path| known.contains(path),
            &mut |finding| found.push(finding),
        )
        .map_err(BackupError::io("verify", &self.target))?;
        pass.counted = counted;
        for file in pass.files.values() {
            pass.counted.batches += file.batches.unwrap_or(0);
            pass.counted.records += file.records.unwrap_or(0);
        }
        for finding in found {
            if finding.stops_start {
                pass.refusals.push(finding);
            } else if finding.is_damage {
                pass.damage.push(self.damage_of(&finding));
            }
        }
        Ok(())
    }

    /// Removes what an earlier pass or attempt has copied and this one does not name.
    fn remove_leftovers(&self, pass: &Pass) -> Result<(), BackupError> {
        let mut folders = vec![self.target.clone()];
        while let Some(folder) = folders.pop() {
            let names = self
                .disk
                .list(&folder)
                .map_err(BackupError::io("list", &folder))?;
            for entry in names {
                let path = folder.join(&entry.name);
                if entry.is_dir {
                    folders.push(path);
                    continue;
                }
                let below = path.strip_prefix(&self.target).unwrap_or(&path);
                let name = below.to_string_lossy();
                if name != JOURNAL_FILE && !pass.files.contains_key(name.as_ref()) {
                    self.remove_if_there(&path)?;
                }
            }
        }
        Ok(())
    }

    fn summary(&self, pass: Pass, ended: Timestamp) -> Summary {
        let before = self.previous.as_ref().map(|(_, before)| before);
        Summary {
            head: SummaryHead {
                version: SUMMARY_VERSION,
                number: before.map_or(0, |before| before.head.number) + 1,
                store: self.store,
                release: self.order.release.clone(),
                source: self.order.source.to_string_lossy().into_owned(),
                began_ms: self.order.now.millis(),
                ended_ms: ended.millis(),
                checkpoint: pass.checkpoint,
                last_frame: pass.frames.last_frame,
                logs: pass.counted.logs,
                segments: pass.counted.segments,
                batches: pass.counted.batches,
                records: pass.counted.records,
                previous: before.map(|before| before.sha256.clone()),
            },
            files: pass.files,
            damage: pass.damage,
            sha256: String::new(),
        }
    }
}
