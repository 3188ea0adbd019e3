//! Where each leader epoch of one log began, so that a client can find out whether what it read was truncated.
//!
//! Callers: the log's append path and recovery (`begin`), `Log::end_offset_for_epoch`, the segment's seal (snapshot).
//! Source: Kafka's `LeaderEpochFileCache`. Invariant: epochs and start offsets both rise strictly.
//!
//! A snapshot, little-endian, without a checksum of its own: `| count 4 | per epoch: epoch 4 | start offset 8 |`.

use model::{LeaderEpoch, Offset};

use crate::fields::{Fields, FormatError};

const ENTRY_BYTES: usize = 12;

/// The leader epochs of one log and the offset where each began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// Notes that a batch of `epoch` stands at `start_offset`. Nothing changes if that epoch has begun already.
    pub fn begin(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if let Some((last_epoch, last_start)) = self.entries.last() {
            if *last_epoch >= epoch {
                return;
            }
            assert!(
                *last_start <= start_offset,
                "an epoch begins no earlier than the one before it"
            );
            if *last_start == start_offset {
                // None of its records is left: the log's start moved up to its end.
                self.entries.pop();
            }
        }
        self.entries.push((epoch, start_offset));
        if let [.., before, last] = self.entries.as_slice() {
            assert!(
                before.0 < last.0 && before.1 < last.1,
                "epochs and their starts rise"
            );
        }
    }

    /// The end offset of the largest epoch that is not above `epoch`, and that epoch. `log_end` ends the newest one.
    /// None for an epoch above all known ones.
    pub fn end_offset_for(
        &self,
        epoch: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let after = self.entries.partition_point(|(known, _)| *known <= epoch);
        if after == self.entries.len() {
            let (newest, _) = self.entries.last()?;
            return (*newest == epoch).then_some((epoch, log_end));
        }
        let (_, end) = self.entries[after];
        let found = after
            .checked_sub(1)
            .map_or(epoch, |before| self.entries[before].0);
        Some((found, end))
    }

    /// The epoch of the record at `offset`, if it is known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        Some(self.entries[after.checked_sub(1)?].0)
    }

    /// The newest epoch and where it began.
    pub fn newest(&self) -> Option<(LeaderEpoch, Offset)> {
        self.entries.last().copied()
    }

    /// Forgets epochs that ended at or before the log's new start. The one that contains the start then begins there.
    pub fn forget_before(&mut self, start_offset: Offset) {
        let after = self
            .entries
            .partition_point(|(_, start)| *start <= start_offset);
        if let Some(containing) = after.checked_sub(1) {
            self.entries[containing].1 = start_offset;
            self.entries.drain(..containing);
        }
        assert!(
            self.entries
                .first()
                .is_none_or(|(_, start)| *start >= start_offset),
            "no epoch begins before the log"
        );
    }

    /// Forgets epochs that began at or after the log's new end.
    pub fn forget_from(&mut self, end_offset: Offset) {
        self.entries.retain(|(_, start)| *start < end_offset);
    }

    /// All epochs, oldest first.
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The snapshot's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.entries.len()).expect("one entry per start of the broker");
        let mut out = Vec::with_capacity(4 + self.entries.len() * ENTRY_BYTES);
        out.extend_from_slice(&count.to_le_bytes());
        for (epoch, start) in &self.entries {
            out.extend_from_slice(&epoch.get().to_le_bytes());
            out.extend_from_slice(&start.to_wire().to_le_bytes());
        }
        out
    }

    /// Reads a snapshot back.
    pub fn decode(bytes: &[u8]) -> Result<Epochs, FormatError> {
        let mut fields = Fields::new(bytes);
        let count = fields.count(ENTRY_BYTES)?;
        let mut entries: Vec<(LeaderEpoch, Offset)> = Vec::with_capacity(count);
        for _ in 0..count {
            let epoch = LeaderEpoch::new(fields.u32()?);
            let start = fields.offset("epoch's start offset")?;
            if entries
                .last()
                .is_some_and(|(e, s)| *e >= epoch || *s >= start)
            {
                return Err(FormatError::Field {
                    field: "leader epoch",
                    value: epoch.get().into(),
                });
            }
            entries.push((epoch, start));
        }
        fields.finish()?;
        Ok(Epochs { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs(entries: &[(u32, u64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in entries {
            epochs.begin(LeaderEpoch::new(*epoch), Offset::new(*start));
        }
        epochs
    }

    fn end_of(epochs: &Epochs, epoch: u32) -> Option<(u32, u64)> {
        let found = epochs.end_offset_for(LeaderEpoch::new(epoch), Offset::new(100));
        found.map(|(epoch, end)| (epoch.get(), end.get()))
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins_and_the_newest_at_the_logs_end() {
        let epochs = epochs(&[(2, 0), (4, 30), (7, 60)]);
        let ends: Vec<Option<(u32, u64)>> = (1..=8).map(|epoch| end_of(&epochs, epoch)).collect();
        let expected = [
            Some((1, 0)),
            Some((2, 30)),
            Some((2, 30)),
            Some((4, 60)),
            Some((4, 60)),
            Some((4, 60)),
            Some((7, 100)),
            None,
        ];
        assert_eq!(ends, expected);
        assert_eq!(end_of(&Epochs::default(), 0), None);
    }

    #[test]
    fn a_moved_start_keeps_the_epoch_that_contains_it() {
        let mut epochs = epochs(&[(2, 0), (4, 30), (7, 60)]);
        epochs.forget_before(Offset::new(45));
        assert_eq!(end_of(&epochs, 4), Some((4, 60)));
        assert_eq!(epochs.epoch_at(Offset::new(50)), Some(LeaderEpoch::new(4)));
        assert_eq!(epochs.epoch_at(Offset::new(44)), None);
        epochs.forget_from(Offset::new(60));
        assert_eq!(
            epochs.newest(),
            Some((LeaderEpoch::new(4), Offset::new(45)))
        );
    }

    #[test]
    fn an_epoch_whose_records_are_all_gone_makes_room_for_the_next() {
        let mut epochs = epochs(&[(2, 0), (4, 30)]);
        epochs.forget_before(Offset::new(60));
        epochs.begin(LeaderEpoch::new(5), Offset::new(60));
        assert_eq!(epochs.entries(), [(LeaderEpoch::new(5), Offset::new(60))]);
    }

    proptest! {
        #[test]
        fn snapshots_round_trip_and_cut_ones_fail(steps in prop::collection::vec((1u32..9, 1u64..99), 0..20)) {
            let mut epochs = Epochs::default();
            let (mut epoch, mut start) = (0, 0);
            for (up, on) in steps {
                epoch += up;
                start += on;
                epochs.begin(LeaderEpoch::new(epoch), Offset::new(start));
            }
            let bytes = epochs.encode();
            prop_assert_eq!(Epochs::decode(&bytes).unwrap(), epochs);
            for len in 0..bytes.len() {
                prop_assert!(Epochs::decode(&bytes[..len]).is_err());
            }
        }
    }
}
