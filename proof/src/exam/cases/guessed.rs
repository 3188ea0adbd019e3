//! Case 51: passwords guessed at speed from many connections, while honest users log in and notice nothing.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::exam::hostile::{Siege, from_address};
use crate::exam::probe::Probe;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};
use crate::secured::{PASSWORD, Secured};

/// The case.
pub const CASE: Case = Case {
    number: 51,
    name: "guessed-logins",
    about: "passwords guessed from 64 connections of 8 addresses at a time, beside an honest load and honest logins",
    rounds: Rounds {
        full: 5_000,
        short: 1_000,
    },
    run,
};

const GUESSERS: u32 = 64;
const ADDRESSES: u32 = 8;
const HONEST: usize = 2;

fn run(exam: &Exam) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: CASE.about.to_owned(),
        times: exam.rounds,
        ..Outcome::default()
    };
    let secured = Secured::make(&exam.work.join("secured"))?;
    let listeners = "PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0";
    let mut plan =
        Plan::new(&exam.binary, &exam.work.join("data"), &exam.work).with("listeners", listeners);
    plan.settings.extend(secured.settings());
    let siege = Siege::of(exam, &plan)?;
    let asking = siege.victim.other("SASL_PLAINTEXT")?;
    let calm: Vec<Duration> = (0..50).map(|_| log_in(&asking)).collect::<Result<_>>()?;
    let ((guesses, during), highest) = siege.endure(|| guess(exam.rounds, &asking))?;
    outcome.require(guesses.entered == 0, || {
        format!("{} guesses were let in", guesses.entered)
    });
    outcome.require(guesses.words.len() == 1, || {
        format!("failures are told in different words: {:?}", guesses.words)
    });
    outcome.require(!during.is_empty(), || {
        "nobody honest logged in meanwhile".to_owned()
    });
    let at = |times: &[Duration], part: usize| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) * part / 100]
    };
    outcome.notes.push(format!(
        "{:.0} guesses a second, {} answered and {} cut off; {} honest logins meanwhile, all let in, half within {:.1?} and 99 % within {:.1?} (before: {:.1?}, {:.1?}); memory {} MiB, before {} MiB",
        f64::from(exam.rounds) / guesses.took.as_secs_f64(),
        guesses.refused,
        guesses.cut,
        during.len(),
        at(&during, 50),
        at(&during, 99),
        at(&calm, 50),
        at(&calm, 99),
        highest >> 20,
        siege.calm_bytes >> 20
    ));
    siege.end(&mut outcome)?;
    Ok(outcome)
}

/// What came of the guesses.
struct Guesses {
    entered: u64,
    refused: u64,
    cut: u64,
    words: Vec<String>,
    took: Duration,
}

fn guess(count: u32, address: &str) -> Result<(Guesses, Vec<Duration>)> {
    let over = AtomicBool::new(false);
    let [entered, refused, cut] = [const { AtomicU64::new(0) }; 3];
    let words = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let began = Instant::now();
    let one = |thread: u32| -> Result<()> {
        for number in (0..count).filter(|number| number % GUESSERS == thread) {
            let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 4, 1)) + thread % ADDRESSES);
            // A user who is there and one who is not, in turns.
            let user = ["alice", "nobody"][number as usize / GUESSERS as usize % 2];
            let mut probe = Probe::over(from_address(from, address)?)?;
            match probe.log_in(user, &format!("guess {number}")) {
                Ok(None) => drop(entered.fetch_add(1, Ordering::Relaxed)),
                Ok(Some(why)) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    words.lock().expect("nobody panics with it").insert(why);
                }
                Err(_) => drop(cut.fetch_add(1, Ordering::Relaxed)),
            }
        }
        Ok(())
    };
    let during = thread::scope(|scope| -> Result<Vec<Duration>> {
        let one = &one;
        let over = &over;
        let honest: Vec<_> = (0..HONEST)
            .map(|_| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut took = vec![log_in(address)?];
                    while !over.load(Ordering::Relaxed) {
                        took.push(log_in(address)?);
                    }
                    Ok(took)
                })
            })
            .collect();
        let guessers: Vec<_> = (0..GUESSERS)
            .map(|thread| scope.spawn(move || one(thread)))
            .collect();
        let guessed = guessers
            .into_iter()
            .try_for_each(|guesser| guesser.join().expect("no guesser panics"));
        over.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for honest in honest {
            took.extend(honest.join().expect("nobody honest panics")?);
        }
        guessed.map(|()| took)
    })?;
    let guesses = Guesses {
        entered: entered.into_inner(),
        refused: refused.into_inner(),
        cut: cut.into_inner(),
        words: words
            .into_inner()
            .expect("nobody panics with it")
            .into_iter()
            .collect(),
        took: began.elapsed(),
    };
    Ok((guesses, during))
}

/// An honest login, and how long it took from the connection on.
fn log_in(address: &str) -> Result<Duration> {
    let began = Instant::now();
    let refused = Probe::connect(address)?.log_in("alice", PASSWORD)?;
    ensure!(refused.is_none(), "an honest login: {refused:?}");
    Ok(began.elapsed())
}
