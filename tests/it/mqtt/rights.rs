//! Rules on parts of a Kafka topic: who may publish and subscribe to which MQTT topics below it.

use std::path::Path;

use base64::Engine as _;

use super::sessions::{come_back, kept};
use super::wire::{Connect, Mqtt};
use super::{retain, serve_mqtt};
use crate::binary::Running;
use crate::denied::{PASSWORD, as_root, control};

/// A server with access control and these rules on topics: permission, user, operation and name.
fn ruled(directory: &Path, rules: &[(&str, &str, &str, &str)]) -> Running {
    let mut command = serve_mqtt(&directory.join("store"));
    control(&mut command, directory);
    let route = r#"mqtt.route=[{"filter": "site/#", "topic": "sites"}]"#;
    let running = Running::start(command.args(["-X", route]));
    for of in rules {
        rule(&running, "topic", *of);
    }
    rule(&running, "group", ("allow", "*", "read", "*"));
    running
}

fn rule(
    running: &Running,
    kind: &str,
    (permission, user, operation, name): (&str, &str, &str, &str),
) {
    let rule = serde_json::json!({
        "resource_type": kind, "name": name, "pattern": "literal", "principal": format!("User:{user}"),
        "host": "*", "operation": operation, "permission": permission,
    });
    as_root(running, "POST /api/v1/acls", &rule.to_string());
}

fn of<'a>(user: &'a str, connect: Connect<'a>) -> Connect<'a> {
    Connect {
        login: Some((user, PASSWORD)),
        ..connect
    }
}

async fn connect(running: &Running, user: &str, version: u8, client_id: &str) -> Mqtt {
    let connect = of(user, Connect::of(version, client_id));
    Mqtt::connect_as(running.other("MQTT"), &connect).await
}

/// A fleet: each device by its client id, each user below its name, and what no device may.
const FLEET: &[(&str, &str, &str, &str)] = &[
    ("allow", "*", "write", "mqtt/devices/%c/#"),
    ("allow", "*", "read", "mqtt/devices/%c/cmd/#"),
    ("deny", "*", "write", "mqtt/devices/+/secret"),
    ("allow", "*", "all", "mqtt/%u/#"),
    ("allow", "alice", "read", "sites/site/1/#"),
];

#[tokio::test]
async fn a_client_publishes_where_a_rule_lets_it_and_nowhere_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = ruled(directory.path(), FLEET);
    for (topic, code) in [
        ("devices/pump/temp", 0),
        ("devices/pump", 0),
        ("alice/x", 0),
        ("devices/fan/temp", 0x87),
        ("devices/pump/secret", 0x87),
        ("bob/x", 0x87),
        ("devices", 0x87),
        ("site/1/x", 0x87),
        // As records of the Kafka topic they are for who may write to all of it.
        ("$kafka/mqtt/devices/pump/temp", 0x87),
        ("$kafka/mqtt", 0x87),
    ] {
        let mut pump = connect(&running, "alice", 5, "pump").await;
        assert_eq!(pump.publish(1, topic, b"x").await, code, "{topic}");
        assert_eq!(retain(&mut pump, topic, &[], b"x").await, code, "{topic}");
        // What has no ack ends the connection.
        let publish = pump.publish_packet((0, 0), topic, &[], b"x");
        pump.send(&publish).await;
        match code {
            0 => pump.ping().await,
            code => assert_eq!(pump.ended().await, Some(code), "{topic}"),
        }
        for version in [4, 5] {
            let will = Connect {
                will: Some((topic, "gone", 0x20)),
                ..Connect::of(version, "pump")
            };
            let will = of("alice", will);
            let (_, answer) = Mqtt::try_connect(running.other("MQTT"), &will).await;
            let refused = if version == 5 { 0x87 } else { 5 };
            let expected = if code == 0 { 0 } else { refused };
            assert_eq!(answer.expect("an answer")[1], expected, "{topic}");
        }
        // 3.1.1 has no word for it.
        if code != 0 {
            let mut old = connect(&running, "alice", 4, "pump").await;
            let publish = old.publish_packet((1, 1), topic, &[], b"x");
            old.send(&publish).await;
            assert_eq!(old.ended().await, None, "{topic}");
        }
    }
    // The topic is hers in no other protocol.
    let alice = base64::engine::general_purpose::STANDARD.encode(format!("alice:{PASSWORD}"));
    let headers = format!("Authorization: Basic {alice}\r\n");
    assert_eq!(running.ask("GET /api/v1/topics/mqtt", &headers, "").0, 403);
}

#[tokio::test]
async fn a_client_subscribes_to_what_a_rule_lets_it_and_to_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = ruled(directory.path(), FLEET);
    let mut root = connect(&running, "root", 5, "root").await;
    assert_eq!(root.publish(1, "site/1/x", b"x").await, 0);
    for version in [4, 5] {
        let refused = if version == 5 { 0x87 } else { 0x80 };
        for (filter, may) in [
            ("devices/pump/cmd/#", true),
            ("devices/pump/cmd/+/now", true),
            ("devices/pump/cmd", true),
            ("alice/#", true),
            ("site/1/#", true),
            ("site/1/x", true),
            ("#", false),
            ("+/pump/cmd/#", false),
            ("devices/+/cmd/#", false),
            ("devices/pump/#", false),
            ("devices/fan/cmd/#", false),
            ("devices/pump/temp", false),
            ("bob/#", false),
            ("site/#", false),
            ("site/+/x", false),
            // Other messages of the same names may be in another Kafka topic.
            ("+/1/x", false),
            ("$kafka/mqtt/#", false),
            ("$kafka/sites/site/1/x", false),
        ] {
            for head in ["", "$replay/earliest/", "$last/", "$share/g/"] {
                let asked = format!("{head}{filter}");
                let mut pump = connect(&running, "alice", version, "pump").await;
                let told = pump.subscribe(&[(&asked, 1)], &[]).await;
                assert_eq!(told, [if may { 1 } else { refused }], "{asked}");
            }
        }
        // Whoever calls itself a wildcard has nothing by that.
        for client_id in ["+", "#"] {
            let mut wild = connect(&running, "alice", version, client_id).await;
            let filter = format!("devices/{client_id}");
            let told = wild
                .subscribe(&[(&filter, 1), ("devices/+/cmd/#", 1)], &[])
                .await;
            assert_eq!(told, [refused; 2], "{client_id}");
        }
    }
    // What is denied of a part is denied of whatever stands for some of it.
    rule(&running, "topic", ("deny", "alice", "read", "mqtt/alice/x"));
    let mut alice = connect(&running, "alice", 5, "pump").await;
    let filters = [("alice/#", 1), ("alice/x", 1), ("alice/y", 1)];
    assert_eq!(alice.subscribe(&filters, &[]).await, [0x87, 0x87, 1]);
}

#[tokio::test]
async fn who_reads_a_part_is_given_that_part_and_goes_on_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = ruled(directory.path(), FLEET);
    let mut root = connect(&running, "root", 5, "root").await;
    for id in ["fan", "pump"] {
        let topic = format!("devices/{id}/cmd/kept");
        assert_eq!(retain(&mut root, &topic, &[], b"kept").await, 0);
    }
    let pump = of("alice", kept(5, "pump"));
    let (mut mqtt, _) = come_back(&running, &pump).await;
    let filter = [("devices/pump/cmd/#", 1)];
    assert_eq!(mqtt.subscribe(&filter, &[]).await, [1]);
    let first = mqtt.message().await;
    assert_eq!(
        (&*first.topic, first.retain),
        ("devices/pump/cmd/kept", true)
    );
    mqtt.ack(0x40, first.packet_id).await;
    for (topic, payload) in [
        ("devices/fan/cmd/go", "not its"),
        ("devices/pump/temp", "not its either"),
        ("devices/pump/cmd/go", "1"),
    ] {
        assert_eq!(root.publish(1, topic, payload.as_bytes()).await, 0);
    }
    assert_eq!(mqtt.message().await.payload, b"1");
    // It comes again, as it was not acknowledged, and then what came meanwhile.
    drop(mqtt);
    assert_eq!(root.publish(1, "devices/pump/cmd/go", b"2").await, 0);
    let (mut mqtt, present) = come_back(&running, &pump).await;
    assert!(present);
    let again = mqtt.message().await;
    assert_eq!((&again.payload[..], again.dup), (&b"1"[..], true));
    mqtt.ack(0x40, again.packet_id).await;
    let second = mqtt.message().await;
    assert_eq!(second.payload, b"2");
    // One that it subscribes to no more, and was sent, is still its to end.
    let unsubscribe = [vec![0, 78, 0], super::text("devices/pump/cmd/#")].concat();
    mqtt.send(&super::packet(0xa2, &unsubscribe)).await;
    assert_eq!(mqtt.next().await.expect("an answer").0, 0xb0);
    drop(mqtt);
    let (mut mqtt, _) = come_back(&running, &pump).await;
    let again = mqtt.message().await;
    assert_eq!((&again.payload[..], again.dup), (&b"2"[..], true));
    mqtt.ack(0x40, again.packet_id).await;
    // A right that is taken away ends it at the next message.
    assert_eq!(mqtt.subscribe(&filter, &[]).await, [1]);
    assert_eq!(mqtt.message().await.payload, b"kept");
    rule(
        &running,
        "topic",
        ("deny", "*", "read", "mqtt/devices/pump/cmd/go"),
    );
    assert_eq!(root.publish(1, "devices/pump/cmd/go", b"3").await, 0);
    assert_eq!(mqtt.ended().await, Some(0x87));
}

#[tokio::test]
async fn a_rule_on_a_part_that_nothing_could_match_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_mqtt(directory.path());
    for setting in [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
    ] {
        command.args(["-X", setting]);
    }
    let running = Running::start(&mut command);
    let made = |name: &str, pattern: &str, operation: &str| {
        let rule = serde_json::json!({
            "resource_type": "topic", "name": name, "pattern": pattern, "principal": "User:alice",
            "host": "*", "operation": operation, "permission": "allow",
        });
        running.ask_json("POST /api/v1/acls", &rule.to_string())
    };
    for (name, pattern, operation) in [
        ("mqtt/a/#/b", "literal", "read"),
        ("mqtt/a#", "literal", "read"),
        ("mqtt/dev-%c/x", "literal", "read"),
        ("mqtt/", "literal", "read"),
        ("a b/x", "literal", "read"),
        ("mqtt/a/", "prefixed", "read"),
        ("mqtt/a", "literal", "delete"),
    ] {
        let (status, answer) = made(name, pattern, operation);
        assert_eq!(status, 400, "{name} {answer}");
        assert!(answer.to_string().contains("below a topic"), "{answer}");
    }
    assert_eq!(made("mqtt/alice/#", "literal", "read").0, 201);
    let check = |name: &str| {
        let what = format!(
            "GET /api/v1/acls/check?principal=User:alice&operation=read&resource_type=topic&name={name}"
        );
        running.ask_json(&what, "").1["allowed"].clone()
    };
    assert_eq!(check("mqtt/alice/x"), true);
    assert_eq!(check("mqtt/bob/x"), false);
    assert_eq!(check("mqtt"), false);
}
