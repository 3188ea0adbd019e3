//! Go: tests of Go's clients, from their modules: franz-go's `pkg/kgo`, sarama's functional tests, kafka-go, and go-amqp's integration tests. Each test is
//! a run of its own of the suite's one test binary.
//! Callers: `suites`. Their tests that need no broker are not counted: one counts if it, or a function of the tests that
//! it calls, uses what only tests with a broker use (`Tests::marks`).
//! Invariant: the tests are unmodified, but for where the broker is and that it is alone, and for names that no topic can have: `Tests::changes` holds every
//! change, and fails if the text that it replaces is gone.

use super::{Batch, Broker, Ended, Outcome, Suite, Target, controlled, fetch};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::run;

/// The tests of a module.
pub struct Tests {
    name: &'static str,
    package: &'static str,
    /// Module path and version.
    module: (&'static str, &'static str),
    /// The directory of the tests within the module.
    directory: &'static str,
    /// Go's build tags.
    tags: &'static str,
    /// Words that only tests with a broker use.
    marks: &'static [&'static str],
    /// Tests of which only parts fail here: their parts, which they list as scenarios, are run and counted one by one.
    parted: &'static [&'static str],
    /// File, text and what replaces it wherever it stands. `*` stands for every file of tests; a text in a file need not be there then.
    changes: &'static [(&'static str, &'static str, &'static str)],
    /// Files that are added.
    additions: &'static [(&'static str, &'static str)],
    /// Of which protocol the address is that they are told.
    target: Target,
    /// What stands before it.
    scheme: &'static str,
    /// Where the broker's address goes, and what else the tests are told.
    address_variable: &'static str,
    variables: &'static [(&'static str, &'static str)],
    broker: Broker,
    /// Tests that want another broker than the rest.
    elsewhere: &'static [(&'static str, Broker)],
    /// Who logs in where such a broker has a listener for it, by which password, and where that listener's address goes.
    login: Option<(&'static str, &'static str, &'static str)>,
    seconds_max: u64,
}

/// franz-go.
pub static FRANZ_GO: Tests = Tests {
    name: "franz-go",
    package: "Go module github.com/twmb/franz-go v1.22.3, pkg/kgo",
    module: ("github.com/twmb/franz-go", "v1.22.3"),
    directory: "pkg/kgo",
    tags: "",
    marks: &["getSeedBrokers", "tmpTopic", "newTestClient"],
    parted: &[],
    changes: &[],
    additions: &[],
    target: Target::Kafka,
    scheme: "",
    address_variable: "KGO_SEEDS",
    variables: &[("KGO_TEST_RF", "1"), ("KGO_TEST_RECORDS", "20000")],
    broker: Broker {
        name: "default",
        settings: &[
            ("auto.create.topics.enable", "false"),
            ("group.min.session.timeout.ms", "100"),
        ],
    },
    elsewhere: &[],
    login: None,
    seconds_max: 300,
};

/// sarama.
pub static SARAMA: Tests = Tests {
    name: "sarama",
    package: "Go module github.com/IBM/sarama v1.61.1, functional tests",
    module: ("github.com/IBM/sarama", "v1.61.1"),
    directory: "",
    tags: "functional",
    marks: &["FunctionalTestEnv"],
    parted: &[],
    changes: &[
        (
            "functional_test.go",
            "ReplicationFactor: 3",
            "ReplicationFactor: 1",
        ),
        (
            "functional_test.go",
            "func existingEnvironment(",
            "func severalBrokers(",
        ),
        (
            "functional_test.go",
            "func resetProxies(t testing.TB) {\n",
            "func resetProxies(t testing.TB) {\n\tif FunctionalTestEnv.ToxiproxyClient == nil {\n\t\treturn\n\t}\n",
        ),
    ],
    additions: &[(
        "one_broker_functional_test.go",
        "//go:build functional\n\npackage sarama\n\nimport (\n\t\"context\"\n\t\"os\"\n)\n\n\
         func existingEnvironment(_ context.Context, env *testEnvironment) (bool, error) {\n\
         \tenv.KafkaBrokerAddrs = []string{os.Getenv(\"BROKER_ADDRESS\")}\n\
         \tenv.KafkaVersion = os.Getenv(\"KAFKA_VERSION\")\n\treturn true, nil\n}\n",
    )],
    target: Target::Kafka,
    scheme: "",
    address_variable: "BROKER_ADDRESS",
    variables: &[("KAFKA_VERSION", "4.1.0")],
    broker: Broker {
        name: "default",
        settings: &[("auto.create.topics.enable", "false")],
    },
    elsewhere: &[],
    login: None,
    seconds_max: 180,
};

/// kafka-go.
pub static KAFKA_GO: Tests = Tests {
    name: "kafka-go",
    package: "Go module github.com/segmentio/kafka-go v0.4.51",
    module: ("github.com/segmentio/kafka-go", "v0.4.51"),
    directory: "",
    tags: "",
    marks: &["brokerAddress", "brokerHost"],
    parted: &["TestConn", "TestReaderConsumerGroup", "TestWriter"],
    changes: &[
        ("conn_test.go", "\tconst (\n\t\ttcp ", "\tvar (\n\t\ttcp "),
        (
            "*",
            "const broker = \"localhost:9092\"",
            "var broker = brokerAddress()",
        ),
        ("*", "\"localhost:9092\"", "brokerAddress()"),
        ("writer_test.go", "\"localhost:9093\"", "loginAddress()"),
        ("*", "TCP(\"localhost\")", "TCP(brokerAddress())"),
        ("*", "Host != \"localhost\"", "Host != brokerHost()"),
        ("conn_test.go", "Port != 9092", "Port != brokerPort()"),
        (
            "dialer_test.go",
            "Host: \"localhost\", Port: 9092",
            "Host: brokerHost(), Port: brokerPort()",
        ),
    ],
    additions: &[(
        "broker_address_test.go",
        "package kafka\n\nimport (\n\t\"net\"\n\t\"os\"\n\t\"strconv\"\n)\n\n\
         func brokerAddress() string { return os.Getenv(\"BROKER_ADDRESS\") }\n\n\
         func loginAddress() string { return os.Getenv(\"LOGIN_ADDRESS\") }\n\n\
         func brokerHost() string {\n\thost, _, _ := net.SplitHostPort(brokerAddress())\n\treturn host\n}\n\n\
         func brokerPort() int {\n\t_, port, _ := net.SplitHostPort(brokerAddress())\n\tnumber, _ := strconv.Atoi(port)\n\treturn number\n}\n",
    )],
    target: Target::Kafka,
    scheme: "",
    address_variable: "BROKER_ADDRESS",
    variables: &[("KAFKA_VERSION", "4.1.0")],
    broker: Broker {
        name: "default",
        settings: &[CREATES],
    },
    elsewhere: &[
        ("TestClientCreateACLs", CONTROLLED),
        ("TestClientDeleteACLs", CONTROLLED),
        ("TestClientDescribeACLs", CONTROLLED),
        (
            "TestWriter/writing_a_message_with_SASL_Plain_authentication",
            LOGIN,
        ),
    ],
    login: Some(("adminplain", "admin-secret", "LOGIN_ADDRESS")),
    seconds_max: 180,
};

/// go-amqp.
pub static GO_AMQP: Tests = Tests {
    name: "go-amqp",
    package: "Go module github.com/Azure/go-amqp v1.7.0, integration tests",
    module: ("github.com/Azure/go-amqp", "v1.7.0"),
    directory: "",
    tags: "",
    marks: &["localBrokerAddr"],
    parted: &[],
    // Their addresses have spaces and commas.
    changes: &[
        (
            "integration_test.go",
            "Sprintf(\"%s %d\", tt.label, ",
            "Sprintf(\"RoundTrip-%d\", ",
        ),
        (
            "integration_test.go",
            "Sprintf(\"TestIntegrationSessionHandleMax %d\"",
            "Sprintf(\"TestIntegrationSessionHandleMax-%d\"",
        ),
        (
            "integration_test.go",
            "targetName := fmt.Sprintf(\"TestReceivingLotsOfSettledMessages %d\"",
            "targetName := fmt.Sprintf(\"TestReceivingLotsOfSettledMessages-%d\"",
        ),
    ],
    additions: &[],
    target: Target::Amqp,
    scheme: "amqp://",
    address_variable: "AMQP_BROKER_ADDR",
    variables: &[],
    broker: Broker {
        name: "default",
        settings: &[],
    },
    elsewhere: &[],
    login: None,
    seconds_max: 180,
};

const CREATES: (&str, &str) = ("auto.create.topics.enable", "true");
/// Access is controlled.
const CONTROLLED: Broker = Broker {
    name: "controlled",
    settings: &[CREATES, controlled::AUTHORIZER, controlled::OPEN],
};
/// Clients log in.
const LOGIN: Broker = Broker {
    name: "login",
    settings: &[CREATES, controlled::LISTENERS, controlled::MECHANISMS],
};

impl Suite for Tests {
    fn name(&self) -> &'static str {
        self.name
    }

    fn package(&self) -> &'static str {
        self.package
    }

    fn target(&self) -> Target {
        self.target
    }

    fn prepare(&self, place: &Path) -> Result<()> {
        let (module, version) = self.module;
        fetch::go_module(place, module, version)?;
        let recipe = format!("{:?} {:?} {}", self.changes, self.additions, self.tags);
        let stamp = place.join("built.stamp");
        if binary(place).is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
            return Ok(());
        }
        // What an earlier list of changes made of them is no place to begin from.
        fs::remove_file(place.join("source.stamp"))?;
        fetch::go_module(place, module, version)?;
        self.change(place)?;
        let mut command = Command::new("go");
        command
            .current_dir(self.sources(place))
            .args([
                "test", "-mod=mod", "-c", "-vet=off", "-tags", self.tags, "-o",
            ])
            .arg(binary(place))
            .arg(".");
        run::quiet(&mut command).context("it takes the Go toolchain, 1.26 or newer")?;
        Ok(fs::write(stamp, recipe)?)
    }

    fn batches(&self, place: &Path) -> Result<Vec<Batch>> {
        let mut functions = BTreeMap::new();
        let mut parts = BTreeSet::new();
        for file in self.files(place)? {
            let source = fs::read_to_string(file)?;
            functions.extend(functions_of(&source));
            for test in self.parted {
                parts.extend(scenarios_of(test, &source));
            }
        }
        let mut tests = tests_with_a_broker(&functions, self.marks);
        ensure!(!tests.is_empty(), "no test uses {:?}", self.marks);
        tests.retain(|test| !self.parted.contains(&test.as_str()));
        tests.extend(parts);
        let batch = |test: String| Batch {
            name: test.clone(),
            broker: self.broker_for(&test),
            seconds_max: self.seconds_max,
            tests: vec![test],
        };
        Ok(tests.into_iter().map(batch).collect())
    }

    fn command(&self, place: &Path, address: &str, batch: &Batch, _work: &Path) -> Result<Command> {
        let (address, login) = controlled::addresses(address);
        let mut command = Command::new(binary(place));
        if let (Some(login), Some((user, password, variable))) = (login, self.login) {
            controlled::add_user(address, (user, password))?;
            command.env(variable, login);
        }
        command
            .current_dir(self.sources(place))
            .env(self.address_variable, format!("{}{address}", self.scheme))
            .envs(self.variables.iter().copied())
            .arg(format!("-test.run={}", pattern(&batch.tests)))
            .args(["-test.v", "-test.count=1"])
            .arg(format!("-test.timeout={}s", self.seconds_max));
        Ok(command)
    }

    fn read(&self, batch: &Batch, ended: &Ended, _work: &Path) -> BTreeMap<String, Outcome> {
        let outcomes = batch.tests.iter();
        outcomes
            .filter_map(|test| Some((test.clone(), outcome(test, &ended.output)?)))
            .collect()
    }
}

impl Tests {
    fn broker_for(&self, test: &str) -> Broker {
        let found = self.elsewhere.iter().find(|(name, _)| *name == test);
        found.map_or(self.broker, |(_, broker)| *broker)
    }

    fn sources(&self, place: &Path) -> PathBuf {
        place.join("source").join(self.directory)
    }

    /// The files of tests.
    fn files(&self, place: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.sources(place))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Examples lie in a package of their own and are not run.
            if name.ends_with("_test.go") && !name.starts_with("example_") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn change(&self, place: &Path) -> Result<()> {
        let files = self.files(place)?;
        for (file, from, to) in self.changes {
            let mut count = 0;
            for path in &files {
                if *file != "*" && !path.ends_with(file) {
                    continue;
                }
                let text = fs::read_to_string(path)?;
                count += text.matches(from).count();
                fs::write(path, text.replace(from, to))?;
            }
            ensure!(count > 0, "{file} has no {from:?}: this is another version");
        }
        for (file, text) in self.additions {
            fs::write(self.sources(place).join(file), text)?;
        }
        Ok(())
    }
}

fn binary(place: &Path) -> PathBuf {
    place.join("suite.test")
}

/// The parts of a test that lists them as scenarios, by Go's names for them.
fn scenarios_of(test: &str, source: &str) -> Vec<String> {
    let opening = format!("func {test}(");
    let body = source
        .lines()
        .skip_while(|line| !line.starts_with(&opening));
    body.take_while(|line| *line != "}")
        .map(str::trim)
        .filter(|line| line.starts_with("scenario:") || line.starts_with("t.Run(\""))
        .filter_map(|rest| rest.split('"').nth(1))
        .map(|scenario| format!("{test}/{}", scenario.replace(' ', "_")))
        .collect()
}

/// What chooses these tests, level by level: a batch has one part, or tests without parts.
fn pattern(tests: &[String]) -> String {
    let exactly = |name: &str| {
        let escaped: String = name
            .chars()
            .flat_map(|c| {
                let meta = !(c.is_alphanumeric() || c == '_');
                meta.then_some('\\').into_iter().chain([c])
            })
            .collect();
        format!("^{escaped}$")
    };
    match tests {
        [only] => only.split('/').map(exactly).collect::<Vec<_>>().join("/"),
        many => format!("^({})$", many.join("|")),
    }
}

/// The functions at a file's outer level, methods left out, with the words that they use.
fn functions_of(source: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut functions = BTreeMap::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("func ") else {
            continue;
        };
        let name: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let mut words = words_of(rest);
        // gofmt closes what stands at the outer level by a brace in the first column.
        if !line.ends_with('}') {
            words.extend(
                lines
                    .by_ref()
                    .take_while(|line| *line != "}")
                    .flat_map(words_of),
            );
        }
        if !name.is_empty() {
            words.remove(&name);
            functions.insert(name, words);
        }
    }
    functions
}

fn words_of(line: &str) -> BTreeSet<String> {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_string)
        .collect()
}

/// The tests that use a mark, or a function that does.
fn tests_with_a_broker(
    functions: &BTreeMap<String, BTreeSet<String>>,
    marks: &[&str],
) -> BTreeSet<String> {
    let mut reached: BTreeSet<String> = marks.iter().map(|mark| (*mark).to_string()).collect();
    loop {
        let more: Vec<String> = functions
            .iter()
            .filter(|(name, words)| !reached.contains(*name) && !words.is_disjoint(&reached))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        reached.extend(more);
    }
    reached
        .into_iter()
        .filter(|name| {
            let is_test = name.strip_prefix("Test").is_some_and(|rest| {
                !rest.starts_with(char::is_lowercase) && functions.contains_key(name)
            });
            is_test && name != "TestMain"
        })
        .collect()
}

/// By Go's line of the test, with the first line of a failing test's own words.
fn outcome(test: &str, output: &str) -> Option<Outcome> {
    let said = |mark: &str| {
        let line = format!("--- {mark}: {test} (");
        output
            .lines()
            .any(|found| found.trim_start().starts_with(&line))
    };
    let words = || {
        let mut lines = output.lines().map(str::trim);
        let line = lines.find(|line| line.contains("_test.go:") && !line.starts_with("/"));
        line.unwrap_or("it says nothing").to_string()
    };
    if said("PASS") {
        Some(Outcome::Passed)
    } else if said("SKIP") {
        Some(Outcome::Skipped(words()))
    } else if said("FAIL") {
        Some(Outcome::Failed(words()))
    } else {
        let mut lines = output.lines();
        let panic = lines.find(|line| line.starts_with("panic: ") || line.starts_with("fatal"))?;
        Some(Outcome::Failed(panic.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "package x\n\nfunc dial() string { return brokerAddress() }\n\n\
        func TestThere(t *testing.T) {\n\tfor _, c := range cases {\n\t\tcheck(t, c)\n\t}\n}\n\n\
        func check(t *testing.T, c int) {\n\tdial()\n}\n\n\
        func TestElsewhere(t *testing.T) {\n\t// dial\n\tencode()\n}\n\n\
        func Testimony() {\n\tdial()\n}\n\n\
        func (c *Conn) encode() {\n\tdial()\n}\n";

    #[test]
    fn tests_count_that_reach_a_broker() {
        let tests = tests_with_a_broker(&functions_of(SOURCE), &["brokerAddress"]);
        assert_eq!(tests.into_iter().collect::<Vec<_>>(), ["TestThere"]);
    }

    #[test]
    fn parts_are_chosen_by_gos_names() {
        let source = "func TestA(t *testing.T) {\n\ttests := x{\n\t\t{\n\t\t\tscenario: \"one part (1)\",\n\t\t},\n\t}\n}\n\n\
            func TestB(t *testing.T) {\n\t\t\tscenario: \"other\",\n}\n";
        let parts = scenarios_of("TestA", source);
        assert_eq!(parts, ["TestA/one_part_(1)"]);
        assert_eq!(pattern(&parts), r"^TestA$/^one_part_\(1\)$");
        assert_eq!(pattern(&["TestB".to_string()]), "^TestB$");
    }

    #[test]
    fn gos_output_tells_each_test() {
        let output = "=== RUN   TestA\n    a_test.go:9: no luck\n--- FAIL: TestA (0.10s)\n\
            === RUN   TestB\n--- PASS: TestB (0.00s)\n    --- FAIL: TestC/part (0.00s)\n\
            === RUN   TestD\n    d_test.go:1: not today\n--- SKIP: TestD (0.00s)\nFAIL\n";
        assert_eq!(
            outcome("TestA", output),
            Some(Outcome::Failed("a_test.go:9: no luck".to_string()))
        );
        assert_eq!(outcome("TestB", output), Some(Outcome::Passed));
        assert_eq!(outcome("TestC", output), None);
        assert!(matches!(
            outcome("TestC/part", output),
            Some(Outcome::Failed(_))
        ));
        assert!(matches!(
            outcome("TestD", output),
            Some(Outcome::Skipped(_))
        ));
        assert_eq!(
            outcome("TestE", "panic: test timed out after 3m0s\n"),
            Some(Outcome::Failed(
                "panic: test timed out after 3m0s".to_string()
            ))
        );
    }
}
