//! JMS: Qpid's tests of its JMS client against a broker, which no registry has. They are run from a checkout beside the project whose tests
//! are built, as they are there. The broker that they embed is ours instead: classes of `tests/compat/java/interop` stand on the class path
//! where the tests look for it, start our program, and answer from it what they ask of its management.
//! Callers: `suites`. Nothing is written into a checkout.

use super::{Batch, Broker, Ended, Outcome, Suite, Target};
use crate::compat::clients::{JAVAX, JAVAX_PROJECT};
use crate::compat::install::{self, Kit, Places};
use crate::compat::peer;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BROKER: Broker = Broker {
    name: "default",
    settings: &[],
};
const PROJECT: &str = "interop";
const KITS: &[Kit] = &[
    Kit::Java {
        project: PROJECT,
        sources: &[
            "interop/BrokerService.java",
            "interop/Keys.java",
            "interop/ActiveMQConnectionFactory.java",
        ],
    },
    JAVAX,
];
const MODULE: &str = "source/qpid-jms-interop-tests/qpid-jms-activemq-tests";
const PACKAGE: &str = "src/test/java/org/apache/qpid/jms";
/// Where Maven leaves the classes, below the checkout: of the tests, and of the client that they are about.
const BUILT: &[&str] = &[
    "qpid-jms-interop-tests/qpid-jms-activemq-tests/target/test-classes",
    "qpid-jms-client/target/classes",
    "qpid-jms-discovery/target/classes",
];
/// Measures, and is left out by the suite itself.
const BENCHMARKS: &str = "bench";

/// `qpid-jms-interop-tests`: a run for each class.
pub struct Interop;

impl Suite for Interop {
    fn name(&self) -> &'static str {
        "qpid-jms-interop"
    }

    fn package(&self) -> &'static str {
        "checkout of apache/qpid-jms at 3df3338, qpid-jms-interop-tests, with its tests built; run on 28 November 2026"
    }

    fn checkout(&self) -> Option<&'static str> {
        Some("qpid-jms")
    }

    fn target(&self) -> Target {
        Target::Program
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        for built in BUILT {
            let directory = place.join("source").join(built);
            ensure!(directory.is_dir(), "{} is not built", directory.display());
        }
        install::install(&Places::find(), KITS.iter().copied())
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let mut batches = Vec::new();
        for class in classes(place)? {
            let text = fs::read_to_string(&class.file)?;
            let of_class = tests(&text);
            if !of_class.is_empty() {
                batches.push(Batch {
                    tests: of_class
                        .iter()
                        .map(|test| format!("{}.{test}", class.short))
                        .collect(),
                    name: class.short,
                    broker: BROKER,
                    seconds_max: 900,
                });
            }
        }
        ensure!(!batches.is_empty(), "{MODULE} has no tests");
        Ok(batches)
    }

    fn command(&self, place: &Path, target: &str, batch: &Batch, work: &Path) -> Result<Command> {
        let classes = classes(place)?;
        let class = classes.iter().find(|class| class.short == batch.name);
        let class = &class.context("no class of this name")?.full;
        let places = Places::find();
        let source = place.join("source");
        let built = BUILT.iter().map(|built| source.join(built));
        let built: Vec<String> = built.map(|built| built.display().to_string()).collect();
        // What stands in for the broker comes first.
        let classpath = places.classpath(PROJECT)?;
        let (ours, jars) = classpath.split_once(':').context("a class path of two")?;
        // The client of the older API, which the tests use beside the newer one.
        let javax = places.classpath(JAVAX_PROJECT)?;
        let mut command = Command::new("java");
        command
            .current_dir(place.join(MODULE))
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args([
                "-Dorg.slf4j.simpleLogger.logFile=System.err",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-Dorg.slf4j.simpleLogger.log.org.apache.qpid.jms=warn",
                "-Dorg.slf4j.simpleLogger.log.org.apache.qpid.jms.provider=warn",
            ])
            .arg(format!("-Dbroker.program={target}"))
            .arg(format!("-Dbroker.work={}", work.display()))
            .arg(format!("-Djavax.jars={javax}"))
            .arg("-cp")
            .arg(format!("{ours}:{}:{jars}", built.join(":")))
            .arg("org.junit.platform.console.ConsoleLauncher")
            .args([
                "execute",
                "--disable-banner",
                "--disable-ansi-colors",
                "--details=testfeed",
            ]);
        for test in &batch.tests {
            let (_, method) = test.split_once('.').context("a test of a class")?;
            command.arg(format!("--select-method={class}#{method}"));
        }
        Ok(command)
    }

    /// The tests choose ports before the broker listens there: somebody else may have taken one.
    fn fails_by_chance(&self, why: &str) -> bool {
        why.contains("the broker did not start")
    }

    fn read(&self, batch: &Batch, ended: &Ended, work: &Path) -> BTreeMap<String, Outcome> {
        let mut told = feed(&batch.name, &ended.output);
        // What the client got over is our error all the same.
        if let Some(complaint) = peer::complaint(work) {
            let failed = Outcome::Failed(format!("the broker's log: {complaint}"));
            let tests = batch.tests.iter();
            told.extend(tests.map(|test| (test.clone(), failed.clone())));
        }
        told
    }
}

/// A class of tests.
struct Class {
    file: PathBuf,
    full: String,
    short: String,
}

fn classes(place: &Path) -> Result<Vec<Class>> {
    let root = place.join(MODULE).join(PACKAGE);
    let mut found = BTreeMap::new();
    let mut pending = vec![root.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let file = entry?.path();
            let short = file.file_stem().unwrap_or_default().to_string_lossy();
            if file.is_dir() && short != BENCHMARKS {
                pending.push(file);
                continue;
            }
            if !file.is_file() || !(short.ends_with("Test") || short.ends_with("Tests")) {
                continue;
            }
            let below = file.strip_prefix(&root)?.with_extension("");
            let parts = below
                .components()
                .map(|part| part.as_os_str().to_string_lossy());
            let full: Vec<_> = std::iter::once("org.apache.qpid.jms".into())
                .chain(parts)
                .collect();
            let class = Class {
                full: full.join("."),
                short: short.into_owned(),
                file: file.clone(),
            };
            found.insert(class.full.clone(), class);
        }
    }
    Ok(found.into_values().collect())
}

/// The names of a class's tests, as its text has them.
fn tests(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        is_test |= line == "@Test" || line.starts_with("@RepeatedTest(");
        if is_test && let Some((_, rest)) = line.split_once("void ") {
            let (name, _) = rest.split_once('(').unwrap_or((rest, ""));
            found.insert(name.to_owned());
            is_test = false;
        }
    }
    found
}

/// What became of each test of a class, by what JUnit's launcher tells as it goes on. One that is repeated passes if each of them does.
fn feed(class: &str, output: &str) -> BTreeMap<String, Outcome> {
    let mut told = BTreeMap::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((path, word)) = line.rsplit_once(" :: ") else {
            continue;
        };
        let mut parts = path.split(" > ").skip_while(|part| *part != class);
        let Some(method) = parts.nth(1) else { continue };
        let (method, _) = method.split_once('(').unwrap_or((method, ""));
        let test = format!("{class}.{method}");
        let outcome = match word.trim() {
            "STARTED" => continue,
            "SUCCESSFUL" => Outcome::Passed,
            "SKIPPED" => Outcome::Skipped(behind(&mut lines)),
            _ => Outcome::Failed(behind(&mut lines)),
        };
        match told.get(&test) {
            Some(Outcome::Failed(_) | Outcome::Skipped(_)) => {}
            _ => drop(told.insert(test, outcome)),
        }
    }
    told
}

/// The next line, if it belongs to the one before.
fn behind<'a>(lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> String {
    let next = lines.next_if(|line| line.starts_with(['\t', ' ']));
    next.map_or("no word of why", str::trim).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_names_its_tests() {
        let text = "    @Test\n    @Timeout(60)\n    public void testOne() throws Exception {\n    }\n\n    \
                    @RepeatedTest(25)\n    void again() {\n    }\n    private void helps() {\n    }\n";
        let wanted = ["again", "testOne"].map(str::to_owned);
        assert_eq!(super::tests(text), BTreeSet::from(wanted));
    }

    #[test]
    fn a_test_that_is_repeated_passes_if_each_of_them_does() {
        let output = "JUnit Jupiter > C :: STARTED\nJUnit Jupiter > C > a() :: STARTED\nJUnit Jupiter > C > a() :: SUCCESSFUL\n\
                      JUnit Jupiter > C > b() :: SKIPPED\n\tReason: not now\n\
                      JUnit Jupiter > C > r() > repetition 1 of 2 :: FAILED\n\tAssertionError: no\n\t\tat C\n\
                      JUnit Jupiter > C > r() > repetition 2 of 2 :: SUCCESSFUL\nJUnit Jupiter > C > r() :: SUCCESSFUL\n";
        let told = feed("C", output);
        assert_eq!(told["C.a"], Outcome::Passed);
        assert_eq!(told["C.b"], Outcome::Skipped("Reason: not now".to_owned()));
        assert_eq!(
            told["C.r"],
            Outcome::Failed("AssertionError: no".to_owned())
        );
    }
}
