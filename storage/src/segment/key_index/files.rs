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

use super::Sought;
use super::build::remove;
use super::file::{KeyIndex, KeyIndexError, Looked};
use crate::fields::FormatError;
use crate::io::{Disk, OpenHow};
use crate::segment::SegmentId;

/// So many are open: descriptors, and some kilobytes of memory each.
const OPEN_MAX: usize = 64;

/// An active segment's index goes on when no less has settled behind it, and there is none before.
pub(crate) const GROWTH_MIN: u64 = 1 << 20;
/// Of one that grows slowly no less than this part of what is known: with each growth as much is written as the index takes.
const SLOW_SHARE: u64 = super::SHARE;
/// And of one that grows fast.
const FAST_SHARE: u64 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct KeyIndexes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: HashMap<(LogId, SegmentId), (u64, Arc<KeyIndex>)>,
    uses: u64,
    /// Logs that are to be looked at.
    due: BTreeSet<LogId>,
    /// Segments whose index an earlier release wrote, without what this one knows, or that was made while they grew: they are to be
    /// made again, or to go on.
    old: BTreeSet<(LogId, SegmentId)>,
    /// Of each log whose active segment is worth an index, how far that one is.
    growing: HashMap<LogId, Growing>,
}

#[derive(Debug)]
struct Growing {
    id: SegmentId,
    /// What has settled of it.
    bytes: u64,
    /// What its index covers, as far as is known.
    indexed: u64,
    /// What had settled of it when that was found out. While it is no more, there is nothing to be done: the last block may grow,
    /// and is not indexed however large it is.
    seen: u64,
    /// Its index is to go on.
    is_due: bool,
}

impl Growing {
    /// Whether its index is to go on for this part of what it covers.
    fn is_worth(&self, share: u64) -> bool {
        let unknown = self.bytes.saturating_sub(self.indexed);
        self.bytes > self.seen && unknown >= GROWTH_MIN.max(self.indexed / share)
    }
}

/// A segment that is looked into.
pub(crate) struct Place<'a> {
    pub directory: &'a Path,
    pub log: LogId,
    pub id: SegmentId,
    /// What has settled of it.
    pub bytes: u64,
    /// It is not sealed.
    pub grows: bool,
    /// Whether a key index is of its blocks.
    pub is_of: &'a dyn Fn(&KeyIndex) -> bool,
}

impl KeyIndexes {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("nothing panics while it holds the key indexes")
    }

    /// Which blocks of a segment may hold what is looked for: behind those that its key index covers, all. None if it has no key index that could
    /// be used: then any may. Blocks.
    pub fn look_up(&self, disk: &dyn Disk, place: &Place<'_>, sought: &Sought) -> Option<Looked> {
        let found = self.open(disk, place).and_then(|index| {
            let Some(index) = index else { return Ok(None) };
            if matches!(sought, Sought::Name(_)) && !index.knows_names() {
                self.make_again(place.log, place.id);
                return Ok(None);
            }
            let mut looked = index.look_up(sought.hash())?;
            if place.grows || index.log_bytes() < place.bytes {
                looked.add(index.blocks().0..u32::MAX);
            }
            Ok(Some(looked))
        });
        self.usable(disk, place, found)?
    }

    /// The smallest timestamp of each block of a segment that its key index covers. None if it has no index that tells. Blocks.
    pub fn smallest_times(&self, disk: &dyn Disk, place: &Place<'_>) -> Option<Arc<[Timestamp]>> {
        let found = self.open(disk, place);
        let index = self.usable(disk, place, found)??;
        let smallest = index.smallest_times().cloned();
        if smallest.is_none() {
            self.make_again(place.log, place.id);
        }
        smallest
    }

    /// What was found; None where it cannot be used, which is dealt with.
    fn usable<T>(
        &self,
        disk: &dyn Disk,
        place: &Place<'_>,
        found: Result<T, KeyIndexError>,
    ) -> Option<T> {
        found
            .map_err(|error| self.unusable(disk, place, &error))
            .ok()
    }

    /// A segment's index is to be made again, or to go on.
    pub fn make_again(&self, log: LogId, id: SegmentId) {
        let mut state = self.locked();
        state.old.insert((log, id));
        state.due.insert(log);
        if let Some(growing) = state.growing.get_mut(&log).filter(|it| it.id == id) {
            growing.is_due = true;
        }
    }

    /// Whether a segment's index is to be made again, because an earlier release wrote it.
    pub fn is_old(&self, log: LogId, id: SegmentId) -> bool {
        self.locked().old.contains(&(log, id))
    }

    /// The key index of a segment; None if it has none.
    pub fn open(
        &self,
        disk: &dyn Disk,
        place: &Place<'_>,
    ) -> Result<Option<Arc<KeyIndex>>, KeyIndexError> {
        if place.bytes < super::LOG_BYTES_MIN {
            return Ok(None);
        }
        let of = (place.log, place.id);
        if let Some(index) = self.get(of) {
            return Ok(Some(index));
        }
        let path = place.id.key_index_path(place.directory);
        let file = match disk.open(&path, OpenHow::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let index = KeyIndex::open(file)?;
        if !(place.is_of)(&index) {
            let id = index.id().1.base.to_wire();
            let field = "segment whose key index it is";
            return Err(FormatError::Field {
                field,
                value: id.into(),
            }
            .into());
        }
        if !place.grows && index.log_bytes() < place.bytes {
            // It was made while the segment grew.
            self.make_again(place.log, place.id);
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
    fn unusable(&self, disk: &dyn Disk, place: &Place<'_>, error: &KeyIndexError) {
        let (log, id) = (place.log, place.id);
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
                if let Err(error) = remove(disk, place.directory, id) {
                    tracing::warn!(%log, segment = %id, %error, "a damaged key index could not be removed");
                }
                let mut state = self.locked();
                state.due.insert(log);
                if let Some(grown) = state.growing.get_mut(&log).filter(|it| it.id == id) {
                    (grown.indexed, grown.seen) = (0, 0);
                    grown.is_due = true;
                }
            }
        }
    }

    /// A log has segments without a key index, or is to have none any more.
    pub fn look_at(&self, log: LogId) {
        self.locked().due.insert(log);
    }

    /// More of a log's active segment has settled. Its index goes on when there is an eighth more, and no less than [`GROWTH_MIN`]:
    /// with each growth it is written anew.
    pub fn grew(&self, log: LogId, id: SegmentId, bytes: u64) {
        if bytes < GROWTH_MIN {
            return;
        }
        let mut state = self.locked();
        let state = &mut *state;
        let fresh = || Growing {
            id,
            bytes,
            indexed: 0,
            seen: 0,
            is_due: false,
        };
        let growing = state.growing.entry(log).or_insert_with(fresh);
        if growing.id != id {
            *growing = fresh();
        }
        growing.bytes = bytes;
        if !growing.is_due && growing.is_worth(FAST_SHARE) {
            growing.is_due = true;
            state.due.insert(log);
        }
    }

    /// Takes note of all active segments that are worth it, also of those that grow slowly; of none that did not grow.
    pub fn go_on(&self) {
        let mut state = self.locked();
        let state = &mut *state;
        for (log, growing) in &mut state.growing {
            if growing.is_worth(SLOW_SHARE) {
                growing.is_due = true;
                state.due.insert(*log);
            }
        }
    }

    /// Whether the index of this active segment is to go on now. Asked once for each time.
    pub fn takes_due(&self, log: LogId, id: SegmentId) -> bool {
        let mut state = self.locked();
        let growing = state.growing.get_mut(&log).filter(|it| it.id == id);
        growing.is_some_and(|growing| std::mem::take(&mut growing.is_due))
    }

    /// An active segment was looked at when so much of it had settled: its index covers `indexed` of that, as far as its blocks had
    /// ended. Once the segment is sealed an index that there is goes on to its end.
    pub fn covers(&self, log: LogId, id: SegmentId, indexed: u64, seen: u64) {
        let mut state = self.locked();
        if indexed > 0 {
            state.old.insert((log, id));
        }
        if let Some(growing) = state.growing.get_mut(&log).filter(|it| it.id == id) {
            (growing.indexed, growing.seen) = (indexed, seen);
        }
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
        state.growing.remove(&log);
        state.due.remove(&log);
    }
}
