//! Records of shared subscriptions: `key length u8 | key | value`. What is read is the one form of it.

use alluvium::broker::share::check_record;

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let length = usize::from(input.u8());
    let rest = input.rest();
    let (key, value) = rest.split_at(length.min(rest.len()));
    check_record(key, value);
}

/// A record of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let group = b"\x00\x02ab";
    let place = [&[7; 16][..], &[0, 0, 0, 3]].concat();
    let number = |number: u64| number.to_be_bytes();
    let records = [
        (
            [&[1, 1][..], group].concat(),
            [&[1][..], &number(5)].concat(),
        ),
        (
            [&[1, 2][..], group, &place].concat(),
            [&[1][..], &number(9), &number(100)].concat(),
        ),
        (
            [&[1, 3][..], group, &place, &number(9), &number(100)].concat(),
            [&[1][..], &number(110), &[0, 0, 2]].concat(),
        ),
        (
            [&[1, 4][..], group].concat(),
            b"\x01\x00\x01\x00\x01n\x00\x01v".to_vec(),
        ),
    ];
    let seed = |(key, value): (Vec<u8>, Vec<u8>)| {
        let length = u8::try_from(key.len()).expect("a short key");
        [&[length], &key[..], &value[..]].concat()
    };
    records.into_iter().map(seed).collect()
}
