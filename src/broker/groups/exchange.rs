//! What goes into a consumer group and what comes out of it, in the broker's own words.
//! Callers: `Group` and `Coordinator` here, and the fronts, which translate to and from their wire.

use std::time::Duration;

pub use crate::broker::coordination::Moment;
use bytes::Bytes;

use super::generation::Generation;

/// Names one parked request, so that its answer finds its way back. Chosen by the caller, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One assignment strategy that a member supports, with what the member tells the leader about itself under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The strategy's name, such as `range`.
    pub name: String,
    /// The member's subscription, opaque to the broker.
    pub metadata: Bytes,
}

/// Who is on the other end of the connection, for descriptions only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
}

/// A request to become or to stay a member of the next generation.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The id that an earlier answer gave; empty for someone new.
    pub member_id: String,
    /// The operator's name for a static member.
    pub instance_id: Option<String>,
    /// Who asks.
    pub client: ClientIdentity,
    /// A member not heard of for this long is dropped.
    pub session_timeout: Duration,
    /// How long a rebalance waits for this member to rejoin.
    pub rebalance_timeout: Duration,
    /// What kind of group this is, such as `consumer`.
    pub protocol_type: String,
    /// Supported strategies, best first.
    pub protocols: Vec<Protocol>,
    /// Someone new must first fetch an id and then ask again with it (KIP-394).
    pub must_know_member_id: bool,
    /// A returning static leader can be told to leave the assignment as it is (KIP-814).
    pub can_skip_assignment: bool,
}

/// The answer to a member of the new generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation to name in every later request.
    pub generation: Generation,
    /// What kind of group this is.
    pub protocol_type: Option<String>,
    /// The strategy that won the vote.
    pub protocol: Option<String>,
    /// Who assigns.
    pub leader: String,
    /// The member that is answered.
    pub member_id: String,
    /// All members, for the leader; empty for everyone else.
    pub members: Vec<JoinedMember>,
    /// The leader keeps the assignment that stands.
    pub skip_assignment: bool,
}

/// One member as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member's id.
    pub member_id: String,
    /// The operator's name for a static member.
    pub instance_id: Option<String>,
    /// Its subscription under the chosen strategy.
    pub metadata: Bytes,
}

/// Why a join was refused, and which member id the answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    /// The reason.
    pub error: GroupError,
    /// The id to send along: a new one with `MemberIdRequired`, else the caller's or none.
    pub member_id: String,
}

/// A request for this generation's assignment; the leader's brings it.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The member's id.
    pub member_id: String,
    /// The operator's name for a static member.
    pub instance_id: Option<String>,
    /// The generation that the join was answered with; None for a number that none has.
    pub generation: Option<Generation>,
    /// What kind of group the member believes this to be, if it says so.
    pub protocol_type: Option<String>,
    /// Which strategy the member believes to be chosen, if it says so.
    pub protocol: Option<String>,
    /// Member id and assignment, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What kind of group this is.
    pub protocol_type: Option<String>,
    /// The chosen strategy.
    pub protocol: Option<String>,
    /// The assignment, opaque to the broker; empty if the leader gave this member nothing.
    pub assignment: Bytes,
}

/// Who claims to be a member of which generation: heartbeats and commits.
#[derive(Clone, Debug, Default)]
pub struct MemberClaim {
    /// The member's id; empty for a consumer outside the group's management.
    pub member_id: String,
    /// The operator's name for a static member.
    pub instance_id: Option<String>,
    /// The claimed generation; None for a consumer outside the group's management.
    pub generation: Option<Generation>,
}

/// One member to remove.
#[derive(Clone, Debug)]
pub struct Leaver {
    /// The member's id; empty when an operator names a static member only.
    pub member_id: String,
    /// The operator's name for a static member.
    pub instance_id: Option<String>,
}

/// Where a group is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// No members; it lives on through its offsets.
    Empty,
    /// Members are asked to rejoin.
    PreparingRebalance,
    /// The new generation waits for its leader's assignment.
    CompletingRebalance,
    /// Everyone may fetch the assignment.
    Stable,
    /// Deleted; whoever still holds it must look again.
    Dead,
}

impl Leaver {
    /// The refusal if it is no member.
    pub(super) fn unknown(&self) -> GroupError {
        GroupError::UnknownMember {
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
        }
    }
}

impl Protocol {
    /// A copy that keeps nothing else in memory: what came over the wire is a slice of its whole request.
    pub(super) fn owned(&self) -> Protocol {
        Protocol {
            name: self.name.clone(),
            metadata: Bytes::copy_from_slice(&self.metadata),
        }
    }
}

impl GroupState {
    /// The state's name as Kafka's tools print it.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// Why a group refuses a request. Each is a thing that the client does differently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group is going away, or the store cannot take its record now: look the coordinator up again and retry.
    #[error("the group is not available now")]
    NotAvailable,
    /// The group id is empty.
    #[error("the group id is invalid")]
    InvalidGroupId,
    /// The group does not exist.
    #[error("the group does not exist")]
    NotFound,
    /// The group has members, or is about to.
    #[error("the group is not empty: it is {}", state.name())]
    NonEmpty {
        /// Where it is in its life.
        state: GroupState,
    },
    /// Nobody with this id, or under this name, is a member: join as someone new.
    #[error("member {} is not known", shown(member_id, instance_id.as_deref()))]
    UnknownMember {
        /// The id that was named; empty if none was.
        member_id: String,
        /// The name of a static member.
        instance_id: Option<String>,
    },
    /// Another process has taken over this static member's name: stop.
    #[error("instance id {instance_id} is held by a newer member than {member_id}")]
    FencedInstance {
        /// The name.
        instance_id: String,
        /// Who has lost it.
        member_id: String,
    },
    /// The generation has passed: join again.
    #[error("{} is not the group's current generation, which is {current}", claimed_text(*claimed))]
    IllegalGeneration {
        /// The one that was named; None if none was.
        claimed: Option<Generation>,
        /// The group's.
        current: Generation,
    },
    /// The group rebalances: join again, keeping the member id.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// The kind of group or the strategies do not fit the other members'.
    #[error("the member's protocols do not fit the group's")]
    InconsistentProtocol,
    /// The session timeout is outside the broker's bounds.
    #[error(
        "a session timeout of {} ms is outside the allowed range, {} to {} ms",
        asked.as_millis(),
        min.as_millis(),
        max.as_millis()
    )]
    InvalidSessionTimeout {
        /// What was asked for.
        asked: Duration,
        /// The shortest that is allowed.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Join again with the id that the answer carries.
    #[error("the member must join with the id that it was given")]
    MemberIdRequired,
    /// The group is full, or all groups together are: there is no place for this member, and waiting gives it none.
    #[error("the group, or all groups together, have reached their maximum size")]
    MaxSizeReached,
    /// All groups together have committed as many offsets as may be, or as long ones.
    #[error("no more offsets may be committed")]
    OffsetsMaxReached,
    /// Members read this topic, so its offsets stay.
    #[error("the group is subscribed to the topic")]
    SubscribedToTopic,
    /// The metadata string of a commit is longer than allowed.
    #[error("the offset's metadata has {chars} characters, and {chars_max} are allowed")]
    MetadataTooLarge {
        /// How long it is, in UTF-16 code units.
        chars: usize,
        /// How long it may be.
        chars_max: usize,
    },
}

impl GroupError {
    /// Nobody with this id is a member.
    pub(super) fn unknown(member_id: &str) -> GroupError {
        GroupError::UnknownMember {
            member_id: member_id.to_owned(),
            instance_id: None,
        }
    }
}

fn shown(member_id: &str, instance_id: Option<&str>) -> String {
    match instance_id {
        Some(instance_id) => format!("{member_id:?} of instance {instance_id:?}"),
        None => format!("{member_id:?}"),
    }
}

fn claimed_text(claimed: Option<Generation>) -> String {
    claimed.map_or_else(|| "none".to_owned(), |claimed| claimed.to_string())
}

/// A group as the outside sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Where it is in its life.
    pub state: GroupState,
    /// The kind of group; empty for offsets without members.
    pub protocol_type: String,
    /// The chosen strategy; empty unless stable.
    pub protocol: String,
    /// The current generation.
    pub generation: Generation,
    /// Its members in the order in which they joined.
    pub members: Vec<MemberDescription>,
}

/// A member as the outside sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// The member's id.
    pub member_id: String,
    /// The operator's name for a static member.
    pub instance_id: Option<String>,
    /// Who it is.
    pub client: ClientIdentity,
    /// Its subscription under the chosen strategy; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}
