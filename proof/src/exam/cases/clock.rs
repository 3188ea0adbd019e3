//! Case 21: the wall clock jumps, while the broker runs and from one start to the next, by an hour and by a year in both directions;
//! devices send times of 1970 and 2099. Nothing is removed early, and time seeks stay exact.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use wire::ErrorCode;
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

use crate::exam::cases::crash;
use crate::exam::judge::{Shown, judge_partition};
use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// Keeps its records for half an hour.
const KEPT: &str = "kept";
/// Keeps its records for a second: it shows that retention is at work.
const BRIEF: &str = "brief";
const JUMPS: [&str; 5] = ["+0", "+1h", "+365d", "-1h", "-365d"];
/// What retention gets to look at the topics several times.
const LOOKS: Duration = Duration::from_millis(1_000);
const PATIENCE: Duration = Duration::from_secs(20);
/// Milliseconds of 1 January 2099.
const YEAR_2099: u64 = 4_070_908_800_000;

/// The case.
pub const CASE: Case = Case {
    number: 21,
    name: "clock-jumps",
    about: "the wall clock jumps by an hour and a year, running and between starts; devices are in 1970 and 2099",
    rounds: Rounds { full: 10, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let mut random = Random::new(exam.seed);
    for round in 1..=exam.rounds {
        let mut house = House::new(exam, round)?;
        let mut victim = house.start("+0")?;
        for (topic, retention_ms) in [(KEPT, "1800000"), (BRIEF, "1000")] {
            let configs = [("retention.ms", retention_ms), ("segment.bytes", "65536")];
            Probe::connect(&victim.kafka)?.create_topic(topic, 1, &configs)?;
        }
        house.produce(&victim, &mut random)?;
        for _ in 0..4 {
            let jump = JUMPS[usize::try_from(random.between(0, JUMPS.len() as u64))?];
            let name = if random.between(0, 2) == 0 {
                house.jump(jump)?;
                format!("round {round}, running, {jump}")
            } else {
                if random.between(0, 2) == 0 {
                    victim.terminate()?;
                } else {
                    victim.kill()?;
                }
                victim = house.start(jump)?;
                format!("round {round}, at a start, {jump}")
            };
            std::thread::sleep(LOOKS);
            house
                .produce(&victim, &mut random)
                .with_context(|| name.clone())?;
            house
                .check(&victim, &mut random, &name, &mut outcome)
                .with_context(|| name.clone())?;
            if !outcome.passed() {
                return Ok(outcome);
            }
            outcome.times += 1;
        }
        house.require_retention(&victim, &mut outcome)?;
        victim.terminate()?;
    }
    Ok(outcome)
}

struct House {
    plan: Plan,
    /// What faketime adds to the clock.
    offset: PathBuf,
    ledger: Ledger,
    shown: Shown,
    /// The records' times, by offset.
    times: Vec<i64>,
}

impl House {
    fn new(exam: &Exam, round: u32) -> Result<House> {
        let offset = exam.work.join("clock");
        let data = exam.work.join(format!("data-{round}"));
        let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work))
            .with("settle.age.ms", 100)
            .with("log.retention.check.interval.ms", 100)
            .in_environment("LD_PRELOAD", library()?.display())
            .in_environment("FAKETIME_TIMESTAMP_FILE", offset.display())
            .in_environment("FAKETIME_NO_CACHE", 1)
            .in_environment("FAKETIME_DONT_FAKE_MONOTONIC", 1);
        Ok(House {
            plan,
            offset,
            ledger: Ledger::create(&exam.work.join(format!("ledger-{round}")))?,
            shown: Shown::default(),
            times: Vec::new(),
        })
    }

    /// Replaced as a whole: the broker may be reading it.
    fn jump(&self, by: &str) -> Result<()> {
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{by}\n"))?;
        Ok(fs::rename(new, &self.offset)?)
    }

    fn start(&self, at: &str) -> Result<Victim> {
        self.jump(at)?;
        self.plan.start()
    }

    /// Some batches to both topics, from devices whose clocks are wrong.
    fn produce(&mut self, victim: &Victim, random: &mut Random) -> Result<()> {
        let mut probe = Probe::connect(&victim.kafka)?;
        for _ in 0..12 {
            let payloads = self.ledger.send(KEPT, 0, 16, 1 << 10, random)?;
            let mut builder = BatchBuilder::new(Codec::None);
            for payload in &payloads {
                let time = match random.between(0, 3) {
                    0 => random.between(0, 1_000_000),
                    1 => YEAR_2099 + random.between(0, 1_000_000),
                    _ => 1_700_000_000_000 + random.between(0, 1_000_000),
                };
                let time = i64::try_from(time)?;
                self.times.push(time);
                builder.push(
                    Timestamp::from_millis(time),
                    Some(&payload.key),
                    Some(&payload.value),
                    &[],
                )?;
            }
            let batch = builder.build()?;
            match probe.produce(KEPT, 0, batch.clone())? {
                Answer::Acknowledged(offset) => self.ledger.acknowledged(&payloads, offset)?,
                Answer::Refused(error) => bail!("a batch was refused: {}", error.name()),
            }
            let brief = probe.produce(BRIEF, 0, batch)?;
            ensure!(
                matches!(brief, Answer::Acknowledged(_)),
                "a batch was refused"
            );
        }
        Ok(())
    }

    /// Everything is there, and each time leads to the first record that is at least that late.
    fn check(
        &self,
        victim: &Victim,
        random: &mut Random,
        name: &str,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let mut probe = Probe::connect(&victim.kafka)?;
        let contents = probe.read_all(KEPT, 0)?;
        let entries = self.ledger.entries();
        let verdict = judge_partition(KEPT, 0, &entries, &contents, &self.shown, false);
        outcome.checked += verdict.checked;
        outcome.lost += verdict.lost;
        let failures = verdict.failures.into_iter();
        outcome
            .failures
            .extend(failures.map(|failure| format!("{name}: {failure}")));
        let start = seek(&mut probe, KEPT, EARLIEST)?;
        outcome.require(start == 0, || {
            format!("{name}: the log starts at {start} now")
        });
        for _ in 0..20 {
            let of = usize::try_from(random.between(0, self.times.len() as u64))?;
            let wanted = self.times[of] + i64::try_from(random.between(0, 3))? - 1;
            let wanted = wanted.max(0);
            let first = self.times.iter().position(|time| *time >= wanted);
            let expected = first.map_or(Ok(-1), i64::try_from)?;
            let found = seek(&mut probe, KEPT, wanted)?;
            outcome.require(found == expected, || {
                format!("{name}: time {wanted} leads to {found}, it should be {expected}")
            });
        }
        Ok(())
    }

    /// What is to be kept for a second goes, whatever the clock shows.
    fn require_retention(&self, victim: &Victim, outcome: &mut Outcome) -> Result<()> {
        let mut probe = Probe::connect(&victim.kafka)?;
        let deadline = Instant::now() + PATIENCE;
        let all = i64::try_from(self.times.len())?;
        let mut start = 0;
        while start < all && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            start = seek(&mut probe, BRIEF, EARLIEST)?;
        }
        outcome.require(start == all, || {
            format!("retention is not at work: {BRIEF} starts at {start} of {all}")
        });
        Ok(())
    }
}

/// ListOffsets' word for the log's start.
const EARLIEST: i64 = -2;

/// Where a time leads; -1 if there is no record that late.
fn seek(probe: &mut Probe, topic: &str, timestamp: i64) -> Result<i64> {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.to_owned(),
            partitions: vec![ListOffsetsPartition {
                partition_index: 0,
                current_leader_epoch: -1,
                timestamp,
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    let response = probe.call(5, &request)?;
    let partition = response
        .topics
        .first()
        .and_then(|topic| topic.partitions.first())
        .context("no partition in the answer")?;
    let error = ErrorCode::from_code(partition.error_code);
    ensure!(
        error == ErrorCode::None,
        "seek {timestamp}: {}",
        error.name()
    );
    Ok(partition.offset)
}

/// faketime's library for programs with threads.
fn library() -> Result<PathBuf> {
    let places = fs::read_dir("/usr/lib").context("read /usr/lib")?;
    places
        .filter_map(Result::ok)
        .map(|place| place.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .context("libfaketime is not installed (Debian: apt-get install faketime)")
}
