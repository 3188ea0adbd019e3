//! Damage that an operator has acknowledged: it is no longer reported as new, and stays unreadable.
//!
//! The file `ACKNOWLEDGED` has a JSON object a line. A tool appends to it, also while a server has the store open; the server reads
//! it at its start and once a second while damage is on record, and never writes it. A line that cannot be read acknowledges
//! nothing, so that an alert goes on rather than ends by mistake.
//! Callers: `Storage::health`, and the tool that acknowledges.

use std::io;
use std::ops::Range;
use std::path::Path;

use model::{LogId, Offset};
use serde::{Deserialize, Serialize};

use crate::damage::Damage;
use crate::io::{Disk, OpenHow, read_file};

/// The file's name in the data directory.
pub const FILE: &str = "ACKNOWLEDGED";
const VERSION: u32 = 1;
/// No file is read beyond this; thousands of lines fit.
const BYTES_MAX: u64 = 64 << 20;

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    version: u32,
    /// The log, `<topic uuid>-<partition>`; None for damage that nobody can tell the log of.
    pub log: Option<String>,
    /// The first offset.
    pub from: u64,
    /// The offset after the last one.
    pub to: u64,
    /// What was found, as it is on record.
    pub reason: String,
    /// Who acknowledged it.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Why, in that person's words.
    pub note: String,
}

impl Acknowledgement {
    /// Acknowledges this damage.
    pub fn of(damage: &Damage, by: &str, at_ms: i64, note: &str) -> Acknowledgement {
        Acknowledgement {
            version: VERSION,
            log: damage.log.map(|log| log.to_string()),
            from: damage.range.start.get(),
            to: damage.range.end.get(),
            reason: damage.reason.clone(),
            by: by.to_owned(),
            at_ms,
            note: note.to_owned(),
        }
    }

    /// Whether this damage was acknowledged: no more than was known then.
    pub fn covers(&self, damage: &Damage) -> bool {
        let log: Option<LogId> = self.log.as_ref().and_then(|log| log.parse().ok());
        let range: Range<Offset> = Offset::new(self.from)..Offset::new(self.to);
        let is_within = range.start <= damage.range.start && damage.range.end <= range.end;
        log == damage.log && is_within && (log.is_some() || self.reason == damage.reason)
    }
}

/// What was acknowledged in this data directory; nothing if the file is missing.
pub fn load(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<Acknowledgement>> {
    let path = directory.join(FILE);
    if !disk.exists(&path)? {
        return Ok(Vec::new());
    }
    let bytes = read_file(disk, &path, BYTES_MAX)?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines
        .filter_map(|line| serde_json::from_slice::<Acknowledgement>(line).ok())
        .filter(|line| line.version == VERSION)
        .collect())
}

/// Appends acknowledgements, durably. What is in the file already stays as it is.
pub fn add(disk: &dyn Disk, directory: &Path, more: &[Acknowledgement]) -> io::Result<()> {
    let path = directory.join(FILE);
    let is_there = disk.exists(&path)?;
    let how = if is_there {
        OpenHow::ReadWrite
    } else {
        OpenHow::CreateNew
    };
    let file = disk.open(&path, how)?;
    let mut bytes = Vec::new();
    // A line that a crash has cut short ends here.
    bytes.push(b'\n');
    for line in more {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    file.write_at(file.len()?, &bytes)?;
    file.sync_data()?;
    disk.sync_dir(directory)
}

#[cfg(test)]
mod tests {
    use model::{PartitionId, TopicId};

    use super::*;
    use crate::io::SimDisk;

    fn damage(log: Option<u8>, range: Range<u64>, reason: &str) -> Damage {
        let id = |log| LogId::new(TopicId::from_bytes([log; 16]), PartitionId::new(0));
        Damage {
            log: log.map(id),
            range: Offset::new(range.start)..Offset::new(range.end),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn no_more_is_acknowledged_than_was_known() {
        let known = Acknowledgement::of(&damage(Some(1), 10..20, "r"), "me", 5, "");
        assert!(known.covers(&damage(Some(1), 10..20, "another")));
        assert!(known.covers(&damage(Some(1), 12..15, "r")));
        assert!(!known.covers(&damage(Some(1), 10..21, "r")));
        assert!(!known.covers(&damage(Some(2), 10..20, "r")));
        assert!(!known.covers(&damage(None, 10..20, "r")));
        let unnamed = Acknowledgement::of(&damage(None, 0..0, "r"), "me", 5, "");
        assert!(unnamed.covers(&damage(None, 0..0, "r")));
        assert!(!unnamed.covers(&damage(None, 0..0, "another")));
    }

    #[test]
    fn lines_are_kept_and_what_cannot_be_read_acknowledges_nothing() {
        let disk = SimDisk::new(1);
        let root = Path::new("/data");
        disk.create_dir_all(root).unwrap();
        assert_eq!(load(&disk, root).unwrap(), []);
        let first = Acknowledgement::of(&damage(Some(1), 10..20, "r"), "me", 5, "a bad disk");
        add(&disk, root, std::slice::from_ref(&first)).unwrap();
        // Cut short, and from a later release.
        let file = disk.open(&root.join(FILE), OpenHow::ReadWrite).unwrap();
        let later = serde_json::to_string(&first)
            .unwrap()
            .replace("\"version\":1", "\"version\":2");
        let torn = format!("{later}\n{{\"version\":1,\"lo");
        file.write_at(file.len().unwrap(), torn.as_bytes()).unwrap();
        let second = Acknowledgement::of(&damage(Some(2), 1..2, "r"), "me", 6, "");
        add(&disk, root, std::slice::from_ref(&second)).unwrap();
        assert_eq!(load(&disk, root).unwrap(), [first, second]);
    }

    #[test]
    fn the_written_form_is_the_documented_one() {
        let line = Acknowledgement::of(&damage(None, 0..0, "r"), "me", 5, "n");
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"version":1,"log":null,"from":0,"to":0,"reason":"r","by":"me","at_ms":5,"note":"n"}"#
        );
    }
}
