//! The power is cut during every operation that changes the disk, one after the other, of a scripted life of a store: logs
//! are created, appended to, trimmed and deleted, the disk fills up and has space again, and the store is restarted and killed.
//! After each cut a judge looks at what is left: nothing acknowledged is lost, nothing is invented, and what a reader saw stays.
//!
//! `SEEDS=1000 cargo test --release -p alluvium-storage --test power_cut` runs longer; `FIRST_SEED` moves the start.
//! A seed that fails is printed, with the operation during which the power went.

mod random;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, BatchHeader};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId};
use random::Random;
use storage::io::SimDisk;
use storage::rewrite::{Cancelled, KeepError, Keeper, Pace, RewriteError, Verdict};
use storage::segment::SegmentId;
use storage::{
    AppendAllError, AppendError, DeleteRecordsError, Durable, Env, Log, LogAppend, LogSettings,
    ManualClock, Purpose, Storage, StorageConfig, StorageFailed,
};

/// Steps of one script.
const STEPS: usize = 40;
/// Seeds that a plain test run takes.
const SEEDS_DEFAULT: u64 = 2;

#[test]
fn a_power_cut_during_any_operation_loses_nothing_acknowledged_and_invents_nothing() {
    let seeds = setting("SEEDS", SEEDS_DEFAULT);
    let first = setting("FIRST_SEED", 1);
    let (mut cuts, mut records) = (0, 0);
    for seed in first..first + seeds {
        let (more_cuts, more_records) = cut_everywhere(seed);
        cuts += more_cuts;
        records += more_records;
    }
    println!(
        "power_cut: {cuts} cuts under seeds {first}..{}, {records} acknowledged records found again, none lost",
        first + seeds
    );
    assert!(
        cuts > 40 * seeds && records > 0,
        "the exam must exercise something"
    );
}

/// Seed 295927: on a full disk a checkpoint lies before the last frames of a log that was deleted, and does not name it.
#[test]
fn the_last_frames_of_a_deleted_log_are_no_damage() {
    cut_everywhere(295_927);
}

/// Between the other steps segments are rewritten: what is left is what the rewrite was to leave, and nothing comes back.
#[test]
fn a_power_cut_beside_rewrites_brings_nothing_back_that_was_dropped() {
    let seeds = setting("SEEDS", SEEDS_DEFAULT);
    let first = setting("FIRST_SEED", 1);
    let rewritten: u64 = { first..first + seeds }
        .map(cut_everywhere_beside_rewrites)
        .sum();
    assert!(rewritten > 0, "something must be rewritten");
}

/// Seed 23568: a round without logs, on a disk that has no space for its checkpoint, was taken for one that had settled, and the
/// settler went on for ever.
#[test]
fn a_checkpoint_for_which_there_is_no_space_settles_nothing() {
    cut_everywhere_beside_rewrites(23_568);
}

/// Seed 800133: on a full disk the only log on the settler's list was one that was deleted and removed, there was no space for the
/// round's checkpoint, and the settler went on for ever to settle a file of the write-ahead log of which nobody had anything.
#[test]
fn a_round_of_a_full_disk_that_finds_nothing_to_settle_ends() {
    cut_everywhere_beside_rewrites(800_133);
}

/// As [`cut_everywhere`], with rewrites. Gives how many there were without a cut.
fn cut_everywhere_beside_rewrites(seed: u64) -> u64 {
    let whole = Life::with_rewrites(seed);
    let begin = whole.disk.operations();
    let (mut whole, outcome) = whole.live();
    outcome.expect("without a cut nothing fails");
    let end = whole.disk.operations();
    whole.judge_after_cut(seed);
    for cut in begin + 1..=end {
        let life = Life::with_rewrites(seed);
        life.disk.cut_power_during(cut);
        let (mut life, _) = life.live();
        life.cut = cut;
        life.judge_after_cut(seed.wrapping_mul(1_000_003).wrapping_add(cut));
    }
    whole.rewritten
}

/// Cuts the power during each operation of a script, and once behind it. Gives how often, and the acknowledged records that
/// were found again after the cuts within the script.
fn cut_everywhere(seed: u64) -> (u64, u64) {
    let whole = Life::new(seed);
    let begin = whole.disk.operations();
    let (mut whole, outcome) = whole.live();
    outcome.expect("without a cut nothing fails");
    let end = whole.disk.operations();
    whole.judge_after_cut(seed);
    let mut records = 0;
    for cut in begin + 1..=end {
        let life = Life::new(seed);
        life.disk.cut_power_during(cut);
        let (mut life, _) = life.live();
        life.cut = cut;
        records += life.judge_after_cut(seed.wrapping_mul(1_000_003).wrapping_add(cut));
    }
    (end - begin, records)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What the judge knows of one log.
#[derive(Default)]
struct Ledger {
    /// Every payload that was sent for an offset. After a cut an offset that nobody was promised may be given anew.
    sent: HashMap<u64, Vec<Bytes>>,
    /// Acknowledged payloads.
    acknowledged: BTreeMap<u64, Bytes>,
    /// Payloads that a reader was shown.
    seen: BTreeMap<u64, Bytes>,
    /// Offsets that a rewrite was to drop, and those that one has dropped.
    dropped_maybe: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    /// The start that was acknowledged, and the highest that was asked for.
    start: u64,
    start_asked: u64,
}

/// Appended, and not decided yet.
struct Waiting {
    /// What each log was promised: several, if it was appended to them at once.
    promises: Vec<(LogId, Promise)>,
    durable: Durable,
}

enum Promise {
    Records(BTreeMap<u64, Bytes>),
    Start(u64),
}

/// What was appended to several logs at once: a record of each.
type Group = Vec<(LogId, u64, Bytes)>;

/// An idempotent producer. It is replaced after a crash, as one that does not know what became of its last batches.
#[derive(Default)]
struct Producer {
    id: i64,
    sequence: i32,
    /// Its last acknowledged batch and where it went.
    acknowledged: Option<(Batch, u64)>,
    /// What it sent after that.
    later: Vec<(Batch, u64)>,
}

/// How many batches back a retry is recognised.
const WINDOW: usize = 5;

/// A store, its disk, and the judge's book.
struct Life {
    seed: u64,
    cut: u64,
    random: Random,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    storage: Option<Storage>,
    logs: BTreeMap<LogId, Ledger>,
    deleted: BTreeSet<LogId>,
    waiting: Vec<Waiting>,
    /// All appends over several logs.
    groups: Vec<Group>,
    /// The idempotent producer of each log.
    producers: HashMap<LogId, Producer>,
    producer_ids: i64,
    payloads: u64,
    /// Where segments are rewritten between the other steps: decides which.
    rewrites: Option<Random>,
    rewritten: u64,
}

/// Drops one batch of three, by their offsets, and notes what it drops.
#[derive(Default)]
struct DropSome(BTreeSet<u64>);

impl Keeper for DropSome {
    fn judge(&mut self, header: &BatchHeader, _: &Bytes) -> Result<Verdict, KeepError> {
        let base = header.base().get();
        if !base.is_multiple_of(3) {
            return Ok(Verdict::Keep);
        }
        self.0.extend(base..header.next_offset().get());
        Ok(Verdict::Drop)
    }
}

struct AtOnce;

impl Pace for AtOnce {
    fn spend(&self, _: u64) -> Result<(), Cancelled> {
        Ok(())
    }
}

/// The script ended early, because the disk failed.
#[derive(Debug)]
#[allow(dead_code)]
struct Stopped(String);

impl Life {
    fn new(seed: u64) -> Life {
        let disk = SimDisk::new(seed);
        use storage::Disk;
        disk.create_dir_all(Path::new("/data"))
            .expect("an empty disk");
        disk.sync_dir(Path::new("/")).expect("an empty disk");
        Life {
            seed,
            cut: 0,
            random: Random(seed),
            disk,
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000))),
            storage: None,
            logs: BTreeMap::new(),
            deleted: BTreeSet::new(),
            waiting: Vec::new(),
            groups: Vec::new(),
            producers: HashMap::new(),
            producer_ids: 0,
            payloads: 0,
            rewrites: None,
            rewritten: 0,
        }
    }

    fn with_rewrites(seed: u64) -> Life {
        Life {
            rewrites: Some(Random(!seed)),
            ..Life::new(seed)
        }
    }

    /// Where they are rewritten there are many.
    fn segment_bytes(&self) -> u64 {
        if self.rewrites.is_some() {
            2 << 10
        } else {
            24 << 10
        }
    }

    fn live(mut self) -> (Life, Result<(), Stopped>) {
        let outcome = self.script();
        (self, outcome)
    }

    fn script(&mut self) -> Result<(), Stopped> {
        self.open()?;
        for _ in 0..3 {
            self.create_log();
        }
        for _ in 0..STEPS {
            self.clock
                .advance(Duration::from_millis(self.random.below(5_000)));
            match self.random.below(100) {
                0..=34 => self.append()?,
                35..=44 => self.append_group()?,
                45..=69 => self.commit()?,
                70..=73 => self.read_all()?,
                74..=75 => self.retry()?,
                76..=81 => self.delete_records()?,
                82..=84 => self.create_log(),
                85 => self.disk.fill(),
                86 => self.disk.set_capacity(u64::MAX),
                87..=88 => self.delete_log(),
                89..=92 => self.settle()?,
                93 => self.prepare()?,
                94 => {
                    // The store has been idle: an append that is not in a frame yet is not touched by it.
                    self.storage().confirm_once();
                }
                95..=97 => self.restart()?,
                _ => self.kill()?,
            }
            self.rewrite_some()?;
        }
        self.commit()?;
        self.read_all()?;
        self.close();
        Ok(())
    }

    /// Now and then rewrites some neighbours.
    fn rewrite_some(&mut self) -> Result<(), Stopped> {
        let Some(mut random) = self.rewrites.clone() else {
            return Ok(());
        };
        let (is_due, at, from, count) = (
            random.below(3) == 0,
            random.next() as usize,
            random.next() as usize,
            1 + random.below(3) as usize,
        );
        self.rewrites = Some(random);
        if !is_due {
            return Ok(());
        }
        self.settle()?;
        let id = *self
            .logs
            .keys()
            .nth(at % self.logs.len())
            .expect("it is below the count");
        let sealed = self.storage().sealed_segments(id);
        if sealed.is_empty() {
            return Ok(());
        }
        let some = sealed.iter().skip(from % sealed.len()).take(count);
        let segments: Vec<SegmentId> = some.map(|entry| entry.id).collect();
        let mut keeper = DropSome::default();
        let rewritten = self
            .storage()
            .rewrite(id, &segments, None, &AtOnce, &mut keeper);
        let name = self.name();
        let ledger = self.logs.get_mut(&id).expect("a log that lives");
        ledger.dropped_maybe.extend(&keeper.0);
        match rewritten {
            Ok(_) => {
                ledger.dropped.extend(keeper.0);
                self.rewritten += 1;
            }
            Err(RewriteError::NoSpace { .. } | RewriteError::NoLongerLive { .. }) => {}
            Err(_) if self.disk.is_off() => {}
            Err(error) => panic!("{name}: {error}"),
        }
        self.alive()
    }

    fn open(&mut self) -> Result<(), Stopped> {
        let mut config = StorageConfig::new(PathBuf::from("/data"));
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 40;
        config.frame_bytes_max = 32 << 10;
        let clock: Arc<dyn storage::Clock> = self.clock.clone();
        let env = Env::manual(Arc::new(self.disk.clone()), clock);
        let (storage, report) =
            Storage::open(config, env).map_err(|error| Stopped(error.to_string()))?;
        assert!(
            report.damage.is_empty(),
            "{}: a cut is no damage: {:?}",
            self.name(),
            report.damage
        );
        let known: HashSet<LogId> = self.logs.keys().copied().collect();
        storage
            .finish_open(&known)
            .map_err(|error| Stopped(error.to_string()))?;
        for id in &known {
            storage.create_log(*id, settings(self.segment_bytes()));
        }
        self.storage = Some(storage);
        Ok(())
    }

    fn close(&mut self) {
        if let Some(storage) = self.storage.take() {
            storage.shutdown();
        }
        self.waiting.clear();
    }

    fn restart(&mut self) -> Result<(), Stopped> {
        self.commit()?;
        self.close();
        self.open()
    }

    /// Sends the last acknowledged batches again, as a producer does whose connection broke.
    fn retry(&mut self) -> Result<(), Stopped> {
        for (id, producer) in &self.producers {
            let Some((batch, base)) = &producer.acknowledged else {
                continue;
            };
            if producer.later.len() + 1 > WINDOW || !self.logs.contains_key(id) {
                continue;
            }
            let Some(admission) = self.storage().try_admit(batch.bytes().len()) else {
                continue;
            };
            let appended = match self.log(*id).append(vec![batch.clone().into()], admission) {
                Ok(appended) => appended,
                Err(AppendError::DiskFull) => continue,
                Err(AppendError::Sequence(error)) => panic!("{}: log {id}: {error}", self.name()),
                Err(error) => return Err(Stopped(error.to_string())),
            };
            assert!(
                appended.duplicate,
                "{}: log {id}: {base} was stored twice",
                self.name()
            );
            assert_eq!(
                appended.base_offset.get(),
                *base,
                "{}: log {id}",
                self.name()
            );
        }
        Ok(())
    }

    /// The process dies without a word; the machine goes on.
    fn kill(&mut self) -> Result<(), Stopped> {
        let was_off = self.disk.is_off();
        self.disk.cut_power();
        self.close();
        if was_off {
            return Err(Stopped("the power went".to_owned()));
        }
        self.disk.restart_process();
        self.open()?;
        self.retry()?;
        self.producers.clear();
        Ok(())
    }

    fn storage(&self) -> &Storage {
        self.storage
            .as_ref()
            .expect("it is open while the script runs")
    }

    fn create_log(&mut self) {
        let topic = TopicId::from_bytes([self.logs.len() as u8 + self.deleted.len() as u8 + 1; 16]);
        let id = LogId::new(topic, PartitionId::new(0));
        if self.logs.len() < 4 && !self.deleted.contains(&id) {
            self.storage()
                .create_log(id, settings(self.segment_bytes()));
            self.logs.entry(id).or_default();
        }
    }

    fn delete_log(&mut self) {
        if self.logs.len() < 2 {
            return;
        }
        let id = self.any_log();
        self.storage().delete_log(id);
        self.logs.remove(&id);
        self.deleted.insert(id);
        self.producers.remove(&id);
        for waiting in &mut self.waiting {
            waiting.promises.retain(|(log, _)| *log != id);
        }
        self.waiting.retain(|waiting| !waiting.promises.is_empty());
    }

    fn any_log(&mut self) -> LogId {
        let at = self.random.below(self.logs.len() as u64) as usize;
        *self.logs.keys().nth(at).expect("it is below the count")
    }

    fn append(&mut self) -> Result<(), Stopped> {
        let id = self.any_log();
        let log = self.log(id);
        let count = 1 + self.random.below(4);
        let payloads = self.payloads(count, 8);
        let batch = self.batch(id, &payloads);
        let Some(admission) = self.storage().try_admit(batch.bytes().len()) else {
            return self.not_sent(&[(id, payloads.len())]);
        };
        let appended = match log.append(vec![batch.clone().into()], admission) {
            Ok(appended) => appended,
            Err(AppendError::DiskFull) => return self.not_sent(&[(id, payloads.len())]),
            Err(AppendError::Sequence(error)) => panic!("{}: {error}", self.name()),
            Err(error) => return Err(Stopped(error.to_string())),
        };
        let base = appended.base_offset.get();
        assert!(!appended.duplicate, "{}: {base} is new", self.name());
        let promise = self.sent(id, batch, base, payloads);
        self.waiting.push(Waiting {
            promises: vec![(id, promise)],
            durable: appended.durable,
        });
        Ok(())
    }

    /// Appends to two or three logs at once, now and then more than the committer otherwise puts into a frame.
    fn append_group(&mut self) -> Result<(), Stopped> {
        let mut ids: BTreeSet<LogId> = self.logs.keys().copied().collect();
        while ids.len() > 2 + self.random.below(2) as usize {
            ids.remove(&self.any_log());
        }
        if ids.len() < 2 {
            return self.append();
        }
        // Not in the order of the ids.
        let mut ids: Vec<LogId> = ids.into_iter().collect();
        ids.rotate_left(1);
        let parts: Vec<(LogId, Vec<Bytes>, Batch)> = ids
            .into_iter()
            .map(|id| {
                let payloads = self.payloads(2, 2);
                let batch = self.batch(id, &payloads);
                (id, payloads, batch)
            })
            .collect();
        let sizes: Vec<_> = parts
            .iter()
            .map(|(id, payloads, _)| (*id, payloads.len()))
            .collect();
        let group: Vec<LogAppend> = parts
            .iter()
            .map(|(id, _, batch)| LogAppend {
                log: self.log(*id),
                batches: vec![batch.clone().into()],
            })
            .collect();
        let size = LogAppend::size_of(&group);
        let admission = self.storage().try_admit_all(size, Purpose::Records);
        let Some(admission) = admission.filter(|_| self.storage().takes_all(size)) else {
            return self.not_sent(&sizes);
        };
        let appended = match self.storage().append_all(&group, admission) {
            Ok(appended) => appended,
            Err(AppendAllError::Refused(AppendError::DiskFull)) => return self.not_sent(&sizes),
            Err(AppendAllError::Refused(error)) => return Err(Stopped(error.to_string())),
            Err(error) => panic!("{}: {error}", self.name()),
        };
        let (mut promises, mut group) = (Vec::new(), Group::new());
        for ((id, payloads, batch), offsets) in parts.into_iter().zip(&appended.offsets) {
            let base = offsets.start.get();
            group.push((id, base, payloads[0].clone()));
            promises.push((id, self.sent(id, batch, base, payloads)));
        }
        self.groups.push(group);
        self.waiting.push(Waiting {
            promises,
            durable: appended.durable,
        });
        Ok(())
    }

    /// Payloads of one length, one in so many times a large one.
    fn payloads(&mut self, count: u64, large_one_in: u64) -> Vec<Bytes> {
        let bytes_max = if self.random.below(large_one_in) == 0 {
            20_000
        } else {
            600
        };
        let bytes = 1 + self.random.below(bytes_max);
        let mut payloads = Vec::new();
        for _ in 0..count {
            self.payloads += 1;
            let mut payload = vec![self.payloads as u8; bytes as usize];
            payload.extend_from_slice(&self.payloads.to_be_bytes());
            payloads.push(Bytes::from(payload));
        }
        payloads
    }

    /// Writes into the book what was sent. Gives what is promised.
    fn sent(&mut self, id: LogId, batch: Batch, base: u64, payloads: Vec<Bytes>) -> Promise {
        let ledger = self.logs.get_mut(&id).expect("a log that lives");
        let records: BTreeMap<u64, Bytes> = (base..).zip(payloads).collect();
        for (offset, payload) in &records {
            let sent = ledger.sent.entry(*offset).or_default();
            sent.push(payload.clone());
        }
        if let Some(producer) = self.producers.get_mut(&id) {
            producer.later.push((batch, base));
        }
        Promise::Records(records)
    }

    /// There was no room for it: its numbers are for the next one.
    fn not_sent(&mut self, sizes: &[(LogId, usize)]) -> Result<(), Stopped> {
        for (id, records) in sizes {
            if let Some(producer) = self.producers.get_mut(id) {
                producer.sequence -= *records as i32;
            }
        }
        self.commit()?;
        self.settle()?;
        self.prepare()
    }

    fn batch(&mut self, id: LogId, payloads: &[Bytes]) -> Batch {
        let codec = if self.random.below(3) == 0 {
            Codec::Lz4
        } else {
            Codec::None
        };
        let mut builder = BatchBuilder::new(codec);
        if is_idempotent(id) {
            let fresh = &mut self.producer_ids;
            let producer = self.producers.entry(id).or_insert_with(|| {
                *fresh += 1;
                Producer {
                    id: *fresh,
                    ..Producer::default()
                }
            });
            builder.producer(
                ProducerId::new(producer.id),
                ProducerEpoch::new(0),
                producer.sequence,
            );
            producer.sequence += payloads.len() as i32;
        }
        for payload in payloads {
            let time = 1_600_000_000_000 + self.random.below(1_000_000) as i64;
            builder
                .push(Timestamp::from_millis(time), None, Some(payload), &[])
                .expect("small records");
        }
        Batch::parse(builder.build().expect("small batch")).expect("a batch that was just built")
    }

    fn delete_records(&mut self) -> Result<(), Stopped> {
        let id = self.any_log();
        let bounds = self.log(id).bounds();
        let before = bounds.start.get()
            + self
                .random
                .below(bounds.durable_end.since(bounds.start) + 1);
        let durable = match self.log(id).delete_records(Offset::new(before)) {
            Ok(durable) => durable,
            Err(DeleteRecordsError::Append(AppendError::DiskFull)) => return self.commit(),
            Err(error) => return Err(Stopped(error.to_string())),
        };
        let ledger = self.logs.get_mut(&id).expect("any_log gives one of these");
        ledger.start_asked = ledger.start_asked.max(before);
        self.waiting.push(Waiting {
            promises: vec![(id, Promise::Start(before))],
            durable,
        });
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Stopped> {
        while self.storage().commit_once() {}
        let mut failed = None;
        for waiting in std::mem::take(&mut self.waiting) {
            let Some(decided) = decided(waiting.durable) else {
                panic!(
                    "{}: an append is undecided after everything was committed",
                    self.name()
                );
            };
            if let Err(error) = decided {
                failed = Some(error);
                continue;
            }
            for (id, promise) in waiting.promises {
                let ledger = self.logs.get_mut(&id);
                let ledger = ledger.expect("deleted logs wait for nothing");
                match promise {
                    Promise::Records(records) => ledger.acknowledged.extend(records),
                    Promise::Start(start) => ledger.start = ledger.start.max(start),
                }
            }
        }
        if failed.is_none() && !self.disk.is_off() {
            for producer in self.producers.values_mut() {
                producer.acknowledged = producer.later.pop().or(producer.acknowledged.take());
                producer.later.clear();
            }
        }
        match failed {
            None if self.disk.is_off() => Err(Stopped("the power went".to_owned())),
            None => Ok(()),
            Some(error) => Err(Stopped(error.to_string())),
        }
    }

    /// Settles the tails into segments, also while appends wait for their frame.
    fn settle(&mut self) -> Result<(), Stopped> {
        self.storage().settle_once();
        self.alive()
    }

    /// Does the work of the pool's helper.
    fn prepare(&mut self) -> Result<(), Stopped> {
        match self.storage().prepare_once() {
            Err(error) if error.kind() != std::io::ErrorKind::StorageFull => {
                Err(Stopped(error.to_string()))
            }
            _ => self.alive(),
        }
    }

    fn alive(&self) -> Result<(), Stopped> {
        if self.disk.is_off() {
            return Err(Stopped("the power went".to_owned()));
        }
        Ok(())
    }

    fn log(&self, id: LogId) -> Arc<Log> {
        self.storage()
            .log(id)
            .unwrap_or_else(|| panic!("{}: log {id} is gone", self.name()))
    }

    fn read_all(&mut self) -> Result<(), Stopped> {
        if self.disk.is_off() {
            return Err(Stopped("the power went".to_owned()));
        }
        let ids: Vec<LogId> = self.logs.keys().copied().collect();
        for id in ids {
            let found = self.read(id);
            let ledger = self.logs.get_mut(&id).expect("listed above");
            ledger.seen.extend(found);
        }
        Ok(())
    }

    /// All records of a log, as a consumer gets them; offsets must follow one another.
    fn read(&self, id: LogId) -> BTreeMap<u64, Bytes> {
        let log = self.log(id);
        let bounds = log.bounds();
        let mut records = BTreeMap::new();
        let mut from = bounds.start;
        while from < bounds.durable_end {
            let chunk = log
                .read(from, 10_000, true)
                .unwrap_or_else(|error| panic!("{}: log {id} at {from}: {error}", self.name()));
            assert!(
                chunk.end_offset > from,
                "{}: log {id} stands still at {from}",
                self.name()
            );
            for batch in model::batch::split(chunk.to_bytes()) {
                let batch =
                    batch.unwrap_or_else(|error| panic!("{}: log {id}: {error}", self.name()));
                for record in batch
                    .records(Default::default())
                    .expect("a batch with a right checksum")
                {
                    let record = record.expect("a batch with a right checksum");
                    if record.offset >= bounds.start {
                        let before =
                            records.insert(record.offset.get(), record.value.unwrap_or_default());
                        assert!(
                            before.is_none(),
                            "{}: log {id} offset {} twice",
                            self.name(),
                            record.offset
                        );
                    }
                }
            }
            from = chunk.end_offset;
        }
        let ledger = &self.logs[&id];
        let mut missing = (bounds.start.get()..bounds.durable_end.get())
            .filter(|offset| !records.contains_key(offset));
        let gap = missing.find(|offset| !ledger.dropped_maybe.contains(offset));
        assert_eq!(gap, None, "{}: log {id} has a gap", self.name());
        let back = records
            .keys()
            .find(|offset| ledger.dropped.contains(offset));
        assert_eq!(back, None, "{}: log {id}: dropped and back", self.name());
        records
    }

    /// Brings the power back and compares the store with the book; some seeds cut the recovery too. Returns how many
    /// acknowledged records were found.
    fn judge_after_cut(&mut self, seed: u64) -> u64 {
        let mut random = Random(seed);
        self.disk.cut_power();
        self.close();
        self.disk.restart(random.next());
        for _ in 0..random.below(4) {
            self.disk
                .cut_power_during(self.disk.operations() + 1 + random.below(40));
            if self.open().is_ok() {
                self.disk.cut_power();
            }
            self.close();
            self.disk.restart(random.next());
        }
        let opened = self.open();
        assert!(
            opened.is_ok(),
            "{}: it does not start: {opened:?}",
            self.name()
        );
        let found = self.judge();
        self.go_on();
        found
    }

    fn judge(&mut self) -> u64 {
        let mut count = 0;
        let ids: Vec<LogId> = self.logs.keys().copied().collect();
        for id in ids {
            let found = self.read(id);
            let start = self.log(id).bounds().start.get();
            let name = self.name();
            let ledger = self.logs.get_mut(&id).expect("listed above");
            assert!(
                start >= ledger.start,
                "{name}: log {id}: deleted records are back"
            );
            assert!(
                start <= ledger.start_asked,
                "{name}: log {id}: nobody deleted up to {start}"
            );
            let is_kept = |(offset, _): &(&u64, &Bytes)| !ledger.dropped_maybe.contains(offset);
            for (offset, payload) in ledger.acknowledged.range(start..).filter(is_kept) {
                assert_eq!(
                    found.get(offset),
                    Some(payload),
                    "{name}: log {id}: acknowledged {offset}"
                );
                count += 1;
            }
            for (offset, payload) in ledger.seen.range(start..).filter(is_kept) {
                assert_eq!(
                    found.get(offset),
                    Some(payload),
                    "{name}: log {id}: {offset} was shown"
                );
            }
            for (offset, payload) in &found {
                let sent = ledger
                    .sent
                    .get(offset)
                    .is_some_and(|sent| sent.contains(payload));
                assert!(sent, "{name}: log {id}: nobody sent what is at {offset}");
            }
            ledger.seen.extend(found);
        }
        self.judge_groups();
        let aside = Path::new("/data/quarantine");
        for path in self.disk.files().into_keys() {
            let Ok(name) = path.strip_prefix(aside) else {
                continue;
            };
            // Whole directories of deleted logs may be there, but no file of a log that lives.
            let of_live = self
                .logs
                .keys()
                .any(|id| name.to_string_lossy().starts_with(&id.to_string()));
            assert!(
                !of_live,
                "{}: {} was set aside",
                self.name(),
                name.display()
            );
        }
        for id in &self.deleted {
            assert!(
                self.storage().log(*id).is_none(),
                "{}: log {id} came back",
                self.name()
            );
        }
        count
    }

    /// What was appended to several logs at once is in all of them or in none, as far as they still exist and reach back so far.
    fn judge_groups(&self) {
        for group in &self.groups {
            let is_there: BTreeMap<LogId, bool> = group
                .iter()
                .filter(|(id, offset, _)| {
                    let Some(ledger) = self.logs.get(id) else {
                        return false;
                    };
                    let is_dropped = ledger.dropped_maybe.contains(offset);
                    !is_dropped && self.log(*id).bounds().start.get() <= *offset
                })
                .map(|(id, offset, payload)| {
                    // Read and compared with the book just before.
                    (*id, self.logs[id].seen.get(offset) == Some(payload))
                })
                .collect();
            let there = is_there.values().filter(|is_there| **is_there).count();
            assert!(
                there == 0 || there == is_there.len(),
                "{}: a group was torn: {is_there:?}",
                self.name()
            );
        }
    }

    /// The store is as good as new, once there is space: it takes records and gives them back.
    fn go_on(&mut self) {
        self.disk.set_capacity(u64::MAX);
        let mut outcome = self.retry();
        self.producers.clear();
        self.create_log();
        for _ in 0..4 {
            outcome = outcome.and_then(|()| self.append());
        }
        let outcome = outcome
            .and_then(|()| self.commit())
            .and_then(|()| self.settle());
        outcome.unwrap_or_else(|stopped| {
            panic!("{}: no appends after the cut: {stopped:?}", self.name())
        });
        self.judge();
        self.close();
    }

    fn name(&self) -> String {
        format!(
            "FIRST_SEED={} SEEDS=1, cut during operation {}",
            self.seed, self.cut
        )
    }
}

fn is_idempotent(id: LogId) -> bool {
    id.topic_id.to_bytes()[0] % 2 == 1
}

fn settings(segment_bytes: u64) -> LogSettings {
    LogSettings {
        segment_bytes,
        ..LogSettings::from(&TopicConfig::default())
    }
}

/// What came of it, if that is known.
fn decided(mut durable: Durable) -> Option<Result<(), StorageFailed>> {
    match Pin::new(&mut durable).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
