//! What idempotent producers have appended to one log, so that a retry is stored once.
//!
//! Callers: the log's append path (check, then record, under the log's lock), recovery (record alone), the settler and the
//! segment's seal (snapshot). Source: Kafka's `ProducerStateManager`, `ProducerStateEntry` and `ProducerAppendInfo`.
//! Invariants: per producer at most [`BATCHES_MAX`] batches, the newest, in order; a batch is in here before it is durable,
//! so the ack of a duplicate waits for the durable end like the original's.
//! State is kept until it expires, also when the log's start moves past it: forgetting it earlier would let a late retry
//! be stored a second time.
//!
//! A snapshot, little-endian, without a checksum of its own (the file around it has one):
//! ```text
//! | count 4 | per producer, by id: id 8 | epoch 2 | last append time 8 | batches 1 |
//!             per batch, oldest first: first sequence 4 | last sequence 4 | base offset 8 | last offset 8 | append time 8 |
//! ```

mod limits;

use std::collections::HashMap;

use model::batch::BatchHeader;
use model::{Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::fields::{Fields, FormatError};

pub use self::limits::ProducerAccounts;
pub(crate) use self::limits::{OfAccounts, PRODUCER_IDLE_MS, ProducerLimits};

/// How many batches back a retry is recognised. Kafka's clients have at most five requests in flight.
pub const BATCHES_MAX: usize = 5;

const PRODUCER_BYTES: usize = 8 + 2 + 8 + 1;

/// A batch that an idempotent producer appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// The first record's sequence number.
    pub first_sequence: i32,
    /// The last record's sequence number.
    pub last_sequence: i32,
    /// Where the first record went.
    pub base_offset: Offset,
    /// Where the last record went, inclusive as the wire means it.
    pub last_offset: Offset,
    /// When the broker appended it.
    pub append_time: Timestamp,
}

/// What one producer has appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The epoch of its batches.
    pub epoch: ProducerEpoch,
    /// When the broker last appended for it.
    pub last_append_time: Timestamp,
    /// Its newest batches, oldest first; at most [`BATCHES_MAX`].
    pub batches: Vec<ProducerBatch>,
}

/// What a batch's sequence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// Not from an idempotent producer: append.
    Untracked,
    /// The next one: append.
    Next,
    /// Appended before: answer with where it went.
    Duplicate(ProducerBatch),
}

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A gap, or a retry from before the window.
    #[error("producer {producer_id}: sequence {found}, expected {expected}")]
    OutOfOrder {
        /// Whose.
        producer_id: ProducerId,
        /// The one that would be next.
        expected: i32,
        /// The one that came.
        found: i32,
    },
    /// A producer that a newer one with the same id has replaced.
    #[error("producer {producer_id}: epoch {found} is older than {current}")]
    OldEpoch {
        /// Whose.
        producer_id: ProducerId,
        /// The newest epoch seen.
        current: ProducerEpoch,
        /// The one that came.
        found: ProducerEpoch,
    },
    /// A producer id without a sequence number.
    #[error("producer {producer_id}: the batch has no sequence number")]
    Missing {
        /// Whose.
        producer_id: ProducerId,
    },
}

/// All idempotent producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    states: HashMap<ProducerId, ProducerState>,
}

impl Producers {
    /// Judges a batch against what was appended so far. Changes nothing.
    pub fn check(&self, header: &BatchHeader) -> Result<Sequence, SequenceError> {
        let Some((producer_id, epoch, first)) = header.producer() else {
            return Ok(Sequence::Untracked);
        };
        if first < 0 {
            return Err(SequenceError::Missing { producer_id });
        }
        let Some(state) = self.states.get(&producer_id) else {
            return Ok(Sequence::Next);
        };
        if epoch < state.epoch {
            return Err(SequenceError::OldEpoch {
                producer_id,
                current: state.epoch,
                found: epoch,
            });
        }
        let expected = if epoch > state.epoch {
            0
        } else {
            if let Some(batch) = state.find(first, header.last_sequence().unwrap_or(first)) {
                return Ok(Sequence::Duplicate(batch));
            }
            match state.batches.last() {
                Some(batch) => next_sequence(batch.last_sequence),
                None => first,
            }
        };
        if first == expected {
            Ok(Sequence::Next)
        } else {
            Err(SequenceError::OutOfOrder {
                producer_id,
                expected,
                found: first,
            })
        }
    }

    /// Notes a batch that was appended at `base_offset`. A batch without a producer changes nothing.
    pub fn record(&mut self, header: &BatchHeader, base_offset: Offset, append_time: Timestamp) {
        let Some((producer_id, epoch, first_sequence)) = header.producer() else {
            return;
        };
        if first_sequence < 0 {
            return;
        }
        let batch = ProducerBatch {
            first_sequence,
            last_sequence: header.last_sequence().unwrap_or(first_sequence),
            base_offset,
            last_offset: base_offset.plus(header.offset_count() - 1),
            append_time,
        };
        let state = self
            .states
            .entry(producer_id)
            .or_insert_with(|| ProducerState {
                epoch,
                last_append_time: append_time,
                // Many producers send one batch only.
                batches: Vec::with_capacity(1),
            });
        if state.epoch != epoch {
            state.epoch = epoch;
            state.batches.clear();
        }
        if state.batches.len() == BATCHES_MAX {
            state.batches.remove(0);
        }
        state.batches.push(batch);
        assert!(
            state.batches.len() <= BATCHES_MAX,
            "a snapshot takes no more of a producer"
        );
        assert!(
            batch.base_offset <= batch.last_offset && state.epoch == epoch,
            "a batch has records, and is of its producer's epoch"
        );
        state.last_append_time = append_time;
    }

    /// Forgets the producers that appended nothing since `oldest`, and says how many.
    pub fn expire(&mut self, oldest: Timestamp) -> usize {
        let before = self.states.len();
        self.states
            .retain(|_, state| state.last_append_time >= oldest);
        before - self.states.len()
    }

    /// Forgets the producers that appended nothing since `oldest`, those that are idle for longest first, until no more than
    /// `keep` are known or none is left of them; says which.
    pub fn forget_idle(&mut self, oldest: Timestamp, keep: usize) -> Vec<ProducerId> {
        let mut idle: Vec<(Timestamp, ProducerId)> = self
            .states
            .iter()
            .filter(|(_, state)| state.last_append_time < oldest)
            .map(|(id, state)| (state.last_append_time, *id))
            .collect();
        idle.sort_unstable();
        idle.truncate(self.states.len().saturating_sub(keep));
        let before = self.states.len();
        for (_, id) in &idle {
            self.states.remove(id);
        }
        assert!(
            self.states.len() + idle.len() == before,
            "what is forgotten was known"
        );
        idle.into_iter().map(|(_, id)| id).collect()
    }

    /// Forgets those of these producers that appended nothing since `oldest`, and says how many.
    pub fn expire_of(&mut self, oldest: Timestamp, is_meant: impl Fn(ProducerId) -> bool) -> usize {
        let before = self.states.len();
        self.states
            .retain(|id, state| state.last_append_time >= oldest || !is_meant(*id));
        before - self.states.len()
    }

    /// Whether a batch is of a producer that is not known.
    pub fn is_new(&self, header: &BatchHeader) -> bool {
        header
            .producer()
            .is_some_and(|(id, _, first)| first >= 0 && !self.states.contains_key(&id))
    }

    /// One producer's state.
    pub fn get(&self, producer_id: ProducerId) -> Option<&ProducerState> {
        self.states.get(&producer_id)
    }

    /// All producers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        self.states.iter().map(|(id, state)| (*id, state))
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The snapshot's bytes; the same state always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut producers: Vec<(&ProducerId, &ProducerState)> = self.states.iter().collect();
        producers.sort_by_key(|(id, _)| **id);
        let count = u32::try_from(producers.len()).expect("producers of one log fit u32");
        let mut out = Vec::with_capacity(4 + producers.len() * (PRODUCER_BYTES + 32));
        out.extend_from_slice(&count.to_le_bytes());
        for (id, state) in producers {
            out.extend_from_slice(&id.get().to_le_bytes());
            out.extend_from_slice(&state.epoch.get().to_le_bytes());
            out.extend_from_slice(&state.last_append_time.millis().to_le_bytes());
            assert!(
                state.batches.len() <= BATCHES_MAX,
                "a start would refuse the snapshot"
            );
            out.push(u8::try_from(state.batches.len()).expect("at most BATCHES_MAX"));
            for batch in &state.batches {
                out.extend_from_slice(&batch.first_sequence.to_le_bytes());
                out.extend_from_slice(&batch.last_sequence.to_le_bytes());
                out.extend_from_slice(&batch.base_offset.to_wire().to_le_bytes());
                out.extend_from_slice(&batch.last_offset.to_wire().to_le_bytes());
                out.extend_from_slice(&batch.append_time.millis().to_le_bytes());
            }
        }
        out
    }

    /// Reads a snapshot back.
    pub fn decode(bytes: &[u8]) -> Result<Producers, FormatError> {
        let mut fields = Fields::new(bytes);
        let count = fields.count(PRODUCER_BYTES)?;
        let mut states = HashMap::with_capacity(count);
        for _ in 0..count {
            let id = fields.i64()?;
            let id = ProducerId::from_wire(id).ok_or(FormatError::Field {
                field: "producer id",
                value: id.into(),
            })?;
            states.insert(id, ProducerState::decode(&mut fields)?);
        }
        if states.len() != count {
            return Err(FormatError::Field {
                field: "producer count",
                value: count as i128,
            });
        }
        fields.finish()?;
        Ok(Producers { states })
    }
}

impl ProducerState {
    fn find(&self, first: i32, last: i32) -> Option<ProducerBatch> {
        let same =
            |batch: &&ProducerBatch| batch.first_sequence == first && batch.last_sequence == last;
        self.batches.iter().find(same).copied()
    }

    fn decode(fields: &mut Fields<'_>) -> Result<ProducerState, FormatError> {
        let epoch = ProducerEpoch::new(fields.i16()?);
        let last_append_time = Timestamp::from_millis(fields.i64()?);
        let count = usize::from(fields.u8()?);
        if count > BATCHES_MAX {
            return Err(FormatError::Field {
                field: "batch count",
                value: count as i128,
            });
        }
        let mut batches = Vec::with_capacity(count);
        for _ in 0..count {
            batches.push(ProducerBatch {
                first_sequence: fields.i32()?,
                last_sequence: fields.i32()?,
                base_offset: fields.offset("base offset")?,
                last_offset: fields.offset("last offset")?,
                append_time: Timestamp::from_millis(fields.i64()?),
            });
        }
        Ok(ProducerState {
            epoch,
            last_append_time,
            batches,
        })
    }
}

fn next_sequence(last: i32) -> i32 {
    last.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests;
