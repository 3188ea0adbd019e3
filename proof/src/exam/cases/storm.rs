//! Case 22: 20,000 idle connections, 5,000 devices that send a reading now and then, and storms of 2,000 new connections a second; of
//! all of them half speak MQTT. The devices' acknowledgements take less than twice as long in a storm.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use model::codec::Codec;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exam::hostile::shortest_question;
use crate::exam::judge::{Shown, judge_partition};
use crate::exam::ledger::Ledger;
use crate::exam::mqtt::{self, Connection};
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

const IDLE: usize = 20_000;
const DEVICES: usize = 5_000;
/// What the devices send in a second, all of them together.
const READINGS: u32 = 1_000;
/// New connections in a second of a storm.
const STORM: u32 = 2_000;
/// How long a storm lasts, and the calm before it.
const PHASE: Duration = Duration::from_secs(6);
/// Threads that work for the devices, and as many for the storm.
const THREADS: usize = 8;
/// Descriptors beside those of the connections above, in the broker as well as here: HTTP has a share of them, and one in sixteen of MQTT's
/// is for those that have not said who they are.
const OTHERS: usize = 6_000;
/// How many addresses of the loopback network the connections come from: one has no more than some 28,000 ports.
const ADDRESSES: u32 = 64;
const TOPIC: &str = "readings";
const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(10);

/// The case.
pub const CASE: Case = Case {
    number: 22,
    name: "connection-storm",
    about: "20,000 idle connections, 5,000 devices that produce, storms of 2,000 new connections a second, half of each over MQTT",
    rounds: Rounds { full: 5, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let descriptors = take_descriptors(IDLE + DEVICES + OTHERS)?;
    let part = |of: usize| of * (descriptors - OTHERS) / (IDLE + DEVICES);
    let (idle_count, device_count) = (part(IDLE), part(DEVICES));
    outcome.tried = format!(
        "{idle_count} idle connections, {device_count} devices that produce, storms of {STORM} new connections a second, half of each over MQTT"
    );
    if idle_count < IDLE {
        outcome.notes.push(format!(
            "scaled down: a process may open {descriptors} descriptors here (`ulimit -Hn`)"
        ));
    }
    let plan = Plan::new(&exam.binary, &exam.work.join("data"), &exam.work)
        .with("mqtt.listen", "127.0.0.1:0")
        .with("mqtt.connections.max", IDLE + DEVICES)
        .with("amqp.listen", "off")
        .with_descriptors(descriptors);
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, PARTITIONS, &[])?;
    probe.create_topic(mqtt::TOPIC, mqtt::PARTITIONS, &[])?;
    let (calm_bytes, calm_descriptors) = (victim.anonymous_bytes()?, victim.descriptors()?);
    let gates = Gates {
        kafka: Gate::to(&victim.kafka)?,
        mqtt: Gate::to(&victim.other("MQTT")?)?,
    };
    let ledger = Ledger::create(&exam.work.join("ledger"))?;

    let mut idle = Vec::new();
    for number in 0..idle_count {
        idle.push(gates.served(number)?);
    }
    let mut crews = Vec::new();
    for crew in 0..THREADS {
        let devices: Result<Vec<Device>> = (0..device_count / THREADS)
            .map(|number| gates.device(number))
            .collect();
        crews.push(Crew {
            devices: devices?,
            published: Vec::new(),
            turn: 0,
            random: Random::new(exam.seed.wrapping_add(crew as u64)),
        });
    }
    let connections = idle_count + device_count;
    drop(probe);
    exam.progress(&format!("{connections} connections stand"));
    // The first readings of all are slower: nothing is warm.
    phase(&mut crews, &ledger, None)?;
    let (mut calm, mut stormy) = (Phase::default(), Phase::default());
    for round in 1..=exam.rounds {
        calm.add(phase(&mut crews, &ledger, None)?);
        stormy.add(phase(&mut crews, &ledger, Some(&gates))?);
        outcome.times = round;
    }
    let open_bytes = victim.anonymous_bytes()?;

    let seconds = PHASE.as_secs_f64() * f64::from(exam.rounds);
    let rate = |count: usize| count as f64 / seconds;
    outcome.require(
        rate(stormy.strangers.len()) > f64::from(STORM) * 0.95,
        || {
            format!(
                "it was no storm: {:.0} connections a second",
                rate(stormy.strangers.len())
            )
        },
    );
    for (name, phase) in [("calm", &calm), ("storm", &stormy)] {
        outcome.require(
            rate(phase.readings.len()) > f64::from(READINGS) * 0.95,
            || {
                format!(
                    "{name}: only {:.0} readings a second",
                    rate(phase.readings.len())
                )
            },
        );
    }
    for percent in [50, 99] {
        let (before, during) = (calm.percentile(percent)?, stormy.percentile(percent)?);
        outcome.require(during < before * 2, || {
            format!("of the readings {percent} % took up to {before:?}, in the storm {during:?}")
        });
        outcome.notes.push(format!(
            "{percent} % of the readings were acknowledged within {before:?}, in the storm within {during:?}"
        ));
    }
    for (number, connection) in idle.iter_mut().enumerate() {
        connection
            .ask()
            .with_context(|| format!("idle connection {number} after the storms"))?;
    }
    outcome.notes.push(format!(
        "{} KiB of memory for each of {connections} connections",
        open_bytes.saturating_sub(calm_bytes) / 1024 / connections as u64,
    ));
    let published: Vec<u64> = crews.iter().flat_map(|it| it.published.clone()).collect();
    drop((idle, crews));
    let began = Instant::now();
    while victim.descriptors()? > calm_descriptors + 16 && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(50));
    }
    let left = victim.descriptors()?;
    outcome.require(left <= calm_descriptors + 16, || {
        format!("J9: {calm_descriptors} descriptors before, {left} after everybody has gone")
    });
    let entries = ledger.entries();
    for partition in 0..PARTITIONS {
        let contents = Probe::connect(&victim.kafka)?.read_all(TOPIC, partition)?;
        let shown = Shown::default();
        let verdict = judge_partition(TOPIC, partition, &entries, &contents, &shown, false);
        outcome.checked += verdict.checked;
        outcome.lost += verdict.lost;
        outcome.failures.extend(verdict.failures);
    }
    judge_mqtt(&victim.kafka, &published, &mut outcome)?;
    victim.terminate()?;
    Ok(outcome)
}

/// M1: what was acknowledged over MQTT is a record, once.
fn judge_mqtt(kafka: &str, published: &[u64], outcome: &mut Outcome) -> Result<()> {
    let mut times: HashMap<u64, u32> = HashMap::new();
    for partition in 0..mqtt::PARTITIONS {
        let records = Probe::connect(kafka)?.read_all(mqtt::TOPIC, partition)?;
        for id in records.iter().filter_map(|record| record.id) {
            *times.entry(id).or_default() += 1;
        }
    }
    outcome.require(!published.is_empty(), || {
        "nothing published over MQTT was acknowledged: that proves nothing".to_owned()
    });
    let is_lost = |id: &&u64| !times.contains_key(id);
    let lost = published.iter().filter(is_lost).count() as u64;
    outcome.checked += published.len() as u64;
    outcome.lost += lost;
    outcome.require(lost == 0, || {
        format!("M1: {lost} messages were acknowledged over MQTT and are not there")
    });
    let again = times.values().filter(|times| **times > 1).count();
    outcome.require(again == 0, || {
        format!("M1: {again} messages of MQTT stand there twice")
    });
    outcome.notes.push(format!(
        "{} of the readings over MQTT, which are there once",
        published.len()
    ));
    Ok(())
}

/// Takes so many descriptors for this process, or as many as it may. Answers how many that are.
fn take_descriptors(wanted: usize) -> Result<usize> {
    let wanted = wanted as u64;
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let take = |count: u64| {
        let limit = Rlimit {
            current: Some(count),
            maximum: Some(count.max(allowed)),
        };
        setrlimit(Resource::Nofile, limit)
    };
    // More than it is allowed is for root, and not for every root.
    if take(wanted).is_err() {
        take(wanted.min(allowed)).context("raise the limit of descriptors")?;
    }
    let taken = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    ensure!(
        taken > 2 * OTHERS as u64,
        "a process may open only {taken} descriptors here (`ulimit -Hn`)"
    );
    Ok(usize::try_from(taken)?)
}

/// How long things took.
#[derive(Default)]
struct Phase {
    /// From a reading's sending to its acknowledgement.
    readings: Vec<Duration>,
    /// From a new connection's beginning to the answer to its first question.
    strangers: Vec<Duration>,
}

impl Phase {
    fn add(&mut self, other: Phase) {
        self.readings.extend(other.readings);
        self.strangers.extend(other.strangers);
    }

    /// So many percent of the readings took no longer.
    fn percentile(&self, percent: usize) -> Result<Duration> {
        let mut sorted = self.readings.clone();
        sorted.sort_unstable();
        let index = sorted.len() * percent / 100;
        sorted.get(index).copied().context("there were no readings")
    }
}

/// A device's connection.
enum Device {
    Kafka(Box<Probe>),
    Mqtt(Connection),
}

/// Some of the devices, one of which sends its reading at a time.
struct Crew {
    devices: Vec<Device>,
    /// Ids of what was acknowledged over MQTT.
    published: Vec<u64>,
    turn: usize,
    random: Random,
}

impl Crew {
    fn read_next(&mut self, ledger: &Ledger) -> Result<Duration> {
        self.turn = (self.turn + 1) % self.devices.len();
        match &mut self.devices[self.turn] {
            Device::Kafka(device) => {
                let partition = i32::try_from(self.random.between(0, PARTITIONS as u64))?;
                let payloads = ledger.send(TOPIC, partition, 1, 100, &mut self.random)?;
                let batch = batch_of(&payloads, Codec::None, None)?;
                let began = Instant::now();
                let answer = device.produce(TOPIC, partition, batch)?;
                let took = began.elapsed();
                match answer {
                    Answer::Acknowledged(offset) => ledger.acknowledged(&payloads, offset)?,
                    Answer::Refused(error) => bail!("a reading was refused: {}", error.name()),
                }
                Ok(took)
            }
            Device::Mqtt(device) => {
                let payloads = ledger.send(mqtt::TOPIC, 0, 1, 100, &mut self.random)?;
                let began = Instant::now();
                for payload in &payloads {
                    device.publish_acknowledged("readings/storm", &payload.value)?;
                }
                let took = began.elapsed();
                self.published.extend(payloads.iter().map(|it| it.id));
                Ok(took)
            }
        }
    }
}

/// Lets the devices send for a while, with or without a storm.
fn phase(crews: &mut [Crew], ledger: &Ledger, storm: Option<&Gates>) -> Result<Phase> {
    let deadline = Instant::now() + PHASE;
    thread::scope(|scope| {
        let readings: Vec<_> = crews
            .iter_mut()
            .map(|crew| {
                let every = Duration::from_secs(THREADS as u64) / READINGS;
                scope.spawn(move || paced(every, deadline, || crew.read_next(ledger)))
            })
            .collect();
        let strangers: Vec<_> = storm
            .iter()
            .flat_map(|gates| std::iter::repeat_n(*gates, THREADS))
            .enumerate()
            .map(|(thread, gates)| {
                let every = Duration::from_secs(THREADS as u64) / STORM;
                let knock = move || {
                    let began = Instant::now();
                    gates.served(thread).map(|_| began.elapsed())
                };
                scope.spawn(move || paced(every, deadline, knock))
            })
            .collect();
        let mut phase = Phase::default();
        for thread in readings {
            let took = thread.join().expect("no device panics");
            phase.readings.extend(took.context("a device")?);
        }
        for thread in strangers {
            let took = thread.join().expect("no stranger panics");
            phase.strangers.extend(took.context("a new connection")?);
        }
        Ok(phase)
    })
}

/// Does something every so often, and catches up when it took too long. Answers how long each one took.
fn paced(
    every: Duration,
    deadline: Instant,
    mut work: impl FnMut() -> Result<Duration>,
) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    let mut next = Instant::now();
    while next < deadline {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        took.push(work()?);
        next += every;
    }
    Ok(took)
}

/// Where connections come in, by their numbers: the odd ones speak MQTT.
struct Gates {
    kafka: Gate,
    mqtt: Gate,
}

/// An idle connection.
enum Idle {
    Kafka(TcpStream),
    Mqtt(Connection),
}

impl Idle {
    /// Asks the broker something, and waits for the answer.
    fn ask(&mut self) -> Result<()> {
        match self {
            Idle::Kafka(stream) => ask(stream),
            Idle::Mqtt(connection) => connection.ping(),
        }
    }
}

impl Gates {
    /// A new connection that has been answered.
    fn served(&self, number: usize) -> Result<Idle> {
        if number % 2 == 1 {
            return Ok(Idle::Mqtt(self.mqtt_client()?));
        }
        let mut idle = Idle::Kafka(self.kafka.connect()?);
        idle.ask()?;
        Ok(idle)
    }

    fn device(&self, number: usize) -> Result<Device> {
        Ok(match number % 2 {
            1 => Device::Mqtt(self.mqtt_client()?),
            _ => Device::Kafka(Box::new(Probe::over(self.kafka.connect()?)?)),
        })
    }

    fn mqtt_client(&self) -> Result<Connection> {
        let number = self.mqtt.connections.load(Ordering::Relaxed);
        let stream = self.mqtt.connect()?;
        let port = stream.local_addr()?;
        Connection::over(stream, &format!("{number}-{port}"))
    }
}

/// A port of the broker.
struct Gate {
    address: SocketAddrV4,
    connections: AtomicU32,
}

impl Gate {
    fn to(address: &str) -> Result<Gate> {
        Ok(Gate {
            address: address.parse().context("the broker's address")?,
            connections: AtomicU32::new(0),
        })
    }

    /// A new connection, from the next one of the addresses.
    fn connect(&self) -> Result<TcpStream> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
        let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 1).to_bits() + number);
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(from, 0)).context("a port of our own")?;
        rustix::net::connect(&socket, &self.address).context("connect")?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// Asks for the broker's versions, and waits for the answer.
fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&shortest_question())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("no answer")?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    ensure!(length < 1 << 20, "an answer of {length} bytes");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).context("half an answer")
}
