//! `alluvium erase` against running servers: what goes and what stays, beside a search of every file that shares no code with the
//! store; kills in the middle; holds, summaries and the quarantine.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use client::{Client, ClientConfig, Producer, ProducerConfig, ProducerRecord};
use model::batch::Codec;
use model::hex::to_hex;
use model::{PartitionId, TopicName};
use rustix::process::Signal;
use serde_json::Value;

use crate::binary::{Running, Said, create_topic, serve, tool};
use crate::key_search::find;

const TOPIC: &str = "readings";
/// The key that is erased, and what only its records' values hold.
const KEY: &str = "device-to-be-erased-4711";
const SECRET: &str = "the-secret-of-4711";

fn start(data: &Path, settings: &[&str]) -> Running {
    let mut command = serve(data);
    command.args(["-X", "settle.age.ms=20"]);
    for setting in settings {
        command.args(["-X", setting]);
    }
    Running::start(&mut command)
}

fn erase(running: &Running, args: &[&str]) -> Said {
    tool(&[&["erase", "--http", &running.http], args].concat())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

fn create(running: &Running, partitions: i32, configs: &[(&str, &str)]) {
    runtime().block_on(create_topic(running, TOPIC, partitions, configs));
}

/// Records by partition and offset: key and value.
type Records = BTreeMap<(i32, i64), (String, String)>;

/// Produces so many records to each of two partitions; every fourth is the key's. Gives what it sent.
fn produce(running: &Running, compression: Codec, count: usize, name: &str) -> Records {
    runtime().block_on(async {
        let client = Client::connect(ClientConfig::new(&running.kafka))
            .await
            .expect("a client");
        let config = ProducerConfig {
            batch_bytes: 2048,
            compression: compression.into(),
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&client, config).expect("a producer");
        let mut sent = Vec::new();
        for number in 0..count {
            for partition in 0..2 {
                let (key, value) = match number % 4 {
                    0 => (KEY.to_owned(), format!("{SECRET} {name} {number}")),
                    other => (
                        format!("device-{other}"),
                        format!("{name} {number} {}", "x".repeat(40)),
                    ),
                };
                let topic = TopicName::parse(TOPIC).expect("a name");
                let record = ProducerRecord::new(topic, value.clone())
                    .key(key.clone())
                    .partition(PartitionId::new(partition));
                let delivery = producer.send(record).await.expect("taken");
                sent.push((
                    i32::try_from(partition).expect("small"),
                    key,
                    value,
                    delivery,
                ));
            }
        }
        producer.flush().await.expect("delivered");
        let mut records = Records::new();
        for (partition, key, value, delivery) in sent {
            let offset = delivery
                .wait()
                .await
                .expect("delivered")
                .offset
                .expect("an offset");
            let offset = i64::try_from(offset.get()).expect("small");
            records.insert((partition, offset), (key, value));
        }
        producer.close().await.expect("closed");
        records
    })
}

/// What a consumer reads.
fn consumed(running: &Running) -> Records {
    let read = tool(&[
        "consume",
        TOPIC,
        "-e",
        "-f",
        "%p\t%o\t%k\t%v\n",
        "-b",
        &running.kafka,
    ]);
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    let line = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [partition, offset, key, value] = fields[..] else {
            panic!("{line}");
        };
        let place = (
            partition.parse().expect("a number"),
            offset.parse().expect("a number"),
        );
        (place, (key.to_owned(), value.to_owned()))
    };
    read.stdout.lines().map(line).collect()
}

fn without_key(records: &Records) -> Records {
    let others = records.iter().filter(|(_, (key, _))| key != KEY);
    others
        .map(|(place, record)| (*place, record.clone()))
        .collect()
}

fn request(running: &Running, more: &[&str]) -> Value {
    let args = ["request", TOPIC, KEY, "--yes", "--wait", "--json"];
    let said = erase(running, &[&args, more].concat());
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    said.json()
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        // The step of a poll.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Nothing is left in any file, by the separate search.
fn require_none_left(data: &Path) {
    for needle in [KEY, SECRET] {
        let found = find(data, needle.as_bytes());
        assert!(found.is_empty(), "{needle}: {found:?}");
    }
    let hex = to_hex(KEY);
    let found = find(data, hex.as_bytes());
    assert!(
        found.is_empty(),
        "the request still holds the key: {found:?}"
    );
}

#[test]
fn no_byte_of_a_key_is_left_whatever_its_batches_are_compressed_with() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path(), &[]);
    create(&running, 2, &[("segment.bytes", "16384")]);
    let mut sent = Records::new();
    for codec in Codec::ALL {
        sent.extend(produce(&running, codec, 400, &format!("{codec:?}")));
    }
    let of_key = sent.len() - without_key(&sent).len();
    for needle in [KEY, SECRET] {
        assert!(
            !find(data.path(), needle.as_bytes()).is_empty(),
            "the search finds it before"
        );
    }
    let plan = erase(&running, &["request", TOPIC, KEY, "--dry-run", "--json"]).json();
    assert_eq!(plan["records"], of_key, "{plan}");
    assert!(plan["segments"].as_u64() > Some(2), "{plan}");
    assert_eq!(consumed(&running), sent, "a dry run changes nothing");
    let left = erase(&running, &["verify", TOPIC, KEY, "--json"]);
    assert_eq!(left.code, Some(5), "{}", left.stdout);

    let done = request(&running, &["--reason", "request 4711"]);
    assert_eq!(
        (done["outcome"].as_str(), done["receipt"].as_u64()),
        (Some("done"), Some(1)),
        "{done}"
    );
    require_none_left(data.path());
    assert_eq!(consumed(&running), without_key(&sent));

    // What comes later stays, and the receipt says up to where it goes.
    let later = produce(&running, Codec::Zstd, 8, "later");
    let id = done["id"].as_str().expect("an id");
    let receipt = erase(&running, &["receipts", id]);
    let receipt: Value = serde_json::from_str(&receipt.stdout).expect("JSON");
    assert_eq!(receipt["records_erased"], of_key, "{receipt}");
    assert_eq!(
        (
            receipt["verified"]["found"].as_u64(),
            receipt["verified"]["unread"].as_u64()
        ),
        (Some(0), Some(0))
    );
    assert_eq!(receipt["reason"], "request 4711");
    for partition in [0, 1] {
        let before = &receipt["partitions"][partition]["before"];
        let ends = sent
            .keys()
            .filter(|(of, _)| *of == i32::try_from(partition).expect("small"));
        assert_eq!(
            before.as_i64(),
            ends.map(|(_, offset)| offset + 1).max(),
            "{receipt}"
        );
    }
    assert!(!receipt.to_string().contains(KEY), "{receipt}");
    let mut expected = without_key(&sent);
    expected.extend(later);
    assert_eq!(consumed(&running), expected);

    let again = request(&running, &[]);
    assert_eq!(again["receipt"], 2, "{again}");
    require_none_left(data.path());
    let verified = erase(&running, &["verify", TOPIC, KEY, "--json"]).json();
    assert_eq!(verified["receipts"]["count"], 2, "{verified}");
    assert_eq!(verified["search"]["clean"], true, "{verified}");
    assert_eq!(running.end(Signal::TERM).0, Some(0));

    let place = data.path().to_str().expect("UTF-8");
    let offline = tool(&["erase", "verify", TOPIC, KEY, "--dir", place, "--json"]).json();
    assert_eq!(offline["receipts"]["count"], 2, "{offline}");
    assert_eq!(offline["search"]["found"], 0, "{offline}");
    let intact = tool(&["log", "verify", place]);
    assert_eq!(intact.code, Some(0), "{}{}", intact.stdout, intact.stderr);
    let kept = data.path().join("kept.ndjson");
    std::fs::write(&kept, receipt.to_string().replace("4711", "4712")).expect("written");
    let kept = kept.to_str().expect("UTF-8");
    let forged = tool(&["erase", "verify", "--dir", place, "--receipt", kept]);
    assert_eq!(forged.code, Some(5), "{}", forged.stdout);
}

/// A kill for each segment, and one for each state, are more than the test has time for.
const KILLS_MAX: usize = 8;

/// How far an erasure is: its state, and how many segments it has written again.
fn furthest(running: &Running, id: &str) -> (String, u64) {
    let path = format!("GET /api/v1/cleanup/erasures/{id}");
    let (status, erasure) = running.ask_json(&path, "");
    assert_eq!(status, 200, "{erasure}");
    let state = erasure["state"].as_str().expect("a state").to_owned();
    let segments = &erasure["progress"]["segments_rewritten"];
    (state, segments.as_u64().expect("a number"))
}

#[test]
fn killed_again_and_again_an_erasure_goes_on_and_counts_each_record_once() {
    let data = tempfile::tempdir().expect("a directory");
    let settings = ["cleaner.io.max.bytes.per.second=400000"];
    let mut running = start(data.path(), &settings);
    create(&running, 2, &[("segment.bytes", "16384")]);
    let sent = produce(&running, Codec::None, 2_000, "killed");
    let of_key = sent.len() - without_key(&sent).len();
    let asked = erase(&running, &["request", TOPIC, KEY, "--yes", "--json"]).json();
    let id = asked["id"].as_str().expect("an id").to_owned();
    // Each kill comes when the erasure is further than at the one before, in its states or segments.
    let mut kills = Vec::new();
    let is_over = loop {
        let mut now = furthest(&running, &id);
        wait("it goes on", || {
            now = furthest(&running, &id);
            now.0 == "ended" || !kills.contains(&now)
        });
        if now.0 == "ended" || kills.len() == KILLS_MAX {
            break now.0 == "ended";
        }
        kills.push(now);
        running.end(Signal::KILL);
        running = start(data.path(), &settings);
    };
    assert!(kills.len() >= 2, "{kills:?}");
    wait("it ends by itself", || {
        is_over || furthest(&running, &id).0 == "ended"
    });
    require_none_left(data.path());
    assert_eq!(consumed(&running), without_key(&sent));
    let receipts = erase(&running, &["receipts"]).stdout;
    assert_eq!(receipts.lines().count(), 1, "{receipts}");
    let receipt: Value = serde_json::from_str(&receipts).expect("JSON");
    assert_eq!(
        receipt["records_erased"], of_key,
        "after kills at {kills:?}: {receipt}"
    );
    assert_eq!(erase(&running, &["verify", TOPIC, KEY]).code, Some(0));
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    let place = data.path().to_str().expect("UTF-8");
    let intact = tool(&["log", "verify", place]);
    assert_eq!(intact.code, Some(0), "{}{}", intact.stdout, intact.stderr);
}

/// What the server says of an erasure when it is over or stopped.
fn state(running: &Running, id: &str) -> Value {
    let path = format!("GET /api/v1/cleanup/erasures/{id}?wait_ms=2000");
    let (status, erasure) = running.ask_json(&path, "");
    assert_eq!(status, 200, "{erasure}");
    erasure
}

/// The same, once it is at its end.
fn ended(running: &Running, id: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let erasure = state(running, id);
        if erasure["state"] == "ended" {
            return erasure;
        }
        assert!(Instant::now() < until, "{erasure}");
    }
}

#[test]
fn a_hold_and_a_file_in_the_quarantine_refuse_it_by_their_names_and_summaries_forget_the_key() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path(), &["log.cleaner.backoff.ms=86400000"]);
    let thin = [
        ("segment.bytes", "16384"),
        ("cleanup.policy", "thin"),
        ("thin.tiers", "0ms:1ms:first+last"),
    ];
    create(&running, 2, &thin);
    let sent = produce(&running, Codec::None, 300, "held");
    let hold = [
        "hold",
        "add",
        TOPIC,
        "--reason",
        "case 12",
        "--json",
        "--http",
        &running.http,
    ];
    let hold = tool(&hold).json();
    let hold = hold["id"].as_str().expect("an id").to_owned();
    let refused = erase(&running, &["request", TOPIC, KEY, "--yes"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("case 12"), "{}", refused.stderr);
    let body = format!("{{\"topic\":\"{TOPIC}\",\"keys\":[\"{KEY}\"]}}");
    let (status, problem) = running.ask_json("POST /api/v1/cleanup/erasures", &body);
    assert_eq!(
        (status, problem["code"].as_str()),
        (409, Some("held")),
        "{problem}"
    );
    let (status, _) = running.ask(
        "POST /api/v1/cleanup/erasures",
        "Content-Type: text/plain\r\n",
        &body,
    );
    assert_eq!(status, 415, "only JSON is taken");
    assert_eq!(consumed(&running), sent, "a refusal changes nothing");
    let removed = tool(&["hold", "remove", &hold, "--http", &running.http]);
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);

    // Windows of a summary hold the key too.
    let thinned = tool(&[
        "thin",
        "run",
        TOPIC,
        "--now",
        "--wait",
        "--http",
        &running.http,
    ]);
    assert_eq!(thinned.code, Some(0), "{}", thinned.stderr);
    let in_summaries = || {
        let found = find(data.path(), KEY.as_bytes());
        found.iter().filter(|place| place.contains(".sum")).count()
    };
    assert!(in_summaries() > 0, "a summary tells of the key");

    // A file that nobody knows, with a batch of the key in it.
    let segment = crate::log_tool::files(data.path(), ".log");
    let held = |path: &&std::path::PathBuf| {
        let bytes = std::fs::read(path).expect("a file");
        bytes
            .windows(KEY.len())
            .any(|window| window == KEY.as_bytes())
    };
    let segment = segment.iter().find(held).expect("a segment of the key");
    let aside = data.path().join("quarantine").join("left.log.0");
    std::fs::create_dir_all(aside.parent().expect("a place")).expect("made");
    std::fs::copy(segment, &aside).expect("copied");
    let refused = erase(&running, &["request", TOPIC, KEY, "--yes"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("left.log.0"), "{}", refused.stderr);
    let (status, asked) = running.ask_json("POST /api/v1/cleanup/erasures", &body);
    assert_eq!(status, 202, "{asked}");
    let asked = ended(&running, asked["id"].as_str().expect("an id"));
    assert_eq!(asked["outcome"], "refused", "{asked}");
    assert!(
        aside.exists() && in_summaries() > 0,
        "a refusal changes nothing"
    );
    assert!(
        find(data.path(), b"6465766963652d746f2d6265").is_empty(),
        "a refused request forgets the key"
    );

    let done = request(&running, &["--remove-quarantined"]);
    assert_eq!(done["outcome"], "done", "{done}");
    assert!(!aside.exists());
    require_none_left(data.path());
    let receipt = erase(&running, &["receipts"]).stdout;
    let receipt: Value = serde_json::from_str(&receipt).expect("JSON");
    assert_eq!(
        receipt["quarantine_removed"][0], "quarantine/left.log.0",
        "{receipt}"
    );
    assert!(receipt["windows_erased"].as_u64() > Some(0), "{receipt}");
}

/// The topic's Parquet files as the server lists them: paths.
fn listed_files(running: &Running) -> Vec<String> {
    let (status, list) = running.ask_json(&format!("GET /api/v1/topics/{TOPIC}/files"), "");
    assert_eq!(status, 200, "{list}");
    let files = list["files"].as_array().expect("a list").iter();
    files
        .map(|file| file["url"].as_str().expect("a path").to_owned())
        .collect()
}

/// Takes a file, which is made and kept in the cache then. Gives the status.
fn take_file(running: &Running, path: &str) -> u16 {
    let mut stream = TcpStream::connect(&running.http).expect("it listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        running.http
    )
    .expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    head[9..].parse().expect("a status")
}

/// How many records a replay of the key shows, which asks the key indexes where they are.
fn replayed(running: &Running) -> usize {
    let (status, answer) = running.get(&format!("/api/v1/topics/{TOPIC}/replay?key={KEY}"));
    assert_eq!(status, 200, "{answer}");
    answer.matches(SECRET).count()
}

#[test]
fn neither_key_indexes_nor_parquet_files_for_readers_hold_a_byte_of_what_was_erased() {
    let data = tempfile::tempdir().expect("a directory");
    let running = start(data.path(), &[]);
    // Without a quarter of it a segment still is one that gets a key index.
    create(&running, 2, &[("segment.bytes", "400000")]);
    let sent = produce(&running, Codec::None, 6_400, "indexed");
    let of_key = sent.len() - without_key(&sent).len();
    let key_indexes = || crate::log_tool::files(data.path(), ".kix");
    wait("each partition's first segment gets a key index", || {
        key_indexes().len() >= 2
    });
    let paths = listed_files(&running);
    assert!(paths.len() >= 2, "{paths:?}");
    for path in &paths {
        assert_eq!(take_file(&running, path), 200, "{path}");
    }
    let (old_indexes, cache) = (key_indexes(), data.path().join("cache"));
    let old_files = crate::log_tool::files(&cache, ".parquet");
    for needle in [KEY, SECRET] {
        let found = find(&cache, needle.as_bytes());
        assert!(found.len() >= paths.len(), "the search sees into {found:?}");
    }
    assert_eq!(replayed(&running), of_key);

    assert_eq!(request(&running, &[])["outcome"], "done");
    require_none_left(data.path());
    let left = old_indexes.iter().chain(&old_files);
    let left: Vec<_> = left.filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    for path in &paths {
        assert_eq!(take_file(&running, path), 404, "{path}");
    }
    // What is made anew does not have them either.
    wait("the new segments get key indexes", || {
        key_indexes().len() >= 2
    });
    let paths = listed_files(&running);
    for path in &paths {
        assert_eq!(take_file(&running, path), 200, "{path}");
    }
    let made = find(&cache, b"device-1");
    assert!(made.len() >= paths.len(), "others are there: {made:?}");
    require_none_left(data.path());
    assert_eq!(replayed(&running), 0);
    assert_eq!(consumed(&running), without_key(&sent));
}
