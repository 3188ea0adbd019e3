//! The producer's ledger under every order of threads: whoever is told that all batches have an outcome is told of each
//! failure. The ledger's own source is compiled here against loom's lock.

use loom::thread;
use model::{PartitionId, TopicName, TopicPartition};
use std::sync::Arc;

/// What the ledger takes from its parent module.
#[path = "../../../src/producer"]
mod explored {
    pub type Acked = u32;
    pub type Error = String;

    pub mod sync {
        pub use loom::sync::{Mutex, MutexGuard};
    }

    #[allow(dead_code, reason = "some parts are for the producer only")]
    #[path = "ledger.rs"]
    pub mod ledger;
}

use explored::ledger::{Fate, Ledger, Outcome};

/// Runs a scenario in every order with up to three switches of threads that nothing forces.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(scenario);
}

fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::parse("t").unwrap(), PartitionId::new(0))
}

/// What a record sees in the end.
async fn outcome(fate: &Arc<Fate>, index: u32) -> Result<u32, String> {
    match fate.wait().await {
        Outcome::Whole(outcome) => outcome,
        Outcome::Split { at, parts } => {
            let part = &parts[usize::from(index >= at)];
            match part.outcome() {
                Some(Outcome::Whole(outcome)) => outcome,
                other => panic!("a part that is {other:?}"),
            }
        }
    }
}

#[test]
fn a_flush_that_sees_a_batch_decided_sees_its_failure() {
    explore(|| {
        let ledger = Arc::new(Ledger::default());
        let handle = ledger.watch();
        let (good, bad) = (ledger.open(partition()), ledger.open(partition()));
        let sender = {
            let (ledger, good, bad) = (ledger.clone(), good.clone(), bad.clone());
            thread::spawn(move || {
                ledger.decide(&bad, Err("refused".into()));
                ledger.decide(&good, Ok(7));
            })
        };
        assert_eq!(
            loom::future::block_on(ledger.flush(handle)),
            Err("refused".into())
        );
        assert!(good.outcome().is_some() && bad.outcome().is_some());
        assert_eq!(loom::future::block_on(ledger.flush(handle)), Ok(()));
        sender.join().unwrap();
    });
}

#[test]
fn two_flushes_at_once_are_both_told() {
    explore(|| {
        let ledger = Arc::new(Ledger::default());
        let (one, other) = (ledger.watch(), ledger.watch());
        let fate = ledger.open(partition());
        let sender = {
            let (ledger, fate) = (ledger.clone(), fate.clone());
            thread::spawn(move || ledger.decide(&fate, Err("refused".into())))
        };
        let flush = {
            let ledger = ledger.clone();
            thread::spawn(move || loom::future::block_on(ledger.flush(other)))
        };
        assert_eq!(
            loom::future::block_on(ledger.flush(one)),
            Err("refused".into())
        );
        assert_eq!(flush.join().unwrap(), Err("refused".into()));
        assert!(sender.join().unwrap());
    });
}

#[test]
fn a_flush_waits_for_both_parts_of_a_batch_that_is_split() {
    explore(|| {
        let ledger = Arc::new(Ledger::default());
        let handle = ledger.watch();
        let fate = ledger.open(partition());
        let sender = {
            let (ledger, fate) = (ledger.clone(), fate.clone());
            thread::spawn(move || {
                let [first, second] = ledger.split(&fate, 2).unwrap();
                ledger.decide(&first, Ok(1));
                ledger.decide(&second, Err("refused".into()));
            })
        };
        assert_eq!(
            loom::future::block_on(ledger.flush(handle)),
            Err("refused".into())
        );
        assert_eq!(loom::future::block_on(outcome(&fate, 1)), Ok(1));
        assert_eq!(
            loom::future::block_on(outcome(&fate, 2)),
            Err("refused".into())
        );
        sender.join().unwrap();
    });
}

#[test]
fn a_failure_after_a_flush_began_is_kept_for_the_next() {
    explore(|| {
        let ledger = Arc::new(Ledger::default());
        let handle = ledger.watch();
        let first = ledger.open(partition());
        let flush = {
            let ledger = ledger.clone();
            thread::spawn(move || loom::future::block_on(ledger.flush(handle)))
        };
        let second = ledger.open(partition());
        ledger.decide(&second, Err("refused".into()));
        ledger.decide(&first, Ok(1));
        // The flush may have begun before or after the second batch: it is told of it, or the next one is.
        let told = [
            flush.join().unwrap(),
            loom::future::block_on(ledger.flush(handle)),
        ];
        assert_eq!(told.iter().filter(|result| result.is_err()).count(), 1);
    });
}

#[test]
fn the_first_decision_stands() {
    explore(|| {
        let ledger = Arc::new(Ledger::default());
        let handle = ledger.watch();
        let fate = ledger.open(partition());
        let expiry = {
            let (ledger, fate) = (ledger.clone(), fate.clone());
            thread::spawn(move || ledger.decide(&fate, Err("too late".into())))
        };
        let is_acked = ledger.decide(&fate, Ok(3));
        assert_ne!(expiry.join().unwrap(), is_acked);
        let flushed = loom::future::block_on(ledger.flush(handle));
        assert_eq!(flushed.is_ok(), is_acked);
        assert_eq!(loom::future::block_on(outcome(&fate, 0)).is_ok(), is_acked);
    });
}

/// The order that lost failures: a batch is closed under one lock, and its failure recorded under another. Shows that the
/// exploration above would find it.
#[test]
#[should_panic(expected = "a failure was lost")]
fn the_exploration_finds_a_failure_that_is_recorded_after_the_outcome() {
    explore(|| {
        let open = Arc::new(loom::sync::Mutex::new(true));
        let failed = Arc::new(loom::sync::Mutex::new(None));
        let sender = {
            let (open, failed) = (open.clone(), failed.clone());
            thread::spawn(move || {
                *open.lock().unwrap() = false;
                *failed.lock().unwrap() = Some("refused");
            })
        };
        let is_closed = !*open.lock().unwrap();
        let told = failed.lock().unwrap().take();
        sender.join().unwrap();
        assert!(!is_closed || told.is_some(), "a failure was lost");
    });
}
