//! Concurrent clients of the real process, which is killed with SIGKILL in the middle and started again: what they were told
//! must be what one list of records, and one register for each committed offset, can answer.
//!
//! `HISTORIES=50 cargo test --test it linearizable` runs longer; `FIRST_SEED` moves the start. A seed gives what is asked; when
//! the kill comes among it is the machine's, so that a history that fails is printed whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::{ClientConfig, Connection};
use model::Timestamp;
use model::batch::{BatchBuilder, split};
use model::codec::Codec;
use rustix::process::Signal;
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic,
};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::{ErrorCode, Request};

use crate::binary::{Running, serve};
use crate::history::{Operation, Outcome, Record, Recorder, Violation, What, check};

/// Histories in a plain test run.
const HISTORIES_DEFAULT: u64 = 3;
/// How often the process is killed in one history.
const KILLS: u64 = 3;
const CLIENTS: u64 = 7;
const TOPIC: &str = "history";
const GROUP: &str = "readers";
/// The last versions that name topics and not their ids.
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
const COMMIT_VERSION: i16 = 8;
/// The last version that asks for one group.
const COMMITTED_VERSION: i16 = 7;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_with_kills_are_linearizable() {
    let setting =
        |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let histories: u64 = setting("HISTORIES", HISTORIES_DEFAULT);
    let first: u64 = setting("FIRST_SEED", 1);
    let (mut operations, mut records) = (0, 0);
    for seed in first..first + histories {
        let history = run(seed).await;
        operations += history.len();
        records += history.iter().map(shown).sum::<usize>();
        if let Err(Violation(reason)) = check(&history) {
            let lines: String = history.iter().map(|line| format!("{line:?}\n")).collect();
            panic!("FIRST_SEED={seed} HISTORIES=1: {reason}\n{lines}");
        }
    }
    println!(
        "linearizable: {histories} histories with {} kills under seeds {first}..{}, {operations} operations, {records} records shown, no violation",
        histories * KILLS,
        first + histories
    );
    assert!(records > 0, "the readers must see something");
}

fn shown(operation: &Operation) -> usize {
    match &operation.what {
        What::Read { found, .. } => found.len(),
        _ => 0,
    }
}

/// What all clients of one history share.
struct Book {
    recorder: Recorder,
    values: AtomicU64,
    commits: AtomicU64,
}

async fn run(seed: u64) -> Vec<Operation> {
    let mut random = Random(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let book = Arc::new(Book {
        recorder: Recorder::default(),
        values: AtomicU64::new(0),
        commits: AtomicU64::new(1),
    });
    for life in 0..KILLS {
        let running = start(directory.path());
        if life == 0 {
            create_topic(&running.kafka).await;
        }
        let mut clients = Vec::new();
        for role in 0..CLIENTS {
            let seed = random.next();
            let mut client = Client::connect(&running.kafka, &book, seed).await;
            clients.push(tokio::spawn(async move {
                // Until the kill: then nothing is answered any more.
                while client.act(role).await.is_some() {}
            }));
        }
        let time = Duration::from_millis(20 + random.below(150));
        let killed = tokio::task::spawn_blocking(move || {
            std::thread::sleep(time);
            running.end(Signal::KILL)
        });
        killed.await.expect("it is killed");
        for client in clients {
            client.await.expect("a client does not panic");
        }
    }
    let running = start(directory.path());
    let mut last = Client::connect(&running.kafka, &book, random.next()).await;
    last.look_at_all().await.expect("nobody kills it");
    book.recorder.history()
}

fn start(directory: &std::path::Path) -> Running {
    Running::start(serve(directory).args(["-X", "settle.age.ms=10"]))
}

async fn create_topic(address: &str) {
    let connection = Connection::open(address, &ClientConfig::new(address)).await;
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: TOPIC.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let connection = connection.expect("it listens");
    let answer = connection.call(&request).await.expect("it answers");
    assert_eq!(answer.topics[0].error_code, 0);
}

/// One client, on a connection of its own.
struct Client {
    book: Arc<Book>,
    connection: Connection,
    random: Random,
}

impl Client {
    async fn connect(address: &str, book: &Arc<Book>, seed: u64) -> Client {
        let mut config = ClientConfig::new(address);
        config.request_timeout = Duration::from_secs(30);
        Client {
            book: Arc::clone(book),
            connection: Connection::open(address, &config)
                .await
                .expect("it listens"),
            random: Random(seed),
        }
    }

    /// One operation. None once the broker is gone.
    async fn act(&mut self, role: u64) -> Option<()> {
        match (role, self.random.below(4)) {
            (0..=2, _) => self.produce().await,
            (3, _) => self.read_somewhere().await,
            (4, 0) => self.bounds(EARLIEST).await.map(drop),
            (4, 1) => self.bounds(LATEST).await.map(drop),
            (4, _) => self.seek_time().await,
            (5, 0) => self.delete_records().await,
            (5, _) => self.read_somewhere().await,
            (_, 0 | 1) => self.commit().await,
            _ => self.committed().await,
        }
    }

    /// None if no answer came.
    async fn call<R: Request>(&self, request: &R, version_max: i16) -> Option<R::Response> {
        let pending = self.connection.start(request, version_max).await.ok()?;
        pending.wait(Duration::from_secs(1)).await.ok()
    }

    async fn produce(&mut self) -> Option<()> {
        let mut builder = BatchBuilder::new(Codec::None);
        let mut records = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let value = self.book.values.fetch_add(1, Ordering::Relaxed);
            let time = self.random.below(50) as i64;
            let mut bytes = value.to_be_bytes().to_vec();
            bytes.resize(8 + self.random.below(300) as usize, 0);
            let at = Timestamp::from_millis(time);
            builder
                .push(at, None, Some(&bytes), &[])
                .expect("small records");
            records.push(Record { value, time });
        }
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![TopicProduceData {
                name: TOPIC.to_owned(),
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(builder.build().expect("a small batch").into()),
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let invoked = self.book.recorder.begin();
        let answer = self.call(&request, PRODUCE_VERSION).await;
        let partition = answer.map(|answer| answer.responses[0].partition_responses[0].clone());
        let base = match &partition {
            Some(partition) if partition.error_code == 0 => {
                Outcome::Done(partition.base_offset as u64)
            }
            _ => Outcome::Unknown,
        };
        self.book
            .recorder
            .end(invoked, What::Produce { records, base });
        partition.map(drop)
    }

    async fn read_somewhere(&mut self) -> Option<()> {
        let start = self.bounds(EARLIEST).await?;
        let end = self.bounds(LATEST).await?.max(start);
        let from = match self.random.below(4) {
            0 => start,
            1 => end,
            2 => start.saturating_sub(self.random.below(4)),
            _ => start + self.random.below(end - start + 1),
        };
        let max_bytes = 1 + self.random.below(4_000) as i32;
        self.read(from, max_bytes).await.map(drop)
    }

    /// Reads once. Gives where to read on.
    async fn read(&mut self, from: u64, max_bytes: i32) -> Option<u64> {
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: self.random.below(20) as i32,
            min_bytes: 1,
            max_bytes,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: TOPIC.to_owned(),
                partitions: vec![FetchPartition {
                    partition: 0,
                    current_leader_epoch: -1,
                    fetch_offset: from as i64,
                    last_fetched_epoch: -1,
                    log_start_offset: -1,
                    partition_max_bytes: max_bytes,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let invoked = self.book.recorder.begin();
        let answer = self.call(&request, FETCH_VERSION).await?;
        let partition = answer.responses[0].partitions[0].clone();
        let recorder = &self.book.recorder;
        if partition.error_code == ErrorCode::OffsetOutOfRange.code() {
            recorder.end(invoked, What::BelowStart { from });
            return Some(from);
        }
        assert_eq!(partition.error_code, 0, "offset {from}");
        let bytes = partition.records.unwrap_or_default().into_bytes();
        let found = records_from(from, bytes);
        let next = found.last().map_or(from, |(last, _)| last + 1);
        let end = Some(partition.high_watermark as u64);
        recorder.end(invoked, What::Read { from, found, end });
        Some(next)
    }

    async fn list_offsets(&self, timestamp: i64) -> Option<ListOffsetsPartitionResponse> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: TOPIC.to_owned(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: 0,
                    current_leader_epoch: -1,
                    timestamp,
                }],
            }],
            ..Default::default()
        };
        let answer = self.call(&request, i16::MAX).await?;
        let partition = answer.topics[0].partitions[0].clone();
        assert_eq!(partition.error_code, 0);
        Some(partition)
    }

    async fn bounds(&mut self, which: i64) -> Option<u64> {
        let invoked = self.book.recorder.begin();
        let offset = self.list_offsets(which).await?.offset as u64;
        let (start, end) = match which {
            EARLIEST => (Some(offset), None),
            _ => (None, Some(offset)),
        };
        self.book.recorder.end(invoked, What::Bounds { start, end });
        Some(offset)
    }

    async fn seek_time(&mut self) -> Option<()> {
        let wanted = self.random.below(55) as i64;
        let invoked = self.book.recorder.begin();
        let answer = self.list_offsets(wanted).await?;
        let found = (answer.offset >= 0).then_some((answer.offset as u64, answer.timestamp));
        self.book
            .recorder
            .end(invoked, What::SeekTime { wanted, found });
        Some(())
    }

    async fn delete_records(&mut self) -> Option<()> {
        let start = self.bounds(EARLIEST).await?;
        let end = self.bounds(LATEST).await?.max(start);
        let before = start + self.random.below((end - start) / 3 + 1);
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: TOPIC.to_owned(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: 0,
                    offset: before as i64,
                }],
            }],
            timeout_ms: 10_000,
        };
        let invoked = self.book.recorder.begin();
        let answer = self.call(&request, i16::MAX).await;
        let code = answer.map(|answer| answer.topics[0].partitions[0].error_code);
        let outcome = outcome_of(code);
        self.book
            .recorder
            .end(invoked, What::DeleteRecords { before, outcome });
        code.map(drop)
    }

    async fn commit(&mut self) -> Option<()> {
        let offset = self.book.commits.fetch_add(1, Ordering::Relaxed);
        let request = OffsetCommitRequest {
            group_id: GROUP.to_owned(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: TOPIC.to_owned(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: offset as i64,
                    committed_leader_epoch: -1,
                    committed_metadata: None,
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let invoked = self.book.recorder.begin();
        let answer = self.call(&request, COMMIT_VERSION).await;
        let code = answer.map(|answer| answer.topics[0].partitions[0].error_code);
        let (group, outcome) = (1, outcome_of(code));
        let what = What::Commit {
            group,
            offset,
            outcome,
        };
        self.book.recorder.end(invoked, what);
        code.map(drop)
    }

    async fn committed(&mut self) -> Option<()> {
        let request = OffsetFetchRequest {
            group_id: GROUP.to_owned(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: TOPIC.to_owned(),
                partition_indexes: vec![0],
            }]),
            ..Default::default()
        };
        let invoked = self.book.recorder.begin();
        let answer = self.call(&request, COMMITTED_VERSION).await?;
        assert_eq!(answer.error_code, 0);
        let partition = &answer.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let offset = u64::try_from(partition.committed_offset).ok();
        let what = What::Committed { group: 1, offset };
        self.book.recorder.end(invoked, what);
        Some(())
    }

    /// After the last start: every record that is there, searches by time, and the committed offset.
    async fn look_at_all(&mut self) -> Option<()> {
        let mut from = self.bounds(EARLIEST).await?;
        let end = self.bounds(LATEST).await?;
        while from < end {
            let next = self.read(from, 2_000).await?;
            assert!(next > from, "it stands still at {from}");
            from = next;
        }
        for _ in 0..10 {
            self.seek_time().await?;
        }
        self.committed().await
    }
}

fn outcome_of(code: Option<i16>) -> Outcome<()> {
    match code {
        Some(0) => Outcome::Done(()),
        _ => Outcome::Unknown,
    }
}

fn records_from(from: u64, bytes: Bytes) -> Vec<(u64, Record)> {
    let mut records = Vec::new();
    for batch in split(bytes) {
        let batch = batch.expect("a whole batch");
        for record in batch.records(Default::default()).expect("records") {
            let record = record.expect("a record");
            let value = record.value.expect("a value");
            let value = u64::from_be_bytes(*value.first_chunk().expect("eight bytes"));
            let time = record.timestamp.millis();
            if record.offset.get() >= from {
                records.push((record.offset.get(), Record { value, time }));
            }
        }
    }
    records
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
