//! Settings of topics and of the server: what they are, where each comes from, and changes with what they would change.
//!
//! Callers: `api::routes`; `topics`, which shows a topic's. Of two changes at a time the second sees the first: a change names
//! single settings and replaces no others, so none is lost, and no precondition is asked for.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::named::topic_name;
use crate::broker::access::{Door, ResourceKind, Right, right};
use crate::broker::audit::On;
use crate::broker::{Alteration, Broker, Entry, Operation as Change, Origin, Resource};
use crate::front::audit::{self, some};
use crate::front::http::errors::Failure;
use crate::front::http::request::{At, body_of};
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{Schema, boolean, list, map, object, one_of, text};

/// A topic's.
const TOPIC: &str = "/api/v1/topics/{topic}/settings";
/// The server's.
const SERVER: &str = "/api/v1/cluster/settings";

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "settings", summary);
    let on_topic = |about: Operation| {
        about
            .path("topic", topic_name(), "the topic's name")
            .refuses(404, "unknown_topic")
    };
    let all = || object([("settings", list(setting_schema()))]);
    let body = || {
        object([])
            .optional([
                ("set", map(text()).about("names with their new values")),
                (
                    "unset",
                    list(text()).about("names that get back what they have without being set here"),
                ),
                ("dry_run", boolean()),
            ])
            .closed()
    };
    let value = || object([("value", text()), ("origin", origin_schema())]);
    let changes = || {
        let change = object([("name", text()), ("before", value()), ("after", value())]);
        object([("changes", list(change)), ("dry_run", boolean())])
    };
    let alters = |about: Operation| {
        about
            .takes_json("what is to change; all of it or nothing", body())
            .answers_json(200, "what is different now, or would be", changes())
            .refuses(400, "invalid_body, invalid_setting, named_twice")
            .refuses(507, "disk_full")
    };
    Routes::new()
        .get(
            TOPIC,
            topic_settings,
            on_topic(of("listTopicSettings", "A topic's settings"))
                .needs(ResourceKind::Topic, Right::DescribeConfigs)
                .answers_json(200, "all of them", all()),
        )
        .patch(
            TOPIC,
            alter_topic,
            alters(on_topic(of(
                "alterTopicSettings",
                "Changes settings of a topic",
            )))
            .needs(ResourceKind::Topic, Right::DescribeConfigs)
            .needs(ResourceKind::Topic, Right::AlterConfigs),
        )
        .get(
            SERVER,
            server_settings,
            of("listServerSettings", "The server's settings")
                .needs(ResourceKind::Cluster, Right::DescribeConfigs)
                .answers_json(200, "all of them", all()),
        )
        .patch(
            SERVER,
            alter_server,
            alters(of(
                "alterServerSettings",
                "Changes settings of the server that need no restart",
            ))
            .needs(ResourceKind::Cluster, Right::DescribeConfigs)
            .needs(ResourceKind::Cluster, Right::AlterConfigs),
        )
}

/// Places that values come from, by names that stay.
const ORIGINS: [(Origin, &str); 7] = [
    (Origin::Topic, "topic"),
    (Origin::Broker, "broker"),
    (Origin::Cluster, "cluster"),
    (Origin::Static, "start"),
    (Origin::Default, "default"),
    (Origin::Logger, "logger"),
    (Origin::Group, "group"),
];

fn origin_schema() -> Schema {
    one_of(&ORIGINS.map(|(_, name)| name))
}

fn origin_name(origin: Origin) -> &'static str {
    let found = ORIGINS.iter().find(|(known, _)| *known == origin);
    found.map_or("default", |(_, name)| name)
}

/// What [`settings_of`] writes of each.
pub(super) fn setting_schema() -> Schema {
    object([
        ("name", text()),
        ("value", text()),
        ("origin", origin_schema()),
        ("default", text()),
        ("type", text()),
        ("read_only", boolean()),
        ("doc", text()),
    ])
}

/// The settings of a resource, each with where it comes from.
pub(super) fn settings_of(
    broker: &Broker,
    resource: &Resource<'_, right::DescribeConfigs>,
) -> Vec<Value> {
    let entries = broker.describe_configs(resource, None);
    entries.iter().map(of_entry).collect()
}

fn of_entry(entry: &Entry) -> Value {
    let default = entry
        .synonyms
        .iter()
        .find(|one| one.origin == Origin::Default);
    let kind = format!("{:?}", entry.kind).to_lowercase();
    json!({
        "name": entry.name, "value": entry.value, "origin": origin_name(entry.origin),
        "default": default.map_or(&entry.value, |default| &default.value), "type": kind, "read_only": entry.read_only,
        "doc": entry.doc,
    })
}

async fn topic_settings(door: Door, At(name): At<String>) -> Result<Json<Value>, Failure> {
    let topic = Resource::Topic(door.topic(&name, right::DescribeConfigs)?);
    Ok(Json(
        json!({ "settings": settings_of(door.broker(), &topic) }),
    ))
}

async fn server_settings(door: Door) -> Result<Json<Value>, Failure> {
    let server = Resource::Broker(door.cluster(right::DescribeConfigs)?);
    Ok(Json(
        json!({ "settings": settings_of(door.broker(), &server) }),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlterBody {
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    unset: Vec<String>,
    #[serde(default)]
    dry_run: bool,
}

async fn alter_topic(
    door: Door,
    headers: HeaderMap,
    At(name): At<String>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let body: AlterBody = body_of(&headers, body).await?;
    // It is looked up again after the change: a granted topic is the topic as it was.
    let shown = || Ok(Resource::Topic(door.topic(&name, right::DescribeConfigs)?));
    let target = Resource::Topic(door.topic(&name, right::AlterConfigs)?);
    alter(&door, shown, &target, On::Topic(&name), body).await
}

async fn alter_server(door: Door, headers: HeaderMap, body: Body) -> Result<Json<Value>, Failure> {
    let body: AlterBody = body_of(&headers, body).await?;
    let shown = || Ok(Resource::Broker(door.cluster(right::DescribeConfigs)?));
    let target = Resource::Broker(door.cluster(right::AlterConfigs)?);
    let name = door.broker().node_id().to_string();
    alter(&door, shown, &target, On::Broker(&name), body).await
}

async fn alter<'a>(
    door: &Door,
    shown: impl Fn() -> Result<Resource<'a, right::DescribeConfigs>, Failure>,
    target: &Resource<'_, right::AlterConfigs>,
    on: On<'_>,
    body: AlterBody,
) -> Result<Json<Value>, Failure> {
    let broker = door.broker();
    let names: Vec<String> = body.set.keys().chain(&body.unset).cloned().collect();
    let before = broker.describe_configs(&shown()?, Some(&names));
    let set = body
        .set
        .iter()
        .map(|(name, value)| (name, Change::Set(value.clone())));
    let unset = body.unset.iter().map(|name| (name, Change::Delete));
    let alterations = set.chain(unset).map(|(name, operation)| Alteration {
        name: name.clone(),
        operation,
    });
    broker
        .alter_configs(target, alterations.collect(), body.dry_run)
        .await?;
    let own = match target {
        Resource::Topic(_) => Origin::Topic,
        _ => Origin::Broker,
    };
    let after: Vec<(String, Origin)> = if body.dry_run {
        before
            .iter()
            .map(|entry| would_be(entry, body.set.get(&entry.name), own))
            .collect()
    } else {
        let set = body
            .set
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let unset = body.unset.iter().map(|name| format!("{name} unset"));
        let changes: Vec<String> = set.chain(unset).collect();
        let change = audit::Change::SettingsChanged {
            on,
            changes: &some(changes.into_iter()),
        };
        if !names.is_empty() {
            audit::log(door, &change);
        }
        let after = broker.describe_configs(&shown()?, Some(&names));
        after
            .into_iter()
            .map(|entry| (entry.value, entry.origin))
            .collect()
    };
    let of = |value: &str, origin| json!({ "value": value, "origin": origin_name(origin) });
    let changes: Vec<Value> = before.iter().zip(&after)
        .filter(|(before, after)| (&before.value, before.origin) != (&after.0, after.1))
        .map(|(before, (value, origin))| json!({
            "name": before.name, "before": of(&before.value, before.origin), "after": of(value, *origin),
        }))
        .collect();
    Ok(Json(json!({ "changes": changes, "dry_run": body.dry_run })))
}

/// What a setting would be after a change: the new value, or that of the next place.
fn would_be(entry: &Entry, set: Option<&String>, own: Origin) -> (String, Origin) {
    if let Some(value) = set {
        return (value.clone(), own);
    }
    let next = entry.synonyms.iter().find(|one| one.origin != own);
    next.map_or((entry.value.clone(), entry.origin), |one| {
        (one.value.clone(), one.origin)
    })
}
