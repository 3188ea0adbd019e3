//! The summary that ends a backup: the file `BACKUP`, written when all else of the backup is durable and checked.
//!
//! Text, a JSON object a line: a head, a line for each file with its SHA-256, a line for each damage that the store had, and an
//! end with the SHA-256 of all lines before it. A head names the end of the backup before it in the same place, so that
//! summaries form a chain. `docs/formats.md` draws it. Callers: `take` writes, `take`, `restore` and the command line read.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use model::hex::to_hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::error::BackupError;
use crate::io::{Disk, read_file};

/// The file's name in a backup.
pub const SUMMARY_FILE: &str = "BACKUP";
/// The version that this build writes.
pub const SUMMARY_VERSION: u32 = 1;
/// No summary is longer: 200 bytes for each of ten million files.
const BYTES_MAX: u64 = 2 << 30;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryHead {
    /// The summary's version.
    pub version: u32,
    /// The backup's number in its place, which is its directory's name.
    pub number: u64,
    /// Whose store.
    pub store: Uuid,
    /// The release that made it.
    pub release: String,
    /// The data directory.
    pub source: String,
    /// When it was begun, in milliseconds since 1970. Everything that was acknowledged before is in it.
    pub began_ms: i64,
    /// When it was finished.
    pub ended_ms: i64,
    /// The sequence of the checkpoint that it begins with.
    pub checkpoint: u64,
    /// The number of the last frame of the write-ahead log that it has; None for none.
    pub last_frame: Option<u64>,
    /// Partitions, the store's own logs included.
    pub logs: u64,
    /// Segments.
    pub segments: u64,
    /// Batches, those in the write-ahead log included.
    pub batches: u64,
    /// Records, by the batches' headers, likewise.
    pub records: u64,
    /// `sha256` of the end of the summary of the backup before; None for the first.
    pub previous: Option<String>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryFile {
    /// Its path in the backup, which is its path in a data directory.
    pub path: String,
    /// How many of its bytes count.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// The file's length, if zeros follow the bytes that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Batches of a sealed segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<u64>,
    /// Records of a sealed segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Whether damage was found in it, which the store had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub damaged: bool,
}

/// Damage that the store had when it was copied, or on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryDamage {
    /// The file, as a path in the backup.
    pub damage: String,
    /// The log, `<topic uuid>-<partition>`.
    pub log: Option<String>,
    /// The first offset.
    pub from: Option<u64>,
    /// The offset after the last one.
    pub to: Option<u64>,
    /// What was found.
    pub reason: String,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SummaryEnd {
    files: u64,
    bytes: u64,
    sha256: String,
}

/// A backup's summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What it is of.
    pub head: SummaryHead,
    /// Its files, by path.
    pub files: BTreeMap<String, SummaryFile>,
    /// Damage that the store had.
    pub damage: Vec<SummaryDamage>,
    /// SHA-256 of all lines but the last, which the last one has.
    pub sha256: String,
}

impl Summary {
    /// Bytes that count, of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// The file's bytes. `sha256` is computed.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_line(&mut bytes, &self.head);
        for file in self.files.values() {
            put_line(&mut bytes, file);
        }
        for damage in &self.damage {
            put_line(&mut bytes, damage);
        }
        let end = SummaryEnd {
            files: self.files.len() as u64,
            bytes: self.bytes(),
            sha256: to_hex(Sha256::digest(&bytes)),
        };
        put_line(&mut bytes, &end);
        bytes
    }

    /// Reads a summary back. The error says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Summary, String> {
        let text = bytes
            .strip_suffix(b"\n")
            .ok_or("it does not end with a line")?;
        let cut = text.iter().rposition(|byte| *byte == b'\n');
        let before = &bytes[..cut.ok_or("it has one line only")? + 1];
        let end: SummaryEnd = serde_json::from_slice(&text[before.len()..])
            .map_err(|error| format!("its last line cannot be read: {error}"))?;
        let sha256 = to_hex(Sha256::digest(before));
        if sha256 != end.sha256 {
            return Err("its SHA-256 does not match its last line".to_owned());
        }
        let mut lines = before.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let version = version_of(first)?;
        if version != SUMMARY_VERSION {
            return Err(format!(
                "it is of format version {version}, and this release reads version {SUMMARY_VERSION}: use the release that made \
                 the backup, or a later one"
            ));
        }
        let head = serde_json::from_slice(first).map_err(|error| format!("line 1: {error}"))?;
        let mut summary = Summary {
            head,
            files: BTreeMap::new(),
            damage: Vec::new(),
            sha256,
        };
        for (number, line) in lines.filter(|line| !line.is_empty()).enumerate() {
            summary
                .take(line)
                .map_err(|error| format!("line {}: {error}", number + 2))?;
        }
        if (summary.files.len() as u64, summary.bytes()) != (end.files, end.bytes) {
            return Err("its last line counts other files".to_owned());
        }
        Ok(summary)
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        if let Ok(damage) = serde_json::from_slice::<SummaryDamage>(line) {
            self.damage.push(damage);
            return Ok(());
        }
        let file: SummaryFile = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let steps = Path::new(&file.path).components();
        // A path that leads out of the directory is never followed.
        if file.path.is_empty()
            || steps
                .into_iter()
                .any(|step| !matches!(step, std::path::Component::Normal(_)))
        {
            return Err(format!(
                "{:?} is no path within a data directory",
                file.path
            ));
        }
        if file.length.is_some_and(|length| length < file.bytes) {
            return Err(format!("{}: shorter than its bytes", file.path));
        }
        match self.files.insert(file.path.clone(), file) {
            Some(twice) => Err(format!("{} is named twice", twice.path)),
            None => Ok(()),
        }
    }

    /// Reads the summary of a backup.
    pub fn read(disk: &dyn Disk, backup: &Path) -> Result<Summary, BackupError> {
        let path = backup.join(SUMMARY_FILE);
        let bytes = match read_file(disk, &path, BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = backup.to_owned();
                return Err(BackupError::NoBackup { path });
            }
            Err(error) => return Err(BackupError::io("read", path)(error)),
        };
        Summary::decode(&bytes).map_err(|reason| BackupError::Summary { path, reason })
    }
}

fn put_line(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line).expect("plain fields are JSON");
    out.push(b'\n');
}

fn version_of(line: &[u8]) -> Result<u32, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let found: Versioned =
        serde_json::from_slice(line).map_err(|error| format!("line 1: {error}"))?;
    Ok(found.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/backup.v1");

    fn summary() -> Summary {
        let file = |path: &str, bytes, length, count| SummaryFile {
            path: path.to_owned(),
            bytes,
            sha256: to_hex(Sha256::digest(path)),
            length,
            batches: count,
            records: count,
            damaged: count == Some(7),
        };
        let files = [
            file("STORE", 8192, None, None),
            file("p/07/x/00000000000000000000.0.log", 500, None, Some(7)),
            file("wal/00000000000000000004.wal", 4096, Some(65536), None),
        ];
        let mut summary = Summary {
            head: SummaryHead {
                version: 1,
                number: 2,
                store: Uuid::from_bytes(*b"golden store id "),
                release: "1.2.3".to_owned(),
                source: "/srv/store".to_owned(),
                began_ms: 1_700_000_000_000,
                ended_ms: 1_700_000_001_000,
                checkpoint: 9,
                last_frame: Some(77),
                logs: 1,
                segments: 1,
                batches: 8,
                records: 9,
                previous: Some(to_hex(Sha256::digest(b"one before"))),
            },
            files: files.map(|file| (file.path.clone(), file)).into(),
            damage: vec![SummaryDamage {
                damage: "p/07/x/00000000000000000000.0.log".to_owned(),
                log: None,
                from: Some(3),
                to: Some(5),
                reason: "crc".to_owned(),
            }],
            sha256: String::new(),
        };
        let bytes = summary.encode();
        summary.sha256 = Summary::decode(&bytes).unwrap().sha256;
        summary
    }

    #[test]
    fn backup_v1() {
        assert_eq!(
            String::from_utf8_lossy(&summary().encode()),
            String::from_utf8_lossy(GOLDEN)
        );
        assert_eq!(Summary::decode(GOLDEN), Ok(summary()));
    }

    #[test]
    fn a_summary_with_a_flipped_bit_or_a_lost_line_is_refused() {
        for at in 0..GOLDEN.len() {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] ^= 1;
            assert!(Summary::decode(&bytes).is_err(), "byte {at}");
            assert!(Summary::decode(&GOLDEN[..at]).is_err(), "cut at {at}");
        }
        let lines: Vec<&[u8]> = GOLDEN.split_inclusive(|byte| *byte == b'\n').collect();
        for left_out in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(left_out);
            assert!(Summary::decode(&fewer.concat()).is_err(), "line {left_out}");
        }
    }

    #[test]
    fn a_path_that_leads_out_of_the_directory_is_refused() {
        for path in ["", "/etc/passwd", "../x", "p/../../x", "."] {
            let mut summary = summary();
            let mut file = summary.files["STORE"].clone();
            file.path = path.to_owned();
            summary.files.insert(file.path.clone(), file);
            assert!(Summary::decode(&summary.encode()).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_later_version_is_refused_by_its_number() {
        let mut summary = summary();
        summary.head.version = 2;
        let error = Summary::decode(&summary.encode()).unwrap_err();
        assert!(error.contains("version 2"), "{error}");
    }
}
