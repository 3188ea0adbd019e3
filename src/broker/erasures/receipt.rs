//! The receipt of an erasure, as it is written down for good.
//!
//! Caller: the erasure's work, once every file was searched. `docs/erasure.md` tells what each field means; the chain of receipts
//! is checked by `witness::receipts`, which shares nothing with this but the form.

use serde::Serialize;
use witness::receipts;
use witness::{Report, What};

use super::record::{Erasure, Outcome, PartDone, Unreadable};

/// Batches that cannot be read that a receipt names at most; what more there are is counted.
const UNREADABLE_MAX: usize = 100;

#[derive(Serialize)]
struct Body<'r> {
    version: u32,
    number: u64,
    id: &'r str,
    store: String,
    outcome: Outcome,
    topic: &'r str,
    topic_id: uuid::Uuid,
    partition: Option<u32>,
    salt: &'r str,
    keys: &'r [String],
    reason: Option<&'r str>,
    by: &'r str,
    asked_ms: i64,
    done_ms: i64,
    records_erased: u64,
    segments_rewritten: u64,
    windows_erased: u64,
    partitions: Vec<OfPart>,
    quarantine_removed: &'r [String],
    undecodable: u64,
    verified: Option<Verified>,
}

#[derive(Serialize)]
struct OfPart {
    partition: u32,
    start: u64,
    before: u64,
    records_erased: u64,
    segments_rewritten: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecodable: Vec<Unreadable>,
}

#[derive(Serialize)]
struct Verified {
    at_ms: i64,
    files: u64,
    bytes: u64,
    batches: u64,
    records: u64,
    found: u64,
    unread: u64,
    unread_listed: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    file: String,
    position: u64,
    offset: Option<u64>,
    reason: String,
}

/// What a receipt is made of, beside the erasure.
pub(super) struct Facts<'r> {
    pub number: u64,
    pub previous: Option<&'r str>,
    pub store: uuid::Uuid,
    pub now_ms: i64,
    /// By the order of the erasure's parts.
    pub parts: &'r [PartDone],
    /// None if it was cancelled before.
    pub verified: Option<&'r Report>,
}

/// The receipt's line.
pub(super) fn write(erasure: &Erasure, outcome: Outcome, facts: &Facts<'_>) -> String {
    let mut room = UNREADABLE_MAX;
    let parts = erasure.parts.iter().zip(facts.parts);
    let of_part = |(part, done): (&super::record::Part, &PartDone)| {
        let listed = done.undecodable_listed.iter().take(room);
        let undecodable: Vec<Unreadable> = listed.cloned().collect();
        room -= undecodable.len();
        OfPart {
            partition: part.partition,
            start: part.start,
            before: part.before,
            records_erased: done.records,
            segments_rewritten: done.segments,
            undecodable,
        }
    };
    let partitions: Vec<OfPart> = parts.map(of_part).collect();
    let sum = |of: fn(&PartDone) -> u64| facts.parts.iter().map(of).sum::<u64>();
    let body = Body {
        version: 1,
        number: facts.number,
        id: &erasure.id,
        store: facts.store.to_string(),
        outcome,
        topic: &erasure.topic,
        topic_id: erasure.topic_id,
        partition: erasure.partition,
        salt: &erasure.salt,
        keys: &erasure.keys,
        reason: erasure.reason.as_deref(),
        by: &erasure.by,
        asked_ms: erasure.asked_ms,
        done_ms: facts.now_ms,
        records_erased: sum(|done| done.records),
        segments_rewritten: sum(|done| done.segments),
        windows_erased: sum(|done| done.windows),
        partitions,
        quarantine_removed: &erasure.quarantine_removed,
        undecodable: sum(|done| done.undecodable),
        verified: facts.verified.map(|report| verified(report, facts.now_ms)),
    };
    let text = serde_json::to_string(&body).expect("plain fields are JSON");
    receipts::seal(&text, facts.previous)
}

fn verified(report: &Report, at_ms: i64) -> Verified {
    let listed = report.unread.iter().map(|place| Place {
        file: place.file.display().to_string(),
        position: place.position,
        offset: place.offset,
        reason: place.reason.clone(),
    });
    Verified {
        at_ms,
        files: report.files,
        bytes: report.bytes,
        batches: report.batches,
        records: report.records,
        found: report.hit_count,
        unread: report.unread_count,
        unread_listed: listed.collect(),
    }
}

/// Where a search found something, in words.
pub(super) fn describe(report: &Report) -> String {
    let places = report.hits.iter().take(5).map(|hit| {
        let file = hit.file.display();
        match hit.what {
            What::Record { offset, .. } => format!("{file} (a record at offset {offset})"),
            What::Bytes => format!("{file} (the key's bytes at position {})", hit.position),
            What::Window => format!("{file} (a window of a summary)"),
        }
    });
    let places: Vec<String> = places.collect();
    let more = report.hit_count.saturating_sub(places.len() as u64);
    match more {
        0 => places.join(", "),
        more => format!("{} and {more} more", places.join(", ")),
    }
}
