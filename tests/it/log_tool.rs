//! `alluvium log`, over directories that a broker wrote.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::admin::{Admin, NewTopic};
use client::{Client, ClientConfig, Producer, ProducerConfig, ProducerRecord};
use model::TopicName;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::binary::{Running, Said, serve, tool};

/// Starts a broker over the directory, writes 400 readings in segments of 16 KiB, and hands the running broker back.
pub fn written(data: &Path, settings: &[&str]) -> Running {
    let running = Running::start(serve(data).args(settings));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(ClientConfig::new(&running.kafka))
            .await
            .expect("a client");
        let topic = NewTopic {
            name: "readings".into(),
            partitions: Some(1),
            configs: vec![("segment.bytes".into(), "16384".into())],
            ..NewTopic::default()
        };
        Admin::new(&client)
            .create_topic(topic)
            .await
            .expect("a topic");
        let config = ProducerConfig {
            batch_bytes: 2048,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&client, config).expect("a producer");
        for number in 0..400 {
            let name = TopicName::parse("readings").expect("a name");
            let value = format!("reading {number} {}", "x".repeat(100));
            let record = ProducerRecord::new(name, value).key(format!("device-{}", number % 7));
            drop(producer.send(record).await.expect("sent"));
        }
        producer.close().await.expect("delivered");
    });
    running
}

/// The same after an orderly end, with all of it in segments.
pub fn settled(data: &Path) {
    // A stop does not settle.
    let running = written(data, &["-X", "settle.age.ms=10"]);
    settle(&running);
    let (code, _) = running.end(Signal::TERM);
    assert_eq!(code, Some(0));
}

/// Waits until all that was written is in segments.
pub fn settle(running: &Running) {
    let until = Instant::now() + Duration::from_secs(60);
    while bytes(running, "alluvium_settled_bytes_total")
        < bytes(running, "alluvium_appended_bytes_total")
    {
        assert!(Instant::now() < until, "not all of it settles");
    }
}

/// The value of a metric without labels.
fn bytes(running: &Running, name: &str) -> f64 {
    let (_, page) = running.get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let value = line.expect("the metric is there").trim();
    value.parse().expect("a number")
}

fn log(data: &Path, args: &[&str]) -> Said {
    let mut all = vec!["log"];
    all.extend(args);
    let data = data.to_str().expect("UTF-8");
    all.push(data);
    tool(&all)
}

/// All files below a directory whose names end so, in order.
pub fn files(data: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().is_some_and(|path| path.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The segments of `readings`: its partition is the one with the most of them.
pub fn segments(data: &Path) -> Vec<PathBuf> {
    let all = files(data, ".log");
    let of = |folder: Option<&Path>| {
        let within = all.iter().filter(|path| path.parent() == folder);
        within.cloned().collect::<Vec<_>>()
    };
    all.iter()
        .map(|path| of(path.parent()))
        .max_by_key(Vec::len)
        .expect("segments")
}

fn readings(stat: &Value) -> &Value {
    let logs = stat["logs"].as_array().expect("a list");
    let found = logs.iter().find(|log| log["topic"] == "readings");
    found.expect("the topic is named")
}

pub fn flip(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[position] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn a_directory_is_told_by_topic_whether_settled_or_not() {
    let data = tempfile::tempdir().expect("a directory");
    settled(data.path());
    let stat = log(data.path(), &["stat", "--json"]).json();
    let log_of = readings(&stat);
    assert_eq!((&log_of["start"], &log_of["end"]), (&json!(0), &json!(400)));
    assert!(
        log_of["segments"].as_u64().is_some_and(|count| count > 2),
        "{log_of}"
    );
    assert_eq!(stat["damage"], json!([]));
    let killed = tempfile::tempdir().expect("a directory");
    written(killed.path(), &[]).end(Signal::KILL);
    let stat = log(killed.path(), &["stat", "--json"]).json();
    assert_eq!(
        readings(&stat)["end"],
        json!(400),
        "what is in the WAL only counts"
    );
    let page = log(killed.path(), &["stat"]);
    assert!(
        page.stdout.contains("readings-0") && page.stdout.contains("(metadata)"),
        "{}",
        page.stdout
    );
}

#[test]
fn a_sound_directory_is_verified_and_one_flipped_bit_is_found_and_named() {
    let data = tempfile::tempdir().expect("a directory");
    settled(data.path());
    let sound = log(data.path(), &["verify", "--json"]).json();
    assert_eq!(sound["findings"], json!([]));
    assert_eq!(sound["summary"]["damaged"], json!(0));
    assert!(
        sound["summary"]["records"]
            .as_u64()
            .is_some_and(|count| count >= 400)
    );
    let in_files = files(data.path(), ".log").len();
    assert_eq!(
        sound["summary"]["segments"],
        json!(in_files),
        "also the only segment of a partition, which no manifest names, is verified"
    );
    let segment = &segments(data.path())[1];
    flip(segment, 100);
    let damaged = log(data.path(), &["verify", "--json"]);
    assert_eq!(damaged.code, Some(5), "{}", damaged.stderr);
    let found: Value = serde_json::from_str(&damaged.stdout).expect("JSON");
    let finding = &found["findings"][0];
    assert_eq!(
        (&finding["name"], &finding["is_damage"]),
        (&json!("readings-0"), &json!(true))
    );
    assert_eq!(finding["path"], json!(segment));
    assert_eq!(finding["position"], json!(0));
    let (from, to) = (
        finding["from_offset"].as_u64(),
        finding["to_offset"].as_u64(),
    );
    assert!(from < to && to < Some(400), "{finding}");
    let one = log(segment, &["verify"]);
    assert_eq!(one.code, Some(5));
    assert!(one.stdout.contains("1 damaged"), "{}", one.stdout);
    assert_eq!(log(&segments(data.path())[0], &["verify"]).code, Some(0));
    let line = log(data.path(), &["verify"]).stdout;
    assert!(line.contains("readings-0, offsets"), "{line}");
}

#[test]
fn a_directory_that_a_server_would_refuse_is_no_sound_one() {
    let data = tempfile::tempdir().expect("a directory");
    settled(data.path());
    let store = data.path().join("STORE");
    let sound = std::fs::read(&store).expect("readable");
    let mut damaged = sound.clone();
    damaged[30] ^= 1;
    damaged[4096 + 30] ^= 1;
    let checkpoints = data.path().join("checkpoint");
    let aside = data.path().join("aside");
    let spoil: [&dyn Fn(); 3] = [
        &|| std::fs::write(&store, &damaged).expect("written"),
        &|| std::fs::remove_file(&store).expect("removed"),
        &|| {
            std::fs::write(&store, &sound).expect("written");
            std::fs::rename(&checkpoints, &aside).expect("moved");
        },
    ];
    for spoil in spoil {
        spoil();
        let verified = log(data.path(), &["verify"]);
        assert_eq!(verified.code, Some(5), "{}", verified.stdout);
        assert!(
            verified.stdout.contains("a server would not start:")
                && verified.stdout.contains("copy"),
            "{}",
            verified.stdout
        );
        let started = serve(data.path()).output().expect("it ends");
        assert_eq!(started.status.code(), Some(1));
        let _ = std::fs::remove_dir(&checkpoints);
    }
    std::fs::rename(&aside, &checkpoints).expect("moved");
    assert_eq!(log(data.path(), &["verify"]).code, Some(0));
}

#[test]
fn every_kind_of_file_can_be_listed() {
    let data = tempfile::tempdir().expect("a directory");
    settled(data.path());
    let lines = |said: Said| -> Vec<Value> {
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
        let lines = said.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let mut offset = 0;
    let mut values = Vec::new();
    for segment in segments(data.path()) {
        for line in lines(log(&segment, &["dump", "--records", "--json"])) {
            match line.get("value") {
                Some(value) => values.push(value.as_str().expect("text").to_owned()),
                None => {
                    assert_eq!(line["base_offset"], json!(offset));
                    offset = line["last_offset"].as_u64().expect("an offset") + 1;
                }
            }
        }
    }
    assert_eq!((offset, values.len()), (400, 400));
    assert!(values[399].starts_with("reading 399 "));
    let index = lines(log(
        &segments(data.path())[0].with_extension("idx"),
        &["dump", "--json"],
    ));
    assert_eq!(index[1]["offset"], json!(0));
    assert_eq!(index[0]["blocks"].as_u64(), Some(index.len() as u64 - 1));
    // The small segments of this store have none; the format's golden file is one, of the name that a server gives it.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("storage/tests/golden/keyindex.v2");
    let key_index = data.path().join("00000000000000000000.0.kix");
    std::fs::copy(golden, &key_index).expect("copied");
    let listed = lines(log(&key_index, &["dump", "--json"]));
    assert_eq!(listed[0]["blocks"].as_u64(), Some(listed.len() as u64 - 1));
    assert!(listed[0]["blocks_with_known_keys"].as_u64() <= listed[0]["blocks"].as_u64());
    flip(&key_index, 40);
    assert_eq!(log(&key_index, &["dump"]).code, Some(5));
    std::fs::remove_file(&key_index).expect("removed");
    let directory = segments(data.path())[0]
        .parent()
        .expect("a folder")
        .to_owned();
    let newest = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_str().is_some_and(|path| path.contains("manifest.")))
        .max()
        .expect("a manifest");
    let manifest = lines(log(&newest, &["dump", "--json"]));
    assert_eq!(
        manifest[0]["segments"].as_u64(),
        Some(manifest.len() as u64 - 1)
    );
    let checkpoint = lines(log(&data.path().join("checkpoint/A"), &["dump", "--json"]));
    assert!(checkpoint[0]["sequence"].as_u64() > Some(0));
    let killed = tempfile::tempdir().expect("a directory");
    written(killed.path(), &[]).end(Signal::KILL);
    let wal: Vec<Value> = files(killed.path(), ".wal")
        .iter()
        .flat_map(|file| lines(log(file, &["dump", "--json"])))
        .collect();
    let batches: u64 = wal
        .iter()
        .filter_map(|line| line["summary"]["batches"].as_u64())
        .sum();
    assert!(batches > 10, "{batches}");
    for file in [
        &newest,
        &segments(data.path())[0],
        &files(killed.path(), ".wal")[0],
    ] {
        assert!(!log(file, &["dump"]).stdout.is_empty());
    }
    flip(&newest, 20);
    let damaged = log(&newest, &["dump"]);
    assert_eq!(damaged.code, Some(5), "{}", damaged.stdout);
    assert_eq!(log(&data.path().join("LOCK"), &["dump"]).code, Some(2));
}

#[test]
fn while_a_server_has_the_directory_open_one_may_only_look_and_is_told() {
    let data = tempfile::tempdir().expect("a directory");
    let running = written(data.path(), &[]);
    for command in ["stat", "verify"] {
        let refused = log(data.path(), &[command]);
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.stderr.contains("--while-running"),
            "{}",
            refused.stderr
        );
        let looked = log(data.path(), &[command, "--while-running"]);
        assert!(looked.stderr.contains("a server has"), "{}", looked.stderr);
    }
    let stat = log(data.path(), &["stat", "--while-running", "--json"]).json();
    assert_eq!(readings(&stat)["end"], json!(400));
    let verified = log(data.path(), &["verify", "--while-running", "--json"]).json();
    let summary = &verified["summary"];
    let counted = |field: &str| summary[field].as_u64().unwrap_or(0);
    // The broker's own records beside the 400: what has not settled yet counts like what has.
    assert!(counted("records") > 400, "{summary}");
    assert!(counted("logs") >= 2, "{summary}");
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    let nowhere = log(&data.path().join("nowhere"), &["verify"]);
    assert_eq!(nowhere.code, Some(3), "{}", nowhere.stderr);
    let empty = tempfile::tempdir().expect("a directory");
    let none = log(empty.path(), &["stat"]);
    assert_eq!(none.code, Some(3));
    assert!(none.stderr.contains("no data directory"), "{}", none.stderr);
}
