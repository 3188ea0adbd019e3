//! The AMQP door of a load: producers, a consumer of a queue, and one that moves messages from the queue to another topic in transactions, beside
//! the clients of the Kafka protocol. What they were promised is judged after each crash by what the topics show to a consumer of the
//! Kafka protocol, and by what a browser of the queue is sent.
//! Callers: the crash cases, those of disks that fail or are full, those of hostile clients, and the control. It outlives the broker, as `load` does; each begin is
//! new connections.
//!
//! With `--jms` real JMS clients work on the same queue (`jms`). What all of them were promised is in the `queue_ledger`, which judges it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use wire::ErrorCode;
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use super::jms::{self, Fleet};
use super::load::{Judgement, Running, held};
use super::probe::Probe;
use super::queue_ledger::{DONE, JOBS, PARTITIONS, Producer, QueueLedger};
use super::random::Random;
use super::{Exam, Outcome as CaseOutcome};
use crate::amqp_client::peer::{Heard, Outcome, Peer};

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

/// The group of a queue's consumers, and how often it may be given a message: at each kill it has some that it has not taken yet.
const GROUP: &str = "queue";
const DELIVERIES_MAX: &str = "25";
const GROUP_RESOURCE: i8 = 32;

/// The load over AMQP and its memory.
pub struct AmqpLoad {
    ledger: Arc<QueueLedger>,
    random: Vec<Mutex<Random>>,
    /// Whether anything is taken out of the queue.
    consumes: bool,
    /// How JMS clients are started, if there are to be any, and they.
    jms: Option<jms::Plan>,
    fleet: Mutex<Option<Fleet>>,
}

impl AmqpLoad {
    /// A load that has done nothing yet, random under the exam's seed, with JMS clients if the exam is to have them.
    pub fn new(exam: &Exam) -> Arc<AmqpLoad> {
        AmqpLoad::of(exam, exam.seed, true)
    }

    /// One of a round of its own whose messages nobody takes: what is settled is synced always, and would take the records before it along.
    pub fn without_consumers(exam: &Exam, round: u32) -> Arc<AmqpLoad> {
        AmqpLoad::of(exam, exam.seed + u64::from(round), false)
    }

    fn of(exam: &Exam, seed: u64, consumes: bool) -> Arc<AmqpLoad> {
        let random = (0..=PRODUCERS as u64).map(|at| Mutex::new(Random::new(seed ^ (at + 77))));
        let plan = || jms::Plan {
            seed,
            first_producer: PRODUCERS,
            consumes,
            log: exam.work.join("jms.log"),
        };
        Arc::new(AmqpLoad {
            ledger: Arc::default(),
            random: random.collect(),
            consumes,
            jms: exam.has_jms.then(plan),
            fleet: Mutex::default(),
        })
    }

    /// Makes its topics, with these settings.
    pub fn create_topics(&self, kafka: &str, settings: &[(&str, &str)]) -> Result<()> {
        let mut probe = Probe::connect(kafka)?;
        probe.create_topic(JOBS, PARTITIONS, settings)?;
        probe.create_topic(DONE, PARTITIONS, settings)?;
        if self.jms.is_some() {
            // They take some messages along and do nothing with them yet: a kill gives them back, and counts.
            let error = set_deliveries_max(&mut probe)?;
            ensure!(error == ErrorCode::None, "the group: {}", error.name());
        }
        Ok(())
    }

    /// Begins to load the broker that speaks AMQP at `address`. Threads end when they are told to, or when the broker goes away.
    pub fn begin(self: &Arc<AmqpLoad>, address: &str) -> Result<Running> {
        self.begin_jms(address)?;
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
                if let (Err(error), false) = (ended, load.ledger.is_hurt()) {
                    load.ledger
                        .fail(format!("a client of AMQP gave up: {error:#}"));
                }
            }));
        }
        Ok(Running::new(stop, threads))
    }

    /// JMS clients begin, or go on, if there are any. They come back by themselves over a fault and rest when it is judged.
    pub fn begin_jms(&self, address: &str) -> Result<()> {
        let mut fleet = held(&self.fleet);
        if let (None, Some(plan)) = (&*fleet, &self.jms) {
            *fleet = Some(Fleet::start(plan, address, &self.ledger)?);
        }
        self.ledger.fault_ends();
        fleet.as_ref().map_or(Ok(()), Fleet::work)
    }

    /// The fault begins: from here until the next begin the end of a connection is no fault of the broker's.
    pub fn fault_begins(&self) {
        self.ledger.fault_begins();
    }

    /// Whether a message of each JMS producer is accepted from now on, within this time; without JMS clients it is so.
    pub fn jms_goes_on(&self, within: Duration) -> Result<bool> {
        let fleet = held(&self.fleet);
        let Some(fleet) = &*fleet else {
            return Ok(true);
        };
        let before = fleet.accepted();
        let deadline = Instant::now() + within;
        while !fleet
            .accepted()
            .iter()
            .zip(&before)
            .all(|(now, before)| now > before)
        {
            fleet.require_alive()?;
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(true)
    }

    /// Puts into the case's outcome what JMS clients did, if there are any; a case in which they did nothing proves nothing.
    pub fn conclude(&self, outcome: &mut CaseOutcome) {
        if let Some(fleet) = &*held(&self.fleet) {
            fleet.conclude(outcome);
        }
    }

    fn produce(&self, producer: usize, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut random = held(&self.random[producer]);
        let mut peer = Peer::open(address)?;
        let producer = hand_made(producer);
        peer.sender(0, &target_of(producer))?;
        while !stop.load(Ordering::Relaxed) {
            let mut unsettled = HashMap::new();
            for _ in 0..random.between(1, WINDOW_MAX + 1) {
                let bytes = usize::try_from(random.between(16, VALUE_BYTES_MAX))?;
                let (id, value) = self.ledger.write_down(producer, bytes, &mut random);
                unsettled.insert(peer.transfer(0, &value, None)?, id);
            }
            while !unsettled.is_empty() {
                let Heard::Settled(first, last, Outcome::Accepted, true) = peer.next()? else {
                    continue;
                };
                for delivery in first..=last {
                    if let Some(id) = unsettled.remove(&delivery) {
                        self.ledger.accepted(id);
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
        let producer = hand_made(0);
        peer.sender(0, &target_of(producer))?;
        let (id, value) = self.ledger.write_down(producer, value_bytes, &mut random);
        let delivery = peer.transfer(0, &value, None)?;
        match peer.outcome(delivery)? {
            Outcome::Accepted => {
                self.ledger.accepted(id);
                Ok(true)
            }
            Outcome::Released => Ok(false),
            other => bail!("a message came to {other:?}"),
        }
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
                    let message = self.ledger.delivered(&value)?;
                    self.ledger.taken(message);
                    taken.insert(id, message);
                    peer.accept(id)?;
                    if peer.received().is_multiple_of(CREDIT / 2) {
                        peer.credit(0, CREDIT, false)?;
                    }
                }
                Heard::Settled(first, last, Outcome::Accepted, false) => {
                    for message in (first..=last).filter_map(|id| taken.remove(&id)) {
                        self.ledger.finished(message);
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
                    jobs.push((id, self.ledger.delivered(&value)?, value, before));
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
                    self.ledger.moved(message);
                }
            }
        }
        Ok(())
    }

    /// Judges everything that the broker shows now, by the Kafka protocol at `kafka` and by AMQP at `address`. The threads of the load
    /// must not run; JMS clients are brought to rest, which each has to come to.
    pub fn judge(&self, kafka: &str, address: &str) -> Result<Judgement> {
        if let Some(fleet) = &*held(&self.fleet) {
            fleet.rest()?;
        }
        self.ledger.judge(kafka, &self.unfinished(address)?)
    }

    /// What a browser of the queue is sent.
    fn unfinished(&self, address: &str) -> Result<Vec<usize>> {
        let mut peer = Peer::open(address)?;
        peer.browser(0, JOBS)?;
        peer.credit(0, MANY, true)?;
        let mut found = Vec::new();
        loop {
            match peer.next()? {
                Heard::Delivery { value, .. } => {
                    found.push(self.ledger.delivered(&value)?);
                }
                Heard::Flow(Some(0), Some(0)) => return Ok(found),
                _ => {}
            }
        }
    }
}

fn hand_made(number: usize) -> Producer {
    Producer {
        number,
        sends_again: false,
    }
}

fn target_of(producer: Producer) -> String {
    format!("{JOBS}/Publishers/{}", producer.name())
}

fn set_deliveries_max(probe: &mut Probe) -> Result<ErrorCode> {
    let config = AlterableConfig {
        name: "share.delivery.count.limit".to_owned(),
        config_operation: 0,
        value: Some(DELIVERIES_MAX.to_owned()),
    };
    let resource = AlterConfigsResource {
        resource_type: GROUP_RESOURCE,
        resource_name: GROUP.to_owned(),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        ..IncrementalAlterConfigsRequest::default()
    };
    let response = probe.call(1, &request)?;
    let answer = response.responses.first();
    let code = answer.context("no resource in the answer")?.error_code;
    Ok(ErrorCode::from_code(code))
}
