//! Verdict: what a suite's run comes to, weighed against its list.
//! Caller: `suites::run`. Invariant: every test that talks to a broker is accounted for.

use super::list::List;
use super::round::Results;
use super::{Batch, Outcome, Suite, Wish};
use crate::compat::Against;
use std::collections::{BTreeMap, BTreeSet};

/// What a run comes to.
pub struct Verdict {
    suite: &'static str,
    broker_tests: usize,
    ran: usize,
    passed: usize,
    excluded: BTreeMap<&'static str, usize>,
    fresh: Vec<String>,
    failures: Vec<String>,
    remarks: Vec<String>,
}

impl Verdict {
    /// Weighs `results`, which are those of the tests that were chosen from `batches`.
    pub fn new(
        suite: &dyn Suite,
        list: &List,
        batches: &[Batch],
        results: &Results,
        wish: &Wish,
        against: Against,
    ) -> Verdict {
        let tests: BTreeSet<&String> = batches.iter().flat_map(|batch| &batch.tests).collect();
        let mut verdict = Verdict {
            suite: suite.name(),
            broker_tests: tests.len(),
            ran: results.len(),
            passed: 0,
            excluded: BTreeMap::new(),
            fresh: Vec::new(),
            failures: Vec::new(),
            remarks: Vec::new(),
        };
        for (test, told) in results {
            let log = told.log.display();
            match &told.outcome {
                Outcome::Passed if list.is_excluded(test) => {
                    verdict.excluded_passes(test, against);
                }
                Outcome::Passed => {
                    verdict.passed += 1;
                    if !list.is_passing(test) {
                        verdict.fresh.push(test.clone());
                    }
                }
                Outcome::Failed(why) | Outcome::Skipped(why) if list.is_excluded(test) => {
                    let listed = list.evidence(test).unwrap_or_default();
                    let says = if why.contains(listed) {
                        format!("{why} ({log})")
                    } else {
                        format!("{why} ({log}); in the list: {listed}")
                    };
                    verdict.remarks.push(format!("{test} is excluded: {says}"));
                }
                Outcome::Failed(why) => verdict.failures.push(format!("{test}: {why} ({log})")),
                Outcome::Skipped(why) => {
                    let failure = format!(
                        "{test}: its suite skips it, and it is not excluded: {why} ({log})"
                    );
                    verdict.failures.push(failure);
                }
            }
        }
        if !wish.write {
            let missing = verdict.fresh.iter();
            let missing = missing.map(|test| format!("{test} passes and is new: add it (--write)"));
            verdict.remarks.extend(missing);
        }
        let listed = list
            .passing()
            .chain(list.exclusions.iter().flat_map(|one| one.tests.keys()));
        for gone in listed.filter(|test| !tests.contains(test)) {
            verdict
                .failures
                .push(format!("{gone} stands in the list and is not in the suite"));
        }
        for exclusion in &list.exclusions {
            *verdict.excluded.entry(exclusion.class).or_default() += exclusion.tests.len();
        }
        verdict
    }

    /// An excluded test passes. Its reason is about this broker, so that it is untrue here, and says nothing of Apache Kafka.
    fn excluded_passes(&mut self, test: &str, against: Against) {
        let told = format!("{test} is excluded and passes");
        match against {
            Against::Alluvium => self
                .failures
                .push(format!("{told}: take it out of the excluded ones")),
            Against::Kafka => {
                self.passed += 1;
                self.remarks.push(told);
            }
        }
    }

    /// How many tests passed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// What fails the command, a line each.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        let named = |failure| format!("{}: {failure}", self.suite);
        self.failures.iter().map(named)
    }

    /// Tests that passed and stand nowhere.
    pub fn new_tests(&self) -> Vec<String> {
        self.fresh.clone()
    }

    /// Prints what is to be said of single tests.
    pub fn print(&self) {
        for remark in &self.remarks {
            println!("{}: {remark}", self.suite);
        }
        for failure in &self.failures {
            println!("{}: FAILED {failure}", self.suite);
        }
    }
}

/// Prints the table of all suites.
pub fn print_table(verdicts: &[Verdict]) {
    println!(
        "{:<14}{:>14}{:>6}{:>8}{:>8}  excluded",
        "suite", "broker tests", "ran", "passed", "failed"
    );
    for verdict in verdicts {
        let excluded: Vec<String> = verdict
            .excluded
            .iter()
            .map(|(class, count)| format!("{class} {count}"))
            .collect();
        println!(
            "{:<14}{:>14}{:>6}{:>8}{:>8}  {}",
            verdict.suite,
            verdict.broker_tests,
            verdict.ran,
            verdict.passed,
            verdict.failures.len(),
            excluded.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::round::Told;
    use super::super::{Broker, find};
    use super::*;

    #[test]
    fn an_excluded_test_that_passes_fails_the_command_and_on_kafka_it_is_told() {
        let list = "[passing]\na\n[excluded: ACLs] there are none\nb -- error 35\nc -- error 36\n";
        let list = List::parse(list).unwrap();
        let batch = Batch {
            name: "all".to_string(),
            tests: ["a", "b", "c"].map(str::to_string).to_vec(),
            broker: Broker {
                name: "default",
                settings: &[],
            },
            seconds_max: 1,
        };
        let told = |outcome| Told {
            outcome,
            log: "log".into(),
        };
        let results = Results::from([
            ("b".to_string(), told(Outcome::Passed)),
            (
                "c".to_string(),
                told(Outcome::Failed("error 37".to_string())),
            ),
        ]);
        let wish = Wish {
            names: Vec::new(),
            filter: None,
            fast: false,
            excluded: true,
            write: false,
            jobs: 1,
        };
        let suite = find("librdkafka").unwrap();
        let batches = [batch];
        let ours = Verdict::new(suite, &list, &batches, &results, &wish, Against::Alluvium);
        assert_eq!(
            (ours.passed(), ours.failures().count()),
            (0, 1),
            "{:?}",
            ours.failures
        );
        assert!(ours.failures[0].starts_with("b is excluded and passes"));
        assert_eq!(
            ours.remarks,
            ["c is excluded: error 37 (log); in the list: error 36"]
        );
        let kafkas = Verdict::new(suite, &list, &batches, &results, &wish, Against::Kafka);
        assert_eq!((kafkas.passed(), kafkas.failures().count()), (1, 0));
    }
}
