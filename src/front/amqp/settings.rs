//! The settings of the AMQP front.

use std::fmt;

use crate::front::listener::joined;
use crate::setting::{Kind, Setting, address, size};

/// What the front is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `amqp.listen`: where it listens; nowhere if it is empty.
    pub listen: Vec<AmqpListen>,
    /// `amqp.connections.max`: connections at a time.
    pub connections_max: usize,
    /// `amqp.frame.bytes.max`: the longest frame, either way.
    pub frame_bytes_max: usize,
    /// `amqp.message.bytes.max`: the longest message.
    pub message_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: Vec::new(),
            connections_max: 10_000,
            frame_bytes_max: 128 << 10,
            message_bytes_max: 1 << 20,
        }
    }
}

/// An address that AMQP is served on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpListen {
    /// `host:port`.
    pub address: String,
    /// Whether connections are encrypted.
    pub is_encrypted: bool,
}

impl fmt::Display for AmqpListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { ENCRYPTED } else { "" };
        write!(f, "{scheme}{}", self.address)
    }
}

/// What stands before an address that is encrypted.
const ENCRYPTED: &str = "amqps://";
/// What stands for no address.
const OFF: &str = "off";

fn listens(value: &str) -> Result<Vec<AmqpListen>, String> {
    if value.trim() == OFF {
        return Ok(Vec::new());
    }
    let entries = value.split(',').map(str::trim).filter(|it| !it.is_empty());
    let all: Result<Vec<AmqpListen>, String> = entries
        .map(|entry| {
            let encrypted = entry.strip_prefix(ENCRYPTED);
            let plain = entry.strip_prefix("amqp://").unwrap_or(entry);
            let address = address(encrypted.unwrap_or(plain))?;
            if address.contains('/') {
                return Err(format!("{entry} must be host:port or amqps://host:port"));
            }
            Ok(AmqpListen {
                address,
                is_encrypted: encrypted.is_some(),
            })
        })
        .collect();
    match all? {
        all if all.is_empty() => Err("must be host:port or off".to_owned()),
        all => Ok(all),
    }
}

/// All of them, by name.
pub const SETTINGS: &[Setting<Settings>] = &[
    Setting {
        name: "amqp.connections.max",
        kind: Kind::Int,
        default: "10000",
        is_live: false,
        doc: "AMQP connections at a time at most, as far as the limit of open files allows; 16 or more.",
        get: |it| it.connections_max.to_string(),
        set: |it, value| {
            it.connections_max = size(value, 16..=10_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "amqp.frame.bytes.max",
        kind: Kind::Int,
        default: "131072",
        is_live: false,
        doc: "The longest AMQP frame that is taken and sent; 4096 to 1048576. Clients are told when they connect. Longer messages \
              take several frames.",
        get: |it| it.frame_bytes_max.to_string(),
        set: |it, value| {
            it.frame_bytes_max = size(value, 4_096..=1 << 20)?;
            Ok(())
        },
    },
    Setting {
        name: "amqp.listen",
        kind: Kind::List,
        default: OFF,
        is_live: false,
        doc: "Where AMQP 1.0 is served, `host:port`, with commas between several; port 0 picks one. `amqps://host:port` is \
              encrypted (ssl.keystore.location). `off` serves none.",
        get: |it| match it.listen.is_empty() {
            true => OFF.to_owned(),
            false => joined(&it.listen),
        },
        set: |it, value| {
            it.listen = listens(value)?;
            Ok(())
        },
    },
    Setting {
        name: "amqp.message.bytes.max",
        kind: Kind::Int,
        default: "1048576",
        is_live: false,
        doc: "The longest AMQP message that is taken, all its sections included; 65536 to 16777216. Clients are told when they \
              attach a link.",
        get: |it| it.message_bytes_max.to_string(),
        set: |it, value| {
            it.message_bytes_max = size(value, 65_536..=16 << 20)?;
            Ok(())
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_listens_is_read_as_it_is_shown() {
        for (value, shown) in [
            ("off", "off"),
            ("127.0.0.1:5672", "127.0.0.1:5672"),
            (
                "amqp://[::1]:5672, amqps://0.0.0.0:5671",
                "[::1]:5672,amqps://0.0.0.0:5671",
            ),
        ] {
            let mut settings = Settings::default();
            let row = SETTINGS.iter().find(|row| row.name == "amqp.listen");
            let row = row.expect("such a row");
            (row.set)(&mut settings, value).expect("a good value");
            assert_eq!((row.get)(&settings), shown);
        }
        for bad in ["", "5672", "http://a:1", "amqps://a:1/x", "off,a:1"] {
            assert!(listens(bad).is_err(), "{bad}");
        }
    }
}
