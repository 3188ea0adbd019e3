//! Groups over a store on a simulated disk: what is durable when it is told, what a power cut leaves, what a full disk takes back, and time.

use std::sync::Arc;
use std::time::Duration;

use model::{PartitionId, Timestamp, TopicId};
use storage::{Clock, ManualClock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::broker::groups::{ClientIdentity, Held, Ledger};
use crate::broker::state_log::sim::SimStore;

const GROUP: &str = "workers";

struct World {
    store: SimStore,
    clock: Arc<ManualClock>,
    shares: Shares,
    ledger: Arc<Ledger>,
    _stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl World {
    fn new() -> World {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let store = SimStore::new(Arc::clone(&clock) as Arc<dyn Clock>, 256 << 10);
        World::over(store, clock, None)
    }

    /// Over a store whose topics' logs end there.
    fn over(store: SimStore, clock: Arc<ManualClock>, log_end: Option<u64>) -> World {
        World::within(store, clock, log_end, (Held::UNBOUNDED, Held::UNBOUNDED))
    }

    /// The same, within bounds on all groups and on those of one principal.
    fn within(
        store: SimStore,
        clock: Arc<ManualClock>,
        log_end: Option<u64>,
        (all, one): (Held, Held),
    ) -> World {
        let (log, replayed) = store.open();
        let steady = Arc::clone(&clock) as Arc<dyn Clock>;
        let find = |place: Place| {
            Some(FoundPlace {
                end: log_end.map_or(Offset::MAX, Offset::new),
                maker: maker_of(place),
            })
        };
        let ledger = Arc::new(Ledger::new(all, one));
        let opened = Shares::open(log, replayed, steady, Arc::clone(&ledger), find);
        let (shares, task) = opened.expect("readable");
        let (stop, stopped) = watch::channel(false);
        World {
            store,
            clock,
            shares,
            ledger,
            _stop: stop,
            task: tokio::spawn(task.run(stopped)),
        }
    }

    fn cut(self) -> World {
        self.cut_with(None)
    }

    /// The topics' logs lose what is behind there.
    fn cut_with(self, log_end: Option<u64>) -> World {
        self.task.abort();
        World::over(self.store.cut(), self.clock, log_end)
    }

    /// The next start has these bounds.
    fn cut_within(self, bounds: (Held, Held)) -> World {
        self.task.abort();
        World::within(self.store.cut(), self.clock, None, bounds)
    }

    fn used(&self, setting: &str) -> u64 {
        let bounds = self.ledger.bounds();
        let bound = bounds.iter().find(|bound| bound.setting == setting);
        bound.expect("a bound").used
    }

    async fn begin(
        &self,
        group: &str,
        maker: Option<&str>,
        place: Place,
    ) -> Result<(), ShareError> {
        let topic = maker_of(place);
        let makers = Makers {
            group: maker,
            topic: topic.as_ref(),
        };
        let begun = self.shares.begin((group, makers), place, Offset::ZERO);
        begun.await
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

/// Who has made a partition's topic: of the topic 7 nobody.
fn maker_of(place: Place) -> Option<Arc<str>> {
    let is_made = place != self::place();
    is_made.then(|| "alice".into())
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
    let begun = world.begin(GROUP, None, place()).await;
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
    world.begin(GROUP, None, place()).await.expect("begun");
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
    world.begin(GROUP, None, place()).await.expect("begun");
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
    world.begin(GROUP, None, place()).await.expect("begun");
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
        .beat((GROUP, None), beat(0), topic)
        .await
        .expect("a member");
    assert_eq!(
        (beaten.epoch, beaten.assigned.map(|it| it.len())),
        (1, Some(1))
    );
    world.begin(GROUP, None, place()).await.expect("begun");
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
    let reset = world
        .shares
        .reset((GROUP, None), &[(place(), Offset::ZERO, None)])
        .await;
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
    let settings = GroupSettings::of(GROUP, &values).expect("values");
    let set = world
        .shares
        .configure((GROUP, None), values.clone(), settings)
        .await;
    assert_eq!(set, Ok(()));
    assert!(!world.shares.has(GROUP), "settings make no group");
    let world = world.cut();
    assert_eq!(world.shares.values(GROUP), values);
    world.begin(GROUP, None, place()).await.expect("begun");
    for count in [1, 2] {
        assert_eq!(world.acquire("a", 1).await, Ok(vec![(0..1, count)]));
        world
            .settle("a", 0..1, Verdict::Release)
            .await
            .expect("held");
    }
    assert_eq!(world.acquire("a", 1).await, Ok(vec![(1..2, 1)]));
}

#[tokio::test]
async fn what_comes_where_a_log_lost_finished_records_is_not_taken_for_them() {
    for log_end in [4, 7] {
        let world = World::new();
        let begun = world.begin(GROUP, None, place()).await;
        assert_eq!(begun, Ok(()));
        assert_eq!(world.acquire("a", 9).await, Ok(vec![(0..9, 1)]));
        for range in [0..5, 6..8] {
            let done = world.settle("a", range, Verdict::Accept).await;
            assert!(done.is_ok());
        }
        // Of nine records so many are left; five and two behind the sixth were done.
        let world = world.cut_with(Some(log_end));
        assert_eq!(world.start(), Some(log_end.min(5)));
        world.shares.tidy_up(|_| true).await.expect("room");
        // It was stored: the next start finds new records at these offsets.
        let world = world.cut();
        let wanted = match log_end {
            4 => vec![(4..20, 1)],
            _ => vec![(5..6, 2), (7..22, 1)],
        };
        assert_eq!(world.acquire("b", 16).await, Ok(wanted));
    }
}

/// So much, and no bound on the rest.
fn at_most(groups: u64, offsets: u64, offset_bytes: u64) -> Held {
    Held {
        groups,
        offsets,
        offset_bytes,
        ..Held::UNBOUNDED
    }
}

fn partition(number: u32) -> Place {
    Place {
        partition: PartitionId::new(number),
        ..place()
    }
}

const OF_ONE: [&str; 2] = ["groups.per.principal.max", "offsets.per.principal.max"];

#[tokio::test]
async fn a_principals_share_groups_and_their_partitions_are_bounded_and_after_a_start_too() {
    let world = World::new();
    let bounds = (Held::UNBOUNDED, at_most(2, 3, u64::MAX));
    let world = world.cut_within(bounds);
    let mallory = Some("mallory");
    for number in 0..2 {
        let begun = world.begin("a", mallory, partition(number)).await;
        assert_eq!(begun, Ok(()));
    }
    let beaten = world.shares.beat(("b", mallory), beat(0), topic).await;
    beaten.expect("the second group");
    // No third group comes into being, by any request that makes one.
    let refused = world.shares.beat(("c", mallory), beat(0), topic).await;
    assert_eq!(refused, Err(ShareError::MaxSizeReached));
    let refused = world.begin("c", mallory, place()).await;
    assert_eq!(refused, Err(ShareError::MaxSizeReached));
    let starts = [(place(), Offset::ZERO, None)];
    let refused = world.shares.reset(("c", mallory), &starts).await;
    assert_eq!(refused, Err(ShareError::MaxSizeReached));
    let values = vec![("share.delivery.count.limit".to_owned(), "2".to_owned())];
    let settings = GroupSettings::of("c", &values).expect("values");
    let set = world
        .shares
        .configure(("c", mallory), values.clone(), settings);
    assert_eq!(set.await, Err(ShareError::MaxSizeReached));
    assert!(!world.shares.has("c") && world.shares.values("c").is_empty());
    // Whoever uses the group uses its maker's room; others have their own.
    let alice = Some("alice");
    assert_eq!(world.begin("b", alice, place()).await, Ok(()));
    let refused = world.begin("b", alice, partition(1)).await;
    assert_eq!(refused, Err(ShareError::OffsetsMaxReached));
    assert_eq!(world.begin("c", alice, place()).await, Ok(()));
    assert_eq!(world.begin("nobodys", None, place()).await, Ok(()));
    assert_eq!(OF_ONE.map(|setting| world.used(setting)), [2, 3]);
    // It counts after a start as before, and what goes makes room.
    let world = world.cut_within(bounds);
    assert_eq!(OF_ONE.map(|setting| world.used(setting)), [2, 3]);
    let refused = world.begin("d", mallory, place()).await;
    assert_eq!(refused, Err(ShareError::MaxSizeReached));
    assert_eq!(world.shares.delete("a").await, Ok(()));
    assert_eq!(OF_ONE.map(|setting| world.used(setting)), [1, 1]);
    assert_eq!(world.begin("d", mallory, place()).await, Ok(()));
    // A deleted group's owner is forgotten: who makes it anew has it on his account.
    assert_eq!(world.begin("a", alice, place()).await, Ok(()));
    let world = world.cut_within(bounds);
    let refused = world.begin("e", alice, place()).await;
    assert_eq!(refused, Err(ShareError::MaxSizeReached), "c and a are hers");
}

#[tokio::test]
async fn of_many_partitions_that_are_reset_at_once_all_begin_or_none() {
    let world = World::new().cut_within((at_most(9, 2, u64::MAX), Held::UNBOUNDED));
    let starts = |count: u32| {
        let start = |number| (partition(number), Offset::new(5), None);
        (0..count).map(start).collect::<Vec<_>>()
    };
    let refused = world.shares.reset((GROUP, None), &starts(3)).await;
    assert_eq!(refused, Err(ShareError::OffsetsMaxReached));
    assert!(!world.shares.has(GROUP));
    assert_eq!(
        (world.used("groups.max"), world.used("offsets.max")),
        (0, 0)
    );
    assert_eq!(world.shares.reset((GROUP, None), &starts(2)).await, Ok(()));
    let again = world.shares.reset((GROUP, None), &starts(2)).await;
    assert_eq!(again, Ok(()), "they are there already");
    assert_eq!(world.used("offsets.max"), 2);
    let world = world.cut_within((at_most(9, 1, u64::MAX), Held::UNBOUNDED));
    assert_eq!(world.used("offsets.max"), 2, "what was let in stays");
    let again = world.shares.reset((GROUP, None), &starts(2)).await;
    assert_eq!(again, Ok(()), "it grows nothing");
}

#[tokio::test]
async fn where_there_is_no_room_for_runs_nothing_new_is_given_out_and_what_is_out_can_be_settled() {
    let world = World::new();
    world.begin(GROUP, None, place()).await.expect("begun");
    let empty = world.used("offsets.bytes.max");
    let world = world.cut_within((at_most(9, 9, empty + 200), Held::UNBOUNDED));
    // Each second record is done, so that nothing joins.
    assert_eq!(world.acquire("a", 8).await, Ok(vec![(0..8, 1)]));
    for offset in [1, 3, 5] {
        let done = world.settle("a", offset..offset + 1, Verdict::Accept).await;
        assert!(done.is_ok(), "what is out can be settled");
    }
    assert!(world.used("offsets.bytes.max") > empty + 200);
    assert_eq!(world.acquire("b", 8).await, Ok(vec![]), "no room");
    let available = || {
        world
            .shares
            .first_available(GROUP, place(), offsets(0..100))
    };
    assert_eq!(available(), None, "and nobody looks in vain");
    assert!(world.shares.has_lacked_room());
    // What comes back is given out again: it makes no more runs than it frees.
    world.shares.release(GROUP, "a").await.expect("released");
    assert_eq!(available(), Some(Offset::ZERO));
    assert_eq!(world.acquire("b", 1).await, Ok(vec![(0..1, 2)]));
    world
        .settle("b", 0..1, Verdict::Accept)
        .await
        .expect("held");
    for offset in [2, 4, 6, 7] {
        let one = world.acquire("b", 1).await;
        assert_eq!(one, Ok(vec![(offset..offset + 1, 2)]));
        let range = offset..offset + 1;
        world
            .settle("b", range, Verdict::Accept)
            .await
            .expect("held");
    }
    assert_eq!(
        (world.start(), world.used("offsets.bytes.max")),
        (Some(8), empty)
    );
    assert_eq!(world.acquire("b", 2).await, Ok(vec![(8..10, 1)]), "room");
    let used = world.used("offsets.bytes.max");
    world
        .settle("b", 9..10, Verdict::Accept)
        .await
        .expect("held");
    let world = world.cut();
    assert!(world.used("offsets.bytes.max") > empty && used > empty);
}

#[tokio::test]
async fn queues_are_on_the_accounts_of_who_made_their_topics() {
    let bounds = (Held::UNBOUNDED, at_most(1, 2, u64::MAX));
    let world = World::new().cut_within(bounds);
    let alices = |number: u32| Place {
        topic: TopicId::from_uuid(uuid::Uuid::from_u128(8)),
        partition: PartitionId::new(number),
    };
    // Whoever comes first: all queues are one group, and that is nobody's.
    for number in 0..2 {
        let begun = world.begin(QUEUES, Some("mallory"), alices(number)).await;
        assert_eq!(begun, Ok(()));
    }
    let refused = world.begin(QUEUES, Some("mallory"), alices(2)).await;
    assert_eq!(refused, Err(ShareError::OffsetsMaxReached));
    let begun = world.begin(QUEUES, Some("mallory"), place()).await;
    assert_eq!(begun, Ok(()), "a topic that is nobody's");
    assert_eq!(OF_ONE.map(|setting| world.used(setting)), [0, 2]);
    let world = world.cut_within(bounds);
    assert_eq!(OF_ONE.map(|setting| world.used(setting)), [0, 2]);
    let forgotten = world.shares.forget_topic(alices(0).topic).await;
    assert_eq!(forgotten, Ok(()));
    assert_eq!(world.begin(QUEUES, None, alices(2)).await, Ok(()));
}

#[tokio::test]
async fn members_of_share_groups_count_while_they_are_there() {
    let bounds = Held {
        members: 1,
        ..Held::UNBOUNDED
    };
    let world = World::new().cut_within((bounds, Held::UNBOUNDED));
    let beaten = world.shares.beat((GROUP, None), beat(0), topic).await;
    beaten.expect("a member");
    let other = |epoch| Beat {
        member_id: "n".into(),
        ..beat(epoch)
    };
    let refused = world.shares.beat(("other", None), other(0), topic).await;
    assert_eq!(refused, Err(ShareError::MaxSizeReached));
    assert_eq!(world.used("groups.max"), 1, "and no group is left of it");
    let bytes = world.used("groups.bytes.max");
    world.clock.advance(Duration::from_secs(60));
    world.shares.run_due().await.expect("it runs");
    assert_eq!(world.used("groups.members.max"), 0);
    assert!(world.used("groups.bytes.max") < bytes);
    let beaten = world.shares.beat(("other", None), other(0), topic).await;
    beaten.expect("room");
}
