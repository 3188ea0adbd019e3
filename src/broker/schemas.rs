//! Topics' schemas: what has been seen of their keys and values by whoever read them as columns.
//!
//! Callers: fronts that write columns. A schema is derived from records, and kept because it must not change back: a column that was
//! there is there the next time too. Invariants: what [`Broker::schema`] tells is durable in the state log `schemas`; it only grows,
//! and can be told as it was at each of its versions. A schema ends with its topic.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use model::TopicId;
use model::schema::Schema;
use model::state_log::{SCHEMA_KEY_HEAD, SCHEMAS_VERSION, StateLogKind};
use serde::{Deserialize, Serialize};
use storage::{Clock, Purpose, Storage};

use super::access::{Granted, right};
use super::state_log::{Change, StateLog, StateLogError, StateRecord};
use super::{Broker, Refusal, Topic};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    /// First, in every value: see [`model::state_log::METADATA_VALUE_HEAD`].
    version: u32,
    schema: Schema,
}

/// A record of the state log `schemas`.
pub(super) enum SchemaRecord {
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
pub(super) struct Schemas {
    log: StateLog<SchemaRecord>,
    book: RwLock<Book>,
    /// Changes run one at a time.
    changes: tokio::sync::Mutex<()>,
}

impl Schemas {
    /// Reads the log. Blocks on the disk.
    pub(super) fn open(storage: &Storage, clock: Arc<dyn Clock>) -> Result<Schemas, SchemasError> {
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

    fn read(&self) -> RwLockReadGuard<'_, Book> {
        let book = self.book.read();
        book.expect("nothing panics while it holds the book")
    }

    async fn write(&self, record: SchemaRecord) -> Result<(), StateLogError> {
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

impl Broker {
    /// What is known of a topic's values.
    pub fn schema(&self, topic: &Granted<Arc<Topic>, right::Read>) -> Arc<Schema> {
        self.schema_of(topic.id)
    }

    fn schema_of(&self, topic: TopicId) -> Arc<Schema> {
        let known = self.shared.schemas.read().get(&topic).cloned();
        known.unwrap_or_default()
    }

    /// Takes in what somebody has seen of a topic. When this returns it is durable; what is known now is returned.
    /// Errors: it cannot be written.
    pub async fn learn_schema(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
        seen: &Schema,
    ) -> Result<Arc<Schema>, Refusal> {
        let schemas = &self.shared.schemas;
        let _change = schemas.changes.lock().await;
        let mut schema = Schema::clone(&self.schema_of(topic.id));
        if !schema.merge(seen) {
            return Ok(Arc::new(schema));
        }
        let schema = Arc::new(schema);
        let record = SchemaRecord::Known(topic.id, Arc::clone(&schema));
        let written = schemas.write(record).await;
        written.map_err(super::state_refusal)?;
        Ok(schema)
    }

    /// Forgets the schema of a deleted topic. What is left over goes at the next start.
    pub(super) async fn forget_schema(&self, topic: TopicId) {
        let schemas = &self.shared.schemas;
        let _change = schemas.changes.lock().await;
        if !schemas.read().contains_key(&topic) {
            return;
        }
        if let Err(error) = schemas.write(SchemaRecord::Removed(topic)).await {
            tracing::warn!(%topic, %error, "the schema of a deleted topic is left over");
        }
    }

    /// Forgets the schemas of topics that are not there any more.
    pub(super) async fn forget_other_schemas(&self) {
        let known: Vec<TopicId> = self.shared.schemas.read().keys().copied().collect();
        for topic in known {
            if self.shared.catalog.by_id(topic).is_none() {
                self.forget_schema(topic).await;
            }
        }
    }
}
