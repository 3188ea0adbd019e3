//! The tests of share consumers (KIP-932) that librdkafka has since 2.15, which no registry carries. They are run from a checkout beside the
//! project in which the library and its tests are built, as they are there. Its tests against a broker of its own making are not counted.
//! Callers: `suites`. Nothing is written into a checkout.

use super::librdkafka::{entries, outcome, outcome_of_part, part_filter, without_colours};
use super::{Batch, Broker, Ended, Outcome, Suite};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the tests are called that are run.
const ABOUT_SHARES: &str = "_share_consumer_";
const BROKER: Broker = Broker {
    name: "default",
    settings: &[
        ("num.partitions", "4"),
        ("auto.create.topics.enable", "true"),
    ],
};
const SECONDS_MAX: u64 = 900;
/// What the suite is told of the broker: it leaves these tests out for those before 4.2.
const BROKER_VERSION: &str = "4.3.0";
/// Tests of which only parts need what is not there: their parts are run and counted one by one.
const PARTS: &[(&str, &[&str])] = &[(
    "0179_share_consumer_destroy",
    &[
        "do_test_destroy_with_subscribe_unsubscribe",
        "do_test_destroy_with_explicit_ack",
        "do_test_destroy_with_implicit_ack",
        "do_test_destroy_with_mixed_acks_and_commits",
    ],
)];

/// `librdkafka-shares`: a run for each test.
pub struct Shares;

impl Suite for Shares {
    fn name(&self) -> &'static str {
        "librdkafka-shares"
    }

    fn package(&self) -> &'static str {
        "checkout of confluentinc/librdkafka at 4c3b017 (2.15.0), its tests of share consumers, with its tests built; run on 28 November 2026"
    }

    fn checkout(&self) -> Option<&'static str> {
        Some("librdkafka")
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        let runner = runner(place);
        ensure!(runner.is_file(), "{} is not built", runner.display());
        Ok(())
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let table = fs::read_to_string(place.join("source/tests/test.c"))?;
        let names = entries(&table)?.into_iter().map(|entry| entry.name);
        let mut batches = Vec::new();
        for name in names.filter(|name| name.contains(ABOUT_SHARES)) {
            let batch = |test: String| Batch {
                name: test.replace(": ", "-"),
                tests: vec![test],
                broker: BROKER,
                seconds_max: SECONDS_MAX,
            };
            match PARTS.iter().find(|(test, _)| *test == name) {
                Some((_, parts)) => {
                    batches.extend(parts.iter().map(|part| batch(format!("{name}: {part}"))));
                }
                None => batches.push(batch(name)),
            }
        }
        ensure!(!batches.is_empty(), "it has no tests of share consumers");
        Ok(batches)
    }

    fn command(&self, place: &Path, address: &str, batch: &Batch, work: &Path) -> Result<Command> {
        let settings = work.join("test.conf");
        // Its limits are for one test on a machine of its own.
        let text = format!("bootstrap.servers={address}\ntest.timeout.multiplier=3\n");
        fs::write(&settings, text)?;
        let test = batch.tests.first().context("a test")?;
        let number = test.split('_').next().context("a number")?;
        let sources = place.join("source");
        let libraries = format!("{0}/src:{0}/src-cpp", sources.display());
        let mut command = Command::new(runner(place));
        command
            .current_dir(work)
            .env("LD_LIBRARY_PATH", libraries)
            .env("RDKAFKA_TEST_CONF", settings)
            .env("TESTS", number)
            .env("TEST_KAFKA_VERSION", BROKER_VERSION)
            .env("BROKERS", address)
            .args(["-p1", "-L"]);
        if let Some((_, part)) = test.split_once(": ") {
            command.env("SUBTESTS", part_filter(part));
        }
        Ok(command)
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        let output = without_colours(&ended.output);
        let told = |test: &String| match test.split_once(": ") {
            None => outcome(test, &output),
            Some((whole, part)) => outcome_of_part(whole, part, &output),
        };
        let tests = batch.tests.iter();
        tests
            .filter_map(|test| Some((test.clone(), told(test)?)))
            .collect()
    }
}

fn runner(place: &Path) -> PathBuf {
    place.join("source/tests/test-runner")
}
