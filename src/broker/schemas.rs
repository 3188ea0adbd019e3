//! Topics' schemas: what has been seen of their keys and values by whoever read them as columns.
//!
//! Callers: fronts that write columns. A schema is derived from records, and kept because it must not change back: a column that was
//! there is there the next time too. Invariants: what [`Broker::schema`] tells is durable in the state log `schemas`; it only grows,
//! and can be told as it was at each of its versions. A schema ends with its topic.

mod book;

use std::sync::Arc;

use model::TopicId;
use model::schema::Schema;

use super::access::{Granted, right};
use super::{Broker, Refusal, Topic};
use book::SchemaRecord;
pub(super) use book::Schemas;
pub use book::{SchemasError, UnknownSchema};

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
