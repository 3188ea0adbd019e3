//! Consumer groups of the classic protocol, and the offsets that they commit.
//! `group` is the state machine of one group, `offsets` what it has committed: both pure. `coordinator` drives them all,
//! `commit` for what they commit, with `timers` for their deadlines, `ledger` for the bounds on all of them, `removal` for what goes, and `store` for the
//! offsets state log, in which they stand as `record` says.

mod commit;
mod coordinator;
mod exchange;
mod group;
mod ledger;
mod member;
mod offsets;
mod record;
mod removal;
mod store;
mod subscription;
#[cfg(test)]
mod tests;
mod timers;

pub use commit::OffsetCommit;
pub use coordinator::{Coordinator, CoordinatorTask, GroupListing, group_bytes_max};
pub use exchange::*;
pub use group::{Group, GroupSettings, Growth, OffsetsExpiry};
pub use ledger::{Bound, Held};
pub use offsets::{
    AppendNumber, CommittedOffset, GroupOffsets, OffsetChange, OffsetsSize, is_expired,
};
pub use record::{Record, RecordError, RecordKey, StoredGroup, StoredMember};
pub use store::OffsetsLog;
