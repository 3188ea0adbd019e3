//! What the cases of full disks share: one topic, batch after batch until an answer comes that is waited for, and its judge.

use std::time::{Duration, Instant};

use anyhow::Result;
use model::codec::Codec;

use crate::exam::Outcome;
use crate::exam::judge::{Shown, judge_partition};
use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe, batch_of};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};

/// The topic, of one partition.
pub const TOPIC: &str = "full";
const RECORDS: usize = 16;

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
