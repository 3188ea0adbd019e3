//! Administration: topics, settings, offsets, groups. Each method is one kind of request; what the broker says of
//! each item is that item's own result. One file per kind of thing; this one holds the way to a broker: any, a partition's
//! leader, a group's coordinator, each asked again while the error may pass.
//! Callers: tools, tests, and the consumer and the group member for what they look up.

mod cluster;
mod configs;
mod groups;
mod records;
mod topics;

pub use cluster::{Cluster, LogDir};
pub use configs::{ConfigChange, ConfigEntry, ConfigSource, Resource};
pub use groups::{Committed, GroupDescription, GroupListing, GroupMember};
pub(crate) use groups::{OFFSET_COMMIT_VERSION_MAX, check_commit, commit_request};
pub use records::{At, Place};
pub use topics::{CreatedTopic, NewTopic};

use crate::{Client, Error, Result};
use model::{PartitionId, TopicName, TopicPartition};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use wire::Request;

const LATEST: i16 = i16::MAX;

/// Administration of a cluster.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
    /// How long the broker may take for a change.
    timeout: Duration,
}

impl Admin {
    /// Administration through a client.
    pub fn new(client: &Client) -> Admin {
        Admin {
            client: client.clone(),
            timeout: Duration::from_secs(30),
        }
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// To any broker; brokers that have no controller role pass it on.
    async fn call<R: Request>(&self, request: &R, version_max: i16) -> Result<R::Response> {
        self.client
            .retry(|| async {
                let connection = self.client.any().await?;
                connection
                    .start(request, version_max)
                    .await?
                    .wait(self.timeout)
                    .await
            })
            .await
    }

    async fn call_broker<R: Request>(
        &self,
        broker: i32,
        request: &R,
        version_max: i16,
    ) -> Result<R::Response> {
        self.client
            .retry(|| {
                self.client
                    .call_broker(broker, request, version_max, self.timeout)
            })
            .await
    }

    /// Asks each partition's leader, and asks again where leaders moved.
    async fn by_leader<T: Clone, V, F>(
        &self,
        wanted: &[(TopicPartition, T)],
        ask: impl Fn((i32, Vec<(TopicPartition, T)>)) -> F,
    ) -> Result<HashMap<TopicPartition, V>>
    where
        F: Future<Output = Result<HashMap<TopicPartition, V>>>,
    {
        self.client
            .retry(|| async {
                let mut leaders: BTreeMap<i32, Vec<(TopicPartition, T)>> = BTreeMap::new();
                for (partition, what) in wanted {
                    let leader = self
                        .client
                        .leader(partition.topic.as_str(), partition.partition.to_wire())
                        .await?;
                    leaders
                        .entry(leader)
                        .or_default()
                        .push((partition.clone(), what.clone()));
                }
                let mut all = HashMap::new();
                for batch in leaders {
                    match ask(batch).await {
                        Ok(some) => all.extend(some),
                        Err(error) => {
                            if error.wants_metadata() {
                                let mut topics: Vec<&str> =
                                    wanted.iter().map(|(p, _)| p.topic.as_str()).collect();
                                topics.dedup();
                                self.client.refresh(Some(&topics)).await?;
                            }
                            return Err(error);
                        }
                    }
                }
                Ok(all)
            })
            .await
    }

    async fn on_coordinator<V, F: Future<Output = Result<V>>>(
        &self,
        group: &str,
        ask: impl Fn(i32) -> F,
    ) -> Result<V> {
        self.client
            .retry(|| async { ask(self.client.coordinator(group).await?).await })
            .await
    }
}

/// The result of the only item.
pub fn single<T>(results: Vec<(String, Result<T>)>, name: &str) -> Result<T> {
    let missing = || Error::Invalid(format!("the answer does not mention {name}"));
    results.into_iter().next().ok_or_else(missing)?.1
}

pub(crate) fn topic_partition(topic: &str, partition: i32) -> Option<TopicPartition> {
    Some(TopicPartition::new(
        TopicName::parse(topic).ok()?,
        PartitionId::from_wire(partition)?,
    ))
}

/// Puts items together by topic, as most requests want them.
pub(crate) fn by_topic<T, P>(
    items: &[T],
    partition: impl Fn(&T) -> &TopicPartition,
    entry: impl Fn(&T) -> P,
) -> BTreeMap<String, Vec<P>> {
    let mut topics: BTreeMap<String, Vec<P>> = BTreeMap::new();
    for item in items {
        topics
            .entry(partition(item).topic.to_string())
            .or_default()
            .push(entry(item));
    }
    topics
}
