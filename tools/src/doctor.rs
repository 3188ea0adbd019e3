//! `doctor`: the cluster as a client on this machine sees it, step by step, and what to do where a step fails.
//!
//! A client connects to a bootstrap address, learns from it where the brokers are, and from then on uses those advertised
//! addresses only. Most clusters that "cannot be reached" fail at the second step: so each step is told apart here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use client::{ClientConfig, Connection, Error};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::ApiKey;
use wire::messages::metadata::{MetadataRequest, MetadataResponse};

use crate::output::{counted, say};

/// Metadata by topic id came with 12; names serve us.
const METADATA_VERSION_MAX: i16 = 12;
/// How many round trips are timed.
const ROUND_TRIPS: usize = 5;
/// Whoever lacks one of these cannot serve producers and consumers.
const NEEDED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
];

/// Check that brokers can be reached from here, and that what they advertise can be too.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// How long to wait for each connection and answer, in milliseconds
    #[arg(long, default_value_t = 5000, value_name = "MS")]
    timeout_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// What one step found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    verdict: Verdict,
    /// What was looked at.
    what: String,
    /// What was found.
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

fn ok(what: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding {
        verdict: Verdict::Ok,
        what: what.into(),
        found: found.into(),
        advice: None,
    }
}

fn wrong(
    verdict: Verdict,
    what: impl Into<String>,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding {
        verdict,
        what: what.into(),
        found: found.into(),
        advice: Some(advice.into()),
    }
}

/// Runs the command, for a client of this configuration.
pub async fn run(args: DoctorArgs, mut config: ClientConfig, json: bool) -> Result<ExitCode> {
    config.connect_timeout = Duration::from_millis(args.timeout_ms);
    config.request_timeout = config.connect_timeout;
    let mut doctor = Doctor {
        config,
        findings: Vec::new(),
        told: !json,
    };
    let is_reachable = doctor.examine().await;
    let failed = doctor.count(Verdict::Failed);
    let warnings = doctor.count(Verdict::Warning);
    if json {
        let value = serde_json::json!({
            "healthy": failed == 0, "failed": failed, "warnings": warnings, "findings": doctor.findings,
        });
        say!("{value:#}");
    } else if failed == 0 {
        say!("\nClients on this machine can use these brokers.");
    } else {
        say!(
            "\nClients on this machine cannot use these brokers as they are: see the advice above."
        );
    }
    Ok(match (failed, is_reachable) {
        (0, _) => ExitCode::SUCCESS,
        (_, true) => ExitCode::FAILURE,
        (_, false) => ExitCode::from(4),
    })
}

struct Doctor {
    config: ClientConfig,
    findings: Vec<Finding>,
    /// Findings are printed as they come.
    told: bool,
}

/// A bootstrap address that answered.
struct Answered {
    /// Where the connection really went.
    peer: IpAddr,
    metadata: MetadataResponse,
}

impl Doctor {
    fn count(&self, verdict: Verdict) -> usize {
        let same = |finding: &&Finding| finding.verdict == verdict;
        self.findings.iter().filter(same).count()
    }

    fn note(&mut self, finding: Finding) {
        if self.told {
            let mark = match finding.verdict {
                Verdict::Ok => "ok     ",
                Verdict::Warning => "warning",
                Verdict::Failed => "FAILED ",
            };
            say!("{mark}  {}: {}", finding.what, finding.found);
            if let Some(advice) = &finding.advice {
                say!("         -> {advice}");
            }
        }
        self.findings.push(finding);
    }

    /// Whether any broker could be talked to.
    async fn examine(&mut self) -> bool {
        let mut first = None;
        for address in self.config.bootstrap.clone() {
            let answered = self.bootstrap(&address).await;
            first = first.or(answered);
        }
        let Some(answered) = first else {
            return false;
        };
        self.cluster(&answered);
        let cluster_id = answered.metadata.cluster_id.clone();
        for broker in answered.metadata.brokers.clone() {
            let (host, port) = (broker.host, broker.port);
            let what = format!("broker {} at {host}:{port}", broker.node_id);
            self.advertised(&what, &host, port, answered.peer, cluster_id.as_deref())
                .await;
        }
        true
    }

    /// Follows a client's first steps; None if one of them fails.
    async fn bootstrap(&mut self, address: &str) -> Option<Answered> {
        let what = format!("bootstrap {address}");
        let (stream, peer) = match self.connect(address).await {
            Ok(connected) => connected,
            Err(finding) => {
                self.note(Finding { what, ..finding });
                return None;
            }
        };
        drop(stream);
        let connection = match self.speak(&what, address).await {
            Ok(connection) => connection,
            Err(finding) => {
                self.note(finding);
                return None;
            }
        };
        match ask(&connection).await {
            Ok((metadata, took)) => {
                let found = format!("speaks Kafka's protocol, answers within {took:.1?}");
                self.note(ok(&what, found));
                self.versions(&what, &connection);
                Some(Answered {
                    peer: peer.ip(),
                    metadata,
                })
            }
            Err(error) => {
                let advice = "the server's log says why";
                let found = format!("does not answer Metadata: {error}");
                self.note(wrong(Verdict::Failed, &what, found, advice));
                None
            }
        }
    }

    /// Resolves and connects. The finding tells what failed.
    async fn connect(&self, address: &str) -> Result<(TcpStream, SocketAddr), Finding> {
        let failed =
            |found: String, advice: String| Err(wrong(Verdict::Failed, address, found, advice));
        let Some((host, port)) = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
        else {
            return failed(
                "no port".into(),
                format!("write host:port, as {address}:9092"),
            );
        };
        if port.parse::<u16>().is_ok_and(|port| port > 0) {
        } else {
            return failed(
                format!("{port:?} is no port"),
                "write host:port, with a port from 1 to 65535".into(),
            );
        }
        let resolved: Vec<SocketAddr> = match timeout(
            self.config.connect_timeout,
            tokio::net::lookup_host(address),
        )
        .await
        {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => {
                let advice = format!(
                    "the name {host} means nothing on this machine: use a name that is in DNS or /etc/hosts here, or an IP address"
                );
                return failed(format!("cannot be resolved: {error}"), advice);
            }
            Err(_) => {
                return failed(
                    "cannot be resolved: the name server does not answer".into(),
                    "use an IP address, or mend the name service".into(),
                );
            }
        };
        let mut last = None;
        for address in &resolved {
            match timeout(self.config.connect_timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((stream, *address)),
                Ok(Err(error)) => {
                    last = Some((
                        format!("{address}: {error}"),
                        refusal_advice(&error, *address),
                    ))
                }
                Err(_) => {
                    let advice = "a firewall drops the packets, or no machine has this address: check both on the way from here";
                    last = Some((format!("{address}: no answer"), advice.to_owned()));
                }
            }
        }
        let (found, advice) =
            last.unwrap_or_else(|| ("the name has no address".into(), "use another name".into()));
        failed(found, advice)
    }

    /// Opens a connection of the protocol, to an address that takes connections.
    async fn speak(&self, what: &str, address: &str) -> Result<Connection, Finding> {
        let error = match Connection::open(address, &self.config).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let (found, advice) = match self.speaks_http(address).await {
            true => (
                "it speaks HTTP, not Kafka's protocol".to_owned(),
                "use the address after `kafka=` in the server's ready line; this one is for HTTP"
                    .to_owned(),
            ),
            false => (
                format!("takes connections, but does not speak Kafka's protocol: {error}"),
                "another program listens there, or the server wants TLS: check the port".to_owned(),
            ),
        };
        Err(wrong(Verdict::Failed, what, found, advice))
    }

    async fn speaks_http(&self, address: &str) -> bool {
        let talk = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut head = [0; 5];
            stream.read_exact(&mut head).await?;
            Ok::<bool, std::io::Error>(&head == b"HTTP/")
        };
        matches!(
            timeout(self.config.connect_timeout, talk).await,
            Ok(Ok(true))
        )
    }

    fn versions(&mut self, what: &str, connection: &Connection) {
        let versions = connection.versions();
        let lacking: Vec<String> = NEEDED
            .iter()
            .filter(|key| !versions.contains_key(&key.code()))
            .map(|key| format!("{key:?}"))
            .collect();
        if !lacking.is_empty() {
            let found = format!("does not offer {}", lacking.join(", "));
            let advice = "this is no broker for producers and consumers: ask another one";
            self.note(wrong(Verdict::Failed, what, found, advice));
        }
    }

    fn cluster(&mut self, answered: &Answered) {
        let metadata = &answered.metadata;
        let id = metadata.cluster_id.as_deref().unwrap_or("without an id");
        let what = format!("cluster {id}");
        if metadata.brokers.is_empty() {
            let advice = "the cluster is only just starting, or has lost its brokers: try again, and look into its logs";
            self.note(wrong(Verdict::Failed, what, "lists no brokers", advice));
            return;
        }
        let mut leaderless: BTreeMap<&str, usize> = BTreeMap::new();
        let mut partitions = 0;
        for topic in &metadata.topics {
            partitions += topic.partitions.len();
            let without = topic
                .partitions
                .iter()
                .filter(|one| one.leader_id < 0)
                .count();
            if without > 0 {
                leaderless.insert(topic.name.as_deref().unwrap_or_default(), without);
            }
        }
        let brokers = metadata.brokers.len();
        let found = format!(
            "{}, {}, {}",
            counted(brokers, "broker"),
            counted(metadata.topics.len(), "topic"),
            counted(partitions, "partition")
        );
        self.note(ok(&what, found));
        if !leaderless.is_empty() {
            let named: Vec<String> = leaderless
                .iter()
                .map(|(name, count)| format!("{name} ({count})"))
                .collect();
            let found = format!("partitions without a leader: {}", named.join(", "));
            let advice = "their broker is down: nothing can be written to them or read from them until it is back";
            self.note(wrong(Verdict::Warning, &what, found, advice));
        }
    }

    /// What clients use after the first step.
    async fn advertised(
        &mut self,
        what: &str,
        host: &str,
        port: i32,
        bootstrap: IpAddr,
        cluster_id: Option<&str>,
    ) {
        let address = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        if let Some((found, advice)) = cannot_be_advertised(host, bootstrap) {
            self.note(wrong(Verdict::Failed, what, found, advice));
            return;
        }
        let peer = match self.connect(&address).await {
            Ok((_, peer)) => peer,
            Err(finding) => {
                let found = format!(
                    "advertised, but cannot be reached from here: {}",
                    finding.found
                );
                let advice = format!(
                    "the server tells clients to connect to {address}; set advertised.listeners=PLAINTEXT://HOST:PORT on it to \
                     an address that works from here ({})",
                    finding.advice.unwrap_or_default()
                );
                self.note(wrong(Verdict::Failed, what, found, advice));
                return;
            }
        };
        let connection = match self.speak(what, &address).await {
            Ok(connection) => connection,
            Err(finding) => return self.note(finding),
        };
        match ask(&connection).await {
            Ok((metadata, _)) if metadata.cluster_id.as_deref() != cluster_id => {
                let other = metadata.cluster_id.unwrap_or_default();
                let found = format!("another cluster answers there: {other}");
                let advice = "from here the advertised name leads to another server: set advertised.listeners to one that is the \
                              same server from everywhere";
                self.note(wrong(Verdict::Failed, what, found, advice));
            }
            Ok((_, took)) => {
                self.note(ok(
                    what,
                    format!("advertised, reached at {peer}, answers within {took:.1?}"),
                ));
                if peer.ip().is_loopback() {
                    let found = "advertised on loopback: only clients on this machine can use it";
                    let advice = "if others should, set up access control (alluvium access init --help), and start the server \
                                  with a listener on 0.0.0.0 and with advertised.listeners that give a name which they can \
                                  resolve";
                    self.note(wrong(Verdict::Warning, what, found, advice));
                }
            }
            Err(error) => {
                let found = format!("does not answer Metadata: {error}");
                self.note(wrong(
                    Verdict::Failed,
                    what,
                    found,
                    "the server's log says why",
                ));
            }
        }
    }
}

/// The metadata of all topics, and the median time of a round trip.
async fn ask(connection: &Connection) -> Result<(MetadataResponse, Duration), Error> {
    let request = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let all = connection
        .start(&request, METADATA_VERSION_MAX)
        .await?
        .wait(Duration::ZERO)
        .await?;
    let brokers_only = MetadataRequest {
        topics: Some(Vec::new()),
        ..MetadataRequest::default()
    };
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        let pending = connection
            .start(&brokers_only, METADATA_VERSION_MAX)
            .await?;
        pending.wait(Duration::ZERO).await?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok((all, times[ROUND_TRIPS / 2]))
}

fn refusal_advice(error: &std::io::Error, address: SocketAddr) -> String {
    if error.kind() != std::io::ErrorKind::ConnectionRefused {
        return "check the network between here and there".to_owned();
    }
    match address.ip().is_loopback() {
        true => format!(
            "nothing listens there: start a server with `alluvium serve --kafka {address}`, or name the right port with -b"
        ),
        false => "the machine is there, but nothing listens on that port: is the server running, and with --kafka \
                  0.0.0.0:PORT? By default it listens on loopback only"
            .to_owned(),
    }
}

/// Addresses that mean something else on every machine: what is wrong with them, and what to do.
fn cannot_be_advertised(host: &str, bootstrap: IpAddr) -> Option<(String, String)> {
    let set = "set advertised.listeners=PLAINTEXT://HOST:PORT on the server, with a name or address that clients can reach";
    if host.is_empty() {
        return Some(("advertised without a host".to_owned(), set.to_owned()));
    }
    let address: Option<IpAddr> = host.parse().ok();
    if address.is_some_and(|address| address.is_unspecified()) {
        let found = format!(
            "advertised as {host}, which is an address to listen on, not one to connect to"
        );
        return Some((found, set.to_owned()));
    }
    let is_loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    if is_loopback && !bootstrap.is_loopback() {
        let found = format!(
            "advertised as {host}: from here that is this machine, but the server was reached at {bootstrap}"
        );
        let advice = format!("{set}: {bootstrap} would do for this machine");
        return Some((found, advice));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_mean_another_machine_to_each_client_are_found() {
        let far: IpAddr = "10.1.2.3".parse().unwrap();
        let near: IpAddr = "127.0.0.1".parse().unwrap();
        for host in ["0.0.0.0", "::", ""] {
            assert!(cannot_be_advertised(host, near).is_some(), "{host}");
        }
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            assert!(cannot_be_advertised(host, near).is_none(), "{host}");
            let (_, advice) = cannot_be_advertised(host, far).expect("loopback elsewhere");
            assert!(advice.contains("advertised.listeners") && advice.contains("10.1.2.3"));
        }
        assert!(cannot_be_advertised("broker.example.org", far).is_none());
    }
}
