//! Operators' holds as they are kept.
//! Callers: `holds`. Invariant: a hold is in the book exactly if its record is in the state log `holds`.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use model::hex::from_hex;
use model::state_log::{HOLD_KEY_HEAD, StateLogKind};
use model::{PartitionId, Timestamp, TopicId};
use serde::{Deserialize, Serialize};
use storage::cleanup::holds::{Held, HoldWish};
use storage::{Clock, Purpose, Storage};

use crate::broker::state_log::{Change, StateLog, StateLogError, StateRecord};
use crate::broker::{Refusal, state_refusal};

/// Holds that there may be at a time.
pub const HOLDS_MAX: usize = 10_000;
/// An operator's hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// First, in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    pub(super) version: u32,
    /// What it is called.
    pub id: String,
    /// The topic.
    pub topic: String,
    pub(super) topic_id: uuid::Uuid,
    /// One partition, or all.
    pub partition: Option<u32>,
    /// What was appended from then on; None is from the beginning.
    pub from_ms: Option<i64>,
    /// What was appended before then; None is for ever.
    pub to_ms: Option<i64>,
    /// Why.
    pub reason: String,
    /// Who added it.
    pub by: String,
    /// When.
    pub added_ms: i64,
    /// When it ends; None is never.
    pub expires_ms: Option<i64>,
    /// The key whose records are held, as hexadecimal digits; None is all records. A hold with a key is of version 2, others are
    /// of version 1, which knew none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key_hex: Option<String>,
}

/// Why a hold is not added or removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HoldError {
    /// The topic, the partition or the right to it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It says something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There are as many as there may be.
    #[error("there are {HOLDS_MAX} holds, and no more may be")]
    TooMany,
    /// There is none of this name.
    #[error("there is no hold {0:?}")]
    Unknown(String),
}

impl Hold {
    /// Whether its end has not come.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires_ms.is_none_or(|end| now.millis() < end)
    }

    pub(super) fn concerns(&self, topic: TopicId, partition: PartitionId) -> bool {
        TopicId::from_uuid(self.topic_id) == topic
            && self.partition.is_none_or(|only| only == partition.get())
    }

    /// The key whose records are held; None is all records.
    pub fn key(&self) -> Option<Vec<u8>> {
        let digits = self.key_hex.as_deref()?;
        Some(from_hex(digits).expect("it was checked when it was read"))
    }

    pub(super) fn wish(&self) -> HoldWish {
        let from = Timestamp::from_millis(self.from_ms.unwrap_or(i64::MIN));
        let to = Timestamp::from_millis(self.to_ms.unwrap_or(i64::MAX));
        HoldWish {
            name: format!("hold {} ({})", self.id, self.reason).into(),
            held: match self.key() {
                Some(key) => Held::Key {
                    key: key.into(),
                    appended: from..to,
                },
                None => Held::Appended(from..to),
            },
            is_absolute: true,
        }
    }
}

/// A record of the state log `holds`.
pub(in crate::broker) enum HoldRecord {
    Added(Arc<Hold>),
    Removed(String),
}

/// Why a record is not understood.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?} of the holds: {reason}")]
pub struct UnknownHold {
    key: String,
    reason: String,
}

impl StateRecord for HoldRecord {
    const LOG: StateLogKind = StateLogKind::Holds;
    type Unknown = UnknownHold;

    fn encode(&self) -> Change {
        let (id, value) = match self {
            HoldRecord::Added(hold) => (&hold.id, Some(&**hold)),
            HoldRecord::Removed(id) => (id, None),
        };
        let value = value.map(|hold| serde_json::to_vec(hold).expect("plain fields are JSON"));
        (
            Bytes::from(format!("{HOLD_KEY_HEAD}{id}")),
            value.map(Bytes::from),
        )
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<HoldRecord, UnknownHold> {
        let refuse = |reason: String| UnknownHold {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        };
        StateLogKind::Holds
            .check(key, Some(value))
            .map_err(|error| refuse(error.to_string()))?;
        let hold: Hold =
            serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
        let is_key = |digits: &String| from_hex(digits).is_some();
        if hold.version != version(hold.key_hex.is_some()) || !hold.key_hex.iter().all(is_key) {
            return Err(refuse("its key is none of its version".to_owned()));
        }
        Ok(HoldRecord::Added(Arc::new(hold)))
    }
}

/// The version of a hold's record.
pub(super) const fn version(has_key: bool) -> u32 {
    if has_key { 2 } else { 1 }
}

type Book = BTreeMap<String, Arc<Hold>>;

/// The operators' holds.
pub(in crate::broker) struct Holds {
    pub(super) log: StateLog<HoldRecord>,
    pub(super) book: RwLock<Book>,
    /// Changes run one at a time.
    pub(super) changes: tokio::sync::Mutex<()>,
}

/// Why the holds cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum HoldsError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownHold),
}

impl Holds {
    /// Reads the log. Blocks on the disk.
    pub(in crate::broker) fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
    ) -> Result<Holds, HoldsError> {
        let (log, records) = StateLog::open(storage, clock)?;
        let mut book = Book::new();
        for record in records {
            if let HoldRecord::Added(hold) = record? {
                book.insert(hold.id.clone(), hold);
            }
        }
        Ok(Holds {
            log,
            book: RwLock::new(book),
            changes: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book
            .read()
            .expect("nothing panics while it holds the book")
    }

    pub(super) async fn write(&self, record: &HoldRecord) -> Result<(), HoldError> {
        let written = self.log.write(record, Purpose::State).await;
        written.map_err(|error| HoldError::Refused(state_refusal(error)))?;
        let mut book = self
            .book
            .write()
            .expect("nothing panics while it holds the book");
        match record {
            HoldRecord::Added(hold) => drop(book.insert(hold.id.clone(), Arc::clone(hold))),
            HoldRecord::Removed(id) => drop(book.remove(id)),
        }
        Ok(())
    }
}
