//! Queues: a topic whose consumers share it, and what becomes of a message by each outcome.

use ::amqp::endpoint::error;
use ::amqp::message::{Body, Message};
use ::amqp::state::{DeliveryState, Modified, Rejected};
use ::amqp::terminus::Source;
use ::amqp::{ErrorCondition, Multiple};
use rustix::process::Signal;
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};

use super::wire::{Amqp, source};
use super::{row, send, serve_amqp};
use crate::binary::Running;
use crate::raw::Raw;

/// A queue with these bytes, and a connection to it.
pub async fn queue_of(running: &Running, count: u8) -> Amqp {
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let rows: Vec<[u8; 6]> = (0..count).map(row).collect();
    let rows: Vec<&[u8]> = rows.iter().map(|it| &it[..]).collect();
    send(&mut amqp, 0, "jobs", 0, &rows).await;
    amqp
}

/// A consumer of the queue with so much credit.
pub async fn consume(amqp: &mut Amqp, handle: u32, credit: u32) {
    consume_of(amqp, "jobs", handle, credit).await;
}

/// A consumer of a queue with so much credit.
pub async fn consume_of(amqp: &mut Amqp, topic: &str, handle: u32, credit: u32) {
    let queue = Source {
        capabilities: Multiple::These(&["queue"]),
        ..source(topic, None)
    };
    amqp.receiver(handle, queue).await;
    amqp.until(&format!("attach {handle}")).await;
    amqp.credit(handle, 0, credit, false).await;
}

/// Waits for a disposition and for a delivery, whichever comes first; the delivery's byte.
async fn stored_and_delivered(amqp: &mut Amqp, disposition: &str) -> u8 {
    let (mut came, mut is_stored) = (None, false);
    while came.is_none() || !is_stored {
        let (words, payload) = amqp.next().await;
        is_stored |= words == disposition;
        if words.starts_with("transfer") {
            let Body::Data(1, &[byte]) = Message::of(&payload).expect("a message").body else {
                panic!("{words} brings no byte");
            };
            came = Some(byte);
        }
        assert_ne!(words, "end");
    }
    came.expect("it was waited for")
}

pub fn modified(failed: bool, elsewhere: bool) -> DeliveryState<'static> {
    DeliveryState::Modified(Modified {
        delivery_failed: Some(failed),
        undeliverable_here: Some(elsewhere),
        message_annotations: None,
    })
}

#[tokio::test]
async fn consumers_share_a_queue_and_what_is_accepted_never_comes_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut one = queue_of(&running, 4).await;
    let mut other = Amqp::connect(running.other("AMQP")).await;
    consume(&mut one, 1, 2).await;
    assert_eq!(one.delivery().await, (0, 0, 0));
    assert_eq!(one.delivery().await, (1, 1, 0));
    consume(&mut other, 0, 9).await;
    assert_eq!(other.delivery().await, (0, 2, 0));
    assert_eq!(other.delivery().await, (1, 3, 0));
    // Who settles second is told when it is durable.
    one.settle((0, 0), false, DeliveryState::Accepted).await;
    assert_eq!(one.until("disposition").await, "disposition 0..0 accepted");
    other.settle((0, 1), false, DeliveryState::Accepted).await;
    assert_eq!(
        other.until("disposition").await,
        "disposition 0..1 accepted"
    );
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    consume(&mut amqp, 0, 9).await;
    assert_eq!(
        amqp.delivery().await,
        (0, 1, 1),
        "the one that nobody has accepted"
    );
    // Nothing else is there: a drain is answered at once (amqpnetlite#488, artemis#3012).
    amqp.credit(0, 1, 5, true).await;
    assert_eq!(amqp.next().await.0, "flow Some(0) Some(6) Some(0)");
}

/// rabbitmq-server#6292, artemis#840.
#[tokio::test]
async fn each_outcome_does_with_a_message_what_it_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = queue_of(&running, 5).await;
    consume(&mut amqp, 1, 5).await;
    for number in 0..5 {
        assert_eq!(amqp.delivery().await, (number.into(), number, 0));
    }
    let because = Some(error(ErrorCondition::DecodeError, "it is no job"));
    let rejected = DeliveryState::Rejected(Rejected { error: because });
    for (id, state) in [
        (0, DeliveryState::Released),
        (1, modified(true, false)),
        (2, rejected),
        (3, modified(true, true)),
        (4, modified(false, true)),
    ] {
        amqp.settle((id, id), false, state).await;
        let said = amqp.until("disposition").await;
        assert!(
            said.starts_with(&format!("disposition {id}..{id}")),
            "{said}"
        );
    }
    // Released does not count, a failure does; what is rejected is gone; what is not for this link is for others.
    amqp.credit(1, 5, 9, false).await;
    assert_eq!(amqp.delivery().await, (5, 0, 0));
    assert_eq!(amqp.delivery().await, (6, 1, 1));
    let mut other = Amqp::connect(running.other("AMQP")).await;
    consume(&mut other, 0, 9).await;
    assert_eq!(other.delivery().await, (0, 4, 0));
    // What it does not settle is others' when its link goes, and does not count; but not that of who does not want it.
    other.detach(0, true).await;
    amqp.transfer(0, 5, &row(9)).await;
    let came = stored_and_delivered(&mut amqp, "disposition 5..5 accepted").await;
    assert_eq!(came, 9, "4 is not for this link");
}

#[tokio::test]
async fn what_a_lost_connection_held_is_others_and_the_delivery_counts() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = queue_of(&running, 1).await;
    for before in 0..5 {
        let mut consumer = Amqp::connect(running.other("AMQP")).await;
        consume(&mut consumer, 0, 1).await;
        let (_, byte, count) = consumer.delivery().await;
        assert_eq!((byte, count), (0, before));
        drop(consumer);
    }
    // kafka#21092: what kills each of its consumers comes five times, and no more.
    consume(&mut amqp, 1, 1).await;
    amqp.transfer(0, 1, &row(7)).await;
    let came = stored_and_delivered(&mut amqp, "disposition 1..1 accepted").await;
    assert_eq!(came, 7);
}

#[tokio::test]
async fn a_consumer_of_a_topic_gets_all_that_comes_from_then_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = queue_of(&running, 2).await;
    let topic = || Source {
        capabilities: Multiple::These(&["topic"]),
        ..source("jobs", None)
    };
    let mut others = [
        Amqp::connect(running.other("AMQP")).await,
        Amqp::connect(running.other("AMQP")).await,
    ];
    for other in &mut others {
        other.receiver(0, topic()).await;
        other.until("attach 0").await;
        other.credit(0, 0, 9, false).await;
    }
    amqp.transfer(0, 2, &row(2)).await;
    for other in &mut others {
        assert_eq!(other.delivery().await, (0, 2, 0));
    }
}

#[tokio::test]
async fn what_is_sent_settled_is_finished_and_others_do_not_get_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = queue_of(&running, 2).await;
    amqp.receiver_of_settled(1, source("jobs", None)).await;
    amqp.until("attach 1").await;
    amqp.credit(1, 0, 9, false).await;
    assert_eq!(amqp.delivery().await, (0, 0, 0));
    assert_eq!(amqp.delivery().await, (1, 1, 0));
    drop(amqp);
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    consume(&mut amqp, 0, 0).await;
    amqp.credit(0, 0, 9, true).await;
    assert_eq!(amqp.next().await.0, "flow Some(0) Some(9) Some(0)");
}

/// An id is that of a group of one kind: a queue's is no group's that commits offsets.
#[tokio::test]
async fn a_group_that_commits_offsets_is_no_queue() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = queue_of(&running, 1).await;
    let mut raw = Raw::connect(running.kafka.parse().expect("an address")).await;
    let commit = OffsetCommitRequest {
        group_id: "queue".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "jobs".to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 1,
                committed_leader_epoch: -1,
                committed_metadata: None,
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let answer = raw.call(8, &commit).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    amqp.receiver(1, source("jobs", None)).await;
    assert_eq!(
        amqp.until("detach").await,
        "detach 1 amqp:precondition-failed"
    );
}
