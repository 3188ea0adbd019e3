//! The broker that the demonstration owns: a process of its own, so that it can be killed like one.
//!
//! Invariant: a `Broker` that is dropped leaves no process behind.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Recovery is much faster; a machine may be busy with other things.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
const STOP_WAIT_MAX: Duration = Duration::from_secs(20);

/// How a broker is started, the first time and after each kill.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// Where the broker keeps everything.
    pub(super) data_dir: PathBuf,
    /// Where its log lines go.
    pub(super) log_file: PathBuf,
    /// `host:port` of the Kafka protocol.
    pub(super) kafka: String,
    /// `host:port` of HTTP.
    pub(super) http: String,
    /// `host:port` of MQTT.
    pub(super) mqtt: String,
}

/// A running broker.
#[derive(Debug)]
pub(super) struct Broker {
    child: Child,
    /// Where Kafka clients connect.
    pub(super) kafka: String,
    /// Where HTTP clients connect.
    pub(super) http: String,
    /// Where MQTT clients connect.
    pub(super) mqtt: String,
    /// From the start of the process to its ready line.
    pub(super) start_time: Duration,
}

impl Broker {
    /// Starts a broker and waits until it is ready. Blocks.
    pub(super) fn start(launch: &Launch) -> Result<Broker> {
        let executable = std::env::current_exe().context("find this program")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&launch.log_file)
            .with_context(|| format!("open {}", launch.log_file.display()))?;
        let started = Instant::now();
        let child = Command::new(executable)
            .arg("serve")
            .arg("--data")
            .arg(&launch.data_dir)
            .args(["--kafka", &launch.kafka, "--http", &launch.http])
            .args(["--mqtt", &launch.mqtt])
            // Nobody likes to wait three seconds for members that do not come.
            .args(["-X", "group.initial.rebalance.delay.ms=300"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for us: we end the broker in order.
            .process_group(0)
            .spawn()
            .context("start the broker")?;
        let mut broker = Broker {
            child,
            kafka: String::new(),
            http: String::new(),
            mqtt: String::new(),
            start_time: Duration::ZERO,
        };
        let line = broker
            .ready_line()
            .with_context(|| last_lines(&launch.log_file))?;
        broker.start_time = started.elapsed();
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(("kafka", address)) => broker.kafka = address.to_owned(),
                Some(("http", address)) => broker.http = address.to_owned(),
                Some(("MQTT", address)) => broker.mqtt = address.to_owned(),
                _ => {}
            }
        }
        let addresses = [&broker.kafka, &broker.http, &broker.mqtt];
        if addresses.iter().any(|address| address.is_empty()) {
            bail!("the broker's ready line has no addresses: {line}");
        }
        Ok(broker)
    }

    fn ready_line(&mut self) -> Result<String> {
        let stdout = self
            .child
            .stdout
            .take()
            .context("the broker has no output")?;
        let (sender, receiver) = mpsc::channel();
        // Reads to the end, so that the broker never waits for us; ends with the broker.
        std::thread::Builder::new()
            .spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            })
            .context("start a thread")?;
        loop {
            match receiver.recv_timeout(READY_WAIT_MAX) {
                Ok(line) if line.starts_with("ready ") => return Ok(line),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the broker was not ready within {READY_WAIT_MAX:?}")
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("wait for the broker")?;
                    bail!("the broker ended before it was ready: {status}")
                }
            }
        }
    }

    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no last word, no flush. Blocks until the process is gone.
    pub(super) fn kill(mut self) -> Result<()> {
        self.child.kill().context("kill the broker")?;
        self.child.wait().context("wait for the killed broker")?;
        Ok(())
    }

    /// SIGTERM, and waits for the orderly end. Blocks.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .context("the broker has no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .context("ask the broker to stop")?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_WAIT_MAX {
            if let Some(status) = self.child.try_wait().context("wait for the broker")? {
                if status.success() {
                    return Ok(());
                }
                bail!("the broker did not end in order: {status}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the broker did not stop within {STOP_WAIT_MAX:?}; it is killed")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].join("\n");
    format!("the broker's last log lines:\n{tail}")
}
