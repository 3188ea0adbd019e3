//! Compaction beside Apache Kafka's cleaner: the same records in both servers, one after the other allowed to clean them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use model::Timestamp;
use model::batch::{self, BatchBuilder, Codec, DecompressLimit};
use sha2::{Digest as _, Sha256};
use wire::ErrorCode;
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};

use crate::bench::figures::{Figure, Mark};
use crate::bench::kafka::Kafka;
use crate::bench::store::anonymous_mib;
use crate::bench::{Bench, Case, broker};
use crate::exam::probe::{Answer, Probe};
use crate::exam::victim::Victim;

/// The case.
pub const CASE: Case = Case {
    name: "cleaner",
    about: "Compaction in the server beside Apache Kafka 4.3.1's cleaner, whose values stand in the column of the limit. Both get the \
            same 1 GiB of records of 1 KiB, not compressed, in segments of 128 MiB, with min.compaction.lag.ms of a day; one \
            after the other gets 0 instead, and cleans alone. Measured is from then until the partition's files change no \
            more; both look every 100 ms, clean one partition at a time, have 128 MiB for keys and no throttle. Kafka's cleaner has one \
            thread, ours has others read, write and close files for it. Kafka has the options of Java of its own start script, and \
            cleans each shape once beforehand without being measured. Afterwards the records that a consumer gets \
            from both are equal, and those that the rule leaves.",
    uses_binary: true,
    run,
};

const LOG_BYTES: u64 = 1 << 30;
const SEGMENT_BYTES: u64 = 128 << 20;
const VALUE_BYTES: usize = 1000;
const RECORDS_PER_BATCH: u64 = 60;
const RECORDS: u64 = LOG_BYTES / 1024 / RECORDS_PER_BATCH * RECORDS_PER_BATCH;
const KEYS: u64 = RECORDS / 2;
const UNDER_WAY: usize = 16;
const CLEAN_SECONDS_MAX: u64 = 300;
/// Files that have not changed for so long will not.
const STILL: Duration = Duration::from_secs(3);
/// What both are started with.
const LOOKS_EVERY_MS: &str = "100";

/// The order in which keys come.
struct Shape {
    what: &'static str,
    key: fn(u64) -> u64,
}

const SHAPES: [Shape; 2] = [
    Shape {
        what: "each key twice",
        key: |number| match number {
            number if number < KEYS => number,
            number => (number - KEYS) * 7 % KEYS,
        },
    },
    Shape {
        what: "keys scattered",
        // A step from key to key so large that most batches hold some of the latest of their keys, and others.
        key: |number| ((number + 1).wrapping_mul(6_364_136_223_846_793_005) >> 33) % KEYS,
    },
];

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let directory = bench.directory()?;
    let settings = [
        ("log.cleaner.backoff.ms", LOOKS_EVERY_MS),
        ("log.segment.delete.delay.ms", "1000"),
    ];
    let kafka = Kafka::start(directory.path(), &settings)?;
    let plan =
        broker::plan(bench, directory.path())?.with("log.cleaner.backoff.ms", LOOKS_EVERY_MS);
    let victim = plan.start()?;
    let mut figures = Vec::new();
    for shape in &SHAPES {
        let what = shape.what;
        let mut speed = Figure::new(format!("cleaned, {what}"), "MB/s").marked(Mark::OfLimit(2.0));
        let mut memory = Figure::new(
            format!("{what}: memory of the server, not of files, at most"),
            "MiB",
        );
        for run in 0..=bench.runs {
            let [ours, theirs] = one_run(directory.path(), shape, run, &victim, &kafka)?;
            bench.progress(&format!(
                "{what}: {:.0} MB/s in {:.0} MiB, Kafka {:.0} MB/s in {:.0} MiB{}",
                ours.rate(),
                ours.memory_mib,
                theirs.rate(),
                theirs.memory_mib,
                if run == 0 { ", not counted" } else { "" }
            ));
            if run > 0 {
                speed.runs.push(ours.rate());
                speed.limits.push(theirs.rate());
                memory.runs.push(ours.memory_mib);
                memory.limits.push(theirs.memory_mib);
            }
        }
        figures.extend([speed, memory]);
    }
    Ok(figures)
}

/// A topic filled in both and cleaned in one after the other, ours first in every second run.
fn one_run(
    directory: &Path,
    shape: &Shape,
    run: u32,
    victim: &Victim,
    kafka: &Kafka,
) -> Result<[Cleaned; 2]> {
    let topic = format!("{}-{run}", shape.what.replace(' ', "-"));
    let mut ours = Probe::connect(&victim.kafka)?;
    let mut theirs = Probe::connect(&kafka.address)?;
    for probe in [&mut ours, &mut theirs] {
        probe.create_topic(&topic, 1, &topic_settings())?;
        wait_until_known(probe, &topic)?;
    }
    let filled_bytes = fill(&mut [&mut ours, &mut theirs], &topic, shape)?;
    let live = live_by_the_rule(shape);
    let removed_bytes = filled_bytes / RECORDS * (RECORDS - live.len() as u64);
    let id = topic_id(&mut ours, &topic)?;
    let mut sides = [
        Side {
            probe: ours,
            files: partition(&directory.join("data"), &format!("{id}-0"))?,
            memory: Box::new(|| Ok(victim.anonymous_bytes()? as f64 / f64::from(1 << 20))),
        },
        Side {
            probe: theirs,
            files: kafka.data.join(format!("{topic}-0")),
            memory: Box::new(|| anonymous_mib(kafka.process())),
        },
    ];
    for side in &sides {
        side.wait_until_sealed()?;
    }
    let mut cleaned = [None, None];
    for index in [0, 1] {
        let index = if run.is_multiple_of(2) {
            index
        } else {
            1 - index
        };
        cleaned[index] = Some(sides[index].clean(&topic, filled_bytes, removed_bytes)?);
    }
    let mut digests = Vec::new();
    for side in &mut sides {
        let (offsets, digest) = read(&mut side.probe, &topic)?;
        ensure!(offsets == live, "{topic}: other records than the rule's");
        digests.push(digest);
        let error = side.probe.delete_topic(&topic)?;
        ensure!(error == ErrorCode::None, "delete {topic}: {}", error.name());
    }
    ensure!(digests[0] == digests[1], "{topic}: live records differ");
    let [Some(ours), Some(theirs)] = cleaned else {
        bail!("both have cleaned");
    };
    Ok([ours, theirs])
}

fn topic_settings() -> [(&'static str, &'static str); 5] {
    [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "134217728"),
        ("min.compaction.lag.ms", "86400000"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("compression.type", "producer"),
    ]
}

/// Kafka answers that a topic is created before it takes records for it.
fn wait_until_known(probe: &mut Probe, topic: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(CLEAN_SECONDS_MAX);
    loop {
        let error = probe.fetch(topic, 0, 0, 1, 0)?.error;
        if error == ErrorCode::None {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{topic}: {}", error.name());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends the same batches to all. After the records that count come so many of other keys that those are in sealed segments,
/// as neither server cleans the one that it appends to. Gives the bytes of the records that count.
fn fill(probes: &mut [&mut Probe], topic: &str, shape: &Shape) -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let time = Timestamp::from_millis(i64::try_from(now.as_millis())?);
    let value = [b'v'; VALUE_BYTES];
    let (mut number, mut filled_bytes, mut tail_bytes, mut under_way) = (0, 0, 0, 0);
    while tail_bytes < SEGMENT_BYTES {
        let mut builder = BatchBuilder::new(Codec::None);
        for number in number..number + RECORDS_PER_BATCH {
            let key = match number {
                number if number < RECORDS => format!("device-{:09}", (shape.key)(number)),
                number => format!("behind-{number:09}"),
            };
            builder.push(time, Some(key.as_bytes()), Some(&value), &[])?;
        }
        let batch: Bytes = builder.build()?;
        match number < RECORDS {
            true => filled_bytes += batch.len() as u64,
            false => tail_bytes += batch.len() as u64,
        }
        number += RECORDS_PER_BATCH;
        for probe in &mut *probes {
            probe.send_produce(topic, 0, batch.clone())?;
        }
        under_way += 1;
        if under_way > UNDER_WAY {
            acknowledged(probes)?;
            under_way -= 1;
        }
    }
    for _ in 0..under_way {
        acknowledged(probes)?;
    }
    Ok(filled_bytes)
}

fn acknowledged(probes: &mut [&mut Probe]) -> Result<()> {
    for probe in probes {
        let answer = probe.receive_produce()?;
        ensure!(
            matches!(answer, Answer::Acknowledged(_)),
            "a batch was answered {answer:?}"
        );
    }
    Ok(())
}

/// Offsets of the last record of each key, rising.
fn live_by_the_rule(shape: &Shape) -> Vec<i64> {
    let last: BTreeMap<u64, u64> = (0..RECORDS)
        .map(|number| ((shape.key)(number), number))
        .collect();
    let mut live: Vec<i64> = last.into_values().map(u64::cast_signed).collect();
    live.sort_unstable();
    live
}

/// Offsets of the records below the end of what counts, and a digest of all that is in them.
fn read(probe: &mut Probe, topic: &str) -> Result<(Vec<i64>, Vec<u8>)> {
    let end = RECORDS.cast_signed();
    let (mut offsets, mut digest, mut next) = (Vec::new(), Sha256::new(), 0);
    while next < end {
        let fetched = probe.fetch(topic, 0, next, 8 << 20, 500)?;
        let error = fetched.error;
        ensure!(error == ErrorCode::None, "fetch {topic}: {}", error.name());
        let before = next;
        for batch in batch::split(fetched.records) {
            let batch = match batch {
                Err(batch::BatchError::Truncated { .. }) => break,
                batch => batch?,
            };
            for record in batch.records(DecompressLimit::default())? {
                let record = record?;
                let offset = record.offset.to_wire();
                if (before..end).contains(&offset) {
                    offsets.push(offset);
                    digest.update(offset.to_be_bytes());
                    digest.update(record.timestamp.millis().to_be_bytes());
                    digest.update(record.key.context("a record without a key")?);
                    digest.update(record.value.context("a record without a value")?);
                }
            }
            next = batch.header().next_offset().to_wire();
        }
        ensure!(next > before, "the fetch at {next} brought nothing");
    }
    Ok((offsets, digest.finalize().to_vec()))
}

/// One of the two servers.
struct Side<'s> {
    probe: Probe,
    /// The directory of the partition's files.
    files: PathBuf,
    /// MiB that belong to no file.
    memory: Box<dyn Fn() -> Result<f64> + 's>,
}

/// What came of a cleaning.
struct Cleaned {
    bytes: u64,
    took: Duration,
    memory_mib: f64,
}

impl Cleaned {
    /// Bytes before, in MB a second.
    fn rate(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64() / 1e6
    }
}

impl Side<'_> {
    /// Size and number of each file that holds records. Kafka's new files have the names of the old ones, and often the size.
    fn sizes(&self) -> Result<BTreeMap<String, (u64, u64)>> {
        let mut sizes = BTreeMap::new();
        for entry in fs::read_dir(&self.files)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A file that goes meanwhile counts no more.
            if name.ends_with(".log")
                && let Ok(metadata) = entry.metadata()
            {
                sizes.insert(name, (metadata.len(), metadata.ino()));
            }
        }
        Ok(sizes)
    }

    /// Until there is a segment that begins after what counts.
    fn wait_until_sealed(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(CLEAN_SECONDS_MAX);
        loop {
            let sizes = self.sizes()?;
            let bases = sizes
                .keys()
                .filter_map(|name| name.split('.').next()?.parse::<u64>().ok());
            if bases.max().is_some_and(|base| base >= RECORDS) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the records get into no sealed segment: {sizes:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Allows it to clean, and waits until it has.
    fn clean(&mut self, topic: &str, filled_bytes: u64, removed_bytes: u64) -> Result<Cleaned> {
        rustix::fs::sync();
        let mut sizes = self.sizes()?;
        let before: u64 = sizes.values().map(|(bytes, _)| bytes).sum();
        // Heads of batches stay, and a server may keep empty ones.
        let wanted = before - removed_bytes / 100 * 98;
        let began = Instant::now();
        allow(&mut self.probe, topic)?;
        let (mut changed, mut memory_mib) = (began, 0.0_f64);
        loop {
            std::thread::sleep(Duration::from_millis(10));
            let seen = self.sizes()?;
            if seen != sizes {
                (sizes, changed) = (seen, Instant::now());
            }
            let bytes: u64 = sizes.values().map(|(bytes, _)| bytes).sum();
            if bytes <= wanted && changed.elapsed() > STILL {
                break;
            }
            memory_mib = memory_mib.max((self.memory)()?);
            ensure!(
                began.elapsed().as_secs() < CLEAN_SECONDS_MAX,
                "{topic} is not cleaned: {bytes} bytes of {before} are left, and {wanted} should be: {sizes:?}"
            );
        }
        Ok(Cleaned {
            bytes: filled_bytes,
            took: changed - began,
            memory_mib,
        })
    }
}

/// Has the topic cleaned at once.
fn allow(probe: &mut Probe, topic: &str) -> Result<()> {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: topic.to_owned(),
            configs: vec![AlterableConfig {
                name: "min.compaction.lag.ms".to_owned(),
                config_operation: 0,
                value: Some("0".to_owned()),
            }],
        }],
        validate_only: false,
    };
    let answer = probe.call(1, &request)?;
    let code = answer.responses.first().map(|row| row.error_code);
    ensure!(
        code == Some(0),
        "min.compaction.lag.ms is refused: {code:?}"
    );
    Ok(())
}

fn topic_id(probe: &mut Probe, topic: &str) -> Result<wire::Uuid> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(topic.to_owned()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let answer = probe.call(12, &request)?;
    let topic = answer.topics.first().context("one topic was asked for")?;
    Ok(topic.topic_id)
}

/// The directory of this name below `p/` of a data directory, once something has settled there.
fn partition(data: &Path, name: &str) -> Result<PathBuf> {
    let deadline = Instant::now() + Duration::from_secs(CLEAN_SECONDS_MAX);
    while Instant::now() < deadline {
        for spread in fs::read_dir(data.join("p"))? {
            let directory = spread?.path().join(name);
            if directory.is_dir() {
                return Ok(directory);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{name} has no files")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_the_rule_leaves_is_each_key_once_and_nothing_of_it_behind() {
        for shape in &SHAPES {
            let (mut seen, mut live) = (HashSet::new(), Vec::new());
            for number in (0..RECORDS).rev() {
                if seen.insert((shape.key)(number)) {
                    live.push(number.cast_signed());
                }
            }
            live.reverse();
            assert_eq!(live_by_the_rule(shape), live, "{}", shape.what);
            assert!(live.len() as u64 <= KEYS, "{}", shape.what);
        }
    }
}
