//! The exam: faults that the store must survive, each a command (`cargo xtask exam NAME --seed N`).
//!
//! The frame: a [`Case`] is one file under `cases/` and one row in [`cases::ALL`]. A case drives a *victim* (a real
//! broker process on a disk of its own), loads it through [`load`], and hands what happened to the [`judge`], which
//! compares the [`ledger`] (kept by this process, outside the victim's disk) with what the store shows.
//!
//! Every run prints its seed, and ends in one line: what was tried, how often, what was lost. A case that cannot run
//! here (no root, no loop devices, no strace) fails and says what is missing: it never counts as passed.

mod amqp;
mod cases;
mod disk;
mod hostile;
mod image;
mod jms;
mod judge;
mod kept;
mod later;
mod ledger;
mod load;
pub mod memory_group;
mod mqtt;
mod page;
pub mod probe;
mod queue_ledger;
pub mod random;
mod trace;
pub mod victim;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use victim::Plan;
use xtask::Tally;

/// What `cargo xtask exam` takes.
#[derive(clap::Args, Debug)]
pub struct ExamArgs {
    /// The case: its number or its name. Without it the cases are listed.
    case: Option<String>,
    /// Run every case, and print the table.
    #[arg(long, conflicts_with = "case")]
    all: bool,
    /// The seed of all random choices; printed, so that a failure can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// How often the fault is tried; each case has its own full count.
    #[arg(long)]
    rounds: Option<u32>,
    /// The short form, as the tests run it.
    #[arg(long)]
    short: bool,
    /// JMS clients (Qpid JMS, by Java and Maven) beside the hand-made ones of AMQP, in every case that has these.
    #[arg(long)]
    jms: bool,
    /// Print the outcome as JSON lines.
    #[arg(long)]
    json: bool,
    /// Put the result into the table of docs/reliability.md.
    #[arg(long, conflicts_with_all = ["short", "jms"])]
    write: bool,
    /// The broker's binary (built in release mode when not given).
    #[arg(long, env = "ALLUVIUM_BIN")]
    binary: Option<PathBuf>,
}

/// One way to hurt the store, and what must hold afterwards.
pub struct Case {
    /// The number in the exam's table (`docs/reliability.md`).
    pub number: u32,
    /// A name to call it by.
    pub name: &'static str,
    /// One line: what is done to the store.
    pub about: &'static str,
    /// How often the fault is tried, in full and in the short form.
    pub rounds: Rounds,
    /// Runs it.
    pub run: fn(&Exam) -> Result<Outcome>,
}

/// How often a case tries its fault.
#[derive(Clone, Copy)]
pub struct Rounds {
    /// By default.
    pub full: u32,
    /// In the short form, which the tests run.
    pub short: u32,
}

/// What a case is given.
pub struct Exam {
    /// The seed of all random choices.
    pub seed: u64,
    /// How often to try the fault.
    pub rounds: u32,
    /// The broker's binary.
    pub binary: PathBuf,
    /// A directory of this run's own, removed when it passed.
    pub work: PathBuf,
    /// Whether a load over AMQP has JMS clients, too.
    pub has_jms: bool,
}

impl Exam {
    /// Says on stderr how far the case has come.
    pub fn progress(&self, message: &str) {
        eprintln!("  {message}");
    }

    /// The plan, with AMQP at an address of its own that stays over restarts if JMS clients are to find it again.
    pub fn with_amqp(&self, plan: Plan) -> Result<Plan> {
        Ok(if self.has_jms {
            plan.with("amqp.listen", victim::lasting_address()?)
        } else {
            plan
        })
    }

    /// Tries the fault in each round, from 1 on. `tried` is the outcome's first words; an error names its round.
    pub fn each_round(
        &self,
        tried: &str,
        mut attempt: impl FnMut(u32, &mut Outcome) -> Result<()>,
    ) -> Result<Outcome> {
        let mut outcome = Outcome {
            tried: tried.to_owned(),
            ..Outcome::default()
        };
        for round in 1..=self.rounds {
            attempt(round, &mut outcome).with_context(|| format!("round {round}"))?;
            outcome.times = round;
        }
        Ok(outcome)
    }
}

/// What came of a case: the facts of its last line.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was tried, in words.
    pub tried: String,
    /// How often.
    pub times: u32,
    /// Acknowledged records that were checked.
    pub checked: u64,
    /// Acknowledged records that were lost.
    pub lost: u64,
    /// What did not hold. Empty means passed.
    pub failures: Vec<String>,
    /// What else is worth knowing: times, counts.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Whether everything held.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// Notes a failure unless `holds`.
    pub fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(what());
        }
    }
}

/// Runs what the arguments ask for; an error if any case did not pass.
pub fn run(args: &ExamArgs) -> Result<()> {
    let tally = examine(args)?;
    if !tally.failures.is_empty() {
        bail!("exam: not passed:\n{}", tally.failures.join("\n"));
    }
    Ok(())
}

/// Runs what the arguments ask for. The tally counts cases.
fn examine(args: &ExamArgs) -> Result<Tally> {
    let chosen: Vec<&Case> = match (&args.case, args.all) {
        (None, false) => {
            println!("{:>3}  {:<16} what is done to the store", "#", "name");
            for case in cases::ALL {
                println!("{:>3}  {:<16} {}", case.number, case.name, case.about);
            }
            println!("\nrun one with `cargo xtask exam NAME [--seed N]`, or `--all`");
            return Ok(Tally::default());
        }
        (None, true) => cases::ALL.iter().collect(),
        (Some(name), _) => {
            let found = cases::ALL
                .iter()
                .find(|case| case.name == name || case.number.to_string() == *name);
            vec![found.with_context(|| {
                let names: Vec<&str> = cases::ALL.iter().map(|case| case.name).collect();
                format!("no exam case `{name}`; there are: {}", names.join(", "))
            })?]
        }
    };
    if let (true, [case]) = (args.jms, &chosen[..])
        && !cases::WITH_AMQP.contains(&case.number)
    {
        bail!(
            "case {} has no clients of AMQP, and --jms would change nothing; these have: {:?}",
            case.number,
            cases::WITH_AMQP
        );
    }
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => victim::build_release()?,
    };
    let seed = match args.seed {
        Some(seed) => seed,
        None => random::fresh_seed(),
    };
    let mut tally = Tally::default();
    for case in &chosen {
        let rounds = args.rounds.unwrap_or(if args.short {
            case.rounds.short
        } else {
            case.rounds.full
        });
        eprintln!(
            "exam {} ({}): {}; seed {seed}, {rounds} rounds",
            case.number, case.name, case.about
        );
        let work = tempfile::Builder::new()
            .prefix("exam-")
            .tempdir()
            .context("a directory for the exam")?;
        let exam = Exam {
            seed,
            rounds,
            binary: binary.clone(),
            work: work.path().to_path_buf(),
            has_jms: args.jms && cases::WITH_AMQP.contains(&case.number),
        };
        let begun = Instant::now();
        let outcome = (case.run)(&exam).unwrap_or_else(|error| Outcome {
            tried: case.about.to_owned(),
            failures: vec![format!("could not be carried out: {error:#}")],
            ..Outcome::default()
        });
        let seconds = begun.elapsed().as_secs_f64();
        report(args, case, seed, &outcome, seconds);
        if args.write {
            page::write(case, &page::result(seed, &outcome, seconds))?;
        }
        if outcome.passed() {
            tally.passed += 1;
        } else {
            let (number, name) = (case.number, case.name);
            let why = outcome.failures.join("; ");
            tally.fail(format!("case {number} {name}, seed {seed}: {why}"));
            eprintln!("  what was left of it: {}", work.keep().display());
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed());
    Ok(tally)
}

/// The short form of the fast cases, as `cargo xtask test` runs it. The tally counts cases.
pub fn run_short() -> Result<Tally> {
    let mut args = ExamArgs {
        case: None,
        all: false,
        seed: None,
        rounds: None,
        short: true,
        jms: false,
        json: false,
        write: false,
        binary: std::env::var_os("ALLUVIUM_BIN").map(PathBuf::from),
    };
    if args.binary.is_none() {
        args.binary = Some(victim::build_release()?);
    }
    let mut tally = Tally::default();
    // At the end: what Java needs is being downloaded meanwhile.
    let fast = cases::FAST.iter().map(|number| (number, false));
    for (number, jms) in fast.chain([(&cases::WITH_JMS, true)]) {
        args.case = Some(number.to_string());
        args.jms = jms;
        match examine(&args) {
            Ok(found) => tally.add(found),
            Err(error) => {
                eprintln!("{error:#}");
                tally.fail(format!("case {number}: {error:#}"));
            }
        }
    }
    Ok(tally)
}

fn report(args: &ExamArgs, case: &Case, seed: u64, outcome: &Outcome, seconds: f64) {
    for failure in &outcome.failures {
        eprintln!("  did not hold: {failure}");
    }
    for note in &outcome.notes {
        eprintln!("  {note}");
    }
    if args.json {
        let line = serde_json::json!({
            "case": case.number, "name": case.name, "seed": seed, "passed": outcome.passed(), "tried": outcome.tried,
            "times": outcome.times, "checked": outcome.checked, "lost": outcome.lost, "failures": outcome.failures,
            "notes": outcome.notes, "seconds": seconds,
        });
        println!("{line}");
        return;
    }
    println!(
        "case {} {}: {} | tried: {}, {} times | {} acknowledged records checked, {} lost | seed {seed}, {seconds:.1} s",
        case.number,
        case.name,
        if outcome.passed() { "PASSED" } else { "FAILED" },
        outcome.tried,
        outcome.times,
        outcome.checked,
        outcome.lost,
    );
}
