//! The API for operators, below `/api/v1`: topics and their settings, partitions, consumer groups, the cluster. The page
//! `docs/http-api.md` describes it.
//!
//! Callers: `http::routes`. Invariants: every resource comes through the access door; what changes something is logged as the
//! Kafka front logs it; with `dry_run` all checks are made and nothing is changed.

mod cluster;
mod groups;
mod listing;
mod named;
mod offsets;
mod reset;
mod settings;
pub(super) mod topics;

use super::routes::Routes;

/// All of its routes.
pub(super) fn routes() -> Routes {
    topics::routes()
        .merge(settings::routes())
        .merge(offsets::routes())
        .merge(groups::routes())
        .merge(reset::routes())
        .merge(cluster::routes())
}
