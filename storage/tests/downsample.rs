//! A log in windows of time: whatever was thinned, whenever, the windows are those of all records that were ever appended, computed
//! plainly from what was sent.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium_storage as storage;
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec};
use model::topic_config::thin::{ValueAt, parse_value};
use model::topic_config::{Defaults, TopicConfig};
use model::{LogId, PartitionId, Timestamp, TopicId};
use proptest::prelude::*;
use storage::cleanup::Policy;
use storage::cleanup::run::{Progress, RunOptions};
use storage::io::SimDisk;
use storage::{
    AppendBatch, Disk, Downsample, DownsampleCounts, DownsampleError, DownsampledKeys, Env,
    LogSettings, ManualClock, Sources, Storage, StorageConfig, Windows,
};

const BEGIN: i64 = 1_700_000_000_000;
const TIERS: [&str; 3] = [
    "10s:2s:first+min(json/t)+max(json/t); 60s:10s:min(json/t)+max(json/t)",
    "0ms:1s:last",
    "5s:5s:max(json/t)+max(json/u)+if(json/t above 90)",
];

fn log_id() -> LogId {
    LogId::new(TopicId::from_bytes([9; 16]), PartitionId::new(0))
}

/// A record as it was sent.
#[derive(Clone, Debug)]
struct Sent {
    key: u8,
    /// How its clock differs from the broker's.
    skew: i64,
    t: Option<i64>,
    u: Option<i64>,
}

impl Sent {
    fn key(&self) -> Option<Vec<u8>> {
        (self.key > 0).then(|| format!("device-{}", self.key).into_bytes())
    }

    fn value(&self) -> String {
        match (self.t, self.u) {
            (Some(t), Some(u)) => format!(r#"{{"t":{t},"u":{u}}}"#),
            (Some(t), None) => format!(r#"{{"t":{t}}}"#),
            (None, Some(u)) => format!(r#"{{"t":"broken","u":{u}}}"#),
            (None, None) => "no JSON".to_owned(),
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let skew = prop_oneof![8 => -500i64..500, 1 => -40_000i64..40_000, 1 => Just(-BEGIN)];
    let number = || prop_oneof![9 => (0i64..100).prop_map(Some), 1 => Just(None)];
    (0u8..4, skew, number(), number()).prop_map(|(key, skew, t, u)| Sent { key, skew, t, u })
}

#[derive(Clone, Debug)]
enum Action {
    Append(Vec<Sent>),
    Pass(i64),
    Thin,
    Settle,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => prop::collection::vec(sent(), 1..12).prop_map(Action::Append),
        3 => (100i64..8_000).prop_map(Action::Pass),
        2 => Just(Action::Thin),
        1 => Just(Action::Settle),
    ]
}

struct House {
    clock: Arc<ManualClock>,
    storage: Storage,
    now: i64,
    /// What was sent, with its time.
    all: Vec<(i64, Sent)>,
}

impl House {
    fn new(tiers: Option<&str>) -> House {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(BEGIN)));
        let mut config = StorageConfig::new("/data");
        config.wal_file_bytes = 512 << 10;
        config.wal_files_min = 2;
        config.wal_files_max = 8;
        let env = Env::manual(Arc::new(disk), clock.clone());
        let storage = Storage::open(config, env).unwrap().0;
        let mut pairs = BTreeMap::new();
        if let Some(tiers) = tiers {
            pairs.insert("cleanup.policy".to_owned(), "thin".to_owned());
            pairs.insert("thin.tiers".to_owned(), tiers.to_owned());
        }
        let config = TopicConfig::from_overrides(&pairs, &Defaults::default()).unwrap();
        let settings = LogSettings {
            segment_bytes: 1_500,
            ..LogSettings::from(&config)
        };
        storage.create_log(log_id(), settings);
        House {
            clock,
            storage,
            now: BEGIN,
            all: Vec::new(),
        }
    }

    fn run(&mut self, action: &Action) {
        match action {
            Action::Append(records) => self.append(records),
            Action::Pass(ms) => {
                self.now += ms;
                self.clock.advance(Duration::from_millis(*ms as u64));
            }
            Action::Settle => while self.storage.settle_once() {},
            Action::Thin => {
                self.storage.settle_once();
                let options = RunOptions {
                    now: true,
                    ..RunOptions::default()
                };
                let progress = Progress::default();
                let ran = self
                    .storage
                    .run_cleanup(log_id(), Policy::Thin, options, &progress);
                ran.unwrap();
            }
        }
    }

    fn append(&mut self, records: &[Sent]) {
        let mut builder = BatchBuilder::new(Codec::None);
        for record in records {
            let time = self.now + record.skew;
            let (key, value) = (record.key(), record.value());
            builder
                .push(
                    Timestamp::from_millis(time),
                    key.as_deref(),
                    Some(value.as_bytes()),
                    &[],
                )
                .unwrap();
            self.all.push((time, record.clone()));
        }
        let batch = Batch::parse(builder.build().unwrap()).unwrap();
        while self.storage.prepare_once().unwrap() {}
        let admission = self.storage.try_admit(batch.bytes().len()).unwrap();
        let log = self.storage.log(log_id()).unwrap();
        let appended = log.append(vec![AppendBatch::from(batch)], admission);
        self.storage.commit_once();
        appended.unwrap().durable.wait().unwrap();
    }

    fn downsample(&self, ask: Downsample) -> Result<(Windows, DownsampleCounts), DownsampleError> {
        let log = self.storage.log(log_id()).unwrap();
        let mut steps = log.downsample(Arc::new(ask));
        while !steps.step(1_000)? {}
        let counts = steps.counts();
        Ok((steps.into_windows().0, counts))
    }
}

fn values() -> Vec<ValueAt> {
    vec![
        parse_value("json/t").unwrap(),
        parse_value("json/u").unwrap(),
    ]
}

fn ask(window_ms: i64, times: Option<Range<i64>>, keys: DownsampledKeys) -> Downsample {
    Downsample {
        window_ms,
        times: times.map(|it| Timestamp::from_millis(it.start)..Timestamp::from_millis(it.end)),
        keys,
        values: values(),
        memory_bytes: 1 << 20,
    }
}

/// Key, beginning; records; per value how many, sum, smallest, largest.
type Told = BTreeMap<(Option<Vec<u8>>, i64), (u64, Vec<(u64, i64, i64, i64)>)>;

fn told(windows: &Windows, has_u: bool) -> Told {
    let windows = windows.iter().map(|(at, window)| {
        let key = at.key.as_deref().map(<[u8]>::to_vec);
        let values = window.values.iter().take(1 + usize::from(has_u));
        let values = values.map(|(count, stats)| match stats {
            None => (*count, 0, 0, 0),
            Some(stats) => (*count, stats.sum as i64, stats.min as i64, stats.max as i64),
        });
        ((key, at.start), (window.records, values.collect()))
    });
    windows.collect()
}

fn expected(
    all: &[(i64, Sent)],
    window_ms: i64,
    has_u: bool,
    is_wanted: impl Fn(&Sent, i64) -> bool,
) -> Told {
    let mut told = Told::new();
    for (time, record) in all {
        let start = time.div_euclid(window_ms) * window_ms;
        if !is_wanted(record, start) {
            continue;
        }
        let values = 1 + usize::from(has_u);
        let window = told
            .entry((record.key(), start))
            .or_insert_with(|| (0, vec![(0, 0, 0, 0); values]));
        window.0 += 1;
        for (value, number) in window.1.iter_mut().zip([record.t, record.u]) {
            if let Some(number) = number {
                let (least, most) = match value.0 {
                    0 => (number, number),
                    _ => (value.2.min(number), value.3.max(number)),
                };
                *value = (value.0 + 1, value.1 + number, least, most);
            }
        }
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_thinned_at_any_time_is_what_was_sent(
        tier in 0usize..4,
        actions in prop::collection::vec(action(), 1..60),
        resolution in prop::sample::select(vec![10_000_i64, 20_000, 60_000]),
        from in -50_000i64..200_000,
        length in 1i64..100_000,
    ) {
        let tiers = TIERS.get(tier).copied();
        let mut house = House::new(tiers);
        for action in &actions {
            house.run(action);
        }
        // What a tier does not name is known of the records that are kept: then the value is not compared.
        let has_u = tiers.is_none_or(|tiers| tiers.contains("json/u"));
        let has_t = tier != 1;
        let strip = |mut told: Told| {
            if !has_t {
                told.values_mut().for_each(|(_, values)| values.clear());
            }
            told
        };
        let (found, _) = house.downsample(ask(resolution, None, DownsampledKeys::All)).unwrap();
        prop_assert_eq!(
            strip(told(&found, has_u)),
            strip(expected(&house.all, resolution, has_u, |_, _| true))
        );
        let times = BEGIN + from..BEGIN + from + length;
        let keys = DownsampledKeys::Is(Bytes::from_static(b"device-2"));
        let (found, _) = house.downsample(ask(resolution, Some(times.clone()), keys)).unwrap();
        let is_wanted = |record: &Sent, start: i64| {
            record.key == 2 && start < times.end && start + resolution > times.start
        };
        prop_assert_eq!(
            strip(told(&found, has_u)),
            strip(expected(&house.all, resolution, has_u, is_wanted))
        );
        // Where a window is longer than what is asked for, it stands as it is, and each record is in one window all the same.
        let (found, _) = house.downsample(ask(1_000, None, DownsampledKeys::All)).unwrap();
        let records: u64 = found.values().map(|window| window.records).sum();
        prop_assert_eq!(records, house.all.len() as u64);
    }
}

/// A device that reports each second, and is thinned.
fn thinned(records: i64) -> House {
    let mut house = House::new(Some(TIERS[0]));
    for at in 0..records {
        let record = Sent {
            key: 1,
            skew: 0,
            t: Some(at % 50),
            u: None,
        };
        house.append(&[record]);
        house.run(&Action::Pass(1_000));
        if at % 20 == 19 {
            house.storage.settle_once();
        }
    }
    house.run(&Action::Thin);
    house
}

#[test]
fn it_says_from_where_it_knows_and_reads_little_of_what_was_thinned() {
    let house = thinned(600);
    let (found, counts) = house
        .downsample(ask(60_000, None, DownsampledKeys::All))
        .unwrap();
    assert_eq!(
        told(&found, false),
        expected(&house.all, 60_000, false, |_, _| true)
    );
    assert!(counts.records < 350, "{counts:?}");
    assert!(counts.summed_windows > 40, "{counts:?}");
    let sources: Vec<Sources> = found.values().map(|window| window.sources).collect();
    let summary = Sources {
        summary: true,
        ..Sources::default()
    };
    let raw = Sources {
        raw: true,
        ..Sources::default()
    };
    assert_eq!((sources[0], *sources.last().unwrap()), (summary, raw));
}

#[test]
fn more_windows_than_fit_are_refused() {
    let house = thinned(200);
    let mut small = ask(1_000, None, DownsampledKeys::All);
    small.memory_bytes = 10_000;
    let refused = house.downsample(small);
    assert!(matches!(
        refused,
        Err(DownsampleError::TooMany { bytes_max: 10_000 })
    ));
    let mut one = ask(3_600_000, None, DownsampledKeys::All);
    one.memory_bytes = 10_000;
    let (found, _) = house.downsample(one).unwrap();
    assert_eq!(
        found.values().map(|window| window.records).sum::<u64>(),
        200
    );
}

#[test]
fn what_is_thinned_under_its_reader_counts_once() {
    for steps_before in 0..12 {
        let mut house = House::new(Some(TIERS[0]));
        for at in 0..300 {
            house.append(&[Sent {
                key: 1,
                skew: 0,
                t: Some(at % 50),
                u: None,
            }]);
            house.run(&Action::Pass(1_000));
            if at % 20 == 19 {
                house.storage.settle_once();
            }
        }
        let log = house.storage.log(log_id()).unwrap();
        let all = ask(60_000, None, DownsampledKeys::All);
        let mut steps = log.downsample(Arc::new(all));
        for _ in 0..steps_before {
            steps.step(1).unwrap();
        }
        house.run(&Action::Thin);
        while !steps.step(1).unwrap() {}
        let (found, _) = steps.into_windows();
        assert_eq!(
            told(&found, false),
            expected(&house.all, 60_000, false, |_, _| true),
            "after {steps_before} steps"
        );
    }
}
