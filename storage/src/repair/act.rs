//! Does what a repair's plan says, in an order in which a power cut between any two steps leaves no less than there was.

use std::path::Path;

use model::{LogId, Offset, Timestamp};
use uuid::Uuid;

use super::checkpoint::build;
use super::plan::{Action, Planned, RepairError, store_elsewhere};
use crate::checkpoint::{BYTES_MAX, Checkpoint, Slot};
use crate::damage::{Damage, load_damage, store_damage};
use crate::data_dir::move_aside;
use crate::io::{Disk, read_file, write_new_file};
use crate::manifest;
use crate::recovery::store_file::{decode_store, encode_store};
use crate::scrub::Target;
use crate::scrub::index::{Before, write_index};
use crate::segment::{SegmentId, read_index_file};

/// Does what a plan says. The caller holds the store's lock, and has planned under it.
pub fn execute(
    disk: &dyn Disk,
    root: &Path,
    planned: &[Planned],
    now: Timestamp,
) -> Result<(), RepairError> {
    let of = |action| planned.iter().filter(move |one| one.action == action);
    for one in of(Action::RewriteStore) {
        rewrite_store(disk, root, &one.path)?;
    }
    record(disk, root, of(Action::RecordDamage), now)?;
    for one in of(Action::RebuildIndex) {
        rebuild_index(disk, one)?;
    }
    for one in of(Action::SetAside) {
        set_aside(disk, root, &one.path)?;
    }
    for one in of(Action::RebuildCheckpoint) {
        let store = store_of(disk, root)?;
        let checkpoint = build(disk, root, store, now)?;
        write_checkpoint(disk, &one.path, &checkpoint)?;
    }
    Ok(())
}

fn store_of(disk: &dyn Disk, root: &Path) -> Result<Uuid, RepairError> {
    let path = root.join("STORE");
    let bytes = read_file(disk, &path, 1 << 20).map_err(RepairError::io("read", &path))?;
    decode_store(&bytes).map_err(|error| RepairError::Refused {
        path,
        reason: error.to_string(),
    })
}

fn rewrite_store(disk: &dyn Disk, root: &Path, path: &Path) -> Result<(), RepairError> {
    let bytes = read_file(disk, path, 1 << 20).unwrap_or_default();
    let of_file = decode_store(&bytes).ok();
    let store = match of_file {
        Some(store) => store,
        None => match store_elsewhere(disk, root)? {
            Some((store, _)) => store,
            None => return Ok(()),
        },
    };
    let fresh = root.join("STORE.new");
    if disk
        .exists(&fresh)
        .map_err(RepairError::io("look for", &fresh))?
    {
        disk.remove_file(&fresh)
            .map_err(RepairError::io("remove", &fresh))?;
    }
    write_new_file(disk, &fresh, &encode_store(store)).map_err(RepairError::io("write", &fresh))?;
    if disk
        .exists(path)
        .map_err(RepairError::io("look for", path))?
    {
        set_aside(disk, root, path)?;
    }
    disk.rename(&fresh, path)
        .and_then(|()| disk.sync_dir(root))
        .map_err(RepairError::io("create", path))
}

/// Puts damage on record, beside what is there.
fn record<'a>(
    disk: &dyn Disk,
    root: &Path,
    found: impl Iterator<Item = &'a Planned>,
    now: Timestamp,
) -> Result<(), RepairError> {
    let mut known = load_damage(disk, root)?;
    let before = known.len();
    for one in found {
        let log: Option<LogId> = one.log.as_deref().and_then(|log| log.parse().ok());
        let (Some(log), Some(from), Some(to)) = (log, one.from, one.to) else {
            continue;
        };
        let name = one.path.file_stem().unwrap_or_default().to_string_lossy();
        let damage = Damage {
            log: Some(log),
            range: Offset::new(from)..Offset::new(to),
            reason: format!("segment {name}: {}", one.reason),
        };
        if !known.contains(&damage) {
            known.push(damage);
        }
    }
    if known.len() > before {
        store_damage(disk, root, &known, now)?;
    }
    Ok(())
}

/// Builds an index from its segment, and from the index of the segment before.
fn rebuild_index(disk: &dyn Disk, one: &Planned) -> Result<(), RepairError> {
    let (Some(directory), Some(log)) = (one.path.parent(), one.log.as_deref()) else {
        return Ok(());
    };
    let Ok(log) = log.parse::<LogId>() else {
        return Ok(());
    };
    let name = one.path.file_name().unwrap_or_default().to_string_lossy();
    let Some((id, _)) = SegmentId::parse(&name) else {
        return Ok(());
    };
    let loaded =
        manifest::load(disk, directory, log).map_err(RepairError::io("read", directory))?;
    let mut before = Before::default();
    for (entry, sealed) in loaded.manifest.iter().flat_map(|found| found.sealed()) {
        if entry.id != id {
            let read = read_index_file(disk, directory, log, entry.id, sealed.bytes);
            if let Ok(Ok(found)) = read {
                (before.producers, before.epochs) = (found.producers, found.epochs);
            }
            continue;
        }
        before.append_time = sealed.last_append_time;
        let target = Target {
            log,
            directory: directory.to_owned(),
            id,
            kind: entry.kind,
            bytes: sealed.bytes,
            end_offset: sealed.end_offset,
            is_read: false,
        };
        let written = write_index(disk, &target, before).map_err(std::io::Error::other);
        return written
            .map(drop)
            .map_err(RepairError::io("write", &one.path));
    }
    Ok(())
}

fn set_aside(disk: &dyn Disk, root: &Path, path: &Path) -> Result<(), RepairError> {
    let aside = root.join("quarantine");
    move_aside(disk, path, &aside)
        .and_then(|_| disk.sync_dir(&aside))
        .and_then(|()| path.parent().map_or(Ok(()), |above| disk.sync_dir(above)))
        .map_err(RepairError::io("set aside", path))
}

fn write_checkpoint(disk: &dyn Disk, path: &Path, built: &Checkpoint) -> Result<(), RepairError> {
    let directory = path.parent().unwrap_or(path);
    disk.create_dir_all(directory)
        .map_err(RepairError::io("create", directory))?;
    write_new_file(disk, path, &built.encode())
        .and_then(|()| disk.sync_dir(directory))
        .map_err(RepairError::io("write", path))?;
    // What was written is what a start will read.
    let read = read_file(disk, path, BYTES_MAX).map_err(RepairError::io("read", path))?;
    assert!(
        Checkpoint::decode(&read).as_ref() == Ok(built),
        "a checkpoint reads back as it was built"
    );
    assert!(
        path.ends_with(Slot::A.path(Path::new("checkpoint"))),
        "the first of the two"
    );
    Ok(())
}
