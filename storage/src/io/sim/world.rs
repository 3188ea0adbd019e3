//! The simulated disk's state: files with what is durable and what the process sees, names with their pending changes,
//! and what a power cut makes of both.
//! Callers: `disk`, `names` and `file` beside it, under the one lock of `SimDisk`.
//! Invariant: what is not durable is in `dirty`, `len_dirty` or `pending`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BLOCK_BYTES, Fault, Operation, SECTOR_BYTES};

#[derive(Debug)]
pub(super) struct World {
    pub(super) inodes: HashMap<u64, Inode>,
    pub(super) next_inode: u64,
    pub(super) names: BTreeMap<PathBuf, Node>,
    pub(super) durable_names: BTreeMap<PathBuf, Node>,
    pub(super) pending: Vec<NameChange>,
    pub(super) locks: HashMap<PathBuf, Lock>,
    pub(super) capacity_bytes: u64,
    /// Each open file holds a clone.
    pub(super) descriptors: Arc<()>,
    pub(super) descriptors_max: usize,
    pub(super) file_bytes_max: u64,
    pub(super) operations: u64,
    /// Bytes that were written to each path.
    pub(super) written: HashMap<PathBuf, u64>,
    pub(super) cut_during: Option<u64>,
    pub(super) is_off: bool,
    /// Rises with every restart: handles from before are dead.
    pub(super) boot: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) random: Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(u64),
}

#[derive(Debug, Default)]
pub(super) struct Inode {
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) dirty: BTreeSet<u64>,
    pub(super) len_dirty: bool,
    /// Sectors that are not in memory: what reads them waits for the disk, and has them in memory then.
    pub(super) cold: BTreeSet<u64>,
    /// Bytes that cannot be read.
    pub(super) unreadable: Range<u64>,
}

impl Inode {
    /// An error if the range touches what cannot be read.
    pub(super) fn check_readable(&self, range: Range<u64>) -> io::Result<()> {
        if range.start < self.unreadable.end && self.unreadable.start < range.end {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
        moved: Vec<(PathBuf, Node)>,
    },
}

impl NameChange {
    /// What it may bring back.
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        let (one, moved): (Option<&Node>, &[(PathBuf, Node)]) = match self {
            NameChange::Add(_, node) => (Some(node), &[]),
            NameChange::Remove(_) => (None, &[]),
            NameChange::Rename { moved, .. } => (None, moved),
        };
        one.into_iter().chain(moved.iter().map(|(_, node)| node))
    }
}

#[derive(Debug, Default)]
pub(super) struct Lock {
    pub(super) exclusive: bool,
    pub(super) shared: usize,
}

/// What becomes of an operation.
#[derive(Debug)]
pub(super) enum Fate {
    Fine,
    /// The power goes while it runs: it may have happened, and nobody hears.
    Cut,
    Fails(io::Error),
}

impl Fate {
    /// Ends an operation that happened, as far as the process can see.
    pub(super) fn end(self, world: &mut World) -> io::Result<()> {
        match self {
            Fate::Fine => Ok(()),
            Fate::Cut => {
                world.is_off = true;
                Err(power_is_off())
            }
            Fate::Fails(error) => Err(error),
        }
    }
}

impl World {
    pub(super) fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<Fate> {
        if self.is_off {
            return Err(power_is_off());
        }
        if operation.changes() {
            self.operations += 1;
            if self.cut_during == Some(self.operations) {
                return Ok(Fate::Cut);
            }
        }
        let path = path.to_string_lossy();
        for fault in &mut self.faults {
            if fault.operation != operation
                || !path.contains(&fault.path_contains)
                || fault.times == 0
            {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times -= 1;
            return Ok(Fate::Fails(io::Error::from_raw_os_error(fault.errno)));
        }
        Ok(Fate::Fine)
    }

    pub(super) fn reboot(&mut self) {
        self.locks.clear();
        self.faults.clear();
        self.cut_during = None;
        self.is_off = false;
        self.boot += 1;
        let named: BTreeSet<u64> = self
            .names
            .values()
            .chain(self.durable_names.values())
            // A file that was made and removed may be there again after a power cut that only the first of both survives.
            .chain(self.pending.iter().flat_map(NameChange::nodes))
            .filter_map(file_of)
            .collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    pub(super) fn lose_what_is_volatile(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let prefix_only = self.random.one_in(2);
        let kept = self.random.below(pending.len() as u64 + 1) as usize;
        for (index, change) in pending.into_iter().enumerate() {
            let survives = if prefix_only {
                index < kept
            } else {
                self.random.one_in(2)
            };
            if survives {
                apply(&mut self.durable_names, &change);
            }
        }
        let orphans: Vec<PathBuf> = self
            .durable_names
            .keys()
            .filter(|path| !self.is_reachable(path))
            .cloned()
            .collect();
        for path in orphans {
            self.durable_names.remove(&path);
        }
        self.names = self.durable_names.clone();
        let mut inodes: Vec<&u64> = self.inodes.keys().collect();
        inodes.sort();
        let inodes: Vec<u64> = inodes.into_iter().copied().collect();
        for inode in inodes {
            let mut file = self.inodes.remove(&inode).expect("it was listed");
            file.lose_what_is_volatile(&mut self.random);
            self.inodes.insert(inode, file);
        }
    }

    pub(super) fn is_reachable(&self, path: &Path) -> bool {
        path.ancestors()
            .skip(1)
            .all(|above| self.durable_names.get(above) == Some(&Node::Directory))
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn descriptor(&self) -> io::Result<Arc<()>> {
        if Arc::strong_count(&self.descriptors) > self.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(Arc::clone(&self.descriptors))
    }

    pub(super) fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let files: BTreeSet<u64> = self.names.values().filter_map(file_of).collect();
        // The root is not ours.
        let directories = self.names.values().filter(|node| **node == Node::Directory);
        let directories = (directories.count() as u64 - 1) * BLOCK_BYTES;
        directories
            + files
                .iter()
                .map(|inode| {
                    self.inodes
                        .get(inode)
                        .map_or(0, |inode| blocks(inode.seen.len() as u64))
                })
                .sum::<u64>()
    }

    /// Fails as a full disk does if there is no room for so many more directories.
    pub(super) fn check_room_for_directories(&self, count: usize) -> io::Result<()> {
        let more = count as u64 * BLOCK_BYTES;
        if more > 0
            && self.capacity_bytes != u64::MAX
            && self.used_bytes() + more > self.capacity_bytes
        {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    /// Fails as a full disk does if a file cannot become `len` bytes long.
    pub(super) fn check_room(&mut self, inode: u64, len: u64) -> io::Result<()> {
        if len > self.file_bytes_max {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let now = blocks(self.inode(inode).seen.len() as u64);
        let more = blocks(len).saturating_sub(now);
        if more > 0
            && self.capacity_bytes != u64::MAX
            && self.used_bytes() + more > self.capacity_bytes
        {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }
}

impl Inode {
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        let start = usize::try_from(position).expect("positions in memory");
        let end = start + bytes.len();
        if end > self.seen.len() {
            self.set_len(end);
        }
        self.seen[start..end].copy_from_slice(bytes);
        let range = start as u64..end as u64;
        self.dirty.extend(sectors_of(range.clone()));
        self.bring_in(range);
    }

    /// Has these bytes in memory from now on.
    pub(super) fn bring_in(&mut self, range: Range<u64>) {
        let warmed: Vec<u64> = self.cold.range(sectors_of(range)).copied().collect();
        for sector in warmed {
            self.cold.remove(&sector);
        }
    }

    /// These bytes were written past the memory.
    pub(super) fn pass_by(&mut self, range: Range<u64>) {
        self.cold.extend(sectors_of(range));
    }

    /// How many bytes from a position on are in memory, up to the end of the file.
    pub(super) fn in_memory(&self, position: u64) -> u64 {
        let first = position / SECTOR_BYTES as u64;
        let cold = self.cold.range(first..).next();
        let end = cold.map_or(u64::MAX, |sector| sector * SECTOR_BYTES as u64);
        end.saturating_sub(position)
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let (short, long) = (len.min(self.seen.len()), len.max(self.seen.len()));
        self.seen.resize(len, 0);
        self.cold.split_off(&(len.div_ceil(SECTOR_BYTES) as u64));
        self.len_dirty = true;
        self.dirty
            .extend((short / SECTOR_BYTES) as u64..(long.div_ceil(SECTOR_BYTES)) as u64);
    }

    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector_range(sector, self.seen.len());
            if self.durable.len() < range.end {
                self.durable.resize(range.end, 0);
            }
            self.durable[range.clone()].copy_from_slice(&self.seen[range]);
        }
        if self.len_dirty || self.durable.len() != self.seen.len() {
            self.durable.resize(self.seen.len(), 0);
            self.len_dirty = false;
        }
    }

    pub(super) fn drop_clean(&mut self, range: Range<u64>) {
        let sectors = self.seen.len().div_ceil(SECTOR_BYTES) as u64;
        let first = range.start.div_ceil(SECTOR_BYTES as u64);
        let end = sectors.min(range.end.div_ceil(SECTOR_BYTES as u64));
        for sector in (first..end).filter(|sector| !self.dirty.contains(sector)) {
            self.cold.insert(sector);
            let range = sector_range(sector, self.seen.len());
            let there = range.start..range.end.min(self.durable.len()).max(range.start);
            self.seen[there.end..range.end].fill(0);
            if !there.is_empty() {
                self.seen[there.clone()].copy_from_slice(&self.durable[there]);
            }
        }
    }

    pub(super) fn lose_what_is_volatile(&mut self, random: &mut Random) {
        let len = if self.len_dirty && random.one_in(2) {
            self.seen.len()
        } else {
            self.durable.len()
        };
        self.durable.resize(len, 0);
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector_range(sector, len.min(self.seen.len()));
            let kept = match random.below(8) {
                0..=3 => range.len(),
                4 => random.below(range.len() as u64 + 1) as usize,
                _ => 0,
            };
            let kept = range.start..range.start + kept;
            self.durable[kept.clone()].copy_from_slice(&self.seen[kept]);
        }
        self.len_dirty = false;
        self.seen = self.durable.clone();
        self.cold = sectors_of(0..self.seen.len() as u64).collect();
    }
}

/// The sectors that hold these bytes.
fn sectors_of(bytes: Range<u64>) -> Range<u64> {
    let sector = SECTOR_BYTES as u64;
    match bytes.is_empty() {
        true => 0..0,
        false => bytes.start / sector..bytes.end.div_ceil(sector),
    }
}

pub(super) fn sector_range(sector: u64, len: usize) -> Range<usize> {
    let start = (sector as usize * SECTOR_BYTES).min(len);
    start..(start + SECTOR_BYTES).min(len)
}

pub(super) fn file_of(node: &Node) -> Option<u64> {
    match node {
        Node::File(inode) => Some(*inode),
        Node::Directory => None,
    }
}

pub(super) fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &NameChange) {
    match change {
        NameChange::Add(path, node) => {
            names.insert(path.clone(), *node);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename { from, to, moved } => {
            for (path, node) in moved {
                names.remove(path);
                let below = path.strip_prefix(from).expect("what moves lies below");
                let path = if below.as_os_str().is_empty() {
                    to.clone()
                } else {
                    to.join(below)
                };
                names.insert(path, *node);
            }
        }
    }
}

pub(super) fn concerns(change: &NameChange, directory: &Path) -> bool {
    match change {
        NameChange::Add(path, _) | NameChange::Remove(path) => path.parent() == Some(directory),
        NameChange::Rename { from, to, .. } => {
            from.parent() == Some(directory) || to.parent() == Some(directory)
        }
    }
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

pub(super) fn blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// SplitMix64: enough to choose sectors by, and the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}
