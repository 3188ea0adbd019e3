//! The records of every golden batch: the same as in `golden.py`.

use alluvium_model::Timestamp;

/// Time, key, value, headers.
pub type GoldenRecord = (
    Timestamp,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);

/// Null and empty keys and values, repeated and null headers, an older time, a value of 33,600 bytes.
pub fn golden_records() -> Vec<GoldenRecord> {
    let at = Timestamp::from_millis;
    vec![
        (
            at(1_700_000_000_000),
            Some(b"device-17".into()),
            Some(b"21.5".into()),
            vec![],
        ),
        (
            at(1_700_000_000_007),
            None,
            Some(vec![]),
            vec![
                (b"unit".into(), Some(b"C".into())),
                (b"empty".into(), Some(vec![])),
                (b"unit".into(), None),
            ],
        ),
        (at(1_699_999_999_000), Some("Gerät".into()), None, vec![]),
        (
            at(1_700_000_000_001),
            Some(vec![]),
            Some(b"0123456789abcdef".repeat(2100)),
            vec![(b"n".into(), Some((0..=255).collect()))],
        ),
    ]
}
