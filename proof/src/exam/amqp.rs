//! The AMQP door of a load: producers, a consumer of a queue, and one that moves messages from the queue to another topic in transactions, beside
//! the clients of the Kafka protocol. What they were promised is judged after each crash by what the topics show to a consumer of the
//! Kafka protocol, and by what a browser of the queue is sent.
//! Callers: the crash cases, those of disks that fail or are full, those of hostile clients, and the control. It outlives the broker, as `load` does; each begin is
//! new connections.
//!
//! Q1 an accepted message is a record, once. Q2 a producer's messages stand in the order in which it sent them. Q3 nothing is there that
//! nobody sent. Q4 an offset never shows two messages over time. Q5 what a consumer has accepted, and was told so, is given to nobody again.
//! Q6 what nobody has accepted is still in the queue. T1 a commit that was answered is done, T2 and any other is done wholly or not at
//! all: a message is moved and gone from the queue, or neither.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::judge::Shown;
use super::ledger::{Digest, digest_of};
use super::load::{Judgement, Running, held};
use super::probe::Probe;
use super::random::Random;
use crate::amqp_client::peer::{Heard, Outcome, Peer};

/// The queue, and where its messages are moved to.
const JOBS: &str = "amqp-jobs";
const DONE: &str = "amqp-done";
const PARTITIONS: i32 = 2;
const PRODUCERS: usize = 2;
const WINDOW_MAX: u64 = 4;
const VALUE_BYTES_MAX: u64 = 300;
const PAUSE: Duration = Duration::from_millis(5);
/// How often one who waits for messages sees whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What consumers take at once.
const CREDIT: u32 = 16;
/// More than there ever is.
const MANY: u32 = 1 << 24;
/// One in so many transactions is rolled back.
const ROLLED_BACK: u64 = 8;

/// A message that was sent.
struct Sent {
    producer: usize,
    /// As a record of the queue's topic, and moved.
    digests: [Digest; 2],
    is_accepted: bool,
    /// Whether a consumer said that it takes it, and whether it was told that this is so.
    is_taken: bool,
    is_finished: bool,
    /// Whether the transaction that moved it was committed, and answered.
    is_moved: bool,
}

/// The load over AMQP and its memory.
pub struct AmqpLoad {
    sent: Mutex<Vec<Sent>>,
    shown: Shown,
    random: Vec<Mutex<Random>>,
    failures: Mutex<Vec<String>>,
    hurt: AtomicBool,
    /// Whether anything is taken out of the queue.
    consumes: bool,
}

impl AmqpLoad {
    /// A load that has done nothing yet, random under the seed.
    pub fn new(seed: u64) -> Arc<AmqpLoad> {
        AmqpLoad::of(seed, true)
    }

    /// One whose messages nobody takes: what is settled is synced always, and would take the records before it along.
    pub fn without_consumers(seed: u64) -> Arc<AmqpLoad> {
        AmqpLoad::of(seed, false)
    }

    fn of(seed: u64, consumes: bool) -> Arc<AmqpLoad> {
        let random = (0..=PRODUCERS as u64).map(|at| Mutex::new(Random::new(seed ^ (at + 77))));
        Arc::new(AmqpLoad {
            sent: Mutex::default(),
            shown: Shown::default(),
            random: random.collect(),
            failures: Mutex::default(),
            hurt: AtomicBool::new(false),
            consumes,
        })
    }

    /// Makes its topics, with these settings.
    pub fn create_topics(&self, kafka: &str, settings: &[(&str, &str)]) -> Result<()> {
        let mut probe = Probe::connect(kafka)?;
        probe.create_topic(JOBS, PARTITIONS, settings)?;
        probe.create_topic(DONE, PARTITIONS, settings)
    }

    /// Begins to load the broker that speaks AMQP at `address`. Threads end when they are told to, or when the broker goes away.
    pub fn begin(self: &Arc<AmqpLoad>, address: &str) -> Running {
        self.hurt.store(false, Ordering::SeqCst);
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let clients = PRODUCERS + if self.consumes { 2 } else { 0 };
        for index in 0..clients {
            let (load, stop, address) = (self.clone(), stop.clone(), address.to_owned());
            threads.push(std::thread::spawn(move || {
                let ended = match index.checked_sub(PRODUCERS) {
                    None => load.produce(index, &address, &stop),
                    Some(0) => load.consume(&address, &stop),
                    Some(_) => load.transfer(&address, &stop),
                };
                if let (Err(error), false) = (ended, load.hurt.load(Ordering::SeqCst)) {
                    load.fail(format!("a client of AMQP gave up: {error:#}"));
                }
            }));
        }
        Running::new(stop, threads)
    }

    /// The fault begins: from here until the next begin the end of a connection is no fault of the broker's.
    pub fn fault_begins(&self) {
        self.hurt.store(true, Ordering::SeqCst);
    }

    fn fail(&self, failure: String) {
        let mut failures = held(&self.failures);
        if failures.len() < 20 {
            failures.push(failure);
        }
    }

    fn produce(&self, producer: usize, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut random = held(&self.random[producer]);
        let mut peer = Peer::open(address)?;
        let target = format!("{JOBS}/Publishers/{}", name_of(producer));
        peer.sender(0, &target)?;
        while !stop.load(Ordering::Relaxed) {
            let mut unsettled = HashMap::new();
            for _ in 0..random.between(1, WINDOW_MAX + 1) {
                let bytes = usize::try_from(random.between(16, VALUE_BYTES_MAX))?;
                let (id, value) = self.write_down(producer, bytes, &mut random);
                unsettled.insert(peer.transfer(0, &value, None)?, id);
            }
            while !unsettled.is_empty() {
                let Heard::Settled(first, last, Outcome::Accepted, true) = peer.next()? else {
                    continue;
                };
                for delivery in first..=last {
                    if let Some(id) = unsettled.remove(&delivery) {
                        held(&self.sent)[id].is_accepted = true;
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// One message of `value_bytes` on a connection of its own. Whether it was accepted; if not, it was released.
    pub fn send_one(&self, address: &str, value_bytes: usize) -> Result<bool> {
        let mut random = held(&self.random[0]);
        let mut peer = Peer::open(address)?;
        peer.sender(0, &format!("{JOBS}/Publishers/{}", name_of(0)))?;
        let (id, value) = self.write_down(0, value_bytes, &mut random);
        let delivery = peer.transfer(0, &value, None)?;
        match peer.outcome(delivery)? {
            Outcome::Accepted => {
                held(&self.sent)[id].is_accepted = true;
                Ok(true)
            }
            Outcome::Released => Ok(false),
            other => bail!("a message came to {other:?}"),
        }
    }

    /// Writes a new message down before it is sent.
    fn write_down(&self, producer: usize, bytes: usize, random: &mut Random) -> (usize, Vec<u8>) {
        let mut sent = held(&self.sent);
        let id = sent.len();
        let mut value = format!("{id:016x}").into_bytes();
        value.resize(bytes.max(16), 0);
        random.fill(&mut value[16..]);
        sent.push(Sent {
            producer,
            digests: [name_of(producer).as_bytes(), b""].map(|key| digest_of(key, &value)),
            is_accepted: false,
            is_taken: false,
            is_finished: false,
            is_moved: false,
        });
        (id, value)
    }

    /// The number of a message that was delivered; Q5.
    fn delivered(&self, value: &[u8]) -> Result<usize> {
        let id = super::ledger::id_of(value).context("a message that nobody sent")?;
        let id = usize::try_from(id)?;
        let sent = held(&self.sent);
        let found = sent.get(id).context("a message that nobody sent")?;
        if found.is_finished || found.is_moved {
            self.fail(format!("Q5 message {id} was done with, and came again"));
        }
        Ok(id)
    }

    fn consume(&self, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut peer = Peer::open(address)?;
        peer.consumer(0, JOBS)?;
        peer.credit(0, CREDIT, false)?;
        let mut taken = HashMap::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(heard) = peer.next_within(LOOK_EVERY)? else {
                continue;
            };
            match heard {
                Heard::Delivery { id, value, .. } => {
                    let message = self.delivered(&value)?;
                    held(&self.sent)[message].is_taken = true;
                    taken.insert(id, message);
                    peer.accept(id)?;
                    if peer.received().is_multiple_of(CREDIT / 2) {
                        peer.credit(0, CREDIT, false)?;
                    }
                }
                Heard::Settled(first, last, Outcome::Accepted, false) => {
                    for message in (first..=last).filter_map(|id| taken.remove(&id)) {
                        held(&self.sent)[message].is_finished = true;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn transfer(&self, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut random = held(&self.random[PRODUCERS]);
        let mut peer = Peer::open(address)?;
        peer.coordinator(0)?;
        peer.sender(1, DONE)?;
        peer.consumer(2, JOBS)?;
        while !stop.load(Ordering::Relaxed) {
            let count = u32::try_from(random.between(1, 4))?;
            peer.credit(2, count, false)?;
            let mut jobs = Vec::new();
            while jobs.len() < count as usize {
                let heard = peer.next_within(LOOK_EVERY)?;
                if let Some(Heard::Delivery { id, value, before }) = heard {
                    jobs.push((id, self.delivered(&value)?, value, before));
                } else if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            let txn = peer.declare(0)?;
            for (id, _, value, _) in &jobs {
                let sent = peer.transfer(1, value, Some(&txn))?;
                ensure!(
                    peer.outcome(sent)? == Outcome::InTransaction,
                    "no part of it"
                );
                peer.accept_in(*id, &txn)?;
            }
            // What is delivered again counts: it is not rolled back twice, as it would be given up in the end.
            let is_first = jobs.iter().all(|(.., before)| *before == 0);
            let fails = is_first && random.between(0, ROLLED_BACK) == 0;
            let discharged = peer.discharge(0, &txn, fails)?;
            let outcome = peer.outcome(discharged)?;
            ensure!(outcome == Outcome::Accepted, "a discharge: {outcome:?}");
            if !fails {
                for (_, message, ..) in jobs {
                    held(&self.sent)[message].is_moved = true;
                }
            }
        }
        Ok(())
    }

    /// Judges everything that the broker shows now, by the Kafka protocol at `kafka` and by AMQP at `address`. The load must not run.
    pub fn judge(&self, kafka: &str, address: &str) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let mut probe = Probe::connect(kafka)?;
        let jobs = self.records(&mut probe, (JOBS, 0), &mut judgement)?;
        let done = self.records(&mut probe, (DONE, 1), &mut judgement)?;
        let unfinished = self.unfinished(address)?;
        let sent = held(&self.sent);
        let mut failures = Vec::new();
        for producer in 0..PRODUCERS {
            let order = jobs.iter().filter(|id| sent[**id].producer == producer);
            if !order.is_sorted_by(|one, next| one < next) {
                failures.push(format!("Q2 {}: not in order", name_of(producer)));
            }
        }
        let places = |ids: &[usize]| ids.iter().copied().collect::<HashSet<_>>();
        let (in_jobs, in_done) = (places(&jobs), places(&done));
        for (name, again) in [
            ("Q1", jobs.len() - in_jobs.len()),
            ("T2", done.len() - in_done.len()),
        ] {
            if again > 0 {
                failures.push(format!("{name} {again} messages stand there twice"));
            }
        }
        for (id, message) in sent.iter().enumerate() {
            let is_there = in_jobs.contains(&id);
            let (is_done, is_open) = (in_done.contains(&id), unfinished.contains(&id));
            judgement.checked += u64::from(message.is_accepted);
            let lost = match () {
                () if message.is_accepted && !is_there => "Q1 it was accepted and is not there",
                () if message.is_finished && is_open => "Q5 it was finished and is in the queue",
                () if message.is_moved && !is_done => "T1 it was moved and is not there",
                () if is_done && is_open => "T2 it was moved and is in the queue",
                () if is_there && !is_open && !is_done && !message.is_taken => {
                    "Q6 nobody has taken it, and it is not in the queue"
                }
                () => continue,
            };
            judgement.lost += u64::from(lost.starts_with("Q1") || lost.starts_with("Q6"));
            failures.push(format!("{lost}: message {id}"));
        }
        drop(sent);
        failures.append(&mut held(&self.failures));
        judgement.failures.extend(failures);
        judgement.failures.truncate(20);
        Ok(judgement)
    }

    /// The numbers of the messages that a topic holds, partition by partition. Q3, Q4.
    fn records(
        &self,
        probe: &mut Probe,
        (topic, which): (&str, usize),
        judgement: &mut Judgement,
    ) -> Result<Vec<usize>> {
        let sent = held(&self.sent);
        let mut ids = Vec::new();
        for partition in 0..PARTITIONS {
            let contents = probe.read_all(topic, partition)?;
            for offset in self.shown.note(topic, partition, &contents) {
                let failure = format!("Q4 {topic}-{partition}: offset {offset} showed another one");
                judgement.failures.push(failure);
            }
            for seen in contents {
                let id = seen.id.and_then(|id| usize::try_from(id).ok());
                let known = id.and_then(|id| Some((id, sent.get(id)?)));
                match known.filter(|(_, sent)| sent.digests[which] == seen.digest) {
                    Some((id, _)) => ids.push(id),
                    None => judgement.failures.push(format!(
                        "Q3 {topic}-{partition}: offset {} holds what nobody sent",
                        seen.offset
                    )),
                }
            }
        }
        Ok(ids)
    }

    /// What a browser of the queue is sent.
    fn unfinished(&self, address: &str) -> Result<HashSet<usize>> {
        let mut peer = Peer::open(address)?;
        peer.browser(0, JOBS)?;
        peer.credit(0, MANY, true)?;
        let mut found = HashSet::new();
        loop {
            match peer.next()? {
                Heard::Delivery { value, .. } => {
                    found.insert(self.delivered(&value)?);
                }
                Heard::Flow(Some(0), Some(0)) => return Ok(found),
                _ => {}
            }
        }
    }
}

fn name_of(producer: usize) -> String {
    format!("producer-{producer}")
}
