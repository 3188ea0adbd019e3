//! A block device whose faults are chosen: a disk image served through FUSE, to be put behind a loop device.
//! It has a volatile cache, as real disks do: what was not flushed can be lost, each sector by itself, so that a power cut tears
//! and reorders writes; and ranges of it can be made unreadable.
//! Callers: the cases of torn writes and of disk errors. Invariant: what a flush covered is on the stable medium, always.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::random::Random;

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// The only file of the file system.
const FILE_NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
/// Nothing about the file ever changes.
const TTL: Duration = Duration::from_secs(3600);

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Sectors that had been written and not flushed.
    pub unflushed: u64,
    /// Those of them that do not hold what was written last.
    pub lost: u64,
}

/// The image, mounted. Gone when this goes out of scope.
pub struct Image {
    device: Arc<Mutex<Device>>,
    session: Option<BackgroundSession>,
    mount: PathBuf,
}

impl Image {
    /// A new image of `bytes`, a multiple of [`SECTOR_BYTES`], all zeros; mounted inside `work`.
    pub fn create(work: &Path, name: &str, bytes: u64) -> Result<Image> {
        ensure!(
            rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists(),
            "this case serves a disk image through FUSE: it needs root and /dev/fuse"
        );
        assert!(
            bytes.is_multiple_of(SECTOR_BYTES),
            "a disk has whole sectors"
        );
        let stable = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(work.join(format!("{name}.stable")))?;
        stable.set_len(bytes)?;
        let device = Arc::new(Mutex::new(Device {
            stable,
            bytes,
            unflushed: BTreeMap::new(),
            unreadable: Vec::new(),
            is_powered: true,
            fails_next_flush: false,
        }));
        let mount = work.join(format!("{name}.fuse"));
        fs::create_dir_all(&mount)?;
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("alluvium-exam".to_owned())];
        let served = Served {
            device: Arc::clone(&device),
        };
        let session = fuser::Session::new(served, &mount, &config)
            .and_then(fuser::Session::spawn)
            .context("mount a FUSE file system")?;
        Ok(Image {
            device,
            session: Some(session),
            mount,
        })
    }

    /// The file to put behind a loop device.
    pub fn path(&self) -> PathBuf {
        self.mount.join(FILE_NAME)
    }

    /// Cuts the power: of every sector that is not flushed any state since the last flush may remain, its oldest included; how
    /// likely the newest is differs from cut to cut. From then on nothing can be read or written.
    pub fn cut_power(&self, random: &mut Random) -> Result<Cut> {
        self.device().cut_power(random)
    }

    /// The same in the midst of the next flush, when what it was to cover is on its way; waits for it.
    pub fn cut_power_in_flush(&self, random: &mut Random, patience: Duration) -> Result<Cut> {
        self.device().fails_next_flush = true;
        let deadline = Instant::now() + patience;
        while self.device().fails_next_flush && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(100));
        }
        let mut device = self.device();
        device.fails_next_flush = false;
        device.cut_power(random)
    }

    /// Brings the power back.
    pub fn restore_power(&self) {
        self.device().is_powered = true;
    }

    /// Makes these bytes unreadable, and all others readable.
    pub fn set_unreadable(&self, ranges: Vec<Range<u64>>) {
        self.device().unreadable = ranges;
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        held(&self.device)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("  {} is still mounted: {error}", self.mount.display());
        }
    }
}

fn held(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    device
        .lock()
        .expect("no thread panics while it holds the device")
}

type Sector = [u8; SECTOR_BYTES as usize];

/// The disk itself.
struct Device {
    /// What a flush has reached.
    stable: File,
    bytes: u64,
    /// All states of each sector since the last flush, oldest first; by number.
    unflushed: BTreeMap<u64, Vec<Sector>>,
    unreadable: Vec<Range<u64>>,
    is_powered: bool,
    /// The power goes when the next flush comes.
    fails_next_flush: bool,
}

impl Device {
    fn sectors_of(&self, offset: u64, length: usize) -> Result<Range<u64>, Errno> {
        let end = offset.saturating_add(length as u64);
        if !self.is_powered {
            return Err(Errno::EIO);
        }
        if end > self.bytes {
            return Err(Errno::ENOSPC);
        }
        Ok(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES))
    }

    fn sector(&self, number: u64) -> Result<Sector, Errno> {
        if let Some(newest) = self.unflushed.get(&number).and_then(|states| states.last()) {
            return Ok(*newest);
        }
        let mut sector = [0; SECTOR_BYTES as usize];
        self.stable
            .read_exact_at(&mut sector, number * SECTOR_BYTES)
            .map_err(|_| Errno::EIO)?;
        Ok(sector)
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let length = length.min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(0));
        let sectors = self.sectors_of(offset, length)?;
        let end = offset + length as u64;
        if self
            .unreadable
            .iter()
            .any(|range| range.start < end && offset < range.end)
        {
            return Err(Errno::EIO);
        }
        let mut bytes = vec![0; length];
        self.stable
            .read_exact_at(&mut bytes, offset)
            .map_err(|_| Errno::EIO)?;
        for (number, states) in self.unflushed.range(sectors) {
            let newest = states.last().expect("a sector stands there with a state");
            let at = number * SECTOR_BYTES;
            for (byte, place) in newest.iter().zip(at..) {
                if (offset..end).contains(&place) {
                    bytes[(place - offset) as usize] = *byte;
                }
            }
        }
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        for number in self.sectors_of(offset, data.len())? {
            let mut sector = self.sector(number)?;
            for (byte, place) in sector.iter_mut().zip(number * SECTOR_BYTES..) {
                if let Some(new) = place
                    .checked_sub(offset)
                    .and_then(|at| data.get(at as usize))
                {
                    *byte = *new;
                }
            }
            self.unflushed.entry(number).or_default().push(sector);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        if std::mem::take(&mut self.fails_next_flush) {
            self.is_powered = false;
        }
        if !self.is_powered {
            return Err(Errno::EIO);
        }
        for (number, states) in std::mem::take(&mut self.unflushed) {
            let newest = states.last().expect("a sector stands there with a state");
            self.stable
                .write_all_at(newest, number * SECTOR_BYTES)
                .map_err(|_| Errno::EIO)?;
        }
        Ok(())
    }

    fn cut_power(&mut self, random: &mut Random) -> Result<Cut> {
        self.is_powered = false;
        let mut cut = Cut::default();
        let newest_in_ten = random.between(4, 10);
        for (number, states) in std::mem::take(&mut self.unflushed) {
            cut.unflushed += 1;
            let newest = states.len();
            let remains = if random.between(0, 10) < newest_in_ten {
                newest
            } else {
                usize::try_from(random.between(0, newest as u64))?
            };
            cut.lost += u64::from(remains < newest);
            if let Some(state) = remains.checked_sub(1) {
                self.stable
                    .write_all_at(&states[state], number * SECTOR_BYTES)?;
            }
        }
        Ok(cut)
    }
}

/// The file system around the device: a directory with one file.
struct Served {
    device: Arc<Mutex<Device>>,
}

impl Served {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let bytes = held(&self.device).bytes;
        let is_file = inode == FILE;
        FileAttr {
            ino: inode,
            size: if is_file { bytes } else { 0 },
            blocks: if is_file { bytes / SECTOR_BYTES } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE_NAME {
            reply.entry(&TTL, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if inode == INodeNo::ROOT || inode == FILE {
            reply.attr(&TTL, &self.attributes(inode));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    // Without FOPEN_KEEP_CACHE: who opens it again reads what the device holds now.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match held(&self.device).read(offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match held(&self.device).write(offset, data) {
            // A request of FUSE is far smaller than 4 GiB.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    /// close(2) of a descriptor: flushes nothing, on a disk as here.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match held(&self.device).flush() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: u64 = 64;

    fn device() -> Device {
        let stable = tempfile::tempfile().unwrap();
        stable.set_len(SECTORS * SECTOR_BYTES).unwrap();
        Device {
            stable,
            bytes: SECTORS * SECTOR_BYTES,
            unflushed: BTreeMap::new(),
            unreadable: Vec::new(),
            is_powered: true,
            fails_next_flush: false,
        }
    }

    fn filled(with: u8, sectors: u64) -> Vec<u8> {
        vec![with; (sectors * SECTOR_BYTES) as usize]
    }

    #[test]
    fn a_cut_leaves_any_state_since_the_flush_and_nothing_else() {
        let mut device = device();
        device.write(0, &filled(1, SECTORS)).unwrap();
        device.flush().unwrap();
        device.write(0, &filled(2, SECTORS / 2)).unwrap();
        device.write(0, &filled(3, SECTORS / 2)).unwrap();
        let cut = device.cut_power(&mut Random::new(7)).unwrap();
        assert_eq!(device.read(0, 1), Err(Errno::EIO));
        assert_eq!(device.write(0, &[1]), Err(Errno::EIO));
        assert_eq!(device.flush(), Err(Errno::EIO));
        device.is_powered = true;
        let now = device.read(0, (SECTORS * SECTOR_BYTES) as usize).unwrap();
        let mut states = [0; 4];
        for sector in now.chunks(SECTOR_BYTES as usize) {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "a sector is whole"
            );
            states[usize::from(sector[0])] += 1;
        }
        assert!(now[now.len() / 2..].iter().all(|byte| *byte == 1));
        assert_eq!(cut.unflushed, SECTORS / 2);
        assert_eq!(cut.lost, SECTORS / 2 - states[3]);
        assert!(states[2] > 0 && states[1] > SECTORS / 2, "{states:?}");
    }

    #[test]
    fn what_is_written_in_pieces_is_read_back() {
        let mut device = device();
        device.write(0, &filled(1, 4)).unwrap();
        device.write(500, &[9; 600]).unwrap();
        let bytes = device.read(400, 900).unwrap();
        assert!(bytes[..100].iter().all(|byte| *byte == 1));
        assert!(bytes[100..700].iter().all(|byte| *byte == 9));
        assert!(bytes[700..].iter().all(|byte| *byte == 1));
        assert_eq!(
            device.read(SECTORS * SECTOR_BYTES - 8, 100).unwrap().len(),
            8
        );
        assert_eq!(
            device.write(SECTORS * SECTOR_BYTES - 8, &[1; 100]),
            Err(Errno::ENOSPC)
        );
    }

    #[test]
    fn an_unreadable_range_fails_the_reads_that_touch_it() {
        let mut device = device();
        device.unreadable.push(1024..2048);
        assert!(device.read(0, 1024).is_ok() && device.read(2048, 10).is_ok());
        assert_eq!(device.read(1000, 25), Err(Errno::EIO));
        assert!(device.write(1024, &[1; 512]).is_ok());
    }
}
