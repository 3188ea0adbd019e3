//! A disk of the exam's own: ext4 in an image behind a loop device, whose power can be cut, and which can be small.
//!
//! The power cut is ext4's own shutdown (`EXT4_IOC_SHUTDOWN`, without flushing the journal): from then on every write
//! and sync fails, and after the next mount what was not synced is gone. Needs root and loop devices; says so where
//! they are missing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use xtask::run;

/// `_IOR('X', 125, u32)`.
const EXT4_IOC_SHUTDOWN: u32 = 0x8004_587d;
/// Neither data nor journal are flushed.
const EXT4_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

/// A mounted file system of the exam's own; taken away when it goes out of scope.
pub struct LoopDisk {
    image: PathBuf,
    /// Empty while no loop device is attached.
    device: String,
    mount: PathBuf,
    mounted: bool,
}

impl LoopDisk {
    /// A new file system of this size, mounted inside `work`.
    pub fn create(work: &Path, name: &str, bytes: u64) -> Result<LoopDisk> {
        let image = work.join(format!("{name}.img"));
        File::create(&image)?.set_len(bytes)?;
        LoopDisk::on(&image, &work.join(name))
    }

    /// A new file system in this image, mounted at `mount`.
    pub fn on(image: &Path, mount: &Path) -> Result<LoopDisk> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "this case mounts a file system of its own and has to run as root"
        );
        for program in ["losetup", "mkfs.ext4", "mount", "umount", "perl"] {
            ensure!(
                run::on_path(program).is_some(),
                "`{program}` is not installed (Debian: apt-get install e2fsprogs mount perl-base)"
            );
        }
        fs::create_dir_all(mount)?;
        run::quiet(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0", "-E", "nodiscard"])
                .arg(image),
        )?;
        let mut disk = LoopDisk {
            image: image.to_path_buf(),
            device: String::new(),
            mount: mount.to_path_buf(),
            mounted: false,
        };
        disk.attach()?;
        disk.mount()?;
        Ok(disk)
    }

    fn attach(&mut self) -> Result<()> {
        let device = run::quiet(
            Command::new("losetup")
                .args(["--find", "--show"])
                .arg(&self.image),
        )
        .context("no loop device is to be had here; this case needs one")?;
        device.trim().clone_into(&mut self.device);
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        if !self.device.is_empty() {
            run::quiet(Command::new("losetup").args(["--detach", &self.device]))?;
            self.device.clear();
        }
        Ok(())
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn mount(&mut self) -> Result<()> {
        let mut command = Command::new("mount");
        command
            .args(["-t", "ext4", "-o", "errors=remount-ro"])
            .arg(&self.device)
            .arg(&self.mount);
        run::quiet(&mut command).context("mounting a loop device is not allowed here")?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        if self.mounted {
            run::quiet(Command::new("umount").arg(&self.mount))?;
            self.mounted = false;
        }
        Ok(())
    }

    /// Cuts the power: nothing more reaches the disk.
    pub fn cut_power(&self) -> Result<()> {
        // The call itself would need `unsafe` here.
        let script = format!(
            "$f=pack('L',{EXT4_GOING_FLAGS_NOLOGFLUSH}); open(D,'<',$ARGV[0])||die \"open: $!\\n\"; \
             ioctl(D,{EXT4_IOC_SHUTDOWN},$f)||die \"shutdown: $!\\n\""
        );
        run::quiet(Command::new("perl").args(["-e", &script]).arg(&self.mount))
            .context("cut the power of the loop device")?;
        Ok(())
    }

    /// Brings the power back: the file system as it is on the disk. No process may have a file on it open.
    pub fn restore_power(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Takes the file system and its device away, and brings them back: nothing of it is cached then. No process may have a file
    /// on it open.
    pub fn reopen(&mut self, meanwhile: impl FnOnce()) -> Result<()> {
        self.unmount()?;
        self.detach()?;
        meanwhile();
        self.attach()?;
        self.mount()
    }

    /// Makes the file system believe that it is damaged: it turns read-only.
    pub fn turn_read_only(&self) -> Result<()> {
        let device = self.device.trim_start_matches("/dev/");
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        fs::write(&trigger, "the exam").with_context(|| format!("write {trigger}"))
    }

    /// Checks and mends the file system, and mounts it again. No process may have a file on it open.
    pub fn mend(&mut self) -> Result<()> {
        self.unmount()?;
        // 0: nothing was wrong; 1: mended (e2fsck(8)).
        let status = Command::new("e2fsck")
            .args(["-f", "-y"])
            .arg(&self.device)
            .output()
            .context("start e2fsck")?
            .status;
        ensure!(
            matches!(status.code(), Some(0 | 1)),
            "e2fsck could not mend the file system: {status}"
        );
        self.mount()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            let _ = run::quiet(Command::new("umount").arg("--lazy").arg(&self.mount));
        }
        let _ = self.detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_takes_the_rest() {
        if !rustix::process::geteuid().is_root() || File::open("/dev/loop-control").is_err() {
            eprintln!("not root, or no loop devices: the exam itself fails here and says so");
            return;
        }
        let work = tempfile::tempdir().unwrap();
        let mut disk = LoopDisk::create(work.path(), "disk", 32 << 20).unwrap();
        let file = disk.path().join("file");
        let mut open = File::create(&file).unwrap();
        open.write_all(b"synced").unwrap();
        open.sync_all().unwrap();
        File::open(disk.path()).unwrap().sync_all().unwrap();
        open.write_all(b" and not").unwrap();
        disk.cut_power().unwrap();
        drop(open);
        disk.restore_power().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"synced");
    }
}
