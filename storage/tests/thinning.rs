//! Thinning in a store: real recordings keep every extreme of every window, in whatever steps they are thinned; what thinning
//! knows survives a restart; a power cut at any operation leaves a segment as it was or thinned.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit, split};
use model::topic_config::{Defaults, TopicConfig};
use model::{LogId, PartitionId, Timestamp, TopicId};
use storage::backup::{BackupOrder, take_backup};
use storage::cleanup::run::{Progress, Report, RunOptions};
use storage::cleanup::{HeldBack, Outcome, Policy, Reason};
use storage::inspect::{summed_windows, verify_store};
use storage::io::SimDisk;
use storage::segment::summary::read_summary;
use storage::{AppendBatch, Disk, Env, LogSettings, ManualClock, Storage, StorageConfig};

#[path = "../examples/thinning_picture.rs"]
mod thinning_picture;

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([9; 16]), PartitionId::new(0))
}

fn settings(pairs: &[(&str, &str)]) -> LogSettings {
    let named = pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()));
    let overrides: BTreeMap<String, String> = named.collect();
    LogSettings::from(&TopicConfig::from_overrides(&overrides, &Defaults::default()).unwrap())
}

/// A record: its key, its time, its value.
type Row = (&'static str, i64, String);

struct House {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    storage: Option<Storage>,
    settings: LogSettings,
}

impl House {
    fn new(since: i64, pairs: &[(&str, &str)]) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(since)));
        let storage = House::open(&disk, &clock);
        let settings = settings(pairs);
        storage.create_log(log_id(), settings.clone());
        House {
            disk,
            clock,
            storage: Some(storage),
            settings,
        }
    }

    fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> Storage {
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 512 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 8;
        let env = Env::manual(Arc::new(disk.clone()), clock.clone());
        Storage::open(config, env).unwrap().0
    }

    fn reopen(&mut self) {
        self.storage = None;
        let storage = House::open(&self.disk, &self.clock);
        storage.create_log(log_id(), self.settings.clone());
        self.storage = Some(storage);
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn append(&self, rows: &[Row], codec: Codec) {
        let mut builder = BatchBuilder::new(codec);
        for (key, time, value) in rows {
            let key = (!key.is_empty()).then_some(key.as_bytes());
            builder
                .push(
                    Timestamp::from_millis(*time),
                    key,
                    Some(value.as_bytes()),
                    &[],
                )
                .unwrap();
        }
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        while self.storage().prepare_once().unwrap() {}
        let admission = self.storage().try_admit(batch.bytes().len()).unwrap();
        let log = self.storage().log(log_id()).unwrap();
        let appended = log
            .append(vec![AppendBatch::from(batch)], admission)
            .unwrap();
        assert!(self.storage().commit_once());
        appended.durable.wait().unwrap();
    }

    fn pass(&self, ms: i64) {
        self.clock.advance(Duration::from_millis(ms.unsigned_abs()));
    }

    fn thin(&self, now: bool) -> Report {
        let options = RunOptions {
            now,
            ..RunOptions::default()
        };
        self.storage()
            .run_cleanup(log_id(), Policy::Thin, options, &Progress::default())
            .unwrap()
    }

    /// All records that a reader sees: offset, time, value.
    fn read(&self) -> Vec<(u64, i64, String)> {
        let log = self.storage().log(log_id()).unwrap();
        let bounds = log.bounds();
        let (mut at, mut found) = (bounds.start, Vec::new());
        while at < bounds.durable_end {
            let chunk = log.read(at, 1 << 20, true).unwrap();
            for batch in split(chunk.to_bytes()) {
                for record in batch.unwrap().records(DecompressLimit::default()).unwrap() {
                    let record = record.unwrap();
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    found.push((record.offset.get(), record.timestamp.millis(), value));
                }
            }
            assert!(chunk.end_offset > at, "a reader gets on");
            at = chunk.end_offset;
        }
        found
    }
}

/// `2010-03-24 09:51:00` or `2016-02-15T00:30:00Z`, in UTC. Days by Howard Hinnant's `days_from_civil`.
fn millis(text: &str) -> i64 {
    let part = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    let (month, day) = (part(5, 7), part(8, 10));
    let year = part(0, 4) - i64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = (year % 400) * 365 + (year % 400) / 4 - (year % 400) / 100 + day_of_year;
    let days = year / 400 * 146_097 + day_of_era - 719_468;
    ((days * 24 + part(11, 13)) * 60 + part(14, 16)) * 60_000 + part(17, 19) * 1000
}

/// A recording's lines with the time that stands in this column, from 0.
fn recording(name: &str, time_column: usize) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data")
        .join(name);
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    let lines = text.lines().skip(1);
    lines
        .map(|line| {
            (
                "sensor",
                millis(line.split(',').nth(time_column).unwrap()),
                line.to_owned(),
            )
        })
        .collect()
}

/// The value in a column, from 0, in hundredths of a thousandth, to compare without floats.
fn number(line: &str, column: usize) -> i64 {
    let cell = line.split(',').nth(column).unwrap();
    (cell.parse::<f64>().unwrap() * 100_000.0).round() as i64
}

/// The offsets of the first smallest and the first largest value of each window, and of the first and last record if asked for.
fn extremes(rows: &[Row], window_ms: i64, column: usize, ends: bool) -> BTreeSet<u64> {
    let mut windows: BTreeMap<i64, Vec<(i64, u64, i64)>> = BTreeMap::new();
    for (offset, (_, time, line)) in rows.iter().enumerate() {
        let window = windows.entry(time.div_euclid(window_ms)).or_default();
        window.push((*time, offset as u64, number(line, column)));
    }
    let mut offsets = BTreeSet::new();
    for window in windows.values_mut() {
        window.sort_unstable();
        let least = window
            .iter()
            .min_by_key(|(time, offset, value)| (*value, *time, *offset));
        let most = window
            .iter()
            .min_by_key(|(time, offset, value)| (-*value, *time, *offset));
        offsets.extend([least.unwrap().1, most.unwrap().1]);
        if ends {
            offsets.extend([window[0].1, window[window.len() - 1].1]);
        }
    }
    offsets
}

/// Records come as they were measured, a batch for each day, and are thinned every ten days.
fn check_recording(rows: &[Row], column: usize) {
    let csv = column + 1;
    let tiers = format!(
        "10d:2h:first+last+min(csv{csv})+max(csv{csv}); 60d:1d:min(csv{csv})+max(csv{csv})"
    );
    let pairs = [
        ("cleanup.policy", "thin"),
        ("thin.tiers", &tiers),
        ("segment.bytes", "32768"),
    ];
    let mut house = House::new(rows[0].1, &pairs);
    let mut now = rows[0].1;
    let batches: Vec<&[Row]> = rows
        .chunk_by(|a, b| a.1.div_euclid(DAY_MS) == b.1.div_euclid(DAY_MS))
        .collect();
    for (day, batch) in batches.iter().enumerate() {
        let newest = batch.iter().map(|(_, time, _)| *time).max().unwrap();
        house.pass((newest - now).max(0));
        now = now.max(newest);
        house.append(batch, Codec::Lz4);
        house.storage().settle_once();
        if day % 10 == 9 {
            house.thin(false);
        }
        if day == batches.len() / 2 {
            house.reopen();
        }
    }
    // All of it in the first tier, nothing in the second that was not there before.
    let before = house.read();
    let offsets: BTreeSet<u64> = before.iter().map(|(offset, ..)| *offset).collect();
    let daily = extremes(rows, DAY_MS, column, false);
    assert!(daily.is_subset(&offsets), "an extreme of a day is gone");
    assert!(
        before.len() < rows.len() / 3,
        "{} of {} records are left",
        before.len(),
        rows.len()
    );

    house.pass(100 * DAY_MS);
    house.thin(true);
    let after = house.read();
    let left: BTreeSet<u64> = after.iter().map(|(offset, ..)| *offset).collect();
    assert_eq!(
        left, daily,
        "each day's smallest and largest value is left, and nothing else"
    );
    for (offset, time, value) in &after {
        let row = &rows[usize::try_from(*offset).unwrap()];
        assert_eq!(
            (*time, value),
            (row.1, &row.2),
            "a record that stays is as it was"
        );
    }
    let again = house.thin(true);
    assert_eq!(
        (again.records_removed, again.bytes_written),
        (0, 0),
        "thinning twice is thinning once"
    );
    check_summaries(&house, rows, column);
    let century = Some(36_500 * DAY_MS);
    let windows = summed_windows(&house.disk, &directory(&house.disk), log_id(), century).unwrap();
    let (at, all) = windows.first_key_value().unwrap();
    assert_eq!(
        (windows.len(), at.window_ms, all.records),
        (1, 36_500 * DAY_MS, rows.len() as u64)
    );
}

/// The summaries of all segments together count every record, and know each day's extremes.
fn check_summaries(house: &House, rows: &[Row], column: usize) {
    let segments = house.storage().sealed_segments(log_id());
    let directory = directory(&house.disk);
    let mut days: BTreeMap<i64, (u64, f64, f64, f64)> = BTreeMap::new();
    for segment in segments {
        let summary = read_summary(&house.disk, &directory, log_id(), segment.id).unwrap();
        let mut summary = summary.expect("every segment was thinned");
        let mut windows = Vec::new();
        while let Some(section) = summary.next_section().unwrap() {
            windows.extend(section.windows);
        }
        for window in windows {
            assert_eq!(window.at.window_ms, DAY_MS);
            let stats = window.stats[0];
            let day = days
                .entry(window.at.start / DAY_MS)
                .or_insert((0, 0.0, f64::MAX, f64::MIN));
            *day = (
                day.0 + window.count,
                day.1 + stats.sum,
                day.2.min(stats.min),
                day.3.max(stats.max),
            );
        }
    }
    let mut expected: BTreeMap<i64, (u64, f64, f64, f64)> = BTreeMap::new();
    for (_, time, line) in rows {
        let value: f64 = line.split(',').nth(column).unwrap().parse().unwrap();
        let day = expected
            .entry(time.div_euclid(DAY_MS))
            .or_insert((0, 0.0, f64::MAX, f64::MIN));
        *day = (day.0 + 1, day.1 + value, day.2.min(value), day.3.max(value));
    }
    assert_eq!(days.len(), expected.len());
    for (found, wanted) in days.values().zip(expected.values()) {
        assert_eq!((found.0, found.2, found.3), (wanted.0, wanted.2, wanted.3));
        assert!((found.1 - wanted.1).abs() < 1e-6, "{found:?} {wanted:?}");
    }
}

#[test]
fn the_picture_of_the_page_is_the_one_that_the_command_draws() {
    let picture = include_str!("../../docs/thinning.svg");
    assert!(
        picture == thinning_picture::picture(),
        "write it again: cargo run -p alluvium-storage --example thinning_picture > docs/thinning.svg"
    );
}

fn directory(disk: &SimDisk) -> std::path::PathBuf {
    let shelf = disk.list(Path::new("/data/p")).unwrap().remove(0).name;
    let shelf = Path::new("/data/p").join(shelf);
    let name = disk.list(&shelf).unwrap().remove(0).name;
    shelf.join(name)
}

#[test]
fn the_glucose_recording_keeps_every_extreme_of_every_window() {
    check_recording(&recording("CGM.csv.gz", 1), 2);
}

#[test]
fn the_buoy_recording_keeps_every_extreme_of_every_window() {
    check_recording(&recording("sea_surface_temperature.csv.gz", 0), 1);
}

fn reading(key: &'static str, time: i64, value: i64) -> Row {
    (key, time, format!("{{\"t\":{value}}}"))
}

/// An hour of readings, one a minute, that rise and fall.
fn hour(key: &'static str, hour: i64) -> Vec<Row> {
    let minute = |minute: i64| {
        reading(
            key,
            hour * HOUR_MS + minute * 60_000,
            (minute - 30).abs() + hour,
        )
    };
    (0..60).map(minute).collect()
}

const TIERS: &str = "1d:1h:first+last+min(json/t)+max(json/t)";

#[test]
fn a_plan_tells_what_holds_each_segment_back_and_the_run_does_what_the_plan_tells() {
    let pairs = [
        ("cleanup.policy", "thin,delete"),
        ("thin.tiers", TIERS),
        ("segment.bytes", "4096"),
    ];
    let mut house = House::new(0, &pairs);
    for at in 0..24 {
        house.append(&hour("a", at), Codec::None);
        house.pass(HOUR_MS);
        house.storage().settle_once();
    }
    let plan = |house: &House| {
        house
            .storage()
            .plan_cleanup(log_id(), Policy::Thin, false)
            .unwrap()
    };
    let first = |house: &House| plan(house).segments[0].outcome.clone();
    assert!(matches!(
        first(&house),
        Outcome::Keep(HeldBack::OpenWindow { tier: 1, .. })
            | Outcome::Keep(HeldBack::TierAge { .. })
    ));
    house.pass(DAY_MS / 2);
    let planned = plan(&house);
    let tier = |outcome: &Outcome| {
        matches!(
            outcome,
            Outcome::Rewrite {
                reason: Reason::Tier { tier: 1, .. },
                ..
            }
        )
    };
    let reached = planned
        .segments
        .iter()
        .take_while(|one| tier(&one.outcome))
        .count();
    assert!(
        reached > 2 && reached < planned.segments.len(),
        "{planned:?}"
    );
    let young = &planned.segments[planned.segments.len() - 2].outcome;
    assert!(
        matches!(young, Outcome::Keep(HeldBack::TierAge { .. })),
        "{young:?}"
    );

    let dry = RunOptions {
        dry_run: true,
        ..RunOptions::default()
    };
    let told = house
        .storage()
        .run_cleanup(log_id(), Policy::Thin, dry, &Progress::default())
        .unwrap();
    assert_eq!(house.read().len(), 24 * 60, "a dry run changes nothing");
    let done = house.thin(false);
    assert_eq!(
        (told.records_removed, told.bytes_removed),
        (done.records_removed, done.bytes_removed)
    );
    assert_eq!(house.read().len() as u64, 24 * 60 - done.records_removed);
    assert_eq!(first(&house), Outcome::Keep(HeldBack::Thinned { tier: 1 }));
    house.reopen();
    let again = house.thin(false);
    assert_eq!(
        (again.records_removed, again.bytes_read),
        (0, 0),
        "the summaries know what was thinned"
    );
    assert_eq!(first(&house), Outcome::Keep(HeldBack::Thinned { tier: 1 }));

    house.pass(60 * DAY_MS);
    house.thin(true);
    let kept: Vec<i64> = house
        .read()
        .iter()
        .map(|(_, time, _)| time / 60_000 % 60)
        .collect();
    let each_hour = [0, 30, 59];
    assert_eq!(
        kept,
        each_hour.repeat(24),
        "first and largest, smallest, last"
    );
    let retention = house.storage().run_cleanup(
        log_id(),
        Policy::Retention,
        RunOptions::default(),
        &Progress::default(),
    );
    retention.unwrap();
    house.storage().settle_once();
    let rest = house.disk.list(&directory(&house.disk)).unwrap();
    let rest: Vec<String> = rest
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| !name.starts_with("manifest"))
        .collect();
    assert_eq!(
        rest,
        Vec::<String>::new(),
        "summaries go with their segments"
    );
}

/// A store whose only segment is thinned, and the path of its summary.
fn thinned_house() -> (House, std::path::PathBuf) {
    let pairs = [
        ("cleanup.policy", "thin"),
        ("thin.tiers", TIERS),
        ("segment.bytes", "4096"),
    ];
    let house = House::new(0, &pairs);
    house.append(&hour("a", 0), Codec::None);
    house.storage().settle_once();
    house.pass(3 * DAY_MS);
    house.thin(true);
    let segment = house.storage().sealed_segments(log_id())[0];
    let path = segment.id.summary_path(&directory(&house.disk));
    assert!(house.disk.exists(&path).unwrap());
    (house, path)
}

#[test]
fn a_topic_that_is_compacted_too_keeps_what_compaction_keeps_and_its_summaries() {
    let pairs = [
        ("cleanup.policy", "compact,thin"),
        ("thin.tiers", "1d:1h:min(json/t)"),
        ("segment.bytes", "4096"),
        ("min.compaction.lag.ms", "864000000"),
    ];
    let house = House::new(0, &pairs);
    let mut last = Vec::new();
    for at in 0..6 {
        let key = ["a", "b"][at as usize % 2];
        let rows = hour(key, at);
        last.push((key, rows[59].2.clone()));
        house.append(&rows, Codec::None);
        house.pass(HOUR_MS);
        house.storage().settle_once();
    }
    house.pass(3 * DAY_MS);
    house.thin(true);
    let minutes: Vec<i64> = house
        .read()
        .iter()
        .map(|(_, time, _)| time / 60_000 % 60)
        .collect();
    assert_eq!(
        minutes,
        [30, 59].repeat(6),
        "each hour's smallest, and its newest for compaction"
    );

    house.pass(20 * DAY_MS);
    let options = RunOptions {
        now: true,
        ..RunOptions::default()
    };
    let progress = Progress::default();
    house
        .storage()
        .run_cleanup(log_id(), Policy::Compaction, options, &progress)
        .unwrap();
    let values: Vec<String> = house.read().into_iter().map(|(.., value)| value).collect();
    assert_eq!(
        values,
        [last[4].1.clone(), last[5].1.clone()],
        "the latest value of each key"
    );
    let century = Some(36_500 * DAY_MS);
    let windows = summed_windows(&house.disk, &directory(&house.disk), log_id(), century).unwrap();
    let counts: Vec<u64> = windows.values().map(|window| window.records).collect();
    assert_eq!(
        counts,
        [180, 180],
        "what compaction rewrites still tells of all records"
    );
}

#[test]
fn a_damaged_summary_is_found_and_costs_nothing_but_itself() {
    let (mut house, path) = thinned_house();
    let records = house.read();
    house.disk.flip(&path, 40, 1);
    let mut findings = Vec::new();
    verify_store(&house.disk, Path::new("/data"), &mut |finding| {
        findings.push(finding)
    })
    .unwrap();
    let found: Vec<_> = findings
        .iter()
        .map(|finding| (&finding.path, finding.is_damage))
        .collect();
    assert_eq!(found, [(&path, false)]);
    house.reopen();
    house.thin(false);
    assert_eq!(house.read(), records);
}

#[test]
fn a_backup_holds_the_summaries() {
    let (mut house, path) = thinned_house();
    let summary = house.disk.files()[&path].clone();
    house.storage = None;
    let order = BackupOrder {
        source: "/data".into(),
        place: "/backups".into(),
        keep: 1,
        recheck: false,
        now: Timestamp::from_millis(5),
        release: "0".to_owned(),
    };
    let ended = || Timestamp::from_millis(6);
    let taken = take_backup(&house.disk, &order, &ended, &mut |_| {}).unwrap();
    let copy = taken.directory.join(path.strip_prefix("/data").unwrap());
    assert_eq!(house.disk.files()[&copy], summary);
}

#[test]
fn what_cannot_be_read_is_kept_and_records_without_a_key_are_a_key_of_their_own() {
    let pairs = [
        ("cleanup.policy", "thin"),
        ("thin.tiers", "0ms:1h:min(json/t)"),
        ("segment.bytes", "4096"),
    ];
    let house = House::new(0, &pairs);
    let mut rows = vec![
        reading("", 0, 5),
        reading("", 1, 4),
        reading("k", 2, 9),
        ("", 3, "{\"u\":1}".to_owned()),
    ];
    rows.extend([
        ("k", 4, "no JSON".to_owned()),
        reading("k", 5, 9),
        reading("", 6, 8),
    ]);
    house.append(&rows, Codec::Zstd);
    house.pass(2 * HOUR_MS);
    house.storage().settle_once();
    house.thin(true);
    let offsets: Vec<u64> = house.read().iter().map(|(offset, ..)| *offset).collect();
    assert_eq!(offsets, [1, 2, 3, 4]);
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_records_as_they_were_or_thinned() {
    let pairs = [
        ("cleanup.policy", "thin"),
        ("thin.tiers", TIERS),
        ("segment.bytes", "4096"),
    ];
    let begin = || {
        let house = House::new(0, &pairs);
        for at in 0..6 {
            house.append(&hour("a", at), Codec::None);
            house.pass(HOUR_MS);
            house.storage().settle_once();
        }
        house.pass(3 * DAY_MS);
        house
    };
    let house = begin();
    let from = house.disk.operations();
    let whole = house.read();
    house.thin(true);
    let thinned = house.read();
    let operations = house.disk.operations() - from;
    assert!(thinned.len() < whole.len() / 10 && operations > 20);
    let thinned: BTreeSet<_> = thinned.into_iter().collect();
    for cut in 1..=operations {
        let mut house = begin();
        house.disk.cut_power_during(from + cut);
        let options = RunOptions {
            now: true,
            ..RunOptions::default()
        };
        let _ = house
            .storage()
            .run_cleanup(log_id(), Policy::Thin, options, &Progress::default());
        house.disk.restart(cut);
        house.reopen();
        let left: BTreeSet<_> = house.read().into_iter().collect();
        assert!(
            thinned.is_subset(&left),
            "cut {cut}: a record that stays is gone"
        );
        house.thin(true);
        let left: BTreeSet<_> = house.read().into_iter().collect();
        assert_eq!(left, thinned, "cut {cut}");
        house.storage().settle_once();
        let names: Vec<String> = house
            .disk
            .list(&directory(&house.disk))
            .unwrap()
            .into_iter()
            .map(|it| it.name)
            .collect();
        let logs = names.iter().filter(|name| name.ends_with(".log")).count();
        let sums = names.iter().filter(|name| name.ends_with(".sum")).count();
        assert!(sums <= logs, "cut {cut}: {names:?}");
        assert!(
            house
                .disk
                .list(Path::new("/data/quarantine"))
                .unwrap_or_default()
                .is_empty(),
            "cut {cut}"
        );
    }
}

#[test]
fn offsets_of_extremes_are_those_of_the_first() {
    let rows = [
        reading("a", 0, 3),
        reading("a", 1, 1),
        reading("a", 2, 1),
        reading("a", 3, 3),
    ];
    let lines: Vec<Row> = rows
        .iter()
        .map(|(key, time, json)| (*key, *time, json[5..6].to_owned()))
        .collect();
    assert_eq!(extremes(&lines, 10, 0, true), BTreeSet::from([0, 1, 3]));
    assert_eq!(millis("1970-01-02 00:00:01"), DAY_MS + 1000);
    assert_eq!(millis("2016-02-15T00:30:00Z"), 1_455_496_200_000);
}
