//! Three that must agree: the facts, the generated code, and the crate `kafka-protocol`.

use crate::sample::{Random, Sample, every_version, modules};
use crate::{Role, decode_and_encode};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey as TheirKey, RequestKind, ResponseKind};
use wire::ApiKey;

/// Versions in `kafka-protocol`'s table of keys whose messages it does not know.
const NOT_THEIRS: &[(i16, i16)] = &[(22, 6), (9, 10), (8, 10)];

const ROUNDS: u64 = 24;

#[test]
fn every_version_of_every_key_survives_decode_and_encode() {
    for (key, role, version, message) in every_version() {
        for seed in 0..ROUNDS {
            let sample = Sample {
                message: &message,
                version,
                random: Random::new(seed + 1),
                strange_tags: false,
                full: seed % 4 == 0,
            };
            let bytes = sample.bytes();
            let what = format!("key {key} {role:?} version {version} seed {seed}");
            let (again, left) = decode_and_encode(key, role, version, bytes.clone())
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(left, 0, "{what}");
            assert_eq!(again, bytes, "{what}");
        }
    }
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    for (key, role, version, message) in every_version() {
        let strange = |strange_tags| Sample {
            message: &message,
            version,
            random: Random::new(3),
            strange_tags,
            full: false,
        };
        let bytes = strange(true).bytes();
        let what = format!("key {key} {role:?} version {version}");
        let (known, left) = decode_and_encode(key, role, version, bytes.clone())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(left, 0, "{what}");
        let flexible = message.flexible.contains(version);
        assert_eq!(known.len() < bytes.len(), flexible, "{what}");
        let (again, _) = decode_and_encode(key, role, version, known.clone()).unwrap();
        assert_eq!(again, known, "{what}");
    }
}

fn through_theirs(
    key: TheirKey,
    role: Role,
    version: i16,
    mut bytes: Bytes,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let mut output = BytesMut::new();
    match role {
        Role::Request => {
            RequestKind::decode(key, &mut bytes, version)?.encode(&mut output, version)?
        }
        Role::Response => {
            ResponseKind::decode(key, &mut bytes, version)?.encode(&mut output, version)?
        }
    }
    Ok(output.freeze())
}

#[test]
fn kafka_protocol_reads_and_writes_the_same_bytes() {
    let mut compared = 0;
    for (key, role, version, message) in every_version() {
        let Ok(their_key) = TheirKey::try_from(key) else {
            continue;
        };
        let theirs = their_key.valid_versions();
        if version < theirs.min || version > theirs.max {
            continue;
        }
        if NOT_THEIRS.contains(&(key, version)) {
            continue;
        }
        for seed in 0..ROUNDS {
            let sample = Sample {
                message: &message,
                version,
                random: Random::new(seed + 100),
                strange_tags: false,
                full: seed % 4 == 0,
            };
            let bytes = sample.bytes();
            let what = format!("key {key} {role:?} version {version} seed {seed}");
            let theirs = through_theirs(their_key, role, version, bytes.clone())
                .unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let (ours, _) = decode_and_encode(key, role, version, bytes).unwrap();
            assert_eq!(ours, theirs, "{what}");
        }
        compared += 1;
    }
    assert!(compared > 250, "only {compared} versions in common");
}

#[test]
fn headers_have_the_versions_that_kafka_protocol_gives_them() {
    for (key, role, version, _) in every_version() {
        let (Some(ours), Ok(theirs)) = (ApiKey::from_code(key), TheirKey::try_from(key)) else {
            continue;
        };
        let (mine, yours) = match role {
            Role::Request => (
                ours.request_header_version(version),
                theirs.request_header_version(version),
            ),
            Role::Response => (
                ours.response_header_version(version),
                theirs.response_header_version(version),
            ),
        };
        assert_eq!(mine, yours, "{ours:?} {role:?} {version}");
    }
}

#[test]
fn the_table_of_keys_is_what_the_facts_say() {
    let modules = modules();
    assert_eq!(ApiKey::ALL.len(), modules.len());
    for (key, module) in ApiKey::ALL.iter().zip(&modules) {
        assert_eq!(
            (key.code(), key.name()),
            (module.key.unwrap(), module.name.as_str())
        );
        assert_eq!(ApiKey::from_code(key.code()), Some(*key));
        for message in &module.messages {
            assert_eq!(
                (key.version_min(), key.version_max()),
                (message.versions.first, message.versions.last)
            );
            for version in key.version_min()..=key.version_max() {
                assert_eq!(key.is_flexible(version), message.flexible.contains(version));
            }
        }
    }
}
