//! The settings of the Kafka front.

use std::net::IpAddr;
use std::time::Duration;

use crate::front::Limits;
use crate::setting::{Kind, SIZE_MAX, Setting, address, millis, size, text_of_millis};

/// What the front is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `kafka.listen`: where it listens, `host:port`.
    pub listen: String,
    /// `advertised.listeners`: the host and port that clients are told to connect to; None for where it listens.
    pub advertised: Option<(String, u16)>,
    /// `max.connections` and `max.connections.per.ip`.
    pub limits: Limits,
    /// `socket.request.max.bytes`: a longer frame closes its connection.
    pub request_bytes_max: usize,
    /// `queued.max.request.bytes`: requests that are received or worked on, in all.
    pub queued_request_bytes_max: usize,
    /// `socket.response.max.bytes`: the longest answer, records not counted.
    pub response_bytes_max: usize,
    /// `queued.max.response.bytes`: answers that are made or sent, in all.
    pub queued_response_bytes_max: usize,
    /// `response.send.max.ms`: how long a peer may take for an answer.
    pub response_send_max: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: "127.0.0.1:9092".into(),
            advertised: None,
            limits: Limits {
                connections_max: 50_000,
                per_address_max: i32::MAX as usize,
            },
            request_bytes_max: 100 * 1024 * 1024,
            queued_request_bytes_max: 256 * 1024 * 1024,
            response_bytes_max: 100 * 1024 * 1024,
            queued_response_bytes_max: 256 * 1024 * 1024,
            response_send_max: Duration::from_secs(120),
        }
    }
}

/// All of them, by name.
pub const SETTINGS: &[Setting<Settings>] = &[
    Setting {
        name: "advertised.listeners",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "The address that clients are told to connect to, `PLAINTEXT://host:port`; empty for that of kafka.listen. \
              It must be one that clients can reach from where they are.",
        get: |it| {
            it.advertised
                .as_ref()
                .map_or_else(String::new, listener_text)
        },
        set: |it, value| {
            it.advertised = advertised(value)?;
            Ok(())
        },
    },
    Setting {
        name: "kafka.listen",
        kind: Kind::String,
        default: "127.0.0.1:9092",
        is_live: false,
        doc: "Where the Kafka protocol listens, `host:port`; port 0 picks one.",
        get: |it| it.listen.clone(),
        set: |it, value| {
            it.listen = address(value)?;
            Ok(())
        },
    },
    Setting {
        name: "max.connections",
        kind: Kind::Int,
        default: "50000",
        is_live: true,
        doc: "Connections at a time at most. A further one is let in when another is silent for a second or idle for \
              ten, which is then closed; else it waits. Fewer if the limit of open files allows no more: the server \
              logs how many at its start. When it is lowered while the server runs, \
              those that are silent or idle are closed until it holds. 1 or more.",
        get: |it| it.limits.connections_max.to_string(),
        set: |it, value| {
            it.limits.connections_max = size(value, 1..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "max.connections.per.ip",
        kind: Kind::Int,
        default: "2147483647",
        is_live: true,
        doc: "Connections to the Kafka port from one address at a time at most; a further one is closed at once. 1 or more.",
        get: |it| it.limits.per_address_max.to_string(),
        set: |it, value| {
            it.limits.per_address_max = size(value, 1..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "queued.max.request.bytes",
        kind: Kind::Long,
        default: "268435456",
        is_live: false,
        doc: "Bytes of requests, all connections together, that are being received or worked on; beyond it connections \
              are not read, and those that hold much and send little are closed. No less than twice \
              socket.request.max.bytes and 8.",
        get: |it| it.queued_request_bytes_max.to_string(),
        set: |it, value| {
            it.queued_request_bytes_max = size(value, 1 << 20..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "queued.max.response.bytes",
        kind: Kind::Long,
        default: "268435456",
        is_live: false,
        doc: "Bytes of answers, all connections together, that are being made or sent, records not counted; beyond it \
              answers wait, and connections that hold much and take little are closed. No less than twice \
              socket.response.max.bytes and 8.",
        get: |it| it.queued_response_bytes_max.to_string(),
        set: |it, value| {
            it.queued_response_bytes_max = size(value, 1 << 20..=SIZE_MAX)?;
            Ok(())
        },
    },
    Setting {
        name: "response.send.max.ms",
        kind: Kind::Long,
        default: "120000",
        is_live: false,
        doc: "A connection whose peer has not taken a whole answer after this many milliseconds is closed; until then \
              the answer holds memory, or the disk space of segments that were deleted meanwhile. 1000 or more.",
        get: |it| text_of_millis(it.response_send_max),
        set: |it, value| {
            it.response_send_max = millis(value, 1000)?;
            Ok(())
        },
    },
    Setting {
        name: "socket.request.max.bytes",
        kind: Kind::Int,
        default: "104857600",
        is_live: false,
        doc: "The longest request; a longer one closes its connection. 1024 to 1 GiB.",
        get: |it| it.request_bytes_max.to_string(),
        set: |it, value| {
            it.request_bytes_max = size(value, 1024..=1 << 30)?;
            Ok(())
        },
    },
    Setting {
        name: "socket.response.max.bytes",
        kind: Kind::Int,
        default: "104857600",
        is_live: false,
        doc: "The longest answer, records not counted; what would be in it beyond that is refused with \
              POLICY_VIOLATION. 1 MiB to 1 GiB.",
        get: |it| it.response_bytes_max.to_string(),
        set: |it, value| {
            it.response_bytes_max = size(value, 1 << 20..=1 << 30)?;
            Ok(())
        },
    },
];

/// Whether this host, as it stands before a port, means every address of the machine.
pub(crate) fn is_every_address(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse()
        .is_ok_and(|address: IpAddr| address.is_unspecified())
}

fn advertised(value: &str) -> Result<Option<(String, u16)>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let value = value
        .strip_prefix("PLAINTEXT://")
        .ok_or("must be PLAINTEXT://host:port")?;
    let (host, port) = value
        .rsplit_once(':')
        .ok_or("must be PLAINTEXT://host:port")?;
    let port = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or("must end in a port from 1 to 65535")?;
    // Clients are given an IPv6 address without its brackets, as by Kafka.
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bracketed.unwrap_or(host);
    if host.is_empty() || is_every_address(host) {
        return Err(
            "clients cannot connect to that: give a name or address that they can reach".to_owned(),
        );
    }
    Ok(Some((host.to_owned(), port)))
}

fn listener_text((host, port): &(String, u16)) -> String {
    match host.contains(':') {
        true => format!("PLAINTEXT://[{host}]:{port}"),
        false => format!("PLAINTEXT://{host}:{port}"),
    }
}
