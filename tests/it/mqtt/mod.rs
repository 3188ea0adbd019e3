//! The MQTT front as its clients see it: what a message becomes, what an ack promises, and what is refused.

mod answers;
mod bounds;
mod delivery;
mod denied;
mod doors;
mod ends;
mod history;
mod live;
mod retained;
mod rights;
mod routes;
mod sessions;
mod sharing;
mod tools;
mod wire;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use model::partition_of_key;
use rustix::process::Signal;

use crate::binary::{Running, serve};
use crate::produce_http::records;
use wire::{Connect, Mqtt, packet, text};

/// A server that speaks MQTT, too.
fn serve_mqtt(data: &Path) -> Command {
    let mut command = serve(data);
    command.args(["--mqtt", "127.0.0.1:0"]);
    command
}

/// What is stored under a topic of MQTT: values, and headers as `name=value`.
async fn stored(running: &Running, topic: &str) -> Vec<(String, Vec<String>)> {
    let partition = partition_of_key(topic.as_bytes(), 16);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let records = records(running, "mqtt", partition).await;
    let of_topic = |key: Option<&bytes::Bytes>| key.is_some_and(|key| key == topic.as_bytes());
    records
        .into_iter()
        .filter(|record| of_topic(record.key.as_ref()))
        .map(|record| {
            let headers = record.headers.iter().map(|header| {
                let value = header.value.as_deref().unwrap_or_default();
                format!("{}={}", text(&header.key), text(value))
            });
            let headers = headers.collect();
            (text(record.value.as_deref().unwrap_or_default()), headers)
        })
        .collect()
}

async fn values(running: &Running, topic: &str) -> Vec<String> {
    let stored = stored(running, topic).await;
    stored.into_iter().map(|(value, _)| value).collect()
}

/// Publishes with QoS 1 and RETAIN; the code of the ack.
async fn retain(mqtt: &mut Mqtt, topic: &str, said: &[u8], payload: &[u8]) -> u8 {
    let mut publish = mqtt.publish_packet((1, 9), topic, said, payload);
    publish[0] |= 1;
    mqtt.send(&publish).await;
    let (first, body) = mqtt.next().await.expect("an ack");
    assert_eq!((first, &body[..2]), (0x40, &[0, 9][..]));
    body.get(2).copied().unwrap_or(0)
}

/// Waits until something is so.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + wire::PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < until, "it did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a metric of the server says; 0 before there is one.
fn metric(running: &Running, name: &str) -> u64 {
    let page = running.get("/metrics").1;
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|it| it.strip_prefix(' '));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

/// Waits until a line stands in the metrics.
async fn until_metric(running: &Running, line: &str) {
    let wanted = format!("{line}\n");
    until(async || running.get("/metrics").1.contains(&wanted)).await;
}

/// Waits until so many wills are durable, in all.
async fn until_wills(running: &Running, count: usize) {
    until_metric(
        running,
        &format!("alluvium_mqtt_wills_published_total {count}"),
    )
    .await;
}

#[tokio::test]
async fn a_message_is_a_record_and_its_properties_are_headers() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    let mut said = vec![0x02, 0, 0, 0, 60, 0x01, 1];
    said.extend([vec![0x03], text("text/plain")].concat());
    said.extend([vec![0x08], text("answers")].concat());
    said.extend([vec![0x09], text("7")].concat());
    said.extend([vec![0x26], text("unit"), text("K")].concat());
    said.extend([vec![0x26], text("mqtt.x"), text("y")].concat());
    let publish = pump.publish_packet((1, 1), "site/1", &said, b"21.5");
    pump.send(&publish).await;
    assert_eq!(pump.next().await, Some((0x40, vec![0, 1])));
    let headers = [
        "mqtt.qos=1",
        "mqtt.client=pump",
        "mqtt.expiry=60",
        "mqtt.format=1",
        "mqtt.content-type=text/plain",
        "mqtt.reply=answers",
        "mqtt.correlation=7",
        "unit=K",
        "mqtt.user.mqtt.x=y",
    ];
    let wanted = vec![("21.5".to_owned(), headers.map(str::to_owned).to_vec())];
    assert_eq!(stored(&running, "site/1").await, wanted);
    // 3.1.1 says less, and QoS 0 gets no ack: what follows it on the connection does.
    let mut old = Mqtt::connect(running.other("MQTT"), 4, "old").await;
    let publish = old.publish_packet((0, 0), "site/2", &[], b"a");
    old.send(&publish).await;
    assert_eq!(old.publish(9, "site/2", b"b").await, 0);
    let of = |value: &str, qos| {
        let headers = vec![format!("mqtt.qos={qos}"), "mqtt.client=old".to_owned()];
        (value.to_owned(), headers)
    };
    assert_eq!(stored(&running, "site/2").await, [of("a", 0), of("b", 1)]);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill_and_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 4, "pump").await;
    // All at once: acks come one by one, in the order of the publishes.
    for number in 1..=60u16 {
        let payload = number.to_string();
        let publish = pump.publish_packet((1, number), "site/1", &[], payload.as_bytes());
        pump.send(&publish).await;
    }
    for number in 1..=60u16 {
        let ack = pump.next().await;
        assert_eq!(ack, Some((0x40, number.to_be_bytes().to_vec())));
    }
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let wanted: Vec<String> = (1..=60).map(|it| it.to_string()).collect();
    assert_eq!(values(&running, "site/1").await, wanted);
}

/// mosquitto #3599 #3602, EMQX #18441, aedes #634.
#[tokio::test]
async fn a_message_of_qos_2_is_stored_once_however_often_it_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    for version in [4, 5] {
        let topic = format!("site/{version}");
        let mut pump = Mqtt::connect(running.other("MQTT"), version, "pump").await;
        let publish = pump.publish_packet((2, 1), &topic, &[], b"once");
        for _ in 0..3 {
            pump.send(&publish).await;
        }
        for _ in 0..3 {
            assert_eq!(pump.next().await, Some((0x50, vec![0, 1])));
        }
        pump.ack(0x62, 1).await;
        assert_eq!(pump.next().await, Some((0x70, vec![0, 1])));
        // Again: the client has not heard of it. 5.0 has a word for that, and the connection stays.
        pump.ack(0x62, 1).await;
        let unknown = match version {
            5 => vec![0, 1, 0x92],
            _ => vec![0, 1],
        };
        assert_eq!(pump.next().await, Some((0x70, unknown)));
        // Marked as sent before, under an identifier that is free: a new message.
        let mut again = pump.publish_packet((2, 1), &topic, &[], b"twice");
        again[0] |= 8;
        pump.send(&again).await;
        assert_eq!(pump.next().await, Some((0x50, vec![0, 1])));
        assert_eq!(values(&running, &topic).await, ["once", "twice"]);
    }
}

/// mosquitto #3448.
#[tokio::test]
async fn a_length_that_is_claimed_takes_no_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|it| it.parse::<u64>().ok()).expect("KiB")
    };
    let before = memory();
    let mut open = Vec::new();
    for number in 0..200 {
        let mut mqtt = match number % 2 {
            0 => Mqtt::open(running.other("MQTT")).await,
            _ => Mqtt::connect(running.other("MQTT"), 5, &number.to_string()).await,
        };
        let first = if number % 2 == 0 { 0x10 } else { 0x30 };
        mqtt.send(&[first, 0xff, 0xff, 0xff, 0x7f, 0, 0]).await;
        open.push(mqtt);
    }
    for (number, mut mqtt) in open.into_iter().enumerate() {
        let wanted = (number % 2 == 1).then_some(0x95);
        assert_eq!(mqtt.ended().await, wanted);
    }
    let after = memory();
    assert!(
        after < before + (64 << 10),
        "{before} KiB, then {after} KiB"
    );
}

/// mosquitto #3515.
#[tokio::test]
async fn a_packet_of_the_limit_passes_and_one_byte_more_does_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_mqtt(directory.path());
    command.args(["-X", "mqtt.packet.bytes.max=65536"]);
    let running = Running::start(&mut command);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    let overhead = pump.publish_packet((1, 1), "t", &[], &[0; 20_000]).len() - 20_000;
    let limit = vec![b'x'; 65_536 - overhead];
    assert_eq!(pump.publish(1, "t", &limit).await, 0);
    assert_eq!(values(&running, "t").await[0].len(), limit.len());
    let over = [&limit[..], b"x"].concat();
    let publish = pump.publish_packet((1, 1), "t", &[], &over);
    pump.send(&publish).await;
    assert_eq!(pump.ended().await, Some(0x95));
}

/// NanoMQ #2270, wolfMQTT #607, and the table of what is closed.
#[tokio::test]
async fn what_is_no_packet_ends_the_connection_with_its_code() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let of = |first, parts: &[&[u8]]| packet(first, &parts.concat());
    let topic = text("t");
    for (bytes, code, what) in [
        (
            of(0x32, &[&topic]),
            0x81,
            "QoS 1 that ends behind its topic",
        ),
        (of(0x40, &[&[0, 0]]), 0x82, "PUBACK of identifier 0"),
        (of(0x62, &[&[0, 0]]), 0x82, "PUBREL of identifier 0"),
        (
            of(0x32, &[&topic, &[0, 0, 0]]),
            0x82,
            "PUBLISH of identifier 0",
        ),
        (of(0x36, &[&topic, &[0, 1, 0]]), 0x81, "QoS 3"),
        (of(0x38, &[&topic, &[0]]), 0x81, "DUP with QoS 0"),
        (of(0x30, &[&text("t/#"), &[0]]), 0x90, "a wildcard"),
        (of(0x30, &[&text("$x"), &[0]]), 0x90, "QoS 0 below $"),
        (of(0x30, &[&text(""), &[0]]), 0x82, "no topic and no alias"),
        (
            of(0x30, &[&text(""), &[3, 0x23, 0, 1]]),
            0x94,
            "an alias of nothing",
        ),
        (
            of(0x30, &[&topic, &[3, 0x23, 0, 17]]),
            0x94,
            "an alias above the highest",
        ),
        (
            of(0x30, &[&topic, &[2, 0x0b, 1]]),
            0x82,
            "a subscription identifier",
        ),
        (
            of(0x30, &[&[0, 2, 0xc0, 0x80], &[0]]),
            0x81,
            "overlong UTF-8",
        ),
        (of(0x10, &[&text("MQTT")]), 0x82, "a second CONNECT"),
        (of(0x20, &[&[0, 0]]), 0x82, "a server's packet"),
        (of(0xf0, &[]), 0x82, "AUTH"),
        (of(0xc0, &[&[0]]), 0x81, "trailing bytes"),
        (
            of(0xe0, &[&[0, 5, 0x11, 0, 0, 0, 1]]),
            0x82,
            "expiry from 0 to more",
        ),
    ] {
        let mut mqtt = Mqtt::connect(running.other("MQTT"), 5, "bad").await;
        mqtt.send(&bytes).await;
        assert_eq!(mqtt.ended().await, Some(code), "{what}");
        let mut old = Mqtt::connect(running.other("MQTT"), 4, "bad").await;
        // 3.1.1 has no words for it.
        old.send(&of(0x36, &[&topic, &[0, 1]])).await;
        assert_eq!(old.ended().await, None, "{what}");
    }
    // An ack says no where there is one.
    let mut mqtt = Mqtt::connect(running.other("MQTT"), 5, "good").await;
    assert_eq!(mqtt.publish(1, "$x", b"").await, 0x90);
    assert_eq!(mqtt.publish(1, "x", b"").await, 0);
    // 65 of QoS 2 that are not released, where 64 were offered.
    for id in 1..=65 {
        let publish = mqtt.publish_packet((2, id), "x", &[], b"");
        mqtt.send(&publish).await;
    }
    assert_eq!(mqtt.ended().await, Some(0x93));
}

#[tokio::test]
async fn an_alias_stands_for_a_topic_on_its_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for (topic, payload) in [("a/b", b"1"), ("", b"2")] {
        let publish = pump.publish_packet((1, 1), topic, &[0x23, 0, 16], payload);
        pump.send(&publish).await;
        assert_eq!(pump.next().await, Some((0x40, vec![0, 1])));
    }
    assert_eq!(values(&running, "a/b").await, ["1", "2"]);
    let mut other = Mqtt::connect(running.other("MQTT"), 5, "other").await;
    let publish = other.publish_packet((1, 1), "", &[0x23, 0, 16], b"3");
    other.send(&publish).await;
    assert_eq!(other.ended().await, Some(0x94));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let refused = async |connect: Connect<'_>| {
        let (mut mqtt, answer) = Mqtt::try_connect(address, &connect).await;
        if answer.as_ref().is_some_and(|answer| answer[1] != 0) {
            assert_eq!(mqtt.next().await, None, "closed behind a refusal");
        }
        answer.map(|answer| answer[1])
    };
    let of = Connect::of;
    let method = [vec![0x15], text("SCRAM-SHA-256")].concat();
    let asks = Connect {
        properties: &method,
        ..of(5, "id")
    };
    assert_eq!(refused(asks).await, Some(0x8c));
    let long = "x".repeat(1_025);
    assert_eq!(refused(of(5, &long)).await, Some(0x85));
    assert_eq!(refused(of(4, &long)).await, Some(2));
    let twice = Connect {
        properties: &[0x21, 0, 1, 0x21, 0, 1],
        ..of(5, "id")
    };
    assert_eq!(refused(twice).await, Some(0x82));
    assert_eq!(refused(of(6, "id")).await, Some(0x84));
    assert_eq!(refused(of(3, "id")).await, Some(1));
    let nameless = Connect {
        clean: false,
        ..of(4, "")
    };
    assert_eq!(refused(nameless).await, Some(2));
    // What comes first is a CONNECT.
    let mut mqtt = Mqtt::open(address).await;
    mqtt.send(&[0xc0, 0]).await;
    assert_eq!(mqtt.ended().await, None);
}

#[tokio::test]
async fn a_connack_says_what_is_offered() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let connect = Connect {
        keep_alive: 0,
        properties: &[0x11, 0, 0, 1, 0],
        ..Connect::of(5, "")
    };
    let (_mqtt, answer) = Mqtt::try_connect(running.other("MQTT"), &connect).await;
    let answer = answer.expect("an answer");
    let says = |bytes: &[u8]| answer.windows(bytes.len()).any(|it| it == bytes);
    for (property, what) in [
        (&[0x21, 0, 64][..], "receive maximum"),
        (&[0x27, 0, 0x10, 0, 0], "maximum packet size"),
        (&[0x22, 0, 16], "topic aliases"),
        (&[0x13, 1, 44], "keep alive of 300 s"),
        (&[0x12, 0, 32], "an id"),
    ] {
        assert!(says(property), "{what}: {answer:02x?}");
    }
    assert!(
        !says(&[0x2a, 0]),
        "subscriptions may be shared: {answer:02x?}"
    );
}

#[tokio::test]
async fn who_is_silent_for_too_long_is_disconnected_and_its_will_published() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let silent = Connect {
        keep_alive: 1,
        will: Some(("wills/silent", "silent", 0)),
        ..Connect::of(5, "silent")
    };
    let mut silent = Mqtt::connect_as(running.other("MQTT"), &silent).await;
    // Who asks is heard.
    silent.ping().await;
    assert_eq!(silent.ended().await, Some(0x8d));
    until_wills(&running, 1).await;
    assert_eq!(values(&running, "wills/silent").await, ["silent"]);
}

/// EMQX #10551: the will goes at a takeover, with a cut, with DISCONNECT 0x04, and not with DISCONNECT 0x00.
#[tokio::test]
async fn a_will_is_published_exactly_if_its_client_goes_without_a_word() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let mut wills = 0;
    for version in [4, 5] {
        let topic = format!("wills/{version}");
        let with_will = Connect {
            will: Some((&topic, "gone", 0x08)),
            ..Connect::of(version, "pump")
        };
        let mut first = Mqtt::connect_as(address, &with_will).await;
        let second = Mqtt::connect_as(address, &with_will).await;
        let taken_over = (version == 5).then_some(0x8e);
        assert_eq!(first.ended().await, taken_over);
        until_wills(&running, wills + 1).await;
        drop(second);
        until_wills(&running, wills + 2).await;
        wills += 2;
        let mut polite = Mqtt::connect_as(address, &with_will).await;
        polite.send(&[0xe0, 0]).await;
        assert_eq!(polite.ended().await, None);
        if version == 5 {
            let mut asks = Mqtt::connect_as(address, &with_will).await;
            asks.send(&[0xe0, 1, 4]).await;
            assert_eq!(asks.ended().await, None);
            wills += 1;
            until_wills(&running, wills).await;
        }
        // The polite one's would have come before this.
        let mut last = Mqtt::connect(address, version, "last").await;
        assert_eq!(last.publish(1, &topic, b"end").await, 0);
        let mut wanted = vec!["gone"; if version == 5 { 3 } else { 2 }];
        wanted.push("end");
        assert_eq!(values(&running, &topic).await, wanted);
    }
}

#[tokio::test]
async fn who_shows_a_user_name_and_a_password_logs_in_by_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let users = directory.path().join("users");
    std::fs::write(&users, "alice:correct horse battery\n").expect("a file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&users, mode).expect("its owner's file");
    let mut command = serve_mqtt(&directory.path().join("store"));
    command.args(["-X", &format!("sasl.users.file={}", users.display())]);
    command.args(["-X", "connection.failed.authentication.delay.ms=0"]);
    command.args([
        "-X",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ]);
    let running = Running::start(&mut command);
    let address = running.other("MQTT");
    let connected = async |version, login| {
        let connect = Connect {
            login,
            ..Connect::of(version, "pump")
        };
        let (mqtt, answer) = Mqtt::try_connect(address, &connect).await;
        (mqtt, answer.expect("an answer")[1])
    };
    let right = Some(("alice", "correct horse battery"));
    for (version, refused) in [(4, 4), (5, 0x86)] {
        assert_eq!(connected(version, right).await.1, 0);
        assert_eq!(connected(version, None).await.1, 0, "nobody");
        for wrong in [("alice", "x"), ("bob", "x")] {
            assert_eq!(connected(version, Some(wrong)).await.1, refused);
        }
    }
    // No rule allows anything: 5.0 is told by each answer, 3.1.1 by the end.
    for login in [None, right] {
        let (mut mqtt, _) = connected(5, login).await;
        assert_eq!(mqtt.publish(1, "a", b"x").await, 0x87);
        assert_eq!(mqtt.subscribe(&[("a", 1)], &[]).await, [0x87]);
        let publish = mqtt.publish_packet((0, 0), "a", &[], b"x");
        mqtt.send(&publish).await;
        assert_eq!(mqtt.ended().await, Some(0x87), "QoS 0 has no other answer");
        let (mut mqtt, _) = connected(4, login).await;
        assert_eq!(mqtt.subscribe(&[("a", 1)], &[]).await, [0x80]);
        let publish = mqtt.publish_packet((1, 1), "a", &[], b"x");
        mqtt.send(&publish).await;
        assert_eq!(mqtt.ended().await, None);
    }
    for version in [4, 5] {
        let connect = Connect {
            will: Some(("a", "gone", 0)),
            ..Connect::of(version, "pump")
        };
        let (_, answer) = Mqtt::try_connect(address, &connect).await;
        let refused = if version == 5 { 0x87 } else { 5 };
        assert_eq!(answer.expect("an answer")[1], refused);
    }
}
