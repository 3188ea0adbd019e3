//! The error conditions of the standard (parts 1, 4), as symbols.
//! Callers: the endpoint for what breaks the protocol, a front for what it refuses.

/// Why a link, a session or a connection ends, or a message is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCondition {
    /// Our fault.
    InternalError,
    /// What was named is not there.
    NotFound,
    /// Not allowed to this user.
    UnauthorizedAccess,
    /// Bytes that are no values.
    DecodeError,
    /// More than there may be.
    ResourceLimitExceeded,
    /// Never allowed.
    NotAllowed,
    /// A field with a value that it may not have.
    InvalidField,
    /// What is not offered.
    NotImplemented,
    /// In use by another.
    ResourceLocked,
    /// Something that must hold before does not.
    PreconditionFailed,
    /// It was there and is gone.
    ResourceDeleted,
    /// Not in this state.
    IllegalState,
    /// A frame that is none.
    FramingError,
    /// The server ends the connection.
    ConnectionForced,
    /// More frames than the session's window.
    WindowViolation,
    /// A handle that is in use.
    HandleInUse,
    /// A handle without a link.
    UnattachedHandle,
    /// The link is somebody else's now.
    Stolen,
    /// More messages than the link's credit.
    TransferLimitExceeded,
    /// A message that is longer than the link takes.
    MessageSizeExceeded,
    /// The server ends the link.
    DetachForced,
    /// There is no such transaction.
    UnknownTransaction,
    /// A transaction is rolled back.
    TransactionRollback,
    /// The same, as it took too long.
    TransactionTimeout,
}

impl ErrorCondition {
    /// All of them.
    pub const ALL: [ErrorCondition; 24] = {
        use ErrorCondition::*;
        [
            InternalError,
            NotFound,
            UnauthorizedAccess,
            DecodeError,
            ResourceLimitExceeded,
            NotAllowed,
            InvalidField,
            NotImplemented,
            ResourceLocked,
            PreconditionFailed,
            ResourceDeleted,
            IllegalState,
            FramingError,
            ConnectionForced,
            WindowViolation,
            HandleInUse,
            UnattachedHandle,
            Stolen,
            TransferLimitExceeded,
            MessageSizeExceeded,
            DetachForced,
            UnknownTransaction,
            TransactionRollback,
            TransactionTimeout,
        ]
    };

    /// As it stands on the wire.
    pub fn symbol(self) -> &'static str {
        match self {
            ErrorCondition::InternalError => "amqp:internal-error",
            ErrorCondition::NotFound => "amqp:not-found",
            ErrorCondition::UnauthorizedAccess => "amqp:unauthorized-access",
            ErrorCondition::DecodeError => "amqp:decode-error",
            ErrorCondition::ResourceLimitExceeded => "amqp:resource-limit-exceeded",
            ErrorCondition::NotAllowed => "amqp:not-allowed",
            ErrorCondition::InvalidField => "amqp:invalid-field",
            ErrorCondition::NotImplemented => "amqp:not-implemented",
            ErrorCondition::ResourceLocked => "amqp:resource-locked",
            ErrorCondition::PreconditionFailed => "amqp:precondition-failed",
            ErrorCondition::ResourceDeleted => "amqp:resource-deleted",
            ErrorCondition::IllegalState => "amqp:illegal-state",
            ErrorCondition::FramingError => "amqp:connection:framing-error",
            ErrorCondition::ConnectionForced => "amqp:connection:forced",
            ErrorCondition::WindowViolation => "amqp:session:window-violation",
            ErrorCondition::HandleInUse => "amqp:session:handle-in-use",
            ErrorCondition::UnattachedHandle => "amqp:session:unattached-handle",
            ErrorCondition::Stolen => "amqp:link:stolen",
            ErrorCondition::TransferLimitExceeded => "amqp:link:transfer-limit-exceeded",
            ErrorCondition::MessageSizeExceeded => "amqp:link:message-size-exceeded",
            ErrorCondition::DetachForced => "amqp:link:detach-forced",
            ErrorCondition::UnknownTransaction => "amqp:transaction:unknown-id",
            ErrorCondition::TransactionRollback => "amqp:transaction:rollback",
            ErrorCondition::TransactionTimeout => "amqp:transaction:timeout",
        }
    }
}
