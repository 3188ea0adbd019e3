//! Every route by everybody: without the right, with it, with a denial, and by who has not said who they are. The requests are those of
//! `rights_tests`, made of the table of routes: a new route is tried with the others, and fails here if nobody asks for a right.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use model::acl::{Acl, AclFilter, CLUSTER_NAME, PatternType, Permission, ResourceType, WILDCARD};
use serde_json::{Value, json};

use super::operation::Described;
use super::rights_tests::{front_of, request_of};
use super::{all_routes, routes};
use crate::broker::access::{Protocol, ResourceKind, Right, right};
use crate::broker::scratch::Scratch;
use crate::front::listener::Transport;

/// Routes that ask for no right: they tell nothing of topics, groups, users or records.
const OPEN: [&str; 5] = ["index", "healthz", "readyz", "version", "openapi"];
/// They ask for no right either: the front that takes the connection does, and here is none.
const GO_OVER: [&str; 2] = ["mqttWebSocket", "amqpWebSocket"];
/// Lists that leave out what the caller may not see.
const LISTS: [&str; 6] = [
    "listTopics",
    "listGroups",
    "listQueues",
    "proxyTopics",
    "proxyClusterTopics",
    "proxyGroups",
];
/// What is not to be told to who has rights on others alone.
const HIDDEN: &str = "hidden-7c1";

/// What HTTP says to who may not.
const FORBIDDEN: u16 = 403;
/// What it says to who has not said who it is.
const UNAUTHORIZED: u16 = 401;

struct Served {
    broker: Scratch,
    service: TowerToHyperService<axum::Router>,
    described: Vec<Described>,
}

#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    body: String,
}

impl Told {
    /// Whether the caller is told that it may not. Who writes records hears it of each.
    fn is_denied(&self) -> bool {
        let of_records = [
            "\"error_code\":40301",
            "\"error_code\":403,",
            "\"error_code\":401,",
        ];
        [FORBIDDEN, UNAUTHORIZED].contains(&self.status)
            || of_records.iter().any(|code| self.body.contains(code))
    }
}

impl Told {
    /// The same to somebody who has said who it is, whom no login would help.
    fn told_somebody(mut self) -> Told {
        if self.status == UNAUTHORIZED {
            self.status = FORBIDDEN;
        }
        for (anonymous, somebody) in [
            ("User:ANONYMOUS", "User:alice"),
            ("\"title\":\"Unauthorized\"", "\"title\":\"Forbidden\""),
            ("\"status\":401", "\"status\":403"),
            ("\"code\":\"unauthorized\"", "\"code\":\"denied\""),
            ("\"error_code\":40101", "\"error_code\":403"),
            ("\"error_code\":40301", "\"error_code\":403"),
            ("\"error_code\":401", "\"error_code\":403"),
        ] {
            self.body = self.body.replace(anonymous, somebody);
        }
        self
    }
}

impl Served {
    fn new() -> Served {
        let broker = Scratch::with_access_control();
        let service = TowerToHyperService::new(routes(front_of(&broker)));
        let (_, mut described) = all_routes().into_parts();
        // What removes something comes last.
        described.sort_by_key(|one| one.method == Method::DELETE);
        Served {
            broker,
            service,
            described,
        }
    }

    async fn call(&self, mut request: Request<Body>, user: Option<&str>) -> Response {
        let transport = Transport {
            peer_certificate_principal: user.map(Arc::from),
            ..Transport::plain()
        };
        request.extensions_mut().insert(transport);
        self.service.call(request).await.expect("an answer")
    }

    /// What a route says. Of an answer without an end, its head.
    async fn told(&self, one: &Described, is_meant: bool, user: Option<&str>) -> Told {
        let mut request = request_of(one, &self.broker, is_meant);
        let id = header::HeaderValue::from_static("matrix");
        request.headers_mut().insert("x-request-id", id);
        let answer = self.call(request, user).await;
        let status = answer.status();
        let body = match one.about.follows && status.is_success() {
            true => String::new(),
            false => text_of(answer).await,
        };
        Told {
            status: status.as_u16(),
            body,
        }
    }

    async fn as_root(&self, method: Method, path: &str, body: Value) -> String {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        let mut request = request
            .body(Body::from(body.to_string()))
            .expect("a request");
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        request.extensions_mut().insert(peer);
        let answer = self.call(request, Some("root")).await;
        let status = answer.status();
        let text = text_of(answer).await;
        assert!(status.is_success(), "{path}: {status} {text}");
        text
    }

    /// A topic with a record and a hold, and what a group has committed in it.
    async fn make(&self, topic: &str, group: &str) {
        let post =
            |path: String, body| async move { self.as_root(Method::POST, &path, body).await };
        let new = json!({ "name": topic, "partitions": 3 });
        post("/api/v1/topics".to_owned(), new).await;
        let record = json!([{ "value": 1 }]);
        post(format!("/api/v1/topics/{topic}/records"), record).await;
        let reset = json!({ "topic": topic, "to": "earliest" });
        post(format!("/api/v1/groups/{group}/reset"), reset).await;
        let hold = json!({ "topic": topic, "reason": "a test" });
        post("/api/v1/cleanup/holds".to_owned(), hold).await;
    }

    /// Everything that a request could change.
    async fn state(&self) -> String {
        let mut state = String::new();
        let topics = self
            .as_root(Method::GET, "/api/v1/topics", Value::Null)
            .await;
        let listed: Value = serde_json::from_str(&topics).expect("JSON");
        let names = listed["topics"].as_array().expect("a list").iter();
        let mut paths: Vec<String> = names
            .map(|topic| {
                format!(
                    "/api/v1/topics/{}/partitions",
                    topic["name"].as_str().expect("a name")
                )
            })
            .collect();
        for path in [
            "/api/v1/groups",
            "/api/v1/groups/dashboard/offsets",
            "/api/v1/acls",
            "/api/v1/users",
            "/api/v1/cleanup/holds",
            "/api/v1/cleanup/jobs",
            "/api/v1/cleanup/erasures",
            "/api/v1/cluster/settings",
        ] {
            if listed["topics"] != json!([]) || !path.contains("dashboard") {
                paths.push(path.to_owned());
            }
        }
        state.push_str(&topics);
        for path in paths {
            let text = self.as_root(Method::GET, &path, Value::Null).await;
            let mut told: Value = serde_json::from_str(&text).expect("JSON");
            // For how long records have waited changes by itself.
            for offset in told["offsets"].as_array_mut().into_iter().flatten() {
                offset["lag_seconds"].take();
                offset["lag_event_seconds"].take();
            }
            state.push_str(&told.to_string());
        }
        state.push_str(&format!("{:?}", self.broker.held_in_memory()));
        state
    }

    /// Makes rules for alice: on all resources of each kind, or on those of the requests alone.
    async fn put(&self, rights: &[(ResourceKind, Right)], permission: Permission, all: bool) {
        let door = self.broker.door_of_user("root", Protocol::Http);
        let cluster = door.cluster(right::Alter).expect("a super user");
        let rules = rights.iter().map(|(kind, right)| {
            let (resource_type, name) = match kind {
                ResourceKind::Topic => (ResourceType::Topic, "readings"),
                ResourceKind::Group => (ResourceType::Group, "dashboard"),
                ResourceKind::Cluster => (ResourceType::Cluster, CLUSTER_NAME),
            };
            let name = match resource_type {
                ResourceType::Cluster => name,
                _ if all => WILDCARD,
                _ => name,
            };
            Acl {
                resource_type,
                name: name.to_owned(),
                pattern: PatternType::Literal,
                principal: "User:alice".to_owned(),
                host: "*".to_owned(),
                operation: right.operation(),
                permission,
            }
        });
        for made in self.broker.create_acls(&cluster, rules.collect()).await {
            made.expect("a rule");
        }
    }

    async fn remove_rules(&self) {
        let door = self.broker.door_of_user("root", Protocol::Http);
        let cluster = door.cluster(right::Alter).expect("a super user");
        let filter = AclFilter::default();
        let removed = self.broker.delete_acls(&cluster, &[filter]).await;
        removed.expect("access is controlled");
    }
}

async fn text_of(answer: Response) -> String {
    let body = answer.into_body().collect().await.expect("a body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

/// What is wrong with an answer to who has no right.
fn undenied(one: &Described, told: &Told) -> Option<String> {
    let (id, is_open) = (one.about.id, one.about.rights.is_empty());
    let is_right = match is_open || LISTS.contains(&id) {
        true if GO_OVER.contains(&id) => told.status == 404,
        true => (200..300).contains(&told.status) && is_open == OPEN.contains(&id),
        false => told.is_denied(),
    };
    (!is_right).then(|| format!("{id}: {} {}", told.status, told.body))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_answered_by_what_the_caller_may() {
    let served = Served::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = (*served.broker).clone();
    let running = tokio::spawn(async move { running.run(stopped).await });
    let mut wrong = Vec::new();

    // Nothing is there, and nothing is made.
    let empty = served.state().await;
    let mut before = Vec::new();
    for one in &served.described {
        let told = served.told(one, true, Some("alice")).await;
        wrong.extend(undenied(one, &told));
        before.push(told.told_somebody());
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(served.state().await == empty, "nothing was changed");

    // What is there is not to be told from what is not, and stays.
    served.make("readings", "dashboard").await;
    let full = served.state().await;
    for (one, before) in served.described.iter().zip(&before) {
        let id = one.about.id;
        for user in [Some("alice"), None] {
            let told = served.told(one, true, user).await.told_somebody();
            if id != "readyz" && told != *before {
                wrong.push(format!("{id} by {user:?}: {told:?}, and before {before:?}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(served.state().await == full, "nothing was changed");

    for one in served
        .described
        .iter()
        .filter(|one| !one.about.rights.is_empty())
    {
        served.with_rules(one, &mut wrong).await;
    }
    assert_eq!(wrong, Vec::<String>::new());
    stop.send_replace(true);
    running.await.expect("the groups end");
}

impl Served {
    /// With the rights that a route names, and with a denial of all and of each beside them.
    async fn with_rules(&self, one: &Described, wrong: &mut Vec<String>) {
        let (id, rights) = (one.about.id, &one.about.rights);
        self.put(rights, Permission::Allow, true).await;
        let allowed = self.told(one, false, Some("alice")).await;
        let anonymous = self.told(one, false, None).await;
        self.remove_rules().await;
        if anonymous.status == FORBIDDEN {
            wrong.push(format!("{id}: a login would help: {anonymous:?}"));
        }
        if allowed.is_denied() || allowed.status >= 500 {
            wrong.push(format!("{id} with the right: {allowed:?}"));
        }
        wrong.extend(undenied(one, &anonymous));
        for denied in rights {
            self.put(rights, Permission::Allow, true).await;
            self.put(&[*denied], Permission::Deny, true).await;
            let held = self.broker.held_in_memory();
            let told = self.told(one, false, Some("alice")).await;
            if undenied(one, &told).is_none() && told.is_denied() {
                let now = self.broker.held_in_memory();
                assert_eq!(now, held, "{id} with a denial of {denied:?}");
            }
            self.remove_rules().await;
            // Of the cluster's groups a list is made.
            let is_listed = id == "describeCluster" && denied.0 == ResourceKind::Group;
            if !is_listed && let Some(found) = undenied(one, &told) {
                wrong.push(format!("with a denial of {denied:?}: {found}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_tells_of_what_its_caller_may_not_describe() {
    let served = Served::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = (*served.broker).clone();
    let running = tokio::spawn(async move { running.run(stopped).await });
    served.make("readings", "dashboard").await;
    // Another topic, in which both a group that is known and one that is not have committed.
    served.make(HIDDEN, &format!("{HIDDEN}-group")).await;
    let reset = json!({ "topic": HIDDEN, "to": "earliest" });
    served
        .as_root(Method::POST, "/api/v1/groups/dashboard/reset", reset)
        .await;
    let kinds = [ResourceKind::Topic, ResourceKind::Group];
    let all = kinds
        .into_iter()
        .flat_map(|kind| Right::ALL.map(|right| (kind, right)));
    let all: Vec<_> = all.collect();
    served.put(&all, Permission::Allow, false).await;
    let mut wrong = Vec::new();
    for one in &served.described {
        let told = served.told(one, false, Some("alice")).await;
        if told.body.contains(HIDDEN) {
            wrong.push(format!("{}: {}", one.about.id, told.body));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    stop.send_replace(true);
    running.await.expect("the groups end");
}
