//! Executes plans: the one place where segments are unlinked.
//!
//! Callers: the engine's cleaner, and recovery for what a crash left half done. Order: the manifest without the segments is
//! durable, the engine publishes its view, and only then the files go. Live maps of them stay valid.

use std::io;
use std::path::{Path, PathBuf};

use model::Offset;

use super::Plan;
use crate::io::Disk;
use crate::manifest::{self, Loaded, Manifest};
use crate::segment::SegmentId;

/// The manifest as it is after a plan; the same if the plan is empty. Pure.
pub fn after(manifest: &Manifest, plan: &Plan) -> Manifest {
    let mut next = manifest.clone();
    next.segments
        .retain(|entry| !plan.remove.iter().any(|removal| removal.id == entry.id));
    next.start_offset = next
        .start_offset
        .max(plan.raise_start_to.unwrap_or(Offset::ZERO));
    if next != *manifest {
        next.number += 1;
    }
    next
}

/// Switches to the manifest after the plan, durably, lets `publish` show it to readers, and unlinks the files.
/// Returns the manifest and the files that could not be unlinked, which the next start finds again; an error means that the
/// old manifest still counts and nothing was removed.
pub fn execute(
    disk: &dyn Disk,
    directory: &Path,
    manifest: &Manifest,
    plan: &Plan,
    publish: impl FnOnce(&Manifest),
) -> io::Result<Executed> {
    let next = after(manifest, plan);
    if next == *manifest {
        return Ok(Executed {
            manifest: next,
            left: Vec::new(),
        });
    }
    manifest::store(disk, directory, &next)?;
    publish(&next);
    let mut left = Vec::new();
    for removal in &plan.remove {
        if let Err(error) = unlink(disk, directory, removal.id) {
            left.push((removal.id, error));
        }
    }
    Ok(Executed {
        manifest: next,
        left,
    })
}

/// What came of a plan.
#[derive(Debug)]
pub struct Executed {
    /// The manifest that counts now.
    pub manifest: Manifest,
    /// Segments that no manifest names any more, but whose files are still there.
    pub left: Vec<(SegmentId, io::Error)>,
}

/// Unlinks both files of a segment; one that is gone already is no error.
pub fn unlink(disk: &dyn Disk, directory: &Path, id: SegmentId) -> io::Result<()> {
    for path in [id.index_path(directory), id.log_path(directory)] {
        match disk.remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What [`sweep`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Segments that a plan had given up before a crash, now unlinked.
    pub unlinked: Vec<SegmentId>,
    /// Empty files of segments that no manifest came to name, now removed.
    pub emptied: Vec<String>,
    /// Files that nobody knows, moved aside.
    pub moved: Vec<PathBuf>,
}

/// Tidies a partition's directory at start: finishes the unlinking that a crash cut short (the manifest before the newest
/// still named those), removes empty leftovers, and moves everything unknown into `quarantine` under a new name.
/// Without a valid manifest nothing is touched. The caller has checked that the newest manifest is the one that the
/// checkpoint knows, or a later one.
pub fn sweep(
    disk: &dyn Disk,
    directory: &Path,
    loaded: &Loaded,
    quarantine: &Path,
) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let Some(manifest) = &loaded.manifest else {
        return Ok(swept);
    };
    let names =
        |manifest: &Manifest, id: SegmentId| manifest.segments.iter().any(|entry| entry.id == id);
    for entry in disk.list(directory)? {
        let path = directory.join(&entry.name);
        let rejected = loaded
            .rejected
            .iter()
            .any(|rejected| rejected.name == entry.name);
        if entry.name.starts_with("manifest.") && !rejected {
            continue;
        }
        match SegmentId::parse(&entry.name) {
            Some((id, _)) if names(manifest, id) => {}
            Some((id, _))
                if loaded
                    .previous
                    .as_ref()
                    .is_some_and(|previous| names(previous, id)) =>
            {
                unlink(disk, directory, id)?;
                swept.unlinked.push(id);
            }
            _ if !entry.is_dir && entry.len == 0 => {
                disk.remove_file(&path)?;
                swept.emptied.push(entry.name);
            }
            _ => swept.moved.push(move_aside(disk, &path, quarantine)?),
        }
    }
    swept.unlinked.dedup();
    Ok(swept)
}

/// Moves a file or directory into `quarantine`, under a name that is free, and returns where it is now. Nothing is synced:
/// after a power cut it may be found at its old place, and is moved again.
pub fn move_aside(disk: &dyn Disk, path: &Path, quarantine: &Path) -> io::Result<PathBuf> {
    disk.create_dir_all(quarantine)?;
    let above = path
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 0u32.. {
        let target = quarantine.join(format!("{above}.{name}.{number}"));
        if !disk.exists(&target)? {
            disk.rename(path, &target)?;
            return Ok(target);
        }
    }
    unreachable!("there are fewer than 2^32 files in one directory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleanup::{Reason, Removal};
    use crate::io::{SimDisk, write_new_file};
    use crate::manifest::{Sealed, SegmentEntry};
    use model::{LogId, PartitionId, Timestamp, TopicId};

    fn log() -> LogId {
        LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
    }

    fn id(n: u64) -> SegmentId {
        SegmentId::first(Offset::new(n * 10))
    }

    /// A partition with three sealed segments and an active one, all durable.
    fn partition() -> (SimDisk, PathBuf, Manifest) {
        let disk = SimDisk::new(1);
        let directory = PathBuf::from("/data/p/07/log");
        disk.create_dir_all(&directory).unwrap();
        let time = Timestamp::from_millis(0);
        let sealed = |n: u64| Sealed {
            end_offset: Offset::new(n * 10 + 10),
            bytes: 5,
            max_timestamp: time,
            first_append_time: time,
            last_append_time: time,
        };
        let mut segments: Vec<SegmentEntry> = (0..3)
            .map(|n| SegmentEntry::sealed(id(n), sealed(n)))
            .collect();
        segments.push(SegmentEntry::active(id(3)));
        for n in 0..4 {
            write_new_file(&disk, &id(n).log_path(&directory), b"batch").unwrap();
            write_new_file(&disk, &id(n).index_path(&directory), b"index").unwrap();
        }
        let manifest = Manifest {
            log: log(),
            number: 1,
            start_offset: Offset::ZERO,
            segments,
        };
        manifest::store(&disk, &directory, &manifest).unwrap();
        disk.sync_filesystem(&directory).unwrap();
        (disk, directory, manifest)
    }

    fn plan(count: u64) -> Plan {
        let removal = |n: u64| Removal {
            id: id(n),
            end_offset: Offset::new(n * 10 + 10),
            bytes: 5,
            reason: Reason::BelowStart,
        };
        Plan {
            raise_start_to: Some(Offset::new(count * 10)),
            remove: (0..count).map(removal).collect(),
            seal_active: false,
        }
    }

    #[test]
    fn a_power_cut_anywhere_leaves_the_state_before_or_after_and_a_sweep_tidies_it() {
        let (disk, directory, manifest) = partition();
        let before = disk.operations();
        execute(&disk, &directory, &manifest, &plan(2), |_| {}).unwrap();
        let count = disk.operations() - before;
        assert!(
            count >= 7,
            "a manifest's create, write, sync and directory sync, and four unlinks"
        );
        for cut in 1..=count {
            for seed in 0..20 {
                let (disk, directory, manifest) = partition();
                disk.cut_power_during(before + cut);
                let executed = execute(&disk, &directory, &manifest, &plan(2), |_| {});
                assert!(executed.is_err() || disk.is_off());
                disk.restart(seed);
                let loaded = manifest::load(&disk, &directory, log()).unwrap();
                let found = loaded
                    .manifest
                    .clone()
                    .expect("one of the two is always valid");
                let is_after = found == after(&manifest, &plan(2));
                assert!(is_after || found == manifest, "cut {cut} seed {seed}");
                assert!(is_after || executed.is_err());
                sweep(&disk, &directory, &loaded, Path::new("/data/quarantine")).unwrap();
                let names: Vec<String> = disk
                    .list(&directory)
                    .unwrap()
                    .into_iter()
                    .map(|e| e.name)
                    .collect();
                for n in 0..4 {
                    let kept = found.segments.iter().any(|entry| entry.id == id(n));
                    assert_eq!(
                        names.contains(&id(n).log_name()),
                        kept,
                        "cut {cut} seed {seed} segment {n}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_full_disk_does_not_keep_retention_from_making_room() {
        let (disk, directory, manifest) = partition();
        let mut next = manifest.clone();
        next.number = 2;
        manifest::store(&disk, &directory, &next).unwrap();
        let used: usize = disk.files().values().map(Vec::len).sum();
        disk.set_capacity(used as u64);
        let executed = execute(&disk, &directory, &next, &plan(2), |_| {}).unwrap();
        assert_eq!(executed.manifest.start_offset, Offset::new(20));
        assert!(executed.left.is_empty());
        assert!(disk.free_bytes(&directory).unwrap() > 0);
    }

    #[test]
    fn unknown_files_are_moved_aside_and_without_a_manifest_nothing_is_touched() {
        let (disk, directory, _) = partition();
        write_new_file(&disk, &id(9).log_path(&directory), b"whose?").unwrap();
        write_new_file(&disk, &id(4).log_path(&directory), b"").unwrap();
        write_new_file(&disk, &directory.join("notes.txt"), b"mine").unwrap();
        let quarantine = Path::new("/data/quarantine");
        let nothing = sweep(&disk, &directory, &Loaded::default(), quarantine).unwrap();
        assert_eq!(nothing, Swept::default());
        let loaded = manifest::load(&disk, &directory, log()).unwrap();
        let swept = sweep(&disk, &directory, &loaded, quarantine).unwrap();
        assert_eq!(
            (swept.unlinked.len(), swept.emptied.len(), swept.moved.len()),
            (0, 1, 2)
        );
        let files = disk.files();
        assert!(swept.moved.iter().all(|path| !files[path].is_empty()));
        assert_eq!(
            sweep(&disk, &directory, &loaded, quarantine).unwrap(),
            Swept::default()
        );
    }
}
