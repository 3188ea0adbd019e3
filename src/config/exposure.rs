//! Exposure: a server that others than its machine can reach, and on which nobody's access is controlled, does not start unless it is
//! told to.
//! Callers: `Config`, for addresses as they are written; `serve`, for those that are bound, since a name may be any address.

use std::net::IpAddr;

use super::refusal::ConfigError;
use super::{Config, KAFKA_LISTEN, LISTENERS};
use crate::broker::access::Authorizer;

const HTTP_LISTEN: &str = "http.listen";
const MQTT_LISTEN: &str = "mqtt.listen";
const AMQP_LISTEN: &str = "amqp.listen";

/// An address that others can reach, though access is not controlled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "others can reach {address}, and access is not controlled: whoever does may read, write and delete everything. Three lines set \
     it up:\n  \
     alluvium access init access --host NAME\n  \
     alluvium serve --config access/server.toml --data DIR\n  \
     alluvium topic list -b NAME:9092 -X security.protocol=SSL -X ssl.truststore.location=access/ca.pem \
     -X ssl.keystore.location=access/admin.pem\n\
     In a network where everybody is trusted, --insecure (or insecure=true) serves it as it is."
)]
pub struct Exposed {
    /// Where it listens.
    pub address: String,
}

impl Config {
    /// Whether everybody who reaches the server may do everything, without having been told so.
    fn is_guarded(&self) -> bool {
        self.insecure || self.controls_access()
    }

    fn controls_access(&self) -> bool {
        self.broker.access.authorizer != Authorizer::None
    }

    /// Refuses an address that is written as one that others can reach.
    pub(super) fn check_exposure(&self) -> Result<(), ConfigError> {
        match self.open_addresses().next() {
            Some((key, address)) if !self.is_guarded() => {
                Err(self.conflict(key, Exposed { address }.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a bound address that others can reach.
    pub fn check_bound(&self, bound: impl IntoIterator<Item = IpAddr>) -> Result<(), Exposed> {
        let mut open = bound.into_iter().filter(|address| !is_own(*address));
        match open.next() {
            Some(address) if !self.is_guarded() => Err(Exposed {
                address: address.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// That the server is served as it is, though others can reach it.
    pub(super) fn exposure_warning(&self) -> Option<String> {
        if !self.insecure || self.controls_access() {
            return None;
        }
        let (key, address) = self.open_addresses().next()?;
        Some(format!(
            "insecure: others can reach {address} ({key}), and access is not controlled: whoever does may read, write and delete \
             everything"
        ))
    }

    /// Addresses as they are written that are others' than this machine's own, each with its setting. Of a name that is known when
    /// it is bound.
    fn open_addresses(&self) -> impl Iterator<Item = (&'static str, String)> {
        let kafka = match self.is_set(LISTENERS) {
            true => LISTENERS,
            false => KAFKA_LISTEN,
        };
        let listeners = self.kafka.all_listeners().unwrap_or_default();
        let listeners = listeners.into_iter().map(move |it| (kafka, it.address));
        let http = self.http.listen.iter();
        let http = http.map(|it| (HTTP_LISTEN, it.address.clone()));
        let mqtt = self.mqtt.listen.iter();
        let mqtt = mqtt.map(|it| (MQTT_LISTEN, it.address.clone()));
        let amqp = self.amqp.listen.iter();
        let amqp = amqp.map(|it| (AMQP_LISTEN, it.address.clone()));
        let all = listeners.chain(http).chain(mqtt).chain(amqp);
        all.filter(|(_, address)| {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse().is_ok_and(|address| !is_own(address))
        })
    }
}

/// Whether only this machine reaches an address.
fn is_own(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    fn load(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags = settings.iter();
        Config::load(&Sources {
            flags: flags
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sources::default()
        })
    }

    #[test]
    fn an_address_that_others_reach_needs_access_control_or_to_be_told() {
        let kafka = ("kafka.listen", "0.0.0.0:9092");
        for open in [
            kafka,
            ("kafka.listen", "[::]:9092"),
            ("kafka.listen", "10.0.0.7:9092"),
            ("listeners", "PLAINTEXT://:9092"),
            ("listeners", "PLAINTEXT://127.0.0.1:9092,SSL://0.0.0.0:9093"),
            ("http.listen", "0.0.0.0:8080"),
            ("http.listen", "127.0.0.1:8080,https://[fd00::1]:8443"),
            ("mqtt.listen", "mqtts://0.0.0.0:8883"),
            ("amqp.listen", "0.0.0.0:5672"),
        ] {
            let refused = load(&[open]).expect_err("it is refused").to_string();
            assert!(refused.contains("alluvium access init"), "{refused}");
            assert!(refused.contains(open.0), "{refused}");
            let told = load(&[open, ("insecure", "true")]).expect("it was told to");
            assert!(told.exposure_warning().expect("a warning").contains(open.0));
            let controlled = load(&[
                open,
                (
                    "authorizer.class.name",
                    "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                ),
            ]);
            assert_eq!(
                controlled.expect("access is controlled").exposure_warning(),
                None
            );
        }
    }

    #[test]
    fn loopback_is_as_it_was() {
        for own in [
            ("kafka.listen", "127.0.0.1:9092"),
            ("kafka.listen", "127.8.0.1:9092"),
            ("kafka.listen", "[::1]:9092"),
            ("kafka.listen", "[::ffff:127.0.0.1]:9092"),
            ("kafka.listen", "localhost:9092"),
            ("http.listen", "localhost:8080"),
        ] {
            let config = load(&[own]).expect("it starts");
            assert_eq!(config.exposure_warning(), None);
        }
        let config = load(&[("insecure", "true")]).expect("it starts");
        assert_eq!(config.exposure_warning(), None, "nobody can reach it");
    }

    #[test]
    fn a_name_is_looked_at_when_it_is_bound() {
        let config = load(&[("kafka.listen", "store.example:9092")]).expect("it may be loopback");
        let own: IpAddr = [127, 0, 0, 1].into();
        let other: IpAddr = [10, 0, 0, 7].into();
        assert_eq!(config.check_bound([own]), Ok(()));
        let exposed = config
            .check_bound([own, other])
            .expect_err("others reach it");
        assert_eq!(exposed.address, "10.0.0.7");
        let told = load(&[("insecure", "true")]).expect("it starts");
        assert_eq!(told.check_bound([other]), Ok(()));
    }
}
