//! The `alluvium` binary: as a server, and as a tool that runs to its end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use assert_cmd::cargo::CommandCargoExt as _;
use client::admin::{Admin, NewTopic};
use client::{Client, ClientConfig};
use rustix::process::{Pid, Signal, kill_process};

use crate::server::Server;

/// A command of the binary, without settings from outside.
pub fn alluvium() -> Command {
    let mut command = Command::cargo_bin("alluvium").expect("the binary is built");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ALLUVIUM_") {
            command.env_remove(name);
        }
    }
    // Nobody's own contexts.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// A server over a directory, on ports of its own.
pub fn serve(data: &Path) -> Command {
    let mut command = alluvium();
    command
        .args(["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .arg("--data")
        .arg(data)
        .args(["-X", "wal.file.bytes=262144", "-X", "wal.files.min=2"])
        // Its default port is one for all.
        .args(["-X", "mqtt.listen=off"]);
    command
}

/// The command with every signal at its default: what ran the tests may ignore some (`nohup`), and who starts the server so
/// has asked for that.
pub fn with_default_signals(command: &Command) -> Command {
    let mut wrapped = Command::new("env");
    wrapped
        .arg("--default-signal")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// A server that said it is ready. Killed when it is dropped.
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub kafka: String,
    pub http: String,
    /// Further listeners: names and addresses.
    others: Vec<(String, String)>,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        Running::start_logged(command, Stdio::null())
    }

    /// Starts it with its log going there.
    pub fn start_logged(command: &mut Command, log: Stdio) -> Running {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [ready, kafka, http, ref others @ ..] = words[..] else {
            panic!("not the ready line: {line:?}");
        };
        assert_eq!(ready, "ready");
        Running {
            kafka: kafka
                .strip_prefix("kafka=")
                .expect("its address")
                .to_owned(),
            http: http.strip_prefix("http=").expect("its address").to_owned(),
            others: others
                .iter()
                .map(|it| it.split_once('=').expect("a name and an address"))
                .map(|(name, address)| (name.to_owned(), address.to_owned()))
                .collect(),
            child,
            stdout,
        }
    }

    /// The address of a further listener.
    pub fn other(&self, name: &str) -> &str {
        let found = self.others.iter().find(|(known, _)| known == name);
        &found.expect("such a listener").1
    }

    /// The addresses of all further listeners of a name.
    pub fn others(&self, name: &str) -> Vec<String> {
        let of_name = self.others.iter().filter(|(known, _)| known == name);
        of_name.map(|(_, address)| address.clone()).collect()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks for the end with a signal; returns the exit code and what else was printed.
    pub fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends").code(), rest)
    }

    /// Status and whole answer of an HTTP request.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path}"), "", "")
    }

    /// Status and JSON of an HTTP request: `what` is method and path.
    pub fn ask_json(&self, what: &str, body: &str) -> (u16, serde_json::Value) {
        let (status, answer) = self.ask(what, "Content-Type: application/json\r\n", body);
        let (_, text) = answer.split_once("\r\n\r\n").expect("a body");
        let value = serde_json::from_str(text);
        (
            status,
            value.unwrap_or_else(|error| panic!("{answer}: {error}")),
        )
    }

    /// Status and whole answer of an HTTP request: `what` is method and path, each of the further headers ends its line.
    pub fn ask(&self, what: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).expect("it listens");
        write!(
            stream,
            "{what} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.http,
            body.len()
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .expect("a status");
        (status, answer)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `end` there is nobody left to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates a topic on a server.
pub async fn create_topic(
    running: &Running,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) {
    let client = Client::connect(ClientConfig::new(&running.kafka))
        .await
        .expect("a client");
    let configs = configs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let topic = NewTopic {
        name: name.into(),
        partitions: Some(partitions),
        configs: configs.collect(),
        ..NewTopic::default()
    };
    Admin::new(&client)
        .create_topic(topic)
        .await
        .expect("a topic");
}

/// What a tool said, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Of a run that ended.
    pub fn of(output: Output) -> Said {
        Said {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Standard output as JSON, of a run that succeeded.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).expect("JSON")
    }
}

/// Runs a tool to its end, with nothing to read.
pub fn tool(args: &[&str]) -> Said {
    let output = alluvium()
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    Said::of(output)
}

/// Runs a tool on this broker to its end, with something to read.
pub async fn on_broker(server: &Server, args: &[&str], input: &str) -> Said {
    let mut command = alluvium();
    command
        .args(args)
        .args(["-b", &server.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("piped");
        let feeding = std::thread::spawn(move || {
            // A tool that fails early reads no further.
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().expect("it runs");
        feeding.join().expect("fed");
        Said::of(output)
    };
    tokio::task::spawn_blocking(run).await.expect("it ran")
}
