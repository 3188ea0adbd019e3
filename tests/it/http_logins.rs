//! Logins over HTTP: who is let in by `Authorization`, who is not, and what either learns.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::Value;

use crate::binary::{Running, serve};

/// Access is controlled.
pub const AUTHORIZER: &str =
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";
/// Everybody's.
pub const PASSWORD: &str = "correct horse battery";

/// The file of admin, alice and bob, who all have the same password, as a setting.
pub fn put_users(data: &Path) -> String {
    let users = data.join("users");
    let text = format!("admin:{PASSWORD}\nalice:{PASSWORD}\nbob:{PASSWORD}\n");
    std::fs::write(&users, text).expect("a file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&users, mode).expect("its owner's file");
    format!("sasl.users.file={}", users.display())
}

/// A server that knows them.
fn serve_users(data: &Path, settings: &[&str]) -> Command {
    let mut command = serve(&data.join("store"));
    command.args(["-X", &put_users(data)]);
    command.args(["-X", "super.users=User:admin"]);
    for setting in settings {
        command.args(["-X", setting]);
    }
    command
}

/// The header of a user who logs in.
pub fn basic(user: &str, password: &str) -> String {
    let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {both}\r\n")
}

/// Status, headers and JSON of an answer.
fn asked(running: &Running, what: &str, headers: &str) -> (u16, String, Value) {
    let (status, answer) = running.ask(what, headers, "");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let mut body: Value = serde_json::from_str(body).unwrap_or_default();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    (status, head.to_ascii_lowercase(), body)
}

#[test]
fn a_user_is_let_in_and_may_what_the_rules_say() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_users(data.path(), &[AUTHORIZER]));
    let (admin, alice) = (basic("admin", PASSWORD), basic("alice", PASSWORD));
    for guarded in ["/api/v1/acls", "/metrics", "/api/v1/cluster/settings"] {
        let get = format!("GET {guarded}");
        assert_eq!(asked(&running, &get, &admin).0, 200, "{guarded}");
        let (status, _, body) = asked(&running, &get, &alice);
        assert_eq!(
            (status, &body["code"]),
            (403, &"denied".into()),
            "{guarded}"
        );
        let (status, head, body) = asked(&running, &get, "");
        assert_eq!(
            (status, &body["code"]),
            (401, &"unauthorized".into()),
            "{guarded}"
        );
        assert!(
            head.contains("content-type: application/problem+json"),
            "{head}"
        );
        assert!(head.contains("www-authenticate: basic realm="), "{head}");
    }
    for open in ["/healthz", "/readyz", "/", "/api/v1/openapi.json"] {
        let wrong = basic("alice", "wrong");
        for headers in ["", wrong.as_str()] {
            assert_eq!(
                asked(&running, &format!("GET {open}"), headers).0,
                200,
                "{open}"
            );
        }
    }
    let allow = "{\"resource_type\": \"topic\", \"name\": \"*\", \"pattern\": \"literal\", \"principal\": \"User:alice\", \
                 \"host\": \"*\", \"operation\": \"create\", \"permission\": \"allow\"}";
    let json = "Content-Type: application/json\r\n";
    let headers = format!("{admin}{json}");
    assert_eq!(running.ask("POST /api/v1/acls", &headers, allow).0, 201);
    let topic = "{\"name\": \"readings\"}";
    let create = |who: &str| {
        running
            .ask("POST /api/v1/topics", &format!("{who}{json}"), topic)
            .0
    };
    assert_eq!(create(""), 401);
    assert_eq!(create(&basic("bob", PASSWORD)), 403);
    assert_eq!(create(&alice), 201);
    // The REST proxy has the same users, and its own form of errors.
    let (status, _, body) = asked(&running, "GET /topics/readings", "");
    assert_eq!((status, &body["error_code"]), (401, &40101.into()));
    assert_eq!(asked(&running, "GET /topics/readings", &admin).0, 200);
}

#[test]
fn a_failed_login_is_told_the_same_whatever_was_wrong_with_it() {
    let data = tempfile::tempdir().expect("a directory");
    let log = data.path().join("log");
    let mut command = serve_users(data.path(), &[]);
    command.env("ALLUVIUM_LOG", "trace");
    let file = std::fs::File::create(&log).expect("a file");
    let running = Running::start_logged(&mut command, Stdio::from(file));
    let right = basic("alice", PASSWORD);
    let twice = format!("{right}{right}");
    let wrong = [
        basic("alice", "wrong-battery"),
        basic("nobody", PASSWORD),
        basic("alice", ""),
        "Authorization: Basic !\r\n".to_owned(),
        "Authorization: Digest YWxpY2U6eA==\r\n".to_owned(),
        "Authorization: \r\n".to_owned(),
        twice,
    ];
    let told: Vec<_> = wrong
        .iter()
        .map(|headers| {
            let (status, _, body) = asked(&running, "GET /api/v1/topics", headers);
            (status, body)
        })
        .collect();
    for (told_one, headers) in told.iter().zip(&wrong) {
        assert_eq!(told_one.0, 401, "{headers}");
        assert_eq!(*told_one, told[0], "{headers}");
    }
    // Nothing is asked of who shows nothing: access is not controlled here.
    assert_eq!(asked(&running, "GET /api/v1/topics", "").0, 200);
    assert_eq!(asked(&running, "GET /api/v1/topics", &right).0, 200);
    assert_eq!(asked(&running, "GET /api/v1/topics", &right).0, 200);
    let metrics = running.get("/metrics").1;
    for line in [
        "alluvium_logins_total{mechanism=\"Basic\",result=\"succeeded\"} 2",
        "alluvium_logins_total{mechanism=\"Basic\",result=\"failed\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    drop(running);
    let log = std::fs::read_to_string(&log).expect("a log");
    for secret in [PASSWORD, "wrong-battery", right.trim_end()] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[test]
fn who_guesses_is_refused_unseen_and_others_go_on() {
    let data = tempfile::tempdir().expect("a directory");
    let limit = "failed.logins.per.ip.max=5";
    let running = Running::start(&mut serve_users(data.path(), &[limit]));
    let status = |headers: &str| asked(&running, "GET /api/v1/topics", headers).0;
    let honest = basic("alice", PASSWORD);
    assert_eq!(status(&honest), 200);
    for guess in 0..30 {
        assert_eq!(status(&basic("bob", &format!("guess {guess}"))), 401);
    }
    assert_eq!(status(&honest), 200, "it was verified before");
    let metrics = running.get("/metrics").1;
    let limited = metrics.lines().find_map(|line| {
        line.strip_prefix("alluvium_logins_total{mechanism=\"Basic\",result=\"limited\"} ")
    });
    let limited: u64 = limited.expect("a metric").parse().expect("a number");
    // Five are looked at, and one more for each twelve seconds that this takes.
    assert!((1..=25).contains(&limited), "{limited}");
}
