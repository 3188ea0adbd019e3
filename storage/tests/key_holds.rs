//! Holds by key, and holds that come while a rewrite is under way: retention, compaction and thinning keep what is held.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit, split};
use model::topic_config::{Defaults, TopicConfig};
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::cleanup::Policy;
use storage::cleanup::erase::{EraseError, EraseWatch, Found, Known, Wanted, WatchFailed};
use storage::cleanup::holds::{Held, HoldWish};
use storage::cleanup::run::{Progress, Report, RunOptions};
use storage::io::SimDisk;
use storage::rewrite::Rewritten;
use storage::{AppendBatch, Disk, Env, LogSettings, ManualClock, Storage, StorageConfig};

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([9; 16]), PartitionId::new(0))
}

struct House {
    storage: Storage,
    clock: Arc<ManualClock>,
    wishes: Arc<Mutex<Vec<HoldWish>>>,
    /// The wishes count from this question on.
    from_question: Arc<AtomicUsize>,
}

impl House {
    fn new(pairs: &[(&str, &str)]) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 512 << 10;
        config.wal_files_min = 2;
        let env = Env::manual(Arc::new(disk), clock.clone());
        let (storage, _) = Storage::open(config, env).unwrap();
        let named = pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        let overrides: BTreeMap<String, String> = named.collect();
        let config = TopicConfig::from_overrides(&overrides, &Defaults::default()).unwrap();
        storage.create_log(log_id(), LogSettings::from(&config));
        let wishes = Arc::new(Mutex::new(Vec::new()));
        let from_question = Arc::new(AtomicUsize::new(0));
        let (known, left) = (Arc::clone(&wishes), Arc::clone(&from_question));
        storage.set_holds(Arc::new(move |_| {
            let waits = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
            match waits {
                Ok(_) => Vec::new(),
                Err(_) => known.lock().unwrap().clone(),
            }
        }));
        House {
            storage,
            clock,
            wishes,
            from_question,
        }
    }

    /// A segment with these records: key and value.
    fn segment(&self, records: &[(&str, &str)]) {
        let mut builder = BatchBuilder::new(Codec::None);
        for (key, value) in records {
            let now = Timestamp::from_millis(1_000_000);
            builder
                .push(now, Some(key.as_bytes()), Some(value.as_bytes()), &[])
                .unwrap();
        }
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        while self.storage.prepare_once().unwrap() {}
        let admission = self.storage.try_admit(batch.bytes().len()).unwrap();
        let log = self.storage.log(log_id()).unwrap();
        let appended = log
            .append(vec![AppendBatch::from(batch)], admission)
            .unwrap();
        assert!(self.storage.commit_once());
        appended.durable.wait().unwrap();
        // Seals it.
        self.run(Policy::Retention);
    }

    fn run(&self, policy: Policy) -> Report {
        let options = RunOptions {
            now: true,
            ..RunOptions::default()
        };
        self.storage
            .run_cleanup(log_id(), policy, options, &Progress::default())
            .unwrap()
    }

    fn hold(&self, held: Held) {
        let name = "hold 1 (case 4711)".into();
        self.wishes.lock().unwrap().push(HoldWish {
            name,
            held,
            is_absolute: true,
        });
        self.storage.holds_changed(&[log_id()]);
    }

    fn hold_key(&self, key: &str) {
        let appended = Timestamp::from_millis(i64::MIN)..Timestamp::from_millis(i64::MAX);
        self.hold(Held::Key {
            key: key.as_bytes().into(),
            appended,
        });
    }

    fn pass(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    /// All records: `key=value`.
    fn read(&self) -> String {
        let log = self.storage.log(log_id()).unwrap();
        let bounds = log.bounds();
        let (mut at, mut found) = (bounds.start, Vec::new());
        while at < bounds.durable_end {
            let chunk = log.read(at, 1 << 20, true).unwrap();
            for batch in split(chunk.to_bytes()) {
                for record in batch.unwrap().records(DecompressLimit::default()).unwrap() {
                    let record = record.unwrap();
                    let text = |bytes: &Option<bytes::Bytes>| {
                        String::from_utf8(bytes.clone().unwrap().to_vec()).unwrap()
                    };
                    found.push(format!("{}={}", text(&record.key), text(&record.value)));
                }
            }
            at = chunk.end_offset;
        }
        found.join(" ")
    }
}

#[test]
fn retention_stops_at_the_first_segment_with_a_held_key() {
    let house = House::new(&[("retention.ms", "1000")]);
    for records in [[("a", "1")], [("b", "2")], [("k", "3")], [("a", "4")]] {
        house.segment(&records);
    }
    house.hold_key("k");
    house.pass(5_000);
    assert_eq!(house.run(Policy::Retention).segments_removed, 2);
    assert_eq!(house.read(), "k=3 a=4");
    let log = house.storage.log(log_id()).unwrap();
    let all = log.bounds().start..log.bounds().durable_end;
    let held = house
        .storage
        .hold_on(log_id(), &all)
        .expect("the key is held");
    assert_eq!(held.key.as_deref(), Some(&b"k"[..]));
    house.wishes.lock().unwrap().clear();
    assert_eq!(house.run(Policy::Retention).segments_removed, 2);
    assert_eq!(house.read(), "");
}

#[test]
fn a_segment_that_was_not_looked_into_counts_as_one_with_the_key() {
    let house = House::new(&[("retention.ms", "1000")]);
    house.segment(&[("a", "1")]);
    house.hold_key("k");
    house.pass(5_000);
    house.storage.clean_once();
    assert_eq!(house.read(), "a=1");
    // The cleaner's thread looks.
    house.storage.compact_once();
    house.storage.clean_once();
    house.storage.commit_once();
    assert_eq!(house.read(), "");
}

#[test]
fn compaction_leaves_the_segments_from_a_held_key_on() {
    let house = House::new(&[("cleanup.policy", "compact")]);
    for records in [
        [("a", "1"), ("b", "1")],
        [("a", "2"), ("k", "1")],
        [("k", "2"), ("a", "3")],
    ] {
        house.segment(&records);
    }
    house.hold_key("k");
    house.run(Policy::Compaction);
    assert_eq!(
        house.read(),
        "a=1 b=1 a=2 k=1 k=2 a=3",
        "only one segment may be looked at"
    );
    house.wishes.lock().unwrap().clear();
    house.run(Policy::Compaction);
    assert_eq!(house.read(), "b=1 k=2 a=3");
}

#[test]
fn thinning_keeps_the_records_of_a_held_key_and_thins_the_others() {
    let house = House::new(&[("cleanup.policy", "thin"), ("thin.tiers", "0ms:1s:last")]);
    house.segment(&[
        ("a", "1"),
        ("k", "1"),
        ("a", "2"),
        ("k", "2"),
        ("a", "3"),
        ("k", "3"),
    ]);
    house.hold_key("k");
    house.pass(5_000);
    assert_eq!(house.run(Policy::Thin).records_removed, 2);
    assert_eq!(house.read(), "k=1 k=2 a=3 k=3");
}

/// However many questions about holds were answered with none before: either nothing goes, or it went before the hold.
#[test]
fn a_hold_that_comes_while_a_rewrite_is_under_way_counts_at_once() {
    for (pairs, policy, gone) in [
        (
            &[("cleanup.policy", "compact")][..],
            Policy::Compaction,
            "a=2",
        ),
        (
            &[("cleanup.policy", "thin"), ("thin.tiers", "0ms:1s:last")],
            Policy::Thin,
            "a=2",
        ),
    ] {
        let mut kept = 0;
        for questions in 0.. {
            assert!(questions < 100, "a run asks some times");
            let house = House::new(pairs);
            house.segment(&[("a", "1"), ("a", "2")]);
            house.pass(5_000);
            let ever = Timestamp::from_millis(i64::MIN)..Timestamp::from_millis(i64::MAX);
            house.hold(Held::Appended(ever));
            house.from_question.store(questions, Ordering::Relaxed);
            let report = house.run(policy);
            assert!(report.set_aside.is_empty());
            if house.read() == "a=1 a=2" {
                assert_eq!(report.records_removed, 0);
                kept += 1;
                continue;
            }
            assert_eq!(house.read(), gone);
            // What asked last was the switch.
            assert_eq!(house.from_question.load(Ordering::Relaxed), 0, "{policy:?}");
            break;
        }
        assert!(kept >= 2, "{policy:?}: at the plan and at the switch");
    }
}

#[test]
fn a_hold_on_a_key_forbids_the_erasure_of_that_key_alone() {
    let house = House::new(&[]);
    house.segment(&[("a", "1"), ("b", "2")]);
    house.hold_key("a");
    let hold_on = |key: &'static str| {
        let wanted = Wanted::new([Bytes::from_static(key.as_bytes())], Offset::new(2));
        let (mut known, progress) = (Known::new(), Progress::default());
        let storage = &house.storage;
        let found = storage.look_for_keys(log_id(), &wanted, &mut known, &progress);
        let found = found.unwrap();
        assert_eq!(found.records, 1);
        found.hold.is_some()
    };
    assert!(hold_on("a"));
    assert!(!hold_on("b"));
    let erase = |key: &'static str| {
        let wanted = Wanted::new([Bytes::from_static(key.as_bytes())], Offset::new(2));
        let (mut known, progress) = (Known::new(), Progress::default());
        let storage = &house.storage;
        storage.erase(log_id(), &wanted, &mut known, &progress, &mut Unwatched)
    };
    assert!(matches!(erase("a"), Err(EraseError::Held(_))));
    assert_eq!(erase("b").unwrap().records, 1);
    assert_eq!(house.read(), "a=1");
}

/// Wants to know nothing.
struct Unwatched;

impl EraseWatch for Unwatched {
    fn begin(&mut self, _: &Found) -> Result<(), WatchFailed> {
        Ok(())
    }

    fn end(&mut self, _: &Found, _: Option<&Rewritten>) {}
}
