//! `alluvium retention`, against a running server and over its directory.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Running, Said, serve, tool};
use crate::log_tool::{segments, settle, written};

/// The server looks at retention by itself only at its start.
pub const ASKED_ONLY: [&str; 4] = [
    "-X",
    "settle.age.ms=10",
    "-X",
    "log.retention.check.interval.ms=86400000",
];

/// A server with 400 readings in segments of 16 KiB, all settled, and the topic so set.
pub fn with_readings(data: &Path, settings: &[&str]) -> Running {
    let running = written(data, &ASKED_ONLY);
    settle(&running);
    alter(&running, settings);
    running
}

pub fn alter(running: &Running, settings: &[&str]) {
    let mut args = vec!["topic", "alter", "readings", "--yes", "-b", &running.kafka];
    for setting in settings {
        args.extend(["--set", setting]);
    }
    let said = tool(&args);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

/// The command over HTTP.
fn retention(running: &Running, args: &[&str]) -> Said {
    tool(&[&["retention"], args, &["--http", &running.http]].concat())
}

/// The command over a directory.
fn offline(data: &Path, args: &[&str]) -> Said {
    let data = data.to_str().expect("UTF-8");
    tool(&[&["retention"], args, &["--dir", data]].concat())
}

pub fn parts(plan: &Value) -> &Vec<Value> {
    plan["partitions"][0]["segments"]
        .as_array()
        .expect("a list")
}

/// The segments that go, each by its base offset, records and bytes.
fn going(plan: &Value) -> Vec<(u64, u64, u64)> {
    let number = |segment: &Value, field: &str| segment[field].as_u64().expect("a number");
    let goes = parts(plan)
        .iter()
        .filter(|segment| segment["outcome"] != "keep");
    goes.map(|segment| {
        (
            number(segment, "base_offset"),
            number(segment, "records"),
            number(segment, "bytes"),
        )
    })
    .collect()
}

/// The rule and the words for each segment.
fn rules(running: &Running) -> Vec<(String, String)> {
    let plan = retention(running, &["explain", "readings", "--json"]).json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let of = |segment: &Value| (text(&segment["rule"]), text(&segment["why"]));
    parts(&plan).iter().map(of).collect()
}

#[test]
fn a_run_does_what_the_plan_said_and_a_second_one_nothing() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_readings(data.path(), &["retention.ms=-1", "retention.bytes=20000"]);
    let before = segments(data.path());
    let plan = retention(&running, &["plan", "readings", "--json"]).json();
    let going = going(&plan);
    assert!(going.len() > 1 && going.len() < before.len(), "{plan}");
    let dry = retention(&running, &["run", "readings", "--dry-run", "--json"]).json();
    assert_eq!(dry["result"]["removed"], plan["removes"]);
    assert_eq!(segments(data.path()), before, "a dry run changes nothing");
    let text = retention(&running, &["plan", "readings"]).stdout;
    let words = format!(
        "{} segments, {} records",
        going.len(),
        plan["removes"]["records"]
    );
    assert!(text.contains(&words), "{text}");

    let job = retention(&running, &["run", "readings", "--wait", "--json"]).json();
    assert_eq!(job["state"], "done");
    assert_eq!(job["result"]["removed"], plan["removes"]);
    assert_eq!(
        job["result"]["partitions"][0]["segments"],
        plan["partitions"][0]["segments"]
    );
    assert_eq!(
        job["result"]["partitions"][0]["start_offset_after"],
        plan["partitions"][0]["start_offset_after"]
    );
    // By the files, which nobody counted for the plan.
    let after = segments(data.path());
    assert_eq!(after, before[going.len()..]);
    let consumed = tool(&[
        "consume",
        "readings",
        "-o",
        ":end",
        "-f",
        "%o\n",
        "-b",
        &running.kafka,
    ]);
    let first = consumed.stdout.lines().next().expect("a record");
    assert_eq!(
        first,
        plan["partitions"][0]["start_offset_after"].to_string()
    );

    let again = retention(&running, &["run", "readings", "--wait", "--json"]).json();
    assert_eq!(again["result"]["partitions"], json!([]));
    assert_eq!(segments(data.path()), after);
    let jobs = retention(&running, &["status", "--json"]).json();
    let ids: Vec<&Value> = jobs
        .as_array()
        .expect("a list")
        .iter()
        .map(|job| &job["id"])
        .collect();
    assert_eq!(
        ids,
        [&again["id"], &job["id"], &dry["id"]],
        "the newest first"
    );
    let id = job["id"].as_str().expect("text");
    let one = retention(&running, &["status", id, "--json"]).json();
    assert_eq!(one, job);
}

#[test]
fn without_wait_the_server_goes_on_by_itself() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_readings(data.path(), &["retention.ms=-1", "retention.bytes=20000"]);
    let taken = retention(&running, &["run", "readings", "--json"]).json();
    let id = taken["id"].as_str().expect("text");
    let mut job = retention(&running, &["status", id, "--json"]).json();
    while job["state"] != "done" {
        assert!(["waiting", "running"].contains(&job["state"].as_str().expect("text")));
        job = retention(&running, &["status", id, "--json"]).json();
    }
    let removed = job["result"]["removed"]["segments"].as_u64();
    assert!(removed > Some(0), "{job}");
    // One that has ended stays as it is.
    assert_eq!(retention(&running, &["cancel", id, "--json"]).json(), job);
}

#[test]
fn each_rule_that_holds_a_segment_back_is_told_in_words() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_readings(data.path(), &["retention.ms=-1"]);
    let all = |rule: &str| {
        let rules = rules(&running);
        assert!(rules.len() > 2, "{rules:?}");
        assert_eq!(rules[0].0, rule, "{rules:?}");
        rules[0].1.clone()
    };
    let words = all("no_limit");
    assert!(
        words.starts_with("no limit: retention.ms and retention.bytes are not set"),
        "{words}"
    );
    let behind = &rules(&running)[1];
    assert_eq!(behind.0, "behind_kept");
    assert!(
        behind
            .1
            .contains("from the front, and an older one is kept"),
        "{}",
        behind.1
    );
    alter(&running, &["retention.ms=3600000"]);
    let words = all("retention_ms");
    assert!(words.ends_with("retention.ms is 60 min"), "{words}");
    alter(&running, &["retention.ms=-1", "retention.bytes=1000000"]);
    let words = all("retention_bytes");
    assert!(
        words.contains("would hold less than retention.bytes (1000000) without it"),
        "{words}"
    );
    alter(&running, &["retention.bytes=20000"]);
    let told = rules(&running);
    let kept = told
        .iter()
        .position(|(rule, words)| rule == "retention_bytes" && words.contains("would hold less"));
    assert!(kept > Some(0), "the first ones go: {told:?}");
    alter(&running, &["retention.bytes=-1", "retention.ms=1"]);
    for (rule, words) in rules(&running) {
        assert_eq!(rule, "retention_ms");
        assert!(words.ends_with("retention.ms is 1 ms"), "{words}");
    }
}

#[test]
fn over_the_directory_the_plan_and_the_run_are_the_servers() {
    let data = tempfile::tempdir().expect("a directory");
    let settings = [
        "retention.ms=-1",
        "retention.bytes=20000",
        "cleanup.policy=delete",
    ];
    let running = with_readings(data.path(), &settings);
    let online = retention(&running, &["explain", "readings", "--json"]).json();
    let refused = offline(data.path(), &["plan", "readings"]);
    assert_eq!(refused.code, Some(1));
    let words = format!("a server (process {}) has", running.id());
    assert!(refused.stderr.contains(&words), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("leave out --dir"),
        "{}",
        refused.stderr
    );
    assert_eq!(running.end(Signal::TERM).0, Some(0));

    let before = segments(data.path());
    let plan = offline(data.path(), &["explain", "readings", "--json"]);
    assert_eq!(plan.stderr, "", "every setting is the topic's own");
    assert_eq!(plan.json(), online);
    let dry = offline(data.path(), &["run", "readings", "--dry-run", "--json"]).json();
    assert_eq!(dry["result"]["removed"], online["removes"]);
    assert_eq!(segments(data.path()), before);
    let job = offline(data.path(), &["run", "readings", "--json"]).json();
    assert_eq!((&job["state"], &job["id"]), (&json!("done"), &Value::Null));
    assert_eq!(job["result"]["removed"], online["removes"]);
    let kept = &before[going(&online).len()..];
    assert_eq!(segments(data.path()), kept);
    // A server that opens the directory afterwards finds what it left, and what went.
    let verified = tool(&["log", "verify", data.path().to_str().expect("UTF-8")]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    let running = Running::start(serve(data.path()).args(ASKED_ONLY));
    let plan = retention(&running, &["plan", "readings", "--json"]).json();
    assert_eq!(plan["removes"]["segments"], 0);
    let start = &online["partitions"][0]["start_offset_after"];
    assert_eq!(&plan["partitions"][0]["start_offset"], start);
    assert_eq!(segments(data.path()), kept);
}

#[test]
fn now_puts_what_is_in_no_sealed_segment_into_one_first() {
    let data = tempfile::tempdir().expect("a directory");
    // What does not have to settle stays in the write-ahead log.
    let running = written(data.path(), &["-X", "settle.age.ms=3600000"]);
    alter(&running, &["retention.ms=-1"]);
    let end = |plan: &Value| {
        let mut sealed = parts(plan)
            .iter()
            .filter(|segment| segment["sealed"] == true);
        let last = sealed.next_back();
        last.map_or(0, |segment| {
            segment["end_offset"].as_u64().expect("a number")
        })
    };
    let before = retention(&running, &["plan", "readings", "--json"]).json();
    assert!(end(&before) < 400, "{before}");
    let now = retention(&running, &["plan", "readings", "--now", "--json"]).json();
    assert_eq!(now["partitions"][0]["rolls_active"], true);
    let text = retention(&running, &["explain", "readings", "--now"]).stdout;
    assert!(text.contains("would be put into one first"), "{text}");
    retention(&running, &["run", "readings", "--now", "--wait", "--json"]).json();
    let after = retention(&running, &["plan", "readings", "--json"]).json();
    assert_eq!(after["partitions"][0]["wal_bytes"], 0);
    assert_eq!(end(&after), 400);
    assert_eq!(after["partitions"][0]["end_offset"], 400);
}

#[test]
fn over_a_directory_nothing_goes_by_a_limit_that_nobody_has_said() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_readings(data.path(), &["retention.bytes=20000"]);
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    let noted = offline(data.path(), &["plan", "readings"]);
    assert_eq!(noted.code, Some(0));
    assert!(
        noted.stderr.contains("retention.ms=604800000"),
        "{}",
        noted.stderr
    );
    let before = segments(data.path());
    let refused = offline(data.path(), &["run", "readings"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("--config FILE"),
        "{}",
        refused.stderr
    );
    assert_eq!(segments(data.path()), before);
    let file = data.path().join("server.toml");
    // A limit of the topic's own goes before the server's.
    std::fs::write(&file, "log.retention.ms = -1\nlog.retention.bytes = 1\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let done = offline(
        data.path(),
        &["run", "readings", "--config", file, "--json"],
    )
    .json();
    let held = segments(data.path()).len();
    assert!(held > 1 && held < before.len(), "{done}");
    let more = [
        "run",
        "readings",
        "--defaults",
        "-X",
        "log.retention.ms=1",
        "--json",
    ];
    let done = offline(data.path(), &more).json();
    assert_eq!(done["result"]["removed"]["segments"], held, "{done}");
}

#[test]
fn what_is_not_there_or_cannot_be_asked_has_its_exit_code() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_readings(data.path(), &["retention.ms=-1"]);
    for (args, code, words) in [
        (&["plan", "nosuch"][..], 3, "topic nosuch"),
        (&["plan", "readings", "-p", "7"], 3, "partition 7"),
        (&["run", "readings", "-p", "7", "--wait"], 3, "partition 7"),
        (&["status", "9-1"], 3, "no cleanup job \"9-1\""),
        (&["cancel", "x/../y"], 3, "no cleanup job"),
        (&["plan", "a b"], 2, "topic"),
        (&["plan", "readings", "--defaults"], 2, "--http"),
        (&["plan"], 2, "TOPIC"),
    ] {
        let said = retention(&running, args);
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{args:?}: {}", said.stderr);
    }
    let at = |address: &str| tool(&["retention", "plan", "readings", "--http", address]);
    let nobody = at("127.0.0.1:1");
    assert_eq!(nobody.code, Some(4), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("--dir DIR"), "{}", nobody.stderr);
    assert_eq!(at(&running.kafka).code, Some(4), "that is no HTTP");
    let empty: TempDir = tempfile::tempdir().expect("a directory");
    let none = offline(empty.path(), &["plan", "readings"]);
    assert_eq!(none.code, Some(3), "{}", none.stderr);
    assert_eq!(
        std::fs::read_dir(empty.path())
            .expect("it is there")
            .count(),
        0
    );
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    let none = offline(data.path(), &["plan", "nosuch"]);
    assert_eq!(none.code, Some(3), "{}", none.stderr);
    let none = offline(data.path(), &["plan", "readings", "-p", "1"]);
    assert_eq!(none.code, Some(3), "{}", none.stderr);
}
