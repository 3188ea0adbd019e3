//! Case 34: clients within the protocol that ask for as much as they can, or keep as much as they can, each kind beside an honest
//! load. Memory, disk and descriptors have a bound while they are there, and the honest load notices nothing.

mod amqp;
mod mqtt;

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use model::batch::BatchBuilder;
use model::codec::Codec;
use model::{ProducerEpoch, ProducerId, Timestamp};
use wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::describe_groups::DescribeGroupsRequest;
use wire::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use wire::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};

use crate::exam::hostile::Siege;
use crate::exam::probe::{Answer, Probe};
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// What requests and answers may hold, each of the two: the broker's setting.
const QUEUED: u64 = 32 << 20;
/// The longest request, and the longest answer.
const LONGEST: u64 = 16 << 20;
/// How much more than under the honest load alone the broker may hold at any time: both budgets, what reading a request and an
/// answer in the making take beside them, what the allocator keeps, and what clients of MQTT have kept.
const MEMORY_MORE_MAX: u64 = 3 * 2 * QUEUED + 2 * KEPT_BYTES_MAX;
/// How much more when the greedy have been gone for [`LEFT_WAIT`]. What they stored within the settings stays.
const MEMORY_LEFT_MAX: u64 = 2 * QUEUED + 2 * KEPT_BYTES_MAX;
/// Connections end, and what they held is freed, a moment after the last of the greedy went.
const LEFT_WAIT: Duration = Duration::from_secs(10);
/// How much more may lie on the disk after one kind of greed: what it stored within the settings, and the honest load.
const DISK_MORE_MAX: u64 = 512 << 20;
/// Segments that stay open to be read again: the broker's setting.
const SEGMENTS_OPEN_MAX: usize = 32;
/// Files of the write-ahead log that are there beyond those of an idle server while much is written, and for a while after.
const WAL_FILES_MORE: usize = 16;
/// Descriptors that are open afterwards and were not before: those files, and connections that are about to close.
const DESCRIPTORS_MORE_MAX: usize = SEGMENTS_OPEN_MAX + WAL_FILES_MORE + 16;
/// How often a request names the same thing.
const TIMES: usize = 200_000;
/// Connections of one kind of greed.
const CONNECTIONS: usize = 40;
/// What sessions and what retained messages of MQTT may take, each of the two: the broker's settings.
const KEPT_BYTES_MAX: u64 = 16 << 20;
const PARTITIONS: i32 = 2_000;
/// How long a peer may take for an answer: the broker's setting.
const SEND_MAX: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_millis(500);

/// The case.
pub const CASE: Case = Case {
    number: 34,
    name: "greedy",
    about: "clients that store or ask for as much as the protocol lets them, an honest load beside them",
    rounds: Rounds { full: 5, short: 1 },
    run,
};

/// One way to be greedy: its name, the protocol, and what it does to who speaks that at an address. A refusal, or a connection that
/// ends, is a fine answer.
type Greed = (&'static str, Front, fn(&str) -> Result<()>);

/// Who speaks what.
#[derive(Clone, Copy)]
enum Front {
    Kafka,
    Mqtt,
    Amqp,
}

impl Front {
    fn address(self, victim: &Victim) -> Result<String> {
        match self {
            Front::Kafka => Ok(victim.kafka.clone()),
            Front::Mqtt => victim.other("MQTT"),
            Front::Amqp => victim.other("AMQP"),
        }
    }
}

/// One that waits for what the broker's metrics tell.
type WatchedGreed = (&'static str, fn(&Victim) -> Result<()>);

const WATCHED_GREEDS: &[WatchedGreed] = &[
    ("MQTT: half-received packets", mqtt::half_received),
    ("MQTT: messages that nobody takes", mqtt::not_taken),
];

const GREEDS: &[Greed] = &[
    ("names that are repeated", Front::Kafka, repeated),
    ("answers about everything", Front::Kafka, everything),
    ("half-received requests", Front::Kafka, half_received),
    ("answers that nobody takes", Front::Kafka, not_taken),
    ("producers", Front::Kafka, producers),
    ("topics and partitions", Front::Kafka, topics),
    ("settings of topics", Front::Kafka, settings),
    ("committed offsets", Front::Kafka, offsets),
    ("silent connections", Front::Kafka, silent),
    ("MQTT: topic aliases", Front::Mqtt, mqtt::aliases),
    ("MQTT: sessions", Front::Mqtt, mqtt::sessions),
    ("MQTT: wills", Front::Mqtt, mqtt::wills),
    ("MQTT: retained messages", Front::Mqtt, mqtt::retained),
    (
        "MQTT: messages that nobody releases",
        Front::Mqtt,
        mqtt::unreleased,
    ),
    (
        "AMQP: half-received messages",
        Front::Amqp,
        amqp::half_received,
    ),
    (
        "AMQP: sessions and links",
        Front::Amqp,
        amqp::sessions_and_links,
    ),
    ("AMQP: temporary nodes", Front::Amqp, amqp::temporary_nodes),
    (
        "AMQP: messages that nobody takes",
        Front::Amqp,
        amqp::not_taken,
    ),
];

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let data = exam.work.join("data");
    let plan = Plan::new(&exam.binary, &data, &exam.work)
        .with("queued.max.request.bytes", QUEUED + 8)
        .with("queued.max.response.bytes", QUEUED + 8)
        .with("socket.request.max.bytes", LONGEST)
        .with("socket.response.max.bytes", LONGEST)
        .with("response.send.max.ms", SEND_MAX.as_millis())
        .with("producer.ids.per.partition.max", 5000)
        .with("partitions.max", 20_000)
        .with("segments.open.max", SEGMENTS_OPEN_MAX)
        .with("max.connections", 500)
        .with("mqtt.listen", "127.0.0.1:0")
        .with("mqtt.retained.bytes.max", KEPT_BYTES_MAX)
        .with("mqtt.sessions.bytes.max", KEPT_BYTES_MAX)
        .with("amqp.listen", "127.0.0.1:0");
    let siege = Siege::of(exam, &plan)?;
    prepare(&siege.victim)?;
    let before = Held::by(&siege.victim, &data)?;
    for round in 1..=exam.rounds {
        let mut bear = |name: &str, greed: &(dyn Fn() -> Result<()> + Sync)| {
            let disk_before = bytes_below(&data)?;
            let ((), highest) = siege
                .endure(greed)
                .with_context(|| format!("{name}, round {round}"))?;
            let after = Held::settled(&siege.victim, &data, &before)?;
            let mib = |bytes: u64| bytes.saturating_sub(before.memory) >> 20;
            exam.progress(&format!(
                "{name}: {} MiB more at most, {} MiB afterwards, {} MiB on disk, {} descriptors",
                mib(highest),
                mib(after.memory),
                after.disk >> 20,
                after.descriptors
            ));
            outcome.require(highest <= before.memory + MEMORY_MORE_MAX, || {
                format!("{name}: took {} MiB", mib(highest))
            });
            outcome.require(after.memory <= before.memory + MEMORY_LEFT_MAX, || {
                format!("{name}: left {} MiB", mib(after.memory))
            });
            outcome.require(after.disk <= disk_before + DISK_MORE_MAX, || {
                format!("{name}: {} MiB on the disk", after.disk >> 20)
            });
            outcome.require(
                after.descriptors <= before.descriptors + DESCRIPTORS_MORE_MAX,
                || format!("{name}: {} descriptors", after.descriptors),
            );
            outcome.times += 1;
            Ok::<(), anyhow::Error>(())
        };
        for (name, front, greed) in GREEDS {
            let address = front.address(&siege.victim)?;
            bear(name, &|| greed(&address))?;
        }
        for (name, greed) in WATCHED_GREEDS {
            bear(name, &|| greed(&siege.victim))?;
        }
    }
    siege.end(&mut outcome)?;
    Ok(outcome)
}

/// What the broker holds at a moment.
struct Held {
    memory: u64,
    disk: u64,
    descriptors: usize,
}

impl Held {
    /// What is held once that is within the bounds, or after the wait.
    fn settled(victim: &Victim, data: &Path, before: &Held) -> Result<Held> {
        let deadline = Instant::now() + LEFT_WAIT;
        loop {
            let now = Held::by(victim, data)?;
            let is_settled = now.memory <= before.memory + MEMORY_LEFT_MAX
                && now.descriptors <= before.descriptors + DESCRIPTORS_MORE_MAX;
            if is_settled || Instant::now() >= deadline {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn by(victim: &Victim, data: &Path) -> Result<Held> {
        Ok(Held {
            memory: victim.anonymous_bytes()?,
            disk: bytes_below(data)?,
            descriptors: victim.descriptors()?,
        })
    }
}

fn bytes_below(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // Files come and go.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        bytes += match metadata.is_dir() {
            true => bytes_below(&entry.path()).unwrap_or(0),
            false => metadata.len(),
        };
    }
    Ok(bytes)
}

/// What there is to be greedy for: many partitions, and offsets with long texts.
fn prepare(victim: &Victim) -> Result<()> {
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic("wide", PARTITIONS, &[])?;
    commit(&mut probe, "g", 0, 4000)
}

fn commit(probe: &mut Probe, group: &str, from: i32, metadata_bytes: usize) -> Result<()> {
    let partition = |index| OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: 1,
        committed_leader_epoch: -1,
        committed_metadata: Some("m".repeat(metadata_bytes)),
    };
    let request = OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "wide".to_owned(),
            partitions: (from..from + 500).map(partition).collect(),
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    probe.call(8, &request).map(drop)
}

/// One request whose answer, or the end of whose connection, does not matter.
fn ask<R: wire::Request>(address: &str, version: i16, request: &R) -> Result<()> {
    let mut probe = Probe::connect(address)?;
    let _ = probe.call(version, request);
    Ok(())
}

fn repeated(address: &str) -> Result<()> {
    let topics = OffsetFetchRequestTopics {
        name: "wide".to_owned(),
        partition_indexes: vec![0; TIMES],
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: "g".to_owned(),
        topics: Some(vec![topics]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest {
        groups: vec![group],
        ..OffsetFetchRequest::default()
    };
    ask(address, 9, &request)?;
    let groups = vec!["g".to_owned(); TIMES];
    let request = DescribeGroupsRequest {
        groups: groups.clone(),
        ..DescribeGroupsRequest::default()
    };
    ask(address, 5, &request)?;
    let topic = TopicRequest {
        name: "wide".to_owned(),
        partition_indexes: vec![0; TIMES],
    };
    let request = DescribeProducersRequest {
        topics: vec![topic],
    };
    ask(address, 0, &request)?;
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: "wide".to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource; TIMES],
        include_synonyms: true,
        include_documentation: true,
    };
    ask(address, 4, &request)?;
    let topic = MetadataRequestTopic {
        name: Some("wide".to_owned()),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic; TIMES]),
        ..MetadataRequest::default()
    };
    ask(address, 12, &request)?;
    let request = FindCoordinatorRequest {
        coordinator_keys: groups,
        ..FindCoordinatorRequest::default()
    };
    ask(address, 4, &request)?;
    // Each another one, and none of them there.
    let partitions = TopicPartitions {
        topic: "wide".to_owned(),
        partitions: (0..i32::try_from(TIMES)?).collect(),
    };
    let request = ElectLeadersRequest {
        topic_partitions: Some(vec![partitions]),
        timeout_ms: 1000,
        ..ElectLeadersRequest::default()
    };
    ask(address, 2, &request)?;
    let partition = |index| ListOffsetsPartition {
        partition_index: index,
        current_leader_epoch: -1,
        timestamp: 5,
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "wide".to_owned(),
            partitions: (0..i32::try_from(TIMES)?).map(partition).collect(),
        }],
        ..ListOffsetsRequest::default()
    };
    ask(address, 5, &request)
}

/// All offsets of a group and all topics, by many at once who do not read.
fn everything(address: &str) -> Result<()> {
    let group = OffsetFetchRequestGroup {
        group_id: "g".to_owned(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let offsets = OffsetFetchRequest {
        groups: vec![group],
        ..OffsetFetchRequest::default()
    };
    let metadata = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let mut probes = Vec::new();
    for number in 0..CONNECTIONS {
        let mut probe = Probe::connect(address)?;
        match number % 2 {
            0 => probe.send(9, &offsets)?,
            _ => probe.send(12, &metadata)?,
        }
        probes.push(probe);
    }
    for (number, probe) in probes.iter_mut().enumerate() {
        // Those that held what others waited for are closed.
        let _ = match number % 2 {
            0 => probe.receive::<OffsetFetchRequest>(9).map(drop),
            _ => probe.receive::<MetadataRequest>(12).map(drop),
        };
    }
    Ok(())
}

fn half_received(address: &str) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let length = u32::try_from(LONGEST)?;
        // It may be refused, or not be read.
        let _ = stream.write_all(&length.to_be_bytes());
        let _ = stream.write_all(&vec![0; usize::try_from(LONGEST / 2)?]);
        streams.push(stream);
    }
    Ok(())
}

fn not_taken(address: &str) -> Result<()> {
    let mut probe = Probe::connect(address)?;
    let mut builder = BatchBuilder::new(Codec::None);
    let time = Timestamp::from_millis(1_700_000_000_000);
    builder.push(time, None, Some(&vec![b'v'; 900_000]), &[])?;
    let batch = builder.build()?;
    let mut first = None;
    for _ in 0..16 {
        if let Answer::Acknowledged(offset) = probe.produce("wide", 1, batch.clone())? {
            first.get_or_insert(offset);
        }
    }
    let first = first.context("nothing was stored that could be read")?;
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut probe = Probe::connect(address)?;
        probe.send_fetch("wide", 1, first, 16 << 20, 100)?;
        slow.push(probe);
    }
    // What is deleted is held by those who do not read, until they are given up.
    let partition = DeleteRecordsPartition {
        partition_index: 1,
        offset: -1,
    };
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: "wide".to_owned(),
            partitions: vec![partition],
        }],
        timeout_ms: 30_000,
    };
    probe.call(2, &request)?;
    // Longer than a peer may take for an answer.
    thread::sleep(SEND_MAX + Duration::from_secs(1));
    drop(slow);
    Ok(())
}

fn producers(address: &str) -> Result<()> {
    let mut probe = Probe::connect(address)?;
    for first in (0..20_000).step_by(50) {
        for id in first..first + 50 {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.producer(ProducerId::new(1_000_000 + id), ProducerEpoch::new(0), 0);
            let time = Timestamp::from_millis(1_700_000_000_000);
            builder.push(time, None, Some(b"v"), &[])?;
            probe.send_produce("wide", 2, builder.build()?)?;
        }
        for _ in 0..50 {
            probe.receive_produce()?;
        }
    }
    Ok(())
}

fn topics(address: &str) -> Result<()> {
    let mut probe = Probe::connect(address)?;
    let named = |number: usize| format!("greedy-{number}");
    for first in (0..40).step_by(4) {
        let topic = |number| CreatableTopic {
            name: named(number),
            num_partitions: 2000,
            replication_factor: -1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: (first..first + 4).map(topic).collect(),
            timeout_ms: 30_000,
            ..CreateTopicsRequest::default()
        };
        probe.call(7, &request)?;
    }
    let count = probe.call(
        12,
        &MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        },
    )?;
    let partitions: usize = count
        .topics
        .iter()
        .map(|topic| topic.partitions.len())
        .sum();
    ensure!(
        partitions <= 20_000,
        "{partitions} partitions: partitions.max is 20000"
    );
    let request = DeleteTopicsRequest {
        topics: (0..40)
            .map(|number| DeleteTopicState {
                name: Some(named(number)),
                ..DeleteTopicState::default()
            })
            .collect(),
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    probe.call(6, &request).map(drop)
}

fn settings(address: &str) -> Result<()> {
    for number in 0..20 {
        let config = CreatableTopicConfig {
            name: "leader.replication.throttled.replicas".to_owned(),
            value: Some("0:1,".repeat(8000) + "0:1"),
        };
        let topic = CreatableTopic {
            name: format!("set-{number}"),
            num_partitions: 1,
            replication_factor: -1,
            configs: vec![config; 200],
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..CreateTopicsRequest::default()
        };
        ask(address, 7, &request)?;
    }
    Ok(())
}

fn offsets(address: &str) -> Result<()> {
    let mut probe = Probe::connect(address)?;
    for round in 0..4 {
        // The same places again and again: they are kept once.
        commit(&mut probe, "g", 500 * round, 4000)?;
    }
    Ok(())
}

fn silent(address: &str) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(TcpStream::connect(address)?);
    }
    let mut probe = Probe::connect(address)?;
    probe.call(
        12,
        &MetadataRequest {
            topics: Some(Vec::new()),
            ..MetadataRequest::default()
        },
    )?;
    drop(streams);
    Ok(())
}
