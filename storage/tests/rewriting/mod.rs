//! A store on a simulated disk with one log, and beside it the records that should be in the log: a plain map that each rewrite
//! filters.

#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{
    Batch, BatchBuilder, BatchHeader, Codec, DecompressLimit, HEADER_BYTES, crc32c, split,
};
use model::topic_config::TopicConfig;
use model::{LogId, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId};
use storage::inspect::{BatchLine, Finding, dump_segment, verify_store};
use storage::io::SimDisk;
use storage::manifest::{self, Manifest, SegmentEntry};
use storage::rewrite::{Cancelled, KeepError, Keeper, Pace, RewriteError, Rewritten, Verdict};
use storage::segment::SegmentId;
use storage::{Disk, Env, Log, LogSettings, ManualClock, Storage, StorageConfig, Threads};

pub fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(0))
}

/// No throttle, and never cancelled.
pub struct AtOnce;

impl Pace for AtOnce {
    fn spend(&self, _: u64) -> Result<(), Cancelled> {
        Ok(())
    }
}

/// Keeps the records whose offsets it is told to keep.
pub struct Filter<F>(F);

impl<F: Fn(u64) -> bool> Filter<F> {
    pub fn new(keep: F) -> Filter<F> {
        Filter(keep)
    }
}

impl<F: Fn(u64) -> bool> Keeper for Filter<F> {
    fn judge(&mut self, header: &BatchHeader, batch: &Bytes) -> Result<Verdict, KeepError> {
        let batch = Batch::parse(batch.clone()).unwrap();
        assert_eq!(batch.header(), header);
        let offsets: Vec<u64> = records_of(&batch).map(|(offset, ..)| offset).collect();
        let kept = offsets.iter().filter(|offset| self.0(**offset)).count();
        Ok(match kept {
            0 => Verdict::Drop,
            all if all == offsets.len() => Verdict::Keep,
            _ => Verdict::Replace(filtered(&batch, &offsets, &self.0)),
        })
    }
}

fn payload(number: u64) -> Bytes {
    Bytes::from(format!("{number:0>90}"))
}

fn records_of(batch: &Batch) -> impl Iterator<Item = (u64, Timestamp, Bytes)> {
    let records: Vec<_> = batch
        .records(DecompressLimit::default())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    records
        .into_iter()
        .map(|record| (record.offset.get(), record.timestamp, record.value.unwrap()))
}

/// Some records of an uncompressed batch, by a copy of their bytes.
fn filtered(batch: &Batch, offsets: &[u64], keep: &dyn Fn(u64) -> bool) -> Bytes {
    let mut bytes = batch.bytes()[..HEADER_BYTES].to_vec();
    let mut rest = &batch.bytes()[HEADER_BYTES..];
    let mut count = 0i32;
    for offset in offsets {
        let (length, length_bytes) = varint(rest);
        let (record, others) = rest.split_at(length + length_bytes);
        rest = others;
        if keep(*offset) {
            bytes.extend_from_slice(record);
            count += 1;
        }
    }
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    let times = records_of(batch).filter(|(offset, ..)| keep(*offset));
    let max = times.map(|(_, time, _)| time.millis()).max().unwrap();
    bytes[35..43].copy_from_slice(&max.to_be_bytes());
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn varint(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0usize;
    for (index, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (value >> 1, index + 1);
        }
    }
    panic!("a record ends");
}

pub struct House {
    pub disk: SimDisk,
    clock: Arc<ManualClock>,
    storage: Option<Storage>,
    threads: Threads,
    /// What should be in the log, and its start and end.
    pub records: BTreeMap<u64, (Timestamp, Bytes)>,
    pub start: u64,
    pub end: u64,
    payloads: u64,
}

impl House {
    pub fn new(seed: u64) -> House {
        House::with_threads(seed, Threads::Manual)
    }

    pub fn on_threads() -> House {
        House::with_threads(1, Threads::Own)
    }

    fn with_threads(seed: u64, threads: Threads) -> House {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let mut house = House {
            disk,
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000))),
            storage: None,
            threads,
            records: BTreeMap::new(),
            start: 0,
            end: 0,
            payloads: 0,
        };
        house.open();
        house
    }

    /// With at least so many sealed segments.
    pub fn with_segments(count: usize) -> House {
        let mut house = House::new(1);
        let mut time = 0;
        while house.sealed().len() < count {
            house.append(&[time, time + 2, time - 5]);
            house.settle();
            time += 1;
        }
        house
    }

    pub fn open(&mut self) {
        self.try_open().unwrap();
    }

    pub fn try_open(&mut self) -> Result<(), String> {
        let mut config = StorageConfig::new(PathBuf::from("/data"));
        config.wal_file_bytes = 256 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 40;
        config.settle_age = Duration::from_millis(5);
        let clock: Arc<dyn storage::Clock> = self.clock.clone();
        let env = Env {
            threads: self.threads,
            ..Env::manual(Arc::new(self.disk.clone()), clock)
        };
        let (storage, report) = Storage::open(config, env).map_err(|error| error.to_string())?;
        assert!(report.damage.is_empty(), "no damage: {:?}", report.damage);
        storage
            .finish_open(&HashSet::from([log_id()]))
            .map_err(|error| error.to_string())?;
        let settings = LogSettings {
            segment_bytes: 1_500,
            ..LogSettings::from(&TopicConfig::default())
        };
        storage.create_log(log_id(), settings);
        self.storage = Some(storage);
        Ok(())
    }

    pub fn close(&mut self) {
        if let Some(storage) = self.storage.take() {
            storage.shutdown();
        }
    }

    pub fn restart(&mut self) {
        self.close();
        self.open();
    }

    /// The process dies; the machine goes on.
    pub fn kill(&mut self) {
        self.disk.cut_power();
        self.close();
        self.disk.restart_process();
        self.open();
    }

    pub fn storage(&self) -> &Storage {
        self.storage.as_ref().expect("it is open")
    }

    pub fn log(&self) -> Arc<Log> {
        self.storage().log(log_id()).unwrap()
    }

    fn builder(&mut self, times: &[i64]) -> (BatchBuilder, Vec<(Timestamp, Bytes)>) {
        let mut builder = BatchBuilder::new(Codec::None);
        let mut records = Vec::new();
        for time in times {
            self.payloads += 1;
            let value = payload(self.payloads);
            let time = Timestamp::from_millis(*time);
            builder.push(time, Some(b"key"), Some(&value), &[]).unwrap();
            records.push((time, value));
        }
        (builder, records)
    }

    /// The records that the next append with these times makes.
    pub fn next_records(&self, times: &[i64]) -> Vec<(Timestamp, Bytes)> {
        let numbers = self.payloads + 1..;
        (times.iter().zip(numbers))
            .map(|(time, number)| (Timestamp::from_millis(*time), payload(number)))
            .collect()
    }

    /// Appends a batch and makes it durable; false if the disk failed.
    pub fn try_append(&mut self, times: &[i64]) -> bool {
        let (builder, records) = self.builder(times);
        self.append_batch(builder, records).is_some()
    }

    pub fn append(&mut self, times: &[i64]) {
        assert!(self.try_append(times), "the disk takes it");
    }

    /// Appends a batch of records with these keys; false if the disk failed.
    pub fn try_append_keyed(&mut self, keys: &[&str]) -> bool {
        let mut builder = BatchBuilder::new(Codec::None);
        let mut records = Vec::new();
        for key in keys {
            self.payloads += 1;
            let (time, value) = (Timestamp::from_millis(7), payload(self.payloads));
            let key = Some(key.as_bytes());
            builder.push(time, key, Some(&value), &[]).unwrap();
            records.push((time, value));
        }
        self.append_batch(builder, records).is_some()
    }

    /// Appends a batch of one record; gives its offset.
    pub fn append_as_producer(&mut self, producer: i64, sequence: i32) -> u64 {
        let (mut builder, records) = self.builder(&[3]);
        builder.producer(ProducerId::new(producer), ProducerEpoch::new(0), sequence);
        self.append_batch(builder, records).unwrap()
    }

    fn append_batch(
        &mut self,
        builder: BatchBuilder,
        records: Vec<(Timestamp, Bytes)>,
    ) -> Option<u64> {
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        let storage = self.storage().clone();
        let bytes = batch.bytes().len();
        let mut admission = storage.try_admit(bytes);
        while admission.is_none() {
            storage.prepare_once().ok()?;
            admission = storage.try_admit(bytes);
        }
        let appended = self.log().append(vec![batch.into()], admission?).ok()?;
        if self.threads == Threads::Manual {
            while storage.commit_once() {}
        }
        let base = appended.base_offset.get();
        appended.durable.wait().ok()?;
        if !appended.duplicate {
            let offsets = base..;
            self.end = base + records.len() as u64;
            self.records.extend(offsets.zip(records));
        }
        Some(base)
    }

    pub fn settle(&self) {
        while self.storage().settle_once() {}
    }

    pub fn wait_for_sealed(&self, count: usize) {
        while self.sealed().len() < count {
            std::thread::yield_now();
        }
    }

    pub fn scrub(&self) {
        let mut live = self.storage().live();
        live.scrub_bytes_per_second = 1 << 40;
        self.storage().set_live(live);
        self.clock.advance(Duration::from_secs(2 * 3600));
        let mut idle = 0;
        while idle < 20 {
            let worked = self.storage().scrub_once();
            idle = if worked { 0 } else { idle + 1 };
            self.clock.advance(Duration::from_millis(200));
        }
        assert_eq!(self.storage().metrics().scrub_faults, 0);
    }

    pub fn delete_records(&mut self, more: u64) {
        assert!(self.try_delete_records(more), "the disk takes it");
    }

    /// Raises the start; false if the disk failed.
    pub fn try_delete_records(&mut self, more: u64) -> bool {
        let before = (self.start + more).min(self.end);
        let Ok(durable) = self.log().delete_records(Offset::new(before)) else {
            return false;
        };
        while self.storage().commit_once() {}
        if durable.wait().is_err() {
            return false;
        }
        self.start = self.start.max(before);
        self.records = self.records.split_off(&self.start);
        true
    }

    pub fn sealed(&self) -> Vec<SegmentEntry> {
        self.storage().sealed_segments(log_id())
    }

    /// Rewrites, and says what should be left: before, and after.
    pub fn try_rewrite(
        &mut self,
        segments: &[SegmentId],
        keep: impl Fn(u64) -> bool,
    ) -> Result<Rewritten, RewriteError> {
        let range = self.range_of(segments);
        let mut keeper = Filter(&keep);
        let rewritten = self
            .storage()
            .rewrite(log_id(), segments, None, &AtOnce, &mut keeper)?;
        self.records
            .retain(|offset, _| !range.contains(offset) || keep(*offset));
        Ok(rewritten)
    }

    /// The offsets of some segments.
    pub fn range_of(&self, segments: &[SegmentId]) -> std::ops::Range<u64> {
        let sealed = self.sealed();
        let of = |id: &SegmentId| sealed.iter().find(|entry| entry.id == *id);
        match (
            segments.first().and_then(of),
            segments.last().and_then(of).and_then(|last| last.sealed),
        ) {
            (Some(first), Some(last)) => first.id.base.get()..last.end_offset.get(),
            _ => 0..0,
        }
    }

    pub fn rewrite(
        &mut self,
        segments: &[SegmentId],
        keep: impl Fn(u64) -> bool,
    ) -> Result<Rewritten, RewriteError> {
        self.try_rewrite(segments, keep)
    }

    pub fn live_offsets(&self) -> BTreeSet<u64> {
        self.records.keys().copied().collect()
    }

    fn directory(&self) -> PathBuf {
        Path::new("/data/p/07").join(log_id().to_string())
    }

    pub fn path(&self, id: SegmentId) -> PathBuf {
        id.log_path(&self.directory())
    }

    /// The files of some segments, with their contents.
    pub fn files_of(&self, ids: &[SegmentId]) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.disk.files();
        let paths = ids
            .iter()
            .flat_map(|id| [self.path(*id), id.index_path(&self.directory())]);
        paths
            .map(|path| (path.clone(), files[&path].clone()))
            .collect()
    }

    /// The names of the log's files, but for the manifests.
    pub fn names(&self) -> BTreeSet<String> {
        let entries = self.disk.list(&self.directory()).unwrap();
        let names = entries.into_iter().map(|entry| entry.name);
        names
            .filter(|name| !name.starts_with("manifest."))
            .collect()
    }

    pub fn quarantined(&self) -> Vec<PathBuf> {
        let files = self.disk.files().into_keys();
        files
            .filter(|path| path.starts_with("/data/quarantine"))
            .collect()
    }

    pub fn manifest(&self) -> Manifest {
        let loaded = manifest::load(&self.disk, &self.directory(), log_id()).unwrap();
        loaded.manifest.unwrap()
    }

    fn remove(&self, which: impl Fn(&str) -> bool) {
        for entry in self.disk.list(&self.directory()).unwrap() {
            if which(&entry.name) {
                let path = self.directory().join(entry.name);
                self.disk.remove_file(&path).unwrap();
            }
        }
    }

    /// All indexes are lost while the store is closed.
    pub fn lose_indexes(&mut self) {
        self.close();
        if self.disk.exists(&self.directory()).unwrap() {
            self.remove(|name| name.ends_with(".idx"));
        }
        self.open();
    }

    pub fn lose_manifests(&self) {
        self.remove(|name| name.starts_with("manifest."));
    }

    /// What is on record of damage is forgotten.
    pub fn forget_damage(&mut self) {
        self.close();
        let path = Path::new("/data/DAMAGE");
        if self.disk.exists(path).unwrap() {
            self.disk.remove_file(path).unwrap();
        }
        self.open();
    }

    /// What an offline verification finds.
    pub fn offline(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut report = |finding| findings.push(finding);
        verify_store(&self.disk, Path::new("/data"), &mut report).unwrap();
        findings
    }

    /// An offline verification finds no damage, and a dump shows every batch of the segments as sound.
    pub fn check_offline(&self) {
        let is_wrong = |finding: &Finding| finding.is_damage || finding.stops_start;
        let findings = self.offline();
        assert!(!findings.iter().any(is_wrong), "{findings:?}");
        for entry in self.sealed() {
            let mut records = 0;
            let mut visit = |line: BatchLine| {
                assert_eq!(line.fault, None, "{} at {}", entry.id, line.position);
                records += u64::from(line.records.unsigned_abs());
            };
            let bytes = dump_segment(&self.disk, &self.path(entry.id), &mut visit).unwrap();
            let sealed = entry.sealed.unwrap();
            assert_eq!((bytes, records), (sealed.bytes, sealed.records));
        }
    }

    /// Reads on from an offset until the durable end, in pieces.
    pub fn read_on(&self, from: u64, max_bytes: usize) -> Vec<(u64, (Timestamp, Bytes))> {
        let log = self.log();
        let end = log.bounds().durable_end;
        let (mut next, mut found) = (Offset::new(from), Vec::new());
        while next < end {
            let chunk = log.read(next, max_bytes, true).unwrap();
            assert!(chunk.end_offset > next, "a reader stands still at {next}");
            found.extend(records_from(&chunk.to_bytes(), from));
            next = chunk.end_offset;
        }
        assert_eq!(next, end);
        found
    }

    /// The log holds what it should, from every offset on, and finds it by time.
    pub fn check(&self) {
        let log = self.log();
        let bounds = log.bounds();
        assert_eq!(
            (bounds.start.get(), bounds.durable_end.get()),
            (self.start, self.end)
        );
        let expected: Vec<_> = self
            .records
            .iter()
            .map(|(offset, record)| (*offset, record.clone()))
            .collect();
        for max_bytes in [1, 700, 1 << 20] {
            assert_eq!(self.read_on(self.start, max_bytes), expected);
        }
        for from in self.start..self.end {
            let chunk = log.read(Offset::new(from), 500, true).unwrap();
            let end = chunk.end_offset.get();
            assert!(end > from, "a reader stands still at {from}");
            let expected: Vec<_> = self
                .records
                .range(from..end)
                .map(|(offset, record)| (*offset, record.clone()))
                .collect();
            assert_eq!(records_from(&chunk.to_bytes(), from), expected, "{from}");
            if let Some(warm) = log.read_in_memory(Offset::new(from), 500, true).unwrap() {
                assert_eq!(warm.to_bytes(), chunk.to_bytes());
            }
        }
        let times: BTreeSet<i64> = (self.records.values())
            .flat_map(|(time, _)| [time.millis(), time.millis() + 1])
            .collect();
        for wanted in times {
            let wanted = Timestamp::from_millis(wanted);
            let found = log.offset_for_time(wanted).unwrap();
            let found = found.map(|found| (found.offset.get(), found.timestamp));
            let first = self.records.iter().find(|(_, (time, _))| *time >= wanted);
            assert_eq!(found, first.map(|(offset, (time, _))| (*offset, *time)));
        }
        let largest = log.max_timestamp().unwrap();
        let max = self.records.values().map(|(time, _)| *time).max();
        let first = (self.records.iter()).find(|(_, (time, _))| Some(*time) == max);
        assert_eq!(
            largest.map(|found| (found.offset.get(), found.timestamp)),
            first.map(|(offset, (time, _))| (*offset, *time))
        );
    }

    /// Of the log's files there are those of its segments, and no others; nothing was set aside.
    pub fn check_directory(&self) {
        self.settle();
        let sealed = self.sealed();
        let mut others = self.names();
        for entry in &sealed {
            assert!(others.remove(&entry.id.log_name()), "{}", entry.id);
            // One that was lost is missed by nobody before the scrub.
            others.remove(&entry.id.index_name());
        }
        let end = sealed
            .iter()
            .filter_map(|entry| Some(entry.sealed?.end_offset))
            .max();
        let is_active = |name: &String| {
            let parsed = SegmentId::parse(name);
            parsed.is_some_and(|(id, _)| id.generation == 0 && Some(id.base) >= end)
        };
        assert!(
            others.len() <= 1 && others.iter().all(is_active),
            "{others:?}"
        );
        assert!(self.quarantined().is_empty(), "{:?}", self.quarantined());
    }
}

fn records_from(bytes: &Bytes, from: u64) -> Vec<(u64, (Timestamp, Bytes))> {
    split(bytes.clone())
        .flat_map(|batch| {
            let batch = batch.unwrap();
            records_of(&batch).collect::<Vec<_>>()
        })
        .filter(|(offset, ..)| *offset >= from)
        .map(|(offset, time, value)| (offset, (time, value)))
        .collect()
}
