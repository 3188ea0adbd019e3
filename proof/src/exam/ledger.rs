//! The ledger: what was sent and what was acknowledged, written before and after, outside the victim's disk.
//!
//! A line per event, so that a person can read it:
//! `S id topic partition key sequence sha256` before a record is sent, `A id offset` when it is acknowledged,
//! `R id error` when the store refused it, `U id` when the connection broke and nobody knows.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use model::hex::to_hex;
use sha2::{Digest as _, Sha256};

use super::random::Random;

/// The digest of a record's key and value.
pub type Digest = [u8; 32];

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent; no reply yet.
    InFlight,
    /// Acknowledged at this offset.
    Acknowledged(i64),
    /// Refused with an error: not stored.
    Refused,
    /// The connection broke before the reply: stored or not.
    Unknown,
}

/// One record as it was sent.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// SHA-256 over key and value.
    pub digest: Digest,
    /// What became of it.
    pub fate: Fate,
}

/// The ledger. Shared by all producers of a case.
pub struct Ledger {
    inner: Mutex<Inner>,
}

struct Inner {
    file: BufWriter<File>,
    entries: HashMap<u64, Entry>,
    next_id: u64,
}

/// A record to send: its key and value follow from its id and the seed.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Its id, which the value begins with, so that whoever reads it knows the ledger's entry.
    pub id: u64,
    /// The key: a device.
    pub key: Vec<u8>,
    /// The value: sixteen hex digits of the id, then noise.
    pub value: Vec<u8>,
}

/// SHA-256 over key and value.
pub fn digest_of(key: &[u8], value: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(value);
    hash.finalize().into()
}

/// The id that a value begins with, if it is one of ours; it may be a text of JSON.
pub fn id_of(value: &[u8]) -> Option<u64> {
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let digits = std::str::from_utf8(value.get(..16)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

impl Ledger {
    /// A new ledger in `path`.
    pub fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("create the ledger {}", path.display()))?;
        let inner = Inner {
            file: BufWriter::new(file),
            entries: HashMap::new(),
            next_id: 1,
        };
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no thread panics while it holds the ledger")
    }

    /// Writes down `count` records for a partition, before they are sent.
    pub fn send(
        &self,
        topic: &str,
        partition: i32,
        count: usize,
        value_bytes: usize,
        random: &mut Random,
    ) -> Result<Vec<Payload>> {
        self.send_made(topic, partition, count, |id| {
            let key = format!("device-{}", random.between(0, 64)).into_bytes();
            let mut value = format!("{id:016x}").into_bytes();
            let head = value.len();
            value.resize(head + value_bytes, 0);
            random.fill(&mut value[head..]);
            (key, value)
        })
    }

    /// The same with records that `make` makes of their ids: key and value, which begins with the id, as [`id_of`] finds it.
    pub fn send_made(
        &self,
        topic: &str,
        partition: i32,
        count: usize,
        mut make: impl FnMut(u64) -> (Vec<u8>, Vec<u8>),
    ) -> Result<Vec<Payload>> {
        let mut inner = self.locked();
        let mut payloads = Vec::with_capacity(count);
        for _ in 0..count {
            let id = inner.next_id;
            inner.next_id += 1;
            let (key, value) = make(id);
            let digest = digest_of(&key, &value);
            let hex = to_hex(digest);
            writeln!(
                inner.file,
                "S {id} {topic} {partition} {} {id} {hex}",
                String::from_utf8_lossy(&key)
            )?;
            inner.entries.insert(
                id,
                Entry {
                    topic: topic.to_owned(),
                    partition,
                    digest,
                    fate: Fate::InFlight,
                },
            );
            payloads.push(Payload { id, key, value });
        }
        inner.file.flush().context("write the ledger")?;
        Ok(payloads)
    }

    /// Writes down that the records were acknowledged, the first at `base_offset`.
    pub fn acknowledged(&self, payloads: &[Payload], base_offset: i64) -> Result<()> {
        let mut inner = self.locked();
        for (offset, payload) in (base_offset..).zip(payloads) {
            writeln!(inner.file, "A {} {offset}", payload.id)?;
            inner.settle(payload.id, Fate::Acknowledged(offset));
        }
        inner.file.flush().context("write the ledger")
    }

    /// Writes down that the store refused the records.
    pub fn refused(&self, payloads: &[Payload], error: i16) -> Result<()> {
        let mut inner = self.locked();
        for payload in payloads {
            writeln!(inner.file, "R {} {error}", payload.id)?;
            inner.settle(payload.id, Fate::Refused);
        }
        Ok(())
    }

    /// Writes down that nobody knows what became of the records.
    pub fn unknown(&self, payloads: &[Payload]) -> Result<()> {
        let mut inner = self.locked();
        for payload in payloads {
            writeln!(inner.file, "U {}", payload.id)?;
            inner.settle(payload.id, Fate::Unknown);
        }
        Ok(())
    }

    /// Everything that was written down, by id.
    pub fn entries(&self) -> HashMap<u64, Entry> {
        self.locked().entries.clone()
    }

    /// How many records are acknowledged.
    pub fn acknowledged_count(&self) -> u64 {
        self.locked()
            .entries
            .values()
            .filter(|entry| matches!(entry.fate, Fate::Acknowledged(_)))
            .count() as u64
    }
}

impl Inner {
    fn settle(&mut self, id: u64, fate: Fate) {
        let entry = self
            .entries
            .get_mut(&id)
            .expect("a record is in the ledger before it is sent");
        entry.fate = fate;
    }
}
