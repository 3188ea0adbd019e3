//! Selectors and browsers, as JMS has them: who gets what, and what becomes of the rest.

use ::amqp::message::Body;
use ::amqp::message::Message;
use ::amqp::state::DeliveryState;
use ::amqp::terminus::{Source, TerminusDurability};
use ::amqp::{MapBuf, Multiple, Symbol, Value};
use rustix::process::Signal;

use super::wire::{Amqp, source};
use super::{row, send, serve_amqp};
use crate::binary::Running;

const RED: &str = "color = 'red'";
const BLUE: &str = "color = 'blue'";

/// A message of a color, with a byte.
fn colored(color: &str, byte: u8) -> Vec<u8> {
    let mut payload = vec![0x00, 0x53, 0x74, 0xc1, 0, 2, 0xa1, 5];
    payload.extend_from_slice(b"color");
    payload.extend_from_slice(&[0xa1, u8::try_from(color.len()).expect("short")]);
    payload.extend_from_slice(color.as_bytes());
    payload[4] = u8::try_from(payload.len() - 5).expect("short");
    payload.extend_from_slice(&row(byte));
    payload
}

fn selector(text: &str) -> MapBuf {
    let mut filter = MapBuf::new();
    filter.put_symbol("apache.org:selector-filter:string", &Value::String(text));
    filter
}

/// Red ones with even bytes, blue ones with odd ones.
async fn send_colors(
    amqp: &mut Amqp,
    handle: u32,
    node: &str,
    id: u32,
    bytes: std::ops::Range<u8>,
) {
    let all: Vec<Vec<u8>> = bytes
        .map(|byte| colored(["red", "blue"][usize::from(byte % 2)], byte))
        .collect();
    let all: Vec<&[u8]> = all.iter().map(|it| &it[..]).collect();
    send(amqp, handle, node, id, &all).await;
}

/// Attaches a receiver to a node of a kind, with a selector if there is one, and this much credit.
async fn receive(amqp: &mut Amqp, handle: u32, of: Source<'_>, wanted: Option<&str>, credit: u32) {
    let name = format!("r{handle}");
    receive_as(amqp, (handle, &name), of, wanted, credit).await;
}

/// The same with a link of this name.
async fn receive_as(
    amqp: &mut Amqp,
    (handle, name): (u32, &str),
    of: Source<'_>,
    wanted: Option<&str>,
    credit: u32,
) {
    let filter = wanted.map(selector);
    let filter = filter.as_ref().map(MapBuf::as_map);
    let source = Source { filter, ..of };
    amqp.receiver_of(handle, name, Some(source)).await;
    let attached = amqp.until(&format!("attach {handle}")).await;
    assert_eq!(
        attached,
        format!("attach {handle} {}", u32::from(wanted.is_some()))
    );
    amqp.credit(handle, 0, credit, false).await;
}

fn queue() -> Source<'static> {
    Source {
        capabilities: Multiple::These(&["queue"]),
        ..source("jobs", None)
    }
}

fn browser() -> Source<'static> {
    Source {
        distribution_mode: Some(Symbol("copy")),
        ..queue()
    }
}

/// The bytes that come before the credit is used up by a drain.
async fn drained(amqp: &mut Amqp, handle: u32, count: u32) -> Vec<u8> {
    amqp.credit(handle, count, 100, true).await;
    let mut came = Vec::new();
    loop {
        let (words, payload) = amqp.next().await;
        if words.starts_with("flow") {
            return came;
        }
        if words.starts_with("transfer") {
            let Body::Data(1, &[byte]) = Message::of(&payload).expect("a message").body else {
                panic!("{words} brings no byte");
            };
            came.push(byte);
        }
    }
}

#[tokio::test]
async fn a_queue_gives_a_consumer_what_it_selects_and_others_the_rest() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    send_colors(&mut amqp, 0, "jobs", 0, 0..8).await;
    // Somebody without a selector holds the first two.
    let mut other = Amqp::connect(running.other("AMQP")).await;
    receive(&mut other, 0, queue(), None, 2).await;
    assert_eq!(other.delivery().await, (0, 0, 0));
    assert_eq!(other.delivery().await, (1, 1, 0));
    // One at a time, as a client without prefetch asks.
    let mut red = Amqp::connect(running.other("AMQP")).await;
    receive(&mut red, 0, queue(), Some(RED), 1).await;
    assert_eq!(red.delivery().await, (0, 2, 0));
    assert_eq!(drained(&mut red, 0, 1).await, [4, 6]);
    red.settle((0, 2), false, DeliveryState::Accepted).await;
    red.until("disposition 0..2 accepted").await;
    // What comes back is selected, too, and what comes.
    red.credit(0, 101, 9, false).await;
    other.settle((0, 1), false, DeliveryState::Released).await;
    other.until("disposition").await;
    assert_eq!(red.delivery().await.1, 0);
    send_colors(&mut amqp, 1, "jobs", 8, 8..10).await;
    assert_eq!(red.delivery().await.1, 8);
    // What it does not want stays for others.
    let mut blue = Amqp::connect(running.other("AMQP")).await;
    receive(&mut blue, 0, queue(), Some(BLUE), 0).await;
    assert_eq!(drained(&mut blue, 0, 0).await, [1, 3, 5, 7, 9]);
}

#[tokio::test]
async fn a_subscription_is_done_with_what_it_does_not_select() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    send_colors(&mut amqp, 0, "news", 0, 0..1).await;
    let durable = Source {
        durable: TerminusDurability::UnsettledState,
        expiry_policy: Symbol("never"),
        capabilities: Multiple::These(&["topic"]),
        ..source("news", None)
    };
    let mut one = Amqp::connect(running.other("AMQP")).await;
    receive_as(&mut one, (0, "s"), durable, Some(RED), 9).await;
    send_colors(&mut amqp, 1, "news", 1, 1..5).await;
    assert_eq!(one.delivery().await.1, 2);
    assert_eq!(one.delivery().await.1, 4);
    one.settle((0, 0), false, DeliveryState::Accepted).await;
    one.until("disposition 0..0 accepted").await;
    one.detach(0, false).await;
    // With the same selector it goes on, also behind a kill.
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let mut one = Amqp::connect(running.other("AMQP")).await;
    receive_as(&mut one, (0, "s"), durable, Some(RED), 0).await;
    assert_eq!(drained(&mut one, 0, 0).await, [4]);
    let mut other = Amqp::connect(running.other("AMQP")).await;
    let filter = selector(BLUE);
    let blue = Source {
        filter: Some(filter.as_map()),
        ..durable
    };
    other.receiver_of(0, "s", Some(blue)).await;
    assert_eq!(other.until("detach").await, "detach 0 amqp:resource-locked");
    one.detach(0, false).await;
    // With another one it begins anew.
    receive_as(&mut other, (1, "s"), durable, Some(BLUE), 9).await;
    send_colors(&mut amqp, 0, "news", 0, 6..8).await;
    assert_eq!(other.delivery().await.1, 7);
    other.detach(1, false).await;
    receive_as(&mut one, (1, "s"), durable, Some(RED), 0).await;
    assert!(drained(&mut one, 1, 0).await.is_empty());
    // And its client is rid of it by its name.
    one.detach(1, false).await;
    one.receiver_of(2, "s", None).await;
    assert!(!one.until("attach 2").await.ends_with("nowhere"));
}

/// Links of one connection that are to be rid of different subscriptions do not forget each other.
#[tokio::test]
async fn two_subscriptions_end_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    for handle in [0, 1] {
        let durable = Source {
            expiry_policy: Symbol("never"),
            capabilities: Multiple::These(&["topic"]),
            ..source("news", None)
        };
        receive(&mut amqp, handle, durable, None, 0).await;
        amqp.detach(handle, false).await;
    }
    for handle in [0, 1] {
        amqp.receiver_of(handle, &format!("r{handle}"), None).await;
        amqp.until(&format!("attach {handle}")).await;
    }
    for handle in [0, 1] {
        amqp.detach(handle, true).await;
    }
    for handle in [0, 1] {
        amqp.receiver_of(handle, &format!("r{handle}"), None).await;
        let said = amqp.until("detach").await;
        assert_eq!(said, format!("detach {handle} amqp:not-found"));
    }
}

#[tokio::test]
async fn a_browser_sees_what_nobody_has_finished_and_takes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    send_colors(&mut amqp, 0, "jobs", 0, 0..6).await;
    // A queue that nobody has consumed of can be looked at.
    receive(&mut amqp, 1, browser(), None, 0).await;
    assert_eq!(drained(&mut amqp, 1, 0).await, [0, 1, 2, 3, 4, 5]);
    let mut consumer = Amqp::connect(running.other("AMQP")).await;
    receive(&mut consumer, 0, queue(), None, 3).await;
    for byte in 0..3 {
        assert_eq!(consumer.delivery().await.1, byte);
    }
    consumer
        .settle((0, 1), false, DeliveryState::Accepted)
        .await;
    consumer.until("disposition 0..1 accepted").await;
    // What somebody has and has not settled may come again.
    receive(&mut amqp, 2, browser(), None, 1).await;
    assert_eq!(amqp.delivery().await.1, 2);
    // It is what was there when the browser came.
    send_colors(&mut amqp, 3, "jobs", 6, 6..7).await;
    assert_eq!(drained(&mut amqp, 2, 1).await, [3, 4, 5]);
    assert!(drained(&mut amqp, 2, 101).await.is_empty());
    receive(&mut amqp, 4, browser(), Some(RED), 0).await;
    assert_eq!(drained(&mut amqp, 4, 0).await, [2, 4, 6]);
    // It has taken nothing.
    receive(&mut amqp, 5, queue(), None, 0).await;
    assert_eq!(drained(&mut amqp, 5, 0).await, [3, 4, 5, 6]);
}

#[tokio::test]
async fn a_consumer_of_a_topic_gets_what_it_selects() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    send_colors(&mut amqp, 0, "news", 0, 0..1).await;
    let topic = Source {
        capabilities: Multiple::These(&["topic"]),
        ..source("news", None)
    };
    let mut red = Amqp::connect(running.other("AMQP")).await;
    receive(&mut red, 0, topic, Some(RED), 9).await;
    send_colors(&mut amqp, 1, "news", 1, 1..5).await;
    assert_eq!(red.delivery().await.1, 2);
    assert_eq!(red.delivery().await.1, 4);
}
