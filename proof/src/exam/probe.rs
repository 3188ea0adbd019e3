//! A small blocking client of the exam's own: one connection, one request at a time, and no retries, so that the ledger
//! knows what became of every record.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use model::batch::{self, BatchBuilder, DecompressLimit};
use model::codec::Codec;
use model::{ProducerEpoch, ProducerId, Timestamp};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::delete_topics::DeleteTopicsRequest;
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use wire::messages::sasl_handshake::SaslHandshakeRequest;
use wire::{ErrorCode, Message as _, Reader, Records, Request, RequestHeader};

use super::judge::Seen;
use super::ledger::Payload;

/// A connection to the victim.
pub struct Probe {
    stream: TcpStream,
    correlation_id: i32,
}

/// What came of a produce request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Stored, the first record at this offset.
    Acknowledged(i64),
    /// Refused with this error.
    Refused(ErrorCode),
}

/// An idempotent producer's place in its sequence.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// The first record's number.
    pub next: i32,
}

/// What one fetch brought.
pub struct Fetched {
    /// `None` unless something is wrong.
    pub error: ErrorCode,
    /// The end of what may be read.
    pub high_watermark: i64,
    /// Whole batches.
    pub records: Bytes,
}

impl Probe {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Result<Probe> {
        let parsed: SocketAddr = address
            .parse()
            .with_context(|| format!("not an address: {address}"))?;
        let stream = TcpStream::connect_timeout(&parsed, Duration::from_secs(5))
            .with_context(|| format!("connect to {address}"))?;
        Probe::over(stream)
    }

    /// The same over a connection that stands already.
    pub fn over(stream: TcpStream) -> Result<Probe> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Probe {
            stream,
            correlation_id: 0,
        })
    }

    /// The port at this end, by which a trace of the victim knows the connection.
    pub fn local_port(&self) -> Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }

    /// Sends a request and does not wait. Answers come in the order of requests.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<()> {
        self.correlation_id += 1;
        let header = RequestHeader {
            key: R::KEY,
            version,
            correlation_id: self.correlation_id,
            client_id: Some("exam".to_owned()),
        };
        let pieces = wire::frame::request(&header, request)?;
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let written = self.stream.write_vectored(rest)?;
            ensure!(written > 0, "the connection takes no more");
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    /// Waits for the answer to the oldest request that has none yet.
    pub fn receive<R: Request>(&mut self, version: i16) -> Result<R::Response> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).context("no answer")?;
        let length = wire::frame::check_length(prefix, 256 << 20)?;
        let mut frame = vec![0; length];
        self.stream
            .read_exact(&mut frame)
            .context("half an answer")?;
        let mut reader = Reader::new(frame.into());
        wire::decode_response_header(&mut reader, R::KEY, version)?;
        Ok(R::Response::decode(&mut reader, version)?)
    }

    /// Sends a request and waits for its answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.send(version, request)?;
        self.receive::<R>(version)
    }

    /// Logs in by PLAIN. Answers why not, if it is refused.
    pub fn log_in(&mut self, user: &str, password: &str) -> Result<Option<String>> {
        let mechanism = "PLAIN".to_owned();
        let chosen = self.call(1, &SaslHandshakeRequest { mechanism })?;
        ensure!(chosen.error_code == 0, "the broker offers {chosen:?}");
        let message = format!("\0{user}\0{password}");
        let request = SaslAuthenticateRequest {
            auth_bytes: Bytes::from(message),
        };
        let answer = self.call(2, &request)?;
        let why = format!("{} {:?}", answer.error_code, answer.error_message);
        Ok((answer.error_code != 0).then_some(why))
    }

    /// Creates a topic; an error if it is refused.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let configs = configs
            .iter()
            .map(|(key, value)| CreatableTopicConfig {
                name: (*key).to_owned(),
                value: Some((*value).to_owned()),
            })
            .collect();
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: -1,
            configs,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let response = self.call(5, &request)?;
        let result = response.topics.first().context("no topic in the answer")?;
        let error = ErrorCode::from_code(result.error_code);
        ensure!(
            error == ErrorCode::None,
            "create topic {name}: {} {:?}",
            error.name(),
            result.error_message
        );
        Ok(())
    }

    /// Deletes a topic. Answers the error code.
    pub fn delete_topic(&mut self, name: &str) -> Result<ErrorCode> {
        let request = DeleteTopicsRequest {
            topic_names: vec![name.to_owned()],
            timeout_ms: 30_000,
            ..DeleteTopicsRequest::default()
        };
        let response = self.call(4, &request)?;
        let answer = response
            .responses
            .first()
            .context("no topic in the answer")?;
        Ok(ErrorCode::from_code(answer.error_code))
    }

    /// Deletes the records of a partition before an offset. Gives where it begins then.
    pub fn delete_records(&mut self, topic: &str, partition: i32, before: i64) -> Result<i64> {
        let partition = DeleteRecordsPartition {
            partition_index: partition,
            offset: before,
        };
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: topic.to_owned(),
                partitions: vec![partition],
            }],
            timeout_ms: 30_000,
        };
        let response = self.call(2, &request)?;
        let partition = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first())
            .context("no partition in the answer")?;
        let error = ErrorCode::from_code(partition.error_code);
        ensure!(
            error == ErrorCode::None,
            "delete records of {topic}: {}",
            error.name()
        );
        Ok(partition.low_watermark)
    }

    /// A producer id for an idempotent producer.
    pub fn producer_id(&mut self) -> Result<Sequence> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let response = self.call(4, &request)?;
        let error = ErrorCode::from_code(response.error_code);
        ensure!(error == ErrorCode::None, "no producer id: {}", error.name());
        Ok(Sequence {
            id: response.producer_id,
            epoch: response.producer_epoch,
            next: 0,
        })
    }

    /// Sends one batch and does not wait.
    pub fn send_produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> Result<()> {
        self.send(PRODUCE_VERSION, &produce_request(topic, partition, batch))
    }

    /// Waits for the answer to the oldest batch sent.
    pub fn receive_produce(&mut self) -> Result<Answer> {
        let response = self.receive::<ProduceRequest>(PRODUCE_VERSION)?;
        let partition = response
            .responses
            .first()
            .and_then(|topic| topic.partition_responses.first())
            .context("no partition in the answer")?;
        Ok(match ErrorCode::from_code(partition.error_code) {
            ErrorCode::None => Answer::Acknowledged(partition.base_offset),
            error => Answer::Refused(error),
        })
    }

    /// Sends one batch with `acks=all` and waits. An error means that nobody knows what became of it.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> Result<Answer> {
        self.send_produce(topic, partition, batch)?;
        self.receive_produce()
    }

    /// One fetch from `from` on.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
        bytes_max: i32,
        wait_ms: i32,
    ) -> Result<Fetched> {
        self.send_fetch(topic, partition, from, bytes_max, wait_ms)?;
        self.receive_fetch()
    }

    /// Sends one fetch and does not wait.
    pub fn send_fetch(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
        bytes_max: i32,
        wait_ms: i32,
    ) -> Result<()> {
        let partition = FetchPartition {
            partition,
            fetch_offset: from,
            partition_max_bytes: bytes_max,
            ..FetchPartition::default()
        };
        let request = FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes: bytes_max,
            topics: vec![FetchTopic {
                topic: topic.to_owned(),
                partitions: vec![partition],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        self.send(FETCH_VERSION, &request)
    }

    /// Has the socket take no more than about so many bytes that are not read.
    pub fn takes_at_once(&self, bytes: usize) -> Result<()> {
        Ok(set_socket_recv_buffer_size(&self.stream, bytes)?)
    }

    /// Waits until an answer has begun to come, and takes nothing of it.
    pub fn wait_for_answer(&self) -> Result<()> {
        let count = self.stream.peek(&mut [0])?;
        ensure!(count > 0, "the connection was closed");
        Ok(())
    }

    /// Waits for the answer to the oldest fetch sent.
    pub fn receive_fetch(&mut self) -> Result<Fetched> {
        let response = self.receive::<FetchRequest>(FETCH_VERSION)?;
        let partition = response
            .responses
            .into_iter()
            .next()
            .and_then(|topic| topic.partitions.into_iter().next())
            .context("no partition in the answer")?;
        Ok(Fetched {
            error: ErrorCode::from_code(partition.error_code),
            high_watermark: partition.high_watermark,
            records: partition
                .records
                .map(Records::into_bytes)
                .unwrap_or_default(),
        })
    }

    /// Everything between the start of a partition and its high watermark.
    pub fn read_all(&mut self, topic: &str, partition: i32) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        let mut from = 0;
        let began = Instant::now();
        loop {
            let fetched = self.fetch(topic, partition, from, 8 << 20, 0)?;
            ensure!(
                fetched.error == ErrorCode::None,
                "read {topic}-{partition} at {from}: {}",
                fetched.error.name()
            );
            from = from.max(note_records(fetched.records, from, &mut seen)?);
            if from >= fetched.high_watermark {
                return Ok(seen);
            }
            if began.elapsed() > Duration::from_secs(120) {
                bail!(
                    "reading {topic}-{partition} stays at {from}, below its end {}",
                    fetched.high_watermark
                );
            }
        }
    }

    /// Commits an offset of a group without members. Answers the error code.
    pub fn commit(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<ErrorCode> {
        let partition = OffsetCommitRequestPartition {
            partition_index: partition,
            committed_offset: offset,
            committed_metadata: Some(String::new()),
            ..OffsetCommitRequestPartition::default()
        };
        let request = OffsetCommitRequest {
            group_id: group.to_owned(),
            topics: vec![OffsetCommitRequestTopic {
                name: topic.to_owned(),
                partitions: vec![partition],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let response = self.call(8, &request)?;
        let partition = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first())
            .context("no partition in the answer")?;
        Ok(ErrorCode::from_code(partition.error_code))
    }

    /// The committed offset of a group, -1 if there is none.
    pub fn committed(&mut self, group: &str, topic: &str, partition: i32) -> Result<i64> {
        let request = OffsetFetchRequest {
            group_id: group.to_owned(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: topic.to_owned(),
                partition_indexes: vec![partition],
            }]),
            ..OffsetFetchRequest::default()
        };
        let response = self.call(7, &request)?;
        let partition = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first())
            .context("no partition in the answer")?;
        let error = ErrorCode::from_code(partition.error_code);
        ensure!(
            error == ErrorCode::None,
            "committed offset of {group}: {}",
            error.name()
        );
        Ok(partition.committed_offset)
    }
}

const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;

fn produce_request(topic: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(Records::from_slices(vec![batch])),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// Notes every record from offset `from` on. Answers the offset after the last one.
pub fn note_records(records: Bytes, from: i64, seen: &mut Vec<Seen>) -> Result<i64> {
    note(batch::split(records), from, seen)
}

/// [`note_records`] of a client that looks at no checksum, as librdkafka does by default.
pub fn note_unchecked(records: Bytes, from: i64, seen: &mut Vec<Seen>) -> Result<i64> {
    note(batch::split_unverified(records), from, seen)
}

fn note(batches: batch::Split, from: i64, seen: &mut Vec<Seen>) -> Result<i64> {
    let mut next = from;
    for batch in batches {
        let batch = match batch {
            Ok(batch) => batch,
            Err(batch::BatchError::Truncated { .. }) => break,
            Err(error) => return Err(error).context("a batch that was read"),
        };
        for record in batch.records(DecompressLimit::default())? {
            let record = record?;
            let offset = record.offset.to_wire();
            if offset >= from {
                let key = record.key.unwrap_or_default();
                seen.push(Seen::of(offset, &key, &record.value.unwrap_or_default()));
            }
        }
        next = batch.header().next_offset().to_wire();
    }
    Ok(next)
}

/// A batch of these records.
pub fn batch_of(payloads: &[Payload], codec: Codec, sequence: Option<Sequence>) -> Result<Bytes> {
    let mut builder = BatchBuilder::new(codec);
    if let Some(sequence) = sequence {
        let id = ProducerId::new(sequence.id);
        let epoch = ProducerEpoch::new(sequence.epoch);
        builder.producer(id, epoch, sequence.next);
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let now = Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    for payload in payloads {
        builder.push(now, Some(&payload.key), Some(&payload.value), &[])?;
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exam::ledger::Ledger;
    use crate::exam::random::Random;

    #[test]
    fn what_was_sent_is_what_a_reader_notes() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::create(&directory.path().join("ledger")).unwrap();
        let payloads = ledger.send("t", 0, 5, 40, &mut Random::new(1)).unwrap();
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let batch = batch_of(&payloads, codec, None).unwrap();
            let mut seen = Vec::new();
            assert_eq!(note_records(batch, 2, &mut seen).unwrap(), 5);
            let ids: Vec<u64> = seen.iter().filter_map(|seen| seen.id).collect();
            assert_eq!(ids, [3, 4, 5]);
            assert_eq!(seen[0].digest, ledger.entries()[&3].digest);
        }
    }
}
