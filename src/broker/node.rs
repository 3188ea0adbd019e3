//! A broker's number.
//! Callers: refusals and layouts, which name brokers.

use std::fmt;

/// A broker's number in its cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NodeId(i32);

impl NodeId {
    /// The broker with this number.
    pub const fn new(id: i32) -> NodeId {
        NodeId(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
