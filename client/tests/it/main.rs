//! The client against a broker that misbehaves on purpose.

extern crate alluvium_client as client;

mod connection;
mod consumer;
mod fake;
mod producer;
