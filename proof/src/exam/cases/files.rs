//! Cases 16 and 17: files of a data directory are damaged, while the broker is stopped or under its eyes. Whatever it makes of
//! them: no record is ever served as another one, what is missing is named, other partitions are not affected, and nothing is
//! deleted because of it.
//!
//! The reader looks at no checksum, as librdkafka does by default: what it is given has to be right. Only where a file is
//! damaged that the broker has read already since it opened it, a first reader checks; the other one comes after a restart.
//!
//! Each trial works on a copy of one prepared data directory (sealed and active segments, indexes, manifests, checkpoints, and
//! a write-ahead log with records that had not settled when the broker was killed).

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use model::codec::Codec;
use wire::ErrorCode;

use crate::exam::judge::Seen;
use crate::exam::ledger::{Entry, Fate, Ledger};
use crate::exam::probe::{Answer, Probe, batch_of, note_records, note_unchecked};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds, cases::crash};
use xtask::run;

/// Case 16.
pub const FLIPS: Case = Case {
    number: 16,
    name: "bit-flips",
    about: "one bit flipped in each kind of file, at random places, stopped and running",
    rounds: Rounds {
        full: 140,
        short: 14,
    },
    run: |exam| trials(exam, FLIPS.about, &[Damage::Flip]),
};

/// Case 17.
pub const FILES: Case = Case {
    number: 17,
    name: "damaged-files",
    about: "each kind of file cut to nothing, to half, by one byte; deleted; two swapped; 4 KiB zeroed",
    rounds: Rounds {
        full: 144,
        short: 18,
    },
    run: |exam| {
        let all = [
            Damage::Empty,
            Damage::Half,
            Damage::MinusOne,
            Damage::Deleted,
            Damage::Swapped,
            Damage::Zeroed,
        ];
        trials(exam, FILES.about, &all)
    },
};

const TOPIC: &str = "files";
const PARTITIONS: i32 = 3;
/// Batches of a partition, each of [`RECORDS`] records of [`VALUE_BYTES`].
const BATCHES: usize = 90;
pub(super) const RECORDS: usize = 16;
pub(super) const VALUE_BYTES: usize = 2048;
/// Zeroed at once.
const HOLE_BYTES: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Flip,
    Empty,
    Half,
    MinusOne,
    Deleted,
    Swapped,
    Zeroed,
}

/// Kinds of files, in the order of the trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sealed,
    Active,
    Index,
    Manifest,
    Checkpoint,
    Wal,
    Store,
}

const KINDS: [Kind; 7] = [
    Kind::Sealed,
    Kind::Active,
    Kind::Index,
    Kind::Manifest,
    Kind::Checkpoint,
    Kind::Wal,
    Kind::Store,
];

/// The prepared directory and what was promised of it.
pub(super) struct Prepared {
    pub image: PathBuf,
    pub entries: HashMap<u64, Entry>,
    pub files: BTreeMap<&'static str, Vec<PathBuf>>,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sealed => "sealed segment",
            Kind::Active => "active segment",
            Kind::Index => "index",
            Kind::Manifest => "manifest",
            Kind::Checkpoint => "checkpoint",
            Kind::Wal => "write-ahead log",
            Kind::Store => "STORE",
        }
    }

    /// Whether all of it can be had from other files.
    fn is_derived(self) -> bool {
        matches!(self, Kind::Index | Kind::Checkpoint)
    }

    /// Whether a broker reads it again while it runs.
    fn is_read_while_running(self) -> bool {
        matches!(self, Kind::Sealed | Kind::Index)
    }
}

fn trials(exam: &Exam, tried: &str, damages: &[Damage]) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: tried.to_owned(),
        ..Outcome::default()
    };
    let prepared = prepare(exam)?;
    let mut random = Random::new(exam.seed);
    let mut came: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..exam.rounds {
        let turn = usize::try_from(round)?;
        // Every kind meets every damage before any meets one twice; the place is random.
        let kind = KINDS[turn % KINDS.len()];
        let damage = damages[turn / KINDS.len() % damages.len()];
        let running = kind.is_read_while_running()
            && turn / (KINDS.len() * damages.len()) % 2 == 1
            && damage != Damage::Swapped;
        let data = exam.work.join("trial");
        copy(&prepared.image, &data)?;
        let trial = Trial {
            exam,
            prepared: &prepared,
            data: &data,
            log: exam.work.join(format!("trial-{round}.log")),
        };
        let name = format!("trial {round} ({damage:?} of a {})", kind.name());
        let word = trial
            .run(kind, damage, running, &mut random, &mut outcome, &name)
            .with_context(|| name.clone())?;
        *came.entry(format!("{} {word}", kind.name())).or_default() += 1;
        outcome.times = round + 1;
        if !outcome.passed() {
            exam.progress(&format!("{name}: {}", fs::read_to_string(&trial.log)?));
            break;
        }
        fs::remove_dir_all(&data)?;
    }
    let came: Vec<String> = came
        .iter()
        .map(|(what, n)| format!("{what}: {n}"))
        .collect();
    outcome.notes.push(came.join(", "));
    Ok(outcome)
}

pub(super) fn plan(exam: &Exam, data: &Path, log: &Path) -> Plan {
    let mut plan =
        crash::small(Plan::new(&exam.binary, data, &exam.work)).with("settle.age.ms", 1000);
    plan.log = log.to_owned();
    plan
}

pub(super) fn prepare(exam: &Exam) -> Result<Prepared> {
    let image = exam.work.join("image");
    let ledger = Ledger::create(&exam.work.join("ledger"))?;
    let mut random = Random::new(exam.seed);
    let plan = plan(exam, &image, &exam.work.join("prepare.log"));
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, PARTITIONS, &[("segment.bytes", "1048576")])?;
    for number in 0..BATCHES {
        if number == BATCHES * 2 / 3 {
            wait_for_indexes(&image)?;
        }
        for partition in 0..PARTITIONS {
            let payloads = ledger.send(TOPIC, partition, RECORDS, VALUE_BYTES, &mut random)?;
            let batch = batch_of(&payloads, Codec::None, None)?;
            match probe.produce(TOPIC, partition, batch)? {
                Answer::Acknowledged(offset) => ledger.acknowledged(&payloads, offset)?,
                Answer::Refused(error) => bail!("batch {number} was refused: {}", error.name()),
            }
        }
    }
    victim.kill()?;
    let mut files: BTreeMap<&'static str, Vec<PathBuf>> = BTreeMap::new();
    let mut active: HashMap<PathBuf, PathBuf> = HashMap::new();
    for path in files_below(&image)? {
        let text = path.to_string_lossy().into_owned();
        let below = path.strip_prefix(&image)?.to_owned();
        let kind = match path.extension().and_then(|end| end.to_str()) {
            Some("wal") => Kind::Wal,
            Some("idx") => Kind::Index,
            Some("log") => {
                // By name, the last of a directory is the active one.
                let directory = below.parent().unwrap_or(Path::new("")).to_owned();
                if let Some(earlier) = active.insert(directory, below) {
                    files.entry(Kind::Sealed.name()).or_default().push(earlier);
                }
                continue;
            }
            _ if text.contains("/checkpoint/") => Kind::Checkpoint,
            _ if text.contains("manifest.") => Kind::Manifest,
            _ if text.ends_with("/STORE") => Kind::Store,
            _ => continue,
        };
        files.entry(kind.name()).or_default().push(below);
    }
    files
        .entry(Kind::Active.name())
        .or_default()
        .extend(active.into_values());
    for kind in KINDS {
        let found = files.get_mut(kind.name());
        let Some(found) = found else {
            bail!("the prepared directory has no {}", kind.name());
        };
        found.sort();
    }
    Ok(Prepared {
        image,
        entries: ledger.entries(),
        files,
    })
}

/// Waits until a segment of every partition is sealed. What comes after stays in the write-ahead log for a while.
fn wait_for_indexes(data: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let wanted = usize::try_from(PARTITIONS)?;
    let is_index = |path: &&PathBuf| path.extension().is_some_and(|end| end == "idx");
    while files_below(data)?.iter().filter(is_index).count() < wanted {
        ensure!(
            Instant::now() < deadline,
            "no segment was sealed within 30 s"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

struct Trial<'e> {
    exam: &'e Exam,
    prepared: &'e Prepared,
    data: &'e Path,
    log: PathBuf,
}

/// What a reader of everything found.
#[derive(Default)]
pub(super) struct Found {
    /// Per partition, what was there.
    seen: HashMap<i32, Vec<Seen>>,
    /// Partitions of which something could not be read, and what was said.
    pub refused: BTreeMap<i32, String>,
    /// Batches that were served and cannot be read, to a reader who believes what it is given.
    garbled: Vec<String>,
}

/// What a reader does with the checksums of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    Checked,
    Ignored,
}

impl Trial<'_> {
    /// Answers in a word what came of it.
    fn run(
        &self,
        kind: Kind,
        damage: Damage,
        running: bool,
        random: &mut Random,
        outcome: &mut Outcome,
        name: &str,
    ) -> Result<&'static str> {
        let names = &self.prepared.files[kind.name()];
        let target = &names[usize::try_from(random.next() % names.len() as u64)?];
        let other = &names[usize::try_from(random.next() % names.len() as u64)?];
        let name = &format!("{name}, {}", target.display());
        let plan = plan(self.exam, self.data, &self.log);
        let mut victim;
        if running {
            victim = plan.start()?;
            read_everything(&victim, Sums::Checked)?;
            self.harm(target, other, damage, random)?;
            let found = read_everything(&victim, Sums::Checked)?;
            self.judge(&found, &victim, kind, damage, outcome, name);
            victim.terminate().with_context(|| name.clone())?;
            victim = plan.start().with_context(|| name.clone())?;
        } else {
            self.harm(target, other, damage, random)?;
            match plan.start() {
                Ok(started) => victim = started,
                Err(error) => {
                    // A refused start says why, and leaves everything as it was.
                    let said = format!("{error:#}");
                    let place = place_of(target);
                    outcome.require(said.contains(&place), || {
                        format!("J7 {name}: no start, and {place} is not named: {said}")
                    });
                    self.restored(&[target, other], &plan, outcome, name)?;
                    return Ok("not started");
                }
            }
        }
        let found = read_everything(&victim, Sums::Ignored)?;
        let lost = self.judge(&found, &victim, kind, damage, outcome, name);
        victim.terminate().with_context(|| name.clone())?;
        // What the broker wrote since does not go together with a write-ahead log and checkpoints of before.
        let set_aside = self.data.join("quarantine").exists();
        if matches!(kind, Kind::Sealed | Kind::Index) && !set_aside {
            self.restored(&[target, other], &plan, outcome, name)?;
        }
        Ok(if lost.is_empty() { "whole" } else { "named" })
    }

    /// What is missing is named, and it is no more than the damage explains. Gives what is missing, by partition.
    fn judge(
        &self,
        found: &Found,
        victim: &Victim,
        kind: Kind,
        damage: Damage,
        outcome: &mut Outcome,
        name: &str,
    ) -> BTreeMap<i32, u64> {
        let lost = self.prepared.compare(found, outcome, name);
        let log = victim.log();
        let named = log.contains(" WARN ") || log.contains(" ERROR ");
        for (partition, count) in &lost {
            outcome.require(found.refused.contains_key(partition) || named, || {
                format!("J7 {name}: {count} records of {partition} are missing, and nobody says so")
            });
        }
        outcome.require(lost.is_empty() || !kind.is_derived(), || {
            format!(
                "J1 {name}: records are missing though all of them are in other files: {lost:?}"
            )
        });
        outcome.require(
            lost.len() <= 1 || kind == Kind::Wal || damage == Damage::Swapped,
            || format!("J8 {name}: several partitions are affected: {lost:?}"),
        );
        lost
    }

    /// With the harmed files as they were, everything is there: nothing else was touched.
    fn restored(
        &self,
        targets: &[&PathBuf],
        plan: &Plan,
        outcome: &mut Outcome,
        name: &str,
    ) -> Result<()> {
        for target in targets {
            let (from, to) = (self.prepared.image.join(target), self.data.join(target));
            match (from.parent(), to.parent()) {
                // A log's directory may have been set aside as a whole.
                (Some(from), Some(to)) if !to.exists() => copy(from, to)?,
                _ => drop(fs::copy(from, to)?),
            }
        }
        let record = self.data.join("DAMAGE");
        if record.exists() {
            fs::remove_file(record)?;
        }
        let mut victim = plan
            .start()
            .with_context(|| format!("{name}: with the file as it was"))?;
        let found = read_everything(&victim, Sums::Ignored)?;
        let lost = self.prepared.compare(&found, outcome, name);
        outcome.require(lost.is_empty(), || {
            format!("J1 {name}: with the file as it was, records are still missing: {lost:?}")
        });
        victim.terminate()
    }

    fn harm(&self, target: &Path, other: &Path, damage: Damage, random: &mut Random) -> Result<()> {
        let path = self.data.join(target);
        let len = fs::metadata(&path)?.len();
        let file = File::options().read(true).write(true).open(&path)?;
        match damage {
            Damage::Flip if len > 0 => {
                let at = random.between(0, len);
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                byte[0] ^= 1 << random.between(0, 8);
                file.write_all_at(&byte, at)?;
            }
            Damage::Zeroed if len > 0 => {
                let at = random.between(0, len) / HOLE_BYTES as u64 * HOLE_BYTES as u64;
                let count = usize::try_from(len - at)?.min(HOLE_BYTES);
                file.write_all_at(&vec![0; count], at)?;
            }
            Damage::Flip | Damage::Zeroed => {}
            Damage::Empty => file.set_len(0)?,
            Damage::Half => file.set_len(len / 2)?,
            Damage::MinusOne => file.set_len(len.saturating_sub(1))?,
            Damage::Deleted => fs::remove_file(&path)?,
            Damage::Swapped => {
                let other = self.data.join(other);
                let aside = self.data.join("aside");
                fs::rename(&path, &aside)?;
                if other != path {
                    fs::rename(&other, &path)?;
                }
                fs::rename(&aside, &other)?;
            }
        }
        Ok(())
    }
}

impl Prepared {
    /// Acknowledged records that were not shown, by partition. What was shown but never sent, or at another offset, fails.
    pub fn compare(&self, found: &Found, outcome: &mut Outcome, name: &str) -> BTreeMap<i32, u64> {
        let mut lost = BTreeMap::new();
        outcome.checked += self.entries.len() as u64;
        let mut places: HashMap<(i32, i64), &Entry> = HashMap::new();
        for entry in self.entries.values() {
            if let Fate::Acknowledged(offset) = entry.fate {
                places.insert((entry.partition, offset), entry);
            }
        }
        for garbled in &found.garbled {
            outcome
                .failures
                .push(format!("J3 {name}: {TOPIC}: {garbled}"));
        }
        for (partition, seen) in &found.seen {
            for record in seen {
                match places.remove(&(*partition, record.offset)) {
                    Some(entry) if entry.digest == record.digest => {}
                    _ => outcome.failures.push(format!(
                        "J3 {name}: {TOPIC}-{partition} shows at {} what was not acknowledged there",
                        record.offset
                    )),
                }
            }
        }
        for (partition, _) in places.into_keys() {
            *lost.entry(partition).or_default() += 1;
        }
        lost
    }
}

/// What a message about a file names it by: a log's directory, or else the file itself.
fn place_of(path: &Path) -> String {
    let log = path.parent().filter(|directory| directory.starts_with("p"));
    let name = log.unwrap_or(path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Reads every partition from 0 to its end. Where that is refused, it goes on behind, as a reader would who was told.
pub(super) fn read_everything(victim: &Victim, sums: Sums) -> Result<Found> {
    let mut found = Found::default();
    for partition in 0..PARTITIONS {
        let mut probe = Probe::connect(&victim.kafka)?;
        let end = i64::try_from(BATCHES * RECORDS)?;
        let mut from = 0;
        while from < end {
            from = match read_from(&mut probe, partition, from, sums, &mut found) {
                Ok(next) if next > from => next,
                Ok(next) => {
                    let said = format!("nothing at {next}");
                    found.refused.entry(partition).or_insert(said);
                    from + 1
                }
                Err(error) => {
                    found
                        .refused
                        .entry(partition)
                        .or_insert_with(|| format!("{error:#}"));
                    probe = Probe::connect(&victim.kafka)?;
                    from + 1
                }
            };
        }
    }
    Ok(found)
}

/// What one fetch from `from` on shows. Answers the offset after it; `from` itself if there is nothing.
fn read_from(
    probe: &mut Probe,
    partition: i32,
    from: i64,
    sums: Sums,
    found: &mut Found,
) -> Result<i64> {
    let fetched = probe.fetch(TOPIC, partition, from, 1 << 20, 0)?;
    ensure!(
        fetched.error == ErrorCode::None,
        "read {TOPIC}-{partition} at {from}: {}",
        fetched.error.name()
    );
    let mut more = Vec::new();
    let noted = match sums {
        Sums::Checked => note_records(fetched.records, from, &mut more),
        Sums::Ignored => note_unchecked(fetched.records, from, &mut more),
    };
    if let (Sums::Ignored, Err(error)) = (sums, &noted) {
        found
            .garbled
            .push(format!("{partition} at {from}: {error:#}"));
    }
    let next = noted?;
    found.seen.entry(partition).or_default().append(&mut more);
    Ok(next)
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    run::quiet(
        Command::new("cp")
            .args(["-a", "--sparse=always", "--reflink=auto"])
            .arg(from)
            .arg(to),
    )?;
    Ok(())
}

/// The segment below a directory that holds this value, and where.
pub(super) fn find_value(directory: &Path, value: &[u8]) -> Result<(PathBuf, u64)> {
    for path in files_below(directory)? {
        if path.extension().is_some_and(|end| end == "log") {
            // A file may go while the broker runs.
            let bytes = fs::read(&path).unwrap_or_default();
            let at = bytes.windows(value.len()).position(|piece| piece == value);
            if let Some(at) = at {
                return Ok((path, at as u64));
            }
        }
    }
    bail!("no segment holds the value")
}

/// Looks again and again until it holds; an error that says `otherwise` if it does not in time.
pub(super) fn wait_until(
    patience: Duration,
    otherwise: &str,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !holds()? {
        ensure!(
            Instant::now() < deadline,
            "{otherwise}, within {patience:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Every file below a directory, in the order of names; none if it is not there. What a broker removes meanwhile is left out.
pub fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        let entries = match fs::read_dir(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
