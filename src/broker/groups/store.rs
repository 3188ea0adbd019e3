//! Where groups and offsets are kept: the offsets state log, in records instead of bytes.
//! Callers: `Coordinator`. In tests of the coordinator a log in memory stands behind it, whose syncs a test can hold and
//! whose appends it can refuse.

use bytes::Bytes;

use storage::{Admission, AppendSize, Purpose};

use super::record::Record;
use crate::broker::state_log::{self, StateLog};

/// The offsets state log.
pub struct OffsetsLog {
    backing: Backing,
    /// What was live in it when it was opened, until someone takes it.
    entries: Vec<(Bytes, Bytes)>,
}

enum Backing {
    Log(StateLog),
    #[cfg(test)]
    Memory(memory::MemoryLog),
}

/// Room for an append, taken before any lock.
pub(super) struct Room(RoomIn);

enum RoomIn {
    Log(Admission),
    #[cfg(test)]
    Memory(AppendSize),
}

/// Records that are appended and not yet durable.
#[must_use = "appended is not durable"]
pub(super) struct Written(WrittenIn);

enum WrittenIn {
    Log(state_log::Written),
    #[cfg(test)]
    Memory(memory::Sync),
}

/// The records were not appended, and the group is as if they had never been.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAppended(String);

impl OffsetsLog {
    /// Over the state log, which nobody else writes, and what was live in it when it was opened.
    pub fn new(log: StateLog, entries: Vec<(Bytes, Bytes)>) -> OffsetsLog {
        OffsetsLog {
            backing: Backing::Log(log),
            entries,
        }
    }

    /// What was live when the log was opened, in the order of keys. Once: its owner keeps it then.
    pub(super) fn take_entries(&mut self) -> Vec<(Bytes, Bytes)> {
        std::mem::take(&mut self.entries)
    }

    /// What an append takes of records that are this long, key and value together.
    pub(super) fn size_of(&self, records: impl IntoIterator<Item = usize>) -> AppendSize {
        match &self.backing {
            Backing::Log(log) => log.size_of(records),
            #[cfg(test)]
            Backing::Memory(_) => AppendSize {
                batches: 1,
                bytes: records.into_iter().map(|bytes| bytes as u64).sum(),
            },
        }
    }

    /// How many of these records, in order, one append takes; none only of none.
    pub(super) fn count_for_one_append(&self, records: impl IntoIterator<Item = usize>) -> usize {
        match &self.backing {
            Backing::Log(log) => log.count_for_one_append(records),
            #[cfg(test)]
            Backing::Memory(log) => log.count_for_one_append(records),
        }
    }

    /// The longest record, key and value together, that the log takes.
    pub(super) fn record_bytes_max(&self) -> usize {
        match &self.backing {
            Backing::Log(log) => log.record_bytes_max(),
            #[cfg(test)]
            Backing::Memory(_) => usize::MAX,
        }
    }

    /// Waits for room for an append of this size.
    pub(super) async fn reserve(&self, size: AppendSize, purpose: Purpose) -> Room {
        match &self.backing {
            Backing::Log(log) => Room(RoomIn::Log(log.admit(size, purpose).await)),
            #[cfg(test)]
            Backing::Memory(_) => Room(RoomIn::Memory(size)),
        }
    }

    /// Shrinks the log when it has grown to a multiple of what is live in it. A failure is logged here and left to the
    /// next time: nothing is lost by a log that is too long.
    pub(super) async fn compact_if_due(&self) {
        match &self.backing {
            Backing::Log(log) => {
                if let Err(error) = log.compact_if_due().await {
                    tracing::warn!(%error, "the offsets log could not be compacted");
                }
            }
            #[cfg(test)]
            Backing::Memory(_) => {}
        }
    }

    /// Appends all or none, without waiting.
    pub(super) fn append(&self, records: &[Record], room: Room) -> Result<Written, NotAppended> {
        let changes: Vec<_> = records.iter().map(Record::encode).collect();
        match (&self.backing, room.0) {
            (Backing::Log(log), RoomIn::Log(admission)) => log
                .encode(changes)
                .and_then(|encoded| log.append(encoded, admission))
                .map(|written| Written(WrittenIn::Log(written)))
                .map_err(|error| NotAppended(error.to_string())),
            #[cfg(test)]
            (Backing::Memory(log), RoomIn::Memory(size)) => {
                let length = |(key, value): &(Bytes, Option<Bytes>)| {
                    key.len() + value.as_ref().map_or(0, Bytes::len)
                };
                let needed = self.size_of(changes.iter().map(length));
                assert!(size.holds(needed), "{needed:?} is more than {size:?}");
                log.append(changes)
                    .map(|sync| Written(WrittenIn::Memory(sync)))
                    .map_err(NotAppended)
            }
            #[cfg(test)]
            (Backing::Log(_), RoomIn::Memory(_)) | (Backing::Memory(_), RoomIn::Log(_)) => {
                unreachable!("room is taken in the log that it is used in")
            }
        }
    }
}

impl Written {
    /// Returns when the records, and all before them, are durable; false if they never will be.
    pub(super) async fn wait(self) -> bool {
        match self.0 {
            WrittenIn::Log(written) => written.wait().await.is_ok(),
            #[cfg(test)]
            WrittenIn::Memory(sync) => sync.wait().await,
        }
    }
}

#[cfg(test)]
pub(super) mod memory {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, MutexGuard};

    use tokio::sync::watch;

    use super::*;

    /// A log in memory whose sync the test performs.
    #[derive(Clone)]
    pub(in super::super) struct MemoryLog {
        state: Arc<Mutex<State>>,
        durable: watch::Sender<u64>,
    }

    struct State {
        appends: Vec<Vec<(Bytes, Option<Bytes>)>>,
        syncs_by_itself: bool,
        is_full: bool,
        records_max: usize,
    }

    pub(in super::super) struct Sync {
        number: u64,
        durable: watch::Receiver<u64>,
    }

    impl Sync {
        pub(super) async fn wait(mut self) -> bool {
            self.durable
                .wait_for(|durable| *durable >= self.number)
                .await
                .is_ok()
        }
    }

    impl MemoryLog {
        pub(in super::super) fn new() -> MemoryLog {
            let state = State {
                appends: Vec::new(),
                syncs_by_itself: true,
                is_full: false,
                records_max: usize::MAX,
            };
            MemoryLog {
                state: Arc::new(Mutex::new(state)),
                durable: watch::Sender::new(0),
            }
        }

        pub(in super::super) fn open(&self) -> OffsetsLog {
            OffsetsLog {
                backing: Backing::Memory(self.clone()),
                entries: self.entries(),
            }
        }

        /// From now on nothing becomes durable until `sync`.
        pub(in super::super) fn hold(&self) {
            self.lock().syncs_by_itself = false;
        }

        pub(in super::super) fn sync(&self) {
            let end = self.lock().appends.len() as u64;
            self.durable.send_replace(end);
        }

        pub(in super::super) fn set_full(&self, is_full: bool) {
            self.lock().is_full = is_full;
        }

        /// From now on one append takes so many records.
        pub(in super::super) fn set_records_max(&self, count: usize) {
            self.lock().records_max = count;
        }

        pub(super) fn count_for_one_append(
            &self,
            records: impl IntoIterator<Item = usize>,
        ) -> usize {
            records.into_iter().count().min(self.lock().records_max)
        }

        /// What a power cut leaves.
        pub(in super::super) fn cut(&self) -> MemoryLog {
            let durable = *self.durable.borrow();
            let appends = self.lock().appends[..durable as usize].to_vec();
            let state = State {
                appends,
                syncs_by_itself: true,
                is_full: false,
                records_max: usize::MAX,
            };
            MemoryLog {
                state: Arc::new(Mutex::new(state)),
                durable: watch::Sender::new(durable),
            }
        }

        pub(super) fn append(&self, changes: Vec<(Bytes, Option<Bytes>)>) -> Result<Sync, String> {
            let mut state = self.lock();
            if state.is_full {
                return Err("the disk is full".into());
            }
            state.appends.push(changes);
            let number = state.appends.len() as u64;
            if state.syncs_by_itself {
                self.durable.send_replace(number);
            }
            Ok(Sync {
                number,
                durable: self.durable.subscribe(),
            })
        }

        pub(super) fn entries(&self) -> Vec<(Bytes, Bytes)> {
            let mut entries = BTreeMap::new();
            for (key, value) in self.lock().appends.iter().flatten() {
                match value {
                    Some(value) => entries.insert(key.clone(), value.clone()),
                    None => entries.remove(key),
                };
            }
            entries.into_iter().collect()
        }

        fn lock(&self) -> MutexGuard<'_, State> {
            self.state.lock().expect("no test panics in here")
        }
    }
}
