//! `alluvium backup` and `alluvium restore`, of directories that a server is writing to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{Client, ClientConfig, Producer, ProducerConfig, ProducerRecord};
use model::TopicName;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::binary::{Running, Said, alluvium, create_topic, serve, tool};

const TOPIC: &str = "readings";

/// A server whose segments are small, and which settles and removes all the time.
fn start(data: &Path) -> Running {
    Running::start(serve(data).args(["-X", "settle.age.ms=20"]))
}

fn create(running: &Running, configs: &[(&str, &str)]) {
    runtime().block_on(create_topic(running, TOPIC, 3, configs));
}

async fn client_of(running: &Running) -> Client {
    Client::connect(ClientConfig::new(&running.kafka))
        .await
        .expect("a client")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

/// What was acknowledged: by partition and offset, each with its value.
type Ledger = BTreeMap<(u32, u64), String>;

/// Produces until it is told to stop, and keeps the book in `ledger`.
async fn produce(running: &Running, ledger: Arc<std::sync::Mutex<Ledger>>, stop: Arc<AtomicBool>) {
    let client = client_of(running).await;
    let config = ProducerConfig {
        batch_bytes: 2048,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&client, config).expect("a producer");
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut waiting = Vec::new();
        for _ in 0..50 {
            number += 1;
            let value = format!("reading {number} {}", "x".repeat(200));
            let name = TopicName::parse(TOPIC).expect("a name");
            let record =
                ProducerRecord::new(name, value.clone()).key(format!("device-{}", number % 17));
            waiting.push((value, producer.send(record).await.expect("sent")));
        }
        for (value, delivery) in waiting {
            let place = delivery.wait().await.expect("acknowledged");
            let offset = place.offset.expect("acknowledged with its offset").get();
            let mut ledger = ledger.lock().expect("a ledger");
            ledger.insert((place.partition.partition.get(), offset), value);
        }
    }
    producer.close().await.expect("delivered");
}

/// All records of the topic that a server over this directory gives.
fn records(data: &Path) -> Ledger {
    let running = Running::start(&mut serve(data));
    let said = tool(&[
        "consume",
        TOPIC,
        "-o",
        ":end",
        "-f",
        "%p %o %v\n",
        "-b",
        &running.kafka,
    ]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let found = said.stdout.lines().map(|line| {
        let mut words = line.splitn(3, ' ');
        let mut number = || {
            words
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .expect("a number")
        };
        let place = (u32::try_from(number()).expect("a partition"), number());
        (place, words.next().expect("a value").to_owned())
    });
    let found = found.collect();
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    found
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn backup(data: &Path, place: &Path, more: &[&str]) -> Said {
    let mut args = vec!["backup", text(data), "--to", text(place)];
    args.extend(more);
    tool(&args)
}

fn restore(backup: &Path, to: &Path, more: &[&str]) -> Said {
    let mut args = vec!["restore", text(backup), "--to", text(to)];
    args.extend(more);
    tool(&args)
}

/// Every record that was acknowledged `before` is in `found`, and nothing is that was not acknowledged in the end.
fn compare(before: &Ledger, found: &Ledger, end: &Ledger) {
    let missing = before
        .iter()
        .find(|(place, value)| found.get(place) != Some(value));
    assert_eq!(missing, None, "of {} records", before.len());
    let invented = found
        .iter()
        .find(|(place, value)| end.get(place) != Some(value));
    assert_eq!(invented, None);
}

#[test]
fn backups_of_a_server_under_load_hold_every_record_that_was_acknowledged_before() {
    let root = tempfile::tempdir().expect("a directory");
    let (data, place) = (root.path().join("data"), root.path().join("backups"));
    let running = start(&data);
    create(&running, &[("segment.bytes", "65536")]);
    let ledger = Arc::new(std::sync::Mutex::new(Ledger::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = runtime();
    let taken: Vec<(Ledger, serde_json::Value)> = runtime.block_on(async {
        let take = async {
            let mut taken = Vec::new();
            for round in 0..4 {
                tokio::time::sleep(Duration::from_millis(700)).await;
                while ledger.lock().expect("a ledger").len() < 2_000 * (round + 1) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let before = ledger.lock().expect("a ledger").clone();
                let (data, place) = (data.clone(), place.clone());
                let said = tokio::task::spawn_blocking(move || {
                    backup(&data, &place, &["--keep", "9", "--json"])
                });
                taken.push((before, said.await.expect("it ran").json()));
            }
            stop.store(true, Ordering::Relaxed);
            taken
        };
        tokio::join!(
            produce(&running, Arc::clone(&ledger), Arc::clone(&stop)),
            take
        )
        .1
    });
    running.end(Signal::TERM);
    let end = ledger.lock().expect("a ledger").clone();
    assert!(taken[0].0.len() > 100 && taken[3].0.len() > taken[0].0.len());
    assert!(
        taken[3].1["reused_bytes"].as_u64() > Some(100_000),
        "segments of earlier backups are not copied again: {}",
        taken[3].1
    );
    for (number, (before, value)) in taken.iter().enumerate() {
        let backup = PathBuf::from(value["directory"].as_str().expect("a directory"));
        let target = root.path().join(format!("restored{number}"));
        let said = restore(&backup, &target, &[]);
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
        let verified = tool(&["log", "verify", text(&target)]);
        assert_eq!(verified.code, Some(0), "{}", verified.stdout);
        compare(before, &records(&target), &end);
        let again = restore(&backup, &target, &[]);
        assert_eq!(again.code, Some(1));
        assert!(again.stderr.contains("is not empty"), "{}", again.stderr);
    }
}

#[test]
fn a_backup_while_records_are_deleted_and_topics_go_is_whole() {
    let root = tempfile::tempdir().expect("a directory");
    let (data, place) = (root.path().join("data"), root.path().join("backups"));
    let running = Running::start(serve(&data).args([
        "-X",
        "settle.age.ms=20",
        "-X",
        "log.retention.check.interval.ms=100",
    ]));
    create(
        &running,
        &[("segment.bytes", "16384"), ("retention.bytes", "100000")],
    );
    let ledger = Arc::new(std::sync::Mutex::new(Ledger::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = runtime();
    runtime.block_on(async {
        let take = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let (data, place) = (data.clone(), place.clone());
                let said = tokio::task::spawn_blocking(move || backup(&data, &place, &[]));
                let said = said.await.expect("it ran");
                assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
            }
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(
            produce(&running, Arc::clone(&ledger), Arc::clone(&stop)),
            take
        );
    });
    running.end(Signal::KILL);
    let target = root.path().join("restored");
    assert_eq!(restore(&place, &target, &[]).code, Some(0));
    let end = ledger.lock().expect("a ledger").clone();
    let found = records(&target);
    assert!(!found.is_empty());
    compare(&Ledger::new(), &found, &end);
}

/// A stopped store with some megabytes in sealed segments, and what it holds.
fn stopped(data: &Path) -> Ledger {
    let running = start(data);
    create(&running, &[("segment.bytes", "65536")]);
    let ledger = Arc::new(std::sync::Mutex::new(Ledger::new()));
    let stop = Arc::new(AtomicBool::new(false));
    runtime().block_on(async {
        let wait = async {
            while ledger.lock().expect("a ledger").len() < 6_000 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(
            produce(&running, Arc::clone(&ledger), Arc::clone(&stop)),
            wait
        );
    });
    let until = Instant::now() + Duration::from_secs(30);
    while metric(&running, "alluvium_settled_bytes_total")
        < metric(&running, "alluvium_appended_bytes_total")
    {
        assert!(Instant::now() < until, "not all of it settles");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.end(Signal::TERM);
    let ledger = ledger.lock().expect("a ledger");
    ledger.clone()
}

fn metric(running: &Running, name: &str) -> f64 {
    let (_, page) = running.get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok())
        .expect("a number")
}

/// How many segments lie somewhere below a directory, whole or in part.
fn segments(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |path: PathBuf| match path.is_dir() {
        true => segments(&path),
        false => usize::from(path.extension().is_some_and(|it| it == "log")),
    };
    entries.map(|entry| of(entry.path())).sum()
}

/// Starts the command, kills it after a while, and tells whether it was killed before it was done.
fn kill_after(args: &[&str], after: Duration) -> bool {
    let mut child = alluvium()
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    std::thread::sleep(after);
    let _ = kill_process(Pid::from_child(&child), Signal::KILL);
    child.wait().expect("it ends").code().is_none()
}

#[test]
fn a_backup_and_a_restore_that_are_killed_go_on_and_come_to_the_same_store() {
    let root = tempfile::tempdir().expect("a directory");
    let (data, place) = (root.path().join("data"), root.path().join("backups"));
    let before = stopped(&data);
    let mut kills = 0;
    // On a busy machine the command needs longer before it has copied something.
    let more = (9..).map(|step| 1 << step);
    for (round, after) in [30, 60, 120, 200, 300].into_iter().chain(more).enumerate() {
        if round >= 5 && segments(&place) > 2 {
            break;
        }
        let slow = [
            "backup",
            text(&data),
            "--to",
            text(&place),
            "--bytes-per-second",
            "256KiB",
        ];
        kills += u32::from(kill_after(&slow, Duration::from_millis(after)));
        let listed = tool(&["restore", text(&place), "--list", "--json"]);
        if kills > 0 && listed.code == Some(0) {
            assert_eq!(
                listed.json(),
                json!([]),
                "what is not finished is no backup"
            );
        }
    }
    assert!(kills > 2, "{kills}");
    let taken = backup(&data, &place, &["--json"]).json();
    assert!(taken["reused_bytes"].as_u64() > Some(0), "{taken}");
    assert_eq!(taken["number"], 1);
    let target = root.path().join("restored");
    let mut kills = 0;
    for after in [5, 10, 20, 40, 60] {
        if target.join("STORE").exists() {
            break;
        }
        let args = ["restore", text(&place), "--to", text(&target)];
        kills += u32::from(kill_after(&args, Duration::from_millis(after)));
        if target.join("RESTORING").exists() {
            let mut server = serve(&target);
            let refused = Said::of(server.output().expect("it runs"));
            assert_eq!(refused.code, Some(1), "{}", refused.stderr);
            assert!(
                refused.stderr.contains("is being restored"),
                "{}",
                refused.stderr
            );
        }
    }
    if !target.join("STORE").exists() || target.join("RESTORING").exists() {
        assert_eq!(restore(&place, &target, &[]).code, Some(0));
    }
    assert!(kills > 0, "{kills}");
    assert_eq!(records(&target), before);
}

#[test]
fn a_corrupted_backup_is_named_and_what_is_whole_of_it_can_be_restored() {
    let root = tempfile::tempdir().expect("a directory");
    let (data, place) = (root.path().join("data"), root.path().join("backups"));
    let before = stopped(&data);
    let taken = backup(&data, &place, &["--json"]).json();
    let directory = PathBuf::from(taken["directory"].as_str().expect("a directory"));
    let sound = tool(&["restore", text(&place), "--check"]);
    assert_eq!(sound.code, Some(0), "{}", sound.stdout);
    let summary = std::fs::read_to_string(directory.join("BACKUP")).expect("a summary");
    let segment = summary
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|line| line["records"].as_u64() > Some(10) && line["path"].is_string())
        .expect("a segment");
    let path = directory.join(segment["path"].as_str().expect("a path"));
    let mut bytes = std::fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&path, bytes).expect("written");
    let checked = tool(&["restore", text(&place), "--check"]);
    assert_eq!(checked.code, Some(5));
    assert!(checked.stdout.contains(text(&path)), "{}", checked.stdout);
    let target = root.path().join("restored");
    let refused = restore(&place, &target, &[]);
    assert_eq!(refused.code, Some(5));
    assert!(refused.stdout.contains(text(&path)), "{}", refused.stdout);
    let kept = restore(&place, &target, &["--keep-damaged"]);
    assert_eq!(kept.code, Some(5), "{}", kept.stderr);
    let running = Running::start(&mut serve(&target));
    let said = tool(&[
        "consume",
        TOPIC,
        "-o",
        ":end",
        "-f",
        "%p %o %v\n",
        "--skip-damaged",
        "-b",
        &running.kafka,
    ]);
    let count = said.stdout.lines().count();
    assert!(
        count < before.len() && count > before.len() - 100,
        "{count} of {}",
        before.len()
    );
    // A backup that is taken again has it from the store.
    let again = backup(&data, &place, &["--recheck"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(tool(&["restore", text(&place), "--check"]).code, Some(0));
}

#[test]
fn what_is_no_store_and_no_backup_is_told_with_its_own_exit_code() {
    let root = tempfile::tempdir().expect("a directory");
    let (empty, place) = (root.path().join("empty"), root.path().join("backups"));
    std::fs::create_dir(&empty).expect("a directory");
    assert_eq!(backup(&empty, &place, &[]).code, Some(3));
    assert_eq!(restore(&empty, &place, &[]).code, Some(3));
    assert_eq!(
        restore(&root.path().join("none"), &place, &[]).code,
        Some(3)
    );
    assert_eq!(backup(&empty, &empty.join("inside"), &[]).code, Some(2));
}
