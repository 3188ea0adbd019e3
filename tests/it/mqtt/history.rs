//! History as a subscription: with an end, a limit and a speed.

use super::wire::{Message, Mqtt, text};
use super::{serve_mqtt, until_metric};
use crate::binary::Running;

/// Topics and payloads of what comes next, each acknowledged.
async fn next(reader: &mut Mqtt, count: usize) -> Vec<(String, String)> {
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

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = all.iter();
    all.map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned()))
        .collect()
}

fn user(name: &str, value: &str) -> Vec<u8> {
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
