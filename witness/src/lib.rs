//! The witness of an erasure: looks through every file of a data directory for the records of some keys, and checks the chain of
//! the receipts.
//!
//! Callers: the server, behind an erasure and when somebody asks; the tools, on a directory. It shares no code with what erases,
//! so that a mistake there is not made twice: it knows Kafka's record batches, the frame of the write-ahead log and the summary of
//! a segment by their descriptions (`docs/formats.md`) alone, and takes nothing for granted of what a file should hold.
//! Invariants: nothing is written; a region of a file that it cannot read as batches is searched byte by byte, or named.

mod batch;
mod codec;
mod crc;
pub mod receipts;
mod scan;
mod source;
mod summary;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use scan::KEY_BYTES_RAW_MIN;

/// Findings of one kind that a report lists; what more there are is counted.
pub const LISTED_MAX: usize = 100;
/// A file that seems to hold a part of something may be written at this moment: it is looked at again so often.
const LOOKS_MAX: u32 = 20;
/// How long to wait before that.
const LOOK_PAUSE: Duration = Duration::from_millis(25);

/// A topic's id and a partition.
pub type LogOf = ([u8; 16], u32);

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Quest {
    /// Records with one of these keys.
    pub keys: Vec<Vec<u8>>,
    /// Of this topic; None is of any.
    pub topic: Option<[u8; 16]>,
    /// Of these partitions, below these offsets; None is of all, at every offset.
    pub before: Option<BTreeMap<u32, u64>>,
}

impl Quest {
    /// Whether something in this log may be meant.
    fn is_of(&self, log: LogOf) -> bool {
        let (topic, partition) = log;
        let is_topic = self.topic.is_none_or(|wanted| wanted == topic);
        let is_partition = |before: &BTreeMap<u32, u64>| before.contains_key(&partition);
        is_topic && self.before.as_ref().is_none_or(is_partition)
    }

    /// Whether a record at this offset is meant. What lies in no log that is known is meant.
    fn is_at(&self, log: Option<LogOf>, offset: u64) -> bool {
        let Some((topic, partition)) = log else {
            return true;
        };
        let before = self.before.as_ref();
        self.is_of((topic, partition))
            && before.is_none_or(|before| before.get(&partition).is_some_and(|end| offset < *end))
    }

    fn is_key(&self, key: &[u8]) -> bool {
        self.keys.iter().any(|wanted| wanted == key)
    }
}

/// Something of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The file, from the data directory on.
    pub file: PathBuf,
    /// Where in it.
    pub position: u64,
    /// What it is.
    pub what: What,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A record at this offset.
    Record {
        /// Its offset.
        offset: u64,
        /// Whether it is known whose it is.
        is_attributed: bool,
    },
    /// The key's bytes, in what is no record batch.
    Bytes,
    /// A window of a summary.
    Window,
}

/// A part of a file of which it is not known what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The file, from the data directory on.
    pub file: PathBuf,
    /// Where in it.
    pub position: u64,
    /// The base offset, if it is a batch.
    pub offset: Option<u64>,
    /// Why.
    pub reason: String,
}

/// What a search found, and how far it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that were read.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Record batches in them.
    pub batches: u64,
    /// Records whose keys were compared.
    pub records: u64,
    /// What was found.
    pub hits: Vec<Hit>,
    /// All that was found, also what is not listed.
    pub hit_count: u64,
    /// What could not be read.
    pub unread: Vec<Unread>,
    /// All that could not be read.
    pub unread_count: u64,
}

impl Report {
    /// Whether nothing was found and nothing left out.
    pub fn is_clean(&self) -> bool {
        self.hit_count == 0 && self.unread_count == 0
    }

    /// As the server and the tools give it. Names in it stay.
    pub fn to_json(&self) -> serde_json::Value {
        let hits = self.hits.iter().map(|hit| {
        let (what, offset, attributed) = match hit.what {
            What::Record {
                offset,
                is_attributed,
            } => ("record", Some(offset), is_attributed),
            What::Bytes => ("bytes", None, true),
            What::Window => ("window", None, true),
        };
        serde_json::json!({
            "file": hit.file.display().to_string(), "position": hit.position, "what": what, "offset": offset,
            "topic_known": attributed,
        })
    });
        let unread = self.unread.iter().map(|place| {
        serde_json::json!({
            "file": place.file.display().to_string(), "position": place.position, "offset": place.offset, "reason": place.reason,
        })
    });
        serde_json::json!({
            "clean": self.is_clean(), "files": self.files, "bytes": self.bytes, "batches": self.batches,
            "records": self.records, "found": self.hit_count, "unread": self.unread_count,
            "found_listed": hits.collect::<Vec<_>>(), "unread_listed": unread.collect::<Vec<_>>(),
        })
    }

    fn hit(&mut self, hit: Hit) {
        self.hit_count += 1;
        if self.hits.len() < LISTED_MAX {
            self.hits.push(hit);
        }
    }

    fn unread(&mut self, unread: Unread) {
        self.unread_count += 1;
        if self.unread.len() < LISTED_MAX {
            self.unread.push(unread);
        }
    }

    fn add(&mut self, other: Report) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.batches += other.batches;
        self.records += other.records;
        self.hit_count += other.hit_count;
        self.unread_count += other.unread_count;
        let room = LISTED_MAX - self.hits.len();
        self.hits.extend(other.hits.into_iter().take(room));
        let room = LISTED_MAX - self.unread.len();
        self.unread.extend(other.unread.into_iter().take(room));
    }
}

/// Looks through every file below a data directory, those of the write-ahead log first, and tells `read` of each piece how many
/// bytes it was; the search ends early where that says false. Files that go away meanwhile are left out. Blocks.
/// Errors: a directory or a file that cannot be read; or `Interrupted` where it was ended.
pub fn search(root: &Path, quest: &Quest, read: &mut dyn FnMut(u64) -> bool) -> io::Result<Report> {
    search_below(root, Path::new(""), quest, read)
}

/// The same below one of the directories of a data directory. Nothing is there if there is no such directory.
pub fn search_below(
    root: &Path,
    below: &Path,
    quest: &Quest,
    read: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Report> {
    let mut files = Vec::new();
    let mut report = Report::default();
    list(root, below, &mut files, &mut report)?;
    // Soon after a purge of the write-ahead log, before its files are used again.
    files.sort_by_key(|file| (!file.starts_with("wal"), file.clone()));
    for file in files {
        let mut looks = 0;
        let of_file = loop {
            looks += 1;
            let found = match scan::file(root, &file, quest, read) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break Report::default(),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    let text = format!("{}: {error}", file.display());
                    return Err(io::Error::new(error.kind(), text));
                }
                found => found?,
            };
            let is_raw = |hit: &Hit| hit.what == What::Bytes;
            let may_be_torn = found.hits.iter().any(is_raw) || found.unread_count > 0;
            if !may_be_torn || looks == LOOKS_MAX || !scan::may_be_written(&file) {
                break found;
            }
            std::thread::sleep(LOOK_PAUSE);
        };
        report.add(of_file);
    }
    Ok(report)
}

/// The log in which a store keeps its receipts.
const RECEIPTS_LOG: LogOf = ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], 0);
const RECEIPT_KEY: &[u8] = b"receipt/";

/// The receipts that a data directory holds, oldest first, as they were written. Blocks.
pub fn receipts_below(root: &Path) -> io::Result<Vec<String>> {
    let (topic, partition) = RECEIPTS_LOG;
    let quest = Quest {
        keys: Vec::new(),
        topic: Some(topic),
        before: Some(BTreeMap::from([(partition, u64::MAX)])),
    };
    let mut files = Vec::new();
    list(root, Path::new(""), &mut files, &mut Report::default())?;
    files.retain(|file| {
        let log = scan::log_of(file);
        file.starts_with("wal") || (file.starts_with("p") && log == Some(RECEIPTS_LOG))
    });
    let mut found = BTreeMap::new();
    for file in files {
        let mut each = |_, key: Option<&[u8]>, value: Option<&[u8]>| {
            if let (Some(key), Some(value)) = (key, value)
                && key.starts_with(RECEIPT_KEY)
            {
                found.insert(key.to_vec(), String::from_utf8_lossy(value).into_owned());
            }
        };
        match scan::records(root, &file, &quest, &mut each) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => read?,
        }
    }
    Ok(found.into_values().collect())
}

fn list(
    root: &Path,
    below: &Path,
    files: &mut Vec<PathBuf>,
    report: &mut Report,
) -> io::Result<()> {
    let entries = match std::fs::read_dir(root.join(below)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && below != Path::new("") => {
            return Ok(());
        }
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            kind => kind?,
        };
        if kind.is_dir() {
            list(root, &path, files, report)?;
        } else if kind.is_file() {
            files.push(path);
        } else {
            report.unread(Unread {
                file: path,
                position: 0,
                offset: None,
                reason: "it is no plain file".to_owned(),
            });
        }
    }
    Ok(())
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}
