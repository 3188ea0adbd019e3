//! Consumer groups of the classic protocol, and the offsets that they commit.
//! `group` is the state machine of one group, `offsets` what it has committed: both pure. `coordinator` drives them all,
//! with `timers` for their deadlines and `store` for the offsets state log, in which they stand as `record` says.

mod coordinator;
mod exchange;
mod group;
mod member;
mod offsets;
mod record;
mod store;
mod subscription;
#[cfg(test)]
mod tests;
mod timers;

pub use coordinator::{Coordinator, CoordinatorTask, GroupListing, OffsetCommit};
pub use exchange::*;
pub use group::{Group, GroupSettings, OffsetsExpiry};
pub use offsets::{AppendNumber, CommittedOffset, GroupOffsets, OffsetChange, is_expired};
pub use record::{Record, RecordError, RecordKey, StoredGroup, StoredMember};
pub use store::OffsetsLog;
