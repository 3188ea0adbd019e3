//! A control group that gives the processes in it so much memory and no more, what the kernel caches for them included.
//! Callers: the case of little memory. Needs root; says so where that is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What the kernel takes to let go of a group whose processes have ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group of its own; taken away when it goes out of scope, which its processes should have ended before.
pub struct MemoryGroup {
    path: PathBuf,
    version: Version,
}

/// The kernel's two interfaces (`Documentation/admin-guide/cgroup-v1/memory.rst` and `cgroup-v2.rst`).
#[derive(Clone, Copy)]
enum Version {
    V1,
    V2,
}

impl MemoryGroup {
    /// A group whose processes get `bytes` together.
    pub fn create(bytes: u64) -> Result<MemoryGroup> {
        let (root, version) = if Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            (Path::new("/sys/fs/cgroup/memory"), Version::V1)
        } else if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            let root = Path::new("/sys/fs/cgroup");
            let control = root.join("cgroup.subtree_control");
            fs::write(&control, "+memory").with_context(|| {
                format!(
                    "memory can't be limited here, as root it could: {}",
                    control.display()
                )
            })?;
            (root, Version::V2)
        } else {
            bail!("there are no control groups for memory under /sys/fs/cgroup");
        };
        let path = root.join(format!("alluvium-exam-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| {
            format!(
                "memory can't be limited here, as root it could: {}",
                path.display()
            )
        })?;
        let group = MemoryGroup { path, version };
        // What is swapped out would be beyond the limit.
        let (limit, swap) = match version {
            Version::V1 => ("memory.limit_in_bytes", ("memory.swappiness", "0")),
            Version::V2 => ("memory.max", ("memory.swap.max", "0")),
        };
        group.write(limit, &bytes.to_string())?;
        if group.path.join(swap.0).exists() {
            group.write(swap.0, swap.1)?;
        }
        Ok(group)
    }

    /// The file that takes the number of a process which joins.
    pub fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub fn killed(&self) -> Result<u64> {
        self.counter(
            match self.version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            },
            "oom_kill",
        )
    }

    /// How often the limit was reached, and the kernel took memory back to stay within it.
    pub fn limit_reached(&self) -> Result<u64> {
        match self.version {
            Version::V1 => Ok(self.read("memory.failcnt")?.trim().parse()?),
            Version::V2 => self.counter("memory.events", "max"),
        }
    }

    fn counter(&self, file: &str, name: &str) -> Result<u64> {
        let text = self.read(file)?;
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("no {name} in {file}"))?;
        Ok(count.trim().parse()?)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, text).with_context(|| format!("write {text} to {}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let began = Instant::now();
        while let Err(error) = fs::remove_dir(&self.path) {
            if began.elapsed() > PATIENCE {
                eprintln!("  {} is left behind: {error}", self.path.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
