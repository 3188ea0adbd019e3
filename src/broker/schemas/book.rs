//! The schemas that are known, and where they are kept.
//! Callers: `schemas`. Invariant: a schema is in the book exactly if its record is in the state log `schemas`.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use model::TopicId;
use model::schema::Schema;
use model::state_log::{SCHEMA_KEY_HEAD, SCHEMAS_VERSION, StateLogKind};
use serde::{Deserialize, Serialize};
use storage::{Clock, Purpose, Storage};

use crate::broker::state_log::{Change, StateLog, StateLogError, StateRecord};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    /// First, in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    version: u32,
    schema: Schema,
}

/// A record of the state log `schemas`.
pub(in crate::broker) enum SchemaRecord {
    Known(TopicId, Arc<Schema>),
    Removed(TopicId),
}

/// Why a record is not understood.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?} of the schemas: {reason}")]
pub struct UnknownSchema {
    key: String,
    reason: String,
}

impl StateRecord for SchemaRecord {
    const LOG: StateLogKind = StateLogKind::Schemas;
    type Unknown = UnknownSchema;

    fn encode(&self) -> Change {
        let (id, value) = match self {
            SchemaRecord::Known(id, schema) => {
                let value = Value {
                    version: SCHEMAS_VERSION,
                    schema: Schema::clone(schema),
                };
                let value = serde_json::to_vec(&value).expect("plain fields are JSON");
                (id, Some(Bytes::from(value)))
            }
            SchemaRecord::Removed(id) => (id, None),
        };
        (Bytes::from(format!("{SCHEMA_KEY_HEAD}{id}")), value)
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<SchemaRecord, UnknownSchema> {
        let refuse = |reason: String| UnknownSchema {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        };
        StateLogKind::Schemas
            .check(key, Some(value))
            .map_err(|error| refuse(error.to_string()))?;
        let id = std::str::from_utf8(&key[SCHEMA_KEY_HEAD.len()..]).ok();
        let id = id.and_then(|id| id.parse().ok());
        let id = id.ok_or_else(|| refuse("no topic's id".to_owned()))?;
        let value: Value =
            serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
        Ok(SchemaRecord::Known(
            TopicId::from_uuid(id),
            Arc::new(value.schema),
        ))
    }
}

/// Why the schemas cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum SchemasError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownSchema),
}

type Book = HashMap<TopicId, Arc<Schema>>;

/// The schemas of all topics that have one.
pub(in crate::broker) struct Schemas {
    pub(super) log: StateLog<SchemaRecord>,
    pub(super) book: RwLock<Book>,
    /// Changes run one at a time.
    pub(super) changes: tokio::sync::Mutex<()>,
}

impl Schemas {
    /// Reads the log. Blocks on the disk.
    pub(in crate::broker) fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
    ) -> Result<Schemas, SchemasError> {
        let (log, records) = StateLog::open(storage, clock)?;
        let mut book = Book::new();
        for record in records {
            if let SchemaRecord::Known(id, schema) = record? {
                book.insert(id, schema);
            }
        }
        Ok(Schemas {
            log,
            book: RwLock::new(book),
            changes: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Book> {
        let book = self.book.read();
        book.expect("nothing panics while it holds the book")
    }

    pub(super) async fn write(&self, record: SchemaRecord) -> Result<(), StateLogError> {
        let purpose = match record {
            SchemaRecord::Known(..) => Purpose::State,
            SchemaRecord::Removed(_) => Purpose::Removal,
        };
        self.log.write(&record, purpose).await?;
        let book = self.book.write();
        let mut book = book.expect("nothing panics while it holds the book");
        match record {
            SchemaRecord::Known(id, schema) => drop(book.insert(id, schema)),
            SchemaRecord::Removed(id) => drop(book.remove(&id)),
        }
        Ok(())
    }
}
