//! kafka-python: the Python client's own integration tests, from its source package. Each is a run of pytest of its own.
//! Callers: `suites`. All of them talk to a broker; the unit tests beside them do not, and are not counted.

use super::{Batch, Broker, Ended, Outcome, Suite, controlled, fetch};
use crate::compat::install;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::run;

const VERSION: &str = "3.0.12";
/// What the broker has that the suite starts if it is not given one: number 0, 4 partitions, and short sessions.
const BROKER: Broker = Broker {
    name: "default",
    settings: &[
        ("node.id", "0"),
        ("num.partitions", "4"),
        ("group.min.session.timeout.ms", "1000"),
    ],
};
/// The same for tests that make rules.
const CONTROLLED: Broker = Broker {
    name: "controlled",
    settings: &[
        ("node.id", "0"),
        ("num.partitions", "4"),
        controlled::AUTHORIZER,
        controlled::OPEN,
    ],
};
/// What the suite is told of the broker: it leaves tests out for older ones.
const BROKER_VERSION: &str = "4.1";
const SECONDS_MAX: u64 = 180;
const PACKAGES: &[&str] = &[
    "pytest==9.2.0",
    "pytest-timeout==2.4.0",
    "mock==5.2.0",
    "crc32c==2.9.post0",
    "lz4==4.4.5",
    "python-snappy==0.7.3",
    "zstandard==0.25.0",
];

const SERVICE: &str = "\
class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port


class SpawnedService:
    pass
";

/// The suite.
pub struct KafkaPython;

impl Suite for KafkaPython {
    fn name(&self) -> &'static str {
        "kafka-python"
    }

    fn package(&self) -> &'static str {
        "PyPI kafka-python 3.0.12 (source package)"
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        install::python_at(&place.join("python"), PACKAGES)?;
        fetch::python_source(&python(place), place, "kafka-python", VERSION)?;
        // The package leaves both out. Without the first, Python's own package `test` is found instead; the second starts
        // Kafka, and holds nothing but the address of a broker that runs already.
        let tests = place.join("source/test");
        std::fs::write(tests.join("__init__.py"), "")?;
        std::fs::write(tests.join("service.py"), SERVICE)?;
        // Where the suite would look for a Kafka to start, if it were not given one.
        std::fs::create_dir_all(place.join("no-kafka"))?;
        Ok(())
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let mut command = pytest(place, "127.0.0.1:9092");
        command.args(["--collect-only", "-q", "test/integration"]);
        let listing = run::quiet(&mut command).context("pytest cannot list the tests")?;
        let batches: Vec<Batch> = listing
            .lines()
            .filter(|line| line.starts_with("test/integration/") && line.contains("::"))
            .map(|test| Batch {
                name: test.trim_start_matches("test/integration/").to_string(),
                tests: vec![test.to_string()],
                broker: match test.ends_with("_acls") {
                    true => CONTROLLED,
                    false => BROKER,
                },
                seconds_max: SECONDS_MAX,
            })
            .collect();
        ensure!(!batches.is_empty(), "pytest lists no tests:\n{listing}");
        Ok(batches)
    }

    fn command(&self, place: &Path, address: &str, batch: &Batch, _work: &Path) -> Result<Command> {
        let mut command = pytest(place, address);
        command
            .args(["-v", "-rsfE", "--log-level=INFO"])
            .args(&batch.tests);
        Ok(command)
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        let outcomes = batch.tests.iter();
        outcomes
            .filter_map(|test| Some((test.clone(), outcome(test, &ended.output)?)))
            .collect()
    }
}

fn python(place: &Path) -> PathBuf {
    place.join("python/bin/python")
}

fn pytest(place: &Path, address: &str) -> Command {
    let source = place.join("source");
    let mut command = Command::new(python(place));
    command
        .current_dir(&source)
        .env("PYTHONPATH", &source)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("KAFKA_URI", format!("kafka://{address}"))
        .env("KAFKA_VERSION", BROKER_VERSION)
        .env("KAFKA_ROOT", place.join("no-kafka"))
        .args(["-m", "pytest", "-p", "no:cacheprovider"])
        .arg(format!("--rootdir={}", source.display()));
    command
}

/// By pytest's line of the test, and its reason by the summary at the end.
fn outcome(test: &str, output: &str) -> Option<Outcome> {
    let word = output.lines().find_map(|line| {
        let rest = line.strip_prefix(test)?.strip_prefix(' ')?;
        let word = rest.split_whitespace().next()?;
        word.chars().all(|c| c.is_ascii_uppercase()).then_some(word)
    })?;
    let reason = || {
        let heads = ["SKIPPED", "FAILED", "ERROR"];
        let mut lines = output.lines().rev();
        let line = lines.find(|line| heads.iter().any(|head| line.starts_with(head)));
        line.unwrap_or_default().to_string()
    };
    Some(match word {
        "PASSED" => Outcome::Passed,
        "SKIPPED" | "XFAIL" => Outcome::Skipped(reason()),
        _ => Outcome::Failed(reason()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pytests_output_tells_each_test() {
        let output = "test/integration/test_a.py::test_x[1 2] PASSED      [ 50%]\n\
            test/integration/test_a.py::test_y FAILED      [ 75%]\n\
            test/integration/test_a.py::test_z SKIPPED (no) [100%]\n\
            FAILED test/integration/test_a.py::test_y - assert 1 == 2\n";
        let told = |test: &str| outcome(&format!("test/integration/test_a.py::{test}"), output);
        assert_eq!(told("test_x[1 2]"), Some(Outcome::Passed));
        assert!(
            matches!(told("test_y"), Some(Outcome::Failed(why)) if why.ends_with("assert 1 == 2"))
        );
        assert!(matches!(told("test_z"), Some(Outcome::Skipped(_))));
        assert_eq!(told("test_x"), None);
    }
}
