//! Suites: other projects' own test suites, unmodified, from their packages, against our broker: `cargo xtask compat SUITE`
//! or `--all`; `--against kafka` runs the same against Apache Kafka, which shows what a test asks of a broker.
//! Callers: `compat::main`, and `xtask test` for the fast shard.
//!
//! One file per suite (`librdkafka`, `kafka_python`, `rskafka`, `jms`, `qpid_interop`, `quiver`; `go` for those of modules of Go, `mqtt` for those of MQTT,
//! `examples` for those that try a client's examples), which says where it
//! comes from, which of its tests talk to a broker, and how they are run. Those of MQTT and JMS, and but for go-amqp's those of AMQP, lie in no registry: they are run from
//! checkouts beside the project (`--checkout DIR`), and only by name. `list` is the checked-in list of tests, `round` runs them, `verdict` weighs the outcome, `page` writes the tables of
//! `docs/COMPATIBILITY.md`, `fetch` gets packages, `stall` knows a disk that stood still, and `controlled` has what tests of access control and logins need.
//!
//! Invariant: each test of a suite that talks to a broker stands in the suite's list, as passing or as excluded with its
//! reason. A test that stands nowhere, does not pass, is skipped by its own suite or is gone fails the command. `--excluded` runs
//! the excluded ones instead, and fails if one of them passes: so no list keeps a reason that is none any more.

mod controlled;
mod examples;
mod fetch;
mod go;
mod jms;
mod kafka_python;
mod librdkafka;
mod librdkafka_shares;
mod list;
mod mqtt;
mod page;
mod qpid_interop;
mod quiver;
mod round;
mod rskafka;
mod stall;
mod verdict;

use crate::compat::peer::Kind;
use crate::compat::{self, Against};
use anyhow::{Context, Result, ensure};
use list::List;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use verdict::Verdict;
use xtask::{Tally, run};

/// Every suite, in the order of the tables.
static SUITES: &[&dyn Suite] = &[
    &librdkafka::Librdkafka,
    &librdkafka_shares::Shares,
    &kafka_python::KafkaPython,
    &rskafka::Rskafka,
    &go::FRANZ_GO,
    &go::SARAMA,
    &go::KAFKA_GO,
    &mqtt::Conformance,
    &mqtt::Sequences,
    &mqtt::Mosquitto,
    &mqtt::PAHO_5,
    &mqtt::PAHO_3,
    &jms::Interop,
    &qpid_interop::Pairs,
    &go::GO_AMQP,
    &examples::RHEA,
    &examples::PROTON_PYTHON,
    &examples::PROTON_C,
    &examples::PROTON_CPP,
    &quiver::Quiver,
];

/// Somebody else's test suite.
pub trait Suite: Sync {
    /// What it is called on the command line and in the tables.
    fn name(&self) -> &'static str;
    /// The package that it comes from, with its version.
    fn package(&self) -> &'static str;
    /// The directory of its checkout among those that `--checkout` names, if it comes from no registry.
    fn checkout(&self) -> Option<&'static str> {
        None
    }
    /// What `command` is told the place of.
    fn target(&self) -> Target {
        Target::Kafka
    }
    /// Whether its brokers or its tests want a port or a name that there is one of: its batches run one after the other.
    fn runs_alone(&self) -> bool {
        false
    }
    /// Fetches and builds it below `place`, which stays between calls; does nothing if that has been done.
    fn prepare(&self, place: &Path) -> Result<()>;
    /// Its tests that talk to a broker, in the order in which they are run.
    fn batches(&self, place: &Path) -> Result<Vec<Batch>>;
    /// The program that runs the tests of `batch` against `target`; `work` is an empty directory for it.
    fn command(&self, place: &Path, target: &str, batch: &Batch, work: &Path) -> Result<Command>;
    /// Whether a test that failed in these words is run once more, alone: its suite fails it by chance.
    fn fails_by_chance(&self, _why: &str) -> bool {
        false
    }
    /// What became of the tests of `batch`. A test that is not told of has failed.
    fn read(&self, batch: &Batch, ended: &Ended, work: &Path) -> BTreeMap<String, Outcome>;
}

/// What a suite tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A broker that runs, at the address of its listener for the Kafka protocol, and behind it that of its listener
    /// SASL_PLAINTEXT, if its settings name one.
    Kafka,
    /// A broker that runs, at the address where it speaks MQTT.
    Mqtt,
    /// The same, and behind it where it speaks HTTP.
    MqttAndHttp,
    /// A broker that runs, at the address where it speaks AMQP, and behind it that of its listener for the Kafka protocol.
    Amqp,
    /// The broker's program, which the suite starts itself.
    Program,
}

/// Tests that one run of a suite's program covers.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Tells it from the others; also names its log.
    pub name: String,
    /// The tests: all of the batch, or those of them that were asked for.
    pub tests: Vec<String>,
    /// The broker that they want.
    pub broker: Broker,
    /// After so long the program is ended.
    pub seconds_max: u64,
}

/// A broker's name among those of its suite, and its settings beyond the defaults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Broker {
    /// Also names its directory.
    pub name: &'static str,
    /// By Kafka's names.
    pub settings: &'static [(&'static str, &'static str)],
}

/// How a suite's program ended.
pub struct Ended {
    /// None if it took too long or died of a signal.
    pub exit_code: Option<i32>,
    /// All that it printed.
    pub output: String,
}

impl Ended {
    /// Of a program that runs one test: passed if it ended with 0. Else the last line with one of `words` is the reason.
    pub fn by_exit_code(&self, batch: &Batch, words: &[&str]) -> BTreeMap<String, Outcome> {
        let outcome = match self.exit_code {
            Some(0) => Outcome::Passed,
            _ => Outcome::Failed(self.last_with(words)),
        };
        let tests = batch.tests.iter();
        tests.map(|test| (test.clone(), outcome.clone())).collect()
    }

    /// The last line with the first of these words that there is.
    pub fn last_with(&self, words: &[&str]) -> String {
        let by_word = words.iter().find_map(|word| {
            let mut lines = self.output.lines().rev();
            lines.find(|line| line.contains(word))
        });
        by_word.unwrap_or("no word of why").trim().to_string()
    }
}

/// What became of one test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// Its own suite left it out, for this reason.
    Skipped(String),
    /// It failed, in these words.
    Failed(String),
}

/// What of the suites is to be run, and how.
pub struct Wish {
    /// The names of the suites.
    pub names: Vec<String>,
    /// Only tests with this in their names.
    pub filter: Option<String>,
    /// Only the fast shard.
    pub fast: bool,
    /// The excluded tests, and no others: one that passes here fails the command, as nothing is left of its reason.
    pub excluded: bool,
    /// Adds to the list what passed and stood nowhere, and writes the tables of the compatibility page.
    pub write: bool,
    /// Programs that run at the same time, each with brokers of its own.
    pub jobs: usize,
}

/// Whether there is a suite of this name.
pub fn is_known(name: &str) -> bool {
    SUITES.iter().any(|suite| suite.name() == name)
}

/// The names of all suites that a registry has.
pub fn all() -> Vec<String> {
    let from_registries = SUITES.iter().filter(|suite| suite.checkout().is_none());
    from_registries
        .map(|suite| suite.name().to_string())
        .collect()
}

/// A suite as `--list` shows it.
pub fn describe(name: &str) -> Result<String> {
    let suite = find(name)?;
    let list = List::read(suite.name())?;
    Ok(format!(
        "{:<18}{} ({} tests pass, {} are excluded)",
        suite.name(),
        suite.package(),
        list.passing_count(),
        list.excluded_count()
    ))
}

/// Fetches and builds these suites. `checkouts` is the directory of those that no registry has; without it each is taken
/// from where it was the last time.
pub fn prepare(names: &[String], checkouts: Option<&Path>) -> Result<()> {
    for name in names {
        let suite = find(name)?;
        if let (Some(checkouts), Some(directory)) = (checkouts, suite.checkout()) {
            link_checkout(suite, &checkouts.join(directory))?;
        }
        prepare_one(suite)?;
    }
    Ok(())
}

/// The fast shard of every suite, for `xtask test`: see `Wish::fast`.
pub fn run_fast() -> Result<Tally> {
    let wish = Wish {
        names: all(),
        filter: None,
        fast: true,
        excluded: false,
        write: false,
        jobs: 4,
    };
    run(&wish, &compat::alluvium(None)?, Against::Alluvium)
}

/// Runs what is wished for and prints the tables. The tally counts tests.
pub fn run(wish: &Wish, kind: &Kind, against: Against) -> Result<Tally> {
    let mut verdicts = Vec::new();
    for name in &wish.names {
        let suite = find(name)?;
        let place = prepare_one(suite)?;
        let mut list = List::read(suite.name())?;
        let batches = suite.batches(&place)?;
        let chosen = choose(&batches, &list, wish);
        let results = round::run(suite, &place, kind, &chosen, wish.jobs)?;
        let verdict = Verdict::new(suite, &list, &batches, &results, wish, against);
        verdict.print();
        if wish.write && against == Against::Alluvium {
            list.add(verdict.new_tests());
            list.write(suite.name())?;
        }
        verdicts.push(verdict);
    }
    if wish.write && against == Against::Alluvium {
        page::write()?;
    }
    verdict::print_table(&verdicts);
    Ok(Tally {
        passed: verdicts.iter().map(Verdict::passed).sum(),
        failures: verdicts.iter().flat_map(Verdict::failures).collect(),
    })
}

fn find(name: &str) -> Result<&'static dyn Suite> {
    SUITES
        .iter()
        .copied()
        .find(|suite| suite.name() == name)
        .with_context(|| format!("no suite is called {name}"))
}

/// Where a suite lies between runs: below `target/suites`, or `ALLUVIUM_SUITES_CACHE` to share it between checkouts.
fn prepare_one(suite: &dyn Suite) -> Result<PathBuf> {
    let place = place_of(suite)?;
    if let Some(directory) = suite.checkout() {
        ensure!(
            place.join("source").exists(),
            "{} needs --checkout DIR, where DIR/{directory} is a checkout",
            suite.name()
        );
    }
    suite
        .prepare(&place)
        .with_context(|| format!("cannot set up {}, from {}", suite.name(), suite.package()))?;
    Ok(place)
}

fn place_of(suite: &dyn Suite) -> Result<PathBuf> {
    let cache = match std::env::var_os("ALLUVIUM_SUITES_CACHE") {
        Some(directory) => PathBuf::from(directory),
        None => run::target_directory().join("suites"),
    };
    let place = cache.join(suite.name());
    std::fs::create_dir_all(&place)?;
    Ok(place)
}

/// Remembers where the suite's checkout is, as `source` in its place. Nothing is written into the checkout.
fn link_checkout(suite: &dyn Suite, checkout: &Path) -> Result<()> {
    let checkout = std::fs::canonicalize(checkout)
        .with_context(|| format!("there is no checkout {}", checkout.display()))?;
    let link = place_of(suite)?.join("source");
    if link.is_symlink() {
        std::fs::remove_file(&link)?;
    }
    Ok(std::os::unix::fs::symlink(checkout, link)?)
}

/// These directories, and behind them those of the PATH.
fn before_path(first: &[PathBuf]) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = first.iter().cloned().chain(std::env::split_paths(&path));
    std::env::join_paths(all).unwrap_or(path)
}

/// The batches with the tests in them that are to be run; empty ones are left out.
fn choose(batches: &[Batch], list: &List, wish: &Wish) -> Vec<Batch> {
    let wanted = |test: &String| {
        let named = wish
            .filter
            .as_ref()
            .is_none_or(|filter| test.contains(filter.as_str()));
        named
            && if wish.fast {
                list.is_fast(test)
            } else {
                wish.excluded == list.is_excluded(test)
            }
    };
    batches
        .iter()
        .map(|batch| Batch {
            tests: batch
                .tests
                .iter()
                .filter(|test| wanted(test))
                .cloned()
                .collect(),
            ..batch.clone()
        })
        .filter(|batch| !batch.tests.is_empty())
        .collect()
}
