//! The witness of erasures beside the engine's reader: `mend u8 | bytes`, a file of the data directory with the bytes in its
//! midst. Mended, the batch in them has a right checksum.

use std::collections::BTreeMap;
use std::fs;

use ::witness::{Quest, search};
use bytes::Bytes;
use model::batch::{Batch, Codec, DecompressLimit, crc32c};

use crate::Input;

const TOPIC: [u8; 16] = [7; 16];
/// No batch.
const BEFORE: &[u8] = b"between batches there may be anything, also a 2:\x02\x02\x02";

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let is_mended = input.u8() & 1 != 0;
    let mut bytes = input.rest().to_vec();
    if is_mended {
        mend(&mut bytes);
    }
    let place = tempfile::tempdir().expect("a directory");
    let file = place
        .path()
        .join("p/07070707-0707-0707-0707-070707070707-0/segment");
    fs::create_dir_all(file.parent().expect("it lies in one")).expect("made");
    fs::write(&file, [BEFORE, &bytes, BEFORE].concat()).expect("written");
    let of_engine = of_engine(&bytes).unwrap_or_default();
    let wanted: Vec<_> = of_engine.keys.keys().take(3).cloned().collect();
    let quest = Quest {
        keys: [&wanted[..], &[b"a-key-of-nobody".to_vec()]].concat(),
        topic: Some(TOPIC),
        before: None,
    };
    let report = search(place.path(), &quest, &mut |_| true).expect("it is readable");
    assert_eq!(report.files, 1);
    assert_eq!(report.bytes, (bytes.len() + 2 * BEFORE.len()) as u64);
    if of_engine.is_whole {
        let records: u64 = wanted.iter().map(|key| of_engine.keys[key]).sum();
        assert!(
            report.hit_count >= records || report.unread_count > 0,
            "the engine reads {records} records of the keys: {report:?}"
        );
    } else if !wanted.is_empty() {
        assert!(!report.is_clean(), "what the engine keeps is named");
        assert_eq!(
            report.hit_count, 0,
            "what the engine keeps because it cannot be read is no find: {report:?}"
        );
    }
}

/// What the engine reads of the first batch.
#[derive(Default)]
struct OfEngine {
    /// How many records of each key.
    keys: BTreeMap<Vec<u8>, u64>,
    /// Whether it can be read to its end.
    is_whole: bool,
}

/// None if it is no batch that a broker takes.
fn of_engine(bytes: &[u8]) -> Option<OfEngine> {
    let length = i32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
    let first = bytes.get(..usize::try_from(length).ok()?.checked_add(12)?)?;
    let batch = Batch::parse(Bytes::copy_from_slice(first)).ok()?;
    let header = *batch.header();
    if header.attributes.bits() & !0x7f != 0 && header.base().get() >= 1 << 48 {
        return None;
    }
    let is_taken = i64::from(header.record_count) == i64::from(header.last_offset_delta) + 1;
    if header.is_control() || !is_taken || header.record_count == 0 {
        return None;
    }
    let mut found = OfEngine::default();
    let Ok(mut records) = batch.records(DecompressLimit::default()) else {
        return Some(found);
    };
    while let Some(record) = records.next_ref() {
        let Ok(record) = record else {
            return Some(found);
        };
        if let Some(key) = record.key {
            *found.keys.entry(key.to_vec()).or_default() += 1;
        }
    }
    found.is_whole = true;
    Some(found)
}

fn mend(bytes: &mut [u8]) {
    if bytes.len() < 61 {
        return;
    }
    let length = i32::try_from(bytes.len() - 12).expect("inputs are short");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    let checksum = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
}

/// Batches of every codec.
pub fn seeds() -> Vec<Vec<u8>> {
    let all = Codec::ALL.map(super::batches::built).into_iter();
    let all = all.chain(crate::seeds::produced_batches());
    let plain = all.map(|batch| [&[1][..], &batch].concat());
    let flagged = Codec::ALL.map(|codec| {
        let mut seed = [&[1][..], &super::batches::built(codec)].concat();
        // Flags that nobody has given a meaning.
        seed[1 + 21] = 0x55;
        seed[1 + 22] |= 0x80;
        seed
    });
    plain.chain(flagged).collect()
}
