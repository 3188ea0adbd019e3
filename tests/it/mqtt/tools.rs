//! What operators see of MQTT, and do: `alluvium mqtt`.

use std::process::Output;

use serde_json::Value;

use super::wire::Mqtt;
use super::{serve_mqtt, until};
use crate::binary::{Running, Said, alluvium};

fn tool(running: &Running, arguments: &[&str]) -> Output {
    let mut command = alluvium();
    command.arg("mqtt").args(arguments);
    command.args(["--http", &running.http, "--json"]);
    command.output().expect("it runs")
}

fn answer(running: &Running, arguments: &[&str]) -> Value {
    let output = tool(running, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_clients_and_end_a_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut old = Mqtt::connect(running.other("MQTT"), 4, "old").await;
    let mut new = Mqtt::connect(running.other("MQTT"), 5, "new one").await;
    let sessions = answer(&running, &["sessions"]);
    let found: Vec<(&str, &str, &str)> = sessions
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| {
            let text = |name: &str| it[name].as_str().expect("text");
            (text("client_id"), text("version"), text("principal"))
        })
        .collect();
    let anonymous = "User:ANONYMOUS";
    let expected = [("new one", "5.0", anonymous), ("old", "3.1.1", anonymous)];
    assert_eq!(found, expected);
    // Nothing of an id reaches a terminal but what can be read.
    let _odd = Mqtt::connect(running.other("MQTT"), 5, "odd\x1b[2J\nid").await;
    let mut command = alluvium();
    command.args(["mqtt", "sessions", "--http", &running.http]);
    let shown = Said::of(command.output().expect("it runs"));
    assert!(
        shown.stdout.contains("odd\\u{1b}[2J\\nid"),
        "{}",
        shown.stdout
    );
    assert!(
        shown.stdout.ends_with("3 clients, 3 shown\n"),
        "{}",
        shown.stdout
    );
    assert_eq!(answer(&running, &["kick", "new one"])["ended"], 1);
    assert_eq!(new.ended().await, Some(0x98));
    old.ping().await;
    until(async || answer(&running, &["sessions"]).as_array().map(Vec::len) == Some(2)).await;
    assert_eq!(tool(&running, &["kick", "new one"]).status.code(), Some(3));
}
