//! Transactions: what is sent and settled in one is done when it is committed, all of it, or not at all.

use ::amqp::state::DeliveryState;
use ::amqp::terminus::{Source, TerminusDurability};
use ::amqp::{Multiple, Symbol};
use rustix::process::Signal;

use super::wire::{Amqp, source};
use super::{row, send, serve_amqp};
use crate::binary::Running;

const JOBS: u32 = 0;
const COORDINATOR: u32 = 1;
const CONSUMER: u32 = 2;

/// A connection with a sender to a queue that has these bytes, a coordinator, and a consumer of the queue with so much credit.
async fn begun(running: &Running, bytes: std::ops::Range<u8>, credit: u32) -> Amqp {
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let rows: Vec<[u8; 6]> = bytes.map(row).collect();
    let rows: Vec<&[u8]> = rows.iter().map(|it| &it[..]).collect();
    send(&mut amqp, JOBS, "jobs", 0, &rows).await;
    amqp.coordinator(COORDINATOR).await;
    consume(&mut amqp, CONSUMER, credit).await;
    amqp
}

async fn consume(amqp: &mut Amqp, handle: u32, credit: u32) {
    let queue = Source {
        capabilities: Multiple::These(&["queue"]),
        ..source("jobs", None)
    };
    amqp.receiver(handle, queue).await;
    amqp.until(&format!("attach {handle}")).await;
    amqp.credit(handle, 0, credit, false).await;
}

/// What a new consumer of the queue is sent of all that is there: bytes, and how often each was delivered before.
async fn left(running: &Running) -> Vec<(u8, u32)> {
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    consume(&mut amqp, 0, 0).await;
    drained(&mut amqp).await
}

/// What a topic has.
async fn stored(running: &Running, topic: &str) -> Vec<u8> {
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let path = format!("{topic}/Partitions/0");
    amqp.receiver(0, source(&path, None)).await;
    amqp.until("attach 0").await;
    let all = drained(&mut amqp).await;
    all.into_iter().map(|(byte, _)| byte).collect()
}

/// What comes by the first link until all is there.
async fn drained(amqp: &mut Amqp) -> Vec<(u8, u32)> {
    amqp.credit(0, 0, 100, true).await;
    let mut left = Vec::new();
    loop {
        let (words, payload) = amqp.next().await;
        if words.starts_with("flow") {
            amqp.detach(0, true).await;
            return left;
        }
        let message = ::amqp::message::Message::of(&payload).expect("a message");
        let ::amqp::message::Body::Data(1, &[byte]) = message.body else {
            panic!("{words} brings no byte");
        };
        left.push((byte, message.header.map_or(0, |it| it.delivery_count)));
    }
}

#[tokio::test]
async fn a_commit_is_all_that_was_sent_and_settled_and_survives_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = begun(&running, 0..3, 2).await;
    // Another queue's group takes part: a durable subscription.
    let durable = Source {
        durable: TerminusDurability::UnsettledState,
        expiry_policy: Symbol("never"),
        capabilities: Multiple::These(&["topic"]),
        ..source("news", None)
    };
    assert_eq!(amqp.delivery().await, (0, 0, 0));
    assert_eq!(amqp.delivery().await, (1, 1, 0));
    amqp.receiver_of(3, "s", Some(durable)).await;
    amqp.until("attach 3").await;
    send(&mut amqp, 4, "news", 3, &[&row(9)]).await;
    amqp.credit(3, 0, 9, false).await;
    assert_eq!(amqp.delivery().await, (2, 9, 0));
    let txn = amqp.declare(COORDINATOR, 4).await;
    amqp.sender(5, Some("a")).await;
    amqp.until("flow").await;
    amqp.sender(6, Some("b")).await;
    amqp.until("flow").await;
    for (handle, id, byte) in [(5, 5, 50), (6, 6, 60), (5, 7, 51)] {
        amqp.transfer_in(handle, id, &row(byte), Some(txn)).await;
        let said = amqp.until("disposition").await;
        assert_eq!(said, format!("disposition {id}..{id} in {txn} accepted"));
    }
    amqp.accept_in((0, 0), true, txn).await;
    amqp.accept_in((1, 2), false, txn).await;
    // Nobody sees any of it, and what is settled is not given to others.
    assert_eq!(left(&running).await, [(2, 0)]);
    assert!(stored(&running, "a").await.is_empty());
    assert_eq!(amqp.discharge(COORDINATOR, 8, txn, false).await, "accepted");
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    assert_eq!(stored(&running, "a").await, [50, 51]);
    assert_eq!(stored(&running, "b").await, [60]);
    assert_eq!(left(&running).await, [(2, 0)]);
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    amqp.receiver_of(0, "s", Some(durable)).await;
    amqp.until("attach 0").await;
    amqp.credit(0, 0, 9, true).await;
    assert_eq!(amqp.until("flow").await, "flow Some(0) Some(9) Some(0)");
}

#[tokio::test]
async fn who_has_not_settled_is_told_when_the_commit_is_durable() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = begun(&running, 0..1, 1).await;
    assert_eq!(amqp.delivery().await, (0, 0, 0));
    let txn = amqp.declare(COORDINATOR, 1).await;
    amqp.accept_in((0, 0), false, txn).await;
    // Its own settlement and the discharge, in this order.
    amqp.transfer(COORDINATOR, 2, &discharge(txn)).await;
    assert_eq!(amqp.until("disposition").await, "disposition 0..0 accepted");
    assert_eq!(amqp.until("disposition").await, "disposition 2..2 accepted");
    assert!(left(&running).await.is_empty());
}

fn discharge(txn: u64) -> Vec<u8> {
    let mut payload = b"\x00\x53\x77\x00\x53\x32\xc0\x0c\x02\xa0\x08".to_vec();
    payload.extend_from_slice(&txn.to_be_bytes());
    payload.push(0x42);
    payload
}

#[tokio::test]
async fn what_is_rolled_back_was_never_sent_and_comes_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = begun(&running, 0..2, 2).await;
    assert_eq!(amqp.delivery().await, (0, 0, 0));
    assert_eq!(amqp.delivery().await, (1, 1, 0));
    let txn = amqp.declare(COORDINATOR, 2).await;
    amqp.transfer_in(JOBS, 3, &row(7), Some(txn)).await;
    amqp.until("disposition 3..3 in").await;
    amqp.accept_in((0, 0), true, txn).await;
    amqp.accept_in((1, 1), false, txn).await;
    assert_eq!(amqp.discharge(COORDINATOR, 4, txn, true).await, "accepted");
    // What was settled comes again, and counts; what was not is the consumer's as before.
    amqp.credit(CONSUMER, 2, 9, false).await;
    assert_eq!(amqp.delivery().await, (2, 0, 1));
    amqp.settle((1, 1), false, DeliveryState::Accepted).await;
    assert_eq!(amqp.until("disposition").await, "disposition 1..1 accepted");
    // So it is with one whose coordinator goes.
    let txn = amqp.declare(COORDINATOR, 5).await;
    amqp.transfer_in(JOBS, 6, &row(7), Some(txn)).await;
    amqp.until("disposition 6..6 in").await;
    amqp.accept_in((2, 2), true, txn).await;
    amqp.detach(COORDINATOR, true).await;
    assert_eq!(amqp.delivery().await, (3, 0, 2));
    // And with one whose connection is lost.
    amqp.coordinator(7).await;
    let txn = amqp.declare(7, 7).await;
    amqp.transfer_in(JOBS, 8, &row(7), Some(txn)).await;
    amqp.until("disposition 8..8 in").await;
    amqp.accept_in((3, 3), true, txn).await;
    drop(amqp);
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    consume(&mut amqp, 0, 9).await;
    assert_eq!(amqp.delivery().await, (0, 0, 3));
    amqp.settle((0, 0), false, DeliveryState::Accepted).await;
    amqp.until("disposition").await;
    assert!(left(&running).await.is_empty());
}

/// What a consumer has settled in a transaction stays a part of it when the consumer goes.
#[tokio::test]
async fn a_consumer_may_go_before_the_commit() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = begun(&running, 0..2, 2).await;
    assert_eq!(amqp.delivery().await, (0, 0, 0));
    assert_eq!(amqp.delivery().await, (1, 1, 0));
    let txn = amqp.declare(COORDINATOR, 2).await;
    amqp.accept_in((0, 0), true, txn).await;
    amqp.detach(CONSUMER, true).await;
    // What it has not settled is others'.
    let mut other = Amqp::connect(running.other("AMQP")).await;
    consume(&mut other, 0, 9).await;
    assert_eq!(other.delivery().await, (0, 1, 0));
    assert_eq!(amqp.discharge(COORDINATOR, 3, txn, false).await, "accepted");
    other.settle((0, 0), false, DeliveryState::Released).await;
    other.until("disposition").await;
    other.detach(0, true).await;
    assert_eq!(left(&running).await, [(1, 0)]);
}

#[tokio::test]
async fn a_transaction_that_cannot_be_done_whole_is_rolled_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = begun(&running, 0..1, 1).await;
    assert_eq!(amqp.delivery().await, (0, 0, 0));
    let said = amqp.discharge(COORDINATOR, 1, 99, false).await;
    assert_eq!(said, "rejected amqp:transaction:unknown-id");
    amqp.transfer_in(JOBS, 2, &row(7), Some(99)).await;
    let said = amqp.until("disposition 2..2").await;
    assert!(
        said.ends_with("rejected amqp:transaction:unknown-id"),
        "{said}"
    );
    // A message that cannot be stored.
    let txn = amqp.declare(COORDINATOR, 3).await;
    amqp.transfer_in(JOBS, 4, &row(7), Some(txn)).await;
    amqp.until("disposition 4..4 in").await;
    amqp.transfer_in(JOBS, 5, b"\x01", Some(txn)).await;
    let said = amqp.until("disposition 5..5").await;
    assert_eq!(
        said,
        format!("disposition 5..5 in {txn} rejected amqp:decode-error")
    );
    let said = amqp.discharge(COORDINATOR, 6, txn, false).await;
    assert_eq!(said, "rejected amqp:transaction:rollback");
    // More than is kept for the transactions of a connection.
    let txn = amqp.declare(COORDINATOR, 7).await;
    amqp.accept_in((0, 0), true, txn).await;
    let mut large = b"\x00\x53\x75\xb0\x00\x01\x86\xa0".to_vec();
    large.resize(large.len() + 100_000, b'x');
    let mut id = 8;
    loop {
        amqp.transfer_in(JOBS, id, &large, Some(txn)).await;
        let said = amqp.until(&format!("disposition {id}..")).await;
        id += 1;
        if said.ends_with("rejected amqp:resource-limit-exceeded") {
            break;
        }
        assert!(said.ends_with("accepted") && id < 100, "{said}");
    }
    assert!(id > 80, "{id}");
    let said = amqp.discharge(COORDINATOR, id, txn, false).await;
    assert_eq!(said, "rejected amqp:transaction:rollback");
    // There is room again, and nothing was done.
    let txn = amqp.declare(COORDINATOR, id + 1).await;
    amqp.transfer_in(JOBS, id + 2, &large, Some(txn)).await;
    let said = amqp.until("disposition").await;
    assert!(said.ends_with(&format!("in {txn} accepted")), "{said}");
    assert_eq!(stored(&running, "jobs").await, [0]);
    // Who settles in one that is not there loses the link.
    amqp.credit(CONSUMER, 1, 1, false).await;
    assert_eq!(amqp.delivery().await, (1, 0, 1));
    amqp.accept_in((1, 1), true, 99).await;
    assert_eq!(
        amqp.until("detach").await,
        "detach 2 amqp:transaction:unknown-id"
    );
}
