//! JMS clients in a load over AMQP: a program of Qpid JMS (`tests/compat/java/Fleet.java`) with two producers, a consumer in a transacted
//! session, one that acknowledges, and one that moves messages to another topic in transactions. Its connections fail over: it lives on while the
//! broker is killed, and comes back by itself.
//! Caller: `amqp`, whose hand-made clients work on the same queue; what is promised to all of them stands in one ledger.
//!
//! Each client has a lane of one conversation: it asks, and goes on when it is answered, so that the ledger has everything down in order. A
//! message is written down here before its value is given out. Lines of the program are `@LANE VERB WORDS…`, answers `LANE WORDS…`:
//!
//! ```text
//! go                   between two pieces of work; answered when the load is at work         -> go
//! send                 a message, please                                                     -> NAME ID VALUE
//! sent ID              its send returned
//! unsent ID WHY        its send failed: stored or not
//! got VALUE            a consumer has it                                                     -> ID
//! takes ID…            it commits or acknowledges next
//! finished ID…         its commit returned
//! acknowledged ID…     its acknowledgement returned, which waits for nothing
//! moved ID…            the commit of a transaction that moved them returned
//! trouble WHY          an exception
//! ```
//!
//! Values are in hexadecimal. Without an answer: `@interrupted` and `@restored`, of connections.
//! Invariant: at rest every lane waits for its next `go`; nothing is half done then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use model::hex::{from_hex, to_hex};

use super::Outcome;
use super::load::held;
use super::queue_ledger::{DONE, JOBS, Producer, QueueLedger};
use super::random::Random;
use crate::compat::clients::{JMS_KIT, JMS_PROJECT, Program};
use crate::compat::install::{self, Places};
use crate::compat::session;

/// Lanes of the program, in its order.
const PRODUCERS: usize = 2;
const LANES: usize = 5;
/// How long lanes may take until they rest: over a fault, a client connects again first.
const REST_MAX: Duration = Duration::from_secs(60);
const VALUE_BYTES_MAX: u64 = 300;

/// How a fleet is started.
pub struct Plan {
    /// Of all random choices.
    pub seed: u64,
    /// The number of its first producer; hand-made ones have those before it.
    pub first_producer: usize,
    /// Whether anything is taken out of the queue.
    pub consumes: bool,
    /// Where the program's own words go.
    pub log: PathBuf,
}

/// The JMS clients of a load. They end when this goes out of scope.
pub struct Fleet {
    child: Mutex<Child>,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    ledger: Arc<QueueLedger>,
    first_producer: usize,
    lanes: usize,
    random: Mutex<Random>,
    state: Mutex<State>,
    changed: Condvar,
    replies: Mutex<ChildStdin>,
    log: PathBuf,
}

#[derive(Default)]
struct State {
    is_at_work: bool,
    /// What each lane said last.
    said: BTreeMap<usize, String>,
    /// How often each producer's messages were accepted.
    accepted: [u64; PRODUCERS],
    restored: u64,
    /// What the consumers of the fleet did, and the exceptions that any of them saw.
    finished: u64,
    acknowledged: u64,
    moved: u64,
    exceptions: u64,
    /// Whether the program has ended, and why.
    ended: Option<String>,
}

impl State {
    fn is_at_rest(&self, lanes: usize) -> bool {
        self.said.len() == lanes && self.said.values().all(|said| said == "go")
    }
}

impl Fleet {
    /// Starts the clients, and waits until each is connected and rests. Java and Maven get what is missing; if they cannot, it is an error.
    pub fn start(plan: &Plan, address: &str, ledger: &Arc<QueueLedger>) -> Result<Fleet> {
        let places = Places::find();
        install::install(&places, [JMS_KIT]).context("the clients of JMS")?;
        let program = Program::Java {
            project: JMS_PROJECT,
            class: "Fleet",
        };
        let log = File::options().create(true).append(true).open(&plan.log)?;
        let lanes = if plan.consumes { LANES } else { PRODUCERS };
        let mut child = session::program(&program, &places)?
            .args([address, JOBS, DONE])
            .arg(plan.seed.to_string())
            .arg(lanes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start the clients of JMS")?;
        let replies = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let shared = Arc::new(Shared {
            ledger: ledger.clone(),
            first_producer: plan.first_producer,
            lanes,
            random: Mutex::new(Random::new(plan.seed.rotate_left(29))),
            state: Mutex::default(),
            changed: Condvar::new(),
            replies: Mutex::new(replies),
            log: plan.log.clone(),
        });
        let reading = shared.clone();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let why = match reading.converse(lines) {
                Ok(()) => "it ended by itself".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            held(&reading.state).ended = Some(why);
            reading.changed.notify_all();
        });
        let fleet = Fleet {
            child: Mutex::new(child),
            shared,
            reader: Some(reader),
        };
        fleet.wait_for_rest()?;
        Ok(fleet)
    }

    /// They go to work, or go on.
    pub fn work(&self) -> Result<()> {
        let mut state = held(&self.shared.state);
        self.shared.require_alive(&state)?;
        if !std::mem::replace(&mut state.is_at_work, true) {
            let resting: Vec<usize> = { state.said.iter() }
                .filter(|(_, said)| *said == "go")
                .map(|(lane, _)| *lane)
                .collect();
            for lane in resting {
                state.said.insert(lane, "at work".to_owned());
                self.shared.reply(lane, "go")?;
            }
        }
        Ok(())
    }

    /// Brings them to rest. An error if one does not come to it: it did not come back from a fault, or hangs.
    pub fn rest(&self) -> Result<()> {
        held(&self.shared.state).is_at_work = false;
        self.wait_for_rest()
    }

    fn wait_for_rest(&self) -> Result<()> {
        let deadline = Instant::now() + REST_MAX;
        let shared = &*self.shared;
        let mut state = held(&shared.state);
        while !state.is_at_rest(shared.lanes) {
            shared.require_alive(&state)?;
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                let said = state.said.iter().filter(|(_, said)| *said != "go");
                let said: Vec<String> =
                    said.map(|(lane, said)| format!("{lane}: {said}")).collect();
                bail!(
                    "clients of JMS did not come to rest within {REST_MAX:?}; what they said last: {}; their log: {}",
                    said.join(", "),
                    shared.log.display()
                );
            }
            let waited = shared.changed.wait_timeout(state, rest);
            state = waited.expect("no thread of the load panics").0;
        }
        Ok(())
    }

    /// An error if the program is gone.
    pub fn require_alive(&self) -> Result<()> {
        self.shared.require_alive(&held(&self.shared.state))
    }

    /// How many messages of each producer were accepted so far.
    pub fn accepted(&self) -> Vec<u64> {
        held(&self.shared.state).accepted.to_vec()
    }

    /// Puts into the case's outcome what they did.
    pub fn conclude(&self, outcome: &mut Outcome) {
        let state = held(&self.shared.state);
        let accepted: u64 = state.accepted.iter().sum();
        let mut must = vec![("sent", accepted)];
        if self.shared.lanes == LANES {
            must.extend([
                ("received in transactions", state.finished),
                ("acknowledged", state.acknowledged),
                ("moved", state.moved),
            ]);
        }
        for (what, count) in &must {
            outcome.require(*count > 0, || {
                format!("nothing was {what} over JMS: that proves nothing")
            });
        }
        let did: Vec<String> = must
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        outcome.notes.push(format!(
            "messages of JMS: {}; its connections were restored {} times, and {} exceptions came of that",
            did.join(", "),
            state.restored,
            state.exceptions
        ));
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let mut child = held(&self.child);
        let _ = child.kill();
        let _ = child.wait();
        if let Some(reader) = self.reader.take() {
            // It ends with the program's stdout.
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn require_alive(&self, state: &State) -> Result<()> {
        match &state.ended {
            Some(why) => bail!(
                "the clients of JMS are gone: {why}; their log: {}",
                self.log.display()
            ),
            None => Ok(()),
        }
    }

    fn reply(&self, lane: usize, words: &str) -> Result<()> {
        writeln!(held(&self.replies), "{lane} {words}").context("the clients of JMS are gone")
    }

    fn converse(&self, lines: impl Iterator<Item = String>) -> Result<()> {
        let mut log = File::options().append(true).open(&self.log)?;
        for line in lines {
            let Some(line) = line.strip_prefix('@') else {
                writeln!(log, "{line}")?;
                continue;
            };
            match line {
                "interrupted" => {
                    if self.ledger.faults() == 0 {
                        let failure =
                            "a JMS client lost its connection, and nothing hurt the broker";
                        self.ledger.fail(failure.to_owned());
                    }
                }
                "restored" => held(&self.state).restored += 1,
                _ => self
                    .answer(line, &mut log)
                    .with_context(|| format!("JMS client {line}"))?,
            }
        }
        Ok(())
    }

    fn answer(&self, line: &str, log: &mut File) -> Result<()> {
        let (lane, said) = line.split_once(' ').context("no words")?;
        let lane: usize = lane.parse()?;
        let (verb, rest) = said.split_once(' ').unwrap_or((said, ""));
        {
            let mut state = held(&self.state);
            let is_asleep = verb == "go" && !state.is_at_work;
            state.said.insert(lane, said.to_owned());
            if is_asleep {
                drop(state);
                self.changed.notify_all();
                return Ok(());
            }
            if verb == "go" {
                state.said.insert(lane, "at work".to_owned());
            }
        }
        let each = |note: fn(&QueueLedger, usize)| -> Result<u64> {
            let ids: Vec<usize> = rest.split(' ').map(number).collect::<Result<_>>()?;
            ids.iter().for_each(|id| note(&self.ledger, *id));
            Ok(ids.len() as u64)
        };
        let reply = match verb {
            "go" => "go".to_owned(),
            "send" => self.message_of(lane)?,
            "sent" => {
                self.ledger.accepted(number(rest)?);
                held(&self.state).accepted[lane] += 1;
                "ok".to_owned()
            }
            "unsent" => {
                let (id, why) = rest.split_once(' ').unwrap_or((rest, ""));
                self.ledger.given_up(number(id)?);
                self.trouble(lane, why, log)?
            }
            "got" => {
                let value = from_hex(rest).context("no value")?;
                match self.ledger.delivered(&value) {
                    Ok(id) => id.to_string(),
                    Err(error) => {
                        self.ledger
                            .fail(format!("Q3 a JMS client was given {error:#}"));
                        bail!("{error:#}");
                    }
                }
            }
            "takes" => {
                each(QueueLedger::taken)?;
                "ok".to_owned()
            }
            "finished" => {
                let count = each(QueueLedger::finished)?;
                held(&self.state).finished += count;
                "ok".to_owned()
            }
            "acknowledged" => {
                let count = each(QueueLedger::acknowledged)?;
                held(&self.state).acknowledged += count;
                "ok".to_owned()
            }
            "moved" => {
                let count = each(QueueLedger::moved)?;
                held(&self.state).moved += count;
                "ok".to_owned()
            }
            "trouble" => self.trouble(lane, rest, log)?,
            _ => bail!("an unknown word"),
        };
        self.reply(lane, &reply)
    }

    /// The next message of a producer, written down.
    fn message_of(&self, lane: usize) -> Result<String> {
        let producer = Producer {
            number: self.first_producer + lane,
            sends_again: true,
        };
        let mut random = held(&self.random);
        let bytes = usize::try_from(random.between(16, VALUE_BYTES_MAX))?;
        let (id, value) = self.ledger.write_down(producer, bytes, &mut random);
        Ok(format!("{} {id} {}", producer.name(), to_hex(&value)))
    }

    /// An exception, which only a fault may cause.
    fn trouble(&self, lane: usize, why: &str, log: &mut File) -> Result<String> {
        writeln!(log, "lane {lane}: {why}")?;
        held(&self.state).exceptions += 1;
        if !self.ledger.is_hurt() {
            let failure = format!("a JMS client was refused while nothing hurt the broker: {why}");
            self.ledger.fail(failure);
        }
        Ok("ok".to_owned())
    }
}

fn number(text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("no number: {text}"))
}
