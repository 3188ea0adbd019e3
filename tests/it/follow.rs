//! Following over HTTP as a client sees it: events and lines, where to go on, and followers of a server that is killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use client::admin::Admin;
use client::producer::{Producer, ProducerConfig, ProducerRecord};
use client::{Client, ClientConfig};
use model::{Offset, PartitionId, TopicName, TopicPartition};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::binary::{Running, create_topic, serve, tool};
use crate::cleanup_tool::with_readings;

const PATH: &str = "/api/v1/topics/readings/follow";
/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes records, and gives where each of them went.
async fn produce(kafka: &str, first: usize, count: usize) -> Vec<(u64, u64)> {
    let (_here, is_gone) = watch::channel(false);
    produce_until(kafka, first, count, is_gone).await
}

/// Writes records, and gives where each of them went; ends early where the server is gone.
async fn produce_until(
    kafka: &str,
    first: usize,
    count: usize,
    mut is_gone: watch::Receiver<bool>,
) -> Vec<(u64, u64)> {
    let Ok(client) = Client::connect(ClientConfig::new(kafka)).await else {
        return Vec::new();
    };
    let producer = Producer::new(&client, ProducerConfig::default()).expect("a producer");
    let mut acked = Vec::new();
    for number in first..first + count {
        let name = TopicName::parse("readings").expect("a name");
        let value = format!("{{\"number\":{number}}}");
        let record = ProducerRecord::new(name, value).key(format!("device-{}", number % 7));
        let Ok(sent) = producer.send(record).await else {
            break;
        };
        // It does not look for the server again: another one may listen at the address by then.
        let placed = tokio::select! {
            placed = timeout(Duration::from_secs(5), sent.wait()) => placed,
            _ = is_gone.changed() => break,
        };
        let Ok(Ok(placed)) = placed else {
            break;
        };
        acked.push((
            u64::from(placed.partition.partition.get()),
            placed.offset.map_or(0, |it| it.get()),
        ));
    }
    acked
}

/// One event of a stream.
#[derive(Debug, Default)]
struct Event {
    name: String,
    id: String,
    data: String,
}

fn event(text: &str) -> Event {
    let mut event = Event::default();
    for line in text.lines() {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "event" => event.name = value.to_owned(),
            "id" => event.id = value.to_owned(),
            "data" => event.data = value.to_owned(),
            _ => {}
        }
    }
    event
}

/// A connection that follows. HTTP/1.0, so that the body is as it is.
struct Stream {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Stream {
    async fn open(http: &str, query: &str, headers: &str) -> std::io::Result<Stream> {
        let mut socket = TcpStream::connect(http).await?;
        let request = format!("GET {PATH}?{query} HTTP/1.0\r\nHost: {http}\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut stream = Stream {
            socket,
            buffer: Vec::new(),
        };
        let head = stream.until(b"\r\n\r\n").await?;
        assert!(head.contains(" 200 "), "{head}");
        assert!(head.to_lowercase().contains("text/event-stream"), "{head}");
        Ok(stream)
    }

    async fn until(&mut self, mark: &[u8]) -> std::io::Result<String> {
        loop {
            let found = self.buffer.windows(mark.len()).position(|it| it == mark);
            if let Some(at) = found {
                let text: Vec<u8> = self.buffer.drain(..at + mark.len()).collect();
                return Ok(String::from_utf8(text).expect("text"));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next event that says something.
    async fn event(&mut self) -> std::io::Result<Event> {
        loop {
            let event = event(&self.until(b"\n\n").await?);
            if !event.data.is_empty() {
                return Ok(event);
            }
        }
    }
}

/// What one follower was given, over all its connections.
#[derive(Default)]
struct Seen {
    records: Vec<(u64, u64)>,
    gaps: usize,
}

fn place_of(record: &Value) -> (u64, u64) {
    let number = |name: &str| record[name].as_u64().expect("a number");
    (number("partition"), number("offset"))
}

/// Follows wherever the server is, until it has what is wanted: connects again where it was as often as it has to.
async fn follow(
    mut server: watch::Receiver<String>,
    mut wanted: watch::Receiver<Option<usize>>,
    all: Arc<AtomicUsize>,
) -> Seen {
    let mut seen = Seen::default();
    let mut last_id = String::new();
    loop {
        let is_done = |seen: &Seen, wanted: &watch::Receiver<Option<usize>>| {
            wanted
                .borrow()
                .is_some_and(|wanted| seen.records.len() >= wanted)
        };
        if is_done(&seen, &wanted) {
            return seen;
        }
        let http = server.borrow_and_update().clone();
        let headers = match last_id.is_empty() {
            true => String::new(),
            false => format!("Last-Event-ID: {last_id}\r\n"),
        };
        let Ok(mut stream) = Stream::open(&http, "from=earliest", &headers).await else {
            let _ = timeout(Duration::from_millis(50), server.changed()).await;
            continue;
        };
        loop {
            let event = tokio::select! {
                event = stream.event() => event,
                _ = wanted.changed() => {
                    if is_done(&seen, &wanted) {
                        return seen;
                    }
                    continue;
                }
            };
            let Ok(event) = event else {
                break;
            };
            last_id = event.id;
            match event.name.as_str() {
                "" => {
                    let record: Value = serde_json::from_str(&event.data).expect("JSON");
                    seen.records.push(place_of(&record));
                    all.fetch_add(1, Relaxed);
                }
                "gap" => seen.gaps += 1,
                _ => {}
            }
            if is_done(&seen, &wanted) {
                return seen;
            }
        }
    }
}

/// A long poll that waits for nothing: its lines, where to go on, and whether that was all.
fn poll(running: &Running, query: &str) -> (Vec<Value>, String, bool) {
    let path = format!("GET {PATH}?format=ndjson&wait=0s&{query}");
    let (status, answer) = running.ask(&path, "", "");
    assert_eq!(status, 200, "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let header = |name: &str| {
        let value = head.lines().find_map(|line| line.strip_prefix(name));
        value.expect("the header is there").to_owned()
    };
    let lines = body
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let is_all = header("caught-up: ").parse().expect("true or false");
    (lines, header("next-offset: "), is_all)
}

/// All records, by long polls that go on where the one before ended, a few at a time.
fn polled(running: &Running) -> Vec<(u64, u64)> {
    let (mut found, mut query) = (Vec::new(), "from=earliest".to_owned());
    loop {
        let (lines, next, is_all) = poll(running, &format!("max_records=100&{query}"));
        found.extend(lines.iter().map(place_of));
        if is_all {
            return found;
        }
        query = format!("position={next}");
    }
}

/// Each once, in each partition in order.
fn assert_each_once(seen: &Seen, expected: &BTreeSet<(u64, u64)>) {
    assert_eq!(seen.gaps, 0);
    let mut next = std::collections::BTreeMap::new();
    for (partition, offset) in &seen.records {
        let next = next.entry(*partition).or_insert(0);
        assert_eq!(offset, next, "partition {partition}");
        *next += 1;
    }
    assert_eq!(&BTreeSet::from_iter(seen.records.iter().copied()), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_of_a_server_that_is_killed_lose_nothing_and_get_nothing_twice() {
    const FOLLOWERS: usize = 150;
    const KILLS: usize = 3;
    const RECORDS: usize = 120;
    let directory = tempfile::tempdir().expect("a directory");
    let start = || Running::start(&mut serve(directory.path()));
    let mut running = start();
    create_topic(&running, "readings", 3, &[]).await;
    let (server, watch_server) = watch::channel(running.http.clone());
    let (wanted, watch_wanted) = watch::channel(None);
    let all = Arc::new(AtomicUsize::new(0));
    let followers: Vec<_> = (0..FOLLOWERS)
        .map(|_| {
            let follow = follow(watch_server.clone(), watch_wanted.clone(), all.clone());
            tokio::spawn(follow)
        })
        .collect();
    let mut acked = BTreeSet::new();
    for round in 0..KILLS {
        let kafka = running.kafka.clone();
        let before = all.load(Relaxed);
        let (gone, is_gone) = watch::channel(false);
        let producing =
            tokio::spawn(
                async move { produce_until(&kafka, round * RECORDS, RECORDS, is_gone).await },
            );
        // In the midst of it: when the followers have been given a part of it.
        let until = Instant::now() + PATIENCE;
        while all.load(Relaxed) - before < FOLLOWERS * RECORDS / 4 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(running);
        gone.send_replace(true);
        acked.extend(producing.await.expect("it does not panic"));
        running = start();
        server.send_replace(running.http.clone());
    }
    let kafka = running.kafka.clone();
    acked.extend(produce(&kafka, KILLS * RECORDS, RECORDS).await);
    let there: BTreeSet<_> = polled(&running).into_iter().collect();
    let missing: Vec<_> = acked.difference(&there).collect();
    assert!(
        missing.is_empty(),
        "{} there, without {missing:?}",
        there.len()
    );
    assert!(acked.len() > RECORDS, "{}", acked.len());
    wanted.send_replace(Some(there.len()));
    for follower in followers {
        let seen = timeout(PATIENCE, follower).await;
        let seen = seen.expect("it gets all of it").expect("it does not panic");
        assert_each_once(&seen, &there);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_records_their_end_and_gaps() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    create_topic(&running, "readings", 1, &[]).await;
    assert_eq!(produce(&running.kafka, 0, 5).await.len(), 5);
    let mut stream = Stream::open(&running.http, "from=earliest", "")
        .await
        .expect("it follows");
    let mut ids = Vec::new();
    for number in 0..5 {
        let event = stream.event().await.expect("an event");
        let record: Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!(record["offset"], number);
        assert_eq!(record["value"]["number"], number);
        assert_eq!(record["key"], format!("device-{}", number % 7));
        ids.push(event.id);
    }
    let caught_up = stream.event().await.expect("an event");
    assert_eq!(
        (caught_up.name.as_str(), &caught_up.id),
        ("caught-up", &ids[4])
    );
    // What is there when it was caught up comes as it is written.
    assert_eq!(produce(&running.kafka, 5, 1).await.len(), 1);
    let live = stream.event().await.expect("an event");
    assert!(live.data.contains("\"offset\":5"), "{}", live.data);
    // One that goes on after the third record, most of which were removed meanwhile.
    let client = Client::connect(ClientConfig::new(&running.kafka))
        .await
        .expect("a client");
    let partition = TopicPartition {
        topic: TopicName::parse("readings").expect("a name"),
        partition: PartitionId::new(0),
    };
    let admin = Admin::new(&client);
    admin
        .delete_records(&[(partition, Some(Offset::new(5)))])
        .await
        .expect("they are removed");
    let headers = format!("Last-Event-ID: {}\r\n", ids[2]);
    let mut later = Stream::open(&running.http, "from=latest", &headers)
        .await
        .expect("it follows");
    let gap = later.event().await.expect("an event");
    assert_eq!(gap.name, "gap");
    let told: Value = serde_json::from_str(&gap.data).expect("JSON");
    assert_eq!(
        (&told["from"], &told["to"], &told["reason"]),
        (&3.into(), &5.into(), &"removed".into())
    );
    let record = later.event().await.expect("an event");
    assert!(record.data.contains("\"offset\":5"), "{}", record.data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_meant_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    create_topic(&running, "readings", 1, &[]).await;
    for (query, status, code) in [
        ("from=yesteryear", 400, "invalid_query"),
        ("position=17", 400, "invalid_query"),
        ("partition=1", 404, "unknown_partition"),
        ("partition=x", 404, "unknown_partition"),
        ("format=xml", 400, "invalid_query"),
        ("speed=0", 400, "invalid_query"),
        ("speed=-1", 400, "invalid_query"),
        ("wait=1s", 400, "invalid_query"),
        ("format=ndjson&speed=1", 400, "invalid_query"),
        ("format=ndjson&wait=soon", 400, "invalid_query"),
        ("key=a&key_prefix=b", 400, "invalid_query"),
        ("colour=blue", 400, "invalid_query"),
    ] {
        let (got, answer) = running.get(&format!("{PATH}?{query}"));
        assert_eq!(got, status, "{query}: {answer}");
        assert!(
            answer.contains(&format!("\"code\":\"{code}\"")),
            "{query}: {answer}"
        );
    }
    let (status, answer) = running.get("/api/v1/topics/nothing/follow");
    assert_eq!(status, 404, "{answer}");
    assert!(answer.contains("\"code\":\"unknown_topic\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pace_keeps_the_records_order_and_loses_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    create_topic(&running, "readings", 3, &[]).await;
    let acked = produce(&running.kafka, 0, 60).await;
    assert_eq!(acked.len(), 60);
    let query = "from=earliest&speed=1000&max_records=60";
    let mut stream = Stream::open(&running.http, query, "")
        .await
        .expect("it follows");
    let (mut seen, mut times) = (Seen::default(), Vec::new());
    while let Ok(event) = timeout(PATIENCE, stream.event()).await.expect("it goes on") {
        let record: Value = serde_json::from_str(&event.data).expect("JSON");
        seen.records.push(place_of(&record));
        times.push(record["timestamp"].as_str().expect("a time").to_owned());
    }
    assert_each_once(&seen, &acked.into_iter().collect());
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_says_whether_it_gave_all_and_goes_on_behind_what_it_searched() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    create_topic(&running, "readings", 1, &[]).await;
    assert_eq!(produce(&running.kafka, 0, 5).await.len(), 5);
    let (lines, next, is_all) = poll(&running, "from=earliest&max_records=3");
    assert_eq!((lines.len(), is_all), (3, false));
    let (rest, end, is_all) = poll(&running, &format!("position={next}"));
    assert_eq!((rest.len(), is_all), (2, true));
    assert!(end.ends_with("/0:5"), "{end}");
    // Nothing of this key: the next poll need not search all of it again.
    let (none, next, is_all) = poll(&running, "from=earliest&key=nobody");
    assert_eq!((none.len(), next, is_all), (0, end.clone(), true));
    let (none, next, is_all) = poll(&running, &format!("position={end}"));
    assert_eq!((none.len(), next, is_all), (0, end, true));
}

/// What was told of one partition: offsets of records, and those of gaps.
#[derive(Default)]
struct Told {
    records: Vec<u64>,
    gone: BTreeSet<u64>,
}

impl Told {
    /// A record, or a gap's members. Behind neither is anything that was not told of.
    fn put(&mut self, line: &Value) {
        let number = |of: &Value, name: &str| of[name].as_u64().expect("a number");
        match line.get("gap").or(line.get("reason").map(|_| line)) {
            Some(gap) => self.gone.extend(number(gap, "from")..number(gap, "to")),
            None => {
                let offset = number(line, "offset");
                let is_told = |at: &u64| self.gone.contains(at) || self.records.contains(at);
                let silent = (0..offset).find(|at| !is_told(at));
                assert_eq!(silent, None, "nothing was told of it before {offset} came");
                assert!(self.records.last().is_none_or(|last| *last < offset));
                self.records.push(offset);
            }
        }
    }
}

#[test]
fn a_gap_is_told_before_the_records_behind_it_wherever_an_answer_ends() {
    let data = tempfile::tempdir().expect("a directory");
    let settings = [
        "retention.ms=-1",
        "min.cleanable.dirty.ratio=1",
        "cleanup.policy=compact",
    ];
    let running = with_readings(data.path(), &settings);
    let args = ["compact", "run", "readings", "--now", "--wait", "--json"];
    let said = tool(&[&args[..], &["--http", &running.http]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);

    // By polls, whose answers end anywhere.
    for count in [1, 2, 5, 1_000] {
        let (mut told, mut query) = (Told::default(), "from=0".to_owned());
        loop {
            let (lines, next, is_all) = poll(&running, &format!("max_records={count}&{query}"));
            lines.iter().for_each(|line| told.put(line));
            if is_all {
                break;
            }
            query = format!("position={next}");
        }
        assert!(!told.gone.is_empty() && told.records.len() > 5, "{count}");
    }
    // By events, of connections that end behind any of them.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for speed in ["", "&speed=1000000"] {
        let told = runtime.block_on(told_by_events(&running.http, speed));
        assert!(!told.gone.is_empty() && told.records.len() > 5, "{speed}");
    }
    // As the REST proxy: by a header.
    let path = "GET /topics/readings/partitions/0/records?timeout=0&max_bytes=40&offset=";
    let mut told = Told::default();
    loop {
        let next = told.records.last().map_or(0, |last| last + 1);
        let (status, answer) = running.ask(&format!("{path}{next}"), "", "");
        assert_eq!(status, 200, "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        let gaps = head
            .lines()
            .find_map(|it| it.strip_prefix("alluvium-gaps: "));
        for gap in gaps.into_iter().flat_map(|gaps| gaps.split(", ")) {
            let (range, reason) = gap.split_once(' ').expect("two words");
            let (from, last) = range.split_once('-').expect("two offsets");
            let number = |text: &str| text.parse::<u64>().expect("an offset");
            assert_eq!(reason, "cleaned");
            told.gone.extend(number(from)..=number(last));
        }
        let records: Vec<Value> = serde_json::from_str(body).expect("JSON");
        if records.is_empty() {
            break;
        }
        records.iter().for_each(|record| told.put(record));
    }
    assert!(!told.gone.is_empty() && told.records.len() > 5);
}

/// What is told by events, of connections that end behind each record.
async fn told_by_events(http: &str, speed: &str) -> Told {
    let (mut told, mut headers) = (Told::default(), String::new());
    loop {
        let stream = Stream::open(http, &format!("from=0{speed}"), &headers).await;
        let mut stream = stream.expect("it follows");
        loop {
            let event = timeout(PATIENCE, stream.event()).await;
            let event = event.expect("it goes on").expect("an event");
            if event.name == "caught-up" {
                return told;
            }
            told.put(&serde_json::from_str(&event.data).expect("JSON"));
            headers = format!("Last-Event-ID: {}\r\n", event.id);
            if event.name.is_empty() {
                break;
            }
        }
    }
}
