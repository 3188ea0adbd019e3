//! Records: golden bytes of version 1, round trips, and refusal of everything else.

use model::state_log::UnknownRecord;
use model::{PartitionId, TopicName};
use proptest::prelude::*;

use super::offsets::committed;
use super::*;
use crate::broker::state_log::StateRecord as _;

fn golden() -> Vec<(Record, &'static str, &'static str)> {
    let group = StoredGroup {
        generation: 7.into(),
        since: Timestamp::from_millis(0x0102_0304),
        protocol_type: Some("consumer".into()),
        protocol: Some("range".into()),
        leader: Some("m".into()),
        members: vec![StoredMember {
            member_id: "m".into(),
            instance_id: None,
            client: ClientIdentity {
                client_id: "c".into(),
                host: "/h".into(),
            },
            session_timeout: Duration::from_millis(10_000),
            rebalance_timeout: Duration::from_millis(300_000),
            protocols: vec![protocol("range", "ab")],
            assignment: Bytes::from_static(b"xyz"),
        }],
    };
    let topic = TopicName::parse("t").expect("a valid name");
    vec![
        (
            Record::Group("g".into(), Some(group)),
            "0101000167",
            "0100000007000000000102030400 08636f6e73756d6572 000572616e6765 00016d 00000001 00016d ffff 000163 00022f68 00002710 000493e0 0001 \
             000572616e6765 000000026162 0000000378797a",
        ),
        (
            Record::Promise("g".into(), Some(8.into())),
            "0102000167",
            "0100000008",
        ),
        (
            Record::Owner("g".into(), Some("alice".into())),
            "0104000167",
            "01 0005616c696365",
        ),
        (
            Record::Offset(
                "g".into(),
                topic,
                PartitionId::new(5),
                Some(committed(0x1122)),
            ),
            "0103000167 000174 00000005",
            "01 07070707070707070707070707070707 0000000000001122 00000003 00000000000003e8 ffffffffffffffff 00046e6f7465",
        ),
    ]
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"))
        .collect()
}

#[test]
fn version_1_stays_what_it_is() {
    for (record, key, value) in golden() {
        let (written_key, written_value) = record.encode();
        assert_eq!(written_key, unhex(key), "{record:?}");
        assert_eq!(
            written_value.as_deref(),
            Some(unhex(value).as_slice()),
            "{record:?}"
        );
        assert_eq!(Record::read(&unhex(key), Some(&unhex(value))), Ok(record));
    }
}

#[test]
fn the_length_of_a_record_is_known_before_it_is_encoded() {
    for (known, _, _) in golden() {
        let (key, value) = known.encode();
        let value = value.expect("a value");
        match known {
            Record::Group(group, Some(stored)) => {
                assert_eq!(key.len(), record::group_key_bytes(&group));
                let names = [&stored.protocol_type, &stored.protocol, &stored.leader];
                let names: usize = names.into_iter().flatten().map(String::len).sum();
                let members: usize = stored
                    .members
                    .iter()
                    .map(|it| {
                        let instance_id = it.instance_id.as_deref();
                        let (protocols, assignment) = (&it.protocols, &it.assignment);
                        let id = &it.member_id;
                        record::member_bytes(id, instance_id, &it.client, protocols, assignment)
                    })
                    .sum();
                assert_eq!(value.len(), record::GROUP_VALUE_BYTES + names + members);
            }
            Record::Promise(group, _) => {
                assert_eq!(key.len(), record::group_key_bytes(&group));
                assert_eq!(value.len(), record::PROMISE_VALUE_BYTES);
            }
            Record::Owner(group, Some(owner)) => {
                assert_eq!(key.len(), record::group_key_bytes(&group));
                assert_eq!(value.len(), record::owner_value_bytes(&owner));
            }
            Record::Offset(group, topic, _, Some(offset)) => {
                assert_eq!(key.len(), record::offset_key_bytes(&group, &topic));
                let bytes = record::offset_value_bytes(&offset.metadata);
                assert_eq!(value.len(), bytes);
            }
            Record::Group(_, None) | Record::Owner(_, None) | Record::Offset(_, _, _, None) => {
                panic!("all have values")
            }
        }
    }
}

#[test]
fn a_record_without_a_value_deletes() {
    assert_eq!(
        Record::read(&unhex("0101000167"), None),
        Ok(Record::Group("g".into(), None))
    );
    assert_eq!(
        Record::read(&unhex("0102000167"), None),
        Ok(Record::Promise("g".into(), None))
    );
    let Ok(Record::Offset(_, _, _, None)) =
        Record::read(&unhex("0103000167 000174 00000005"), None)
    else {
        panic!("a deletion")
    };
}

#[test]
fn every_cut_and_every_extra_byte_is_refused() {
    for (_, key, value) in golden() {
        let (key, value) = (unhex(key), unhex(value));
        for end in 0..key.len() {
            assert!(RecordKey::decode(&key[..end]).is_err(), "key cut at {end}");
        }
        for end in 0..value.len() {
            assert!(
                Record::read(&key, Some(&value[..end])).is_err(),
                "value cut at {end}"
            );
        }
        let longer = [value.as_slice(), &[0]].concat();
        assert_eq!(
            Record::read(&key, Some(&longer)),
            Err(GroupsError::Malformed("bytes left over"))
        );
    }
}

#[test]
fn other_versions_and_kinds_are_named() {
    assert_eq!(
        RecordKey::decode(&[2, 1, 0, 0]),
        Err(GroupsError::Unknown(UnknownRecord::Later {
            part: "key",
            found: 2,
            known: 1
        }))
    );
    assert_eq!(
        RecordKey::decode(&[1, 9, 0, 0]),
        Err(GroupsError::Unknown(UnknownRecord::Kind))
    );
    assert_eq!(
        Record::read(&unhex("0102000167"), Some(&[3, 0, 0, 0, 0])),
        Err(GroupsError::Unknown(UnknownRecord::Later {
            part: "value",
            found: 3,
            known: 1
        }))
    );
    assert_eq!(
        Record::read(&unhex("0102000167"), Some(&[1, 0xff, 0xff, 0xff, 0xff])),
        Err(GroupsError::Malformed("a generation below 0"))
    );
}

fn stored_member() -> impl Strategy<Value = StoredMember> {
    let protocols = prop::collection::vec(
        ("[a-z]{0,9}", prop::collection::vec(any::<u8>(), 0..20)),
        0..4,
    );
    let timeouts = (any::<u32>(), any::<u32>());
    let assignment = prop::collection::vec(any::<u8>(), 0..40);
    (
        ".{0,9}",
        prop::option::of(".{0,9}"),
        ".{0,9}",
        ".{0,9}",
        timeouts,
        protocols,
        assignment,
    )
        .prop_map(
            |(
                member_id,
                instance_id,
                client_id,
                host,
                (session, rebalance),
                protocols,
                assignment,
            )| StoredMember {
                member_id,
                instance_id,
                client: ClientIdentity { client_id, host },
                session_timeout: Duration::from_millis(session.into()),
                rebalance_timeout: Duration::from_millis(rebalance.into()),
                protocols: protocols
                    .into_iter()
                    .map(|(name, metadata)| Protocol {
                        name,
                        metadata: metadata.into(),
                    })
                    .collect(),
                assignment: assignment.into(),
            },
        )
}

proptest! {
    #[test]
    fn groups_come_back_as_they_were(
        id in ".{0,20}",
        generation in 0..=i32::MAX,
        since in any::<i64>(),
        names in (prop::option::of(".{0,9}"), prop::option::of(".{0,9}"), prop::option::of(".{0,9}")),
        members in prop::collection::vec(stored_member(), 0..5),
    ) {
        let (protocol_type, protocol, leader) = names;
        let group = StoredGroup { generation: generation.into(), since: Timestamp::from_millis(since), protocol_type, protocol, leader, members };
        let record = Record::Group(id, Some(group));
        let (key, value) = record.encode();
        prop_assert_eq!(Record::read(&key, value.as_deref()), Ok(record));
    }

    #[test]
    fn arbitrary_bytes_never_panic(key in prop::collection::vec(any::<u8>(), 0..60), value in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::read(&key, Some(&value));
        for kind in 1..=3 {
            let mut known = vec![1, kind, 0, 0];
            known.extend([0, 1, b't', 0, 0, 0, 0].iter().take(if kind == 3 { 7 } else { 0 }));
            let _ = Record::read(&known, Some(&[&[1], value.as_slice()].concat()));
        }
    }
}
