//! Segment files: `choices u8 | offset i64 | max bytes u16 | index bytes u16 | index file | log file`. The walk over headers, the verifier, a rebuilt
//! index, every look-up through it, and the offline dump, on a simulated disk. What one of them serves, the verifier calls good.

use std::path::Path;

use model::batch::Batch;
use model::{Offset, Timestamp};
use storage::Disk;
use storage::inspect::dump_segment;
use storage::io::{DiskFile, OpenHow, SimDisk, write_new_file};
use storage::manifest::SegmentKind;
use storage::segment::verify::{SegmentVerifier, check_first_block};
use storage::segment::{
    HeaderWalk, IndexFile, SegmentId, SegmentIndex, SegmentReader, SharedIndex, first_at_or_after,
    largest_in,
};

use crate::Input;
use crate::targets::batches::{built, mend};

const MEND: u8 = 1;
const WITH_INDEX: u8 = 2;
/// The golden segment's.
const ID: SegmentId = SegmentId {
    base: Offset::new(1_000),
    generation: 0,
};

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (choices, offset, max_bytes) = (input.u8(), input.i64(), input.u16());
    let index_bytes = input.chunk();
    let mut log = input.rest().to_vec();
    if choices & MEND != 0 {
        mend(&mut log);
    }
    let disk = SimDisk::new(1);
    let root = Path::new("/");
    write_new_file(&disk, &ID.log_path(root), &log).expect("an empty disk");
    let index = IndexFile::decode(index_bytes).ok().map(|file| file.index);
    let index = index.filter(|_| choices & WITH_INDEX != 0);
    if index.is_some() {
        write_new_file(&disk, &ID.index_path(root), index_bytes).expect("an empty disk");
    }
    let file = disk
        .open(&ID.log_path(root), OpenHow::Read)
        .expect("just written");
    let bytes = log.len() as u64;
    let _ = dump_segment(&disk, &ID.log_path(root), &mut |_| {});
    for kind in [SegmentKind::Plain, SegmentKind::Sparse] {
        verify(&*file, kind, bytes, index.as_ref());
    }
    if let Some(index) = index.filter(|index| index.bytes() <= bytes) {
        let _ = check_first_block(&*file, &index);
        let (published, end) = (index.bytes(), index.end_offset());
        look_up(&*file, index, published, end, offset, max_bytes);
    }
    for kind in [SegmentKind::Plain, SegmentKind::Sparse] {
        let time = Timestamp::from_millis(0);
        if let Ok(index) = SegmentIndex::rebuild(&*file, ID, kind, bytes, time) {
            let end = index.end_offset();
            look_up(&*file, index, bytes, end, offset, max_bytes);
        }
    }
}

fn verify(file: &dyn DiskFile, kind: SegmentKind, bytes: u64, index: Option<&SegmentIndex>) {
    for end in [Offset::MAX, Offset::new(1_060)] {
        let mut verifier = SegmentVerifier::new(ID, kind, bytes, end);
        loop {
            let before = (verifier.position(), verifier.next_offset());
            match verifier.next_batch(file, index) {
                Ok(Some(verified)) => {
                    assert!(verifier.position() > before.0, "it goes on");
                    assert!(verified.offsets.end == verifier.next_offset());
                    // A dump does not know the segment's offsets and tells what the headers say.
                    assert!(verifier.next_offset() > before.1 || end == Offset::MAX);
                }
                Ok(None) => break,
                Err(_) => match index {
                    Some(index) if verifier.resume_behind(index) => {
                        assert!(verifier.position() > before.0, "it goes on");
                    }
                    _ => break,
                },
            }
        }
    }
    let mut walk = HeaderWalk::new(file, ID, 0..bytes, Offset::ZERO, 61);
    while let Ok(Some(walked)) = walk.next_batch() {
        assert!(walked.end_position() <= bytes && walked.end_position() == walk.position());
    }
}

fn look_up(
    file: &dyn DiskFile,
    index: SegmentIndex,
    bytes: u64,
    end_offset: Offset,
    argument: i64,
    max_bytes: u16,
) {
    let index = SharedIndex::new(index);
    let reader = SegmentReader {
        id: ID,
        file,
        index: &index,
        bytes,
        end_offset,
    };
    let from = Offset::from_wire(argument).unwrap_or(Offset::ZERO);
    for min_one in [false, true] {
        if let Ok(Some(extent)) = reader.extent(from, max_bytes.into(), min_one) {
            let bytes = extent.positions.end - extent.positions.start;
            assert!(bytes > 0 && (min_one || bytes <= max_bytes.into()));
            let _ = reader.copy(extent.positions);
        }
    }
    let time = Timestamp::from_millis(argument);
    if let Ok(Some(walked)) = reader.locate(from)
        && let Ok(batch) = reader.batch(&walked)
    {
        check_times(&batch, time, from);
    }
    for from in [Offset::ZERO, from] {
        if let Ok(Some(found)) = reader.offset_for_time(time, from) {
            assert!(found.timestamp >= time && found.offset >= from);
        }
        if let Ok(Some(found)) = reader.max_timestamp(from) {
            assert!(found.offset >= from);
        }
    }
}

fn check_times(batch: &Batch, time: Timestamp, from: Offset) {
    if let Ok(Some(found)) = first_at_or_after(batch, time, from) {
        assert!(found.timestamp >= time && found.offset >= from);
    }
    if let Ok(Some(found)) = largest_in(batch, from) {
        assert!(found.offset >= from);
    }
}

/// The golden segment with and without its index, and batches of each codec.
pub fn seeds() -> Vec<Vec<u8>> {
    let log = include_bytes!("../../../storage/tests/golden/segment.v1.log");
    let index = include_bytes!("../../../storage/tests/golden/segment.v1.idx");
    let head = |choices: u8, offset: i64| {
        let mut head = vec![choices];
        head.extend_from_slice(&offset.to_be_bytes());
        head.extend_from_slice(&3_000u16.to_be_bytes());
        crate::input::put_chunk(&mut head, index);
        head
    };
    let mut small = Vec::new();
    let mut offset = ID.base.to_wire();
    for codec in model::codec::Codec::ALL {
        let mut batch = built(codec).to_vec();
        batch[..8].copy_from_slice(&offset.to_be_bytes());
        offset += 4;
        small.extend_from_slice(&batch);
    }
    vec![
        [&head(MEND | WITH_INDEX, 1_030)[..], log].concat(),
        [&head(MEND, 1_030)[..], log].concat(),
        [&head(0, 1_700_000_000_005)[..], log].concat(),
        [&head(MEND, 1_005)[..], &small].concat(),
        [&head(MEND, 1_700_000_000_002)[..], &small].concat(),
    ]
}
