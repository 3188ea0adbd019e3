//! Handles of the simulated disk: open files, their maps, file systems to be synced, locks.
//! Callers: `names`, which hands them out. Invariant: a handle from before a restart does nothing any more.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;

use super::Operation;
use super::disk::SimDisk;
use super::world::{Fate, Inode, World, apply};
use crate::io::{
    DIRECT_ALIGNMENT_BYTES, DiskFile, FileMap, FileSystem, LockGuard, LockHow, Mapping, OpenHow,
};

#[derive(Debug)]
pub(super) struct SimFileSystem {
    pub(super) disk: SimDisk,
    pub(super) root: PathBuf,
    pub(super) boot: u64,
    pub(super) _descriptor: Arc<()>,
}

impl FileSystem for SimFileSystem {
    fn sync(&self) -> io::Result<()> {
        let (mut world, fate) = self.disk.begin(Operation::SyncFilesystem, &self.root)?;
        if world.boot != self.boot {
            return Err(io::Error::other("the handle is from before the restart"));
        }
        match fate {
            Fate::Fine => {
                for change in std::mem::take(&mut world.pending) {
                    apply(&mut world.durable_names, &change);
                }
                world.inodes.values_mut().for_each(Inode::sync);
            }
            Fate::Fails(_) => world
                .inodes
                .values_mut()
                .for_each(|inode| inode.dirty.clear()),
            Fate::Cut => {}
        }
        fate.end(&mut world)
    }
}

#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) how: LockHow,
    pub(super) boot: u64,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.lock_world();
        if world.boot != self.boot {
            return;
        }
        if let Some(lock) = world.locks.get_mut(&self.path) {
            match self.how {
                LockHow::Exclusive => lock.exclusive = false,
                LockHow::Shared => lock.shared -= 1,
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    pub(super) boot: u64,
    pub(super) how: OpenHow,
    /// A map has none.
    pub(super) _descriptor: Option<Arc<()>>,
}

impl SimFile {
    fn begin(&self, operation: Operation) -> io::Result<(MutexGuard<'_, World>, Fate)> {
        let (world, fate) = self.disk.begin(operation, &self.path)?;
        if world.boot != self.boot {
            return Err(io::Error::other("the handle is from before the restart"));
        }
        Ok((world, fate))
    }

    fn check_direct(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let aligned = position.is_multiple_of(DIRECT_ALIGNMENT_BYTES as u64)
            && bytes.len().is_multiple_of(DIRECT_ALIGNMENT_BYTES)
            && bytes.as_ptr().align_offset(DIRECT_ALIGNMENT_BYTES) == 0;
        if self.how == OpenHow::Direct && !aligned {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at_now(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let in_memory = self.disk.lock_world().inode(self.inode).in_memory(position);
        match usize::try_from(in_memory).map_or(buffer.len(), |count| count.min(buffer.len())) {
            0 if !buffer.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            count => self.read_at(position, &mut buffer[..count]),
        }
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut world, fate) = self.begin(Operation::Read)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        self.check_direct(position, buffer)?;
        let inode = world.inode(self.inode);
        inode.check_readable(position..position + 1)?;
        // As Linux does: a read ends before what cannot be read, and the one that begins there fails.
        let good = inode.unreadable.start.checked_sub(position);
        let good = good.filter(|_| !inode.unreadable.is_empty());
        let good = good.and_then(|good| usize::try_from(good).ok());
        let count = buffer.len().min(good.unwrap_or(usize::MAX));
        let buffer = &mut buffer[..count];
        let start = usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(inode.seen.len());
        let count = buffer.len().min(inode.seen.len() - start);
        buffer[..count].copy_from_slice(&inode.seen[start..start + count]);
        if self.how != OpenHow::Direct {
            inode.bring_in(position..position + count as u64);
        }
        Ok(count)
    }

    fn write_vectored_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::Write)?;
        if self.how == OpenHow::Read {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        for slice in slices {
            self.check_direct(position, slice)?;
        }
        let bytes: Vec<u8> = slices
            .iter()
            .map(|slice| &slice[..])
            .collect::<Vec<_>>()
            .concat();
        if let Fate::Fails(error) = fate {
            // Any part of it may have been written.
            let part = world.random.below(bytes.len() as u64 + 1) as usize;
            world.inode(self.inode).write(position, &bytes[..part]);
            return Err(error);
        }
        world.check_room(self.inode, position + bytes.len() as u64)?;
        world.inode(self.inode).write(position, &bytes);
        if self.how == OpenHow::Direct {
            world
                .inode(self.inode)
                .pass_by(position..position + bytes.len() as u64);
        }
        *world.written.entry(self.path.clone()).or_default() += bytes.len() as u64;
        if self.how == OpenHow::Through && matches!(fate, Fate::Fine) {
            world.inode(self.inode).sync();
        }
        fate.end(&mut world)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::SyncData)?;
        match fate {
            Fate::Fine => world.inode(self.inode).sync(),
            Fate::Fails(_) => world.inode(self.inode).dirty.clear(),
            Fate::Cut => {}
        }
        fate.end(&mut world)
    }

    fn len(&self) -> io::Result<u64> {
        let (mut world, _) = self.begin(Operation::Open)?;
        Ok(world.inode(self.inode).seen.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let (mut world, fate) = self.begin(Operation::SetLen)?;
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        world.check_room(self.inode, bytes)?;
        world
            .inode(self.inode)
            .set_len(usize::try_from(bytes).expect("lengths in memory"));
        fate.end(&mut world)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        if bytes > self.len()? {
            self.set_len(bytes)?;
        }
        Ok(())
    }

    fn drop_cache_of(&self, range: Range<u64>) -> io::Result<()> {
        let (mut world, _) = self.begin(Operation::Open)?;
        world.inode(self.inode).drop_clean(range);
        Ok(())
    }

    fn map(&self, capacity: u64) -> io::Result<Arc<FileMap>> {
        let _ = self.begin(Operation::Open)?;
        Ok(Arc::new(FileMap::new(
            Arc::new(SimMapping {
                file: SimFile {
                    _descriptor: None,
                    ..self.clone()
                },
            }),
            capacity,
        )))
    }
}

/// Copies, but counts as in use while a copy is held, as the kernel's map does.
#[derive(Debug)]
struct SimMapping {
    file: SimFile,
}

struct SimSlice {
    bytes: Vec<u8>,
    _mapping: Arc<SimMapping>,
}

impl AsRef<[u8]> for SimSlice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Mapping for SimMapping {
    fn slice(self: Arc<Self>, range: Range<u64>) -> Bytes {
        let mut world = self.file.disk.lock_world();
        let inode = world.inode(self.file.inode);
        let index = |position: u64| usize::try_from(position).expect("positions in memory");
        let (start, end) = (index(range.start), index(range.end));
        let mut bytes = vec![0; end - start];
        let there = inode.seen.len().clamp(start, end) - start;
        bytes[..there].copy_from_slice(&inode.seen[start..start + there]);
        drop(world);
        Bytes::from_owner(SimSlice {
            bytes,
            _mapping: self,
        })
    }

    fn is_cold(&self, range: Range<u64>) -> bool {
        self.populate(range).is_err()
    }

    fn populate(&self, range: Range<u64>) -> io::Result<()> {
        let mut world = self.file.disk.lock_world();
        world.inode(self.file.inode).check_readable(range)
    }
}
