//! The settings of the MQTT front.

use std::fmt;
use std::time::Duration;

use super::routes::Routes;
use crate::broker::allowance::{Allowance, Limit};
use crate::front::listener::joined;
use crate::setting::{Kind, Setting, address, number, size};

/// What the front is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `mqtt.listen`: where it listens; nowhere if it is empty.
    pub listen: Vec<MqttListen>,
    /// `mqtt.connections.max`: connections at a time.
    pub connections_max: usize,
    /// `mqtt.packet.bytes.max`: the longest packet.
    pub packet_bytes_max: usize,
    /// `mqtt.keepalive.max.seconds`: the longest keep alive.
    pub keep_alive_max_seconds: u16,
    /// `mqtt.retained.bytes.max`: what retained messages hold in memory.
    pub retained_bytes_max: u64,
    /// `mqtt.retained.bytes.per.principal.max`: what those of one principal hold.
    pub retained_bytes_of_one_max: u64,
    /// `mqtt.route`: where messages go.
    pub(super) routes: Routes,
    /// `mqtt.session.expiry.max.ms`: how long a session outlives its connection at most.
    pub session_expiry_max_ms: u64,
    /// `mqtt.sessions.max`: sessions that are kept.
    pub sessions_max: u64,
    /// `mqtt.sessions.per.principal.max`: of one principal.
    pub sessions_of_one_max: u64,
    /// `mqtt.sessions.bytes.max`: what they hold in memory.
    pub session_bytes_max: u64,
    /// `mqtt.sessions.bytes.per.principal.max`: what those of one principal hold.
    pub session_bytes_of_one_max: u64,
    /// `mqtt.will.grace.ms`: how long clients have to come back after the server was killed.
    pub will_grace_ms: u64,
}

impl Settings {
    /// How long a session outlives its connection at most, in whole seconds.
    pub fn session_expiry_max_seconds(&self) -> u32 {
        // Its bound is a u32's.
        u32::try_from(self.session_expiry_max_ms / 1_000).unwrap_or(u32::MAX)
    }

    /// How many sessions are kept, and what they may hold.
    pub(super) fn sessions_allowed(&self) -> (Allowance, Allowance) {
        let count = Allowance {
            all: limit("mqtt.sessions.max", self.sessions_max),
            of_one: limit("mqtt.sessions.per.principal.max", self.sessions_of_one_max),
        };
        let of_one = limit(
            "mqtt.sessions.bytes.per.principal.max",
            self.session_bytes_of_one_max,
        );
        let bytes = Allowance {
            all: limit("mqtt.sessions.bytes.max", self.session_bytes_max),
            of_one,
        };
        (count, bytes)
    }

    /// What retained messages may hold.
    pub(super) fn retained_allowed(&self) -> Allowance {
        let of_one = limit(
            "mqtt.retained.bytes.per.principal.max",
            self.retained_bytes_of_one_max,
        );
        Allowance {
            all: limit("mqtt.retained.bytes.max", self.retained_bytes_max),
            of_one,
        }
    }

    /// How long clients have to come back after the server was killed.
    pub fn will_grace(&self) -> Duration {
        Duration::from_millis(self.will_grace_ms)
    }
}

fn limit(setting: &'static str, max: u64) -> Limit {
    Limit { setting, max }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: vec![MqttListen {
                address: DEFAULT.to_owned(),
                is_encrypted: false,
            }],
            connections_max: 100_000,
            packet_bytes_max: 1 << 20,
            keep_alive_max_seconds: 300,
            retained_bytes_max: 256 << 20,
            retained_bytes_of_one_max: 64 << 20,
            routes: Routes::default(),
            session_expiry_max_ms: 7 * 24 * 3_600_000,
            sessions_max: 1_000_000,
            sessions_of_one_max: 250_000,
            session_bytes_max: 1 << 30,
            session_bytes_of_one_max: 256 << 20,
            will_grace_ms: 30_000,
        }
    }
}

/// An address that MQTT is served on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttListen {
    /// `host:port`.
    pub address: String,
    /// Whether connections are encrypted.
    pub is_encrypted: bool,
}

impl fmt::Display for MqttListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { ENCRYPTED } else { "" };
        write!(f, "{scheme}{}", self.address)
    }
}

/// What stands before an address that is encrypted.
const ENCRYPTED: &str = "mqtts://";
/// Where it listens if nothing is said: this machine alone reaches it.
const DEFAULT: &str = "127.0.0.1:1883";
/// What stands for no address.
const OFF: &str = "off";

/// Where it is to listen, as the setting shows it.
pub fn joined_listens(settings: &Settings) -> String {
    match settings.listen.is_empty() {
        true => OFF.to_owned(),
        false => joined(&settings.listen),
    }
}

fn listens(value: &str) -> Result<Vec<MqttListen>, String> {
    if value.trim() == OFF {
        return Ok(Vec::new());
    }
    let entries = value.split(',').map(str::trim).filter(|it| !it.is_empty());
    let all: Result<Vec<MqttListen>, String> = entries
        .map(|entry| {
            let encrypted = entry.strip_prefix(ENCRYPTED);
            let plain = entry.strip_prefix("mqtt://").unwrap_or(entry);
            let address = address(encrypted.unwrap_or(plain))?;
            if address.contains('/') {
                return Err(format!("{entry} must be host:port or mqtts://host:port"));
            }
            Ok(MqttListen {
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
        name: "mqtt.connections.max",
        kind: Kind::Int,
        default: "100000",
        is_live: false,
        doc: "MQTT connections at a time at most, as far as the limit of open files allows; 16 or more. One of sixteen is kept \
              for those that have not connected as a client yet.",
        get: |it| it.connections_max.to_string(),
        set: |it, value| {
            it.connections_max = size(value, 16..=10_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.keepalive.max.seconds",
        kind: Kind::Int,
        default: "300",
        is_live: false,
        doc: "The longest keep alive, in seconds; 10 to 65535. A client of MQTT 5 that asks for a longer one, or for none, gets \
              this one. A client that is silent for one and a half times its keep alive is disconnected.",
        get: |it| it.keep_alive_max_seconds.to_string(),
        set: |it, value| {
            let seconds = size(value, 10..=u64::from(u16::MAX))?;
            it.keep_alive_max_seconds =
                u16::try_from(seconds).map_err(|error| error.to_string())?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.listen",
        kind: Kind::List,
        default: DEFAULT,
        is_live: false,
        doc: "Where MQTT 3.1.1 and 5 is served, `host:port`, with commas between several; port 0 picks one. `mqtts://host:port` is \
              encrypted (ssl.keystore.location). `off` serves none, nor /mqtt on the HTTP port. A default port that another server \
              has is not served, with a warning.",
        get: joined_listens,
        set: |it, value| {
            it.listen = listens(value)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.packet.bytes.max",
        kind: Kind::Int,
        default: "1048576",
        is_live: false,
        doc: "The longest MQTT packet that is taken, its fixed header included; 65536 to 16777216. MQTT 5 clients are told. Before \
              a client has connected its packet has 65536 bytes at most.",
        get: |it| it.packet_bytes_max.to_string(),
        set: |it, value| {
            it.packet_bytes_max = size(value, 65_536..=16 << 20)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.retained.bytes.max",
        kind: Kind::Int,
        default: "268435456",
        is_live: false,
        doc: "What all retained MQTT messages may hold in memory, with some 200 bytes for each; 0 or more. A message that is to be \
              retained beyond it is refused.",
        get: |it| it.retained_bytes_max.to_string(),
        set: |it, value| {
            it.retained_bytes_max = number(value, 0..=1 << 40)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.retained.bytes.per.principal.max",
        kind: Kind::Long,
        default: "67108864",
        is_live: false,
        doc: "What the retained MQTT messages of one principal may hold in memory, where access is controlled: a message is on the \
              account of who published it. One that is to be retained beyond it is refused. 0 or more.",
        get: |it| it.retained_bytes_of_one_max.to_string(),
        set: |it, value| {
            it.retained_bytes_of_one_max = number(value, 0..=1 << 40)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.route",
        kind: Kind::String,
        default: "[]",
        is_live: false,
        doc: "Which Kafka topic MQTT messages go to: in a file one table `[[mqtt.route]]` for each route, elsewhere a JSON \
              array of the same. `filter` is a topic filter in which `{name}` is a `+` that has a name; `topic` the Kafka \
              topic; `key` the record's key, text with `{name}` or `{topic}`, the whole topic, which is the default; \
              `partitions` how many the topic gets when it is made, 1 to 10000, 16 by default. The first route that matches \
              takes a message; what none takes goes to the topic `mqtt`. 64 at most.",
        get: |it| it.routes.text(),
        set: |it, value| {
            it.routes = Routes::parse(value)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.session.expiry.max.ms",
        kind: Kind::Int,
        default: "604800000",
        is_live: false,
        doc: "How long an MQTT session outlives its connection at most, in milliseconds; 1000 to 4294967295000. A client of MQTT 5 that \
              asks for more is told, and one of 3.1.1 that connects without a clean session gets this.",
        get: |it| it.session_expiry_max_ms.to_string(),
        set: |it, value| {
            let millis = size(value, 1_000..=u64::from(u32::MAX) * 1_000)?;
            it.session_expiry_max_ms = millis as u64;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.sessions.bytes.max",
        kind: Kind::Long,
        default: "1073741824",
        is_live: false,
        doc: "What all MQTT sessions that are kept may hold in memory: subscriptions, wills, places in the log, and some 500 bytes for \
              each. A client whose session would go beyond it is refused, and so is a subscription. 1 MiB or more.",
        get: |it| it.session_bytes_max.to_string(),
        set: |it, value| {
            it.session_bytes_max = number(value, 1 << 20..=1 << 40)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.sessions.bytes.per.principal.max",
        kind: Kind::Long,
        default: "268435456",
        is_live: false,
        doc: "What the MQTT sessions of one principal that are kept may hold in memory, where access is controlled. What would go beyond \
              it is refused. 1 MiB or more.",
        get: |it| it.session_bytes_of_one_max.to_string(),
        set: |it, value| {
            it.session_bytes_of_one_max = number(value, 1 << 20..=1 << 40)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.sessions.max",
        kind: Kind::Int,
        default: "1000000",
        is_live: false,
        doc: "MQTT sessions at most that outlive their connection, or have a will; 0 or more. A client that would be one more is refused.",
        get: |it| it.sessions_max.to_string(),
        set: |it, value| {
            it.sessions_max = number(value, 0..=100_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.sessions.per.principal.max",
        kind: Kind::Int,
        default: "250000",
        is_live: false,
        doc: "MQTT sessions of one principal at most that outlive their connection, or have a will, where access is controlled. A client \
              that would be one more is refused. 0 or more.",
        get: |it| it.sessions_of_one_max.to_string(),
        set: |it, value| {
            it.sessions_of_one_max = number(value, 0..=100_000_000)?;
            Ok(())
        },
    },
    Setting {
        name: "mqtt.will.grace.ms",
        kind: Kind::Int,
        default: "30000",
        is_live: false,
        doc: "How long MQTT clients have to connect again after the server was killed, before their sessions end and their wills are \
              published, if those would sooner; 0 to 86400000.",
        get: |it| it.will_grace_ms.to_string(),
        set: |it, value| {
            it.will_grace_ms = number(value, 0..=86_400_000)?;
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
            ("127.0.0.1:1883", "127.0.0.1:1883"),
            (
                "mqtt://[::1]:1883, mqtts://0.0.0.0:8883",
                "[::1]:1883,mqtts://0.0.0.0:8883",
            ),
        ] {
            let mut settings = Settings::default();
            let row = SETTINGS.iter().find(|row| row.name == "mqtt.listen");
            let row = row.expect("such a row");
            (row.set)(&mut settings, value).expect("a good value");
            assert_eq!((row.get)(&settings), shown);
        }
        for bad in ["", "1883", "http://a:1", "mqtts://a:1/x", "off,a:1"] {
            assert!(listens(bad).is_err(), "{bad}");
        }
    }
}
