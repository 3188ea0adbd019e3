//! Case 40: one bit of a value is flipped on the disk, in a segment that is sealed, in one that is active, or in the write-ahead
//! log, and then a client reads that looks at no checksum. It is given no other record than was sent: it gets all but the
//! damaged batch, an error there, and `/readyz` and `/metrics` know of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::exam::cases::files::{self, Kind, Prepared, RECORDS, Sums, VALUE_BYTES};
use crate::exam::random::Random;
use crate::exam::{Case, Exam, Outcome, Rounds};

/// The case.
pub const CASE: Case = Case {
    number: 40,
    name: "damage-served",
    about: "one bit of a value flipped in a segment or the write-ahead log, read by a client that checks no sums",
    rounds: Rounds { full: 60, short: 6 },
    run,
};

const KINDS: [Kind; 3] = [Kind::Active, Kind::Sealed, Kind::Wal];
/// Hexadecimal digits of a record's number, with which its value begins.
const ID_BYTES: usize = 16;
/// What the broker's log says when it drops the last frame.
const DROPPED: &str = "dropped an incomplete last write of the write-ahead log";

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let prepared = files::prepare(exam)?;
    let mut random = Random::new(exam.seed);
    let mut named = 0;
    for round in 0..exam.rounds {
        let kind = KINDS[usize::try_from(round)? % KINDS.len()];
        let name = format!("trial {round}, a {}", kind.name());
        let data = exam.work.join("trial");
        files::copy(&prepared.image, &data)?;
        named += u32::from(
            trial(
                exam,
                &prepared,
                kind,
                &data,
                &mut random,
                &mut outcome,
                &name,
            )
            .with_context(|| name.clone())?,
        );
        outcome.times = round + 1;
        if !outcome.passed() {
            break;
        }
        fs::remove_dir_all(&data)?;
    }
    outcome
        .notes
        .push(format!("named in {named} of {} trials", outcome.times));
    Ok(outcome)
}

/// Whether something was named.
fn trial(
    exam: &Exam,
    prepared: &Prepared,
    kind: Kind,
    data: &Path,
    random: &mut Random,
    outcome: &mut Outcome,
    name: &str,
) -> Result<bool> {
    let id = flip(prepared, kind, data, random)?;
    let partition = prepared.entries[&id].partition;
    let log = exam
        .work
        .join(format!("{}.log", name.replace([' ', ','], "-")));
    let mut victim = files::plan(exam, data, &log).start()?;
    let found = files::read_everything(&victim, Sums::Ignored)?;
    let lost = prepared.compare(&found, outcome, name);
    let (status, ready) = victim.get("/readyz")?;
    let (_, metrics) = victim.get("/metrics")?;
    let is_named =
        ready.contains("\"damaged\"") && !metrics.contains("alluvium_damaged_ranges 0\n");
    outcome.require(status == 200, || {
        format!("{name}: damage elsewhere makes the broker not ready: {ready}")
    });
    if kind == Kind::Wal {
        // What had settled before is whole. A killed broker cannot tell damage to its very last frame from a torn write:
        // there the log says what was dropped.
        let is_said = is_named || victim.log().contains(DROPPED);
        outcome.require(lost.is_empty() || is_said, || {
            format!("J7 {name}: {lost:?} are missing, and nobody says so")
        });
    } else {
        let expected = [(partition, RECORDS as u64)].into();
        outcome.require(lost == expected, || {
            format!("{name}: one batch of {partition} was damaged, and {lost:?} are missing")
        });
        outcome.require(found.refused.contains_key(&partition), || {
            format!("J7 {name}: the reader got no error")
        });
        outcome.require(is_named, || {
            format!("J7 {name}: /readyz or /metrics do not name it: {ready}")
        });
    }
    victim.terminate()?;
    Ok(is_named)
}

/// Flips a bit of some value in a file of that kind. Gives the number of its record.
fn flip(prepared: &Prepared, kind: Kind, data: &Path, random: &mut Random) -> Result<u64> {
    let names = &prepared.files[kind.name()];
    let first = usize::try_from(random.next() % names.len() as u64)?;
    for turn in 0..names.len() {
        let path = data.join(&names[(first + turn) % names.len()]);
        let contents = fs::read(&path)?;
        let values = values(&contents, prepared);
        if values.is_empty() {
            continue;
        }
        let (at, id) = values[usize::try_from(random.next() % values.len() as u64)?];
        let at = at + ID_BYTES as u64 + random.between(0, VALUE_BYTES as u64);
        let file = File::options().read(true).write(true).open(&path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << random.between(0, 8);
        file.write_all_at(&byte, at)?;
        return Ok(id);
    }
    anyhow::bail!("no {} holds a record", kind.name())
}

/// Where the values of known records begin in a file, and the numbers of the records.
fn values(contents: &[u8], prepared: &Prepared) -> Vec<(u64, u64)> {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(window) = contents.get(at..at + ID_BYTES) {
        // Numbers are small: eight zeros first.
        if !window.starts_with(b"00000000") || !window.iter().all(is_hex) {
            at += 1;
            continue;
        }
        let id = std::str::from_utf8(window)
            .ok()
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .filter(|id| prepared.entries.contains_key(id));
        let Some(id) = id else {
            at += 1;
            continue;
        };
        if contents.len() >= at + ID_BYTES + VALUE_BYTES {
            found.push((at as u64, id));
        }
        at += ID_BYTES + VALUE_BYTES;
    }
    found
}
