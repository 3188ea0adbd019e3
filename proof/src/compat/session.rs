//! Session: runs one client's program against a broker of its own, and answers the program's
//! requests, which come as lines on its stdout:
//!
//! ```text
//! @restart term|kill           bring the broker down that way and up again      -> ok
//! @stop term|kill, @start      the two halves                                   -> ok
//! @codec TOPIC PARTITION NAME  every stored batch has this codec                -> ok | wrong: why
//! @idempotent TOPIC PARTITION  every stored batch carries a producer id         -> ok | wrong: why
//! @http                        where HTTP listens now                           -> ok HOST:PORT
//! @secured                     where SASL_SSL and SSL listen, and certificates   -> ok HOST:PORT HOST:PORT DIRECTORY
//! @caller PRINCIPAL            the broker takes some connection for this user   -> ok | wrong: why
//! @mqtt                        where MQTT listens                              -> ok HOST:PORT
//! @amqp                        where AMQP listens                              -> ok HOST:PORT
//! @segments TOPIC ID PARTITION the partition's segment files                    -> ok PATH…
//! @pass SCENARIO, @fail SCENARIO: WHY                                            (no reply)
//! ```
//!
//! Every other line is the program's own chatter and goes to its log.
//! Caller: `compat::main`. Invariant: a scenario passes only if the program said so and ended with 0.

use super::clients::{Client, Program, SECURED};
use super::install::Places;
use super::peer::{ADDRESS, Kind, Peer, Stop};
use super::raw;
use crate::secured::Secured;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// What every broker is started with: compaction is looked for often, so that no client has to wait for it.
const SETTINGS: &[(&str, &str)] = &[("log.cleaner.backoff.ms", "300")];

/// What came of one client.
#[derive(Serialize)]
pub struct Report {
    /// Name of the client.
    pub client: &'static str,
    /// Version of the client.
    pub version: &'static str,
    /// True if every scenario passed and the program ended well.
    pub passed: bool,
    /// Scenario by scenario, in the order of the matrix.
    pub scenarios: Vec<Outcome>,
    /// The program's exit code; none if it was ended.
    pub exit_code: Option<i32>,
    /// From the broker's start to the program's end.
    pub seconds: f64,
    /// The program's log.
    pub log: String,
}

/// What came of one scenario.
#[derive(Serialize)]
pub struct Outcome {
    /// Name of the scenario.
    pub scenario: String,
    /// None if it passed.
    pub failure: Option<String>,
}

/// Runs a client to its end, or until `seconds_max` have passed.
pub fn run(client: &Client, kind: Kind, places: &Places, seconds_max: u64) -> Report {
    let started = Instant::now();
    let directory = places.cache.join("run").join(client.name);
    let log = directory.join("client.log");
    let mut said = BTreeMap::new();
    let mut exit_code = None;
    let is_ours = matches!(kind, Kind::Alluvium { .. });
    let is_owed = |scenario: &str| is_ours || !SECURED.contains(&scenario);
    let secures = is_ours && client.scenarios().any(|one| SECURED.contains(&one));
    let ended = settings(&secured_directory(places, client), secures).and_then(|settings| {
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut peer = Peer::start_with(kind.clone(), &directory, &settings)?;
        let mut desk = Desk {
            peer: &mut peer,
            secured: secured_directory(places, client),
            said: &mut said,
        };
        exit_code = converse(client, &mut desk, places, &log, seconds_max)?;
        peer.stop(Stop::Term)
    });
    said.retain(|scenario, _| is_owed(scenario));
    let trouble = match (&ended, exit_code) {
        (Err(error), _) => Some(format!("{error:#}")),
        (Ok(()), Some(0)) => None,
        (Ok(()), code) => Some(format!("the program ended with {code:?}")),
    };
    let mut scenarios: Vec<Outcome> = client
        .scenarios()
        .filter(|name| is_owed(name))
        .map(|name| Outcome {
            scenario: name.to_string(),
            failure: match said.remove(name) {
                Some(failure) => failure,
                None => Some(
                    trouble
                        .clone()
                        .unwrap_or_else(|| "not reported".to_string()),
                ),
            },
        })
        .collect();
    scenarios.extend(said.into_keys().map(|scenario| Outcome {
        failure: Some("not in the matrix".to_string()),
        scenario,
    }));
    // What the client got over is our error all the same.
    if let Some(complaint) = kind.complaint(&directory) {
        scenarios.push(Outcome {
            scenario: "the broker's log".to_string(),
            failure: Some(complaint),
        });
    }
    if let Some(trouble) = trouble
        && scenarios.iter().all(|outcome| outcome.failure.is_none())
    {
        scenarios.push(Outcome {
            scenario: "end".to_string(),
            failure: Some(trouble),
        });
    }
    let passed = scenarios.iter().all(|outcome| outcome.failure.is_none());
    if passed {
        // Logs tell enough. All clients' stores together would fill a small disk.
        let _ = std::fs::remove_dir_all(directory.join("data"));
    }
    Report {
        client: client.name,
        version: client.version,
        passed,
        scenarios,
        exit_code,
        seconds: started.elapsed().as_secs_f64(),
        log: log.display().to_string(),
    }
}

type Said = BTreeMap<String, Option<String>>;

/// Where a client's certificates and users lie: beside its broker's directory, which a start empties.
fn secured_directory(places: &Places, client: &Client) -> PathBuf {
    let name = format!("{}-secured", client.name);
    places.cache.join("run").join(name)
}

/// What a broker is started with. With encrypted listeners, their certificates are made anew.
fn settings(directory: &Path, secures: bool) -> Result<Vec<(String, String)>> {
    let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let mut settings: Vec<(String, String)> = SETTINGS.iter().map(own).collect();
    if secures {
        let others = "SASL_SSL://127.0.0.1:0,SSL://127.0.0.1:0";
        settings.push((
            "listeners".to_owned(),
            format!("PLAINTEXT://{ADDRESS},{others}"),
        ));
        settings.extend(Secured::make(directory)?.settings());
    }
    Ok(settings)
}

/// What a program's requests are answered from.
struct Desk<'a> {
    peer: &'a mut Peer,
    secured: PathBuf,
    said: &'a mut Said,
}

fn converse(
    client: &Client,
    desk: &mut Desk<'_>,
    places: &Places,
    log: &Path,
    seconds_max: u64,
) -> Result<Option<i32>> {
    let mut log = File::create(log)?;
    let mut command = command(client, places)?;
    let child = command
        .arg(desk.peer.address())
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let mut child = Group(child);
    let mut replies = child.0.stdin.take().expect("stdin is piped");
    let stdout = child.0.stdout.take().expect("stdout is piped");
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(seconds_max);
    loop {
        let wait = deadline.saturating_duration_since(Instant::now());
        let line = match lines.recv_timeout(wait) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("still running after {seconds_max} s"),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        writeln!(log, "{line}")?;
        if let Some(reply) = answer(&line, desk)? {
            writeln!(log, "> {reply}")?;
            if writeln!(replies, "{reply}").is_err() {
                break;
            }
        }
    }
    Ok(child.0.wait()?.code())
}

/// The program's process group, ended with everything that it started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn command(client: &Client, places: &Places) -> Result<Command> {
    let mut command = program(&client.program, places)?;
    let directory = places.cache.join("run").join(client.name).join("work");
    fs::create_dir_all(&directory)?;
    command.current_dir(directory);
    Ok(command)
}

/// What starts a program of `tests/compat`; arguments and pipes are the caller's.
pub fn program(program: &Program, places: &Places) -> Result<Command> {
    let mut command;
    match program {
        Program::Python {
            environment,
            script,
        } => {
            command = Command::new(places.python(*environment));
            command
                .env("PYTHONPATH", places.sources.join("python"))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("COMPAT_CACHE", &places.cache)
                .arg("-u")
                .arg(places.sources.join(script));
        }
        Program::Java { project, class } => {
            command = Command::new("java");
            command
                .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
                .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
                .arg(places.classpath(project)?)
                .arg(class);
        }
        Program::Node { script } => {
            let (project, _) = script.split_once('/').unwrap_or((script, ""));
            command = Command::new("node");
            command
                .env("NODE_PATH", places.node_modules(project))
                .env("KAFKAJS_NO_PARTITIONER_WARNING", "1")
                .arg(places.sources.join(script));
        }
        Program::Binary { path } => command = Command::new(places.cache.join(path)),
    }
    Ok(command)
}

/// Carries out what a line asks for. Error: the broker does not come back.
fn answer(line: &str, desk: &mut Desk<'_>) -> Result<Option<String>> {
    let Desk {
        peer,
        secured,
        said,
    } = desk;
    let Some((verb, rest)) = line
        .strip_prefix('@')
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
    else {
        return Ok(None);
    };
    let words: Vec<&str> = rest.split_whitespace().collect();
    let reply = match (verb, words.as_slice()) {
        ("pass", _) => {
            said.entry(rest.to_string()).or_insert(None);
            return Ok(None);
        }
        ("fail", _) => {
            let (scenario, why) = rest.split_once(": ").unwrap_or((rest, "no reason given"));
            said.insert(scenario.to_string(), Some(why.to_string()));
            return Ok(None);
        }
        ("restart", [how]) => {
            peer.stop(stop(how)?)?;
            peer.resume()?;
            "ok".to_string()
        }
        ("stop", [how]) => {
            peer.stop(stop(how)?)?;
            "ok".to_string()
        }
        ("start", []) => {
            peer.resume()?;
            "ok".to_string()
        }
        ("http", []) => match peer.http() {
            Some(address) => format!("ok {address}"),
            None => "wrong: this broker has no HTTP".to_string(),
        },
        ("secured", []) => match (peer.other("SASL_SSL"), peer.other("SSL")) {
            (Ok(sasl_ssl), Ok(ssl)) => format!("ok {sasl_ssl} {ssl} {}", secured.display()),
            _ => "wrong: this broker has no encrypted listeners".to_string(),
        },
        ("caller", [principal]) => verdict(caller(peer, principal)),
        ("mqtt", []) => match peer.mqtt() {
            Some(address) => format!("ok {address}"),
            None => "wrong: this broker has no MQTT".to_string(),
        },
        ("amqp", []) => match peer.amqp() {
            Some(address) => format!("ok {address}"),
            None => "wrong: this broker has no AMQP".to_string(),
        },
        ("codec", [topic, partition, codec]) => {
            verdict(stored_codec(peer, topic, partition, codec))
        }
        ("idempotent", [topic, partition]) => verdict(stored_producer(peer, topic, partition)),
        ("segments", [topic, topic_id, partition]) => {
            match peer.segment_files(topic, topic_id, partition.parse()?) {
                Ok(files) => {
                    let names: Vec<String> = files
                        .iter()
                        .map(|file| file.display().to_string())
                        .collect();
                    format!("ok {}", names.join(" "))
                }
                Err(error) => format!("wrong: {error:#}"),
            }
        }
        _ => bail!("the program asked for something unknown: {line}"),
    };
    Ok(Some(reply))
}

fn stop(word: &str) -> Result<Stop> {
    match word {
        "term" => Ok(Stop::Term),
        "kill" => Ok(Stop::Kill),
        _ => bail!("a broker can be brought down by term or kill, not by {word}"),
    }
}

fn verdict(checked: Result<()>) -> String {
    match checked {
        Ok(()) => "ok".to_string(),
        Err(error) => format!("wrong: {error:#}"),
    }
}

/// Looks for a connection of this user.
fn caller(peer: &Peer, principal: &str) -> Result<()> {
    let address = peer.http().context("this broker has no HTTP")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /connections HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let wanted = format!("\"principal\":\"{principal}\"");
    let shown = answer.lines().last().unwrap_or_default();
    ensure!(shown.contains(&wanted), "no {principal} in {shown}");
    Ok(())
}

fn stored_codec(peer: &Peer, topic: &str, partition: &str, codec: &str) -> Result<()> {
    let batches = raw::stored_batches(peer.address(), topic, partition.parse()?)?;
    ensure!(!batches.is_empty(), "{topic}-{partition} is empty");
    for batch in &batches {
        ensure!(
            batch.codec() == codec,
            "the batch of {} records at {} is stored as {}, not {codec}",
            batch.record_count,
            batch.base_offset,
            batch.codec()
        );
    }
    Ok(())
}

fn stored_producer(peer: &Peer, topic: &str, partition: &str) -> Result<()> {
    let batches = raw::stored_batches(peer.address(), topic, partition.parse()?)?;
    ensure!(!batches.is_empty(), "{topic}-{partition} is empty");
    for batch in &batches {
        ensure!(
            batch.producer_id >= 0,
            "the batch at {} carries no producer id",
            batch.base_offset
        );
    }
    Ok(())
}
