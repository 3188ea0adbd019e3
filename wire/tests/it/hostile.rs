//! No bytes may make the decoder panic, and a message that is cut short is never taken for a whole one.

use crate::sample::{Random, Sample, every_version};
use crate::{Role, decode_and_encode};
use proptest::prelude::*;
use wire::messages::consumer_protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use wire::{ApiKey, Bytes, DecodeError, Message, Reader, RequestHeader};

fn decode(key: i16, role: Role, version: i16, bytes: Bytes) -> Result<usize, DecodeError> {
    macro_rules! visit {
        ($(($name:ident, $request:ty, $response:ty),)*) => {
            match ApiKey::from_code(key).expect("a known key") {
                $(ApiKey::$name => {
                    let mut reader = Reader::new(bytes);
                    match role {
                        Role::Request => { <$request>::decode(&mut reader, version)?; }
                        Role::Response => { <$response>::decode(&mut reader, version)?; }
                    }
                    Ok(reader.remaining())
                })*
            }
        };
    }
    wire::for_each_key!(visit)
}

#[test]
fn a_message_cut_short_anywhere_is_refused() {
    for (key, role, version, message) in every_version() {
        for full in [false, true] {
            let random = Random::new(11);
            let bytes = Sample {
                message: &message,
                version,
                random,
                strange_tags: full,
                full,
            }
            .bytes();
            for cut in 0..bytes.len() {
                let result = decode(key, role, version, bytes.slice(..cut));
                assert!(
                    result.is_err(),
                    "key {key} {role:?} version {version} cut at {cut}: {result:?}"
                );
            }
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_does_no_harm() {
    for (key, role, version, message) in every_version() {
        let random = Random::new(5);
        let bytes = Sample {
            message: &message,
            version,
            random,
            strange_tags: true,
            full: true,
        }
        .bytes();
        let mut damaged = bytes.to_vec();
        for bit in 0..(bytes.len() * 8).min(4096) {
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(key, role, version, Bytes::copy_from_slice(&damaged));
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_length_overwritten_anywhere_does_no_harm() {
    for (key, role, version, message) in every_version() {
        let random = Random::new(6);
        let bytes = Sample {
            message: &message,
            version,
            random,
            strange_tags: true,
            full: true,
        }
        .bytes();
        for lie in [
            0x7fff_ffff_u32,
            0xffff_ffff,
            0x8000_0000,
            0x0fff_ffff,
            0xffff_ff0f,
        ] {
            for at in 0..bytes.len().saturating_sub(4).min(512) {
                let mut damaged = bytes.to_vec();
                damaged[at..at + 4].copy_from_slice(&lie.to_be_bytes());
                let _ = decode(key, role, version, Bytes::from(damaged));
            }
        }
    }
}

#[test]
fn versions_outside_the_table_are_refused() {
    for key in ApiKey::ALL {
        for version in [
            i16::MIN,
            -1,
            key.version_min() - 1,
            key.version_max() + 1,
            i16::MAX,
        ] {
            for role in [Role::Request, Role::Response] {
                let result = decode(key.code(), role, version, Bytes::from_static(&[0; 64]));
                assert!(
                    matches!(result, Err(DecodeError::Version { .. })),
                    "{key:?} {version}: {result:?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn random_bytes_do_no_harm(
        index in 0usize..10_000,
        response: bool,
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), any::<u8>()], 0..200),
    ) {
        let key = ApiKey::ALL[index % ApiKey::ALL.len()];
        let versions = key.version_max() - key.version_min() + 1;
        let version = key.version_min() + (index / ApiKey::ALL.len()) as i16 % versions;
        let role = if response { Role::Response } else { Role::Request };
        if let Ok(left) = decode(key.code(), role, version, Bytes::from(bytes.clone())) {
            // What can be read can be written, and reads the same again.
            let (written, _) = decode_and_encode(key.code(), role, version, Bytes::from(bytes.clone())).unwrap();
            let (again, rest) = decode_and_encode(key.code(), role, version, written.clone()).unwrap();
            // A NaN is kept, but a different form of zero length or default may be written shorter.
            prop_assert!(written.len() <= bytes.len() - left);
            prop_assert_eq!(rest, 0);
            prop_assert_eq!(again, written);
        }
    }

    #[test]
    fn random_headers_and_consumer_data_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let bytes = Bytes::from(bytes);
        let _ = RequestHeader::decode(&mut Reader::new(bytes.clone()));
        let _ = wire::consumer::decode_subscription(bytes.clone());
        let _ = wire::consumer::decode_assignment(bytes.clone());
        for version in 0..=3 {
            let _ = ConsumerProtocolSubscription::decode(&mut Reader::new(bytes.clone()), version);
            let _ = ConsumerProtocolAssignment::decode(&mut Reader::new(bytes.clone()), version);
        }
    }
}
