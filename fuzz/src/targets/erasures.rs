//! Erasures' records and receipts: `which u8 | key length u8 | key | value` is a record of their state log;
//! `which u8 | place u32 | bits u8 | lines` a chain of receipts, and what is done to a byte of it.

use alluvium::broker::erasures::read_again;
use witness::receipts;

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8().is_multiple_of(2) {
        let key = usize::from(input.u8());
        let rest = input.rest();
        let (key, value) = rest.split_at(key.min(rest.len()));
        record(key, value);
    } else {
        let (place, bits) = (u32::from_be_bytes(input.array()), input.u8());
        chain(input.rest(), place, bits);
    }
}

/// What is read is written, and then stays as it is.
fn record(key: &[u8], value: &[u8]) {
    let Some((key, value)) = read_again(key, value) else {
        return;
    };
    let again = read_again(&key, &value);
    assert_eq!(again, Some((key, value)), "what is written is read");
}

/// A chain that is whole has a receipt a line, each with its hash, and is not whole with any of its bytes changed.
fn chain(bytes: &[u8], place: u32, bits: u8) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(chain) = receipts::check(text.lines()) else {
        return;
    };
    assert_eq!(chain.count, text.lines().count() as u64);
    let last = text.lines().last().map(receipts::hash_of);
    assert_eq!(chain.last.map(Ok), last, "the chain ends in its last hash");
    // The end of the last line is none of a receipt's bytes.
    let length = text.trim_end_matches(['\r', '\n']).len();
    if bits == 0 || length == 0 || text.contains('\r') {
        return;
    }
    let mut changed = bytes.to_vec();
    changed[place as usize % length] ^= bits;
    if let Ok(changed) = std::str::from_utf8(&changed) {
        let checked = receipts::check(changed.lines());
        assert!(checked.is_err(), "a change is seen: {changed:?}");
    }
}

/// The golden records, and the golden receipts as a chain.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_str!("../../../src/broker/erasures/golden/erasures.v1");
    let rows = golden.lines().filter_map(|row| row.split_once('\t'));
    let mut seeds = Vec::new();
    let mut lines = String::new();
    for (key, value) in rows {
        let length = u8::try_from(key.len()).expect("keys are short");
        seeds.push([&[0, length], key.as_bytes(), value.as_bytes()].concat());
        if key.starts_with("receipt/") {
            lines.push_str(value);
            lines.push('\n');
        }
    }
    seeds.push([&[1, 0, 0, 0, 9, 1], lines.as_bytes()].concat());
    seeds
}
