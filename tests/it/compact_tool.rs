//! `alluvium compact`, against a running server and over its directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::binary::{Running, Said, alluvium, serve, tool};
use crate::cleanup_tool::{ASKED_ONLY, alter, parts, with_readings};
use crate::log_tool::segments;

/// 400 readings of seven devices, in a topic that is compacted when somebody asks.
fn compacted(data: &Path) -> Running {
    let settings = [
        "retention.ms=-1",
        "min.cleanable.dirty.ratio=1",
        "cleanup.policy=compact",
    ];
    with_readings(data, &settings)
}

fn compact(running: &Running, args: &[&str]) -> Said {
    tool(&[&["compact"], args, &["--http", &running.http]].concat())
}

/// Every record's offset, key and value, as a consumer gets them.
fn records(running: &Running) -> Vec<(u64, String, String)> {
    let args = [
        "consume",
        "readings",
        "-o",
        ":end",
        "-f",
        "%o %k %v\n",
        "-b",
    ];
    let said = tool(&[&args[..], &[&running.kafka]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let of = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let mut next = || words.next().expect("three words");
        (next().parse().expect("an offset"), next(), next())
    };
    said.stdout.lines().map(of).collect()
}

/// The last record of each key, in the order of offsets.
fn latest(all: &[(u64, String, String)]) -> Vec<(u64, String, String)> {
    let by_key: BTreeMap<_, _> = all.iter().map(|one| (&one.1, one)).collect();
    let mut latest: Vec<_> = by_key.into_values().cloned().collect();
    latest.sort();
    latest
}

#[test]
fn compaction_does_what_its_dry_run_said_and_leaves_the_last_record_of_each_key() {
    let data = tempfile::tempdir().expect("a directory");
    let running = compacted(data.path());
    let before = records(&running);
    assert_eq!(before.len(), 400);
    let held = compact(&running, &["explain", "readings", "--json"]).json();
    let rules: Vec<&Value> = parts(&held)
        .iter()
        .map(|segment| &segment["rule"])
        .collect();
    assert_eq!(rules[0], "min_cleanable_dirty_ratio", "{held}");
    assert_eq!(
        rules.last().expect("an active one"),
        &"active_segment",
        "{held}"
    );
    let now = compact(&running, &["explain", "readings", "--now", "--json"]).json();
    assert!(
        parts(&now)
            .iter()
            .any(|segment| segment["outcome"] == "rewrite"),
        "{now}"
    );

    // So that the dry run and the run see the same segments.
    let rolled = tool(&[
        "retention",
        "run",
        "readings",
        "--now",
        "--wait",
        "--http",
        &running.http,
    ]);
    assert_eq!(rolled.code, Some(0), "{}", rolled.stderr);
    let files = segments(data.path());
    let dry = compact(
        &running,
        &["run", "readings", "--now", "--dry-run", "--json"],
    )
    .json();
    assert_eq!(segments(data.path()), files, "a dry run changes nothing");
    assert_eq!(dry["result"]["removed"]["records"], 393, "{dry}");

    let done = compact(&running, &["run", "readings", "--now", "--wait", "--json"]).json();
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(done["result"]["removed"]["records"], 393);
    assert_eq!(records(&running), latest(&before));
    let again = compact(&running, &["run", "readings", "--now", "--wait", "--json"]).json();
    assert_eq!(again["result"]["removed"]["records"], 0, "{again}");
    let clean = compact(&running, &["explain", "readings", "--json"]).json();
    for segment in parts(&clean) {
        assert_eq!(segment["rule"], "clean", "{clean}");
    }
    assert_eq!(records(&running), latest(&before));
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    let verified = tool(&["log", "verify", data.path().to_str().expect("UTF-8")]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
}

#[test]
fn over_the_directory_compaction_leaves_the_same_records() {
    let data = tempfile::tempdir().expect("a directory");
    let running = compacted(data.path());
    let before = records(&running);
    let online = compact(&running, &["explain", "readings", "--json"]).json();
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    let offline = |args: &[&str]| {
        let dir = data.path().to_str().expect("UTF-8");
        tool(&[&["compact"], args, &["--dir", dir, "--defaults"]].concat())
    };
    assert_eq!(offline(&["explain", "readings", "--json"]).json(), online);
    let done = offline(&["run", "readings", "--now", "--json"]).json();
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(done["result"]["removed"]["records"], 393, "{done}");
    let running = Running::start(serve(data.path()).args(ASKED_ONLY));
    assert_eq!(records(&running), latest(&before));
}

#[test]
fn a_topic_that_is_not_set_to_it_is_not_compacted_and_says_so() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_readings(data.path(), &["retention.ms=-1"]);
    let plan = compact(&running, &["explain", "readings", "--now", "--json"]).json();
    for segment in parts(&plan) {
        assert_eq!(
            (&segment["outcome"], &segment["rule"]),
            (&json!("keep"), &json!("policy_not_set"))
        );
        assert_eq!(
            segment["why"],
            "cleanup.policy of the topic does not name compact"
        );
    }
    compact(&running, &["run", "readings", "--now", "--wait", "--json"]).json();
    assert_eq!(records(&running).len(), 400);
    alter(
        &running,
        &["cleanup.policy=compact", "min.compaction.lag.ms=3600000"],
    );
    let plan = compact(&running, &["explain", "readings", "--now", "--json"]).json();
    assert_eq!(parts(&plan)[0]["rule"], "min_compaction_lag_ms", "{plan}");
    let retention = [
        "retention",
        "explain",
        "readings",
        "--http",
        &running.http,
        "--json",
    ];
    let plan = tool(&retention).json();
    assert_eq!(parts(&plan)[0]["rule"], "no_limit", "{plan}");
}

#[test]
fn ctrl_c_cancels_the_job_and_who_asks_by_another_way_can_too() {
    let data = tempfile::tempdir().expect("a directory");
    let running = compacted(data.path());
    let before = records(&running);
    // 50 KiB at 1 KiB a second.
    let mut command = alluvium();
    let args = [
        "compact",
        "run",
        "readings",
        "--now",
        "--wait",
        "--throttle",
        "1024",
        "--json",
    ];
    command.args(args).args(["--http", &running.http]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let job = || {
        let (_, jobs) = running.ask_json("GET /api/v1/cleanup/jobs", "");
        jobs["jobs"].as_array().expect("a list").first().cloned()
    };
    let is_running = |job: &Value| job["state"] == "running";
    let mut found = job();
    while !found.as_ref().is_some_and(is_running) {
        found = job();
    }
    // While it runs another one waits, and is cancelled at once.
    let body = json!({ "policy": "compact", "topic": "readings" }).to_string();
    let (status, waiting) = running.ask_json("POST /api/v1/cleanup/jobs", &body);
    assert_eq!((status, &waiting["state"]), (202, &json!("waiting")));
    let id = waiting["id"].as_str().expect("text");
    let cancelled = compact(&running, &["cancel", id, "--json"]).json();
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(running.get("/healthz").0, 200);

    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let said = Said::of(child.wait_with_output().expect("it ends"));
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("cancelling job"), "{}", said.stderr);
    let told: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(told["state"], "cancelled");
    assert_eq!(
        latest(&records(&running)),
        latest(&before),
        "no key has lost its last record"
    );
    // A server that is stopped cancels what runs, and does not wait for its end.
    let slow =
        json!({ "policy": "compact", "topic": "readings", "now": true, "bytes_per_second": 1024 });
    let (status, _) = running.ask_json("POST /api/v1/cleanup/jobs", &slow.to_string());
    assert_eq!(status, 202);
    let begun = std::time::Instant::now();
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn a_segment_that_cannot_be_read_is_set_aside_and_named_everywhere() {
    let data = tempfile::tempdir().expect("a directory");
    let running = compacted(data.path());
    let first = &segments(data.path())[0];
    let mut bytes = std::fs::read(first).expect("read");
    // In the records of its first batch.
    bytes[200] ^= 1;
    std::fs::write(first, bytes).expect("written");
    let job = compact(&running, &["run", "readings", "--now", "--wait", "--json"]);
    assert_eq!(job.code, Some(1), "{}", job.stdout);
    let job: Value = serde_json::from_str(&job.stdout).expect("JSON");
    assert_eq!(job["state"], "failed", "{job}");
    let part = &job["result"]["partitions"][0];
    assert_eq!(part["set_aside"][0]["base_offset"], 0, "{job}");
    assert!(
        part["removed"]["records"].as_u64() > Some(0),
        "the others went on: {job}"
    );
    let id = job["id"].as_str().expect("text");
    let text = compact(&running, &["status", id]).stdout;
    assert!(
        text.contains("the segment at offset 0 is set aside"),
        "{text}"
    );
    let plan = compact(&running, &["explain", "readings", "--json"]).json();
    assert_eq!(parts(&plan)[0]["rule"], "set_aside", "{plan}");
    let (status, health) = running.ask_json("GET /readyz", "");
    assert_eq!(status, 200);
    let reasons = health["reasons"].as_array().expect("a list");
    let named = reasons
        .iter()
        .find(|one| one["code"] == "cleanup_set_aside");
    assert_eq!(named.expect("it is named")["from"], 0, "{health}");
    let mut command = alluvium();
    command.args([
        "topic",
        "describe",
        "readings",
        "-b",
        &running.kafka,
        "--json",
    ]);
    command.env("ALLUVIUM_HTTP", &running.http);
    let described = Said::of(command.output().expect("it runs")).json();
    let error = described[0]["partitions"][0]["cleanup_error"].as_str();
    assert!(
        error.is_some_and(|error| error.contains("offset 0")),
        "{described}"
    );
}
