//! `alluvium replay`, against a server over HTTP.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::binary::{Running, Said, alluvium, serve};

/// Runs a tool to its end, with something to read.
pub fn run(running: &Running, args: &[&str], input: &str) -> Said {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("input");
    std::fs::write(&path, input).expect("a file");
    let output = on(running, args)
        .stdin(Stdio::from(
            std::fs::File::open(&path).expect("it is there"),
        ))
        .output();
    Said::of(output.expect("it runs"))
}

pub fn on(running: &Running, args: &[&str]) -> Command {
    let mut command = alluvium();
    command.args(args).args(["-b", &running.kafka]);
    command.env("ALLUVIUM_HTTP", &running.http);
    command
}

/// A server with rides: 2026-03-01 at a second each, three bikes in turn.
fn with_rides(data: &Path) -> Running {
    let running = Running::start(&mut serve(data));
    let lines: String = (0..90_u64)
        .map(|at| {
            let value = json!({"speed": at, "note": if at == 50 { "a flat tyre" } else { "" }});
            format!("{} bike-{} {value}\n", time(at), at % 3)
        })
        .collect();
    let produced = run(&running, &["produce", "rides", "-f", "%d %k %v\\n"], &lines);
    assert_eq!(produced.code, Some(0), "{}", produced.stderr);
    running
}

/// 2026-03-01T00:00Z and so many seconds.
fn time(at: u64) -> u64 {
    1_772_323_200_000 + at * 1_000
}

/// The speeds in the rows that are replayed.
fn speeds(running: &Running, args: &[&str]) -> Vec<u64> {
    let said = run(running, &[&["replay", "rides"], args].concat(), "");
    assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
    let speed = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a row is an object");
        row["value"]["speed"].as_u64().expect("a number")
    };
    said.stdout.lines().map(speed).collect()
}

#[test]
fn a_range_is_replayed_by_key_time_text_and_condition() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_rides(data.path());
    let of = |wanted: &dyn Fn(u64) -> bool| (0..90).filter(|at| wanted(*at)).collect::<Vec<u64>>();
    let ten = "2026-03-01T01:00:10[Europe/Berlin]";
    for (args, expected) in [
        (&[][..], of(&|_| true)),
        (&["--key", "bike-1"], of(&|at| at % 3 == 1)),
        (&["--key-prefix", "bike-"], of(&|_| true)),
        (&["--key", "nobody"], vec![]),
        (
            &[
                "--from",
                "2026-03-01T00:00:10Z",
                "--to",
                "2026-03-01T00:00:20Z",
            ],
            of(&|at| (10..20).contains(&at)),
        ),
        (
            &["--from", ten, "-n", "3"],
            of(&|at| (10..13).contains(&at)),
        ),
        (
            &["--zone", "Europe/Berlin", "--from", "2026-03-01 01:01:00"],
            of(&|at| at >= 60),
        ),
        (&["--from", "today", "--to", "now"], vec![]),
        (&["--grep", "flat"], vec![50]),
        (&["--where", "speed >= 88"], vec![88, 89]),
        (&["--last-per-key"], vec![87, 88, 89]),
        (
            &["--last-per-key", "--to", "2026-03-01T00:00:05Z"],
            vec![3, 4, 2],
        ),
        (
            &["--order", "time", "--key", "bike-0", "-n", "2"],
            vec![0, 3],
        ),
        (&["--resume", "0:85"], of(&|at| at >= 85)),
    ] {
        assert_eq!(speeds(&running, args), expected, "{args:?}");
    }
}

#[test]
fn a_file_is_there_when_it_is_whole_and_a_summary_is_told() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_rides(data.path());
    let out = tempfile::tempdir().expect("a directory");
    let path = out.path().join("rides.csv");
    let file = path.to_str().expect("text");
    let said = run(
        &running,
        &[
            "replay",
            "rides",
            "--columns",
            "offset,key,speed",
            "--format",
            "csv",
            "-o",
            file,
            "--json",
        ],
        "",
    );
    let summary = said.json();
    assert_eq!(
        (&summary["records"], &summary["gaps"]),
        (&json!(90), &json!(0)),
        "{summary}"
    );
    assert_eq!(summary["next_offset"], "0:90");
    let expected: String = (0..90)
        .map(|at| format!("{at},bike-{},{at}\r\n", at % 3))
        .collect();
    let found = std::fs::read_to_string(&path).expect("it is there");
    assert_eq!(
        found.replace("\r\n", "\n"),
        format!("offset,key,speed\n{}", expected.replace("\r\n", "\n"))
    );

    let some = run(&running, &["replay", "rides", "-n", "7"], "");
    assert!(some.stderr.contains("--resume 0:7"), "{}", some.stderr);
    for format in ["arrow", "parquet"] {
        let path = out.path().join(format);
        let said = run(
            &running,
            &[
                "replay",
                "rides",
                "--format",
                format,
                "-o",
                path.to_str().expect("text"),
            ],
            "",
        );
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert!(std::fs::metadata(&path).expect("it is there").len() > 500);
    }
    let names: Vec<_> = std::fs::read_dir(out.path())
        .expect("a directory")
        .flatten()
        .collect();
    assert_eq!(names.len(), 3, "nothing unfinished is left: {names:?}");
}

#[test]
fn what_cannot_be_replayed_is_refused_with_its_exit_code() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_rides(data.path());
    let out = tempfile::tempdir().expect("a directory");
    let path = out.path().join("rides");
    let file = path.to_str().expect("text");
    for (args, code, word) in [
        (&["nosuch"][..], 3, "nosuch"),
        (&["rides", "--from", "tomorow"], 2, "tomorow"),
        (&["rides", "--zone", "Mars/Base"], 2, "Mars/Base"),
        (&["rides", "--where", "speed >"], 2, "condition"),
        (&["rides", "--grep", "a", "--format", "csv"], 2, "ndjson"),
        (&["rides", "--last-per-key", "-c", "value"], 2, "key"),
        (&["rides", "--http", "127.0.0.1:1"], 4, "127.0.0.1:1"),
    ] {
        let said = run(&running, &[&["replay", "-o", file], args].concat(), "");
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(word), "{args:?}: {}", said.stderr);
    }
    let left = std::fs::read_dir(out.path()).expect("a directory");
    assert_eq!(left.count(), 0, "nothing is left of what failed");
}
