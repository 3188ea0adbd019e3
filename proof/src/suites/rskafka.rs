//! rskafka: the Rust client's own integration tests, from its crate, also those in which librdkafka writes and reads.
//! Callers: `suites`. Its unit tests do not talk to a broker and are not counted.

use super::{Batch, Broker, Ended, Outcome, Suite, controlled, fetch};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::run;

const VERSION: &str = "0.6.0";
/// As in the suite's own CI: topics come into being only when they are asked for.
const BROKER: Broker = Broker {
    name: "default",
    settings: &[("auto.create.topics.enable", "false")],
};
/// The same for the test that logs in.
const LOGIN: Broker = Broker {
    name: "login",
    settings: &[
        ("auto.create.topics.enable", "false"),
        controlled::LISTENERS,
        controlled::MECHANISMS,
    ],
};
/// Who logs in, and by which password.
const USER: (&str, &str) = ("admin", "admin-secret");
const SECONDS_MAX: u64 = 120;
/// Its files of integration tests; the others help them.
const FILES: &[&str] = &["client", "consumer", "produce_consume", "producer"];
/// It expects that there is no broker at another address, and none is asked.
const LOCAL: &[&str] = &["test_client_backoff_terminates"];

/// The suite.
pub struct Rskafka;

impl Suite for Rskafka {
    fn name(&self) -> &'static str {
        "rskafka"
    }

    fn package(&self) -> &'static str {
        "crate rskafka 0.6.0"
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        let source = fetch::crate_source(place, "rskafka", VERSION)?;
        let stamp = place.join("freed.stamp");
        if !stamp.exists() {
            free(&source)?;
            // Its lock file holds a dependency that was withdrawn.
            run::quiet(cargo(place).args(["update", "-p", "rsasl"]))?;
            fs::write(&stamp, "")?;
        }
        let mut command = tests(place);
        run::quiet(command.arg("--no-run")).context("it takes a C compiler, cmake and a JDK")?;
        Ok(())
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let mut batches = Vec::new();
        for file in FILES {
            let mut command = cargo(place);
            command.args([
                "test", "--quiet", "--test", file, "--", "--list", "--format", "terse",
            ]);
            let listing = run::quiet(&mut command)?;
            let names = listing
                .lines()
                .filter_map(|line| line.strip_suffix(": test"));
            let names = names.filter(|name| !LOCAL.contains(name));
            batches.extend(names.map(|name| Batch {
                name: format!("{file}-{name}"),
                tests: vec![format!("{file}::{name}")],
                broker: match name {
                    "test_sasl" => LOGIN,
                    _ => BROKER,
                },
                seconds_max: SECONDS_MAX,
            }));
        }
        Ok(batches)
    }

    fn command(&self, place: &Path, address: &str, batch: &Batch, _work: &Path) -> Result<Command> {
        let test = batch.tests.first().context("a batch has a test")?;
        let (file, name) = test.split_once("::").context("FILE::TEST")?;
        let (address, login) = controlled::addresses(address);
        let mut command = cargo(place);
        if let Some(login) = login {
            controlled::add_user(address, USER)?;
            command.env("KAFKA_SASL_CONNECT", login);
        }
        command
            .env("TEST_INTEGRATION", "1")
            .env("TEST_JAVA_INTEROPT", "1")
            .env("TEST_BROKER_IMPL", "kafka")
            .env("KAFKA_CONNECT", address)
            .args(["test", "--quiet", "--test", file, "--", "--exact", name])
            .args(["--nocapture", "--test-threads=1"]);
        Ok(command)
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        // It leaves tests out by ending them early, which counts as passed.
        let early = ended
            .output
            .lines()
            .find(|line| line.to_lowercase().starts_with("skipping"));
        let passed =
            ended.exit_code == Some(0) && ended.output.contains("test result: ok. 1 passed");
        let outcome = if let Some(word) = early {
            Outcome::Skipped(word.to_string())
        } else if passed {
            Outcome::Passed
        } else {
            Outcome::Failed(complaint(&ended.output))
        };
        batch
            .tests
            .iter()
            .map(|test| (test.clone(), outcome.clone()))
            .collect()
    }
}

/// It lies inside of our workspace, but is none of its members, and is built by the toolchain that is there.
fn free(source: &Path) -> Result<()> {
    let pin = source.join("rust-toolchain.toml");
    if pin.exists() {
        fs::remove_file(pin)?;
    }
    let manifest = source.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    if !text.contains("[workspace]") {
        fs::write(&manifest, text + "\n[workspace]\n")?;
    }
    Ok(())
}

fn cargo(place: &Path) -> Command {
    let mut command = run::cargo();
    command
        .current_dir(place.join("source"))
        .env("CARGO_TARGET_DIR", target(place))
        // Nobody debugs them, and it is most of a gigabyte.
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    command
}

fn target(place: &Path) -> PathBuf {
    place.join("target")
}

fn tests(place: &Path) -> Command {
    let mut command = cargo(place);
    command.args(["test", "--quiet"]);
    for file in FILES {
        command.args(["--test", file]);
    }
    command
}

/// The panic and what it says.
fn complaint(output: &str) -> String {
    let mut lines = output
        .lines()
        .skip_while(|line| !line.contains("panicked at"));
    let place = lines.next().unwrap_or("no panic").trim();
    format!("{place} {}", lines.next().unwrap_or_default().trim())
}
