//! Dead letters over a store on a simulated disk: each given-up record has one, whole and with its reasons, or is counted; a power cut at
//! any sync leaves it with its archived record, or neither.

use std::sync::Arc;

use model::batch::{DecompressLimit, Record};
use model::{PartitionId, Timestamp};
use storage::ManualClock;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::broker::access::{Door, Protocol, right};
use crate::broker::publish::Message;
use crate::broker::state_log::sim::SimStore;
use crate::broker::{Broker, Layout, NewTopic};

const GROUP: &str = "workers";
const ORDERS: &str = "orders";
const DEAD: &str = "dlq.orders";

struct World {
    store: SimStore,
    broker: Broker,
    _stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl World {
    /// A topic with so many records in one partition, and one for dead letters.
    async fn new(records: u64, dead: &[(&str, &str)]) -> World {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let (store, broker) = SimStore::with_broker(clock, 8 << 20);
        let world = World::over(store, broker);
        world.create(ORDERS, &[]).await;
        world.create(DEAD, dead).await;
        let topic = world.door().topic(ORDERS, right::Write).expect("a right");
        for number in 0..records {
            let (key, value) = (format!("key {number}"), format!("value {number}"));
            let message = Message {
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                headers: &[(b"own", Some(b"header"))],
                time: None,
            };
            let published = world.broker.publish(&topic, None, message).await;
            published.expect("room").durable().await.expect("durable");
        }
        let group = (GROUP, Makers::default());
        let begun = { world.broker.shares() }.begin(group, world.place(), Offset::ZERO);
        begun.await.expect("begun");
        world
    }

    fn over(store: SimStore, broker: Broker) -> World {
        let (stop, stopped) = watch::channel(false);
        let running = broker.clone();
        World {
            store,
            broker,
            _stop: stop,
            task: tokio::spawn(async move { running.run(stopped).await }),
        }
    }

    fn cut(self) -> World {
        self.task.abort();
        drop(self.broker);
        let store = self.store.cut();
        let broker = store.broker();
        World::over(store, broker)
    }

    fn door(&self) -> Door {
        self.broker.own_door(Protocol::Kafka)
    }

    async fn create(&self, name: &str, settings: &[(&str, &str)]) {
        let new = NewTopic {
            name: self.door().new_topic(name).expect("a free name"),
            layout: Layout::Counted {
                partitions: Some(1),
                replicas: None,
            },
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
                .collect(),
        };
        let created = self.broker.create_topics(vec![new], false).await;
        assert!(created[0].is_ok(), "{created:?}");
    }

    async fn set(&self, values: &[(&str, &str)]) {
        let values = values.iter();
        let values: Vec<_> = values
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let settings = GroupSettings::of(GROUP, &values).expect("values");
        let set = self
            .broker
            .shares()
            .configure((GROUP, None), values, settings);
        set.await.expect("set");
    }

    fn place(&self) -> Place {
        Place {
            topic: self.broker.topic(ORDERS).expect("it is there").id,
            partition: PartitionId::new(0),
        }
    }

    async fn acquire(&self, count_max: usize) -> Vec<(Range<u64>, u16)> {
        let wanted = Wanted {
            place: self.place(),
            within: vec![offsets(0..self.end())],
            absent: Vec::new(),
            count_max,
            ends: Vec::new(),
            deliveries_max: None,
            log_start: Offset::ZERO,
        };
        let given = self.broker.shares().acquire(GROUP, "m", &wanted).await;
        let given = given.expect("a group").into_iter();
        given
            .map(|it| (it.offsets.start.get()..it.offsets.end.get(), it.count))
            .collect()
    }

    fn end(&self) -> u64 {
        let topic = self.broker.topic(ORDERS).expect("it is there");
        let log = topic.log(PartitionId::new(0)).expect("it is there");
        log.bounds().durable_end.get()
    }

    async fn settle(&self, range: Range<u64>, verdict: Verdict) {
        let verdicts = [(offsets(range), verdict)];
        let shares = self.broker.shares();
        let settled = shares.settle(GROUP, "m", self.place(), &verdicts, Offset::ZERO);
        settled.await.expect("held");
    }

    fn start(&self) -> u64 {
        let bounds = offsets(0..self.end());
        let found = self.broker.shares().offset(GROUP, self.place(), bounds);
        found.expect("begun").start.get()
    }

    /// Until no record waits for its dead letter, and those that were written are durable.
    async fn quiet(&self) {
        while !self.broker.shares().dead().is_empty() {
            tokio::task::yield_now().await;
        }
        self.store.sync();
    }

    /// Until the writer of dead letters has had its turns, on a disk that syncs nothing.
    async fn held_up(&self) {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    fn letters(&self) -> Vec<Record> {
        let topic = self.broker.topic(DEAD).expect("it is there");
        let log = topic.log(PartitionId::new(0)).expect("it is there");
        let mut from = log.bounds().start;
        let mut records = Vec::new();
        while from < log.bounds().durable_end {
            let read = log.read_copy(from, 1 << 20).expect("readable");
            for slice in read.slices {
                for batch in model::batch::split(slice) {
                    let batch = batch.expect("sound");
                    let of = batch.records(DecompressLimit::default()).expect("readable");
                    records.extend(of.map(|record| record.expect("readable")));
                }
            }
            from = read.end_offset;
        }
        records
    }

    fn offsets_of_letters(&self) -> Vec<u64> {
        let letters = self.letters();
        let number = |letter: &Record| header_of(letter, "__dlq.errors.offset").parse();
        letters
            .iter()
            .map(|it| number(it).expect("a number"))
            .collect()
    }

    /// The loss ledger in words.
    fn losses(&self) -> String {
        let cluster = self.door().cluster(right::Describe).expect("a right");
        let losses = self.broker.losses(&cluster, None, None);
        let words = losses.iter().map(|it| {
            let group = it.group.as_deref().unwrap_or_default();
            format!(
                "{group} {:?} {}..{} {}",
                it.cause, it.from, it.to, it.records
            )
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn tally(&self) -> (u64, u64, u64) {
        let totals = self.broker.shares().totals();
        (totals.archived, totals.dead_letters, totals.dropped)
    }
}

fn header_of(record: &Record, name: &str) -> String {
    let mut all = record.headers.iter();
    let found = all.find(|header| header.key == name.as_bytes());
    let value = found.and_then(|header| header.value.as_deref());
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

const ENABLED: (&str, &str) = ("errors.deadletterqueue.group.enable", "true");
const NAMED: (&str, &str) = (DEAD_LETTER_TOPIC, DEAD);
const COPIED: (&str, &str) = ("errors.deadletterqueue.copy.record.enable", "true");

#[tokio::test]
async fn what_is_rejected_or_delivered_too_often_has_a_dead_letter_that_says_why() {
    let world = World::new(3, &[ENABLED]).await;
    world
        .set(&[NAMED, COPIED, ("share.delivery.count.limit", "2")])
        .await;
    assert_eq!(world.acquire(2).await, [(0..2, 1)]);
    world.settle(0..1, Verdict::Reject).await;
    world.settle(1..2, Verdict::Release).await;
    assert_eq!(world.acquire(1).await, [(1..2, 2)]);
    world.settle(1..2, Verdict::Release).await;
    // Whose time is over has none.
    assert_eq!(world.acquire(1).await, [(2..3, 1)]);
    world.settle(2..3, Verdict::Discard).await;
    world.quiet().await;
    assert_eq!(world.start(), 3);
    let letters = world.letters();
    let said = |letter: &Record| {
        let names = [
            "topic",
            "partition",
            "offset",
            "group",
            "delivery.count",
            "message",
        ];
        names.map(|name| header_of(letter, &format!("__dlq.errors.{name}")))
    };
    let said: Vec<_> = letters.iter().map(said).collect();
    let rejected = "Offset rejected by client.";
    let too_often = "Offset delivery count exceeded the threshold.";
    assert_eq!(said[0], [ORDERS, "0", "0", GROUP, "1", rejected]);
    assert_eq!(said[1], [ORDERS, "0", "1", GROUP, "2", too_often]);
    assert_eq!(said.len(), 2);
    assert_eq!(letters[0].key.as_deref(), Some(&b"key 0"[..]));
    assert_eq!(letters[1].value.as_deref(), Some(&b"value 1"[..]));
    assert_eq!(header_of(&letters[0], "own"), "header");
    assert_eq!(world.tally(), (2, 2, 0));
}

#[tokio::test]
async fn without_a_copy_a_dead_letter_is_its_headers() {
    let world = World::new(1, &[ENABLED]).await;
    world.set(&[NAMED]).await;
    world.acquire(1).await;
    world.settle(0..1, Verdict::Reject).await;
    world.quiet().await;
    let letters = world.letters();
    assert_eq!(
        (letters[0].key.as_ref(), letters[0].value.as_ref()),
        (None, None)
    );
    assert_eq!(letters[0].headers.len(), 6);
}

#[tokio::test]
async fn a_power_cut_leaves_a_dead_letter_with_the_end_of_its_record_or_neither() {
    let world = World::new(20, &[ENABLED]).await;
    world.set(&[NAMED, COPIED]).await;
    world.acquire(20).await;
    world.store.sync();
    world.store.hold();
    let (shares, place) = (world.broker.shares().clone(), world.place());
    let settling = tokio::spawn(async move {
        let verdicts = [(offsets(0..10), Verdict::Reject)];
        shares
            .settle(GROUP, "m", place, &verdicts, Offset::ZERO)
            .await
    });
    // Given up and written, but nothing of it synced.
    world.held_up().await;
    let world = world.cut();
    assert!(
        settling.await.expect("no panic").is_err(),
        "nobody was told"
    );
    world.quiet().await;
    assert_eq!((world.letters().len(), world.start()), (0, 0));
    assert_eq!(world.acquire(20).await, [(0..20, 2)], "not lost");
    world.store.hold();
    let (shares, place) = (world.broker.shares().clone(), world.place());
    let settling = tokio::spawn(async move {
        let verdicts = [(offsets(0..10), Verdict::Reject)];
        shares
            .settle(GROUP, "m", place, &verdicts, Offset::ZERO)
            .await
    });
    world.held_up().await;
    // The settlement is synced, and perhaps what follows from it.
    world.store.sync();
    settling.await.expect("no panic").expect("told");
    let world = world.cut();
    world.quiet().await;
    assert_eq!(world.offsets_of_letters(), (0..10).collect::<Vec<_>>());
    assert_eq!(world.start(), 10);
    let world = world.cut();
    world.quiet().await;
    assert_eq!(world.letters().len(), 10, "none twice");
    assert_eq!(world.acquire(20).await, [(10..20, 3)]);
}

#[tokio::test]
async fn many_dead_letters_of_many_runs_come_once_each_and_in_order() {
    let world = World::new(700, &[ENABLED]).await;
    world.set(&[NAMED, COPIED]).await;
    world.acquire(700).await;
    for at in (0..700).step_by(2) {
        world.settle(at..at + 1, Verdict::Reject).await;
    }
    world.quiet().await;
    let wanted: Vec<u64> = (0..700).step_by(2).collect();
    assert_eq!(world.offsets_of_letters(), wanted);
    assert_eq!(world.tally(), (350, 350, 0));
}

#[tokio::test]
async fn without_a_topic_that_takes_dead_letters_what_is_given_up_is_counted_and_on_record() {
    // It is not allowed; it is not there; it is the topic itself; none is named.
    for topic in [DEAD, "dlq.nowhere", ORDERS, ""] {
        let world = World::new(4, &[]).await;
        world.set(&[(DEAD_LETTER_TOPIC, topic)]).await;
        assert_eq!(world.losses(), "");
        world.acquire(4).await;
        world.settle(0..2, Verdict::Reject).await;
        world.quiet().await;
        assert_eq!((world.start(), world.letters().len()), (2, 0));
        assert_eq!(world.tally(), (2, 0, 2), "{topic}");
        // What lies between others that are done is in the same entry; whose time is over is in none.
        world.settle(2..3, Verdict::Discard).await;
        world.settle(3..4, Verdict::Reject).await;
        world.quiet().await;
        assert_eq!(world.tally(), (3, 0, 3), "{topic}");
        assert_eq!(world.losses(), "workers GivenUp 0..4 3", "{topic}");
        let world = world.cut();
        assert_eq!(world.losses(), "workers GivenUp 0..4 3", "{topic}");
    }
}

#[tokio::test]
async fn a_power_cut_leaves_no_record_given_up_that_is_not_in_the_loss_ledger() {
    let world = World::new(10, &[]).await;
    world.acquire(10).await;
    world.store.sync();
    world.store.hold();
    let (shares, place) = (world.broker.shares().clone(), world.place());
    let settling = tokio::spawn(async move {
        let verdicts = [(offsets(0..10), Verdict::Reject)];
        shares
            .settle(GROUP, "m", place, &verdicts, Offset::ZERO)
            .await
    });
    world.held_up().await;
    world.store.sync();
    settling.await.expect("no panic").expect("told");
    let world = world.cut();
    // What the cut has left undone the start has done.
    world.quiet().await;
    assert_eq!(world.start(), 10);
    let losses = world.losses();
    assert!(losses.starts_with("workers GivenUp 0..10 "), "{losses}");
}

#[tokio::test]
async fn a_record_that_is_too_long_with_its_reasons_has_a_dead_letter_of_these_alone() {
    let world = World::new(1, &[ENABLED, ("max.message.bytes", "330")]).await;
    let topic = world.door().topic(ORDERS, right::Write).expect("a right");
    let long = vec![b'x'; 300];
    let message = Message {
        value: Some(&long),
        ..Message::default()
    };
    let published = world.broker.publish(&topic, None, message).await;
    published.expect("room").durable().await.expect("durable");
    world.set(&[NAMED, COPIED]).await;
    world.acquire(2).await;
    world.settle(0..2, Verdict::Reject).await;
    world.quiet().await;
    let letters = world.letters();
    assert_eq!(world.offsets_of_letters(), [0, 1]);
    assert_eq!(letters[1].value, None);
    assert_eq!(world.start(), 2);
}
