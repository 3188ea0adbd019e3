//! Case 28: 512 MiB for the broker and all that the kernel caches for it, 10,000 partitions, and a history that does not fit in.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use model::codec::Codec;

use crate::exam::cases::crash;
use crate::exam::judge::{Shown, judge_partition};
use crate::exam::ledger::{Entry, Ledger};
use crate::exam::memory_group::MemoryGroup;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

const MEMORY: u64 = 512 << 20;
const TOPICS: usize = 100;
const PARTITIONS: usize = 100;
/// Partitions with a history, the first one of each of so many topics.
const DEEP: usize = 16;
/// What each of them holds, in bytes: together twice the memory.
const DEPTH: usize = 64 << 20;
const VALUE_BYTES: usize = 16 << 10;
const BATCH_RECORDS: usize = 32;
/// Clients at a time.
const CLIENTS: usize = 16;
/// Producers that go on during the replay.
const PRODUCERS: usize = 4;

/// The case.
pub const CASE: Case = Case {
    number: 28,
    name: "little-memory",
    about: "512 MiB with the page cache, 10,000 partitions, kills, and a replay of twice the memory while producers go on",
    rounds: Rounds { full: 5, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let group = MemoryGroup::create(MEMORY)?;
    let plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work).within(&group);
    let house = House {
        ledger: Ledger::create(&exam.work.join("ledger"))?,
        seed: exam.seed,
        seeds: AtomicU64::new(0),
    };
    let mut victim = plan.start()?;
    exam.progress("10,000 partitions, and a record for each");
    house.found(&victim)?;
    exam.progress("a history of twice the memory");
    house.deepen(&victim)?;
    let (mut highest, mut slowest) = (0, Duration::ZERO);
    for round in 1..=exam.rounds {
        victim.kill()?;
        victim = plan.start().with_context(|| {
            format!(
                "round {round}, {} processes were killed for want of memory",
                group.killed().unwrap_or_default()
            )
        })?;
        slowest = slowest.max(victim.up_in);
        outcome.require(victim.up_in <= crash::up_in_max(), || {
            format!("J6 round {round}: up after {:?}", victim.up_in)
        });
        let began = Instant::now();
        let (checked, lost, failures, most) = house
            .replay(&victim)
            .with_context(|| format!("round {round}"))?;
        highest = highest.max(most);
        exam.progress(&format!(
            "round {round}: up in {:?}, replayed in {:?}, {} MiB of its own",
            victim.up_in,
            began.elapsed(),
            most >> 20
        ));
        outcome.times = round;
        outcome.checked = checked;
        outcome.lost += lost;
        outcome.failures.extend(failures);
        if !outcome.passed() {
            break;
        }
    }
    victim.terminate()?;
    let (killed, reached) = (group.killed()?, group.limit_reached()?);
    outcome.require(killed == 0, || {
        format!("{killed} processes were killed for want of memory")
    });
    outcome.require(reached > 0, || {
        "the limit was never reached: the history fitted in".to_owned()
    });
    outcome.notes.push(format!(
        "at most {} MiB of anonymous memory, up again within {slowest:?}; the limit was reached {reached} times",
        highest >> 20
    ));
    Ok(outcome)
}

/// What a replay brought: records checked, lost, what did not hold, and the most anonymous memory in bytes.
type Replayed = (u64, u64, Vec<String>, u64);

struct House {
    ledger: Ledger,
    seed: u64,
    /// Seeds that were given away.
    seeds: AtomicU64,
}

impl House {
    fn random(&self) -> Random {
        let number = self.seeds.fetch_add(1, Ordering::Relaxed);
        Random::new(self.seed.wrapping_add(number))
    }

    /// Makes the topics and puts a record into each partition.
    fn found(&self, victim: &Victim) -> Result<()> {
        let mut probe = Probe::connect(&victim.kafka)?;
        for topic in 0..TOPICS {
            probe.create_topic(&name(topic), i32::try_from(PARTITIONS)?, &[])?;
        }
        by_clients(TOPICS, victim, |probe, topic| {
            let mut random = self.random();
            (0..PARTITIONS).try_for_each(|partition| {
                self.produce(probe, topic, partition, 1, 100, &mut random)
            })
        })
    }

    fn deepen(&self, victim: &Victim) -> Result<()> {
        by_clients(DEEP, victim, |probe, topic| {
            let mut random = self.random();
            (0..DEPTH / (BATCH_RECORDS * VALUE_BYTES)).try_for_each(|_| {
                self.produce(probe, topic, 0, BATCH_RECORDS, VALUE_BYTES, &mut random)
            })
        })
    }

    fn produce(
        &self,
        probe: &mut Probe,
        topic: usize,
        partition: usize,
        records: usize,
        value_bytes: usize,
        random: &mut Random,
    ) -> Result<()> {
        let (topic, partition) = (name(topic), i32::try_from(partition)?);
        let payloads = self
            .ledger
            .send(&topic, partition, records, value_bytes, random)?;
        let batch = batch_of(&payloads, Codec::None, None)?;
        match probe.produce(&topic, partition, batch) {
            Ok(Answer::Acknowledged(offset)) => self.ledger.acknowledged(&payloads, offset),
            Ok(Answer::Refused(error)) => bail!("a batch was refused: {}", error.name()),
            Err(error) => {
                self.ledger.unknown(&payloads)?;
                Err(error)
            }
        }
    }

    /// Reads everything from its start, the histories all at once, while producers go on; and judges it.
    fn replay(&self, victim: &Victim) -> Result<Replayed> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|_| scope.spawn(|| self.go_on(victim, &over)))
                .collect();
            let watch = scope.spawn(|| {
                let mut highest = 0;
                while !over.load(Ordering::Relaxed) {
                    highest = highest.max(victim.anonymous_bytes().unwrap_or(0));
                    thread::sleep(Duration::from_millis(5));
                }
                highest
            });
            let judged = self.judge(victim);
            over.store(true, Ordering::Relaxed);
            let highest = watch.join().expect("the watch does not panic");
            for producer in producers {
                producer
                    .join()
                    .expect("no producer panics")
                    .context("a producer beside the replay")?;
            }
            let (checked, lost, failures) = judged?;
            Ok((checked, lost, failures, highest))
        })
    }

    fn go_on(&self, victim: &Victim, over: &AtomicBool) -> Result<()> {
        let mut probe = Probe::connect(&victim.kafka)?;
        let mut random = self.random();
        while !over.load(Ordering::Relaxed) {
            // Into those that have no history: what is read back meanwhile does not grow.
            let topic = usize::try_from(random.between(DEEP as u64, TOPICS as u64))?;
            let partition = usize::try_from(random.between(0, PARTITIONS as u64))?;
            self.produce(&mut probe, topic, partition, 4, 1 << 10, &mut random)?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn judge(&self, victim: &Victim) -> Result<(u64, u64, Vec<String>)> {
        let mut expected: HashMap<(String, i32), HashMap<u64, Entry>> = HashMap::new();
        for (id, entry) in self.ledger.entries() {
            let place = (entry.topic.clone(), entry.partition);
            expected.entry(place).or_default().insert(id, entry);
        }
        let judged = Mutex::new((0, 0, Vec::new()));
        let read = |probe: &mut Probe, topic: usize, partition: usize| -> Result<()> {
            let place = (name(topic), i32::try_from(partition)?);
            let contents = probe.read_all(&place.0, place.1)?;
            let entries = expected
                .get(&place)
                .context("a partition without a record")?;
            let known = contents
                .into_iter()
                // What came after the ledger was read is judged the next time.
                .filter(|seen| seen.id.is_none_or(|id| entries.contains_key(&id)))
                .collect::<Vec<_>>();
            let verdict =
                judge_partition(&place.0, place.1, entries, &known, &Shown::default(), false);
            let mut judged = judged.lock().expect("no client panics");
            judged.0 += verdict.checked;
            judged.1 += verdict.lost;
            judged.2.extend(verdict.failures);
            Ok(())
        };
        by_clients(DEEP, victim, |probe, topic| read(probe, topic, 0))?;
        by_clients(TOPICS, victim, |probe, topic| {
            (0..PARTITIONS).try_for_each(|partition| match (topic < DEEP, partition) {
                (true, 0) => Ok(()),
                _ => read(probe, topic, partition),
            })
        })?;
        Ok(judged.into_inner().expect("no client panics"))
    }
}

fn name(topic: usize) -> String {
    format!("plant-{topic}")
}

/// Does so many things, with a few clients at a time.
fn by_clients(
    count: usize,
    victim: &Victim,
    work: impl Fn(&mut Probe, usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let client = || -> Result<()> {
        let mut probe = Probe::connect(&victim.kafka)?;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            work(&mut probe, index)?;
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS.min(count))
            .map(|_| scope.spawn(client))
            .collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().expect("no client panics"))
    })
}
