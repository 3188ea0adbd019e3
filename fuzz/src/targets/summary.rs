//! Summaries of thinned segments: `mend u8 | file`.

use storage::segment::summary::{MAGIC, VERSION, decode, encode};

use crate::Input;
use crate::targets::mend_envelope;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mend = input.u8() & 1 != 0;
    let bytes = match mend {
        true => mend_envelope(MAGIC, VERSION, input.rest()),
        false => input.rest().to_vec(),
    };
    let Ok((log, id, sections)) = decode(&bytes) else {
        return;
    };
    // Compared as bytes: a file may hold numbers that are not equal to themselves.
    let encoded = encode(log, id, &sections);
    let (_, _, again) = decode(&encoded).expect("what was encoded is decoded");
    assert_eq!(encode(log, id, &again), encoded);
}

/// The golden files.
pub fn seeds() -> Vec<Vec<u8>> {
    let first = include_bytes!("../../../storage/tests/golden/summary.v1");
    let golden = include_bytes!("../../../storage/tests/golden/summary.v2");
    vec![
        [&[1], &first[..]].concat(),
        [&[1], &golden[..]].concat(),
        [&[0], &golden[..]].concat(),
    ]
}
