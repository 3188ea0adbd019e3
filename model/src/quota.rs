//! Client quotas, as Kafka has them: who may use how much, and how that is kept.
//! Callers: the broker, which keeps and enforces them; its fronts, which name them.
//! Invariants: an [`Entity`] names users and client ids, or addresses, never both and never nothing; a [`Quota`] that is kept fits
//! its entity and is above zero. Source: Kafka's `ClientQuotaControlManager`, by its behaviour.

use core::net::IpAddr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::state_log::{QUOTA_KEY_HEAD, QUOTAS_VERSION, StateLogKind};

/// The longest name of a user or client id in a quota.
pub const NAME_BYTES_MAX: usize = 4096;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quota {
    /// Bytes of produce requests a second.
    ProducerByteRate,
    /// Bytes of fetched records a second.
    ConsumerByteRate,
    /// Time that requests are worked on, in percent of one processor.
    RequestPercentage,
    /// Partitions that are created or deleted a second.
    ControllerMutationRate,
    /// Connections a second.
    ConnectionCreationRate,
}

impl Quota {
    /// Each of them.
    pub const ALL: [Quota; 5] = [
        Quota::ProducerByteRate,
        Quota::ConsumerByteRate,
        Quota::RequestPercentage,
        Quota::ControllerMutationRate,
        Quota::ConnectionCreationRate,
    ];

    /// Kafka's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Quota::ProducerByteRate => "producer_byte_rate",
            Quota::ConsumerByteRate => "consumer_byte_rate",
            Quota::RequestPercentage => "request_percentage",
            Quota::ControllerMutationRate => "controller_mutation_rate",
            Quota::ConnectionCreationRate => "connection_creation_rate",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Quota> {
        Self::ALL.into_iter().find(|quota| quota.name() == name)
    }

    /// The largest value of a whole number that Kafka has for it; None where it may have a fraction.
    const fn whole_max(self) -> Option<(f64, &'static str)> {
        match self {
            Quota::ProducerByteRate | Quota::ConsumerByteRate => {
                Some((9_223_372_036_854_775_807.0, "a LONG"))
            }
            Quota::ConnectionCreationRate => Some((2_147_483_647.0, "an INT")),
            Quota::RequestPercentage | Quota::ControllerMutationRate => None,
        }
    }

    /// Refuses a value that it cannot have.
    pub fn check(self, value: f64) -> Result<(), InvalidQuota> {
        let name = self.name();
        // Also what is no number.
        if !(value > 0.0 && value.is_finite()) {
            return Err(InvalidQuota::NotAboveZero { name });
        }
        if let Some((max, kind)) = self.whole_max() {
            if value > max {
                return Err(InvalidQuota::TooLarge { name, kind });
            }
            if value % 1.0 > 1e-6 {
                return Err(InvalidQuota::Fraction { name });
            }
        }
        Ok(())
    }
}

/// Whom a part of an entity means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Named {
    /// All that have no quota by their name.
    Default,
    /// The one of this name.
    Name(String),
}

impl Named {
    /// As the wire has it: no name is the default.
    pub fn of(name: Option<String>) -> Named {
        name.map_or(Named::Default, Named::Name)
    }

    /// The name, if it is one's.
    pub fn name(&self) -> Option<&str> {
        match self {
            Named::Default => None,
            Named::Name(name) => Some(name),
        }
    }
}

/// Whom a quota is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// A user, whatever its clients call themselves.
    User(Named),
    /// A client id, whoever uses it.
    ClientId(Named),
    /// A client id of a user.
    UserClientId(Named, Named),
    /// An address.
    Ip(Named),
}

/// The parts of an entity by their types, as the wire has them.
pub type Parts = BTreeMap<String, Option<String>>;

/// Kafka's names of the types of parts.
pub const USER: &str = "user";
/// See [`USER`].
pub const CLIENT_ID: &str = "client-id";
/// See [`USER`].
pub const IP: &str = "ip";

/// Why there is no such quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuota {
    /// Of nobody.
    #[error("Invalid empty client quota entity")]
    Empty,
    /// A type that is none.
    #[error("Unhandled client quota entity type: {0}")]
    UnknownType(String),
    /// A name without letters.
    #[error("Empty {0} not supported")]
    EmptyName(String),
    /// A name that is too long.
    #[error("the name of the {of} has more than {NAME_BYTES_MAX} bytes")]
    LongName {
        /// Its type.
        of: String,
    },
    /// Addresses and users together.
    #[error(
        "Invalid quota entity combination, IP entity should not be combined with User or ClientId"
    )]
    Combination,
    /// What is no address. Names of hosts are not looked up.
    #[error("{0} is not a valid IP address")]
    NoAddress(String),
    /// A quota that there is not, or not for this entity.
    #[error("Invalid configuration key {0}")]
    UnknownQuota(String),
    /// Nothing at all, or less.
    #[error("Quota {name} must be greater than 0")]
    NotAboveZero {
        /// The quota.
        name: &'static str,
    },
    /// More than its type holds.
    #[error("Proposed value for {name} is too large for {kind}.")]
    TooLarge {
        /// The quota.
        name: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// Not a whole number.
    #[error("{name} cannot be a fractional value.")]
    Fraction {
        /// The quota.
        name: &'static str,
    },
}

impl Entity {
    /// The entity of these parts.
    pub fn of_parts(parts: &Parts) -> Result<Entity, InvalidQuota> {
        for (kind, name) in parts {
            if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
                return Err(InvalidQuota::UnknownType(kind.clone()));
            }
            match name {
                Some(name) if name.is_empty() => return Err(InvalidQuota::EmptyName(kind.clone())),
                Some(name) if name.len() > NAME_BYTES_MAX => {
                    return Err(InvalidQuota::LongName { of: kind.clone() });
                }
                _ => {}
            }
        }
        let part = |kind: &str| parts.get(kind).cloned().map(Named::of);
        match (part(USER), part(CLIENT_ID), part(IP)) {
            (None, None, None) => Err(InvalidQuota::Empty),
            (None, None, Some(Named::Name(name))) if name.parse::<IpAddr>().is_err() => {
                Err(InvalidQuota::NoAddress(name))
            }
            (None, None, Some(ip)) => Ok(Entity::Ip(ip)),
            (_, _, Some(_)) => Err(InvalidQuota::Combination),
            (Some(user), Some(client_id), None) => Ok(Entity::UserClientId(user, client_id)),
            (Some(user), None, None) => Ok(Entity::User(user)),
            (None, Some(client_id), None) => Ok(Entity::ClientId(client_id)),
        }
    }

    /// Its parts.
    pub fn parts(&self) -> Parts {
        let part = |kind: &str, named: &Named| (kind.to_owned(), named.name().map(str::to_owned));
        match self {
            Entity::User(user) => Parts::from([part(USER, user)]),
            Entity::ClientId(client_id) => Parts::from([part(CLIENT_ID, client_id)]),
            Entity::UserClientId(user, client_id) => {
                Parts::from([part(USER, user), part(CLIENT_ID, client_id)])
            }
            Entity::Ip(ip) => Parts::from([part(IP, ip)]),
        }
    }

    /// The quota of this name, if this entity may have it.
    pub fn quota(&self, name: &str) -> Result<Quota, InvalidQuota> {
        let is_of_address = matches!(self, Entity::Ip(_));
        Quota::of_name(name)
            .filter(|quota| (*quota == Quota::ConnectionCreationRate) == is_of_address)
            .ok_or_else(|| InvalidQuota::UnknownQuota(name.to_owned()))
    }
}

/// In Kafka's words: `user=alice, client-id=<default>`.
impl std::fmt::Display for Entity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (kind, name)) in self.parts().iter().rev().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let name = name.as_deref().unwrap_or("<default>");
            write!(f, "{comma}{kind}={name}")?;
        }
        Ok(())
    }
}

/// The limits of one entity.
pub type Values = BTreeMap<Quota, f64>;

/// A record of the state log `quotas`: all limits of one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaRecord {
    /// Whom they are for.
    pub entity: Entity,
    /// The limits; none at all end the record.
    pub values: Values,
}

/// Why a record is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {key:?} of the quotas: {reason}")]
pub struct UnknownQuotaRecord {
    key: String,
    reason: String,
}

/// A value as it is kept. Numbers are texts, in which every one comes back as it was.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// First, in every value: see [`crate::state_log::METADATA_VALUE_HEAD`].
    version: u32,
    quotas: BTreeMap<String, String>,
}

impl QuotaRecord {
    /// The key of an entity's record.
    pub fn key(&self) -> Vec<u8> {
        let parts = serde_json::to_string(&self.entity.parts()).expect("names are JSON");
        format!("{QUOTA_KEY_HEAD}{parts}").into_bytes()
    }

    /// The value, unless there are no limits.
    pub fn value(&self) -> Option<Vec<u8>> {
        if self.values.is_empty() {
            return None;
        }
        let quotas = self.values.iter();
        let kept = Kept {
            version: QUOTAS_VERSION,
            quotas: quotas
                .map(|(quota, value)| (quota.name().to_owned(), value.to_string()))
                .collect(),
        };
        Some(serde_json::to_vec(&kept).expect("plain fields are JSON"))
    }

    /// Reads one that counts.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<QuotaRecord, UnknownQuotaRecord> {
        let refuse = |reason: String| UnknownQuotaRecord {
            key: String::from_utf8_lossy(key).into_owned(),
            reason,
        };
        StateLogKind::Quotas
            .check(key, Some(value))
            .map_err(|error| refuse(error.to_string()))?;
        let parts: Parts = serde_json::from_slice(&key[QUOTA_KEY_HEAD.len()..])
            .map_err(|error| refuse(error.to_string()))?;
        let entity = Entity::of_parts(&parts).map_err(|error| refuse(error.to_string()))?;
        let kept: Kept =
            serde_json::from_slice(value).map_err(|error| refuse(error.to_string()))?;
        let mut values = Values::new();
        for (name, text) in &kept.quotas {
            let quota = entity.quota(name);
            let quota = quota.map_err(|error| refuse(error.to_string()))?;
            let number = text.parse::<f64>();
            let number = number.map_err(|error| refuse(error.to_string()))?;
            quota
                .check(number)
                .map_err(|error| refuse(error.to_string()))?;
            values.insert(quota, number);
        }
        let record = QuotaRecord { entity, values };
        if record.values.is_empty() || record.key() != key {
            return Err(refuse("not as this release writes it".to_owned()));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &[(&str, Option<&str>)]) -> Parts {
        let owned =
            |(kind, name): &(&str, Option<&str>)| ((*kind).to_owned(), (*name).map(str::to_owned));
        of.iter().map(owned).collect()
    }

    #[test]
    fn entities_are_users_client_ids_both_or_addresses() {
        for (of, shown) in [
            (vec![("user", Some("alice"))], "user=alice"),
            (vec![("client-id", None)], "client-id=<default>"),
            (
                vec![("user", None), ("client-id", Some("c"))],
                "user=<default>, client-id=c",
            ),
            (vec![("ip", Some("::1"))], "ip=::1"),
            (vec![("ip", None)], "ip=<default>"),
        ] {
            let entity = Entity::of_parts(&parts(&of)).expect("an entity");
            assert_eq!(entity.to_string(), shown);
            assert_eq!(entity.parts(), parts(&of));
        }
        let refused = |of: &[(&str, Option<&str>)]| {
            let refused = Entity::of_parts(&parts(of)).expect_err("no entity");
            refused.to_string()
        };
        assert_eq!(refused(&[]), "Invalid empty client quota entity");
        assert_eq!(
            refused(&[("group", Some("g"))]),
            "Unhandled client quota entity type: group"
        );
        assert_eq!(refused(&[("user", Some(""))]), "Empty user not supported");
        assert!(refused(&[("user", None), ("ip", None)]).contains("combination"));
        assert!(refused(&[("ip", Some("localhost"))]).starts_with("localhost is not"));
        let long = "u".repeat(NAME_BYTES_MAX + 1);
        assert!(refused(&[("user", Some(&long))]).contains("4096 bytes"));
    }

    #[test]
    fn values_are_above_zero_and_whole_where_kafkas_are() {
        use Quota::{ConnectionCreationRate, ControllerMutationRate, ProducerByteRate};
        for (quota, value, refused) in [
            (ProducerByteRate, 1.0, ""),
            (ProducerByteRate, 1e18, ""),
            (
                ProducerByteRate,
                0.0,
                "Quota producer_byte_rate must be greater than 0",
            ),
            (
                ProducerByteRate,
                -1.0,
                "Quota producer_byte_rate must be greater than 0",
            ),
            (
                ProducerByteRate,
                f64::NAN,
                "Quota producer_byte_rate must be greater than 0",
            ),
            (
                ProducerByteRate,
                1.5,
                "producer_byte_rate cannot be a fractional value.",
            ),
            (
                ProducerByteRate,
                1e19,
                "Proposed value for producer_byte_rate is too large for a LONG.",
            ),
            (ControllerMutationRate, 0.25, ""),
            (
                ConnectionCreationRate,
                2_147_483_648.0,
                "Proposed value for connection_creation_rate is too large for an INT.",
            ),
        ] {
            let checked = quota.check(value).err();
            let checked = checked.map_or(String::new(), |error| error.to_string());
            assert_eq!(checked, refused, "{value}");
        }
        let user = Entity::User(Named::Default);
        assert_eq!(
            user.quota("request_percentage"),
            Ok(Quota::RequestPercentage)
        );
        let ip = Entity::Ip(Named::Default);
        for (entity, name) in [
            (&user, "connection_creation_rate"),
            (&ip, "producer_byte_rate"),
            (&user, "SCRAM-SHA-256"),
        ] {
            let refused = entity.quota(name).expect_err("not this one's");
            let wanted = format!("Invalid configuration key {name}");
            assert_eq!(refused.to_string(), wanted);
        }
    }

    /// Pairs of key and value, each in a line of its own.
    const GOLDEN: &str = include_str!("../tests/golden/quotas-v1.txt");

    #[test]
    fn records_are_as_they_were_in_version_1() {
        let record = |entity, values: &[(Quota, f64)]| QuotaRecord {
            entity,
            values: values.iter().copied().collect(),
        };
        let named = |name: &str| Named::Name(name.to_owned());
        let all = [
            record(
                Entity::User(named("alice \"a\"")),
                &[
                    (Quota::ProducerByteRate, 1024.0),
                    (Quota::RequestPercentage, 12.5),
                ],
            ),
            record(
                Entity::UserClientId(named("alice"), Named::Default),
                &[(Quota::ConsumerByteRate, 1e18)],
            ),
            record(
                Entity::ClientId(named("app")),
                &[(Quota::ControllerMutationRate, 0.1)],
            ),
            record(
                Entity::Ip(named("127.0.0.1")),
                &[(Quota::ConnectionCreationRate, 7.0)],
            ),
        ];
        let mut lines = GOLDEN.lines();
        for record in all {
            let (key, value) = (lines.next().expect("a key"), lines.next().expect("a value"));
            assert_eq!(String::from_utf8_lossy(&record.key()), key);
            let written = record.value().expect("a value");
            assert_eq!(String::from_utf8_lossy(&written), value);
            let read = QuotaRecord::decode(key.as_bytes(), value.as_bytes());
            assert_eq!(read, Ok(record));
        }
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn a_record_that_is_not_as_we_write_it_is_refused() {
        let good = (
            r#"quota/{"user":"alice"}"#,
            r#"{"version":1,"quotas":{"producer_byte_rate":"10"}}"#,
        );
        let read = |key: &str, value: &str| QuotaRecord::decode(key.as_bytes(), value.as_bytes());
        assert!(read(good.0, good.1).is_ok());
        for key in [
            r#"quota/{"user": "alice"}"#,
            r#"quota/{}"#,
            r#"quota/{"user":"alice","ip":null}"#,
            r#"quota/{"ip":"::1"}"#,
            "quota/alice",
            "quote/{}",
        ] {
            assert!(read(key, good.1).is_err(), "{key}");
        }
        for value in [
            r#"{"version":2,"quotas":{"producer_byte_rate":"10"}}"#,
            r#"{"version":1,"quotas":{}}"#,
            r#"{"version":1,"quotas":{"producer_byte_rate":"0"}}"#,
            r#"{"version":1,"quotas":{"producer_byte_rate":"x"}}"#,
            r#"{"version":1,"quotas":{"producer_byte_rates":"1"}}"#,
            r#"{"version":1,"quotas":{"producer_byte_rate":"1"},"more":1}"#,
        ] {
            assert!(read(good.0, value).is_err(), "{value}");
        }
    }
}
