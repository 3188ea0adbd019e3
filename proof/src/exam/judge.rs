//! The judge: compares the ledger with what the store shows, after each recovery.
//!
//! J1 every acknowledged id is at its acknowledged offset, bytes equal. J2 an offset never shows two payloads over
//! time. J3 offsets rise and nothing was invented. J4 duplicates only for unacknowledged retries, none with an
//! idempotent producer. J5 acknowledged consumer commits are not lost and do not move back. J6 up again in time.
//! J7 loss is named, never silent. J8 other partitions are not affected. J9 memory and descriptors go back.
//! J1 to J5 are decided here from data; J6 to J9 by the cases, which see the process.

use std::collections::HashMap;
use std::sync::Mutex;

use super::ledger::{Digest, Entry, Fate, digest_of, id_of};

/// A record as a reader was shown it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its offset.
    pub offset: i64,
    /// The id its value begins with, if it is one of ours.
    pub id: Option<u64>,
    /// SHA-256 over key and value.
    pub digest: Digest,
}

impl Seen {
    /// What a reader notes of a record.
    pub fn of(offset: i64, key: &[u8], value: &[u8]) -> Self {
        Self {
            offset,
            id: id_of(value),
            digest: digest_of(key, value),
        }
    }
}

/// What readers were shown so far, over all restarts: the memory behind J2.
#[derive(Default)]
pub struct Shown {
    digests: Mutex<HashMap<(String, i32, i64), Digest>>,
}

impl Shown {
    /// Notes what a reader was shown. Answers the offsets that showed another payload before (J2).
    pub fn note(&self, topic: &str, partition: i32, seen: &[Seen]) -> Vec<i64> {
        let mut digests = self
            .digests
            .lock()
            .expect("no thread panics while it holds what was shown");
        let mut changed = Vec::new();
        for record in seen {
            let place = (topic.to_owned(), partition, record.offset);
            if *digests.entry(place).or_insert(record.digest) != record.digest {
                changed.push(record.offset);
            }
        }
        changed
    }

    /// The offsets of a partition that a reader saw once and that `now` does not show.
    pub fn missing(&self, topic: &str, partition: i32, now: &HashMap<i64, Digest>) -> Vec<i64> {
        let digests = self
            .digests
            .lock()
            .expect("no thread panics while it holds what was shown");
        let mut missing: Vec<i64> = digests
            .keys()
            .filter(|(at, index, offset)| {
                at == topic && *index == partition && !now.contains_key(offset)
            })
            .map(|(_, _, offset)| *offset)
            .collect();
        missing.sort_unstable();
        missing
    }
}

/// What the judge found in one partition.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Acknowledged records that were looked for.
    pub checked: u64,
    /// Acknowledged records that are not where they were acknowledged.
    pub lost: u64,
    /// What else did not hold, in words.
    pub failures: Vec<String>,
}

/// Judges a partition: `contents` is all of it, from its first record to its high watermark.
///
/// `duplicates_allowed`: whether a record whose acknowledgement never came may stand there more than once (never with
/// an idempotent producer, J4).
pub fn judge_partition(
    topic: &str,
    partition: i32,
    entries: &HashMap<u64, Entry>,
    contents: &[Seen],
    shown: &Shown,
    duplicates_allowed: bool,
) -> Verdict {
    let mut verdict = Verdict::default();
    let place = format!("{topic}-{partition}");
    for pair in contents.windows(2) {
        if pair[1].offset <= pair[0].offset {
            verdict.failures.push(format!(
                "J3 {place}: offset {} follows {}",
                pair[1].offset, pair[0].offset
            ));
        }
    }
    let by_offset: HashMap<i64, Digest> = contents
        .iter()
        .map(|seen| (seen.offset, seen.digest))
        .collect();
    for (id, entry) in entries {
        if entry.topic != topic || entry.partition != partition {
            continue;
        }
        let Fate::Acknowledged(offset) = entry.fate else {
            continue;
        };
        verdict.checked += 1;
        match by_offset.get(&offset) {
            Some(digest) if *digest == entry.digest => {}
            found => {
                verdict.lost += 1;
                if verdict.lost <= 3 {
                    let how = if found.is_some() {
                        "shows other bytes"
                    } else {
                        "is not there"
                    };
                    verdict.failures.push(format!(
                        "J1 {place}: record {id}, acknowledged at offset {offset}, {how}"
                    ));
                }
            }
        }
    }
    let mut times: HashMap<u64, u32> = HashMap::new();
    for seen in contents {
        let known = seen
            .id
            .and_then(|id| entries.get(&id).map(|entry| (id, entry)));
        match known {
            Some((id, entry))
                if entry.digest == seen.digest
                    && entry.topic == topic
                    && entry.partition == partition =>
            {
                if entry.fate == Fate::Refused {
                    verdict.failures.push(format!(
                        "J3 {place}: offset {} holds record {id}, which was refused",
                        seen.offset
                    ));
                }
                *times.entry(id).or_default() += 1;
            }
            _ => verdict.failures.push(format!(
                "J3 {place}: offset {} holds a record that nobody sent",
                seen.offset
            )),
        }
    }
    for (id, count) in times {
        let unanswered = matches!(entries[&id].fate, Fate::Unknown | Fate::InFlight);
        if count > 1 && !(duplicates_allowed && unanswered) {
            verdict.failures.push(format!(
                "J4 {place}: record {id} stands there {count} times"
            ));
        }
    }
    for offset in shown.note(topic, partition, contents) {
        verdict.failures.push(format!(
            "J2 {place}: offset {offset} showed another record before"
        ));
    }
    let missing = shown.missing(topic, partition, &by_offset);
    if let Some(first) = missing.first() {
        verdict.failures.push(format!(
            "J2 {place}: {} records that a reader saw are gone, first offset {first}",
            missing.len()
        ));
    }
    verdict.failures.truncate(20);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, fate: Fate) -> (u64, Entry) {
        let value = format!("{id:016x}");
        let digest = digest_of(b"k", value.as_bytes());
        (
            id,
            Entry {
                topic: "t".into(),
                partition: 0,
                digest,
                fate,
            },
        )
    }

    fn seen(offset: i64, id: u64) -> Seen {
        Seen::of(offset, b"k", format!("{id:016x}").as_bytes())
    }

    fn judge(entries: &[(u64, Entry)], contents: &[Seen], shown: &Shown) -> Verdict {
        judge_partition(
            "t",
            0,
            &entries.iter().cloned().collect(),
            contents,
            shown,
            false,
        )
    }

    #[test]
    fn what_is_where_it_was_acknowledged_passes() {
        let entries = [
            entry(1, Fate::Acknowledged(0)),
            entry(2, Fate::Acknowledged(1)),
            entry(3, Fate::Unknown),
        ];
        let verdict = judge(&entries, &[seen(0, 1), seen(1, 2)], &Shown::default());
        assert_eq!(
            (verdict.checked, verdict.lost, verdict.failures.len()),
            (2, 0, 0)
        );
    }

    #[test]
    fn a_lost_acknowledged_record_is_named() {
        let entries = [
            entry(1, Fate::Acknowledged(0)),
            entry(2, Fate::Acknowledged(1)),
        ];
        let verdict = judge(&entries, &[seen(0, 1)], &Shown::default());
        assert_eq!(verdict.lost, 1);
        assert!(
            verdict.failures[0].starts_with("J1 t-0: record 2"),
            "{:?}",
            verdict.failures
        );
    }

    #[test]
    fn a_record_at_another_offset_is_lost_there() {
        let entries = [
            entry(1, Fate::Acknowledged(0)),
            entry(2, Fate::Acknowledged(1)),
        ];
        let verdict = judge(&entries, &[seen(0, 2), seen(1, 1)], &Shown::default());
        assert_eq!(verdict.lost, 2);
    }

    #[test]
    fn an_invented_a_refused_and_a_doubled_record_are_named() {
        let entries = [entry(1, Fate::Acknowledged(0)), entry(2, Fate::Refused)];
        let verdict = judge(
            &entries,
            &[seen(0, 1), seen(1, 9), seen(2, 2), seen(3, 1)],
            &Shown::default(),
        );
        let found: Vec<&str> = verdict
            .failures
            .iter()
            .map(|failure| &failure[..2])
            .collect();
        assert_eq!(found, ["J3", "J3", "J4"]);
    }

    #[test]
    fn an_offset_that_changes_or_goes_after_it_was_shown_is_named() {
        let shown = Shown::default();
        let entries = [entry(1, Fate::Unknown), entry(2, Fate::Unknown)];
        assert!(
            judge(&entries, &[seen(0, 1), seen(1, 2)], &shown)
                .failures
                .is_empty()
        );
        let changed = judge(&entries, &[seen(0, 2)], &shown);
        assert!(
            changed
                .failures
                .iter()
                .any(|failure| failure.contains("offset 0 showed another")),
            "{changed:?}"
        );
        assert!(
            changed
                .failures
                .iter()
                .any(|failure| failure.contains("1 records that a reader saw are gone")),
            "{changed:?}"
        );
    }
}
