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
/// Behind the reason of a failure that is the client's own: see [`forgets_its_topics`].
const FORGOT: &str = " (the client did not ask for the topic that it is subscribed to)";

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

    fn fails_by_chance(&self, why: &str) -> bool {
        why.ends_with(FORGOT)
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

/// Whether a consumer never asked for the topics that it is subscribed to. In this version a subscription made while an answer to
/// an earlier request for metadata arrives is forgotten until the metadata is too old, in 5 minutes: `update_metadata` clears
/// the wish that `subscribe` has just noted. The consumer's log has an empty assignment then, and no metadata behind it.
fn forgets_its_topics(output: &str) -> bool {
    let thread = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    output.lines().enumerate().any(|(at, line)| {
        let empty = line.ends_with("Updated partition assignment: []");
        let mut later = output.lines().skip(at + 1);
        let asks = |line: &str| line.contains("Updated metadata: ");
        empty && !later.any(|other| asks(other) && thread(other) == thread(line))
    })
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
    let failed = || match forgets_its_topics(output) {
        true => format!("{}{FORGOT}", reason()),
        false => reason(),
    };
    Some(match word {
        "PASSED" => Outcome::Passed,
        "SKIPPED" | "XFAIL" => Outcome::Skipped(reason()),
        _ => Outcome::Failed(failed()),
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

    /// The lines are of a run that failed in this way, shortened.
    #[test]
    fn a_consumer_that_forgets_its_topics_is_seen_by_its_own_log() {
        let subscribed = "22:53:26.274 INFO     14:MainThread kafka.consumer.subscription_state Updating subscribed topics to: ('t',)\n\
            22:53:26.274 INFO     15:kafka-io-c kafka.cluster           Updated metadata: ClusterMetadata(brokers: 1, topics: 0)\n\
            22:53:26.274 INFO     15:kafka-io-c kafka.consumer.subscription_state Updated partition assignment: []\n";
        let metadata = |thread: &str| {
            format!(
                "22:53:26.380 INFO     {thread} kafka.cluster           Updated metadata: ClusterMetadata(brokers: 1, topics: 1)\n"
            )
        };
        let end =
            "test/a.py::test_y FAILED [100%]\nFAILED test/a.py::test_y - Expected 100, got 0\n";
        let by_chance = |log: &str| {
            let Some(Outcome::Failed(why)) = outcome("test/a.py::test_y", &format!("{log}{end}"))
            else {
                panic!("it has failed");
            };
            KafkaPython.fails_by_chance(&why)
        };
        assert!(by_chance(subscribed));
        assert!(by_chance(&format!(
            "{subscribed}{}",
            metadata("16:p-network-thread")
        )));
        // It asked and was answered: what fails then is another thing.
        assert!(!by_chance(&format!(
            "{subscribed}{}",
            metadata("15:kafka-io-c")
        )));
        assert!(!by_chance(""));
    }
}
