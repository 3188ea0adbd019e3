//! The settings of SASL, which all fronts share: who has to log in, by what, and what a failure costs.
//! Callers: the table of settings; the fronts; `serve`, which reads the file of the first users.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::sasl::SaslMechanism;
use zeroize::Zeroizing;

use crate::broker::credentials::FirstUser;
use crate::setting::{Kind, Setting, millis, size, text_of_millis};

/// The longest file of first users.
const USERS_FILE_BYTES_MAX: u64 = 1 << 20;

/// How clients log in.
#[derive(Debug, Clone)]
pub struct SaslSettings {
    /// `sasl.enabled.mechanisms`: by what, on the listeners that ask for it.
    pub mechanisms: Vec<SaslMechanism>,
    /// `connection.failed.authentication.delay.ms`: how long a failure's answer takes.
    pub failed_delay: Duration,
    /// `connections.max.reauth.ms`: how long a login holds; None is as long as the connection.
    pub session_max: Option<Duration>,
    /// `sasl.server.max.receive.size`: the longest request of whoever has not logged in.
    pub request_bytes_max: usize,
    /// `sasl.users.file`: users that are added at the start if they do not exist.
    pub users_file: Option<PathBuf>,
}

impl Default for SaslSettings {
    fn default() -> SaslSettings {
        SaslSettings {
            mechanisms: Vec::new(),
            failed_delay: Duration::from_millis(100),
            session_max: None,
            request_bytes_max: 64 * 1024,
            users_file: None,
        }
    }
}

/// All of them.
pub const SETTINGS: &[Setting<SaslSettings>] = &[
    Setting {
        name: "connection.failed.authentication.delay.ms",
        kind: Kind::Int,
        default: "100",
        is_live: false,
        doc: "How long the answer to a login that failed is held back, in milliseconds, whatever was wrong; 0 to 60000.",
        get: |it| text_of_millis(it.failed_delay),
        set: |it, value| {
            let millis = size(value, 0..=60_000)?;
            it.failed_delay = Duration::from_millis(millis as u64);
            Ok(())
        },
    },
    Setting {
        name: "connections.max.reauth.ms",
        kind: Kind::Long,
        default: "0",
        is_live: false,
        doc: "How long a login of the Kafka protocol holds, in milliseconds: clients are told, and a connection that has \
              not logged in again by then is closed at its next request (KIP-368). 0 for as long as the connection.",
        get: |it| text_of_millis(it.session_max.unwrap_or_default()),
        set: |it, value| {
            it.session_max = Some(millis(value, 0)?).filter(|time| !time.is_zero());
            Ok(())
        },
    },
    Setting {
        name: "sasl.enabled.mechanisms",
        kind: Kind::List,
        default: "",
        is_live: false,
        doc: "By what clients log in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, with commas between them, on the \
              listeners whose protocol is SASL_PLAINTEXT or SASL_SSL (listener.security.protocol.map), which need one. PLAIN \
              and OAUTHBEARER are offered only where nobody else reads what they say: to connections that are encrypted or \
              of this machine. OAUTHBEARER needs sasl.oauthbearer.jwks.endpoint.url.",
        get: |it| names(&it.mechanisms),
        set: |it, value| {
            it.mechanisms = mechanisms(value)?;
            Ok(())
        },
    },
    Setting {
        name: "sasl.server.max.receive.size",
        kind: Kind::Int,
        default: "65536",
        is_live: false,
        doc: "The longest request of a connection that has not logged in and has to; a longer one closes it. 1024 to 1 MiB.",
        get: |it| it.request_bytes_max.to_string(),
        set: |it, value| {
            it.request_bytes_max = size(value, 1024..=1 << 20)?;
            Ok(())
        },
    },
    Setting {
        name: "sasl.users.file",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "A file of the first users, a line each, `name:password`; empty lines and those that begin with # are left out. At \
              the start those that do not exist are added, with a credential for each mechanism; others stay as they are. \
              Nobody but its owner may be able to read it.",
        get: |it| {
            let file = it.users_file.as_ref();
            file.map_or_else(String::new, |file| file.display().to_string())
        },
        set: |it, value| {
            it.users_file = Some(PathBuf::from(value)).filter(|_| !value.is_empty());
            Ok(())
        },
    },
];

fn names(mechanisms: &[SaslMechanism]) -> String {
    let names: Vec<&str> = mechanisms.iter().map(|one| one.name()).collect();
    names.join(",")
}

fn mechanisms(value: &str) -> Result<Vec<SaslMechanism>, String> {
    let mut all = Vec::new();
    for name in value.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let mechanism = SaslMechanism::of_name(name).ok_or_else(|| {
            format!(
                "{name:?} is no mechanism: {} are",
                names(&SaslMechanism::ALL)
            )
        })?;
        if all.contains(&mechanism) {
            return Err(format!("{name} is named twice"));
        }
        all.push(mechanism);
    }
    Ok(all)
}

/// Why the file of the first users is not read.
#[derive(Debug, thiserror::Error)]
pub enum UsersFileError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// Others than its owner can read it.
    #[error("others than its owner can read it (mode {0:03o}): chmod 600")]
    Mode(u32),
    /// It is not such a file.
    #[error("it is longer than 1 MiB")]
    TooLong,
    /// A line is none.
    #[error("line {0} is not name:password")]
    Line(usize),
}

/// Reads the file of the first users. Blocks on the disk.
pub fn read_users(path: &Path) -> Result<Vec<FirstUser>, UsersFileError> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::File::open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(UsersFileError::Mode(mode));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(USERS_FILE_BYTES_MAX as usize + 1));
    file.take(USERS_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > USERS_FILE_BYTES_MAX {
        return Err(UsersFileError::TooLong);
    }
    let mut users = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let wrong = || UsersFileError::Line(index + 1);
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .ok_or_else(wrong)?;
        let (name, password) = (&line[..colon], &line[colon + 1..]);
        let name = std::str::from_utf8(name).map_err(|_| wrong())?.to_owned();
        if name.is_empty() || password.is_empty() {
            return Err(wrong());
        }
        let password = Zeroizing::new(password.to_vec());
        users.push(FirstUser { name, password });
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn mechanisms_are_kafkas_and_stand_once_each() {
        let all = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER";
        assert_eq!(names(&mechanisms(all).unwrap()), all);
        assert_eq!(mechanisms(" PLAIN , ").unwrap(), [SaslMechanism::Plain]);
        for bad in ["GSSAPI", "plain", "PLAIN,PLAIN"] {
            assert!(mechanisms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_users_are_read_from_their_owners_file_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_users(&path)
        };
        let users = write("# first\n\nalice:a:b\r\nbob:\u{e4}", 0o600).unwrap();
        let users: Vec<_> = users
            .iter()
            .map(|it| (it.name.as_str(), it.password.as_slice()))
            .collect();
        let expected = [("alice", b"a:b".as_slice()), ("bob", "\u{e4}".as_bytes())];
        assert_eq!(users, expected);
        assert!(matches!(
            write("a:b", 0o640),
            Err(UsersFileError::Mode(0o640))
        ));
        for bad in ["alice", ":b", "alice:", "a:b\nc"] {
            assert!(
                matches!(write(bad, 0o400), Err(UsersFileError::Line(_))),
                "{bad}"
            );
            std::fs::remove_file(&path).unwrap();
        }
    }
}
