//! Member: one running program of `tests/compat` that is a member of the group. It is started, stalled, woken, killed or
//! told to leave, and what it tells goes into the history. Caller: `chaos::run`.

use super::history::{Ending, History, Telling, What, Who};
use super::schedule::{Client, SESSION, Seat};
use crate::compat::clients::Program;
use crate::compat::install::Places;
use crate::compat::session;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The group's name.
pub const GROUP: &str = "chaos";
/// The topic that it reads.
pub const TOPIC: &str = "chaos";
/// How long the group waits for a member to rejoin.
const REBALANCE: Duration = Duration::from_secs(5);
/// Leaving takes no longer than this, or something is wrong.
const LEAVE_MAX: Duration = Duration::from_secs(20);

/// A member's program.
pub struct Member {
    who: Who,
    child: Child,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    history: Arc<Mutex<History>>,
    was_fenced: Arc<AtomicBool>,
    was_told: bool,
    ended: bool,
}

/// A line as programs write it.
#[derive(Deserialize)]
struct Line {
    at_us: u64,
    #[serde(flatten)]
    telling: Telling,
}

impl Member {
    /// Starts the program of a seat, for the `number`th time.
    pub fn start(
        seat: Seat,
        number: usize,
        address: &str,
        places: &Places,
        directory: &Path,
        history: &Arc<Mutex<History>>,
    ) -> Result<Member> {
        let process = format!("{}#{number}", seat.name);
        let owner = if seat.is_static {
            seat.name.to_owned()
        } else {
            process.clone()
        };
        let who = Who { process, owner };
        let log = File::create(directory.join(format!("{}.log", who.process)))?;
        let mut command = session::program(&program(seat.client), places)?;
        if seat.client == Client::FranzGo {
            command.arg("member");
        }
        command
            .args([address, GROUP, TOPIC])
            .arg(SESSION.as_millis().to_string())
            .arg(REBALANCE.as_millis().to_string());
        if seat.is_static {
            command.arg(seat.name);
        }
        note(history, now_us(), What::Started(who.clone()));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let was_fenced = Arc::new(AtomicBool::new(false));
        let reader = {
            let (who, history, was_fenced) = (who.clone(), history.clone(), was_fenced.clone());
            std::thread::spawn(move || {
                listen(BufReader::new(stdout), log, &who, &history, &was_fenced)
            })
        };
        Ok(Member {
            who,
            stdin: child.stdin.take(),
            child,
            reader: Some(reader),
            history: history.clone(),
            was_fenced,
            was_told: false,
            ended: false,
        })
    }

    /// Whose place in the group it takes.
    pub fn owner(&self) -> &str {
        &self.who.owner
    }

    /// SIGSTOP.
    pub fn stall(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL.
    pub fn crash(&mut self) -> Result<()> {
        // Whoever had ended before had ended by itself.
        if self.is_running()? {
            self.child.kill()?;
            self.end(Ending::Killed)?;
        }
        Ok(())
    }

    /// Whether it runs, or is stalled. Notes its end if it has ended by itself.
    pub fn is_running(&mut self) -> Result<bool> {
        if !self.ended
            && let Some(status) = self.child.try_wait()?
        {
            let by_right = status.success() && (self.was_told || self.was_fenced.load(Relaxed));
            self.end(if by_right {
                Ending::Left
            } else {
                Ending::Failed
            })?;
        }
        Ok(!self.ended)
    }

    /// Tells it to leave, without waiting.
    pub fn ask_to_leave(&mut self) {
        self.was_told = true;
        if let Some(mut stdin) = self.stdin.take() {
            // It may have ended already.
            let _ = writeln!(stdin, "leave");
        }
    }

    /// Waits until it has left.
    pub fn see_it_leave(&mut self) -> Result<()> {
        let deadline = Instant::now() + LEAVE_MAX;
        while !self.ended {
            match self.child.try_wait()? {
                Some(status) if status.success() => self.end(Ending::Left)?,
                Some(_) => self.end(Ending::Failed)?,
                None if Instant::now() > deadline => {
                    self.child.kill()?;
                    self.end(Ending::Failed)?;
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if self.ended {
            return;
        }
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The child is not waited for yet, so its id is its own even if it has ended.
            let _ = kill_process(id, signal);
        }
    }

    fn end(&mut self, ending: Ending) -> Result<()> {
        self.ended = true;
        self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        note(
            &self.history,
            now_us(),
            What::Ended(self.who.clone(), ending),
        );
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads a program's lines to their end. What is no JSON is chatter, and goes to the log with the facts.
fn listen(
    lines: impl BufRead,
    mut log: File,
    who: &Who,
    history: &Mutex<History>,
    was_fenced: &AtomicBool,
) {
    for line in lines.lines().map_while(Result::ok) {
        let _ = writeln!(log, "{line}");
        match serde_json::from_str(&line) {
            Ok(Line { at_us, telling }) => {
                if matches!(telling, Telling::Fenced { .. }) {
                    was_fenced.store(true, Relaxed);
                }
                note(history, at_us, What::Told(who.clone(), telling));
            }
            Err(_) if !line.starts_with('{') => {}
            Err(error) => {
                let line = format!("{error}: {line}");
                note(history, now_us(), What::Garbled(who.clone(), line));
            }
        }
    }
}

/// Notes a fact.
pub fn note(history: &Mutex<History>, at_us: u64, what: What) {
    history
        .lock()
        .expect("nothing panics under this lock")
        .note(at_us, what);
}

/// The machine's clock, which all programs read.
pub fn now_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn program(client: Client) -> Program {
    match client {
        Client::KafkaPython => Program::Python {
            environment: Some("kafka-python"),
            script: "kafka_python/member.py",
        },
        Client::Librdkafka => Program::Python {
            environment: Some("confluent-newest"),
            script: "confluent/member.py",
        },
        Client::FranzGo => Program::Binary { path: "franz-go" },
        Client::Java => Program::Java {
            project: "clients-4",
            class: "Member",
        },
    }
}
