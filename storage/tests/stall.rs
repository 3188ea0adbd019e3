//! A disk that does not answer hides nothing: health and counts never wait for it, and they name the stall.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, PartitionId, Timestamp, TopicId};
use storage::io::{DirEntry, DiskFile, FileMap, FileSystem, LockGuard, LockHow, OpenHow, SimDisk};
use storage::{
    Appended, Disk, Env, LogSettings, ManualClock, STALL_AFTER, Storage, StorageConfig, Threads,
};

/// Longer than any machine takes for what does not wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// While it is shut, no sync returns, and no change of a directory.
#[derive(Debug, Default)]
struct Door {
    is_shut: Mutex<bool>,
    opened: Condvar,
    /// Somebody stands before it.
    waiting: Mutex<Option<mpsc::Sender<()>>>,
}

impl Door {
    fn pass(&self) {
        let mut is_shut = self.is_shut.lock().unwrap();
        while *is_shut {
            if let Some(waiting) = self.waiting.lock().unwrap().take() {
                waiting.send(()).unwrap();
            }
            is_shut = self.opened.wait(is_shut).unwrap();
        }
    }

    /// Shuts it; the receiver hears of the first one who waits.
    fn shut(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        *self.waiting.lock().unwrap() = Some(sender);
        *self.is_shut.lock().unwrap() = true;
        receiver
    }

    fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.opened.notify_all();
    }
}

/// A disk whose syncs pass a door.
#[derive(Debug)]
struct StallingDisk {
    disk: SimDisk,
    door: Arc<Door>,
}

#[derive(Debug)]
struct StallingFile {
    file: Arc<dyn DiskFile>,
    door: Arc<Door>,
}

impl Disk for StallingDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        let door = self.door.clone();
        Ok(Arc::new(StallingFile { file, door }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.door.pass();
        self.disk.create_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.door.pass();
        self.disk.sync_dir(path)
    }
    fn file_system(&self, path: &Path) -> io::Result<Box<dyn FileSystem>> {
        self.door.pass();
        self.disk.file_system(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.door.pass();
        self.disk.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.door.pass();
        self.disk.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.door.pass();
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.door.pass();
        self.disk.remove_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
    fn lock(&self, path: &Path, how: LockHow) -> io::Result<Box<dyn LockGuard>> {
        self.disk.lock(path, how)
    }
}

impl DiskFile for StallingFile {
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(position, buffer)
    }
    fn read_at_now(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at_now(position, buffer)
    }
    fn write_vectored_at(&self, position: u64, slices: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.file.write_vectored_at(position, slices)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.door.pass();
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.door.pass();
        self.file.set_len(bytes)
    }
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.door.pass();
        self.file.reserve(bytes)
    }
    fn drop_cache_of(&self, range: std::ops::Range<u64>) -> io::Result<()> {
        self.file.drop_cache_of(range)
    }
    fn map(&self, capacity: u64) -> io::Result<Arc<FileMap>> {
        self.file.map(capacity)
    }
}

struct Store {
    storage: Storage,
    door: Arc<Door>,
    clock: Arc<ManualClock>,
}

fn id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn open(threads: Threads) -> Store {
    let door = Arc::new(Door::default());
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = 256 << 10;
    config.wal_files_min = 2;
    let env = Env {
        threads,
        ..Env::manual(
            Arc::new(StallingDisk {
                disk,
                door: door.clone(),
            }),
            clock.clone(),
        )
    };
    let (storage, _) = Storage::open(config, env).unwrap();
    storage.finish_open(&HashSet::from([id()])).unwrap();
    storage.create_log(id(), LogSettings::from(&TopicConfig::default()));
    Store {
        storage,
        door,
        clock,
    }
}

fn append(storage: &Storage) -> Appended {
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .push(Timestamp::from_millis(1), None, Some(b"value"), &[])
        .unwrap();
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    let admission = storage.try_admit(batch.bytes().len()).unwrap();
    let log = storage.log(id()).unwrap();
    log.append(vec![batch.into()], admission).unwrap()
}

/// Does it on a thread of its own, and fails if it does not come back.
fn promptly<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| panic!("{what} waits for the disk"))
}

/// Health, counts and sizes, each on a thread of its own.
fn assert_all_answer(storage: &Storage) {
    let (one, two, three, four) = (
        storage.clone(),
        storage.clone(),
        storage.clone(),
        storage.clone(),
    );
    promptly("health", move || one.health());
    promptly("the counts", move || two.metrics());
    promptly("the durations of syncs", move || two_durations(&three));
    promptly("a log's bounds and size", move || {
        let log = four.log(id()).unwrap();
        (
            log.bounds(),
            log.size_bytes(),
            log.read(log.bounds().start, 1, true).is_ok(),
        )
    });
}

fn two_durations(storage: &Storage) -> u64 {
    storage.sync_durations().micros
}

#[test]
fn health_and_counts_answer_while_a_sync_does_not_return() {
    let store = open(Threads::Own);
    append(&store.storage).durable.wait().unwrap();
    let stands_still = store.door.shut();
    let appended = append(&store.storage);
    stands_still.recv_timeout(PATIENCE).unwrap();
    // The committer is in the middle of its sync now, with all the locks that it holds there.
    assert_all_answer(&store.storage);
    assert!(!store.storage.append_waits().is_stalled);
    store.clock.advance(STALL_AFTER);
    assert_all_answer(&store.storage);
    let waits = store.storage.append_waits();
    assert_eq!((waits.oldest, waits.is_stalled), (STALL_AFTER, true));
    assert_eq!(store.storage.health().stalled, Some(STALL_AFTER));
    store.door.open();
    appended.durable.wait().unwrap();
    // The acknowledgement comes a moment before the committer has noted that nothing waits.
    while store.storage.health().stalled.is_some() {
        std::thread::yield_now();
    }
    let syncs = store.storage.sync_durations();
    assert!(syncs.micros >= 5_000_000, "{syncs:?}");
    assert_eq!(
        syncs.buckets.iter().sum::<u64>(),
        store.storage.metrics().syncs
    );
    store.storage.shutdown();
}

#[test]
fn health_and_counts_answer_while_settling_does_not_return() {
    let store = open(Threads::Manual);
    append(&store.storage);
    store.storage.commit_once();
    let stands_still = store.door.shut();
    let settling = {
        let storage = store.storage.clone();
        std::thread::spawn(move || storage.settle_once())
    };
    stands_still.recv_timeout(PATIENCE).unwrap();
    assert_all_answer(&store.storage);
    store.door.open();
    settling.join().unwrap();
    store.storage.shutdown();
}

#[test]
fn an_append_is_as_old_as_it_waits_and_the_oldest_one_counts() {
    let store = open(Threads::Manual);
    let oldest = || store.storage.append_waits().oldest;
    assert_eq!(oldest(), Duration::ZERO);
    append(&store.storage);
    store.clock.advance(Duration::from_secs(2));
    append(&store.storage);
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(oldest(), Duration::from_secs(3));
    assert!(store.storage.commit_once());
    assert_eq!(oldest(), Duration::ZERO);
    append(&store.storage);
    assert_eq!(oldest(), Duration::ZERO);
    store.clock.advance(STALL_AFTER);
    assert_eq!(store.storage.health().stalled, Some(STALL_AFTER));
    store.storage.commit_once();
    assert_eq!(store.storage.health().stalled, None);
    store.storage.shutdown();
}
