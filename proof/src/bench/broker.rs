//! The broker under measurement, and light clients for it: batches are made once, and sent over and over.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use client::{ClientConfig, Connection};
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::{ErrorCode, Message as _, Reader, Records, Request as _, RequestHeader, frame};

use super::Bench;
use super::pace::SendPiece;
use crate::exam::probe::Probe;
use crate::exam::victim::{Plan, Victim};

/// Bytes of a batch, about.
pub const BATCH_BYTES: usize = 64 << 10;
/// Connections of the load.
pub const CONNECTIONS: usize = 4;
/// Partitions of the load.
pub const PARTITIONS: i32 = 8;
/// Batches under way on each connection.
pub const IN_FLIGHT: usize = 8;
/// The topic of the load.
pub const TOPIC: &str = "bench";

/// The version of produce requests: topics by name.
pub const PRODUCE_VERSION: i16 = 9;
/// The version of fetch requests: topics by name.
pub const FETCH_VERSION: i16 = 12;

/// How a broker is started on `data`.
pub fn plan(bench: &Bench, data: &Path) -> Result<Plan> {
    let plan = Plan::new(&bench.binary, &data.join("data"), data).of_any_build()?;
    Ok(plan.with("log.retention.check.interval.ms", 1000))
}

/// The same, listening for MQTT.
pub fn mqtt_plan(bench: &Bench, data: &Path) -> Result<Plan> {
    Ok(plan(bench, data)?.with("mqtt.listen", "127.0.0.1:0"))
}

/// Its address for MQTT.
pub fn mqtt_address(victim: &Victim) -> Result<String> {
    victim.other("MQTT")
}

/// How many records the partitions of a topic have had: the sum of their high watermarks.
pub fn records_of(victim: &Victim, topic: &str, partitions: i32) -> Result<u64> {
    let mut probe = Probe::connect(&victim.kafka)?;
    let mut records = 0;
    for partition in 0..partitions {
        let fetched = probe.fetch(topic, partition, 0, 1, 0)?;
        let error = fetched.error;
        ensure!(error == ErrorCode::None, "{topic}: {}", error.name());
        records += u64::try_from(fetched.high_watermark)?;
    }
    Ok(records)
}

/// Sees to it that this process, and those that it starts, may have so many descriptors, or as many as there may be. Gives how
/// many that is.
pub fn more_descriptors(wanted: u64) -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.current.map_or(wanted, |current| current.max(wanted));
    let granted = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(granted),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of descriptors")?;
    Ok(granted)
}

/// Creates the load's topic, which keeps about this many bytes in all.
pub fn create_topic(victim: &Victim, bytes_kept: u64) -> Result<()> {
    let partitions = u64::from(PARTITIONS.unsigned_abs());
    let kept = (bytes_kept / partitions).to_string();
    let segment = (bytes_kept / partitions / 4)
        .clamp(16 << 20, 256 << 20)
        .to_string();
    Probe::connect(&victim.kafka)?.create_topic(
        TOPIC,
        PARTITIONS,
        &[("retention.bytes", &kept), ("segment.bytes", &segment)],
    )
}

/// A batch of 1 KiB records, about [`BATCH_BYTES`] long, that does not compress.
pub fn batch() -> Result<Bytes> {
    let mut random = crate::exam::random::Random::new(1);
    let mut builder = BatchBuilder::new(Codec::None);
    let mut value = vec![0; 1010];
    while builder.plain_bytes() + 1030 < BATCH_BYTES {
        random.fill(&mut value);
        builder.push(Timestamp::from_millis(0), None, Some(&value), &[])?;
    }
    Ok(builder.build()?)
}

/// A request with one batch for one partition.
pub fn produce_request(topic: &str, partition: i32, batch: &Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(Records::from_slices(vec![batch.clone()])),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// A lane for each connection; each writes to partitions of its own, in turn.
pub async fn lanes(address: &str) -> Result<Vec<SendPiece>> {
    lanes_of(&ClientConfig::new(address)).await
}

/// The same by connections that are made so.
pub async fn lanes_of(config: &ClientConfig) -> Result<Vec<SendPiece>> {
    let batch = batch()?;
    let mut lanes = Vec::new();
    for index in 0..CONNECTIONS {
        let connection = Connection::open(&config.bootstrap[0], config).await?;
        let requests: Arc<Vec<ProduceRequest>> = Arc::new(
            (0..PARTITIONS)
                .filter(|partition| partition.unsigned_abs() as usize % CONNECTIONS == index)
                .map(|partition| produce_request(TOPIC, partition, &batch))
                .collect(),
        );
        let lane: SendPiece = Arc::new(move |piece| {
            let (connection, requests) = (connection.clone(), requests.clone());
            Box::pin(async move {
                let request = &requests[piece % requests.len()];
                let pending = connection.start(request, PRODUCE_VERSION).await?;
                let acknowledged: super::pace::Boxed<Result<()>> = Box::pin(async move {
                    let response = pending.wait(Duration::from_secs(60)).await?;
                    for topic in &response.responses {
                        for partition in &topic.partition_responses {
                            let error = ErrorCode::from_code(partition.error_code);
                            ensure!(error == ErrorCode::None, "refused: {}", error.name());
                        }
                    }
                    Ok(())
                });
                Ok(acknowledged)
            })
        });
        lanes.push(lane);
    }
    Ok(lanes)
}

/// A runtime for the load, small: the broker needs the cores.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// A fetch of these partitions of a topic, all from one offset, without a session. It does not wait.
pub fn fetch_request(
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
    from: i64,
) -> FetchRequest {
    let partition = |partition| FetchPartition {
        partition,
        fetch_offset: from,
        partition_max_bytes: FETCH_BYTES,
        ..FetchPartition::default()
    };
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: FETCH_BYTES,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: partitions.into_iter().map(partition).collect(),
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// How many bytes of whole batches there are, and the offset behind them. Looks at each batch's head only.
pub fn passed(records: Option<Records>) -> Result<(u64, i64)> {
    let records = records.map(Records::into_bytes).unwrap_or_default();
    let (mut position, mut next) = (0, 0);
    while let Some(length) = model::batch::peek_len(&records[position..])
        .filter(|length| position + length <= records.len())
    {
        let head = model::batch::BatchHeader::parse(&records[position..])?;
        next = head.next_offset().to_wire();
        position += length;
    }
    Ok((position as u64, next))
}

/// Reads whole partitions, one after the other, through one connection and one buffer.
pub struct Replayer {
    stream: TcpStream,
    buffer: Arc<Vec<u8>>,
}

/// Gives the shared buffer to `Bytes` without copying it.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

const FETCH_BYTES: i32 = 1 << 20;

impl Replayer {
    /// Connects.
    pub fn connect(address: &str) -> Result<Replayer> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Replayer {
            stream,
            buffer: Arc::new(vec![0; (FETCH_BYTES as usize) + (1 << 20)]),
        })
    }

    /// Reads a partition from its start to its end, or until so many bytes were read. Answers how many were.
    pub fn replay(&mut self, partition: i32, from: i64, bytes_max: u64) -> Result<(u64, i64)> {
        let (mut bytes, mut next) = (0, from);
        while bytes < bytes_max {
            let response = self.fetch(partition, next)?;
            let found = response
                .responses
                .into_iter()
                .next()
                .and_then(|topic| topic.partitions.into_iter().next())
                .context("no partition in the answer")?;
            let error = ErrorCode::from_code(found.error_code);
            ensure!(error == ErrorCode::None, "fetch: {}", error.name());
            let (read, behind) = passed(found.records)?;
            bytes += read;
            if read > 0 {
                next = behind;
            }
            if next >= found.high_watermark {
                break;
            }
            ensure!(read > 0, "the fetch at {next} brought nothing");
        }
        Ok((bytes, next))
    }

    fn fetch(&mut self, partition: i32, from: i64) -> Result<FetchResponse> {
        self.ask(&fetch_request(TOPIC, [partition], from))
    }

    /// Sends a fetch, and reads its answer.
    pub fn ask(&mut self, request: &FetchRequest) -> Result<FetchResponse> {
        let header = RequestHeader {
            key: FetchRequest::KEY,
            version: FETCH_VERSION,
            correlation_id: 1,
            client_id: None,
        };
        for piece in frame::request(&header, request)? {
            self.stream.write_all(&piece)?;
        }
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length))?;
        let buffer = Arc::get_mut(&mut self.buffer).context("the last answer is still held")?;
        ensure!(length <= buffer.len(), "an answer of {length} bytes");
        self.stream.read_exact(&mut buffer[..length])?;
        let bytes = Bytes::from_owner(Shared(self.buffer.clone())).slice(..length);
        let mut reader = Reader::new(bytes);
        wire::decode_response_header(&mut reader, FetchRequest::KEY, FETCH_VERSION)?;
        Ok(FetchResponse::decode(&mut reader, FETCH_VERSION)?)
    }
}
