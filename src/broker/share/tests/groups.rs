//! Groups over a store on a simulated disk: what is durable when it is told, what a power cut leaves, what a full disk takes back, and time.

use std::sync::Arc;
use std::time::Duration;

use model::{PartitionId, Timestamp, TopicId};
use storage::{Clock, ManualClock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::broker::groups::ClientIdentity;
use crate::broker::state_log::sim::SimStore;

const GROUP: &str = "workers";

struct World {
    store: SimStore,
    clock: Arc<ManualClock>,
    shares: Shares,
    _stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl World {
    fn new() -> World {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let store = SimStore::new(Arc::clone(&clock) as Arc<dyn Clock>, 256 << 10);
        World::over(store, clock)
    }

    fn over(store: SimStore, clock: Arc<ManualClock>) -> World {
        let (log, replayed) = store.open();
        let opened = Shares::open(log, replayed, Arc::clone(&clock) as Arc<dyn Clock>);
        let (shares, task) = opened.expect("readable");
        let (stop, stopped) = watch::channel(false);
        World {
            store,
            clock,
            shares,
            _stop: stop,
            task: tokio::spawn(task.run(stopped)),
        }
    }

    fn cut(self) -> World {
        self.task.abort();
        World::over(self.store.cut(), self.clock)
    }

    async fn acquire(
        &self,
        member: &str,
        count_max: usize,
    ) -> Result<Vec<(Range<u64>, u16)>, ShareError> {
        let wanted = Wanted {
            place: place(),
            within: vec![offsets(0..100)],
            absent: Vec::new(),
            count_max,
            ends: Vec::new(),
            deliveries_max: None,
            log_start: Offset::ZERO,
        };
        let given = self.shares.acquire(GROUP, member, &wanted).await?;
        let shown = |piece: Acquired| {
            (
                piece.offsets.start.get()..piece.offsets.end.get(),
                piece.count,
            )
        };
        Ok(given.into_iter().map(shown).collect())
    }

    async fn settle(
        &self,
        member: &str,
        range: Range<u64>,
        verdict: Verdict,
    ) -> Result<Tally, ShareError> {
        let verdicts = [(offsets(range), verdict)];
        self.shares
            .settle(GROUP, member, place(), &verdicts, Offset::ZERO)
            .await
    }

    fn start(&self) -> Option<u64> {
        let found = self.shares.offset(GROUP, place(), offsets(0..100));
        found.map(|found| found.start.get())
    }
}

fn place() -> Place {
    Place {
        topic: TopicId::from_uuid(uuid::Uuid::from_u128(7)),
        partition: PartitionId::new(0),
    }
}

fn beat(epoch: i32) -> Beat {
    Beat {
        member_id: "m".into(),
        epoch,
        topics: Some(vec!["t".into()]),
        rack: None,
        client: ClientIdentity::default(),
    }
}

fn topic(_: &str) -> Option<Topic> {
    Some((place().topic, 1))
}

#[tokio::test]
async fn what_was_told_to_be_done_is_done_after_a_power_cut_and_the_rest_comes_again_and_counts() {
    let world = World::new();
    let begun = world.shares.begin(GROUP, place(), Offset::ZERO).await;
    assert_eq!(begun, Ok(()));
    assert_eq!(world.acquire("a", 3).await, Ok(vec![(0..3, 1)]));
    assert_eq!(world.acquire("b", 3).await, Ok(vec![(3..6, 1)]));
    let done = world.settle("b", 3..5, Verdict::Accept).await;
    assert_eq!(done.map(|tally| tally.acknowledged), Ok(2));
    let other = world.settle("b", 0..1, Verdict::Accept).await;
    let not_held = NotHeld {
        offset: Offset::ZERO,
    };
    assert_eq!(other, Err(ShareError::NotHeld(not_held)));
    let world = world.cut();
    assert_eq!(world.start(), Some(0));
    let again = world.acquire("c", 10).await;
    assert_eq!(again, Ok(vec![(0..3, 2), (5..6, 2), (6..12, 1)]));
    for range in [0..3, 5..12] {
        assert!(world.settle("c", range, Verdict::Accept).await.is_ok());
    }
    let world = world.cut();
    assert_eq!(world.start(), Some(12));
    assert_eq!(world.acquire("d", 1).await, Ok(vec![(12..13, 1)]));
}

#[tokio::test]
async fn nobody_is_told_of_a_settlement_before_its_sync() {
    let world = World::new();
    world
        .shares
        .begin(GROUP, place(), Offset::ZERO)
        .await
        .expect("begun");
    assert_eq!(world.acquire("a", 5).await, Ok(vec![(0..5, 1)]));
    world.store.sync();
    world.store.hold();
    let shares = world.shares.clone();
    let settling = tokio::spawn(async move {
        let verdicts = [(offsets(0..5), Verdict::Accept)];
        shares
            .settle(GROUP, "a", place(), &verdicts, Offset::ZERO)
            .await
    });
    // Records are given out without a sync; it goes behind the settlement, which has been appended.
    while world.start() != Some(5) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.acquire("b", 1).await, Ok(vec![(5..6, 1)]));
    assert!(!settling.is_finished());
    let world = world.cut();
    assert!(settling.await.expect("no panic").is_err());
    assert_eq!(world.acquire("b", 1).await, Ok(vec![(0..1, 2)]), "not lost");
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_given_out_or_settled_and_all_is_as_it_was() {
    let world = World::new();
    world
        .shares
        .begin(GROUP, place(), Offset::ZERO)
        .await
        .expect("begun");
    assert_eq!(world.acquire("a", 2).await, Ok(vec![(0..2, 1)]));
    world.store.set_full(true);
    // What is ready takes some more.
    let mut count = 0;
    let refused = loop {
        let given = match world.acquire("b", 1).await {
            Ok(given) => given[0].0.clone(),
            Err(refused) => break refused,
        };
        if let Err(refused) = world.settle("b", given, Verdict::Return).await {
            break refused;
        }
        count += 1;
        assert!(count < 10_000, "the disk is full");
    };
    assert_eq!(refused, ShareError::NotAvailable);
    let settled = world.settle("a", 0..1, Verdict::Accept).await;
    assert_eq!(settled, Err(ShareError::NotAvailable));
    assert_eq!(world.start(), Some(0));
    world.store.set_full(false);
    while world.settle("a", 0..1, Verdict::Accept).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.start(), Some(1));
}

#[tokio::test]
async fn records_of_who_goes_or_is_late_are_anybodys_and_who_waits_is_told() {
    let world = World::new();
    world
        .shares
        .begin(GROUP, place(), Offset::ZERO)
        .await
        .expect("begun");
    assert_eq!(world.acquire("a", 2).await, Ok(vec![(0..2, 1)]));
    assert_eq!(world.acquire("b", 2).await, Ok(vec![(2..4, 1)]));
    let changed = world.shares.watch(GROUP).expect("a group");
    world.shares.release(GROUP, "a").await.expect("released");
    assert!(changed.has_changed().expect("a group"));
    assert_eq!(world.acquire("c", 2).await, Ok(vec![(0..2, 2)]));
    world.clock.advance(Duration::from_secs(30));
    world.shares.run_due().await.expect("it runs");
    let late = world.settle("b", 2..4, Verdict::Accept).await;
    assert!(matches!(late, Err(ShareError::NotHeld(_))));
    let again = world.acquire("c", 4).await;
    assert_eq!(again, Ok(vec![(0..2, 3), (2..4, 2)]));
}

#[tokio::test]
async fn a_group_ends_with_what_it_has_and_begins_anew_where_it_is_told() {
    let world = World::new();
    let beaten = world
        .shares
        .beat(GROUP, beat(0), topic)
        .await
        .expect("a member");
    assert_eq!(
        (beaten.epoch, beaten.assigned.map(|it| it.len())),
        (1, Some(1))
    );
    world
        .shares
        .begin(GROUP, place(), Offset::ZERO)
        .await
        .expect("begun");
    world.acquire("m", 9).await.expect("records");
    world
        .settle("m", 1..2, Verdict::Accept)
        .await
        .expect("held");
    assert_eq!(world.shares.delete(GROUP).await, Err(ShareError::NonEmpty));
    assert_eq!(world.shares.leave(GROUP, "m", topic), Ok(()));
    let world = world.cut();
    assert_eq!(
        world.shares.list(),
        [ShareListing {
            id: GROUP.into(),
            has_members: false
        }]
    );
    let reset = world.shares.reset(GROUP, &[(place(), Offset::ZERO)]).await;
    assert_eq!(reset, Ok(()));
    let world = world.cut();
    assert_eq!(
        world.acquire("m", 4).await,
        Ok(vec![(0..4, 1)]),
        "also what was done"
    );
    assert_eq!(world.shares.delete(GROUP).await, Ok(()));
    let world = world.cut();
    assert_eq!((world.shares.list(), world.start()), (vec![], None));
    assert_eq!(world.shares.delete(GROUP).await, Err(ShareError::NotFound));
}

#[tokio::test]
async fn settings_are_kept_and_outlive_the_group() {
    let world = World::new();
    let values = vec![("share.delivery.count.limit".to_owned(), "2".to_owned())];
    let settings = GroupSettings::of(&values).expect("values");
    let set = world
        .shares
        .configure(GROUP, values.clone(), settings)
        .await;
    assert_eq!(set, Ok(()));
    assert!(!world.shares.has(GROUP), "settings make no group");
    let world = world.cut();
    assert_eq!(world.shares.values(GROUP), values);
    world
        .shares
        .begin(GROUP, place(), Offset::ZERO)
        .await
        .expect("begun");
    for count in [1, 2] {
        assert_eq!(world.acquire("a", 1).await, Ok(vec![(0..1, count)]));
        world
            .settle("a", 0..1, Verdict::Release)
            .await
            .expect("held");
    }
    assert_eq!(world.acquire("a", 1).await, Ok(vec![(1..2, 1)]));
}
