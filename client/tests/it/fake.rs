//! A broker in memory: as much of one as the tests need, with faults on demand. It numbers batches and refuses gaps as
//! Kafka does, so that a client that loses, doubles or reorders is found out.

use bytes::{Bytes, BytesMut};
use client::{Client, ClientConfig, ErrorCode};
use model::batch::{Batch, DecompressLimit, STAMP_BYTES, stamped_head};
use model::{LeaderEpoch, Offset};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use wire::messages::api_versions::{ApiVersion, ApiVersionsResponse};
use wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult,
};
use wire::messages::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use wire::messages::init_producer_id::InitProducerIdResponse;
use wire::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use wire::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use wire::messages::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use wire::{ApiKey, Message, Reader, Records, RequestHeader, Response, frame};

pub const TOPIC: &str = "t";

/// What happens to a request instead of, or beside, being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None: it is answered.
    Answer,
    /// The connection ends, and nothing was done.
    DropBefore,
    /// What was asked for is done, and then the connection ends without an answer.
    DropAfter,
    /// Nothing is done, and every partition of it gets this error.
    Refuse(ErrorCode),
    /// Nothing is ever answered on this connection again.
    Silence,
}

#[derive(Default)]
pub struct State {
    /// Batches by partition.
    pub logs: Vec<Vec<Batch>>,
    producers: HashMap<(i64, usize), Producer>,
    next_producer_id: i64,
    /// For produce and fetch requests, in turn; `Answer` once there is none left.
    pub faults: VecDeque<Fault>,
    pub connections: usize,
    pub requests: Vec<(ApiKey, i16)>,
    /// Answers ApiVersions above this with UNSUPPORTED_VERSION, in version 0.
    pub api_versions_max: i16,
    /// Bytes by which a fetched partition's last batch is cut.
    pub cut_bytes: usize,
    /// The topic's max.message.bytes, which is enforced.
    pub message_bytes_max: usize,
    /// Does not say it when asked.
    pub hides_settings: bool,
    /// The topic is not there any more.
    pub is_deleted: bool,
}

#[derive(Default)]
struct Producer {
    /// First and last number and base offset of the last five batches.
    window: VecDeque<(i32, i32, i64)>,
}

pub struct Fake {
    pub address: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub async fn start(partitions: usize) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State {
            logs: vec![Vec::new(); partitions],
            next_producer_id: 1,
            api_versions_max: 4,
            message_bytes_max: 1 << 20,
            ..Default::default()
        }));
        let server = tokio::spawn(serve(listener, state.clone()));
        Fake {
            address,
            state,
            server,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(&self.address);
        config.retry_backoff = Duration::from_millis(1);
        config.retry_backoff_max = Duration::from_millis(5);
        config
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.config()).await.unwrap()
    }

    /// The values in a partition, in order.
    pub fn values(&self, partition: usize) -> Vec<String> {
        let mut values = Vec::new();
        for batch in &self.state().logs[partition] {
            let mut records = batch.records(DecompressLimit::bytes(1 << 20)).unwrap();
            while let Some(record) = records.next_ref() {
                values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
        values
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        state.lock().unwrap().connections += 1;
        let port = i32::from(stream.local_addr().unwrap().port());
        tokio::spawn(connection(stream, state.clone(), port));
    }
}

async fn connection(mut stream: TcpStream, state: Arc<Mutex<State>>, port: i32) {
    let mut buffer = BytesMut::new();
    loop {
        let request = loop {
            match frame::split(&mut buffer, 1 << 20).unwrap() {
                Some(request) => break request,
                None if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 => return,
                None => {}
            }
        };
        let mut reader = Reader::new(request);
        let header = RequestHeader::decode(&mut reader).unwrap();
        state
            .lock()
            .unwrap()
            .requests
            .push((header.key, header.version));
        let faulty = matches!(header.key, ApiKey::Produce | ApiKey::Fetch);
        let fault = match faulty {
            true => state
                .lock()
                .unwrap()
                .faults
                .pop_front()
                .unwrap_or(Fault::Answer),
            false => Fault::Answer,
        };
        if fault == Fault::DropBefore {
            return;
        }
        if fault == Fault::Silence {
            std::future::pending::<()>().await;
        }
        let answer = state
            .lock()
            .unwrap()
            .answer(&header, &mut reader, fault, port);
        if fault == Fault::DropAfter {
            return;
        }
        let Some(answer) = answer else { continue };
        for piece in answer {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
        }
    }
}

fn decode<M: Message>(reader: &mut Reader, header: &RequestHeader) -> M {
    M::decode(reader, header.version).unwrap()
}

fn framed<R: Response>(header: &RequestHeader, answer: &R) -> Option<Vec<Bytes>> {
    Some(frame::response(header.correlation_id, header.version, answer).unwrap())
}

impl State {
    fn answer(
        &mut self,
        header: &RequestHeader,
        reader: &mut Reader,
        fault: Fault,
        port: i32,
    ) -> Option<Vec<Bytes>> {
        match header.key {
            ApiKey::ApiVersions => self.api_versions(header),
            ApiKey::Metadata => framed(header, &self.metadata(&decode(reader, header), port)),
            ApiKey::InitProducerId => {
                let producer_id = self.next_producer_id;
                self.next_producer_id += 1;
                let answer = InitProducerIdResponse {
                    producer_id,
                    producer_epoch: 0,
                    ..Default::default()
                };
                framed(header, &answer)
            }
            ApiKey::DescribeConfigs => {
                framed(header, &self.describe_configs(decode(reader, header)))
            }
            ApiKey::Produce => {
                let request: ProduceRequest = decode(reader, header);
                let acks = request.acks;
                let answer = self.produce(request, fault);
                if acks == 0 {
                    None
                } else {
                    framed(header, &answer)
                }
            }
            ApiKey::Fetch => framed(header, &self.fetch(&decode(reader, header), fault)),
            ApiKey::ListOffsets => framed(header, &self.list_offsets(&decode(reader, header))),
            other => panic!("{other:?} was not expected"),
        }
    }

    fn api_versions(&self, header: &RequestHeader) -> Option<Vec<Bytes>> {
        let range = |key: ApiKey| ApiVersion {
            api_key: key.code(),
            min_version: key.version_min(),
            max_version: key.version_max(),
        };
        if header.version > self.api_versions_max {
            let error_code = ErrorCode::UnsupportedVersion.code();
            let answer = ApiVersionsResponse {
                error_code,
                ..Default::default()
            };
            return Some(frame::response(header.correlation_id, 0, &answer).unwrap());
        }
        let api_keys = ApiKey::ALL.iter().map(|key| range(*key)).collect();
        framed(
            header,
            &ApiVersionsResponse {
                api_keys,
                ..Default::default()
            },
        )
    }

    fn describe_configs(&self, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
        let entry = DescribeConfigsResourceResult {
            name: "max.message.bytes".into(),
            value: Some(self.message_bytes_max.to_string()),
            ..Default::default()
        };
        let resource = &request.resources[0];
        let result = DescribeConfigsResult {
            error_code: match self.hides_settings {
                true => ErrorCode::TopicAuthorizationFailed.code(),
                false => 0,
            },
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs: vec![entry],
            ..Default::default()
        };
        DescribeConfigsResponse {
            results: vec![result],
            ..Default::default()
        }
    }

    fn metadata(&self, request: &MetadataRequest, port: i32) -> MetadataResponse {
        let partition = |n: usize| MetadataResponsePartition {
            partition_index: i32::try_from(n).unwrap(),
            leader_id: 7,
            replica_nodes: vec![7],
            isr_nodes: vec![7],
            ..Default::default()
        };
        let topic = |name: &str| match name == TOPIC && !self.is_deleted {
            true => MetadataResponseTopic {
                name: Some(name.to_owned()),
                partitions: (0..self.logs.len()).map(partition).collect(),
                ..Default::default()
            },
            false => MetadataResponseTopic {
                name: Some(name.to_owned()),
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                ..Default::default()
            },
        };
        let topics = match &request.topics {
            None => vec![topic(TOPIC)],
            Some(named) => named
                .iter()
                .map(|t| topic(t.name.as_deref().unwrap()))
                .collect(),
        };
        let broker = MetadataResponseBroker {
            node_id: 7,
            host: "127.0.0.1".into(),
            port,
            rack: None,
        };
        MetadataResponse {
            brokers: vec![broker],
            cluster_id: Some("fake".into()),
            controller_id: 7,
            topics,
            ..Default::default()
        }
    }

    fn produce(&mut self, request: ProduceRequest, fault: Fault) -> ProduceResponse {
        let mut responses = Vec::new();
        for topic in request.topic_data {
            let mut partition_responses = Vec::new();
            for partition in topic.partition_data {
                let mut answer = PartitionProduceResponse {
                    index: partition.index,
                    ..Default::default()
                };
                let batch = Batch::parse(partition.records.unwrap().into_bytes()).unwrap();
                let outcome = match fault {
                    Fault::Refuse(code) => Err(code),
                    _ if self.is_deleted => Err(ErrorCode::UnknownTopicOrPartition),
                    _ if batch.bytes().len() > self.message_bytes_max => {
                        Err(ErrorCode::MessageTooLarge)
                    }
                    _ => self.append(usize::try_from(partition.index).unwrap(), batch),
                };
                match outcome {
                    Ok(base_offset) => answer.base_offset = base_offset,
                    Err(code) => answer.error_code = code.code(),
                }
                partition_responses.push(answer);
            }
            responses.push(TopicProduceResponse {
                name: topic.name,
                partition_responses,
                ..Default::default()
            });
        }
        ProduceResponse {
            responses,
            ..Default::default()
        }
    }

    /// Kafka's rules of sequence numbers.
    fn append(&mut self, partition: usize, batch: Batch) -> Result<i64, ErrorCode> {
        let header = batch.header();
        let base = self.logs[partition]
            .last()
            .map_or(Offset::ZERO, |b| b.header().next_offset());
        let base_offset = base.to_wire();
        if header.producer_id >= 0 {
            let producer = self
                .producers
                .entry((header.producer_id, partition))
                .or_default();
            let numbers = (
                header.base_sequence,
                header.base_sequence + header.last_offset_delta,
            );
            if let Some(known) = producer.window.iter().find(|w| (w.0, w.1) == numbers) {
                return Ok(known.2);
            }
            if producer
                .window
                .back()
                .is_some_and(|last| last.1 + 1 != numbers.0)
            {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            if producer.window.is_empty() && numbers.0 != 0 {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            producer
                .window
                .push_back((numbers.0, numbers.1, base_offset));
            if producer.window.len() > 5 {
                producer.window.pop_front();
            }
        }
        let mut stored = BytesMut::from(&stamped_head(&batch, base, LeaderEpoch::new(0))[..]);
        stored.extend_from_slice(&batch.bytes()[STAMP_BYTES..]);
        self.logs[partition].push(Batch::parse(stored.freeze()).unwrap());
        Ok(base_offset)
    }

    fn fetch(&self, request: &FetchRequest, fault: Fault) -> FetchResponse {
        let mut responses = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for asked in &topic.partitions {
                let log = &self.logs[usize::try_from(asked.partition).unwrap()];
                let end = log.last().map_or(0, |b| b.header().next_offset().to_wire());
                let mut data = PartitionData {
                    partition_index: asked.partition,
                    high_watermark: end,
                    log_start_offset: 0,
                    records: Some(Records::EMPTY),
                    ..Default::default()
                };
                let wanted = |b: &&Batch| b.header().next_offset().to_wire() > asked.fetch_offset;
                if let Fault::Refuse(code) = fault {
                    data.error_code = code.code();
                } else if asked.fetch_offset > end {
                    data.error_code = ErrorCode::OffsetOutOfRange.code();
                } else {
                    let mut batches: Vec<Bytes> = log
                        .iter()
                        .filter(wanted)
                        .map(|b| b.bytes().clone())
                        .collect();
                    if batches.len() > 1 {
                        let last = batches.last_mut().unwrap();
                        last.truncate(last.len() - self.cut_bytes.min(last.len()));
                    }
                    data.records = Some(Records::from_slices(batches));
                }
                partitions.push(data);
            }
            responses.push(FetchableTopicResponse {
                topic: topic.topic.clone(),
                partitions,
                ..Default::default()
            });
        }
        FetchResponse {
            responses,
            ..Default::default()
        }
    }

    fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let topic = |t: &wire::messages::list_offsets::ListOffsetsTopic| ListOffsetsTopicResponse {
            name: t.name.clone(),
            partitions: t
                .partitions
                .iter()
                .map(|p| {
                    let log = &self.logs[usize::try_from(p.partition_index).unwrap()];
                    let end = log.last().map_or(0, |b| b.header().next_offset().to_wire());
                    ListOffsetsPartitionResponse {
                        partition_index: p.partition_index,
                        offset: if p.timestamp == -2 { 0 } else { end },
                        ..Default::default()
                    }
                })
                .collect(),
        };
        ListOffsetsResponse {
            topics: request.topics.iter().map(topic).collect(),
            ..Default::default()
        }
    }
}
