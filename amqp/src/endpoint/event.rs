//! What happens at an endpoint, as a front sees it.
//! Callers: the endpoint makes events, a front takes them. What an event borrows is a part of its frame.

use bytes::Bytes;

use crate::condition::ErrorCondition;
use crate::performative::{Attach, Error, Open, ReceiverSettleMode, SenderSettleMode};
use crate::state::DeliveryState;
use crate::terminus::{AnyTarget, Source};
use crate::{Map, Multiple};

/// A link: no other one has ever the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Its session.
    pub channel: u16,
    /// Its handle there.
    pub handle: u32,
    pub(super) number: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event<'f> {
    /// A step of a login; to be answered by a challenge or an outcome.
    Login(Login<'f>),
    /// The peer opens the connection; to be accepted or refused.
    Open(Open<'f>),
    /// The peer attaches a link; to be accepted or refused, now or later.
    Attach {
        /// The link.
        link: LinkId,
        /// What is asked for.
        attach: Box<Attach<'f>>,
        /// The link that had this name on this connection, and is detached now.
        stolen: Option<LinkId>,
    },
    /// The credit of a link that we send on.
    Flow(LinkId, LinkFlow),
    /// A delivery, whole.
    Delivery(LinkId, Delivery),
    /// What became of deliveries that we sent.
    Settled(Settled<'f>),
    /// The peer has detached a link, and was answered; `closed` says that its terminus goes too.
    Detached {
        /// Which.
        link: LinkId,
        /// Whether its terminus goes too.
        closed: bool,
        /// Why.
        error: Option<Error<'f>>,
    },
    /// The peer has ended a session with all its links, and was answered.
    Ended(u16, Option<Error<'f>>),
    /// The peer has closed the connection, and was answered.
    Closed(Option<Error<'f>>),
    /// The peer has broken the protocol, and we have ended what is in the fault's scope.
    Fault(Fault),
}

/// A step of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login<'f> {
    /// The first.
    Init {
        /// What the client takes.
        mechanism: &'f str,
        /// What it says first.
        response: Option<&'f [u8]>,
    },
    /// An answer to a challenge.
    Response(&'f [u8]),
}

/// What a receiver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFlow {
    /// Deliveries that may be sent.
    pub credit: u32,
    /// Whether what cannot be sent now is to be used up, by [`super::Endpoint::drained`].
    pub drain: bool,
}

/// A delivery to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, by which it is settled.
    pub id: u32,
    /// The message's format.
    pub message_format: u32,
    /// Whether the sender has settled it: nobody waits for what becomes of it.
    pub settled: bool,
    /// The transaction that it is a part of.
    pub transaction: Option<Bytes>,
    /// The message.
    pub payload: Bytes,
}

/// Deliveries that we sent and that the peer has said something about.
#[derive(Clone, Debug)]
pub struct Settled<'f> {
    /// Their session.
    pub channel: u16,
    /// Each that was unsettled: its link and its id.
    pub deliveries: Vec<(LinkId, u32)>,
    /// What became of them.
    pub state: Option<DeliveryState<'f>>,
    /// Whether that is settled; if not, [`super::Endpoint::settle_sent`] does it.
    pub settled: bool,
}

/// How a link is attached by us.
#[derive(Clone, Copy, Debug)]
pub struct Attached<'a> {
    /// Where messages come from.
    pub source: Option<Source<'a>>,
    /// Where they go.
    pub target: Option<AnyTarget<'a>>,
    /// How the sender settles.
    pub snd_settle_mode: SenderSettleMode,
    /// How the receiver does.
    pub rcv_settle_mode: ReceiverSettleMode,
    /// What we can.
    pub offered_capabilities: Multiple<'a>,
    /// Anything else.
    pub properties: Option<Map<'a>>,
}

/// What a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    Connection,
    /// A session with all its links.
    Session(u16),
    /// A link.
    Link(LinkId),
}

/// How the peer has broken the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {description}", condition.symbol())]
pub struct Fault {
    /// What it ends.
    pub scope: Scope,
    /// Its condition.
    pub condition: ErrorCondition,
    /// In words.
    pub description: String,
}

impl Fault {
    pub(super) fn new(
        scope: Scope,
        condition: ErrorCondition,
        description: impl Into<String>,
    ) -> Fault {
        Fault {
            scope,
            condition,
            description: description.into(),
        }
    }
}
