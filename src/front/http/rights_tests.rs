//! Which rights each route asks the door for, as its description says it: every operation is driven once, and what its handler
//! asks for is compared. Whoever adds a route whose body or query must name something adds that here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::operation::{Described, In};
use super::{Bounds, Front, Others, Settings, all_routes, routes};
use crate::broker::Broker;
use crate::broker::access::{ResourceKind, Right};
use crate::broker::scratch::Scratch;
use crate::front as fronts;

/// Bodies of operations that take one.
fn bodies() -> BTreeMap<&'static str, Value> {
    let keys = json!({ "topic": "readings", "keys": ["a"] });
    let clean = json!({ "policy": "retention", "topic": "readings", "dry_run": true });
    BTreeMap::from([
        ("createTopic", json!({ "name": "new", "dry_run": true })),
        ("addPartitions", json!({ "count": 9, "dry_run": true })),
        ("alterTopicSettings", json!({ "dry_run": true })),
        ("alterServerSettings", json!({ "dry_run": true })),
        (
            "resetGroup",
            json!({ "topic": "readings", "to": "earliest" }),
        ),
        ("startCleanup", clean),
        (
            "addAcl",
            json!({
                "resource_type": "topic", "name": "readings", "pattern": "literal", "principal": "User:a",
                "host": "*", "operation": "read", "permission": "allow",
            }),
        ),
        ("requestErasure", keys.clone()),
        ("planErasure", keys.clone()),
        ("verifyErasure", keys),
        (
            "addUser",
            json!({ "name": "carol", "password": "a long password" }),
        ),
        ("changePassword", json!({ "password": "another password" })),
        ("purgeQueue", json!({ "dry_run": true })),
        ("moveQueue", json!({ "to": "readings", "dry_run": true })),
        (
            "addHold",
            json!({ "topic": "readings", "reason": "a test" }),
        ),
        (
            "proxyCreateTopic",
            json!({ "topic_name": "new", "validate_only": true }),
        ),
    ])
}

/// What a parameter is given.
fn value_of(name: &str, broker: &Broker) -> String {
    match name {
        "topic" => "readings".to_owned(),
        "group" => "dashboard".to_owned(),
        "cluster" | "cluster_id" => broker.cluster_id(),
        "at" | "before" => "earliest".to_owned(),
        "policy" => "retention".to_owned(),
        "principal" => "User:a".to_owned(),
        "operation" => "read".to_owned(),
        "resource_type" => "topic".to_owned(),
        "name" => "retention.ms".to_owned(),
        "partition" | "offset" | "timeout" => "0".to_owned(),
        _ => "1".to_owned(),
    }
}

/// A request for a route. Whether it is to be done, where it can be tried without.
pub(super) fn request_of(one: &Described, broker: &Broker, is_meant: bool) -> Request<Body> {
    let mut path = one.path.to_owned();
    let mut query = Vec::new();
    for parameter in &one.about.parameters {
        let (name, value) = (parameter.name, value_of(parameter.name, broker));
        match parameter.place {
            In::Path => path = path.replace(&format!("{{{name}}}"), &value),
            In::Query if name == "dry_run" => query.push(format!("{name}={}", !is_meant)),
            In::Query if parameter.required || name == "timeout" => {
                query.push(format!("{name}={value}"));
            }
            In::Query | In::Header => {}
        }
    }
    let mut body = bodies().remove(one.about.id).unwrap_or(json!({}));
    for tried in ["dry_run", "validate_only"] {
        if let Some(value) = body.get_mut(tried) {
            *value = (!is_meant).into();
        }
    }
    let request = Request::builder()
        .method(&one.method)
        .uri(format!("{path}?{}", query.join("&")))
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json");
    let mut request = request
        .body(Body::from(body.to_string()))
        .expect("a request");
    request
        .extensions_mut()
        .insert(SocketAddr::from(([127, 0, 0, 1], 1)));
    request
}

fn listed(rights: &BTreeSet<(ResourceKind, Right)>) -> String {
    format!("{rights:?}")
}

/// A front of this broker, which listens nowhere.
pub(super) fn front_of(broker: &Broker) -> Arc<Front> {
    let others = Others {
        peers: Arc::default(),
        add_metrics: Vec::new(),
        mqtt: None,
        web_sockets: Vec::new(),
        commit: None,
        files_directory: std::env::temp_dir().join("alluvium-rights"),
    };
    let bounds = Bounds {
        connections_max: 100,
        listens: None,
    };
    let (shared, settings) = (fronts::Settings::default(), Settings::default());
    super::front(broker.clone(), shared, settings, bounds, others)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_asks_for_the_rights_that_its_description_names() {
    let broker = Scratch::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = (*broker).clone();
    let running = tokio::spawn(async move { running.run(stopped).await });
    let front = front_of(&broker);
    let service = TowerToHyperService::new(routes(front.clone()));
    // What is to be found.
    for (path, body) in [
        (
            "/api/v1/topics",
            json!({ "name": "readings", "partitions": 3 }),
        ),
        (
            "/api/v1/groups/dashboard/reset",
            json!({ "topic": "readings", "to": "earliest" }),
        ),
    ] {
        let mut request = Request::post(path).header(header::HOST, "localhost");
        request = request.header(header::CONTENT_TYPE, "application/json");
        let mut request = request
            .body(Body::from(body.to_string()))
            .expect("a request");
        request
            .extensions_mut()
            .insert(SocketAddr::from(([127, 0, 0, 1], 1)));
        let answer = service.call(request).await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {answer:?}");
    }
    let (_, mut described) = all_routes().into_parts();
    // What removes something comes last.
    described.sort_by_key(|one| one.method == axum::http::Method::DELETE);
    let mut wrong = Vec::new();
    for one in described
        .iter()
        .filter(|one| !one.path.ends_with("/follow"))
    {
        front.asked.lock().expect("nothing panics in here").clear();
        let answer = service
            .call(request_of(one, &broker, false))
            .await
            .expect("an answer");
        let status = answer.status();
        let read = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        let mut asked = BTreeSet::new();
        for door in front.asked.lock().expect("nothing panics in here").iter() {
            asked.extend(door.lock().expect("nothing panics in here").iter().copied());
        }
        let named: BTreeSet<_> = one.about.rights.iter().copied().collect();
        if asked != named {
            let (id, named, asked) = (one.about.id, listed(&named), listed(&asked));
            let said = String::from_utf8_lossy(&read[..read.len().min(300)]).into_owned();
            wrong.push(format!(
                "{id} says {named} and asks for {asked}: {status} {said}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    stop.send_replace(true);
    running.await.expect("the groups end");
}
