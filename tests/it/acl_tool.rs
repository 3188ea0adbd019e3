//! `alluvium acl` and `/api/v1/acls`: rules made, told, asked, removed, kept over a kill, and what they leave to see over HTTP.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::binary::{Running, Said, create_topic, serve, tool};

const AUTHORIZER: &str =
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";

fn start(data: &Path, settings: &[&str]) -> Running {
    let mut command = serve(data);
    for setting in settings {
        command.args(["-X", setting]);
    }
    Running::start(&mut command)
}

/// With access control, and whoever comes may do everything.
fn start_ruled(data: &Path) -> Running {
    start(data, &[AUTHORIZER, "super.users=User:ANONYMOUS"])
}

fn acl(running: &Running, args: &[&str]) -> Said {
    tool(&[&["acl"], args, &["--http", &running.http]].concat())
}

/// The rules as `acl list --json` tells them.
fn listed(running: &Running, args: &[&str]) -> Vec<Value> {
    let all = acl(running, &[&["list", "--json"], args].concat()).json();
    all.as_array().expect("a list").clone()
}

fn rule(permission: &str, name: &str, pattern: &str, operation: &str) -> Value {
    json!({
        "resource_type": "topic", "name": name, "pattern": pattern, "principal": "User:alice", "host": "*",
        "operation": operation, "permission": permission,
    })
}

fn create_topics(running: &Running, names: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for name in names {
        runtime.block_on(create_topic(running, name, 1, &[]));
    }
}

#[test]
fn rules_are_made_asked_removed_and_survive_a_kill() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start_ruled(data.path());
    assert_eq!(listed(&running, &[]), [] as [Value; 0]);
    let may = |running: &Running, operation: &str, resource: &str| {
        let said = acl(running, &["check", "alice", operation, resource]);
        match said.code {
            Some(0) => true,
            Some(1) if said.stdout.contains("may not") => false,
            _ => panic!("{}{}", said.stdout, said.stderr),
        }
    };
    assert!(!may(&running, "read", "topic:site-1"));
    let made = acl(
        &running,
        &["allow", "alice", "read,describe", "topic:site-*"],
    );
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let made = acl(&running, &["deny", "alice", "read", "topic:site-secret"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    for (operation, resource, wanted) in [
        ("read", "topic:site-1", true),
        ("describe", "topic:site-1", true),
        ("write", "topic:site-1", false),
        ("read", "topic:other", false),
        // A denial goes before what is allowed, and leaves the rest.
        ("read", "topic:site-secret", false),
        ("describe", "topic:site-secret", true),
    ] {
        assert_eq!(
            may(&running, operation, resource),
            wanted,
            "{operation} {resource}"
        );
    }
    let why = acl(
        &running,
        &["check", "alice", "read", "topic:site-secret", "--json"],
    );
    let why: Value = serde_json::from_str(&why.stdout).expect("JSON");
    assert_eq!(
        why["acl"],
        rule("deny", "site-secret", "literal", "read"),
        "{why}"
    );

    let mut wanted = vec![
        rule("allow", "site-", "prefixed", "describe"),
        rule("allow", "site-", "prefixed", "read"),
        rule("deny", "site-secret", "literal", "read"),
    ];
    let sorted = |mut rules: Vec<Value>| {
        rules.sort_by_key(Value::to_string);
        rules
    };
    wanted = sorted(wanted);
    assert_eq!(sorted(listed(&running, &[])), wanted);
    assert_eq!(listed(&running, &["--principal", "bob"]), [] as [Value; 0]);
    running.end(Signal::KILL);

    let running = start_ruled(data.path());
    assert_eq!(sorted(listed(&running, &[])), wanted, "after a kill");
    let all = acl(&running, &["remove"]);
    assert!(!matches!(all.code, Some(0)), "{}", all.stdout);
    assert_eq!(
        listed(&running, &[]).len(),
        3,
        "all at once are not removed"
    );
    let removed = acl(
        &running,
        &[
            "remove",
            "--resource",
            "topic:site-secret",
            "--principal",
            "alice",
        ],
    );
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    assert!(may(&running, "read", "topic:site-secret"));
    assert_eq!(listed(&running, &[]).len(), 2);
}

#[test]
fn without_access_control_rules_are_refused_with_what_to_set() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path(), &[]);
    for args in [
        ["list", "--json"].as_slice(),
        &["allow", "alice", "read", "topic:a"],
    ] {
        let said = acl(&running, args);
        assert!(!matches!(said.code, Some(0)), "{}", said.stdout);
        assert!(
            said.stderr.contains("authorizer.class.name"),
            "{}",
            said.stderr
        );
    }
}

#[test]
fn over_http_there_is_what_the_rules_leave_to_see() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start_ruled(data.path());
    create_topics(&running, &["seen", "hidden"]);
    let made = acl(
        &running,
        &["allow", "ANONYMOUS", "describe,read", "topic:seen"],
    );
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(running.end(Signal::TERM).0, Some(0));

    let running = start(data.path(), &[AUTHORIZER]);
    let (status, topics) = running.ask_json("GET /api/v1/topics", "");
    assert_eq!(status, 200, "{topics}");
    let names: Vec<&str> = topics["topics"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|topic| topic["name"].as_str())
        .collect();
    assert_eq!(names, ["seen"]);
    assert_eq!(running.get("/api/v1/topics/seen/replay").0, 200);
    let body = json!({ "name": "new" }).to_string();
    for (what, body) in [
        ("POST /api/v1/topics/seen/records", "{}"),
        ("DELETE /api/v1/topics/seen", ""),
        ("POST /api/v1/topics", &body),
        ("GET /api/v1/acls", ""),
        ("DELETE /api/v1/acls?principal=User:ANONYMOUS", ""),
    ] {
        let (status, answer) = running.ask_json(what, body);
        assert_eq!(status, 401, "{what}: {answer}");
    }
    // What may not be seen is not told from what is not there.
    let told = |topic: &str| {
        let (status, mut answer) = running.ask_json(&format!("GET /api/v1/topics/{topic}"), "");
        answer
            .as_object_mut()
            .expect("a problem")
            .remove("request_id");
        (status, answer.to_string().replace(topic, "T"))
    };
    assert_eq!(told("hidden"), told("absent"));
    assert_ne!(told("hidden").0, 200);
}
