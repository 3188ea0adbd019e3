//! What of Confluent's REST proxy reads: metadata in its versions 2 and 3, and records of a partition without a consumer, as
//! Redpanda's proxy has them. Version 3 also creates and deletes topics. The page `docs/http-api.md` describes it.
//!
//! Callers: `http::routes`. Source: <https://docs.confluent.io/platform/current/kafka-rest/api.html>. There are no consumers that
//! the server keeps for a client.

mod records;
mod second;
mod third;
mod third_topics;

use super::routes::Routes;

pub(super) fn routes() -> Routes {
    second::routes()
        .merge(records::routes())
        .merge(third::routes())
        .merge(third_topics::routes())
}
