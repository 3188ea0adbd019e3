//! The registry: the logs that exist, and those that were deleted and whose files are still there.
//!
//! Callers: the broker gets and makes logs through it; the settler, the cleaner and the scrub go through all of them.
//! The map's lock is never held over a log's, nor over the disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::{LogId, Offset};

use crate::log::{Bounds, Log, LogCell, LogParts, LogSettings};

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    logs: RwLock<HashMap<LogId, Arc<Log>>>,
    deleted: Mutex<Vec<LogId>>,
    parts: Arc<LogParts>,
}

impl Registry {
    /// With the logs that recovery has put together.
    pub fn new(cells: impl IntoIterator<Item = Arc<LogCell>>, parts: Arc<LogParts>) -> Registry {
        let log = |cell: Arc<LogCell>| (cell.id(), Arc::new(Log::new(cell, Arc::clone(&parts))));
        Registry {
            logs: RwLock::new(cells.into_iter().map(log).collect()),
            deleted: Mutex::default(),
            parts,
        }
    }

    pub fn get(&self, id: LogId) -> Option<Arc<Log>> {
        let logs = self.read();
        logs.get(&id).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Log>> {
        let logs = self.read();
        logs.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        let logs = self.read();
        logs.len()
    }

    /// Makes a log. One that is there already gets the settings.
    pub fn create(&self, id: LogId, settings: LogSettings) -> Arc<Log> {
        let settings = Arc::new(settings);
        let log = {
            let mut logs = self.write();
            let log = logs.entry(id).or_insert_with(|| {
                let cell = LogCell::new(id, Arc::clone(&settings), Bounds::at(Offset::ZERO));
                Arc::new(Log::new(Arc::new(cell), Arc::clone(&self.parts)))
            });
            Arc::clone(log)
        };
        assert!(log.id() == id, "a log is under its own id");
        log.cell().set_settings(settings);
        log
    }

    /// Takes a log off. Nobody gets anything from it any more; its files are still there.
    pub fn forget(&self, id: LogId) -> Option<Arc<Log>> {
        let removed = {
            let mut logs = self.write();
            logs.remove(&id)
        };
        if let Some(log) = &removed {
            assert!(log.id() == id, "a log is under its own id");
            log.cell().mark_deleted();
        }
        removed
    }

    /// Deletes a log: the settler removes its files. False if there is none.
    pub fn delete(&self, id: LogId) -> bool {
        let Some(log) = self.forget(id) else {
            return false;
        };
        self.parts.producers.gone(&log.producer_ids());
        self.put_back_deleted(id);
        true
    }

    /// The deleted logs whose files are still there.
    pub fn take_deleted(&self) -> Vec<LogId> {
        std::mem::take(&mut *self.deleted())
    }

    /// A deleted log whose files could not be removed yet.
    pub fn put_back_deleted(&self, log: LogId) {
        self.deleted().push(log);
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<LogId, Arc<Log>>> {
        self.logs
            .read()
            .expect("nothing panics while it holds the map of logs")
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<LogId, Arc<Log>>> {
        self.logs
            .write()
            .expect("nothing panics while it holds the map of logs")
    }

    fn deleted(&self) -> MutexGuard<'_, Vec<LogId>> {
        self.deleted
            .lock()
            .expect("nothing panics while it holds the list")
    }
}
