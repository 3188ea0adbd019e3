//! Routes: which Kafka topics messages go to and come from, what a change of them does, and `$kafka/…`.

use std::path::Path;
use std::process::Command;

use client::producer::{Producer, ProducerConfig, ProducerRecord};
use client::{Client, ClientConfig};
use model::TopicName;
use rustix::process::Signal;

use super::history::{next, pairs, said, user};
use super::sessions::{come_back, kept, publish_qos_2, take, take_all};
use super::wire::{Connect, Mqtt};
use super::{retain, serve_mqtt, until_metric, until_wills};
use crate::binary::{Running, alluvium, tool};

/// What devices say goes to `telemetry` under their names, what sites say to `sites`, and the rest to `mqtt`.
const ROUTES: &str = r#"mqtt.route=[
    {"filter": "site/{site}/{device}/#", "topic": "telemetry", "key": "{device}", "partitions": 4},
    {"filter": "site/#", "topic": "sites", "partitions": 3}
]"#;

fn serve_routes(data: &Path, routes: &str) -> Command {
    let mut command = serve_mqtt(data);
    command.args(["-X", routes]);
    command
}

/// All records of a topic: key, value, and what the header `mqtt.topic` says.
fn all_of(running: &Running, topic: &str) -> Vec<(String, String, Option<String>)> {
    let said = tool(&["consume", topic, "-b", &running.kafka, "-e", "-f", "json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let mut all: Vec<_> = { said.stdout.lines() }
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
            let headers = record["headers"].as_array().cloned().unwrap_or_default();
            let mut headers = headers.chunks(2);
            let topic = headers.find(|header| header[0] == "mqtt.topic");
            let topic = topic.map(|header| text(&header[1]));
            (text(&record["key"]), text(&record["payload"]), topic)
        })
        .collect();
    all.sort();
    all
}

async fn produce(running: &Running, topic: &str, key: Option<&[u8]>, value: &str) {
    let client = Client::connect(ClientConfig::new(&running.kafka)).await;
    let client = client.expect("a client");
    let producer = Producer::new(&client, ProducerConfig::default()).expect("a producer");
    let name = TopicName::parse(topic).expect("a name");
    let mut record = ProducerRecord::new(name, value.to_owned());
    if let Some(key) = key {
        record = record.key(key.to_vec());
    }
    let sent = producer.send(record).await.expect("taken");
    sent.wait().await.expect("durable");
}

#[tokio::test]
async fn a_message_is_stored_by_the_first_route_that_takes_it_and_comes_back_under_its_topic() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_routes(directory.path(), ROUTES));
    let address = running.other("MQTT");
    let messages = [
        ("other", "1"),
        ("site/17", "2"),
        ("site/17/pump/temp", "3"),
        ("site/18/pump", "4"),
        ("site/18/valve/x", "5"),
    ];
    for (version, qos) in [(4, 0), (5, 1), (5, 2)] {
        // It reads three Kafka topics, another one of them, and one both.
        let mut all = Mqtt::connect(address, version, "all").await;
        assert_eq!(
            all.subscribe(&[("#", qos), ("site/17/#", qos)], &[]).await,
            [qos; 2]
        );
        let mut pumps = Mqtt::connect(address, version, "pumps").await;
        assert_eq!(pumps.subscribe(&[("site/+/pump/#", qos)], &[]).await, [qos]);
        let mut sites = Mqtt::connect(address, version, "sites").await;
        assert_eq!(sites.subscribe(&[("site/+", qos)], &[]).await, [qos]);
        let mut pump = Mqtt::connect(address, version, "pump").await;
        for (topic, payload) in messages {
            match qos {
                0 => assert_eq!(pump.publish(1, topic, payload.as_bytes()).await, 0),
                1 => assert_eq!(pump.publish(1, topic, payload.as_bytes()).await, 0),
                _ => publish_qos_2(&mut pump, 1, topic, payload.as_bytes()).await,
            }
        }
        for (reader, wanted) in [
            (&mut all, &messages[..]),
            (&mut pumps, &messages[2..4]),
            (&mut sites, &messages[1..2]),
        ] {
            let mut found: Vec<_> = take_all(reader, wanted.len())
                .await
                .into_iter()
                .map(|it| (it.topic, String::from_utf8(it.payload).expect("text")))
                .collect();
            found.sort();
            assert_eq!(found, pairs(wanted), "QoS {qos}");
            reader.ping().await;
        }
    }
    let of = |key: &str, value: &str, topic: Option<&str>| {
        (key.to_owned(), value.to_owned(), topic.map(str::to_owned))
    };
    let three = |one: &[_]| {
        let mut all: Vec<(String, String, Option<String>)> = [one, one, one].concat();
        all.sort();
        all
    };
    let telemetry = [
        of("pump", "3", Some("site/17/pump/temp")),
        of("pump", "4", Some("site/18/pump")),
        of("valve", "5", Some("site/18/valve/x")),
    ];
    assert_eq!(all_of(&running, "telemetry"), three(&telemetry));
    let sites = [of("site/17", "2", None)];
    assert_eq!(all_of(&running, "sites"), three(&sites));
    assert_eq!(all_of(&running, "mqtt"), three(&[of("other", "1", None)]));
    let (_, told) = running.ask_json("GET /api/v1/topics/telemetry", "");
    let count = told["partitions"].as_array().map(Vec::len);
    assert_eq!(count, Some(4), "{told}");
}

#[tokio::test]
async fn what_others_write_reaches_subscribers_by_header_or_key_as_the_route_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_routes(directory.path(), ROUTES));
    let mut reader = Mqtt::connect(running.other("MQTT"), 5, "reader").await;
    assert_eq!(reader.subscribe(&[("#", 1)], &[]).await, [1]);
    // Keys are topics there, and devices here.
    produce(&running, "telemetry", Some(b"site/1/pump/x"), "no topic").await;
    produce(&running, "sites", Some(b"site/1"), "by its key").await;
    produce(&running, "sites", Some(b"$kafka/sites/x"), "no topic").await;
    assert_eq!(
        next(&mut reader, 1).await,
        pairs(&[("site/1", "by its key")])
    );
    reader.ping().await;
}

#[tokio::test]
async fn retained_messages_and_wills_follow_their_routes() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_routes(directory.path(), ROUTES));
    let address = running.other("MQTT");
    let will = Connect {
        will: Some(("site/9/pump/state", "gone", 0x28)),
        ..Connect::of(5, "pump")
    };
    let mut pump = Mqtt::connect_as(address, &will).await;
    assert_eq!(retain(&mut pump, "site/9/pump/temp", &[], b"20").await, 0);
    assert_eq!(retain(&mut pump, "other", &[], b"1").await, 0);
    drop(pump);
    until_wills(&running, 1).await;
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_routes(directory.path(), ROUTES));
    let mut reader = Mqtt::connect(running.other("MQTT"), 4, "reader").await;
    assert_eq!(reader.subscribe(&[("#", 1)], &[]).await, [1]);
    let wanted = [
        ("other", "1"),
        ("site/9/pump/state", "gone"),
        ("site/9/pump/temp", "20"),
    ];
    assert_eq!(next(&mut reader, 3).await, pairs(&wanted));
    let found = all_of(&running, "telemetry");
    let values: Vec<&str> = found.iter().map(|it| it.1.as_str()).collect();
    assert_eq!(values, ["20", "gone"]);
}

#[tokio::test]
async fn a_kept_session_goes_on_in_all_topics_that_it_reads_over_a_kill() {
    for version in [4, 5] {
        let directory = tempfile::tempdir().expect("a directory");
        let serve = || Running::start(&mut serve_routes(directory.path(), ROUTES));
        let mut running = serve();
        let (mut reader, _) = come_back(&running, &kept(version, "reader")).await;
        let filters = [("site/#", 2), ("other", 1)];
        assert_eq!(reader.subscribe(&filters, &[]).await, [2, 1]);
        let topics = ["site/1", "site/1/pump/a", "other"];
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        for topic in topics {
            publish_qos_2(&mut pump, 1, topic, b"unacknowledged").await;
        }
        let mut first = Vec::new();
        for _ in topics {
            first.push(reader.message().await);
        }
        drop(reader);
        until_metric(&running, "alluvium_mqtt_clients 1").await;
        for round in 0..2 {
            for topic in topics {
                publish_qos_2(&mut pump, 2, topic, format!("{round}").as_bytes()).await;
            }
            running.end(Signal::KILL);
            running = serve();
            pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        }
        let (mut reader, present) = come_back(&running, &kept(version, "reader")).await;
        assert!(present);
        // First what it had, under the same identifiers, and then the rest, in order.
        let found = take_all(&mut reader, 9).await;
        for again in &found[..3] {
            let before = first.iter().find(|it| it.topic == again.topic);
            let before = before.expect("it was sent");
            assert!(again.dup);
            assert_eq!((again.qos, again.packet_id), (before.qos, before.packet_id));
        }
        for topic in topics {
            let of = found.iter().filter(|it| it.topic == topic);
            let payloads: Vec<_> = of.map(|it| it.payload.clone()).collect();
            assert_eq!(payloads, [&b"unacknowledged"[..], b"0", b"1"], "{topic}");
        }
        reader.ping().await;
    }
}

/// A record of before the change, what came while nobody was connected, and what came behind the change: each once.
#[tokio::test]
async fn routes_that_change_leave_out_nothing_for_kept_sessions_and_give_nothing_twice() {
    for version in [4, 5] {
        let directory = tempfile::tempdir().expect("a directory");
        let serve = |routes: &str| Running::start(&mut serve_routes(directory.path(), routes));
        let running = serve("mqtt.route=[]");
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        // The later topic is there, with something under such a name that was never to be sent.
        assert_eq!(pump.publish(1, "$kafka/sites/site/1", b"before").await, 0);
        let (mut reader, _) = come_back(&running, &kept(version, "reader")).await;
        assert_eq!(
            reader.subscribe(&[("site/#", 1), ("x", 1)], &[]).await,
            [1, 1]
        );
        let shared = [("$share/g/site/+", 1)];
        let (mut member, _) = come_back(&running, &kept(version, "member")).await;
        assert_eq!(member.subscribe(&shared, &[]).await, [1]);
        assert_eq!(pump.publish(1, "site/1", b"given").await, 0);
        assert_eq!(take(&mut reader).await.payload, b"given");
        assert_eq!(take(&mut member).await.payload, b"given");
        for mqtt in [&mut reader, &mut member] {
            mqtt.ping().await;
        }
        drop((reader, member));
        until_metric(&running, "alluvium_mqtt_clients 1").await;
        assert_eq!(pump.publish(1, "site/1", b"old").await, 0);
        let mut running = running;
        for (number, routes) in ["mqtt.route=[]", ROUTES, ROUTES, "mqtt.route=[]"]
            .iter()
            .enumerate()
        {
            running.end(Signal::KILL);
            running = serve(routes);
            let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
            let payload = format!("new {number}");
            assert_eq!(pump.publish(1, "site/1", payload.as_bytes()).await, 0);
        }
        for name in ["reader", "member"] {
            let (mut back, present) = come_back(&running, &kept(version, name)).await;
            assert!(present);
            let found = take_all(&mut back, 5).await;
            let mut found: Vec<_> = { found.into_iter() }
                .map(|it| String::from_utf8(it.payload).expect("text"))
                .collect();
            found.sort();
            assert_eq!(found, ["new 0", "new 1", "new 2", "new 3", "old"], "{name}");
            back.ping().await;
            // What it has now is kept like this.
            drop(back);
            until_metric(&running, "alluvium_mqtt_clients 0").await;
        }
        running.end(Signal::KILL);
        let running = serve(ROUTES);
        let (mut reader, _) = come_back(&running, &kept(version, "reader")).await;
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        assert_eq!(pump.publish(1, "site/1", b"last").await, 0);
        assert_eq!(take(&mut reader).await.payload, b"last");
        reader.ping().await;
    }
}

#[tokio::test]
async fn history_and_last_values_are_of_all_topics_that_a_filter_reads() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_routes(directory.path(), "mqtt.route=[]"));
    let mut pump = Mqtt::connect(running.other("MQTT"), 4, "pump").await;
    for (topic, payload) in [("site/1", "first"), ("other", "first")] {
        assert_eq!(pump.publish(1, topic, payload.as_bytes()).await, 0);
    }
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_routes(directory.path(), ROUTES));
    let address = running.other("MQTT");
    let mut pump = Mqtt::connect(address, 4, "pump").await;
    for round in 0..3 {
        for topic in ["site/1", "site/1/pump/a", "other"] {
            let payload = format!("{round}");
            assert_eq!(pump.publish(1, topic, payload.as_bytes()).await, 0);
        }
    }
    let of = |topic: &'static str| [(topic, "0"), (topic, "1"), (topic, "2")];
    let site = [
        &[("site/1", "first")][..],
        &of("site/1"),
        &of("site/1/pump/a"),
    ]
    .concat();
    for version in [4, 5] {
        // What came before the route is where it was.
        let mut reader = Mqtt::connect(address, version, "reader").await;
        assert_eq!(
            reader
                .subscribe(&[("$replay/earliest/site/#", 1)], &[])
                .await,
            [1]
        );
        let mut wanted = pairs(&site);
        wanted.sort();
        assert_eq!(next(&mut reader, 7).await, wanted);
        assert_eq!(reader.subscribe(&[("$last/#", 1)], &[]).await, [1]);
        let newest = [("other", "2"), ("site/1", "2"), ("site/1/pump/a", "2")];
        assert_eq!(next(&mut reader, 3).await, pairs(&newest));
        reader.ping().await;
    }
    // It goes on behind what was taken, whichever topic that was in.
    let mut taken = std::collections::BTreeMap::new();
    let mut found = Vec::new();
    let mut from = "earliest".to_owned();
    for count in [4, 4, 3] {
        let mut reader = Mqtt::connect(address, 5, "reader").await;
        assert_eq!(
            reader
                .subscribe(&[(&format!("$replay/{from}/#"), 0)], &[])
                .await,
            [0]
        );
        for _ in 0..count {
            let message = reader.message().await;
            let offset = said(&message, "log-offset").expect("it says where it is");
            let (partition, offset) = offset.rsplit_once(':').expect("both");
            taken.insert(partition.to_owned(), offset.to_owned());
            found.push((
                message.topic,
                String::from_utf8(message.payload).expect("text"),
            ));
        }
        let all = taken.iter().map(|(of, offset)| format!("{of}:{offset}"));
        from = format!("@{}", all.collect::<Vec<_>>().join(","));
    }
    let mut all = pairs(&[&site[..], &[("other", "first")], &of("other")].concat());
    all.sort();
    found.sort();
    assert_eq!(found, all);
    assert!(
        taken.keys().any(|it| it.starts_with("telemetry:")),
        "{taken:?}"
    );
    let mut reader = Mqtt::connect(address, 5, "reader").await;
    // A limit is that of all topics together, and a pace that of one.
    let limit = [user("replay-from", "earliest"), user("replay-limit", "5")].concat();
    assert_eq!(reader.subscribe(&[("#", 1)], &limit).await, [1]);
    assert_eq!(next(&mut reader, 5).await.len(), 5);
    until_metric(&running, "alluvium_mqtt_readers 0").await;
    reader.ping().await;
    let speed = [
        user("replay-from", "earliest"),
        user("replay-speed", "100000"),
    ]
    .concat();
    assert_eq!(reader.subscribe(&[("#", 1)], &speed).await, [0x83]);
    assert_eq!(reader.subscribe(&[("site/+", 1)], &speed).await, [1]);
    assert_eq!(next(&mut reader, 3).await, pairs(&of("site/1")));
    assert_eq!(
        reader.subscribe(&[("$replay/@x:0:1/#", 1)], &[]).await,
        [0x8f]
    );
    reader.ping().await;
}

#[tokio::test]
async fn a_shared_subscription_shares_the_messages_of_all_its_topics() {
    let directory = tempfile::tempdir().expect("a directory");
    let serve = || Running::start(&mut serve_routes(directory.path(), ROUTES));
    let running = serve();
    let mut members = Vec::new();
    for name in ["one", "two"] {
        let (mut member, _) = come_back(&running, &kept(5, name)).await;
        assert_eq!(member.subscribe(&[("$share/g/#", 1)], &[]).await, [1]);
        members.push(member);
    }
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    let topics = ["site/1", "site/1/pump/a", "other"];
    let [one, two] = &mut members[..] else {
        panic!("two");
    };
    for round in 0..4u8 {
        for topic in topics {
            assert_eq!(pump.publish(1, topic, &[round]).await, 0);
            let (message, member) = tokio::select! {
                message = one.message() => (message, &mut *one),
                message = two.message() => (message, &mut *two),
            };
            member.ack(0x40, message.packet_id).await;
            assert_eq!(
                (message.topic.as_str(), message.payload),
                (topic, vec![round])
            );
        }
    }
    for member in &mut members {
        member.ping().await;
    }
    drop(members);
    until_metric(&running, "alluvium_mqtt_clients 1").await;
    for topic in topics {
        assert_eq!(pump.publish(1, topic, b"waits").await, 0);
    }
    running.end(Signal::KILL);
    let running = serve();
    let (mut one, present) = come_back(&running, &kept(5, "one")).await;
    assert!(present);
    let mut found: Vec<_> = Vec::new();
    while found.len() < 3 {
        let message = take(&mut one).await;
        // What was acknowledged just before the kill may come again.
        if message.payload == b"waits" {
            found.push(message.topic);
        }
    }
    found.sort();
    assert_eq!(found, ["other", "site/1", "site/1/pump/a"]);
}

#[tokio::test]
async fn who_may_what_is_said_by_the_rules_of_the_routes_topic() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let users = directory.path().join("users");
    std::fs::write(
        &users,
        "alice:correct horse battery\nroot:correct horse battery\n",
    )
    .expect("a file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&users, mode).expect("its owner's file");
    let mut command = serve_routes(&directory.path().join("store"), ROUTES);
    command.args(["-X", &format!("sasl.users.file={}", users.display())]);
    command.args(["-X", "super.users=User:root;User:ANONYMOUS"]);
    command.args([
        "-X",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ]);
    let running = Running::start(&mut command);
    for right in ["read", "write"] {
        let args = [
            "acl",
            "allow",
            "alice",
            right,
            "topic:telemetry",
            "--http",
            &running.http,
        ];
        let made = tool(&args);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
    }
    let address = running.other("MQTT");
    let login = |name, user| Connect {
        login: Some((user, "correct horse battery")),
        ..Connect::of(5, name)
    };
    let mut root = Mqtt::connect_as(address, &login("root", "root")).await;
    assert_eq!(root.publish(1, "other", b"x").await, 0);
    let mut alice = Mqtt::connect_as(address, &login("alice", "alice")).await;
    for (topic, code) in [
        ("site/1/pump/a", 0),
        ("site/1", 0x87),
        ("other", 0x87),
        ("$kafka/telemetry/x", 0),
        ("$kafka/mqtt/x", 0x87),
        ("$kafka/new/x", 0x87),
    ] {
        assert_eq!(alice.publish(1, topic, b"x").await, code, "{topic}");
    }
    let filters = [
        ("site/1/pump/#", 0),
        ("site/#", 0),
        ("#", 0),
        ("$kafka/telemetry/#", 0),
        ("$kafka/mqtt/#", 0),
        ("$replay/latest/site/1/pump/#", 0),
        ("$replay/latest/site/#", 0),
        ("$last/other", 0),
    ];
    let codes = alice.subscribe(&filters, &[]).await;
    assert_eq!(codes, [0, 0x87, 0x87, 0, 0x87, 0, 0x87, 0x87]);
    for (topic, code) in [
        ("site/1/pump/state", 0),
        ("other", 0x87),
        ("$kafka/mqtt/x", 0x87),
        ("$kafka/telemetry/x", 0),
        ("$SYS/x", 0x90),
        ("$kafka/__consumer_offsets/x", 0x87),
    ] {
        let connect = Connect {
            will: Some((topic, "gone", 0)),
            ..login("will", "alice")
        };
        let (_, answer) = Mqtt::try_connect(address, &connect).await;
        assert_eq!(answer.expect("an answer")[1], code, "{topic}");
    }
}

#[tokio::test]
async fn every_kafka_topic_is_read_and_written_by_its_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let serve = || Running::start(&mut serve_mqtt(directory.path()));
    let running = serve();
    let address = running.other("MQTT");
    produce(&running, "orders", Some(b"7"), "before").await;
    for version in [4, 5] {
        let mut all = Mqtt::connect(address, version, "all").await;
        assert_eq!(all.subscribe(&[("$kafka/orders/#", 1)], &[]).await, [1]);
        let mut keyed = Mqtt::connect(address, version, "keyed").await;
        assert_eq!(keyed.subscribe(&[("$kafka/orders/+", 1)], &[]).await, [1]);
        let mut one = Mqtt::connect(address, version, "one").await;
        let one_key = [("$kafka/orders/7", 1), ("$kafka/orders/a/b", 1)];
        assert_eq!(one.subscribe(&one_key, &[]).await, [1, 1]);
        let mut front = Mqtt::connect(address, version, "front").await;
        assert_eq!(
            front.subscribe(&[("#", 1), ("+/orders/+", 1)], &[]).await,
            [1, 1]
        );
        produce(&running, "orders", Some(b"7"), "new").await;
        produce(&running, "orders", None, "keyless").await;
        produce(&running, "orders", Some(b"\xff"), "no text").await;
        // Written as it is read; without a key, too.
        let mut pump = Mqtt::connect(address, version, "pump").await;
        assert_eq!(pump.publish(1, "$kafka/orders/a/b", b"by MQTT").await, 0);
        assert_eq!(pump.publish(1, "$kafka/orders", b"by MQTT").await, 0);
        let [seven, ab] = [("$kafka/orders/7", "new"), ("$kafka/orders/a/b", "by MQTT")];
        let keyless = ["by MQTT", "keyless", "no text"].map(|it| ("$kafka/orders", it));
        let mut wanted = pairs(&[&keyless[..], &[seven, ab]].concat());
        wanted.sort();
        assert_eq!(next(&mut all, 5).await, wanted);
        assert_eq!(next(&mut keyed, 1).await, pairs(&[seven]));
        assert_eq!(next(&mut one, 2).await, pairs(&[seven, ab]));
        // Wildcards at the front do not see it.
        for reader in [&mut all, &mut keyed, &mut one, &mut front] {
            reader.ping().await;
        }
        let past = [
            ("$replay/earliest/$kafka/orders/7", 1),
            ("$last/$kafka/orders/#", 1),
        ];
        assert_eq!(front.subscribe(&past[..1], &[]).await, [1]);
        let count = if version == 4 { 2 } else { 3 };
        let replayed = next(&mut front, count).await;
        assert!(
            replayed.iter().any(|(_, value)| value == "before"),
            "{replayed:?}"
        );
        assert_eq!(front.subscribe(&past[1..], &[]).await, [1]);
        let last = next(&mut front, 3).await;
        let names: Vec<&str> = last.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(
            names,
            ["$kafka/orders", "$kafka/orders/7", "$kafka/orders/a/b"]
        );
        front.ping().await;
    }
    let found = all_of(&running, "orders");
    let keys: Vec<&str> = { found.iter() }
        .filter(|(_, value, _)| value == "by MQTT")
        .map(|(key, ..)| key.as_str())
        .collect();
    assert_eq!(keys, ["-", "-", "a/b", "a/b"]);
    let mut mqtt = Mqtt::connect(address, 5, "refused").await;
    for (topic, code) in [
        ("$SYS/x", 0x90),
        ("$kafka", 0x90),
        ("$kafka/", 0x90),
        ("$kafka/a b/x", 0x90),
        ("$kafka/__consumer_offsets/x", 0x87),
        ("$kafka/__audit_log/x", 0x87),
        ("$share/g/a", 0x90),
        ("$replay/-1h/a", 0x90),
    ] {
        assert_eq!(mqtt.publish(1, topic, b"x").await, code, "{topic}");
    }
    let filters = [
        ("$kafka/#", 1),
        ("$kafka/+/a", 1),
        ("$kafka/a b/#", 1),
        ("$SYS/#", 1),
    ];
    assert_eq!(mqtt.subscribe(&filters, &[]).await, [0x8f; 4]);
    // What calls itself an administrator's tool is no more than others.
    let mut admin = Mqtt::connect(address, 5, "__admin_client").await;
    assert_eq!(
        admin.publish(1, "$kafka/__consumer_offsets/x", b"x").await,
        0x87
    );
}

#[tokio::test]
async fn a_kept_session_a_shared_subscription_and_what_is_retained_are_of_kafka_topics_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let serve = || Running::start(&mut serve_mqtt(directory.path()));
    let running = serve();
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    // Under two names it is one message, by its own topic.
    let filters = [
        ("$kafka/orders/#", 2),
        ("$kafka/mqtt/site/+", 1),
        ("site/1", 1),
    ];
    assert_eq!(reader.subscribe(&filters, &[]).await, [2, 1, 1]);
    assert_eq!(
        reader
            .subscribe(&[("$share/g/$kafka/orders/+", 1)], &[])
            .await,
        [1]
    );
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    assert_eq!(
        retain(&mut pump, "$kafka/orders/r", &[], b"retained").await,
        0
    );
    assert_eq!(pump.publish(1, "site/1", b"1").await, 0);
    assert_eq!(pump.publish(1, "site/2", b"2").await, 0);
    let mut found: Vec<_> = { take_all(&mut reader, 4).await.into_iter() }
        .map(|it| it.topic)
        .collect();
    found.sort();
    let both = [
        "$kafka/mqtt/site/2",
        "$kafka/orders/r",
        "$kafka/orders/r",
        "site/1",
    ];
    assert_eq!(found, both);
    reader.ping().await;
    drop(reader);
    until_metric(&running, "alluvium_mqtt_clients 1").await;
    produce(&running, "orders", Some(b"9"), "waits").await;
    running.end(Signal::KILL);
    let running = serve();
    let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
    assert!(present);
    let mut count = 0;
    while count < 2 {
        let found = take_all(&mut reader, 1).await;
        count += found.iter().filter(|it| it.payload == b"waits").count();
    }
    let mut late = Mqtt::connect(running.other("MQTT"), 4, "late").await;
    assert_eq!(late.subscribe(&[("$kafka/orders/#", 1)], &[]).await, [1]);
    let message = take(&mut late).await;
    assert_eq!(
        (message.topic.as_str(), message.retain),
        ("$kafka/orders/r", true)
    );
}

#[test]
fn routes_that_cannot_be_are_refused_at_the_start_with_file_and_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("server.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).expect("a file");
        tool(&["config", "check", "--config", file.to_str().expect("text")])
    };
    let route =
        |filter: &str, more: &str| format!("[[mqtt.route]]\nfilter = \"{filter}\"\n{more}\n");
    let good = route(
        "site/{site}/{device}/#",
        "topic = \"telemetry\"\nkey = \"{device}\"",
    );
    assert_eq!(check(&good).code, Some(0));
    for (text, said) in [
        (route("a/#", ""), "missing field `topic`"),
        (route("a/#/b", "topic = \"t\""), "# stands alone"),
        (
            route("{a}", "topic = \"t\"\nkey = \"{b}\""),
            "the filter has no {b}",
        ),
        (route("a", "topic = \"a/b\""), "a topic name consists of"),
        (
            good.clone() + &route("site/+/x/y", "topic = \"u\""),
            "route 2: filter site/+/x/y: route 1",
        ),
    ] {
        let refused = check(&text);
        assert_ne!(refused.code, Some(0), "{text}");
        let told = refused.stdout + &refused.stderr;
        assert!(
            told.contains(said) && told.contains("server.toml, line 1"),
            "{told}"
        );
    }
    std::fs::write(&file, &good).expect("a file");
    let shown = tool(&[
        "config",
        "show",
        "--json",
        "--config",
        file.to_str().expect("text"),
    ]);
    let shown = shown.stdout;
    assert!(shown.contains("telemetry"), "{shown}");
    // Elsewhere it is a JSON array.
    let mut command = alluvium();
    command.args(["config", "check"]);
    command.env("ALLUVIUM_MQTT_ROUTE", "[{\"filter\": \"a\"}]");
    let refused = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("ALLUVIUM_MQTT_ROUTE") && told.contains("route 1"),
        "{told}"
    );
}

#[tokio::test]
async fn a_gap_in_a_routes_topic_is_told_with_its_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_routes(directory.path(), ROUTES));
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    let filters = [("site/#", 1), ("other", 1)];
    assert_eq!(reader.subscribe(&filters, &[]).await, [1, 1]);
    drop(reader);
    until_metric(&running, "alluvium_mqtt_clients 0").await;
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for _ in 0..3 {
        assert_eq!(pump.publish(1, "site/1/pump/a", b"gone").await, 0);
    }
    let delete = ["topic", "delete-records", "telemetry", "--before", "latest"];
    let deleted = tool(&[&delete[..], &["--yes", "-b", &running.kafka]].concat());
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
    assert_eq!(pump.publish(1, "site/1/pump/a", b"there").await, 0);
    assert_eq!(pump.publish(1, "other", b"whole").await, 0);
    let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
    assert!(present);
    let partition = model::partition_of_key(b"pump", 4);
    for message in take_all(&mut reader, 2).await {
        let told = said(&message, "log-gap");
        match &message.payload[..] {
            b"there" => assert_eq!(told, Some(format!("telemetry:{partition}:0..3"))),
            _ => assert_eq!(told, None, "nothing is missing there"),
        }
    }
}

#[tokio::test]
async fn what_named_a_kafka_topic_that_is_deleted_ends_and_holds_up_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_mqtt(directory.path());
    command.args(["-X", "auto.create.topics.enable=false"]);
    let running = Running::start(&mut command);
    let created = tool(&["topic", "create", "orders", "-b", &running.kafka]);
    assert_eq!(created.code, Some(0), "{}", created.stderr);
    let mut mqtt = Mqtt::connect(running.other("MQTT"), 5, "none").await;
    assert_eq!(mqtt.publish(1, "$kafka/none/x", b"x").await, 0x90);
    assert_eq!(mqtt.subscribe(&[("$kafka/none/x", 1)], &[]).await, [0x8f]);
    let with_will = Connect {
        will: Some(("$kafka/orders/gone", "gone", 0x08)),
        ..kept(5, "reader")
    };
    let (mut reader, _) = come_back(&running, &with_will).await;
    let filters = [("$kafka/orders/#", 1), ("a", 1)];
    assert_eq!(reader.subscribe(&filters, &[]).await, [1, 1]);
    let deleted = tool(&["topic", "delete", "orders", "--yes", "-b", &running.kafka]);
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
    // Its feed cannot go on: its client connects again, and the will has nowhere to go.
    assert_eq!(reader.ended().await, Some(0x83));
    let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
    assert!(present);
    assert_eq!(mqtt.publish(1, "a", b"goes on").await, 0);
    assert_eq!(take(&mut reader).await.payload, b"goes on");
    reader.ping().await;
}
