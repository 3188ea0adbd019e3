//! Round: runs the batches of a suite, some at a time, each worker with brokers of its own.
//! Caller: `suites::run`. Invariant: a test passes only if its suite says so, in time, and the broker neither died nor
//! logged an error meanwhile; after such trouble the next batch gets a fresh broker. What fails while the disk stands still, or by
//! its suite's own chance, is run once more, alone.

use super::stall::LongSyncs;
use super::{Batch, Broker, Ended, Outcome, Suite, Target};
use crate::compat::peer::{Kind, Peer};
use anyhow::{Context, Result, bail};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What became of a test, and where its output is.
pub struct Told {
    /// What became of it.
    pub outcome: Outcome,
    /// The output of its batch.
    pub log: PathBuf,
}

/// Test by test.
pub type Results = BTreeMap<String, Told>;

/// Runs `batches` to their ends. Error: a directory cannot be written, or a broker does not start.
pub fn run(
    suite: &dyn Suite,
    place: &Path,
    kind: &Kind,
    batches: &[Batch],
    jobs: usize,
) -> Result<Results> {
    let logs = place.join("logs");
    fs::create_dir_all(&logs)?;
    let queue: Mutex<VecDeque<&Batch>> = Mutex::new(batches.iter().collect());
    let results = Mutex::new(Results::new());
    let jobs = if suite.runs_alone() { 1 } else { jobs.max(1) };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|index| {
                let (queue, results, logs) = (&queue, &results, &logs);
                scope.spawn(move || -> Result<()> {
                    let mut worker = Worker {
                        suite,
                        place,
                        kind,
                        logs,
                        directory: place.join("run").join(index.to_string()),
                        peers: BTreeMap::new(),
                    };
                    loop {
                        let next = queue.lock().expect("no panic holds the queue").pop_front();
                        let Some(batch) = next else { break };
                        let told = worker.batch(batch)?;
                        results
                            .lock()
                            .expect("no panic holds the results")
                            .extend(told);
                    }
                    worker.close()
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(results.into_inner().expect("every worker has ended"))
}

struct Worker<'a> {
    suite: &'a dyn Suite,
    place: &'a Path,
    kind: &'a Kind,
    logs: &'a Path,
    directory: PathBuf,
    peers: BTreeMap<Broker, Peer>,
}

impl Worker<'_> {
    fn batch(&mut self, batch: &Batch) -> Result<Results> {
        // It runs from now on.
        self.target(batch.broker)?;
        let before = self.long_syncs(batch.broker)?;
        let mut results = self.attempt(batch)?;
        let after = self.long_syncs(batch.broker)?;
        let stalled = before
            .zip(after)
            .is_some_and(|(before, after)| after > before);
        let by_chance = |told: &Told| matches!(&told.outcome, Outcome::Failed(why) if stalled || self.suite.fails_by_chance(why));
        let again = results.iter().filter(|(_, told)| by_chance(told));
        let again: Vec<String> = again.map(|(test, _)| test.clone()).collect();
        for test in again {
            let why = if stalled {
                ": the disk stood still"
            } else {
                ""
            };
            eprintln!("{} {test} is run once more{why}", self.suite.name());
            let alone = Batch {
                tests: vec![test],
                ..batch.clone()
            };
            results.extend(self.attempt(&alone)?);
        }
        Ok(results)
    }

    fn attempt(&mut self, batch: &Batch) -> Result<Results> {
        let started = Instant::now();
        let target = self.target(batch.broker)?;
        let work = self.directory.join("work");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        let log = self.logs.join(format!("{}.log", file_name(&batch.name)));
        let mut command = self.suite.command(self.place, &target, batch, &work)?;
        let ended = to_the_end(&mut command, &log, batch.seconds_max)?;
        let mut told = self.suite.read(batch, &ended, &work);
        if let Some(trouble) = self.trouble(batch.broker) {
            let kept = log.with_extension("broker.log");
            fs::copy(self.broker_directory(batch.broker).join("broker.log"), kept)?;
            self.peers.remove(&batch.broker);
            for test in &batch.tests {
                told.insert(test.clone(), Outcome::Failed(trouble.clone()));
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let results: Results = batch
            .tests
            .iter()
            .map(|test| {
                let outcome = told
                    .remove(test)
                    .unwrap_or_else(|| Outcome::Failed(untold(&ended, batch)));
                let log = log.clone();
                (test.clone(), Told { outcome, log })
            })
            .collect();
        for (test, result) in &results {
            let (mark, why) = match &result.outcome {
                Outcome::Passed => ("passed", ""),
                Outcome::Skipped(why) => ("skipped", why.as_str()),
                Outcome::Failed(why) => ("FAILED", why.as_str()),
            };
            eprintln!("{} {test} {mark} ({seconds:.1} s) {why}", self.suite.name());
        }
        Ok(results)
    }

    /// The long syncs of a broker, if it runs.
    fn long_syncs(&self, broker: Broker) -> Result<Option<LongSyncs>> {
        self.peers.get(&broker).map(LongSyncs::of).transpose()
    }

    fn target(&mut self, broker: Broker) -> Result<String> {
        match (self.suite.target(), self.kind) {
            (Target::Kafka, _) => {
                let broker = self.broker(broker)?;
                let plain = broker.address();
                let login = broker.other("SASL_PLAINTEXT");
                Ok(login.map_or_else(|_| plain.to_owned(), |login| format!("{plain} {login}")))
            }
            (Target::Mqtt, _) => {
                let address = self.broker(broker)?.mqtt();
                Ok(address.context("this broker speaks no MQTT")?.to_string())
            }
            (Target::MqttAndHttp, _) => {
                let broker = self.broker(broker)?;
                let addresses = broker.mqtt().zip(broker.http());
                let (mqtt, http) = addresses.context("this broker speaks no MQTT")?;
                Ok(format!("{mqtt} {http}"))
            }
            (Target::Amqp, _) => {
                let broker = self.broker(broker)?;
                let amqp = broker.amqp().context("this broker speaks no AMQP")?;
                Ok(format!("{amqp} {}", broker.address()))
            }
            (Target::Program, Kind::Alluvium { binary }) => Ok(binary.display().to_string()),
            (Target::Program, Kind::Kafka { .. }) => bail!("this suite starts our broker only"),
        }
    }

    fn broker(&mut self, broker: Broker) -> Result<&Peer> {
        let directory = self.broker_directory(broker);
        match self.peers.entry(broker) {
            Entry::Occupied(running) => Ok(running.into_mut()),
            Entry::Vacant(place) => {
                let peer = Peer::start_with(self.kind.clone(), &directory, broker.settings)
                    .with_context(|| format!("the broker {}", broker.name))?;
                Ok(place.insert(peer))
            }
        }
    }

    fn broker_directory(&self, broker: Broker) -> PathBuf {
        self.directory.join(broker.name)
    }

    /// What the broker did that no client may bring about.
    fn trouble(&self, broker: Broker) -> Option<String> {
        if self.suite.target() == Target::Program {
            return None;
        }
        let answers = self.peers.get(&broker).is_some_and(Peer::answers);
        match self.kind.complaint(&self.broker_directory(broker)) {
            Some(complaint) => Some(format!("the broker's log: {complaint}")),
            None if !answers => Some("the broker does not answer any more".to_string()),
            None => None,
        }
    }

    /// Ends the brokers and removes what they stored.
    fn close(self) -> Result<()> {
        drop(self.peers);
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        Ok(())
    }
}

fn untold(ended: &Ended, batch: &Batch) -> String {
    match ended.exit_code {
        Some(code) => format!("not reported; the program ended with {code}"),
        None => format!(
            "not reported; the program was ended after {} s, or crashed",
            batch.seconds_max
        ),
    }
}

/// Runs a program with its output into `log`, in a process group that is ended with all that it started.
fn to_the_end(command: &mut Command, log: &Path, seconds_max: u64) -> Result<Ended> {
    let output = File::create(log)?;
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let deadline = Instant::now() + Duration::from_secs(seconds_max);
    let mut status = None;
    while status.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        status = child.try_wait()?;
    }
    if let Some(id) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
    }
    if status.is_none() {
        child.wait()?;
    }
    Ok(Ended {
        exit_code: status.and_then(|status| status.code()),
        output: String::from_utf8_lossy(&fs::read(log)?).into_owned(),
    })
}

fn file_name(batch: &str) -> String {
    batch
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect()
}
