//! Consumer groups of the classic protocol, and the offsets that they commit.
//! `group` is the state machine of one group, `offsets` what it has committed: both pure. `machine` puts them together for the
//! runtime of `coordination`, with the `ledger` for the bounds on all of them. `coordinator` says what clients may ask,
//! `commit` what they commit, `removal` what goes. In the state log they stand as `record` says.

mod commit;
mod coordinator;
mod effects;
mod exchange;
mod generation;
mod group;
mod ledger;
mod machine;
mod member;
mod offsets;
mod record;
mod removal;
#[cfg(test)]
mod tests;

pub use commit::OffsetCommit;
pub use coordinator::{Coordinator, CoordinatorTask, GroupListing, group_bytes_max};
pub use effects::{Answer, Effects, GroupRecord};
pub use exchange::*;
pub use generation::Generation;
pub use group::{Group, GroupSettings, Growth, OffsetsExpiry, SubscribedTopics};
pub(in crate::broker) use ledger::{Account, Ledger};
pub use ledger::{Bound, Held};
pub use offsets::{
    AppendNumber, CommittedOffset, CommittedPlace, GroupOffsets, OffsetChange, OffsetsSize,
    is_expired,
};
pub use record::{GroupsError, Record, RecordKey, StoredGroup, StoredMember};
