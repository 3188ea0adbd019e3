//! Shared subscriptions: a message is one member's, and never lost with it.

use std::collections::BTreeSet;

use super::sessions::{come_back, kept, publish_qos_2, restart, take};
use super::wire::{Connect, Message, Mqtt, packet};
use super::{retain, serve_mqtt, until, until_metric};
use crate::binary::{Running, tool};

/// A member's session is kept for a second.
const SECOND: &[u8] = &[0x11, 0, 0, 0, 1];

async fn publish(mqtt: &mut Mqtt, qos: u8, topic: &str, payload: &[u8]) {
    match qos {
        0 => {
            let publish = mqtt.publish_packet((0, 0), topic, &[], payload);
            mqtt.send(&publish).await;
        }
        1 => assert_eq!(mqtt.publish(7, topic, payload).await, 0),
        _ => publish_qos_2(mqtt, 7, topic, payload).await,
    }
}

async fn member(running: &Running, version: u8, name: &str, filter: &str, qos: u8) -> Mqtt {
    let mut member = Mqtt::connect(running.other("MQTT"), version, name).await;
    assert_eq!(member.subscribe(&[(filter, qos)], &[]).await, [qos]);
    member
}

async fn unsubscribe(mqtt: &mut Mqtt, version: u8, filter: &str) {
    let mut body = vec![0, 78];
    if version == 5 {
        body.push(0);
    }
    body.extend(super::text(filter));
    mqtt.send(&packet(0xa2, &body)).await;
    let wanted = match version {
        5 => vec![0, 78, 0, 0],
        _ => vec![0, 78],
    };
    assert_eq!(mqtt.next().await, Some((0xb0, wanted)));
}

/// Whoever of two is given the next message, and the message.
async fn either(one: &mut Mqtt, two: &mut Mqtt) -> (usize, Message) {
    tokio::select! {
        message = one.message() => (0, message),
        message = two.message() => (1, message),
    }
}

/// Says that a message is there, in all steps.
async fn acknowledge(member: &mut Mqtt, message: &Message) {
    let id = message.packet_id;
    match message.qos {
        0 => {}
        1 => member.ack(0x40, id).await,
        _ => {
            member.ack(0x50, id).await;
            let released = Some((0x62, id.to_be_bytes().to_vec()));
            assert_eq!(member.next().await, released);
            member.ack(0x70, id).await;
        }
    }
}

#[tokio::test]
async fn a_shared_message_goes_to_one_member_and_each_has_its_turn() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for (version, qos) in [(4, 0), (5, 0), (4, 1), (5, 1), (4, 2), (5, 2)] {
        let filter = format!("$share/workers/jobs/{version}/{qos}/+");
        let topic = format!("jobs/{version}/{qos}/x");
        let mut one = member(&running, version, "one", &filter, qos).await;
        let mut two = member(&running, 9 - version, "two", &filter, qos).await;
        // One that is not shared gets all of them.
        let mut all = member(&running, version, "all", "jobs/#", qos).await;
        let mut counts = [0; 2];
        for number in 0..8u8 {
            publish(&mut pump, qos, "other", b"not theirs").await;
            publish(&mut pump, qos, &topic, &[number]).await;
            let (who, message) = either(&mut one, &mut two).await;
            acknowledge([&mut one, &mut two][who], &message).await;
            let shown = (message.topic, message.payload, message.qos, message.dup);
            assert_eq!(shown, (topic.clone(), vec![number], qos, false));
            assert_eq!(take(&mut all).await.payload, [number]);
            counts[who] += 1;
        }
        for member in [&mut one, &mut two, &mut all] {
            member.ping().await;
        }
        assert!(counts.iter().all(|count| *count >= 2), "{counts:?}");
    }
}

/// EMQX #12257, mosquitto #2662.
#[tokio::test]
async fn what_a_member_has_not_acknowledged_when_it_leaves_goes_to_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    // Of the last two the sessions stay for a while: the others do not wait for that.
    for (round, version, is_kept) in [(0, 4, false), (1, 5, false), (2, 4, true), (3, 5, true)] {
        let (filter, topic) = (format!("$share/g/{round}/#"), format!("{round}/a"));
        let mut members = Vec::new();
        for name in ["one", "two"] {
            let name = format!("{name}-{round}");
            let connect = match is_kept {
                true => kept(version, &name),
                false => Connect::of(version, &name),
            };
            let mut member = Mqtt::connect_as(running.other("MQTT"), &connect).await;
            assert_eq!(member.subscribe(&[(&filter, 1)], &[]).await, [1]);
            members.push(member);
        }
        publish(&mut pump, 1, &topic, b"first").await;
        let [one, two] = &mut members[..] else {
            panic!("two");
        };
        let (who, message) = either(one, two).await;
        assert_eq!(message.payload, b"first");
        drop(members.remove(who));
        let mut stays = members.remove(0);
        let again = take(&mut stays).await;
        assert_eq!((&again.payload[..], again.dup), (&b"first"[..], false));
        // It is done now, for all.
        stays.ping().await;
        drop(stays);
        let mut last = member(&running, 5, "last", &filter, 1).await;
        publish(&mut pump, 1, &topic, b"third").await;
        assert_eq!(take(&mut last).await.payload, b"third");
        last.ping().await;
    }
}

/// MQTT-4.8.2-4, MQTT-4.8.2-5: of QoS 2 a message stays its member's.
#[tokio::test]
async fn a_shared_message_of_qos_2_is_given_to_no_other_member_also_over_a_kill() {
    for version in [4, 5] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut running = Running::start(&mut serve_mqtt(directory.path()));
        let filters = [("$share/g/a", 2)];
        let (mut one, _) = come_back(&running, &kept(version, "one")).await;
        assert_eq!(one.subscribe(&filters, &[]).await, [2]);
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        publish(&mut pump, 2, "a", b"ones").await;
        let begun = one.message().await;
        assert_eq!((&begun.payload[..], begun.qos), (&b"ones"[..], 2));
        let (mut two, _) = come_back(&running, &kept(version, "two")).await;
        assert_eq!(two.subscribe(&filters, &[]).await, [2]);
        for is_killed in [false, true] {
            if is_killed {
                running = restart(running, directory.path());
                let (back, present) = come_back(&running, &kept(version, "two")).await;
                assert!(present);
                two = back;
                // It may not have heard that the message before is over.
                let (first, id) = two.next().await.expect("a packet");
                assert_eq!(first, 0x62);
                two.ack(0x70, u16::from_be_bytes([id[0], id[1]])).await;
                pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
            } else {
                drop(one);
                until_metric(&running, "alluvium_mqtt_clients 2").await;
            }
            publish(&mut pump, 2, "a", b"twos").await;
            assert_eq!(take(&mut two).await.payload, b"twos");
            two.ping().await;
            let (back, present) = come_back(&running, &kept(version, "one")).await;
            assert!(present);
            one = back;
            let again = one.message().await;
            assert_eq!((again.payload, again.dup), (b"ones".to_vec(), true));
            assert_eq!(again.packet_id, begun.packet_id);
        }
        let id = begun.packet_id;
        one.ack(0x50, id).await;
        let released = Some((0x62, id.to_be_bytes().to_vec()));
        assert_eq!(one.next().await, released);
        one.ack(0x70, id).await;
        one.ping().await;
    }
}

/// The server is killed while messages are on their way to both of two members: some have left, some are only kept, some neither.
#[tokio::test]
async fn shared_messages_of_qos_2_that_have_left_stay_their_members_over_a_kill_and_none_is_left_out()
 {
    const COUNT: u8 = 40;
    for (version, before_kill) in [(4, 1), (5, 7), (4, 23)] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut running = Running::start(&mut serve_mqtt(directory.path()));
        let mut members = Vec::new();
        for name in ["one", "two"] {
            let (mut member, _) = come_back(&running, &kept(version, name)).await;
            assert_eq!(member.subscribe(&[("$share/g/a", 2)], &[]).await, [2]);
            members.push(member);
        }
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        for number in 0..COUNT {
            publish(&mut pump, 2, "a", &[number]).await;
        }
        let mut had = [BTreeSet::new(), BTreeSet::new()];
        for _ in 0..before_kill {
            let [one, two] = &mut members[..] else {
                panic!("two");
            };
            let (who, message) = either(one, two).await;
            assert!(had[who].insert(message.payload[0]), "once");
        }
        running = restart(running, directory.path());
        let (mut one, _) = come_back(&running, &kept(version, "one")).await;
        let (mut two, _) = come_back(&running, &kept(version, "two")).await;
        let (mut found, mut again) = (BTreeSet::new(), [BTreeSet::new(), BTreeSet::new()]);
        while found.len() < usize::from(COUNT) || !(0..2).all(|who| had[who].is_subset(&again[who]))
        {
            let (who, message) = either(&mut one, &mut two).await;
            let number = message.payload[0];
            assert!(again[who].insert(number), "{number} came twice");
            assert!(!had[1 - who].contains(&number), "{number} was the other's");
            assert!(message.dup || !had[who].contains(&number), "{number}");
            found.insert(number);
        }
    }
}

#[tokio::test]
async fn a_shared_subscription_of_kept_sessions_waits_for_them_also_over_a_kill() {
    for version in [4, 5] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut running = Running::start(&mut serve_mqtt(directory.path()));
        let (mut one, _) = come_back(&running, &kept(version, "one")).await;
        assert_eq!(one.subscribe(&[("$share/g/a", 1)], &[]).await, [1]);
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        publish(&mut pump, 1, "a", b"0").await;
        assert_eq!(one.message().await.payload, b"0", "it is not acknowledged");
        drop(one);
        until_metric(&running, "alluvium_mqtt_clients 1").await;
        for payload in [b"1", b"2"] {
            publish(&mut pump, 1, "a", payload).await;
            running = restart(running, directory.path());
            pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        }
        let (mut one, present) = come_back(&running, &kept(version, "one")).await;
        assert!(present);
        // Whoever joins meanwhile has a part in them.
        let mut found = Vec::new();
        while found.len() < 3 {
            found.push(take(&mut one).await.payload);
        }
        found.sort();
        assert_eq!(found, [b"0", b"1", b"2"]);
        one.ping().await;
        publish(&mut pump, 1, "a", b"3").await;
        assert_eq!(take(&mut one).await.payload, b"3");
    }
}

#[tokio::test]
async fn a_shared_subscription_ends_with_its_last_member() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    let of_second = Connect {
        properties: SECOND,
        ..kept(5, "short")
    };
    for version in [4, 5] {
        let filter = format!("$share/g/{version}");
        let topic = version.to_string();
        let mut one = member(&running, version, "one", &filter, 1).await;
        unsubscribe(&mut one, version, &filter).await;
        publish(&mut pump, 1, &topic, b"between").await;
        let mut one = member(&running, version, "one", &filter, 1).await;
        publish(&mut pump, 1, &topic, b"behind").await;
        assert_eq!(take(&mut one).await.payload, b"behind");
        drop(one);
        until_metric(&running, "alluvium_mqtt_clients 1").await;
        // A session that has ended has it no more, either.
        let mut short = Mqtt::connect_as(running.other("MQTT"), &of_second).await;
        assert_eq!(short.subscribe(&[(&filter, 1)], &[]).await, [1]);
        drop(short);
        until_metric(&running, "alluvium_mqtt_sessions 0").await;
        publish(&mut pump, 1, &topic, b"between").await;
        let mut one = member(&running, version, "one", &filter, 1).await;
        publish(&mut pump, 1, &topic, b"last").await;
        assert_eq!(take(&mut one).await.payload, b"last");
        drop(one);
        until_metric(&running, "alluvium_mqtt_clients 1").await;
    }
    // Nothing of them is left.
    let groups = || tool(&["group", "list", "-b", &running.kafka]).stdout;
    until(async || !groups().contains("$share/")).await;
}

/// MQTT-4.8.2-6, MQTT-4.8.2-3, MQTT-3.8.4-4 and what else the standard says of them.
#[tokio::test]
async fn what_a_member_refuses_is_done_and_nothing_retained_comes_to_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    assert_eq!(retain(&mut pump, "a/1", &[], b"kept").await, 0);
    let mut one = Mqtt::connect(running.other("MQTT"), 5, "one").await;
    let filters = [("$share/g/a/#", 1)];
    assert_eq!(one.subscribe(&filters, &[0x0b, 9]).await, [1]);
    one.ping().await;
    publish(&mut pump, 2, "a/1", b"refused").await;
    let message = one.message().await;
    assert_eq!((&message.payload[..], message.qos), (&b"refused"[..], 1));
    assert_eq!(message.properties, [0x0b, 9]);
    let mut refusal = message.packet_id.to_be_bytes().to_vec();
    refusal.push(0x83);
    one.send(&packet(0x40, &refusal)).await;
    one.ping().await;
    drop(one);
    let mut two = Mqtt::connect(running.other("MQTT"), 5, "two").await;
    assert_eq!(two.subscribe(&filters, &[]).await, [1]);
    publish(&mut pump, 0, "a/1", b"next").await;
    let message = two.message().await;
    assert_eq!((&message.payload[..], message.qos), (&b"next"[..], 0));
    let codes = two.subscribe(
        &[
            ("$share/g", 0),
            ("$share//a", 0),
            ("$share/g+/a", 0),
            ("$share/g/a#", 0),
            ("$share/g/$replay/-1h/a", 0),
        ],
        &[],
    );
    assert_eq!(codes.await, [0x8f; 5]);
    let no_local = two.subscribe_packet(&[("$share/g/a", 5)], &[]);
    two.send(&no_local).await;
    assert_eq!(two.ended().await, Some(0x82), "no local on a share");
}

#[tokio::test]
async fn who_shares_a_subscription_may_read_its_topic_and_its_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let users = directory.path().join("users");
    std::fs::write(&users, "alice:correct horse battery\n").expect("a file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&users, mode).expect("its owner's file");
    let mut command = serve_mqtt(&directory.path().join("store"));
    for setting in [
        &format!("sasl.users.file={}", users.display()),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
    ] {
        command.args(["-X", setting]);
    }
    let running = Running::start(&mut command);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    publish(&mut pump, 1, "a", b"before").await;
    let allow = |operation: &str, resource: &str| {
        let args = [
            "acl",
            "allow",
            "alice",
            operation,
            resource,
            "--http",
            &running.http,
        ];
        let said = tool(&args);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    };
    let alice = Connect {
        login: Some(("alice", "correct horse battery")),
        ..Connect::of(5, "alice")
    };
    let mut alice = Mqtt::connect_as(running.other("MQTT"), &alice).await;
    let mine = [("$share/workers/a", 1)];
    assert_eq!(alice.subscribe(&mine, &[]).await, [0x87]);
    allow("read", "topic:mqtt");
    assert_eq!(alice.subscribe(&mine, &[]).await, [0x87]);
    allow("read", "group:$share/workers/*");
    assert_eq!(alice.subscribe(&mine, &[]).await, [1]);
    assert_eq!(
        alice.subscribe(&[("$share/others/a", 1)], &[]).await,
        [0x87]
    );
    publish(&mut pump, 1, "a", b"hers").await;
    assert_eq!(take(&mut alice).await.payload, b"hers");
    // What was taken away is not hers any more.
    let args = [
        "acl",
        "deny",
        "alice",
        "read",
        "group:$share/workers/*",
        "--http",
        &running.http,
    ];
    assert_eq!(tool(&args).code, Some(0));
    publish(&mut pump, 1, "a", b"not hers").await;
    assert_eq!(alice.ended().await, Some(0x87));
}

#[tokio::test]
async fn a_principal_makes_no_more_shared_subscriptions_than_it_may() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_mqtt(directory.path());
    for setting in [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found=true",
        "groups.per.principal.max=1",
    ] {
        command.args(["-X", setting]);
    }
    let running = Running::start(&mut command);
    let mut one = member(&running, 5, "one", "$share/a/jobs/+", 1).await;
    let refused = one.subscribe(&[("$share/b/jobs/+", 1)], &[]).await;
    assert_eq!(refused, [0x97], "quota exceeded");
    // Others may join what is there; and what ends makes room.
    let mut two = member(&running, 4, "two", "$share/a/jobs/+", 1).await;
    assert_eq!(two.subscribe(&[("$share/b/jobs/+", 1)], &[]).await, [0x80]);
    unsubscribe(&mut one, 5, "$share/a/jobs/+").await;
    unsubscribe(&mut two, 4, "$share/a/jobs/+").await;
    until(async || one.subscribe(&[("$share/b/jobs/+", 1)], &[]).await == [1]).await;
}
