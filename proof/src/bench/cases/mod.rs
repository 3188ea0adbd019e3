//! The cases: one file each, one row each.

mod amqp_queue;
mod cleaner;
mod compaction;
mod engine;
mod fetch_many;
mod http_follow;
mod http_history;
mod http_memory;
mod http_produce;
mod http_replay;
mod latency;
mod mqtt_connects;
mod mqtt_fanout;
mod mqtt_idle;
mod mqtt_latency;
mod mqtt_produce;
mod mqtt_replay;
mod mqtt_sessions;
mod mqtt_slow;
mod partitions;
mod produce;
mod replay;
mod startup;
mod thinning;
mod tls;

use super::Case;

/// Every case.
pub const ALL: &[Case] = &[
    produce::CASE,
    http_produce::CASE,
    http_replay::CASE,
    http_history::CASE,
    http_memory::CASE,
    http_follow::CASE,
    latency::CASE,
    replay::CASE,
    fetch_many::CASE,
    startup::CASE,
    partitions::CASE,
    engine::CASE,
    compaction::CASE,
    cleaner::CASE,
    thinning::CASE,
    tls::CASE,
    mqtt_produce::CASE,
    mqtt_fanout::CASE,
    mqtt_latency::CASE,
    mqtt_idle::CASE,
    mqtt_connects::CASE,
    mqtt_sessions::CASE,
    mqtt_replay::CASE,
    mqtt_slow::CASE,
    amqp_queue::CASE,
];
