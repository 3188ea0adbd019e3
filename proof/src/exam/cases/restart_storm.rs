//! Case 36: SIGKILL again and again, a moment after each start, with a producer at work. Every acknowledged record is there at the
//! end, the time to the ready line does not grow, nor does what the store keeps beside its records: the write-ahead log stays within
//! `wal.files.max`, nothing is set aside, and the room of a topic whose deletion was acknowledged just before a kill is given back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::codec::Codec;
use wire::ErrorCode;

use crate::exam::cases::full::{TOPIC, judge, produce};
use crate::exam::cases::{crash, files};
use crate::exam::judge::Shown;
use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

const VALUE_BYTES: usize = 256;
/// A record at most, as it is stored: the value with its id, the key, the heads of the record and its share of the batch's head.
const RECORD_BYTES_MAX: u64 = VALUE_BYTES as u64 + 64;
/// The write-ahead log at most: `wal.files.max`, and the one file that a start makes where all of them are in use.
const WAL_BYTES_MAX: u64 = (crash::WAL_FILES_MAX + 1) * crash::WAL_FILE_BYTES;
/// What the broker keeps of topics and groups, at most.
const STATE_BYTES_MAX: u64 = 2 << 20;
/// One round makes a topic that goes in the next one, the third one has none.
const DELETED_EVERY: u32 = 3;
const DELETED_BATCHES: usize = 32;
/// How long the producer rests between batches, so that the ledger stays small.
const PAUSE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);
/// So many rounds tell whether starts get slower.
const ROUNDS_TO_COMPARE: u32 = 30;

/// The case.
pub const CASE: Case = Case {
    number: 36,
    name: "restart-storm",
    about: "SIGKILL 0.3 to 1 s after each start, under load, also just after a topic was deleted",
    rounds: Rounds { full: 60, short: 6 },
    run,
};

/// A topic that is to go.
struct Doomed {
    name: String,
    /// One of its values.
    value: Vec<u8>,
    /// The directories of partitions that were there before it.
    others: Vec<PathBuf>,
}

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let ledger = Ledger::create(&exam.work.join("ledger"))?;
    let others = Ledger::create(&exam.work.join("ledger-deleted"))?;
    let data = exam.work.join("data");
    let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work))
        .with("settle.age.ms", 500)
        .with("log.segment.bytes", 1 << 20);
    let mut random = Random::new(exam.seed);
    let mut victim = plan.start()?;
    Probe::connect(&victim.kafka)?.create_topic(TOPIC, 1, &[])?;
    let mut doomed = None;
    let (mut wal_bytes_max, mut deleted) = (0, 0);
    let mut up_in = Vec::new();
    for round in 1..=exam.rounds {
        let mut probe = Probe::connect(&victim.kafka)?;
        let mut values = Random::new(exam.seed.wrapping_add(round.into()));
        let gone = std::thread::scope(|scope| {
            // It ends when the connection does.
            let ledger = &ledger;
            scope.spawn(move || {
                while produce(&mut probe, ledger, &mut values, VALUE_BYTES).is_ok() {
                    std::thread::sleep(PAUSE);
                }
            });
            let gone = before_the_kill(&victim, &data, round, &mut doomed, &others, &mut random);
            victim.kill()?;
            gone
        })
        .with_context(|| format!("round {round}"))?;
        let wal_bytes = bytes_below(&data.join("wal"))?;
        wal_bytes_max = wal_bytes_max.max(wal_bytes);
        outcome.require(wal_bytes <= WAL_BYTES_MAX, || {
            format!("round {round}: the write-ahead log has {wal_bytes} bytes, wal.files.max allows {WAL_BYTES_MAX}")
        });
        victim = plan
            .start()
            .with_context(|| format!("the start after kill {round}"))?;
        up_in.push(victim.up_in);
        if let Some(directory) = gone {
            deleted += 1;
            let otherwise = format!(
                "round {round}: the room of a deleted topic is not given back: {}",
                directory.display()
            );
            files::wait_until(PATIENCE, &otherwise, || Ok(!directory.exists()))?;
        }
        let aside = bytes_below(&data.join("quarantine"))?;
        outcome.require(aside == 0, || {
            format!("round {round}: {aside} bytes in the quarantine")
        });
        outcome.times = round;
        if !outcome.passed() {
            break;
        }
    }
    judge(
        &mut Probe::connect(&victim.kafka)?,
        &ledger,
        &Shown::default(),
        &mut outcome,
    )?;
    let checked = outcome.checked;
    outcome.require(checked > 0 && deleted > 0, || {
        format!(
            "{checked} records acknowledged and {deleted} topics deleted: the case proves nothing"
        )
    });
    victim.terminate()?;
    sizes(&data, &ledger, &mut outcome)?;
    starts(&up_in, &mut outcome);
    outcome.notes.push(format!(
        "write-ahead log at most {} of {} MiB, {deleted} topics deleted",
        wal_bytes_max >> 20,
        WAL_BYTES_MAX >> 20
    ));
    Ok(outcome)
}

/// Waits for the moment of the kill, random under the seed. Every third round makes a topic before, the next one deletes it just
/// before: then the directory is given, which has to go.
fn before_the_kill(
    victim: &Victim,
    data: &Path,
    round: u32,
    doomed: &mut Option<Doomed>,
    ledger: &Ledger,
    random: &mut Random,
) -> Result<Option<PathBuf>> {
    let mut probe = Probe::connect(&victim.kafka)?;
    if round % DELETED_EVERY == 1 {
        *doomed = Some(make(&mut probe, data, round, ledger, random)?);
    }
    // Nothing is waited for here.
    std::thread::sleep(Duration::from_millis(random.between(300, 1000)));
    let topic = match round % DELETED_EVERY {
        2 => doomed.take(),
        _ => None,
    };
    let Some(topic) = topic else {
        return Ok(None);
    };
    // There is only something to give back once it has settled.
    let mut directory = None;
    files::wait_until(PATIENCE, "the topic does not settle", || {
        directory = partitions(data)?.into_iter().find(|directory| {
            !topic.others.contains(directory) && files::find_value(directory, &topic.value).is_ok()
        });
        Ok(directory.is_some())
    })?;
    let error = probe.delete_topic(&topic.name)?;
    ensure!(
        error == ErrorCode::None,
        "delete {}: {}",
        topic.name,
        error.name()
    );
    // From before the first file is removed to after the last one.
    std::thread::sleep(Duration::from_millis(random.between(0, 30)));
    Ok(directory)
}

fn make(
    probe: &mut Probe,
    data: &Path,
    round: u32,
    ledger: &Ledger,
    random: &mut Random,
) -> Result<Doomed> {
    let name = format!("doomed-{round}");
    let others = partitions(data)?;
    probe.create_topic(&name, 1, &[])?;
    let mut value = None;
    for _ in 0..DELETED_BATCHES {
        let payloads = ledger.send(&name, 0, 16, 4096, random)?;
        let answer = probe.produce(&name, 0, batch_of(&payloads, Codec::None, None)?)?;
        ensure!(
            matches!(answer, Answer::Acknowledged(_)),
            "produce to {name} was answered {answer:?}"
        );
        value.get_or_insert_with(|| payloads[0].value.clone());
    }
    Ok(Doomed {
        name,
        value: value.context("a batch")?,
        others,
    })
}

/// The directories of partitions.
fn partitions(data: &Path) -> Result<Vec<PathBuf>> {
    let files = files::files_below(&data.join("p"))?;
    let mut found: Vec<PathBuf> = files
        .iter()
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect();
    found.dedup();
    Ok(found)
}

/// What is there beside the write-ahead log is no more than what was sent, its indexes and the broker's own state.
fn sizes(data: &Path, ledger: &Ledger, outcome: &mut Outcome) -> Result<()> {
    let partitions = bytes_below(&data.join("p"))?;
    let sent = ledger.entries().len() as u64 * RECORD_BYTES_MAX;
    // An index has some 3 % of its segment.
    let most = sent + sent / 16 + STATE_BYTES_MAX;
    outcome.require(partitions <= most, || {
        format!(
            "{partitions} bytes of segments and indexes, where {sent} bytes of records were sent"
        )
    });
    outcome.notes.push(format!(
        "segments and indexes {:.1} MiB, records sent at most {:.1} MiB",
        mib(partitions),
        mib(sent)
    ));
    Ok(())
}

/// J6, and that starts do not get slower: what a start reads is bounded by the write-ahead log.
pub(super) fn starts(up_in: &[Duration], outcome: &mut Outcome) {
    let slowest = up_in.iter().copied().max().unwrap_or_default();
    outcome.require(slowest <= crash::up_in_max(), || {
        format!("J6 up after {slowest:?}")
    });
    let third = up_in.len().div_ceil(3);
    let (first, last) = (
        median(&up_in[..third]),
        median(&up_in[up_in.len() - third..]),
    );
    // Twice and a quarter of a second is what a busy machine makes of equal work.
    let flat = last <= first * 2 + Duration::from_millis(250);
    let enough = up_in.len() >= ROUNDS_TO_COMPARE as usize;
    outcome.require(flat || !enough, || {
        format!("starts take {last:?} in the last third, {first:?} in the first (medians)")
    });
    outcome.notes.push(format!(
        "ready after {:.2} s in the first third, {:.2} s in the last (medians), at most {:.2} s",
        first.as_secs_f64(),
        last.as_secs_f64(),
        slowest.as_secs_f64()
    ));
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[allow(clippy::cast_precision_loss, reason = "for a message")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The length of all files below a directory; 0 if it is not there.
fn bytes_below(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for path in files::files_below(directory)? {
        // It may go while the broker runs.
        bytes += path.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}
