//! Subscriptions that outlive their links, as JMS's durable and shared ones do.

use ::amqp::sasl::{SaslFrame, SaslInit};
use ::amqp::state::{DeliveryState, Modified};
use ::amqp::terminus::{Source, TerminusDurability};
use ::amqp::{Multiple, Symbol};
use rustix::process::Signal;

use super::wire::{Amqp, source};
use super::{row, send, serve_amqp};
use crate::binary::Running;

const DURABLE: Source<'static> = subscription(true, &["topic"]);
const SHARED: Source<'static> = subscription(true, &["topic", "shared"]);
const VOLATILE: Source<'static> = subscription(false, &["topic", "shared"]);

const fn subscription(is_durable: bool, capabilities: &'static [&'static str]) -> Source<'static> {
    Source {
        address: Some(::amqp::Value::String("news")),
        durable: match is_durable {
            true => TerminusDurability::UnsettledState,
            false => TerminusDurability::None,
        },
        expiry_policy: Symbol(match is_durable {
            true => "never",
            false => "link-detach",
        }),
        timeout: 0,
        dynamic: false,
        dynamic_node_properties: None,
        distribution_mode: None,
        filter: None,
        default_outcome: None,
        outcomes: Multiple::None,
        capabilities: Multiple::These(capabilities),
    }
}

/// Attaches by a name, with this much credit. What it is answered.
async fn attach(amqp: &mut Amqp, handle: u32, name: &str, of: Source<'_>) -> String {
    amqp.receiver_of(handle, name, Some(of)).await;
    let attached = amqp.until(&format!("attach {handle}")).await;
    match attached.ends_with("nowhere") {
        true => amqp.until("detach").await,
        false => {
            amqp.credit(handle, 0, 9, false).await;
            attached
        }
    }
}

#[tokio::test]
async fn a_durable_subscription_keeps_what_comes_while_nobody_is_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    send(&mut amqp, 0, "news", 0, &[&row(0)]).await;
    // From when it is made on, and not from before.
    attach(&mut amqp, 1, "s", DURABLE).await;
    let mut other = Amqp::connect(running.other("AMQP")).await;
    assert_eq!(
        attach(&mut other, 0, "s", DURABLE).await,
        "detach 0 amqp:resource-locked"
    );
    amqp.detach(1, false).await;
    send(&mut amqp, 2, "news", 1, &[&row(1), &row(2)]).await;
    running.end(Signal::KILL);
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    attach(&mut amqp, 0, "s", DURABLE).await;
    assert_eq!(amqp.delivery().await, (0, 1, 0));
    assert_eq!(amqp.delivery().await, (1, 2, 0));
    amqp.settle((0, 0), false, DeliveryState::Accepted).await;
    amqp.until("disposition 0..0 accepted").await;
    amqp.detach(0, false).await;
    // At once again: what was not settled comes again.
    attach(&mut amqp, 1, "s", DURABLE).await;
    assert_eq!(amqp.delivery().await.1, 2);
    // Unsubscribing needs that nobody has it, and then it is gone (artemis#1337, artemis#3325).
    let mut other = Amqp::connect(running.other("AMQP")).await;
    for (handle, name, refused) in [
        (0, "s", "detach 0 amqp:resource-locked"),
        (1, "no", "detach 1 amqp:not-found"),
    ] {
        other.receiver_of(handle, name, None).await;
        assert_eq!(other.until("detach").await, refused);
    }
    amqp.detach(1, false).await;
    other.receiver_of(2, "s", None).await;
    let attached = other.until("attach 2").await;
    assert!(!attached.ends_with("nowhere"), "{attached}");
    other.detach(2, true).await;
    other.receiver_of(3, "s", None).await;
    assert_eq!(other.until("detach").await, "detach 3 amqp:not-found");
    attach(&mut amqp, 2, "s", DURABLE).await;
    send(&mut other, 4, "news", 0, &[&row(9)]).await;
    assert_eq!(amqp.delivery().await.1, 9, "it has begun anew");
}

#[tokio::test]
async fn consumers_of_a_shared_subscription_share_it_and_a_volatile_one_ends_with_the_last() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut producer = Amqp::connect(running.other("AMQP")).await;
    send(&mut producer, 0, "news", 0, &[&row(0)]).await;
    for (of, next, names) in [
        (SHARED, 1, ["s", "s|2"]),
        (VOLATILE, 5, ["v|volatile1", "v|volatile2"]),
    ] {
        let mut one = Amqp::connect(running.other("AMQP")).await;
        let mut two = Amqp::connect(running.other("AMQP")).await;
        attach(&mut one, 0, names[0], of).await;
        attach(&mut two, 0, names[1], of).await;
        for amqp in [&mut one, &mut two] {
            amqp.credit(0, 0, 0, true).await;
            amqp.until("flow").await;
            amqp.credit(0, 0, 1, false).await;
        }
        producer.transfer(0, next, &row(1)).await;
        producer.transfer(0, next + 1, &row(2)).await;
        let came = [one.delivery().await.1, two.delivery().await.1];
        assert!(came == [1, 2] || came == [2, 1], "{came:?}");
        one.detach(0, false).await;
        two.detach(0, false).await;
        producer.transfer(0, next + 2, &row(3)).await;
        let stored = format!("disposition {}..", next + 2);
        producer.until(&stored).await;
        attach(&mut one, 1, names[0], of).await;
        let again = match of.durable {
            // Nothing was settled: it is all there, and what came meanwhile.
            TerminusDurability::UnsettledState => vec![1, 2, 3],
            _ => {
                producer.transfer(0, next + 3, &row(4)).await;
                vec![4]
            }
        };
        for byte in again {
            assert_eq!(one.delivery().await.1, byte);
        }
    }
    // No other subscription of this name is there for a single consumer while it is shared.
    let mut one = Amqp::connect(running.other("AMQP")).await;
    attach(&mut one, 0, "s", SHARED).await;
    assert_eq!(
        attach(&mut one, 1, "s|3", DURABLE).await,
        "detach 1 amqp:resource-locked"
    );
}

/// JMS's recover and rollback are for consumers of topics, too.
#[tokio::test]
async fn a_consumer_of_a_topic_is_sent_again_what_it_does_not_take() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut producer = Amqp::connect(running.other("AMQP")).await;
    send(&mut producer, 0, "news", 0, &[&row(0)]).await;
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    let topic = Source {
        capabilities: Multiple::These(&["topic"]),
        ..source("news", None)
    };
    amqp.receiver(0, topic).await;
    amqp.until("attach 0").await;
    amqp.credit(0, 0, 100, false).await;
    let rows: Vec<[u8; 6]> = (1..5).map(row).collect();
    let rows: Vec<&[u8]> = rows.iter().map(|it| &it[..]).collect();
    send(&mut producer, 1, "news", 1, &rows).await;
    for (id, byte) in (0..4).zip(1..) {
        assert_eq!(amqp.delivery().await, (id, byte, 0));
    }
    let failed = DeliveryState::Modified(Modified {
        delivery_failed: Some(true),
        undeliverable_here: None,
        message_annotations: None,
    });
    amqp.settle((0, 0), true, DeliveryState::Accepted).await;
    amqp.settle((1, 1), true, DeliveryState::Released).await;
    assert_eq!(amqp.delivery().await, (4, 2, 0));
    amqp.settle((2, 2), true, failed).await;
    assert_eq!(amqp.delivery().await, (5, 3, 1));
    amqp.coordinator(1).await;
    for (command, fails) in [(0, true), (2, false)] {
        let txn = amqp.declare(1, command).await;
        let ids = if fails { (4, 5) } else { (6, 7) };
        amqp.accept_in(ids, true, txn).await;
        assert_eq!(amqp.discharge(1, command + 1, txn, fails).await, "accepted");
        if fails {
            assert_eq!(amqp.delivery().await, (6, 2, 1));
            assert_eq!(amqp.delivery().await, (7, 3, 2));
        }
    }
    // What is not settled is its receiver's, and a drain waits for nothing.
    amqp.credit(0, 8, 9, true).await;
    assert_eq!(amqp.until("flow").await, "flow Some(0) Some(17) Some(0)");
    amqp.settle((3, 3), true, failed).await;
    amqp.credit(0, 17, 9, true).await;
    assert_eq!(amqp.delivery().await, (8, 4, 1));
    assert_eq!(amqp.until("flow").await, "flow Some(0) Some(26) Some(0)");
}

async fn alice(running: &Running) -> Amqp {
    let mut amqp = Amqp::open(running.other("AMQP")).await;
    amqp.raw(b"AMQP\x03\x01\x00\x00").await;
    amqp.until("mechanisms").await;
    let plain = SaslInit {
        mechanism: Symbol("PLAIN"),
        initial_response: Some(b"\0alice\0a long password"),
        hostname: None,
    };
    amqp.log_in(SaslFrame::Init(plain)).await;
    assert_eq!(amqp.next().await.0, "outcome Ok");
    amqp.begin().await;
    amqp
}

#[tokio::test]
async fn a_principal_makes_no_more_subscriptions_than_it_may_and_after_a_start_too() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let users = directory.path().join("users");
    std::fs::write(&users, "alice:a long password\n").expect("a file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&users, mode).expect("its owner's file");
    let users = format!("sasl.users.file={}", users.display());
    let data = directory.path().join("data");
    let serve = || {
        let mut command = serve_amqp(&data);
        for setting in [
            &users,
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found=true",
            "groups.per.principal.max=2",
        ] {
            command.args(["-X", setting]);
        }
        Running::start(&mut command)
    };
    let running = serve();
    let mut amqp = alice(&running).await;
    // Queues are one group, which is nobody's.
    send(&mut amqp, 0, "news", 0, &[&row(0)]).await;
    let queue = Source {
        capabilities: Multiple::These(&["queue"]),
        ..source("news", None)
    };
    attach(&mut amqp, 1, "queue", queue).await;
    for handle in [2, 3] {
        let attached = attach(&mut amqp, handle, &format!("s{handle}"), DURABLE).await;
        assert!(attached.starts_with("attach"), "{attached}");
    }
    let refused = "detach 4 amqp:resource-limit-exceeded";
    assert_eq!(attach(&mut amqp, 4, "s4", DURABLE).await, refused);
    running.end(Signal::KILL);
    let running = serve();
    let mut amqp = alice(&running).await;
    assert_eq!(attach(&mut amqp, 4, "s4", DURABLE).await, refused);
    // One that is there is there; one that goes makes room.
    attach(&mut amqp, 2, "s2", DURABLE).await;
    amqp.detach(2, true).await;
    let attached = attach(&mut amqp, 5, "s5", DURABLE).await;
    assert!(attached.starts_with("attach"), "{attached}");
}
