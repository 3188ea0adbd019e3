//! Who holds a lock that cannot be had. Source: `/proc/locks`, as `proc(5)` has it.
//! Callers: `open`, for its error. What the system does not tell is left out: other systems, and other containers' processes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The process that holds the file's lock (`flock`), if the system tells.
pub(crate) fn lock_holder(path: &Path) -> Option<u32> {
    let file = fs::metadata(path).ok()?;
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, (major, minor), file.ino())
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234567 0 EOF`: the process, then the device's numbers in hexadecimal and the inode.
fn holder_in(locks: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, process, file) = (fields.next()?, fields.nth(2)?, fields.next()?);
        let mut parts = file.split(':');
        let mut device_part = || u32::from_str_radix(parts.next()?, 16).ok();
        let found = (device_part()?, device_part()?);
        let is_it = found == device && parts.next()?.parse() == Ok(inode);
        // A process that this one may not see is 0.
        let process = process.parse().ok().filter(|process| *process > 0);
        process.filter(|_| kind == "FLOCK" && is_it)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_device_and_inode_and_not_among_those_who_wait() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fd:01:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 22 fd:02:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 33 fd:01:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 44 fd:01:77 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 fd:01:78 0 EOF\n\
                     nonsense\n";
        assert_eq!(holder_in(locks, (0xfd, 1), 77), Some(33));
        assert_eq!(
            holder_in(locks, (0xfd, 1), 78),
            None,
            "one that cannot be seen"
        );
        assert_eq!(holder_in(locks, (0xfd, 1), 79), None);
        assert_eq!(holder_in("", (0, 0), 0), None);
    }
}
