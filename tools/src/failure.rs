//! How a command ends when it fails: what is said on standard error, and the exit code.
//!
//! Callers: `cli`, and the commands that know better than the error's type what kind of failure they met. The codes are an
//! interface: scripts act on them.

use std::io::ErrorKind;
use std::process::ExitCode;

use client::{Error, ErrorCode};
use model::InvalidName;

use crate::format::FormatError;
use crate::time_spec::TimeSpecError;

/// It worked.
pub const OK: u8 = 0;
/// It failed, for a reason that has no code of its own.
pub const FAILED: u8 = 1;
/// The command was not written as it must be.
pub const USAGE: u8 = 2;
/// A topic, partition, group or file is not there.
pub const NOT_FOUND: u8 = 3;
/// No broker was reached, or none answered in time.
pub const UNREACHABLE: u8 = 4;
/// A check found damage.
pub const DAMAGED: u8 = 5;

/// A failure whose exit code the command itself decides.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// [`USAGE`].
    #[error("{0}")]
    Usage(String),
    /// [`NOT_FOUND`].
    #[error("{0}")]
    NotFound(String),
}

/// Says on standard error what went wrong, and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let code = code_of(error);
    if code != OK {
        eprintln!("error: {}", told(error));
        if let Some(hint) = hint(error) {
            eprintln!("hint: {hint}");
        }
    }
    ExitCode::from(code)
}

/// The error and its causes, without those whose words the one before has already said.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            let colon = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{colon}{cause}");
        }
    }
    text
}

/// The first cause of this type.
fn cause<E: std::error::Error + Send + Sync + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(failure) = cause::<Failure>(error) {
        return match failure {
            Failure::Usage(_) => USAGE,
            Failure::NotFound(_) => NOT_FOUND,
        };
    }
    if let Some(error) = cause::<Error>(error) {
        return match error {
            Error::Connect { .. } | Error::Disconnected { .. } | Error::TimedOut { .. } => {
                UNREACHABLE
            }
            Error::Invalid(_) => USAGE,
            Error::Batch { .. } => DAMAGED,
            error => match error.code() {
                Some(
                    ErrorCode::UnknownTopicOrPartition
                    | ErrorCode::UnknownTopicId
                    | ErrorCode::GroupIdNotFound,
                ) => NOT_FOUND,
                Some(ErrorCode::RequestTimedOut) => UNREACHABLE,
                _ => FAILED,
            },
        };
    }
    let is_usage = cause::<TimeSpecError>(error).is_some()
        || cause::<FormatError>(error).is_some()
        || cause::<InvalidName>(error).is_some();
    match cause::<std::io::Error>(error).map(std::io::Error::kind) {
        _ if is_usage => USAGE,
        // Whoever reads our output has read enough, as after `| head`.
        Some(ErrorKind::BrokenPipe) => OK,
        Some(ErrorKind::NotFound) => NOT_FOUND,
        _ => FAILED,
    }
}

/// What to do about it, where that can be said.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let error = cause::<Error>(error)?;
    if matches!(error, Error::Connect { .. }) {
        return Some(
            "start a server with `alluvium serve`, or name another with -b HOST:PORT, --context or ALLUVIUM_BROKERS",
        );
    }
    if matches!(error, Error::OffsetOutOfRange { .. }) {
        return Some(
            "records were deleted before they were read: `-o earliest` starts with what is left",
        );
    }
    if matches!(error, Error::Batch { .. }) {
        return Some("`alluvium log verify` on the server's data directory tells what is damaged");
    }
    match error.code()? {
        ErrorCode::UnknownTopicOrPartition => Some("`alluvium topic list` tells which there are"),
        ErrorCode::GroupIdNotFound => Some("`alluvium group list` tells which there are"),
        ErrorCode::InvalidConfig => {
            Some("`alluvium topic settings` tells all settings and their values")
        }
        ErrorCode::TopicAlreadyExists => Some("with --if-not-exists that is no error"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn exit_codes_tell_what_kind_of_failure_it_was() {
        let broker = |code| Error::broker(code, "topic sea", None);
        let io = |kind| anyhow::Error::from(std::io::Error::from(kind));
        for (error, expected) in [
            (anyhow!("no"), FAILED),
            (Failure::Usage("u".into()).into(), USAGE),
            (Failure::NotFound("n".into()).into(), NOT_FOUND),
            (broker(ErrorCode::UnknownTopicOrPartition).into(), NOT_FOUND),
            (broker(ErrorCode::RequestTimedOut).into(), UNREACHABLE),
            (broker(ErrorCode::InvalidConfig).into(), FAILED),
            (Error::Closed.into(), FAILED),
            (Error::Invalid("no".into()).into(), USAGE),
            (io(ErrorKind::BrokenPipe), OK),
            (io(ErrorKind::NotFound), NOT_FOUND),
            (io(ErrorKind::PermissionDenied), FAILED),
        ] {
            let text = error.to_string();
            assert_eq!(code_of(&error.context("doing it")), expected, "{text}");
        }
    }

    #[test]
    fn a_cause_is_not_said_twice() {
        let error = Err::<(), _>(anyhow!("b")).context("a: b");
        assert_eq!(told(&error.unwrap_err()), "a: b");
        let error = Err::<(), _>(Error::Closed).context("the producer");
        assert_eq!(told(&error.unwrap_err()), "the producer: closed");
    }
}
