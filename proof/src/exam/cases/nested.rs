//! Case 2: SIGKILL during recovery, again and again, before the broker may recover in peace.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::exam::cases::crash;
use crate::exam::load::{Load, LoadPlan};
use crate::exam::random::Random;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

/// Kills in a row, each during the recovery from the one before.
const DEPTH: u32 = 20;

/// The case.
pub const CASE: Case = Case {
    number: 2,
    name: "nested-kill",
    about: "kill -9 during recovery, nested 20 deep",
    rounds: Rounds { full: 20, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        ..Outcome::default()
    };
    let mut random = Random::new(exam.seed);
    let load = Load::new(LoadPlan::default(), &exam.work, exam.seed)?;
    let plan = crash::small(Plan::new(&exam.binary, &exam.work.join("data"), &exam.work));
    let mut victim = plan.start()?;
    load.create_topics(&victim.kafka)?;
    let (mut before_ready, mut kills) = (0, 0);
    for round in 1..=exam.rounds {
        let running = load.begin(&victim.kafka);
        // The fault's moment, random under the seed; nothing is waited for here.
        std::thread::sleep(Duration::from_millis(random.between(200, 900)));
        load.fault_begins();
        victim.kill()?;
        running.finish();
        let mut longest = victim.up_in;
        for depth in 1..=DEPTH {
            // Within what a recovery takes, so that most kills hit one.
            let within = u64::try_from(longest.as_micros())? * 3 / 4;
            let after = Duration::from_micros(random.between(500, within.max(2_000)));
            let was_ready = plan
                .start_and_kill(after)
                .with_context(|| format!("round {round}, kill {depth}"))?;
            before_ready += u32::from(!was_ready);
            kills += 1;
        }
        victim = plan
            .start()
            .with_context(|| format!("the start after {DEPTH} kills, round {round}"))?;
        longest = longest.max(victim.up_in);
        outcome.times = round;
        outcome.require(longest <= crash::up_in_max(), || {
            format!("J6 round {round}: up after {longest:?}")
        });
        let judgement = load.judge(&victim.kafka)?;
        outcome.checked = judgement.checked;
        outcome.lost += judgement.lost;
        let failures = judgement.failures.into_iter();
        outcome
            .failures
            .extend(failures.map(|failure| format!("round {round}: {failure}")));
        if !outcome.passed() {
            break;
        }
    }
    outcome.require(before_ready * 2 > kills, || {
        format!("only {before_ready} of {kills} kills came before the broker was ready")
    });
    outcome.notes.push(format!(
        "{before_ready} of {kills} kills came before the broker was ready"
    ));
    victim.terminate()?;
    Ok(outcome)
}
