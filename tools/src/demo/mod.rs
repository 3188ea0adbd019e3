//! `alluvium demo`: a broker, a fleet of devices, a SIGKILL in mid-stream, and the proof that nothing acknowledged is gone.
//!
//! Callers: the command line. The broker is this program again, as a process of its own (`broker.rs`); what is sent comes
//! from recordings (`fleet.rs`) and from this host (`host.rs`); the proof comes from a ledger that the broker never sees
//! (`ledger.rs`). Invariant: however the demonstration ends, no broker is left behind.

mod broker;
mod fleet;
mod host;
mod ledger;
mod readers;
mod replay;
mod screen;
mod sensors;
mod stream;
mod summary;

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use client::admin::{At, NewTopic};
use client::consumer::Start;
use client::{Admin, Client, ClientConfig, Consumer, ConsumerConfig, ErrorCode};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::signals::StopSignals;
use broker::{Broker, Launch};
use fleet::Recording;
use host::Host;
use ledger::{Counts, Hash, Ledger, Shown, hash_of};
use readers::Readers;
use replay::{Question, replay};
use screen::{Screen, grouped};
use sensors::Sensor;
use stream::{Gateway, Player};
use summary::Summary;

/// The exit code of a promise that was not kept.
const DAMAGED: u8 = 5;
/// The exit code of an end by Ctrl-C before the proof, as shells have it.
const INTERRUPTED: u8 = 130;

/// How many devices play each recording.
const COPIES: u32 = 8;
/// How long the recordings take, all together.
const STREAM_TIME: Duration = Duration::from_secs(20);
/// How much later the next device with the same recording begins, so that a topic's times do not rise with its offsets.
const STAGGER: Duration = Duration::from_millis(400);
/// When, after the stream began, one device is replayed.
const REPLAY_AT: Duration = Duration::from_secs(6);
/// When, after the stream began, the broker is killed.
const KILL_AT: Duration = Duration::from_secs(10);
/// For what takes a moment on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(60);

const HOST_TOPIC: &str = "host";
const HOST_PARTITIONS: i32 = 3;
const FLEET_PARTITIONS: i32 = 6;
/// How often this host is read once the demonstration is over and stays up.
const AFTERWARDS_INTERVAL: Duration = Duration::from_secs(1);

/// The device that is replayed, and from when on.
const REPLAYED: &str = "ride-3";
const REPLAYED_TOPIC: &str = "rides";
const REPLAYED_FROM: &str = "2013-09-14T08:05:00Z";

/// Settings of the demonstration.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// End after the proof; the exit code is 0 only if every promise was kept
    #[arg(long)]
    once: bool,
    /// Keep the store, its log and the ledger in this directory, instead of a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print the summary as JSON, and nothing else
    #[arg(long)]
    json: bool,
}

/// The broker that runs now; outlives whatever is interrupted.
#[derive(Clone, Debug, Default)]
struct Slot(Arc<Mutex<Option<Broker>>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Broker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a broker. Yields where it is, and how long it took.
    async fn start(&self, launch: &Launch) -> Result<Running> {
        let (slot, launch) = (self.clone(), launch.clone());
        let started = tokio::task::spawn_blocking(move || {
            let broker = Broker::start(&launch)?;
            let running = Running {
                pid: broker.pid(),
                kafka: broker.kafka.clone(),
                http: broker.http.clone(),
                mqtt: broker.mqtt.clone(),
                start_time: broker.start_time,
            };
            *slot.lock() = Some(broker);
            Ok(running)
        });
        started.await.context("start the broker")?
    }

    async fn kill(&self) -> Result<()> {
        let broker = self.lock().take().context("no broker runs")?;
        tokio::task::spawn_blocking(|| broker.kill())
            .await
            .context("kill the broker")?
    }

    async fn stop(&self) -> Result<()> {
        let Some(broker) = self.lock().take() else {
            return Ok(());
        };
        tokio::task::spawn_blocking(|| broker.stop())
            .await
            .context("stop the broker")?
    }
}

/// A broker that is up.
#[derive(Clone, Debug)]
struct Running {
    pid: u32,
    kafka: String,
    http: String,
    mqtt: String,
    start_time: Duration,
}

/// Runs the demonstration to its end.
pub async fn run(args: &DemoArgs) -> Result<ExitCode> {
    let mut signals = StopSignals::listen()?;
    let screen = Screen::new(args.json);
    let slot = Slot::default();
    let (home, temporary) = home(args)?;
    // Known before the end, for an interrupt that comes after the proof.
    let proved = OnceLock::new();
    let acts = async {
        let (running, summary) = acts(args, &home, &slot, &screen).await?;
        screen.clear();
        screen.print(&summary.text());
        screen.print_json(&summary)?;
        // Nobody else sets it.
        let _ = proved.set(summary.is_good());
        if !args.once {
            stay(&running, &home, &screen).await?;
        }
        anyhow::Ok(())
    };
    let outcome = tokio::select! {
        outcome = acts => Some(outcome),
        () = signals.asked() => None,
    };
    screen.clear();
    let stopped = slot.stop().await;
    let good = match &outcome {
        Some(Err(_)) => false,
        _ => proved.get() != Some(&false) && stopped.is_ok(),
    };
    if let (false, Some(directory)) = (good, temporary) {
        crate::output::note!("the store is kept in {}", directory.keep().display());
    }
    outcome.transpose()?;
    stopped?;
    Ok(ExitCode::from(match proved.get() {
        Some(true) => 0,
        Some(false) => DAMAGED,
        None => INTERRUPTED,
    }))
}

/// Where everything is kept; the temporary directory goes when its guard goes.
fn home(args: &DemoArgs) -> Result<(PathBuf, Option<TempDir>)> {
    if let Some(directory) = &args.data {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
        return Ok((directory.clone(), None));
    }
    let temporary = tempfile::Builder::new()
        .prefix("alluvium-demo-")
        .tempdir()
        .context("create a temporary directory")?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

/// An address for people to type, if it is free; else any.
fn address(favourite: &str, once: bool) -> String {
    let is_free = !once && TcpListener::bind(favourite).is_ok();
    if is_free { favourite } else { "127.0.0.1:0" }.to_owned()
}

/// A topic of the fleet, and its devices' names without their number.
const FLEET: [(&str, &str); 3] = [("buoys", "buoy"), ("rides", "ride"), ("glucose", "glucose")];

/// The whole play, up to the judgement.
async fn acts(
    args: &DemoArgs,
    home: &Path,
    slot: &Slot,
    screen: &Screen,
) -> Result<(Running, Summary)> {
    let mut launch = Launch {
        data_dir: home.join("store"),
        log_file: home.join("broker.log"),
        kafka: address("127.0.0.1:9092", args.once),
        http: address("127.0.0.1:8080", args.once),
        mqtt: address("127.0.0.1:1883", args.once),
    };
    let first = slot.start(&launch).await?;
    launch.kafka.clone_from(&first.kafka);
    launch.http.clone_from(&first.http);
    launch.mqtt.clone_from(&first.mqtt);
    screen.show_event(&format!(
        "broker up after {}: process {}, Kafka on {}, HTTP on {}, MQTT on {}, store in {}",
        seconds(first.start_time),
        first.pid,
        first.kafka,
        first.http,
        first.mqtt,
        launch.data_dir.display()
    ));

    let recordings = tokio::task::spawn_blocking(fleet::recordings);
    let client = connect(&first.kafka).await?;
    let starts = create_topics(&client).await?;
    let recordings = recordings.await.context("read the recordings")??;
    introduce(&recordings, screen);

    let ledger = Arc::new(Ledger::default());
    let host_stop = Arc::new(AtomicBool::new(false));
    let sensors = sensors::sparse(recordings.first().context("there are recordings")?);
    let mut fleet = send(&client, recordings, &ledger)?;
    for sensor in sensors_of(sensors, &first.mqtt, &ledger)? {
        fleet.spawn(async move { sensor.play().await.map(|()| Vec::new()) });
    }
    let mut host = watch_host(&client, &ledger, &host_stop)?;
    let topics: Vec<&str> = topic_names();
    let readers = Readers::start(&client.separate(), &topics, starts.clone());
    let mut meter = Meter::new(&ledger, &readers, screen);

    meter.watch_until(REPLAY_AT).await;
    let replayed = replay_one(&client, &ledger, screen).await?;
    meter.watch_until(KILL_AT).await;
    let crash = crash(slot, &launch, &ledger, screen).await?;

    let mut failed = Vec::new();
    loop {
        tokio::select! {
            Some(done) = fleet.join_next() => failed.extend(done.context("a gateway")??),
            () = tokio::time::sleep(screen::TICK), if !fleet.is_empty() => meter.show(),
            else => break,
        }
    }
    host_stop.store(true, Ordering::Relaxed);
    while let Some(done) = host.join_next().await {
        failed.extend(done.context("the host's gateway")??);
    }
    let counts = ledger.counts();
    screen.show_event(&format!(
        "all is sent: {} readings, {} acknowledged",
        grouped(counts.sent as u64),
        grouped(counts.acked as u64)
    ));
    if let Some(error) = failed.first() {
        screen.show_event(&format!(
            "{} readings failed, the first one with: {error}",
            failed.len()
        ));
    }

    let shown = read_all(&connect(&first.kafka).await?, &starts).await?;
    let total: usize = shown.iter().map(|(_, records)| records.len()).sum();
    let caught_up = readers.catch_up(total as u64, PATIENCE).await;
    let group = readers.stop().await?;
    let verdict = judge(&ledger, &shown);
    if args.data.is_some() {
        write_ledger(&ledger, &home.join("ledger.tsv"))?;
    }
    let summary = Summary {
        verdict,
        failed: failed.len(),
        group_read: group.read,
        group_read_again: group.again,
        group_skipped: group.skipped,
        group_by_member: group.by_member,
        group_caught_up: caught_up,
        replayed: replayed.readings,
        replay_failure: replayed.failure,
        acknowledged_before_kill: crash.before.acked,
        waiting_at_kill: crash.before.waiting(),
        restart_ms: millis(crash.restart),
        outage_ms: millis(crash.outage),
    };
    Ok((crash.running, summary))
}

async fn connect(address: &str) -> Result<Client> {
    let mut config = ClientConfig::new(address);
    config.client_id = "alluvium-demo".to_owned();
    Client::connect(config)
        .await
        .with_context(|| format!("connect to {address}"))
}

fn topic_names() -> Vec<&'static str> {
    let fleet = FLEET.iter().map(|(topic, _)| *topic);
    let others = [HOST_TOPIC, sensors::TOPIC];
    others.into_iter().chain(fleet).collect()
}

/// Creates the topics that are not there. Yields where each partition's next record will be.
async fn create_topics(client: &Client) -> Result<HashMap<TopicPartition, Offset>> {
    let admin = Admin::new(client);
    let mut wanted = Vec::new();
    for name in topic_names() {
        let partitions = match name {
            HOST_TOPIC => HOST_PARTITIONS,
            sensors::TOPIC => sensors::PARTITIONS,
            _ => FLEET_PARTITIONS,
        };
        let created = admin
            .create_topic(NewTopic {
                name: name.to_owned(),
                partitions: Some(partitions),
                ..NewTopic::default()
            })
            .await;
        match created {
            Err(error) if error.code() != Some(ErrorCode::TopicAlreadyExists) => {
                return Err(error).with_context(|| format!("create topic {name}"));
            }
            _ => {}
        }
        let topic = TopicName::parse(name)?;
        for partition in &client.topic_anew(name, false).await?.partitions {
            let number = PartitionId::from_wire(partition.partition);
            let number = number.context("a partition has a number")?;
            wanted.push((TopicPartition::new(topic.clone(), number), At::Latest));
        }
    }
    let places = admin.list_offsets(&wanted).await?;
    let known = places
        .into_iter()
        .filter_map(|(partition, place)| Some((partition, place.offset?)));
    Ok(known.collect())
}

fn introduce(recordings: &[Recording], screen: &Screen) {
    let mut text = format!(
        "{} devices in topics {}, {} that speak MQTT, and this host's processor, memory, disks, networks and pressure in {HOST_TOPIC};\n\
         an acknowledgement means that the disk's sync is over",
        recordings.len() as u64 * u64::from(COPIES),
        FLEET.map(|(topic, _)| topic).join(", "),
        sensors::COUNT,
    );
    let play_time = play_time().as_millis();
    for recording in recordings {
        let speed = u128::try_from(recording.span_ms()).unwrap_or(0) / play_time;
        text += &format!(
            "\n  {COPIES} × {}, {} readings each: {}, {} times as fast",
            recording.device,
            grouped(recording.readings.len() as u64),
            recording.what,
            grouped(u64::try_from(speed).unwrap_or(u64::MAX)),
        );
    }
    screen.show_event(&text);
}

/// How long one device plays.
fn play_time() -> Duration {
    STREAM_TIME.saturating_sub(STAGGER * (COPIES - 1))
}

/// Starts the fleet. Each task yields what could not be delivered.
fn send(
    client: &Client,
    recordings: Vec<Recording>,
    ledger: &Arc<Ledger>,
) -> Result<JoinSet<Result<Vec<client::Error>>>> {
    let mut tasks = JoinSet::new();
    for (recording, (topic, device)) in recordings.into_iter().zip(FLEET) {
        let recording = Arc::new(recording);
        let player = |number| Player {
            name: format!("{device}-{}", number + 1),
            recording: recording.clone(),
            delay: STAGGER * number,
            duration: play_time(),
        };
        let players: Vec<Player> = (0..COPIES).map(player).collect();
        let gateway = Gateway::open(client, &TopicName::parse(topic)?, ledger)?;
        tasks.spawn(async move {
            gateway.play(&players).await?;
            gateway.close().await
        });
    }
    Ok(tasks)
}

/// The devices that speak MQTT.
fn sensors_of(recording: Recording, address: &str, ledger: &Arc<Ledger>) -> Result<Vec<Sensor>> {
    let recording = Arc::new(recording);
    let player = |number| Player {
        name: format!("sensor-{}", number + 1),
        recording: recording.clone(),
        delay: STAGGER * number,
        duration: play_time(),
    };
    let players = (0..sensors::COUNT).map(player);
    players
        .map(|player| Sensor::new(address, player, ledger))
        .collect()
}

fn watch_host(
    client: &Client,
    ledger: &Arc<Ledger>,
    stop: &Arc<AtomicBool>,
) -> Result<JoinSet<Result<Vec<client::Error>>>> {
    let gateway = Gateway::open(client, &TopicName::parse(HOST_TOPIC)?, ledger)?;
    let stop = stop.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        gateway.watch_host(Host::new(), &stop).await?;
        gateway.close().await
    });
    Ok(tasks)
}

/// Shows how far things are.
struct Meter<'a> {
    ledger: &'a Ledger,
    readers: &'a Readers,
    screen: &'a Screen,
    begun: Instant,
    last: (Instant, usize),
    rate: u64,
}

impl<'a> Meter<'a> {
    fn new(ledger: &'a Ledger, readers: &'a Readers, screen: &'a Screen) -> Meter<'a> {
        let now = Instant::now();
        Meter {
            ledger,
            readers,
            screen,
            begun: now,
            last: (now, 0),
            rate: 0,
        }
    }

    fn show(&mut self) {
        let counts = self.ledger.counts();
        let (since, acked) = self.last;
        let elapsed = since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            let more = counts.acked - acked;
            self.rate = (more as f64 / elapsed.as_secs_f64()).round() as u64;
            self.last = (Instant::now(), counts.acked);
        }
        let lag = (counts.acked as u64).saturating_sub(self.readers.progress().read);
        self.screen.progress(&format!(
            "{:>7} acknowledged a second, {:>9} in all, {:>6} waiting; the group lags by {}",
            grouped(self.rate),
            grouped(counts.acked as u64),
            grouped(counts.waiting() as u64),
            grouped(lag),
        ));
    }

    async fn watch_until(&mut self, time: Duration) {
        while self.begun.elapsed() < time {
            self.show();
            tokio::time::sleep(screen::TICK).await;
        }
    }
}

async fn replay_one(client: &Client, ledger: &Ledger, screen: &Screen) -> Result<replay::Replay> {
    let from: jiff::Timestamp = REPLAYED_FROM.parse().context("a time")?;
    let from = Timestamp::from_millis(from.as_millisecond());
    let device = ledger.device(REPLAYED);
    let begun = Instant::now();
    while ledger.acked_since(device, from).is_empty() {
        ensure!(begun.elapsed() < PATIENCE, "{REPLAYED} does not get on");
        tokio::time::sleep(screen::TICK).await;
    }
    let topic = TopicName::parse(REPLAYED_TOPIC)?;
    let question = Question {
        device: REPLAYED,
        topic: &topic,
        from,
    };
    let replayed = replay(client, ledger, &question).await?;
    let first = replayed.first.as_deref().unwrap_or_default();
    screen.show_event(&format!(
        "what did {REPLAYED} say from {REPLAYED_FROM} on? {} readings, in {}\n\
         time seek to offset {} of {}, {} records looked at; {}\n\
         first: {}",
        grouped(replayed.readings),
        seconds(replayed.took),
        grouped(replayed.seek.get()),
        replayed.partition,
        grouped(replayed.scanned),
        replayed
            .failure
            .as_deref()
            .unwrap_or("complete and in order, says the ledger"),
        String::from_utf8_lossy(first),
    ));
    Ok(replayed)
}

/// How the broker's sudden end went.
#[derive(Debug)]
struct Crash {
    /// When it was dead.
    before: Counts,
    running: Running,
    /// From the new process's start to its ready line.
    restart: Duration,
    /// From the kill to the next acknowledgement.
    outage: Duration,
}

async fn crash(slot: &Slot, launch: &Launch, ledger: &Ledger, screen: &Screen) -> Result<Crash> {
    // In mid-stream means that something is on its way.
    let begun = Instant::now();
    while ledger.counts().waiting() == 0 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let killed = Instant::now();
    slot.kill().await?;
    let before = ledger.counts();
    screen.show_event(&format!(
        "SIGKILL to the broker, with {} readings acknowledged and {} on their way",
        grouped(before.acked as u64),
        grouped(before.waiting() as u64),
    ));
    let running = slot.start(launch).await?;
    // What was acknowledged just before the kill may still be read from the sockets; a new producer's request is not.
    let up = ledger.counts();
    while ledger.counts().acked <= up.acked {
        ensure!(
            killed.elapsed() < PATIENCE,
            "nothing was acknowledged within {} after the restart",
            seconds(PATIENCE)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let outage = killed.elapsed();
    screen.show_event(&format!(
        "restarted as process {} on the same port: ready {} after its start, producers go on {} after the kill",
        running.pid,
        seconds(running.start_time),
        seconds(outage),
    ));
    Ok(Crash {
        before,
        restart: running.start_time,
        running,
        outage,
    })
}

/// A partition's records.
type Contents = (TopicPartition, Vec<(Offset, Hash)>);

/// Reads everything from where the demonstration began to what the ends are now.
async fn read_all(
    client: &Client,
    starts: &HashMap<TopicPartition, Offset>,
) -> Result<Vec<Contents>> {
    let wanted: Vec<(TopicPartition, At)> =
        starts.keys().map(|p| (p.clone(), At::Latest)).collect();
    let ends = Admin::new(client).list_offsets(&wanted).await?;
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    let mut contents: HashMap<TopicPartition, Vec<(Offset, Hash)>> = HashMap::new();
    for (partition, start) in starts {
        consumer.assign(partition.clone(), Start::Offset(*start));
        contents.insert(partition.clone(), Vec::new());
    }
    let is_short = |consumer: &Consumer| {
        ends.iter().any(|(partition, place)| {
            place
                .offset
                .is_some_and(|end| consumer.position(partition) < Some(end))
        })
    };
    let mut moved = Instant::now();
    while is_short(&consumer) {
        ensure!(
            moved.elapsed() < PATIENCE,
            "the topics cannot be read to their ends"
        );
        for fetched in consumer.poll(Duration::from_secs(1)).await? {
            moved = Instant::now();
            let records = contents.entry(fetched.partition.clone()).or_default();
            let is_mqtt = fetched.partition.topic.as_str() == sensors::TOPIC;
            fetched.for_each_record(|record| {
                let hash = match is_mqtt {
                    true => sensors::hash(record.key, record.value),
                    false => hash_of(record.key, record.timestamp, record.value),
                };
                records.push((record.offset, hash));
            })?;
        }
    }
    Ok(contents.into_iter().collect())
}

fn judge(ledger: &Ledger, contents: &[Contents]) -> ledger::Verdict {
    ledger.judge(|judge| {
        for (partition, records) in contents {
            for (offset, hash) in records {
                judge.see(Shown {
                    partition,
                    offset: *offset,
                    hash: *hash,
                });
            }
        }
    })
}

fn write_ledger(ledger: &Ledger, path: &Path) -> Result<()> {
    let write = || {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        ledger.write_to(&mut file)?;
        std::io::Write::flush(&mut file)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Stays up with the host's telemetry until it is interrupted.
async fn stay(running: &Running, home: &Path, screen: &Screen) -> Result<()> {
    let at = (&*running.kafka, &*running.http, &*running.mqtt);
    screen.print(&summary::next_commands(at, home));
    let client = connect(&running.kafka).await?;
    let producer = client::Producer::new(&client, client::ProducerConfig::default())?;
    let topic = TopicName::parse(HOST_TOPIC)?;
    let mut host = Host::new();
    let mut tick = tokio::time::interval(AFTERWARDS_INTERVAL);
    loop {
        tick.tick().await;
        for (key, json) in host.read() {
            let record = client::ProducerRecord::new(topic.clone(), json).key(key);
            // Told by the flush.
            drop(producer.send(record).await?);
        }
        producer.flush().await?;
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
