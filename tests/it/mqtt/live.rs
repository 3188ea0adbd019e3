//! Who keeps up is handed what comes; who does not reads by itself, and comes back when it has caught up.

use super::wire::{Connect, Mqtt};
use super::{metric, serve_mqtt, until};
use crate::binary::Running;

/// More than waits for a subscriber that takes nothing.
const MANY: u16 = 6_000;

/// Publishes numbers from `from` on, and waits until they are durable.
async fn publish(pump: &mut Mqtt, numbers: std::ops::Range<u16>) {
    let (mut sent, mut acked) = (numbers.start, numbers.start);
    while acked < numbers.end {
        while sent < numbers.end && sent - acked < 60 {
            let payload = format!("{sent}{}", "x".repeat(100));
            let publish = pump.publish_packet((1, sent + 1), "site/1", &[], payload.as_bytes());
            pump.send(&publish).await;
            sent += 1;
        }
        assert_eq!(pump.next().await.expect("an ack").0, 0x40);
        acked += 1;
    }
}

async fn take(reader: &mut Mqtt, numbers: std::ops::Range<u16>) {
    for number in numbers {
        let message = reader.message().await;
        let payload = String::from_utf8(message.payload).expect("text");
        assert_eq!(payload.trim_end_matches('x'), number.to_string());
        if message.qos > 0 {
            reader.ack(0x40, message.packet_id).await;
        }
    }
}

#[tokio::test]
async fn a_slow_subscriber_falls_behind_and_misses_nothing_and_gets_nothing_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let address = running.other("MQTT");
    // It lets 20 messages be without an ack.
    let slow = Connect {
        properties: &[0x21, 0, 20],
        ..Connect::of(5, "slow")
    };
    let mut slow = Mqtt::connect_as(address, &slow).await;
    assert_eq!(slow.subscribe(&[("site/#", 1)], &[]).await, [1]);
    let mut quick = Mqtt::connect(address, 4, "quick").await;
    assert_eq!(quick.subscribe(&[("+/1", 0)], &[]).await, [0]);
    let mut other = Mqtt::connect(address, 4, "other").await;
    assert_eq!(other.subscribe(&[("other", 0)], &[]).await, [0]);
    let mut pump = Mqtt::connect(address, 4, "pump").await;
    tokio::join!(publish(&mut pump, 0..MANY), take(&mut quick, 0..MANY));
    assert!(metric(&running, "alluvium_mqtt_fell_behind_total") >= 1);
    // It goes on by itself, and others publish meanwhile.
    tokio::join!(
        publish(&mut pump, MANY..MANY + 500),
        take(&mut slow, 0..MANY + 500),
        take(&mut quick, MANY..MANY + 500),
    );
    // It has caught up, and is handed what comes.
    until(async || metric(&running, "alluvium_mqtt_readers") == 0).await;
    publish(&mut pump, MANY + 500..MANY + 600).await;
    take(&mut slow, MANY + 500..MANY + 600).await;
    take(&mut quick, MANY + 500..MANY + 600).await;
    for one in [&mut slow, &mut quick, &mut other] {
        one.ping().await;
    }
}
