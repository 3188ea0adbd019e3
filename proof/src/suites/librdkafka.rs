//! librdkafka: the C client's own tests, which its Rust bindings' crate carries. Each is a program run of its own, in the
//! suite's full form: its quick form leaves out the larger part of many tests without saying so.
//! Some call Kafka's console tools, as from an unpacked Kafka: `tools` lays them out that way.
//! Callers: `suites`. The tests that it marks as local need no broker and are not counted; neither are the two manual ones.

use super::{Batch, Broker, Ended, Outcome, Suite, controlled, fetch};
use crate::compat;
use crate::compat::install::{self, Places};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::run;

const VERSION: &str = "4.10.0";
/// Members that start at once must find each other: 0102 fails if the first of them is alone for a while.
const REBALANCE_DELAY: (&str, &str) = ("group.initial.rebalance.delay.ms", "500");
const DEFAULT: Broker = Broker {
    name: "default",
    settings: &[
        ("num.partitions", "4"),
        ("auto.create.topics.enable", "true"),
        REBALANCE_DELAY,
    ],
};
const NO_AUTOCREATE: Broker = Broker {
    name: "noautocreate",
    settings: &[
        ("num.partitions", "4"),
        ("auto.create.topics.enable", "false"),
        REBALANCE_DELAY,
    ],
};
/// Access is controlled.
const CONTROLLED: Broker = Broker {
    name: "controlled",
    settings: &[
        ("num.partitions", "4"),
        ("auto.create.topics.enable", "true"),
        REBALANCE_DELAY,
        controlled::AUTHORIZER,
        controlled::OPEN,
    ],
};
/// The same, and clients log in: a login holds as long as the suite's own cluster has it.
const LOGIN: Broker = Broker {
    name: "login",
    settings: &[
        ("num.partitions", "4"),
        ("auto.create.topics.enable", "true"),
        REBALANCE_DELAY,
        controlled::AUTHORIZER,
        controlled::OPEN,
        controlled::LISTENERS,
        controlled::MECHANISMS,
        ("connections.max.reauth.ms", "10000"),
    ],
};
/// Who logs in, and by which password.
const USER: (&str, &str) = ("testuser", "testpass");
/// Tests, or parts of tests, that want to log in.
const ABOUT_LOGINS: &[&str] = &[
    "0081_admin: do_test_DescribeConsumerGroups_with_authorized_ops",
    "0135_sasl_credentials",
    "0142_reauthentication",
];
/// Tests, or parts of tests, that make access control lists or are told who may what.
const ABOUT_ACCESS: &[&str] = &[
    "0081_admin: do_test_CreateAcls",
    "0081_admin: do_test_DescribeAcls",
    "0081_admin: do_test_DeleteAcls",
    "0109_auto_create_topics",
    "0115_producer_auth",
    "0119_consumer_auth",
];
/// Beyond the suite's own time limits.
const SECONDS_MAX: u64 = 900;
/// What the suite is told of the broker: it leaves tests out for older ones.
const BROKER_VERSION: &str = "4.1.0";
/// Scripts that tests call, and what each starts.
const TOOLS: &[(&str, &str)] = &[
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
    ("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"),
];

/// Tests of which only parts need what is not there: their parts are run and counted one by one.
const PARTS: &[(&str, &[&str])] = &[
    (
        "0011_produce_batch",
        &[
            "test_single_partition",
            "test_partitioner",
            "test_per_message_partition_flag",
            "test_message_partitioner_wo_per_message_flag",
            "test_message_single_partition_record_fail",
        ],
    ),
    (
        "0061_consumer_lag",
        &["without transactions", "with transactions"],
    ),
    (
        "0081_admin",
        &[
            "do_test_unclean_destroy",
            "do_test_CreateTopics",
            "do_test_DeleteTopics",
            "do_test_CreatePartitions",
            "do_test_CreateAcls",
            "do_test_DescribeAcls",
            "do_test_DeleteAcls",
            "do_test_AlterConfigs",
            "do_test_IncrementalAlterConfigs",
            "do_test_DescribeConfigs",
            "do_test_DescribeConfigs_groups",
            "do_test_DeleteRecords",
            "do_test_ListConsumerGroups",
            "do_test_DescribeConsumerGroups",
            "do_test_DescribeTopics",
            "do_test_DescribeCluster",
            "do_test_DescribeConsumerGroups_with_authorized_ops",
            "do_test_DeleteGroups",
            "do_test_DeleteConsumerGroupOffsets",
            "do_test_ListOffsets",
            "do_test_AlterConsumerGroupOffsets",
            "do_test_ListConsumerGroupOffsets",
            "do_test_UserScramCredentials",
        ],
    ),
    (
        "0137_barrier_batch_consume",
        &[
            "do_test_consume_batch_with_seek",
            "do_test_consume_batch_store_offset",
            "do_test_consume_batch_with_pause_and_resume_different_batch",
            "do_test_consume_batch_with_pause_and_resume_same_batch",
            "do_test_consume_batch_control_msgs",
        ],
    ),
];

/// The suite.
pub struct Librdkafka;

impl Suite for Librdkafka {
    fn name(&self) -> &'static str {
        "librdkafka"
    }

    fn package(&self) -> &'static str {
        "crate rdkafka-sys 4.10.0 (librdkafka 2.12.1)"
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        tools(place)?;
        let runner = runner(place);
        if runner.is_file() {
            return Ok(());
        }
        // Without it tests that look into the statistics are left out.
        install::need_file(
            Path::new("/usr/include/rapidjson/schema.h"),
            "rapidjson-dev",
        )?;
        let source = fetch::crate_source(place, "rdkafka-sys", VERSION)?.join("librdkafka");
        for steps in [
            &[
                "./configure",
                "--disable-ssl",
                "--disable-gssapi",
                "--disable-curl",
            ][..],
            &["make", "-j2", "libs"],
            &["make", "-j2", "-C", "tests", "build"],
        ] {
            let mut command = Command::new(steps[0]);
            command.args(&steps[1..]).current_dir(&source);
            run::quiet(&mut command)
                .context("it takes a C and a C++ compiler, make and zlib1g-dev")?;
        }
        ensure!(
            runner.is_file(),
            "its tests were built without {}",
            runner.display()
        );
        Ok(())
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let table = fs::read_to_string(sources(place).join("tests/test.c"))?;
        Ok(batches(&entries(&table)?))
    }

    fn command(&self, place: &Path, address: &str, batch: &Batch, work: &Path) -> Result<Command> {
        let (plain, login) = controlled::addresses(address);
        let address = login.unwrap_or(plain);
        let mut text = format!("bootstrap.servers={address}\n");
        if batch.broker == CONTROLLED {
            // They wait for a console tool of Kafka's four times within 20 s, and each starts a virtual machine.
            text += "test.timeout.multiplier=3\n";
        }
        if login.is_some() {
            let (user, password) = USER;
            controlled::add_user(plain, USER)?;
            text += "security.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\n";
            text += &format!("sasl.username={user}\nsasl.password={password}\n");
        }
        let settings = work.join("test.conf");
        fs::write(&settings, text)?;
        let sources = sources(place);
        let libraries = format!("{0}/src:{0}/src-cpp", sources.display());
        let number = batch
            .name
            .split('-')
            .next()
            .expect("a split has a first part");
        let mut command = Command::new(runner(place));
        command
            .current_dir(sources.join("tests"))
            .env("LD_LIBRARY_PATH", libraries)
            .env("RDKAFKA_TEST_CONF", settings)
            .env("TESTS", number)
            .env("TEST_KAFKA_VERSION", BROKER_VERSION)
            .env("KAFKA_PATH", kafka(place))
            .env("BROKERS", address)
            .args(["-p1", "-L", "-s", scenario(batch.broker)]);
        if let Some((_, part)) = batch.tests.first().and_then(|test| test.split_once(": ")) {
            command.env("SUBTESTS", part_filter(part));
        }
        Ok(command)
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        let output = without_colours(&ended.output);
        batch
            .tests
            .iter()
            .filter_map(|test| {
                let told = match test.split_once(": ") {
                    None => outcome(test, &output),
                    Some((whole, part)) => outcome_of_part(whole, part, &output),
                };
                Some((test.clone(), told?))
            })
            .collect()
    }
}

fn sources(place: &Path) -> PathBuf {
    place.join("source/librdkafka")
}

fn kafka(place: &Path) -> PathBuf {
    place.join("kafka")
}

/// Lays Kafka's console tools out as they lie in its distribution.
fn tools(place: &Path) -> Result<()> {
    let classpath = compat::kafka_classpath(&Places::find())?;
    let directory = kafka(place).join("bin");
    fs::create_dir_all(&directory)?;
    for (script, class) in TOOLS {
        let file = directory.join(script);
        let text = format!(
            "#!/bin/sh\nexec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '{classpath}' {class} \"$@\"\n"
        );
        fs::write(&file, text)?;
        fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn runner(place: &Path) -> PathBuf {
    sources(place).join("tests/test-runner")
}

/// A line of the suite's table of tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    broker: Broker,
}

/// The tests of the suite's table that talk to a broker.
pub(super) fn entries(source: &str) -> Result<Vec<Entry>> {
    let (_, table) = source
        .split_once("struct test tests[]")
        .context("test.c has no table of tests")?;
    let (table, _) = table
        .split_once("{NULL}")
        .context("the table does not end")?;
    let entries = table.split("_TEST(").skip(1).filter_map(|entry| {
        let name = entry.split([',', ')']).next()?.trim();
        // Two tests against a mock broker are not marked as local.
        let is_local = entry.contains("TEST_F_LOCAL") || name.ends_with("_mock");
        if is_local || entry.contains("TEST_F_MANUAL") {
            return None;
        }
        let broker = if entry.contains("\"noautocreate\"") {
            NO_AUTOCREATE
        } else {
            broker_for(name)
        };
        Some(Entry {
            name: name.to_string(),
            broker,
        })
    });
    Ok(entries.collect())
}

/// The broker that a test or a part of one wants, if its scenario does not say.
fn broker_for(test: &str) -> Broker {
    if ABOUT_ACCESS.contains(&test) {
        CONTROLLED
    } else if ABOUT_LOGINS.contains(&test) {
        LOGIN
    } else {
        DEFAULT
    }
}

/// The runner leaves out tests of other scenarios than the one that it is told.
fn scenario(broker: Broker) -> &'static str {
    if broker == NO_AUTOCREATE {
        NO_AUTOCREATE.name
    } else {
        DEFAULT.name
    }
}

/// The runner compares with `function:line: title`; a function's name may begin another's.
pub(super) fn part_filter(part: &str) -> String {
    if part.contains(' ') {
        part.to_string()
    } else {
        format!("{part}:")
    }
}

/// The runner chooses tests by number and scenario, and some share theirs. Parts are batches of their own.
fn batches(entries: &[Entry]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for entry in entries {
        if let Some((_, parts)) = PARTS.iter().find(|(test, _)| *test == entry.name) {
            batches.extend(parts.iter().map(|part| {
                let test = format!("{}: {part}", entry.name);
                Batch {
                    name: format!("{}-{part}", entry.name.replace('_', "-")),
                    broker: broker_for(&test),
                    tests: vec![test],
                    seconds_max: SECONDS_MAX,
                }
            }));
            continue;
        }
        let number = entry
            .name
            .split('_')
            .next()
            .expect("a split has a first part");
        let name = format!("{number}-{}", entry.broker.name);
        match batches.iter_mut().find(|batch| batch.name == name) {
            Some(batch) => batch.tests.push(entry.name.clone()),
            None => batches.push(Batch {
                name,
                tests: vec![entry.name.clone()],
                broker: entry.broker,
                seconds_max: SECONDS_MAX,
            }),
        }
    }
    batches
}

/// By the table that the runner prints at its end, or by its word of a failure, after which it may crash on purpose.
pub(super) fn outcome(test: &str, output: &str) -> Option<Outcome> {
    let failure = format!("### Test \"{test}");
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        let told = line.strip_prefix(&failure);
        if told.is_some_and(|rest| rest.starts_with(['"', ' '])) {
            let place = line
                .trim_start_matches('#')
                .split(" at ")
                .nth(1)
                .unwrap_or(line)
                .trim();
            let why = lines.next().unwrap_or_default().trim();
            return Some(Outcome::Failed(format!("{place}: {why}")));
        }
        let mut cells = line.split('|').map(str::trim);
        if cells.next() == Some("") && cells.next() == Some(test) {
            return match cells.next() {
                Some("PASSED") => Some(Outcome::Passed),
                Some("SKIPPED") => {
                    let why = cells.nth(1).unwrap_or_default();
                    Some(Outcome::Skipped(why.to_string()))
                }
                other => Some(Outcome::Failed(format!("{other:?}"))),
            };
        }
    }
    None
}

/// The whole test passes also if no part of it was run.
pub(super) fn outcome_of_part(whole: &str, part: &str, output: &str) -> Option<Outcome> {
    let filter = part_filter(part);
    let has_passed = |line: &str| line.contains(&filter) && line.contains(": PASS (");
    match outcome(whole, output)? {
        Outcome::Passed if !output.lines().any(has_passed) => {
            Some(Outcome::Failed("the part was not run".to_string()))
        }
        told => Some(told),
    }
}

pub(super) fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain += before;
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_tests_tells_who_talks_to_a_broker_and_to_which() {
        let table = r#"struct test tests[] = {
            {.name = "<MAIN>", .flags = TEST_F_LOCAL},
            _TEST(0000_unittests, TEST_F_LOCAL, _THRES(.ucpu = 100.0)),
            _TEST(0045_update, 0, TEST_BRKVER(0, 9, 0, 0)),
            _TEST(0045_remove, 0, .scenario = "noautocreate"),
            _TEST(0045_regex, TEST_F_KNOWN_ISSUE),
            _TEST(0150_telemetry_mock, 0),
            _TEST(8000_idle, TEST_F_MANUAL),
            {NULL}};"#;
        let batches = batches(&entries(table).unwrap());
        let told: Vec<_> = batches
            .iter()
            .map(|batch| {
                (
                    batch.name.as_str(),
                    batch.tests.join(" "),
                    batch.broker.name,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (
                    "0045-default",
                    "0045_update 0045_regex".to_string(),
                    "default"
                ),
                (
                    "0045-noautocreate",
                    "0045_remove".to_string(),
                    "noautocreate"
                ),
            ]
        );
    }

    #[test]
    fn the_runners_output_tells_each_test() {
        let output = without_colours(
            "\u{1b}[31m### Test \"0052_times (part:7)\" failed at 0052-times.c:9:check() at Mon: ###\n\
             Test assertion failed: \"a == b\"\n\
             [0045_update  / 8.2s] [ do_b:9: with a queue: PASS (2.03s) ]\n\
             |\u{1b}[32m 0045_update       |     PASSED |   0.2s \u{1b}[0m|\n\
             |\u{1b}[36m 0028_long         |    SKIPPED |   0.0s \u{1b}[0m|\u{1b}[36m Filtered \u{1b}[0m\n\
             |\u{1b}[31m 0081_admin        |     FAILED |   0.0s \u{1b}[0m|\n",
        );
        assert_eq!(outcome("0045_update", &output), Some(Outcome::Passed));
        assert_eq!(
            outcome("0028_long", &output),
            Some(Outcome::Skipped("Filtered".to_string()))
        );
        assert!(matches!(
            outcome("0081_admin", &output),
            Some(Outcome::Failed(_))
        ));
        assert_eq!(
            outcome("0052_times", &output),
            Some(Outcome::Failed(
                "0052-times.c:9:check(): Test assertion failed: \"a == b\"".to_string()
            ))
        );
        assert_eq!(outcome("0045_upd", &output), None);
        assert_eq!(
            outcome_of_part("0045_update", "do_b", &output),
            Some(Outcome::Passed)
        );
        assert!(matches!(
            outcome_of_part("0045_update", "do_", &output),
            Some(Outcome::Failed(_))
        ));
    }
}
