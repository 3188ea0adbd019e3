//! What the cases of full disks share: one topic, batch after batch until an answer comes that is waited for, and its judge.

use std::time::{Duration, Instant};

use anyhow::Result;
use model::codec::Codec;

use wire::ErrorCode;

use crate::exam::cases::crash;
use crate::exam::disk::LoopDisk;
use crate::exam::judge::{Shown, judge_partition};
use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Exam, Outcome};

/// The topic, of one partition.
pub const TOPIC: &str = "full";
const RECORDS: usize = 16;

/// Tries the fault in each round on a new disk of as many bytes as `bytes` says of the round.
pub fn each_disk(
    exam: &Exam,
    tried: &str,
    bytes: impl Fn(u32) -> u64,
    mut attempt: impl FnMut(u32, &LoopDisk, &mut Outcome) -> Result<()>,
) -> Result<Outcome> {
    exam.each_round(tried, |round, outcome| {
        let disk = LoopDisk::create(&exam.work, &format!("disk-{round}"), bytes(round))?;
        attempt(round, &disk, outcome)
    })
}

/// A broker on a small disk, and what it is judged by.
pub struct Opened {
    /// How it is started.
    pub plan: Plan,
    /// It runs.
    pub victim: Victim,
    /// A connection to it.
    pub probe: Probe,
    /// What is sent to [`TOPIC`].
    pub ledger: Ledger,
    /// What was shown of it.
    pub shown: Shown,
    /// The round's own.
    pub random: Random,
}

/// Starts a broker on the disk.
pub fn open(exam: &Exam, round: u32, disk: &LoopDisk) -> Result<Opened> {
    let ledger = Ledger::create(&exam.work.join(format!("ledger-{round}")))?;
    let data = disk.path().join("data");
    let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work));
    let plan = exam.with_amqp(plan)?;
    let victim = plan.start()?;
    let probe = Probe::connect(&victim.kafka)?;
    Ok(Opened {
        plan,
        victim,
        probe,
        ledger,
        shown: Shown::default(),
        random: Random::new(exam.seed.wrapping_add(round.into())),
    })
}

impl Opened {
    /// Produces until it is refused, and requires that it is for the disk.
    pub fn produce_until_refused(
        &mut self,
        patience: Duration,
        value_bytes: usize,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let produce = || produce(&mut self.probe, &self.ledger, &mut self.random, value_bytes);
        let refused = until(patience, produce, |answer| {
            matches!(answer, Answer::Refused(_))
        })?;
        outcome.require(
            refused == Some(Answer::Refused(ErrorCode::KafkaStorageError)),
            || {
                format!(
                    "with the disk full, produce was answered {refused:?}, not KAFKA_STORAGE_ERROR"
                )
            },
        );
        Ok(())
    }

    /// Produces until it is acknowledged again. Gives how long that took; `None` if it is not in time.
    pub fn produce_until_acknowledged(
        &mut self,
        patience: Duration,
        value_bytes: usize,
    ) -> Result<Option<Duration>> {
        acknowledged_again(patience, || {
            produce(&mut self.probe, &self.ledger, &mut self.random, value_bytes)
        })
    }
}

/// Produces one batch of values of `value_bytes`, and notes what came of it.
pub fn produce(
    probe: &mut Probe,
    ledger: &Ledger,
    random: &mut Random,
    value_bytes: usize,
) -> Result<Answer> {
    let payloads = ledger.send(TOPIC, 0, RECORDS, value_bytes, random)?;
    let answer = match probe.produce(TOPIC, 0, batch_of(&payloads, Codec::None, None)?) {
        Ok(answer) => answer,
        Err(error) => {
            ledger.unknown(&payloads)?;
            return Err(error);
        }
    };
    match answer {
        Answer::Acknowledged(offset) => ledger.acknowledged(&payloads, offset)?,
        Answer::Refused(error) => ledger.refused(&payloads, error.code())?,
    }
    Ok(answer)
}

/// Calls `produce` again and again until an answer satisfies `wanted`; `None` if none does in time.
pub fn until(
    patience: Duration,
    mut produce: impl FnMut() -> Result<Answer>,
    wanted: impl Fn(Answer) -> bool,
) -> Result<Option<Answer>> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let answer = produce()?;
        if wanted(answer) {
            return Ok(Some(answer));
        }
        if matches!(answer, Answer::Refused(_)) {
            // A client would wait before it tries again; so does this one.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(None)
}

/// Produces until a batch is acknowledged again. Gives how long that took; `None` if none is in time.
pub fn acknowledged_again(
    patience: Duration,
    produce: impl FnMut() -> Result<Answer>,
) -> Result<Option<Duration>> {
    let began = Instant::now();
    let answer = until(patience, produce, |answer| {
        matches!(answer, Answer::Acknowledged(_))
    })?;
    Ok(answer.map(|_| began.elapsed()))
}

/// Kills the broker, starts it again, and judges what is there then.
pub fn judge_after_kill(
    plan: &Plan,
    mut victim: Victim,
    ledger: &Ledger,
    shown: &Shown,
    outcome: &mut Outcome,
) -> Result<()> {
    victim.kill()?;
    let mut victim = plan.start()?;
    judge(&mut Probe::connect(&victim.kafka)?, ledger, shown, outcome)?;
    victim.terminate()
}

/// Judges everything that can be read now.
pub fn judge(
    probe: &mut Probe,
    ledger: &Ledger,
    shown: &Shown,
    outcome: &mut Outcome,
) -> Result<()> {
    let contents = probe.read_all(TOPIC, 0)?;
    let verdict = judge_partition(TOPIC, 0, &ledger.entries(), &contents, shown, false);
    outcome.checked = outcome.checked.max(verdict.checked);
    outcome.lost += verdict.lost;
    outcome.failures.extend(verdict.failures);
    Ok(())
}
