//! The vocabulary: offsets, topics, partitions, and Kafka record batches (magic 2).
//!
//! Called by every other crate. A leaf: no I/O, no async, no clock, no unsafe. Nothing here panics on any input, and
//! nothing allocates by a length that came from outside.

pub mod acl;
pub mod batch;
pub mod codec;
pub mod hex;
mod ids;
mod names;
mod partitioner;
pub mod quota;
pub mod sasl;
pub mod schema;
pub mod state_log;
pub mod time_spec;
pub mod topic_config;
pub mod varint;

pub use ids::{
    InvalidLogId, LeaderEpoch, LogId, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp,
    TopicId,
};
pub use names::{AUDIT_TOPIC, InvalidName, TopicName, TopicPartition};
pub use partitioner::partition_of_key;
