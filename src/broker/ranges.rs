//! Ranges of a topic that do not change: pieces of sealed segments.
//!
//! Callers: fronts that make files of them. Invariant: a piece's name says all that its records depend on: the segment and which rewriting
//! of it, and what of it is known to be damaged. So the same name is always of the same records, or of none.

use std::ops::Range;
use std::sync::Arc;

use model::{LogId, Offset, PartitionId, Timestamp};
use sha2::{Digest, Sha256};

use super::access::{Granted, right};
use super::{Broker, Refusal, Topic};

/// A segment is cut into pieces of about so many bytes.
const PIECE_BYTES: u64 = 64 * 1024 * 1024;

/// A piece of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRange {
    /// In which partition.
    pub partition: PartitionId,
    /// Its offsets; of a segment that was compacted or thinned some are left out.
    pub offsets: Range<Offset>,
    /// What its records depend on, as a number.
    pub stamp: u64,
    /// The largest timestamp of the segment's records.
    pub max_timestamp: Timestamp,
}

impl Broker {
    /// The pieces of a partition's sealed segments, in the order of their offsets. Never waits for the disk.
    pub fn sealed_ranges(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
        partition: PartitionId,
    ) -> Result<Vec<SealedRange>, Refusal> {
        let log = topic.log(partition)?;
        let (start, damaged) = (log.bounds().start, log.damaged());
        let id = LogId::new(topic.id, partition);
        let mut ranges = Vec::new();
        for entry in self.storage().sealed_segments(id) {
            let Some(sealed) = entry.sealed else { continue };
            let (base, end) = (entry.id.base, sealed.end_offset);
            if end <= base {
                continue;
            }
            let within = |damage: &&Range<Offset>| damage.start < end && base < damage.end;
            let mut hash = Sha256::new();
            hash.update(id.to_string());
            hash.update(base.get().to_le_bytes());
            hash.update(entry.id.generation.to_le_bytes());
            for damage in damaged.iter().filter(within) {
                hash.update(damage.start.get().to_le_bytes());
                hash.update(damage.end.get().to_le_bytes());
            }
            let stamp = hash.finalize();
            let stamp = stamp.first_chunk().expect("a hash has 32 bytes");
            for offsets in pieces(base..end, sealed.bytes) {
                let first = offsets.start.max(start);
                if first < offsets.end {
                    ranges.push(SealedRange {
                        partition,
                        offsets: first..offsets.end,
                        stamp: u64::from_le_bytes(*stamp),
                        max_timestamp: sealed.max_timestamp,
                    });
                }
            }
        }
        Ok(ranges)
    }
}

/// A segment's offsets in pieces of the same length.
fn pieces(offsets: Range<Offset>, bytes: u64) -> impl Iterator<Item = Range<Offset>> {
    let span = offsets.end.since(offsets.start);
    let count = bytes.div_ceil(PIECE_BYTES).clamp(1, span);
    let at = move |piece: u64| {
        let part = u128::from(span) * u128::from(piece) / u128::from(count);
        offsets
            .start
            .plus(u64::try_from(part).expect("a part of a span"))
    };
    (0..count).map(move |piece| at(piece)..at(piece + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_and_none_is_empty() {
        for (span, bytes, count) in [
            (10, 1, 1),
            (10, PIECE_BYTES * 3, 3),
            (2, PIECE_BYTES * 9, 2),
            (7, 0, 1),
        ] {
            let range = Offset::new(100)..Offset::new(100 + span);
            let pieces: Vec<_> = pieces(range.clone(), bytes).collect();
            assert_eq!(pieces.len(), count);
            assert_eq!(pieces[0].start, range.start);
            assert_eq!(pieces[count - 1].end, range.end);
            assert!(pieces.windows(2).all(|two| two[0].end == two[1].start));
            assert!(pieces.iter().all(|piece| piece.start < piece.end));
        }
    }
}
