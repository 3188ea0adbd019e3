//! `alluvium doctor` and `alluvium bench`, against a broker's process.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::binary::{Running, on_broker, serve, tool};
use crate::server::Server;

fn doctor(brokers: &str) -> (Option<i32>, Value) {
    let said = tool(&["doctor", "-b", brokers, "--json", "--timeout-ms", "3000"]);
    (said.code, serde_json::from_str(&said.stdout).expect("JSON"))
}

/// What failed, in one text: what was found, and the advice.
fn failures(report: &Value) -> String {
    let findings = report["findings"].as_array().expect("a list");
    let failed = findings.iter().filter(|one| one["verdict"] == "failed");
    failed
        .map(|one| format!("{} -> {}\n", one["found"], one["advice"]))
        .collect()
}

#[test]
fn the_doctor_finds_a_broker_on_loopback_sound_and_says_who_can_use_it() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let (code, report) = doctor(&running.kafka);
    assert_eq!(
        (code, &report["healthy"]),
        (Some(0), &json!(true)),
        "{report}"
    );
    assert_eq!(
        report["warnings"],
        json!(1),
        "only clients on this machine can use it: {report}"
    );
    let said = tool(&["doctor", "-b", &running.kafka]);
    assert!(
        said.stdout.contains("ok       bootstrap"),
        "{}",
        said.stdout
    );
}

#[test]
fn the_doctor_says_what_is_wrong_with_an_advertised_address_and_what_to_set() {
    // A port that nobody listens on: bound once, and given back.
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").port()
    };
    for (advertised, said) in [
        (format!("127.0.0.1:{port}"), "Connection refused"),
        ("no-such-host.invalid:9092".to_owned(), "cannot be resolved"),
    ] {
        let data = tempfile::tempdir().expect("a directory");
        let setting = format!("advertised.listeners=PLAINTEXT://{advertised}");
        let running = Running::start(serve(data.path()).args(["-X", &setting]));
        let (code, report) = doctor(&running.kafka);
        assert_eq!(code, Some(1), "{report}");
        let failures = failures(&report);
        for part in [said, "advertised.listeners", advertised.as_str()] {
            assert!(failures.contains(part), "{failures}");
        }
    }
}

#[test]
fn the_doctor_tells_a_wrong_port_from_no_server_and_no_name() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    for (brokers, said) in [
        (running.http.as_str(), "HTTP"),
        ("127.0.0.1:1", "alluvium serve"),
        ("no-such-host.invalid:9092", "cannot be resolved"),
    ] {
        let (code, report) = doctor(brokers);
        assert_eq!(code, Some(4), "{report}");
        assert!(failures(&report).contains(said), "{report}");
    }
    let said = tool(&["doctor", "-b", "localhost:kafka"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(
        said.stderr.contains("a port is a number"),
        "{}",
        said.stderr
    );
    // One bad address beside a good one is told, but the good one is followed.
    let (code, report) = doctor(&format!("127.0.0.1:1,{}", running.kafka));
    assert_eq!(code, Some(1), "{report}");
    assert!(report.to_string().contains("cluster"), "{report}");
    // Another cluster at the advertised address.
    let other = tempfile::tempdir().expect("a directory");
    let setting = format!("advertised.listeners=PLAINTEXT://{}", running.kafka);
    let other = Running::start(serve(other.path()).args(["-X", &setting]));
    let (code, report) = doctor(&other.kafka);
    assert_eq!(code, Some(1), "{report}");
    assert!(failures(&report).contains("another cluster"), "{report}");
}

#[test]
fn the_benchmark_measures_all_three_and_leaves_nothing_behind() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    let bench = |args: &[&str]| {
        let mut all = vec![
            "bench",
            "-b",
            &running.kafka,
            "--seconds",
            "1",
            "--batch-bytes",
            "16384",
        ];
        all.extend(args);
        tool(&all)
    };
    let report = bench(&["--runs", "2", "--partitions", "2", "--json"]).json();
    for measure in ["produce", "replay"] {
        let rate = &report[measure]["bytes_per_second"];
        let of = |name: &str| rate[name].as_f64().expect("a number");
        assert!(
            of("max") > 0.0 && of("min") <= of("median") && of("median") <= of("max"),
            "{rate}"
        );
    }
    let latency = &report["latency"];
    let (p50, p99) = (
        latency["p50_ms"]["median"].as_f64(),
        latency["p99_ms"]["median"].as_f64(),
    );
    assert!(Some(0.0) < p50 && p50 <= p99, "{latency}");
    let half = report["produce"]["bytes_per_second"]["median"]
        .as_f64()
        .map(|rate| rate / 2.0);
    assert_eq!(latency["rate_bytes_per_second"].as_f64(), half);
    let page = bench(&["latency", "--rate", "1", "--runs", "1"]);
    assert!(
        page.stdout.contains("ack at 1.0 MiB/s, p50"),
        "{}{}",
        page.stdout,
        page.stderr
    );
    let refused = bench(&["produce", "--topic-config", "no.such=1"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    let (_, metrics) = running.get("/metrics");
    assert!(!metrics.contains("topic=\"bench-"), "{metrics}");
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_brokers_settings_are_shown_and_changed() {
    let server = Server::start().await;
    let broker = async |args: &[&str]| on_broker(&server, &[&["broker"], args].concat(), "").await;
    let setting = async |name: &str| {
        let described = broker(&["describe", "--json"]).await.json();
        described["settings"][name].clone()
    };
    let before = json!({ "value": "50000", "source": "default", "live": true });
    assert_eq!(setting("max.connections").await, before);
    assert_eq!(setting("wal.files.max").await["live"], false);
    let set = ["alter", "--set", "max.connections=2000", "--json"];
    let dry = broker(&[&set[..], &["--dry-run"]].concat()).await.json();
    assert_eq!(dry["applied"], false);
    assert_eq!(setting("max.connections").await, before);
    let changed = broker(&set).await.json();
    let change = json!({ "setting": "max.connections", "old": "50000", "new": "2000" });
    let expected = json!({ "broker": 1, "applied": true, "changes": [change] });
    assert_eq!(changed, expected);
    let after = json!({ "value": "2000", "source": "running", "live": true });
    assert_eq!(setting("max.connections").await, after);
    let text = broker(&["describe"]).await.stdout;
    assert!(
        text.contains("max.connections") && text.contains("while it runs"),
        "{text}"
    );
    assert!(!text.contains("wal.files.min"), "{text}");
    let back = broker(&["alter", "--unset", "max.connections"]).await;
    assert_eq!(back.code, Some(0), "{}", back.stderr);
    assert_eq!(setting("max.connections").await, before);
    for (setting, said) in [
        ("wal.files.max=9", "needs a restart"),
        ("max.connections=0", "must be 1"),
        ("no.such=1", "unknown broker setting"),
    ] {
        let refused = broker(&["alter", "--set", setting]).await;
        assert_eq!(refused.code, Some(1), "{setting}");
        assert!(
            refused.stderr.contains(said),
            "{setting}: {}",
            refused.stderr
        );
    }
    // Less of all records is kept then, and nobody is there to be asked.
    let less = broker(&["alter", "--set", "store.bytes.max=5000000"]).await;
    assert_ne!(less.code, Some(0), "{}", less.stdout);
    let sure = broker(&["alter", "--set", "store.bytes.max=5000000", "--yes"]).await;
    assert_eq!(sure.code, Some(0), "{}", sure.stderr);
}

#[test]
fn who_is_connected_is_shown_with_what_each_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(directory.path()));
    let connections = |args: &[&str]| {
        let http = ["--http", running.http.as_str()];
        tool(&[&["broker", "connections"], args, &http].concat())
    };
    assert_eq!(connections(&["--json"]).json()["open"], 0);
    let silent = TcpStream::connect(&running.kafka).expect("it listens");
    let address = silent.local_addr().expect("its address").to_string();
    let deadline = Instant::now() + Duration::from_secs(10);
    let told = loop {
        let told = connections(&["--json"]).json();
        if told["open"] == 1 {
            break told;
        }
        assert!(Instant::now() < deadline, "{told}");
    };
    assert_eq!(told["connections"][0]["address"], *address);
    assert_eq!(told["connections"][0]["requests"], 0);
    let text = connections(&[]).stdout;
    assert!(
        text.contains(&address) && text.contains("1 open connection, 1 shown"),
        "{text}"
    );
    let other = connections(&["--client", "gateway"]).stdout;
    assert_eq!(other, "1 open connection, none to show\n");
    assert_eq!(connections(&["--limit", "0"]).code, Some(2));
    drop(silent);
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}
