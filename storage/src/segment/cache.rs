//! Open segments: file descriptors, maps and indexes, least recently used first out.
//!
//! Callers: the log's reads. Nothing is open or mapped for an idle partition. A segment that is taken out stays valid for
//! those who hold it, also after its file was unlinked. Bounds: `open_max` segments, and `index_bytes_max` of indexes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use model::{LogId, Offset, Timestamp};

use super::checked_blocks::CheckedBlocks;
use super::index::{SegmentIndex, SharedIndex};
use super::index_file::read_index_file;
use super::reader::SegmentReader;
use super::{SegmentError, SegmentId};
use crate::io::{Disk, DiskFile, FileMap, OpenHow};
use crate::manifest::SegmentKind;
use crate::pinned::Pinned;

/// What the caller knows of the segment that it wants open.
#[derive(Clone, Debug)]
pub enum SegmentSource {
    /// A sealed one: its index comes from its index file, or is built again.
    Sealed {
        /// Whether its offsets have gaps.
        kind: SegmentKind,
        /// Its length.
        bytes: u64,
        /// When the broker appended its last batch.
        last_append_time: Timestamp,
    },
    /// The active one: the index is the writer's.
    Active {
        /// The writer's index.
        index: SharedIndex,
        /// How long the segment may become; the map is that long from the start.
        bytes_max: u64,
    },
}

/// A segment with its file open; map and index come when they are needed.
#[derive(Debug)]
pub struct OpenSegment {
    id: SegmentId,
    file: Arc<dyn DiskFile>,
    map_bytes: u64,
    map: OnceLock<Arc<FileMap>>,
    index: SharedIndex,
    checked: CheckedBlocks,
    /// See [`OpenSegment::front`].
    front: Mutex<Bytes>,
}

/// A segment of no more bytes is kept in memory as a whole while it is open: 4 MiB for a thousand of them.
const FRONT_BYTES_MAX: usize = 4096;

impl OpenSegment {
    /// Which segment.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// The log file.
    pub fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// The map of the log file.
    pub fn map(&self) -> Result<&Arc<FileMap>, SegmentError> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let map = self
            .file
            .map(self.map_bytes)
            .map_err(SegmentError::io(self.id))?;
        Ok(self.map.get_or_init(|| map))
    }

    pub(super) fn index(&self) -> &SharedIndex {
        &self.index
    }

    pub(super) fn checked(&self) -> &CheckedBlocks {
        &self.checked
    }

    /// All of a segment that is small, out of memory: so that those who read many small ones again and again need not ask the
    /// kernel for each. Its published bytes never change, so that a copy stays right. None if it is larger, or if the disk
    /// would be needed.
    pub fn front(&self, bytes: u64) -> Option<Bytes> {
        let count = usize::try_from(bytes).ok()?;
        if count > FRONT_BYTES_MAX {
            return None;
        }
        let mut front = self
            .front
            .lock()
            .expect("nothing panics while it holds the front");
        if front.len() < count {
            let mut read = vec![0; count];
            if self.file.read_at_now(0, &mut read).ok()? < count {
                return None;
            }
            *front = read.into();
        }
        Some(front.slice(..count))
    }

    /// Looks something up in the index, which is built if it is missing. Blocks where it is.
    pub fn index_of<T>(&self, lookup: impl FnOnce(&SegmentIndex) -> T) -> Result<T, SegmentError> {
        self.index.with(&*self.file, lookup)
    }

    /// Whether the index is in memory.
    pub fn has_index(&self) -> bool {
        self.index.peek(|_| ()).is_some()
    }

    /// Looks into its published part.
    pub fn reader(&self, bytes: u64, end_offset: Offset) -> SegmentReader<'_> {
        self.reader_of(&*self.file, bytes, end_offset)
    }

    /// Looks into its published part through `file`, which is the same file.
    pub fn reader_of<'a>(
        &'a self,
        file: &'a dyn DiskFile,
        bytes: u64,
        end_offset: Offset,
    ) -> SegmentReader<'a> {
        SegmentReader {
            id: self.id,
            file,
            index: &self.index,
            bytes,
            end_offset,
        }
    }
}

/// The open segments of all logs.
#[derive(Debug)]
pub struct SegmentCache {
    disk: Arc<dyn Disk>,
    open_max: usize,
    index_bytes_max: usize,
    state: Mutex<State>,
    pinned: Pinned,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<(LogId, SegmentId), Entry>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    segment: Arc<OpenSegment>,
    used: u64,
}

impl SegmentCache {
    /// An empty cache.
    pub fn new(disk: Arc<dyn Disk>, open_max: usize, index_bytes_max: usize) -> SegmentCache {
        SegmentCache {
            disk,
            open_max: open_max.max(1),
            index_bytes_max,
            state: Mutex::default(),
            pinned: Pinned::default(),
        }
    }

    /// The segment, opened if it is not. Opening blocks, and reads the index file of a sealed segment.
    pub fn open(
        &self,
        directory: &Path,
        log: LogId,
        id: SegmentId,
        source: &SegmentSource,
    ) -> Result<Arc<OpenSegment>, SegmentError> {
        if let Some(segment) = self.get(log, id) {
            return Ok(segment);
        }
        let segment = Arc::new(self.open_uncached(directory, log, id, source)?);
        Ok(self.insert(log, id, segment))
    }

    /// The segment if it is open, without blocking.
    pub fn get(&self, log: LogId, id: SegmentId) -> Option<Arc<OpenSegment>> {
        let mut state = self.lock();
        state.uses += 1;
        let now = state.uses;
        let entry = state.entries.get_mut(&(log, id))?;
        entry.used = now;
        Some(Arc::clone(&entry.segment))
    }

    /// Whether the segment is open; it is not used by asking.
    pub fn is_open(&self, log: LogId, id: SegmentId) -> bool {
        self.lock().entries.contains_key(&(log, id))
    }

    /// Forgets a segment whose file goes away or was replaced.
    pub fn forget(&self, log: LogId, id: SegmentId) {
        self.lock().entries.remove(&(log, id));
    }

    /// Forgets a segment that is deleted, and notes who reads it still.
    pub fn retire(&self, log: LogId, id: SegmentId) {
        let entry = self.lock().entries.remove(&(log, id));
        if let Some(map) = entry.as_ref().and_then(|entry| entry.segment.map.get()) {
            self.pinned.note(map, map.capacity());
        }
    }

    /// Forgets all segments of a log that is deleted.
    pub fn forget_log(&self, log: LogId) {
        let of_log = |(of, _): &(LogId, SegmentId), _: &mut Entry| *of == log;
        let gone: Vec<Entry> = self
            .lock()
            .entries
            .extract_if(of_log)
            .map(|(_, entry)| entry)
            .collect();
        for map in gone.iter().filter_map(|entry| entry.segment.map.get()) {
            self.pinned.note(map, map.capacity());
        }
    }

    /// Deleted segments that are read still, and their bytes.
    pub fn pinned(&self) -> (u64, u64) {
        self.pinned.held()
    }

    /// How many segments are open.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn open_uncached(
        &self,
        directory: &Path,
        log: LogId,
        id: SegmentId,
        source: &SegmentSource,
    ) -> Result<OpenSegment, SegmentError> {
        let io = SegmentError::io(id);
        let file = self
            .disk
            .open(&id.log_path(directory), OpenHow::Read)
            .map_err(&io)?;
        let (index, map_bytes) = match source {
            SegmentSource::Active { index, bytes_max } => (index.clone(), *bytes_max),
            SegmentSource::Sealed {
                kind,
                bytes,
                last_append_time,
            } => {
                let len = file.len().map_err(&io)?;
                if len != *bytes {
                    let reason = format!("the file has {len} bytes, it was sealed with {bytes}");
                    return Err(SegmentError::damaged(id, len.min(*bytes), reason));
                }
                let read = read_index_file(&*self.disk, directory, log, id, *bytes);
                let index = match read.map_err(|error| error.to_string()).flatten() {
                    Ok(found) => {
                        super::verify::check_first_block(&*file, &found.index)?;
                        found.index
                    }
                    Err(reason) => {
                        tracing::warn!(%log, segment = %id, reason, "index is unusable, building it again from the log");
                        SegmentIndex::rebuild(&*file, id, *kind, *bytes, *last_append_time)?
                    }
                };
                (SharedIndex::new(index), *bytes)
            }
        };
        Ok(OpenSegment {
            id,
            file,
            map_bytes,
            map: OnceLock::new(),
            index,
            checked: CheckedBlocks::default(),
            front: Mutex::default(),
        })
    }

    fn insert(&self, log: LogId, id: SegmentId, segment: Arc<OpenSegment>) -> Arc<OpenSegment> {
        let mut state = self.lock();
        state.uses += 1;
        let used = state.uses;
        let entry = state
            .entries
            .entry((log, id))
            .or_insert(Entry { segment, used });
        entry.used = used;
        let segment = Arc::clone(&entry.segment);
        while state.entries.len() > 1 && self.is_over(&state) {
            let oldest = state
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| *key);
            state
                .entries
                .remove(&oldest.expect("there is more than one"));
        }
        segment
    }

    fn is_over(&self, state: &State) -> bool {
        let index_bytes = |entry: &Entry| {
            entry
                .segment
                .index
                .peek(SegmentIndex::memory_bytes)
                .unwrap_or(0)
        };
        state.entries.len() > self.open_max
            || state.entries.values().map(index_bytes).sum::<usize>() > self.index_bytes_max
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no cache operation panics while it holds the lock")
    }
}
