//! Index files: `mend u8 | offset i64 | position u32 | file`. Decoding, coding again, and all look-ups in what was decoded.

use model::{Offset, Timestamp};
use storage::segment::IndexFile;

use crate::Input;

const FOOTER_BYTES: usize = 104;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mend = input.u8() & 1 != 0;
    let (offset, position) = (input.i64(), input.u32());
    let mut bytes = input.rest().to_vec();
    if mend {
        mend_footer(&mut bytes);
    }
    let Ok(file) = IndexFile::decode(&bytes) else {
        return;
    };
    let index = &file.index;
    let at = Offset::from_wire(offset).unwrap_or(Offset::ZERO);
    if let Some(block) = index.block_of_offset(at) {
        assert!(block == 0 || index.block_offset(block) <= at);
    }
    if let Some(block) = index.block_of_position(position.into()) {
        assert!(u64::from(index.blocks()[block].position) <= position.into());
        assert!(index.block_end(block) <= index.bytes());
    }
    let time = Timestamp::from_millis(offset);
    for from in 0..=index.blocks().len() {
        if let Some(block) = index.block_reaching(from, time) {
            assert!(block >= from && index.blocks()[block].max_timestamp >= time);
        }
    }
    assert_eq!(IndexFile::decode(&file.encode()), Ok(file));
}

/// Makes the file's length and the checksum in its footer right.
fn mend_footer(bytes: &mut [u8]) {
    let file_bytes = bytes.len();
    if file_bytes < FOOTER_BYTES {
        return;
    }
    let after_length = file_bytes - 16;
    bytes[after_length - 8..after_length].copy_from_slice(&(file_bytes as u64).to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..after_length]);
    bytes[after_length..][..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The golden file.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_bytes!("../../../storage/tests/golden/segment.v1.idx");
    let head = |mend: u8| [&[mend][..], &1_010i64.to_be_bytes(), &500u32.to_be_bytes()].concat();
    vec![
        [&head(1)[..], golden].concat(),
        [&head(0)[..], golden].concat(),
    ]
}
