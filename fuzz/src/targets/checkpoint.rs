//! Checkpoints: `mend u8 | file`. What is mended: 0 nothing, 1 the envelope, as version 2 has it, 2 head and row of version 3.

use storage::checkpoint::{Checkpoint, HEAD_BYTES, MAGIC};
use storage::fields::ENVELOPE_HEADER_BYTES;

use crate::Input;
use crate::targets::mend_envelope;

/// The head's last fields: how long the row is, and its checksum.
const ROW_FIELDS_BYTES: usize = 8 + 4;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mend = input.u8() % 3;
    let bytes = match mend {
        0 => input.rest().to_vec(),
        1 => mend_envelope(MAGIC, 2, input.rest()),
        _ => mend_row(input.rest()),
    };
    if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
    }
}

/// The file with a head that fits what follows it.
fn mend_row(bytes: &[u8]) -> Vec<u8> {
    let (head, row) = bytes.split_at(bytes.len().min(HEAD_BYTES));
    let mut head = head.to_vec();
    head.resize(HEAD_BYTES, 0);
    head.truncate(HEAD_BYTES - ROW_FIELDS_BYTES);
    head.extend_from_slice(&(row.len() as u64).to_le_bytes());
    head.extend_from_slice(&crc32fast::hash(row).to_le_bytes());
    assert!(head.len() > ENVELOPE_HEADER_BYTES, "a head is longer");
    let mut mended = mend_envelope(MAGIC, 3, &head);
    mended.extend_from_slice(row);
    mended
}

/// The golden files.
pub fn seeds() -> Vec<Vec<u8>> {
    let v1 = include_bytes!("../../../storage/tests/golden/checkpoint.v1");
    let v2 = include_bytes!("../../../storage/tests/golden/checkpoint.v2");
    let v3 = include_bytes!("../../../storage/tests/golden/checkpoint.v3");
    let appended = include_bytes!("../../../storage/tests/golden/checkpoint.v3.appended");
    // What follows the row is not its own.
    let appended = &appended[..appended.len().min(2048)];
    vec![
        [&[0], &v1[..]].concat(),
        [&[1], &v2[..]].concat(),
        [&[0], &v3[..]].concat(),
        [&[2], &v3[..]].concat(),
        [&[0], appended].concat(),
    ]
}
