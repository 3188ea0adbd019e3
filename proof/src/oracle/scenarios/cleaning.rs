//! Cleaning: the same records to compacted topics of both brokers, and then which of them are left. Both are compared with
//! the rule itself, computed in memory: of each key the latest, and a tombstone for as long as it is to be kept.
//! Callers: `scenarios`.
//! Neither broker cleans the end of a log that it still appends to: a record with a key of its own is appended now and then,
//! so that what came before becomes clean. It does not count.

use super::produce::one_batch;
use super::read;
use super::topics::{create, topic};
use crate::oracle::batches::{Batch, KeyValue};
use crate::oracle::compare::Difference;
use crate::oracle::pair::{Finding, Pair, Side};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use model::batch::{Codec, DecompressLimit, peek_len};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wire::messages::fetch::FetchRequest;
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::{ApiKey, Uuid};

/// How long both may take until nothing is left that should go.
const CLEAN_SECONDS_MAX: u64 = 60;
/// Both cleaners look every 15 s if nobody says otherwise.
const LOOKS_EVERY_MS: &str = "300";
const BATCHES: usize = 60;
const RECORDS_A_BATCH: usize = 25;
const KEYS: u64 = 200;
/// Between the times of one batch and the next: more than `segment.ms`, as Kafka cuts segments by the records' times.
const STEP_MS: i64 = 1_000;
const MARKER: &str = "marker";

/// A topic, and what of it should be left.
struct Case {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    left: fn(&[Written]) -> Live,
}

const CASES: &[Case] = &[
    Case {
        name: "cleaned",
        settings: &[("cleanup.policy", "compact")],
        left: latest,
    },
    Case {
        name: "cleaned-of-tombstones",
        settings: &[("cleanup.policy", "compact"), ("delete.retention.ms", "0")],
        left: latest_values,
    },
    Case {
        name: "cleaned-and-deleted",
        settings: &[("cleanup.policy", "compact,delete")],
        left: latest,
    },
    Case {
        name: "cleaned-later",
        settings: &[
            ("cleanup.policy", "compact"),
            ("min.compaction.lag.ms", "86400000"),
        ],
        left: everything,
    },
    Case {
        name: "cleaned-never",
        settings: &[("cleanup.policy", "delete")],
        left: everything,
    },
];

/// One record as it was sent.
struct Written {
    offset: u64,
    time: i64,
    key: String,
    value: Option<String>,
}

/// What is left: by offset its time, key and value.
type Live = BTreeMap<u64, (i64, String, Option<String>)>;

fn everything(written: &[Written]) -> Live {
    let row = |it: &Written| (it.offset, (it.time, it.key.clone(), it.value.clone()));
    written.iter().map(row).collect()
}

fn latest(written: &[Written]) -> Live {
    let last: BTreeMap<&str, u64> = written
        .iter()
        .map(|it| (it.key.as_str(), it.offset))
        .collect();
    let mut live = everything(written);
    live.retain(|offset, (_, key, _)| last[key.as_str()] == *offset);
    live
}

fn latest_values(written: &[Written]) -> Live {
    let mut live = latest(written);
    live.retain(|_, (_, _, value)| value.is_some());
    live
}

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    set_backoff(pair, Some(LOOKS_EVERY_MS))?;
    let compared = compare(pair);
    set_backoff(pair, None)?;
    compared
}

fn compare(pair: &mut Pair) -> Result<()> {
    let common = [("segment.ms", "200"), ("min.cleanable.dirty.ratio", "0.01")];
    let topics = CASES
        .iter()
        .map(|case| topic(case.name, 1, &[case.settings, &common].concat()));
    create(pair, topics.collect())?;
    let mut clock = now_ms();
    let mut written = Vec::new();
    for n in 0..BATCHES {
        clock += STEP_MS;
        let batch = batch(n, clock, &mut written);
        pair.scene = format!("cleaning: batch {n}");
        for case in CASES {
            pair.ask(9, |_| one_batch(case.name, 0, Some(batch.clone())));
        }
    }
    let end = written.len() as u64;
    let deadline = Instant::now() + Duration::from_secs(CLEAN_SECONDS_MAX);
    loop {
        clock += STEP_MS;
        let marker = Batch::keyed_at(Codec::None, clock, &[(Some(MARKER), Some("x"))]).bytes();
        let mut is_clean = true;
        for case in CASES {
            let expected = (case.left)(&written);
            for side in [Side::Ours, Side::Theirs] {
                pair.ask_one(side, 9, &one_batch(case.name, 0, Some(marker.clone())))?;
                is_clean &= live(pair, side, case.name, end)? == expected;
            }
        }
        if is_clean || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    for case in CASES {
        judge(pair, case, &written, end)?;
    }
    Ok(())
}

/// Notes what differs from the rule. Error: it is Kafka that differs, so that the rule is wrong.
fn judge(pair: &mut Pair, case: &Case, written: &[Written], end: u64) -> Result<()> {
    let expected = (case.left)(written);
    let theirs = live(pair, Side::Theirs, case.name, end)?;
    let ours = live(pair, Side::Ours, case.name, end)?;
    println!(
        "{}: {} records written, {} left by the rule, {} in Kafka, {} here",
        case.name,
        written.len(),
        expected.len(),
        theirs.len(),
        ours.len()
    );
    ensure!(
        theirs == expected,
        "{}: Kafka keeps what the rule does not: {}",
        case.name,
        difference(&theirs, &expected)
    );
    if ours != theirs {
        pair.findings.push(Finding {
            key: ApiKey::Fetch,
            version: 12,
            scene: format!("cleaning: {}", case.name),
            request: format!("{:?}", case.settings),
            difference: Difference {
                path: "live records".into(),
                ours: difference(&ours, &theirs),
                theirs: format!("{} records", theirs.len()),
            },
        });
    }
    Ok(())
}

/// How the one differs from the other, in a few words.
fn difference(one: &Live, other: &Live) -> String {
    let beyond = |a: &Live, b: &Live| -> Vec<u64> {
        a.iter()
            .filter(|(offset, record)| b.get(offset) != Some(record))
            .map(|(offset, _)| *offset)
            .collect()
    };
    let (more, less) = (beyond(one, other), beyond(other, one));
    let head = |offsets: &[u64]| offsets.iter().take(5).copied().collect::<Vec<_>>();
    format!(
        "{} records; {} more at {:?}, {} less at {:?}",
        one.len(),
        more.len(),
        head(&more),
        less.len(),
        head(&less)
    )
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// The next batch: keys in an order that looks drawn, a tombstone now and then, every codec in turn.
fn batch(n: usize, clock: i64, written: &mut Vec<Written>) -> Bytes {
    let codecs = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];
    let first = written.len();
    for time in (clock..).take(RECORDS_A_BATCH) {
        let offset = written.len() as u64;
        // A multiplier of Knuth's; the high bits are the drawn ones.
        let drawn = (offset + 1).wrapping_mul(6_364_136_223_846_793_005) >> 33;
        written.push(Written {
            offset,
            time,
            key: format!("key-{}", drawn % KEYS),
            value: (!drawn.is_multiple_of(9)).then(|| format!("value {offset} {}", "x".repeat(40))),
        });
    }
    let records: Vec<KeyValue<'_>> = written[first..]
        .iter()
        .map(|it| (Some(it.key.as_str()), it.value.as_deref()))
        .collect();
    Batch::keyed_at(codecs[n % codecs.len()], clock, &records).bytes()
}

/// The records below `end` of one broker.
fn live(pair: &mut Pair, side: Side, topic: &str, end: u64) -> Result<Live> {
    let mut found = Live::new();
    let mut offset = 0;
    while offset < end {
        let next = i64::try_from(offset)?;
        let partition = read::partition(0, next);
        let request: FetchRequest = read::request(12, vec![(topic, Uuid::nil(), vec![partition])]);
        let answer = pair.ask_one(side, 12, &request)?;
        let row = answer.responses.into_iter().next().context("one topic")?;
        let row = row.partitions.into_iter().next().context("one partition")?;
        ensure!(row.error_code == 0, "{topic}: error {}", row.error_code);
        let mut bytes = row.records.context("records")?.into_bytes();
        let before = offset;
        while let Some(length) = peek_len(&bytes).filter(|length| *length <= bytes.len()) {
            let batch = model::batch::Batch::parse(bytes.split_to(length))?;
            for record in batch.records(DecompressLimit::default())? {
                let record = record?;
                let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
                let (key, value) = (
                    record.key.as_ref().map(text),
                    record.value.as_ref().map(text),
                );
                let at = record.offset.get();
                if at >= before && at < end {
                    let key = key.context("a record without a key")?;
                    let twice = found.insert(at, (record.timestamp.millis(), key, value));
                    ensure!(twice.is_none(), "{topic}: offset {at} was read twice");
                }
            }
            let header = batch.header();
            offset = header.base().get() + u64::from(header.last_offset_delta.unsigned_abs()) + 1;
        }
        ensure!(
            offset > before,
            "{side:?}: {topic} gives nothing at {before}"
        );
    }
    Ok(found)
}

/// How often the cleaners look for something to do.
fn set_backoff(pair: &mut Pair, millis: Option<&str>) -> Result<()> {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 4,
            resource_name: String::new(),
            configs: vec![AlterableConfig {
                name: "log.cleaner.backoff.ms".to_owned(),
                config_operation: i8::from(millis.is_none()),
                value: millis.map(str::to_owned),
            }],
        }],
        validate_only: false,
    };
    for side in [Side::Ours, Side::Theirs] {
        let answer = pair.ask_one(side, 1, &request)?;
        let code = answer.responses.first().map(|row| row.error_code);
        ensure!(
            code == Some(0),
            "{side:?} refuses log.cleaner.backoff.ms: {code:?}"
        );
    }
    Ok(())
}
