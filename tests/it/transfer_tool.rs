//! `alluvium export` and `alluvium import`: what comes out equals what went in.

use std::path::Path;

use serde_json::json;

use crate::binary::{Running, serve};
use crate::replay_tool::run;

/// Runs a command that succeeds, and gives what it prints.
pub fn done(running: &Running, args: &[&str], input: &str) -> String {
    let said = run(running, args, input);
    assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
    said.stdout
}

/// Records of all kinds in three partitions of a topic with a setting of its own.
pub fn fill(running: &Running) {
    done(
        running,
        &["topic", "create", "sea", "-p", "3", "-c", "retention.ms=-1"],
        "",
    );
    for (number, codec) in ["none", "gzip", "lz4", "snappy", "zstd"].iter().enumerate() {
        let lines: String = (0..200)
            .map(|at| {
                format!(
                    "{} k{} value {at} of {codec}\n",
                    1_000 * at + number,
                    at % 17
                )
            })
            .collect();
        done(
            running,
            &["produce", "sea", "-f", "%d %k %v\\n", "-z", codec],
            &lines,
        );
    }
    done(
        running,
        &["produce", "sea", "-f", "%d %k %v %H{1}%h{%k=%v;}\\n"],
        "7 k1 v a=b;\n",
    );
    done(
        running,
        &["produce", "sea", "-k", "gone", "-Z", "-t", "2026-03-01"],
        "\n",
    );
}

/// All that consumers see of a topic, under one name.
pub fn contents(running: &Running, topic: &str) -> Vec<String> {
    let lines = done(running, &["consume", topic, "-e", "--json"], "");
    let name = format!("\"topic\":\"{topic}\"");
    let mut lines: Vec<String> = lines.lines().map(|line| line.replace(&name, "")).collect();
    lines.sort();
    lines
}

pub fn path_text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_topic_comes_back_exactly() {
    let data = tempfile::tempdir().expect("a directory");
    let out = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    fill(&running);
    let to = path_text(out.path());
    let told = done(&running, &["export", "--all", "--to", to, "--json"], "");
    let told: serde_json::Value = serde_json::from_str(&told).expect("an array");
    assert_eq!(told[0]["records"], 1_002);
    let file = out.path().join("sea.records");
    let file = path_text(&file);

    let sent = done(&running, &["import", file, "--topic", "copy", "--json"], "");
    let sent: serde_json::Value = serde_json::from_str(&sent).expect("an object");
    assert_eq!(
        (&sent["records"], &sent["offsets_kept"]),
        (&json!(1_002), &json!(true)),
        "{sent}"
    );
    let before = contents(&running, "sea");
    assert_eq!(before.len(), 1_002);
    assert_eq!(
        contents(&running, "copy"),
        before,
        "offsets, times, keys, headers, values"
    );
    let described = done(&running, &["topic", "describe", "copy", "--json"], "");
    assert!(described.contains("retention.ms"), "{described}");

    // The same batches again, but for the producer's stamp: codec and lengths are as they were.
    let again = done(&running, &["export", "copy", "--to", to, "--json"], "");
    let again: serde_json::Value = serde_json::from_str(&again).expect("an array");
    for figure in ["batches", "records", "bytes"] {
        assert_eq!(again[0][figure], told[0][figure], "{figure}");
    }

    // What is there is not written over, and not written twice.
    let said = run(&running, &["import", file, "--topic", "copy"], "");
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    let resumed = done(
        &running,
        &["import", file, "--topic", "copy", "--resume", "--json"],
        "",
    );
    assert!(resumed.contains("\"skipped_records\": 1002"), "{resumed}");
    assert_eq!(contents(&running, "copy"), before);
    let appended = done(
        &running,
        &["import", file, "--topic", "copy", "--append", "--json"],
        "",
    );
    assert!(appended.contains("\"offsets_kept\": false"), "{appended}");
    assert_eq!(contents(&running, "copy").len(), 2_004);
    let was_there = done(&running, &["export", "sea", "--to", to, "--json"], "");
    assert!(was_there.contains("\"was_there\": true"), "{was_there}");
}

#[test]
fn an_export_goes_on_and_a_damaged_file_is_refused() {
    let data = tempfile::tempdir().expect("a directory");
    let out = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    fill(&running);
    let to = path_text(out.path());
    done(&running, &["export", "sea", "--to", to], "");
    let file = out.path().join("sea.records");
    let whole = std::fs::read(&file).expect("it is there");
    let check = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("it can be written");
        run(&running, &["import", path_text(&file), "--check"], "").code
    };
    assert_eq!(check(&whole), Some(0));
    assert_eq!(check(&whole[..whole.len() - 1]), Some(5));
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    assert_eq!(check(&flipped), Some(5));
    assert_eq!(check(b"something else"), Some(5));
    std::fs::remove_file(&file).expect("it is there");

    // As a kill leaves it: in the middle of a part.
    for keep in [whole.len() / 3, whole.len() * 2 / 3, whole.len() - 5] {
        let unfinished = out.path().join("sea.records.unfinished");
        std::fs::write(&unfinished, &whole[..keep]).expect("it can be written");
        done(&running, &["export", "sea", "--to", to], "");
        assert!(!unfinished.exists());
        let topic = format!("copy-{keep}");
        done(
            &running,
            &["import", path_text(&file), "--topic", &topic],
            "",
        );
        assert_eq!(
            contents(&running, &topic),
            contents(&running, "sea"),
            "kept {keep} bytes"
        );
        std::fs::remove_file(&file).expect("it is there");
    }
    let said = run(&running, &["export", "nosuch", "--to", to], "");
    assert_eq!(said.code, Some(3), "{}", said.stderr);
}
