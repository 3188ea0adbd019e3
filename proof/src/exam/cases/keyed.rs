//! What the cases of compaction and thinning share: topics of keys with many versions, their writers, and their judge, which tells
//! a gap that cleanup may make from a loss.
//!
//! Each partition has one writer that waits for every answer, so that ids rise in the order of offsets. A record carries its id in
//! a header, as a tombstone has no value to begin with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use model::Timestamp;
use model::batch::{self, BatchBuilder, BatchError, DecompressLimit};
use model::codec::Codec;
use wire::ErrorCode;

use crate::exam::ledger::{Digest, Fate, digest_of};
use crate::exam::probe::{Answer, Probe};
use crate::exam::random::Random;

const RECORDS_MAX: u64 = 24;
const VALUE_BYTES_MAX: u64 = 300;
const ID_HEADER: &[u8] = b"id";
const READ_MAX: Duration = Duration::from_secs(120);
/// Failures of one look that are told.
const FAILURES_MAX: usize = 10;

/// What cleanup may take from a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Records of which a later one of the same key exists; tombstones too, once nothing older is left, unless they stay.
    Compact {
        /// Whether tombstones stay for as long as a case lasts.
        tombstones_stay: bool,
    },
    /// Records that are neither the first nor the last of their key and window.
    Thin {
        /// The window, in milliseconds.
        window_ms: i64,
    },
}

/// A topic, its writers' memory, and what readers were shown of it.
pub struct Keyed {
    /// Its name.
    pub topic: String,
    rule: Rule,
    keys: u64,
    partitions: Vec<Mutex<Part>>,
}

struct Part {
    random: Random,
    next_id: u64,
    sent: BTreeMap<u64, Sent>,
    /// Acknowledged ids by offset.
    at: BTreeMap<i64, u64>,
    /// All ids of a key.
    of_key: HashMap<u64, Vec<u64>>,
    /// Where ids were shown.
    shown: HashMap<u64, i64>,
    /// Offsets that a reader went past without being shown a record.
    gone: BTreeSet<i64>,
}

#[derive(Clone, Debug)]
struct Sent {
    key: u64,
    time: i64,
    is_tombstone: bool,
    digest: Digest,
    fate: Fate,
}

/// A record as it was read.
pub struct Read {
    /// Its offset.
    pub offset: i64,
    id: Option<u64>,
    digest: Digest,
}

/// What came of a look at everything.
#[derive(Debug, Default)]
pub struct Look {
    /// Acknowledged records that were looked for.
    pub checked: u64,
    /// Those that are gone, and that cleanup may not take.
    pub lost: u64,
    /// Offsets without a record.
    pub gone: u64,
    /// What did not hold.
    pub failures: Vec<String>,
}

impl Look {
    fn add(&mut self, other: Look) {
        self.checked += other.checked;
        self.lost += other.lost;
        self.gone += other.gone;
        self.failures.extend(other.failures);
    }
}

impl Keyed {
    /// A topic of which nothing is written yet.
    pub fn new(topic: &str, partitions: u64, keys: u64, rule: Rule, seed: u64) -> Keyed {
        let part = |index: u64| Part {
            random: Random::new(seed ^ (index + 1) << 32),
            next_id: 1,
            sent: BTreeMap::new(),
            at: BTreeMap::new(),
            of_key: HashMap::new(),
            shown: HashMap::new(),
            gone: BTreeSet::new(),
        };
        Keyed {
            topic: topic.to_owned(),
            rule,
            keys,
            partitions: (0..partitions)
                .map(|index| Mutex::new(part(index)))
                .collect(),
        }
    }

    /// Creates the topic, with these settings beside those of its rule.
    pub fn create(&self, probe: &mut Probe, configs: &[(&str, &str)]) -> Result<()> {
        let tiers;
        let mut all = configs.to_vec();
        match self.rule {
            Rule::Compact { tombstones_stay } => {
                all.push(("cleanup.policy", "compact"));
                all.push(("min.cleanable.dirty.ratio", "0.01"));
                if !tombstones_stay {
                    all.push(("delete.retention.ms", "0"));
                }
            }
            Rule::Thin { window_ms } => {
                tiers = format!("0ms:{window_ms}ms:first+last");
                all.push(("cleanup.policy", "thin"));
                all.push(("thin.tiers", &tiers));
            }
        }
        probe.create_topic(&self.topic, self.count(), &all)
    }

    /// What a job that cleans it is told.
    pub fn policy(&self) -> &'static str {
        match self.rule {
            Rule::Compact { .. } => "compact",
            Rule::Thin { .. } => "thin",
        }
    }

    /// How many partitions it has.
    pub fn count(&self) -> i32 {
        i32::try_from(self.partitions.len()).expect("a few partitions")
    }

    /// Writes to a partition until told to stop; an error if the connection breaks.
    pub fn write(
        &self,
        address: &str,
        partition: i32,
        stop: &AtomicBool,
        pause: Duration,
    ) -> Result<()> {
        let mut probe = Probe::connect(address)?;
        while !stop.load(Ordering::Relaxed) {
            let answer = self.produce(&mut probe, partition)?;
            ensure!(
                matches!(answer, Answer::Acknowledged(_)),
                "{}-{partition}: produce was answered {answer:?}",
                self.topic
            );
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Writes one batch, and notes what came of it.
    pub fn produce(&self, probe: &mut Probe, partition: i32) -> Result<Answer> {
        let (ids, batch) = self.next_batch(partition)?;
        let answer = probe.produce(&self.topic, partition, batch);
        let mut part = self.part(partition);
        let base = match &answer {
            Ok(Answer::Acknowledged(base)) => Some(*base),
            _ => None,
        };
        for (index, id) in (0..).zip(ids) {
            let fate = match (&answer, base) {
                (_, Some(base)) => {
                    part.at.insert(base + index, id);
                    Fate::Acknowledged(base + index)
                }
                (Ok(_), None) => Fate::Refused,
                (Err(_), None) => Fate::Unknown,
            };
            part.sent
                .get_mut(&id)
                .expect("noted before it was sent")
                .fate = fate;
        }
        answer
    }

    fn next_batch(&self, partition: i32) -> Result<(Vec<u64>, Bytes)> {
        let mut part = self.part(partition);
        let part = &mut *part;
        let mut builder =
            BatchBuilder::new(Codec::ALL[usize::try_from(part.random.between(0, 5))?]);
        let mut ids = Vec::new();
        let time = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let time = i64::try_from(time.as_millis())?;
        for _ in 0..part.random.between(1, RECORDS_MAX + 1) {
            let id = part.next_id;
            part.next_id += 1;
            let key = part.random.between(0, self.keys);
            let is_tombstone = part.random.between(0, 12) == 0;
            let value = match is_tombstone {
                true => None,
                false => {
                    let bytes = part.random.between(1, VALUE_BYTES_MAX + 1);
                    let mut value = vec![0; usize::try_from(bytes)?];
                    part.random.fill(&mut value);
                    Some(value)
                }
            };
            let key_bytes = format!("key-{key}").into_bytes();
            let id_bytes = id.to_be_bytes();
            builder.push(
                Timestamp::from_millis(time),
                Some(&key_bytes),
                value.as_deref(),
                &[(ID_HEADER, Some(&id_bytes[..]))],
            )?;
            let digest = digest(&key_bytes, value.as_deref(), time);
            let sent = Sent {
                key,
                time,
                is_tombstone,
                digest,
                fate: Fate::InFlight,
            };
            part.sent.insert(id, sent);
            part.of_key.entry(key).or_default().push(id);
            ids.push(id);
        }
        Ok((ids, builder.build()?))
    }

    /// Reads all partitions from their first offset, and judges them. `finished`: no cleanup runs, and the last one left nothing
    /// undone.
    pub fn judge(&self, probe: &mut Probe, finished: bool) -> Result<Look> {
        let mut look = Look::default();
        for partition in 0..self.count() {
            look.add(self.judge_partition(probe, partition, finished)?);
        }
        Ok(look)
    }

    /// The same for one partition.
    pub fn judge_partition(
        &self,
        probe: &mut Probe,
        partition: i32,
        finished: bool,
    ) -> Result<Look> {
        let (contents, end) = read_all(probe, &self.topic, partition)?;
        Ok(self.look(partition, &contents, end, finished))
    }

    fn look(&self, partition: i32, contents: &[Read], end: i64, finished: bool) -> Look {
        let place = format!("{}-{partition}", self.topic);
        let mut part = self.part(partition);
        let part = &mut *part;
        let mut look = Look::default();
        let failures = &mut look.failures;
        let mut offsets = BTreeSet::new();
        let mut newest: HashMap<u64, (i64, u64)> = HashMap::new();
        for read in contents {
            let offset = read.offset;
            if offsets.last().is_some_and(|last| *last >= offset) {
                failures.push(format!("J3 {place}: offset {offset} follows a later one"));
            }
            offsets.insert(offset);
            if part.gone.contains(&offset) {
                failures.push(format!(
                    "{place}: the record at offset {offset} was gone, and is there again"
                ));
            }
            let Some((id, sent)) = read.id.and_then(|id| Some((id, part.sent.get(&id)?))) else {
                failures.push(format!(
                    "J3 {place}: offset {offset} holds a record that nobody sent"
                ));
                continue;
            };
            let elsewhere = match sent.fate {
                Fate::Acknowledged(at) => at != offset,
                Fate::Refused => true,
                Fate::Unknown | Fate::InFlight => false,
            };
            if elsewhere || sent.digest != read.digest {
                failures.push(format!(
                    "J1 {place}: offset {offset} holds record {id} ({:?}), or other bytes",
                    sent.fate
                ));
            }
            if *part.shown.entry(id).or_insert(offset) != offset {
                failures.push(format!(
                    "J2 {place}: record {id} is at offset {offset}, and was at another"
                ));
            }
            match newest.insert(sent.key, (offset, id)) {
                Some(before) if finished && matches!(self.rule, Rule::Compact { .. }) => failures
                    .push(format!(
                        "{place}: key {} stands at {} and at {offset}, all of it compacted",
                        sent.key, before.0
                    )),
                _ => {}
            }
        }
        part.gone
            .extend((0..end).filter(|offset| !offsets.contains(offset)));
        look.gone = part.gone.len() as u64;
        for (offset, id) in part.at.range(..end) {
            look.checked += 1;
            if !offsets.contains(offset) && !self.may_go(part, *id) {
                look.lost += 1;
                failures.push(format!("J1 {place}: record {id}, acknowledged at offset {offset}, is gone, and nothing took its place"));
            }
        }
        if let Rule::Compact { tombstones_stay } = self.rule {
            older_than_acknowledged(
                part,
                &newest,
                end,
                finished || tombstones_stay,
                &place,
                failures,
            );
        }
        failures.truncate(FAILURES_MAX);
        look
    }

    /// Whether cleanup may take this record. Ids of a key rise with its times.
    fn may_go(&self, part: &Part, id: u64) -> bool {
        let sent = &part.sent[&id];
        let ids = &part.of_key[&sent.key];
        let at = ids.binary_search(&id).expect("every id is its key's");
        let exists = |id: &&u64| part.sent[*id].fate != Fate::Refused;
        let before = ids[..at].iter().rev().find(exists);
        let after = ids[at + 1..].iter().find(exists);
        match self.rule {
            Rule::Compact { tombstones_stay } => {
                after.is_some() || sent.is_tombstone && !tombstones_stay
            }
            Rule::Thin { window_ms } => [before, after].into_iter().all(|other| {
                other.is_some_and(|other| {
                    part.sent[other].time.div_euclid(window_ms) == sent.time.div_euclid(window_ms)
                })
            }),
        }
    }

    fn part(&self, partition: i32) -> std::sync::MutexGuard<'_, Part> {
        let index = usize::try_from(partition).expect("a partition's number");
        self.partitions[index]
            .lock()
            .expect("no thread panics while it holds a partition")
    }
}

/// Who reads to the end and keeps the last record of each key has no value that is older than the last acknowledged one. Where
/// tombstones may go meanwhile, a key that ends in one is not looked at: the reader may have passed the value before.
fn older_than_acknowledged(
    part: &Part,
    newest: &HashMap<u64, (i64, u64)>,
    end: i64,
    with_tombstones: bool,
    place: &str,
    failures: &mut Vec<String>,
) {
    let mut last: HashMap<u64, (i64, u64)> = HashMap::new();
    for (offset, id) in part.at.range(..end) {
        last.insert(part.sent[id].key, (*offset, *id));
    }
    for (key, (offset, id)) in last {
        // Sent later and perhaps stored: it may be the one that took the others' place.
        let in_doubt = |later: &&u64| {
            **later > id
                && part.sent[*later].is_tombstone
                && matches!(part.sent[*later].fate, Fate::Unknown | Fate::InFlight)
        };
        let may_be_absent =
            part.sent[&id].is_tombstone || part.of_key[&key].iter().any(|later| in_doubt(&later));
        match newest.get(&key) {
            Some((shown, _)) if *shown < offset && (!may_be_absent || with_tombstones) => failures.push(format!(
                "{place}: key {key} ends at offset {shown}, older than what was acknowledged at {offset}"
            )),
            None if !may_be_absent => failures.push(format!(
                "{place}: key {key} is gone, of which a value was acknowledged at {offset}"
            )),
            _ => {}
        }
    }
}

/// Everything from offset 0 to the high watermark, and where that was.
fn read_all(probe: &mut Probe, topic: &str, partition: i32) -> Result<(Vec<Read>, i64)> {
    let (mut contents, mut from) = (Vec::new(), 0);
    let deadline = Instant::now() + READ_MAX;
    loop {
        let fetched = probe.fetch(topic, partition, from, 1 << 20, 0)?;
        ensure!(
            fetched.error == ErrorCode::None,
            "read {topic}-{partition} at {from}: {}",
            fetched.error.name()
        );
        from = note(fetched.records, from, &mut contents)?;
        if from >= fetched.high_watermark {
            return Ok((contents, from));
        }
        ensure!(
            Instant::now() < deadline,
            "reading {topic}-{partition} stays at {from}, below its end {}",
            fetched.high_watermark
        );
    }
}

/// Notes the records from offset `from` on. Gives the offset after the last batch.
pub fn note(records: Bytes, from: i64, contents: &mut Vec<Read>) -> Result<i64> {
    let mut next = from;
    for batch in batch::split(records) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(BatchError::Truncated { .. }) => break,
            Err(error) => return Err(error).context("a batch that was read"),
        };
        for record in batch.records(DecompressLimit::default())? {
            let record = record?;
            let offset = record.offset.to_wire();
            if offset < from {
                continue;
            }
            let header = record
                .headers
                .first()
                .and_then(|header| header.value.as_ref());
            let id = header.and_then(|value| Some(u64::from_be_bytes(*value.first_chunk()?)));
            let key = record.key.unwrap_or_default();
            contents.push(Read {
                offset,
                id,
                digest: digest(&key, record.value.as_deref(), record.timestamp.millis()),
            });
        }
        next = batch.header().next_offset().to_wire();
    }
    Ok(next)
}

fn digest(key: &[u8], value: Option<&[u8]>, time: i64) -> Digest {
    let mut all = time.to_be_bytes().to_vec();
    all.push(u8::from(value.is_some()));
    all.extend_from_slice(value.unwrap_or_default());
    digest_of(key, &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPACT: Rule = Rule::Compact {
        tombstones_stay: true,
    };

    /// A partition with these records acknowledged, from offset 0 on: key, time, and whether it has a value.
    fn written(rule: Rule, records: &[(u64, i64, bool)]) -> Keyed {
        let keyed = Keyed::new("t", 1, 10, rule, 1);
        for (offset, (key, time, has_value)) in (0..).zip(records) {
            let mut part = keyed.part(0);
            let id = part.next_id;
            part.next_id += 1;
            let sent = Sent {
                key: *key,
                time: *time,
                is_tombstone: !has_value,
                digest: [u8::try_from(id).unwrap(); 32],
                fate: Fate::Acknowledged(offset),
            };
            part.sent.insert(id, sent);
            part.of_key.entry(*key).or_default().push(id);
            part.at.insert(offset, id);
        }
        keyed
    }

    /// What a reader is shown who finds records at these offsets.
    fn shown(offsets: &[i64]) -> Vec<Read> {
        let read = |offset: &i64| Read {
            offset: *offset,
            id: Some(u64::try_from(*offset + 1).unwrap()),
            digest: [u8::try_from(*offset + 1).unwrap(); 32],
        };
        offsets.iter().map(read).collect()
    }

    fn failures(keyed: &Keyed, offsets: &[i64], finished: bool) -> Vec<String> {
        let end = keyed.part(0).at.len();
        keyed
            .look(0, &shown(offsets), i64::try_from(end).unwrap(), finished)
            .failures
    }

    #[test]
    fn a_gap_that_a_later_record_of_the_key_explains_is_no_loss_and_any_other_is() {
        let records = [(1, 0, true), (2, 0, true), (1, 0, true)];
        assert!(failures(&written(COMPACT, &records), &[1, 2], true).is_empty());
        let lost = failures(&written(COMPACT, &records), &[0, 2], false);
        assert!(
            lost[0].starts_with("J1 t-0: record 2, acknowledged at offset 1, is gone"),
            "{lost:?}"
        );
        assert!(lost[1].contains("key 2 is gone"), "{lost:?}");
        let older = failures(&written(COMPACT, &records), &[0, 1], false);
        assert!(
            older
                .iter()
                .any(|failure| failure.contains("key 1 ends at offset 0, older")),
            "{older:?}"
        );
    }

    #[test]
    fn what_was_gone_and_comes_back_is_named() {
        let keyed = written(COMPACT, &[(1, 0, true), (1, 0, true)]);
        assert!(failures(&keyed, &[1], false).is_empty());
        let back = failures(&keyed, &[0, 1], false);
        assert_eq!(
            back,
            ["t-0: the record at offset 0 was gone, and is there again"]
        );
    }

    #[test]
    fn a_key_that_stands_twice_after_the_last_compaction_is_named() {
        let records = [(1, 0, true), (1, 0, true)];
        assert!(failures(&written(COMPACT, &records), &[0, 1], false).is_empty());
        let twice = failures(&written(COMPACT, &records), &[0, 1], true);
        assert_eq!(
            twice,
            ["t-0: key 1 stands at 0 and at 1, all of it compacted"]
        );
    }

    #[test]
    fn a_tombstone_may_go_only_where_tombstones_go_and_never_before_its_value() {
        let going = Rule::Compact {
            tombstones_stay: false,
        };
        let records = [(1, 0, true), (1, 0, false), (2, 0, true)];
        assert!(failures(&written(going, &records), &[2], true).is_empty());
        assert_eq!(failures(&written(COMPACT, &records), &[2], true).len(), 1);
        let risen = failures(&written(going, &records), &[0, 2], true);
        assert!(
            risen[0].contains("key 1 ends at offset 0, older"),
            "{risen:?}"
        );
    }

    #[test]
    fn thinning_may_take_what_lies_between_the_first_and_the_last_of_a_window() {
        let thin = Rule::Thin { window_ms: 100 };
        let records = [(1, 10, true), (1, 20, true), (1, 99, true), (1, 100, true)];
        assert!(failures(&written(thin, &records), &[0, 2, 3], true).is_empty());
        assert_eq!(
            failures(&written(thin, &records), &[0, 1, 3], true).len(),
            1
        );
        assert_eq!(
            failures(&written(thin, &records), &[1, 2, 3], true).len(),
            1
        );
    }
}
