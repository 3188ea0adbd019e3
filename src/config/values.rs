//! The typed configuration: what the parts of a server are started with.
//! Callers: `config`, which loads and checks it; the table, whose rows read and write it (`config/table.rs`).

use std::collections::BTreeMap;

use storage::StorageConfig;

use super::refusal::Place;
use crate::broker::BrokerConfig;
use crate::front::{self, amqp, http, kafka, mqtt};

/// Everything that a server is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// What all fronts share.
    pub front: front::Settings,
    /// The Kafka front's part.
    pub kafka: kafka::Settings,
    /// The HTTP front's part.
    pub http: http::Settings,
    /// The MQTT front's part.
    pub mqtt: mqtt::Settings,
    /// The AMQP front's part.
    pub amqp: amqp::Settings,
    /// The broker's part.
    pub broker: BrokerConfig,
    /// The storage's part.
    pub storage: StorageConfig,
    /// Whether a data directory without a store gets a new one.
    pub store_create: bool,
    /// Whether others may reach a server on which access is not controlled.
    pub insecure: bool,
    /// `wal.profile=small`.
    pub(super) wal_is_small: bool,
    /// Variables of the environment with our prefix that a container platform sets, and that are no settings.
    pub ignored_variables: Vec<String>,
    /// Where the values stand that somebody gave, and how they are written there.
    pub(super) origins: BTreeMap<String, (Place, String)>,
}
