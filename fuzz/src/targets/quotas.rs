//! Records of client quotas: `key length u8 | key | value`. What is read comes back as it was written.

use model::quota::{Entity, Named, Quota, QuotaRecord};

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let length = usize::from(input.u8());
    let rest = input.rest();
    let (key, value) = rest.split_at(length.min(rest.len()));
    if let Ok(record) = QuotaRecord::decode(key, value) {
        assert_eq!(record.key(), key);
        let written = record.value().expect("a record has a quota");
        assert_eq!(QuotaRecord::decode(key, &written).as_ref(), Ok(&record));
        assert_eq!(Entity::of_parts(&record.entity.parts()), Ok(record.entity));
    }
}

/// A record of each kind of entity.
pub fn seeds() -> Vec<Vec<u8>> {
    let named = |name: &str| Named::Name(name.to_owned());
    let entities = [
        (Entity::User(named("alice")), Quota::ProducerByteRate),
        (Entity::User(Named::Default), Quota::RequestPercentage),
        (Entity::ClientId(named("app")), Quota::ConsumerByteRate),
        (
            Entity::UserClientId(named("alice"), Named::Default),
            Quota::ControllerMutationRate,
        ),
        (
            Entity::Ip(named("127.0.0.1")),
            Quota::ConnectionCreationRate,
        ),
    ];
    let seed = |(entity, quota)| {
        let record = QuotaRecord {
            entity,
            values: [(quota, 12.0)].into(),
        };
        let key = record.key();
        let length = u8::try_from(key.len()).expect("a short key");
        let value = record.value().expect("a quota");
        [&[length], &key[..], &value[..]].concat()
    };
    entities.into_iter().map(seed).collect()
}
