//! What one user has the broker keep by MQTT is bounded, and takes nothing of what others may have.

use std::path::Path;

use rustix::process::Signal;

use super::sessions::kept;
use super::wire::{Connect, Mqtt};
use super::{retain, serve_mqtt, until};
use crate::binary::Running;
use crate::denied::{PASSWORD, as_root, control};

/// A server with access control, on which alice may publish and read, with these settings.
fn controlled(directory: &Path, settings: &[&str]) -> Running {
    let mut command = serve_mqtt(&directory.join("store"));
    control(&mut command, directory);
    for setting in settings {
        command.args(["-X", setting]);
    }
    let running = Running::start(&mut command);
    for operation in ["read", "write"] {
        let rule = serde_json::json!({
            "principal": "User:alice", "operation": operation, "resource_type": "topic", "name": "*",
            "pattern": "literal", "host": "*", "permission": "allow",
        });
        as_root(&running, "POST /api/v1/acls", &rule.to_string());
    }
    running
}

/// A client of this user.
fn of<'a>(user: &'a str, connect: Connect<'a>) -> Connect<'a> {
    Connect {
        login: Some((user, PASSWORD)),
        ..connect
    }
}

/// The code of the CONNACK.
async fn connected(running: &Running, connect: &Connect<'_>) -> (Mqtt, u8) {
    let (mqtt, answer) = Mqtt::try_connect(running.other("MQTT"), connect).await;
    (mqtt, answer.expect("an answer")[1])
}

/// What whoever has most holds of what a setting bounds, and how often it has refused.
fn used(running: &Running, setting: &str) -> (u64, u64) {
    let page = as_root(running, "GET /metrics", "");
    let value = |name: &str| {
        let head = format!("alluvium_limit_{name}{{setting=\"{setting}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&head));
        line.map(|value| value.trim().parse().expect("a number"))
    };
    let both = (value("used"), value("refused_total"));
    (both.0.expect("it is there"), both.1.expect("it is there"))
}

#[tokio::test]
async fn a_users_sessions_are_bounded_and_nobody_elses_over_a_kill_too() {
    const OF_ONE: &str = "mqtt.sessions.per.principal.max";
    const SETTINGS: &[&str] = &["mqtt.sessions.per.principal.max=2"];
    let directory = tempfile::tempdir().expect("a directory");
    let mut running = controlled(directory.path(), SETTINGS);
    for round in 0..2 {
        for (version, client_id) in [(5, "one"), (4, "two")] {
            let (_, code) = connected(&running, &of("alice", kept(version, client_id))).await;
            assert_eq!(code, 0, "{client_id}, round {round}");
        }
        for (version, code) in [(5, 0x97), (4, 3)] {
            let third = of("alice", kept(version, "three"));
            assert_eq!(connected(&running, &third).await.1, code);
        }
        // One with a will is kept for that.
        let will = Connect {
            will: Some(("gone", "x", 0)),
            ..Connect::of(5, "will")
        };
        assert_eq!(connected(&running, &of("alice", will)).await.1, 0x97);
        // One that ends with its connection is not counted; and another user's of the same client id is not hers.
        let clean = of("alice", Connect::of(5, "four"));
        assert_eq!(connected(&running, &clean).await.1, 0);
        let (_, code) = connected(&running, &of("root", kept(5, "one"))).await;
        assert_eq!(code, 0);
        assert_eq!(used(&running, OF_ONE), (2, 3));
        assert_eq!(used(&running, "mqtt.sessions.max").0, 3);
        if round == 0 {
            running.end(Signal::KILL);
            running = controlled(directory.path(), SETTINGS);
        }
    }
    // What ends makes room.
    drop(connected(&running, &of("alice", Connect::of(5, "one"))).await);
    until(async || used(&running, OF_ONE).0 == 1).await;
    let third = of("alice", kept(5, "three"));
    assert_eq!(connected(&running, &third).await.1, 0);
}

#[tokio::test]
async fn what_a_users_sessions_hold_is_bounded() {
    const OF_ONE: &str = "mqtt.sessions.bytes.per.principal.max";
    const SETTINGS: &[&str] = &["mqtt.sessions.bytes.per.principal.max=1048576"];
    let directory = tempfile::tempdir().expect("a directory");
    let running = controlled(directory.path(), SETTINGS);
    // Some long ones fill what one user may have.
    let long = "x".repeat(50_000);
    let filters: Vec<String> = (0..2).map(|number| format!("{number}/{long}")).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|it| (it.as_str(), 1)).collect();
    let mut codes = Vec::new();
    for client_id in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "last"] {
        let (mut mqtt, code) = connected(&running, &of("alice", kept(5, client_id))).await;
        assert_eq!(code, 0);
        codes.push(mqtt.subscribe(&filters, &[]).await[0]);
        if client_id == "last" {
            // What it has goes on, and what is small has room.
            assert_eq!(mqtt.subscribe(&[("a/+", 1)], &[]).await, [1]);
        }
    }
    assert_eq!(codes, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0x97]);
    // What no frame of the log takes is one too long, too.
    let longer = "x".repeat(60_000);
    let longer = [
        format!("a/{longer}"),
        format!("b/{longer}"),
        format!("c/{longer}"),
    ];
    let longer = longer.each_ref().map(|it| (it.as_str(), 1));
    let (mut root, _) = connected(&running, &of("root", kept(5, "longer"))).await;
    assert_eq!(root.subscribe(&longer, &[]).await, [0x97; 3]);
    let (mut root, _) = connected(&running, &of("root", kept(5, "last"))).await;
    assert_eq!(root.subscribe(&filters, &[]).await, [1; 2]);
    let (bytes, refused) = used(&running, OF_ONE);
    assert!(bytes > 10 * 100_000 && bytes <= 1 << 20, "{bytes}");
    assert_eq!(refused, 1);
    assert!(used(&running, "mqtt.sessions.bytes.max").0 > bytes);
}

#[tokio::test]
async fn what_a_user_has_retained_is_bounded_and_nobody_elses_over_a_kill_too() {
    const OF_ONE: &str = "mqtt.retained.bytes.per.principal.max";
    const SETTINGS: &[&str] = &["mqtt.retained.bytes.per.principal.max=3500"];
    let directory = tempfile::tempdir().expect("a directory");
    let mut running = controlled(directory.path(), SETTINGS);
    let payload = [b'x'; 1_000];
    for round in 0..2 {
        let (mut alice, _) = connected(&running, &of("alice", Connect::of(5, "alice"))).await;
        let (mut root, _) = connected(&running, &of("root", Connect::of(5, "root"))).await;
        for topic in ["a", "b"] {
            assert_eq!(retain(&mut alice, topic, &[], &payload).await, 0);
        }
        assert_eq!(retain(&mut alice, "c", &[], &payload).await, 0x97);
        assert_eq!(retain(&mut root, "c", &[], &payload).await, 0);
        assert_eq!(used(&running, OF_ONE).1, 1, "round {round}");
        if round == 0 {
            running.end(Signal::KILL);
            running = controlled(directory.path(), SETTINGS);
        }
    }
    // Under a name that another one takes over it is that one's.
    let (mut alice, _) = connected(&running, &of("alice", Connect::of(5, "alice"))).await;
    let (mut root, _) = connected(&running, &of("root", Connect::of(5, "root"))).await;
    assert_eq!(retain(&mut root, "b", &[], &payload).await, 0);
    assert_eq!(retain(&mut alice, "d", &[], &payload).await, 0);
    assert_eq!(retain(&mut alice, "b", &[], &payload).await, 0x97);
    // What her will retains is hers, too.
    let will = Connect {
        will: Some(("gone", "x", 0x20)),
        ..Connect::of(5, "will")
    };
    let (_, code) = connected(&running, &of("alice", will)).await;
    assert_eq!(code, 0);
    until(async || used(&running, OF_ONE).0 > 3_000).await;
}
