//! Changes at the same time, over a store whose disk the test moves: how many syncs they take, and what each of them sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{PartitionId, Timestamp};
use storage::ManualClock;
use tokio::task::JoinHandle;

use super::*;
use crate::broker::access::{Caller, Door, Granted, NewName, Principal, Protocol, right};
use crate::broker::catalog::Topic;
use crate::broker::configs::{Alteration, Operation, Resource};
use crate::broker::refusal::InvalidPartitions;
use crate::broker::state_log::sim::SimStore;
use crate::broker::topics::{Layout, NewTopic};
use crate::broker::{Broker, Refusal};

type Created = Result<Granted<Arc<Topic>, right::Create>, Refusal>;

fn house() -> (SimStore, Broker) {
    let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
    SimStore::with_broker(Arc::new(clock), 8 << 20)
}

fn door(broker: &Broker) -> Door {
    broker.door(Caller {
        principal: Principal::Anonymous,
        address: ([127, 0, 0, 1], 1).into(),
        client_id: None,
        protocol: Protocol::Kafka,
    })
}

/// Creates a topic whose name was free when it was granted, whatever has happened since.
async fn create(broker: Broker, name: String) -> Created {
    let name = TopicName::parse(&name).expect("a name");
    let new = NewTopic {
        name: Granted::<NewName, right::Create>::on(NewName::of_nobody(name)),
        layout: Layout::Counted {
            partitions: Some(1),
            replicas: None,
        },
        settings: Vec::new(),
    };
    let mut created = broker.create_topics(vec![new], false).await;
    created.pop().expect("one answer")
}

fn creating(broker: &Broker, name: &str) -> JoinHandle<Created> {
    tokio::spawn(create(broker.clone(), name.to_owned()))
}

/// Lets the other tasks run until this is so. The disk moves only when the test says so, and nothing waits for a clock.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

async fn until_under_way(broker: &Broker, count: usize) {
    let what = format!("{count} under way");
    until(&what, || broker.shared.changes.count() == count).await;
}

/// Lets the other tasks go as far as they come without the disk.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

fn syncs(broker: &Broker) -> u64 {
    broker.sync_durations().buckets.iter().sum()
}

#[tokio::test]
async fn a_hundred_topics_created_at_once_share_one_sync() {
    let (store, broker) = house();
    store.hold();
    let before = syncs(&broker);
    let created: Vec<_> = (0..100)
        .map(|number| creating(&broker, &format!("readings-{number}")))
        .collect();
    until_under_way(&broker, 100).await;
    assert!(created.iter().all(|task| !task.is_finished()));
    assert!(broker.topics().is_empty(), "none is seen before the sync");
    store.sync();
    for task in created {
        task.await.expect("no panic").expect("created");
    }
    assert_eq!(syncs(&broker) - before, 1);
    assert_eq!(broker.topics().len(), 100);
    assert_eq!(broker.shared.changes.count(), 0);
    let broker = store.cut().broker();
    assert_eq!(broker.topics().len(), 100);
}

#[tokio::test]
async fn changes_of_settings_and_partitions_of_different_topics_share_one_sync() {
    let (store, broker) = house();
    for name in ["a", "b", "c"] {
        let created = create(broker.clone(), name.to_owned()).await;
        created.expect("created");
    }
    store.hold();
    let before = syncs(&broker);
    let alter = |name: &'static str| {
        let broker = broker.clone();
        tokio::spawn(async move {
            let topic = door(&broker).topic(name, right::AlterConfigs)?;
            let settings = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
            let resource = Resource::Topic(topic);
            broker.replace_configs(&resource, settings, false).await
        })
    };
    let (a, b) = (alter("a"), alter("b"));
    let c = growing(&broker, "c", 3);
    until_under_way(&broker, 3).await;
    store.sync();
    a.await.expect("no panic").expect("altered");
    b.await.expect("no panic").expect("altered");
    c.await.expect("no panic").expect("grown");
    assert_eq!(syncs(&broker) - before, 1);
    for name in ["a", "b"] {
        let topic = broker.topic(name).expect("it is there");
        assert_eq!(topic.overrides["retention.ms"], "5");
    }
    let grown = broker.topic("c").expect("it is there");
    assert!(grown.has(PartitionId::new(2)) && grown.partition_count() == 3);
}

fn growing(
    broker: &Broker,
    name: &'static str,
    count: u32,
) -> JoinHandle<Result<Arc<Topic>, Refusal>> {
    let broker = broker.clone();
    tokio::spawn(async move {
        let topic = door(&broker).topic(name, right::Alter)?;
        broker.grow_topic(&topic, count, None, false).await
    })
}

#[tokio::test]
async fn who_asks_for_the_same_is_told_what_has_become_of_it() {
    let (store, broker) = house();
    store.hold();
    let tasks = ["a.b", "a.b", "a_b"].map(|name| creating(&broker, name));
    until_under_way(&broker, 1).await;
    settle().await;
    assert!(tasks.iter().all(|task| !task.is_finished()));
    store.let_go();
    let [first, same, alike] = tasks;
    first.await.expect("no panic").expect("created");
    let same = same.await.expect("no panic");
    assert!(matches!(same, Err(Refusal::TopicExists { .. })), "{same:?}");
    let alike = alike.await.expect("no panic");
    assert!(
        matches!(alike, Err(Refusal::CollidingTopicName { .. })),
        "{alike:?}"
    );
    store.hold();
    let (one, other) = (growing(&broker, "a.b", 2), growing(&broker, "a.b", 2));
    until_under_way(&broker, 1).await;
    store.let_go();
    one.await.expect("no panic").expect("grown");
    let other = other.await.expect("no panic");
    let not_more = InvalidPartitions::NotMore {
        before: 2,
        asked: 2,
    };
    assert!(
        matches!(&other, Err(Refusal::InvalidPartitions(why)) if *why == not_more),
        "{other:?}"
    );
}

#[tokio::test]
async fn a_name_is_free_again_when_the_deletion_is_durable() {
    let (store, broker) = house();
    let created = create(broker.clone(), "readings".to_owned()).await;
    let old = created.expect("created").id;
    store.hold();
    let granted = door(&broker).topic("readings", right::Delete);
    let granted = granted.expect("a right");
    let deleter = broker.clone();
    let deleting = tokio::spawn(async move { deleter.delete_topics(vec![granted]).await });
    until_under_way(&broker, 1).await;
    let again = creating(&broker, "readings");
    settle().await;
    assert!(broker.topic("readings").is_ok() && !again.is_finished());
    store.let_go();
    let deleted = deleting.await.expect("no panic");
    assert_eq!(deleted[0].as_ref().expect("deleted").id, old);
    let new = again.await.expect("no panic").expect("created").id;
    assert_ne!(new, old);
    assert_eq!(broker.topic("readings").expect("it is there").id, new);
}

#[tokio::test]
async fn defaults_of_all_topics_change_alone() {
    let (store, broker) = house();
    store.hold();
    let first = creating(&broker, "first");
    until_under_way(&broker, 1).await;
    let changer = broker.clone();
    let changing = tokio::spawn(async move {
        let cluster = door(&changer).cluster(right::AlterConfigs)?;
        let alteration = Alteration {
            name: "log.retention.ms".to_owned(),
            operation: Operation::Set("5".to_owned()),
        };
        let resource = Resource::Cluster(cluster);
        changer
            .alter_configs(&resource, vec![alteration], false)
            .await
    });
    settle().await;
    let second = creating(&broker, "second");
    settle().await;
    assert_eq!(broker.shared.changes.count(), 1, "the others wait");
    store.let_go();
    first.await.expect("no panic").expect("created");
    changing.await.expect("no panic").expect("changed");
    second.await.expect("no panic").expect("created");
    let retention = |name: &str| {
        let topic = broker.topic(name).expect("it is there");
        topic.config.retention_ms
    };
    assert_eq!(
        (retention("first"), retention("second")),
        (Some(5), Some(5))
    );
}

#[tokio::test]
async fn what_is_appended_takes_effect_though_nobody_waits_for_it() {
    let (store, broker) = house();
    store.hold();
    let creating = creating(&broker, "readings");
    until_under_way(&broker, 1).await;
    creating.abort();
    assert!(creating.await.expect_err("aborted").is_cancelled());
    store.let_go();
    until("a topic", || broker.topic("readings").is_ok()).await;
    assert_eq!(broker.shared.changes.count(), 0);
}

#[tokio::test]
async fn what_a_full_disk_refuses_keeps_nothing_from_others() {
    let (store, broker) = house();
    store.set_full(true);
    let refused = create(broker.clone(), "readings".to_owned()).await;
    assert!(matches!(refused, Err(Refusal::DiskFull)), "{refused:?}");
    assert_eq!(broker.shared.changes.count(), 0);
    store.set_full(false);
    let created = create(broker.clone(), "readings".to_owned()).await;
    created.expect("created");
}

#[tokio::test]
async fn partitions_that_are_under_way_are_counted_once() {
    let changes = Changes::default();
    let topic = Touched::Topic(TopicId::random());
    let begun = changes.turn([topic]).await.begin(Added {
        partitions: 3,
        owned: Vec::new(),
    });
    assert_eq!(changes.partitions(|| 5), 8);
    let in_force = changes.end(begun, || 5 + 3);
    assert_eq!(changes.partitions(|| in_force), 8);
}
