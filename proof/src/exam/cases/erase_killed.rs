//! Case 46: an erasure by key is cut off again and again, by SIGKILL and by a power cut in turn, with an honest load at work. After each
//! start every record of another key is as it was acknowledged, and what went does not come back. When the erasure has ended a plain
//! search of all files, which shares no code with the store, finds nothing of the key, and the receipt counts each record once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use model::hex::to_hex;
use serde_json::{Value, json};

use crate::exam::cases::cleanup_jobs::call;
use crate::exam::cases::{crash, files};
use crate::exam::disk::LoopDisk;
use crate::exam::judge::Seen;
use crate::exam::ledger::{Digest, digest_of};
use crate::exam::load::{Load, LoadPlan};
use crate::exam::probe::{Answer, Probe};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};
use crate::key_search::find;

const DISK_BYTES: u64 = 1 << 30;
const TOPIC: &str = "erased";
const PARTITIONS: i32 = 2;
/// Batches that a round adds to each partition.
const BATCHES: usize = 50;
const RECORDS: u64 = 12;
/// Every so manieth record is one of the key.
const SHARE: u64 = 3;
/// How often an erasure is cut off before it may come to its end.
const CUTS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// The case.
pub const CASE: Case = Case {
    number: 46,
    name: "erase-killed",
    about: "kill -9 and power cuts in turn while a key is erased, then a plain search of every file",
    rounds: Rounds { full: 30, short: 1 },
    run,
};

/// Partition and offset.
type Place = (i32, i64);

struct Scene {
    disk: LoopDisk,
    load: Arc<Load>,
    random: Random,
    /// Acknowledged records of other keys.
    others: BTreeMap<Place, Digest>,
    /// Acknowledged records of keys that are erased, or about to be.
    erased: BTreeMap<Place, Digest>,
    /// Those of them that a reader did not find any more.
    gone: BTreeSet<Place>,
    /// What an erasure took at most.
    reach: Duration,
    cuts: u32,
    /// Cuts of erasures that had not ended.
    before_end: u32,
    /// Cuts behind which a part of the key was gone.
    between: u32,
}

fn run(exam: &Exam) -> Result<Outcome> {
    let disk = LoopDisk::create(&exam.work, "disk", DISK_BYTES)?;
    let data = disk.path().join("data");
    let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work)).with("settle.age.ms", 100);
    let mut victim = plan.start()?;
    let load = LoadPlan {
        producers: 2,
        ..LoadPlan::default()
    };
    let mut scene = Scene {
        disk,
        load: Load::new(load, &exam.work, exam.seed)?,
        random: Random::new(exam.seed),
        others: BTreeMap::new(),
        erased: BTreeMap::new(),
        gone: BTreeSet::new(),
        reach: Duration::from_millis(150),
        cuts: 0,
        before_end: 0,
        between: 0,
    };
    scene.load.create_topics(&victim.kafka)?;
    let configs = [("segment.bytes", "65536")];
    Probe::connect(&victim.kafka)?.create_topic(TOPIC, PARTITIONS, &configs)?;
    let mut outcome = exam.each_round(CASE.about, |round, outcome| {
        scene.round(&plan, &mut victim, &data, outcome)?;
        if round % 10 == 0 {
            exam.progress(&format!("round {round}: {} cuts", scene.cuts));
        }
        Ok(())
    })?;
    let (cuts, before_end, between) = (scene.cuts, scene.before_end, scene.between);
    outcome.require(before_end > 0, || {
        format!("none of {cuts} cuts came before the erasure's end: the case proves nothing")
    });
    outcome.notes.push(format!(
        "{before_end} of {cuts} cuts came before the erasure's end, behind {between} a part of the key was gone; {} records erased",
        scene.erased.len()
    ));
    victim.terminate()?;
    Ok(outcome)
}

impl Scene {
    fn round(
        &mut self,
        plan: &Plan,
        victim: &mut Victim,
        data: &Path,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let subject = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        let before = self.erased.len();
        self.produce(victim, &subject)?;
        let of_key = (self.erased.len() - before) as u64;
        let ended = self.erase_under_cuts(plan, victim, &subject, of_key, outcome)?;
        outcome.require(ended["outcome"] == "done", || {
            format!("the erasure ended so: {ended}")
        });
        let id = ended["id"].as_str().context("an erasure without an id")?;
        let path = format!("/api/v1/cleanup/erasures/{id}/receipt");
        let (status, receipt) = call(&victim.http, "GET", &path, None)?;
        ensure!(
            status == 200,
            "the receipt was answered {status}: {receipt}"
        );
        let is_whole = receipt["records_erased"] == of_key
            && receipt["verified"]["found"] == 0
            && receipt["verified"]["unread"] == 0;
        outcome.require(is_whole, || {
            format!("of {of_key} records the receipt tells: {receipt}")
        });
        // What is on the disk then is searched, and nothing writes meanwhile.
        victim.kill()?;
        for needle in [subject.clone(), to_hex(key_of(&subject))] {
            let found = find(data, needle.as_bytes());
            outcome.require(found.is_empty(), || {
                format!("the plain search finds {needle}: {found:?}")
            });
        }
        let aside = files::files_below(&data.join("quarantine"))?;
        outcome.require(aside.is_empty(), || {
            format!("files in the quarantine: {aside:?}")
        });
        *victim = plan.start()?;
        let left = self.look(victim, outcome)?;
        outcome.require(left == 0, || format!("{left} records of the key are left"));
        let judgement = self.load.judge(&victim.kafka)?;
        outcome.checked = judgement.checked + self.others.len() as u64;
        outcome.lost += judgement.lost;
        outcome.failures.extend(judgement.failures);
        ensure!(outcome.passed(), "{}", outcome.failures.join("; "));
        Ok(())
    }

    /// Writes records of the key among others, in every codec.
    fn produce(&mut self, victim: &Victim, subject: &str) -> Result<()> {
        let mut probe = Probe::connect(&victim.kafka)?;
        let key = key_of(subject);
        for batch in 0..BATCHES {
            for partition in 0..PARTITIONS {
                let mut builder = BatchBuilder::new(Codec::ALL[batch % Codec::ALL.len()]);
                let mut sent = Vec::new();
                for number in 0..RECORDS {
                    let mut noise = [0; 150];
                    self.random.fill(&mut noise);
                    let noise = to_hex(noise);
                    let is_erased = self.random.between(0, SHARE) == 0;
                    let (key, value) = match is_erased {
                        true => (key.clone(), format!("of {subject} {noise}")),
                        false => (format!("device-{number}"), noise),
                    };
                    let (key, value) = (key.as_bytes(), value.as_bytes());
                    let time = Timestamp::from_millis(1_700_000_000_000);
                    builder.push(time, Some(key), Some(value), &[])?;
                    sent.push((is_erased, digest_of(key, value)));
                }
                let answer = probe.produce(TOPIC, partition, builder.build()?)?;
                let Answer::Acknowledged(base) = answer else {
                    anyhow::bail!("produce was answered {answer:?}");
                };
                for (offset, (is_erased, digest)) in (base..).zip(sent) {
                    let records = match is_erased {
                        true => &mut self.erased,
                        false => &mut self.others,
                    };
                    records.insert((partition, offset), digest);
                }
            }
        }
        Ok(())
    }

    /// Has the key erased, and cuts that off at random moments. Gives the erasure as it ended.
    fn erase_under_cuts(
        &mut self,
        plan: &Plan,
        victim: &mut Victim,
        subject: &str,
        of_key: u64,
        outcome: &mut Outcome,
    ) -> Result<Value> {
        let key = key_of(subject);
        let wanted = json!({ "topic": TOPIC, "keys": [key], "reason": "the exam" });
        let path = "/api/v1/cleanup/erasures";
        let (status, asked) = call(&victim.http, "POST", path, Some(&wanted))?;
        ensure!(status == 202, "an erasure was answered {status}: {asked}");
        let id = asked["id"].as_str().context("an erasure without an id")?;
        for _ in 0..CUTS {
            let running = self.load.begin(&victim.kafka);
            let reach = u64::try_from(self.reach.as_micros())?;
            // The fault's moment, random under the seed; nothing is waited for here.
            std::thread::sleep(Duration::from_micros(self.random.between(0, reach)));
            self.load.fault_begins();
            let cut = self.cut(victim);
            running.finish();
            cut?;
            *victim = plan.start()?;
            let now = state(victim, id, 0)?;
            self.before_end += u32::from(now["state"] != "ended");
            let left = self.look(victim, outcome)?;
            self.between += u32::from(left > 0 && left < of_key);
            ensure!(outcome.passed(), "{}", outcome.failures.join("; "));
        }
        let began = Instant::now();
        loop {
            let now = state(victim, id, 1_000)?;
            if now["state"] == "ended" {
                // The rest of it takes no longer than all of it.
                self.reach = self.reach.max(began.elapsed());
                return Ok(now);
            }
            ensure!(began.elapsed() < PATIENCE, "it does not end: {now}");
        }
    }

    /// Ends the broker, now by SIGKILL and now by a power cut.
    fn cut(&mut self, victim: &mut Victim) -> Result<()> {
        let ended = victim.ended()?;
        ensure!(
            ended.is_none(),
            "the broker ended by itself: {ended:?}: {}",
            victim.log_tail()
        );
        self.cuts += 1;
        if self.cuts % 2 == 1 {
            return victim.kill();
        }
        self.disk.cut_power()?;
        victim.kill()?;
        self.disk.restore_power()
    }

    /// Reads everything and judges it. Gives how many records of erased keys are there.
    fn look(&mut self, victim: &Victim, outcome: &mut Outcome) -> Result<u64> {
        let mut probe = Probe::connect(&victim.kafka)?;
        let mut shown = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let contents = probe.read_all(TOPIC, partition)?;
            let each = contents.iter();
            shown.extend(each.map(|Seen { offset, digest, .. }| ((partition, *offset), *digest)));
        }
        for (place, digest) in &self.others {
            if shown.get(place) != Some(digest) {
                outcome.lost += 1;
                outcome.require(false, || {
                    format!("J1 the record of another key at {place:?} is gone, or has other bytes")
                });
            }
        }
        let mut left = 0;
        for (place, digest) in &self.erased {
            match shown.get(place) {
                None => drop(self.gone.insert(*place)),
                Some(now) => {
                    left += 1;
                    outcome.require(now == digest && !self.gone.contains(place), || {
                        format!("J2 the erased record at {place:?} is back, or has other bytes")
                    });
                }
            }
        }
        let known = self.others.len() as u64 + left;
        outcome.require(shown.len() as u64 == known, || {
            format!("J3 {} records are there, {known} were sent", shown.len())
        });
        outcome.failures.truncate(20);
        Ok(left)
    }
}

fn key_of(subject: &str) -> String {
    format!("subject-{subject}")
}

fn state(victim: &Victim, id: &str, wait_ms: u32) -> Result<Value> {
    let path = format!("/api/v1/cleanup/erasures/{id}?wait_ms={wait_ms}");
    let (status, erasure) = call(&victim.http, "GET", &path, None)?;
    ensure!(
        status == 200,
        "erasure {id} was answered {status}: {erasure}"
    );
    Ok(erasure)
}
