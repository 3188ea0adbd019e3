//! What clients tell a coordinator of transactions (part 4, 4.5). Pure.
//! Callers: `producing`.

use amqp::message::{Body, Message};
use amqp::state::{Declare, Discharge};
use amqp::{Bytes, Composite as _, DecodeError};

/// What a coordinator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A transaction begins.
    Declare,
    /// One ends.
    Discharge {
        /// Which.
        id: Bytes,
        /// Whether it is rolled back.
        fails: bool,
    },
}

/// Why a coordinator does not understand what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoCommand {
    /// No message.
    #[error("it is no message: {0}")]
    Malformed(#[from] DecodeError),
    /// Nothing that a coordinator knows.
    #[error("it is neither declare nor discharge")]
    Unknown,
    /// A part of somebody else's transaction.
    #[error("transactions of several resources are not offered")]
    Distributed,
}

impl Command {
    pub(super) fn of(payload: &[u8]) -> Result<Command, NoCommand> {
        let Body::Value(value) = Message::of(payload)?.body else {
            return Err(NoCommand::Unknown);
        };
        if let Ok(declare) = Declare::of_value(value) {
            return match declare.global_id {
                None => Ok(Command::Declare),
                Some(_) => Err(NoCommand::Distributed),
            };
        }
        let discharge = Discharge::of_value(value).map_err(|_| NoCommand::Unknown)?;
        Ok(Command::Discharge {
            id: Bytes::copy_from_slice(discharge.txn_id),
            fails: discharge.fail.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_knows_two_commands() {
        let said = |bytes: &[u8]| Command::of(&[b"\x00\x53\x77", bytes].concat());
        assert_eq!(said(b"\x00\x53\x31\x45"), Ok(Command::Declare));
        let discharge = |id: &'static [u8], fails| Command::Discharge {
            id: Bytes::from_static(id),
            fails,
        };
        let commits = b"\x00\x53\x32\xc0\x05\x02\xa0\x01\x07\x42";
        assert_eq!(said(commits), Ok(discharge(b"\x07", false)));
        let fails = b"\x00\x53\x32\xc0\x05\x02\xa0\x01\x07\x41";
        assert_eq!(said(fails), Ok(discharge(b"\x07", true)));
        let distributed = b"\x00\x53\x31\xc0\x04\x01\xa1\x01x";
        assert_eq!(said(distributed), Err(NoCommand::Distributed));
        assert_eq!(said(b"\x40"), Err(NoCommand::Unknown));
        assert_eq!(
            Command::of(b"\x00\x53\x75\xa0\x00"),
            Err(NoCommand::Unknown)
        );
        assert!(matches!(Command::of(b"\x01"), Err(NoCommand::Malformed(_))));
    }
}
