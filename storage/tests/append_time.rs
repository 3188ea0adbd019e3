//! When a record was appended is known to within its block of the index, by the store's own time: in the tail, in segments,
//! and after a start, when the index of an active segment has to be made again and knows no more than its segment's bounds.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder};
use model::codec::Codec;
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use storage::io::SimDisk;
use storage::{Disk, Env, Log, LogSettings, ManualClock, Storage, StorageConfig};

const BATCHES: u64 = 40;

fn id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> (Storage, Arc<Log>) {
    let mut config = StorageConfig::new("/data");
    config.wal_file_bytes = 1 << 20;
    config.wal_files_min = 2;
    let env = Env::manual(Arc::new(disk.clone()), clock.clone());
    let (storage, _) = Storage::open(config, env).unwrap();
    storage.finish_open(&HashSet::from([id()])).unwrap();
    let settings = LogSettings {
        segment_bytes: 100_000,
        ..LogSettings::from(&TopicConfig::default())
    };
    let log = storage.create_log(id(), settings);
    (storage, log)
}

/// One record of 5,000 bytes: three to a block. Gives when it was appended.
fn append(storage: &Storage, log: &Log, clock: &ManualClock) -> Timestamp {
    clock.advance(Duration::from_secs(60));
    let mut builder = BatchBuilder::new(Codec::None);
    // The device's clock says 1970.
    builder
        .push(Timestamp::from_millis(1), None, Some(&[7; 5_000]), &[])
        .unwrap();
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    let admission = storage.try_admit(batch.bytes().len()).unwrap();
    let appended = log.append(vec![batch.into()], admission).unwrap();
    let now = storage.steady_clock().now();
    storage.commit_once();
    appended.durable.wait().unwrap();
    now
}

/// Every record was appended within its bounds, which are no further apart than `most`.
fn check(log: &Log, times: &[Timestamp], most: Duration) {
    for (offset, time) in (0..).zip(times) {
        let found = log.appended_between(Offset::new(offset)).unwrap();
        let (since, until) = found.unwrap();
        assert!(
            (since..=until).contains(time),
            "{offset}: {since:?} {time:?} {until:?}"
        );
        let apart = until.millis_since(since);
        assert!(apart <= most.as_millis() as i64, "{offset}: {apart} ms");
    }
    let end = log.bounds().durable_end;
    assert_eq!(log.appended_between(end).unwrap(), None);
}

#[test]
fn the_time_of_an_append_is_known_in_the_tail_in_segments_and_after_a_start() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000)));
    let (storage, log) = open(&disk, &clock);
    let mut times: Vec<Timestamp> = (0..BATCHES)
        .map(|_| append(&storage, &log, &clock))
        .collect();
    check(&log, &times, Duration::ZERO);
    storage.settle_once();
    // A block holds four records of a minute each.
    check(&log, &times, Duration::from_secs(4 * 60));
    storage.shutdown();
    drop((storage, log));
    let (storage, log) = open(&disk, &clock);
    // A segment holds twenty; the sealed one's index still knows better.
    check(&log, &times, Duration::from_secs(20 * 60));
    times.push(append(&storage, &log, &clock));
    storage.settle_once();
    check(&log, &times, Duration::from_secs(21 * 60));
    storage.shutdown();
}
