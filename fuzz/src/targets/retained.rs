//! Records of retained messages: `key length u8 | key | value`. What is read is written, to the byte.

use alluvium::broker::retained::read_again;

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let length = usize::from(input.u8());
    let rest = input.rest();
    let (key, value) = rest.split_at(length.min(rest.len()));
    if let Some((written_key, written)) = read_again(key, value) {
        assert_eq!(written_key, key, "a message stays under its key");
        assert_eq!(written, value, "what is read is written as it was");
    }
}

/// The golden records.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = [
        include_str!("../../../src/broker/retained/golden/retained.v1"),
        include_str!("../../../src/broker/retained/golden/retained.v2"),
        include_str!("../../../src/broker/retained/golden/retained.v3"),
    ];
    let rows = golden.iter().flat_map(|golden| golden.lines());
    let rows = rows.filter_map(|row| row.split_once('\t'));
    let seed = |(key, value): (&str, &str)| {
        let length = u8::try_from(key.len()).expect("keys are short");
        let value = model::hex::from_hex(value).expect("golden values are hexadecimal");
        [&[length], key.as_bytes(), &value].concat()
    };
    rows.map(seed).collect()
}
