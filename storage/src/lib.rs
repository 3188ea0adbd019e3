//! The log engine: write-ahead log, segments, recovery, cleanup. No sockets, no protocol words, no consumer groups.

pub mod checkpoint;
pub mod epochs;
pub mod fields;
pub mod io;
pub mod manifest;
pub mod producers;
pub mod segment;
