//! Consumer groups of the classic protocol, and the offsets that they commit.
//! `group` is the state machine of one group, `offsets` what it has committed: both pure. `record` is how they stand in
//! the offsets state log.

mod exchange;
mod group;
mod member;
mod offsets;
mod record;
mod subscription;
#[cfg(test)]
mod tests;

pub use exchange::*;
pub use group::{Group, GroupSettings, OffsetsExpiry};
pub use offsets::{AppendNumber, CommittedOffset, GroupOffsets, OffsetChange, is_expired};
pub use record::{Record, RecordError, RecordKey, StoredGroup, StoredMember};
