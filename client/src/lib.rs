//! A client of the Kafka protocol: producer, consumer, group member, administration.
//!
//! Callers: the command line, the demo, the exam, the benchmarks. Everything goes through a [`Client`], which knows the
//! cluster's brokers and topics and keeps one pipelined [`Connection`] to each broker.
//!
//! What holds:
//! - A record is reported as delivered only after the broker said so, and an idempotent producer (the default) neither
//!   loses nor doubles nor reorders one across retries, reconnects and restarts of the broker.
//! - Every wait has a deadline, every queue a bound; a full buffer makes the sender wait.
//! - An error keeps the protocol's code, by name.

#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod admin;
mod client;
pub mod config;
mod connection;
pub mod consumer;
mod error;
pub mod group;
mod metadata;
pub mod producer;
pub mod sasl;
pub mod tls;
mod troubles;

pub use admin::Admin;
pub use client::Client;
pub use config::ClientConfig;
pub use connection::{Connection, Pending};

pub use consumer::{Consumer, ConsumerConfig};
pub use error::Error;

pub use group::{GroupConfig, GroupConsumer};
pub use metadata::{Broker, Metadata, PartitionMetadata, TopicMetadata};
pub use producer::{Acks, Delivery, Producer, ProducerConfig, ProducerRecord};
pub use sasl::Sasl;
pub use tls::{Tls, TlsFiles};
pub use troubles::{Trouble, Troubles};
pub use wire::ErrorCode;

/// What every operation yields.
pub type Result<T> = std::result::Result<T, Error>;
