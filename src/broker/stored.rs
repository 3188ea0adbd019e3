//! Stored records, one by one, for the broker's own use: what a group reads next, what a state log holds.
//!
//! Callers: `lag`, `state_log`. Who shows records to somebody uses `replay`. Blocks on the disk. Invariant: nothing is passed over in
//! silence: what is missing within the range, but for what cleanup took, ends the walk with an error.

use std::ops::{ControlFlow, Range};

use model::Offset;
use model::batch::{Batch, BatchError, DecompressLimit, RecordRef, split_unverified};
use storage::{GapReason, Log, ReadError, ScanRange, Scanned};

/// What is read at a time.
const RUN_BYTES: usize = 4 << 20;

/// Why a walk ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The disk, or the log.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Records that are not there any more.
    #[error("offsets {}..{} are {}", offsets.start, offsets.end, match reason {
        GapReason::Removed => "removed",
        GapReason::Damaged => "damaged",
    })]
    Missing {
        /// Which.
        offsets: Range<Offset>,
        /// Why.
        reason: GapReason,
    },
    /// A batch that is no records.
    #[error(transparent)]
    Malformed(BatchError),
}

/// Shows the records of a range in the order of offsets, until it is told to stop. A batch may grow to what `limit` says of it.
pub(super) fn each_record(
    log: &Log,
    offsets: Range<Offset>,
    limit: impl Fn(&Batch) -> DecompressLimit,
    mut show: impl FnMut(&RecordRef<'_>) -> ControlFlow<()>,
) -> Result<(), Trouble> {
    each_batch(log, offsets, RUN_BYTES, |batch, offsets| {
        let mut records = batch.records(limit(batch))?;
        while let Some(record) = records.next_ref() {
            let record = record?;
            if offsets.contains(&record.offset) && show(&record).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Shows the batches of a range, each with the offsets that are meant, until it is told to stop.
pub(super) fn each_batch(
    log: &Log,
    offsets: Range<Offset>,
    run_bytes: usize,
    mut show: impl FnMut(&Batch, &Range<Offset>) -> Result<ControlFlow<()>, BatchError>,
) -> Result<(), Trouble> {
    let mut scan = log.scan(ScanRange {
        offsets,
        times: None,
        key: None,
        run_bytes,
    });
    while let Some(step) = scan.next_step()? {
        let (batches, offsets) = match step {
            Scanned::Run { batches, offsets } => (batches, offsets),
            Scanned::Gap { offsets, reason } => return Err(Trouble::Missing { offsets, reason }),
        };
        for batch in split_unverified(batches) {
            let batch = batch.map_err(Trouble::Malformed)?;
            if show(&batch, &offsets)
                .map_err(Trouble::Malformed)?
                .is_break()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}
