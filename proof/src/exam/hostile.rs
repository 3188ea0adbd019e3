//! Hostile clients: connections that send what no client would, many at a time, beside an honest load; and an eye on what the
//! broker's memory does meanwhile.
//! Callers: the cases of lying and fuzzed bytes. Invariant: an attacker waits for nothing longer than [`PATIENCE`], so that an
//! answer that never comes is counted, and holds up nobody.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketType};

use super::amqp::AmqpLoad;
use super::load::{Load, LoadPlan, Running};
use super::victim::{Plan, Victim};
use super::{Exam, Outcome};

/// Attackers at a time.
const ATTACKERS: usize = 16;
/// How long an attacker waits for an answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What came of inputs.
#[derive(Debug, Default)]
pub struct Tally {
    /// Inputs.
    pub sent: u64,
    /// Those that the broker said something to.
    pub answered: u64,
    /// Those for which it closed the connection without a word.
    pub closed: u64,
    /// Those for which it waited for more, or for a moment that had not come.
    pub waiting: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.closed += other.closed;
        self.waiting += other.waiting;
    }
}

impl Tally {
    /// Requires that the broker took up some inputs and refused others: an attack of which all is answered alike is none.
    pub fn require(&self, outcome: &mut Outcome) {
        let Tally {
            answered, closed, ..
        } = self;
        outcome.require(*answered > 0 && *closed > 0, || {
            format!("{answered} inputs were answered and {closed} refused: the attack was none")
        });
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally {
            answered,
            closed,
            waiting,
            ..
        } = self;
        write!(
            f,
            "{answered} answered, {closed} closed, {waiting} left waiting"
        )
    }
}

/// A connection from this address of the machine itself, so that attackers can be told from others. They wait for some
/// seconds: who is slowed down is not cut off by that.
pub fn from_address(from: Ipv4Addr, to: &str) -> Result<TcpStream> {
    let to: SocketAddr = to
        .parse()
        .with_context(|| format!("not an address: {to}"))?;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(from, 0)).context("a port of our own")?;
    rustix::net::connect(&socket, &to).context("an attacker's connection")?;
    Ok(TcpStream::from(socket))
}

/// A request's bytes on the wire: the frame behind its length.
pub fn framed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), frame].concat()
}

/// The shortest question on the wire: ApiVersions in version 0, which is its key, version, correlation id and no client id.
pub fn shortest_question() -> Vec<u8> {
    framed(&[0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff])
}

/// Sends each input on a connection of its own. An error if the broker takes no connections any more.
pub fn attack(address: &str, inputs: &[Vec<u8>]) -> Result<Tally> {
    let next = AtomicUsize::new(0);
    let [answered, closed, waiting] = [const { AtomicU64::new(0) }; 3];
    let one = || -> Result<()> {
        while let Some(input) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let counter = match send(address, input)? {
                Some(true) => &answered,
                Some(false) => &closed,
                None => &waiting,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let attackers: Vec<_> = (0..ATTACKERS).map(|_| scope.spawn(one)).collect();
        attackers
            .into_iter()
            .try_for_each(|attacker| attacker.join().expect("no attacker panics"))
    })?;
    Ok(Tally {
        sent: inputs.len() as u64,
        answered: answered.into_inner(),
        closed: closed.into_inner(),
        waiting: waiting.into_inner(),
    })
}

/// Whether the broker answered before it closed the connection; None if it did neither in time.
fn send(address: &str, input: &[u8]) -> Result<Option<bool>> {
    let mut stream = TcpStream::connect(address).context("an attacker's connection")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // It may be closed before all of it is sent; what the broker said before that can still be read.
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let mut buffer = [0; 4096];
    let mut answered = None;
    // To the end: who goes with the first answer would keep the broker from what comes behind that.
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Some(answered.is_some())),
            Ok(_) => answered = Some(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(answered);
            }
            Err(_) => return Ok(Some(answered.is_some())),
        }
    }
}

/// A broker under attack while an honest load goes on.
pub struct Siege {
    /// The broker.
    pub victim: Victim,
    load: Arc<Load>,
    /// Who goes on over AMQP, and where.
    queue: Option<(Arc<AmqpLoad>, String)>,
    /// Anonymous memory under the honest load alone, in bytes.
    pub calm_bytes: u64,
}

impl Siege {
    /// Starts a broker of this plan and the honest load, and lets it run for a moment.
    pub fn of(exam: &Exam, plan: &Plan) -> Result<Siege> {
        Siege::beside(exam, plan, false)
    }

    /// The same where the honest are also clients of AMQP: producers, a consumer, and one that moves messages in transactions.
    pub fn with_amqp(exam: &Exam, plan: &Plan) -> Result<Siege> {
        Siege::beside(exam, plan, true)
    }

    fn beside(exam: &Exam, plan: &Plan, has_amqp: bool) -> Result<Siege> {
        let victim = plan.start()?;
        let load = Load::new(LoadPlan::default(), &exam.work, exam.seed)?;
        load.create_topics(&victim.kafka)?;
        let mut queue = None;
        if has_amqp {
            let load = AmqpLoad::new(exam);
            load.create_topics(&victim.kafka, &[])?;
            queue = Some((load, victim.other("AMQP")?));
        }
        let mut siege = Siege {
            victim,
            load,
            queue,
            calm_bytes: 0,
        };
        let running = siege.begin()?;
        thread::sleep(Duration::from_secs(1));
        running.into_iter().for_each(Running::finish);
        siege.calm_bytes = siege.victim.anonymous_bytes()?;
        Ok(siege)
    }

    /// The honest load goes on.
    fn begin(&self) -> Result<Vec<Running>> {
        let mut all = Vec::new();
        if let Some((load, address)) = &self.queue {
            all.push(load.begin(address)?);
        }
        all.push(self.load.begin(&self.victim.kafka));
        Ok(all)
    }

    /// Runs an attack beside the honest load. Answers what it answers, and the most anonymous memory meanwhile, in bytes.
    pub fn endure<T: Send>(&self, attack: impl FnOnce() -> Result<T> + Send) -> Result<(T, u64)> {
        let running = self.begin()?;
        let over = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut highest = 0;
                while !over.load(Ordering::Relaxed) {
                    // A broker that is gone is found out by the load.
                    highest = highest.max(self.victim.anonymous_bytes().unwrap_or(0));
                    thread::sleep(LOOK_EVERY);
                }
                highest
            });
            let result = attack();
            over.store(true, Ordering::Relaxed);
            let highest = watch.join().expect("the watch does not panic");
            result.map(|result| (result, highest))
        });
        running.into_iter().for_each(Running::finish);
        result
    }

    /// The broker is alive and well, and the honest load noticed nothing.
    pub fn end(mut self, outcome: &mut Outcome) -> Result<()> {
        let ended = self.victim.ended()?;
        outcome.require(ended.is_none(), || {
            format!("the broker ended: {}", self.victim.log_tail())
        });
        if ended.is_some() {
            return Ok(());
        }
        let refusals = self.load.refusals();
        outcome.require(refusals.is_empty(), || {
            format!("the honest load was refused: {refusals:?}")
        });
        let checked = self.load.judge(&self.victim.kafka)?.add_to(outcome);
        outcome.require(checked > 0, || "the honest load did nothing".to_owned());
        if let Some((load, address)) = &self.queue {
            let judgement = load.judge(&self.victim.kafka, address)?;
            let checked = judgement.add_to(outcome);
            outcome.require(checked > 0, || "nothing was sent over AMQP".to_owned());
            let kept = format!("{checked} honest messages of AMQP accepted");
            outcome.notes.push(kept);
            load.conclude(outcome);
        }
        let log = self.victim.log();
        let panicked = log.lines().find(|line| line.contains("panicked"));
        outcome.require(panicked.is_none(), || {
            format!("the broker panicked: {}", panicked.unwrap_or_default())
        });
        self.victim.terminate()
    }
}
