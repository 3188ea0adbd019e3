//! The book of losses: what is noted once, what is taken back, and its records to the byte.

use std::collections::BTreeSet;

use super::book::Book;
use super::record::LossRecord;
use super::*;
use crate::broker::records::TopicRecord;
use crate::broker::scratch::Scratch;
use crate::broker::state_log::StateRecord as _;
use model::{Timestamp, TopicName};
use storage::segment::SegmentId;

/// Written by hand after `docs/formats.md`.
const GOLDEN: &str = include_str!("golden/losses.tsv");

#[test]
fn the_golden_records_are_read_and_written_to_the_byte() {
    let mut versions = BTreeMap::new();
    let mut causes = BTreeSet::new();
    for row in GOLDEN.lines() {
        let (key, value) = row.split_once('\t').expect("a key and a value");
        let written = read_again(key.as_bytes(), value.as_bytes()).expect(row);
        assert_eq!(written.0, key.as_bytes());
        assert_eq!(std::str::from_utf8(&written.1), Ok(value));
        let fields: serde_json::Value = serde_json::from_str(value).expect("JSON");
        *versions.entry(fields["version"].as_u64()).or_insert(0) += 1;
        causes.insert(fields["cause"].as_str().map(str::to_owned));
    }
    assert_eq!(versions, [(Some(1), 5), (Some(2), 5), (Some(3), 1)].into());
    assert_eq!(causes.len(), 9, "all of them: {causes:?}");
}

#[test]
fn an_entry_that_is_none_of_its_version_or_number_is_refused() {
    let rows = || GOLDEN.lines().filter_map(|row| row.split_once('\t'));
    for (key, value) in rows() {
        let is_1 = value.starts_with("{\"version\":1,");
        let other = match is_1 {
            true => value.replacen(":1,", ":2,", 1),
            false => value.replacen(":2,", ":1,", 1).replacen(":3,", ":2,", 1),
        };
        let (group, both) = ("\"group\":null", "\"group\":\"g\",\"reader\":\"r\"");
        let without = value.replacen("\"version\":2,", "\"version\":3,", 1);
        let changed = [
            other,
            value.replacen("\"group\":\"dashboard\"", both, 1),
            value.replacen(group, "\"group\":\"g\"", 1),
            value.replacen("\"number\":", "\"number\":1", 1),
            value.replacen('}', ",\"more\":1}", 1),
            without,
        ];
        for changed in changed.iter().filter(|changed| *changed != value) {
            let read = read_again(key.as_bytes(), changed.as_bytes());
            assert_eq!(read, None, "{changed}");
        }
        assert_eq!(read_again(b"loss/1", value.as_bytes()), None);
    }
}

fn broker() -> (Scratch, Arc<Topic>) {
    let broker = Scratch::new();
    let record = TopicRecord {
        id: TopicId::random(),
        name: TopicName::parse("readings").expect("a name"),
        partitions: 1,
        settings: BTreeMap::new(),
        owner: None,
    };
    let topic = broker.attach(record).expect("a topic");
    (broker, topic)
}

fn taken(topic: &Topic, offsets: Range<u64>, cause: Cause) -> Taken<'_> {
    Taken {
        topic,
        partition: PartitionId::new(0),
        records: offsets.end - offsets.start,
        offsets: Offset::new(offsets.start)..Offset::new(offsets.end),
        appended: None,
        cause,
        reason: "a test",
        segment: None,
    }
}

/// All entries: who, from, to and records.
fn told(book: &Book) -> String {
    let each = book.entries.values().map(|loss| {
        let who = loss.group.as_ref().or(loss.reader.as_ref());
        let who = who.expect("somebody");
        format!("{who} {}..{} {}", loss.from, loss.to, loss.records)
    });
    each.collect::<Vec<_>>().join(", ")
}

const NOW: Timestamp = Timestamp::from_millis(7);

#[test]
fn what_is_told_again_is_noted_once() {
    let (_broker, topic) = broker();
    let (group, mut book) = (Who::Group("g".to_owned()), Book::default());
    let mut note = |offsets: Range<u64>, read_to, cause| {
        let taken = taken(&topic, offsets, cause);
        book.note(&group, Offset::new(read_to), &taken, NOW)
    };
    assert!(note(0..10, 4, Cause::Retention));
    assert!(!note(0..10, 4, Cause::Retention), "the same again");
    assert!(!note(0..10, 4, Cause::StoreBound), "a front goes once");
    assert!(
        note(0..20, 4, Cause::Retention),
        "it was not done, and is more now"
    );
    assert!(note(20..30, 4, Cause::DeleteRecords));
    assert!(!note(30..40, 40, Cause::Retention), "it was read");
    assert_eq!(told(&book), "g 4..20 16, g 20..30 10");
    assert_eq!(book.records, 26);
}

#[test]
fn what_an_erasure_takes_is_noted_once_for_each_of_its_segments_and_again_by_another() {
    let (_broker, topic) = broker();
    let (reader, mut book) = (Who::Reader("r".to_owned()), Book::default());
    let mut note = |offsets: Range<u64>, by| {
        let log = topic.log_id(PartitionId::new(0));
        let offsets = Offset::new(offsets.start)..Offset::new(offsets.end);
        let taken = Taken::by_erasure(&topic, log, offsets, 3, by);
        book.note(&reader, Offset::ZERO, &taken, NOW)
    };
    assert!(note(0..10, "a"));
    assert!(!note(0..10, "a"), "it was tried again");
    assert!(note(20..30, "a"), "another segment");
    assert!(note(2..9, "b"), "another erasure");
    assert!(!note(10..10, "b"), "only a summary told of the keys");
    assert_eq!(told(&book), "r 0..10 3, r 20..30 3, r 2..9 3");
}

#[test]
fn what_rewrites_take_from_a_group_is_one_entry_and_a_rewrite_counts_once() {
    let (_broker, topic) = broker();
    let (group, mut book) = (Who::Group("g".to_owned()), Book::default());
    let mut note = |offsets: Range<u64>, generation| {
        let mut taken = taken(&topic, offsets, Cause::Compaction);
        taken.records = 3;
        let base = taken.offsets.start;
        taken.segment = Some(SegmentId { base, generation });
        book.note(&group, Offset::ZERO, &taken, NOW)
    };
    assert!(note(0..10, 1));
    assert!(!note(0..10, 1), "a kill came before its switch");
    assert!(note(10..20, 1));
    assert!(note(0..8, 2));
    assert_eq!(told(&book), "g 0..20 9");
}

#[test]
fn what_was_noted_and_not_done_is_taken_back_at_a_start() {
    let (broker, topic) = broker();
    let reader = Who::Reader("somebody".to_owned());
    let mut book = broker.shared.losses.locked();
    for cause in [Cause::Retention, Cause::TopicDeleted, Cause::Erasure] {
        assert!(book.note(&reader, Offset::ZERO, &taken(&topic, 0..10, cause), NOW));
    }
    let numbers: Vec<u64> = book.entries.keys().copied().collect();
    drop(book);
    broker.take_back_losses(|_| true);
    let book = broker.shared.losses.locked();
    // Neither has the log begun later, nor is the topic gone.
    let left: Vec<Cause> = book.entries.values().map(|loss| loss.cause).collect();
    assert_eq!(left, [Cause::Erasure]);
    assert_eq!((&book.dropped[..], book.records), (&numbers[..2], 10));
}

#[test]
fn an_entry_is_written_in_the_least_version_that_says_it() {
    let (_broker, topic) = broker();
    let mut book = Book::default();
    let group = Who::Group("g".to_owned());
    let reader = Who::Reader("r".to_owned());
    for (who, cause, version) in [
        (&group, Cause::Retention, 1),
        (&group, Cause::Thinning, 2),
        (&reader, Cause::Retention, 2),
    ] {
        let before = book.next;
        book.note(who, Offset::ZERO, &taken(&topic, 0..10, cause), NOW);
        let loss = Arc::clone(&book.entries[&before]);
        let (key, value) = LossRecord::Noted(Arc::clone(&loss)).encode();
        let value = value.expect("a value");
        let text = String::from_utf8(value.to_vec()).expect("JSON");
        assert!(
            text.starts_with(&format!("{{\"version\":{version},")),
            "{text}"
        );
        assert_eq!(text.contains("reader"), loss.reader.is_some());
        assert_eq!(text.contains("\"group\":null"), loss.reader.is_some());
        match LossRecord::decode(&key, &value) {
            Ok(LossRecord::Noted(read)) => assert_eq!(read, loss),
            _ => panic!("an entry"),
        }
        let (from, to) = (format!(":{version},"), format!(":{},", 3 - version));
        let wrong = text.replacen(&from, &to, 1);
        assert!(
            LossRecord::decode(&key, wrong.as_bytes()).is_err(),
            "{wrong}"
        );
    }
}
