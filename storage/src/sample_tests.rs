//! A small sealed segment, for the unit tests of those who read segments.

use std::path::Path;
use std::sync::Arc;

use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};

use crate::epochs::Epochs;
use crate::io::{AlignedBuffer, Disk, SimDisk};
use crate::manifest::Sealed;
use crate::producers::Producers;
use crate::segment::{SegmentId, SegmentWriter, SettledBatch, WriteWay};

/// The log that it is of.
pub(crate) fn log() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

/// A batch of records with these values.
pub(crate) fn batch(base: u64, codec: Codec, values: &[&[u8]]) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    builder.base_offset(Offset::new(base));
    for value in values {
        builder
            .push(Timestamp::from_millis(1), None, Some(value), &[])
            .unwrap();
    }
    Batch::parse(builder.build().unwrap()).unwrap()
}

/// Writes them into the log's first segment, one by one, and seals it.
pub(crate) fn seal(
    disk: &SimDisk,
    directory: &Path,
    batches: impl IntoIterator<Item = Batch>,
    way: WriteWay,
) -> (SegmentId, Sealed) {
    disk.create_dir_all(directory).unwrap();
    let id = SegmentId::first(Offset::ZERO);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut writer = SegmentWriter::create(shared, directory.to_owned(), log(), id).unwrap();
    for batch in batches {
        let settled = SettledBatch {
            header: *batch.header(),
            bytes: batch.into_bytes(),
            append_time: Timestamp::from_millis(2),
        };
        writer
            .append(&[settled], way, &mut AlignedBuffer::default())
            .unwrap();
    }
    let sealed = writer
        .seal(&Producers::default(), &Epochs::default())
        .unwrap();
    (id, sealed.sealed)
}
