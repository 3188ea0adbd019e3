//! The records of state logs as a start would read them: which of those that count are of a version that this release does not
//! know.
//!
//! Caller: `verify_store`, which shows the batches of state logs in the order of their offsets. A record counts if none of the
//! same key follows it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bytes::Bytes;
use model::batch::{Batch, DecompressLimit};
use model::state_log::{StateLogKind, UnknownRecord};
use model::{LogId, Offset};

/// Where a batch stands.
pub(super) struct Place {
    pub log: LogId,
    pub path: PathBuf,
    pub position: u64,
    pub bytes: u64,
}

/// A record that would stop a start.
pub(super) struct Unknown {
    pub path: PathBuf,
    pub position: u64,
    pub offset: Offset,
    pub reason: UnknownRecord,
}

#[derive(Default)]
pub(super) struct StateRecords {
    /// Batches that are in the write-ahead log only, in its order: they come last.
    pub unsettled: Vec<Place>,
    /// Up to where each log was read.
    next: HashMap<LogId, Offset>,
    pub unknown: BTreeMap<(LogId, Bytes), Unknown>,
}

impl StateRecords {
    pub fn take(&mut self, kind: StateLogKind, place: &Place, batch: &Batch) {
        let next = self.next.entry(place.log).or_default();
        // What is no batch is told as damage, not here.
        let Ok(records) = batch.records(DecompressLimit::default()) else {
            return;
        };
        for record in records.map_while(Result::ok) {
            if record.offset < *next {
                continue;
            }
            *next = record.offset.plus(1);
            let key = record.key.unwrap_or_default();
            // A removal counts for nothing at a start.
            let checked = record
                .value
                .as_deref()
                .map_or(Ok(()), |value| kind.check(&key, Some(value)));
            let of = (place.log, Bytes::copy_from_slice(&key));
            match checked {
                Ok(()) => drop(self.unknown.remove(&of)),
                Err(reason) => {
                    let unknown = Unknown {
                        path: place.path.clone(),
                        position: place.position,
                        offset: record.offset,
                        reason,
                    };
                    self.unknown.insert(of, unknown);
                }
            }
        }
    }
}
