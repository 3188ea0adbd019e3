//! Shared subscriptions: many consumers share the records of a partition, each record is one's at a time, and each is finished for
//! itself, in any order.
//! Callers: the fronts of protocols that have them. `partition` is the state machine, pure, over the interval map of `runs`; `members` is who
//! is in a group and fetches what, pure too; `machine` drives both over the state log `shares`, whose records are in `record`, and
//! `coordinator` has the groups, which `opening` reads back. `reader` is a consumer's way through a
//! topic, which may want only what its `choice` says. `dead_letters` keeps records that are given up. `queues` says how a group is with a
//! topic, and `transfers` moves and discards messages. `settings` is what can be set for a group.

mod choice;
mod coordinator;
mod dead_letters;
mod machine;
mod members;
mod opening;
mod partition;
mod queues;
mod reader;
mod record;
mod runs;
mod settings;
mod take;
#[cfg(test)]
mod tests;
mod together;
mod totals;
mod transfers;

pub use choice::Choice;
pub use coordinator::{
    Settlement, ShareDescription, ShareListing, SharedOffset, Shares, SharesTask,
};
pub use dead_letters::header;
pub use machine::{Makers, Wanted};
pub use members::{Assigned, Beat, Beaten, ShareMember, Topic};
pub(in crate::broker) use opening::FoundPlace;
pub use partition::{
    Acquired, Ask, Counts, Keep, Limits, NotHeld, RUNS_MAX, SharePartition, StoredRun, StoredState,
    Tally, Undo, Verdict,
};
pub use queues::{Queue, QueuePartition};
pub use reader::{Begin, Given, ShareConsumer, ShareReadError, ShareReader};
pub use record::{Incarnation, Place, ShareRecord, SharesError, check_record};
pub use runs::{Holder, Reason, State};
pub use settings::{
    DEAD_LETTER_TOPIC, GROUP_SETTINGS, GroupSetting, GroupSettings, InvalidGroupSetting,
    KEPT_SUBSCRIPTIONS, QUEUES, Reset, VOLATILE_SUBSCRIPTIONS,
};
pub use transfers::{Letter, Transfer, TransferError, Transferred};

pub use together::TogetherError;

pub use take::{Take, TakeError, TakeFrom, Taken};

/// Why a group does not do what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The broker stops, or its disk takes nothing.
    #[error("the group cannot be changed now")]
    NotAvailable,
    /// No id of a group.
    #[error("GroupId can't be empty, or longer than 1024 bytes.")]
    InvalidGroupId,
    /// What is asked for makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// There is no such group.
    #[error("there is no such share group")]
    NotFound,
    /// The id is that of a group of another kind.
    #[error("the group is not a share group")]
    OtherKind,
    /// The group has members.
    #[error("The group is not empty.")]
    NonEmpty,
    /// Whoever asks is no member.
    #[error("the member is not in the group")]
    UnknownMember,
    /// Whoever asks is a member, and elsewhere.
    #[error("the member's epoch is not this one: it must join again")]
    FencedEpoch,
    /// There are as many members, or groups, as there may be, or they take as much.
    #[error("there are as many members, or groups, as there may be")]
    MaxSizeReached,
    /// Groups have begun with as many partitions as they may, or know as much of their records.
    #[error("groups have begun with as many partitions as they may")]
    OffsetsMaxReached,
    /// The group lets nobody hold on.
    #[error("Renewing acquisition locks is not enabled for the group.")]
    NotRenewed,
    /// A record is not held by who settles it.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
}
