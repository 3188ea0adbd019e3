//! List: the checked-in list of a suite's tests, `tests/compat/suites/SUITE.list`, by sections:
//!
//! ```text
//! # a comment; comments before the first section stay when the file is written anew
//! [fast]                          passing, and run in `cargo xtask test`
//! TEST
//! [passing]
//! TEST
//! [excluded: CLASS] REASON        CLASS is a key of `CLASSES`
//! TEST -- EVIDENCE                what it says when it is run all the same
//! ```
//!
//! Callers: `suites`. Invariants: a test stands once; tests only ever move into `[fast]` and `[passing]`.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use xtask::run;

/// Why a test may be excluded, and what that means on the compatibility page.
pub const CLASSES: &[(&str, &str)] = &[
    ("transactions", "needs transactions"),
    ("ACLs", "needs access control"),
    ("SASL", "needs SASL"),
    ("TLS", "needs TLS"),
    ("KIP-848", "needs the newer consumer protocol"),
    ("share groups", "needs share groups"),
    ("several brokers", "needs more than one broker"),
    ("quotas", "needs quotas"),
    (
        "internal topics",
        "needs the topics in which Kafka keeps its own state",
    ),
    ("features", "needs features that can be switched"),
    ("sessions", "needs MQTT sessions that outlive a connection"),
    ("retained messages", "needs retained messages of MQTT"),
    ("shared subscriptions", "needs shared subscriptions of MQTT"),
    ("$SYS", "needs topics in which the broker tells of itself"),
    ("MQTT 3.1", "needs MQTT 3.1"),
    ("WebSocket", "needs MQTT over WebSocket"),
    (
        "discovery",
        "needs a broker that makes itself known by multicast, as ActiveMQ does",
    ),
    (
        "settings",
        "turns a setting of the other broker's that there is none for here",
    ),
    ("on purpose", "wants what we do otherwise on purpose"),
    (
        "suite",
        "the suite itself leaves it out, or it fails on Apache Kafka as well",
    ),
];

/// The tests of one suite.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct List {
    head: String,
    fast: BTreeSet<String>,
    passing: BTreeSet<String>,
    /// In the order of the file.
    pub exclusions: Vec<Exclusion>,
}

/// Tests that are excluded for one reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// One of `CLASSES`.
    pub class: &'static str,
    /// In a sentence.
    pub reason: String,
    /// Test and evidence.
    pub tests: BTreeMap<String, String>,
}

enum Section {
    Fast,
    Passing,
    Excluded,
}

impl List {
    /// The list of the suite of this name.
    pub fn read(suite: &str) -> Result<List> {
        let file = file(suite);
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        List::parse(&text).with_context(|| file.display().to_string())
    }

    /// Writes the list of the suite of this name.
    pub fn write(&self, suite: &str) -> Result<()> {
        Ok(fs::write(file(suite), self.text())?)
    }

    /// Tests that are listed as passing, the fast ones among them.
    pub fn passing(&self) -> impl Iterator<Item = &String> {
        self.fast.iter().chain(&self.passing)
    }

    /// How many tests are listed as passing.
    pub fn passing_count(&self) -> usize {
        self.fast.len() + self.passing.len()
    }

    /// How many tests are excluded.
    pub fn excluded_count(&self) -> usize {
        self.exclusions.iter().map(|one| one.tests.len()).sum()
    }

    /// Whether it is in the fast shard.
    pub fn is_fast(&self, test: &str) -> bool {
        self.fast.contains(test)
    }

    /// Whether it is listed as passing.
    pub fn is_passing(&self, test: &str) -> bool {
        self.fast.contains(test) || self.passing.contains(test)
    }

    /// Whether it is excluded.
    pub fn is_excluded(&self, test: &str) -> bool {
        self.exclusions
            .iter()
            .any(|exclusion| exclusion.tests.contains_key(test))
    }

    /// What an excluded test says when it is run all the same.
    pub fn evidence(&self, test: &str) -> Option<&str> {
        let mut found = self.exclusions.iter().filter_map(|one| one.tests.get(test));
        found.next().map(String::as_str)
    }

    /// Adds passing tests.
    pub fn add(&mut self, tests: impl IntoIterator<Item = String>) {
        for test in tests {
            if !self.is_passing(&test) && !self.is_excluded(&test) {
                self.passing.insert(test);
            }
        }
    }

    /// Reads a list's text.
    pub fn parse(text: &str) -> Result<List> {
        let mut list = List::default();
        let mut section = None;
        for (index, line) in text.lines().enumerate() {
            list.take(line.trim(), &mut section)
                .with_context(|| format!("line {}", index + 1))?;
        }
        Ok(list)
    }

    fn take(&mut self, line: &str, section: &mut Option<Section>) -> Result<()> {
        if section.is_none() && (line.is_empty() || line.starts_with('#')) {
            self.head += line;
            self.head += "\n";
            return Ok(());
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(title) = line.strip_prefix('[') {
            let (title, reason) = title.split_once(']').context("no ] in a section's head")?;
            *section = Some(self.open(title, reason.trim())?);
            return Ok(());
        }
        let (test, evidence) = line.split_once(" -- ").unwrap_or((line, ""));
        let test = test.trim().to_string();
        ensure!(
            !self.is_passing(&test) && !self.is_excluded(&test),
            "{test} stands here twice"
        );
        match section {
            None => bail!("{test} stands in no section"),
            Some(Section::Fast) => drop(self.fast.insert(test)),
            Some(Section::Passing) => drop(self.passing.insert(test)),
            Some(Section::Excluded) => {
                let last = self.exclusions.last_mut().expect("the section opened one");
                last.tests.insert(test, evidence.trim().to_string());
            }
        }
        Ok(())
    }

    fn open(&mut self, title: &str, reason: &str) -> Result<Section> {
        let Some(class) = title.strip_prefix("excluded:") else {
            return match title {
                "fast" => Ok(Section::Fast),
                "passing" => Ok(Section::Passing),
                _ => bail!("no section is called [{title}]"),
            };
        };
        let class = class.trim();
        let known = CLASSES.iter().find(|(known, _)| *known == class);
        let (class, _) =
            known.with_context(|| format!("{class} is no reason to exclude a test"))?;
        ensure!(!reason.is_empty(), "a reason is missing");
        self.exclusions.push(Exclusion {
            class,
            reason: reason.to_string(),
            tests: BTreeMap::new(),
        });
        Ok(Section::Excluded)
    }

    fn text(&self) -> String {
        let mut text = self.head.clone();
        for (title, tests) in [("fast", &self.fast), ("passing", &self.passing)] {
            text += &format!("[{title}]\n");
            for test in tests {
                text += &format!("{test}\n");
            }
            text += "\n";
        }
        for exclusion in &self.exclusions {
            text += &format!("[excluded: {}] {}\n", exclusion.class, exclusion.reason);
            for (test, evidence) in &exclusion.tests {
                let separator = if evidence.is_empty() { "" } else { " -- " };
                text += &format!("{test}{separator}{evidence}\n");
            }
            text += "\n";
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }
}

fn file(suite: &str) -> PathBuf {
    run::workspace().join(format!("tests/compat/suites/{suite}.list"))
}

#[cfg(test)]
mod tests {
    use super::List;

    const TEXT: &str = "# whose tests\n\n[fast]\na\n\n[passing]\nb[x y]\n\n\
        [excluded: ACLs] there are none\nc -- error 35\nd\n";

    #[test]
    fn a_list_reads_back_what_it_writes() {
        let mut list = List::parse(TEXT).unwrap();
        assert_eq!(list.text(), TEXT);
        assert!(list.is_fast("a") && !list.is_fast("b[x y]") && list.is_passing("b[x y]"));
        assert!(list.is_excluded("c") && list.is_excluded("d"));
        assert_eq!(list.evidence("c"), Some("error 35"));
        assert_eq!(list.evidence("b[x y]"), None);
        list.add(["c", "e", "a"].map(str::to_string));
        assert_eq!(list.text(), TEXT.replace("b[x y]\n", "b[x y]\ne\n"));
    }

    #[test]
    fn a_list_says_each_test_once_and_names_its_reasons() {
        for wrong in [
            "a\n",
            "[passing]\na\na\n",
            "[fast]\na\n[excluded: ACLs] none\na\n",
            "[excluded: ACLs]\na\n",
            "[excluded: laziness] none\na\n",
            "[other]\n",
        ] {
            assert!(List::parse(wrong).is_err(), "{wrong}");
        }
    }
}
