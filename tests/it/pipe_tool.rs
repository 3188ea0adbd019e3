//! `alluvium produce` and `alluvium consume`, against a broker.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::binary::{Said, alluvium, on_broker};
use crate::server::Server;

async fn produce(server: &Server, args: &[&str], input: &str) -> Said {
    on_broker(server, &[&["produce"], args].concat(), input).await
}

async fn consume(server: &Server, args: &[&str]) -> Said {
    on_broker(server, &[&["consume"], args].concat(), "").await
}

/// What is read, of a run that succeeds.
async fn read(server: &Server, args: &[&str]) -> String {
    let said = consume(server, args).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_out_as_they_went_in() {
    let server = Server::start().await;
    // The empty line, one that is not text, and a last one without its line feed.
    let lines: String = (0..50_000)
        .map(|number| format!("reading {number}\n"))
        .collect();
    let lines = format!("{lines}\n\u{fffd}\u{0}\nlast");
    let said = produce(&server, &["sea", "--json"], &lines).await.json();
    assert_eq!(said["records"], 50_003);
    assert_eq!(said["bytes"], lines.len() - 50_002);
    let back = read(&server, &["sea", "-e", "-f", "%v\\n"]).await;
    assert!(back == format!("{lines}\n"), "{} bytes", back.len());
    assert_eq!(produce(&server, &["sea"], "").await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_through_json_is_exact() {
    let server = Server::start().await;
    let format = "%d %k %v %H{1}%h{%k=%v;}\\n";
    let input = "1000 k1 v1 a=b;\n999 k2 v\"2\" c=d;\n";
    let said = produce(&server, &["sea", "-f", format], input).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let tombstone = ["sea", "-k", "gone", "-Z", "-t", "2026-03-01"];
    assert_eq!(produce(&server, &tombstone, "\n").await.code, Some(0));

    let lines = read(&server, &["sea", "-e", "--json"]).await;
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().expect("a line"))
        .expect("each line is an object");
    let expected = json!({
        "topic": "sea", "partition": 0, "offset": 0, "tstype": "create", "ts": 1000, "headers": ["a", "b"], "key": "k1",
        "payload": "v1",
    });
    assert_eq!(first, expected);
    let said = produce(&server, &["copy", "-f", "json"], &lines).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let copied = read(&server, &["copy", "-e", "-f", "json"]).await;
    assert_eq!(copied, lines.replace("\"sea\"", "\"copy\""));
    assert!(lines.contains("\"payload\":null"), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_goes_back_to_its_partition_but_not_to_that_of_another_topic() {
    let server = Server::start().await;
    let created = ["topic", "create", "wide", "-p", "3"];
    assert_eq!(on_broker(&server, &created, "").await.code, Some(0));
    produce(&server, &["wide", "-p", "2"], "1\n2\n").await;
    let lines = read(&server, &["wide", "-e", "--json"]).await;
    for (args, partitions, expected) in [
        (&["-f", "json"][..], "2", "1212"),
        (&["-f", "json", "wide", "-p", "1"], "1", "12"),
        (&["-f", "json", "narrow"], "0", "12"),
    ] {
        let said = produce(&server, args, &lines).await;
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
        let topic = args.get(2).copied().unwrap_or("wide");
        let back = read(&server, &[topic, "-e", "-p", partitions, "-f", "%v"]).await;
        assert_eq!(back, expected, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_chooses_topics_and_each_record_is_reported() {
    let server = Server::start().await;
    let args = ["-f", "%t,%v\\n", "-o", "%t/%p/%o=%v\\n"];
    let said = produce(&server, &args, "sea,1\nland,2\nsea,3\n").await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(said.stdout, "sea/0/0=1\nland/0/0=2\nsea/0/1=3\n");
    assert_eq!(
        read(&server, &["sea", "land", "-e", "-p", "0", "-f", "%t%v "])
            .await
            .split_whitespace()
            .count(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_exact_by_offset_and_by_time() {
    let server = Server::start().await;
    // A second apart from 2026-03-01 on, but one that is late.
    let record = |second: u64| format!("{} {second}\n", 1_772_323_200_000 + second * 1000);
    let input: String = [0, 1, 2, 6, 3, 4, 5, 7].into_iter().map(record).collect();
    let said = produce(&server, &["sea", "-f", "%d %v\\n"], &input).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for (range, expected) in [
        ("start:end", "01263457"),
        ("2:4", "26"),
        ("-2:", "57"),
        ("+5:", "457"),
        (":+2", "01"),
        ("2026-03-01T00:00:03:", "63457"),
        ("2026-03-01T00:00:01:2026-03-01T00:00:07", "126345"),
        ("@1772323206:", "63457"),
        ("2030-01-01:", ""),
    ] {
        let back = read(&server, &["sea", "-e", "-o", range, "-f", "%v"]).await;
        assert_eq!(back, expected, "{range}");
    }
    assert_eq!(read(&server, &["sea", "-n", "2", "-f", "%v"]).await, "01");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_by_its_exit_code() {
    let server = Server::start().await;
    assert_eq!(produce(&server, &["sea"], "1\n").await.code, Some(0));
    for (args, code, word) in [
        (&["land", "-e"][..], 3, "alluvium topic list"),
        (&["sea", "-e", "-p", "1"], 3, "no partition 1"),
        (&["sea", "-e", "-o", "soon"], 2, "--offset"),
        (&["sea", "-e", "-f", "%q"], 2, "%q"),
        (&["s/a", "-e"], 2, "letters"),
        (&["sea", "-g", "g", "-o", "5"], 2, "--group"),
        (&["sea", "-e", "--gruop", "g"], 2, "--group"),
        (&[], 2, "<TOPICS>"),
    ] {
        let said = consume(&server, args).await;
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(word), "{args:?}: {}", said.stderr);
    }
    for (args, code, word) in [
        (&["land", "--no-create"][..], 3, "land"),
        (&[], 2, "%t"),
        (&["sea", "-f", "%q"], 2, "%q"),
        (&["sea", "-p", "7"], 3, "7"),
        (&["sea", "-t", "soon"], 2, "--timestamp"),
        (&["sea", "-z", "rar"], 2, "--compression"),
        (&["sea", "--file", "nowhere.txt"], 3, "nowhere.txt"),
        (&["sea", "-f", "%v{json}"], 1, "record"),
    ] {
        let said = produce(&server, args, "x\n").await;
        assert_eq!(said.code, Some(code), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(word), "{args:?}: {}", said.stderr);
    }
    assert_eq!(read(&server, &["sea", "-e", "-f", "%v"]).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_breaks_off_keeps_what_was_read_and_says_how_much() {
    let server = Server::start().await;
    let input = "{\"payload\":\"1\"}\n{\"payload\":\"2\"}\n{\"payload\":3\n{}\n";
    let said = produce(&server, &["sea", "-f", "json"], input).await;
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    for words in ["line 3 of the input", "2 records acknowledged"] {
        assert!(said.stderr.contains(words), "{}", said.stderr);
    }
    assert_eq!(read(&server, &["sea", "-e", "-f", "%v"]).await, "12");
}

/// A tool that was started on this broker and goes on.
fn start(server: &Server, args: &[&str]) -> Child {
    alluvium()
        .args(args)
        .args(["-b", &server.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// Reads so many lines, then sends the signal; yields the lines, the exit code and what was said on standard error.
async fn until(mut child: Child, lines: usize, signal: Signal) -> (String, Option<i32>, String) {
    let run = move || {
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut text = String::new();
        for _ in 0..lines {
            stdout.read_line(&mut text).expect("a line");
        }
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let mut stderr = String::new();
        let mut said = child.stderr.take().expect("piped");
        said.read_to_string(&mut stderr).expect("text");
        (text, child.wait().expect("it ends").code(), stderr)
    };
    tokio::task::spawn_blocking(run).await.expect("it ran")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_what_comes_ends_well_when_it_is_asked_to() {
    let server = Server::start().await;
    produce(&server, &["sea"], "1\n2\n").await;
    for signal in [Signal::INT, Signal::TERM] {
        let reader = start(&server, &["consume", "sea", "-f", "%v\\n"]);
        let (lines, code, said) = until(reader, 2, signal).await;
        assert_eq!(
            (lines.as_str(), code, said.as_str()),
            ("1\n2\n", Some(0), "")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_interrupted_says_so_and_keeps_what_it_was_told() {
    let server = Server::start().await;
    let mut writer = start(&server, &["produce", "sea", "-o", "%o\\n"]);
    let mut stdin = writer.stdin.take().expect("piped");
    stdin.write_all(b"1\n2\n").expect("it reads");
    let (lines, code, said) = until(writer, 2, Signal::INT).await;
    assert_eq!((lines.as_str(), code), ("0\n1\n", Some(1)), "{said}");
    assert!(said.contains("error: interrupted"), "{said}");
    assert!(said.contains("2 records acknowledged"), "{said}");
    drop(stdin);
    assert_eq!(read(&server, &["sea", "-e", "-f", "%v"]).await, "12");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_where_it_was() {
    let server = Server::start().await;
    produce(&server, &["sea"], "1\n2\n3\n4\n5\n").await;
    let group = ["sea", "-g", "readers", "-f", "%v\\n"];
    let first = read(&server, &[&group[..], &["-n", "2"]].concat()).await;
    assert_eq!(first, "1\n2\n");
    // Whoever reads no further takes nothing from the group.
    let reader = start(&server, &[&["consume"], &group[..]].concat());
    let (lines, code, said) = until(reader, 3, Signal::TERM).await;
    assert_eq!(
        (lines.as_str(), code, said.as_str()),
        ("3\n4\n5\n", Some(0), "")
    );
    produce(&server, &["sea"], "6\n").await;
    let last = read(&server, &[&group[..], &["-n", "1"]].concat()).await;
    assert_eq!(last, "6\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_ends_when_its_topic_is_deleted() {
    let server = Server::start().await;
    for group in [&[][..], &["-g", "readers"]] {
        produce(&server, &["sea"], "1\n").await;
        let args = [&["consume", "sea", "-f", "%v\\n"], group].concat();
        let mut reader = start(&server, &args);
        let run = move || {
            let mut stdout = BufReader::new(reader.stdout.take().expect("piped"));
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            (reader, line)
        };
        let (reader, line) = tokio::task::spawn_blocking(run).await.expect("it ran");
        assert_eq!(line, "1\n");
        let deleted = on_broker(&server, &["topic", "delete", "sea", "--yes"], "").await;
        assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
        let end = tokio::task::spawn_blocking(|| reader.wait_with_output());
        let output = end.await.expect("it ran").expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("topic sea was deleted"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reading_on_is_no_failure() {
    let server = Server::start().await;
    let lines: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    produce(&server, &["sea"], &lines).await;
    let mut reader = start(&server, &["consume", "sea", "-f", "%v\\n"]);
    let run = move || {
        let mut first = String::new();
        let stdout = reader.stdout.take().expect("piped");
        BufReader::with_capacity(16, stdout)
            .read_line(&mut first)
            .expect("a line");
        let output = reader.wait_with_output().expect("it ends");
        (first, output.status.code(), output.stderr)
    };
    let (first, code, said) = tokio::task::spawn_blocking(run).await.expect("it ran");
    assert_eq!((first.as_str(), code, said.len()), ("0\n", Some(0), 0));
}
