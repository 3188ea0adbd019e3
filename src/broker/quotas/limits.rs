//! Limits: which limit a client has, of all that are set. Pure.
//! Callers: `Quotas`, which makes one anew of all quotas whenever they change.
//! Source: the order of precedence in Kafka's `ClientQuotaManager`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use model::quota::{Entity, Named, Quota, Values};

/// Who shares a limit: its use is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shared {
    /// All clients of the user.
    User,
    /// All that use the client id, whoever they are.
    ClientId,
    /// All that use the client id as the user.
    UserClientId,
}

/// A client's limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limit {
    pub(super) per_second: f64,
    pub(super) shared: Shared,
}

/// All limits.
#[derive(Debug, Default)]
pub(super) struct Limits {
    of: BTreeMap<Quota, OfClients>,
    of_address: HashMap<IpAddr, f64>,
    of_other_addresses: Option<f64>,
}

/// The limits of one quota.
#[derive(Debug, Default)]
struct OfClients {
    users: HashMap<String, OfUser>,
    other_users: OfUser,
    client_ids: OfClientIds,
}

#[derive(Debug, Default)]
struct OfUser {
    own: Option<f64>,
    client_ids: OfClientIds,
}

#[derive(Debug, Default)]
struct OfClientIds {
    named: HashMap<String, f64>,
    other: Option<f64>,
}

impl OfClientIds {
    fn set(&mut self, client_id: &Named, value: f64) {
        match client_id {
            Named::Default => self.other = Some(value),
            Named::Name(name) => drop(self.named.insert(name.clone(), value)),
        }
    }

    fn find(&self, client_id: &str) -> Option<f64> {
        self.named.get(client_id).copied().or(self.other)
    }
}

impl OfClients {
    fn user(&mut self, user: &Named) -> &mut OfUser {
        match user {
            Named::Default => &mut self.other_users,
            Named::Name(name) => self.users.entry(name.clone()).or_default(),
        }
    }
}

impl OfUser {
    /// The limit of a client id as this user, or else that of the user.
    fn find(&self, client_id: &str) -> Option<Limit> {
        let limit = |shared| move |per_second| Limit { per_second, shared };
        let of_both = self
            .client_ids
            .find(client_id)
            .map(limit(Shared::UserClientId));
        of_both.or_else(|| self.own.map(limit(Shared::User)))
    }
}

impl Limits {
    /// Of all quotas that are set.
    pub(super) fn of<'a>(all: impl Iterator<Item = (&'a Entity, &'a Values)>) -> Limits {
        let mut limits = Limits::default();
        for (entity, values) in all {
            for (quota, value) in values {
                limits.set(entity, *quota, *value);
            }
        }
        limits
    }

    fn set(&mut self, entity: &Entity, quota: Quota, value: f64) {
        let of = match entity {
            Entity::Ip(Named::Default) => {
                self.of_other_addresses = Some(value);
                return;
            }
            Entity::Ip(Named::Name(name)) => {
                if let Ok(address) = name.parse::<IpAddr>() {
                    // Of two spellings of one address the lower limit holds.
                    let limit = self.of_address.entry(address.to_canonical());
                    let limit = limit.or_insert(value);
                    *limit = limit.min(value);
                }
                return;
            }
            _ => self.of.entry(quota).or_default(),
        };
        match entity {
            Entity::User(user) => of.user(user).own = Some(value),
            Entity::UserClientId(user, client_id) => of.user(user).client_ids.set(client_id, value),
            Entity::ClientId(client_id) => of.client_ids.set(client_id, value),
            Entity::Ip(_) => unreachable!("addresses were set above"),
        }
    }

    /// Which quotas are set for anybody, as bits.
    pub(super) fn bits(&self) -> u8 {
        let of_clients = self.of.keys().fold(0, |bits, quota| bits | bit(*quota));
        match self.of_address.is_empty() && self.of_other_addresses.is_none() {
            true => of_clients,
            false => of_clients | bit(Quota::ConnectionCreationRate),
        }
    }

    /// The limit of a client.
    pub(super) fn find(&self, quota: Quota, user: &str, client_id: &str) -> Option<Limit> {
        let of = self.of.get(&quota)?;
        let of_name = of.users.get(user).and_then(|of| of.find(client_id));
        of_name
            .or_else(|| of.other_users.find(client_id))
            .or_else(|| {
                let per_second = of.client_ids.find(client_id)?;
                let shared = Shared::ClientId;
                Some(Limit { per_second, shared })
            })
    }

    /// The limit of an address.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<f64> {
        let named = self.of_address.get(&address.to_canonical()).copied();
        named.or(self.of_other_addresses)
    }
}

/// The bit that stands for a quota.
pub(super) fn bit(quota: Quota) -> u8 {
    1 << (quota as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<&str>, client_id: Option<&str>) -> Entity {
        let named = |name: &str| match name {
            "*" => Named::Default,
            name => Named::Name(name.to_owned()),
        };
        match (user.map(named), client_id.map(named)) {
            (Some(user), Some(client_id)) => Entity::UserClientId(user, client_id),
            (Some(user), None) => Entity::User(user),
            (None, Some(client_id)) => Entity::ClientId(client_id),
            (None, None) => unreachable!("somebody"),
        }
    }

    #[test]
    fn the_most_specific_limit_holds_in_kafkas_order() {
        let quota = Quota::ProducerByteRate;
        // From Kafka's documentation, first the one that goes before all others.
        let order = [
            (entity(Some("u"), Some("c")), Shared::UserClientId),
            (entity(Some("u"), Some("*")), Shared::UserClientId),
            (entity(Some("u"), None), Shared::User),
            (entity(Some("*"), Some("c")), Shared::UserClientId),
            (entity(Some("*"), Some("*")), Shared::UserClientId),
            (entity(Some("*"), None), Shared::User),
            (entity(None, Some("c")), Shared::ClientId),
            (entity(None, Some("*")), Shared::ClientId),
        ];
        let values = |value: f64| Values::from([(quota, value)]);
        for first in 0..order.len() {
            let set: Vec<(Entity, Values)> = (first..order.len())
                .map(|index| (order[index].0.clone(), values(index as f64 + 1.0)))
                .collect();
            let limits = Limits::of(set.iter().map(|(entity, values)| (entity, values)));
            let wanted = Limit {
                per_second: first as f64 + 1.0,
                shared: order[first].1,
            };
            assert_eq!(limits.find(quota, "u", "c"), Some(wanted));
            assert_eq!(limits.find(Quota::ConsumerByteRate, "u", "c"), None);
            assert_eq!(limits.bits(), bit(quota));
        }
        assert_eq!(Limits::default().bits(), 0);
    }

    #[test]
    fn an_address_has_its_own_limit_however_it_is_written_or_that_of_all_others() {
        let quota = Quota::ConnectionCreationRate;
        let ip = |name: &str| Entity::Ip(Named::Name(name.to_owned()));
        let set = [
            (ip("10.0.0.1"), Values::from([(quota, 5.0)])),
            (ip("::ffff:10.0.0.1"), Values::from([(quota, 7.0)])),
            (Entity::Ip(Named::Default), Values::from([(quota, 2.0)])),
        ];
        let limits = Limits::of(set.iter().map(|(entity, values)| (entity, values)));
        let of = |address: &str| limits.of_address(address.parse().expect("an address"));
        assert_eq!(of("10.0.0.1"), Some(5.0));
        assert_eq!(of("::ffff:10.0.0.1"), Some(5.0));
        assert_eq!(of("10.0.0.2"), Some(2.0));
        assert_eq!(limits.bits(), bit(quota));
    }
}
