//! Cases 29 and 47: SIGKILL, or a power cut, while topics are compacted and thinned without a pause, by jobs and by the broker itself,
//! with their writers and an honest load at work. After each start everything acknowledged is there unless a later record took its
//! place, what went does not come back, and nothing of a rewrite that was cut off is left.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::exam::cases::cleanup_jobs::{require_no_leftovers, run_now};
use crate::exam::cases::keyed::{Keyed, Rule};
use crate::exam::cases::{crash, files, restart_storm};
use crate::exam::disk::LoopDisk;
use crate::exam::load::{Load, LoadPlan};
use crate::exam::probe::Probe;
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

const KEYS: u64 = 150;
const PARTITIONS: u64 = 2;
const WINDOW_MS: i64 = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// The case.
pub const CASE: Case = Case {
    number: 29,
    name: "cleanup-killed",
    about: "kill -9 while topics are compacted and thinned, at random moments",
    rounds: Rounds { full: 60, short: 4 },
    run: |exam| run(exam, CASE.about, &exam.work.join("data"), Victim::kill),
};

/// The same with power cuts.
pub const POWER_CUT: Case = Case {
    number: 47,
    name: "cleanup-power-cut",
    about: "power cuts while topics are compacted and thinned, at random moments",
    rounds: Rounds { full: 30, short: 3 },
    run: |exam| {
        let mut disk = LoopDisk::create(&exam.work, "disk", 2 << 30)?;
        let data = disk.path().join("data");
        run(exam, POWER_CUT.about, &data, |victim| {
            disk.cut_power()?;
            victim.kill()?;
            disk.restore_power()
        })
    },
};

/// What the rounds share.
struct Scene {
    topics: Vec<Keyed>,
    load: Arc<Load>,
    /// Jobs that ended, and whether one runs.
    jobs: AtomicU64,
    in_job: AtomicBool,
    /// Set while the broker is hurt: what becomes of a job then is no fault of its own.
    is_hurt: AtomicBool,
    failed_jobs: Mutex<Vec<String>>,
}

fn run(
    exam: &Exam,
    tried: &str,
    data: &Path,
    mut crash: impl FnMut(&mut Victim) -> Result<()>,
) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: tried.to_owned(),
        ..Outcome::default()
    };
    let plan = crash::small(Plan::new(&exam.binary, data, &exam.work))
        .with("settle.age.ms", 200)
        .with("log.cleaner.backoff.ms", 100)
        .with("log.retention.check.interval.ms", 500);
    let mut victim = plan.start()?;
    let scene = Scene::begin(exam, &victim)?;
    let mut random = Random::new(exam.seed);
    let (mut up_in, mut killed_in_job) = (Vec::new(), 0);
    for round in 1..=exam.rounds {
        let in_round = || format!("round {round}");
        let moment = Duration::from_millis(random.between(50, 1200));
        killed_in_job += u32::from(
            scene
                .run_and_kill(&mut victim, moment, &mut crash)
                .with_context(in_round)?,
        );
        victim = plan.start().with_context(in_round)?;
        up_in.push(victim.up_in);
        scene
            .judge(&victim, data, false, &mut outcome)
            .with_context(in_round)?;
        outcome.times = round;
        if !outcome.passed() {
            outcome
                .failures
                .iter_mut()
                .for_each(|failure| *failure = format!("round {round}: {failure}"));
            return Ok(outcome);
        }
        if round % 10 == 0 {
            exam.progress(&format!(
                "round {round}: {} records acknowledged",
                outcome.checked
            ));
        }
    }
    scene.finish(&victim, data, &mut outcome)?;
    restart_storm::starts(&up_in, &mut outcome);
    outcome.notes.push(format!(
        "{} jobs ended, {killed_in_job} kills came while one ran",
        scene.jobs.load(Ordering::SeqCst)
    ));
    victim.terminate()?;
    Ok(outcome)
}

impl Scene {
    fn begin(exam: &Exam, victim: &Victim) -> Result<Scene> {
        let compact = |stay| Rule::Compact {
            tombstones_stay: stay,
        };
        let thin = Rule::Thin {
            window_ms: WINDOW_MS,
        };
        let topics = vec![
            Keyed::new("compacted", PARTITIONS, KEYS, compact(true), exam.seed),
            Keyed::new(
                "compacted-tombstones-go",
                PARTITIONS,
                KEYS,
                compact(false),
                exam.seed + 1,
            ),
            Keyed::new("thinned", PARTITIONS, 4, thin, exam.seed + 2),
        ];
        let mut probe = Probe::connect(&victim.kafka)?;
        for topic in &topics {
            topic.create(&mut probe, &[("segment.bytes", "65536")])?;
        }
        let plan = LoadPlan {
            producers: 4,
            ..LoadPlan::default()
        };
        let load = Load::new(plan, &exam.work, exam.seed)?;
        load.create_topics(&victim.kafka)?;
        Ok(Scene {
            topics,
            load,
            jobs: AtomicU64::new(0),
            in_job: AtomicBool::new(false),
            is_hurt: AtomicBool::new(false),
            failed_jobs: Mutex::default(),
        })
    }

    /// Has everything at work until the kill. Answers whether a job ran when it came.
    fn run_and_kill(
        &self,
        victim: &mut Victim,
        moment: Duration,
        crash: &mut impl FnMut(&mut Victim) -> Result<()>,
    ) -> Result<bool> {
        let stop = AtomicBool::new(false);
        self.is_hurt.store(false, Ordering::SeqCst);
        let (kafka, http) = (victim.kafka.clone(), victim.http.clone());
        let running = self.load.begin(&kafka);
        let result = std::thread::scope(|scope| {
            for topic in &self.topics {
                for partition in 0..topic.count() {
                    let (kafka, stop) = (&kafka, &stop);
                    scope.spawn(move || topic.write(kafka, partition, stop, PAUSE));
                }
            }
            scope.spawn(|| self.run_jobs(&http, &stop));
            // The fault's moment, random under the seed; nothing is waited for here.
            std::thread::sleep(moment);
            self.load.fault_begins();
            let in_job = self.in_job.load(Ordering::SeqCst);
            let ended = victim.ended().and_then(|ended| {
                anyhow::ensure!(
                    ended.is_none(),
                    "the broker ended by itself: {ended:?}: {}",
                    victim.log_tail()
                );
                self.is_hurt.store(true, Ordering::SeqCst);
                crash(victim)
            });
            stop.store(true, Ordering::SeqCst);
            ended.map(|()| in_job)
        });
        running.finish();
        result
    }

    /// Jobs over every topic, one after the other, until the broker is gone.
    fn run_jobs(&self, http: &str, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            for topic in &self.topics {
                self.in_job.store(true, Ordering::SeqCst);
                let ended = run_now(http, topic.policy(), &topic.topic);
                self.in_job.store(false, Ordering::SeqCst);
                match ended {
                    Ok(job) if job["state"] == "done" => self.jobs.fetch_add(1, Ordering::SeqCst),
                    Ok(_) if self.is_hurt.load(Ordering::SeqCst) => return,
                    Ok(job) => {
                        let mut failed = self.failed_jobs.lock().expect("nobody panics with it");
                        failed.push(format!("a job did not do its work: {job}"));
                        return;
                    }
                    Err(_) => return,
                };
            }
        }
    }

    fn judge(
        &self,
        victim: &Victim,
        data: &Path,
        finished: bool,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let mut probe = Probe::connect(&victim.kafka)?;
        outcome.checked = 0;
        for topic in &self.topics {
            let look = topic.judge(&mut probe, finished)?;
            outcome.checked += look.checked;
            outcome.lost += look.lost;
            outcome.failures.extend(look.failures);
        }
        let judgement = self.load.judge(&victim.kafka)?;
        outcome.checked += judgement.checked;
        outcome.lost += judgement.lost;
        outcome.failures.extend(judgement.failures);
        outcome
            .failures
            .append(&mut self.failed_jobs.lock().expect("nobody panics with it"));
        let names: Vec<String> = self
            .topics
            .iter()
            .map(|topic| topic.topic.clone())
            .collect();
        if let Err(error) = require_no_leftovers(&victim.http, data, &names) {
            outcome.failures.push(format!("{error:#}"));
        }
        let aside = files::files_below(&data.join("quarantine"))?;
        outcome.require(aside.is_empty(), || {
            format!("files in the quarantine: {aside:?}")
        });
        let (_, ready) = victim.get("/readyz")?;
        outcome.require(!ready.contains("cleanup_set_aside"), || {
            format!("segments are set aside: {ready}")
        });
        Ok(())
    }

    /// Everything is cleaned once more, in peace: each key is left once, and each job comes to its end.
    fn finish(&self, victim: &Victim, data: &Path, outcome: &mut Outcome) -> Result<()> {
        let mut gone_before = 0;
        let mut probe = Probe::connect(&victim.kafka)?;
        for topic in &self.topics {
            gone_before += topic.judge(&mut probe, false)?.gone;
            let job = run_now(&victim.http, topic.policy(), &topic.topic)?;
            outcome.require(job["state"] == "done", || format!("the last job: {job}"));
        }
        self.judge(victim, data, true, outcome)?;
        let checked = outcome.checked;
        outcome.require(checked > 0 && gone_before > 0, || {
            format!(
                "{checked} records checked, {gone_before} cleaned away: the case proves nothing"
            )
        });
        outcome.notes.push(format!(
            "{gone_before} records were cleaned away under the kills"
        ));
        Ok(())
    }
}
