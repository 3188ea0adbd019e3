//! History as a subscription: with an end, a limit and a speed.

use super::wire::{Message, Mqtt, text};
use super::{retain, serve_mqtt, until_metric};
use crate::binary::Running;

/// Topics and payloads of what comes next, each acknowledged.
pub async fn next(reader: &mut Mqtt, count: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for _ in 0..count {
        let Message {
            topic,
            payload,
            qos,
            packet_id,
            ..
        } = reader.message().await;
        if qos > 0 {
            reader.ack(0x40, packet_id).await;
        }
        found.push((topic, String::from_utf8(payload).expect("text")));
    }
    found.sort();
    found
}

pub fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = all.iter();
    all.map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned()))
        .collect()
}

pub fn user(name: &str, value: &str) -> Vec<u8> {
    [vec![0x26], text(name), text(value)].concat()
}

#[tokio::test]
async fn history_has_an_end_a_limit_and_a_speed() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let mut pump = Mqtt::connect(address, 4, "pump").await;
    for number in 0..5u16 {
        let payload = number.to_string();
        assert_eq!(pump.publish(number + 1, "a", payload.as_bytes()).await, 0);
    }
    let all = [("a", "0"), ("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")];
    let mut there = all.to_vec();
    // With an end nothing comes behind it, in 3.1.1 too.
    for version in [4, 5] {
        let mut reader = Mqtt::connect(address, version, "reader").await;
        let codes = reader.subscribe(&[("$replay/earliest..latest/#", 1)], &[]);
        assert_eq!(codes.await, [1]);
        assert_eq!(next(&mut reader, there.len()).await, pairs(&there));
        assert_eq!(pump.publish(9, "b", b"later").await, 0);
        there.push(("b", "later"));
        let codes = reader.subscribe(
            &[("$replay/latest..earliest/a", 1), ("$replay/7/a", 0)],
            &[],
        );
        assert_eq!(
            codes.await,
            if version == 4 { [1, 0x80] } else { [1, 0x8f] }
        );
        reader.ping().await;
    }
    let mut reader = Mqtt::connect(address, 5, "reader").await;
    let asked = [user("replay-from", "earliest"), user("replay-limit", "3")].concat();
    assert_eq!(reader.subscribe(&[("a", 1)], &asked).await, [1]);
    assert_eq!(next(&mut reader, 3).await, pairs(&all[..3]));
    assert_eq!(pump.publish(1, "a", b"no more").await, 0);
    reader.ping().await;
    // As many as there are: it is over with the last, and not with the one behind it.
    let asked = [user("replay-from", "earliest"), user("replay-limit", "6")].concat();
    assert_eq!(reader.subscribe(&[("a", 1)], &asked).await, [1]);
    let six = [&all[..], &[("a", "no more")]].concat();
    assert_eq!(next(&mut reader, 6).await, pairs(&six));
    until_metric(&running, "alluvium_mqtt_readers 0").await;
    // A subscription of the same filter takes its place.
    assert_eq!(reader.subscribe(&[("a", 1)], &[]).await, [1]);
    assert_eq!(pump.publish(1, "a", b"live").await, 0);
    assert_eq!(next(&mut reader, 1).await, pairs(&[("a", "live")]));
    let asked = [
        user("replay-from", "earliest"),
        user("replay-speed", "100000"),
    ]
    .concat();
    assert_eq!(reader.subscribe(&[("a", 1)], &asked).await, [1]);
    let expected = [&all[..], &[("a", "live"), ("a", "no more")]].concat();
    assert_eq!(next(&mut reader, 7).await, pairs(&expected));
    assert_eq!(pump.publish(1, "a", b"and on").await, 0);
    assert_eq!(next(&mut reader, 1).await, pairs(&[("a", "and on")]));
    for wrong in [user("replay-from", "x"), user("replay-limit", "3")] {
        assert_eq!(reader.subscribe(&[("c", 1)], &wrong).await, [0x83]);
    }
    reader.ping().await;
}

/// The user property of this name.
pub fn said(message: &Message, name: &str) -> Option<String> {
    let mut rest = &message.properties[..];
    let mut texts = Vec::new();
    while let [0x26, more @ ..] = rest {
        let mut more = more;
        let mut part = || {
            let length = usize::from(u16::from_be_bytes([more[0], more[1]]));
            let text = String::from_utf8(more[2..2 + length].to_vec()).expect("text");
            more = &more[2 + length..];
            text
        };
        texts.push((part(), part()));
        rest = more;
    }
    let found = texts.into_iter().find(|(of, _)| of == name);
    found.map(|(_, value)| value)
}

#[tokio::test]
async fn a_replay_goes_on_behind_the_offsets_that_were_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let mut pump = Mqtt::connect(address, 4, "pump").await;
    for number in 0..60u16 {
        let topic = format!("t/{}", number % 7);
        let payload = number.to_string();
        assert_eq!(
            pump.publish(number + 1, &topic, payload.as_bytes()).await,
            0
        );
    }
    let mut found = Vec::new();
    let mut taken = std::collections::BTreeMap::new();
    let mut from = "earliest".to_owned();
    for _ in 0..4 {
        let mut reader = Mqtt::connect(address, 5, "reader").await;
        let filter = format!("$replay/{from}/t/+");
        assert_eq!(reader.subscribe(&[(&filter, 0)], &[]).await, [0]);
        for _ in 0..15 {
            let message = reader.message().await;
            let offset = said(&message, "log-offset").expect("each says where it is");
            let (partition, offset) = offset.split_once(':').expect("both");
            taken.insert(partition.to_owned(), offset.to_owned());
            found.push(String::from_utf8(message.payload).expect("text"));
        }
        let all = taken
            .iter()
            .map(|(partition, offset)| format!("{partition}:{offset}"));
        from = format!("@{}", all.collect::<Vec<_>>().join(","));
    }
    // All, each once; and then what comes.
    found.sort_by_key(|it| it.parse::<u16>().expect("a number"));
    let wanted: Vec<String> = (0..60).map(|it| it.to_string()).collect();
    assert_eq!(found, wanted);
    let mut reader = Mqtt::connect(address, 5, "reader").await;
    let asked = user("replay-from", &from);
    assert_eq!(reader.subscribe(&[("t/+", 1)], &asked).await, [1]);
    assert_eq!(pump.publish(1, "t/1", b"next").await, 0);
    assert_eq!(next(&mut reader, 1).await, pairs(&[("t/1", "next")]));
    let wrong = [("$replay/@3/a", 0), ("$replay/@3:1..latest/a", 0)];
    assert_eq!(reader.subscribe(&wrong, &[]).await, [0x8f, 0x8f]);
}

#[tokio::test]
async fn last_values_are_the_newest_message_of_each_topic_and_then_what_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    let mut pump = Mqtt::connect(address, 5, "pump").await;
    for round in 0..20u16 {
        for topic in ["site/1/temp", "site/2/temp", "site/2/hum", "other"] {
            let payload = format!("{topic} {round}");
            assert_eq!(pump.publish(1, topic, payload.as_bytes()).await, 0);
        }
    }
    // Retained or not.
    assert_eq!(retain(&mut pump, "site/1/temp", &[], b"newest").await, 0);
    for version in [4, 5] {
        let mut reader = Mqtt::connect(address, version, "reader").await;
        assert_eq!(
            reader.subscribe(&[("$last/site/+/temp", 1)], &[]).await,
            [1]
        );
        let site_2 = if version == 4 { "site/2/temp 19" } else { "4" };
        let wanted = [("site/1/temp", "newest"), ("site/2/temp", site_2)];
        assert_eq!(next(&mut reader, 2).await, pairs(&wanted));
        assert_eq!(pump.publish(1, "site/2/hum", b"no").await, 0);
        let live = version.to_string();
        assert_eq!(pump.publish(1, "site/2/temp", live.as_bytes()).await, 0);
        assert_eq!(next(&mut reader, 1).await, pairs(&[("site/2/temp", &live)]));
        reader.ping().await;
        // One topic, and none.
        let filters = [("$last/other", 0), ("$last/never", 0), ("$last/$x", 0)];
        let refused = if version == 5 { 0x8f } else { 0x80 };
        assert_eq!(reader.subscribe(&filters, &[]).await, [0, 0, refused]);
        assert_eq!(next(&mut reader, 1).await, pairs(&[("other", "other 19")]));
        reader.ping().await;
    }
    // It is caught up, and costs no reader of its own.
    let mut reader = Mqtt::connect(address, 5, "reader").await;
    assert_eq!(reader.subscribe(&[("$last/#", 0)], &[]).await, [0]);
    assert_eq!(next(&mut reader, 4).await.len(), 4);
    until_metric(&running, "alluvium_mqtt_readers 0").await;
}
