//! The log engine: write-ahead log, segments, recovery, cleanup. No sockets, no protocol words, no consumer groups.

pub mod io;
