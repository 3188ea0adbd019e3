//! The one configuration: TOML, then the environment, then flags and `-X KEY=VALUE`; the last one that speaks counts.
//!
//! Callers: `main` and `serve`. Keys are Kafka's own where Kafka has one. Every key is a row of the one table (or one of the
//! topic defaults in `model::topic_config`), is parsed and range-checked by that row, and goes into the typed configuration
//! that the parts are started with: a key that nothing reads cannot be written down. Unknown keys are refused. The table is
//! put together of sections that each part brings (`table`); the reference page and what clients see come from it too.

mod exposure;
mod live;
mod reference;
mod refusal;
mod sources;
mod storage;
mod table;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use ::storage::StorageConfig;
use model::sasl::SaslMechanism;
use model::topic_config::{self, Setting as TopicSetting};

use crate::broker::BrokerConfig;
use crate::front::listener::{Tls, TlsError};
use crate::front::{self, amqp, http, kafka, mqtt};

pub use exposure::Exposed;
pub use reference::{reference, settings};
pub use refusal::{ConfigError, Origin, Place};
use sources::Given;
use table::SMALL_WAL;
pub use values::Config;

/// The topic default whose bound is the store's.
const MESSAGE_MAX_BYTES: &str = "message.max.bytes";

const LISTENERS: &str = "listeners";
const KAFKA_LISTEN: &str = "kafka.listen";
const MECHANISMS: &str = "sasl.enabled.mechanisms";

/// Its bound is the store's too.
const GROUP_MAX_BYTES: &str = "group.max.bytes";

/// What is given on the command line and in the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Variables of the environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags, in order.
    pub flags: Vec<(String, String)>,
}

/// One setting as it is in force.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Shown {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Who set it.
    pub origin: String,
}

impl Config {
    fn defaults() -> Config {
        let mut config = Config {
            front: front::Settings::default(),
            kafka: kafka::Settings::default(),
            http: http::Settings::default(),
            mqtt: mqtt::Settings::default(),
            amqp: amqp::Settings::default(),
            broker: BrokerConfig::default(),
            storage: StorageConfig::new("data"),
            store_create: true,
            insecure: false,
            wal_is_small: false,
            ignored_variables: Vec::new(),
            origins: BTreeMap::new(),
        };
        for row in table::rows() {
            row.set(&mut config, row.default)
                .expect("a setting's default is valid");
        }
        config
    }

    /// Reads all sources.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let mut config = Config::defaults();
        if let Some(path) = &sources.file {
            config.set_all(sources::of_file(path)?)?;
        }
        let environment = sources::of_environment(&sources.environment, is_known)?;
        config.ignored_variables = environment.ignored;
        config.set_all(environment.given)?;
        for (key, value) in &sources.flags {
            config.set(key, value, Place::Flag)?;
        }
        if config.wal_is_small {
            for (key, value) in SMALL_WAL {
                if !config.is_set(key) {
                    config.set(key, value, Place::Profile)?;
                }
            }
        }
        config.check()?;
        Ok(config)
    }

    fn set_all(&mut self, all: Vec<Given>) -> Result<(), ConfigError> {
        all.into_iter()
            .try_for_each(|given| self.set(&given.key, &given.value, given.place))
    }

    fn set(&mut self, key: &str, value: &str, place: Place) -> Result<(), ConfigError> {
        let invalid = |reason: String| ConfigError::Invalid {
            key: key.to_owned(),
            value: value.to_owned(),
            reason,
            place: place.clone(),
        };
        if let Some(row) = table::find(key) {
            row.set(self, value).map_err(invalid)?;
        } else if TopicSetting::find_by_server_name(key).is_some() {
            self.broker
                .topic_defaults
                .set(key, value)
                .map_err(|error| invalid(error.reason))?;
        } else {
            let key = key.to_owned();
            let suggestion = close_name(&key);
            return Err(ConfigError::Unknown {
                key,
                suggestion,
                place,
            });
        }
        self.origins
            .insert(key.to_owned(), (place, value.to_owned()));
        Ok(())
    }

    /// Whether settings that bound each other fit together.
    fn check(&self) -> Result<(), ConfigError> {
        self.check_listeners()?;
        self.check_wal()?;
        self.check_queues()?;
        self.check_groups()?;
        self.check_exposure()
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        if self.is_set(LISTENERS) && self.is_set(KAFKA_LISTEN) {
            let reason = format!(
                "{KAFKA_LISTEN} is set too, and says the same of one listener: leave one of them out"
            );
            return Err(self.conflict(LISTENERS, reason));
        }
        let listeners = self
            .kafka
            .all_listeners()
            .map_err(|(key, reason)| self.conflict(key, reason))?;
        let mut asking = listeners.iter().filter(|it| it.protocol.is_sasl());
        match asking.next() {
            Some(listener) if self.front.sasl.mechanisms.is_empty() => {
                let (name, protocol) = (&listener.name, listener.protocol);
                let reason = format!(
                    "must say by what the clients of the listener {name} log in, which is {protocol}"
                );
                Err(self.conflict(MECHANISMS, reason))
            }
            _ if self
                .front
                .sasl
                .mechanisms
                .contains(&SaslMechanism::OauthBearer)
                && self.broker.jwt.jwks.is_none() =>
            {
                let reason =
                    "OAUTHBEARER needs sasl.oauthbearer.jwks.endpoint.url: who signs tokens";
                Err(self.conflict(MECHANISMS, reason.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// What encrypts listeners; None if none is encrypted. Reads the files: blocks on the disk.
    pub fn open_tls(&self) -> Result<Option<Arc<Tls>>, TlsError> {
        match self.is_encrypted() {
            true => Tls::open(&self.front.tls).map(Some),
            false => Ok(None),
        }
    }

    /// Whether a listener is encrypted.
    fn is_encrypted(&self) -> bool {
        let kafka = self.kafka.all_listeners().unwrap_or_default();
        kafka
            .iter()
            .any(|listener| listener.protocol.is_encrypted())
            || self
                .http
                .listen
                .iter()
                .any(|listener| listener.is_encrypted)
            || self
                .mqtt
                .listen
                .iter()
                .any(|listener| listener.is_encrypted)
            || self
                .amqp
                .listen
                .iter()
                .any(|listener| listener.is_encrypted)
    }

    fn check_wal(&self) -> Result<(), ConfigError> {
        let (least, most) = (self.storage.wal_files_min, self.storage.wal_files_max);
        if most < least {
            let reason = format!("must be no less than wal.files.min, which is {least}");
            return Err(self.conflict("wal.files.max", reason));
        }
        let most = self.storage.batch_bytes_max();
        let larger = self
            .origins
            .get(MESSAGE_MAX_BYTES)
            .and_then(|(_, value)| value.trim().parse::<u64>().ok())
            .is_some_and(|bytes| bytes > most);
        if larger {
            let reason = format!("must be no more than {most}, half of wal.file.bytes");
            return Err(self.conflict(MESSAGE_MAX_BYTES, reason));
        }
        Ok(())
    }

    fn check_queues(&self) -> Result<(), ConfigError> {
        let kafka = &self.kafka;
        for (all, all_max, one, one_max) in [
            (
                "queued.max.request.bytes",
                kafka.queued_request_bytes_max,
                "socket.request.max.bytes",
                kafka.request_bytes_max,
            ),
            (
                "queued.max.response.bytes",
                kafka.queued_response_bytes_max,
                "socket.response.max.bytes",
                kafka.response_bytes_max,
            ),
        ] {
            // A frame's length field is held with it.
            if all_max < 2 * (one_max + 4) {
                let reason =
                    format!("must be no less than twice {one}, which is {one_max}, and 8 bytes");
                return Err(self.conflict(all, reason));
            }
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), ConfigError> {
        let groups = &self.broker.groups;
        let most = crate::broker::group_bytes_max(self.storage.batch_bytes_max());
        if self.is_set(GROUP_MAX_BYTES) && groups.bytes_max > most {
            let reason = format!("must be no more than {most}, about a quarter of wal.file.bytes");
            return Err(self.conflict(GROUP_MAX_BYTES, reason));
        }
        let (least, most) = (groups.session_timeout_min, groups.session_timeout_max);
        if most < least {
            let least = least.as_millis();
            let reason =
                format!("must be no less than group.min.session.timeout.ms, which is {least}");
            return Err(self.conflict("group.max.session.timeout.ms", reason));
        }
        Ok(())
    }

    fn conflict(&self, key: &str, reason: String) -> ConfigError {
        let (place, value) = self
            .origins
            .get(key)
            .cloned()
            .unwrap_or((Place::Default, String::new()));
        ConfigError::Invalid {
            key: key.to_owned(),
            value,
            reason,
            place,
        }
    }

    /// Whether somebody set this, wherever.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// What is allowed and most likely not meant: a sentence each. With all defaults there is none.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let set = if self.is_set(LISTENERS) {
            LISTENERS
        } else {
            KAFKA_LISTEN
        };
        for listener in self.kafka.all_listeners().unwrap_or_default() {
            let host = listener.address.rsplit_once(':').map_or("", |it| it.0);
            if listener.advertised.is_none() && kafka::is_every_address(host) {
                warnings.push(unreachable(set, &listener.name));
            }
        }
        let listeners = self.kafka.all_listeners().unwrap_or_default();
        let asks = listeners.iter().any(|it| it.protocol.is_sasl());
        if !asks && !self.front.sasl.mechanisms.is_empty() {
            warnings.push(format!(
                "{MECHANISMS} is set, and no listener asks its clients to log in: those whose protocol is SASL_PLAINTEXT or SASL_SSL do"
            ));
        }
        if self.broker.jwt.jwks.is_some() && self.broker.jwt.audiences.is_empty() {
            warnings.push(
                "sasl.oauthbearer.expected.audience is not set: tokens that were made for other services let in here too"
                    .to_owned(),
            );
        }
        if !self.is_encrypted() {
            let files = [
                "ssl.keystore.location",
                "ssl.key.location",
                "ssl.truststore.location",
            ];
            let set = files.into_iter().find(|key| self.is_set(key));
            warnings.extend(set.map(|key| format!("{key} is set, and no listener is encrypted")));
        }
        warnings.extend(self.exposure_warning());
        warnings
    }

    /// Every setting as it is in force, by name.
    pub fn show(&self) -> Vec<Shown> {
        let shown = |key: &str, default: &str| {
            let (place, value) = self
                .origins
                .get(key)
                .cloned()
                .unwrap_or_else(|| (Place::Default, default.to_owned()));
            Shown {
                key: key.to_owned(),
                value,
                origin: place.origin().to_string(),
            }
        };
        let mut all: Vec<Shown> = table::rows()
            .iter()
            .map(|row| shown(row.name, row.default))
            .collect();
        all.extend(topic_defaults().map(|setting| shown(setting.server_name, setting.default)));
        all.sort_by(|one, other| one.key.cmp(&other.key));
        all
    }
}

/// The commonest first mistake, with the way out.
fn unreachable(set: &str, name: &str) -> String {
    format!(
        "{set} is every address of this machine, and advertised.listeners is not set: clients on other machines will be told to \
         connect to 127.0.0.1, which is their own machine. Set advertised.listeners={name}://NAME:PORT, with a name or address \
         that clients can reach"
    )
}

fn is_known(key: &str) -> bool {
    names().any(|name| name == key)
}

fn topic_defaults() -> impl Iterator<Item = &'static TopicSetting> {
    topic_config::SETTINGS
        .iter()
        .filter(|setting| !setting.server_name.is_empty())
}

fn names() -> impl Iterator<Item = &'static str> {
    let own = table::rows().iter().map(|row| row.name);
    own.chain(topic_defaults().map(|setting| setting.server_name))
}

/// A setting that may have been meant.
fn close_name(key: &str) -> Option<String> {
    names()
        .map(|name| (strsim::jaro_winkler(name, key), name))
        .filter(|(score, _)| *score > 0.85)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests;
