//! What the runtime promises, shown with machines that count: the order of answers, withdrawal, backpressure, shards, time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use model::Timestamp;
use model::state_log::StateLogKind;
use storage::{Clock, ManualClock, Purpose};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::broker::state_log::sim::SimStore;
use crate::broker::state_log::{Change, StateLogError, StateRecord};

const FILE_BYTES: u64 = 256 << 10;
const RECORD_BYTES: usize = 64;

/// A counter's sum.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sum {
    key: Arc<str>,
    sum: u64,
    padding: usize,
}

impl StateRecord for Sum {
    const LOG: StateLogKind = StateLogKind::Groups;
    type Unknown = std::array::TryFromSliceError;

    fn encode(&self) -> Change {
        let key = Bytes::copy_from_slice(self.key.as_bytes());
        let mut value = self.sum.to_be_bytes().to_vec();
        value.resize(value.len() + self.padding, 0);
        (key, Some(value.into()))
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, Self::Unknown> {
        Ok(Sum {
            key: String::from_utf8_lossy(key).into(),
            sum: u64::from_be_bytes(value[..8].try_into()?),
            padding: value.len() - 8,
        })
    }
}

/// Who was told what, in the order of telling.
type Told = Arc<Mutex<Vec<(String, Option<u64>)>>>;

struct News {
    about: String,
    sum: Option<u64>,
    told: Told,
    done: oneshot::Sender<Option<u64>>,
}

impl Answer for News {
    fn tell(self, stored: Result<(), &StateLogError>) {
        let sum = self.sum.filter(|_| stored.is_ok());
        self.told.lock().expect("no panic").push((self.about, sum));
        let _ = self.done.send(sum);
    }
}

#[derive(Default)]
struct Counter {
    key: Arc<str>,
    sum: u64,
    visible: u64,
    deadline: Option<Duration>,
    is_gone: bool,
    /// By so much its records are longer.
    padding: usize,
    /// What each step since the start adds, in the order in which they were taken.
    taken: Vec<u64>,
}

impl Counter {
    fn add(&mut self, more: u64, step: &mut Step<Counter>) {
        self.sum += more;
        step.change += more;
        step.records.push(Sum {
            key: Arc::clone(&self.key),
            sum: self.sum,
            padding: self.padding,
        });
    }
}

impl Machine for Counter {
    const KIND: &'static str = "counter";
    type Key = Arc<str>;
    type Name = str;
    type Record = Sum;
    type Answer = News;
    type Change = u64;
    type Mark = u64;

    fn on_appended(&mut self, change: u64) -> Option<u64> {
        Some(change)
    }

    fn on_durable(&mut self, mark: u64) {
        self.visible += mark;
    }

    fn withdraw(&mut self, change: u64, _: Moment, _: &StateLogError, answers: &mut Vec<News>) {
        self.sum -= change;
        answers.iter_mut().for_each(|answer| answer.sum = None);
    }

    fn wake_at(&self) -> Option<Duration> {
        self.deadline
    }

    fn record_bytes_on_time(&self) -> Vec<usize> {
        vec![RECORD_BYTES]
    }

    fn on_time(&mut self, now: Moment, step: &mut Step<Counter>) {
        if self
            .deadline
            .is_some_and(|deadline| deadline <= now.monotonic)
        {
            self.deadline = None;
            self.add(1000, step);
        }
    }

    fn is_gone(&self) -> bool {
        self.is_gone
    }
}

struct World {
    store: SimStore,
    clock: Arc<ManualClock>,
    runtime: Runtime<Counter>,
    told: Told,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl World {
    fn new(shape: Shape) -> World {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let store = SimStore::new(Arc::clone(&clock) as Arc<dyn Clock>, FILE_BYTES);
        World::over(store, clock, shape)
    }

    fn over(store: SimStore, clock: Arc<ManualClock>, shape: Shape) -> World {
        let (log, replayed) = store.open::<Sum>();
        let (runtime, task) = Runtime::new(shape, log, Arc::clone(&clock) as Arc<dyn Clock>);
        for sum in replayed {
            let Sum { key, sum, .. } = sum.expect("readable");
            let counter = Counter {
                key: Arc::clone(&key),
                sum,
                visible: sum,
                ..Counter::default()
            };
            runtime.cell_or(key, || Some(counter)).expect("made");
        }
        runtime.begin();
        let (stop, stopped) = watch::channel(false);
        World {
            store,
            clock,
            runtime,
            told: Told::default(),
            stop,
            task: tokio::spawn(task.run(stopped)),
        }
    }

    fn cut(self, shape: Shape) -> World {
        self.task.abort();
        World::over(self.store.cut(), self.clock, shape)
    }

    fn cell(&self, key: &str) -> Arc<Cell<Counter>> {
        let key: Arc<str> = key.into();
        let counter = Counter {
            key: Arc::clone(&key),
            ..Counter::default()
        };
        self.runtime.cell_or(key, || Some(counter)).expect("made")
    }

    /// Takes one step, as a task; it ends with what was told. Adding nothing stores nothing.
    fn add(&self, key: &str, more: u64) -> JoinHandle<Result<Option<u64>, Stopped>> {
        let about = format!("{key}+{more}");
        self.add_as(move |_| about, key, more)
    }

    /// The same under a name that is given when the step is taken.
    fn add_as(
        &self,
        about: impl FnOnce(&Counter) -> String + Send + 'static,
        key: &str,
        more: u64,
    ) -> JoinHandle<Result<Option<u64>, Stopped>> {
        let (runtime, cell, told) = (self.runtime.clone(), self.cell(key), self.told.clone());
        tokio::spawn(async move {
            let (done, answer) = oneshot::channel();
            let sizes = |counter: &Counter| match more {
                0 => Vec::new(),
                _ => vec![RECORD_BYTES + counter.padding],
            };
            let act = |counter: &mut Counter, _, step: &mut Step<Counter>| {
                if more > 0 {
                    counter.add(more, step);
                }
                let (about, sum) = (about(counter), Some(counter.sum));
                counter.taken.push(more);
                step.answers.push(News {
                    about,
                    sum,
                    told,
                    done,
                });
            };
            runtime.step(&cell, Purpose::State, sizes, act).await?;
            Ok(answer.await.expect("every step is told"))
        })
    }

    fn told(&self) -> Vec<(String, Option<u64>)> {
        self.told.lock().expect("no panic").clone()
    }

    /// Two keys of different shards.
    fn keys_of_two_shards(&self) -> (String, String) {
        let first = "a".to_owned();
        let other = (0..1000)
            .map(|number| format!("b{number}"))
            .find(|key| self.cell(key).shard != self.cell(&first).shard);
        (first, other.expect("one of a thousand lies elsewhere"))
    }
}

/// Lets every task do what it can without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

const ONE: Shape = Shape {
    shards: 1,
    places: 16,
};

fn told(about: &str, sum: u64) -> (String, Option<u64>) {
    (about.to_owned(), Some(sum))
}

#[tokio::test]
async fn answers_of_a_machine_leave_in_the_order_of_its_steps_and_none_before_its_sync() {
    let world = World::new(ONE);
    world.store.hold();
    let steps = [("a", 1), ("a", 0), ("b", 5), ("a", 2), ("b", 0)];
    let mut waits = Vec::new();
    for (key, more) in steps {
        waits.push(world.add(key, more));
        settle().await;
    }
    assert_eq!(world.told(), [], "also what rests on an earlier step waits");
    assert_eq!(world.cell("a").read(|counter| counter.visible), 0);
    world.store.sync();
    for wait in waits {
        wait.await.expect("no panic").expect("running");
    }
    let expected = [
        told("a+1", 1),
        told("a+0", 1),
        told("b+5", 5),
        told("a+2", 3),
        told("b+0", 5),
    ];
    assert_eq!(world.told(), expected);
    assert_eq!(world.cell("a").read(|counter| counter.visible), 3);
}

#[tokio::test]
async fn a_step_that_rests_on_nothing_is_told_at_once() {
    let world = World::new(ONE);
    world.store.hold();
    let waiting = world.add("a", 1);
    settle().await;
    world.add("b", 0).await.expect("no panic").expect("running");
    assert_eq!(world.told(), [told("b+0", 0)]);
    world.store.sync();
    waiting.await.expect("no panic").expect("running");
}

#[tokio::test]
async fn a_step_of_more_machines_than_a_shard_has_places_is_refused_and_holds_up_nobody() {
    let world = World::new(ONE);
    for (count, is_taken) in [(ONE.places + 1, false), (ONE.places, true)] {
        let cells: Vec<_> = (0..count)
            .map(|n| world.cell(&format!("k{n:02}")))
            .collect();
        let mut act = |_, _: &mut Counter, _, _: &mut Step<Counter>| Ok::<(), ()>(());
        let sizes = |_, _: &Counter| Vec::new();
        let storage = world.store.storage();
        let step = world
            .runtime
            .step_together(storage, &cells, Vec::new(), sizes, &mut act);
        let done = tokio::time::timeout(Duration::from_secs(60), step).await;
        match done.expect("it waits for no place that nobody gives back") {
            Ok(_) => assert!(is_taken, "{count}"),
            Err(why) => assert!(!is_taken && matches!(why, NotTogether::TooMuch), "{why:?}"),
        }
    }
}

#[tokio::test]
async fn a_refused_append_is_withdrawn_before_anybody_sees_it() {
    let world = World::new(ONE);
    world.add("a", 1).await.expect("no panic").expect("running");
    world.store.set_full(true);
    let refused = world.add("a", 2).await.expect("no panic");
    assert_eq!(refused, Ok(None));
    assert_eq!(
        world
            .cell("a")
            .read(|counter| (counter.sum, counter.visible)),
        (1, 1)
    );
    world.store.set_full(false);
    let taken = world.add("a", 3).await.expect("no panic");
    assert_eq!(taken, Ok(Some(4)), "as if it had never been");
    let world = world.cut(ONE);
    assert_eq!(world.cell("a").read(|counter| counter.sum), 4);
}

#[tokio::test]
async fn a_refusal_does_not_overtake_what_was_appended_before_it() {
    let world = World::new(ONE);
    world.store.hold();
    let first = world.add("a", 1);
    settle().await;
    world.store.set_full(true);
    let refused = world.add("a", 2);
    settle().await;
    assert_eq!(world.told(), []);
    world.store.set_full(false);
    world.store.sync();
    assert_eq!(first.await.expect("no panic"), Ok(Some(1)));
    assert_eq!(refused.await.expect("no panic"), Ok(None));
    assert_eq!(world.told(), [told("a+1", 1), ("a+2".to_owned(), None)]);
}

#[tokio::test]
async fn a_full_queue_holds_back_the_machines_of_its_shard_and_no_others() {
    let shape = Shape {
        shards: 2,
        places: 2,
    };
    let world = World::new(shape);
    let (slow, other) = world.keys_of_two_shards();
    world.store.hold();
    let mut waits = Vec::new();
    for more in [1, 2, 4, 8] {
        waits.push(world.add(&slow, more));
        settle().await;
    }
    // One delivery waits for its sync, two wait behind it, and the last step has not been taken.
    let sum_of = |key: &str| world.cell(key).read(|counter| counter.sum);
    assert_eq!(sum_of(&slow), 7);
    let elsewhere = world.add(&other, 5);
    settle().await;
    assert_eq!(sum_of(&other), 5, "another shard's step takes effect");
    world.store.sync();
    settle().await;
    world.store.sync();
    for wait in waits {
        wait.await.expect("no panic").expect("running");
    }
    elsewhere.await.expect("no panic").expect("running");
    assert_eq!((sum_of(&slow), sum_of(&other)), (15, 5));
}

#[tokio::test]
async fn a_slow_shard_does_not_delay_another_ones_time() {
    let shape = Shape {
        shards: 2,
        places: 1,
    };
    let world = World::new(shape);
    let (slow, other) = world.keys_of_two_shards();
    world.store.hold();
    for more in [1, 2, 4] {
        drop(world.add(&slow, more));
        settle().await;
    }
    for key in [&slow, &other] {
        let at = Some(world.runtime.now().monotonic);
        world
            .runtime
            .touch(&world.cell(key), |counter, _| counter.deadline = at);
    }
    settle().await;
    let sum_of = |key: &str| world.cell(key).read(|counter| counter.sum);
    assert_eq!(sum_of(&other), 1000);
    assert!(sum_of(&slow) < 1000, "it waits for a place");
    for _ in 0..4 {
        world.store.sync();
        settle().await;
    }
    assert_eq!(sum_of(&slow), 1007);
}

#[tokio::test]
async fn a_deadline_is_applied_once_and_stored() {
    let world = World::new(ONE);
    let cell = world.cell("a");
    let at = world.runtime.now().monotonic + Duration::from_secs(5);
    world
        .runtime
        .touch(&cell, |counter, _| counter.deadline = Some(at));
    world.runtime.run_due().await.expect("running");
    assert_eq!(cell.read(|counter| counter.sum), 0, "not yet");
    world.clock.advance(Duration::from_secs(5));
    world.runtime.run_due().await.expect("running");
    world.runtime.run_due().await.expect("running");
    assert_eq!(cell.read(|counter| counter.sum), 1000);
    settle().await;
    let world = world.cut(ONE);
    assert_eq!(world.cell("a").read(|counter| counter.sum), 1000);
}

#[tokio::test]
async fn a_power_cut_takes_back_only_what_nobody_was_told() {
    let world = World::new(ONE);
    world.add("a", 1).await.expect("no panic").expect("running");
    world.store.hold();
    drop(world.add("a", 2));
    settle().await;
    assert_eq!(world.cell("a").read(|counter| counter.sum), 3);
    let world = world.cut(ONE);
    assert_eq!(world.cell("a").read(|counter| counter.sum), 1);
}

#[tokio::test]
async fn a_stop_tells_what_is_appended_and_takes_nothing_new() {
    let world = World::new(ONE);
    world.store.hold();
    let appended = world.add("a", 1);
    settle().await;
    world.stop.send_replace(true);
    settle().await;
    world.store.sync();
    assert_eq!(appended.await.expect("no panic"), Ok(Some(1)));
    assert_eq!(world.add("a", 2).await.expect("no panic"), Err(Stopped));
    world.task.await.expect("the task ends by itself");
}

#[tokio::test]
async fn a_machine_that_has_ended_frees_its_key() {
    let world = World::new(ONE);
    world.add("a", 1).await.expect("no panic").expect("running");
    let cell = world.cell("a");
    world.runtime.forget_if_gone(&cell);
    assert!(Arc::ptr_eq(&cell, &world.cell("a")), "it has not ended");
    world
        .runtime
        .touch(&cell, |counter, _| counter.is_gone = true);
    world.runtime.forget_if_gone(&cell);
    let fresh = world.cell("a");
    assert!(!Arc::ptr_eq(&cell, &fresh));
    world.runtime.forget_if_gone(&cell);
    assert!(Arc::ptr_eq(&fresh, &world.cell("a")), "not the new one");
}

#[tokio::test]
async fn a_machine_that_has_grown_meanwhile_is_admitted_at_its_new_size() {
    let shape = Shape {
        shards: 1,
        places: 1,
    };
    let world = World::new(shape);
    world.store.hold();
    let mut waits = Vec::new();
    for more in [1, 2, 4] {
        waits.push(world.add("a", more));
        settle().await;
    }
    let cell = world.cell("a");
    assert_eq!(cell.read(|counter| counter.sum), 3, "the last one waits");
    world
        .runtime
        .touch(&cell, |counter, _| counter.padding = 10_000);
    for _ in 0..3 {
        world.store.sync();
        settle().await;
    }
    let mut sums = Vec::new();
    for wait in waits {
        sums.push(wait.await.expect("no panic").expect("running"));
    }
    assert_eq!(sums, [Some(1), Some(3), Some(7)]);
}

#[tokio::test]
async fn a_record_that_the_log_never_takes_is_withdrawn_and_stops_nothing() {
    let world = World::new(ONE);
    let cell = world.cell("a");
    let longest = world.runtime.log().record_bytes_max();
    world
        .runtime
        .touch(&cell, |counter, _| counter.padding = longest);
    let refused = world.add("a", 1).await.expect("no panic");
    assert_eq!(refused, Ok(None));
    world.runtime.touch(&cell, |counter, _| counter.padding = 0);
    let taken = world.add("a", 2).await.expect("no panic");
    assert_eq!(taken, Ok(Some(2)));
}

/// A small generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// Random steps, held syncs, full disks and power cuts.
async fn random_world(seed: u64) {
    let mut random = Random(seed);
    let shape = Shape {
        shards: 1 + random.below(3) as usize,
        places: 1 + random.below(4) as usize,
    };
    let mut world = World::new(shape);
    // What each counter held at the last start.
    let mut before = [0; KEYS.len()];
    let mut steps = Vec::new();
    for _ in 0..80 {
        match random.below(20) {
            0 => world.store.hold(),
            1 => world.store.let_go(),
            2 | 3 => world.store.sync(),
            4 => world.store.set_full(true),
            5 | 6 => world.store.set_full(false),
            7 => {
                world.store.set_full(false);
                let told = world.told();
                let taken = KEYS.map(|key| world.cell(key).read(|counter| counter.taken.clone()));
                steps.clear();
                world = world.cut(shape);
                for (index, key) in KEYS.iter().enumerate() {
                    let least = check_told(seed, key, &told, &taken[index], before[index]);
                    before[index] = world.cell(key).read(|counter| counter.sum);
                    let left = before[index];
                    assert!(
                        left >= least,
                        "seed {seed}: {key} was told {least}, {left} is left"
                    );
                }
            }
            8..12 => settle().await,
            _ => {
                let index = random.below(KEYS.len() as u64) as usize;
                let (key, more) = (KEYS[index], random.below(3));
                let about = move |counter: &Counter| format!("{key}#{}", counter.taken.len());
                steps.push(world.add_as(about, key, more));
            }
        }
    }
    world.store.set_full(false);
    world.store.let_go();
    for step in steps {
        step.await.expect("no panic").expect("running");
    }
    let told = world.told();
    for (index, key) in KEYS.iter().enumerate() {
        let (taken, sum) = world
            .cell(key)
            .read(|counter| (counter.taken.clone(), counter.sum));
        let expected = check_told(seed, key, &told, &taken, before[index]);
        assert_eq!(sum, expected, "seed {seed}: a refused step left something");
    }
}

/// Of one machine: answers came in the order of its steps, each once, with sums that only the accepted steps explain. Gives the
/// last one.
fn check_told(
    seed: u64,
    key: &str,
    told: &[(String, Option<u64>)],
    taken: &[u64],
    before: u64,
) -> u64 {
    let prefix = format!("{key}#");
    let told = told
        .iter()
        .filter_map(|(about, told)| Some((about.strip_prefix(&prefix)?, told)));
    let mut sum = before;
    for (number, (about, told)) in told.enumerate() {
        assert_eq!(
            about,
            number.to_string(),
            "seed {seed}: {key} was told out of order"
        );
        if let Some(told) = told {
            sum += taken[number];
            assert_eq!(*told, sum, "seed {seed}: {key}");
        }
    }
    sum
}

#[tokio::test]
async fn random_steps_refusals_and_power_cuts_break_no_promise() {
    for seed in 0..100 {
        random_world(seed).await;
    }
}
