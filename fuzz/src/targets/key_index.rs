//! Key indexes of sealed segments: `mend u8 | keys hash u64 | file`. Mended, the checksums of the pages and of the end are right.

use std::path::Path;

use storage::Disk;
use storage::io::{OpenHow, SimDisk, write_new_file};
use storage::segment::key_index::{KeyIndex, mend};

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let is_mended = input.u8() & 1 != 0;
    let hash = u64::from_be_bytes(input.array());
    let bytes = match is_mended {
        true => mend(input.rest()),
        false => input.rest().to_vec(),
    };
    let (disk, path) = (SimDisk::new(1), Path::new("/file"));
    write_new_file(&disk, path, &bytes).expect("an empty disk");
    let file = disk.open(path, OpenHow::Read).expect("it was written");
    let Ok(index) = KeyIndex::open(file) else {
        return;
    };
    let (blocks, known) = index.blocks();
    let times = index.smallest_times();
    assert!(times.is_none_or(|times| times.len() == blocks as usize));
    assert!(known <= blocks, "no more blocks are known than there are");
    let is_sound = index.check().is_ok();
    for hash in [hash, 0, u64::MAX] {
        match index.look_up(hash) {
            Ok(found) => {
                let mut end = None;
                for range in found.blocks {
                    assert!(
                        end.is_none_or(|end| end < range.start),
                        "ranges rise and do not touch"
                    );
                    assert!(
                        range.start < range.end && range.end <= blocks,
                        "they lie inside"
                    );
                    end = Some(range.end);
                }
            }
            Err(_) => assert!(!is_sound, "what is sound can be looked into"),
        }
    }
}

/// The golden files.
pub fn seeds() -> Vec<Vec<u8>> {
    let first = include_bytes!("../../../storage/tests/golden/keyindex.v1");
    let second = include_bytes!("../../../storage/tests/golden/keyindex.v2");
    let with = |head: u8, golden: &[u8]| [&[head][..], &[7; 8], golden].concat();
    vec![
        with(1, first),
        with(0, first),
        with(1, second),
        with(0, second),
    ]
}
