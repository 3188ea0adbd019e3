//! The AMQP front as its clients see it: what a message becomes, what an outcome promises, where a cursor begins, and what is refused.

mod container;
mod dead_letters;
mod denied;
mod doors;
mod ending;
mod event_hubs;
mod others_grief;
mod queue;
mod selector;
mod subscription;
mod temporary;
mod transaction;
mod wire;

use std::path::Path;
use std::process::Command;

use ::amqp::message::{Body, Message};
use ::amqp::sasl::{SaslFrame, SaslInit};
use ::amqp::terminus::Source;
use ::amqp::{MapBuf, Multiple, Symbol, Value};
use rustix::process::Signal;

use crate::binary::{Running, serve};
use crate::produce_http::records;
use wire::{Amqp, source};

const ROW: &[u8] = b"\x00\x53\x75\xa0\x03row";

/// A server that speaks AMQP, too.
fn serve_amqp(data: &Path) -> Command {
    let mut command = serve(data);
    command.args(["--amqp", "127.0.0.1:0"]);
    command
}

/// A message with a body of one byte of data.
fn row(byte: u8) -> [u8; 6] {
    [0x00, 0x53, 0x75, 0xa0, 1, byte]
}

/// RabbitMQ's filter.
fn from(place: &Value<'_>) -> MapBuf {
    let mut filter = MapBuf::new();
    filter.put_symbol("rabbitmq:stream-offset-spec", place);
    filter
}

/// Sends messages to a topic, and waits until all are accepted.
async fn send(amqp: &mut Amqp, handle: u32, topic: &str, first: u32, messages: &[&[u8]]) {
    amqp.sender(handle, Some(topic)).await;
    amqp.until("flow").await;
    let mut id = first;
    for message in messages {
        amqp.transfer(handle, id, message).await;
        id += 1;
    }
    let mut next = first;
    while next < id {
        let said = amqp.until("disposition").await;
        let last = said
            .strip_prefix(&format!("disposition {next}.."))
            .and_then(|rest| rest.strip_suffix(" accepted"))
            .unwrap_or_else(|| panic!("{said}, not {next}"));
        next = last.parse::<u32>().expect("a number") + 1;
    }
}

#[tokio::test]
async fn what_is_accepted_is_a_record_that_others_read_and_survives_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let mut rich = b"\x00\x53\x72\xc1\x1a\x02\xa3\x13x-opt-partition-key\xa1\x02k1".to_vec();
    rich.extend_from_slice(b"\x00\x53\x74\xc1\x0a\x02\xa1\x04unit\xa1\x01K");
    rich.extend_from_slice(b"\x00\x53\x77\xa1\x04text");
    rich[4] = 26;
    let messages: [&[u8]; 3] = [ROW, &rich, b"\x00\x53\x77\x40"];
    send(&mut amqp, 0, "events", 0, &messages).await;
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    let stored = records(&running, "events", 0).await;
    let values: Vec<Option<&[u8]>> = stored.iter().map(|it| it.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"row"[..]), Some(b"text"), None]);
    assert_eq!(stored[1].key.as_deref(), Some(&b"k1"[..]));
    let headers: Vec<(&[u8], Option<&[u8]>)> = { stored[1].headers.iter() }
        .skip(1)
        .map(|it| (&it.key[..], it.value.as_deref()))
        .collect();
    let expected: [(&[u8], Option<&[u8]>); 2] =
        [(b"amqp.body", Some(b"string")), (b"unit", Some(b"K"))];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn what_came_before_a_close_is_stored_and_its_transaction_is_committed() {
    const COUNT: u8 = 200;
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    amqp.sender(0, Some("events")).await;
    amqp.until("flow").await;
    amqp.coordinator(1).await;
    let txn = amqp.declare(1, 0).await;
    // Nothing is waited for from here on.
    for number in 0..COUNT {
        let txn = (number % 2 == 1).then_some(txn);
        amqp.transfer_in(0, u32::from(number) + 1, &row(number), txn)
            .await;
    }
    amqp.say_discharge(1, u32::from(COUNT) + 1, txn, false)
        .await;
    amqp.close().await;
    amqp.until("close").await;
    let stored = records(&running, "events", 0).await;
    let mut values: Vec<u8> = stored
        .iter()
        .filter_map(|it| it.value.as_ref()?.first().copied())
        .collect();
    values.sort_unstable();
    assert_eq!(values, (0..COUNT).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_frame_is_as_long_as_its_setting_says_at_most() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve_amqp(directory.path());
    command.args(["-X", "amqp.frame.bytes.max=8192"]);
    let running = Running::start(&mut command);
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let of = |length: u32| {
        let body = vec![b'x'; usize::try_from(length).expect("it fits")];
        let head = [&[0x00, 0x53, 0x75, 0xb0][..], &length.to_be_bytes()];
        [&head.concat()[..], &body].concat()
    };
    send(&mut amqp, 0, "events", 0, &[&of(8_000)]).await;
    amqp.transfer(0, 1, &of(8_192)).await;
    let said = amqp.until("close").await;
    assert_eq!(said, "close amqp:connection:framing-error");
}

#[tokio::test]
async fn a_cursor_begins_where_it_is_told_and_sends_no_more_than_its_credit() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let rows: Vec<[u8; 6]> = (0..5).map(row).collect();
    let rows: Vec<&[u8]> = rows.iter().map(|it| &it[..]).collect();
    send(&mut amqp, 0, "events", 0, &rows).await;
    let first = from(&Value::String("first"));
    amqp.receiver(1, source("events", Some(first.as_map())))
        .await;
    assert_eq!(amqp.next().await.0, "attach 1 1");
    amqp.credit(1, 0, 2, false).await;
    for number in 0..2_u8 {
        let (words, payload) = amqp.next().await;
        assert_eq!(words, format!("transfer Some({number})"));
        let message = Message::of(&payload).expect("a message");
        assert_eq!(message.body, Body::Data(1, &[number]));
        let annotations = message.message_annotations.expect("annotations").0;
        let offset = Some(Value::Ulong(number.into()));
        assert_eq!(annotations.get("x-stream-offset"), offset);
    }
    // T 2.6.7: what is there comes first, and then the credit is used up; on an empty one at once.
    amqp.credit(1, 2, 9, true).await;
    for number in 2..5 {
        assert_eq!(amqp.next().await.0, format!("transfer Some({number})"));
    }
    assert_eq!(amqp.next().await.0, "flow Some(1) Some(11) Some(0)");
    amqp.credit(1, 11, 3, true).await;
    assert_eq!(amqp.next().await.0, "flow Some(1) Some(14) Some(0)");
    // Event Hubs' way: behind offset 2, of a partition; what comes later follows.
    let mut seek = MapBuf::new();
    let behind = Value::String("amqp.annotation.x-opt-offset > '2'");
    seek.put_symbol("apache.org:selector-filter:string", &behind);
    let path = "events/ConsumerGroups/$Default/Partitions/0";
    amqp.receiver(2, source(path, Some(seek.as_map()))).await;
    assert_eq!(amqp.next().await.0, "attach 2 1");
    amqp.credit(2, 0, 9, false).await;
    for number in 3..6 {
        let (words, payload) = amqp.next().await;
        assert!(words.starts_with("transfer"), "{words}");
        let message = Message::of(&payload).expect("a message");
        assert_eq!(message.body, Body::Data(1, &[number]));
        if number == 4 {
            amqp.transfer(0, 5, &row(5)).await;
            amqp.until("disposition 5..5 accepted").await;
        }
    }
}

#[tokio::test]
async fn what_is_not_offered_is_refused_with_its_condition_and_the_session_lives() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    send(&mut amqp, 0, "events", 0, &[ROW]).await;
    let first = from(&Value::String("first"));
    let selector = {
        let mut filter = MapBuf::new();
        let text = Value::String("color = 'red' AND");
        filter.put_symbol("apache.org:selector-filter:string", &text);
        filter
    };
    let offset_of_queue = Source {
        capabilities: Multiple::These(&["queue"]),
        ..source("events", Some(first.as_map()))
    };
    for (handle, source, condition) in [
        (2, offset_of_queue, "amqp:invalid-field"),
        (
            4,
            source("events", Some(selector.as_map())),
            "amqp:invalid-field",
        ),
        (5, source("nothing", Some(first.as_map())), "amqp:not-found"),
        (6, source("$other", None), "amqp:not-found"),
        (7, source("events/Partitions/9", None), "amqp:not-found"),
    ] {
        amqp.receiver(handle, source).await;
        let (attached, detached) = (amqp.next().await.0, amqp.next().await.0);
        assert_eq!(attached, format!("attach {handle} 0 nowhere"));
        assert_eq!(detached, format!("detach {handle} {condition}"));
    }
    amqp.sender(9, Some("/exchanges/x")).await;
    assert_eq!(amqp.until("detach").await, "detach 9 amqp:not-found");
    amqp.transfer(0, 1, ROW).await;
    amqp.until("disposition 1..1 accepted").await;
}

/// rabbitmq-server#7823: a message to nowhere is not accepted.
#[tokio::test]
async fn a_message_that_cannot_be_stored_is_rejected_and_ends_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    amqp.sender(0, None).await;
    amqp.until("flow").await;
    let to = |address: &str| {
        let mut properties = vec![0x00, 0x53, 0x73, 0xc0, 0, 3, 0x40, 0x40, 0xa1];
        properties.push(u8::try_from(address.len()).expect("short"));
        properties.extend_from_slice(address.as_bytes());
        properties[4] = u8::try_from(properties.len() - 5).expect("short");
        [&properties[..], ROW].concat()
    };
    for (id, payload, became) in [
        (0, to("events"), "accepted"),
        (1, ROW.to_vec(), "rejected amqp:not-found"),
        (2, to("$cbs"), "rejected amqp:not-found"),
        (3, b"\x00\x53\x75".to_vec(), "rejected amqp:decode-error"),
        (4, to("events"), "accepted"),
    ] {
        amqp.transfer(0, id, &payload).await;
        let said = amqp.until("disposition").await;
        assert_eq!(said, format!("disposition {id}..{id} {became}"));
    }
    assert_eq!(records(&running, "events", 0).await.len(), 2);
}

/// rabbitmq-server#12817.
#[tokio::test]
async fn a_topic_that_is_deleted_under_a_cursor_ends_its_link_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    send(&mut amqp, 0, "events", 0, &[ROW]).await;
    send(&mut amqp, 1, "others", 1, &[ROW]).await;
    let next = from(&Value::String("next"));
    amqp.receiver(2, source("events", Some(next.as_map())))
        .await;
    amqp.until("attach 2").await;
    amqp.credit(2, 0, 9, false).await;
    let (status, _) = running.ask("DELETE /api/v1/topics/events", "", "");
    assert!(status < 300, "{status}");
    assert_eq!(amqp.until("detach").await, "detach 2 amqp:resource-deleted");
    amqp.transfer(1, 2, ROW).await;
    amqp.until("disposition 2..2 accepted").await;
}

#[tokio::test]
async fn who_logs_in_is_checked_and_a_failure_ends_the_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    for (mechanism, response, outcome) in [
        ("ANONYMOUS", &b""[..], "outcome Ok"),
        ("PLAIN", b"\0nobody\0secret", "outcome Auth"),
        ("EXTERNAL", b"", "outcome Auth"),
    ] {
        let mut amqp = Amqp::open(running.other("AMQP")).await;
        amqp.raw(b"AMQP\x03\x01\x00\x00").await;
        assert_eq!(amqp.next().await.0, "header Sasl");
        let offered = "mechanisms SCRAM-SHA-512 SCRAM-SHA-256 PLAIN ANONYMOUS";
        assert_eq!(amqp.next().await.0, offered);
        amqp.log_in(SaslFrame::Init(SaslInit {
            mechanism: Symbol(mechanism),
            initial_response: Some(response),
            hostname: None,
        }))
        .await;
        assert_eq!(amqp.next().await.0, outcome, "{mechanism}");
        match outcome {
            "outcome Ok" => amqp.begin().await,
            _ => assert_eq!(amqp.next().await.0, "end"),
        }
    }
    // What is no AMQP at all gets our header, and nothing else.
    let mut other = Amqp::open(running.other("AMQP")).await;
    other.raw(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(other.next().await.0, "header Sasl");
    assert_eq!(other.next().await.0, "end");
}
