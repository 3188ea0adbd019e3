//! Peer: the broker that a client is run against: ours, or Apache Kafka as the oracle that the
//! scenarios themselves are right. It can be stopped, killed and started again at the same address.
//! Callers: `session`, where each client has a peer of its own, with a data directory of its own; `chaos`; `suites`.

use super::raw;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use xtask::run;

const START_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 30;

/// Stands in settings of ours for the address that stays over restarts.
pub const ADDRESS: &str = "{address}";

/// Which broker, and what it takes to start one.
#[derive(Clone)]
pub enum Kind {
    /// Ours, from this binary.
    Alluvium {
        /// The built `alluvium`.
        binary: PathBuf,
    },
    /// Apache Kafka in one process, from this class path.
    Kafka {
        /// Class path with `kafka_2.13`.
        classpath: String,
        /// A formatted, empty log directory to start from.
        formatted: PathBuf,
    },
}

impl Kind {
    /// The first error that our own broker logged in `directory`, or its panic: neither is what a client may bring about.
    pub fn complaint(&self, directory: &Path) -> Option<String> {
        let is_ours = matches!(self, Kind::Alluvium { .. });
        is_ours.then(|| complaint(directory)).flatten()
    }
}

/// The same of a broker of ours that somebody else has started.
pub fn complaint(directory: &Path) -> Option<String> {
    let log = fs::read_to_string(directory.join("broker.log")).unwrap_or_default();
    log.lines()
        .find(|line| line.contains(" ERROR ") || line.contains("panicked at"))
        .map(str::to_string)
}

/// How a broker is brought down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: it drains and exits.
    Term,
    /// SIGKILL.
    Kill,
}

/// A broker under test.
pub struct Peer {
    kind: Kind,
    settings: Vec<(String, String)>,
    directory: PathBuf,
    address: String,
    /// `host:port` of HTTP; another one after each start. None of Apache Kafka.
    http: Option<String>,
    /// Addresses of its further listeners by their names; others after each start.
    others: Vec<(String, String)>,
    /// `host:port` of MQTT; the same after each start. None of Apache Kafka.
    mqtt: Option<String>,
    /// `host:port` of AMQP; the same after each start. None of Apache Kafka.
    amqp: Option<String>,
    child: Option<Child>,
}

impl Peer {
    /// Starts a broker on a fresh data directory inside `directory`, which is emptied first.
    /// Settings have the same names in both kinds of brokers.
    pub fn start_with(kind: Kind, directory: &Path, settings: &[(&str, &str)]) -> Result<Peer> {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory)?;
        let address = match &kind {
            Kind::Alluvium { .. } => "127.0.0.1:0".to_string(),
            Kind::Kafka { formatted, .. } => {
                copy_directory(formatted, &directory.join("data"))?;
                format!("127.0.0.1:{}", free_port()?)
            }
        };
        let mut peer = Peer {
            kind,
            settings: settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            directory: directory.to_path_buf(),
            address,
            http: None,
            others: Vec::new(),
            mqtt: None,
            amqp: None,
            child: None,
        };
        peer.resume()?;
        Ok(peer)
    }

    /// `host:port` of the Kafka protocol; stays the same over restarts.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `host:port` of HTTP, as long as it is not started again. Apache Kafka has none.
    pub fn http(&self) -> Option<&str> {
        self.http.as_deref()
    }

    /// `host:port` of a further listener, as long as it is not started again.
    pub fn other(&self, name: &str) -> Result<&str> {
        let found = self.others.iter().find(|(known, _)| known == name);
        let (_, address) = found.with_context(|| format!("there is no listener {name}"))?;
        Ok(address)
    }

    /// `host:port` of MQTT; stays the same over restarts. Apache Kafka has none.
    pub fn mqtt(&self) -> Option<&str> {
        self.mqtt.as_deref()
    }

    /// `host:port` of AMQP; stays the same over restarts. Apache Kafka has none.
    pub fn amqp(&self) -> Option<&str> {
        self.amqp.as_deref()
    }

    /// Whether it answers at its address.
    pub fn answers(&self) -> bool {
        raw::answers(&self.address)
    }

    /// The partition's `.log` segment files in order of their offsets.
    pub fn segment_files(
        &self,
        topic: &str,
        topic_id: &str,
        partition: i32,
    ) -> Result<Vec<PathBuf>> {
        let data = self.directory.join("data");
        let wanted: Vec<String> = match &self.kind {
            Kind::Kafka { .. } => vec![format!("{topic}-{partition}")],
            Kind::Alluvium { .. } => vec![format!("{topic_id}-{partition}")],
        };
        let mut files = Vec::new();
        let mut pending = vec![data];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                let in_partition = directory.file_name().is_some_and(|name| {
                    wanted
                        .iter()
                        .any(|wanted| name.to_string_lossy() == *wanted)
                });
                if path.is_dir() {
                    pending.push(path);
                } else if in_partition && path.extension().is_some_and(|ending| ending == "log") {
                    files.push(path);
                }
            }
        }
        ensure!(
            !files.is_empty(),
            "no segment files of {topic}-{partition} ({topic_id})"
        );
        files.sort();
        Ok(files)
    }

    /// Brings the broker down. Error: it takes too long, or ours does not exit with 0 on SIGTERM.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        match how {
            Stop::Kill => child.kill()?,
            Stop::Term => {
                let id = i32::try_from(child.id())?;
                let id = rustix::process::Pid::from_raw(id).context("process id 0")?;
                rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("the broker did not stop within {STOP_SECONDS_MAX} s of SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        if how == Stop::Term && matches!(self.kind, Kind::Alluvium { .. }) {
            ensure!(status.success(), "the broker left SIGTERM with {status}");
        }
        Ok(())
    }

    /// Starts the broker again on the same data and the same address.
    pub fn resume(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("broker.log"))?;
        let mut command = match &self.kind {
            Kind::Alluvium { binary } => self.alluvium(binary),
            Kind::Kafka { classpath, .. } => self.kafka(classpath)?,
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut log = log;
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                use std::io::Write;
                let _ = writeln!(log, "{line}");
                let _ = sender.send(line);
            }
        });
        if matches!(self.kind, Kind::Alluvium { .. }) {
            let wait = Duration::from_secs(START_SECONDS_MAX);
            let line = lines.recv_timeout(wait).with_context(|| {
                format!(
                    "no ready line; see {}",
                    self.directory.join("broker.log").display()
                )
            })?;
            self.address = address_behind("kafka", &line)
                .with_context(|| format!("the ready line names no Kafka address: {line}"))?;
            self.http = address_behind("http", &line);
            let words = line
                .split_whitespace()
                .filter_map(|word| word.split_once('='));
            self.others = words
                .map(|(name, address)| (name.to_owned(), address.to_owned()))
                .collect();
            self.mqtt = address_behind("MQTT", &line);
            self.amqp = address_behind("AMQP", &line);
        }
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while !raw::answers(&self.address) {
            let child = self.child.as_mut().expect("just started");
            if let Some(status) = child.try_wait()? {
                bail!(
                    "the broker ended with {status}; see {}",
                    self.directory.join("broker.log").display()
                );
            }
            ensure!(
                Instant::now() < deadline,
                "the broker does not answer at {}",
                self.address
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn alluvium(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .arg("--data")
            .arg(self.directory.join("data"))
            .args(["--http", "127.0.0.1:0"])
            .args(["--mqtt", self.mqtt.as_deref().unwrap_or("127.0.0.1:0")])
            .args(["-X", "group.initial.rebalance.delay.ms=0"]);
        // The broker takes these for settings, and some of them are told to the chore.
        for (name, _) in std::env::vars_os() {
            if is_setting(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        for (key, value) in &self.settings {
            let value = value.replace(ADDRESS, &self.address);
            command.arg("-X").arg(format!("{key}={value}"));
        }
        // Either of them says where it listens.
        let is_set = |name: &str| self.settings.iter().any(|(key, _)| key == name);
        if !is_set("listeners") {
            command.args(["--kafka", &self.address]);
        }
        if !is_set("amqp.listen") {
            command.args(["--amqp", self.amqp.as_deref().unwrap_or("127.0.0.1:0")]);
        }
        command
    }

    fn kafka(&self, classpath: &str) -> Result<Command> {
        let settings = self.directory.join("server.properties");
        if !settings.exists() {
            let controller = free_port()?;
            let mut text = kafka_settings(&self.address, controller, &self.directory.join("data"));
            for (key, value) in &self.settings {
                text.push_str(&format!("{key}={value}\n"));
                if key == "node.id" {
                    // It is the only voter, and the directory was formatted for number 1.
                    text.push_str(&format!(
                        "controller.quorum.voters={value}@127.0.0.1:{controller}\n"
                    ));
                    let meta = self.directory.join("data/meta.properties");
                    let formatted = fs::read_to_string(&meta)?;
                    fs::write(
                        meta,
                        formatted.replace("node.id=1", &format!("node.id={value}")),
                    )?;
                }
            }
            fs::write(&settings, text)?;
        }
        // The kernel ends it with us, also where nothing here could: half a gigabyte must not stay behind.
        let mut command = match run::on_path("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "java"]);
                command
            }
            None => Command::new("java"),
        };
        command
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args([
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp",
                classpath,
                "kafka.Kafka",
            ])
            .arg(settings);
        Ok(command)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The settings of a one-process Kafka.
pub fn kafka_settings(address: &str, controller_port: u16, data: &Path) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://{address}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         offsets.topic.num.partitions=1\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.share.min.record.lock.duration.ms=1000\n\
         group.initial.rebalance.delay.ms=0\n",
        data.display()
    )
}

/// Whether the broker reads this variable, all but what it logs, which changes nothing.
fn is_setting(variable: &str) -> bool {
    variable.starts_with("ALLUVIUM_") && variable != "ALLUVIUM_LOG"
}

/// The first `host:port` after this word, whatever stands between.
fn address_behind(word: &str, ready_line: &str) -> Option<String> {
    let (_, rest) = ready_line.split_once(word)?;
    rest.split(|c: char| !(c.is_ascii_alphanumeric() || ".:-[]".contains(c)))
        .map(|word| word.trim_matches(|c| ":-.".contains(c)))
        .find(|word| {
            word.rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        })
        .map(str::to_string)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{address_behind, is_setting};

    #[test]
    fn the_broker_under_test_gets_no_settings_from_the_environment() {
        assert!(is_setting("ALLUVIUM_COMPAT_CACHE") && is_setting("ALLUVIUM_NODE_ID"));
        assert!(!is_setting("ALLUVIUM_LOG") && !is_setting("PATH"));
    }

    #[test]
    fn the_kafka_address_is_found_in_any_spelling_of_the_ready_line() {
        for line in [
            "alluvium 0.1.0 ready: kafka 127.0.0.1:9092, http 127.0.0.1:8080",
            "ready kafka=127.0.0.1:9092 http=127.0.0.1:8080",
            "listening on kafka://127.0.0.1:9092 and http://127.0.0.1:8080",
        ] {
            assert_eq!(
                address_behind("kafka", line).as_deref(),
                Some("127.0.0.1:9092"),
                "{line}"
            );
        }
        assert_eq!(address_behind("kafka", "ready http 127.0.0.1:8080"), None);
    }
}
