//! Case 11: a sector of a cold segment cannot be read. The fetches that need it get an error; everything else goes on, and once
//! the disk reads again all of it is there.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use model::codec::Codec;
use wire::ErrorCode;

use crate::exam::cases::crash;
use crate::exam::disk::LoopDisk;
use crate::exam::image::Image;
use crate::exam::judge::{Seen, Shown, judge_partition};
use crate::exam::ledger::{Entry, Fate, Ledger};
use crate::exam::load::{Load, LoadPlan};
use crate::exam::probe::{Answer, Probe, batch_of, note_records};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};
use xtask::run;

const DISK_BYTES: u64 = 512 << 20;
const TOPIC: &str = "cold";
const PARTITIONS: i32 = 2;
const BATCHES: i64 = 160;
const RECORDS: i64 = 16;
const VALUE_BYTES: usize = 2 << 10;
/// What a disk reads at least.
const PAGE_BYTES: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(30);

/// The case.
pub const CASE: Case = Case {
    number: 11,
    name: "bad-sector",
    about: "a page of a cold segment cannot be read, under load on other topics",
    rounds: Rounds { full: 20, short: 2 },
    run,
};

/// What a reader of a partition found.
#[derive(Default)]
struct Found {
    seen: Vec<Seen>,
    /// How often it was refused, by the error's name.
    refused: BTreeMap<&'static str, u64>,
}

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    ensure!(
        run::on_path("filefrag").is_some(),
        "`filefrag` is not installed (Debian: apt-get install e2fsprogs)"
    );
    let image = Image::create(&exam.work, "disk", DISK_BYTES)?;
    let mut disk = LoopDisk::on(&image.path(), &exam.work.join("disk"))?;
    let data = disk.path().join("data");
    let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work)).with("settle.age.ms", 1000);
    let mut random = Random::new(exam.seed);
    let load = Load::new(LoadPlan::default(), &exam.work, exam.seed)?;
    let ledger = Ledger::create(&exam.work.join("ledger-cold"))?;
    let sealed = prepare(&plan, &load, &ledger, &mut random)?;
    let entries = ledger.entries();
    let (mut fewest, mut most) = (u64::MAX, 0);
    let mut names = BTreeMap::new();
    for round in 1..=exam.rounds {
        // With the device away for a moment nothing of it is in any cache.
        disk.reopen(|| image.set_unreadable(Vec::new()))?;
        let mut victim = plan.start()?;
        let (path, partition) = &sealed[usize::try_from(random.between(0, sealed.len() as u64))?];
        let page = random.between(0, fs::metadata(path)?.len() / PAGE_BYTES);
        image.set_unreadable(vec![place_on_disk(path, page * PAGE_BYTES)?]);
        let running = load.begin(&victim.kafka);
        let began = Instant::now();
        let found = (0..PARTITIONS)
            .map(|partition| read_around(&victim, partition))
            .collect::<Result<Vec<Found>>>()
            .with_context(|| format!("round {round}: {}", victim.log_tail()))?;
        std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
        running.finish();
        outcome.times = round;
        for (index, found) in (0..).zip(found) {
            let missing = missing(&entries, index, &found.seen, &mut outcome);
            if index == *partition {
                outcome.require(missing > 0 && !found.refused.is_empty(), || {
                    format!("round {round}: the bad page was not noticed")
                });
                (fewest, most) = (fewest.min(missing), most.max(missing));
            } else {
                outcome.require(missing == 0, || {
                    format!("J8 round {round}: partition {index} misses {missing} records")
                });
            }
            for (name, count) in found.refused {
                *names.entry(name).or_insert(0) += count;
            }
        }
        let ended = victim.ended()?;
        outcome.require(ended.is_none(), || {
            format!("round {round}: the broker ended: {}", victim.log_tail())
        });
        outcome.require(victim.log().contains("cannot be read"), || {
            format!("J7 round {round}: the log does not name the segment")
        });
        let judgement = load.judge(&victim.kafka)?;
        outcome.failures.extend(judgement.failures);
        outcome.checked = judgement.checked;
        victim.terminate()?;
        require_whole(&plan, &image, &mut disk, &entries, &mut outcome, round)?;
        if !outcome.passed() {
            break;
        }
    }
    outcome.checked += entries.len() as u64;
    let refusals = load.refusals();
    outcome.require(refusals.is_empty(), || {
        format!("the honest load was refused: {refusals:?}")
    });
    outcome.notes.push(format!(
        "{fewest} to {most} records could not be read meanwhile; errors that readers got: {names:?}"
    ));
    Ok(outcome)
}

/// Fills the topic. Answers its sealed segments, each with its partition.
fn prepare(
    plan: &Plan,
    load: &Load,
    ledger: &Ledger,
    random: &mut Random,
) -> Result<Vec<(PathBuf, i32)>> {
    let mut victim = plan.start()?;
    load.create_topics(&victim.kafka)?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, PARTITIONS, &[("segment.bytes", "1048576")])?;
    // The topics of the load have nothing yet.
    for _ in 0..BATCHES {
        for partition in 0..PARTITIONS {
            let payloads = ledger.send(
                TOPIC,
                partition,
                usize::try_from(RECORDS)?,
                VALUE_BYTES,
                random,
            )?;
            match probe.produce(TOPIC, partition, batch_of(&payloads, Codec::None, None)?)? {
                Answer::Acknowledged(offset) => ledger.acknowledged(&payloads, offset)?,
                Answer::Refused(error) => bail!("a batch was refused: {}", error.name()),
            }
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let sealed = loop {
        let sealed = sealed_segments(&plan.data)?;
        if (0..PARTITIONS).all(|partition| sealed.iter().any(|(_, of)| *of == partition)) {
            break sealed;
        }
        ensure!(Instant::now() < deadline, "no segment was sealed in time");
        std::thread::sleep(Duration::from_millis(20));
    };
    victim.terminate()?;
    Ok(sealed)
}

/// Segments with an index beside them, with the partition that ends the name of their directory.
fn sealed_segments(data: &Path) -> Result<Vec<(PathBuf, i32)>> {
    let mut sealed = Vec::new();
    for path in super::files::files_below(&data.join("p"))? {
        let partition = path
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str()?.rsplit('-').next()?.parse().ok());
        if path.extension().is_some_and(|end| end == "idx")
            && let Some(partition) = partition
        {
            sealed.push((path.with_extension("log"), partition));
        }
    }
    Ok(sealed)
}

/// Where a page of a file lies on its device.
fn place_on_disk(path: &Path, position: u64) -> Result<Range<u64>> {
    File::open(path)?.sync_all()?;
    let listed = run::quiet(Command::new("filefrag").args(["-v", "-b1"]).arg(path))?;
    for line in listed.lines() {
        // `ext: logical..logical: physical..physical: length: flags`
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        let [_, logical, physical, ..] = fields.as_slice() else {
            continue;
        };
        let range = |text: &str| -> Option<Range<u64>> {
            let (first, last) = text.split_once("..")?;
            Some(first.trim().parse().ok()?..last.trim().parse::<u64>().ok()? + 1)
        };
        let (Some(logical), Some(physical)) = (range(logical), range(physical)) else {
            continue;
        };
        if logical.contains(&position) {
            let start = physical.start + (position - logical.start);
            return Ok(start..start + PAGE_BYTES);
        }
    }
    bail!("{} has no place on the disk for {position}", path.display())
}

/// Reads a partition from 0 to its end, and goes on behind what is refused.
fn read_around(victim: &Victim, partition: i32) -> Result<Found> {
    let mut probe = Probe::connect(&victim.kafka)?;
    let mut found = Found::default();
    let mut from = 0;
    while from < BATCHES * RECORDS {
        let fetched = probe.fetch(TOPIC, partition, from, 1 << 20, 0)?;
        if fetched.error == ErrorCode::None {
            let next = note_records(fetched.records, from, &mut found.seen)?;
            ensure!(next > from, "nothing and no error at {from}");
            from = next;
        } else {
            *found.refused.entry(fetched.error.name()).or_default() += 1;
            from += RECORDS - from % RECORDS;
        }
    }
    Ok(found)
}

/// How many acknowledged records of a partition were not shown. What was shown and is not what was acknowledged there fails.
fn missing(
    entries: &HashMap<u64, Entry>,
    partition: i32,
    seen: &[Seen],
    outcome: &mut Outcome,
) -> u64 {
    let mut expected: HashMap<i64, &Entry> = entries
        .values()
        .filter(|entry| entry.partition == partition)
        .filter_map(|entry| match entry.fate {
            Fate::Acknowledged(offset) => Some((offset, entry)),
            _ => None,
        })
        .collect();
    for record in seen {
        let entry = expected.remove(&record.offset);
        outcome.require(
            entry.is_some_and(|entry| entry.digest == record.digest),
            || {
                format!(
                    "J3 {TOPIC}-{partition} shows at {} what was not acknowledged there",
                    record.offset
                )
            },
        );
    }
    expected.len() as u64
}

/// Once the disk reads again, everything is there: nothing was removed because of the error.
fn require_whole(
    plan: &Plan,
    image: &Image,
    disk: &mut LoopDisk,
    entries: &HashMap<u64, Entry>,
    outcome: &mut Outcome,
    round: u32,
) -> Result<()> {
    disk.reopen(|| image.set_unreadable(Vec::new()))?;
    let record = plan.data.join("DAMAGE");
    if record.exists() {
        fs::remove_file(record)?;
    }
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    for partition in 0..PARTITIONS {
        let contents = probe.read_all(TOPIC, partition)?;
        let verdict = judge_partition(
            TOPIC,
            partition,
            entries,
            &contents,
            &Shown::default(),
            false,
        );
        outcome.lost += verdict.lost;
        let failures = verdict.failures.into_iter();
        outcome
            .failures
            .extend(failures.map(|failure| format!("round {round}, readable again: {failure}")));
    }
    victim.terminate()
}
