//! The command line.

pub mod consume;
pub mod format;
pub mod produce;
pub mod time_spec;
