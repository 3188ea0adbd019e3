//! The command line.

pub mod cli;
pub mod consume;
pub mod demo;
pub mod format;
pub mod group;
pub mod log;
pub mod produce;
mod table;
pub mod time_spec;
