//! What `alluvium produce` and `alluvium consume` promise whoever pipes records: nothing is lost without a word.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::binary::{Running, Said, alluvium, on_broker, serve};
use crate::server::Server;

async fn run(server: &Server, args: &[&str], input: &str) -> Said {
    on_broker(server, args, input).await
}

/// What is read of a topic, of a run that succeeds.
async fn values(server: &Server, args: &[&str]) -> String {
    let args = [&["consume"], args, &["-f", "%v,"]].concat();
    let said = run(server, &args, "").await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stdout
}

async fn create(server: &Server, name: &str, setting: &str) {
    let args = ["topic", "create", name, "-c", setting];
    let said = run(server, &args, "").await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_of_0_means_that_everything_is_stored() {
    let server = Server::start().await;
    for turn in 0..10 {
        let name = format!("t{turn}");
        create(&server, &name, "max.message.bytes=2000").await;
        let said = run(&server, &["produce", &name], &"small\n".repeat(500)).await;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let stored = values(&server, &[&name, "-e"]).await;
        assert_eq!(stored.matches("small").count(), 500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_fails_alone_and_is_named() {
    let server = Server::start().await;
    for codec in ["none", "lz4"] {
        create(&server, codec, "max.message.bytes=2000").await;
        // What does not compress: 6,000 hexadecimal digits, all different in their order.
        let noise: String = (0..1500_u32)
            .map(|n| format!("{:04x}", n.wrapping_mul(40_503) & 0xffff))
            .collect();
        let lines = format!("{0}{noise}\n{0}", "small\n".repeat(250));
        let said = run(&server, &["produce", codec, "-z", codec], &lines).await;
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert!(said.stderr.contains("1 of 501 records"), "{}", said.stderr);
        if codec == "none" {
            assert!(
                said.stderr.contains("record 251 of the input"),
                "{}",
                said.stderr
            );
            assert!(
                said.stderr.contains("max.message.bytes, 2000"),
                "{}",
                said.stderr
            );
        }
        let stored = values(&server, &[codec, "-e"]).await;
        assert_eq!(stored, "small,".repeat(500));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_not_a_record_is_refused_with_its_line() {
    let server = Server::start().await;
    let good = "{\"payload\":\"1\"}\n";
    for (line, reason) in [
        (
            "{\"temperature\":1}",
            "line 2 of the input: unknown key `temperature`",
        ),
        ("{\"value\":\"p\"}", "did you mean `payload`?"),
        ("{\"key\":\"k\"}", "no `payload`"),
    ] {
        let said = run(
            &server,
            &["produce", "sea", "-f", "json"],
            &format!("{good}{line}\n"),
        )
        .await;
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert!(said.stderr.contains(reason), "{}", said.stderr);
    }
    let said = run(
        &server,
        &["produce", "sea", "-f", "%k:%v\\n"],
        "a:1\nnokey\n:x\n",
    )
    .await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("record 2 of the input: its line ends"),
        "{}",
        said.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn key_and_time_come_from_fields_of_json_lines() {
    let server = Server::start().await;
    let lines = "{\"device\":\"pump\",\"at\":1700000000,\"v\":1}\n{\"device\":\"fan\",\"at\":\"2023-11-14T22:13:21Z\"}\n";
    let args = [
        "produce",
        "sea",
        "--key-field",
        "device",
        "--time-field",
        "at",
    ];
    let said = run(&server, &args, lines).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let read = run(&server, &["consume", "sea", "-e", "-f", "%d %k %v\\n"], "")
        .await
        .stdout;
    let first = "1700000000000 pump {\"device\":\"pump\",\"at\":1700000000,\"v\":1}\n";
    assert!(read.starts_with(first), "{read}");
    assert!(read.contains("\n1700000001000 fan {"), "{read}");
    let said = run(&server, &args, "{\"device\":\"pump\"}\n").await;
    assert!(
        said.stderr
            .contains("line 1 of the input: it has no field `at`"),
        "{}",
        said.stderr
    );
    let only = ["sea", "-e", "--key", "pump"];
    assert_eq!(values(&server, &only).await.matches("device").count(), 1);
    assert!(
        values(&server, &["se*", "-e", "--grep", "fan"])
            .await
            .contains("fan")
    );
    let none = run(&server, &["consume", "x*", "-e"], "").await;
    assert_eq!(none.code, Some(3), "{}", none.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_brings_nothing_says_why() {
    let server = Server::start().await;
    run(&server, &["produce", "sea"], "1\n2\n3\n").await;
    for (args, code, reason) in [
        (
            &["-o", "10"][..],
            2,
            "offset 10 is beyond the end: sea-0 holds offsets 0 to 2",
        ),
        (
            &["-o", "1700000000000", "-e"],
            2,
            "for a time write 1700000000000ms",
        ),
        (
            &["-o", "2099-01-01:", "-e"],
            0,
            "sea-0 holds offsets 0 to 2",
        ),
        (
            &["-o", ":1969-12-31T23:59:59.999Z"],
            0,
            "no record is in that range",
        ),
        (&["-e", "--key", "x"], 0, "no such record is in that range"),
        (&["-n", "0"], 0, "-n 0"),
    ] {
        let said = run(&server, &[&["consume", "sea"], args].concat(), "").await;
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (Some(code), ""),
            "{args:?}: {}",
            said.stderr
        );
        assert!(said.stderr.contains(reason), "{args:?}: {}", said.stderr);
    }
    // At the end, and by times as kcat writes them.
    assert_eq!(values(&server, &["sea", "-o", "2:", "-e"]).await, "3,");
    assert_eq!(
        values(
            &server,
            &["sea", "-o", "s@1700000000000", "-o", "e@4000000000000"]
        )
        .await,
        "1,2,3,"
    );
    let said = run(&server, &["produce", "old", "-t", "-10m"], "4\n").await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(values(&server, &["old", "-o", "-11m:-9m"]).await, "4,");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_1970_is_never_the_end() {
    let server = Server::start().await;
    run(&server, &["produce", "sea"], "1\n2\n").await;
    for time in [
        "1969-12-31T23:59:59.999Z",
        "1969-12-31T23:59:59.998Z",
        "0001-01-01",
        "-99999d",
    ] {
        let args = ["topic", "delete-records", "sea", "--before", time, "--yes"];
        let said = run(&server, &args, "").await;
        assert_eq!(said.code, Some(0), "{time}: {}", said.stderr);
        assert!(
            said.stdout.contains("0 records deleted"),
            "{time}: {}",
            said.stdout
        );
        assert_eq!(values(&server, &["sea", "-o", time, "-e"]).await, "1,2,");
        let args = ["group", "reset", "g", "-t", "sea", "--to", time, "--json"];
        let plan = run(&server, &args, "").await.json();
        assert_eq!(plan["partitions"][0]["new"], 0, "{time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_topic_is_deleted_ends_and_says_so() {
    let server = Server::start().await;
    create(&server, "gone", "max.message.bytes=2000").await;
    let mut writer = alluvium()
        .args([
            "produce",
            "gone",
            "-o",
            "%o\\n",
            "-b",
            &server.address.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // An input that does not end.
    let mut stdin = writer.stdin.take().expect("piped");
    let feeding = std::thread::spawn(move || {
        use std::io::Write as _;
        while stdin.write_all(b"line\n").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    while values(&server, &["gone", "-e"]).await.is_empty() {}
    let deleted = run(&server, &["topic", "delete", "gone", "--yes"], "").await;
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
    let end = tokio::task::spawn_blocking(|| writer.wait_with_output());
    let output = end.await.expect("it ran").expect("it ends");
    let said = Said::of(output);
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert!(said.stderr.contains("deleted"), "{}", said.stderr);
    let missing = run(&server, &["topic", "describe", "gone"], "").await;
    assert_eq!(missing.code, Some(3), "it was not created again");
    feeding.join().expect("it ended");
}

#[test]
fn who_cannot_be_reached_is_named_and_ctrl_c_ends_the_wait() {
    let data = tempfile::tempdir().expect("a temporary directory");
    // Nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nowhere = free.local_addr().expect("bound").to_string();
    drop(free);
    let advertised = format!("advertised.listeners=PLAINTEXT://{nowhere}");
    let server = Running::start(serve(data.path()).args(["-X", &advertised]));
    for command in [&["produce", "x"][..], &["consume", "x", "-e"]] {
        let mut child = alluvium()
            .args(command)
            .args(["-b", &server.kafka])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        if let Some(mut stdin) = child.stdin.take() {
            use std::io::Write as _;
            stdin.write_all(b"1\n").expect("written");
        }
        let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stderr, &mut line).expect("a line");
        assert!(
            line.contains(&nowhere) && line.contains("doctor"),
            "{command:?}: {line}"
        );
        let begun = Instant::now();
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::INT).expect("it runs");
        if command[0] == "produce" {
            // The first one waits a moment, the second one does not.
            std::io::BufRead::read_line(&mut stderr, &mut line).expect("a line");
            kill_process(pid, Signal::INT).expect("it runs");
        }
        child.wait().expect("it ends");
        assert!(begun.elapsed() < Duration::from_secs(60), "{command:?}");
    }
}

#[test]
fn the_http_port_is_recognized_by_every_command() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Running::start(&mut serve(data.path()));
    for command in [
        &["topic", "list"][..],
        &["produce", "x"],
        &["consume", "x"],
        &["group", "list"],
        &["bench"],
    ] {
        let output = alluvium()
            .args(command)
            .args(["-b", &server.http])
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let said = Said::of(output);
        assert_eq!(said.code, Some(4), "{command:?}: {}", said.stderr);
        let words = format!("{} speaks HTTP, not Kafka's protocol", server.http);
        assert!(said.stderr.contains(&words), "{command:?}: {}", said.stderr);
        assert!(
            said.stderr.contains("kafka="),
            "{command:?}: {}",
            said.stderr
        );
    }
    for address in ["127.0.0.1:99999", "a b", "http://a"] {
        let said = crate::binary::tool(&["topic", "list", "-b", address]);
        assert_eq!(said.code, Some(2), "{address}: {}", said.stderr);
    }
}

#[test]
fn a_closed_standard_error_changes_no_exit_code() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = alluvium()
        .args(["context", "use", "nosuch"])
        .stdout(Stdio::null())
        .stderr(writer)
        .status()
        .expect("it runs");
    assert_eq!(status.code(), Some(3));
}
