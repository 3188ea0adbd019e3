//! Case 44: SIGKILL of `alluvium backup` and of `alluvium restore` at random moments, beside a loaded broker; then the same command
//! again. What it makes in the end is whole and checked, a broker starts on it, and every record that was acknowledged before the
//! backup began is there. On a store that is not restored to its end no broker starts.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::exam::cases::crash;
use crate::exam::judge::{Shown, judge_partition};
use crate::exam::ledger::{Entry, Fate};
use crate::exam::load::{Load, LoadPlan};
use crate::exam::probe::Probe;
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim, ending};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// How often each command is killed before it may come to its end.
const KILLS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(120);

/// The case.
pub const CASE: Case = Case {
    number: 44,
    name: "backup-killed",
    about: "kill -9 of backup and restore at random moments, beside a loaded broker, then the same again",
    rounds: Rounds { full: 30, short: 4 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut scene = Scene {
        binary: exam.binary.clone(),
        data: exam.work.join("data"),
        place: exam.work.join("backups"),
        target: exam.work.join("restored"),
        random: Random::new(exam.seed),
        reach: [Duration::from_millis(300); 2],
        cut: 0,
    };
    let plan =
        crash::small(Plan::new(&exam.binary, &scene.data, &exam.work)).with("settle.age.ms", 200);
    let restored = crash::small(Plan::new(&exam.binary, &scene.target, &exam.work));
    let mut victim = plan.start()?;
    let load = Load::new(LoadPlan::default(), &exam.work, exam.seed)?;
    load.create_topics(&victim.kafka)?;
    load.produce_each(&victim.kafka)?;
    let mut checked = 0;
    let mut outcome = exam.each_round(CASE.about, |_, outcome| {
        let running = load.begin(&victim.kafka);
        let before = scene.backup(&load, outcome);
        running.finish();
        let before = before?;
        scene.restore(&restored, outcome)?;
        checked += judge(&restored.start()?, &before, &load.ledger.entries(), outcome)?;
        Ok(())
    })?;
    outcome.checked = checked;
    let (cut, times) = (scene.cut, outcome.times * 2 * KILLS);
    outcome.notes.push(format!(
        "{cut} of {times} kills came before the command's end"
    ));
    outcome.require(cut > 0 && checked > 0, || {
        format!("{cut} commands cut off, {checked} records checked: the case proves nothing")
    });
    let judgement = load.judge(&victim.kafka)?;
    outcome.lost += judgement.lost;
    outcome.failures.extend(judgement.failures);
    victim.terminate()?;
    Ok(outcome)
}

struct Scene {
    binary: PathBuf,
    data: PathBuf,
    place: PathBuf,
    target: PathBuf,
    random: Random,
    /// What backup and restore took at most, as far as it is known.
    reach: [Duration; 2],
    cut: u32,
}

impl Scene {
    /// Backups that are killed, and one that is not. Gives what was sent before that one began.
    fn backup(&mut self, load: &Load, outcome: &mut Outcome) -> Result<HashMap<u64, Entry>> {
        let (data, place) = (self.data.clone(), self.place.clone());
        let arguments = [Path::new("backup"), &data, Path::new("--to"), &place];
        for _ in 0..KILLS {
            self.killed(&arguments, 0)?;
        }
        let before = load.ledger.entries();
        self.reach[0] = self.reach[0].max(self.done(&arguments)?);
        self.done(&[Path::new("restore"), &place, Path::new("--check")])?;
        let mut backups = Vec::new();
        for entry in fs::read_dir(&place)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                backups.push(entry.file_name());
            }
        }
        outcome.require(backups.len() == 1, || {
            format!("one backup was to be kept, and there are {backups:?}")
        });
        Ok(before)
    }

    /// Restores that are killed, and one that is not.
    fn restore(&mut self, restored: &Plan, outcome: &mut Outcome) -> Result<()> {
        let (place, target) = (self.place.clone(), self.target.clone());
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        let arguments = [Path::new("restore"), &place, Path::new("--to"), &target];
        for _ in 0..KILLS {
            let is_marked = |target: &Path| target.join("RESTORING").exists();
            // The mark goes last: killed behind it, the restore is whole.
            let ended = self.killed(&arguments, 1)?;
            if ended || (target.join("STORE").exists() && !is_marked(&target)) {
                fs::remove_dir_all(&target)?;
            } else if is_marked(&target) {
                let refused = restored.start_refused();
                outcome.require(refused.is_ok(), || {
                    "a broker started on a store that is not restored to its end".to_owned()
                });
            }
        }
        self.reach[1] = self.reach[1].max(self.done(&arguments)?);
        let is_marked = target.join("RESTORING").exists();
        outcome.require(!is_marked, || {
            "a restore that is done left its mark".to_owned()
        });
        self.done(&[Path::new("log"), Path::new("verify"), &target])?;
        Ok(())
    }

    /// Runs the command and kills it at a random moment within what it took so far. Answers whether it had ended.
    fn killed(&mut self, arguments: &[&Path], which: usize) -> Result<bool> {
        let reach = u64::try_from(self.reach[which].as_micros())?.max(2000);
        let moment = Duration::from_micros(self.random.between(1000, reach));
        let began = Instant::now();
        let mut child = self.command(arguments).spawn()?;
        while began.elapsed() < moment {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "{arguments:?}: {}", ending(status));
                self.reach[which] = began.elapsed();
                return Ok(true);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        child.kill()?;
        // It may have ended just before.
        let has_ended = child.wait()?.success();
        self.cut += u32::from(!has_ended);
        Ok(has_ended)
    }

    /// Runs the command to its end, which has to be 0. Gives how long it took.
    fn done(&self, arguments: &[&Path]) -> Result<Duration> {
        let began = Instant::now();
        let mut child = self
            .command(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        while child.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                child.kill()?;
                bail!("{arguments:?} did not end within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}: {}",
            ending(output.status),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(began.elapsed())
    }

    fn command(&self, arguments: &[&Path]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// What was acknowledged before has to be there; what came later may be. Gives how many records were looked for.
fn judge(
    victim: &Victim,
    before: &HashMap<u64, Entry>,
    now: &HashMap<u64, Entry>,
    outcome: &mut Outcome,
) -> Result<u64> {
    let mut entries = now.clone();
    for (id, entry) in &mut entries {
        let was = before.get(id).map(|entry| entry.fate);
        if entry.fate != Fate::Refused && !matches!(was, Some(Fate::Acknowledged(_))) {
            entry.fate = Fate::Unknown;
        }
    }
    let mut probe = Probe::connect(&victim.kafka)?;
    let mut checked = 0;
    for (topic, partitions) in LoadPlan::default().topics {
        for partition in 0..partitions {
            let contents = probe.read_all(&topic, partition)?;
            let shown = Shown::default();
            let verdict = judge_partition(&topic, partition, &entries, &contents, &shown, false);
            checked += verdict.checked;
            outcome.lost += verdict.lost;
            outcome.failures.extend(verdict.failures);
        }
    }
    Ok(checked)
}
