//! Endings: what a client that ends a link, its session or the connection still hears of its deliveries.

use std::collections::BTreeSet;

use ::amqp::performative::{Close, Detach, End, Performative};
use ::amqp::state::DeliveryState;

use super::queue::{consume, queue_of};
use super::wire::{Amqp, settles};
use super::{row, serve_amqp};
use crate::binary::Running;

/// The ways to end the link with this handle, and how each is answered.
fn endings(handle: u32) -> [(Performative<'static>, String); 4] {
    let detach = |closed| {
        let detach = Detach {
            handle,
            closed,
            error: None,
        };
        (Performative::Detach(detach), format!("detach {handle}"))
    };
    [
        detach(true),
        detach(false),
        (Performative::End(End { error: None }), "end".to_owned()),
        (
            Performative::Close(Close { error: None }),
            "close".to_owned(),
        ),
    ]
}

/// The deliveries that are said to be accepted before this answer comes.
async fn accepted_before(amqp: &mut Amqp, answer: &str) -> BTreeSet<u32> {
    let mut accepted = BTreeSet::new();
    loop {
        let words = amqp.next().await.0;
        if words.trim() == answer {
            return accepted;
        }
        assert!(!words.is_empty(), "{answer} is waited for");
        let run = words
            .strip_prefix("disposition ")
            .and_then(|it| it.strip_suffix(" accepted"))
            .and_then(|it| it.split_once(".."));
        if let Some((first, last)) = run {
            let [first, last] = [first, last].map(|it| it.parse::<u32>().expect("a number"));
            accepted.extend(first..=last);
        }
    }
}

/// go-amqp: a sender that is closed forgets what it waits for.
#[tokio::test]
async fn who_ends_what_it_sent_on_hears_first_what_became_of_it() {
    const COUNT: u8 = 100;
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    for (ending, answer) in endings(0) {
        let mut amqp = Amqp::connect(running.other("AMQP")).await;
        amqp.sender(0, Some("events")).await;
        amqp.until("flow").await;
        for number in 0..COUNT {
            amqp.transfer(0, number.into(), &row(number)).await;
        }
        amqp.say(ending).await;
        let accepted = accepted_before(&mut amqp, &answer).await;
        assert_eq!(accepted, (0..COUNT.into()).collect(), "{ending:?}");
    }
}

#[tokio::test]
async fn who_ends_what_it_received_on_hears_first_that_its_word_is_durable() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    for (ending, answer) in endings(1) {
        let mut amqp = queue_of(&running, 2).await;
        consume(&mut amqp, 1, 2).await;
        for id in 0..2 {
            assert_eq!(amqp.delivery().await.0, id);
        }
        let accepts = settles((0, 1), false, DeliveryState::Accepted);
        amqp.say_together(&[accepts, ending]).await;
        let accepted = accepted_before(&mut amqp, &answer).await;
        assert_eq!(accepted, BTreeSet::from([0, 1]), "{ending:?}");
    }
}
