//! The cluster as a client sees it: which brokers there are, who leads what, and a connection to each.

use crate::error::check;
use crate::metadata::{Metadata, PartitionMetadata, TopicMetadata};
use crate::{ClientConfig, Connection, Error, Result, Troubles};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::{ErrorCode, Request};

/// Metadata by topic id came with 12; names serve us.
const METADATA_VERSION_MAX: i16 = 12;
/// From 4 on several groups are asked for at once, in other fields.
const FIND_COORDINATOR_VERSION_MAX: i16 = 3;

/// A cluster. Clones share connections and metadata.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    metadata: Arc<Mutex<Arc<Metadata>>>,
    connections: Mutex<HashMap<i32, Connection>>,
    /// The connection that came up first; serves what any broker can answer.
    bootstrap: Mutex<Option<Connection>>,
    /// One task at a time opens a connection; the others wait here and find it.
    opening: tokio::sync::Mutex<()>,
}

impl Client {
    /// Connects to the first bootstrap address that answers, and learns the brokers. Fails at once if none answers.
    pub async fn connect(config: ClientConfig) -> Result<Client> {
        if config.bootstrap.is_empty() {
            return Err(Error::Invalid("no broker address was given".to_owned()));
        }
        let client = Client {
            shared: Arc::new(Shared {
                config,
                metadata: Arc::default(),
                connections: Mutex::default(),
                bootstrap: Mutex::default(),
                opening: tokio::sync::Mutex::default(),
            }),
        };
        client.refresh(Some(&[])).await?;
        Ok(client)
    }

    /// A client of the same cluster with connections of its own; what is known is shared. A broker answers each connection in order, so that a
    /// long poll on one delays whatever else goes over it.
    pub fn separate(&self) -> Client {
        Client {
            shared: Arc::new(Shared {
                config: self.shared.config.clone(),
                metadata: self.shared.metadata.clone(),
                connections: Mutex::default(),
                bootstrap: Mutex::default(),
                opening: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// What does not succeed at the moment and is tried again.
    pub fn troubles(&self) -> &Troubles {
        &self.shared.config.troubles
    }

    /// What is known now, without asking.
    pub fn metadata(&self) -> Arc<Metadata> {
        lock(&self.shared.metadata).clone()
    }

    /// Asks for some topics (none: only the brokers) or, without a list, for all. Topics with errors are not among
    /// what is known afterwards; ask with [`Client::topic`] to see the error. Creates nothing.
    pub async fn refresh(&self, topics: Option<&[&str]>) -> Result<Arc<Metadata>> {
        self.ask_metadata(topics, false)
            .await
            .map(|(metadata, _)| metadata)
    }

    /// Asks for topics, and tells which of them have errors.
    pub(crate) async fn ask_metadata(
        &self,
        topics: Option<&[&str]>,
        create: bool,
    ) -> Result<(Arc<Metadata>, Vec<(Option<String>, ErrorCode)>)> {
        let connection = self.any().await?;
        let version = connection.version_for::<MetadataRequest>(METADATA_VERSION_MAX)?;
        let named = |name: &&str| MetadataRequestTopic {
            name: Some((*name).to_owned()),
            ..Default::default()
        };
        let mut request = MetadataRequest {
            topics: topics.map(|list| list.iter().map(named).collect()),
            ..Default::default()
        };
        // Older versions create whatever is named.
        request.allow_auto_topic_creation = create || version < 4;
        let answer = connection
            .start(&request, METADATA_VERSION_MAX)
            .await?
            .wait(Duration::ZERO)
            .await?;
        let errors = answer
            .topics
            .iter()
            .filter_map(|t| Some((t.name.clone(), ErrorCode::check(t.error_code).err()?)))
            .collect();
        let mut known = lock(&self.shared.metadata);
        *known = Arc::new(known.after(&answer, topics.is_none(), Instant::now()));
        Ok((known.clone(), errors))
    }

    /// A topic, from what is known if that is fresh. `create` lets the broker create it, if it is configured to.
    /// Waits for a topic that has no leader yet, and for one that was just created.
    pub async fn topic(&self, name: &str, create: bool) -> Result<Arc<TopicMetadata>> {
        if let Some(topic) = self.metadata().topics.get(name)
            && topic.fetched_at.elapsed() < self.shared.config.metadata_age_max
        {
            return Ok(topic.clone());
        }
        self.topic_anew(name, create).await
    }

    /// A topic, asked for now.
    pub async fn topic_anew(&self, name: &str, create: bool) -> Result<Arc<TopicMetadata>> {
        let ask = || async {
            let (metadata, errors) = self.ask_metadata(Some(&[name]), create).await?;
            if let Some(topic) = metadata.topics.get(name) {
                return Ok(topic.clone());
            }
            let code = errors
                .first()
                .map_or(ErrorCode::UnknownTopicOrPartition, |(_, code)| *code);
            Err(Error::broker(code, format!("topic {name}"), None))
        };
        // What is missing and will not be created stays missing.
        let hopeful =
            |error: &Error| create || error.code() != Some(ErrorCode::UnknownTopicOrPartition);
        self.retry_if(ask, |error| error.is_retriable() && hopeful(error))
            .await
    }

    /// The broker that leads a partition, asked for anew if it is not known.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<i32> {
        let known = self.topic(topic, false).await?;
        if let Some(PartitionMetadata {
            leader: Some(leader),
            ..
        }) = known.partition(partition)
        {
            return Ok(*leader);
        }
        self.retry(|| async {
            let known = self.topic_anew(topic, false).await?;
            match known.partition(partition) {
                Some(PartitionMetadata {
                    leader: Some(leader),
                    ..
                }) => Ok(*leader),
                Some(_) => {
                    let what = format!("{topic}-{partition}");
                    Err(Error::broker(ErrorCode::LeaderNotAvailable, what, None))
                }
                None => Err(Error::Invalid(format!(
                    "topic {topic} has no partition {partition}"
                ))),
            }
        })
        .await
    }

    /// The leader that is known now, without asking.
    pub fn known_leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.metadata()
            .topics
            .get(topic)?
            .partition(partition)?
            .leader
    }

    /// A connection to any broker: an open one, or a new one to a broker that is known or to a bootstrap address.
    pub async fn any(&self) -> Result<Connection> {
        if let Some(connection) = self.open_one() {
            return Ok(connection);
        }
        let _opening = self.shared.opening.lock().await;
        if let Some(connection) = self.open_one() {
            return Ok(connection);
        }
        let known: Vec<String> = self
            .metadata()
            .brokers
            .values()
            .map(|b| b.address())
            .collect();
        let mut failure = Error::Closed;
        let mut tried: Vec<&String> = Vec::new();
        for address in known.iter().chain(&self.shared.config.bootstrap) {
            match self.open(address).await {
                Ok(connection) => {
                    *lock(&self.shared.bootstrap) = Some(connection.clone());
                    // Any broker will do, so those before it are not missed.
                    tried
                        .into_iter()
                        .for_each(|address| self.troubles().over(address));
                    return Ok(connection);
                }
                // That somebody else listens at an address that was typed says more than that others are silent.
                Err(_) if matches!(failure, Error::NotKafka { .. }) => {}
                Err(error) => failure = error,
            }
            tried.push(address);
        }
        Err(failure)
    }

    async fn open(&self, address: &str) -> Result<Connection> {
        self.troubles().begin(address);
        let opened = Connection::open(address, &self.shared.config).await;
        match &opened {
            Ok(_) => self.troubles().over(address),
            Err(error) => self.troubles().failed(address, error),
        }
        opened
    }

    fn open_one(&self) -> Option<Connection> {
        let open = |c: &&Connection| !c.is_closed();
        let first = lock(&self.shared.connections).values().find(open).cloned();
        first.or_else(|| lock(&self.shared.bootstrap).iter().find(open).cloned())
    }

    /// The open connection to a broker, without opening one.
    pub fn open_connection(&self, broker: i32) -> Option<Connection> {
        lock(&self.shared.connections)
            .get(&broker)
            .filter(|c| !c.is_closed())
            .cloned()
    }

    /// The connection to a broker; opens it if need be.
    pub async fn connection(&self, broker: i32) -> Result<Connection> {
        if let Some(connection) = self.open_connection(broker) {
            return Ok(connection);
        }
        let _opening = self.shared.opening.lock().await;
        if let Some(connection) = self.open_connection(broker) {
            return Ok(connection);
        }
        let address = self.metadata().brokers.get(&broker).map(|b| b.address());
        let address = address.ok_or(Error::UnknownBroker(broker))?;
        let connection = self.open(&address).await?;
        lock(&self.shared.connections).insert(broker, connection.clone());
        Ok(connection)
    }

    /// Sends to any broker, and tries again what may succeed later.
    pub async fn call_any<R: Request>(&self, request: &R, version_max: i16) -> Result<R::Response> {
        self.retry(|| async {
            let connection = self.any().await?;
            connection
                .start(request, version_max)
                .await?
                .wait(Duration::ZERO)
                .await
        })
        .await
    }

    /// Sends to one broker, once.
    pub async fn call_broker<R: Request>(
        &self,
        broker: i32,
        request: &R,
        version_max: i16,
        longer: Duration,
    ) -> Result<R::Response> {
        let connection = self.connection(broker).await?;
        connection
            .start(request, version_max)
            .await?
            .wait(longer)
            .await
    }

    /// The broker that coordinates a group.
    pub async fn coordinator(&self, group: &str) -> Result<i32> {
        self.retry(|| async {
            let request = FindCoordinatorRequest {
                key: group.to_owned(),
                ..Default::default()
            };
            let connection = self.any().await?;
            let pending = connection
                .start(&request, FIND_COORDINATOR_VERSION_MAX)
                .await?;
            let answer = pending.wait(Duration::ZERO).await?;
            check(
                answer.error_code,
                || format!("group {group}"),
                answer.error_message.as_ref(),
            )?;
            if !self.metadata().brokers.contains_key(&answer.node_id) {
                self.refresh(Some(&[])).await?;
            }
            Ok(answer.node_id)
        })
        .await
    }

    /// Tries until it succeeds, fails for good, or the retry timeout is over.
    pub async fn retry<T, F: Future<Output = Result<T>>>(
        &self,
        operation: impl FnMut() -> F,
    ) -> Result<T> {
        self.retry_if(operation, Error::is_retriable).await
    }

    async fn retry_if<T, F: Future<Output = Result<T>>>(
        &self,
        mut operation: impl FnMut() -> F,
        again: impl Fn(&Error) -> bool,
    ) -> Result<T> {
        let mut attempts = Attempts {
            client: self,
            begun: Instant::now(),
            pause: self.shared.config.retry_backoff,
            refused: None,
        };
        loop {
            match operation().await {
                Err(error) if again(&error) && attempts.is_time_left() => {
                    attempts.wait_after(&error).await;
                }
                result => {
                    attempts.end();
                    return result;
                }
            }
        }
    }
}

/// The attempts of one operation: what of them does not depend on its type is compiled once.
struct Attempts<'a> {
    client: &'a Client,
    begun: Instant,
    /// Before the next attempt.
    pause: Duration,
    /// What a broker refused first, if one did.
    refused: Option<String>,
}

impl Attempts<'_> {
    fn is_time_left(&self) -> bool {
        self.begun.elapsed() + self.pause < self.client.shared.config.retry_timeout
    }

    async fn wait_after(&mut self, error: &Error) {
        tracing::debug!(%error, "trying again");
        // Who cannot be reached was noted where it was tried.
        if let Error::Broker { what, .. } = error {
            let about = self.refused.get_or_insert_with(|| what.clone());
            self.client.troubles().failed(about, error);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.client.shared.config.retry_backoff_max);
    }

    fn end(self) {
        if let Some(about) = self.refused {
            self.client.troubles().over(&about);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
