//! Case 57: SIGKILL under clients of the HTTP port. Producers send a body again, with its `Idempotency-Key`, until it is answered;
//! followers go on where their last event was.
//!
//! Beside J1 to J4, by what the Kafka protocol and a replay over HTTP show: H1 what has an `Idempotency-Key` is there once, however often it
//! was sent, and H2 a follower is given each record of its topic, in each partition in order and once, over all its connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::exam::cases::crash;
use crate::exam::judge::{Seen, Shown, judge_partition};
use crate::exam::ledger::{Ledger, Payload};
use crate::exam::probe::Probe;
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};
use crate::http::{Http, Refused};

/// The case.
pub const CASE: Case = Case {
    number: 57,
    name: "http-killed",
    about: "kill -9 under HTTP producers that send again with their Idempotency-Key, and followers by server-sent events",
    rounds: Rounds { full: 50, short: 3 },
    run,
};

/// Topics and their partitions.
const TOPICS: [(&str, i32); 2] = [("alpha", 3), ("beta", 1)];
/// Each with an `Idempotency-Key`, for a partition of the first topic; and one without, alone in the second.
const KEYED: usize = 6;
/// Followers of each topic.
const FOLLOWERS: usize = 30;
const PAUSE: Duration = Duration::from_millis(4);
/// Followers that have not got all of it by then have lost it.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let mut random = Random::new(exam.seed);
    let plan = crash::small(Plan::new(&exam.binary, &exam.work.join("data"), &exam.work));
    let mut victim = plan.start()?;
    for (topic, partitions) in TOPICS {
        Probe::connect(&victim.kafka)?.create_topic(
            topic,
            partitions,
            &[("segment.bytes", "1048576")],
        )?;
    }
    let load = Load::new(exam)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let followers = Followers::begin(&runtime, &victim.http, &load.shown);
    for round in 1..=exam.rounds {
        let running = load.begin(&victim.http);
        std::thread::sleep(Duration::from_millis(random.between(50, 700)));
        load.is_hurt.store(true, Ordering::SeqCst);
        victim.kill()?;
        running.into_iter().for_each(|thread| {
            let ended = thread.join();
            ended.expect("no producer panics");
        });
        victim = plan
            .start()
            .with_context(|| format!("the start after kill {round}"))?;
        load.is_hurt.store(false, Ordering::SeqCst);
        followers.go_to(&victim.http);
        // What was open is answered now, and stands there once.
        load.settle(&victim.http)?;
        outcome.times = round;
        let ends = load.judge(&victim, round, &mut outcome)?;
        for failure in followers.wait_for(&ends) {
            outcome.failures.push(format!("round {round}: {failure}"));
        }
        if !outcome.passed() {
            break;
        }
        if round % 10 == 0 {
            exam.progress(&format!(
                "round {round}: {} records acknowledged",
                outcome.checked
            ));
        }
    }
    let replayed = load.replayed.load(Ordering::SeqCst);
    let (again, connections) = (load.again.load(Ordering::SeqCst), followers.connections());
    outcome.require(outcome.checked > 0, || {
        "nothing was acknowledged: the case proves nothing".to_owned()
    });
    outcome.require(again > 0, || {
        "no body was open at a kill: the case proves nothing".to_owned()
    });
    outcome.notes.push(format!(
        "{again} bodies sent again, {replayed} of them had been written; {} followers connected {connections} times",
        TOPICS.len() * FOLLOWERS
    ));
    followers.end();
    victim.terminate()?;
    Ok(outcome)
}

/// The producers and their memory.
struct Load {
    ledger: Ledger,
    shown: Arc<Shown>,
    producers: Vec<Mutex<Producer>>,
    is_hurt: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// Bodies that were sent again, and those of them that had been written before.
    again: AtomicU64,
    replayed: AtomicU64,
}

struct Producer {
    index: usize,
    topic: &'static str,
    partition: i32,
    is_keyed: bool,
    bodies: u64,
    /// Sent with an `Idempotency-Key`, and not answered.
    open: Option<Sent>,
    random: Random,
}

/// A body as it was sent.
struct Sent {
    payloads: Vec<Payload>,
    headers: String,
    body: Vec<u8>,
}

impl Load {
    fn new(exam: &Exam) -> Result<Arc<Load>> {
        let (keyed, plain) = (TOPICS[0], TOPICS[1]);
        let producer = |index: usize| {
            let is_keyed = index < KEYED;
            let (topic, partitions) = if is_keyed { keyed } else { plain };
            let partition = i32::try_from(index).expect("few") % partitions;
            Mutex::new(Producer {
                index,
                topic,
                partition,
                is_keyed,
                bodies: 0,
                open: None,
                random: Random::new(exam.seed.wrapping_add(1 + index as u64)),
            })
        };
        Ok(Arc::new(Load {
            ledger: Ledger::create(&exam.work.join(format!("ledger-{:x}", exam.seed)))?,
            shown: Arc::default(),
            producers: (0..=KEYED).map(producer).collect(),
            is_hurt: AtomicBool::new(false),
            failures: Mutex::default(),
            again: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
        }))
    }

    /// Threads that produce until the broker goes away.
    fn begin(self: &Arc<Load>, address: &str) -> Vec<JoinHandle<()>> {
        let spawn = |index: usize| {
            let (load, address) = (Arc::clone(self), address.to_owned());
            std::thread::spawn(move || {
                let mut producer = held(&load.producers[index]);
                let ended = load.produce(&mut producer, &address);
                if let Err(error) = ended
                    && (!load.is_hurt.load(Ordering::SeqCst) || error.is::<Refused>())
                {
                    held(&load.failures).push(format!("a producer gave up: {error:#}"));
                }
            })
        };
        (0..self.producers.len()).map(spawn).collect()
    }

    fn produce(&self, producer: &mut Producer, address: &str) -> Result<()> {
        let mut http = Http::connect(address)?;
        loop {
            self.produce_one(producer, &mut http)?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends again what is open.
    fn settle(&self, address: &str) -> Result<()> {
        let mut http = Http::connect(address)?;
        for producer in &self.producers {
            let mut producer = held(producer);
            if producer.open.is_some() {
                self.again.fetch_add(1, Ordering::SeqCst);
                let place = format!("{}-{}", producer.topic, producer.partition);
                self.produce_one(&mut producer, &mut http)
                    .with_context(|| format!("what is open for {place}"))?;
            }
        }
        Ok(())
    }

    fn produce_one(&self, producer: &mut Producer, http: &mut Http) -> Result<()> {
        let sent = match producer.open.take() {
            Some(open) => open,
            None => self.new_body(producer)?,
        };
        let (topic, partition) = (producer.topic, producer.partition);
        let path = format!("/api/v1/topics/{topic}/records?partition={partition}");
        let answer = http.post_with(&path, &sent.headers, &sent.body);
        match answer {
            Ok((headers, body)) => {
                if headers.contains_key("idempotency-replayed") {
                    self.replayed.fetch_add(1, Ordering::SeqCst);
                }
                let base = base_offset(&body, sent.payloads.len())?;
                self.ledger.acknowledged(&sent.payloads, base)
            }
            Err(error) => {
                self.ledger.unknown(&sent.payloads)?;
                if producer.is_keyed {
                    producer.open = Some(sent);
                }
                Err(error)
            }
        }
    }

    fn new_body(&self, producer: &mut Producer) -> Result<Sent> {
        let random = &mut producer.random;
        let count = usize::try_from(random.between(1, 40))?;
        let noise = usize::try_from(random.between(0, 200))?;
        let device = format!("device-{}", random.between(0, 64));
        producer.bodies += 1;
        let (topic, partition) = (producer.topic, producer.partition);
        let payloads = self.ledger.send_made(topic, partition, count, |id| {
            let mut bytes = vec![0; noise];
            random.fill(&mut bytes);
            let value = format!("\"{id:016x}{}\"", model::hex::to_hex(bytes));
            (device.clone().into_bytes(), value.into_bytes())
        })?;
        let mut headers = format!("Alluvium-Key: {device}\r\n");
        if producer.is_keyed {
            let (index, bodies) = (producer.index, producer.bodies);
            headers.push_str(&format!("Idempotency-Key: {index}-{bodies}\r\n"));
        }
        let mut body = Vec::new();
        for payload in &payloads {
            body.extend_from_slice(&payload.value);
            body.push(b'\n');
        }
        Ok(Sent {
            payloads,
            headers,
            body,
        })
    }

    /// Judges all that the broker shows by either protocol; gives where each partition ends.
    fn judge(&self, victim: &Victim, round: u32, outcome: &mut Outcome) -> Result<Ends> {
        let mut ends = Ends::new();
        let mut probe = Probe::connect(&victim.kafka)?;
        let entries = self.ledger.entries();
        let mut failures = std::mem::take(&mut *held(&self.failures));
        outcome.checked = 0;
        for (topic, partitions) in TOPICS {
            for partition in 0..partitions {
                let by_kafka = probe.read_all(topic, partition)?;
                let by_http = replayed(&victim.http, topic, partition)?;
                for contents in [&by_kafka, &by_http] {
                    let shown = &self.shown;
                    let verdict =
                        judge_partition(topic, partition, &entries, contents, shown, false);
                    outcome.lost += verdict.lost;
                    failures.extend(verdict.failures);
                }
                let end = by_kafka.last().map_or(0, |last| last.offset + 1);
                ends.insert((topic, partition), end);
            }
        }
        outcome.checked = self.ledger.acknowledged_count();
        let failures = failures.into_iter();
        outcome
            .failures
            .extend(failures.map(|failure| format!("round {round}: {failure}")));
        Ok(ends)
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds it")
}

/// Where the records of a body are, by its answer: one after the other, as nobody else writes between those of one frame.
fn base_offset(answer: &str, records: usize) -> Result<i64> {
    let answer: Value = serde_json::from_str(answer)?;
    let offsets = answer["offsets"].as_array().map_or(&[][..], Vec::as_slice);
    let [only] = offsets else {
        anyhow::bail!("not one partition: {answer}");
    };
    let number = |name: &str| only[name].as_i64().context("an offset");
    let (base, end) = (number("base_offset")?, number("end_offset")?);
    ensure!(
        end - base == i64::try_from(records)? && answer["refused"] == 0,
        "not {records} records in a row: {answer}"
    );
    Ok(base)
}

/// All of a partition, as a replay over HTTP shows it.
fn replayed(address: &str, topic: &str, partition: i32) -> Result<Vec<Seen>> {
    let path = format!(
        "/api/v1/topics/{topic}/replay?partition={partition}&columns=partition,offset,key,value"
    );
    let body = Http::connect(address)?.get(&path)?;
    let records = body.lines().map(|line| {
        let (_, seen) = seen_of(&serde_json::from_str(line)?)?;
        Ok(seen)
    });
    records.collect()
}

/// The partition of a record as a line of JSON tells it, and what a reader notes of it.
fn seen_of(record: &Value) -> Result<(i32, Seen)> {
    let number = |name: &str| {
        record[name]
            .as_i64()
            .with_context(|| format!("no {name}: {record}"))
    };
    let key = record["key"].as_str().context("a key")?;
    // A text of hex digits, so that it is written in one way only.
    let value = record["value"].to_string();
    let seen = Seen::of(number("offset")?, key.as_bytes(), value.as_bytes());
    Ok((i32::try_from(number("partition")?)?, seen))
}

/// Where partitions end.
type Ends = HashMap<(&'static str, i32), i64>;

/// What follows, wherever the broker is.
struct Followers {
    address: watch::Sender<String>,
    all: Vec<Arc<Follower>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Follower {
    topic: &'static str,
    shown: Arc<Shown>,
    state: Mutex<Followed>,
}

/// What one follower was given.
#[derive(Default)]
struct Followed {
    /// The next offset of each partition.
    next: HashMap<i32, i64>,
    last_id: String,
    connections: u64,
    failure: Option<String>,
}

impl Followers {
    fn begin(runtime: &tokio::runtime::Runtime, address: &str, shown: &Arc<Shown>) -> Followers {
        let (sender, watched) = watch::channel(address.to_owned());
        let follower = |index: usize| {
            Arc::new(Follower {
                topic: TOPICS[index % TOPICS.len()].0,
                shown: Arc::clone(shown),
                state: Mutex::default(),
            })
        };
        let all: Vec<_> = (0..TOPICS.len() * FOLLOWERS).map(follower).collect();
        let tasks = all.iter().map(|follower| {
            let (follower, watched) = (Arc::clone(follower), watched.clone());
            runtime.spawn(async move { follower.run(watched).await })
        });
        Followers {
            tasks: tasks.collect(),
            all,
            address: sender,
        }
    }

    fn go_to(&self, address: &str) {
        self.address.send_replace(address.to_owned());
    }

    /// Waits until each was given all; gives what did not hold.
    fn wait_for(&self, ends: &Ends) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let states = self.all.iter().map(|it| it.lacks(ends));
            let lacking: Vec<_> = states.flatten().collect();
            let has_failed = self.all.iter().any(|it| held(&it.state).failure.is_some());
            if lacking.is_empty() || has_failed || Instant::now() > until {
                let failed = self
                    .all
                    .iter()
                    .filter_map(|it| held(&it.state).failure.clone());
                let mut failures: Vec<_> = failed.collect();
                if failures.is_empty() {
                    failures = lacking;
                }
                failures.truncate(5);
                return failures;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn connections(&self) -> u64 {
        self.all.iter().map(|it| held(&it.state).connections).sum()
    }

    fn end(self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Follower {
    async fn run(&self, mut address: watch::Receiver<String>) {
        loop {
            let http = address.borrow_and_update().clone();
            // However a connection ends, it begins again behind what it gave.
            let _ = self.follow(&http).await;
            if held(&self.state).failure.is_some() {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), address.changed()).await;
        }
    }

    async fn follow(&self, address: &str) -> Result<()> {
        let mut stream = TcpStream::connect(address).await?;
        let last_id = held(&self.state).last_id.clone();
        let resume = match last_id.is_empty() {
            true => String::new(),
            false => format!("Last-Event-ID: {last_id}\r\n"),
        };
        let path = format!("/api/v1/topics/{}/follow?from=earliest", self.topic);
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{resume}\r\n");
        stream.write_all(request.as_bytes()).await?;
        held(&self.state).connections += 1;
        let mut lines = BufReader::new(stream).lines();
        let (mut name, mut id, mut data) = (String::new(), String::new(), String::new());
        while let Some(line) = lines.next_line().await? {
            match line.split_once(": ") {
                Some(("event", text)) => text.clone_into(&mut name),
                Some(("id", text)) => text.clone_into(&mut id),
                Some(("data", text)) => text.clone_into(&mut data),
                _ if line.is_empty() => {
                    let given = self.given(&name, &data);
                    let mut state = held(&self.state);
                    if let Err(error) = given {
                        state.failure = Some(format!("H2 a follower of {}: {error:#}", self.topic));
                        return Ok(());
                    }
                    if !data.is_empty() {
                        state.last_id.clone_from(&id);
                    }
                    (name, id, data) = Default::default();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An event that came whole.
    fn given(&self, name: &str, data: &str) -> Result<()> {
        match name {
            "" if data.is_empty() => Ok(()),
            "" => {
                let (partition, seen) = seen_of(&serde_json::from_str(data)?)?;
                let mut state = held(&self.state);
                let next = state.next.entry(partition).or_default();
                let offset = seen.offset;
                ensure!(
                    offset == *next,
                    "offset {offset} of {partition} came, and not {next}"
                );
                *next += 1;
                let changed = self.shown.note(self.topic, partition, &[seen]);
                ensure!(
                    changed.is_empty(),
                    "J2 offset {offset} of {partition} was another record"
                );
                Ok(())
            }
            "caught-up" => Ok(()),
            other => anyhow::bail!("an event {other}: {data}"),
        }
    }

    /// What it was not given of its topic.
    fn lacks(&self, ends: &Ends) -> Option<String> {
        let state = held(&self.state);
        let mut all = ends.iter().filter(|((topic, _), _)| *topic == self.topic);
        let lacking =
            all.find(|((_, partition), end)| state.next.get(partition).unwrap_or(&0) < *end);
        lacking.map(|((topic, partition), end)| {
            let next = state.next.get(partition).unwrap_or(&0);
            format!(
                "H2 a follower of {topic} was given {partition} up to {next}, which ends at {end}"
            )
        })
    }
}
