//! The broker library behind the `alluvium` binary.

pub mod broker;
pub mod front;
