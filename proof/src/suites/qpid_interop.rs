//! Qpid's tests of how clients of AMQP understand each other over a broker, which no registry has. They are run from a checkout beside the
//! project in which the clients' programs are built, as they are there: those for Python, JavaScript, Java (ProtonJ2) and JMS. What is left
//! out are its programs for C++ and .NET.
//! Callers: `suites`. Nothing is written into a checkout.

use super::{Batch, Broker, Ended, Outcome, Suite, Target};
use crate::compat::install;
use crate::exam::probe::Probe;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialUpsertion,
};
use xtask::run;

const BROKER: Broker = Broker {
    name: "default",
    settings: &[],
};
/// Messages of 10 MiB are taken.
const LARGE: Broker = Broker {
    name: "large",
    settings: &[AMQP_LARGE, KAFKA_LARGE],
};
/// The same in short frames, and in long ones.
const SMALL_FRAMES: Broker = Broker {
    name: "small-frames",
    settings: &[AMQP_LARGE, KAFKA_LARGE, ("amqp.frame.bytes.max", "4096")],
};
const LARGE_FRAMES: Broker = Broker {
    name: "large-frames",
    settings: &[AMQP_LARGE, KAFKA_LARGE, ("amqp.frame.bytes.max", "1048576")],
};
const AMQP_LARGE: (&str, &str) = ("amqp.message.bytes.max", "16777216");
const KAFKA_LARGE: (&str, &str) = ("message.max.bytes", "17825792");
const PACKAGES: &[&str] = &[
    "python-qpid-proton==0.40.0",
    "click",
    "pytest==9.2.0",
    "pytest-timeout==2.4.0",
    "pydantic",
];
/// The clients, and what has to be built of each; below the checkout.
const CLIENTS: &[(&str, &str)] = &[
    ("python-proton", "shim.py"),
    ("javascript-rhea", "node_modules/rhea"),
    ("java-protonj2", "target/qit-shim-protonj2.jar"),
    (
        "java-qpid-jms",
        "target/qit-jms-shim-2.0.0-jar-with-dependencies.jar",
    ),
];
/// Those that speak AMQP as such.
const NATIVE: usize = 3;
/// Programs that are not built.
const LEFT_OUT: &[&str] = &["cpp-proton", "dotnet-proton"];
/// Of the suite's files that talk to a broker those that are listed.
const FILES: &[&str] = &[
    "tests/test_amqp_headers.py",
    "tests/test_jms.py",
    "tests/test_jms_interop.py",
    "tests/test_jms_unified.py",
    LARGE_FILE,
];
const LARGE_FILE: &str = "tests/test_large_content.py";
/// What the tests of types are called, of which pytest knows nothing.
const TYPES: &str = "types: ";
/// Whom ProtonJ2's program logs in as, with its name as its password: a salt, and what PBKDF2 makes of both in so many rounds, for each
/// mechanism.
const USER: &str = "artemis";
const SALT: &[u8] = b"qpid-interop-tst";
const ROUNDS: i32 = 4096;
const SALTED: [(i8, &[u8]); 2] = [
    (
        SCRAM_SHA_256,
        b"\x27\x58\xe4\x9f\xff\x2a\xa4\x8b\x9b\x03\xe7\x1e\xca\x55\x5f\xb3\
      \xb3\x54\xa8\x06\xd9\x4d\x87\x6a\x85\x87\xc9\x62\xfd\xd2\x78\x98",
    ),
    (
        SCRAM_SHA_512,
        b"\x35\xed\xe4\x96\x10\xd9\x34\xeb\xb2\x9c\x72\x26\x78\x09\x23\x60\
      \x5c\x7c\x23\x0e\xf5\x78\x80\xc4\x97\x81\x0e\xf8\xdf\x67\x78\x6a\
      \x43\xbe\x95\x74\x11\x31\x58\xbb\x20\xf5\xce\x47\x90\x8d\xdb\xdf\
      \xdb\x48\x0e\x57\x0f\x07\xa0\xe9\xf9\x08\x70\x24\x80\xe6\x73\xa3",
    ),
];
const SCRAM_SHA_256: i8 = 1;
const SCRAM_SHA_512: i8 = 2;

/// `qpid-interop-test`: a run for each function of its tests, and for each pair of clients and its types.
pub struct Pairs;

impl Suite for Pairs {
    fn name(&self) -> &'static str {
        "qpid-interop-test"
    }

    fn package(&self) -> &'static str {
        "checkout of apache/qpid-interop-test at b8b89ad, with four clients' programs built; run on 28 November 2026"
    }

    fn checkout(&self) -> Option<&'static str> {
        Some("qpid-interop-test")
    }

    fn target(&self) -> Target {
        Target::Amqp
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        for (client, built) in CLIENTS {
            let file = place.join("source/shims").join(client).join(built);
            ensure!(file.exists(), "{} is not built", file.display());
        }
        install::python_at(&place.join("python"), PACKAGES)
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let mut all = types(place)?;
        let mut command = pytest(place, "127.0.0.1:5672");
        command.args(["--collect-only", "-q"]).args(FILES);
        let listing = run::quiet(&mut command).context("pytest cannot list the tests")?;
        let mut functions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for test in listing.lines().filter(|line| line.contains("::")) {
            if !LEFT_OUT.iter().any(|it| test.contains(it)) {
                let (function, _) = test.split_once('[').unwrap_or((test, ""));
                functions.entry(function).or_default().push(test.to_owned());
            }
        }
        ensure!(!functions.is_empty(), "pytest lists no tests:\n{listing}");
        all.extend(functions.into_iter().map(|(function, tests)| Batch {
            name: function.trim_start_matches("tests/").to_owned(),
            tests,
            broker: broker_for(function),
            seconds_max: 1_800,
        }));
        Ok(all)
    }

    fn command(&self, place: &Path, target: &str, batch: &Batch, _work: &Path) -> Result<Command> {
        let (amqp, kafka) = target.split_once(' ').context("two addresses")?;
        add_user(kafka)?;
        let Some(pair) = batch.name.strip_prefix(TYPES) else {
            let mut command = pytest(place, amqp);
            command.args(["-v", "-rxfE"]).args(&batch.tests);
            return Ok(command);
        };
        let (sender, receiver) = pair.split_once(" to ").context("a pair")?;
        let mut command = python(place);
        command
            .args(["-c", "from qit.cli.main import cli; cli()"])
            .args(["test", "amqp-types", "--broker"])
            .arg(format!("amqp://{amqp}"))
            .args(["--sender", sender, "--receiver", receiver]);
        for test in &batch.tests {
            let name = test.rsplit(' ').next().context("a type")?;
            command.args(["--type", name]);
        }
        Ok(command)
    }

    /// Each message is a start of two of the clients' programs, which the suite gives 30 s.
    fn fails_by_chance(&self, why: &str) -> bool {
        why.contains("TimeoutExpired")
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        let tests = batch.tests.iter();
        tests
            .filter_map(|test| Some((test.clone(), outcome(test, &ended.output)?)))
            .collect()
    }
}

/// The tests of types, which are a command of the suite's own.
fn types(place: &Path) -> Result<Vec<Batch>> {
    let mut command = python(place);
    command.args([
        "-c",
        "from qit.types import AmqpPrimitiveTypes as p, AmqpComplexTypes as c\n\
         print(*p.get_all_types(), *c.get_all_types(include_extended=False), sep='\\n')",
    ]);
    let names = run::quiet(&mut command).context("the suite does not tell its types")?;
    let mut batches = Vec::new();
    for (sender, _) in &CLIENTS[..NATIVE] {
        for (receiver, _) in &CLIENTS[..NATIVE] {
            let name = format!("{TYPES}{sender} to {receiver}");
            let types = names.lines().filter(|line| !line.is_empty());
            batches.push(Batch {
                tests: types.map(|one| format!("{name} {one}")).collect(),
                name,
                broker: BROKER,
                seconds_max: 600,
            });
        }
    }
    Ok(batches)
}

/// The tests of large messages say in their names of which frames they are.
fn broker_for(function: &str) -> Broker {
    match function {
        _ if !function.starts_with(LARGE_FILE) => BROKER,
        _ if function.ends_with("_smallframe") => SMALL_FRAMES,
        _ if function.ends_with("_largeframe") => LARGE_FRAMES,
        _ => LARGE,
    }
}

fn python(place: &Path) -> Command {
    let source = place.join("source");
    let own = place.join("python/bin");
    let mut command = Command::new(own.join("python"));
    command
        .current_dir(&source)
        // The clients' programs look for Python by themselves.
        .env("PATH", super::before_path(&[own]))
        .env("PYTHONPATH", source.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn pytest(place: &Path, address: &str) -> Command {
    let mut command = python(place);
    command
        .env("QIT_BROKER_URL", address)
        .env("QIT_BROKER_URL_SMALL_FRAME", address)
        .env("QIT_BROKER_URL_LARGE_FRAME", address)
        .args(["-m", "pytest", "-p", "no:cacheprovider"])
        // Its own has several at a time.
        .args(["-o", "addopts="])
        // It tells as much of a reason as there is room for.
        .env("COLUMNS", "400")
        // Those that take long, too.
        .arg("--large-content");
    command
}

/// Adds the user whom a client's program logs in as; nothing is changed if there is one.
fn add_user(kafka: &str) -> Result<()> {
    let by = |(mechanism, salted)| ScramCredentialUpsertion {
        name: USER.to_owned(),
        mechanism,
        iterations: ROUNDS,
        salt: Bytes::from_static(SALT),
        salted_password: Bytes::from_static(salted),
    };
    let request = AlterUserScramCredentialsRequest {
        upsertions: SALTED.into_iter().map(by).collect(),
        ..AlterUserScramCredentialsRequest::default()
    };
    let answer = Probe::connect(kafka)?.call(0, &request)?;
    let refused = answer.results.iter().find(|it| it.error_code != 0);
    ensure!(refused.is_none(), "{USER} is not added: {refused:?}");
    Ok(())
}

/// By the line of the test, and its reason by what stands behind it or in the summary at the end.
fn outcome(test: &str, output: &str) -> Option<Outcome> {
    let mut lines = output.lines();
    if let Some(pair) = test.strip_prefix(TYPES) {
        let (pair, name) = pair.rsplit_once(' ')?;
        let begin = format!("Testing {} ({name})... ", pair.replace(" to ", " → "));
        let word = lines.find_map(|line| Some(line.split_once(&begin)?.1))?;
        return Some(match word.starts_with('✓') {
            true => Outcome::Passed,
            false => {
                let why = lines.next().unwrap_or_default();
                Outcome::Failed(why.trim().to_owned())
            }
        });
    }
    let word = lines.find_map(|line| {
        let rest = line.strip_prefix(test)?.strip_prefix(' ')?;
        rest.split_whitespace().next()
    })?;
    let reason = || {
        let mut lines = output.lines();
        let begin = ["FAILED ", "ERROR ", "XFAIL "].map(|head| format!("{head}{test}"));
        let line = lines.find(|line| begin.iter().any(|it| line.starts_with(it)));
        line.unwrap_or("no word of why").to_owned()
    };
    Some(match word {
        "PASSED" => Outcome::Passed,
        // The suite knows that its own client cannot.
        "SKIPPED" | "XFAIL" => Outcome::Skipped(reason()),
        _ => Outcome::Failed(reason()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_words_tell_each_test() {
        let output = "[1/3] Testing a → b (ulong)... ✓ (4 xfail)\n[2/3] Testing a → b (int)... ✗\n  Error: Send failed\n\
                      [3/3] Testing a → b (uint)... ✓\n";
        let told = |name: &str| outcome(&format!("types: a to b {name}"), output);
        assert_eq!(told("ulong"), Some(Outcome::Passed));
        assert_eq!(told("uint"), Some(Outcome::Passed));
        let failed = Outcome::Failed("Error: Send failed".to_owned());
        assert_eq!(told("int"), Some(failed));
        assert_eq!(told("map"), None);
        let output = "tests/test_a.py::test_x[1-a->b] PASSED   [ 50%]\ntests/test_a.py::test_y[a->b] FAILED   [100%]\n\
                      FAILED tests/test_a.py::test_y[a->b] - assert 1 == 2\n";
        let told = |name: &str| outcome(&format!("tests/test_a.py::{name}"), output);
        assert_eq!(told("test_x[1-a->b]"), Some(Outcome::Passed));
        assert!(
            matches!(told("test_y[a->b]"), Some(Outcome::Failed(why)) if why.ends_with("1 == 2"))
        );
        assert_eq!(told("test_x"), None);
        let output = "tests/test_a.py::test_x[a->b] XFAIL (a cannot)  [100%]\nXFAIL tests/test_a.py::test_x[a->b] - a cannot\n";
        let told = outcome("tests/test_a.py::test_x[a->b]", output);
        assert!(matches!(told, Some(Outcome::Skipped(why)) if why.ends_with("a cannot")));
    }
}
