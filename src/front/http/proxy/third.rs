//! Version 3: clusters, brokers and consumer groups, and what its resources have in common.
//!
//! Callers: `proxy::routes`; `third_topics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use serde_json::{Value, json};

use super::second::node_of;
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::groups::GroupError;
use crate::front::http::errors::Failure;
use crate::front::http::request::At;
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{Schema, anything, list, object, text};
use crate::front::http::state::Front;

pub(super) fn routes() -> Routes {
    let of = |id, summary, kind| third(id, summary).needs(kind, Right::Describe);
    Routes::new()
        .get(
            "/v3/clusters",
            clusters,
            of(
                "proxyClusters",
                "The clusters, of which there is one, version 3",
                ResourceKind::Cluster,
            )
            .answers_json(200, "a list of one", list_schema()),
        )
        .get(
            "/v3/clusters/{cluster}",
            cluster,
            in_cluster(of(
                "proxyCluster",
                "The cluster, version 3",
                ResourceKind::Cluster,
            ))
            .answers_json(200, "the cluster", resource_schema()),
        )
        .get(
            "/v3/clusters/{cluster}/brokers",
            brokers,
            in_cluster(of(
                "proxyClusterBrokers",
                "Its brokers, version 3",
                ResourceKind::Cluster,
            ))
            .answers_json(200, "a list of one", list_schema()),
        )
        .get(
            "/v3/clusters/{cluster}/consumer-groups",
            groups,
            in_cluster(of(
                "proxyGroups",
                "Its consumer groups, version 3",
                ResourceKind::Group,
            ))
            .answers_json(200, "all of them", list_schema()),
        )
        .get(
            "/v3/clusters/{cluster}/consumer-groups/{group}",
            group,
            in_cluster(of(
                "proxyGroup",
                "One of those, version 3",
                ResourceKind::Group,
            ))
            .path("group", text(), "the group's id")
            .refuses(404, "40403")
            .answers_json(200, "the group", resource_schema()),
        )
}

/// An operation of version 3.
pub(super) fn third(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, "rest proxy", summary).told_as_proxy()
}

/// It is about a cluster.
pub(super) fn in_cluster(about: Operation) -> Operation {
    about
        .path("cluster", text(), "the cluster's id")
        .refuses(404, "404: no such cluster")
}

/// What every resource has.
pub(super) fn resource_schema() -> Schema {
    object([
        ("kind", text()),
        ("metadata", object([("self", text())])),
        ("cluster_id", text()),
    ])
}

/// What every list has.
pub(super) fn list_schema() -> Schema {
    let metadata = object([("self", text()), ("next", anything())]);
    object([
        ("kind", text()),
        ("metadata", metadata),
        ("data", list(resource_schema())),
    ])
}

/// Where resources of this cluster are, as the client may ask for them.
pub(super) struct Places {
    /// The cluster's id.
    pub(super) cluster_id: String,
    url: String,
}

impl Places {
    /// Of the cluster that a path names, which must be this one.
    pub(super) fn of(front: &Front, headers: &HeaderMap, cluster: &str) -> Result<Places, Failure> {
        let cluster_id = front.broker.cluster_id();
        if cluster != cluster_id {
            return Err(Failure::UnknownCluster(cluster.to_owned()));
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let host = host.unwrap_or("localhost");
        let url = format!("http://{host}/v3/clusters/{cluster_id}");
        Ok(Places { cluster_id, url })
    }

    /// Where something of the cluster is; empty for itself.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// That something is elsewhere.
    pub(super) fn related(&self, path: &str) -> Value {
        json!({ "related": self.url(path) })
    }

    /// What is said of each resource: its path, and its name within the cluster, as in `/topic=readings`.
    pub(super) fn metadata(&self, path: &str, name: &str) -> Value {
        let resource = format!("crn:///kafka={}{name}", self.cluster_id);
        json!({ "self": self.url(path), "resource_name": resource })
    }

    /// A list of resources.
    pub(super) fn list(&self, kind: &str, path: &str, data: Vec<Value>) -> Value {
        json!({ "kind": kind, "metadata": { "self": self.url(path), "next": null }, "data": data })
    }
}

fn of_cluster(places: &Places, node: i32) -> Value {
    json!({
        "kind": "KafkaCluster", "metadata": places.metadata("", ""), "cluster_id": places.cluster_id,
        "controller": places.related(&format!("/brokers/{node}")), "acls": places.related("/acls"),
        "brokers": places.related("/brokers"), "broker_configs": places.related("/broker-configs"),
        "consumer_groups": places.related("/consumer-groups"), "topics": places.related("/topics"),
        "partition_reassignments": places.related("/topics/-/partitions/-/reassignment"),
    })
}

async fn clusters(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    door.cluster(right::Describe)?;
    let places = Places::of(&front, &headers, &front.broker.cluster_id())?;
    let mut all = places.list(
        "KafkaClusterList",
        "",
        vec![of_cluster(&places, node_of(&front))],
    );
    let own = format!("/{}", places.cluster_id);
    let url = places.url("");
    all["metadata"]["self"] = url.strip_suffix(&own).unwrap_or(&url).into();
    Ok(Json(all))
}

async fn cluster(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At(id): At<String>,
) -> Result<Json<Value>, Failure> {
    door.cluster(right::Describe)?;
    let places = Places::of(&front, &headers, &id)?;
    Ok(Json(of_cluster(&places, node_of(&front))))
}

async fn brokers(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At(id): At<String>,
) -> Result<Json<Value>, Failure> {
    door.cluster(right::Describe)?;
    let places = Places::of(&front, &headers, &id)?;
    let config = front.broker.config();
    let node = config.node_id;
    let path = format!("/brokers/{node}");
    let broker = json!({
        "kind": "KafkaBroker", "metadata": places.metadata(&path, &format!("/broker={node}")), "cluster_id": places.cluster_id,
        "broker_id": node, "host": config.advertised_host, "port": config.advertised_port, "rack": null,
        "configs": places.related(&format!("{path}/configs")),
        "partition_replicas": places.related(&format!("{path}/partition-replicas")),
    });
    Ok(Json(places.list(
        "KafkaBrokerList",
        "/brokers",
        vec![broker],
    )))
}

fn of_group(places: &Places, id: &str, state: &str, assignor: &str, node: i32) -> Value {
    let path = format!("/consumer-groups/{id}");
    // As Confluent names states: PREPARING_REBALANCE.
    let mut name = String::new();
    for letter in state.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    json!({
        "kind": "KafkaConsumerGroup", "metadata": places.metadata(&path, &format!("/consumer-group={id}")),
        "cluster_id": places.cluster_id, "consumer_group_id": id, "is_simple": false, "partition_assignor": assignor,
        "state": name, "coordinator": places.related(&format!("/brokers/{node}")),
        "consumer": places.related(&format!("{path}/consumers")),
        "lag_summary": places.related(&format!("{path}/lag-summary")),
    })
}

async fn groups(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At(id): At<String>,
) -> Result<Json<Value>, Failure> {
    let places = Places::of(&front, &headers, &id)?;
    let node = node_of(&front);
    let mut groups = door.groups();
    groups.sort_by(|one, other| one.id.cmp(&other.id));
    let mut data = Vec::new();
    for group in groups {
        let described = door.group(&group.id, right::Describe)?.describe();
        let assignor = described
            .map(|described| described.protocol)
            .unwrap_or_default();
        data.push(of_group(
            &places,
            &group.id,
            group.state.name(),
            &assignor,
            node,
        ));
    }
    Ok(Json(places.list(
        "KafkaConsumerGroupList",
        "/consumer-groups",
        data,
    )))
}

async fn group(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((id, group)): At<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let places = Places::of(&front, &headers, &id)?;
    let described = door.group(&group, right::Describe)?.describe();
    let described = described.ok_or(GroupError::NotFound)?;
    let node = node_of(&front);
    Ok(Json(of_group(
        &places,
        &group,
        described.state.name(),
        &described.protocol,
        node,
    )))
}
