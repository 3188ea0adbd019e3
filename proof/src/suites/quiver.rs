//! quiver: a load generator for brokers of AMQP with a sender and a receiver ("arrow") by each of several clients, which no registry has. It is run from a checkout
//! beside the project that is built, as it is there: each arrow sends to each, and JMS's in transactions.
//! Callers: `suites`. Nothing is written into a checkout. What its arrows are counted by is whether all came, not how fast.

use super::{Batch, Broker, Ended, Outcome, Suite, Target};
use crate::compat::install;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const BROKER: Broker = Broker {
    name: "default",
    settings: &[],
};
/// Its own programs are in Python.
const PACKAGES: &[&str] = &["python-qpid-proton==0.40.0", "numpy==2.2.6"];
/// Its arrows that speak AMQP, but for those for .NET and for ProtonJ2: that wants a version which Maven has no more.
const ARROWS: &[&str] = &[
    "qpid-jms",
    "qpid-proton-c",
    "qpid-proton-cpp",
    "qpid-proton-python",
    "rhea",
    "vertx-proton",
];
/// Those that have transactions.
const TRANSACTED: &[&str] = &["qpid-jms"];
const IN_TRANSACTIONS: &str = " in transactions";
/// How many messages; they are durable, and have ids.
const COUNT: &str = "1000";
/// Of what is sent in a transaction.
const TRANSACTION: &str = "10";
/// After so many seconds without a message it gives up.
const TIMEOUT: &str = "60";

/// A run for each sender and receiver.
pub struct Quiver;

impl Suite for Quiver {
    fn name(&self) -> &'static str {
        "quiver"
    }

    fn package(&self) -> &'static str {
        "checkout of ssorj/quiver at b416dd8, built, with npm's rhea in it; run on 28 November 2026"
    }

    fn checkout(&self) -> Option<&'static str> {
        Some("quiver")
    }

    fn target(&self) -> Target {
        Target::Amqp
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        for arrow in ARROWS {
            let name = format!("source/build/quiver/impls/quiver-arrow-{arrow}");
            let file = place.join(name);
            ensure!(file.is_file(), "{} is not built", file.display());
        }
        install::python_at(&place.join("python"), PACKAGES)
    }

    fn batches(&self, _place: &Path) -> Result<Vec<Batch>> {
        let pairs = { ARROWS.iter() }.flat_map(|sender| {
            let receivers = ARROWS.iter();
            receivers.map(move |receiver| format!("{sender} to {receiver}"))
        });
        let transacted = TRANSACTED.iter();
        let transacted = transacted.map(|arrow| format!("{arrow} to {arrow}{IN_TRANSACTIONS}"));
        let all = pairs.chain(transacted).map(|test| Batch {
            name: test.clone(),
            tests: vec![test],
            broker: BROKER,
            seconds_max: 300,
        });
        Ok(all.collect())
    }

    fn command(&self, place: &Path, target: &str, batch: &Batch, work: &Path) -> Result<Command> {
        let (amqp, _) = target.split_once(' ').context("two addresses")?;
        let plain = batch.name.strip_suffix(IN_TRANSACTIONS);
        let pair = plain.unwrap_or(&batch.name);
        let (sender, receiver) = pair.split_once(" to ").context("a pair")?;
        let built = std::fs::canonicalize(place.join("source/build"))?;
        let home = built.join("quiver");
        let first = [place.join("python/bin"), built.join("bin")];
        let mut command = Command::new(built.join("bin/quiver"));
        command
            .current_dir(work)
            .env("PATH", super::before_path(&first))
            .env("QUIVER_HOME", &home)
            .env("PYTHONPATH", home.join("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env(
                "JAVA_OPTS",
                "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            )
            .arg(format!("amqp://{amqp}/{}", batch.name.replace(' ', "-")))
            .args(["--sender", sender, "--receiver", receiver])
            .args(["--count", COUNT, "--duration", "0", "--timeout", TIMEOUT])
            .args(["--durable", "--set-message-id", "--output", "."]);
        if plain.is_some() {
            command.args(["--transaction-size", TRANSACTION]);
        }
        Ok(command)
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        let mut told = ended.by_exit_code(batch, &["rror"]);
        // It says twice how many: before that what was asked for.
        let came = ended.output.rsplit_once("RESULTS");
        let came = came.and_then(|(_, results)| counted_in(results));
        if ended.exit_code == Some(0) && came.as_deref() != Some(COUNT) {
            let failed = Outcome::Failed(format!("of {COUNT} messages came {came:?}"));
            told.insert(batch.name.clone(), failed);
        }
        told
    }
}

/// How many messages its summary tells of.
fn counted_in(results: &str) -> Option<String> {
    results.lines().find_map(|line| {
        let number = line.strip_prefix("Count .")?.trim_start_matches('.');
        let number = number.trim().split(' ').next()?;
        Some(number.replace(',', ""))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_summary_says_how_many_came() {
        let results = "\n\nCount ................................................ 1,000 messages\nDuration ....... 0.4 seconds\n";
        assert_eq!(super::counted_in(results).as_deref(), Some("1000"));
        assert_eq!(super::counted_in("Duration .... 1"), None);
    }
}
