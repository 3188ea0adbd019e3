//! What went wrong with other brokers and is not named elsewhere: a cursor over gaps, and a producer that is faster than the disk.

use ::amqp::message::{Body, Message};
use ::amqp::{MapBuf, Value};

use super::wire::{Amqp, source};
use super::{from, send, serve_amqp};
use crate::binary::{Running, create_topic, tool};

/// A message with a key.
fn keyed(key: u8, byte: u8) -> Vec<u8> {
    let mut message = b"\x00\x53\x72\xc1\x19\x02\xa3\x13x-opt-partition-key\xa1\x01".to_vec();
    message.extend_from_slice(&[key, 0x00, 0x53, 0x75, 0xa0, 1, byte]);
    message
}

/// Has a topic compacted now.
fn compact(running: &Running, topic: &str) {
    // What is active is not compacted: retention rolls it.
    for what in ["retention", "compact"] {
        let http = ["--now", "--wait", "--http", &running.http];
        let said = tool(&[&[what, "run", topic], &http[..]].concat());
        assert_eq!(said.code, Some(0), "{what}: {}", said.stderr);
    }
}

/// azure-event-hubs-java#208: behind offset N comes the next record that there is, also where N, or what follows it, is gone.
#[tokio::test]
async fn behind_an_offset_comes_the_next_record_over_gaps_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let settings = [("cleanup.policy", "compact"), ("retention.ms", "-1")];
    create_topic(&running, "keyed", 1, &settings).await;
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let messages: Vec<Vec<u8>> = { b"aabaaaabac".iter().zip(0..) }
        .map(|(key, byte)| keyed(*key, byte))
        .collect();
    let messages: Vec<&[u8]> = messages.iter().map(|it| &it[..]).collect();
    send(&mut amqp, 0, "keyed", 0, &messages).await;
    compact(&running, "keyed");
    // The last of each key are left: 7, 8 and 9.
    for (handle, place, expected) in [
        (1, "> '-1'", 7),
        (2, "> '1'", 7),
        (3, ">= '2'", 7),
        (4, "> '6'", 7),
        (5, "> '7'", 8),
        (6, ">= '9'", 9),
    ] {
        let mut seek = MapBuf::new();
        let text = format!("amqp.annotation.x-opt-offset {place}");
        seek.put_symbol("apache.org:selector-filter:string", &Value::String(&text));
        let path = "keyed/ConsumerGroups/$Default/Partitions/0";
        first_is(&mut amqp, handle, path, &seek, expected).await;
    }
    for (handle, offset, expected) in [(7, 0, 7), (8, 3, 7), (9, 8, 8)] {
        let place = from(&Value::Ulong(offset));
        first_is(&mut amqp, handle, "keyed", &place, expected).await;
    }
}

/// The first message of a cursor.
async fn first_is(amqp: &mut Amqp, handle: u32, path: &str, place: &MapBuf, expected: u8) {
    amqp.receiver(handle, source(path, Some(place.as_map())))
        .await;
    amqp.until("attach").await;
    amqp.credit(handle, 0, 1, false).await;
    let (words, payload) = amqp.next().await;
    assert!(words.starts_with("transfer"), "{words}");
    let message = Message::of(&payload).expect("a message");
    assert_eq!(message.body, Body::Data(1, &[expected]), "handle {handle}");
    let annotations = message.message_annotations.expect("annotations").0;
    let offset = annotations.get("x-opt-offset").and_then(|it| it.text());
    assert_eq!(offset, Some(expected.to_string().as_str()));
}

/// Memory of a process that is no file's, in KiB.
fn memory(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.id()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"));
    let line = line.expect("Linux tells it").trim();
    let (count, _) = line.split_once(' ').expect("a unit");
    count.parse().expect("a number")
}

/// What a sender may have sent by its last flow.
fn allowed(flow: &str) -> u32 {
    let numbers = { flow.split(['(', ')']) }.filter_map(|it| it.parse::<u32>().ok());
    numbers.skip(1).sum()
}

/// artemis#3130: what a producer sends faster than it is stored waits at the producer, and not in memory.
#[tokio::test]
async fn a_producer_that_is_faster_than_the_disk_is_held_up_and_fills_no_memory() {
    const COUNT: u32 = 3_000;
    const BYTES: u32 = 100 << 10;
    const MEMORY_KIB_MAX: u64 = 160 << 10;
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    amqp.sender(0, Some("events")).await;
    let mut end = allowed(&amqp.until("flow").await);
    let before = memory(&running);
    let mut message = b"\x00\x53\x75\xb0".to_vec();
    message.extend_from_slice(&BYTES.to_be_bytes());
    message.resize(message.len() + BYTES as usize, 7);
    let (mut most, mut stored) = (0, 0);
    // As much as there is credit for; nothing is read before that is used up.
    for id in 0..COUNT {
        amqp.transfer(0, id, &message).await;
        if id % 20 == 0 {
            most = most.max(memory(&running));
        }
        while id + 1 < COUNT && id + 1 >= end {
            let (said, _) = amqp.next().await;
            match said.starts_with("flow") {
                true => end = allowed(&said),
                false => stored = stored_by(&said),
            }
        }
    }
    let held = most.saturating_sub(before);
    let sent = u64::from(COUNT) * u64::from(BYTES >> 10);
    assert!(held < MEMORY_KIB_MAX, "{held} KiB of {sent} were held");
    while stored < COUNT {
        stored = stored_by(&amqp.until("disposition").await);
    }
}

/// How many deliveries are accepted, by the last disposition.
fn stored_by(said: &str) -> u32 {
    let last = said.strip_suffix(" accepted");
    let last = last
        .and_then(|it| it.rsplit_once('.'))
        .unwrap_or_else(|| panic!("{said}"));
    last.1.parse::<u32>().expect("an id") + 1
}
