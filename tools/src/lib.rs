//! The command line.

pub mod bench;
pub mod cli;
pub mod consume;
pub mod demo;
pub mod doctor;
mod failure;
pub mod format;
pub mod group;
pub mod log;
mod output;
pub mod produce;
mod table;
pub mod time_spec;
mod topic;
mod topic_choice;
