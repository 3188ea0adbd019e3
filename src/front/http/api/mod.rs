//! The API for operators, below `/api/v1`: topics and their settings, partitions, consumer groups, the cluster. The page
//! `docs/http-api.md` describes it.
//!
//! Callers: `http::routes`. Invariants: every resource comes through the access door; what changes something is logged as the
//! Kafka front logs it; with `dry_run` all checks are made and nothing is changed.

mod cluster;
mod groups;
mod listing;
mod offsets;
mod reset;
mod settings;
pub(super) mod topics;

use model::PartitionId;

use super::errors::Failure;
use super::routes::Routes;
use super::schema::{Schema, integer_from, text};
use crate::broker::Topic;

/// All of its routes.
pub(super) fn routes() -> Routes {
    topics::routes()
        .merge(settings::routes())
        .merge(offsets::routes())
        .merge(groups::routes())
        .merge(reset::routes())
        .merge(cluster::routes())
}

/// A partition's number, in descriptions.
fn partition_number() -> Schema {
    integer_from(0)
}

/// A topic's name in a path, in descriptions.
fn topic_name() -> Schema {
    text().example("readings")
}

/// The partitions of a topic that are meant: one that it has, or all.
fn partitions_of(topic: &Topic, wanted: Option<u32>) -> Result<Vec<PartitionId>, Failure> {
    match wanted.map(PartitionId::new) {
        None => Ok(topic.partitions().collect()),
        Some(partition) if topic.has(partition) => Ok(vec![partition]),
        Some(partition) => Err(Failure::UnknownPartition { partition }),
    }
}
