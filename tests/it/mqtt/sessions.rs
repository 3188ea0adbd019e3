//! Sessions that outlive their connection, and the server: what is there of them after a cut and after a kill.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::wire::{Connect, Message, Mqtt};
use super::{serve_mqtt, until, until_metric, until_wills, values};
use crate::binary::Running;

/// A minute, as MQTT 5 says it.
const MINUTE: &[u8] = &[0x11, 0, 0, 0, 60];

/// A client whose session is kept.
pub fn kept(version: u8, client_id: &str) -> Connect<'_> {
    Connect {
        clean: false,
        properties: if version == 5 { MINUTE } else { &[] },
        ..Connect::of(version, client_id)
    }
}

/// Connects, and says whether a session was there.
pub async fn come_back(running: &Running, connect: &Connect<'_>) -> (Mqtt, bool) {
    let (mqtt, answer) = Mqtt::try_connect(running.other("MQTT"), connect).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer[1], 0, "{answer:?}");
    (mqtt, answer[0] == 1)
}

pub fn restart(running: Running, data: &Path) -> Running {
    running.end(Signal::KILL);
    Running::start(&mut serve_mqtt(data))
}

fn shown(message: &Message) -> (String, String) {
    let payload = String::from_utf8_lossy(&message.payload).into_owned();
    (message.topic.clone(), payload)
}

/// Takes so many messages, in all their steps, however these are mixed.
pub async fn take_all(mqtt: &mut Mqtt, count: usize) -> Vec<Message> {
    let (mut found, mut unreleased) = (Vec::new(), 0);
    while found.len() < count || unreleased > 0 {
        match mqtt.packet_or_message().await {
            Ok(message) => {
                match message.qos {
                    1 => mqtt.ack(0x40, message.packet_id).await,
                    2 => {
                        unreleased += 1;
                        mqtt.ack(0x50, message.packet_id).await;
                    }
                    _ => {}
                }
                found.push(message);
            }
            Err((first, body)) => {
                assert_eq!((first, body.len()), (0x62, 2), "a PUBREL");
                unreleased -= 1;
                mqtt.ack(0x70, u16::from_be_bytes([body[0], body[1]])).await;
            }
        }
    }
    found
}

/// Takes one.
pub async fn take(mqtt: &mut Mqtt) -> Message {
    let mut taken = take_all(mqtt, 1).await;
    taken.pop().expect("one was taken")
}

pub async fn publish_qos_2(mqtt: &mut Mqtt, packet_id: u16, topic: &str, payload: &[u8]) {
    let publish = mqtt.publish_packet((2, packet_id), topic, &[], payload);
    mqtt.send(&publish).await;
    let id = packet_id.to_be_bytes().to_vec();
    assert_eq!(mqtt.next().await, Some((0x50, id.clone())));
    mqtt.ack(0x62, packet_id).await;
    assert_eq!(mqtt.next().await, Some((0x70, id)));
}

/// mosquitto #769 #1726, vernemq #1577: also behind a kill.
#[tokio::test]
async fn an_offline_subscriber_gets_all_that_came_and_nothing_twice() {
    for version in [4, 5] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut running = Running::start(&mut serve_mqtt(directory.path()));
        let (mut reader, present) = come_back(&running, &kept(version, "reader")).await;
        assert!(!present);
        let filters = [("a/#", 1), ("b", 2)];
        assert_eq!(reader.subscribe(&filters, &[]).await, [1, 2]);
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        assert_eq!(pump.publish(1, "a/1", b"before").await, 0);
        publish_qos_2(&mut pump, 2, "b", b"before").await;
        for message in take_all(&mut reader, 2).await {
            assert_eq!(message.payload, b"before");
        }
        reader.ping().await;
        drop(reader);
        until_metric(&running, "alluvium_mqtt_clients 1").await;
        for round in 0..3u16 {
            let payload = format!("{round}");
            assert_eq!(pump.publish(1, "a/1", payload.as_bytes()).await, 0);
            publish_qos_2(&mut pump, 2, "b", payload.as_bytes()).await;
            running = restart(running, directory.path());
            pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        }
        let (mut reader, present) = come_back(&running, &kept(version, "reader")).await;
        assert!(present);
        let mut found = Vec::new();
        for message in take_all(&mut reader, 6).await {
            assert_eq!(
                (message.qos == 2, message.dup),
                (message.topic == "b", false)
            );
            found.push(shown(&message));
        }
        for topic in ["a/1", "b"] {
            let of = found.iter().filter(|(of, _)| of == topic);
            let payloads: Vec<_> = of.map(|(_, payload)| payload.as_str()).collect();
            assert_eq!(payloads, ["0", "1", "2"], "{topic}");
        }
        // What it took it is not given again, whoever ends.
        reader.ping().await;
        drop(reader);
        until_metric(&running, "alluvium_mqtt_clients 1").await;
        drop(pump);
        running = restart(running, directory.path());
        let (mut reader, present) = come_back(&running, &kept(version, "reader")).await;
        assert!(present);
        let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
        assert_eq!(pump.publish(1, "a/1", b"last").await, 0);
        assert_eq!(take(&mut reader).await.payload, b"last");
    }
}

/// monster-mq #180, NanoMQ #2412: the identifier outlives the server, and its release as well.
#[tokio::test]
async fn a_message_of_qos_2_is_stored_once_over_a_kill() {
    for version in [4, 5] {
        let directory = tempfile::tempdir().expect("a directory");
        let running = Running::start(&mut serve_mqtt(directory.path()));
        let (mut pump, _) = come_back(&running, &kept(version, "pump")).await;
        let mut publish = pump.publish_packet((2, 7), "a", &[], b"once");
        pump.send(&publish).await;
        assert_eq!(pump.next().await, Some((0x50, vec![0, 7])));
        let running = restart(running, directory.path());
        let (mut pump, present) = come_back(&running, &kept(version, "pump")).await;
        assert!(present);
        // It has not seen the PUBREC.
        publish[0] |= 8;
        pump.send(&publish).await;
        assert_eq!(pump.next().await, Some((0x50, vec![0, 7])));
        let running = restart(running, directory.path());
        let (mut pump, present) = come_back(&running, &kept(version, "pump")).await;
        assert!(present);
        pump.ack(0x62, 7).await;
        assert_eq!(pump.next().await, Some((0x70, vec![0, 7])));
        let running = restart(running, directory.path());
        let (mut pump, _) = come_back(&running, &kept(version, "pump")).await;
        // The release was durable: the identifier is unknown, and free.
        pump.ack(0x62, 7).await;
        let unknown = if version == 5 {
            vec![0, 7, 0x92]
        } else {
            vec![0, 7]
        };
        assert_eq!(pump.next().await, Some((0x70, unknown)));
        publish_qos_2(&mut pump, 7, "a", b"twice").await;
        assert_eq!(values(&running, "a").await, ["once", "twice"]);
    }
}

/// aedes #601, BifroMQ #281: the same identifier and DUP=1; PUBREL if it was owed.
#[tokio::test]
async fn what_was_not_acknowledged_comes_again_under_its_identifier() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut running = Running::start(&mut serve_mqtt(directory.path()));
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    assert_eq!(reader.subscribe(&[("a", 2)], &[]).await, [2]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    assert_eq!(pump.publish(1, "a", b"1").await, 0);
    for payload in ["2", "3"] {
        publish_qos_2(&mut pump, 9, "a", payload.as_bytes()).await;
    }
    let one = reader.message().await;
    let two = reader.message().await;
    let three = reader.message().await;
    assert_eq!((one.qos, two.qos, three.qos), (1, 2, 2));
    assert!(!one.dup && !two.dup && !three.dup);
    reader.ack(0x50, two.packet_id).await;
    let released = Some((0x62, two.packet_id.to_be_bytes().to_vec()));
    assert_eq!(reader.next().await, released);
    drop((reader, pump));
    until_metric(&running, "alluvium_mqtt_clients 0").await;
    for is_killed in [false, true, true] {
        if is_killed {
            running = restart(running, directory.path());
        }
        let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
        assert!(present);
        assert_eq!(reader.next().await, released, "it is owed");
        for before in [&one, &three] {
            let again = reader.message().await;
            assert!(again.dup);
            assert_eq!((again.packet_id, again.qos), (before.packet_id, before.qos));
            assert_eq!(again.payload, before.payload);
        }
        if !is_killed {
            drop(reader);
            until_metric(&running, "alluvium_mqtt_clients 0").await;
        }
    }
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    assert_eq!(reader.next().await, released);
    let again = [reader.message().await, reader.message().await];
    reader.ack(0x70, two.packet_id).await;
    reader.ack(0x40, again[0].packet_id).await;
    reader.ack(0x50, three.packet_id).await;
    let released = (0x62, three.packet_id.to_be_bytes().to_vec());
    assert_eq!(reader.next().await, Some(released));
    reader.ack(0x70, three.packet_id).await;
    reader.ping().await;
    let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
    assert!(present);
    reader.ping().await;
}

/// nats-server #5282 #6989, tbmq #320: nothing passes what was not acknowledged.
#[tokio::test]
async fn one_message_without_an_ack_stays_while_others_pass_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let (mut reader, _) = come_back(&running, &kept(4, "reader")).await;
    assert_eq!(reader.subscribe(&[("a", 1)], &[]).await, [1]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    let mut first = None;
    for number in 1..=400u16 {
        assert_eq!(pump.publish(1, "a", &number.to_be_bytes()).await, 0);
        let message = reader.message().await;
        assert_eq!(message.payload, number.to_be_bytes());
        match &first {
            None => first = Some(message),
            Some(_) => reader.ack(0x40, message.packet_id).await,
        }
    }
    let first = first.expect("there was one");
    reader.ping().await;
    let running = restart(running, directory.path());
    let (mut reader, present) = come_back(&running, &kept(4, "reader")).await;
    assert!(present);
    // At least it comes, however much of the last second comes with it.
    loop {
        let message = reader.message().await;
        reader.ack(0x40, message.packet_id).await;
        if message.payload == first.payload {
            break;
        }
    }
}

#[tokio::test]
async fn what_was_sent_exactly_once_is_not_sent_again_after_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let (mut reader, _) = come_back(&running, &kept(5, "reader")).await;
    assert_eq!(reader.subscribe(&[("a", 2)], &[]).await, [2]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for number in 1..=20u16 {
        publish_qos_2(&mut pump, number, "a", &number.to_be_bytes()).await;
        assert_eq!(take(&mut reader).await.payload, number.to_be_bytes());
    }
    let running = restart(running, directory.path());
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    publish_qos_2(&mut pump, 1, "a", b"next").await;
    let (mut reader, present) = come_back(&running, &kept(5, "reader")).await;
    assert!(present);
    // A PUBCOMP that was on its way is asked for again; messages are not.
    loop {
        match reader.packet_or_message().await {
            Ok(message) => {
                assert_eq!(message.payload, b"next");
                break;
            }
            Err((first, _)) => assert_eq!(first, 0x62),
        }
    }
}

/// A client whose session is kept, and that has 20 messages without an ack at most.
fn slow() -> Connect<'static> {
    Connect {
        properties: &[0x11, 0, 0, 0, 60, 0x21, 0, 20],
        ..kept(5, "reader")
    }
}

/// A server with the session of a slow client, which subscribes to `a` and is away.
async fn with_slow_reader(data: &Path) -> Running {
    let running = Running::start(&mut serve_mqtt(data));
    let (mut reader, _) = come_back(&running, &slow()).await;
    assert_eq!(reader.subscribe(&[("a", 1)], &[]).await, [1]);
    drop(reader);
    until_metric(&running, "alluvium_mqtt_clients 0").await;
    running
}

/// What is kept of a session.
fn kept_of(running: &Running, client_id: &str) -> serde_json::Value {
    let (status, session) = running.ask_json(&format!("GET /api/v1/mqtt/sessions/{client_id}"), "");
    assert_eq!(status, 200, "{session}");
    session
}

/// What is kept of a place while more is sent than its client acknowledges: over a kill, under the identifiers that it had.
#[tokio::test]
async fn what_comes_again_over_a_kill_comes_once_and_in_order() {
    const COUNT: u16 = 60;
    let directory = tempfile::tempdir().expect("a directory");
    let running = with_slow_reader(directory.path()).await;
    let mut pump = Mqtt::connect(running.other("MQTT"), 4, "pump").await;
    for number in 0..COUNT {
        assert_eq!(
            pump.publish(number + 1, "a", &number.to_be_bytes()).await,
            0
        );
    }
    // It takes all that it may, acknowledges nothing, and stays until its place has been noted.
    let (mut reader, present) = come_back(&running, &slow()).await;
    assert!(present);
    let mut before = Vec::new();
    for _ in 0..20 {
        before.push(reader.message().await);
    }
    until(async || kept_of(&running, "reader")["unacknowledged"] == 20).await;
    // What is durable behind it says that it is durable, too.
    assert_eq!(pump.publish(COUNT + 1, "other", b"").await, 0);
    let running = restart(running, directory.path());
    let (mut reader, present) = come_back(&running, &slow()).await;
    assert!(present);
    let mut found = Vec::new();
    while found.len() < usize::from(COUNT) {
        let message = reader.message().await;
        reader.ack(0x40, message.packet_id).await;
        found.push(message);
    }
    for (number, message) in (0..COUNT).zip(&found) {
        assert_eq!(message.payload, number.to_be_bytes(), "in order, and once");
    }
    let told = |all: &[Message]| -> Vec<_> { all.iter().map(|it| it.packet_id).collect() };
    assert_eq!(told(&found[..20]), told(&before));
    let dups = found.iter().filter(|it| it.dup).count();
    assert_eq!(dups, 20);
    reader.ping().await;
}

/// aedes #649, NanoMQ #897: order kept, backlog before live.
#[tokio::test]
async fn a_backlog_comes_before_what_is_live_and_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = with_slow_reader(directory.path()).await;
    let mut pump = Mqtt::connect(running.other("MQTT"), 4, "pump").await;
    let send = async |pump: &mut Mqtt, numbers: std::ops::Range<u16>| {
        for number in numbers.clone() {
            let publish = pump.publish_packet((1, number), "a", &[], &number.to_be_bytes());
            pump.send(&publish).await;
        }
        for _ in numbers {
            assert_eq!(pump.next().await.expect("an ack").0, 0x40);
        }
    };
    for batch in 0..20u16 {
        send(&mut pump, batch * 50 + 1..batch * 50 + 51).await;
    }
    let (mut reader, present) = come_back(&running, &slow()).await;
    assert!(present);
    for number in 1..=1_020u16 {
        if number == 500 {
            send(&mut pump, 1_001..1_021).await;
        }
        let message = reader.message().await;
        assert_eq!(message.payload, number.to_be_bytes());
        reader.ack(0x40, message.packet_id).await;
    }
}

#[tokio::test]
async fn a_session_ends_by_its_time_a_clean_start_or_its_clients_word() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command: Command = serve_mqtt(directory.path());
    command.args(["-X", "mqtt.sessions.max=2"]);
    command.args(["-X", "mqtt.session.expiry.max.ms=3600000"]);
    let running = Running::start(&mut command);
    let (reader, _) = come_back(&running, &kept(5, "one")).await;
    drop(reader);
    let (reader, present) = come_back(&running, &kept(5, "one")).await;
    assert!(present);
    drop(reader);
    let clean = Connect {
        properties: MINUTE,
        ..Connect::of(5, "one")
    };
    assert!(!come_back(&running, &clean).await.1);
    // 3.1.1 has the longest; its end is a clean session's.
    assert!(!come_back(&running, &kept(4, "two")).await.1);
    assert!(come_back(&running, &kept(4, "two")).await.1);
    // As many as there may be.
    for (version, code) in [(5, 0x97), (4, 3)] {
        let (_, answer) = Mqtt::try_connect(running.other("MQTT"), &kept(version, "three")).await;
        assert_eq!(answer.expect("an answer")[1], code);
    }
    assert!(!come_back(&running, &Connect::of(4, "two")).await.1);
    assert!(!come_back(&running, &kept(4, "two")).await.1);
    // DISCONNECT changes how long it is kept.
    let (mut one, present) = come_back(&running, &kept(5, "one")).await;
    assert!(present);
    one.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    assert_eq!(one.ended().await, None);
    assert!(!come_back(&running, &kept(5, "one")).await.1);
    // More than there may be is told; a second is over soon.
    let long = Connect {
        properties: &[0x11, 0xff, 0xff, 0xff, 0xff],
        ..kept(5, "one")
    };
    let (mut one, answer) = Mqtt::try_connect(running.other("MQTT"), &long).await;
    let answer = answer.expect("an answer");
    assert!(
        answer.windows(5).any(|it| it == [0x11, 0, 0, 0x0e, 0x10]),
        "{answer:?}"
    );
    until_metric(&running, "alluvium_mqtt_sessions 2").await;
    one.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 1]).await;
    assert_eq!(one.ended().await, None);
    until_metric(&running, "alluvium_mqtt_sessions 1").await;
}

/// mosquitto #3509, EMQX #10551 #18565: the will each time.
#[tokio::test]
async fn a_will_with_a_delay_goes_when_its_session_ends_or_its_time_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    // Each says whose it is.
    let with_will = |delay: &'static [u8], connect: Connect<'static>| Connect {
        will: Some(("wills", connect.client_id, 0x08)),
        will_properties: delay,
        ..connect
    };
    const LONG: &[u8] = &[0x18, 0, 0, 1, 0];
    const SHORT: &[u8] = &[0x18, 0, 0, 0, 1];
    let is_over = async |mqtt: &mut Mqtt| assert_eq!(mqtt.ended().await, Some(0x8e));
    // Delay 0: at the takeover, though the session goes on.
    let (mut first, _) = come_back(&running, &with_will(&[], kept(5, "a"))).await;
    let (second, present) = come_back(&running, &kept(5, "a")).await;
    assert!(present);
    is_over(&mut first).await;
    until_wills(&running, 1).await;
    drop(second);
    // Expiry 0, and a delay: the session is over.
    let (mut first, _) = come_back(&running, &with_will(LONG, Connect::of(5, "b"))).await;
    let (_second, present) = come_back(&running, &kept(5, "b")).await;
    assert!(!present);
    is_over(&mut first).await;
    until_wills(&running, 2).await;
    // A clean start ends the session.
    let (mut first, _) = come_back(&running, &with_will(LONG, kept(5, "c"))).await;
    let (_second, present) = come_back(&running, &Connect::of(5, "c")).await;
    assert!(!present);
    is_over(&mut first).await;
    until_wills(&running, 3).await;
    // Who comes back in time has none.
    let (first, _) = come_back(&running, &with_will(LONG, kept(5, "d"))).await;
    drop(first);
    let (_second, present) = come_back(&running, &kept(5, "d")).await;
    assert!(present);
    // And who does not, has one.
    let (first, _) = come_back(&running, &with_will(SHORT, kept(5, "e"))).await;
    drop(first);
    until_wills(&running, 4).await;
    assert_eq!(values(&running, "wills").await, ["a", "b", "c", "e"]);
    let (_second, present) = come_back(&running, &kept(5, "e")).await;
    assert!(present, "the session goes on without it");
}

#[tokio::test]
async fn the_will_of_a_client_that_was_there_at_a_kill_goes_once_unless_it_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let of = |client_id| Connect {
        will: Some((client_id, "gone", 0x28)),
        ..Connect::of(4, client_id)
    };
    let _lost = come_back(&running, &of("lost")).await;
    let polite = come_back(&running, &of("polite")).await;
    let mut polite = polite.0;
    polite.send(&[0xe0, 0]).await;
    assert_eq!(polite.ended().await, None);
    let faster = Connect {
        will: Some(("faster", "gone", 0x28)),
        ..kept(5, "faster")
    };
    let _faster = come_back(&running, &faster).await;
    let running = restart(running, directory.path());
    // There is half a minute to come back.
    let (back, present) = come_back(&running, &kept(5, "faster")).await;
    assert!(present);
    drop(back);
    until_metric(&running, "alluvium_mqtt_clients 0").await;
    running.end(Signal::KILL);
    let mut command = serve_mqtt(directory.path());
    command.args(["-X", "mqtt.will.grace.ms=0"]);
    let running = Running::start(&mut command);
    until_wills(&running, 1).await;
    let running = restart(running, directory.path());
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for topic in ["lost", "polite", "faster"] {
        assert_eq!(pump.publish(1, topic, b"end").await, 0);
    }
    assert_eq!(values(&running, "lost").await, ["gone", "end"]);
    assert_eq!(values(&running, "polite").await, ["end"]);
    assert_eq!(values(&running, "faster").await, ["end"]);
}
