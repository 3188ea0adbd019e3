//! Reason codes: the only place that chooses them.
//! Callers: `greeting` for a CONNACK, `inbound` and `outbound` for acks, `connection` for a DISCONNECT.
//! 3.1.1 has return codes for CONNACK alone; where it has none, the connection is closed without a word.

use super::ending::{Ending, NotConnected};
use super::packet::{Fault, Version};
use crate::broker::Refusal;
use crate::broker::publish::PublishRefusal;

/// The codes of 5.0 that are sent (§2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum ReasonCode {
    Malformed = 0x81,
    Protocol = 0x82,
    Specific = 0x83,
    UnsupportedVersion = 0x84,
    ClientId = 0x85,
    BadLogin = 0x86,
    NotAuthorized = 0x87,
    Busy = 0x89,
    Stopping = 0x8b,
    BadMethod = 0x8c,
    KeepAlive = 0x8d,
    TakenOver = 0x8e,
    BadFilter = 0x8f,
    BadTopic = 0x90,
    UnknownId = 0x92,
    ReceiveMaximum = 0x93,
    TopicAlias = 0x94,
    TooLarge = 0x95,
    Quota = 0x97,
    Administrative = 0x98,
}

/// The return codes of a CONNACK of 3.1.1 (§3.2.2.3 there).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum ReturnCode {
    Version = 1,
    ClientId = 2,
    Unavailable = 3,
    BadLogin = 4,
    NotAuthorized = 5,
}

/// What a refused CONNECT is answered; None: it is closed without a word.
pub fn of_connect(version: Version, why: &NotConnected) -> Option<u8> {
    match version {
        // It has no code in a CONNACK (§3.2.2.2).
        _ if *why == NotConnected::Ended => None,
        Version::V5 => Some(code_of_connect(why) as u8),
        Version::V311 => return_code_of_connect(why).map(|code| code as u8),
    }
}

fn code_of_connect(why: &NotConnected) -> ReasonCode {
    match why {
        NotConnected::Fault(fault) => code_of_fault(fault),
        NotConnected::LongId { .. } => ReasonCode::ClientId,
        NotConnected::Login => ReasonCode::BadLogin,
        NotConnected::Exposed | NotConnected::WillDenied => ReasonCode::NotAuthorized,
        NotConnected::Method => ReasonCode::BadMethod,
        NotConnected::TooMany | NotConnected::StoreFailed | NotConnected::Ended => ReasonCode::Busy,
        NotConnected::TooManySessions => ReasonCode::Quota,
        NotConnected::WillTopic => ReasonCode::BadTopic,
    }
}

fn return_code_of_connect(why: &NotConnected) -> Option<ReturnCode> {
    Some(match why {
        NotConnected::Fault(fault) => match fault {
            Fault::Version { .. } => ReturnCode::Version,
            Fault::ClientId => ReturnCode::ClientId,
            Fault::Malformed(_) | Fault::Protocol(_) | Fault::TopicName | Fault::TopicAlias => {
                return None;
            }
        },
        NotConnected::Login => ReturnCode::BadLogin,
        NotConnected::Exposed | NotConnected::WillDenied => ReturnCode::NotAuthorized,
        NotConnected::LongId { .. } => ReturnCode::ClientId,
        NotConnected::TooMany
        | NotConnected::TooManySessions
        | NotConnected::StoreFailed
        | NotConnected::Method
        | NotConnected::Ended
        | NotConnected::WillTopic => ReturnCode::Unavailable,
    })
}

fn code_of_fault(fault: &Fault) -> ReasonCode {
    match fault {
        Fault::Malformed(_) => ReasonCode::Malformed,
        Fault::Protocol(_) => ReasonCode::Protocol,
        Fault::TopicName => ReasonCode::BadTopic,
        Fault::TopicAlias => ReasonCode::TopicAlias,
        Fault::Version { .. } => ReasonCode::UnsupportedVersion,
        Fault::ClientId => ReasonCode::ClientId,
    }
}

/// What a DISCONNECT says; None: nobody is there to be told.
pub fn of_ending(ending: &Ending) -> Option<u8> {
    let code = match ending {
        Ending::Fault(fault) => code_of_fault(fault),
        Ending::TooLarge { .. } => ReasonCode::TooLarge,
        Ending::ReceiveMaximum { .. } => ReasonCode::ReceiveMaximum,
        Ending::TopicAlias(_) => ReasonCode::TopicAlias,
        Ending::TopicName => ReasonCode::BadTopic,
        Ending::Denied => ReasonCode::NotAuthorized,
        Ending::NotTaken(_) | Ending::Unreadable => ReasonCode::Specific,
        Ending::DiskFull
        | Ending::Evicted
        | Ending::RetainedFull
        | Ending::SessionFull
        | Ending::TooManyTopics => ReasonCode::Quota,
        Ending::StoreFailed => ReasonCode::Busy,
        Ending::Stopping => ReasonCode::Stopping,
        Ending::KeepAlive => ReasonCode::KeepAlive,
        Ending::Kicked => ReasonCode::Administrative,
        Ending::TakenOver => ReasonCode::TakenOver,
        Ending::Unread | Ending::Disconnected { .. } | Ending::Gone => return None,
    };
    Some(code as u8)
}

/// What a publish that was not stored is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// An ack says that it never will be: the code, and why.
    Never(Never),
    /// Nothing: the connection ends, and the client may send it again.
    End(Ending),
}

/// Why a message is never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Never {
    /// The client may not.
    Denied,
    /// The name is not one that clients publish to.
    TopicName,
    /// As much is retained as may be.
    RetainedFull,
    /// It is not as its topic takes them.
    NotTaken(String),
}

impl Never {
    /// The code in its ack.
    pub fn code(&self) -> u8 {
        let code = match self {
            Never::Denied => ReasonCode::NotAuthorized,
            Never::TopicName => ReasonCode::BadTopic,
            Never::RetainedFull => ReasonCode::Quota,
            Never::NotTaken(_) => ReasonCode::Specific,
        };
        code as u8
    }

    /// In words, where they help.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Never::NotTaken(reason) => Some(reason),
            Never::Denied | Never::TopicName | Never::RetainedFull => None,
        }
    }

    /// How the connection ends where no ack can say it: for QoS 0, and in 3.1.1.
    pub fn ending(self) -> Ending {
        match self {
            Never::Denied => Ending::Denied,
            Never::TopicName => Ending::TopicName,
            Never::RetainedFull => Ending::RetainedFull,
            Never::NotTaken(reason) => Ending::NotTaken(reason),
        }
    }
}

/// What the broker's refusal of a message means to who published it. What may pass is never an ack: clients forget a message then.
pub fn of_publish(refusal: &PublishRefusal) -> NotStored {
    match refusal {
        PublishRefusal::Record(_) | PublishRefusal::TooLarge { .. } => {
            NotStored::Never(Never::NotTaken(refusal.to_string()))
        }
        PublishRefusal::Refused(refused) => match &**refused {
            Refusal::Denied { .. } | Refusal::InternalTopic { .. } => {
                NotStored::Never(Never::Denied)
            }
            Refusal::DiskFull => NotStored::End(Ending::DiskFull),
            _ => NotStored::End(Ending::StoreFailed),
        },
        PublishRefusal::Retained(_) => NotStored::Never(Never::RetainedFull),
        PublishRefusal::TooMuch { .. } => NotStored::End(Ending::StoreFailed),
        PublishRefusal::Abandoned => NotStored::End(Ending::Stopping),
    }
}

/// What it means that the Kafka topic is refused which a message's own topic names. That there is none is for whoever named it to mend.
pub fn of_named(refusal: Refusal) -> NotStored {
    match refusal {
        Refusal::UnknownTopicOrPartition
        | Refusal::InvalidTopicName(_)
        | Refusal::ReservedTopicName { .. }
        | Refusal::CollidingTopicName { .. } => NotStored::Never(Never::TopicName),
        refusal => of_publish(&refusal.into()),
    }
}

/// What a PUBREL or PUBREC of an unknown identifier is answered.
pub fn unknown_id() -> u8 {
    ReasonCode::UnknownId as u8
}

/// What an UNSUBACK says of a filter.
pub fn of_unsubscribe(was_there: bool) -> u8 {
    const SUCCESS: u8 = 0x00;
    const NOT_THERE: u8 = 0x11;
    if was_there { SUCCESS } else { NOT_THERE }
}

/// Why a filter is not subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSubscribed {
    /// It is none, or begins with a `$` that nothing is offered under.
    Filter,
    /// The client may not read.
    Denied,
    /// There are as many as a connection may have.
    TooMany,
    /// The store cannot read.
    Failed,
}

/// What a SUBACK says of a filter that was refused.
pub fn of_subscribe(version: Version, why: NotSubscribed) -> u8 {
    const FAILURE: u8 = 0x80;
    if version == Version::V311 {
        return FAILURE;
    }
    let code = match why {
        NotSubscribed::Filter => ReasonCode::BadFilter,
        NotSubscribed::Denied => ReasonCode::NotAuthorized,
        NotSubscribed::TooMany => ReasonCode::Quota,
        NotSubscribed::Failed => ReasonCode::Specific,
    };
    code as u8
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_may_pass_never_becomes_an_ack_that_makes_a_client_forget() {
        for passing in [
            PublishRefusal::Refused(Arc::new(Refusal::DiskFull)),
            PublishRefusal::Refused(Arc::new(Refusal::UnknownTopicOrPartition)),
            PublishRefusal::Refused(Arc::new(Refusal::NotEnoughReplicas {
                min_insync_replicas: 2,
            })),
            PublishRefusal::Abandoned,
        ] {
            assert!(
                matches!(of_publish(&passing), NotStored::End(_)),
                "{passing}"
            );
        }
        let bytes_max = 1;
        let never = of_publish(&PublishRefusal::TooLarge {
            bytes: 2,
            bytes_max,
        });
        let NotStored::Never(never) = never else {
            panic!("{never:?}");
        };
        assert_eq!(never.code(), 0x83);
    }

    #[test]
    fn a_connect_of_3_1_1_that_is_malformed_gets_no_answer() {
        let malformed = NotConnected::Fault(Fault::Malformed("x"));
        assert_eq!(of_connect(Version::V311, &malformed), None);
        assert_eq!(of_connect(Version::V5, &malformed), Some(0x81));
        let login = NotConnected::Login;
        assert_eq!(of_connect(Version::V311, &login), Some(4));
        assert_eq!(of_connect(Version::V5, &login), Some(0x86));
    }
}
