//! The demonstration as a newcomer runs it: a process that starts a broker, kills it, and tells what is left.

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::binary::alluvium;

fn run(arguments: &[&str], data: &Path) -> Output {
    let mut command = alluvium();
    command
        .args(["demo", "--once"])
        .args(arguments)
        .arg("--data")
        .arg(data);
    command.output().expect("it runs")
}

/// The readings that the ledger says were acknowledged.
fn acknowledged(data: &Path) -> usize {
    let text = std::fs::read_to_string(data.join("ledger.tsv")).expect("the ledger is written");
    let lines = text.lines().skip(1).map(|line| line.split('\t').collect());
    lines
        .inspect(|line: &Vec<&str>| assert_eq!(line.len(), 5, "{line:?}"))
        .filter(|line| !line[3].is_empty())
        .count()
}

#[test]
fn the_demo_ends_with_0_because_every_acknowledged_reading_is_there_after_the_kill() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let output = run(&["--json"], data.path());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let summary: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("the summary is JSON and nothing else");
    let count = |name: &str| {
        summary[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {summary}"))
    };
    let none = [
        "lost",
        "altered",
        "reordered",
        "moved",
        "duplicates",
        "strays",
        "failed",
        "group_skipped",
    ];
    for name in none {
        assert_eq!(count(name), 0, "{name}: {summary}");
    }
    // Eight devices play each of the recordings, and four that speak MQTT a tenth of one; the host tells about itself beside them.
    let recorded = 8 * (19_226 + 4_391 + 52_281) + 4 * 1_923;
    assert!(count("sent") > recorded, "{summary}");
    assert_eq!(count("acknowledged"), count("sent"));
    assert_eq!(count("found"), count("sent"));
    assert_eq!(count("group_read"), count("sent"));
    let before = count("acknowledged_before_kill");
    assert!(0 < before && before < count("acknowledged"), "{summary}");
    assert!(count("waiting_at_kill") > 0, "{summary}");
    assert!(count("replayed") > 0, "{summary}");
    assert_eq!(acknowledged(data.path()) as u64, count("acknowledged"));
}

#[test]
fn an_interrupted_demo_stops_its_broker_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let mut command = alluvium();
    command.args(["demo", "--once"]);
    let mut child = command
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    let kafka = line
        .split_once("Kafka on ")
        .and_then(|(_, rest)| rest.split_once(','))
        .map(|(address, _)| address)
        .unwrap_or_else(|| panic!("not what it begins with: {line}"));
    TcpStream::connect(kafka).expect("the broker is up");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    let refused = TcpStream::connect(kafka).expect_err("the broker is gone");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let left = std::fs::read_dir(temporary.path()).expect("it is a directory");
    assert_eq!(left.count(), 0, "{told}");
}
