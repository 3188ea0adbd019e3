//! Records of the loss ledger: `key length u8 | key | value`. What is read is written, and then stays as it is.

use alluvium::broker::losses::read_again;

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let length = usize::from(input.u8());
    let rest = input.rest();
    let (key, value) = rest.split_at(length.min(rest.len()));
    let Some((written_key, value)) = read_again(key, value) else {
        return;
    };
    assert_eq!(written_key, key, "an entry stays under its key");
    let again = read_again(key, &value);
    assert_eq!(again, Some((written_key, value)), "what is written is read");
}

/// The golden records.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_str!("../../../src/broker/losses/golden/losses.tsv");
    let rows = golden.lines().filter_map(|row| row.split_once('\t'));
    let seed = |(key, value): (&str, &str)| {
        let length = u8::try_from(key.len()).expect("keys are short");
        [&[length], key.as_bytes(), value.as_bytes()].concat()
    };
    rows.map(seed).collect()
}
