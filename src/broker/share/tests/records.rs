//! Records: golden bytes of version 1, and refusal of everything else.

use model::hex::{from_hex, to_hex};
use model::{PartitionId, Timestamp, TopicId};

use super::super::record::{
    group_record_bytes, owner_record_bytes, run_record_bytes, settings_record_bytes,
};
use super::*;
use crate::broker::state_log::StateRecord as _;

const ID: &str = "00112233445566778899aabbccddeeff";

fn golden() -> Vec<(ShareRecord, String, &'static str)> {
    let place = Place {
        topic: TopicId::from_uuid(ID.parse().expect("an id")),
        partition: PartitionId::new(3),
    };
    let (group, incarnation) = ("ab".to_owned(), Incarnation(0x0102_0304_0506_0708));
    let run = |state| StoredRun {
        end: Offset::new(110),
        state,
    };
    let run = |state| {
        ShareRecord::Run(
            group.clone(),
            place,
            incarnation,
            Offset::new(100),
            Some(run(state)),
        )
    };
    let run_key = || format!("010300026162{ID}0000000301020304050607080000000000000064");
    vec![
        (
            ShareRecord::Group(group.clone(), Some(Timestamp::from_millis(1_000))),
            "010100026162".to_owned(),
            "0100000000000003e8",
        ),
        (
            ShareRecord::Start(group.clone(), place, Some((incarnation, Offset::new(100)))),
            format!("010200026162{ID}00000003"),
            "0101020304050607080000000000000064",
        ),
        (
            run(StoredState::Available(2)),
            run_key(),
            "01000000000000006e000002",
        ),
        (
            run(StoredState::Acknowledged),
            run_key(),
            "01000000000000006e010000",
        ),
        (
            run(StoredState::Archived),
            run_key(),
            "01000000000000006e020000",
        ),
        (
            run(StoredState::Archiving(2, Reason::Rejected)),
            run_key(),
            "01000000000000006e030002",
        ),
        (
            run(StoredState::Archiving(5, Reason::DeliveredTooOften)),
            run_key(),
            "01000000000000006e040005",
        ),
        (
            ShareRecord::Settings(group.clone(), Some(vec![("n".into(), "v".into())])),
            "010400026162".to_owned(),
            "01000100016e000176",
        ),
        (
            ShareRecord::Owner(group, Some("alice".into())),
            "010500026162".to_owned(),
            "010005616c696365",
        ),
    ]
}

#[test]
fn version_1_stays_what_it_is() {
    for (record, key, value) in golden() {
        let (written, kept) = record.encode();
        assert_eq!(to_hex(&written), key, "{record:?}");
        assert_eq!(kept.map(|kept| to_hex(&kept)).as_deref(), Some(value));
        let (key, value) = (from_hex(&key).expect("hex"), from_hex(value).expect("hex"));
        assert_eq!(ShareRecord::decode(&key, &value), Ok(record.clone()));
        let bytes = match &record {
            ShareRecord::Group(group, _) => group_record_bytes(group),
            ShareRecord::Settings(group, values) => {
                settings_record_bytes(group, values.as_deref().unwrap_or_default())
            }
            ShareRecord::Owner(group, owner) => {
                owner_record_bytes(group, owner.as_deref().unwrap_or_default())
            }
            ShareRecord::Start(group, ..) | ShareRecord::Run(group, ..) => run_record_bytes(group),
        };
        assert!(record.bytes() <= bytes, "admitted before it is encoded");
    }
}

#[test]
fn what_is_no_record_is_refused_at_every_byte() {
    for (_, key, value) in golden() {
        let (key, value) = (from_hex(&key).expect("hex"), from_hex(value).expect("hex"));
        for length in 0..key.len() {
            assert!(ShareRecord::decode(&key[..length], &value).is_err());
        }
        for length in 0..value.len() {
            assert!(ShareRecord::decode(&key, &value[..length]).is_err());
        }
        let longer = [&value[..], &[0]].concat();
        assert!(ShareRecord::decode(&key, &longer).is_err());
        for (part, of_key) in [(&key, true), (&value, false)] {
            let mut later = part.clone();
            later[0] = 2;
            let (key, value) = match of_key {
                true => (&later, &value),
                false => (&key, &later),
            };
            let refused = ShareRecord::decode(key, value);
            assert!(
                matches!(refused, Err(SharesError::Unknown(_))),
                "{refused:?}"
            );
        }
    }
    let (key, mut value) = (&golden()[2].1, from_hex(golden()[2].2).expect("hex"));
    value[9] = 5;
    let key = from_hex(key).expect("hex");
    assert!(ShareRecord::decode(&key, &value).is_err(), "no such state");
}
