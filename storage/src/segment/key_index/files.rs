//! The key indexes of all logs' segments: a few are open, and which logs have some to be made or removed is noted.
//!
//! Callers: the log's scan looks up, the settler and whoever changes settings note logs, the builder's thread takes them.
//! Nothing is loaded at a start. An index that is missing or damaged costs a reader nothing but a longer scan; its log is
//! noted, so that it is made again.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use model::{LogId, Timestamp};

use super::build::remove;
use super::file::{KeyIndex, KeyIndexError, Looked};
use super::hash_of;
use crate::fields::FormatError;
use crate::io::{Disk, OpenHow};
use crate::segment::{SegmentId, SegmentIndex};

/// So many are open: descriptors, and some kilobytes of memory each.
const OPEN_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct KeyIndexes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: HashMap<(LogId, SegmentId), (u64, Arc<KeyIndex>)>,
    uses: u64,
    /// Logs that are to be looked at.
    due: BTreeSet<LogId>,
    /// Segments whose index an earlier release wrote, without what this one knows: they are to be made again.
    old: BTreeSet<(LogId, SegmentId)>,
}

impl KeyIndexes {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("nothing panics while it holds the key indexes")
    }

    /// Which blocks of a sealed segment may hold a key. None if it has no key index that could be used: then any may. Blocks.
    pub fn look_up(
        &self,
        disk: &dyn Disk,
        directory: &Path,
        log: LogId,
        (segment, key): (&SegmentIndex, &[u8]),
    ) -> Option<Looked> {
        if segment.bytes() < super::LOG_BYTES_MIN {
            return None;
        }
        let found = self
            .open(disk, directory, log, segment)
            .and_then(|index| index.map(|index| index.look_up(hash_of(key))).transpose());
        match found {
            Ok(found) => found,
            Err(error) => {
                self.unusable(disk, directory, (log, segment.id()), &error);
                None
            }
        }
    }

    /// The smallest timestamp of each block of a sealed segment. None if it has no index that tells. Blocks.
    pub fn smallest_times(
        &self,
        disk: &dyn Disk,
        directory: &Path,
        log: LogId,
        segment: &SegmentIndex,
    ) -> Option<Arc<[Timestamp]>> {
        if segment.bytes() < super::LOG_BYTES_MIN {
            return None;
        }
        match self.open(disk, directory, log, segment) {
            Ok(None) => None,
            Ok(Some(index)) => {
                let smallest = index.smallest_times().cloned();
                if smallest.is_none() {
                    self.locked().old.insert((log, segment.id()));
                    self.look_at(log);
                }
                smallest
            }
            Err(error) => {
                self.unusable(disk, directory, (log, segment.id()), &error);
                None
            }
        }
    }

    /// Whether a segment's index is to be made again, because an earlier release wrote it.
    pub fn is_old(&self, log: LogId, id: SegmentId) -> bool {
        self.locked().old.contains(&(log, id))
    }

    fn open(
        &self,
        disk: &dyn Disk,
        directory: &Path,
        log: LogId,
        segment: &SegmentIndex,
    ) -> Result<Option<Arc<KeyIndex>>, KeyIndexError> {
        let of = (log, segment.id());
        if let Some(index) = self.get(of) {
            return Ok(Some(index));
        }
        let file = match disk.open(&segment.id().key_index_path(directory), OpenHow::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let index = KeyIndex::open(file)?;
        if !index.is_of(log, segment) {
            let id = index.id().1.base.to_wire();
            let field = "segment whose key index it is";
            return Err(FormatError::Field {
                field,
                value: id.into(),
            }
            .into());
        }
        let index = Arc::new(index);
        let mut state = self.locked();
        if state.open.len() >= OPEN_MAX {
            let oldest = state.open.iter().min_by_key(|(_, (used, _))| *used);
            let oldest = *oldest.expect("there are some").0;
            state.open.remove(&oldest);
        }
        state.uses += 1;
        let used = state.uses;
        state.open.insert(of, (used, Arc::clone(&index)));
        Ok(Some(index))
    }

    fn get(&self, of: (LogId, SegmentId)) -> Option<Arc<KeyIndex>> {
        let mut state = self.locked();
        state.uses += 1;
        let now = state.uses;
        let (used, index) = state.open.get_mut(&of)?;
        *used = now;
        Some(Arc::clone(index))
    }

    /// What cannot be used goes, unless a later release wrote it, and is made again.
    fn unusable(
        &self,
        disk: &dyn Disk,
        directory: &Path,
        (log, id): (LogId, SegmentId),
        error: &KeyIndexError,
    ) {
        self.forget(log, id);
        match error {
            KeyIndexError::Io(error) => {
                tracing::warn!(%log, segment = %id, %error, "a key index cannot be read: the segment is read without it");
            }
            KeyIndexError::Format(FormatError::Version { found, .. }) => {
                tracing::warn!(%log, segment = %id, version = found, "a later release wrote this key index: it is left as it is, and not used");
            }
            KeyIndexError::Format(error) => {
                tracing::warn!(%log, segment = %id, %error, "a key index is damaged: it is made again");
                if let Err(error) = remove(disk, directory, id) {
                    tracing::warn!(%log, segment = %id, %error, "a damaged key index could not be removed");
                }
                self.look_at(log);
            }
        }
    }

    /// A log has segments without a key index, or is to have none any more.
    pub fn look_at(&self, log: LogId) {
        self.locked().due.insert(log);
    }

    /// The next log that was noted.
    pub fn take(&self) -> Option<LogId> {
        self.locked().due.pop_first()
    }

    /// Removes what a segment has. True if there was something.
    pub fn remove(
        &self,
        disk: &dyn Disk,
        directory: &Path,
        log: LogId,
        id: SegmentId,
    ) -> io::Result<bool> {
        self.forget(log, id);
        remove(disk, directory, id)
    }

    /// Forgets a segment that goes away.
    pub fn forget(&self, log: LogId, id: SegmentId) {
        let mut state = self.locked();
        state.open.remove(&(log, id));
        state.old.remove(&(log, id));
    }

    /// Forgets a log that is deleted.
    pub fn forget_log(&self, log: LogId) {
        let mut state = self.locked();
        state.open.retain(|(of, _), _| *of != log);
        state.old.retain(|(of, _)| *of != log);
        state.due.remove(&log);
    }
}
