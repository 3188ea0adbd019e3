//! The broker library behind the `alluvium` binary.
//!
//! `broker` is the service, free of protocols; `front` speaks them; `config` and `serve` put a process together.

#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod broker;
pub mod config;
pub mod data_dir;
pub mod descriptors;
pub mod front;
pub mod logging;
pub mod metrics;
pub mod serve;
pub mod setting;
mod watched;
