//! Retained messages: who is given them, when, and what of them outlives what.

use rustix::process::Signal;

use super::wire::{Connect, Message, Mqtt, text};
use super::{retain, serve_mqtt, until, until_metric, values};
use crate::binary::{Running, tool};
use crate::key_search::find;

fn shown(message: &Message) -> (String, String, u8, bool) {
    let payload = String::from_utf8_lossy(&message.payload).into_owned();
    (message.topic.clone(), payload, message.qos, message.retain)
}

/// The messages that are there now: nothing comes behind them.
async fn all_of(mqtt: &mut Mqtt) -> Vec<Message> {
    mqtt.send(&[0xc0, 0]).await;
    let mut found = Vec::new();
    loop {
        match mqtt.packet_or_message().await {
            Ok(message) => {
                if message.qos == 1 {
                    mqtt.ack(0x40, message.packet_id).await;
                }
                found.push(message);
            }
            Err(packet) => {
                assert_eq!(packet, (0xd0, Vec::new()));
                return found;
            }
        }
    }
}

/// Waits until a new subscriber of everything is given exactly this.
async fn until_given(running: &Running, wanted: &[(&str, &str)]) {
    until(async || {
        let mut mqtt = Mqtt::connect(running.other("MQTT"), 5, "looks").await;
        assert_eq!(mqtt.subscribe(&[("#", 0)], &[]).await, [0]);
        let found = all_of(&mut mqtt).await;
        let found: Vec<_> = found.iter().map(shown).collect();
        let found = found.iter();
        let found: Vec<_> = found
            .map(|(topic, payload, ..)| (topic.as_str(), payload.as_str()))
            .collect();
        found == wanted
    })
    .await;
}

#[tokio::test]
async fn a_later_subscriber_is_given_the_last_message_of_each_topic() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let mut pump = Mqtt::connect(address, 5, "pump").await;
    let said = [vec![0x26], text("unit"), text("K")].concat();
    for (topic, payload) in [("a/1", "old"), ("a/1", "new"), ("a/2", "x"), ("b", "y")] {
        assert_eq!(retain(&mut pump, topic, &said, payload.as_bytes()).await, 0);
    }
    // Removed, and never kept.
    assert_eq!(retain(&mut pump, "a/3", &[], b"z").await, 0);
    assert_eq!(retain(&mut pump, "a/3", &[], b"").await, 0);
    assert_eq!(pump.publish(1, "a/4", b"live").await, 0);
    let of = |topic: &str, payload: &str, qos, retain| {
        (topic.to_owned(), payload.to_owned(), qos, retain)
    };
    for version in [4, 5] {
        let mut reader = Mqtt::connect(address, version, "reader").await;
        assert_eq!(reader.subscribe(&[("a/+", 1)], &[]).await, [1]);
        let wanted = [of("a/1", "new", 1, true), of("a/2", "x", 1, true)];
        let found = all_of(&mut reader).await;
        assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), wanted);
        if version == 5 {
            assert_eq!(found[0].properties, said);
        }
        // One topic, and the lower QoS.
        assert_eq!(reader.subscribe(&[("b", 0)], &[]).await, [0]);
        let found = all_of(&mut reader).await;
        assert_eq!(
            found.iter().map(shown).collect::<Vec<_>>(),
            [of("b", "y", 0, true)]
        );
        // What comes is not marked.
        assert_eq!(retain(&mut pump, "b", &[], b"y").await, 0);
        assert_eq!(shown(&reader.message().await), of("b", "y", 0, false));
    }
    // The records are as any: the last of them, too.
    assert_eq!(values(&running, "a/1").await, ["old", "new"]);
    assert_eq!(values(&running, "a/3").await, ["z", ""]);
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_mqtt(directory.path()));
    until_given(&running, &[("a/1", "new"), ("a/2", "x"), ("b", "y")]).await;
}

#[tokio::test]
async fn retain_handling_and_retain_as_published_are_as_the_subscription_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let mut pump = Mqtt::connect(address, 5, "pump").await;
    assert_eq!(retain(&mut pump, "a", &[], b"x").await, 0);
    let mut reader = Mqtt::connect(address, 5, "reader").await;
    // Bits 4 and 5: always, if it is new, never.
    for (options, is_given) in [
        (0x10, true),
        (0x10, false),
        (0x00, true),
        (0x20, false),
        (0x00, true),
    ] {
        assert_eq!(reader.subscribe(&[("a", options)], &[]).await, [0]);
        let found = all_of(&mut reader).await;
        assert_eq!(found.len(), usize::from(is_given), "{options:#x}");
    }
    // Bit 3: as it was published. Bit 2: not its own.
    assert_eq!(reader.subscribe(&[("a", 0x2c)], &[]).await, [0]);
    assert_eq!(retain(&mut pump, "a", &[], b"y").await, 0);
    assert!(reader.message().await.retain);
    assert_eq!(pump.publish(1, "a", b"z").await, 0);
    assert!(!reader.message().await.retain);
    assert_eq!(retain(&mut reader, "a", &[], b"own").await, 0);
    assert_eq!(reader.subscribe(&[("a", 0x04)], &[]).await, [0]);
    assert!(all_of(&mut reader).await.is_empty());
    assert_eq!(reader.subscribe(&[("a", 0x00)], &[]).await, [0]);
    assert_eq!(all_of(&mut reader).await.len(), 1);
}

/// hivemq-ce #616 #784, rmqtt #513: also behind a kill.
#[tokio::test]
async fn a_retained_message_says_what_is_left_of_its_time_and_is_gone_then() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    assert_eq!(retain(&mut pump, "long", &[2, 0, 0, 0, 120], b"x").await, 0);
    assert_eq!(retain(&mut pump, "short", &[2, 0, 0, 0, 2], b"x").await, 0);
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_mqtt(directory.path()));
    until_given(&running, &[("long", "x")]).await;
    let mut reader = Mqtt::connect(running.other("MQTT"), 5, "reader").await;
    assert_eq!(reader.subscribe(&[("long", 0)], &[]).await, [0]);
    let said = reader.message().await.properties;
    // The short one's two seconds have passed.
    let left = u32::from_be_bytes(said[1..5].try_into().expect("a number"));
    assert!(said[0] == 2 && (1..=118).contains(&left), "{said:?}");
    // It is removed from memory, and from the log.
    until_metric(&running, "alluvium_mqtt_retained 1").await;
}

/// mosquitto #2196 #2887, EMQX #3418 #15605, mqtt-lib #113: all of them, with their identifier, however slow the subscriber.
#[tokio::test]
async fn many_retained_messages_reach_a_slow_subscriber_of_all() {
    const COUNT: u16 = 2_000;
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let mut pump = Mqtt::connect(address, 4, "pump").await;
    for number in 0..=COUNT {
        let mut publish = pump.publish_packet((1, number + 1), &format!("n/{number}"), &[], b"x");
        publish[0] |= 1;
        pump.send(&publish).await;
        if number >= 60 {
            assert_eq!(pump.next().await.expect("an ack").0, 0x40);
        }
    }
    for _ in 0..60 {
        assert_eq!(pump.next().await.expect("an ack").0, 0x40);
    }
    // One message at a time.
    let slow = Connect {
        properties: &[0x21, 0, 1],
        ..Connect::of(5, "slow")
    };
    let mut slow = Mqtt::connect_as(address, &slow).await;
    assert_eq!(slow.subscribe(&[("+/#", 1)], &[0x0b, 5]).await, [1]);
    // What is published meanwhile comes behind them, once. This topic is the last in the list.
    assert_eq!(retain(&mut pump, "n/999", &[], b"live").await, 0);
    let mut topics = std::collections::BTreeSet::new();
    for _ in 0..COUNT {
        let message = slow.message().await;
        assert_eq!(
            (message.retain, &message.properties[..]),
            (true, &[0x0b, 5][..])
        );
        slow.ack(0x40, message.packet_id).await;
        assert!(topics.insert(message.topic), "each once");
    }
    let last = slow.message().await;
    assert_eq!((&last.payload[..], last.retain), (&b"live"[..], false));
    assert!(!topics.contains("n/999"));
}

#[tokio::test]
async fn what_is_retained_is_bounded_and_a_message_beyond_is_refused_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_mqtt(directory.path());
    command.args(["-X", "mqtt.retained.bytes.max=2000"]);
    let running = Running::start(&mut command);
    let address = running.other("MQTT");
    let mut pump = Mqtt::connect(address, 5, "pump").await;
    assert_eq!(retain(&mut pump, "a", &[], &[b'x'; 1_000]).await, 0);
    assert_eq!(retain(&mut pump, "b", &[], &[b'x'; 1_000]).await, 0x97);
    // In place of the other it fits, and a small one beside it.
    assert_eq!(retain(&mut pump, "a", &[], &[b'y'; 1_000]).await, 0);
    assert_eq!(retain(&mut pump, "c", &[], b"x").await, 0);
    assert_eq!(retain(&mut pump, "a", &[], b"").await, 0);
    assert_eq!(retain(&mut pump, "b", &[], &[b'z'; 1_000]).await, 0);
    assert_eq!(values(&running, "b").await, ["z".repeat(1_000)]);
    // Where no ack can say so the connection ends.
    let mut publish = pump.publish_packet((0, 0), "d", &[], &[b'x'; 1_000]);
    publish[0] |= 1;
    pump.send(&publish).await;
    assert_eq!(pump.ended().await, Some(0x97));
}

#[tokio::test]
async fn retained_messages_keep_the_order_of_their_topic_and_wills_may_be_retained() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let with_will = Connect {
        will: Some(("wills/pump", "gone", 0x28)),
        ..Connect::of(4, "pump")
    };
    let mut pump = Mqtt::connect_as(address, &with_will).await;
    // Without waiting, some of them retained.
    for number in 1..=60u16 {
        let payload = number.to_string();
        let mut publish = pump.publish_packet((1, number), "a", &[], payload.as_bytes());
        publish[0] |= u8::from(number % 3 == 0);
        pump.send(&publish).await;
    }
    for number in 1..=60u16 {
        let ack = pump.next().await;
        assert_eq!(ack, Some((0x40, number.to_be_bytes().to_vec())));
    }
    let wanted: Vec<String> = (1..=60).map(|it| it.to_string()).collect();
    assert_eq!(values(&running, "a").await, wanted);
    until_given(&running, &[("a", "60")]).await;
    drop(pump);
    until_given(&running, &[("a", "60"), ("wills/pump", "gone")]).await;
}

/// What is kept of a key's records goes with them, also what was removed before and what another name's route put under the key.
#[tokio::test]
async fn an_erasure_takes_what_is_retained_of_the_keys_records() {
    let directory = tempfile::tempdir().expect("a directory");
    let routes =
        r#"mqtt.route=[{"filter": "site/{device}/#", "topic": "telemetry", "key": "{device}"}]"#;
    let server = || {
        let mut command = serve_mqtt(directory.path());
        command.args(["-X", routes, "-X", "settle.age.ms=20"]);
        Running::start(&mut command)
    };
    let running = server();
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for (topic, payload) in [
        ("devices/to-be-erased", "the-first-secret"),
        ("devices/to-be-erased", "the-second-secret"),
        ("devices/that-stays", "what-stays"),
        ("devices/cleared-before", "the-third-secret"),
        ("devices/cleared-before", ""),
        ("site/device-4711/temp", "the-fourth-secret"),
        ("site/device-4711/hum", "the-fifth-secret"),
        ("site/device-1/temp", "what-stays"),
    ] {
        assert_eq!(retain(&mut pump, topic, &[], payload.as_bytes()).await, 0);
    }
    let holds = |text: &str| !find(directory.path(), text.as_bytes()).is_empty();
    assert!(holds("the-third-secret"), "the search can find something");
    let erase = |running: &Running, args: &[&str]| {
        let http = ["erase", "request", "--http", &running.http];
        let said = tool(&[&http, args, &["--yes", "--wait"]].concat());
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    };
    erase(
        &running,
        &["mqtt", "devices/to-be-erased", "devices/cleared-before"],
    );
    for text in [
        "the-first",
        "the-second",
        "the-third",
        "to-be-erased",
        "cleared-before",
    ] {
        assert!(
            !holds(text),
            "{text}: {:?}",
            find(directory.path(), text.as_bytes())
        );
    }
    let stay = [
        ("devices/that-stays", "what-stays"),
        ("site/device-1/temp", "what-stays"),
    ];
    let also = [
        ("site/device-4711/hum", "the-fifth-secret"),
        ("site/device-4711/temp", "the-fourth-secret"),
    ];
    let left = [stay, also].concat();
    until_given(&running, &left).await;
    // Behind a start it is not known where the record of a message is.
    running.end(Signal::KILL);
    let running = server();
    until_given(&running, &left).await;
    erase(&running, &["telemetry", "device-4711"]);
    assert!(!holds("the-fourth") && !holds("the-fifth"));
    until_given(&running, &stay).await;
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    let topic = "site/device-4711/temp";
    assert_eq!(retain(&mut pump, topic, &[], b"again").await, 0);
    running.end(Signal::KILL);
    let running = server();
    until_given(&running, &[stay[0], stay[1], (topic, "again")]).await;
}
