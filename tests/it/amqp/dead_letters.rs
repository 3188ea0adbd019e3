//! Dead letters of queues, and what operators do with queues by `alluvium queue`.

use ::amqp::state::{DeliveryState, Rejected};
use rustix::process::Signal;
use serde_json::Value;
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use super::queue::{consume, modified, queue_of};
use super::serve_amqp;
use super::wire::Amqp;
use crate::binary::{Running, Said, create_topic, tool};
use crate::raw::Raw;

/// Kafka's number for groups as resources.
const GROUP: i8 = 32;
const DEAD: &str = "dlq.queue";

fn said(running: &Running, args: &[&str]) -> Said {
    let mut all = vec!["queue"];
    all.extend(args);
    all.extend(["-b", &running.kafka, "--http", &running.http]);
    tool(&all)
}

fn told(running: &Running, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.push("--json");
    said(running, &all).json()
}

/// Names the topic of dead letters of all queues.
async fn name_dead_letters(running: &Running) {
    let allowed = [("errors.deadletterqueue.group.enable", "true")];
    create_topic(running, DEAD, 1, &allowed).await;
    let mut raw = Raw::connect(running.kafka.parse().expect("an address")).await;
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP,
            resource_name: "queue".into(),
            configs: vec![AlterableConfig {
                name: "errors.deadletterqueue.topic.name".into(),
                config_operation: 0,
                value: Some(DEAD.into()),
            }],
        }],
        validate_only: false,
    };
    let answer = raw.call(1, &request).await;
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
}

/// Until so many dead letters are there.
async fn until_dead(running: &Running, count: u64) -> Value {
    loop {
        let dead = told(running, &["dead", "jobs"]);
        if dead["count"] == count {
            return dead;
        }
        tokio::task::yield_now().await;
    }
}

/// apache/kafka#21092, #20310: what is rejected, or given up by its client, is not lost, and can be given back.
#[tokio::test]
async fn what_is_rejected_is_a_dead_letter_once_and_comes_back_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    name_dead_letters(&running).await;
    let mut amqp = queue_of(&running, 5).await;
    consume(&mut amqp, 1, 3).await;
    for number in 0..3 {
        assert_eq!(amqp.delivery().await, (number.into(), number, 0));
    }
    let rejected = DeliveryState::Rejected(::amqp::state::Rejected { error: None });
    for (id, state) in [
        (0, rejected),
        (1, modified(true, true)),
        (2, DeliveryState::Accepted),
    ] {
        amqp.settle((id, id), false, state).await;
        amqp.until("disposition").await;
    }
    let dead = until_dead(&running, 2).await;
    assert_eq!(dead["dead_letter_topic"], DEAD);
    let letters = dead["letters"].as_array().expect("a list");
    let about: Vec<_> = letters
        .iter()
        .map(|it| (it["of_offset"].clone(), it["delivery_count"].clone()))
        .collect();
    assert_eq!(about, [("0".into(), "1".into()), ("1".into(), "1".into())]);
    assert_eq!(letters[0]["reason"], "Offset rejected by client.");
    running.end(Signal::KILL);

    let running = Running::start(&mut serve_amqp(directory.path()));
    assert_eq!(told(&running, &["dead", "jobs"])["count"], 2, "none twice");
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    consume(&mut amqp, 1, 9).await;
    assert_eq!(amqp.delivery().await, (0, 3, 0));
    assert_eq!(amqp.delivery().await, (1, 4, 0));
    // A plan first; then consent.
    let plan = told(&running, &["dead", "jobs", "--requeue", "--dry-run"]);
    assert_eq!(
        (plan["moved"].as_u64(), &plan["dry_run"]),
        (Some(2), &true.into())
    );
    let asked = said(&running, &["dead", "jobs", "--requeue"]);
    assert_ne!(asked.code, Some(0), "nobody can be asked");
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    let done = told(&running, &["dead", "jobs", "--requeue", "--yes"]);
    assert_eq!(done["moved"], 2);
    for (id, byte) in [(2, 0), (3, 1)] {
        assert_eq!(amqp.delivery().await, (id, byte, 0), "as it was");
    }
    assert_eq!(told(&running, &["dead", "jobs"])["count"], 0);
    let none = told(&running, &["dead", "jobs", "--requeue", "--yes"]);
    assert_eq!(none["moved"], 0, "once");
    amqp.settle((0, 3), false, DeliveryState::Accepted).await;
    amqp.until("disposition").await;
    let queue = told(&running, &["describe", "jobs"]);
    assert_eq!(
        (&queue["available"], &queue["held"]),
        (&0.into(), &0.into())
    );
}

#[tokio::test]
async fn operators_see_who_holds_what_and_move_and_discard_what_nobody_holds() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    create_topic(&running, "later", 1, &[]).await;
    let mut amqp = queue_of(&running, 9).await;
    consume(&mut amqp, 1, 2).await;
    for number in 0..2 {
        assert_eq!(amqp.delivery().await, (number.into(), number, 0));
    }
    amqp.settle((0, 0), false, DeliveryState::Accepted).await;
    amqp.until("disposition").await;
    let queues = told(&running, &["list"]);
    let counts = |queue: &Value| {
        ["available", "held", "finished"].map(|name| queue[name].as_u64().expect("a count"))
    };
    assert_eq!(queues["queues"].as_array().map(Vec::len), Some(1));
    assert_eq!(counts(&queues["queues"][0]), [7, 1, 1]);
    let queue = told(&running, &["describe", "jobs"]);
    assert_eq!(counts(&queue), [7, 1, 1]);
    let held_by = &queue["partition_list"][0]["held_by"];
    assert_eq!(held_by[0]["records"], 1);
    assert!(queue["oldest_ms"].as_i64().is_some());
    let shown = said(&running, &["describe", "jobs"]);
    let holder = held_by[0]["member_id"].as_str().expect("a name");
    assert!(shown.stdout.contains(holder), "{}", shown.stdout);

    let plan = told(
        &running,
        &["move", "jobs", "later", "--max", "3", "--dry-run"],
    );
    assert_eq!(plan["moved"], 3);
    assert_eq!(counts(&told(&running, &["describe", "jobs"])), [7, 1, 1]);
    let moved = told(&running, &["move", "jobs", "later", "--max", "3", "--yes"]);
    assert_eq!(moved["moved"], 3);
    assert_eq!(counts(&told(&running, &["describe", "jobs"])), [4, 1, 4]);
    let plan = told(&running, &["purge", "jobs", "--dry-run"]);
    assert_eq!(
        (&plan["discarded"], &plan["dry_run"]),
        (&4.into(), &true.into())
    );
    let purged = told(&running, &["purge", "jobs", "--yes"]);
    assert_eq!(
        (&purged["discarded"], &purged["dry_run"]),
        (&4.into(), &false.into())
    );
    assert_eq!(counts(&told(&running, &["describe", "jobs"])), [0, 1, 8]);
    // What is held is its holder's.
    amqp.settle((1, 1), false, DeliveryState::Accepted).await;
    assert_eq!(amqp.until("disposition").await, "disposition 1..1 accepted");
    running.end(Signal::KILL);

    let running = Running::start(&mut serve_amqp(directory.path()));
    assert_eq!(counts(&told(&running, &["describe", "jobs"])), [0, 0, 9]);
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    super::queue::consume_of(&mut amqp, "later", 0, 9).await;
    for number in 0..3 {
        assert_eq!(amqp.delivery().await, (number.into(), number + 2, 0));
    }
    let same = said(&running, &["move", "jobs", "jobs", "--yes"]);
    assert!(same.stderr.contains("another topic"), "{}", same.stderr);
    let none = said(&running, &["describe", "nothing"]);
    assert_eq!(none.code, Some(3), "{}", none.stderr);
    let none = said(&running, &["dead", "jobs"]);
    assert!(
        none.stderr.contains("no topic for dead letters"),
        "{}",
        none.stderr
    );
}

#[tokio::test]
async fn a_message_that_is_given_up_without_a_dead_letter_is_in_the_loss_ledger() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = queue_of(&running, 3).await;
    consume(&mut amqp, 1, 3).await;
    for number in 0..3 {
        assert_eq!(amqp.delivery().await, (number.into(), number, 0));
    }
    let error = None;
    let rejected = DeliveryState::Rejected(Rejected { error });
    amqp.settle((1, 1), false, rejected).await;
    amqp.until("disposition").await;
    let losses = |running: &Running| {
        let (status, told) = running.ask_json("GET /api/v1/cleanup/losses?group=queue", "");
        assert_eq!(status, 200);
        let losses = told["losses"].as_array().expect("a list").iter();
        let names = ["topic", "from", "to", "records", "cause"];
        losses
            .map(|loss| names.map(|name| loss[name].to_string()).join(" "))
            .collect::<Vec<_>>()
    };
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while losses(&running).is_empty() {
        assert!(std::time::Instant::now() < patience, "nothing is on record");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let wanted = [r#""jobs" 1 2 1 "given-up""#];
    assert_eq!(losses(&running), wanted);
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    assert_eq!(losses(&running), wanted);
}
