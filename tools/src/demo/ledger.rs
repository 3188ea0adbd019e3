//! The ledger: every reading that was sent, and where the broker said that it is. The judge compares it with what the
//! broker shows after it was killed.
//!
//! Kept by the process that sends, so that nothing of the broker's can make it look better.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{Offset, Timestamp, TopicPartition};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// How many failures are told in detail.
const EXAMPLES_MAX: usize = 5;

/// The first half of a SHA-256 over key, time and value.
pub(super) type Hash = [u8; 16];

/// The hash of a record. No key is not an empty key, and no value not an empty one.
pub(super) fn hash_of(key: Option<&[u8]>, at: Timestamp, value: Option<&[u8]>) -> Hash {
    let mut sha = Sha256::new();
    sha.update(at.millis().to_be_bytes());
    for part in [key, value] {
        sha.update(part.map_or(u64::MAX, |p| p.len() as u64).to_be_bytes());
        sha.update(part.unwrap_or_default());
    }
    let whole: [u8; 32] = sha.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

/// A device in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device(usize);

/// A reading in the ledger. Of one device, what was sent later has the larger number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(usize);

/// A reading.
#[derive(Debug)]
struct Line {
    device: Device,
    at: Timestamp,
    hash: Hash,
    acked: Option<Acked>,
}

#[derive(Debug)]
struct Acked {
    partition: TopicPartition,
    /// None for a batch that was sent again so late that the broker no longer knew its place.
    offset: Option<Offset>,
}

/// The ledger. Shared by all who send.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    devices: Vec<String>,
    lines: Vec<Line>,
    acked: usize,
}

/// How far things are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Readings that were sent.
    pub(super) sent: usize,
    /// Those of them that the broker acknowledged.
    pub(super) acked: usize,
}

impl Counts {
    /// Sent and not acknowledged yet.
    pub(super) fn waiting(self) -> usize {
        self.sent - self.acked
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a device.
    pub(super) fn device(&self, name: &str) -> Device {
        let mut book = self.lock();
        if let Some(known) = book.devices.iter().position(|d| d == name) {
            return Device(known);
        }
        book.devices.push(name.to_owned());
        Device(book.devices.len() - 1)
    }

    /// Enters a reading, before it is sent.
    pub(super) fn sent(&self, device: Device, at: Timestamp, hash: Hash) -> Entry {
        let mut book = self.lock();
        book.lines.push(Line {
            device,
            at,
            hash,
            acked: None,
        });
        Entry(book.lines.len() - 1)
    }

    /// Notes the broker's acknowledgement.
    pub(super) fn acked(&self, entry: Entry, partition: TopicPartition, offset: Option<Offset>) {
        let mut book = self.lock();
        let before = book.lines[entry.0]
            .acked
            .replace(Acked { partition, offset });
        assert!(before.is_none(), "a reading is acknowledged once");
        book.acked += 1;
    }

    /// How many were sent and acknowledged.
    pub(super) fn counts(&self) -> Counts {
        let book = self.lock();
        Counts {
            sent: book.lines.len(),
            acked: book.acked,
        }
    }

    /// What is acknowledged of a device from a time on, in the order in which it was sent.
    pub(super) fn acked_since(&self, device: Device, from: Timestamp) -> Vec<Hash> {
        self.lock()
            .lines
            .iter()
            .filter(|l| l.device == device && l.at >= from && l.acked.is_some())
            .map(|l| l.hash)
            .collect()
    }

    /// The first place in a partition that a time seek must find, by what is acknowledged so far.
    pub(super) fn first_since(
        &self,
        partition: &TopicPartition,
        from: Timestamp,
    ) -> Option<Offset> {
        let book = self.lock();
        let acked = book.lines.iter().filter(|l| l.at >= from);
        acked
            .filter_map(|l| l.acked.as_ref())
            .filter(|a| a.partition == *partition)
            .filter_map(|a| a.offset)
            .min()
    }

    /// A line for every reading: what it is, and where it was acknowledged.
    pub(super) fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        let book = self.lock();
        writeln!(out, "device\ttime_ms\tsha256_first_half\tpartition\toffset")?;
        for line in &book.lines {
            let device = &book.devices[line.device.0];
            write!(out, "{device}\t{}\t", line.at.millis())?;
            for byte in line.hash {
                write!(out, "{byte:02x}")?;
            }
            match &line.acked {
                Some(Acked {
                    partition,
                    offset: Some(offset),
                }) => writeln!(out, "\t{partition}\t{}", offset.get())?,
                Some(Acked { partition, .. }) => writeln!(out, "\t{partition}\t")?,
                None => writeln!(out, "\t\t")?,
            }
        }
        Ok(())
    }

    /// Shows the judge all that the broker shows, and returns the judgement. Nothing can be sent meanwhile.
    pub(super) fn judge(&self, show: impl FnOnce(&mut Judge<'_>)) -> Verdict {
        let book = self.lock();
        let mut judge = Judge::new(&book);
        show(&mut judge);
        judge.finish()
    }
}

/// A record as the broker shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    /// Where it is.
    pub(super) partition: &'a TopicPartition,
    /// Its offset there.
    pub(super) offset: Offset,
    /// Its hash.
    pub(super) hash: Hash,
}

/// Compares what is shown with the ledger. Wants each partition's records in the order in which they are read.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    book: &'a Book,
    by_hash: HashMap<Hash, usize>,
    /// By reading: whether it was shown, whole or altered.
    shown: Vec<bool>,
    /// By device: the last reading that was shown.
    last: Vec<Option<usize>>,
    verdict: Verdict,
}

/// What the judge found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// Readings that were sent.
    pub(super) sent: usize,
    /// Those of them that were acknowledged.
    pub(super) acknowledged: usize,
    /// Acknowledged, and there as they were sent.
    pub(super) found: usize,
    /// Acknowledged, and not there.
    pub(super) lost: usize,
    /// Another record stands where a reading was acknowledged.
    pub(super) altered: usize,
    /// There, but after a later reading of the same device.
    pub(super) reordered: usize,
    /// There, but not where it was acknowledged.
    pub(super) moved: usize,
    /// There more than once.
    pub(super) duplicates: usize,
    /// Records that nobody sent.
    pub(super) strays: usize,
    /// Never acknowledged, and there all the same: nobody was promised anything.
    pub(super) unacknowledged_found: usize,
    /// The first failures, in words.
    pub(super) examples: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub(super) fn is_good(&self) -> bool {
        let failures = [
            self.lost,
            self.altered,
            self.reordered,
            self.moved,
            self.duplicates,
            self.strays,
        ];
        failures.iter().all(|count| *count == 0)
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

impl<'a> Judge<'a> {
    fn new(book: &'a Book) -> Judge<'a> {
        let hashes = book.lines.iter().enumerate();
        Judge {
            book,
            by_hash: hashes.map(|(number, line)| (line.hash, number)).collect(),
            shown: vec![false; book.lines.len()],
            last: vec![None; book.devices.len()],
            verdict: Verdict {
                sent: book.lines.len(),
                acknowledged: book.acked,
                ..Verdict::default()
            },
        }
    }

    /// The next record of a partition.
    pub(super) fn see(&mut self, shown: Shown<'_>) {
        match self.by_hash.get(&shown.hash) {
            Some(number) => self.see_reading(*number, shown),
            None => self.see_unknown(shown),
        }
    }

    fn see_reading(&mut self, number: usize, shown: Shown<'_>) {
        let line = &self.book.lines[number];
        let device = &self.book.devices[line.device.0];
        let place = || format!("{} at offset {}", shown.partition, shown.offset.get());
        if std::mem::replace(&mut self.shown[number], true) {
            self.verdict.duplicates += 1;
            self.verdict
                .example(|| format!("a reading of {device} stands a second time in {}", place()));
            return;
        }
        match &line.acked {
            None => self.verdict.unacknowledged_found += 1,
            Some(acked) => {
                self.verdict.found += 1;
                let elsewhere = acked.offset.is_some_and(|offset| offset != shown.offset);
                if elsewhere || acked.partition != *shown.partition {
                    self.verdict.moved += 1;
                    let was = acked.offset.map(Offset::get);
                    self.verdict.example(|| {
                        let there = &acked.partition;
                        format!(
                            "{device}: acknowledged in {there} at {was:?}, is in {}",
                            place()
                        )
                    });
                }
            }
        }
        let last = &mut self.last[line.device.0];
        if last.is_some_and(|last| last > number) {
            self.verdict.reordered += 1;
            self.verdict
                .example(|| format!("{device}: an older reading follows in {}", place()));
        } else {
            *last = Some(number);
        }
    }

    fn see_unknown(&mut self, shown: Shown<'_>) {
        // Rare, or all is lost anyway: no index is kept for it.
        let promised = self.book.lines.iter().position(|line| {
            line.acked
                .as_ref()
                .is_some_and(|a| a.offset == Some(shown.offset) && a.partition == *shown.partition)
        });
        let place = || format!("{} at offset {}", shown.partition, shown.offset.get());
        match promised {
            Some(number) => {
                self.shown[number] = true;
                self.verdict.altered += 1;
                let device = &self.book.devices[self.book.lines[number].device.0];
                self.verdict
                    .example(|| format!("{device}: not what was sent in {}", place()));
            }
            None => {
                self.verdict.strays += 1;
                self.verdict
                    .example(|| format!("a record that nobody sent in {}", place()));
            }
        }
    }

    fn finish(mut self) -> Verdict {
        for (line, shown) in self.book.lines.iter().zip(&self.shown) {
            if let (Some(acked), false) = (&line.acked, shown) {
                self.verdict.lost += 1;
                let device = &self.book.devices[line.device.0];
                let (partition, offset) = (&acked.partition, acked.offset.map(Offset::get));
                self.verdict.example(|| {
                    format!("{device}: acknowledged in {partition} at {offset:?}, and not there")
                });
            }
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};

    use super::{Hash, Ledger, Shown, Verdict, hash_of};

    fn partition() -> TopicPartition {
        let topic = TopicName::parse("rides").expect("a good name");
        TopicPartition::new(topic, PartitionId::new(0))
    }

    fn reading(number: i64) -> Hash {
        hash_of(Some(b"ride"), Timestamp::from_millis(number), Some(b"{}"))
    }

    /// Six readings of one device are sent and acknowledged at offsets 0 to 5, a seventh is sent only; then `tamper`
    /// changes what the broker shows.
    fn check(tamper: impl FnOnce(&mut Vec<(u64, Hash)>)) -> Verdict {
        let ledger = Ledger::default();
        let device = ledger.device("ride");
        for number in 0..7_u64 {
            let at = i64::try_from(number).expect("small");
            let entry = ledger.sent(device, Timestamp::from_millis(at), reading(at));
            if number < 6 {
                ledger.acked(entry, partition(), Some(Offset::new(number)));
            }
        }
        let mut shown: Vec<(u64, Hash)> = (0..6).map(|n| (n, reading(n as i64))).collect();
        tamper(&mut shown);
        let partition = partition();
        let mut verdict = ledger.judge(|judge| {
            for (offset, hash) in shown {
                judge.see(Shown {
                    partition: &partition,
                    offset: Offset::new(offset),
                    hash,
                });
            }
        });
        assert_eq!(verdict.is_good(), verdict.examples.is_empty());
        verdict.examples.clear();
        verdict
    }

    fn good() -> Verdict {
        Verdict {
            sent: 7,
            acknowledged: 6,
            found: 6,
            ..Verdict::default()
        }
    }

    #[test]
    fn the_judge_is_content_when_all_is_there() {
        assert_eq!(check(|_| ()), good());
        let with_the_seventh = Verdict {
            unacknowledged_found: 1,
            ..good()
        };
        assert_eq!(check(|shown| shown.push((6, reading(6)))), with_the_seventh);
        assert!(with_the_seventh.is_good());
    }

    #[test]
    fn the_judge_finds_a_lost_reading() {
        let expected = Verdict {
            found: 5,
            lost: 1,
            ..good()
        };
        for lost in 0..6 {
            let verdict = check(|shown| {
                shown.remove(lost);
            });
            assert_eq!(verdict, expected, "without offset {lost}");
            assert!(!verdict.is_good());
        }
    }

    #[test]
    fn the_judge_finds_an_altered_reading() {
        let (ride, three) = (Some(&b"ride"[..]), Timestamp::from_millis(3));
        let altered = [
            ("value", hash_of(ride, three, Some(b"{ }"))),
            ("value, none", hash_of(ride, three, None)),
            ("key", hash_of(Some(b"Ride"), three, Some(b"{}"))),
            (
                "time",
                hash_of(ride, Timestamp::from_millis(9), Some(b"{}")),
            ),
        ];
        for (what, hash) in altered {
            let expected = Verdict {
                found: 5,
                altered: 1,
                ..good()
            };
            let verdict = check(|shown| shown[3].1 = hash);
            assert_eq!(verdict, expected, "another {what}");
            assert!(!verdict.is_good());
        }
    }

    #[test]
    fn the_judge_finds_a_reordered_reading() {
        let verdict = check(|shown| {
            shown[2].1 = reading(3);
            shown[3].1 = reading(2);
        });
        let expected = Verdict {
            reordered: 1,
            moved: 2,
            ..good()
        };
        assert_eq!(verdict, expected);
        assert!(!verdict.is_good());
    }

    #[test]
    fn the_judge_finds_what_is_there_twice_or_was_never_sent() {
        let verdict = check(|shown| shown.push((6, reading(5))));
        let twice = Verdict {
            duplicates: 1,
            ..good()
        };
        assert_eq!(verdict, twice);
        let verdict = check(|shown| shown.push((6, reading(99))));
        let stray = Verdict {
            strays: 1,
            ..good()
        };
        assert_eq!(verdict, stray);
    }

    #[test]
    fn the_ledger_is_written_with_a_line_for_every_reading() {
        let ledger = Ledger::default();
        let device = ledger.device("ride");
        let at = Timestamp::from_millis(7);
        let entry = ledger.sent(device, at, [0xab; 16]);
        ledger.acked(entry, partition(), Some(Offset::new(4)));
        ledger.sent(device, at, [0; 16]);
        let mut out = Vec::new();
        ledger.write_to(&mut out).expect("memory has room");
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let hash = "ab".repeat(16);
        let zero = "00".repeat(16);
        assert_eq!(
            lines,
            [
                format!("ride\t7\t{hash}\trides-0\t4"),
                format!("ride\t7\t{zero}\t\t")
            ]
        );
    }
}
