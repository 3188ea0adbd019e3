//! A disk in memory that behaves as badly as real ones may: the exam's power cuts run on it.
//!
//! Callers: tests, here and in other crates. Every file has what is durable and what the process sees; what lies between is
//! a set of dirty 512-byte sectors that a power cut keeps, drops or tears, each by itself. Names are the same: creations,
//! renames and removals are pending until their directory is synced, and a power cut keeps some of them.
//! It can be full, and the process can be short of descriptors.
//! A failed sync behaves as the kernel's: the sectors are clean afterwards, and never reach the disk.
//! Invariant: everything is decided by seeds, so that a run can be repeated.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::{
    DIRECT_ALIGNMENT_BYTES, DirEntry, Disk, DiskFile, FileMap, FileSystem, LockGuard, LockHow,
    Mapping, OpenHow,
};

/// What a power cut keeps or loses as one.
pub const SECTOR_BYTES: usize = 512;

/// What a directory takes of the disk's capacity, and what a file's length is rounded up to.
pub const BLOCK_BYTES: u64 = 4096;

fn blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// What a process may ask of the disk, for choosing where it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `open` without creating.
    Open,
    /// `open` that creates.
    Create,
    /// `read_at`.
    Read,
    /// `write_vectored_at`.
    Write,
    /// `sync_data`.
    SyncData,
    /// `set_len`.
    SetLen,
    /// `create_dir_all`.
    CreateDir,
    /// `sync_dir`.
    SyncDir,
    /// `FileSystem::sync`.
    SyncFilesystem,
    /// `rename`.
    Rename,
    /// `remove_file` and `remove_dir`.
    Remove,
}

impl Operation {
    /// Whether it may change what is on the disk: these are counted, and a power cut can be set at each.
    fn changes(self) -> bool {
        !matches!(self, Operation::Open | Operation::Read)
    }
}

/// An error that the disk gives on purpose.
#[derive(Clone, Debug)]
pub struct Fault {
    /// At which operation.
    pub operation: Operation,
    /// On paths that contain this.
    pub path_contains: String,
    /// How many matching operations go well before.
    pub skip: u64,
    /// How many fail then.
    pub times: u64,
    /// With which `errno`.
    pub errno: i32,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Debug)]
struct World {
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    pending: Vec<NameChange>,
    locks: HashMap<PathBuf, Lock>,
    capacity_bytes: u64,
    /// Each open file holds a clone.
    descriptors: Arc<()>,
    descriptors_max: usize,
    file_bytes_max: u64,
    operations: u64,
    /// Bytes that were written to each path.
    written: HashMap<PathBuf, u64>,
    cut_during: Option<u64>,
    is_off: bool,
    /// Rises with every restart: handles from before are dead.
    boot: u64,
    faults: Vec<Fault>,
    random: Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File(u64),
}

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<u64>,
    len_dirty: bool,
    /// Bytes that cannot be read.
    unreadable: Range<u64>,
}

impl Inode {
    /// An error if the range touches what cannot be read.
    fn check_readable(&self, range: Range<u64>) -> io::Result<()> {
        if range.start < self.unreadable.end && self.unreadable.start < range.end {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
        moved: Vec<(PathBuf, Node)>,
    },
}

#[derive(Debug, Default)]
struct Lock {
    exclusive: bool,
    shared: usize,
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

    fn lock_world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn begin(
        &self,
        operation: Operation,
        path: &Path,
    ) -> io::Result<(MutexGuard<'_, World>, Fate)> {
        let mut world = self.lock_world();
        let fate = world.begin(operation, path)?;
        Ok((world, fate))
    }
}

/// What becomes of an operation.
#[derive(Debug)]
enum Fate {
    Fine,
    /// The power goes while it runs: it may have happened, and nobody hears.
    Cut,
    Fails(io::Error),
}

impl Fate {
    /// Ends an operation that happened, as far as the process can see.
    fn end(self, world: &mut World) -> io::Result<()> {
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
    fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<Fate> {
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

    fn reboot(&mut self) {
        self.locks.clear();
        self.faults.clear();
        self.cut_during = None;
        self.is_off = false;
        self.boot += 1;
        let named: BTreeSet<u64> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .filter_map(file_of)
            .collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    fn lose_what_is_volatile(&mut self) {
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

    fn is_reachable(&self, path: &Path) -> bool {
        path.ancestors()
            .skip(1)
            .all(|above| self.durable_names.get(above) == Some(&Node::Directory))
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn descriptor(&self) -> io::Result<Arc<()>> {
        if Arc::strong_count(&self.descriptors) > self.descriptors_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(Arc::clone(&self.descriptors))
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    fn used_bytes(&self) -> u64 {
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
    fn check_room_for_directories(&self, count: usize) -> io::Result<()> {
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
    fn check_room(&mut self, inode: u64, len: u64) -> io::Result<()> {
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
    fn write(&mut self, position: u64, bytes: &[u8]) {
        let start = usize::try_from(position).expect("positions in memory");
        let end = start + bytes.len();
        if end > self.seen.len() {
            self.set_len(end);
        }
        self.seen[start..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            let sectors = (start / SECTOR_BYTES) as u64..=((end - 1) / SECTOR_BYTES) as u64;
            self.dirty.extend(sectors);
        }
    }

    fn set_len(&mut self, len: usize) {
        let (short, long) = (len.min(self.seen.len()), len.max(self.seen.len()));
        self.seen.resize(len, 0);
        self.len_dirty = true;
        self.dirty
            .extend((short / SECTOR_BYTES) as u64..(long.div_ceil(SECTOR_BYTES)) as u64);
    }

    fn sync(&mut self) {
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

    fn drop_clean(&mut self) {
        let sectors = self.seen.len().div_ceil(SECTOR_BYTES) as u64;
        for sector in (0..sectors).filter(|sector| !self.dirty.contains(sector)) {
            let range = sector_range(sector, self.seen.len());
            let there = range.start..range.end.min(self.durable.len()).max(range.start);
            self.seen[there.end..range.end].fill(0);
            if !there.is_empty() {
                self.seen[there.clone()].copy_from_slice(&self.durable[there]);
            }
        }
    }

    fn lose_what_is_volatile(&mut self, random: &mut Random) {
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
    }
}

fn sector_range(sector: u64, len: usize) -> Range<usize> {
    let start = (sector as usize * SECTOR_BYTES).min(len);
    start..(start + SECTOR_BYTES).min(len)
}

fn file_of(node: &Node) -> Option<u64> {
    match node {
        Node::File(inode) => Some(*inode),
        Node::Directory => None,
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &NameChange) {
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

fn concerns(change: &NameChange, directory: &Path) -> bool {
    match change {
        NameChange::Add(path, _) | NameChange::Remove(path) => path.parent() == Some(directory),
        NameChange::Rename { from, to, .. } => {
            from.parent() == Some(directory) || to.parent() == Some(directory)
        }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

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

#[derive(Debug)]
struct SimFileSystem {
    disk: SimDisk,
    root: PathBuf,
    boot: u64,
    _descriptor: Arc<()>,
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
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    how: LockHow,
    boot: u64,
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
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: u64,
    boot: u64,
    how: OpenHow,
    /// A map has none.
    _descriptor: Option<Arc<()>>,
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
        *world.written.entry(self.path.clone()).or_default() += bytes.len() as u64;
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

    fn drop_cache(&self) -> io::Result<()> {
        let (mut world, _) = self.begin(Operation::Open)?;
        world.inode(self.inode).drop_clean();
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

/// SplitMix64: enough to choose sectors by, and the same everywhere.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

#[cfg(test)]
#[path = "sim_tests.rs"]
mod tests;
