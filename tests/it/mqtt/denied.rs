//! A client that may do nothing.

use super::wire::{Connect, Mqtt};
use super::{serve_mqtt, until};
use crate::binary::Running;
use crate::denied::{PASSWORD, as_root, control, held};

#[tokio::test]
async fn of_a_client_that_may_do_nothing_nothing_is_changed_and_nothing_is_held() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_mqtt(&directory.path().join("store"));
    control(&mut command, directory.path());
    let running = Running::start(&mut command);
    let topic = r#"{"name":"there","partitions":1}"#;
    as_root(&running, "POST /api/v1/topics", topic);
    let before = held(&running);
    for version in [4, 5] {
        let connect = Connect {
            login: Some(("alice", PASSWORD)),
            ..Connect::of(version, "device")
        };
        let address = running.other("MQTT");
        let refused = if version == 5 { 0x87 } else { 0x80 };
        for filter in ["there", "other/#", "$share/g/there", "$last/there"] {
            let (mut mqtt, _) = Mqtt::try_connect(address, &connect).await;
            let told = mqtt.subscribe(&[(filter, 1)], &[]).await;
            assert_eq!(told, [refused], "{filter}");
        }
        for (qos, retain) in [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)] {
            for topic in ["there", "other"] {
                let (mut mqtt, _) = Mqtt::try_connect(address, &connect).await;
                let mut publish = mqtt.publish_packet((qos, 1), topic, &[], b"x");
                publish[0] |= retain;
                mqtt.send(&publish).await;
                // An answer that says so, or the end.
                if let Some((first, body)) = mqtt.next().await {
                    let is_ack = [0x40, 0x50].contains(&first) && body.get(2) == Some(&0x87);
                    let is_end = first == 0xe0 && body.first() == Some(&0x87);
                    assert!(is_ack || is_end, "{qos} {first:x} {body:?}");
                }
            }
        }
        let will = Connect {
            will: Some(("there", "gone", 0)),
            ..connect
        };
        let (_, answer) = Mqtt::try_connect(address, &will).await;
        assert_ne!(answer.expect("an answer")[1], 0);
    }
    until(async || held(&running) == before).await;
}
