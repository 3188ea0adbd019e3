//! What an append needs before it: an admission that pays for what it lets in, given in the order of asking.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use alluvium_storage::io::{ManualClock, RealDisk};
use alluvium_storage::{
    Admission, AppendBatch, AppendError, AppendSize, Env, Log, LogSettings, Purpose, Storage,
    StorageConfig,
};
use model::batch::{Batch, BatchBuilder, Codec};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};

const WAL_FILE_BYTES: u64 = 256 << 10;

fn open(change: impl FnOnce(&mut StorageConfig)) -> (tempfile::TempDir, Storage, Arc<Log>) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = StorageConfig::new(directory.path());
    config.wal_file_bytes = WAL_FILE_BYTES;
    config.wal_files_min = 2;
    config.wal_files_max = 16;
    change(&mut config);
    let env = Env::manual(
        Arc::new(RealDisk),
        Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000))),
    );
    let (storage, _) = Storage::open(config, env).unwrap();
    let id = LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0));
    storage.finish_open(&[id].into()).unwrap();
    while storage.prepare_once().unwrap() {}
    let log = storage.create_log(id, LogSettings::from(&TopicConfig::default()));
    (directory, storage, log)
}

fn batch(records: usize, value_bytes: usize) -> AppendBatch {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![b'v'; value_bytes];
    for _ in 0..records {
        builder
            .push(Timestamp::from_millis(1), None, Some(&value), &[])
            .unwrap();
    }
    Batch::parse(builder.build().unwrap()).unwrap().into()
}

fn append(storage: &Storage, log: &Log, batch: AppendBatch) {
    let admission = storage.try_admit(batch.bytes()).unwrap();
    drop(log.append(vec![batch], admission).unwrap());
}

type Asked<'a> = Pin<Box<dyn Future<Output = Admission> + 'a>>;

fn is_admitted(asked: &mut Asked<'_>) -> Option<Admission> {
    match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(admission) => Some(admission),
        Poll::Pending => None,
    }
}

#[test]
fn an_append_of_more_than_was_admitted_is_refused_and_stores_nothing() {
    let (_directory, storage, log) = open(|_| {});
    let cases = [
        (1, 100, vec![batch(1, 100)]),
        (1, 400, vec![batch(1, 100), batch(1, 100)]),
        (2, 200, vec![batch(1, 100), batch(1, 100)]),
    ];
    for (batches, bytes, appended) in cases {
        let size = AppendSize::of(&appended);
        let admitted = AppendSize { batches, bytes };
        let admission = storage.try_admit_for(admitted, Purpose::Records).unwrap();
        let refused = log.append(appended, admission).map(drop);
        let is_named = matches!(
            refused,
            Err(AppendError::NotAdmitted { size: tried, admitted: had }) if tried == size && had == admitted
        );
        assert!(is_named, "{refused:?}");
    }
    assert_eq!(log.bounds().end, Offset::ZERO);
    assert_eq!(storage.metrics().queued_bytes, 0, "all is given back");
    let both = vec![batch(1, 100), batch(1, 100)];
    let admission = storage
        .try_admit_for(AppendSize::of(&both), Purpose::Records)
        .unwrap();
    drop(log.append(both, admission).unwrap());
    assert!(storage.commit_once());
    assert_eq!(log.bounds().durable_end.get(), 2);
}

#[test]
fn a_large_admission_is_not_overtaken_by_small_ones() {
    let (_directory, storage, _log) = open(|config| config.append_queue_bytes = 200 << 10);
    let held = storage.try_admit(100 << 10).unwrap();
    let mut large: Asked<'_> = Box::pin(storage.admit(100 << 10));
    assert!(is_admitted(&mut large).is_none());
    let mut small: Asked<'_> = Box::pin(storage.admit(1 << 10));
    assert!(
        is_admitted(&mut small).is_none(),
        "it would fit, but it came later"
    );
    assert!(storage.try_admit(1 << 10).is_none());
    drop(held);
    let held = is_admitted(&mut large).expect("it was the first to ask");
    let also = is_admitted(&mut small).expect("both fit");
    drop((held, also));
    assert!(storage.try_admit(1 << 10).is_some());
}

#[test]
fn whoever_stops_waiting_holds_up_nobody() {
    let (_directory, storage, _log) = open(|config| config.append_queue_bytes = 200 << 10);
    let held = storage.try_admit(100 << 10).unwrap();
    let mut large: Asked<'_> = Box::pin(storage.admit(100 << 10));
    let mut other: Asked<'_> = Box::pin(storage.admit(100 << 10));
    let mut small: Asked<'_> = Box::pin(storage.admit(1 << 10));
    for asked in [&mut large, &mut other, &mut small] {
        assert!(is_admitted(asked).is_none());
    }
    drop(large);
    drop(held);
    // This one is admitted by now and never looks.
    drop(other);
    assert!(is_admitted(&mut small).is_some());
    assert_eq!(storage.metrics().queued_bytes, 0);
}

#[test]
fn what_can_never_be_admitted_is_refused_at_once() {
    let (_directory, storage, log) = open(|_| {});
    let most = storage.batch_bytes_max();
    let mut refused: Vec<AppendBatch> = vec![batch(1, most as usize)];
    refused.push(batch(1, (most / 2) as usize));
    for batches in [
        vec![refused.remove(0)],
        vec![refused[0].clone(), refused[0].clone()],
    ] {
        let size = AppendSize::of(&batches);
        let admission = storage
            .try_admit_for(size, Purpose::Records)
            .expect("waiting changes nothing");
        let result = log.append(batches, admission).map(drop);
        assert!(
            matches!(result, Err(AppendError::TooLarge { .. })),
            "{result:?}"
        );
    }
    let admission = storage.try_admit(most as usize).unwrap();
    drop(admission);
}

#[test]
fn more_raised_starts_than_a_file_holds_go_into_several_frames() {
    let (_directory, storage, log) = open(|_| {});
    append(&storage, &log, batch(10_000, 0));
    while storage.commit_once() {}
    for before in 1..=10_000 {
        drop(log.delete_records(Offset::new(before)).unwrap());
    }
    while storage.commit_once() {}
    assert_eq!(log.bounds().start.get(), 10_000);
}

#[test]
fn the_settler_gives_files_back_while_the_committer_waits_for_one() {
    let (_directory, storage, log) = open(|config| config.wal_files_max = 4);
    for _ in 0..3 {
        append(&storage, &log, batch(10_000, 0));
        while storage.commit_once() {}
        storage.settle_once();
        while storage.prepare_once().unwrap() {}
    }
    // Raised starts need no admission: more than the whole write-ahead log takes.
    for before in 1..=30_000 {
        drop(log.delete_records(Offset::new(before)).unwrap());
    }
    std::thread::scope(|scope| {
        let committer = scope.spawn(|| while storage.commit_once() {});
        while !committer.is_finished() {
            storage.settle_once();
            while storage.prepare_once().unwrap() {}
        }
    });
    assert_eq!(log.bounds().start.get(), 30_000);
}
