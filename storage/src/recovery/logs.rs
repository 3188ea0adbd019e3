//! The logs as recovery puts them together: what the checkpoint says of each, and behind it what the WAL says.
//!
//! Caller: a start, once. Invariant: offsets continue; a gap between two batches is damage, and readers are told of it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::topic_config::TopicConfig;
use model::{LogId, Offset};

use super::replay::Replayed;
use crate::checkpoint::Checkpoint;
use crate::damage::{Damage, DamageRecord};
use crate::epochs::Epochs;
use crate::error::OpenError;
use crate::fields::FormatError;
use crate::log::{Bounds, LogCell, LogSettings};
use crate::producers::Producers;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RecoveredLogs {
    logs: HashMap<LogId, Arc<LogCell>>,
    /// Whether the WAL is damaged anywhere up to here.
    is_damaged: bool,
}

impl RecoveredLogs {
    /// The logs of the checkpoint, with what is known to be damaged in them.
    pub fn new(
        checkpoint: Option<&Checkpoint>,
        damage: &DamageRecord,
    ) -> Result<RecoveredLogs, OpenError> {
        let mut recovered = RecoveredLogs::default();
        if let Some(checkpoint) = checkpoint {
            recovered.settled(checkpoint)?;
        }
        for known in damage.all() {
            if let Some(log) = known.log {
                recovered.log(log).locked().mark_damaged(known.range);
            }
        }
        Ok(recovered)
    }

    fn log(&mut self, id: LogId) -> &LogCell {
        self.logs.entry(id).or_insert_with(|| {
            let settings = LogSettings::from(&TopicConfig::default());
            Arc::new(LogCell::new(
                id,
                Arc::new(settings),
                Bounds::at(Offset::ZERO),
            ))
        })
    }

    fn settled(&mut self, checkpoint: &Checkpoint) -> Result<(), OpenError> {
        let format = |error: FormatError| OpenError::Format {
            path: PathBuf::from("checkpoint"),
            reason: error.to_string(),
        };
        for entry in &checkpoint.logs {
            let mut state = self.log(entry.log).locked();
            state.bounds = Bounds {
                start: entry.start_offset,
                ..Bounds::at(entry.settled_end)
            };
            if !entry.producers.is_empty() {
                state.producers = Producers::decode(&entry.producers).map_err(format)?;
            }
            if !entry.epochs.is_empty() {
                state.epochs = Epochs::decode(&entry.epochs).map_err(format)?;
            }
        }
        Ok(())
    }

    /// One thing that the WAL holds, in its order.
    pub fn take(&mut self, found: Replayed, damage: &DamageRecord) {
        match found {
            Replayed::Batch {
                log,
                header,
                entry,
                epoch,
            } => {
                // A checkpoint names every log that has anything before it. One that it does not name, of which a sound WAL holds
                // no beginning, was deleted: a checkpoint on a full disk may lie before the last frames of such a log.
                let was_deleted = !self.logs.contains_key(&log) && !self.is_damaged;
                let gap = self.log(log).locked().replay(&header, entry, epoch);
                if let Some(range) = gap.filter(|_| !was_deleted) {
                    let reason =
                        "acknowledged records are missing from the write-ahead log".to_owned();
                    let log = Some(log);
                    damage.add(Damage { log, range, reason });
                }
            }
            Replayed::StartRaised { log, start } => {
                // One that is not known holds nothing: its start has nothing to move over.
                let Some(cell) = self.logs.get(&log) else {
                    return;
                };
                let mut state = cell.locked();
                if start > state.bounds.start && start <= state.bounds.durable_end {
                    state.raise_start(start);
                }
            }
            Replayed::Damaged(mut found) => {
                self.is_damaged = true;
                if let Some(log) = found.log {
                    let mut state = self.log(log).locked();
                    if found.range.end <= state.bounds.settled_end {
                        // It was settled before it was damaged.
                        return;
                    }
                    found.range.start = found.range.start.min(state.bounds.end);
                    state.lose(found.range.clone());
                }
                damage.add(found);
            }
        }
    }

    /// The WAL is replayed.
    pub fn finish(self) -> impl Iterator<Item = Arc<LogCell>> {
        for log in self.logs.values() {
            log.locked().replayed();
        }
        self.logs.into_values()
    }
}
