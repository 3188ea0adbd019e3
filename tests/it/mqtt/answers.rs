//! Answers of the MQTT front that suites of others ask for: what is answered, and what is not.

use super::serve_mqtt;
use super::wire::{Connect, Mqtt, packet, text};
use crate::binary::Running;

#[tokio::test]
async fn a_refused_client_is_told_no_more_than_it_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let method = [vec![0x15], text("SCRAM-SHA-1")].concat();
    let short = [vec![0x27, 0, 0, 0, 30], method.clone()].concat();
    for (properties, says_why) in [(method, true), (short, false)] {
        let connect = Connect {
            properties: &properties,
            ..Connect::of(5, "refused")
        };
        let (_, answer) = Mqtt::try_connect(running.other("MQTT"), &connect).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer[..2], [0, 0x8c]);
        assert_eq!(answer[2] > 0, says_why, "{answer:?}");
    }
}

#[tokio::test]
async fn a_pubrec_of_an_unknown_message_is_answered_unless_it_refuses() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_mqtt(directory.path()));
    let mut client = Mqtt::connect(running.other("MQTT"), 5, "unknown").await;
    client.ack(0x50, 7).await;
    assert_eq!(client.next().await, Some((0x62, vec![0, 7, 0x92])));
    client.send(&packet(0x50, &[0, 7, 0x80])).await;
    client.ping().await;
}
