//! The cluster, which is this broker: who it is, how it does, how much it holds.
//!
//! Callers: `api::routes`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::front::http::errors::Failure;
use crate::front::http::health;
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{boolean, integer, integer_from, list, number, object, text};
use crate::front::http::state::Front;

const CLUSTER: &str = "/api/v1/cluster";
/// How long an answer waits for what only the disk knows.
const DISK_WAIT: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Routes {
    let broker = object([
        ("id", integer()),
        ("host", text()),
        ("port", integer_from(0)),
    ]);
    let disk = object([
        ("path", text()),
        ("bytes_total", integer_from(0).or_null()),
        ("bytes_free", integer_from(0).or_null()),
        ("bytes_records", integer_from(0)),
    ]);
    let health = object([
        ("ready", boolean()),
        ("reasons", list(object([("code", text())]))),
    ]);
    let cluster = object([
        ("cluster_id", text()),
        ("version", text()),
        ("uptime_seconds", number()),
        ("leader_epoch", integer_from(0)),
        ("brokers", list(broker)),
        ("controller", integer()),
        ("topics", integer_from(0)),
        ("partitions", integer_from(0)),
        ("groups", integer_from(0)),
        ("disk", disk.or_null()),
        ("health", health),
    ]);
    let about = Operation::new(
        "describeCluster",
        "cluster",
        "The broker, its health, its disk, and how much it holds",
    )
    .needs(ResourceKind::Cluster, Right::Describe)
    .needs(ResourceKind::Group, Right::Describe)
    .details("`disk` is null where the disk does not answer within a second.")
    .answers_json(200, "the cluster", cluster);
    Routes::new().get(CLUSTER, describe, about)
}

async fn describe(State(front): State<Arc<Front>>, door: Door) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Describe)?;
    let broker = door.broker();
    let config = broker.config();
    let topics = door.topics_of(&cluster);
    let partitions: u64 = topics
        .iter()
        .map(|topic| u64::from(topic.partition_count()))
        .sum();
    let sizes = topics
        .iter()
        .flat_map(|topic| broker.partition_sizes(&cluster, topic));
    let bytes_records: u64 = sizes.map(|size| size.bytes).sum();
    let disk = tokio::time::timeout(DISK_WAIT, broker.log_dir(&cluster))
        .await
        .ok();
    let disk = disk.map(|disk| json!({
        "path": disk.path.display().to_string(), "bytes_total": disk.bytes_total, "bytes_free": disk.bytes_free,
        "bytes_records": bytes_records,
    }));
    let (ready, reasons) = health::reasons(&broker.health());
    Ok(Json(json!({
        "cluster_id": broker.cluster_id(), "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": front.started_at.elapsed().as_secs_f64(), "leader_epoch": broker.leader_epoch().get(),
        "brokers": [{ "id": config.node_id, "host": config.advertised_host, "port": config.advertised_port }],
        "controller": config.node_id, "topics": topics.len(), "partitions": partitions, "groups": door.groups().len(),
        "disk": disk, "health": { "ready": ready, "reasons": reasons },
    })))
}
