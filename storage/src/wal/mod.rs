//! The write-ahead log: what is durable first. Frames in zero-filled, recycled files; its tail is served from its own map.
//!
//! An append passes the `gate` (backpressure), waits in the queue of the `committer` (group commit: one frame, one sync), and
//! is published. `pool` keeps files ready and takes them back from the settler; `walk` and `reader` read frames back for
//! recovery and for the offline tools.

pub(crate) mod committer;
pub mod format;
pub(crate) mod gate;
pub mod pool;
pub mod reader;
pub mod resume;
pub(crate) mod stall;
pub mod walk;

pub use pool::{WalFile, WalPool};
