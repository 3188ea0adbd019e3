//! The client against a broker that misbehaves on purpose.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests stand outside of test functions"
)]

extern crate alluvium_client as client;

mod connection;
mod consumer;
mod fake;
mod ledger;
mod producer;
