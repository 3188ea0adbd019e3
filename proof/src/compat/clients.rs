//! The matrix: every client with its version, how it is installed, how its program is run, and
//! the scenarios that it owes. A scenario that a program does not report counts as failed.
//! Source of the versions: the newest served at the time of writing, besides those named older.

use super::install::Kit;

/// One row of the matrix.
pub struct Client {
    /// Name on the command line and in the table.
    pub name: &'static str,
    /// The client library's version.
    pub version: &'static str,
    /// What has to be installed or built first.
    pub kits: &'static [Kit],
    /// How its program is started.
    pub program: Program,
    /// Scenarios that must each be reported as passed, in groups that clients share.
    pub scenarios: &'static [&'static [&'static str]],
}

impl Client {
    /// Its scenarios, in the order of the table.
    pub fn scenarios(&self) -> impl Iterator<Item = &'static str> {
        self.scenarios.iter().copied().flatten().copied()
    }

    /// The same in one line.
    pub fn listed(&self) -> String {
        self.scenarios().collect::<Vec<_>>().join(", ")
    }
}

/// How a client's program is started.
pub enum Program {
    /// A script under `tests/compat`, by the interpreter of a virtual environment, or by the system's.
    Python {
        /// Name of the environment; none for the system's Python.
        environment: Option<&'static str>,
        /// Path below `tests/compat`.
        script: &'static str,
    },
    /// A class compiled from `tests/compat/java`.
    Java {
        /// The Maven file whose class path is used.
        project: &'static str,
        /// Main class.
        class: &'static str,
    },
    /// A script under `tests/compat`, by Node.js with the modules of a kit.
    Node {
        /// Path below `tests/compat`.
        script: &'static str,
    },
    /// A binary below the cache directory.
    Binary {
        /// Path below the cache directory.
        path: &'static str,
    },
}

/// Over SASL_SSL by each mechanism that the client knows, and over SSL with a certificate of its own; who does not show what he
/// has to is not let in. Apache Kafka is not set up for it.
pub const SECURED: &[&str] = &["SASL_SSL", "mTLS"];

/// Each codec that records are compressed by.
const CODECS: &[&str] = &[
    "codec none",
    "codec gzip",
    "codec snappy",
    "codec lz4",
    "codec zstd",
];

/// Every Kafka library: what it owes.
const LIBRARY: &[&[&str]] = &[
    &["create"],
    CODECS,
    &[
        "seek by time",
        "idempotent",
        "transactions",
        "group",
        "restart",
    ],
    SECURED,
];

/// The same, and at the end a compacted topic as a registry.
const REGISTRY: &[&[&str]] = &[
    LIBRARY[0],
    LIBRARY[1],
    LIBRARY[2],
    LIBRARY[3],
    &["registry"],
];

/// kcat produces by lines and knows no transactions.
const KCAT: &[&[&str]] = &[
    &["create"],
    CODECS,
    &["seek by time", "idempotent", "group", "restart"],
    SECURED,
];

/// What reads tables by HTTP, which Apache Kafka has not.
pub const ENGINES: &str = "engines";
/// The same on three million rows, or, in the matrix, a part of them.
pub const FLIGHTS: &str = "flights";
/// What speaks MQTT: mosquitto's tools, and paho, whose version is told.
pub const MQTT: &str = "mqtt";
/// Other clients of MQTT; aiomqtt's version is told.
pub const MQTT_OTHERS: &str = "mqtt-others";
/// The JMS client that speaks AMQP 1.0.
pub const JMS: &str = "qpid-jms";
/// Where its class path is told, `tests/compat/java/jms.pom.xml`.
pub const JMS_PROJECT: &str = "jms";
/// The client and our programs for it, of which the exam has one.
pub const JMS_KIT: Kit = Kit::Java {
    project: JMS_PROJECT,
    sources: &["Desk.java", "Jms.java", "Fleet.java"],
};
/// The same of JMS 2, whose API has another name.
pub const JMS_JAVAX: &str = "qpid-jms-1";
/// Where its class path is told, `tests/compat/java/jms-javax.pom.xml`.
pub const JAVAX_PROJECT: &str = "jms-javax";
/// The client and our program for it.
pub const JAVAX: Kit = Kit::JavaAs {
    project: JAVAX_PROJECT,
    sources: &["Desk.java", "Jms.java"],
    written: ("jakarta.jms.", "javax.jms."),
};
/// Other clients of AMQP 1.0.
const RHEA: &str = "rhea";
const GO_AMQP: &str = "go-amqp";
const PROTON: &str = "proton";
const PROTON_J2: &str = "protonj2";
/// Azure's clients of Event Hubs, for Python, Go, JavaScript and Java.
const EVENT_HUBS: &str = "azure-eventhub";
const EVENT_HUBS_GO: &str = "azeventhubs";
const EVENT_HUBS_JS: &str = "azure-event-hubs";
const EVENT_HUBS_JAVA: &str = "azure-messaging-eventhubs";
/// What speaks AMQP.
pub const AMQP: &[&str] = &[
    JMS,
    JMS_JAVAX,
    RHEA,
    GO_AMQP,
    PROTON,
    PROTON_J2,
    EVENT_HUBS,
    EVENT_HUBS_GO,
    EVENT_HUBS_JS,
    EVENT_HUBS_JAVA,
];
/// What each client of Event Hubs owes.
const EVENT_HUBS_SCENARIOS: &[&str] = &[
    "properties",
    "there and back",
    "positions",
    "partition keys",
    "owner level",
    "kafka",
    "kill",
];
/// What Kafka's share consumer owes, on Apache Kafka, too.
const SHARES_SCENARIOS: &[&str] = &[
    "implicit",
    "explicit",
    "expiry",
    "subscription",
    "reset",
    "what must be acknowledged",
    "callback",
    "parts of a batch",
    "given back",
    "delivery limit",
    "renewal",
    "groups",
    "records as sent",
    "deleted records",
    "topics come and go",
    "kill",
];
/// What Qpid's JMS client owes.
const JMS_SCENARIOS: &[&str] = &[
    "bodies",
    "headers",
    "acknowledgements",
    "selectors",
    "browser",
    "transacted session",
    "temporary queue",
    "temporary topic",
    "topics",
    "durable subscription",
    "shared subscriptions",
    "time to live",
    "kill",
];
/// Java's clients of MQTT; HiveMQ's version is told.
pub const MQTT_JAVA: &str = "mqtt-java";
/// MQTT.js.
pub const MQTT_JS: &str = "mqtt.js";
/// Go's clients of MQTT; that of paho.mqtt.golang is told.
pub const MQTT_GO: &str = "mqtt-go";
/// Rust's client of MQTT.
pub const MQTT_RUST: &str = "rumqttc";
/// What is not run in `cargo xtask test`, for its time.
pub const LONG: &[&str] = &[
    MQTT_OTHERS,
    MQTT_JS,
    MQTT_JAVA,
    MQTT_GO,
    MQTT_RUST,
    JMS_JAVAX,
    GO_AMQP,
    PROTON,
    PROTON_J2,
    EVENT_HUBS,
    EVENT_HUBS_GO,
    EVENT_HUBS_JS,
    EVENT_HUBS_JAVA,
];
/// What holds HTTP against its own description.
pub const SCHEMATHESIS: &str = "schemathesis";

/// The engines, as a Python environment.
pub const ENGINES_KIT: Kit = Kit::Python {
    environment: "engines",
    packages: &[
        "confluent-kafka==2.16.1",
        "duckdb==1.5.5",
        "duckdb-extensions==1.5.5",
        "duckdb-extension-httpfs==1.5.5",
        "pandas==3.1.1",
        "polars==2.1.0",
        "pyarrow==26.0.1",
    ],
};

/// Programs of the newest Java client.
const JAVA_4: &[&str] = &[
    "Desk.java",
    "Clients.java",
    "Secured.java",
    "Member.java",
    "Shares.java",
];

const CONFLUENT_SCRIPT: &str = "confluent/run.py";

/// Every client, in the order of the table.
pub const CLIENTS: &[Client] = &[
    Client {
        name: "kcat",
        version: "1.7.1",
        kits: &[
            Kit::Debian {
                program: "kcat",
                package: "kcat",
            },
            Kit::SystemPython,
        ],
        program: Program::Python {
            environment: None,
            script: "kcat/run.py",
        },
        scenarios: KCAT,
    },
    Client {
        name: "confluent-2.0",
        version: "2.0.2",
        kits: &[Kit::Python {
            environment: "confluent-2.0",
            packages: &["confluent-kafka==2.0.2"],
        }],
        program: Program::Python {
            environment: Some("confluent-2.0"),
            script: CONFLUENT_SCRIPT,
        },
        scenarios: REGISTRY,
    },
    Client {
        name: "confluent-2.8",
        version: "2.8.2",
        kits: &[Kit::Python {
            environment: "confluent-2.8",
            packages: &["confluent-kafka==2.8.2"],
        }],
        program: Program::Python {
            environment: Some("confluent-2.8"),
            script: CONFLUENT_SCRIPT,
        },
        scenarios: REGISTRY,
    },
    Client {
        name: "confluent-newest",
        version: "2.16.1",
        kits: &[Kit::Python {
            environment: "confluent-newest",
            packages: &["confluent-kafka==2.16.1"],
        }],
        program: Program::Python {
            environment: Some("confluent-newest"),
            script: CONFLUENT_SCRIPT,
        },
        scenarios: REGISTRY,
    },
    Client {
        name: "kafka-python",
        version: "3.0.12",
        kits: &[Kit::Python {
            environment: "kafka-python",
            packages: &[
                "kafka-python==3.0.12",
                "crc32c==2.9.post0",
                "lz4==4.4.5",
                "python-snappy==0.7.3",
                "zstandard==0.25.0",
            ],
        }],
        program: Program::Python {
            environment: Some("kafka-python"),
            script: "kafka_python/run.py",
        },
        scenarios: LIBRARY,
    },
    Client {
        name: "franz-go",
        version: "1.22.2",
        kits: &[Kit::Go {
            project: "go",
            program: "franz-go",
        }],
        program: Program::Binary { path: "franz-go" },
        scenarios: REGISTRY,
    },
    Client {
        name: "java-3.9",
        version: "3.9.1",
        kits: &[Kit::Java {
            project: "clients-3.9",
            sources: &["Desk.java", "Clients.java", "Secured.java"],
        }],
        program: Program::Java {
            project: "clients-3.9",
            class: "Clients",
        },
        scenarios: REGISTRY,
    },
    Client {
        name: "java-4",
        version: "4.3.1",
        kits: &[Kit::Java {
            project: "clients-4",
            sources: JAVA_4,
        }],
        program: Program::Java {
            project: "clients-4",
            class: "Clients",
        },
        scenarios: REGISTRY,
    },
    Client {
        name: "java-shares",
        version: "4.3.1",
        kits: &[Kit::Java {
            project: "clients-4",
            sources: JAVA_4,
        }],
        program: Program::Java {
            project: "clients-4",
            class: "Shares",
        },
        scenarios: &[SHARES_SCENARIOS],
    },
    Client {
        name: "console-tools",
        version: "4.3.1",
        kits: &[Kit::Java {
            project: "tools",
            sources: &["Desk.java", "Tools.java"],
        }],
        program: Program::Java {
            project: "tools",
            class: "Tools",
        },
        scenarios: &[
            &["topics", "configs"],
            CODECS,
            &[
                "get-offsets",
                "consumer-groups",
                "share-groups",
                "delete-records",
                "verifiable producer and consumer",
                "users and quotas",
                "restart",
                "dump segments",
            ],
        ],
    },
    Client {
        name: "kafka-streams",
        version: "4.3.1",
        kits: &[Kit::Java {
            project: "streams",
            sources: &["Desk.java", "Streams.java"],
        }],
        program: Program::Java {
            project: "streams",
            class: "Streams",
        },
        scenarios: &[&[
            "stateless",
            "word count",
            "topics of its own",
            "windowed",
            "restart with restored state",
        ]],
    },
    Client {
        name: "kafka-connect",
        version: "4.3.1",
        kits: &[Kit::Java {
            project: "connect",
            sources: &["Desk.java", "Connect.java"],
        }],
        program: Program::Java {
            project: "connect",
            class: "Connect",
        },
        scenarios: &[&[
            "topics of its own",
            "file to topic to file",
            "worker restart",
            "broker restart",
            "what is deleted stays away",
        ]],
    },
    Client {
        name: ENGINES,
        version: "0.1",
        kits: &[
            Kit::Debian {
                program: "curl",
                package: "curl",
            },
            ENGINES_KIT,
        ],
        program: Program::Python {
            environment: Some("engines"),
            script: "engines/run.py",
        },
        scenarios: &[&[
            "load",
            "curl",
            "pyarrow",
            "pandas",
            "polars",
            "duckdb",
            "time windows",
            "histories",
            "pages",
            "refusals",
            "long",
            "files",
            "cut",
            "schema",
        ]],
    },
    Client {
        name: FLIGHTS,
        version: "3.2.1",
        kits: &[
            Kit::Debian {
                program: "curl",
                package: "curl",
            },
            ENGINES_KIT,
            Kit::NpmFile {
                name: "vega-datasets",
                version: "3.2.1",
                file: "data/flights-3m.parquet",
            },
        ],
        program: Program::Python {
            environment: Some("engines"),
            script: "engines/flights.py",
        },
        scenarios: &[&[
            "load",
            "pyarrow",
            "pandas",
            "curl",
            "polars",
            "polars files",
            "duckdb files",
            "histories",
            "time windows",
            "days",
        ]],
    },
    Client {
        name: "rskafka",
        version: "0.6.0",
        kits: &[Kit::Cargo { project: "rskafka" }],
        program: Program::Binary {
            path: "rskafka/debug/rskafka-compat",
        },
        scenarios: &[
            &["create"],
            CODECS,
            &["seek by time", "delete records", "restart"],
        ],
    },
    Client {
        name: "kafkajs",
        version: "2.2.4",
        kits: &[Kit::Node { project: "kafkajs" }],
        program: Program::Node {
            script: "kafkajs/run.js",
        },
        scenarios: LIBRARY,
    },
    Client {
        name: MQTT,
        version: "2.2.0",
        kits: &[
            Kit::Debian {
                program: "mosquitto_pub",
                package: "mosquitto-clients",
            },
            Kit::Python {
                environment: "mqtt",
                packages: &["paho-mqtt==2.2.0", "confluent-kafka==2.16.1"],
            },
        ],
        program: Program::Python {
            environment: Some("mqtt"),
            script: "mqtt/run.py",
        },
        scenarios: &[&["mosquitto", "paho", "kafka", "history", "websocket", "kill"]],
    },
    Client {
        name: MQTT_OTHERS,
        version: "2.5.1",
        kits: &[Kit::Python {
            environment: "mqtt-others",
            packages: &["aiomqtt==2.5.1", "gmqtt==0.8.0", "confluent-kafka==2.16.1"],
        }],
        program: Program::Python {
            environment: Some("mqtt-others"),
            script: "mqtt/others.py",
        },
        scenarios: &[&["aiomqtt", "aiomqtt kill", "gmqtt", "gmqtt kill"]],
    },
    Client {
        name: JMS,
        version: "2.10.0",
        kits: &[JMS_KIT],
        program: Program::Java {
            project: JMS_PROJECT,
            class: "Jms",
        },
        scenarios: &[JMS_SCENARIOS],
    },
    Client {
        name: JMS_JAVAX,
        version: "1.15.0",
        kits: &[JAVAX],
        program: Program::Java {
            project: JAVAX_PROJECT,
            class: "Jms",
        },
        scenarios: &[JMS_SCENARIOS],
    },
    Client {
        name: RHEA,
        version: "3.0.5",
        kits: &[Kit::Node { project: "rhea" }],
        program: Program::Node {
            script: "rhea/run.js",
        },
        scenarios: &[&["bodies", "credit", "outcomes", "kafka", "kill"]],
    },
    Client {
        name: GO_AMQP,
        version: "1.7.0",
        kits: &[Kit::Go {
            project: "goamqp",
            program: GO_AMQP,
        }],
        program: Program::Binary { path: GO_AMQP },
        scenarios: &[&["bodies", "credit", "outcomes", "kafka", "kill"]],
    },
    Client {
        name: PROTON,
        version: "0.40.0",
        kits: &[Kit::Python {
            environment: PROTON,
            packages: &["python-qpid-proton==0.40.0", "confluent-kafka==2.16.1"],
        }],
        program: Program::Python {
            environment: Some(PROTON),
            script: "amqp/proton_client.py",
        },
        scenarios: &[&["bodies", "credit", "transactions", "kafka", "kill"]],
    },
    Client {
        name: PROTON_J2,
        version: "1.1.0",
        kits: &[Kit::Java {
            project: PROTON_J2,
            sources: &["Desk.java", "Records.java", "Proton.java"],
        }],
        program: Program::Java {
            project: PROTON_J2,
            class: "Proton",
        },
        scenarios: &[&[
            "bodies",
            "credit",
            "outcomes",
            "transactions",
            "kafka",
            "kill",
        ]],
    },
    Client {
        name: EVENT_HUBS,
        version: "5.15.1",
        kits: &[Kit::Python {
            environment: EVENT_HUBS,
            packages: &["azure-eventhub==5.15.1", "confluent-kafka==2.16.1"],
        }],
        program: Program::Python {
            environment: Some(EVENT_HUBS),
            script: "amqp/eventhub_client.py",
        },
        scenarios: &[EVENT_HUBS_SCENARIOS],
    },
    Client {
        name: EVENT_HUBS_GO,
        version: "2.0.2",
        kits: &[Kit::Go {
            project: "azeventhubs",
            program: EVENT_HUBS_GO,
        }],
        program: Program::Binary {
            path: EVENT_HUBS_GO,
        },
        scenarios: &[EVENT_HUBS_SCENARIOS],
    },
    Client {
        name: EVENT_HUBS_JS,
        version: "6.0.4",
        kits: &[Kit::Node {
            project: "eventhubsjs",
        }],
        program: Program::Node {
            script: "eventhubsjs/run.js",
        },
        scenarios: &[EVENT_HUBS_SCENARIOS, &["buffered"]],
    },
    Client {
        name: EVENT_HUBS_JAVA,
        version: "5.21.5",
        kits: &[Kit::Java {
            project: "eventhubs",
            sources: &["Desk.java", "Records.java", "Hubs.java"],
        }],
        program: Program::Java {
            project: "eventhubs",
            class: "Hubs",
        },
        scenarios: &[EVENT_HUBS_SCENARIOS],
    },
    Client {
        name: MQTT_JS,
        version: "5.16.0",
        kits: &[Kit::Node { project: "mqttjs" }],
        program: Program::Node {
            script: "mqttjs/run.js",
        },
        scenarios: &[&["there and back", "kill", "shared", "history"]],
    },
    Client {
        name: MQTT_GO,
        version: "1.5.1",
        kits: &[Kit::Go {
            project: "mqttgo",
            program: "mqtt-go",
        }],
        program: Program::Binary { path: "mqtt-go" },
        scenarios: &[&["3.1.1", "3.1.1 kill", "5", "kafka topics"]],
    },
    Client {
        name: MQTT_RUST,
        version: "0.25.1",
        kits: &[Kit::Cargo { project: "rumqttc" }],
        program: Program::Binary {
            path: "rumqttc/debug/rumqttc-compat",
        },
        scenarios: &[&[
            "3.1.1",
            "5",
            "3.1.1 kill",
            "5 kill",
            "3.1.1 kafka topics",
            "5 kafka topics",
        ]],
    },
    Client {
        name: MQTT_JAVA,
        version: "1.3.7",
        kits: &[Kit::Java {
            project: "mqtt",
            sources: &["Desk.java", "Mqtt.java"],
        }],
        program: Program::Java {
            project: "mqtt",
            class: "Mqtt",
        },
        scenarios: &[&[
            "hivemq 3.1.1",
            "hivemq 5",
            "hivemq 3.1.1 kill",
            "hivemq 5 kill",
            "paho 3.1.1",
            "paho 5",
            "paho 3.1.1 kill",
        ]],
    },
    Client {
        name: SCHEMATHESIS,
        version: "4.32.5",
        kits: &[
            Kit::Python {
                environment: "schemathesis",
                packages: &["schemathesis==4.32.5"],
            },
            Kit::Debian {
                program: "promtool",
                package: "prometheus",
            },
        ],
        program: Program::Python {
            environment: Some("schemathesis"),
            script: "http/run.py",
        },
        scenarios: &[&["document", "conforms", "metrics"]],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compatibility_page_lists_the_matrix() {
        let mut table = String::from("| client | version | scenarios |\n|---|---|---|\n");
        for client in CLIENTS {
            let (name, version) = (client.name, client.version);
            let scenarios = client.listed();
            table += &format!("| {name} | {version} | {scenarios} |\n");
        }
        let page = include_str!("../../../docs/COMPATIBILITY.md");
        let wanted = format!("<!-- clients -->\n\n{table}\n");
        assert!(page.contains(&wanted), "the page must say:\n{wanted}");
    }
}
