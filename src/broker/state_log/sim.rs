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
use crate::broker::{Broker, BrokerConfig, ServerSettings};

/// A store. In a tokio runtime.
pub(in crate::broker) struct SimStore {
    disk: SimDisk,
    clock: Arc<dyn Clock>,
    storage: Storage,
    file_bytes: u64,
    /// Whether a broker finishes the start.
    for_broker: bool,
    switches: Arc<Switches>,
    pump: JoinHandle<()>,
}

/// What the test has asked for.
#[derive(Default)]
struct Switches {
    is_held: AtomicBool,
    is_full: AtomicBool,
}

/// On a disk that is full no file may be longer than this: a file of the write-ahead log is.
const FULL_FILE_BYTES: u64 = 4096;

impl SimStore {
    /// A new store whose WAL files have this length. What is appended becomes durable by itself.
    pub(in crate::broker) fn new(clock: Arc<dyn Clock>, file_bytes: u64) -> SimStore {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data"))
            .expect("a directory");
        disk.sync_dir(Path::new("/")).expect("synced");
        SimStore::open_on(disk, clock, file_bytes, false)
    }

    /// A new store with a broker over it.
    pub(in crate::broker) fn with_broker(
        clock: Arc<dyn Clock>,
        file_bytes: u64,
    ) -> (SimStore, Broker) {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data"))
            .expect("a directory");
        disk.sync_dir(Path::new("/")).expect("synced");
        let store = SimStore::open_on(disk, clock, file_bytes, true);
        let broker = store.broker();
        (store, broker)
    }

    /// The store.
    pub(in crate::broker) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The broker over a store that was made for one.
    pub(in crate::broker) fn broker(&self) -> Broker {
        assert!(self.for_broker, "its start is finished by the broker");
        let (config, server) = (BrokerConfig::default(), ServerSettings::default());
        Broker::open(config, server, |_| None, self.storage.clone()).expect("a sound store")
    }

    fn open_on(
        disk: SimDisk,
        clock: Arc<dyn Clock>,
        file_bytes: u64,
        for_broker: bool,
    ) -> SimStore {
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
        if !for_broker {
            storage.finish_open(&HashSet::new()).expect("a start");
        }
        let switches = Arc::new(Switches::default());
        let pump = tokio::spawn(pump(disk.clone(), storage.clone(), Arc::clone(&switches)));
        SimStore {
            disk,
            clock,
            storage,
            file_bytes,
            for_broker,
            switches,
            pump,
        }
    }

    /// The state log of these records.
    pub(in crate::broker) fn open<R: StateRecord>(&self) -> (StateLog<R>, Replayed<R>) {
        StateLog::open(&self.storage, Arc::clone(&self.clock)).expect("a readable log")
    }

    /// From now on nothing becomes durable until `sync`.
    pub(in crate::broker) fn hold(&self) {
        self.switches.is_held.store(true, SeqCst);
    }

    /// From now on what is appended becomes durable by itself again.
    pub(in crate::broker) fn let_go(&self) {
        self.switches.is_held.store(false, SeqCst);
    }

    /// Makes durable what is appended.
    pub(in crate::broker) fn sync(&self) {
        commit(&self.disk, &self.storage, &self.switches);
    }

    /// Whether appends are refused, as on a disk without space.
    pub(in crate::broker) fn set_full(&self, is_full: bool) {
        self.switches.is_full.store(is_full, SeqCst);
        let bytes_max = if is_full { FULL_FILE_BYTES } else { u64::MAX };
        self.disk.set_file_bytes_max(bytes_max);
    }

    /// Cuts the power, and opens what is left.
    pub(in crate::broker) fn cut(self) -> SimStore {
        self.pump.abort();
        self.disk.cut_power();
        self.disk.restart(7);
        let clock = Arc::clone(&self.clock);
        SimStore::open_on(self.disk.clone(), clock, self.file_bytes, self.for_broker)
    }
}

impl Drop for SimStore {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// What the store's threads do, between the steps of the other tasks.
async fn pump(disk: SimDisk, storage: Storage, switches: Arc<Switches>) {
    loop {
        // Without space there is no file to make ready; what there is keeps its contents.
        while matches!(storage.prepare_once(), Ok(true)) {}
        if !switches.is_held.load(SeqCst) {
            commit(&disk, &storage, &switches);
        }
        tokio::task::yield_now().await;
    }
}

/// Makes durable what is appended. What was admitted has its room, also on a disk that is full by now.
fn commit(disk: &SimDisk, storage: &Storage, switches: &Switches) {
    let is_full = switches.is_full.load(SeqCst);
    if is_full {
        disk.set_file_bytes_max(u64::MAX);
    }
    while storage.commit_once() {}
    if is_full {
        disk.set_file_bytes_max(FULL_FILE_BYTES);
    }
}
