//! The server's settings, each turned and seen in what the server then does. Those of the store are turned in `storage`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::admin::{Admin, Committed, NewTopic};
use client::consumer::{Consumer, ConsumerConfig, Start};
use client::{Client, ClientConfig, ErrorCode, Producer, ProducerConfig, ProducerRecord};
use model::batch::{BatchBuilder, Codec, HEADER_BYTES, crc32c};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};

use crate::binary::{Running, serve};
use crate::raw::Raw;

const INVALID_SESSION_TIMEOUT: i16 = 26;
const MEMBER_ID_REQUIRED: i16 = 79;
const GROUP_MAX_SIZE_REACHED: i16 = 81;

/// A server with these settings, and a client of it.
struct Server {
    running: Running,
    client: Client,
    _data: tempfile::TempDir,
}

impl Server {
    async fn with(settings: &[&str]) -> Server {
        let data = tempfile::tempdir().expect("a directory");
        let mut command = serve(data.path());
        for setting in settings {
            command.args(["-X", setting]);
        }
        let running = Running::start(&mut command);
        let client = Client::connect(ClientConfig::new(&running.kafka))
            .await
            .expect("a client");
        Server {
            running,
            client,
            _data: data,
        }
    }

    fn address(&self) -> SocketAddr {
        self.running.kafka.parse().expect("an address")
    }

    fn data(&self) -> &Path {
        self._data.path()
    }

    async fn create(&self, name: &str, configs: &[(&str, &str)]) {
        let configs = configs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let topic = NewTopic {
            name: name.into(),
            partitions: Some(1),
            configs: configs.collect(),
            ..NewTopic::default()
        };
        Admin::new(&self.client)
            .create_topic(topic)
            .await
            .expect("a topic");
    }

    /// Sends each value in a batch of its own.
    async fn produce(&self, topic: &str, values: impl IntoIterator<Item = Vec<u8>>) {
        let producer = Producer::new(&self.client, ProducerConfig::default()).expect("a producer");
        for value in values {
            let record = ProducerRecord::new(TopicName::parse(topic).expect("a name"), value);
            drop(producer.send(record).await.expect("sent"));
            producer.flush().await.expect("delivered");
        }
        producer.close().await.expect("closed");
    }
}

fn first(topic: &str) -> TopicPartition {
    TopicPartition::new(
        TopicName::parse(topic).expect("a name"),
        PartitionId::new(0),
    )
}

/// Looks again and again until it holds; what never holds fails the test.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_on_demand_as_the_settings_say() {
    let server = Server::with(&["num.partitions=5", "node.id=7", "broker.rack=cellar"]).await;
    let topic = server.client.topic("made", true).await.expect("created");
    assert_eq!(topic.partitions.len(), 5);
    let metadata = server.client.metadata();
    assert_eq!(metadata.brokers[&7].rack.as_deref(), Some("cellar"));
    let server = Server::with(&["auto.create.topics.enable=false"]).await;
    let mut client = ClientConfig::new(&server.running.kafka);
    client.retry_timeout = Duration::from_millis(200);
    let client = Client::connect(client).await.expect("a client");
    let error = client
        .topic("made", true)
        .await
        .expect_err("nobody creates it");
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_longest_closes_its_connection() {
    let server = Server::with(&["socket.request.max.bytes=2048"]).await;
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("connected");
    stream
        .write_all(&2049u32.to_be_bytes())
        .await
        .expect("sent");
    let mut rest = Vec::new();
    // Closed with nothing, or reset: never an answer, and never a wait for 2049 bytes.
    let read = stream.read_to_end(&mut rest).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_most_wait_and_idle_ones_end() {
    let server = Server::with(&["max.connections=2"]).await;
    // The client's connection is the first one.
    let mut second = Raw::connect(server.address()).await;
    second.call(0, &ApiVersionsRequest::default()).await;
    let mut third = Raw::connect(server.address()).await;
    third.send(0, &ApiVersionsRequest::default()).await;
    {
        let answer = third.receive::<ApiVersionsRequest>(0);
        let waited = tokio::time::timeout(Duration::from_millis(300), answer).await;
        assert!(waited.is_err(), "it was answered beside two others");
    }
    drop(second);
    let answer = third.receive::<ApiVersionsRequest>(0).await;
    assert_eq!(answer.error_code, 0);
    let server = Server::with(&["connections.max.idle.ms=1000"]).await;
    let mut stream = TcpStream::connect(server.address())
        .await
        .expect("connected");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest));
    ended.await.expect("it is closed").expect("in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_has_no_more_bytes_than_the_server_allows() {
    let counts = async |settings: &[&str]| {
        let server = Server::with(settings).await;
        server.create("t", &[]).await;
        server.produce("t", (0..4).map(|_| vec![b'x'; 1000])).await;
        let mut consumer = Consumer::new(&server.client, ConsumerConfig::default());
        consumer.assign(first("t"), Start::Earliest);
        let fetched = consumer
            .poll(Duration::from_secs(30))
            .await
            .expect("records");
        fetched[0].batches.len()
    };
    assert_eq!(counts(&["fetch.max.bytes=1024"]).await, 1);
    assert_eq!(counts(&[]).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_commits_keep_to_their_bounds() {
    let server = Server::with(&[
        "offset.metadata.max.bytes=3",
        "group.max.size=1",
        "group.min.session.timeout.ms=8000",
        "group.max.session.timeout.ms=20000",
        "group.initial.rebalance.delay.ms=0",
    ])
    .await;
    server.create("t", &[]).await;
    let commit = async |note: &str| {
        let committed = Committed {
            offset: Offset::new(0),
            metadata: note.into(),
        };
        Admin::new(&server.client)
            .commit("g", &[(first("t"), committed)])
            .await
    };
    commit("abc").await.expect("it fits");
    let error = commit("abcd").await.expect_err("too long");
    assert_eq!(error.code(), Some(ErrorCode::OffsetMetadataTooLarge));
    let mut raw = Raw::connect(server.address()).await;
    let join = |member: &str, timeout: i32| JoinGroupRequest {
        group_id: "members".into(),
        session_timeout_ms: timeout,
        rebalance_timeout_ms: 10_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t"),
        }],
        ..JoinGroupRequest::default()
    };
    for timeout in [7999, 20_001] {
        let answer = raw.call(5, &join("", timeout)).await;
        assert_eq!(answer.error_code, INVALID_SESSION_TIMEOUT, "{timeout}");
    }
    let given = raw.call(5, &join("", 8000)).await;
    assert_eq!(given.error_code, MEMBER_ID_REQUIRED);
    let begun = Instant::now();
    let joined = raw.call(5, &join(&given.member_id, 8000)).await;
    assert_eq!(joined.error_code, 0);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "there is no initial delay"
    );
    let second = raw.call(5, &join("", 8000)).await;
    let full = match second.error_code {
        MEMBER_ID_REQUIRED => raw.call(5, &join(&second.member_id, 8000)).await.error_code,
        code => code,
    };
    assert_eq!(full, GROUP_MAX_SIZE_REACHED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_log_has_the_files_that_were_asked_for() {
    let server = Server::with(&[
        "wal.file.bytes=524288",
        "wal.files.min=3",
        "wal.files.max=6",
    ])
    .await;
    let lengths = || -> Vec<u64> {
        let files = std::fs::read_dir(server.data().join("wal")).expect("the log");
        let files = files.map(|file| file.expect("an entry"));
        let wal = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "wal"));
        wal.map(|file| file.metadata().map_or(0, |file| file.len()))
            .collect()
    };
    eventually("files of this length", async || {
        lengths().contains(&524_288)
    })
    .await;
    assert!(lengths().len() <= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_enough_settles_and_what_retention_names_goes() {
    let server = Server::with(&["settle.age.ms=10", "log.retention.check.interval.ms=100"]).await;
    server
        .create(
            "t",
            &[("segment.bytes", "4096"), ("retention.bytes", "8192")],
        )
        .await;
    server.produce("t", (0..30).map(|_| vec![b'x'; 1000])).await;
    let has_settled = async || {
        let partitions = server.data().join("p");
        partitions.is_dir()
            && std::fs::read_dir(partitions).is_ok_and(|mut all| all.next().is_some())
    };
    eventually("something settles", has_settled).await;
    let begins_later = async || {
        let wanted = [(first("t"), client::admin::At::Earliest)];
        let places = Admin::new(&server.client)
            .list_offsets(&wanted)
            .await
            .expect("an answer");
        places[&first("t")].offset > Some(Offset::ZERO)
    };
    eventually("retention removes the oldest", begins_later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_looked_into_where_producers_are_not_trusted() {
    // A batch whose checksum is right, and whose one record says it is longer than the batch.
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .push(Timestamp::from_millis(0), None, Some(b"value"), &[])
        .expect("it fits");
    let mut bytes = builder.build().expect("a batch").to_vec();
    bytes[HEADER_BYTES] = 0x7e;
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let sent = async |settings: &[&str]| {
        let server = Server::with(settings).await;
        server.create("t", &[]).await;
        let config = ProducerConfig {
            idempotent: false,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&server.client, config).expect("a producer");
        let delivery = producer
            .send_batch(&first("t"), bytes.clone().into())
            .await
            .expect("sent");
        delivery.wait().await
    };
    sent(&[])
        .await
        .expect("the header and the checksum are right");
    let error = sent(&["validate.records=true"])
        .await
        .expect_err("it is refused");
    assert!(
        matches!(
            error.code(),
            Some(ErrorCode::InvalidRecord | ErrorCode::CorruptMessage)
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_is_listed_with_name_address_and_bytes() {
    let server = Server::with(&[]).await;
    server.create("t", &[]).await;
    server.produce("t", [vec![7; 5_000]]).await;
    let (status, answer) = server.running.get("/connections");
    assert_eq!(status, 200);
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let page: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let shown = page["connections"].as_array().expect("a list");
    assert_eq!(page["open"].as_u64(), Some(shown.len() as u64));
    // The busiest comes first: the one that produced.
    let busiest = &shown[0];
    assert!(busiest["received_bytes"].as_u64() > Some(5_000), "{page}");
    assert!(
        busiest["received_bytes_per_second"].as_u64() > Some(100),
        "{page}"
    );
    let address = busiest["address"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let expected = ClientConfig::new(&server.running.kafka).client_id;
    assert_eq!(busiest["client_id"].as_str(), Some(expected.as_str()));
    drop(server.client);
    let running = &server.running;
    let gone = async || running.get("/connections").1.contains("\"open\":0");
    eventually("a connection that ended is listed", gone).await;
}
