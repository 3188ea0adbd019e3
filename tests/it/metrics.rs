//! `/metrics` and `/readyz`, as a monitoring system reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use client::admin::{Admin, Committed, NewTopic};
use client::{Client, ClientConfig, Producer, ProducerConfig, ProducerRecord};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use rustix::process::Signal;
use serde_json::Value;

use crate::binary::{Running, serve};

/// The page as Prometheus's text format has it; what breaks the format fails the test.
#[derive(Debug, Default)]
struct Page {
    /// Families and their types.
    kinds: BTreeMap<String, String>,
    /// Values by the whole series, labels and all.
    series: BTreeMap<String, f64>,
}

impl Page {
    fn parse(text: &str) -> Page {
        let mut page = Page::default();
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help text");
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(helped.contains(name), "{name} has no help");
                let known = page.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "{name} comes twice");
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let value: f64 = value.parse().expect("a number");
                assert!(
                    page.family(series).is_some(),
                    "{series} belongs to no family"
                );
                let known = page.series.insert(series.to_owned(), value);
                assert_eq!(known, None, "{series} comes twice");
            }
        }
        page
    }

    fn family<'a>(&self, series: &'a str) -> Option<&'a str> {
        let name = series.split('{').next()?;
        if self.kinds.contains_key(name) {
            return Some(name);
        }
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part))?;
        (self.kinds.get(base)? == "histogram").then_some(base)
    }

    fn value(&self, series: &str) -> f64 {
        *self
            .series
            .get(series)
            .unwrap_or_else(|| panic!("there is no {series}"))
    }
}

fn page(running: &Running) -> Page {
    let (status, answer) = running.get("/metrics");
    assert_eq!(status, 200);
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    Page::parse(body)
}

/// Ten readings an hour old, of which a group has read four.
async fn traffic(kafka: &str) {
    let client = Client::connect(ClientConfig::new(kafka))
        .await
        .expect("a client");
    let admin = Admin::new(&client);
    let configs = vec![("segment.bytes".to_owned(), "4096".to_owned())];
    let topic = NewTopic {
        name: "readings".into(),
        partitions: Some(1),
        configs,
        ..NewTopic::default()
    };
    admin.create_topic(topic).await.expect("a topic");
    let name = TopicName::parse("readings").expect("a name");
    let producer = Producer::new(&client, ProducerConfig::default()).expect("a producer");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let hour_ago =
        Timestamp::from_millis(i64::try_from(now.as_millis()).expect("this age") - 3_600_000);
    for _ in 0..10 {
        let record = ProducerRecord::new(name.clone(), vec![b'x'; 1000]).timestamp(hour_ago);
        drop(producer.send(record).await.expect("sent"));
        producer.flush().await.expect("delivered");
    }
    producer.close().await.expect("closed");
    let partition = TopicPartition::new(name, PartitionId::new(0));
    let committed = Committed {
        offset: Offset::new(4),
        metadata: String::new(),
    };
    admin
        .commit("dashboards", &[(partition, committed)])
        .await
        .expect("committed");
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(work);
}

#[test]
fn metrics_have_the_names_that_dashboards_know_and_tell_what_happened() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    run(traffic(&running.kafka));
    let page = page(&running);
    let partition = "{topic=\"readings\",partition=\"0\"}";
    let group = "{consumergroup=\"dashboards\",topic=\"readings\",partition=\"0\"}";
    for (series, value) in [
        ("kafka_brokers".to_owned(), 1.0),
        ("kafka_topic_partitions{topic=\"readings\"}".to_owned(), 1.0),
        (
            format!("kafka_topic_partition_current_offset{partition}"),
            10.0,
        ),
        (
            format!("kafka_topic_partition_oldest_offset{partition}"),
            0.0,
        ),
        (format!("kafka_consumergroup_current_offset{group}"), 4.0),
        (format!("kafka_consumergroup_lag{group}"), 6.0),
        (
            "kafka_consumergroup_members{consumergroup=\"dashboards\"}".to_owned(),
            0.0,
        ),
        ("alluvium_disk_full".to_owned(), 0.0),
        ("alluvium_storage_failed".to_owned(), 0.0),
        ("alluvium_damaged_ranges".to_owned(), 0.0),
    ] {
        assert_eq!(page.value(&series), value, "{series}");
    }
    // Its time here counts, and what the device says of it stands beside.
    let age = page.value(&format!("alluvium_consumergroup_lag_seconds{group}"));
    assert!((0.0..600.0).contains(&age), "{age}");
    let age = page.value(&format!("alluvium_consumergroup_lag_event_seconds{group}"));
    assert!((3600.0..4200.0).contains(&age), "{age}");
    let topic = "{consumergroup=\"dashboards\",topic=\"readings\"}";
    assert_eq!(
        page.value(&format!("kafka_consumergroup_lag_sum{topic}")),
        6.0
    );
    let topic = "{topic=\"readings\"}";
    let of_topic = |name: &str| page.value(&format!("alluvium_topic_{name}_total{topic}"));
    assert_eq!(of_topic("appended_records"), 10.0);
    assert!((10_000.0..12_000.0).contains(&of_topic("appended_bytes")));
    assert_eq!(of_topic("fetched_bytes"), 0.0);
    assert_eq!(page.value("alluvium_appends_refused_total"), 0.0);
    assert_eq!(page.value("alluvium_appends_stalled"), 0.0);
    // One may come to its end while the page is made.
    let syncs = page.value("alluvium_wal_syncs_total");
    let timed = page.value("alluvium_wal_sync_duration_seconds_count");
    assert!(
        syncs > 0.0 && (timed - syncs).abs() <= 1.0,
        "{timed} of {syncs}"
    );
    assert!(page.value("alluvium_topic_bytes{topic=\"readings\"}") > 10_000.0);
    assert!(page.value("alluvium_wal_syncs_total") >= 10.0);
    assert!(page.value("alluvium_disk_free_bytes") <= page.value("alluvium_disk_size_bytes"));
    assert!(page.value("alluvium_kafka_request_duration_seconds_count{api=\"Produce\"}") >= 10.0);
}

#[test]
fn metrics_keep_to_the_conventions() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    run(traffic(&running.kafka));
    let page = page(&running);
    for (name, kind) in &page.kinds {
        assert!(
            ["alluvium_", "kafka_", "process_"]
                .iter()
                .any(|prefix| name.starts_with(prefix)),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            kind == "counter",
            "{name} is a {kind}"
        );
        for unit in [
            "_ms", "_millis", "_micros", "_kb", "_mb", "_kib", "_mib", "_percent",
        ] {
            assert!(
                !name.contains(unit),
                "{name}: base units are seconds, bytes and ratios"
            );
        }
    }
    let histogram = "alluvium_kafka_request_duration_seconds";
    let buckets = page
        .series
        .keys()
        .filter(|series| series.starts_with(&format!("{histogram}_bucket")));
    let mut of_api: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for series in buckets {
        let label = |name: &str| -> String {
            let (_, rest) = series.split_once(&format!("{name}=\"")).expect("a label");
            rest.split('"').next().expect("its value").to_owned()
        };
        let bound = label("le").replace("+Inf", "inf").parse().expect("a bound");
        of_api
            .entry(label("api"))
            .or_default()
            .push((bound, page.value(series)));
    }
    assert!(of_api.contains_key("Produce"));
    for (api, mut buckets) in of_api {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(
            buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
            "{api} is not cumulated"
        );
        let (last, all) = buckets[buckets.len() - 1];
        let count = page.value(&format!("{histogram}_count{{api=\"{api}\"}}"));
        assert!(last.is_infinite() && all == count, "{api}");
    }
}

#[test]
fn the_operations_page_explains_every_metric_and_none_that_is_not_there() {
    let data = tempfile::tempdir().expect("a directory");
    let listens = ["--mqtt", "127.0.0.1:0", "--amqp", "127.0.0.1:0"];
    let running = Running::start(serve(data.path()).args(listens));
    let served: BTreeSet<String> = page(&running).kinds.into_keys().collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = std::fs::read_to_string(path).expect("the page");
    let explained: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|cell| cell.split(['`', ',', ' ']))
        .filter(|name| {
            let prefixes = ["alluvium_", "kafka_", "process_"];
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(explained, served);
}

/// The names of metrics in an expression or a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.split(|character| !is_part(character))
        .filter(|word| {
            let prefixes = ["alluvium_", "kafka_", "process_"];
            prefixes.iter().any(|prefix| word.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn alert_rules_and_dashboard_ask_for_metrics_that_are_there() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let page = page(&running);
    let monitoring = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring");
    let read = |name: &str| std::fs::read_to_string(monitoring.join(name)).expect("the file");
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let shown: Vec<&Value> = panels
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect();
    assert!(shown.len() >= 15, "{}", shown.len());
    for panel in shown {
        for target in panel["targets"].as_array().expect("targets") {
            let names = names_in(target["expr"].as_str().expect("an expression"));
            assert!(!names.is_empty(), "{panel}");
            for name in names {
                assert!(page.family(&name).is_some(), "{name} is not there: {panel}");
            }
        }
    }
    let alerts = read("alerts.yml");
    let rules = alerts.matches("- alert: ").count();
    assert!(rules >= 10 && rules == alerts.matches("expr: ").count());
    for name in names_in(&alerts) {
        assert!(page.family(&name).is_some(), "{name} is not there");
    }
}

/// The directory of the topic's partition: the one with the most files.
fn directory(data: &Path) -> PathBuf {
    let list = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).expect("a directory");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let partitions = list(&data.join("p"))
        .into_iter()
        .flat_map(|spread| list(&spread));
    partitions
        .max_by_key(|partition| list(partition).len())
        .expect("a partition")
}

#[test]
fn a_server_that_lost_records_is_ready_and_says_what_is_missing() {
    let data = tempfile::tempdir().expect("a directory");
    // A stop does not settle: what is to be lost has to be in a segment before.
    let running = Running::start(serve(data.path()).args(["-X", "settle.age.ms=10"]));
    run(traffic(&running.kafka));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while page(&running).value("alluvium_settled_bytes_total") < 10_000.0 {
        assert!(std::time::Instant::now() < until, "nothing settles");
    }
    let ready = |running: &Running| -> (u16, Value) {
        let (status, answer) = running.get("/readyz");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        (status, serde_json::from_str(body).expect("JSON"))
    };
    let (status, body) = ready(&running);
    assert_eq!(
        (status, &body),
        (
            200,
            &serde_json::json!({
                "ready": true, "reasons": [], "acknowledged": [],
                "losses": { "entries": 0, "records": 0, "newest_ms": null },
            })
        )
    );
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    std::fs::remove_dir_all(directory(data.path())).expect("removed");
    let running = Running::start(&mut serve(data.path()));
    let (status, body) = ready(&running);
    assert_eq!(
        (status, &body["ready"]),
        (200, &Value::Bool(true)),
        "what is left is served"
    );
    let reason = &body["reasons"][0];
    assert_eq!(reason["code"], "damaged");
    assert!(reason["from"].as_u64() < reason["to"].as_u64(), "{reason}");
    assert!(
        reason["detail"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    assert!(page(&running).value("alluvium_damaged_ranges") >= 1.0);
}
