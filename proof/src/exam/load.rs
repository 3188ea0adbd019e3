//! The load of a case: producers, a reader and a committing consumer, under a seed, with everything they are promised
//! in the ledger. It outlives the broker: what a crash left open is settled with the next one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use model::codec::Codec;
use wire::ErrorCode;

use super::judge::{Shown, judge_partition};
use super::ledger::{Ledger, Payload};
use super::probe::{Answer, Probe, Sequence, batch_of, note_records};
use super::random::Random;
use crate::exam::Outcome;

/// The group whose commits are judged.
const GROUP: &str = "exam";
/// What is loaded, and how.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Topics and their partitions.
    pub topics: Vec<(String, i32)>,
    /// Settings of every topic.
    pub configs: Vec<(String, String)>,
    /// Producers; every second one is idempotent. Each writes to one partition.
    pub producers: usize,
    /// The most records of a batch.
    pub records_max: u64,
    /// The most bytes of a value, beside its id.
    pub value_bytes_max: u64,
    /// How long a producer rests between batches.
    pub pause: Duration,
    /// Whether readers read.
    pub reads: bool,
    /// Whether a consumer commits.
    pub commits: bool,
}

impl Default for LoadPlan {
    fn default() -> LoadPlan {
        LoadPlan {
            topics: vec![("alpha".to_owned(), 3), ("beta".to_owned(), 1)],
            configs: vec![("segment.bytes".to_owned(), (1 << 20).to_string())],
            producers: 6,
            records_max: 12,
            value_bytes_max: 400,
            pause: Duration::from_millis(2),
            reads: true,
            commits: true,
        }
    }
}

/// The load and its memory.
pub struct Load {
    plan: LoadPlan,
    /// What was sent and promised.
    pub ledger: Ledger,
    /// What readers were shown.
    pub shown: Shown,
    producers: Vec<Mutex<Producer>>,
    commits: Mutex<HashMap<(String, i32), Commits>>,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    /// Set while the broker is being hurt: what it refuses then is no fault of its own.
    hurt: AtomicBool,
    failures: Mutex<Vec<String>>,
}

struct Producer {
    topic: String,
    partition: i32,
    idempotent: bool,
    sequence: Option<Sequence>,
    /// Sent by an idempotent producer, and not answered: sent again after the crash.
    open: Option<(Vec<Payload>, Bytes)>,
    random: Random,
}

/// The commits of one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Commits {
    acknowledged: i64,
    attempted: i64,
}

/// What the judge found after a recovery.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Acknowledged records that were looked for.
    pub checked: u64,
    /// Those that were not there.
    pub lost: u64,
    /// What did not hold.
    pub failures: Vec<String>,
}

impl Judgement {
    /// Adds it to what came of a case. Gives how many acknowledged messages were looked for.
    pub fn add_to(self, outcome: &mut Outcome) -> u64 {
        outcome.checked += self.checked;
        outcome.lost += self.lost;
        outcome.failures.extend(self.failures);
        self.checked
    }
}

impl Load {
    /// A load that has not begun.
    pub fn new(plan: LoadPlan, work: &Path, seed: u64) -> Result<Arc<Load>> {
        let places: Vec<(String, i32)> = places(&plan);
        let producers = (0..plan.producers)
            .map(|index| {
                let (topic, partition) = places[index % places.len()].clone();
                Mutex::new(Producer {
                    topic,
                    partition,
                    idempotent: (index / places.len() + index).is_multiple_of(2),
                    sequence: None,
                    open: None,
                    random: Random::new(seed.wrapping_add(1 + index as u64)),
                })
            })
            .collect();
        let ledger = Ledger::create(&work.join(format!("ledger-{seed:x}")))?;
        Ok(Arc::new(Load {
            plan,
            ledger,
            shown: Shown::default(),
            producers,
            commits: Mutex::default(),
            refusals: Mutex::default(),
            hurt: AtomicBool::new(false),
            failures: Mutex::default(),
        }))
    }

    /// Creates the topics.
    pub fn create_topics(&self, address: &str) -> Result<()> {
        let mut probe = Probe::connect(address)?;
        let configs: Vec<(&str, &str)> = self
            .plan
            .configs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        for (topic, partitions) in &self.plan.topics {
            probe.create_topic(topic, *partitions, &configs)?;
        }
        Ok(())
    }

    /// Begins to load the broker at `address`. Threads end when they are told to, or when the broker goes away.
    pub fn begin(self: &Arc<Load>, address: &str) -> Running {
        self.fault_ends();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut spawn = |work: fn(&Load, usize, &str, &AtomicBool) -> Result<()>, index: usize| {
            let (load, stop, address) = (self.clone(), stop.clone(), address.to_owned());
            threads.push(std::thread::spawn(move || {
                let ended = work(&load, index, &address, &stop);
                // While the broker is being hurt its end is the case's business.
                if let (Err(error), false) = (ended, load.hurt.load(Ordering::SeqCst)) {
                    load.fail(format!("a client of the load gave up: {error:#}"));
                }
            }));
        };
        for index in 0..self.producers.len() {
            spawn(Load::produce, index);
        }
        if self.plan.reads {
            spawn(Load::read, 0);
        }
        if self.plan.commits {
            spawn(Load::commit, 0);
        }
        Running { stop, threads }
    }

    fn produce(&self, index: usize, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut probe = Probe::connect(address)?;
        let mut producer = held(&self.producers[index]);
        if producer.idempotent && producer.sequence.is_none() {
            producer.sequence = Some(probe.producer_id()?);
        }
        while !stop.load(Ordering::Relaxed) {
            self.produce_one(&mut probe, &mut producer)?;
            std::thread::sleep(self.plan.pause);
        }
        Ok(())
    }

    /// Each producer sends one batch and has to be acknowledged: a broker that is up and takes nothing is not up again.
    pub fn produce_each(&self, address: &str) -> Result<()> {
        let mut probe = Probe::connect(address)?;
        for producer in &self.producers {
            let mut producer = held(producer);
            let place = format!("{}-{}", producer.topic, producer.partition);
            self.produce_one(&mut probe, &mut producer)
                .with_context(|| format!("nothing is taken for {place}"))?;
        }
        Ok(())
    }

    fn produce_one(&self, probe: &mut Probe, producer: &mut Producer) -> Result<()> {
        let retried = producer.open.is_some();
        let (payloads, batch) = match producer.open.take() {
            Some(open) => open,
            None => {
                let count = producer.random.between(1, self.plan.records_max + 1);
                let value_bytes = producer.random.between(0, self.plan.value_bytes_max + 1);
                let codec = Codec::ALL[usize::try_from(producer.random.between(0, 5))?];
                let payloads = self.ledger.send(
                    &producer.topic,
                    producer.partition,
                    usize::try_from(count)?,
                    usize::try_from(value_bytes)?,
                    &mut producer.random,
                )?;
                let batch = batch_of(&payloads, codec, producer.sequence)?;
                (payloads, batch)
            }
        };
        match probe.produce(&producer.topic, producer.partition, batch.clone()) {
            Ok(Answer::Acknowledged(offset)) => {
                self.ledger.acknowledged(&payloads, offset)?;
                if let Some(sequence) = &mut producer.sequence {
                    sequence.next += i32::try_from(payloads.len())?;
                }
                Ok(())
            }
            Ok(Answer::Refused(error)) => {
                self.refused(error);
                if retried {
                    self.ledger.unknown(&payloads)?;
                } else {
                    self.ledger.refused(&payloads, error.code())?;
                }
                Ok(())
            }
            Err(error) => {
                self.ledger.unknown(&payloads)?;
                if producer.sequence.is_some() {
                    producer.open = Some((payloads, batch));
                }
                Err(error)
            }
        }
    }

    fn read(&self, _: usize, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut probe = Probe::connect(address)?;
        let mut next: HashMap<(String, i32), i64> = HashMap::new();
        while !stop.load(Ordering::Relaxed) {
            for (topic, partition) in places(&self.plan) {
                let from = next.entry((topic.clone(), partition)).or_default();
                let fetched = probe.fetch(&topic, partition, *from, 1 << 20, 5)?;
                if fetched.error != ErrorCode::None && self.hurt.load(Ordering::SeqCst) {
                    // A disk that is gone can't be read.
                    continue;
                }
                if fetched.error != ErrorCode::None {
                    self.fail(format!(
                        "reading {topic}-{partition} at {from}: {}",
                        fetched.error.name()
                    ));
                    continue;
                }
                let mut seen = Vec::new();
                match note_records(fetched.records, *from, &mut seen) {
                    Ok(end) => *from = end,
                    Err(error) => self.fail(format!("reading {topic}-{partition}: {error:#}")),
                }
                for offset in self.shown.note(&topic, partition, &seen) {
                    self.fail(format!(
                        "J2 {topic}-{partition}: offset {offset} showed another record before"
                    ));
                }
            }
        }
        Ok(())
    }

    fn commit(&self, _: usize, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut probe = Probe::connect(address)?;
        while !stop.load(Ordering::Relaxed) {
            for (topic, partition) in places(&self.plan) {
                let place = (topic.clone(), partition);
                let offset = {
                    let mut commits = held(&self.commits);
                    let commits = commits.entry(place.clone()).or_default();
                    commits.attempted += 1;
                    commits.attempted
                };
                match probe.commit(GROUP, &topic, partition, offset)? {
                    ErrorCode::None => {
                        held(&self.commits).entry(place).or_default().acknowledged = offset;
                    }
                    error => self.refused(error),
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn refused(&self, error: ErrorCode) {
        if !self.hurt.load(Ordering::SeqCst) {
            *held(&self.refusals).entry(error.name()).or_default() += 1;
        }
    }

    /// The fault begins. From here until [`Load::fault_ends`], or the next [`Load::begin`], a refusal is no fault of the broker's.
    pub fn fault_begins(&self) {
        self.hurt.store(true, Ordering::SeqCst);
    }

    /// The fault is over.
    pub fn fault_ends(&self) {
        self.hurt.store(false, Ordering::SeqCst);
    }

    fn fail(&self, failure: String) {
        let mut failures = held(&self.failures);
        if failures.len() < 20 {
            failures.push(failure);
        }
    }

    /// What was refused so far while nothing hurt the broker, by the error's name.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        held(&self.refusals).clone()
    }

    /// Judges everything that the broker shows now (J1 to J5). The load must not run.
    pub fn judge(&self, address: &str) -> Result<Judgement> {
        let mut probe = Probe::connect(address)?;
        let entries = self.ledger.entries();
        let mut judgement = Judgement::default();
        for (topic, partition) in places(&self.plan) {
            let contents = probe
                .read_all(&topic, partition)
                .with_context(|| format!("read {topic}-{partition} back"))?;
            let verdict =
                judge_partition(&topic, partition, &entries, &contents, &self.shown, false);
            judgement.checked += verdict.checked;
            judgement.lost += verdict.lost;
            judgement.failures.extend(verdict.failures);
        }
        for ((topic, partition), commits) in held(&self.commits).iter() {
            let now = probe.committed(GROUP, topic, *partition)?;
            let promised = commits.acknowledged;
            if now < promised && promised > 0 || now > commits.attempted {
                judgement.failures.push(format!(
                    "J5 {topic}-{partition}: the commit of {promised} was acknowledged, that of {} sent; now it is {now}",
                    commits.attempted
                ));
            }
        }
        judgement.failures.append(&mut held(&self.failures));
        Ok(judgement)
    }
}

/// Threads that load a broker.
pub struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// These threads, which end when they see the stop.
    pub fn new(stop: Arc<AtomicBool>, threads: Vec<JoinHandle<()>>) -> Running {
        Running { stop, threads }
    }

    /// Tells the threads to stop, and waits for them.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no thread of the load panics");
        }
    }
}

fn places(plan: &LoadPlan) -> Vec<(String, i32)> {
    plan.topics
        .iter()
        .flat_map(|(topic, partitions)| {
            (0..*partitions).map(move |partition| (topic.clone(), partition))
        })
        .collect()
}

/// What a thread of a load holds.
pub fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread of the load panics")
}
