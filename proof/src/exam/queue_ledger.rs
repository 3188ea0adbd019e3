//! What was sent to a queue over AMQP and what its clients were promised, kept outside the victim, and the judge of both.
//! Callers: the hand-made clients (`amqp`) and the JMS clients (`jms`) of a load; both work on the same queue.
//!
//! Q1 an accepted message is a record, once. Q2 a producer's messages stand in the order in which it sent them. Q3 nothing is there that
//! nobody sent. Q4 an offset never shows two messages over time. Q5 what a consumer has accepted, and was told so, is given to nobody again.
//! Q6 what nobody has accepted is still in the queue. T1 a commit that was answered is done, T2 and any other is done wholly or not at
//! all: a message is moved and gone from the queue, or neither.
//!
//! A client that sends a message again by itself after a lost connection (JMS over failover) may have stored it once more for each
//! loss that the message was under way at. Each of these records is a message of its own then: they are counted, and all rules hold for the counts.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use super::judge::Shown;
use super::ledger::{Digest, digest_of};
use super::load::{Judgement, held};
use super::probe::Probe;
use super::random::Random;

/// The queue, and where its messages are moved to.
pub const JOBS: &str = "amqp-jobs";
/// See [`JOBS`].
pub const DONE: &str = "amqp-done";
/// Of each of both.
pub const PARTITIONS: i32 = 2;
/// What is told of failures, at most.
const FAILURES_MAX: usize = 20;

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Among all producers of a queue.
    pub number: usize,
    /// Whether its client sends again by itself what a lost connection left unanswered.
    pub sends_again: bool,
}

impl Producer {
    /// Its name, which is its messages' key.
    pub fn name(self) -> String {
        format!("producer-{}", self.number)
    }
}

/// A message that was sent.
struct Sent {
    producer: Producer,
    /// As a record of the queue's topic, and moved.
    digests: [Digest; 2],
    is_under_way: bool,
    is_accepted: bool,
    /// How often it may have been sent again.
    again_max: u32,
    /// How often a consumer said that it takes it, and how often it was told that this is so.
    taken: u32,
    finished: u32,
    /// How often a consumer acknowledged it since the last fault began, and cannot know whether that was stored.
    acknowledged: u32,
    /// How often a transaction that moved it was committed, and answered.
    moved: u32,
}

/// How often a message stands in the queue's topic and where it is moved to, and how often a browser of the queue is sent it.
#[derive(Clone, Copy)]
struct Places {
    there: u32,
    done: u32,
    open: u32,
}

impl Sent {
    /// What of it does not hold.
    fn wrong(&self, Places { there, done, open }: Places) -> Option<&'static str> {
        Some(match () {
            () if self.is_accepted && there == 0 => "Q1 it was accepted and is not there",
            () if there > 1 + self.again_max => "Q1 it stands there too often",
            () if self.moved > done => "T1 it was moved and is not there",
            () if done > there => "T2 it was moved too often",
            () if done + open > there => "T2 it was moved and is in the queue",
            () if self.finished + done + open > there => {
                "Q5 it was finished, and is in the queue or moved"
            }
            () if there > open + done + self.taken => {
                "Q6 nobody has taken it, and it is not in the queue"
            }
            () => return None,
        })
    }
}

/// What was sent to a queue, and promised to its clients.
#[derive(Default)]
pub struct QueueLedger {
    sent: Mutex<Vec<Sent>>,
    shown: Shown,
    failures: Mutex<Vec<String>>,
    hurt: AtomicBool,
    faults: AtomicU32,
}

impl QueueLedger {
    /// The fault begins: from here until [`QueueLedger::fault_ends`] the end of a connection is no fault of the broker's.
    pub fn fault_begins(&self) {
        let mut sent = held(&self.sent);
        self.hurt.store(true, Ordering::SeqCst);
        self.faults.fetch_add(1, Ordering::SeqCst);
        for message in sent.iter_mut() {
            message.again_max += u32::from(message.is_under_way);
            message.acknowledged = 0;
        }
    }

    /// The broker is well.
    pub fn fault_ends(&self) {
        self.hurt.store(false, Ordering::SeqCst);
    }

    /// Whether the broker is being hurt.
    pub fn is_hurt(&self) -> bool {
        self.hurt.load(Ordering::SeqCst)
    }

    /// How many faults have begun.
    pub fn faults(&self) -> u32 {
        self.faults.load(Ordering::SeqCst)
    }

    /// Notes what did not hold.
    pub fn fail(&self, failure: String) {
        let mut failures = held(&self.failures);
        if failures.len() < FAILURES_MAX {
            failures.push(failure);
        }
    }

    /// Writes a new message down before it is sent. Gives its number and its value, which begins with it.
    pub fn write_down(
        &self,
        producer: Producer,
        bytes: usize,
        random: &mut Random,
    ) -> (usize, Vec<u8>) {
        let mut sent = held(&self.sent);
        let id = sent.len();
        let mut value = format!("{id:016x}").into_bytes();
        value.resize(bytes.max(16), 0);
        random.fill(&mut value[16..]);
        sent.push(Sent {
            producer,
            digests: [producer.name().as_bytes(), b""].map(|key| digest_of(key, &value)),
            is_under_way: producer.sends_again,
            is_accepted: false,
            again_max: u32::from(producer.sends_again && self.is_hurt()),
            taken: 0,
            finished: 0,
            acknowledged: 0,
            moved: 0,
        });
        (id, value)
    }

    fn note(&self, id: usize, what: impl FnOnce(&mut Sent)) {
        let mut sent = held(&self.sent);
        what(sent.get_mut(id).expect("a message is written down first"));
    }

    /// The message was accepted.
    pub fn accepted(&self, id: usize) {
        self.note(id, |message| {
            message.is_under_way = false;
            message.is_accepted = true;
        });
    }

    /// Its client gave it up: it is stored or not.
    pub fn given_up(&self, id: usize) {
        self.note(id, |message| message.is_under_way = false);
    }

    /// A consumer says that it takes the message.
    pub fn taken(&self, id: usize) {
        self.note(id, |message| message.taken += 1);
    }

    /// It was told that it has it for good.
    pub fn finished(&self, id: usize) {
        self.note(id, |message| message.finished += 1);
    }

    /// A consumer acknowledged the message, and was told nothing: as long as nothing hurts the broker, it keeps it.
    pub fn acknowledged(&self, id: usize) {
        let is_hurt = self.is_hurt();
        self.note(id, |message| message.acknowledged += u32::from(!is_hurt));
    }

    /// A transaction that moved the message was committed.
    pub fn moved(&self, id: usize) {
        self.note(id, |message| message.moved += 1);
    }

    /// The number of a message that was delivered, unchanged; Q3 and Q5.
    pub fn delivered(&self, value: &[u8]) -> Result<usize> {
        let id = super::ledger::id_of(value).context("a message that nobody sent")?;
        let id = usize::try_from(id)?;
        let sent = held(&self.sent);
        let found = sent.get(id).context("a message that nobody sent")?;
        let is_it = digest_of(found.producer.name().as_bytes(), value) == found.digests[0];
        ensure!(is_it, "message {id} is not what was sent");
        if found.finished + found.acknowledged + found.moved > found.again_max {
            self.fail(format!("Q5 message {id} was done with, and came again"));
        }
        Ok(id)
    }

    /// Judges what the broker shows now over the Kafka protocol, and what a browser of the queue is sent. Nobody may be at work.
    pub fn judge(&self, kafka: &str, unfinished: &[usize]) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let mut probe = Probe::connect(kafka)?;
        let jobs = self.records(&mut probe, (JOBS, 0), &mut judgement)?;
        let done = self.records(&mut probe, (DONE, 1), &mut judgement)?;
        let sent = held(&self.sent);
        let mut failures = out_of_order(&sent, &jobs);
        let [in_jobs, in_done, open] = [&jobs, &done, unfinished].map(counted);
        for (id, message) in sent.iter().enumerate() {
            let of = |counts: &HashMap<usize, u32>| counts.get(&id).copied().unwrap_or_default();
            let (there, done, open) = (of(&in_jobs), of(&in_done), of(&open));
            judgement.checked += u64::from(message.is_accepted);
            let Some(wrong) = message.wrong(Places { there, done, open }) else {
                continue;
            };
            let is_lost = there == 0 || wrong.starts_with("Q6");
            judgement.lost += u64::from(is_lost);
            failures.push(format!("{wrong}: message {id}"));
        }
        drop(sent);
        failures.append(&mut held(&self.failures));
        judgement.failures.extend(failures);
        judgement.failures.truncate(FAILURES_MAX);
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
}

/// Q2: what was sent again stands behind itself; how often it may is judged by Q1.
fn out_of_order(sent: &[Sent], jobs: &[usize]) -> Vec<String> {
    let mut last: HashMap<usize, usize> = HashMap::new();
    let mut failures = Vec::new();
    for id in jobs {
        let producer = sent[*id].producer;
        let before = last.insert(producer.number, *id).unwrap_or_default();
        if *id < before {
            let name = producer.name();
            failures.push(format!("Q2 {name}: message {id} stands behind {before}"));
        }
    }
    failures
}

fn counted(ids: &[usize]) -> HashMap<usize, u32> {
    let mut counts = HashMap::new();
    for id in ids {
        *counts.entry(*id).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Sent {
        Sent {
            producer: Producer {
                number: 0,
                sends_again: true,
            },
            digests: [[0; 32]; 2],
            is_under_way: false,
            is_accepted: true,
            again_max: 0,
            taken: 0,
            finished: 0,
            acknowledged: 0,
            moved: 0,
        }
    }

    fn check(sent: Sent, [there, done, open]: [u32; 3], expected: Option<&str>) {
        let wrong = sent.wrong(Places { there, done, open });
        assert_eq!(wrong.and_then(|it| it.split(' ').next()), expected);
    }

    #[test]
    fn each_rule_has_a_message_that_breaks_it() {
        check(message(), [1, 0, 1], None);
        check(message(), [0, 0, 0], Some("Q1"));
        check(message(), [2, 0, 2], Some("Q1"));
        check(message(), [1, 0, 0], Some("Q6"));
        check(message(), [1, 1, 0], None);
        check(message(), [1, 1, 1], Some("T2"));
        check(message(), [1, 2, 0], Some("T2"));
        let taken = || Sent {
            taken: 1,
            ..message()
        };
        check(taken(), [1, 0, 0], None);
        check(taken(), [1, 0, 1], None);
        let finished = || Sent {
            finished: 1,
            ..taken()
        };
        check(finished(), [1, 0, 0], None);
        check(finished(), [1, 0, 1], Some("Q5"));
        check(finished(), [1, 1, 0], Some("Q5"));
        let moved = || Sent {
            moved: 1,
            ..message()
        };
        check(moved(), [1, 1, 0], None);
        check(moved(), [1, 0, 1], Some("T1"));
        let unknown = Sent {
            is_accepted: false,
            ..message()
        };
        check(unknown, [0, 0, 0], None);
    }

    #[test]
    fn what_was_sent_again_counts_as_often_as_it_may_stand_there() {
        let again = || Sent {
            again_max: 1,
            taken: 1,
            finished: 1,
            ..message()
        };
        check(again(), [1, 0, 0], None);
        check(again(), [2, 0, 1], None);
        check(again(), [2, 1, 0], None);
        check(again(), [2, 0, 2], Some("Q5"));
        check(again(), [2, 1, 1], Some("Q5"));
        check(again(), [3, 0, 2], Some("Q1"));
        let untaken = Sent {
            again_max: 1,
            ..message()
        };
        check(untaken, [2, 1, 0], Some("Q6"));
    }

    #[test]
    fn only_what_is_under_way_at_a_fault_may_be_sent_again() {
        let (ledger, mut random) = (QueueLedger::default(), Random::new(7));
        let again = Producer {
            number: 3,
            sends_again: true,
        };
        let (settled, _) = ledger.write_down(again, 20, &mut random);
        ledger.accepted(settled);
        let (open, value) = ledger.write_down(again, 20, &mut random);
        ledger.fault_begins();
        let (during, _) = ledger.write_down(again, 20, &mut random);
        let sent = held(&ledger.sent);
        let counts = [settled, open, during].map(|id| sent[id].again_max);
        assert_eq!(counts, [0, 1, 1]);
        drop(sent);
        for _ in 0..2 {
            ledger.delivered(&value).unwrap();
            ledger.finished(open);
        }
        assert!(held(&ledger.failures).is_empty());
        ledger.delivered(&value).unwrap();
        assert_eq!(held(&ledger.failures).len(), 1);
        let mut changed = value;
        changed[17] ^= 1;
        assert!(ledger.delivered(&changed).is_err());
    }
}
