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

#[cfg(test)]
mod tests {
    use model::schema::{Field, FieldType};
    use uuid::Uuid;

    use super::*;

    const KEY: &str = "schema/01020304-0506-0708-090a-0b0c0d0e0f10";
    /// As version 1 of the record has it.
    const GOLDEN: &str = concat!(
        r#"{"version":1,"schema":{"version":3,"binary_values_since":2,"fields":["#,
        r#"{"path":"temp","type":"float","large":true,"since":1,"before":[[2,"int"]]},"#,
        r#"{"path":"pos.lat","type":"text","since":3}],"truncated":true}}"#
    );

    #[test]
    fn a_record_of_version_1_is_read_and_written_as_it_was_and_nothing_else_is() {
        let record = SchemaRecord::decode(KEY.as_bytes(), GOLDEN.as_bytes()).unwrap();
        let SchemaRecord::Known(topic, schema) = &record else {
            panic!("it has a schema");
        };
        assert_eq!(
            topic.as_uuid(),
            Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)
        );
        assert_eq!((schema.version, schema.truncated), (3, true));
        assert_eq!(
            (schema.binary_keys_since, schema.binary_values_since),
            (None, Some(2))
        );
        let temp = Field {
            path: "temp".to_owned(),
            kind: FieldType::Float,
            large: true,
            since: 1,
            before: vec![(2, FieldType::Int)],
        };
        assert_eq!(schema.fields[0], temp);
        let (key, value) = record.encode();
        assert_eq!(key, KEY.as_bytes());
        assert_eq!(value.as_deref(), Some(GOLDEN.as_bytes()));
        for (key, value) in [
            ("schema/1", GOLDEN.to_owned()),
            (KEY, GOLDEN.replacen(":1", ":2", 1)),
            (KEY, GOLDEN.replace("truncated", "cut")),
            (KEY, GOLDEN.replace("float", "decimal")),
        ] {
            let read = SchemaRecord::decode(key.as_bytes(), value.as_bytes());
            assert_eq!(read.is_err(), !value.contains("cut"), "{key} {value}");
        }
    }
}
