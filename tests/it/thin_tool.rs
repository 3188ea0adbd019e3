//! `alluvium thin`: planned, run and explained against a running server, and its summaries read from the directory.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binary::{Running, tool};
use crate::log_tool::{settle, written};

fn thin(running: &Running, args: &[&str]) -> Value {
    let said = tool(
        &[
            &["thin"],
            args,
            &["readings", "--json", "--http", &running.http],
        ]
        .concat(),
    );
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.json()
}

fn view(data: &Path, args: &[&str]) -> Vec<Value> {
    let data = data.to_str().expect("UTF-8");
    let place = ["readings", "--json", "--while-running", "--dir", data];
    let said = tool(&[&["thin", "view"], &place[..], args].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.json().as_array().expect("a list").clone()
}

fn records(windows: &[Value]) -> u64 {
    let of = |window: &Value| window["records"].as_u64().expect("a number");
    windows.iter().map(of).sum()
}

#[test]
fn a_topic_is_thinned_on_request_and_its_summaries_know_every_record() {
    let data = tempfile::tempdir().expect("a directory");
    let asked_only = [
        "-X",
        "settle.age.ms=10",
        "-X",
        "log.cleaner.backoff.ms=86400000",
    ];
    let running = written(data.path(), &asked_only);
    settle(&running);
    let plan = thin(&running, &["explain"]);
    let first = &plan["partitions"][0]["segments"][0];
    assert_eq!(first["rule"], "policy_not_set", "{first}");

    let alter = [
        "topic",
        "alter",
        "readings",
        "--yes",
        "-b",
        &running.kafka,
        "--set",
    ];
    let refused = tool(&[&alter[..], &["thin.tiers=0ms:2s:first; 1s:3s:first"]].concat());
    assert!(
        refused
            .stderr
            .contains("tier 2: its window 3s is not a multiple of tier 1's, 2s"),
        "{}",
        refused.stderr
    );
    let tiers = ["cleanup.policy=thin", "--set", "thin.tiers=0ms:500ms:last"];
    let altered = tool(&[&alter[..], &tiers].concat());
    assert_eq!(altered.code, Some(0), "{}", altered.stderr);

    // The last windows close half a second after the last record.
    let until = Instant::now() + Duration::from_secs(30);
    let job = loop {
        let job = thin(&running, &["run", "--now", "--wait"]);
        assert_eq!(job["state"], "done", "{job}");
        if records(&view(data.path(), &[])) == 400 {
            break job;
        }
        assert!(Instant::now() < until, "{job}");
    };
    assert!(job["result"]["bytes_written"].as_u64() > Some(0), "{job}");
    let windows = view(data.path(), &["--window", "1d"]);
    assert!(
        (7..=14).contains(&windows.len()),
        "a window or two for each of 7 devices: {windows:?}"
    );
    let (explained, shown) = (
        thin(&running, &["explain"]),
        tool(&["consume", "readings", "-e", "-b", &running.kafka]),
    );
    let rules: Vec<&str> = explained["partitions"][0]["segments"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|segment| segment["sealed"] == true)
        .map(|segment| segment["rule"].as_str().expect("text"))
        .collect();
    assert!(rules.iter().all(|rule| *rule == "thinned"), "{explained}");
    let left = shown.stdout.lines().count();
    assert!(
        (7..200).contains(&left),
        "{left} records are left: {}",
        shown.stderr
    );
}
