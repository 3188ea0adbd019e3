//! MQTT: the suites of others for MQTT, which no registry has. Each is run from a checkout beside the project, as it is there:
//! `mqtt5-conformance` of LabOverWire/mqtt-lib, whose program has to be built; mosquitto's packet sequences, and its tests of a
//! broker, which find ours where they look for mosquitto; paho's interoperability tests for both versions.
//! Callers: `suites`. What starts them here lies in `tests/compat/mqtt`. Nothing is written into a checkout.

use super::{Batch, Broker, Ended, Outcome, Suite, Target};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::run;

const BROKER: Broker = Broker {
    name: "default",
    settings: &[],
};
/// paho waits for the end of a keep alive, and wants to be told of one of 60 s.
const PAHO_BROKER: Broker = Broker {
    name: "default",
    settings: &[("mqtt.keepalive.max.seconds", "60")],
};

/// `mqtt5-conformance`: a run for each of its modules.
pub struct Conformance;

impl Suite for Conformance {
    fn name(&self) -> &'static str {
        "mqtt5-conformance"
    }

    fn package(&self) -> &'static str {
        "checkout of LabOverWire/mqtt-lib at fcdebe0, with its program built; run on 27 November 2026"
    }

    fn checkout(&self) -> Option<&'static str> {
        Some("mqtt-lib")
    }

    fn target(&self) -> Target {
        Target::MqttAndHttp
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        conformance_program(place).map(drop)
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let work = place.join("list");
        fs::create_dir_all(&work)?;
        let mut command = conformance(place, "127.0.0.1:1883 127.0.0.1:8080", &work)?;
        let listing = run::quiet(command.arg("--list"))?;
        let mut modules: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in listing.lines() {
            let Some(test) = line.trim().strip_suffix(": test").map(plain_name) else {
                continue;
            };
            let module = test.split("::").next().unwrap_or_default().to_string();
            modules.entry(module).or_default().push(test);
        }
        ensure!(!modules.is_empty(), "no tests are listed:\n{listing}");
        Ok(modules
            .into_iter()
            .map(|(name, tests)| Batch {
                name,
                tests,
                broker: BROKER,
                seconds_max: 600,
            })
            .collect())
    }

    fn command(&self, place: &Path, target: &str, batch: &Batch, work: &Path) -> Result<Command> {
        let mut command = conformance(place, target, work)?;
        command.arg(match &batch.tests[..] {
            [test] => test.split(" [").next().unwrap_or_default().to_string(),
            _ => format!("{}::", batch.name),
        });
        Ok(command)
    }

    /// Its client waits for an ack only after it has sent what is acknowledged, and loses one that is faster, for 30 s.
    fn fails_by_chance(&self, why: &str) -> bool {
        why.contains("Timeout(")
    }

    fn read(&self, _batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        let lines = ended.output.lines();
        lines
            .filter_map(|line| {
                let (test, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
                let outcome = match word.trim() {
                    "ok" => Outcome::Passed,
                    "ignored" => Outcome::Skipped(missing(test)),
                    _ => Outcome::Failed(reason_of(test.trim(), &ended.output)),
                };
                Some((plain_name(test.trim()), outcome))
            })
            .collect()
    }
}

/// Its program, in one of the places where cargo leaves it.
fn conformance_program(place: &Path) -> Result<PathBuf> {
    let built = place.join("source/target");
    let profiles = ["debug", "conformance", "release"];
    let mut programs = profiles.map(|profile| built.join(profile).join("mqtt5-conformance"));
    let found = programs.iter_mut().find(|program| program.exists());
    found.map(std::mem::take).with_context(|| {
        format!(
            "{} has no built mqtt5-conformance",
            place.join("source").display()
        )
    })
}

/// What we offer, in the suite's words, and where. What is not offered is not tested there, and stands in the list with its reason.
fn conformance(place: &Path, target: &str, work: &Path) -> Result<Command> {
    let told = work.join("alluvium.toml");
    let (mqtt, http) = target.split_once(' ').context("two addresses")?;
    fs::write(
        &told,
        format!(
            "name = \"alluvium\"\naddress = \"mqtt://{mqtt}\"\nws_address = \"ws://{http}/mqtt\"\n\n[capabilities]\nmax_qos = 2\n\
             retain_available = true\nshared_subscription_available = true\ntopic_alias_maximum = 16\n\
             server_receive_maximum = 64\nmaximum_packet_size = 1048576\nserver_keep_alive = 300\n\n\
             [capabilities.transports]\ntcp = true\nwebsocket = true\n"
        ),
    )?;
    let mut command = Command::new(conformance_program(place)?);
    command.arg("--sut").arg(told);
    Ok(command)
}

/// A test's name without what is the same in all, and without what it would need.
fn plain_name(told: &str) -> String {
    let (name, _) = told.split_once(" [missing: ").unwrap_or((told, ""));
    let place = "mqtt5_conformance::conformance_tests::";
    name.trim_start_matches(place).to_string()
}

fn missing(told: &str) -> String {
    let what = told.split_once(" [missing: ").map(|(_, what)| what);
    what.map_or(String::new(), |what| {
        format!("needs {}", what.trim_end_matches(']'))
    })
}

/// What a test said when it failed, in one line.
fn reason_of(test: &str, output: &str) -> String {
    let head = format!("---- {test} ----");
    let told = output.split_once(&head).map_or("", |(_, told)| told);
    let lines = told.lines().skip(1).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// mosquitto's packet sequences: a run for each of its files.
pub struct Sequences;

const MOSQUITTO_TESTS: &str = "source/test/broker";

impl Suite for Sequences {
    fn name(&self) -> &'static str {
        "mosquitto-sequences"
    }

    fn package(&self) -> &'static str {
        "checkout of eclipse-mosquitto/mosquitto at 7b8aba1, test/broker/data; run on 27 November 2026"
    }

    fn checkout(&self) -> Option<&'static str> {
        Some("mosquitto")
    }

    fn target(&self) -> Target {
        Target::Mqtt
    }

    fn prepare(&self, _place: &Path) -> Result<()> {
        Ok(())
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let mut command = sequences(place);
        let listing = run::quiet(command.arg("--list"))?;
        let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for test in listing.lines() {
            let (file, _) = test.split_once(':').context("a sequence has a file")?;
            files.entry(file).or_default().push(test.to_string());
        }
        ensure!(!files.is_empty(), "no sequences are listed");
        Ok(files
            .into_iter()
            .map(|(name, tests)| Batch {
                name: name.to_string(),
                tests,
                broker: BROKER,
                seconds_max: 600,
            })
            .collect())
    }

    fn command(&self, place: &Path, target: &str, batch: &Batch, work: &Path) -> Result<Command> {
        let wanted = work.join("wanted");
        fs::write(&wanted, batch.tests.join("\n"))?;
        let mut command = sequences(place);
        command.arg(target).arg(wanted);
        Ok(command)
    }

    fn read(&self, _batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        let lines = ended.output.lines();
        let told = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        told.filter_map(|told| {
            let outcome = match told["failure"].as_str() {
                Some(why) => Outcome::Failed(why.to_string()),
                None => Outcome::Passed,
            };
            Some((told["test"].as_str()?.to_string(), outcome))
        })
        .collect()
    }
}

fn sequences(place: &Path) -> Command {
    let mut command = python("sequences.py");
    command.arg(place.join(MOSQUITTO_TESTS));
    command
}

/// mosquitto's tests of a broker, those of the standard's features: each a run that starts brokers by itself.
pub struct Mosquitto;

/// What the others are about: bridges, mosquitto's certificates, plugins, control and command line, formats of files.
const CHAPTERS: &[&str] = &["01", "02", "03", "04", "05", "07", "11", "12", "13", "15"];

impl Suite for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto-tests"
    }

    fn package(&self) -> &'static str {
        "checkout of eclipse-mosquitto/mosquitto at 7b8aba1, test/broker 01 to 05, 07, 11 to 13, 15; run on 27 November 2026"
    }

    fn checkout(&self) -> Option<&'static str> {
        Some("mosquitto")
    }

    fn target(&self) -> Target {
        Target::Program
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        let programs = place.join("root/src");
        fs::create_dir_all(&programs)?;
        let shim = ours("mosquitto");
        let link = programs.join("mosquitto");
        if !link.exists() {
            std::os::unix::fs::symlink(shim, link)?;
        }
        Ok(())
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let list = fs::read_to_string(place.join(MOSQUITTO_TESTS).join("test.py"))?;
        let rows = list.lines().filter_map(row);
        let tests: BTreeSet<&str> = rows.map(|row| row.test).collect();
        ensure!(!tests.is_empty(), "test.py lists no tests");
        let wanted = |test: &&&str| CHAPTERS.iter().any(|chapter| test.starts_with(chapter));
        Ok(tests
            .iter()
            .filter(wanted)
            .map(|test| Batch {
                name: (*test).to_string(),
                tests: vec![(*test).to_string()],
                broker: BROKER,
                seconds_max: 90,
            })
            .collect())
    }

    fn command(&self, place: &Path, target: &str, batch: &Batch, work: &Path) -> Result<Command> {
        let tests = place.join(MOSQUITTO_TESTS);
        let list = fs::read_to_string(tests.join("test.py"))?;
        let row = list
            .lines()
            .filter_map(row)
            .find(|row| row.test == batch.name);
        let row = row.with_context(|| format!("test.py has no {}", batch.name))?;
        let mut command = python("mosquitto_test.py");
        command
            .current_dir(work)
            .env("PYTHONPATH", ours(""))
            .env("BUILD_ROOT", place.join("root"))
            .env("BROKER_PROGRAM", target)
            .env("BROKER_WORK", work)
            .arg(tests.join(row.test));
        if row.persists {
            command.arg("persist_alluvium");
        }
        for _ in 0..row.ports {
            command.arg(free_port()?.to_string());
        }
        Ok(command)
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        ended.by_exit_code(batch, &["not to be had here", "FAIL", "Error"])
    }
}

/// A line of mosquitto's own list of tests.
struct Row<'a> {
    test: &'a str,
    ports: usize,
    persists: bool,
}

fn row(line: &str) -> Option<Row<'_>> {
    let (ports, rest) = line.trim().strip_prefix('(')?.split_once(", './")?;
    let (test, rest) = rest.split_once('\'')?;
    Some(Row {
        test,
        ports: ports.parse().ok()?,
        persists: rest.contains("persist_"),
    })
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// paho's interoperability tests of a version: each a run of its own, which begins by removing what the one before it left.
pub struct Paho {
    name: &'static str,
    package: &'static str,
    file: &'static str,
}

/// MQTT 5.
pub static PAHO_5: Paho = Paho {
    name: "paho-mqtt5",
    package: "checkout of eclipse-paho/paho.mqtt.testing at 9d7bb80, client_test5.py; run on 27 November 2026",
    file: "source/interoperability/client_test5.py",
};

/// MQTT 3.1.1.
pub static PAHO_3: Paho = Paho {
    name: "paho-mqtt3",
    package: "checkout of eclipse-paho/paho.mqtt.testing at 9d7bb80, client_test.py; run on 27 November 2026",
    file: "source/interoperability/client_test.py",
};

impl Suite for Paho {
    fn name(&self) -> &'static str {
        self.name
    }

    fn package(&self) -> &'static str {
        self.package
    }

    fn checkout(&self) -> Option<&'static str> {
        Some("paho.mqtt.testing")
    }

    fn target(&self) -> Target {
        Target::Mqtt
    }

    fn prepare(&self, _place: &Path) -> Result<()> {
        Ok(())
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let text = fs::read_to_string(place.join(self.file))?;
        let names = text.lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("    def ")?.split_once('(')?;
            name.starts_with("test").then(|| name.to_string())
        });
        let batches: Vec<Batch> = names
            .map(|test| Batch {
                name: test.clone(),
                tests: vec![test],
                broker: PAHO_BROKER,
                seconds_max: 180,
            })
            .collect();
        if batches.is_empty() {
            bail!("{} has no tests", self.file);
        }
        Ok(batches)
    }

    fn command(&self, place: &Path, target: &str, batch: &Batch, _work: &Path) -> Result<Command> {
        let mut command = python("interoperability.py");
        command
            .arg(place.join(self.file))
            .arg(target)
            .args(&batch.tests);
        Ok(command)
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        ended.by_exit_code(batch, &["Error", "Exception"])
    }
}

/// A script of ours below `tests/compat/mqtt`, which leaves nothing beside what it imports.
fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(ours(script));
    command
}

fn ours(name: &str) -> PathBuf {
    run::workspace().join("tests/compat/mqtt").join(name)
}
