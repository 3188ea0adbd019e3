//! Why connections end, and why clients are not let in. In words here; the codes are in `errors`.
//! Callers: everything in this front that gives up a connection.

use super::packet::Fault;

/// Why the server ends a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// A packet that is none, or not allowed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A packet that is longer than they may be.
    #[error("the packet is longer than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// More publishes without an ack than there may be.
    #[error("more than {count_max} publishes are without an ack")]
    ReceiveMaximum {
        /// The bound.
        count_max: usize,
    },
    /// A topic alias that stands for nothing, or is above the highest.
    #[error("topic alias {0} stands for no topic, or is above the highest that is taken")]
    TopicAlias(u16),
    /// A name under which nobody publishes here.
    #[error("nothing can be published to this topic here")]
    TopicName,
    /// As much is retained as may be, and no ack can say so.
    #[error("as much is retained as may be")]
    RetainedFull,
    /// The client may not publish there, and no ack can say so.
    #[error("not authorized to publish there")]
    Denied,
    /// The record is not taken, and no ack can say so.
    #[error("the message is not taken: {0}")]
    NotTaken(String),
    /// The store takes nothing now; what has no ack is to be sent again.
    #[error("the disk is full")]
    DiskFull,
    /// The same, for another reason.
    #[error("the store takes no messages now")]
    StoreFailed,
    /// As many sessions are kept as may be, or this one is too long.
    #[error("as much is kept of sessions as may be")]
    SessionFull,
    /// More topics than the newest message is looked for of.
    #[error("the filter of the last values matches more topics than are noted")]
    TooManyTopics,
    /// What was subscribed to cannot be read any more.
    #[error("the topic of the subscription cannot be read any more")]
    Unreadable,
    /// The server stops.
    #[error("the server stops")]
    Stopping,
    /// Nothing came for one and a half times the keep alive.
    #[error("nothing came for one and a half times the keep alive")]
    KeepAlive,
    /// The client has connected anew.
    #[error("the client has connected again")]
    TakenOver,
    /// An operator ended it.
    #[error("an operator ended the connection")]
    Kicked,
    /// Others wait for memory that this one holds and does not fill.
    #[error("others wait for memory, and this packet comes too slowly")]
    Evicted,
    /// The peer takes nothing of what is sent.
    #[error("nothing of what was sent was taken for too long")]
    Unread,
    /// The client said that it goes; `with_will` says whether its will is to be published.
    #[error("the client has disconnected")]
    Disconnected {
        /// Whether it wants its will published.
        with_will: bool,
        /// How long its session is to outlive it, if that is not what it said before.
        session_expiry: Option<u32>,
    },
    /// The connection is gone.
    #[error("the connection is gone")]
    Gone,
}

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotConnected {
    /// Its packet.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Its id is longer than ids may be.
    #[error("the client id is longer than {bytes_max} bytes")]
    LongId {
        /// The bound.
        bytes_max: usize,
    },
    /// User and password are not a user's, or not given.
    #[error("bad user name or password")]
    Login,
    /// Passwords are not taken where others can read them.
    #[error("a password is taken on encrypted connections and from this machine only")]
    Exposed,
    /// More than a password is not offered.
    #[error("no authentication method is offered")]
    Method,
    /// There are as many clients as there may be.
    #[error("there are as many clients as there may be")]
    TooMany,
    /// As many sessions are kept as may be, or this one is too long.
    #[error("as much is kept of sessions as may be")]
    TooManySessions,
    /// The store takes nothing now.
    #[error("the store keeps no sessions now")]
    StoreFailed,
    /// The will's topic is not one that clients publish to.
    #[error("nothing can be published to the topic of the will")]
    WillTopic,
    /// The client may not publish its will.
    #[error("not authorized to publish the will")]
    WillDenied,
    /// It has connected again meanwhile, or an operator ended it.
    #[error("the client has connected again, or was ended by an operator")]
    Ended,
}
