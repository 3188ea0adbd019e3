//! The victim: a broker process of the exam's own, which is started, watched, hurt and always taken away again.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::memory_group::MemoryGroup;
use xtask::run;

/// A start that takes longer than this has failed.
const START_SECONDS_MAX: u64 = 60;
/// A drain that takes longer than this has failed.
const STOP_SECONDS_MAX: u64 = 30;

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The broker's binary.
    pub binary: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// `-X` settings.
    pub settings: Vec<(String, String)>,
    /// Where its log goes, one file for all starts.
    pub log: PathBuf,
    /// Where the Kafka protocol listens; a new port for each start if it is port 0.
    pub kafka: String,
    /// Options for strace, if it is to run under it.
    pub strace: Option<Vec<String>>,
    /// Shell commands that the process runs before it becomes the broker.
    limits: Vec<String>,
    /// Environment variables of its own.
    pub environment: Vec<(String, String)>,
    /// Whether it may be told that it is to serve no MQTT: a build from before MQTT refuses the option.
    knows_mqtt: bool,
}

impl Plan {
    /// A broker on `data`, with its log beside the exam's other files.
    pub fn new(binary: &Path, data: &Path, work: &Path) -> Plan {
        Plan {
            binary: binary.to_path_buf(),
            data: data.to_path_buf(),
            settings: Vec::new(),
            log: work.join("broker.log"),
            kafka: "127.0.0.1:0".to_owned(),
            strace: None,
            limits: Vec::new(),
            environment: Vec::new(),
            knows_mqtt: true,
        }
    }

    /// Of a build that may be older than this one.
    pub fn of_any_build(mut self) -> Result<Plan> {
        let help = run::quiet(Command::new(&self.binary).args(["serve", "--help"]))?;
        self.knows_mqtt = help.contains("--mqtt");
        Ok(self)
    }

    /// With the Kafka protocol at this address, so that clients find it again after a restart.
    pub fn at(mut self, kafka: &str) -> Plan {
        kafka.clone_into(&mut self.kafka);
        self
    }

    /// With a setting overridden, also one that it has.
    pub fn with(mut self, key: &str, value: impl ToString) -> Plan {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// With this in its environment.
    pub fn in_environment(mut self, key: &str, value: impl ToString) -> Plan {
        self.environment.push((key.to_owned(), value.to_string()));
        self
    }

    /// With no more than so many descriptors. More than this process may have take root.
    pub fn with_descriptors(mut self, count: usize) -> Plan {
        self.limits.push(format!("ulimit -n {count}"));
        self
    }

    /// In this group of processes, and thus with no more than its memory.
    pub fn within(mut self, group: &MemoryGroup) -> Plan {
        self.limits
            .push(format!("echo $$ > '{}'", group.processes().display()));
        self
    }

    /// Under strace with these options.
    pub fn traced(mut self, options: &[&str]) -> Plan {
        self.strace = Some(options.iter().map(|option| (*option).to_owned()).collect());
        self
    }

    /// What all brokers of this plan logged so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn command(&self) -> Result<Command> {
        let mut command = match &self.strace {
            Some(options) => {
                ensure!(
                    run::on_path("strace").is_some(),
                    "strace is not installed (Debian: apt-get install strace)"
                );
                let mut command = Command::new("strace");
                // -D: the broker is our own child and strace its grandchild, so that a kill hits the broker.
                command.arg("-D").arg("-f").args(options).arg(&self.binary);
                command
            }
            None if self.limits.is_empty() => Command::new(&self.binary),
            None => {
                let mut command = Command::new("sh");
                command
                    .arg("-c")
                    .arg(format!("{} && exec \"$@\"", self.limits.join(" && ")))
                    .arg("sh")
                    .arg(&self.binary);
                command
            }
        };
        command.arg("serve").arg("--data").arg(&self.data);
        command.args(["--http", "127.0.0.1:0"]);
        // Either of them says where the Kafka protocol listens.
        if !self.settings.iter().any(|(key, _)| key == "listeners") {
            command.args(["--kafka", &self.kafka]);
        }
        // Its default port is one for all, and a warning where another server has it.
        if self.knows_mqtt && !self.settings.iter().any(|(key, _)| key == "mqtt.listen") {
            command.args(["--mqtt", "off"]);
        }
        for (key, value) in &self.settings {
            command.arg("-X").arg(format!("{key}={value}"));
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        command
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        Ok(command)
    }

    /// Starts the broker, and kills it after this long. Answers whether it had said that it was ready; an error if it ended by
    /// itself.
    pub fn start_and_kill(&self, after: Duration) -> Result<bool> {
        let mut child = self
            .command()?
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        std::thread::sleep(after);
        child.kill()?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.signal().is_some(),
            "the broker ended by itself: {}; its log: {}",
            ending(output.status),
            self.log.display()
        );
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.lines().any(|line| ready(line).is_some()))
    }

    /// Starts the broker, which has to end by itself and never be ready. Gives how it ended, and what it logged.
    pub fn start_refused(&self) -> Result<(ExitStatus, String)> {
        let logged_before = self.log_text().len();
        match self.attempt()? {
            Ok(_) => bail!("the broker started"),
            Err(status) => Ok((status, self.log_text().split_off(logged_before))),
        }
    }

    /// Starts the broker and waits until it is ready.
    pub fn start(&self) -> Result<Victim> {
        self.attempt()?.or_else(|status| {
            bail!(
                "the broker ended before it was ready ({status}); its log ends: {}",
                log_tail(&self.log_text())
            )
        })
    }

    /// The same; the inner error is how it ended where it did so before it was ready.
    fn attempt(&self) -> Result<Result<Victim, ExitStatus>> {
        let began = Instant::now();
        let child = self
            .command()?
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        let mut victim = Victim {
            child,
            log: self.log.clone(),
            kafka: String::new(),
            http: String::new(),
            others: Vec::new(),
            up_in: Duration::ZERO,
            status: None,
        };
        let stdout = victim.child.stdout.take().context("no stdout")?;
        let (sender, lines) = mpsc::channel();
        // Ends with the broker's stdout; nobody waits for it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = began + Duration::from_secs(START_SECONDS_MAX);
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let line = match lines.recv_timeout(rest) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!(
                        "the broker was not ready within {START_SECONDS_MAX} s; its log ends: {}",
                        victim.log_tail()
                    );
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Ok(Err(victim.wait(Duration::from_secs(5))?));
                }
            };
            if let Some(addresses) = ready(&line) {
                victim.kafka = addresses.kafka;
                victim.http = addresses.http;
                victim.others = addresses.others;
                victim.up_in = began.elapsed();
                return Ok(Ok(victim));
            }
        }
    }
}

/// The addresses in the line that says ready.
#[derive(Debug, PartialEq, Eq)]
struct Addresses {
    kafka: String,
    http: String,
    others: Vec<(String, String)>,
}

fn ready(line: &str) -> Option<Addresses> {
    let mut words = line.split_whitespace();
    if words.next()? != "ready" {
        return None;
    }
    let (mut kafka, mut http, mut others) = (None, None, Vec::new());
    for word in words {
        match word.split_once('=') {
            Some(("kafka", address)) => kafka = Some(address.to_owned()),
            Some(("http", address)) => http = Some(address.to_owned()),
            Some((name, address)) => others.push((name.to_owned(), address.to_owned())),
            None => {}
        }
    }
    Some(Addresses {
        kafka: kafka?,
        http: http?,
        others,
    })
}

/// A running broker. It is killed when this goes out of scope.
pub struct Victim {
    child: Child,
    log: PathBuf,
    /// Its Kafka address.
    pub kafka: String,
    /// Its HTTP address.
    pub http: String,
    /// Its further listeners, by their names.
    others: Vec<(String, String)>,
    /// How long the start took.
    pub up_in: Duration,
    status: Option<ExitStatus>,
}

impl Victim {
    /// The address of a further listener.
    pub fn other(&self, name: &str) -> Result<String> {
        let found = self.others.iter().find(|(known, _)| known == name);
        let (_, address) = found.with_context(|| format!("there is no listener {name}"))?;
        Ok(address.clone())
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        if self.status.is_none() {
            self.child.kill().context("kill the broker")?;
            self.status = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// SIGTERM: it has to drain and to exit with 0.
    pub fn terminate(&mut self) -> Result<()> {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.child.id())?)
            .context("process id 0")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let status = self.wait(Duration::from_secs(STOP_SECONDS_MAX))?;
        ensure!(status.success(), "SIGTERM ended the broker with {status}");
        Ok(())
    }

    /// One page of its HTTP port: status and the whole answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let address: SocketAddr = self.http.parse()?;
        let patience = Duration::from_secs(10);
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer
            .split_whitespace()
            .nth(1)
            .and_then(|status| status.parse().ok())
            .context("an answer without a status")?;
        Ok((status, answer))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the broker did not end within {patience:?}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_kib("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        self.status_kib("VmHWM:")
    }

    /// Resident memory that belongs to no file, in bytes.
    pub fn anonymous_bytes(&self) -> Result<u64> {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("no {name} of the broker"))?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Processor time that it took since its start, user and system.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in brackets, may hold spaces. Fields 14 and 15 of proc(5) are the 12th and 13th behind it.
        let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
        let fields = rest.split_whitespace().skip(11).take(2);
        let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Entries in its table of maps.
    pub fn maps(&self) -> Result<usize> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id()))?;
        Ok(maps.lines().count())
    }

    /// How many files below a directory it has open or mapped that were removed.
    pub fn removed_files(&self, below: &Path) -> Result<usize> {
        let below = below.to_string_lossy();
        let is_removed = |place: &str| place.contains(&*below) && place.ends_with(" (deleted)");
        let process = format!("/proc/{}", self.child.id());
        let maps = fs::read_to_string(format!("{process}/maps"))?;
        let mapped = maps.lines().filter(|line| is_removed(line)).count();
        let descriptors = fs::read_dir(format!("{process}/fd"))?.flatten();
        // One may be closed meanwhile.
        let open = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        let open = open.filter(|file| is_removed(&file.to_string_lossy()));
        Ok(mapped + open.count())
    }

    /// Its threads.
    pub fn threads(&self) -> Result<u64> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.child.id()))?.count() as u64)
    }

    /// What it and its predecessors on the same data logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of that, on one line.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The end of a log, on one line.
fn log_tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

/// How a process ended, in words.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown ending".to_owned(),
    }
}

/// An address that no other process takes while its broker is down: its port is not one of those that the kernel gives out, as one of
/// these may become the other end of a connection, even of one to itself.
pub fn lasting_address() -> Result<String> {
    let ports = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let first = ports
        .split_whitespace()
        .next()
        .context("no range of ports")?;
    let first: u16 = first.parse()?;
    let id = u16::try_from(std::process::id() % 10_000)?;
    (1..first.saturating_sub(1024))
        .map(|step| first - 1 - (id.wrapping_add(step)) % (first - 1024))
        .map(|port| format!("127.0.0.1:{port}"))
        .find(|address| TcpListener::bind(address).is_ok())
        .context("no port is free")
}

/// Builds the broker in release mode. Answers its path.
pub fn build_release() -> Result<PathBuf> {
    eprintln!("building the broker in release mode");
    run::build_release()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_ready_line_counts() {
        let both = Addresses {
            kafka: "127.0.0.1:1".to_owned(),
            http: "127.0.0.1:2".to_owned(),
            others: vec![("SSL".to_owned(), "127.0.0.1:3".to_owned())],
        };
        let line = "ready kafka=127.0.0.1:1 http=127.0.0.1:2 SSL=127.0.0.1:3";
        assert_eq!(ready(line), Some(both));
        assert_eq!(ready("ready kafka=127.0.0.1:1"), None);
        assert_eq!(ready("not ready kafka=127.0.0.1:1 http=127.0.0.1:2"), None);
    }
}
