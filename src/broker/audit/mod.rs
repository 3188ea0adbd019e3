//! Audit: who changed what, who was denied what, and who logged in or could not, from where.
//! Callers: the door, for denials; logins; fronts and operations that change something, once the change is durable; `Broker::run`,
//! which has it written. Invariants: noting something never waits, and what waits to be written is bounded (`book`): what is too
//! much is counted, and the count is written. What is denied again and again, and logins, are summed. No password, token or key of
//! a record is noted, nor the name of a user who does not exist, which may be a password in the wrong field.

mod book;
mod event;
mod file;
mod sinks;
mod writer;

use std::path::PathBuf;

pub(in crate::broker) use book::Audit;
pub use event::{LoginOutcome, On};

/// The topic that the audit log is kept in. Nobody writes to it but the broker.
pub use model::AUDIT_TOPIC;

/// Where the audit log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// `audit.topic.enable`: whether it is a topic.
    pub has_topic: bool,
    /// `audit.file`: a file of JSON lines.
    pub file: Option<PathBuf>,
    /// `audit.file.max.bytes`: how long that file becomes before it is renamed; None is without end.
    pub file_bytes_max: Option<u64>,
}

impl Default for AuditConfig {
    fn default() -> AuditConfig {
        AuditConfig {
            has_topic: false,
            file: None,
            file_bytes_max: Some(100 << 20),
        }
    }
}
