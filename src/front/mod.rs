//! The fronts: each speaks one protocol and calls the broker. They never know each other.

mod budget;
pub mod http;
pub mod kafka;
pub mod peers;
mod places;
pub mod stats;
