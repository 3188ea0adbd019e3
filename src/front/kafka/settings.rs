//! The settings of the Kafka front.

use std::net::IpAddr;
use std::time::Duration;

use crate::front::Limits;
use crate::front::listener::{Named, SecurityProtocol, joined, listener_name};
use crate::setting::{Kind, SIZE_MAX, Setting, address, millis, size, text_of_millis};

/// What the front is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `kafka.listen`: where it listens, `host:port`.
    pub listen: String,
    /// `listeners`: where it listens, instead of that, if it is not empty.
    pub listeners: Vec<Named>,
    /// `advertised.listeners`: where clients of these listeners are told to connect; of others, where they listen.
    pub advertised: Vec<Named>,
    /// `listener.security.protocol.map`: how the listeners of these names are protected.
    pub protocols: Vec<(String, SecurityProtocol)>,
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
            listeners: Vec::new(),
            advertised: Vec::new(),
            protocols: Vec::new(),
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

/// A listener as it is to be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Its name, in capitals.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// How its connections are protected.
    pub protocol: SecurityProtocol,
    /// The host and port that its clients are told to connect to; None for where it listens.
    pub advertised: Option<(String, u16)>,
}

/// The setting that is wrong, and why.
pub type Conflict = (&'static str, String);

impl Settings {
    /// All listeners, by `listeners` or else by `kafka.listen`, whose listener has the name PLAINTEXT.
    pub fn all_listeners(&self) -> Result<Vec<Listen>, Conflict> {
        let all = match self.listeners.as_slice() {
            [] => vec![(
                SecurityProtocol::Plaintext.name().to_owned(),
                self.listen.clone(),
            )],
            named => named
                .iter()
                .map(|named| (named.name.clone(), named.address()))
                .collect(),
        };
        let unknown = |it: &&Named| !all.iter().any(|(name, _)| *name == it.name);
        if let Some(advertised) = self.advertised.iter().find(unknown) {
            let reason = format!("there is no listener {} in listeners", advertised.name);
            return Err(("advertised.listeners", reason));
        }
        all.into_iter()
            .map(|(name, address)| self.listener(name, address))
            .collect()
    }

    fn listener(&self, name: String, address: String) -> Result<Listen, Conflict> {
        let map = "listener.security.protocol.map";
        let found = self.protocols.iter().find(|(known, _)| *known == name);
        let Some((_, protocol)) = found.cloned() else {
            return Err((
                map,
                format!("must say how the listener {name} is protected"),
            ));
        };
        let advertised = self.advertised.iter().find(|it| it.name == name);
        Ok(Listen {
            advertised: advertised.map(|it| (it.host.clone(), it.port)),
            name,
            address,
            protocol,
        })
    }
}

/// All of them, by name.
pub const SETTINGS: &[Setting<Settings>] = &[
    Setting {
        name: "advertised.listeners",
        kind: Kind::List,
        default: "",
        is_live: false,
        doc: "The addresses that clients are told to connect to, `NAME://host:port` with commas between them, each by the name \
              of a listener, which is PLAINTEXT for kafka.listen. A listener without one gives where it listens. They must be \
              addresses that clients can reach from where they are.",
        get: |it| joined(&it.advertised),
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
        doc: "Where the Kafka protocol listens, `host:port`; port 0 picks one. For several listeners, or one that is \
              encrypted, there is listeners.",
        get: |it| it.listen.clone(),
        set: |it, value| {
            it.listen = address(value)?;
            Ok(())
        },
    },
    Setting {
        name: "listener.security.protocol.map",
        kind: Kind::String,
        default: "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        is_live: false,
        doc: "How the listeners of each name are protected, `NAME:PROTOCOL` with commas between them: PLAINTEXT not at all, \
              SSL by TLS (ssl.keystore.location), SASL_PLAINTEXT by a login (sasl.enabled.mechanisms), SASL_SSL by both.",
        get: |it| protocols_text(&it.protocols),
        set: |it, value| {
            it.protocols = protocols(value)?;
            Ok(())
        },
    },
    Setting {
        name: "listeners",
        kind: Kind::List,
        default: "",
        is_live: false,
        doc: "Where the Kafka protocol listens, `NAME://host:port` with commas between them, as in \
              `PLAINTEXT://127.0.0.1:9092,SSL://:9093`; an empty host is every address of the machine, and port 0 picks one. \
              Each listener answers with its own address of advertised.listeners. Instead of kafka.listen.",
        get: |it| joined(&it.listeners),
        set: |it, value| {
            it.listeners = Named::parse_list(value)?;
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

fn advertised(value: &str) -> Result<Vec<Named>, String> {
    let all = Named::parse_list(value)?;
    for named in &all {
        if named.port == 0 {
            return Err(format!("{named} must end in a port from 1 to 65535"));
        }
        // IPv6's own "every address" may have lost a colon to the port.
        if named.host.is_empty() || named.host == ":" || is_every_address(&named.host) {
            return Err(format!(
                "clients cannot connect to {named}: give a name or address that they can reach"
            ));
        }
    }
    Ok(all)
}

fn protocols(value: &str) -> Result<Vec<(String, SecurityProtocol)>, String> {
    let mut all: Vec<(String, SecurityProtocol)> = Vec::new();
    for entry in value.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (name, protocol) = entry
            .split_once(':')
            .ok_or_else(|| format!("{entry:?} must be NAME:PROTOCOL"))?;
        let name = listener_name(name.trim())?;
        if all.iter().any(|(other, _)| *other == name) {
            return Err(format!("{name} is named twice"));
        }
        all.push((name, protocol.trim().parse()?));
    }
    Ok(all)
}

fn protocols_text(all: &[(String, SecurityProtocol)]) -> String {
    let all: Vec<String> = all
        .iter()
        .map(|(name, protocol)| format!("{name}:{protocol}"))
        .collect();
    all.join(",")
}
