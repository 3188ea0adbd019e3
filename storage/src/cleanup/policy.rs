//! The cleanup policies by their names.

use std::fmt;

/// A cleanup policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Policy {
    /// Whole segments go by age or size: `delete`.
    Retention,
    /// Fewer records stay as they age: `thin`.
    Thin,
    /// The oldest segments of all logs go: `store.bytes.max`.
    StoreBound,
    /// The newest record of each key stays: `compact`.
    Compaction,
}

impl Policy {
    /// Its name: in `cleanup.policy` where it has one there, and in the tool.
    pub const fn name(self) -> &'static str {
        match self {
            Policy::Retention => "delete",
            Policy::Thin => "thin",
            Policy::StoreBound => "store.bytes.max",
            Policy::Compaction => "compact",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
