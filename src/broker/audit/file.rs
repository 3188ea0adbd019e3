//! The file of the audit log: JSON lines, appended.
//! Callers: `writer`, on the blocking pool. Invariants: it is opened anew for each piece, so that whoever renames it loses no line; when
//! it is made nobody but its owner may read it. It is not synced: the topic is what outlives a power cut.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Appends lines. A file that is as long as may be is renamed before, to its name with `.1` behind it, and replaces that one.
pub(super) fn append(path: &Path, bytes_max: Option<u64>, lines: &[u8]) -> io::Result<()> {
    let open = || {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).open(path)
    };
    let mut file = open()?;
    let length = file.metadata()?.len();
    let after = length.saturating_add(lines.len() as u64);
    if length > 0 && bytes_max.is_some_and(|most| after > most) {
        std::fs::rename(path, before(path))?;
        file = open()?;
    }
    file.write_all(lines)
}

fn before(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_full_file_makes_place_for_the_next_and_only_its_owner_reads_either() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            append(&path, Some(8), line.as_bytes()).expect("it is written");
        }
        let text = |path: &Path| std::fs::read_to_string(path).expect("it is there");
        assert_eq!(text(&before(&path)), "three\n");
        assert_eq!(text(&path), "four\n");
        for path in [&before(&path), &path] {
            let mode = std::fs::metadata(path).expect("it is there").permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
        }
        append(&path, None, b"five\n").expect("it is written");
        assert_eq!(text(&path), "four\nfive\n");
    }
}
