//! The server as a process: its ready line, its exit codes, and what it answers over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use assert_cmd::cargo::CommandCargoExt as _;
use rustix::process::{Pid, Signal, kill_process};

fn alluvium() -> Command {
    let mut command = Command::cargo_bin("alluvium").expect("the binary is built");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ALLUVIUM_") {
            command.env_remove(name);
        }
    }
    command
}

fn serve(data: &Path) -> Command {
    let mut command = alluvium();
    command
        .args(["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .arg("--data")
        .arg(data)
        .args(["-X", "wal.file.bytes=262144", "-X", "wal.files.min=2"]);
    command
}

struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    kafka: String,
    http: String,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [ready, kafka, http] = words[..] else {
            panic!("not the ready line: {line:?}");
        };
        assert_eq!(ready, "ready");
        Running {
            kafka: kafka
                .strip_prefix("kafka=")
                .expect("its address")
                .to_owned(),
            http: http.strip_prefix("http=").expect("its address").to_owned(),
            child,
            stdout,
        }
    }

    /// Asks for the end with a signal; returns the exit code and what else was printed.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends").code(), rest)
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).expect("it listens");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
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

/// Runs to the end; returns the exit code and what it said on standard error.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("it runs");
    assert!(
        output.stdout.is_empty(),
        "a server that does not start is not ready"
    );
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn it_says_where_it_listens_and_ends_with_0_when_asked_to() {
    let directory = tempfile::tempdir().expect("a directory");
    for signal in [Signal::TERM, Signal::INT] {
        let running = Running::start(&mut serve(directory.path()));
        for address in [&running.kafka, &running.http] {
            assert!(!address.ends_with(":0"), "{address}");
            TcpStream::connect(address).expect("it listens there");
        }
        assert_eq!(running.end(signal), (Some(0), String::new()));
    }
}

#[test]
fn http_tells_health_metrics_and_version() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    assert_eq!(running.get("/healthz").0, 200);
    let (status, ready) = running.get("/readyz");
    assert_eq!(status, 200);
    assert!(ready.contains("\"ready\":true"), "{ready}");
    let (status, metrics) = running.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "alluvium_wal_syncs_total",
        "alluvium_disk_full 0",
        "kafka_brokers 1",
        "# TYPE kafka_topic_partition_current_offset gauge",
        "# TYPE kafka_consumergroup_lag gauge",
        "# TYPE alluvium_consumergroup_lag_seconds gauge",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(
        running
            .get("/version")
            .1
            .contains(env!("CARGO_PKG_VERSION"))
    );
    let (status, problem) = running.get("/nowhere");
    assert_eq!(status, 404);
    assert!(problem.contains("application/problem+json"), "{problem}");
    assert!(problem.contains("\"code\":\"not_found\""), "{problem}");
}

#[test]
fn settings_that_cannot_be_are_wrong_usage() {
    let directory = tempfile::tempdir().expect("a directory");
    for (setting, said) in [
        ("num.partition=3", "did you mean `num.partitions`?"),
        ("num.partitions=0", "must be 1 to 10000"),
        ("num.partitions", "must be KEY=VALUE"),
    ] {
        let (code, stderr) = refused(serve(directory.path()).args(["-X", setting]));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    let (code, stderr) = refused(serve(directory.path()).env("ALLUVIUM_NODE_IDS", "1"));
    assert_eq!(code, Some(2), "{stderr}");
}

#[test]
fn a_start_that_fails_says_why_and_ends_with_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    let (code, stderr) = refused(&mut serve(directory.path()));
    assert_eq!(code, Some(1), "two servers over one directory: {stderr}");
    let other = tempfile::tempdir().expect("a directory");
    let mut command = alluvium();
    command
        .args(["serve", "--kafka", &running.kafka, "--http", "127.0.0.1:0"])
        .arg("--data")
        .arg(other.path());
    let (code, stderr) = refused(&mut command);
    assert_eq!(code, Some(1), "a port that is taken: {stderr}");
    assert!(stderr.contains(&running.kafka), "{stderr}");
}

#[test]
fn every_setting_in_force_is_shown_with_its_origin() {
    let output = alluvium()
        .args([
            "config",
            "show",
            "--origin",
            "--json",
            "-X",
            "num.partitions=4",
        ])
        .env("ALLUVIUM_NODE_ID", "7")
        .output()
        .expect("it runs");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let of = |key: &str| {
        let all = shown.as_array().expect("a list");
        let found = all
            .iter()
            .find(|one| one["key"] == key)
            .expect("it is shown");
        (
            found["value"].as_str().expect("text").to_owned(),
            found["origin"].as_str().expect("text").to_owned(),
        )
    };
    assert_eq!(of("num.partitions"), ("4".into(), "flag".into()));
    assert_eq!(of("node.id"), ("7".into(), "environment".into()));
    assert_eq!(of("log.retention.ms").1, "default");
}
