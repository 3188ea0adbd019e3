//! `alluvium replay`, against a server over HTTP.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use columnar::{ArrowReader, BodyColumns, ParquetReader};
use serde_json::{Value, json};

use crate::binary::{Running, Said, alluvium, serve, tool};
use crate::log_tool::settle;

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

/// The rows of a topic in windows, by key and time.
fn windows(running: &Running, topic: &str, args: &[&str]) -> Vec<Value> {
    let said = run(running, &[&["replay", topic], args].concat(), "");
    assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
    let rows = said.stdout.lines();
    rows.map(|row| serde_json::from_str(row).expect("a row is an object"))
        .collect()
}

/// The same row with its time in milliseconds.
fn in_numbers(row: &Value) -> Value {
    let mut row = row.clone();
    let text = row["timestamp"].as_str().expect("text").to_owned();
    let minute = text
        .strip_prefix("2026-03-01T00:0")
        .expect("the first minutes");
    let minute: u64 = minute[..1].parse().expect("a digit");
    row["timestamp"] = time(minute * 60).into();
    row
}

/// The rows of a file.
fn rows_of(format: &str, path: &Path) -> Vec<Value> {
    let bytes = bytes::Bytes::from(std::fs::read(path).expect("a file"));
    let mut rows = Vec::new();
    let mut add = |some: &columnar::BodyRows| {
        for index in 0..some.len() {
            let row = some.get(index).expect("a row");
            let value = row.value.expect("a value");
            let mut found: Value = serde_json::from_slice(&value).expect("JSON");
            found["partition"] = row.partition.expect("a partition").get().into();
            found["key"] = String::from_utf8_lossy(&row.key.expect("a key")).into();
            found["timestamp"] = row.timestamp.expect("a time").millis().into();
            rows.push(found);
        }
    };
    let columns = BodyColumns::default();
    if format == "parquet" {
        let mut reader = ParquetReader::open(bytes, columns).expect("a file");
        while let Some(some) = reader.next_rows().expect("rows") {
            add(&some);
        }
    } else {
        let mut reader = ArrowReader::new(columns, 16 << 20);
        reader.push(bytes);
        while let Some(some) = reader.next_rows().expect("rows") {
            add(&some);
        }
        reader.finish().expect("its end");
    }
    rows
}

#[test]
fn windows_of_time_are_told_in_each_format() {
    let data = tempfile::tempdir().expect("a directory");
    let running = with_rides(data.path());
    let out = tempfile::tempdir().expect("a directory");
    let minute = ["--resolution", "1m", "--values", "speed"];
    let mut csv = "partition,key,timestamp,window_ms,records,source,\
                   speed.count,speed.sum,speed.min,speed.max,speed.mean\n"
        .to_owned();
    for bike in 0..3_u64 {
        for (window, times) in [(0, 0..60_u64), (1, 60..90)] {
            let speeds: Vec<u64> = times.filter(|at| at % 3 == bike).collect();
            let (count, sum) = (speeds.len() as u64, speeds.iter().sum::<u64>());
            let (min, max) = (speeds[0], speeds[speeds.len() - 1]);
            let mean = sum as f64 / count as f64;
            csv.push_str(&format!(
                "0,bike-{bike},2026-03-01T00:0{window}:00.000Z,60000,{count},raw,{count},{sum}.0,{min}.0,{max}.0,{mean:?}\n"
            ));
        }
    }
    let args = [&["replay", "rides", "--format", "csv"], &minute[..]].concat();
    let said = run(&running, &args, "");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(said.stdout.replace("\r\n", "\n"), csv);
    assert!(
        said.stderr.contains("6 windows of 90 records"),
        "{}",
        said.stderr
    );
    let rows = windows(&running, "rides", &minute);
    assert_eq!(rows.len(), 6);
    assert_eq!(
        rows[1],
        json!({
            "partition": 0, "key": "bike-0", "timestamp": "2026-03-01T00:01:00.000Z", "window_ms": 60000, "records": 10,
            "source": "raw", "speed.count": 10, "speed.sum": 735.0, "speed.min": 60.0, "speed.max": 87.0, "speed.mean": 73.5,
        })
    );
    for format in ["arrow", "parquet"] {
        let path = out.path().join(format);
        let file = path.to_str().expect("text");
        let args = [
            &["replay", "rides", "--format", format, "-o", file],
            &minute[..],
        ]
        .concat();
        let said = run(&running, &args, "");
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let plain: Vec<Value> = rows.iter().map(in_numbers).collect();
        assert_eq!(rows_of(format, &path), plain, "{format}");
    }
    let one = [
        &minute[..],
        &["--key", "bike-1", "--from", "2026-03-01T00:01:30Z"],
    ]
    .concat();
    assert_eq!(windows(&running, "rides", &one), rows[3..4]);
    for args in [
        &["--resolution", "1x"][..],
        &["--resolution", "1m", "--from", "5"],
        &["--resolution", "1m", "--columns", "offset"],
        &[
            "--resolution",
            "1m",
            "--columns",
            "nosuch",
            "--format",
            "csv",
        ],
        &["--resolution", "1m", "-n", "1"],
        &["--values", "speed"],
    ] {
        let said = run(&running, &[&["replay", "rides"], args].concat(), "");
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.stderr);
    }
}

#[test]
fn a_topic_that_was_thinned_tells_the_same_windows_and_from_where() {
    let data = tempfile::tempdir().expect("a directory");
    let settings = [
        "-X",
        "settle.age.ms=10",
        "-X",
        "log.cleaner.backoff.ms=86400000",
    ];
    let running = Running::start(serve(data.path()).args(settings));
    let create = [
        "topic",
        "create",
        "bikes",
        "-p",
        "1",
        "-c",
        "segment.bytes=4096",
        "-c",
        "cleanup.policy=thin",
    ];
    let tiers = ["-c", "thin.tiers=0ms:30s:min(json/speed)+max(json/speed)"];
    let said = run(&running, &[&create[..], &tiers].concat(), "");
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for batch in 0..10_u64 {
        // What cannot be read is kept, and counts all the same.
        let lines: String = (0..90)
            .map(|at| match at {
                7 => format!("{} bike-0 nonsense\n", time(batch * 90 + at)),
                _ => {
                    let value = json!({"speed": at * 7 % 90, "note": "x".repeat(20)});
                    format!("{} bike-{} {value}\n", time(batch * 90 + at), at % 3)
                }
            })
            .collect();
        let said = run(&running, &["produce", "bikes", "-f", "%d %k %v\\n"], &lines);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    }
    let minute = ["--resolution", "1m"];
    let without_source = |mut rows: Vec<Value>| {
        for row in &mut rows {
            let row = row.as_object_mut().expect("a row is an object");
            row.remove("source");
        }
        rows
    };
    let raw = windows(&running, "bikes", &minute);
    assert!(raw.iter().all(|row| row["source"] == "raw"), "{raw:?}");
    let records = |rows: &[Value]| {
        rows.iter()
            .map(|row| row["records"].as_u64().expect("a number"))
            .sum::<u64>()
    };
    assert_eq!(records(&raw), 900);
    settle(&running);
    // A window is thinned once it is over by the broker's clock.
    let until = Instant::now() + Duration::from_secs(60);
    let left = loop {
        let args = [
            "thin",
            "run",
            "bikes",
            "--now",
            "--wait",
            "--json",
            "--http",
            &running.http,
        ];
        let said = tool(&args);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let left = windows(&running, "bikes", &[]).len();
        if left < 600 {
            break left;
        }
        assert!(Instant::now() < until, "nothing is thinned: {left}");
    };
    let thinned = windows(&running, "bikes", &minute);
    assert!(left < 600, "{left}");
    let sources: Vec<&str> = thinned
        .iter()
        .map(|row| row["source"].as_str().expect("text"))
        .collect();
    assert!(
        sources.iter().any(|source| source.contains("summary")),
        "{sources:?}"
    );
    assert_eq!(without_source(thinned), without_source(raw));
    let said = run(
        &running,
        &["replay", "bikes", "--resolution", "1m", "--json"],
        "",
    );
    let summary: Value = serde_json::from_str(&said.stderr).expect("JSON");
    assert!(summary["summed_windows"].as_u64() > Some(0), "{summary}");
}
