//! `alluvium user` and `/api/v1/users`: users and API tokens made, used, listed, taken away, and kept over a kill.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::binary::{Running, Said, alluvium, serve};
use crate::http_logins::{AUTHORIZER, PASSWORD, basic, put_users};

fn start(data: &Path) -> Running {
    let mut command = serve(&data.join("store"));
    command.args(["-X", &put_users(data), "-X", "super.users=User:admin"]);
    command.args(["-X", AUTHORIZER]);
    Running::start(&mut command)
}

/// Runs `alluvium user` as admin, with something to read.
fn user(running: &Running, args: &[&str], input: &str) -> Said {
    use std::io::Write as _;
    let mut command = alluvium();
    command
        .args([&["user"], args, &["--http", &running.http]].concat())
        .args(["-X", "security.protocol=SASL_PLAINTEXT"])
        .args(["-X", "sasl.username=admin"])
        .env("ALLUVIUM_PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    // It may not read.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Said::of(child.wait_with_output().expect("it ends"))
}

/// The status of a question that everybody may ask who has logged in, or not.
fn status(running: &Running, authorization: &str) -> u16 {
    running.ask("GET /api/v1/topics", authorization, "").0
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn listed(running: &Running) -> Value {
    user(running, &["list", "--json"], "").json()
}

#[test]
fn a_user_is_added_changed_and_removed() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    let added = user(&running, &["add", "carol"], "first password\n");
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let (first, second) = (basic("carol", "first password"), basic("carol", "second"));
    assert_eq!(status(&running, &first), 200);
    assert_eq!(user(&running, &["add", "carol"], "other").code, Some(1));
    assert_eq!(user(&running, &["add", "dave"], "\n").code, Some(2));
    assert_eq!(user(&running, &["password", "dave"], "x").code, Some(3));
    assert_eq!(status(&running, &first), 200);
    let file = data.path().join("password");
    std::fs::write(&file, "second\n").expect("a file");
    let file = file.display().to_string();
    let changed = user(
        &running,
        &["password", "carol", "--password-file", &file],
        "",
    );
    assert_eq!(changed.code, Some(0), "{}", changed.stderr);
    assert_eq!(status(&running, &first), 401);
    assert_eq!(status(&running, &second), 200);
    let names = |users: &Value| {
        let all = users.as_array().expect("a list").iter();
        let all = all.map(|user| user["name"].as_str().expect("a name").to_owned());
        all.collect::<Vec<_>>()
    };
    let users = listed(&running);
    assert_eq!(names(&users), ["admin", "alice", "bob", "carol"]);
    assert_eq!(
        users[3]["mechanisms"],
        json!(["SCRAM-SHA-256", "SCRAM-SHA-512"])
    );
    assert_eq!(user(&running, &["remove", "carol"], "").code, Some(0));
    assert_eq!(user(&running, &["remove", "carol"], "").code, Some(3));
    assert_eq!(status(&running, &second), 401);
    // Who is no administrator may do none of it.
    let alice = basic("alice", PASSWORD);
    let json = "Content-Type: application/json\r\n";
    for (what, body) in [
        ("GET /api/v1/users", ""),
        (
            "POST /api/v1/users",
            "{\"name\": \"eve\", \"password\": \"x\"}",
        ),
        ("PATCH /api/v1/users/admin", "{\"password\": \"x\"}"),
        ("DELETE /api/v1/users/admin", ""),
        ("POST /api/v1/users/admin/tokens", "{}"),
        ("DELETE /api/v1/users/admin/tokens/0123456789abcdef", ""),
    ] {
        assert_eq!(
            running.ask(what, &format!("{alice}{json}"), body).0,
            403,
            "{what}"
        );
    }
    assert_eq!(names(&listed(&running)), ["admin", "alice", "bob"]);
}

#[test]
fn a_token_lets_in_until_it_is_revoked_and_is_not_kept() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    let made = user(
        &running,
        &["token", "add", "grafana", "--about", "dashboards", "--json"],
        "",
    );
    let made = made.json();
    let token = made["token"].as_str().expect("a token").to_owned();
    let id = made["id"].as_str().expect("an id").to_owned();
    assert!(token.starts_with(&format!("alv_{id}_")), "{id}");
    assert_eq!(status(&running, &bearer(&token)), 200);
    let mut wrong = token.clone();
    wrong.pop();
    for wrong in [&wrong, &format!("{token}0"), "x", ""] {
        assert_eq!(status(&running, &bearer(wrong)), 401, "{wrong}");
    }
    // It is grafana, who may see nothing of the cluster yet.
    let metrics = |running: &Running| running.ask("GET /metrics", &bearer(&token), "").0;
    assert_eq!(metrics(&running), 403);
    let rule = json!({
        "resource_type": "cluster", "name": "kafka-cluster", "pattern": "literal", "principal": "User:grafana", "host": "*",
        "operation": "describe", "permission": "allow",
    });
    let admin = basic("admin", PASSWORD);
    let headers = format!("{admin}Content-Type: application/json\r\n");
    let ruled = running.ask("POST /api/v1/acls", &headers, &rule.to_string());
    assert_eq!(ruled.0, 201);
    assert_eq!(metrics(&running), 200);

    // It outlives a kill, and only its hash does.
    running.end(Signal::KILL);
    let secret = &token[token.len() - 64..];
    let store = data.path().join("store");
    let found = crate::key_search::find(&store, secret.as_bytes());
    assert_eq!(found, Vec::<String>::new());
    let running = start(data.path());
    assert_eq!(metrics(&running), 200);
    let users = listed(&running);
    let kept = &users[3]["tokens"][0];
    assert_eq!(
        (&users[3]["name"], &users[3]["mechanisms"]),
        (&json!("grafana"), &json!([]))
    );
    assert_eq!(
        (&kept["id"], &kept["about"]),
        (&json!(id), &json!("dashboards"))
    );
    assert_eq!(
        (&kept["expires_ms"], &kept["token"]),
        (&Value::Null, &Value::Null)
    );

    let other = user(&running, &["token", "remove", "alice", &id], "");
    assert_eq!(other.code, Some(3), "it is not alice's: {}", other.stderr);
    assert_eq!(metrics(&running), 200);
    let revoked = user(&running, &["token", "remove", "grafana", &id], "");
    assert_eq!(revoked.code, Some(0), "{}", revoked.stderr);
    assert_eq!(metrics(&running), 401);
}

#[test]
fn a_token_ends_when_its_time_has_come_or_its_user_is_removed() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    let add = |args: &[&str]| user(&running, &[&["token", "add"], args].concat(), "");
    let past = add(&["alice", "--expires", "2020-01-01"]);
    assert_eq!(past.code, Some(2), "{}", past.stderr);
    let token = |said: Said| bearer(said.stdout.trim());
    let short = token(add(&["alice", "--expires", "10s"]));
    let long = token(add(&["alice", "--expires", "365d"]));
    let mut tries = 0;
    while status(&running, &short) == 200 {
        tries += 1;
        assert!(tries < 1_200, "it does not end");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(status(&running, &short), 401);
    assert_eq!(status(&running, &long), 200);
    assert_eq!(user(&running, &["remove", "alice"], "").code, Some(0));
    assert_eq!(status(&running, &long), 401);
    assert_eq!(status(&running, &basic("alice", PASSWORD)), 401);
}
