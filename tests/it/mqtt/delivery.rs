//! What subscribers are sent: by which filters, with which QoS, in which order, and how much at a time.

use client::producer::{Producer, ProducerConfig, ProducerRecord};
use client::{Client, ClientConfig};
use model::TopicName;

use super::serve_mqtt;
use super::wire::{Connect, Message, Mqtt, packet, text};
use crate::binary::Running;

fn payloads(messages: &[Message]) -> Vec<String> {
    let text = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
    messages.iter().map(text).collect()
}

#[tokio::test]
async fn subscribers_get_what_their_filters_match_with_the_lower_qos() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    for version in [4, 5] {
        let mut reader = Mqtt::connect(address, version, "reader").await;
        let codes = reader
            .subscribe(&[("site/+/temp", 1), ("alarms/#", 2), ("plain", 0)], &[])
            .await;
        assert_eq!(codes, [1, 2, 0]);
        let mut pump = Mqtt::connect(address, version, "pump").await;
        for (topic, payload) in [
            ("site/1/hum", "no"),
            ("site/1/temp", "a"),
            ("plain", "b"),
            ("alarms", "c"),
            ("site/1/2/temp", "no"),
        ] {
            assert_eq!(pump.publish(1, topic, payload.as_bytes()).await, 0);
            if payload == "no" {
                continue;
            }
            let message = reader.message().await;
            let qos = u8::from(topic != "plain");
            assert_eq!((message.topic.as_str(), message.qos), (topic, qos));
            assert_eq!(message.payload, payload.as_bytes());
            if qos == 1 {
                reader.ack(0x40, message.packet_id).await;
            }
        }
        // Nothing else came before this.
        reader.ping().await;
        let mut body = vec![0, 5];
        body.extend(vec![0; usize::from(version == 5)]);
        body.extend([text("alarms/#"), text("never")].concat());
        reader.send(&packet(0xa2, &body)).await;
        let wanted = match version {
            4 => vec![0, 5],
            _ => vec![0, 5, 0, 0, 0x11],
        };
        assert_eq!(reader.next().await, Some((0xb0, wanted)));
        assert_eq!(pump.publish(1, "alarms/1", b"no").await, 0);
        assert_eq!(pump.publish(1, "plain", b"d").await, 0);
        assert_eq!(payloads(&[reader.message().await]), ["d"]);
    }
}

#[tokio::test]
async fn a_message_of_qos_2_is_handed_over_in_four_steps() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let mut reader = Mqtt::connect(address, 5, "reader").await;
    assert_eq!(reader.subscribe(&[("#", 2)], &[]).await, [2]);
    let mut pump = Mqtt::connect(address, 4, "pump").await;
    let publish = pump.publish_packet((2, 7), "a", &[], b"x");
    pump.send(&publish).await;
    assert_eq!(pump.next().await, Some((0x50, vec![0, 7])));
    let message = reader.message().await;
    assert_eq!(message.qos, 2);
    let id = message.packet_id.to_be_bytes().to_vec();
    // An identifier that it does not know is told so, and the connection stays.
    reader.ack(0x50, 999).await;
    assert_eq!(reader.next().await, Some((0x62, vec![3, 231, 0x92])));
    for _ in 0..2 {
        reader.ack(0x50, message.packet_id).await;
        assert_eq!(reader.next().await, Some((0x62, id.clone())));
    }
    reader.ack(0x70, message.packet_id).await;
    reader.ping().await;
    // Another QoS's ack is none.
    pump.ack(0x62, 7).await;
    assert_eq!(pump.next().await, Some((0x70, vec![0, 7])));
    assert_eq!(pump.publish(1, "a", b"y").await, 0);
    let message = reader.message().await;
    assert_eq!(message.qos, 1);
    reader.ack(0x50, message.packet_id).await;
    assert_eq!(reader.ended().await, Some(0x82));
}

#[tokio::test]
async fn overlapping_subscriptions_give_one_message_with_all_identifiers() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut reader = Mqtt::connect(running.other("MQTT"), 5, "reader").await;
    assert_eq!(reader.subscribe(&[("a/#", 0)], &[0x0b, 5]).await, [0]);
    assert_eq!(reader.subscribe(&[("a/+", 1)], &[0x0b, 9]).await, [1]);
    // No local: not its own.
    assert_eq!(reader.subscribe(&[("b", 0x04)], &[]).await, [0]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for topic in ["a/b", "b"] {
        let said = [vec![0x26], text("k"), text("v")].concat();
        let publish = pump.publish_packet((1, 1), topic, &said, b"x");
        pump.send(&publish).await;
        assert_eq!(pump.next().await, Some((0x40, vec![0, 1])));
    }
    let message = reader.message().await;
    let user = [vec![0x26], text("k"), text("v")].concat();
    let said = [&[0x0b, 5, 0x0b, 9][..], &user].concat();
    assert_eq!((message.qos, message.properties), (1, said));
    reader.ack(0x40, message.packet_id).await;
    let message = reader.message().await;
    assert_eq!((message.topic.as_str(), message.properties), ("b", user));
    let own = reader.publish_packet((0, 0), "b", &[], b"own");
    reader.send(&own).await;
    let own = reader.publish_packet((0, 0), "a/own", &[], b"own");
    reader.send(&own).await;
    assert_eq!(reader.message().await.topic, "a/own");
}

#[tokio::test]
async fn filters_that_are_not_offered_are_refused_one_by_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let filters = [
        ("good", 1),
        ("a#", 1),
        ("a/#/b", 0),
        ("$share/g", 1),
        ("$replay/7/a", 1),
        ("$SYS/#", 0),
    ];
    let mut new = Mqtt::connect(running.other("MQTT"), 5, "new").await;
    let codes = new.subscribe(&filters, &[]).await;
    assert_eq!(codes, [1, 0x8f, 0x8f, 0x8f, 0x8f, 0x8f]);
    let mut old = Mqtt::connect(running.other("MQTT"), 4, "old").await;
    let codes = old.subscribe(&filters, &[]).await;
    assert_eq!(codes, [1, 0x80, 0x80, 0x80, 0x80, 0x80]);
    let many: Vec<String> = (0..1_001).map(|it| it.to_string()).collect();
    let many: Vec<(&str, u8)> = many.iter().map(|it| (it.as_str(), 0)).collect();
    let codes = new.subscribe(&many, &[]).await;
    assert_eq!((codes[998], codes[999]), (0, 0x97), "1000 with the first");
    let mut body = vec![0, 1, 0];
    body.extend(text("$share/g/a"));
    body.push(0x04);
    old = Mqtt::connect(running.other("MQTT"), 5, "old").await;
    old.send(&packet(0x82, &body)).await;
    assert_eq!(old.ended().await, Some(0x82), "no local on a share");
}

#[tokio::test]
async fn a_replay_gives_what_was_published_before_and_then_what_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for (version, from) in [(4, "earliest"), (5, "-1h")] {
        let topic = |name: &str| format!("v{version}/{name}");
        let wanted: Vec<String> = (0..100).map(|it| it.to_string()).collect();
        for payload in &wanted {
            let published = pump.publish(1, &topic("1"), payload.as_bytes()).await;
            assert_eq!((published, pump.publish(1, "other", b"no").await), (0, 0));
        }
        let mut reader = Mqtt::connect(running.other("MQTT"), version, "reader").await;
        // Beside one that gives what comes, and nothing of history.
        let alarms = topic("alarms/1");
        assert_eq!(pump.publish(1, &alarms, b"old").await, 0);
        assert_eq!(reader.subscribe(&[(&topic("alarms/+"), 0)], &[]).await, [0]);
        let filter = format!("$replay/{from}/{}", topic("+"));
        assert_eq!(reader.subscribe(&[(&filter, 1)], &[]).await, [1]);
        let mut got = Vec::new();
        let mut said = Vec::new();
        for _ in &wanted {
            let message = reader.message().await;
            assert_eq!((&message.topic, message.qos), (&topic("1"), 1));
            reader.ack(0x40, message.packet_id).await;
            got.extend(payloads(std::slice::from_ref(&message)));
            said = message.properties;
        }
        assert_eq!(got, wanted);
        let said = String::from_utf8_lossy(&said);
        let tells_where = said.contains("log-offset") && said.contains("log-time");
        assert_eq!(tells_where, version == 5, "{said:?}");
        for topic in [topic("2"), topic("alarms/1")] {
            assert_eq!(pump.publish(1, &topic, b"new").await, 0);
            let message = reader.message().await;
            assert_eq!(
                (&message.topic, &message.payload[..]),
                (&topic, &b"new"[..])
            );
            if message.qos > 0 {
                reader.ack(0x40, message.packet_id).await;
            }
        }
        // An offset is another place in each partition.
        let codes = reader.subscribe(&[("$replay/7/a", 1), ("$replay/x/a", 1)], &[]);
        let refused = if version == 5 { 0x8f } else { 0x80 };
        assert_eq!(codes.await, [refused; 2]);
        // What is unsubscribed gives no more.
        let mut body = vec![0, 5];
        body.extend(vec![0; usize::from(version == 5)]);
        body.extend(text(&filter));
        reader.send(&packet(0xa2, &body)).await;
        assert_eq!(reader.next().await.expect("an answer").0, 0xb0);
        assert_eq!(pump.publish(1, &topic("3"), b"no").await, 0);
        assert_eq!(pump.publish(1, &alarms, b"yes").await, 0);
        assert_eq!(payloads(&[reader.message().await]), ["yes"]);
    }
}

/// aedes #649, NanoMQ #897.
#[tokio::test]
async fn no_more_than_the_receive_maximum_are_without_an_ack_and_order_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let connect = Connect {
        properties: &[0x21, 0, 2],
        ..Connect::of(5, "reader")
    };
    let mut reader = Mqtt::connect_as(running.other("MQTT"), &connect).await;
    assert_eq!(reader.subscribe(&[("#", 1)], &[]).await, [1]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    let count = 100;
    for number in 0..count {
        let payload = format!("{number}");
        assert_eq!(pump.publish(1, "a", payload.as_bytes()).await, 0);
    }
    let mut open = vec![reader.message().await, reader.message().await];
    // Neither is acknowledged: nothing comes before the answer.
    reader.ping().await;
    let mut got = payloads(&open);
    while got.len() < count {
        let first = open.remove(0);
        reader.ack(0x40, first.packet_id).await;
        open.push(reader.message().await);
        assert_ne!(open[0].packet_id, open[1].packet_id);
        got.push(payloads(&open[1..]).remove(0));
    }
    let wanted: Vec<String> = (0..count).map(|it| it.to_string()).collect();
    assert_eq!(got, wanted);
}

/// rmqtt #513.
#[tokio::test]
async fn a_message_that_is_too_large_for_a_subscriber_holds_up_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let connect = Connect {
        properties: &[0x27, 0, 0, 0, 100],
        ..Connect::of(5, "reader")
    };
    let mut reader = Mqtt::connect_as(running.other("MQTT"), &connect).await;
    assert_eq!(reader.subscribe(&[("#", 1)], &[]).await, [1]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    // Header, topic, identifier and properties take 8 bytes.
    for (payload, fits) in [(92, true), (93, false), (5, true)] {
        assert_eq!(pump.publish(1, "a", &vec![b'x'; payload]).await, 0);
        if fits {
            let message = reader.message().await;
            assert_eq!(message.payload.len(), payload);
            reader.ack(0x40, message.packet_id).await;
        }
    }
    let page = running.get("/metrics").1;
    let skipped = "alluvium_mqtt_skipped_total{reason=\"too_large\"} 1\n";
    assert!(page.contains(skipped), "{page}");
}

#[tokio::test]
async fn what_expired_is_not_sent_and_the_rest_of_a_time_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut reader = Mqtt::connect(running.other("MQTT"), 5, "reader").await;
    assert_eq!(reader.subscribe(&[("#", 0)], &[]).await, [0]);
    let mut pump = Mqtt::connect(running.other("MQTT"), 5, "pump").await;
    for (seconds, payload) in [(0, b"gone"), (100_000, b"kept")] {
        let said = [&[0x02][..], &u32::to_be_bytes(seconds)].concat();
        let publish = pump.publish_packet((1, 1), "a", &said, payload);
        pump.send(&publish).await;
        assert_eq!(pump.next().await, Some((0x40, vec![0, 1])));
    }
    let message = reader.message().await;
    assert_eq!(payloads(std::slice::from_ref(&message)), ["kept"]);
    let [0x02, rest @ ..] = &message.properties[..] else {
        panic!("{message:?}");
    };
    let left = u32::from_be_bytes(rest.try_into().expect("four bytes"));
    assert!((1..=100_000).contains(&left), "{left}");
}

#[tokio::test]
async fn what_a_kafka_producer_writes_reaches_subscribers() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut reader = Mqtt::connect(running.other("MQTT"), 5, "reader").await;
    assert_eq!(reader.subscribe(&[("site/#", 2)], &[]).await, [2]);
    let client = Client::connect(ClientConfig::new(&running.kafka))
        .await
        .expect("a client");
    let producer = Producer::new(&client, ProducerConfig::default()).expect("a producer");
    for (key, value) in [
        ("other", "no"),
        ("site/#", "no topic's name"),
        ("site/1", "21.5"),
    ] {
        let name = TopicName::parse("mqtt").expect("a name");
        let record = ProducerRecord::new(name, value).key(key);
        let sent = producer.send(record).await.expect("taken");
        sent.wait().await.expect("durable");
    }
    // Without a QoS of its own it comes with the granted one.
    let message = reader.message().await;
    assert_eq!((message.topic.as_str(), message.qos), ("site/1", 2));
    assert_eq!(message.payload, b"21.5");
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_keeps_what_it_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT").to_owned();
    let mut new = Mqtt::connect(&address, 5, "new").await;
    let mut old = Mqtt::connect(&address, 4, "old").await;
    assert_eq!(new.publish(1, "a", b"x").await, 0);
    let ended = tokio::task::spawn_blocking(|| running.end(rustix::process::Signal::TERM));
    assert_eq!(new.ended().await, Some(0x8b));
    assert_eq!(old.ended().await, None);
    assert_eq!(ended.await.expect("it ends").0, Some(0));
}
