//! Summaries of thinned segments: `mend u8 | file`.

use storage::segment::summary::{MAGIC, Summary, VERSION};

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
    let Ok((log, id, summary)) = Summary::decode(&bytes) else {
        return;
    };
    // Compared as bytes: a file may hold numbers that are not equal to themselves.
    let encoded = summary.encode(log, id);
    let (_, _, again) = Summary::decode(&encoded).expect("what was encoded is decoded");
    assert_eq!(again.encode(log, id), encoded);
    let mut twice = again;
    twice.merge(summary);
    assert!(Summary::decode(&twice.encode(log, id)).is_ok());
}

/// The golden file.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_bytes!("../../../storage/tests/golden/summary.v1");
    vec![[&[1], &golden[..]].concat(), [&[0], &golden[..]].concat()]
}
