//! The fronts: each speaks one protocol and calls the broker. They never know each other.

pub mod http;
pub mod kafka;
pub mod stats;
