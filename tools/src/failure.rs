//! How a command ends when it fails: what is said on standard error, and the exit code.
//!
//! Callers: `cli`, and the commands that know better than the error's type what kind of failure they met. The codes are an
//! interface: scripts act on them.

use std::io::ErrorKind;
use std::process::ExitCode;

use client::{Error, ErrorCode};
use model::InvalidName;

use crate::format::FormatError;
use crate::http::HttpError;
use crate::output::note;
use crate::reach::is_local;
use model::time_spec::TimeSpecError;

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
    /// [`DAMAGED`].
    #[error("{0}")]
    Damaged(String),
}

/// Says on standard error what went wrong, and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    report_with(error, None)
}

/// Like [`report`]; `similar` is the name of a topic that may have been meant.
pub fn report_with(error: &anyhow::Error, similar: Option<&str>) -> ExitCode {
    let code = code_of(error);
    if code != OK {
        note!("error: {}", told(error));
        let meant = similar.map(|name| format!("did you mean `{name}`?"));
        if let Some(hint) = meant.or_else(|| hint(error)) {
            note!("hint: {hint}");
        }
    }
    ExitCode::from(code)
}

/// The topic that does not exist, if that is what went wrong.
pub fn missing_topic(error: &anyhow::Error) -> Option<&str> {
    missing(cause::<Error>(error)?)
}

fn missing(error: &Error) -> Option<&str> {
    match error {
        Error::Broker {
            code: ErrorCode::UnknownTopicOrPartition,
            what,
            message: None,
        } => what.strip_prefix("topic "),
        _ => None,
    }
}

/// The error and its causes, without those whose words the one before has already said.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let topic = cause.downcast_ref().and_then(missing);
        let cause = match topic {
            Some(topic) => format!("there is no topic {topic}"),
            None => cause.to_string(),
        };
        // An operating system's words come twice where an error repeats its source's.
        if !text.ends_with(&cause) && (cause.len() < 12 || !text.contains(&cause)) {
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
            Failure::Damaged(_) => DAMAGED,
        };
    }
    if let Some(error) = cause::<Error>(error) {
        return code_of_client(error);
    }
    if let Some(error) = cause::<HttpError>(error) {
        return code_of_http(error);
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

fn code_of_client(error: &Error) -> u8 {
    match error {
        Error::Connect { .. }
        | Error::Disconnected { .. }
        | Error::NotKafka { .. }
        | Error::TimedOut { .. } => UNREACHABLE,
        Error::Undelivered { last, .. } => last.as_deref().map_or(UNREACHABLE, code_of_client),
        Error::Invalid(_) => USAGE,
        Error::Batch { .. } | Error::Damaged { .. } => DAMAGED,
        error => match error.code() {
            Some(
                ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::GroupIdNotFound,
            ) => NOT_FOUND,
            Some(ErrorCode::RequestTimedOut) => UNREACHABLE,
            _ => FAILED,
        },
    }
}

fn code_of_http(error: &HttpError) -> u8 {
    match error {
        HttpError::Connect { .. } | HttpError::NoAnswer { .. } => UNREACHABLE,
        HttpError::Foreign { .. } => FAILED,
        HttpError::Problem(problem) => match problem.code.as_str() {
            "unknown_topic"
            | "unknown_partition"
            | "unknown_job"
            | "unknown_hold"
            | "unknown_erasure"
            | "unknown_mqtt_session"
            | "no_receipt"
            | "unknown_user"
            | "unknown_token" => NOT_FOUND,
            "invalid_query" | "invalid_condition" | "unknown_column" | "invalid_body"
            | "invalid_erasure" | "invalid_topic_name" | "invalid_user" => USAGE,
            _ => FAILED,
        },
    }
}

/// What to do about it, where that can be said.
fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = cause::<HttpError>(error) {
        return hint_of_http(error).map(str::to_owned);
    }
    hint_of(cause::<Error>(error)?)
}

fn hint_of_http(error: &HttpError) -> Option<&'static str> {
    match error {
        HttpError::Connect { .. } => Some(
            "--http HOST:PORT, ALLUVIUM_HTTP or the context says where the server serves HTTP (http= in its ready line); without \
             a server, --dir DIR works on its data directory",
        ),
        HttpError::NoAnswer { .. } | HttpError::Foreign { .. } => Some(
            "use the address after `http=` in the server's ready line, of a server of this release",
        ),
        HttpError::Problem(problem) => match problem.code.as_str() {
            "unknown_topic" => hint_of_code(ErrorCode::UnknownTopicOrPartition),
            "unauthorized" => Some(
                "-X security.protocol=SASL_SSL (or SASL_PLAINTEXT, on this machine), -X sasl.username=NAME and \
                 -X sasl.password.location=FILE say who you are",
            ),
            _ => None,
        },
    }
}

fn hint_of(error: &Error) -> Option<String> {
    let hint = match error {
        Error::Connect { address, source } => {
            let refused = source.kind() == ErrorKind::ConnectionRefused;
            return Some(match refused && is_local(address) {
                true => "start a server with `alluvium serve`, or name another with -b HOST:PORT, --context or ALLUVIUM_BROKERS".to_owned(),
                false => format!("`alluvium doctor -b {address}` tells more"),
            });
        }
        Error::TimedOut { .. } | Error::Disconnected { .. } => "`alluvium doctor` tells more",
        Error::NotKafka {
            protocol: "HTTP", ..
        } => "use the address after `kafka=` in the server's ready line; this one is for HTTP",
        Error::NotKafka { .. } => {
            "this listener is encrypted: -X security.protocol=SSL, or SASL_SSL"
        }
        Error::Undelivered { last, .. } => return hint_of(last.as_deref()?),
        Error::OffsetOutOfRange { .. } => {
            "records were deleted before they were read: `-o earliest` starts with what is left"
        }
        Error::Batch { .. } | Error::Damaged { .. } => {
            "`alluvium log verify` on the server's data directory tells what is damaged"
        }
        error => return hint_of_code(error.code()?).map(str::to_owned),
    };
    Some(hint.to_owned())
}

fn hint_of_code(code: ErrorCode) -> Option<&'static str> {
    match code {
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
        let error = Err::<(), _>(std::io::Error::other("no")).context("f");
        assert_eq!(told(&error.unwrap_err()), "f: no");
    }

    #[test]
    fn a_topic_that_is_not_there_is_named_in_words() {
        let error = Error::broker(ErrorCode::UnknownTopicOrPartition, "topic sea", None);
        let error = anyhow::Error::from(error).context("reading");
        assert_eq!(told(&error), "reading: there is no topic sea");
        assert_eq!(missing_topic(&error), Some("sea"));
    }

    #[test]
    fn a_server_is_only_to_be_started_here() {
        let refused = |address: &str| Error::Connect {
            address: address.to_owned(),
            source: std::sync::Arc::new(ErrorKind::ConnectionRefused.into()),
        };
        for (address, starts) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("a.example:1", false),
        ] {
            let hint = hint_of(&refused(address)).unwrap();
            assert_eq!(hint.contains("alluvium serve"), starts, "{hint}");
        }
    }
}
