//! However a connection ends: what the client had said before, and what its session had, is there for the next one.

use std::time::Duration;

use rustix::process::Signal;

use super::sessions::{come_back, kept, publish_qos_2, restart, take, take_all};
use super::wire::{Connect, Mqtt};
use super::{metric, retain, serve_mqtt, until, until_metric, until_wills, values};
use crate::binary::{Running, tool};

/// A DISCONNECT that ends the session.
const ENDS: &[u8] = &[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0];

#[tokio::test]
async fn what_was_said_before_a_takeover_is_heard() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let with_will = || Connect {
        will: Some(("wills", "no", 0)),
        ..kept(5, "hasty")
    };
    for round in 0..40 {
        let (mut first, present) = come_back(&running, &with_will()).await;
        assert!(!present, "{round}: it has said that the session ends");
        // Without waiting for anything: a message, the end of the session, and the next connection.
        let publish = first.publish_packet((0, 0), "said", &[], round.to_string().as_bytes());
        first.send(&[&publish[..], ENDS].concat()).await;
    }
    let (mut last, _) = come_back(&running, &with_will()).await;
    assert_eq!(last.publish(1, "said", b"end").await, 0);
    let said = values(&running, "said").await;
    let wanted = (0..40).map(|round| round.to_string());
    let wanted: Vec<_> = wanted.chain(["end".to_owned()]).collect();
    assert_eq!(said, wanted);
    assert_eq!(metric(&running, "alluvium_mqtt_wills_published_total"), 0);
}

/// A rule of access control, or its end.
fn acl(running: &Running, what: &[&str]) {
    let said = tool(&[&["acl"], what, &["--http", &running.http]].concat());
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_not_read_for_a_while_keeps_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let users = directory.path().join("users");
    std::fs::write(&users, "alice:correct horse battery\n").expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&users, mode).expect("its owner's file");
    let mut command = serve_mqtt(&directory.path().join("store"));
    command.args(["-X", &format!("sasl.users.file={}", users.display())]);
    for setting in [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
    ] {
        command.args(["-X", setting]);
    }
    let running = Running::start(&mut command);
    acl(&running, &["allow", "alice", "read,describe", "topic:mqtt"]);
    let alice = || Connect {
        login: Some(("alice", "correct horse battery")),
        ..kept(5, "reader")
    };
    let (mut reader, _) = come_back(&running, &alice()).await;
    assert_eq!(reader.subscribe(&[("a", 1), ("b", 2)], &[]).await, [1, 2]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    assert_eq!(pump.publish(1, "a", b"1").await, 0);
    publish_qos_2(&mut pump, 2, "b", b"2").await;
    // It takes both, and acknowledges neither.
    let mut before = [reader.message().await, reader.message().await];
    before.sort_by(|one, two| one.topic.cmp(&two.topic));
    drop(reader);
    until_metric(&running, "alluvium_mqtt_clients 1").await;
    assert_eq!(pump.publish(1, "a", b"3").await, 0);
    acl(&running, &["deny", "alice", "read", "topic:mqtt"]);
    for _ in 0..2 {
        let (mut reader, present) = come_back(&running, &alice()).await;
        assert!(present);
        assert_eq!(reader.ended().await, Some(0x87));
    }
    acl(&running, &["remove", "--principal", "alice"]);
    acl(&running, &["allow", "alice", "read,describe", "topic:mqtt"]);
    until_metric(&running, "alluvium_mqtt_clients 1").await;
    let (mut reader, present) = come_back(&running, &alice()).await;
    assert!(present);
    let mut again = take_all(&mut reader, 3).await;
    again.sort_by(|one, two| (&one.topic, one.packet_id).cmp(&(&two.topic, two.packet_id)));
    let ids = |of: &[super::wire::Message]| -> Vec<(Vec<u8>, u16, u8, bool)> {
        of.iter()
            .map(|it| (it.payload.clone(), it.packet_id, it.qos, it.dup))
            .collect()
    };
    let [one, two] = &before;
    let marked = |it: &super::wire::Message| (it.payload.clone(), it.packet_id, it.qos, true);
    for wanted in [marked(one), marked(two)] {
        assert!(ids(&again).contains(&wanted), "{wanted:?}: {again:?}");
    }
    assert!(again.iter().any(|it| it.payload == b"3" && !it.dup));
    reader.ping().await;
}

#[tokio::test]
async fn who_leaves_while_catching_up_misses_nothing() {
    const COUNT: u16 = 1_500;
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    assert_eq!(reader.subscribe(&[("+", 1)], &[]).await, [1]);
    drop(reader);
    until_metric(&running, "alluvium_mqtt_clients 0").await;
    let mut pump = Mqtt::connect(running.other("MQTT"), 4, "pump").await;
    for number in 0..COUNT + 60 {
        if number < COUNT {
            let topic = (number % 5).to_string();
            let payload = number.to_be_bytes();
            let publish = pump.publish_packet((1, number + 1), &topic, &[], &payload);
            pump.send(&publish).await;
        }
        if number >= 60 {
            assert_eq!(pump.next().await.expect("an ack").0, 0x40);
        }
    }
    // Of each hundred it takes some, acknowledges fewer, and goes: politely, cut, or overtaken by itself.
    let mut found = std::collections::BTreeSet::new();
    let mut round = 0;
    while found.len() < usize::from(COUNT) {
        let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
        assert!(present);
        let mut last = std::collections::HashMap::new();
        for taken in 0..150.min(usize::from(COUNT) - found.len()) {
            let message = reader.message().await;
            let number = u16::from_be_bytes(message.payload[..].try_into().expect("a number"));
            if !message.dup && last.get(&message.topic).is_some_and(|last| *last >= number) {
                panic!("{number} is out of order");
            }
            last.insert(message.topic, number);
            if taken < 100 {
                found.insert(number);
                reader.ack(0x40, message.packet_id).await;
            }
        }
        match round % 3 {
            0 => reader.send(&[0xe0, 0]).await,
            1 => reader.send(&[0xf0, 0]).await,
            _ => {}
        }
        round += 1;
    }
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    reader.send(&[0xc0, 0]).await;
    while reader.packet_or_message().await.is_ok() {}
}

#[tokio::test]
async fn a_subscribe_that_is_too_long_for_a_session_changes_nothing_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    assert_eq!(reader.subscribe(&[("a", 1), ("b", 1)], &[]).await, [1, 1]);
    let long: Vec<String> = (0..5)
        .map(|it| format!("{it}{}", "x".repeat(60_000)))
        .collect();
    let mut filters = vec![("a", 0)];
    filters.extend(long.iter().map(|it| (it.as_str(), 1)));
    assert_eq!(reader.subscribe(&filters, &[]).await, [0x97; 6]);
    let running = restart(running, directory.path());
    let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
    assert!(present);
    // One that ends with its connection takes them, as far as filters go.
    let mut other = Mqtt::connect(running.other("MQTT"), 5, "other").await;
    assert_eq!(other.subscribe(&filters, &[]).await, [0, 1, 1, 1, 1, 1]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for topic in ["a", "b"] {
        assert_eq!(pump.publish(1, topic, b"x").await, 0);
        let message = take(&mut reader).await;
        assert_eq!((message.topic.as_str(), message.qos), (topic, 1));
    }
    assert_eq!(pump.publish(1, &long[0], b"x").await, 0);
    reader.ping().await;
}

#[tokio::test]
async fn retained_messages_that_were_taken_do_not_come_again_after_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for topic in ["a/0", "a/1", "a/2"] {
        assert_eq!(retain(&mut pump, topic, &[], b"kept").await, 0);
    }
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    let filters = [("a/0", 0), ("a/1", 1), ("a/2", 2)];
    assert_eq!(reader.subscribe(&filters, &[]).await, [0, 1, 2]);
    for message in take_all(&mut reader, 3).await {
        assert!(message.retain);
    }
    // They are acknowledged; what comes is behind that this is kept.
    reader.ping().await;
    assert_eq!(pump.publish(1, "a/1", b"comes").await, 0);
    assert_eq!(take(&mut reader).await.payload, b"comes");
    let running = restart(running, directory.path());
    let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
    assert!(present);
    reader.send(&[0xc0, 0]).await;
    while let Ok(message) = reader.packet_or_message().await {
        // At least once.
        assert_eq!(
            (&message.payload[..], message.retain),
            (&b"comes"[..], false)
        );
    }
}

#[tokio::test]
async fn what_a_client_retains_and_then_subscribes_to_is_retained() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    for (version, qos) in [(4, 0), (5, 0), (5, 1), (5, 2)] {
        let mut client = Mqtt::connect(running.other("MQTT"), version, "both").await;
        for round in 0..10u16 {
            let topic = format!("{version}/{qos}/{round}");
            let mut publish = client.publish_packet((qos, round + 1), &topic, &[], b"x");
            publish[0] |= 1;
            let subscribe = client.subscribe_packet(&[(&topic, 0)], &[]);
            client.send(&[publish, subscribe].concat()).await;
            let mut found = Vec::new();
            client.send(&[0xc0, 0]).await;
            loop {
                match client.packet_or_message().await {
                    Ok(message) => found.push((message.payload, message.retain)),
                    Err((0xd0, _)) if !found.is_empty() => break,
                    Err((0xd0, _)) => client.send(&[0xc0, 0]).await,
                    Err(_) => {}
                }
            }
            assert_eq!(found, [(b"x".to_vec(), true)], "{topic}");
        }
        // None of them comes from the log, too.
        client.send(&[0xc0, 0]).await;
        loop {
            match client.packet_or_message().await {
                Ok(message) => panic!("{message:?}"),
                Err((0xd0, _)) => break,
                Err(_) => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_that_the_store_does_not_take_for_a_while_is_not_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    assert_eq!(pump.publish(1, "wills", b"before").await, 0);
    let replicas = |count: u8| {
        let change = format!("{{\"set\":{{\"min.insync.replicas\":\"{count}\"}}}}");
        let (status, said) = running.ask_json("PATCH /api/v1/topics/mqtt/settings", &change);
        assert_eq!(status, 200, "{said}");
    };
    let with_will = |client_id: &'static str, connect: Connect<'static>| Connect {
        will: Some(("wills", client_id, 0x08)),
        ..connect
    };
    let (clean, _) = come_back(&running, &with_will("clean", Connect::of(5, "clean"))).await;
    let (stays, _) = come_back(&running, &with_will("stays", kept(5, "stays"))).await;
    replicas(2);
    drop((clean, stays));
    until_metric(&running, "alluvium_mqtt_clients 1").await;
    // Its next connection does not come before its will.
    let (_, answer) = Mqtt::try_connect(running.other("MQTT"), &kept(5, "stays")).await;
    assert_eq!(answer.expect("an answer")[1], 0x89);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(metric(&running, "alluvium_mqtt_wills_published_total"), 0);
    replicas(1);
    until_wills(&running, 2).await;
    let mut found = values(&running, "wills").await;
    found.sort();
    assert_eq!(found, ["before", "clean", "stays"]);
    let (_stays, present) = come_back(&running, &kept(5, "stays")).await;
    assert!(present);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sync_carries_many_wills() {
    const COUNT: u64 = 100;
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut clients = Vec::new();
    for number in 0..COUNT {
        let client_id = number.to_string();
        let connect = Connect {
            will: Some(("wills", &client_id, 0x08)),
            ..Connect::of(4, &client_id)
        };
        clients.push(come_back(&running, &connect).await);
    }
    running.end(Signal::KILL);
    let mut command = serve_mqtt(directory.path());
    command.args(["-X", "mqtt.will.grace.ms=3000"]);
    let running = Running::start(&mut command);
    // What is made only once is there before.
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    assert_eq!(pump.publish(1, "a", b"x").await, 0);
    let syncs = || metric(&running, "alluvium_wal_syncs_total");
    let before = syncs();
    until_wills(&running, usize::try_from(COUNT).expect("few")).await;
    let made = syncs() - before;
    assert!(made < COUNT / 2, "{made} syncs for {COUNT} wills");
    assert_eq!(
        values(&running, "wills").await.len(),
        usize::try_from(COUNT).expect("few")
    );
}

/// Deletes all that there is of the topic.
fn delete_all(running: &Running) {
    let said = tool(&[
        "topic",
        "delete-records",
        "mqtt",
        "--before",
        "latest",
        "--yes",
        "-b",
        &running.kafka,
    ]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_told_to_who_has_no_properties() {
    for version in [4, 5] {
        let directory = tempfile::tempdir().expect("a directory");
        let running = Running::start(&mut serve_mqtt(directory.path()));
        let (mut reader, _) = come_back(&running, &kept(version, "reader")).await;
        let filters = [("a", 1), ("$replay/status", 1)];
        assert_eq!(reader.subscribe(&filters, &[]).await, [1, 0]);
        drop(reader);
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        until_metric(&running, "alluvium_mqtt_clients 1").await;
        for _ in 0..3 {
            assert_eq!(pump.publish(1, "a", b"gone").await, 0);
        }
        delete_all(&running);
        let (mut reader, _) = come_back(&running, &kept(version, "reader")).await;
        let told = reader.message().await;
        assert_eq!((&*told.topic, told.qos), ("$replay/status", 0));
        let partition = model::partition_of_key(b"a", 16);
        let said = format!("{{\"log-gap\":[\"{partition}:0..3\"],\"topic\":\"mqtt\"}}");
        assert_eq!(String::from_utf8_lossy(&told.payload), said);
        assert_eq!(pump.publish(1, "a", b"there").await, 0);
        let message = take(&mut reader).await;
        assert_eq!(
            (message.payload, message.properties.len()),
            (b"there".to_vec(), 0)
        );
        reader.ping().await;
        assert_eq!(pump.publish(1, "$replay/status", b"x").await, 0x90);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gap_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    assert_eq!(reader.subscribe(&[("#", 1)], &[]).await, [1]);
    drop(reader);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    until_metric(&running, "alluvium_mqtt_clients 1").await;
    // Two topics in two partitions.
    let partition = |topic: &str| model::partition_of_key(topic.as_bytes(), 16);
    let other = (0..).map(|it| it.to_string());
    let other = { other }
        .find(|it| partition(it) != partition("a"))
        .expect("one");
    for topic in ["a", &other] {
        for _ in 0..3 {
            assert_eq!(pump.publish(1, topic, b"gone").await, 0);
        }
    }
    delete_all(&running);
    // It is cut before there was a message that could tell.
    let (reader, present) = come_back(&running, &kept(5, "reader")).await;
    assert!(present);
    let skipped = "alluvium_mqtt_skipped_total{reason=\"gap\"}";
    until(async || metric(&running, skipped) >= 6).await;
    drop(reader);
    until_metric(&running, "alluvium_mqtt_clients 1").await;
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    until(async || metric(&running, skipped) >= 12).await;
    assert_eq!(pump.publish(1, "a", b"there").await, 0);
    let message = take(&mut reader).await;
    assert_eq!(message.payload, b"there");
    let told = String::from_utf8_lossy(&message.properties).into_owned();
    for partition in [partition("a"), partition(&other)] {
        assert!(told.contains(&format!("{partition}:0..3")), "{told:?}");
    }
    assert_eq!(pump.publish(1, "a", b"next").await, 0);
    assert!(take(&mut reader).await.properties.is_empty(), "once");
}
