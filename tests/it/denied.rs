//! Whoever may do nothing makes the broker keep nothing: what it holds, by its own counts. The doors of each protocol use it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;

use crate::binary::Running;

/// `root` may do everything, and `alice` nothing.
pub const PASSWORD: &str = "a long password";

/// What is held, by name.
const HELD: [&str; 12] = [
    "alluvium_amqp_connections",
    "alluvium_amqp_links",
    "alluvium_limit_used",
    "alluvium_logs",
    "alluvium_mqtt_clients",
    "alluvium_mqtt_connections",
    "alluvium_mqtt_readers",
    "alluvium_mqtt_retained",
    "alluvium_mqtt_retained_bytes",
    "alluvium_mqtt_sessions",
    "alluvium_producers",
    "alluvium_share_groups",
];

/// Has access controlled.
pub fn control(command: &mut Command, directory: &Path) {
    let users = directory.join("users");
    let both = format!("root:{PASSWORD}\nalice:{PASSWORD}\n");
    std::fs::write(&users, both).expect("a file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&users, mode).expect("its owner's file");
    for setting in [
        &format!("sasl.users.file={}", users.display()),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:root",
    ] {
        command.args(["-X", setting]);
    }
}

/// As `root`.
pub fn as_root(running: &Running, what: &str, body: &str) -> String {
    let root = base64::engine::general_purpose::STANDARD.encode(format!("root:{PASSWORD}"));
    let headers = format!("Authorization: Basic {root}\r\nContent-Type: application/json\r\n");
    let (status, answer) = running.ask(what, &headers, body);
    assert!(status < 300, "{what}: {answer}");
    answer
}

/// What the broker holds, and which topics there are.
pub fn held(running: &Running) -> Vec<String> {
    let metrics = as_root(running, "GET /metrics", "");
    let is_held = |line: &&str| {
        let name = line.split([' ', '{']).next();
        name.is_some_and(|name| HELD.contains(&name))
    };
    let mut held: Vec<String> = metrics.lines().filter(is_held).map(str::to_owned).collect();
    assert!(
        held.len() >= HELD.len() - 2,
        "one front's are not there: {held:?}"
    );
    let topics = as_root(running, "GET /api/v1/topics", "");
    let (_, topics) = topics.split_once("\r\n\r\n").expect("a body");
    held.push(topics.to_owned());
    held
}
