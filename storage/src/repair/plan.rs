//! What a repair would do, as data, found by a verification of everything.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use crate::checkpoint::{BYTES_MAX, Checkpoint, Slot};
use crate::damage::load_damage;
use crate::data_dir::has_settled;
use crate::error::OpenError;
use crate::inspect::{self, Finding};
use crate::io::{Disk, OpenHow, read_file};
use crate::recovery::newer;
use crate::recovery::store_file::{RESTORING_FILE, STORE_COPY_BYTES, decode_store};
use crate::steady::Kept;
use crate::wal::pool::sequence_of;
use crate::wal::reader::first_store;

/// Why nothing can be repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The disk refused.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
    /// A later release wrote it, or a restore has not come to its end: nothing is touched.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The record of damage cannot be read or written.
    #[error(transparent)]
    Damage(#[from] OpenError),
}

impl RepairError {
    pub(super) fn io(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> RepairError {
        let path = path.as_ref().to_owned();
        move |source| RepairError::Io { what, path, source }
    }
}

/// What is done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// `STORE` is written again: from its other copy, a checkpoint or the write-ahead log.
    RewriteStore,
    /// A checkpoint is built from manifests, segments and the write-ahead log.
    RebuildCheckpoint,
    /// The range is put on record, so that readers are told of it.
    RecordDamage,
    /// An index is built from its segment.
    RebuildIndex,
    /// It moves to `quarantine/`.
    SetAside,
    /// The next start mends it by itself, or puts it on record.
    LeftToStart,
    /// Only a backup can help.
    CannotRepair,
}

/// One thing of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// What is done.
    pub action: Action,
    /// To which file.
    pub path: PathBuf,
    /// The log that it belongs to, as `<uuid>-<partition>`.
    pub log: Option<String>,
    /// The first offset that is affected.
    pub from: Option<u64>,
    /// The offset after the last one that is affected.
    pub to: Option<u64>,
    /// What was found.
    pub reason: String,
}

impl Planned {
    fn of(action: Action, path: &Path, reason: impl ToString) -> Planned {
        Planned {
            action,
            path: path.to_owned(),
            log: None,
            from: None,
            to: None,
            reason: reason.to_string(),
        }
    }

    fn of_finding(action: Action, finding: &Finding) -> Planned {
        Planned {
            action,
            path: finding.path.clone(),
            log: finding.log.clone(),
            from: finding.from_offset,
            to: finding.to_offset,
            reason: finding.reason.clone(),
        }
    }

    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        !matches!(self.action, Action::LeftToStart | Action::CannotRepair)
    }
}

/// Looks at everything below a data directory, and plans what is to be done. Changes nothing.
pub fn plan(disk: &dyn Disk, root: &Path) -> Result<Vec<Planned>, RepairError> {
    refuse(disk, root)?;
    let mut planned = Vec::new();
    let store = plan_store(disk, root, &mut planned)?;
    let has_checkpoint = plan_checkpoints(disk, root, store, &mut planned)?;
    plan_clock(disk, root, &mut planned);
    if store.is_some() && has_checkpoint {
        plan_contents(disk, root, &mut planned)?;
    }
    planned.sort_by(|one, other| {
        (one.action, &one.path, one.from).cmp(&(other.action, &other.path, other.from))
    });
    Ok(planned)
}

fn refuse(disk: &dyn Disk, root: &Path) -> Result<(), RepairError> {
    let mut first = None;
    let mut take = |found| {
        first.get_or_insert(found);
    };
    newer::find_in_store(disk, root, &mut take);
    newer::find_in_partitions(disk, root, None, &mut take);
    if let Some(newer) = first {
        return Err(RepairError::Refused {
            reason: newer.to_string(),
            path: newer.path,
        });
    }
    let marker = root.join(RESTORING_FILE);
    match disk
        .exists(&marker)
        .map_err(RepairError::io("look for", &marker))?
    {
        true => Err(RepairError::Refused {
            path: marker,
            reason: "a backup is being restored into this directory: run the same `restore` again"
                .to_owned(),
        }),
        false => Ok(()),
    }
}

/// The store's id, from wherever it is known.
fn plan_store(
    disk: &dyn Disk,
    root: &Path,
    planned: &mut Vec<Planned>,
) -> Result<Option<Uuid>, RepairError> {
    let path = root.join("STORE");
    let bytes = read_file(disk, &path, 1 << 20).unwrap_or_default();
    let copies: Vec<Option<Uuid>> = (0..2)
        .map(|copy| bytes.get(copy * STORE_COPY_BYTES..(copy + 1) * STORE_COPY_BYTES))
        .map(|copy| decode_store(copy?).ok())
        .collect();
    let of_file = copies.iter().flatten().next().copied();
    if copies.iter().all(Option::is_some) && bytes.len() == 2 * STORE_COPY_BYTES {
        return Ok(of_file);
    }
    let found = match of_file {
        Some(store) => Some((store, "its other copy is whole")),
        None => store_elsewhere(disk, root)?,
    };
    match found {
        Some((store, from)) => {
            let reason = format!("a copy of it cannot be read; {from}, and tells store {store}");
            planned.push(Planned::of(Action::RewriteStore, &path, reason));
        }
        None => planned.push(Planned::of(
            Action::CannotRepair,
            &path,
            "neither copy can be read, and no checkpoint or frame of the write-ahead log tells which store it is",
        )),
    }
    Ok(found.map(|(store, _)| store))
}

/// Which store it is, by a checkpoint, or by the frames of the write-ahead log.
pub(super) fn store_elsewhere(
    disk: &dyn Disk,
    root: &Path,
) -> Result<Option<(Uuid, &'static str)>, RepairError> {
    for slot in Slot::ALL {
        let path = slot.path(&root.join("checkpoint"));
        let found = read_file(disk, &path, BYTES_MAX).ok();
        if let Some(found) = found.and_then(|bytes| Checkpoint::decode(&bytes).ok()) {
            return Ok(Some((found.store, "a checkpoint is whole")));
        }
    }
    let wal = root.join("wal");
    for entry in disk.list(&wal).unwrap_or_default() {
        let Some(sequence) = sequence_of(&entry.name) else {
            continue;
        };
        let path = wal.join(&entry.name);
        let file = disk.open(&path, OpenHow::Read);
        let found = file.and_then(|file| first_store(&*file, sequence));
        if let Some(store) = found.map_err(RepairError::io("read", &path))? {
            return Ok(Some((store, "a frame of the write-ahead log is whole")));
        }
    }
    Ok(None)
}

/// Whether there is a checkpoint that counts.
fn plan_checkpoints(
    disk: &dyn Disk,
    root: &Path,
    store: Option<Uuid>,
    planned: &mut Vec<Planned>,
) -> Result<bool, RepairError> {
    let directory = root.join("checkpoint");
    let (mut is_there, mut bad) = (false, Vec::new());
    for slot in Slot::ALL {
        let path = slot.path(&directory);
        if !disk
            .exists(&path)
            .map_err(RepairError::io("look for", &path))?
        {
            continue;
        }
        let read = read_file(disk, &path, BYTES_MAX).map_err(|error| error.to_string());
        let found =
            read.and_then(|bytes| Checkpoint::decode(&bytes).map_err(|error| error.to_string()));
        match found {
            Ok(found) if store.is_none_or(|store| store == found.store) => is_there = true,
            Ok(found) => bad.push((path, format!("it belongs to store {}", found.store))),
            Err(reason) => bad.push((path, reason)),
        }
    }
    let is_needed = has_settled(disk, root)?;
    if is_there || !is_needed {
        for (path, reason) in bad {
            let reason = format!("{reason}; the other one counts, and this one is written over");
            planned.push(Planned::of(Action::LeftToStart, &path, reason));
        }
        return Ok(true);
    }
    for (path, reason) in bad {
        planned.push(Planned::of(Action::SetAside, &path, reason));
    }
    let reason = "no checkpoint can be read. It is built from manifests, segments and the write-ahead log; records that were deleted \
         from the front of a partition shortly before may be back";
    let action = if store.is_some() {
        Action::RebuildCheckpoint
    } else {
        Action::CannotRepair
    };
    planned.push(Planned::of(action, &Slot::A.path(&directory), reason));
    Ok(false)
}

fn plan_clock(disk: &dyn Disk, root: &Path, planned: &mut Vec<Planned>) {
    let path = root.join("CLOCK");
    let Ok(bytes) = read_file(disk, &path, 1 << 20) else {
        return;
    };
    if let Err(error) = Kept::decode(&bytes) {
        let reason = format!("{error}; without it the wall clock is believed at the next start");
        planned.push(Planned::of(Action::SetAside, &path, reason));
    }
}

/// Segments, indexes, manifests and the write-ahead log.
fn plan_contents(
    disk: &dyn Disk,
    root: &Path,
    planned: &mut Vec<Planned>,
) -> Result<(), RepairError> {
    let known = load_damage(disk, root)?;
    let mut findings = Vec::new();
    inspect::verify_store(disk, root, &mut |finding| findings.push(finding))
        .map_err(RepairError::io("verify", root))?;
    let damaged: BTreeSet<PathBuf> = findings
        .iter()
        .filter(|finding| finding.is_damage)
        .map(|finding| finding.path.clone())
        .collect();
    let wal = root.join("wal");
    for finding in &findings {
        let extension = finding.path.extension().and_then(|kind| kind.to_str());
        let is_known = || {
            let covers = |damage: &crate::Damage| {
                damage.log.map(|log| log.to_string()) == finding.log
                    && finding
                        .from_offset
                        .is_some_and(|from| damage.range.start.get() <= from)
                    && finding
                        .to_offset
                        .is_some_and(|to| to <= damage.range.end.get())
            };
            known.iter().any(covers)
        };
        let action = match extension {
            _ if finding.stops_start && planned.iter().any(|one| one.path == finding.path) => {
                continue;
            }
            _ if finding.stops_start => Action::CannotRepair,
            Some("log") if finding.is_damage && is_known() => continue,
            Some("log") if finding.is_damage => Action::RecordDamage,
            Some("idx") if damaged.contains(&finding.path.with_extension("log")) => {
                Action::LeftToStart
            }
            Some("idx") => Action::RebuildIndex,
            // Of what it told there is no other copy, and nothing needs it.
            Some("sum") => Action::SetAside,
            _ if finding.path.starts_with(&wal) => Action::LeftToStart,
            _ if finding.log.is_none() && finding.path.starts_with(root.join("p")) => {
                Action::SetAside
            }
            _ if planned.iter().any(|one| one.path == finding.path) => continue,
            _ => Action::LeftToStart,
        };
        planned.push(Planned::of_finding(action, finding));
    }
    Ok(())
}
