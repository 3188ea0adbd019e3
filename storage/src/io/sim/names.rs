//! What the simulated disk does with names: opening and creating, directories and their syncs, renames, removals, locks.
//! Callers: whoever holds a [`SimDisk`] as a [`Disk`]. Invariant: a change of a name is pending until its directory is synced.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Operation;
use super::disk::SimDisk;
use super::file::{SimFile, SimFileSystem, SimLock};
use super::world::{Fate, Inode, NameChange, Node, apply, concerns, file_of};
use crate::io::{DirEntry, Disk, DiskFile, FileSystem, LockGuard, LockHow, OpenHow};

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let operation = if how == OpenHow::CreateNew {
            Operation::Create
        } else {
            Operation::Open
        };
        let (mut world, fate) = self.begin(operation, path)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        let descriptor = world.descriptor()?;
        let inode = if how == OpenHow::CreateNew {
            if world.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            world.directory(path.parent().unwrap_or(Path::new("/")))?;
            let inode = world.next_inode;
            world.next_inode += 1;
            world.inodes.insert(inode, Inode::default());
            world.change(NameChange::Add(path.to_owned(), Node::File(inode)));
            inode
        } else {
            world.file(path)?
        };
        fate.end(&mut world)?;
        let (boot, disk) = (world.boot, self.clone());
        Ok(Arc::new(SimFile {
            disk,
            path: path.to_owned(),
            inode,
            boot,
            how,
            _descriptor: Some(descriptor),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::CreateDir, path)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        let missing: Vec<&Path> = path
            .ancestors()
            .take_while(|above| !world.names.contains_key(*above))
            .collect();
        world.check_room_for_directories(missing.len())?;
        for directory in missing.into_iter().rev() {
            world.change(NameChange::Add(directory.to_owned(), Node::Directory));
        }
        world.directory(path)?;
        fate.end(&mut world)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::SyncDir, path)?;
        if let Fate::Fine = fate {
            world.directory(path)?;
            let pending = std::mem::take(&mut world.pending);
            let (now, later): (Vec<_>, Vec<_>) = pending
                .into_iter()
                .partition(|change| concerns(change, path));
            for change in &now {
                apply(&mut world.durable_names, change);
            }
            world.pending = later;
        }
        fate.end(&mut world)
    }

    fn file_system(&self, path: &Path) -> io::Result<Box<dyn FileSystem>> {
        let (world, _) = self.begin(Operation::Open, path)?;
        world.directory(path)?;
        Ok(Box::new(SimFileSystem {
            disk: self.clone(),
            root: path.to_owned(),
            boot: world.boot,
            _descriptor: world.descriptor()?,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::Rename, from)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        if !world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.directory(to.parent().unwrap_or(Path::new("/")))?;
        let below = world
            .names
            .iter()
            .filter(|(path, _)| path.starts_with(from));
        let moved = below.map(|(path, node)| (path.clone(), *node)).collect();
        world.change(NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            moved,
        });
        fate.end(&mut world)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::Rename, to)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        let inode = world.file(from)?;
        world.directory(to.parent().unwrap_or(Path::new("/")))?;
        if world.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.change(NameChange::Add(to.to_owned(), Node::File(inode)));
        fate.end(&mut world)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::Remove, path)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        world.file(path)?;
        world.change(NameChange::Remove(path.to_owned()));
        fate.end(&mut world)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::Remove, path)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        world.directory(path)?;
        if world.names.keys().any(|name| name.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        world.change(NameChange::Remove(path.to_owned()));
        fate.end(&mut world)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let (world, fate) = self.begin(Operation::Open, path)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        world.directory(path)?;
        let below = world
            .names
            .iter()
            .filter(|(name, _)| name.parent() == Some(path));
        let entries = below.map(|(name, node)| DirEntry {
            name: name
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            is_dir: *node == Node::Directory,
            len: file_of(node).map_or(0, |inode| world.inodes[&inode].seen.len() as u64),
        });
        Ok(entries.collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let (world, _) = self.begin(Operation::Open, path)?;
        Ok(world.names.contains_key(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let (world, _) = self.begin(Operation::Open, path)?;
        Ok(world.capacity_bytes.saturating_sub(world.used_bytes()))
    }

    fn file_bytes_max(&self) -> u64 {
        self.lock_world().file_bytes_max
    }

    fn lock(&self, path: &Path, how: LockHow) -> io::Result<Box<dyn LockGuard>> {
        if how == LockHow::Exclusive && !self.exists(path)? {
            self.open(path, OpenHow::CreateNew)?;
        }
        let mut world = self.lock_world();
        world.file(path)?;
        let boot = world.boot;
        let lock = world.locks.entry(path.to_owned()).or_default();
        if lock.exclusive || (how == LockHow::Exclusive && lock.shared > 0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match how {
            LockHow::Exclusive => lock.exclusive = true,
            LockHow::Shared => lock.shared += 1,
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_owned(),
            how,
            boot,
        }))
    }
}
