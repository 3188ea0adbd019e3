//! The command line's tools and the demonstration. Callers: the binary (`bin/`), and the fuzz targets of the formats.

#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod access;
mod acl;
mod backup;
pub mod bench;
mod broker;
mod cleanup;
pub mod cli;
pub mod consume;
mod context;
pub mod demo;
pub mod doctor;
mod erase;
pub mod failure;
pub mod format;
pub mod group;
mod hold;
mod http;
pub mod log;
mod loss;
mod mqtt;
pub mod output;
pub mod produce;
mod protection;
mod queue;
mod reach;
mod replay;
pub mod runtime;
mod settings_change;
pub mod shell;
pub mod signals;
mod table;
mod topic;
mod topic_choice;
mod transfer;
mod user;
mod users;
