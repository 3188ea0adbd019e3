//! Brokers, and the directories in which they keep partitions.
//! Callers: whoever holds an [`Admin`].

use super::{Admin, LATEST, topic_partition};
use crate::error::check;
use crate::metadata::Broker;
use crate::{Error, Result};
use model::TopicPartition;
use wire::messages::describe_cluster::DescribeClusterRequest;
use wire::messages::describe_log_dirs::DescribeLogDirsRequest;

/// The brokers of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The cluster's id.
    pub id: Option<String>,
    /// The controller, if clients may know it.
    pub controller: Option<i32>,
    /// By id.
    pub brokers: Vec<Broker>,
}

/// A directory with partitions.
#[derive(Clone, Debug)]
pub struct LogDir {
    /// The broker.
    pub broker: i32,
    /// The path there.
    pub path: String,
    /// Bytes of each partition.
    pub partitions: Vec<(TopicPartition, u64)>,
    /// The volume's size, if the broker tells.
    pub total_bytes: Option<u64>,
    /// What of it is free, if the broker tells.
    pub usable_bytes: Option<u64>,
}

impl Admin {
    /// The brokers.
    pub async fn describe_cluster(&self) -> Result<Cluster> {
        match self
            .client
            .call_any(&DescribeClusterRequest::default(), LATEST)
            .await
        {
            Ok(answer) => {
                check(
                    answer.error_code,
                    || "cluster".to_owned(),
                    answer.error_message.as_ref(),
                )?;
                let broker = |b: &wire::messages::describe_cluster::DescribeClusterBroker| Broker {
                    id: b.broker_id,
                    host: b.host.clone(),
                    port: b.port,
                    rack: b.rack.clone(),
                };
                Ok(Cluster {
                    id: Some(answer.cluster_id.clone()),
                    controller: (answer.controller_id >= 0).then_some(answer.controller_id),
                    brokers: answer.brokers.iter().map(broker).collect(),
                })
            }
            Err(Error::NoCommonVersion { .. }) => {
                let known = self.client.refresh(Some(&[])).await?;
                Ok(Cluster {
                    id: known.cluster_id.clone(),
                    controller: known.controller,
                    brokers: known.brokers.values().cloned().collect(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Where all brokers keep their partitions, and how large each is.
    pub async fn log_dirs(&self) -> Result<Vec<LogDir>> {
        let known = self.client.retry(|| self.client.refresh(Some(&[]))).await?;
        let mut dirs = Vec::new();
        for &broker in known.brokers.keys() {
            let answer = self
                .call_broker(broker, &DescribeLogDirsRequest { topics: None }, LATEST)
                .await?;
            check(
                answer.error_code,
                || format!("directories of broker {broker}"),
                None,
            )?;
            for dir in answer.results {
                check(dir.error_code, || dir.log_dir.clone(), None)?;
                let sizes = dir.topics.iter().flat_map(|t| {
                    t.partitions.iter().filter_map(|p| {
                        let partition = topic_partition(&t.name, p.partition_index)?;
                        Some((partition, u64::try_from(p.partition_size).unwrap_or(0)))
                    })
                });
                dirs.push(LogDir {
                    broker,
                    partitions: sizes.collect(),
                    path: dir.log_dir.clone(),
                    total_bytes: u64::try_from(dir.total_bytes).ok(),
                    usable_bytes: u64::try_from(dir.usable_bytes).ok(),
                });
            }
        }
        Ok(dirs)
    }
}
