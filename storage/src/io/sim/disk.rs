//! The simulated disk as tests hold it: its limits, its faults, the power, and a look at its files.
//! Callers: tests; `sim::names` and `sim::file`, for [`SimDisk::begin`], with which each operation starts.
//! Invariant: all state is under one lock.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::world::{Fate, Node, Random, World};
use super::{Fault, Operation};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

impl SimDisk {
    /// An empty disk without a limit. The root directory exists.
    pub fn new(seed: u64) -> SimDisk {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Directory)]);
        SimDisk {
            world: Arc::new(Mutex::new(World {
                inodes: HashMap::new(),
                next_inode: 1,
                names: root.clone(),
                durable_names: root,
                pending: Vec::new(),
                locks: HashMap::new(),
                capacity_bytes: u64::MAX,
                descriptors: Arc::new(()),
                descriptors_max: usize::MAX,
                file_bytes_max: u64::MAX,
                operations: 0,
                written: HashMap::new(),
                cut_during: None,
                is_off: false,
                boot: 0,
                faults: Vec::new(),
                random: Random(seed),
            })),
        }
    }

    /// Limits what all files and directories take: a file its blocks, a directory one. Writes past it, and new
    /// directories, fail as on a full disk. A new file takes nothing until it is written to.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock_world().capacity_bytes = bytes;
    }

    /// Leaves no room for a byte more than there is.
    pub fn fill(&self) {
        let mut world = self.lock_world();
        world.capacity_bytes = world.used_bytes();
    }

    /// How much of a limit all files and directories take.
    pub fn used_bytes(&self) -> u64 {
        self.lock_world().used_bytes()
    }

    /// Limits how many files are open at once; one more fails with `EMFILE`.
    pub fn set_descriptors(&self, count: usize) {
        self.lock_world().descriptors_max = count;
    }

    /// How many files are open.
    pub fn descriptors(&self) -> usize {
        Arc::strong_count(&self.lock_world().descriptors) - 1
    }

    /// Limits the length of each file, as `RLIMIT_FSIZE` does.
    pub fn set_file_bytes_max(&self, bytes: u64) {
        self.lock_world().file_bytes_max = bytes;
    }

    /// How many operations there were that may change the disk.
    pub fn operations(&self) -> u64 {
        self.lock_world().operations
    }

    /// How many bytes were written to the files below a directory, over the disk's life.
    pub fn written_below(&self, directory: &Path) -> u64 {
        let world = self.lock_world();
        let below = world
            .written
            .iter()
            .filter(|(path, _)| path.starts_with(directory));
        below.map(|(_, bytes)| bytes).sum()
    }

    /// Cuts the power during the operation with this number, counted from 1 over the disk's life. That operation and all
    /// later ones fail until a restart.
    pub fn cut_power_during(&self, operation: u64) {
        self.lock_world().cut_during = Some(operation);
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.lock_world().is_off = true;
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.lock_world().is_off
    }

    /// The power was cut and comes back: what was not durable is kept, lost or torn, as the seed says. Handles and locks from
    /// before are dead; faults and a planned cut are forgotten.
    pub fn restart(&self, seed: u64) {
        let mut world = self.lock_world();
        world.random = Random(seed);
        world.lose_what_is_volatile();
        world.reboot();
    }

    /// The process was killed, the machine was not: everything that was written is still there, but handles and locks are
    /// not.
    pub fn restart_process(&self) {
        self.lock_world().reboot();
    }

    /// Adds an error.
    pub fn inject(&self, fault: Fault) {
        self.lock_world().faults.push(fault);
    }

    /// Takes all errors back.
    pub fn clear_faults(&self) {
        self.lock_world().faults.clear();
    }

    /// Makes these bytes of a file unreadable, and all others readable.
    pub fn set_unreadable(&self, path: &Path, unreadable: Range<u64>) {
        let mut world = self.lock_world();
        if let Ok(inode) = world.file(path) {
            world.inode(inode).unreadable = unreadable;
        }
    }

    /// Flips bits of one byte, on the disk and in the cache.
    pub fn flip(&self, path: &Path, position: u64, bits: u8) {
        let mut world = self.lock_world();
        let Ok(inode) = world.file(path) else { return };
        let inode = world.inode(inode);
        let at = usize::try_from(position).expect("positions in memory");
        for image in [&mut inode.seen, &mut inode.durable] {
            if let Some(byte) = image.get_mut(at) {
                *byte ^= bits;
            }
        }
    }

    /// All files as a process sees them, with their contents.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let world = self.lock_world();
        let files = world.names.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path.clone(), world.inodes[inode].seen.clone())),
            Node::Directory => None,
        });
        files.collect()
    }

    pub(super) fn lock_world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn begin(
        &self,
        operation: Operation,
        path: &Path,
    ) -> io::Result<(MutexGuard<'_, World>, Fate)> {
        let mut world = self.lock_world();
        let fate = world.begin(operation, path)?;
        Ok((world, fate))
    }
}
