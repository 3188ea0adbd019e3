//! The records of state logs as a start would read them: which of those that count are of a version that this release does not
//! know.
//!
//! Caller: `verify_store`, which shows the batches of state logs in the order of their offsets. A record counts if none of the
//! same key follows it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::batch::{Batch, BatchHeader, DecompressLimit};
use model::state_log::{StateLogKind, UnknownVersion};
use model::{LogId, Offset};

use super::{Finding, Verify};
use crate::io::OpenHow;

/// Where a batch stands.
pub(super) struct Place {
    pub log: LogId,
    pub path: PathBuf,
    pub position: u64,
    pub bytes: u64,
}

/// A record that would stop a start.
struct Unknown {
    path: PathBuf,
    position: u64,
    offset: Offset,
    reason: UnknownVersion,
}

#[derive(Default)]
pub(super) struct StateRecords {
    /// Batches that are in the write-ahead log only, in its order: they come last.
    pub unsettled: Vec<Place>,
    /// Up to where each log was read.
    next: HashMap<LogId, Offset>,
    unknown: BTreeMap<(LogId, Bytes), Unknown>,
}

impl StateRecords {
    fn take(&mut self, kind: StateLogKind, place: &Place, batch: &Batch) {
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
                .map_or(Ok(()), |value| kind.check_version(&key, Some(value)));
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

impl Verify<'_> {
    /// Reads the batch of a state log. One that cannot be read is told elsewhere.
    pub(super) fn state_batch(&mut self, place: &Place) -> io::Result<()> {
        let Some(kind) = StateLogKind::of(place.log) else {
            return Ok(());
        };
        let mut bytes = vec![0; usize::try_from(place.bytes).map_err(io::Error::other)?];
        let file = self.disk.open(&place.path, OpenHow::Read)?;
        if file.read_exact_at(place.position, &mut bytes).is_err() {
            return Ok(());
        }
        if let Ok(batch) = Batch::parse(bytes.into()) {
            self.state.take(kind, place, &batch);
        }
        Ok(())
    }

    /// Notes a batch that is in the write-ahead log only.
    pub(super) fn unsettled_state(
        &mut self,
        log: LogId,
        path: &Path,
        position: u64,
        header: &BatchHeader,
    ) {
        if StateLogKind::of(log).is_some() {
            let bytes = header.total_bytes() as u64;
            let path = path.to_owned();
            self.state.unsettled.push(Place {
                log,
                path,
                position,
                bytes,
            });
        }
    }

    /// Tells of the records that would stop a start. Last, when all batches of segments have been shown.
    pub(super) fn state_records(&mut self) -> io::Result<()> {
        for place in std::mem::take(&mut self.state.unsettled) {
            self.state_batch(&place)?;
        }
        for ((log, _), unknown) in std::mem::take(&mut self.state.unknown) {
            let Unknown {
                path,
                position,
                offset,
                reason,
            } = unknown;
            self.find(Finding {
                path,
                position: Some(position),
                log: Some(log.to_string()),
                from_offset: Some(offset.get()),
                to_offset: Some(offset.plus(1).get()),
                reason: reason.to_string(),
                is_damage: false,
                stops_start: true,
            });
        }
        Ok(())
    }
}
