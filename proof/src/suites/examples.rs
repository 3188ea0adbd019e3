//! Examples: the tests of the examples that come with clients of AMQP, which no registry has: of rhea, and of Qpid Proton for Python, C and C++.
//! They are run from checkouts beside the project, as they are there, each test a run of its own. Tests in which examples talk to each other
//! without a broker are not counted.
//! Callers: `suites`. Nothing is written into a checkout.
//!
//! Some have AMQP's own port in their text, so that the broker listens there and one of them runs at a time; others start a broker by its name, and
//! find ours there (`tests/compat/amqp/broker`).

use super::{Batch, Broker, Ended, Outcome, Suite, Target};
use crate::compat::{install, peer};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::run;

/// The tests of a client's examples.
pub struct Examples {
    name: &'static str,
    package: &'static str,
    checkout: &'static str,
    /// What has to be there of what is built, below the checkout.
    built: &'static [&'static str],
    /// The file that the tests are in, below the checkout.
    file: &'static str,
    /// What tells those with a broker from those without.
    brokered: Brokered,
    runs: Runs,
}

/// Which of the tests talk to a broker.
#[derive(Clone, Copy)]
enum Brokered {
    /// Those under this heading.
    Under(&'static str),
    /// Those with this in their text.
    With(&'static str),
    /// Those without this in their text.
    Without(&'static str),
}

/// How they are run.
#[derive(Clone, Copy)]
enum Runs {
    /// By mocha, which the checkout has.
    Mocha,
    /// By Python's unittest, with these packages, in a copy of the directory.
    Unittest(&'static [&'static str]),
    /// By the file itself, with the examples' programs in this directory of the checkout, and Proton's own help for its tests in the other.
    Itself(&'static str, &'static str),
}

/// rhea.
pub static RHEA: Examples = Examples {
    name: "rhea-examples",
    package: "checkout of amqp/rhea at 1a69756, examples/test_examples.js, with its modules installed; run on 28 November 2026",
    checkout: "rhea",
    built: &["node_modules/.bin/mocha", "node_modules/rhea.js"],
    file: "examples/test_examples.js",
    brokered: Brokered::Under("brokered examples"),
    runs: Runs::Mocha,
};

/// Proton for Python.
pub static PROTON_PYTHON: Examples = Examples {
    name: "proton-python-examples",
    package: "checkout of apache/qpid-proton at 2ea507c (0.40.0), python/examples, with PyPI python-qpid-proton 0.40.0; run on 28 November 2026",
    checkout: "qpid-proton",
    built: &[],
    file: "python/examples/test_examples.py",
    brokered: Brokered::Without("direct"),
    runs: Runs::Unittest(&["python-qpid-proton==0.40.0", "tornado==6.5.4"]),
};

/// Proton for C.
pub static PROTON_C: Examples = Examples {
    name: "proton-c-examples",
    package: "checkout of apache/qpid-proton at 2ea507c (0.40.0), c/examples, built in build/; run on 28 November 2026",
    checkout: "qpid-proton",
    built: &["build/c/examples/send"],
    file: "c/examples/testme",
    brokered: Brokered::With("Broker"),
    runs: Runs::Itself("build/c/examples", PROTON_TESTS),
};

/// Proton for C++.
pub static PROTON_CPP: Examples = Examples {
    name: "proton-cpp-examples",
    package: "checkout of apache/qpid-proton at 2ea507c (0.40.0), cpp/examples, built in build/; run on 28 November 2026",
    checkout: "qpid-proton",
    built: &["build/cpp/examples/simple_send"],
    file: "cpp/examples/testme",
    brokered: Brokered::With("Broker"),
    runs: Runs::Itself("build/cpp/examples", PROTON_TESTS),
};

const PROTON_TESTS: &str = "tests/py";
/// It listens where AMQP does.
const WELL_KNOWN: Broker = Broker {
    name: "well-known",
    settings: &[("amqp.listen", "127.0.0.1:5672")],
};
/// A test that waits for longer than this has failed.
const SECONDS_MAX: u64 = 60;

impl Suite for Examples {
    fn name(&self) -> &'static str {
        self.name
    }

    fn package(&self) -> &'static str {
        self.package
    }

    fn checkout(&self) -> Option<&'static str> {
        Some(self.checkout)
    }

    fn target(&self) -> Target {
        match self.runs {
            Runs::Mocha | Runs::Unittest(_) => Target::Amqp,
            Runs::Itself(..) => Target::Program,
        }
    }

    fn runs_alone(&self) -> bool {
        self.target() == Target::Amqp
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        for built in self.built {
            let file = place.join("source").join(built);
            ensure!(file.exists(), "{} is not built", file.display());
        }
        match self.runs {
            Runs::Mocha => Ok(()),
            Runs::Unittest(packages) => {
                let from = self.directory(place);
                let copy = copy_of(place);
                if copy.exists() {
                    fs::remove_dir_all(&copy)?;
                }
                run::quiet(Command::new("cp").arg("-r").arg(from).arg(copy))?;
                install::python_at(&place.join("python"), packages)
            }
            Runs::Itself(..) => {
                let programs = place.join("programs");
                fs::create_dir_all(&programs)?;
                let link = programs.join("broker");
                if !link.is_symlink() {
                    let ours = run::workspace().join("tests/compat/amqp/broker");
                    std::os::unix::fs::symlink(ours, link)?;
                }
                Ok(())
            }
        }
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let file = place.join("source").join(self.file);
        let text = fs::read_to_string(&file)?;
        let found = match self.runs {
            Runs::Mocha => of_mocha(&text),
            Runs::Unittest(_) | Runs::Itself(..) => of_unittest(&text),
        };
        let tests = found.into_iter().filter(|test| match self.brokered {
            Brokered::Under(heading) => test.name.starts_with(heading),
            Brokered::With(word) => test.text.contains(word),
            Brokered::Without(word) => !test.text.contains(word),
        });
        let batches: Vec<Batch> = tests
            .map(|test| Batch {
                name: test.name.clone(),
                tests: vec![test.name],
                broker: WELL_KNOWN,
                seconds_max: SECONDS_MAX,
            })
            .collect();
        ensure!(!batches.is_empty(), "{} has no tests", file.display());
        Ok(batches)
    }

    fn command(&self, place: &Path, target: &str, batch: &Batch, work: &Path) -> Result<Command> {
        let source = place.join("source");
        match self.runs {
            Runs::Mocha => {
                let mut command = Command::new("node");
                command
                    .current_dir(&source)
                    .arg("node_modules/.bin/mocha")
                    .args(["--timeout", &(SECONDS_MAX * 1_000).to_string()])
                    .args(["--fgrep", &batch.name])
                    .arg(self.file);
                Ok(command)
            }
            Runs::Unittest(_) => {
                let own = place.join("python/bin");
                let module = Path::new(self.file).file_stem().context("a file")?;
                let mut command = Command::new(own.join("python"));
                command
                    .current_dir(work)
                    .env("PATH", super::before_path(&[own]))
                    .env("PYTHONPATH", copy_of(place))
                    .args(["-m", "unittest", "-v"])
                    .arg(format!("{}.{}", module.to_string_lossy(), batch.name));
                Ok(command)
            }
            Runs::Itself(programs, tests) => {
                let paths = [place.join("programs"), source.join(programs)];
                let mut command = Command::new("python3");
                command
                    .current_dir(work)
                    .env("PATH", super::before_path(&paths))
                    .env("PYTHONPATH", source.join(tests))
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .env("BROKER_PROGRAM", target)
                    .env("BROKER_WORK", work)
                    .arg(source.join(self.file))
                    .args(["-v", &batch.name]);
                Ok(command)
            }
        }
    }

    fn read(&self, batch: &Batch, ended: &Ended, work: &Path) -> BTreeMap<String, Outcome> {
        let complaint = peer::complaint(work).map(|it| format!("the broker's log: {it}"));
        let has_run = match self.runs {
            Runs::Mocha => "1 passing",
            Runs::Unittest(_) | Runs::Itself(..) => "Ran 1 test",
        };
        let outcome = match complaint {
            Some(complaint) => Outcome::Failed(complaint),
            None if ended.output.contains("OK (skipped=1)") => {
                Outcome::Skipped(ended.last_with(&["skipped"]))
            }
            None if ended.exit_code == Some(0) && ended.output.contains(has_run) => Outcome::Passed,
            None => Outcome::Failed(ended.last_with(&["Error"])),
        };
        BTreeMap::from([(batch.name.clone(), outcome)])
    }
}

impl Examples {
    fn directory(&self, place: &Path) -> PathBuf {
        let file = place.join("source").join(self.file);
        file.parent().map_or(file.clone(), Path::to_owned)
    }
}

/// Where examples are that leave something beside them.
fn copy_of(place: &Path) -> PathBuf {
    place.join("examples")
}

/// A test, and what it says.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    text: String,
}

/// The tests of mocha with their headings before them.
fn of_mocha(text: &str) -> Vec<Test> {
    let mut heading = "";
    let mut found = Vec::new();
    for line in text.lines() {
        let quoted = |begin| Some(line.trim_start().strip_prefix(begin)?.split_once('\'')?.0);
        if let Some(name) = quoted("describe('") {
            heading = name;
        } else if let Some(name) = quoted("it('") {
            found.push(Test {
                name: format!("{heading} {name}"),
                text: String::new(),
            });
        }
    }
    found
}

/// The tests of Python's unittest, as `CLASS.test_NAME`.
fn of_unittest(text: &str) -> Vec<Test> {
    let mut class = "";
    let mut is_within = false;
    let mut found: Vec<Test> = Vec::new();
    for line in text.lines() {
        let method = line.strip_prefix("    def ");
        // Whatever else stands at the margin, or is another function, ends a test.
        is_within &= method.is_none() && (line.is_empty() || line.starts_with(' '));
        if let Some(rest) = line.strip_prefix("class ") {
            class = rest.split(['(', ':']).next().unwrap_or_default();
        }
        if let Some((name, _)) = method.and_then(|it| it.split_once('('))
            && name.starts_with("test")
        {
            is_within = true;
            found.push(Test {
                name: format!("{class}.{name}"),
                text: String::new(),
            });
        }
        if let Some(test) = found.last_mut().filter(|_| is_within) {
            test.text += line;
            test.text += "\n";
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[Test]) -> Vec<&str> {
        found.iter().map(|test| &test.name[..]).collect()
    }

    #[test]
    fn a_file_of_mochas_names_its_tests() {
        let text = "describe('with', function() {\n    it('one or two', function(done) {\n    });\n});\n\
                    describe('without', function() {\n    it('three', f);\n});\n";
        let found = of_mocha(text);
        assert_eq!(names(&found), ["with one or two", "without three"]);
    }

    #[test]
    fn a_file_of_unittests_names_its_tests_with_what_each_says() {
        let text = "class Broker(Server):\n    def __init__(self):\n        pass\n\nclass A(unittest.TestCase):\n    \
                    def help(self):\n        one()\n\n    def test_x(self, a='b'):\n        two()\n\n        three()\n    def skip_test(self):\n        \
                    four()\n\nclass B(A):\n    def test_y(self):\n        five()\n\nif main:\n    Broker()\n";
        let found = of_unittest(text);
        assert_eq!(names(&found), ["A.test_x", "B.test_y"]);
        let said = ["two()", "three()"].map(|it| found[0].text.contains(it));
        assert_eq!(said, [true, true]);
        assert!(!found[0].text.contains("four()") && !found[1].text.contains("Broker"));
    }
}
