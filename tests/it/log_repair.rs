//! `alluvium log gaps` and `alluvium log repair`, over directories that a server wrote.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::binary::{Running, Said, serve, tool};
use crate::log_tool::{files, flip, segments, settled};

fn log(data: &Path, command: &str, more: &[&str]) -> Said {
    let mut args = vec!["log", command, data.to_str().expect("UTF-8")];
    args.extend(more);
    tool(&args)
}

/// The gaps of the topic: from, to, why.
fn gaps(data: &Path, code: i32) -> Vec<(u64, u64, String)> {
    let said = log(data, "gaps", &["--topic", "readings", "--json"]);
    assert_eq!(said.code, Some(code), "{}{}", said.stdout, said.stderr);
    let value: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let gaps = value["gaps"].as_array().expect("a list").iter();
    gaps.map(|gap| {
        let number = |name: &str| gap[name].as_u64().expect("a number");
        (
            number("from"),
            number("to"),
            gap["why"].as_str().expect("a text").to_owned(),
        )
    })
    .collect()
}

#[test]
fn gaps_tell_what_was_deleted_lost_and_damaged_and_what_is_on_record() {
    let root = tempfile::tempdir().expect("a directory");
    let data = root.path();
    settled(data);
    assert_eq!(gaps(data, 0), []);
    let running = Running::start(&mut serve(data));
    let deleted = tool(&[
        "topic",
        "delete-records",
        "readings",
        "--before",
        "7",
        "--yes",
        "-b",
        &running.kafka,
    ]);
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
    running.end(Signal::TERM);
    assert_eq!(gaps(data, 0), [(0, 7, "deleted".to_owned())]);
    // A segment goes: the range is told before any start or reader has found it.
    let lost = segments(data).remove(1);
    let aside = root.path().join("aside");
    std::fs::rename(&lost, &aside).expect("moved");
    let found = gaps(data, 5);
    assert_eq!((found.len(), found[1].2.as_str()), (2, "lost"), "{found:?}");
    let running = Running::start(&mut serve(data));
    running.end(Signal::TERM);
    let recorded = gaps(data, 5);
    assert_eq!(
        (recorded[1].0, recorded[1].1, recorded[1].2.as_str()),
        (found[1].0, found[1].1, "damaged")
    );
    assert_eq!(log(data, "acknowledge", &[]).code, Some(0));
    assert_eq!(gaps(data, 0)[1].2, "acknowledged");
    let page = log(data, "gaps", &[]);
    assert!(
        page.stdout
            .contains("readings-0 0..7: removed by DeleteRecords"),
        "{}",
        page.stdout
    );
    assert_eq!(log(data, "gaps", &["--topic", "none"]).code, Some(3));
}

#[test]
fn a_repair_shows_its_plan_first_and_then_does_it_and_readers_are_told() {
    let root = tempfile::tempdir().expect("a directory");
    let data = root.path();
    settled(data);
    let sound = log(data, "repair", &[]);
    assert_eq!(sound.code, Some(0), "{}", sound.stdout);
    let all = segments(data);
    let (segment, index): (&PathBuf, PathBuf) = (&all[1], all[0].with_extension("idx"));
    flip(segment, 300);
    flip(&index, 60);
    std::fs::write(data.join("checkpoint/A"), b"").expect("written");
    std::fs::remove_file(data.join("checkpoint/B")).expect("removed");
    let before = files(data, "").len();
    let shown = log(data, "repair", &[]);
    assert_eq!(shown.code, Some(5));
    assert!(
        shown.stdout.contains("would be done: build a checkpoint"),
        "{}",
        shown.stdout
    );
    assert_eq!(files(data, "").len(), before, "nothing was changed");
    let done = log(data, "repair", &["--yes", "--json"]);
    assert_eq!(done.code, Some(5), "something is lost: {}", done.stderr);
    let value: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let actions: Vec<&str> = value["done"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["action"].as_str().expect("a text"))
        .collect();
    for action in [
        "rebuild-checkpoint",
        "rebuild-index",
        "record-damage",
        "set-aside",
    ] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
    let left = log(data, "repair", &[]);
    assert_eq!(left.code, Some(0), "{}", left.stdout);
    let [(from, to, why)] = &gaps(data, 5)[..] else {
        panic!("one gap: {:?}", gaps(data, 5));
    };
    assert_eq!(why, "damaged");
    let running = Running::start(&mut serve(data));
    let refused = log(data, "repair", &["--yes"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("stop it first"),
        "{}",
        refused.stderr
    );
    let said = tool(&[
        "consume",
        "readings",
        "-o",
        ":end",
        "-f",
        "%o\n",
        "--skip-damaged",
        "-b",
        &running.kafka,
    ]);
    let read: Vec<u64> = said
        .stdout
        .lines()
        .map(|line| line.parse().expect("an offset"))
        .collect();
    let expected: Vec<u64> = (0..400)
        .filter(|offset| !(*from..*to).contains(offset))
        .collect();
    assert_eq!(read, expected);
    running.end(Signal::TERM);
}
