//! The cases: one file each, one row each.

mod cleaner;
mod compaction;
mod engine;
mod fetch_many;
mod http_produce;
mod latency;
mod partitions;
mod produce;
mod replay;
mod startup;
mod thinning;

use super::Case;

/// Every case.
pub const ALL: &[Case] = &[
    produce::CASE,
    http_produce::CASE,
    latency::CASE,
    replay::CASE,
    fetch_many::CASE,
    startup::CASE,
    partitions::CASE,
    engine::CASE,
    compaction::CASE,
    cleaner::CASE,
    thinning::CASE,
];
