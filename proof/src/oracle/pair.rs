//! Pair: Alluvium and Apache Kafka beside each other, asked the same things at the same time.
//! Callers: `scenarios`, `generate`, `oracle::main`.
//! Invariant: whatever one broker answers, the other has answered the same request on a connection with the same history.

use super::compare::{Comparison, Difference};
use super::tree::Tree;
use crate::compat::peer::{Kind, Peer};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::{ApiKey, EncodeError, Message, Reader, Request, RequestHeader, Uuid};
use wire::{decode_response_header, frame};

/// Both control access, and as long as there are no rules everybody may do everything.
const SETTINGS: &[(&str, &str)] = &[
    (
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ),
    ("allow.everyone.if.no.acl.found", "true"),
];

const ANSWER_SECONDS_MAX: u64 = 20;
const WARM_UP_SECONDS_MAX: u64 = 60;
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Alluvium.
    Ours,
    /// Apache Kafka.
    Theirs,
}

/// One thing of each.
#[derive(Clone, Debug, Default)]
pub struct Both<T> {
    /// Alluvium's.
    pub ours: T,
    /// Apache Kafka's.
    pub theirs: T,
}

impl<T> Both<T> {
    /// The one of `side`.
    pub fn of(&self, side: Side) -> &T {
        match side {
            Side::Ours => &self.ours,
            Side::Theirs => &self.theirs,
        }
    }

    /// The same of both.
    pub fn map<U>(&self, each: impl Fn(&T) -> U) -> Both<U> {
        Both {
            ours: each(&self.ours),
            theirs: each(&self.theirs),
        }
    }
}

/// What came back for a request.
enum Outcome<T> {
    Answer(T),
    Closed,
    Late,
    Unreadable(String),
}

impl<T> Outcome<T> {
    fn text(&self) -> String {
        match self {
            Outcome::Answer(_) => "answered".to_owned(),
            Outcome::Closed => "closed the connection".to_owned(),
            Outcome::Late => format!("no answer within {ANSWER_SECONDS_MAX} s"),
            Outcome::Unreadable(why) => format!("cannot be read: {why}"),
        }
    }
}

/// A connection to each of the two.
pub type Line = Both<Connection>;

/// A connection to one broker; opened when it is used, and again after the broker closed it.
#[derive(Default)]
pub struct Connection {
    address: String,
    stream: Option<TcpStream>,
    correlation_id: i32,
    /// Oldest first; what was sent and has not been answered.
    pending: Vec<i32>,
}

impl Connection {
    fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<(), EncodeError> {
        self.correlation_id += 1;
        let header = RequestHeader {
            key: R::KEY,
            version,
            correlation_id: self.correlation_id,
            client_id: Some("oracle".to_owned()),
        };
        let bytes = frame::request(&header, request)?.concat();
        self.pending.push(self.correlation_id);
        if self.stream.is_none() {
            self.stream = TcpStream::connect(&self.address).ok();
        }
        if let Some(stream) = &mut self.stream {
            let timeout = Some(Duration::from_secs(ANSWER_SECONDS_MAX));
            let sent = stream
                .set_nodelay(true)
                .and_then(|()| stream.set_read_timeout(timeout))
                .and_then(|()| stream.write_all(&bytes));
            if sent.is_err() {
                self.stream = None;
            }
        }
        Ok(())
    }

    fn receive<R: Request>(&mut self, version: i16) -> Outcome<R::Response> {
        let expected = self.pending.remove(0);
        let Some(stream) = &mut self.stream else {
            return Outcome::Closed;
        };
        let outcome = match read_frame(stream) {
            Ok(body) => match decode::<R>(body, version, expected) {
                Ok(response) => return Outcome::Answer(response),
                Err(error) => Outcome::Unreadable(error.to_string()),
            },
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Outcome::Late
            }
            Err(_) => Outcome::Closed,
        };
        self.stream = None;
        self.pending.clear();
        outcome
    }
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut prefix = [0; frame::PREFIX_BYTES];
    stream.read_exact(&mut prefix)?;
    let length = frame::check_length(prefix, RESPONSE_BYTES_MAX).map_err(io::Error::other)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Bytes::from(body))
}

fn decode<R: Request>(body: Bytes, version: i16, expected: i32) -> Result<R::Response> {
    let mut reader = Reader::new(body);
    let correlation_id = decode_response_header(&mut reader, R::KEY, version)?;
    ensure!(correlation_id == expected, "an answer to something else");
    let response = R::Response::decode(&mut reader, version)?;
    ensure!(
        reader.remaining() == 0,
        "{} bytes are left over",
        reader.remaining()
    );
    Ok(response)
}

/// A difference, and what was asked.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was asked for.
    pub key: ApiKey,
    /// In which version.
    pub version: i16,
    /// What the scenario was at.
    pub scene: String,
    /// The request, as sent to Alluvium.
    pub request: String,
    /// What differs.
    pub difference: Difference,
}

/// The two brokers.
pub struct Pair {
    comparison: Comparison,
    main: Line,
    addresses: Both<String>,
    /// Versions that both serve.
    versions: HashMap<ApiKey, (i16, i16)>,
    /// What the scenario is at, for findings.
    pub scene: String,
    /// All differences so far.
    pub findings: Vec<Finding>,
    /// Requests sent to both, by key and version.
    pub asked: BTreeMap<(i16, i16), usize>,
    topic_ids: HashMap<String, Both<Uuid>>,
    barrier: u64,
    _peers: Both<Peer>,
}

impl Pair {
    /// Starts both on empty directories in `directory` and waits until both serve everything.
    pub fn start(ours: Kind, theirs: Kind, directory: &Path) -> Result<Pair> {
        let theirs = Peer::start_with(theirs, &directory.join("kafka"), SETTINGS)?;
        let ours = Peer::start_with(ours, &directory.join("alluvium"), SETTINGS)?;
        let addresses = Both {
            ours: ours.address().to_owned(),
            theirs: theirs.address().to_owned(),
        };
        let mut comparison = Comparison::default();
        comparison.ours.port = port(&addresses.ours)?;
        comparison.theirs.port = port(&addresses.theirs)?;
        let mut pair = Pair {
            comparison,
            main: line(&addresses),
            addresses,
            versions: HashMap::new(),
            scene: String::new(),
            findings: Vec::new(),
            asked: BTreeMap::new(),
            topic_ids: HashMap::new(),
            barrier: 0,
            _peers: Both { ours, theirs },
        };
        pair.learn_versions()?;
        super::warm::up(&mut pair, Duration::from_secs(WARM_UP_SECONDS_MAX))?;
        Ok(pair)
    }

    /// A connection of its own.
    pub fn line(&self) -> Line {
        line(&self.addresses)
    }

    /// First and last version that both serve of a key.
    pub fn versions(&self, key: ApiKey) -> Option<(i16, i16)> {
        self.versions.get(&key).copied()
    }

    /// Keys that both serve.
    pub fn keys(&self) -> Vec<ApiKey> {
        let known = |key: &&ApiKey| self.versions.contains_key(key);
        ApiKey::ALL.iter().filter(known).copied().collect()
    }

    /// Asks both on the main connection and compares; their answers if both gave one.
    pub fn ask<R: Request>(
        &mut self,
        version: i16,
        request: impl Fn(Side) -> R,
    ) -> Option<Both<R::Response>> {
        let mut main = std::mem::take(&mut self.main);
        let sent = self.send(&mut main, version, &request);
        let answers = match sent {
            true => self.receive::<R>(&mut main, version, &request(Side::Ours)),
            false => None,
        };
        self.main = main;
        answers
    }

    /// Asks both the same in each version that both serve and that can tell it.
    pub fn ask_each<R: Request>(&mut self, request: impl Fn(Side, i16) -> R) {
        let Some((first, last)) = self.versions(R::KEY) else {
            return;
        };
        for version in first..=last {
            self.ask(version, |side| request(side, version));
        }
    }

    /// Sends to both without waiting. False if the version cannot tell this; then nothing was sent.
    pub fn send<R: Request>(
        &mut self,
        line: &mut Line,
        version: i16,
        request: impl Fn(Side) -> R,
    ) -> bool {
        if line.ours.send(version, &request(Side::Ours)).is_err() {
            return false;
        }
        line.theirs
            .send(version, &request(Side::Theirs))
            .expect("both are told the same");
        *self.asked.entry((R::KEY.code(), version)).or_default() += 1;
        true
    }

    /// Notes that no answer will come to what was sent last.
    pub fn expect_silence(&mut self, line: &mut Line) {
        line.ours.pending.pop();
        line.theirs.pending.pop();
    }

    /// Waits for both answers to what was sent first on this connection, and compares them.
    pub fn receive<R: Request>(
        &mut self,
        line: &mut Line,
        version: i16,
        request: &R,
    ) -> Option<Both<R::Response>> {
        let ours = line.ours.receive::<R>(version);
        let theirs = line.theirs.receive::<R>(version);
        let (found, answers) = match (ours, theirs) {
            (Outcome::Answer(ours), Outcome::Answer(theirs)) => {
                let trees = (Tree::of(&ours), Tree::of(&theirs));
                let (our_tree, their_tree) = (
                    trees.0.expect("messages print as trees"),
                    trees.1.expect("messages print as trees"),
                );
                let found = self.comparison.differences(&our_tree, &their_tree);
                (found, Some(Both { ours, theirs }))
            }
            (Outcome::Closed, Outcome::Closed) => (Vec::new(), None),
            (ours, theirs) => {
                let difference = Difference {
                    path: String::new(),
                    ours: ours.text(),
                    theirs: theirs.text(),
                };
                (vec![difference], None)
            }
        };
        for difference in found {
            self.findings.push(Finding {
                key: R::KEY,
                version,
                scene: self.scene.clone(),
                request: format!("{request:?}"),
                difference,
            });
        }
        answers
    }

    /// Asks one of the two, without comparing.
    pub fn ask_one<R: Request>(
        &mut self,
        side: Side,
        version: i16,
        request: &R,
    ) -> Result<R::Response> {
        let connection = match side {
            Side::Ours => &mut self.main.ours,
            Side::Theirs => &mut self.main.theirs,
        };
        connection.send(version, request)?;
        match connection.receive::<R>(version) {
            Outcome::Answer(response) => Ok(response),
            other => bail!("{side:?}: {} {}", R::KEY.name(), other.text()),
        }
    }

    /// The ids of a topic, nil where it is unknown.
    pub fn topic_id(&mut self, name: &str) -> Result<Both<Uuid>> {
        if let Some(ids) = self.topic_ids.get(name) {
            return Ok(ids.clone());
        }
        let mut ids = Both::default();
        for side in [Side::Ours, Side::Theirs] {
            let request = MetadataRequest {
                topics: Some(vec![MetadataRequestTopic {
                    name: Some(name.to_owned()),
                    ..MetadataRequestTopic::default()
                }]),
                allow_auto_topic_creation: false,
                ..MetadataRequest::default()
            };
            let response = self.ask_one(side, 12, &request)?;
            let topic = response.topics.first().context("one topic was asked for")?;
            match side {
                Side::Ours => ids.ours = topic.topic_id,
                Side::Theirs => ids.theirs = topic.topic_id,
            }
            let epoch = topic.partitions.first().map(|first| first.leader_epoch);
            if let Some(epoch) = epoch {
                match side {
                    Side::Ours => self.comparison.ours.epoch_base = epoch,
                    Side::Theirs => self.comparison.theirs.epoch_base = epoch,
                }
            }
        }
        if ids.ours != Uuid::nil() && ids.theirs != Uuid::nil() {
            self.comparison
                .pair(&ids.ours.to_string(), &ids.theirs.to_string());
            self.topic_ids.insert(name.to_owned(), ids.clone());
        }
        Ok(ids)
    }

    /// Forgets the ids of a topic that was deleted.
    pub fn forget_topic(&mut self, name: &str) {
        self.topic_ids.remove(name);
    }

    /// The leader epoch of each, moved by `by`.
    pub fn epoch(&self, side: Side, by: i32) -> i32 {
        match side {
            Side::Ours => self.comparison.ours.epoch_base + by,
            Side::Theirs => self.comparison.theirs.epoch_base + by,
        }
    }

    /// Waits until all that was changed by now is seen by every part of both brokers: Kafka's controller acknowledges
    /// changes before its broker has applied them. Two marks, as the first may be applied together with what is waited for.
    pub fn settle(&mut self) -> Result<()> {
        for _ in 0..2 {
            self.barrier += 1;
            let value = (604_800_000 + self.barrier).to_string();
            for side in [Side::Ours, Side::Theirs] {
                let answer = self.ask_one(side, 1, &mark(&value))?;
                let code = answer.responses.first().map(|row| row.error_code);
                ensure!(code == Some(0), "{side:?} refuses the mark: {code:?}");
            }
            let deadline = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
            while !self.is_marked(&value)? {
                ensure!(Instant::now() < deadline, "Kafka does not apply a change");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    fn is_marked(&mut self, value: &str) -> Result<bool> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: 2,
                resource_name: super::warm::MARK_TOPIC.to_owned(),
                configuration_keys: Some(vec!["retention.ms".to_owned()]),
            }],
            ..DescribeConfigsRequest::default()
        };
        let response = self.ask_one(Side::Theirs, 4, &request)?;
        let configs = response.results.iter().flat_map(|result| &result.configs);
        Ok(configs
            .into_iter()
            .any(|config| config.value.as_deref() == Some(value)))
    }

    fn learn_versions(&mut self) -> Result<()> {
        let mut listed = Both::<HashMap<i16, (i16, i16)>>::default();
        for side in [Side::Ours, Side::Theirs] {
            let response = self.ask_one(side, 0, &ApiVersionsRequest::default())?;
            let ranges = response
                .api_keys
                .iter()
                .map(|row| (row.api_key, (row.min_version, row.max_version)))
                .collect();
            match side {
                Side::Ours => listed.ours = ranges,
                Side::Theirs => listed.theirs = ranges,
            }
        }
        for key in ApiKey::ALL {
            let both = (listed.ours.get(&key.code()), listed.theirs.get(&key.code()));
            if let (Some(ours), Some(theirs)) = both {
                let first = ours.0.max(theirs.0).max(key.version_min());
                let last = ours.1.min(theirs.1).min(key.version_max());
                if first <= last {
                    self.versions.insert(*key, (first, last));
                }
            }
        }
        Ok(())
    }
}

fn mark(value: &str) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: super::warm::MARK_TOPIC.to_owned(),
            configs: vec![AlterableConfig {
                name: "retention.ms".to_owned(),
                config_operation: 0,
                value: Some(value.to_owned()),
            }],
        }],
        validate_only: false,
    }
}

fn line(addresses: &Both<String>) -> Line {
    addresses.map(|address| Connection {
        address: address.clone(),
        ..Connection::default()
    })
}

fn port(address: &str) -> Result<u16> {
    let (_, port) = address.rsplit_once(':').context("no port")?;
    Ok(port.parse()?)
}
