//! The write-ahead log: what is durable first. Frames in zero-filled, recycled files; its tail is served from its own map.
//!
//! Written by `committer`, read back by `recovery`, given back file by file by `settler`.

pub mod format;
pub mod pool;
pub mod reader;
pub mod resume;
pub mod walk;

pub use pool::{WalFile, WalPool};
