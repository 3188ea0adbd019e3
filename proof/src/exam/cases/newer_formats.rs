//! Case 38: one file of a data directory is of a later format version and valid otherwise, its checksum included: what a later
//! release leaves to an older one. The start is refused with the file and its version, nothing in the directory changes,
//! `alluvium log verify` says the same. With the file as it was the broker starts, and the judge finds everything.
//!
//! The store is one that a broker wrote under load until SIGKILL. Each trial works on a copy. For `DAMAGE` one bit of a topic of its
//! own is flipped besides, and read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use model::codec::Codec;
use sha2::{Digest as _, Sha256};

use crate::exam::cases::{crash, files};
use crate::exam::later;
use crate::exam::ledger::Ledger;
use crate::exam::load::{Load, LoadPlan};
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, ending};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// The case.
pub const CASE: Case = Case {
    number: 38,
    name: "newer-formats",
    about: "a later format version in each kind of file, valid otherwise, after SIGKILL under load",
    rounds: Rounds { full: 54, short: 9 },
    run,
};

/// The topic of which a record gets damaged.
const HURT: &str = "hurt";
const PATIENCE: Duration = Duration::from_secs(30);
/// What a panic ends a Rust program with.
const PANIC: i32 = 101;
/// What `alluvium log verify` ends with where something is wrong.
const VERIFY_FOUND: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Store,
    Clock,
    Damage,
    CheckpointA,
    CheckpointB,
    Manifest,
    Index,
    /// The last frame of all.
    LastFrame,
    /// Every frame from some one on that the newest checkpoint does not cover.
    Frames,
}

const KINDS: [Kind; 9] = [
    Kind::Store,
    Kind::Clock,
    Kind::Damage,
    Kind::CheckpointA,
    Kind::CheckpointB,
    Kind::Manifest,
    Kind::Index,
    Kind::LastFrame,
    Kind::Frames,
];

/// A store that was killed under load, and what was promised of it.
struct Prepared {
    /// Sound.
    whole: PathBuf,
    /// The same after a start that put damage of [`HURT`] on record, and another kill.
    hurt: PathBuf,
    load: Arc<Load>,
}

/// What was made newer.
struct Changed {
    version: u32,
    /// The files, below the data directory, as they were. More than one only where frames of several are newer.
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Changed {
    /// Whether a line names the version and one of the files, below `directory`.
    fn is_named(&self, said: &str, directory: &Path) -> bool {
        let version = format!("format version {},", self.version);
        said.lines().any(|line| {
            line.contains(&version)
                && self
                    .before
                    .iter()
                    .any(|(path, _)| line.contains(&*directory.join(path).to_string_lossy()))
        })
    }
}

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let mut random = Random::new(exam.seed);
    let mut prepared = None;
    for round in 0..exam.rounds {
        let turn = usize::try_from(round)? % KINDS.len();
        if turn == 0 {
            let work = exam.work.join(format!("store-{round}"));
            fs::create_dir(&work)?;
            prepared = Some(prepare(exam, &work, &mut random).context("prepare a store")?);
            sound_is_not_refused(exam, prepared.as_ref(), &mut outcome)?;
        }
        let Some(prepared) = &prepared else {
            bail!("the first trial prepares");
        };
        let name = format!("trial {round}, {:?}", KINDS[turn]);
        trial(
            exam,
            prepared,
            KINDS[turn],
            &mut random,
            &mut outcome,
            &name,
        )
        .with_context(|| name.clone())?;
        outcome.times = round + 1;
        if !outcome.passed() {
            break;
        }
    }
    outcome.require(outcome.checked > 0, || {
        "nothing was acknowledged: the case proves nothing".to_owned()
    });
    Ok(outcome)
}

fn plan(exam: &Exam, data: &Path, log: PathBuf) -> Plan {
    let mut plan =
        crash::small(Plan::new(&exam.binary, data, &exam.work)).with("settle.age.ms", 300);
    plan.log = log;
    plan
}

fn prepare(exam: &Exam, work: &Path, random: &mut Random) -> Result<Prepared> {
    let (whole, hurt) = (work.join("whole"), work.join("hurt"));
    let mut victim = plan(exam, &whole, work.join("whole.log")).start()?;
    let value = produce_hurt(&victim.kafka, work, &whole, random)?;
    let load_plan = LoadPlan {
        value_bytes_max: 4000,
        ..LoadPlan::default()
    };
    let load = Load::new(load_plan, work, random.next())?;
    load.create_topics(&victim.kafka)?;
    let running = load.begin(&victim.kafka);
    files::wait_until(PATIENCE, "no file of every kind", || {
        let names = files::files_below(&whole)?;
        let has = |part: &str| {
            names
                .iter()
                .any(|path| path.to_string_lossy().contains(part))
        };
        let checkpoints = whole.join("checkpoint").join("A").exists()
            && whole.join("checkpoint").join("B").exists();
        Ok(has(".idx") && has("manifest.") && has("CLOCK") && checkpoints)
    })?;
    // The kill's moment, random under the seed; nothing is waited for here.
    thread::sleep(Duration::from_millis(random.between(100, 700)));
    load.fault_begins();
    victim.kill()?;
    running.finish();

    files::copy(&whole, &hurt)?;
    let (path, at) = files::find_value(&hurt, &value)?;
    let file = File::options().read(true).write(true).open(path)?;
    file.write_all_at(&[value[0] ^ 1], at)?;
    let mut victim = plan(exam, &hurt, work.join("hurt.log")).start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    files::wait_until(PATIENCE, "the damage is not put on record", || {
        let _ = probe.fetch(HURT, 0, 0, 1 << 20, 0)?;
        Ok(hurt.join("DAMAGE").exists())
    })?;
    victim.kill()?;
    Ok(Prepared { whole, hurt, load })
}

/// Fills [`HURT`], and waits until a segment holds it and no start reads it from the write-ahead log again. Gives a value of its first
/// batch.
fn produce_hurt(kafka: &str, work: &Path, data: &Path, random: &mut Random) -> Result<Vec<u8>> {
    let mut probe = Probe::connect(kafka)?;
    probe.create_topic(HURT, 1, &[])?;
    let ledger = Ledger::create(&work.join("ledger-hurt"))?;
    let mut first = None;
    // A round begins when the one before has ended, its checkpoint included.
    for _ in 0..2 {
        let payloads = ledger.send(HURT, 0, 4, 2048, random)?;
        let answer = probe.produce(HURT, 0, batch_of(&payloads, Codec::None, None)?)?;
        ensure!(
            matches!(answer, Answer::Acknowledged(_)),
            "produce was answered {answer:?}"
        );
        let value = &payloads[0].value;
        files::wait_until(PATIENCE, "what was produced does not settle", || {
            Ok(files::find_value(data, value).is_ok())
        })?;
        first.get_or_insert_with(|| value.clone());
    }
    first.context("two batches")
}

/// The control: what is sound is verified as such.
fn sound_is_not_refused(
    exam: &Exam,
    prepared: Option<&Prepared>,
    outcome: &mut Outcome,
) -> Result<()> {
    let prepared = prepared.context("a store")?;
    let (code, said) = verify(exam, &prepared.whole)?;
    outcome.require(code == Some(0), || {
        format!("`log verify` of the store as it was killed ends with {code:?}: {said}")
    });
    let (_, said) = verify(exam, &prepared.hurt)?;
    outcome.require(!said.contains("format version"), || {
        format!("`log verify` finds a later version where there is none: {said}")
    });
    Ok(())
}

fn trial(
    exam: &Exam,
    prepared: &Prepared,
    kind: Kind,
    random: &mut Random,
    outcome: &mut Outcome,
    name: &str,
) -> Result<()> {
    let image = match kind {
        Kind::Damage => &prepared.hurt,
        _ => &prepared.whole,
    };
    let data = exam.work.join("trial");
    files::copy(image, &data)?;
    let changed = change(&data, kind, random)?;
    let name = &format!("{name}, {}", changed.before[0].0.display());
    let before = hashes(&data)?;

    let log = exam
        .work
        .join(format!("{}.log", name.replace([' ', ',', '/'], "-")));
    let plan = plan(exam, &data, log);
    let (status, said) = plan.start_refused().with_context(|| name.clone())?;
    outcome.require(
        status.code().is_some_and(|code| code != 0 && code != PANIC),
        || format!("{name}: the start ended with {}", ending(status)),
    );
    outcome.require(changed.is_named(&said, &data), || {
        format!(
            "{name}: file and version {} are not named: {said}",
            changed.version
        )
    });
    unchanged(&before, &data, "the refused start", outcome, name)?;

    let (code, said) = verify(exam, &data)?;
    outcome.require(code == Some(VERIFY_FOUND), || {
        format!("{name}: `log verify` ends with {code:?}: {said}")
    });
    outcome.require(changed.is_named(&said, Path::new("")), || {
        format!("{name}: `log verify` does not name file and version: {said}")
    });
    unchanged(&before, &data, "`log verify`", outcome, name)?;

    for (path, bytes) in &changed.before {
        fs::write(data.join(path), bytes)?;
    }
    let mut victim = plan
        .start()
        .with_context(|| format!("{name}: with the file as it was"))?;
    let judgement = prepared.load.judge(&victim.kafka)?;
    outcome.checked += judgement.checked;
    outcome.lost += judgement.lost;
    let failures = judgement.failures.into_iter();
    outcome
        .failures
        .extend(failures.map(|failure| format!("{name}: {failure}")));
    victim.terminate()?;
    if outcome.passed() {
        fs::remove_dir_all(&data)?;
    }
    Ok(())
}

/// `alluvium log verify`: its exit code, and what it says.
fn verify(exam: &Exam, data: &Path) -> Result<(Option<i32>, String)> {
    let output = Command::new(&exam.binary)
        .args(["log", "verify"])
        .arg(data)
        .output()
        .context("start log verify")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

/// SHA-256 of every file below a directory; directories stand there with their names only.
fn hashes(data: &Path) -> Result<BTreeMap<PathBuf, Option<[u8; 32]>>> {
    let mut found = BTreeMap::new();
    for path in files::files_below(data)? {
        let hash: [u8; 32] = Sha256::digest(fs::read(&path)?).into();
        for directory in path.ancestors().skip(1).take_while(|at| *at != data) {
            found.insert(directory.to_owned(), None);
        }
        found.insert(path, Some(hash));
    }
    Ok(found)
}

fn unchanged(
    before: &BTreeMap<PathBuf, Option<[u8; 32]>>,
    data: &Path,
    by: &str,
    outcome: &mut Outcome,
    name: &str,
) -> Result<()> {
    let after = hashes(data)?;
    let mut changed: Vec<String> = before
        .iter()
        .filter(|(path, hash)| after.get(*path) != Some(*hash))
        .map(|(path, _)| path.display().to_string())
        .collect();
    let new = after.keys().filter(|path| !before.contains_key(*path));
    changed.extend(new.map(|path| format!("{} (new)", path.display())));
    outcome.require(changed.is_empty(), || {
        format!("{name}: {by} changed {}", changed.join(", "))
    });
    Ok(())
}

/// Makes one file newer, or the frames of one or more files of the write-ahead log.
fn change(data: &Path, kind: Kind, random: &mut Random) -> Result<Changed> {
    let more = match random.next() % 2 {
        0 => 1,
        _ => u32::try_from(random.between(2, 1000))?,
    };
    let all = files::files_below(data)?;
    if matches!(kind, Kind::LastFrame | Kind::Frames) {
        return change_frames(data, &all, kind, more, random);
    }
    let is_kind = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match kind {
            Kind::Store => name == "STORE",
            Kind::Clock => name == "CLOCK",
            Kind::Damage => name == "DAMAGE",
            Kind::CheckpointA => name == "A",
            Kind::CheckpointB => name == "B",
            Kind::Manifest => name.starts_with("manifest."),
            Kind::Index => name.ends_with(".idx"),
            Kind::LastFrame | Kind::Frames => false,
        }
    };
    let found: Vec<&PathBuf> = all.iter().filter(is_kind).collect();
    ensure!(!found.is_empty(), "the store has no such file");
    let target = found[usize::try_from(random.next() % found.len() as u64)?];
    let before = fs::read(target)?;
    let mut bytes = before.clone();
    let version = match kind {
        Kind::Damage => later::damage(&mut bytes, more)?,
        Kind::Index => later::index(&mut bytes, more)?,
        Kind::Store => {
            // One of the two copies, or both.
            let which = random.next() % 3;
            let half = bytes.len() / 2;
            let mut version = 0;
            for (number, copy) in (0..).zip(bytes.chunks_mut(half)) {
                if which == 2 || which == number {
                    version = later::envelope(copy, more)?;
                }
            }
            version
        }
        _ => later::envelope(&mut bytes, more)?,
    };
    fs::write(target, bytes)?;
    Ok(Changed {
        version,
        before: vec![(target.strip_prefix(data)?.to_owned(), before)],
    })
}

fn change_frames(
    data: &Path,
    all: &[PathBuf],
    kind: Kind,
    more: u32,
    random: &mut Random,
) -> Result<Changed> {
    let checkpoints = ["A", "B"].map(|slot| fs::read(data.join("checkpoint").join(slot)));
    let mut covered = (0, 0);
    for checkpoint in checkpoints {
        covered = covered.max(later::covered_by(&checkpoint?)?);
    }
    let mut files: BTreeMap<u64, (&PathBuf, Vec<u8>)> = BTreeMap::new();
    let mut open = Vec::new();
    for path in all {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let sequence = name.strip_suffix(".wal").and_then(|name| name.parse().ok());
        let Some(sequence) = sequence else {
            continue;
        };
        let bytes = fs::read(path)?;
        let places = later::frames(&bytes, sequence)
            .into_iter()
            .map(|at| (sequence, at))
            .filter(|place| *place >= covered);
        open.extend(places);
        files.insert(sequence, (path, bytes));
    }
    open.sort_unstable();
    ensure!(!open.is_empty(), "the checkpoint covers all frames");
    let first = match kind {
        Kind::LastFrame => open.len() - 1,
        _ => usize::try_from(random.next() % open.len() as u64)?,
    };
    let mut changed = Changed {
        version: 0,
        before: Vec::new(),
    };
    for (sequence, (path, before)) in files {
        let mut bytes = before.clone();
        for (_, at) in open[first..].iter().filter(|place| place.0 == sequence) {
            changed.version = later::frame(&mut bytes[usize::try_from(*at)?..], more)?;
        }
        if bytes != before {
            fs::write(path, bytes)?;
            let path = path.strip_prefix(data)?.to_owned();
            changed.before.push((path, before));
        }
    }
    Ok(changed)
}
