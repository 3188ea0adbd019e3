//! The command line.

pub mod format;
pub mod time_spec;
