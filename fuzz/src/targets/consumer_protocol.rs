//! What consumers put into JoinGroup and SyncGroup: `which u8 | bytes`.

use bytes::Bytes;
use wire::Message;
use wire::consumer::{
    decode_assignment, decode_subscription, encode_assignment, encode_subscription,
};
use wire::messages::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, SubscriptionTopicPartition,
};

use crate::Input;
use crate::targets::messages::there_and_back;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.u8();
    let bytes = Bytes::copy_from_slice(input.rest());
    let version = input.i16();
    let body = Bytes::copy_from_slice(input.rest());
    if which.is_multiple_of(2) {
        let newest = ConsumerProtocolSubscription::VERSIONS.1;
        if let Ok(value) = decode_subscription(bytes) {
            let written = encode_subscription(&value, newest).expect("what decoded encodes");
            assert_eq!(decode_subscription(written), Ok(value));
        }
        there_and_back::<ConsumerProtocolSubscription>(version, body);
    } else {
        let newest = ConsumerProtocolAssignment::VERSIONS.1;
        if let Ok(value) = decode_assignment(bytes) {
            let written = encode_assignment(&value, newest).expect("what decoded encodes");
            assert_eq!(decode_assignment(written), Ok(value));
        }
        there_and_back::<ConsumerProtocolAssignment>(version, body);
    }
}

/// Subscriptions of every version. The recorded ones stand inside the groups' requests and are not taken out of them.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut subscription = ConsumerProtocolSubscription {
        topics: vec!["buoys".to_owned(), "rides".to_owned()],
        user_data: Some(Bytes::from_static(b"user data")),
        ..ConsumerProtocolSubscription::default()
    };
    for version in 0..=ConsumerProtocolSubscription::VERSIONS.1 {
        if version == 1 {
            let owned = SubscriptionTopicPartition {
                topic: "buoys".to_owned(),
                partitions: vec![0, 1, 2],
            };
            subscription.owned_partitions = vec![owned];
        }
        if let Ok(bytes) = encode_subscription(&subscription, version) {
            seeds.push([&[0], &bytes[..]].concat());
            seeds.push([&[1], &bytes[..]].concat());
        }
    }
    seeds
}
