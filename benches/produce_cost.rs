//! What one produce request costs inside the server: allocations, and threads that are woken for it.
//! `cargo bench -p alluvium --bench produce_cost`.
//!
//! The server runs in this process, with the runtime that `alluvium serve` has. One connection sends one request after the other,
//! each of them made beforehand, and reads the answers into one buffer, so that nothing of the client's is counted. The figures
//! are counts and not times: they say the same on a busy machine.

use std::alloc::System;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use alluvium::config::{Config, Sources};
use bytes::Bytes;
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::{Message, Records, Request, RequestHeader, frame};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TOPIC: &str = "readings";
/// Requests that are counted, after as many that are not.
const REQUESTS: u32 = 2_000;
const PRODUCE_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let (kafka, http) = (free_port(), free_port());
    let flags = [
        ("data.dir", directory.path().display().to_string()),
        ("kafka.listen", kafka.clone()),
        ("http.listen", http),
        // What settles meanwhile is not the request's.
        ("settle.age.ms", "600000".to_owned()),
    ];
    let flags = flags.map(|(key, value)| (key.to_owned(), value));
    let config = Config::load(&Sources {
        flags: flags.to_vec(),
        ..Sources::default()
    });
    let config = config.expect("settings");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let stop = || Ok(async { drop(stopped.await) });
        runtime
            .expect("a runtime")
            .block_on(alluvium::serve::serve(config, None, true, stop))
            .expect("it serves");
    });
    let mut stream = connect(&kafka);
    let mut answer = vec![0; 64 << 10];
    let topic = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: TOPIC.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    };
    ask(
        &mut stream,
        &encoded(&topic, CREATE_TOPICS_VERSION),
        &mut answer,
    );
    println!("for each produce request, counted over {REQUESTS}:");
    for records in [1, 10, 100] {
        let request = encoded(&produce(records), PRODUCE_VERSION);
        let mut ask_all = || {
            for _ in 0..REQUESTS {
                ask(&mut stream, &request, &mut answer);
            }
        };
        ask_all();
        let woken = wakeups();
        let region = Region::new(ALLOCATOR);
        ask_all();
        let counted = region.change();
        let woken: Vec<String> = wakeups()
            .into_iter()
            .map(|(thread, count)| (count - woken.get(&thread).copied().unwrap_or(0), thread))
            .filter(|(count, _)| count * 10 > u64::from(REQUESTS))
            .map(|(count, thread)| format!("{thread} {:.2}", count as f64 / f64::from(REQUESTS)))
            .collect();
        println!(
            "{records} records: {:.1} allocations of {:.0} bytes in all, {:.1} times a block grew; threads woken: {}",
            counted.allocations as f64 / f64::from(REQUESTS),
            counted.bytes_allocated as f64 / f64::from(REQUESTS),
            counted.reallocations as f64 / f64::from(REQUESTS),
            woken.join(", "),
        );
    }
    drop(stream);
    stop.send(()).expect("it still serves");
    server.join().expect("it ends in order");
}

/// An address on which nobody listens.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").to_string()
}

fn connect(address: &str) -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_nodelay(true).expect("a socket");
                return stream;
            }
            Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn produce(records: usize) -> ProduceRequest {
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..records {
        let pushed = builder.push(Timestamp::from_millis(0), None, Some(&[7; 100]), &[]);
        pushed.expect("a small record");
    }
    let batch: Bytes = builder.build().expect("a small batch");
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: TOPIC.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(Records::from_slices(vec![batch])),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

fn encoded<R: Request + Message>(request: &R, version: i16) -> Vec<u8> {
    let header = RequestHeader {
        key: R::KEY,
        version,
        correlation_id: 1,
        client_id: None,
    };
    let pieces = frame::request(&header, request).expect("a request");
    pieces.concat()
}

fn ask(stream: &mut TcpStream, request: &[u8], answer: &mut [u8]) {
    stream.write_all(request).expect("it is sent");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let length = u32::from_be_bytes(length) as usize;
    stream.read_exact(&mut answer[..length]).expect("an answer");
}

/// How often each thread of this process but the client's has waited for something, by the threads' names.
fn wakeups() -> BTreeMap<String, u64> {
    let own = format!("{}", std::process::id());
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/task").expect("Linux") {
        let path = entry.expect("a thread").path();
        if path.ends_with(&own) {
            continue;
        }
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let waits = waits(&path).unwrap_or_default();
        *found.entry(name.trim().to_owned()).or_default() += waits;
    }
    found
}

fn waits(thread: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(thread.join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}
