//! Holds and the loss ledger, through the command line and HTTP, of a server whose retention removes all the time.

use std::io::{Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use client::{Client, ClientConfig, Producer, ProducerConfig, ProducerRecord};
use model::TopicName;
use rustix::process::Signal;
use serde_json::Value;
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};

use crate::binary::{Running, Said, create_topic, serve, tool};
use crate::raw::Raw;

const TOPIC: &str = "readings";

fn start(data: &Path) -> Running {
    Running::start(serve(data).args([
        "-X",
        "settle.age.ms=20",
        "-X",
        "log.retention.check.interval.ms=100",
    ]))
}

fn said(running: &Running, args: &[&str]) -> Said {
    let mut all = args.to_vec();
    all.extend(["-b", &running.kafka]);
    if matches!(args[0], "hold" | "loss" | "retention" | "compact") {
        all.extend(["--http", &running.http]);
    }
    tool(&all)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

fn create(running: &Running, configs: &[(&str, &str)]) {
    runtime().block_on(create_topic(running, TOPIC, 1, configs));
}

fn produce(running: &Running, count: u64) {
    runtime().block_on(async {
        let client = Client::connect(ClientConfig::new(&running.kafka))
            .await
            .expect("a client");
        let config = ProducerConfig {
            batch_bytes: 2048,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&client, config).expect("a producer");
        for number in 0..count {
            let name = TopicName::parse(TOPIC).expect("a name");
            let value = format!("{number} {}", "x".repeat(500));
            drop(
                producer
                    .send(ProducerRecord::new(name, value))
                    .await
                    .expect("sent"),
            );
        }
        producer.close().await.expect("delivered");
    });
}

/// Where the topic's partition begins.
fn start_offset(running: &Running) -> u64 {
    let described = said(running, &["topic", "describe", TOPIC, "--json"]).json();
    described[0]["partitions"][0]["start_offset"]
        .as_u64()
        .expect("an offset")
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Deletes all records that the topic has.
fn delete_all_records(running: &Running) {
    let words = [
        "topic",
        "delete-records",
        TOPIC,
        "--before",
        "latest",
        "--yes",
    ];
    let deleted = said(running, &words);
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
}

/// Has retention look at once, at what is not settled too.
fn retain(running: &Running) {
    let ran = said(running, &["retention", "run", TOPIC, "--now", "--wait"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

/// Has a group read and commit the first records of the topic.
fn read_as(running: &Running, group: &str, count: u64) {
    let count = count.to_string();
    let read = said(
        running,
        &["consume", TOPIC, "-g", group, "-n", &count, "-f", "%o\n"],
    );
    assert_eq!(read.code, Some(0), "{}", read.stderr);
}

const SMALL: [(&str, &str); 3] = [
    ("segment.bytes", "16384"),
    ("segment.ms", "200"),
    ("retention.bytes", "40000"),
];

#[test]
fn a_hold_keeps_records_from_retention_deletion_and_restarts_until_it_is_removed() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    create(&running, &SMALL);
    let added = said(
        &running,
        &["hold", "add", TOPIC, "--reason", "case 4711", "--json"],
    )
    .json();
    let id = added["id"].as_str().expect("an id").to_owned();
    produce(&running, 300);
    retain(&running);
    assert_eq!(start_offset(&running), 0);
    let plan = said(&running, &["retention", "explain", TOPIC, "--json"]);
    assert!(
        plan.stdout.contains("case 4711"),
        "{}{}",
        plan.stdout,
        plan.stderr
    );
    let refused = said(
        &running,
        &["topic", "delete-records", TOPIC, "--before", "10", "--yes"],
    );
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    let refused = said(&running, &["topic", "delete", TOPIC, "--yes"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(running.get("/metrics").1.contains("alluvium_holds 1"));
    running.end(Signal::KILL);
    let running = start(data.path());
    let holds = said(&running, &["hold", "list", "--json"]).json();
    assert_eq!(
        (holds[0]["id"].as_str(), holds[0]["reason"].as_str()),
        (Some(id.as_str()), Some("case 4711"))
    );
    retain(&running);
    assert_eq!(start_offset(&running), 0);
    assert_eq!(said(&running, &["hold", "remove", &id]).code, Some(0));
    assert_eq!(said(&running, &["hold", "remove", &id]).code, Some(3));
    wait("retention goes on", || start_offset(&running) > 0);
    assert_eq!(
        said(&running, &["topic", "delete", TOPIC, "--yes"]).code,
        Some(0)
    );
}

#[test]
fn a_hold_on_a_time_keeps_that_time_only_and_one_that_ends_lets_go() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    create(&running, &SMALL);
    produce(&running, 100);
    let soon = said(
        &running,
        &[
            "hold",
            "add",
            TOPIC,
            "--to",
            "-1h",
            "--reason",
            "nothing then",
        ],
    );
    assert_eq!(soon.code, Some(0), "{}", soon.stderr);
    produce(&running, 100);
    wait("what was not then is not held", || {
        start_offset(&running) > 0
    });
    let expiring = said(
        &running,
        &[
            "hold",
            "add",
            TOPIC,
            "--reason",
            "for a moment",
            "--expires",
            "15s",
        ],
    );
    assert_eq!(expiring.code, Some(0), "{}", expiring.stderr);
    let held = start_offset(&running);
    produce(&running, 200);
    retain(&running);
    assert_eq!(start_offset(&running), held);
    wait("a hold ends by itself", || start_offset(&running) > held);
    for (args, code) in [
        (&["hold", "add", TOPIC, "--reason", " "][..], 1),
        (&["hold", "add", "none", "--reason", "x"], 3),
        (
            &["hold", "add", TOPIC, "--reason", "x", "--partition", "7"],
            3,
        ),
        (
            &[
                "hold", "add", TOPIC, "--reason", "x", "--from", "-1h", "--to", "-2h",
            ],
            1,
        ),
    ] {
        let refused = said(&running, args);
        assert_eq!(refused.code, Some(code), "{args:?}: {}", refused.stderr);
    }
}

#[test]
fn what_a_held_group_has_not_read_stays_up_to_the_limit_and_what_goes_is_in_the_ledger() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    let mut configs = SMALL.to_vec();
    configs.push(("retention.hold.groups", "dashboard"));
    create(&running, &configs);
    produce(&running, 200);
    retain(&running);
    assert_eq!(start_offset(&running), 0, "the group has read nothing");
    read_as(&running, "dashboard", 150);
    wait("what it has read goes", || start_offset(&running) > 0);
    assert!(start_offset(&running) <= 150);
    let losses = said(&running, &["loss", "list", "--json"]).json();
    assert_eq!(losses, serde_json::json!([]));
    // The limit is less than what is unread.
    let altered = said(
        &running,
        &[
            "topic",
            "alter",
            TOPIC,
            "--set",
            "retention.hold.bytes=20000",
            "--yes",
        ],
    );
    assert_eq!(altered.code, Some(0), "{}", altered.stderr);
    produce(&running, 300);
    wait("the limit forces a removal", || {
        start_offset(&running) > 150
    });
    wait("the loss is noted", || {
        let losses = said(
            &running,
            &["loss", "list", "--group", "dashboard", "--json"],
        )
        .json();
        losses[0]["to"].as_u64() == Some(start_offset(&running))
    });
    let losses = said(&running, &["loss", "list", "--json"]).json();
    let loss: &Value = &losses[0];
    assert_eq!(
        (loss["from"].as_u64(), loss["cause"].as_str()),
        (Some(150), Some("retention")),
        "{loss}"
    );
    assert_eq!(
        loss["records"].as_u64(),
        loss["to"].as_u64().map(|to| to - 150)
    );
    assert!(loss["first_ms"].as_i64() <= loss["last_ms"].as_i64() && loss["first_ms"].is_i64());
    let (_, health) = running.get("/readyz");
    assert!(health.contains("\"entries\":1"), "{health}");
    assert!(
        running
            .get("/metrics")
            .1
            .contains("alluvium_loss_entries 1")
    );
    // It is there after a kill, and the group's description has it.
    let before = loss["number"].clone();
    running.end(Signal::KILL);
    let running = start(data.path());
    let losses = said(&running, &["loss", "list", "--json"]).json();
    assert_eq!(losses[0]["number"], before);
    let described = crate::binary::alluvium()
        .args([
            "group",
            "describe",
            "dashboard",
            "--json",
            "-b",
            &running.kafka,
        ])
        .env("ALLUVIUM_HTTP", &running.http)
        .output()
        .expect("it runs");
    let described = Said::of(described).json();
    assert_eq!(described[0]["losses"][0]["from"], 150);
}

#[test]
fn records_that_are_deleted_before_a_group_has_read_them_are_in_the_ledger() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    create(&running, &[]);
    produce(&running, 100);
    read_as(&running, "slow", 20);
    read_as(&running, "quick", 100);
    let deleted = said(
        &running,
        &["topic", "delete-records", TOPIC, "--before", "60", "--yes"],
    );
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
    let losses = said(&running, &["loss", "list", "--json"]).json();
    let losses = losses.as_array().expect("a list");
    assert_eq!(losses.len(), 1, "{losses:?}");
    assert_eq!(losses[0]["group"], "slow");
    assert_eq!(
        (losses[0]["from"].as_u64(), losses[0]["to"].as_u64()),
        (Some(20), Some(60))
    );
    assert_eq!(losses[0]["cause"], "delete-records");
}

/// The entries of the ledger.
fn losses(running: &Running) -> Vec<Value> {
    let losses = said(running, &["loss", "list", "--json"]).json();
    losses.as_array().expect("a list").clone()
}

#[test]
fn no_removal_outlives_a_kill_without_its_entry() {
    let data = tempfile::tempdir().expect("a directory");
    let mut running = start(data.path());
    create(&running, &SMALL);
    produce(&running, 10);
    read_as(&running, "slow", 10);
    for _ in 0..4 {
        let before = start_offset(&running);
        produce(&running, 200);
        wait("retention removes", || start_offset(&running) > before);
        // At once, without a pause for the ledger to be written.
        running.end(Signal::KILL);
        running = start(data.path());
        let begins = start_offset(&running);
        let found = losses(&running);
        // What the group had read is no loss.
        let ends = found.iter().filter_map(|loss| loss["to"].as_u64()).max();
        let ends = ends.unwrap_or(10);
        assert!(ends >= begins, "begins at {begins}: {found:?}");
        let ranges = found
            .iter()
            .map(|loss| (loss["from"].as_u64(), loss["to"].as_u64()));
        let records: u64 = ranges.map(|(from, to)| to.unwrap() - from.unwrap()).sum();
        assert_eq!(records, ends - 10, "each offset once: {found:?}");
    }
}

#[test]
fn what_compaction_and_the_deletion_of_a_topic_take_from_a_group_is_in_the_ledger() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    create(&running, &[]);
    produce_keyed(&running, 10);
    read_as(&running, "slow", 7);
    read_as(&running, "quick", 40);
    let policy = [
        "--set",
        "cleanup.policy=compact",
        "--set",
        "min.cleanable.dirty.ratio=0",
    ];
    let altered = said(
        &running,
        &[&["topic", "alter", TOPIC, "--yes"][..], &policy].concat(),
    );
    assert_eq!(altered.code, Some(0), "{}", altered.stderr);
    let ran = said(&running, &["compact", "run", TOPIC, "--now", "--wait"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let found = losses(&running);
    assert_eq!(found.len(), 1, "{found:?}");
    let loss = &found[0];
    assert_eq!(
        (&loss["group"], &loss["cause"]),
        (&"slow".into(), &"compaction".into())
    );
    assert_eq!(loss["from"], 7);
    // Of 40 records those two stay that are the newest of their keys.
    let records = loss["records"].as_u64().expect("a number");
    assert!((31..=33).contains(&records), "{loss}");
    // Nothing is left of a second run to be told.
    let ran = said(&running, &["compact", "run", TOPIC, "--now", "--wait"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(losses(&running), found);
    let deleted = said(&running, &["topic", "delete", TOPIC, "--yes"]);
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
    running.end(Signal::KILL);
    let running = start(data.path());
    let found = losses(&running);
    let newest = &found[0];
    assert_eq!(
        (&newest["group"], &newest["cause"]),
        (&"slow".into(), &"topic-deleted".into())
    );
    assert_eq!((&newest["from"], &newest["to"]), (&7.into(), &40.into()));
    assert_eq!(found.len(), 2, "the quick one lost nothing: {found:?}");
}

#[test]
fn who_reads_without_a_group_and_is_overtaken_is_in_the_ledger() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    create(&running, &[]);
    produce(&running, 3_000);
    // It takes nothing more than what the socket holds.
    let mut follower = std::net::TcpStream::connect(&running.http).expect("a connection");
    let asked = format!(
        "GET /api/v1/topics/{TOPIC}/follow?from=earliest HTTP/1.1\r\nHost: {}\r\nUser-Agent: dashboard\r\nAccept: text/event-stream\r\n\r\n",
        running.http
    );
    follower.write_all(asked.as_bytes()).expect("asked");
    let mut first = [0; 16];
    follower.read_exact(&mut first).expect("an answer begins");
    assert_eq!(&first[..12], b"HTTP/1.1 200");
    let mut wanted = Vec::new();
    wait("a follower that is behind has an entry", || {
        produce(&running, 3_000);
        delete_all_records(&running);
        wanted = losses(&running);
        !wanted.is_empty()
    });
    let loss = &wanted[0];
    assert_eq!(loss["group"], Value::Null);
    let reader = loss["reader"].as_str().expect("a reader");
    assert!(reader.contains("127.0.0.1"), "{reader}");
    assert!(loss["to"].as_u64() > loss["from"].as_u64());
    let listed = said(&running, &["loss", "list"]);
    assert!(listed.stdout.contains(reader), "{}", listed.stdout);
    // Nobody is told of who has gone.
    drop(follower);
    let count = || {
        losses(&running)
            .iter()
            .filter_map(|loss| loss["to"].as_u64())
            .max()
    };
    wait("who has gone loses nothing more", || {
        let before = count();
        produce(&running, 10);
        delete_all_records(&running);
        count() == before
    });
}

/// A client that reads in a fetch session from the first record on, and does not go on. It is there as long as what is given is.
fn read_no_further(running: &Running) -> (tokio::runtime::Runtime, Raw) {
    let runtime = runtime();
    let address = running.kafka.parse().expect("an address");
    let request = FetchRequest {
        max_wait_ms: 1,
        max_bytes: 1,
        session_epoch: 0,
        topics: vec![FetchTopic {
            topic: TOPIC.into(),
            partitions: vec![FetchPartition {
                partition_max_bytes: 1,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let raw = runtime.block_on(async {
        let mut raw = Raw::connect(address).await;
        let answer = raw.call(12, &request).await;
        assert!(answer.session_id > 0 && answer.error_code == 0);
        raw
    });
    (runtime, raw)
}

#[test]
fn who_reads_without_a_group_is_told_of_compaction_thinning_and_erasure() {
    let compact = "cleanup.policy=compact min.cleanable.dirty.ratio=0";
    let thin = "thin.tiers=0ms:1s:last cleanup.policy=thin";
    let cases = [
        ("compaction", compact, &["compact", "run"][..]),
        ("thinning", thin, &["thin", "run"]),
        ("erasure", "", &["erase", "request"]),
    ];
    for (cause, policy, words) in cases {
        let data = tempfile::tempdir().expect("a directory");
        let running = start(data.path());
        create(&running, &[]);
        produce_keyed(&running, 10);
        let _reading = read_no_further(&running);
        for setting in policy.split_whitespace() {
            let altered = said(
                &running,
                &["topic", "alter", TOPIC, "--yes", "--set", setting],
            );
            assert_eq!(altered.code, Some(0), "{}", altered.stderr);
        }
        let more = match cause {
            "erasure" => &["k", "--yes", "--wait"][..],
            _ => &["--now", "--wait"],
        };
        let http = ["--http", running.http.as_str()];
        let mut found = Vec::new();
        // A window is thinned when it is over.
        wait("the reader is told", || {
            let done = tool(&[words, &[TOPIC], more, &http].concat());
            assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
            found = losses(&running);
            !found.is_empty()
        });
        let (of_k, of_a) = counts(&running);
        let records = found.iter().map(|loss| loss["records"].as_u64());
        let records: u64 = records.map(|count| count.expect("a number")).sum();
        assert_eq!(records, 40 - (of_k + of_a) as u64, "{cause}: {found:?}");
        for loss in &found {
            assert_eq!(
                (&loss["group"], &loss["cause"]),
                (&Value::Null, &cause.into())
            );
            let reader = loss["reader"].as_str().expect("a reader");
            let is_named = reader.contains("127.0.0.1") && reader.contains("raw");
            assert!(is_named, "{reader}");
        }
    }
}

#[test]
fn who_reads_without_a_group_is_told_of_damage_and_who_comes_upon_it_too() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    create(&running, &[]);
    produce_keyed(&running, 10);
    let _reading = read_no_further(&running);
    // The second round's segment begins at offset 20; nobody has read it.
    let segments = crate::log_tool::files(data.path(), ".log");
    let name =
        |path: &std::path::PathBuf| path.to_string_lossy().contains("/00000000000000000020.");
    let segment = segments.iter().find(|path| name(path)).expect("a segment");
    let bytes = std::fs::read(segment).expect("a file");
    let value = bytes.windows(3).position(|value| value == b"1 5");
    let at = u64::try_from(value.expect("a value")).expect("small");
    let file = std::fs::File::options().write(true).open(segment);
    file.and_then(|file| file.write_all_at(b"2", at))
        .expect("written");
    let (status, answer) = running.get(&format!("/api/v1/topics/{TOPIC}/replay"));
    assert_eq!(status, 200, "{answer}");
    assert!(!answer.contains("\"1 5\""), "{answer}");
    let found = losses(&running);
    let is_of = |loss: &Value| {
        (
            loss["cause"] == "damage",
            loss["from"].as_u64(),
            loss["to"].as_u64(),
        )
    };
    assert_eq!(found.len(), 2, "{found:?}");
    // Who is behind loses all of it, as does who comes upon it.
    for loss in &found {
        let (is_damage, from, to) = is_of(loss);
        assert!(is_damage && from == Some(20) && to == Some(40), "{loss}");
    }
    let names: Vec<&str> = found
        .iter()
        .filter_map(|loss| loss["reader"].as_str())
        .collect();
    assert!(names.iter().any(|name| name.contains("raw")), "{names:?}");
    assert!(names[0] != names[1], "{names:?}");
}

/// Produces records of two keys in turn, `k` and `a`, so many of each, in two rounds that lie in a segment each.
fn produce_keyed(running: &Running, count: u64) {
    for round in 0..2 {
        runtime().block_on(async {
            let client = Client::connect(ClientConfig::new(&running.kafka))
                .await
                .expect("a client");
            let producer = Producer::new(&client, ProducerConfig::default()).expect("a producer");
            for number in 0..count {
                for key in ["k", "a"] {
                    let name = TopicName::parse(TOPIC).expect("a name");
                    let record = ProducerRecord::new(name, format!("{round} {number}")).key(key);
                    drop(producer.send(record).await.expect("sent"));
                }
            }
            producer.close().await.expect("delivered");
        });
        retain(running);
    }
}

/// How many records of each key a consumer gets: of `k` and of `a`.
fn counts(running: &Running) -> (usize, usize) {
    let read = said(running, &["consume", TOPIC, "-e", "-f", "%k\n"]);
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    let count = |key| read.stdout.lines().filter(|line| *line == key).count();
    (count("k"), count("a"))
}

/// Has a policy run at once, and waits for it.
fn run_now(running: &Running, policy: &str) {
    let http = ["--http", running.http.as_str()];
    let ran = tool(&[&[policy, "run", TOPIC, "--now", "--wait"][..], &http].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn a_hold_by_key_keeps_its_records_from_compaction_until_it_is_removed() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    create(
        &running,
        &[("cleanup.policy", "compact"), ("segment.ms", "200")],
    );
    produce_keyed(&running, 20);
    let hold = [
        "hold",
        "add",
        TOPIC,
        "--key",
        "k",
        "--reason",
        "case 4712",
        "--json",
    ];
    let added = said(&running, &hold).json();
    assert_eq!(
        (added["key"].as_str(), added["key_hex"].as_str()),
        (Some("k"), Some("6b"))
    );
    run_now(&running, "compact");
    assert_eq!(counts(&running).0, 40);
    // The hold is known after a kill.
    running.end(Signal::KILL);
    let running = start(data.path());
    run_now(&running, "compact");
    assert_eq!(counts(&running).0, 40);
    let listed = said(&running, &["hold", "list"]);
    assert!(listed.stdout.contains("case 4712"), "{}", listed.stdout);
    let id = added["id"].as_str().expect("an id");
    assert_eq!(said(&running, &["hold", "remove", id]).code, Some(0));
    run_now(&running, "compact");
    assert_eq!(counts(&running), (1, 1));
}

#[test]
fn a_hold_by_key_keeps_its_records_from_thinning_and_the_others_are_thinned() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path());
    let thin = [
        ("cleanup.policy", "thin"),
        ("thin.tiers", "0ms:1s:last"),
        ("segment.ms", "200"),
    ];
    create(&running, &thin);
    let hold = ["hold", "add", TOPIC, "--key", "k", "--reason", "case 4713"];
    assert_eq!(said(&running, &hold).code, Some(0));
    produce_keyed(&running, 20);
    let mut left = (0, 0);
    wait("the other key is thinned", || {
        run_now(&running, "thin");
        left = counts(&running);
        left.1 < 10
    });
    assert_eq!(left.0, 40, "the held key's records stay");
    assert!(left.1 >= 1, "each window keeps its last");
}
