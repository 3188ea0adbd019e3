//! A store on a simulated disk for tests of what stands on state logs: the test performs the syncs, fills the disk and cuts the
//! power. The log, its admissions and its recovery are the real ones.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use storage::io::SimDisk;
use storage::{Clock, Disk as _, Env, OnFailure, Storage, StorageConfig, Threads};
use tokio::task::JoinHandle;

use super::{Replayed, StateLog, StateRecord};

/// A store. In a tokio runtime.
pub(in crate::broker) struct SimStore {
    disk: SimDisk,
    clock: Arc<dyn Clock>,
    storage: Storage,
    file_bytes: u64,
    is_held: Arc<AtomicBool>,
    pump: JoinHandle<()>,
}

impl SimStore {
    /// A new store whose WAL files have this length. What is appended becomes durable by itself.
    pub(in crate::broker) fn new(clock: Arc<dyn Clock>, file_bytes: u64) -> SimStore {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data"))
            .expect("a directory");
        disk.sync_dir(Path::new("/")).expect("synced");
        SimStore::open_on(disk, clock, file_bytes)
    }

    fn open_on(disk: SimDisk, clock: Arc<dyn Clock>, file_bytes: u64) -> SimStore {
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = file_bytes;
        config.wal_files_min = 2;
        config.wal_files_max = 64;
        let env = Env {
            disk: Arc::new(disk.clone()),
            clock: Arc::clone(&clock),
            on_failure: OnFailure::Refuse,
            threads: Threads::Manual,
        };
        let (storage, report) = Storage::open(config, env).expect("a sound store");
        assert_eq!(report.damage, []);
        storage.finish_open(&HashSet::new()).expect("a start");
        let is_held = Arc::new(AtomicBool::new(false));
        let pump = tokio::spawn(pump(storage.clone(), Arc::clone(&is_held)));
        SimStore {
            disk,
            clock,
            storage,
            file_bytes,
            is_held,
            pump,
        }
    }

    /// The state log of these records.
    pub(in crate::broker) fn open<R: StateRecord>(&self) -> (StateLog<R>, Replayed<R>) {
        StateLog::open(&self.storage, Arc::clone(&self.clock)).expect("a readable log")
    }

    /// From now on nothing becomes durable until `sync`.
    pub(in crate::broker) fn hold(&self) {
        self.is_held.store(true, SeqCst);
    }

    /// Makes durable what is appended.
    pub(in crate::broker) fn sync(&self) {
        while self.storage.commit_once() {}
    }

    /// Whether appends are refused, as on a disk without space.
    pub(in crate::broker) fn set_full(&self, is_full: bool) {
        let bytes_max = if is_full { 4096 } else { u64::MAX };
        self.disk.set_file_bytes_max(bytes_max);
    }

    /// Cuts the power, and opens what is left.
    pub(in crate::broker) fn cut(self) -> SimStore {
        self.pump.abort();
        self.disk.cut_power();
        self.disk.restart(7);
        SimStore::open_on(self.disk.clone(), Arc::clone(&self.clock), self.file_bytes)
    }
}

impl Drop for SimStore {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// What the store's threads do, between the steps of the other tasks.
async fn pump(storage: Storage, is_held: Arc<AtomicBool>) {
    loop {
        // Without space there is no file to make ready; what there is keeps its contents.
        while matches!(storage.prepare_once(), Ok(true)) {}
        if !is_held.load(SeqCst) {
            while storage.commit_once() {}
        }
        tokio::task::yield_now().await;
    }
}
