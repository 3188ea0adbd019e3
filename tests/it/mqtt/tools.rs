//! What operators see of MQTT, and do: `alluvium mqtt`.

use std::process::Output;

use serde_json::Value;

use super::sessions::{come_back, kept};
use super::wire::{Connect, Mqtt};
use super::{retain, serve_mqtt, until};
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

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_what_is_kept_of_a_session_and_what_is_retained() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let connect = Connect {
        will: Some(("wills/pump", "gone", 0x08)),
        will_properties: &[0x18, 0, 0, 0, 30],
        ..kept(5, "pump 17")
    };
    let (mut pump, _) = come_back(&running, &connect).await;
    assert_eq!(pump.subscribe(&[("a/#", 1), ("b", 2)], &[]).await, [1, 2]);
    for (topic, said) in [("x/1", &[][..]), ("x/2", &[2, 0, 0, 0, 60]), ("y", &[])] {
        assert_eq!(retain(&mut pump, topic, said, b"12345").await, 0);
    }
    let publish = pump.publish_packet((2, 7), "x/3", &[], b"x");
    pump.send(&publish).await;
    assert_eq!(pump.next().await, Some((0x50, vec![0, 7])));
    let shown = answer(&running, &["session", "show", "pump 17"]);
    assert_eq!(
        (
            shown["connected"].as_bool(),
            shown["expiry_seconds"].as_u64()
        ),
        (Some(true), Some(60))
    );
    let will = serde_json::json!({ "topic": "wills/pump", "delay_seconds": 30 });
    assert_eq!(shown["will"], will);
    let wanted = serde_json::json!([{ "filter": "a/#", "qos": 1 }, { "filter": "b", "qos": 2 }]);
    assert_eq!(shown["subscriptions"], wanted);
    assert_eq!(shown["unreleased"], 1);
    // A message that it does not acknowledge is there when it has gone.
    let mut other = Mqtt::connect(running.other("MQTT"), 5, "other").await;
    assert_eq!(other.publish(1, "a/1", b"x").await, 0);
    pump.message().await;
    drop(pump);
    until(async || answer(&running, &["session", "show", "pump 17"])["connected"] == false).await;
    let shown = answer(&running, &["session", "show", "pump 17"]);
    assert_eq!(shown["unacknowledged"], 1);
    assert!(shown["absent_seconds"].as_f64().expect("a time") < 60.0);
    for arguments in [
        ["session", "show", "nobody"].as_slice(),
        &["session", "show", "pump 17", "--user", "alice"],
    ] {
        assert_eq!(tool(&running, arguments).status.code(), Some(3));
    }
    let topics = |filter: &str| -> Vec<String> {
        let listed = answer(&running, &["retained", filter]);
        let all = listed.as_array().expect("a list").iter();
        all.map(|it| {
            format!(
                "{} {} {}",
                it["topic"],
                it["bytes"],
                it["expires_seconds"].is_null()
            )
        })
        .collect()
    };
    assert_eq!(topics("x/+"), ["\"x/1\" 5 true", "\"x/2\" 5 false"]);
    assert_eq!(topics("#").len(), 3);
    assert_eq!(topics("y"), ["\"y\" 5 true"]);
    assert_ne!(tool(&running, &["retained", "x#"]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_the_routes_and_where_messages_of_a_topic_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_mqtt(directory.path());
    command.args([
        "-X",
        r#"mqtt.route=[{"filter": "site/{site}/{device}/#", "topic": "telemetry", "key": "{device}", "partitions": 1}]"#,
    ]);
    let running = Running::start(&mut command);
    let routes = serde_json::json!([
        {
            "filter": "site/{site}/{device}/#", "topic": "telemetry", "key": "{device}", "partitions": 1,
            "default": false,
        },
        { "filter": "#", "topic": "mqtt", "key": "{topic}", "partitions": 16, "default": true },
    ]);
    assert_eq!(answer(&running, &["routes"]), routes);
    let partition = model::partition_of_key(b"other", 16);
    for (topic, takes) in [
        (
            "site/17/pump/temp",
            serde_json::json!({ "route": 1, "topic": "telemetry", "key": "pump", "partition": 0 }),
        ),
        (
            "other",
            serde_json::json!({ "route": 2, "topic": "mqtt", "key": "other", "partition": partition }),
        ),
        (
            "$kafka/orders/7",
            serde_json::json!({ "route": null, "topic": "orders", "key": "7", "partition": null }),
        ),
    ] {
        assert_eq!(answer(&running, &["routes", topic]), takes);
    }
    let said = |arguments: &[&str]| {
        let mut command = alluvium();
        command.arg("mqtt").args(arguments);
        Said::of(
            command
                .args(["--http", &running.http])
                .output()
                .expect("it runs"),
        )
        .stdout
    };
    let table = said(&["routes"]);
    assert!(
        table.contains("site/{site}/{device}/#  telemetry  {device}"),
        "{table}"
    );
    let goes = "site/1/p goes by route 1 to telemetry, key p, partition 0\n\
                who may: alluvium acl check USER write topic:telemetry/site/1/p\n";
    assert_eq!(said(&["routes", "site/1/p"]), goes);
    for none in ["$SYS/x", "a/#"] {
        assert_ne!(tool(&running, &["routes", none]).status.code(), Some(0));
    }
}
