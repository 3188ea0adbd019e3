//! Dead letters: for each record that a group has given up a record of the topic that the group's settings name, which says which it was
//! and why, and is a copy of it where the settings say so.
//! Callers: `Broker::run`. Whoever gives records up only says so: they are nobody's from then on, and durably so, and what happens here
//! comes after it.
//! Invariants: dead letters and the record that archives what they are about are one frame, so that a power cut leaves both or neither. What
//! cannot have a dead letter is archived and counted as dropped, and stands in the loss ledger before; what cannot have one now is tried again.
//! Source: KIP-1191, and `ShareGroupDLQStateManager` of Kafka 4.4 by its behaviour, but that a copy has the record's headers too: without
//! them a message of another protocol could not be read, nor given back to its queue.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::batch::HeaderRef;
use model::{Offset, PartitionId};
use storage::LogAppend;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ShareError;
use super::coordinator::{Dead, NotSettled};
use super::partition::Tally;
use super::record::Place;
use super::runs::Reason;
use crate::broker::publish::{Gathering, Message, PublishRefusal};
use crate::broker::replay::{Reading, ReplayError, ReplayRecord};
use crate::broker::{Broker, Topic, state_refusal};

/// What the headers of a dead letter are called.
pub mod header {
    /// The name of the topic.
    pub const TOPIC: &str = "__dlq.errors.topic";
    /// The number of the partition.
    pub const PARTITION: &str = "__dlq.errors.partition";
    /// The record's offset.
    pub const OFFSET: &str = "__dlq.errors.offset";
    /// The group.
    pub const GROUP: &str = "__dlq.errors.group";
    /// How often it was delivered.
    pub const DELIVERY_COUNT: &str = "__dlq.errors.delivery.count";
    /// Why it was given up.
    pub const MESSAGE: &str = "__dlq.errors.message";
    /// All of them.
    pub const ALL: [&str; 6] = [TOPIC, PARTITION, OFFSET, GROUP, DELIVERY_COUNT, MESSAGE];
}

/// Runs of records that are looked at at once.
const RUNS_MAX: usize = 256;
/// Dead letters of one frame.
const LETTERS_MAX: usize = 500;
/// About so many bytes of them, but for a single one that is longer.
const LETTERS_BYTES_MAX: usize = 256 << 10;
/// What could not be done is tried again so much later.
const RETRY: Duration = Duration::from_secs(5);
/// It is told in the log once in this time.
const TOLD: Duration = Duration::from_secs(60);

/// Why a group's records have no dead letters.
#[derive(Debug, thiserror::Error)]
enum NoTopic {
    #[error("the group has no topic for dead letters")]
    Unset,
    #[error("the topic {0} for dead letters is not there")]
    Unknown(String),
    #[error("the topic {0} has not errors.deadletterqueue.group.enable=true")]
    NotEnabled(String),
    #[error("the topic {0} is the one that the records are in")]
    Itself(String),
    #[error("the topic for dead letters does not take them")]
    NotTaken,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum NotNow {
    #[error(transparent)]
    Group(#[from] ShareError),
    #[error(transparent)]
    Read(#[from] ReplayError),
    #[error(transparent)]
    Refused(PublishRefusal),
}

/// How much is tried at once.
#[derive(Clone, Copy)]
struct Piece {
    letters_max: usize,
    copies: bool,
}

/// Dead letters of some records, and what becomes of those.
#[derive(Default)]
struct Letters {
    ranges: Vec<Range<Offset>>,
    /// Of those the ones without.
    dropped: Vec<Range<Offset>>,
    append: Option<LogAppend>,
    tally: Tally,
}

impl Letters {
    /// These records have none.
    fn none(ranges: Vec<Range<Offset>>) -> Letters {
        let dropped = ranges
            .iter()
            .map(|range| range.end.since(range.start))
            .sum();
        Letters {
            dropped: ranges.clone(),
            ranges,
            append: None,
            tally: Tally {
                dropped,
                ..Tally::default()
            },
        }
    }
}

fn not_taken(group: &str, source: &Topic) {
    tracing::warn!(%group, topic = source.name.as_str(), "records that were given up are archived without dead letters: the topic for those does not take them");
}

impl Broker {
    /// Writes dead letters until `shutdown` turns true.
    pub(in crate::broker) async fn write_dead_letters(&self, mut shutdown: watch::Receiver<bool>) {
        let mut writer = Writer::default();
        let work = async {
            loop {
                let is_done = self.write_all_dead(&mut writer).await;
                let retry = match is_done {
                    true => Duration::MAX,
                    false => RETRY,
                };
                tokio::select! {
                    () = self.shares().dead_notified() => {}
                    () = tokio::time::sleep(retry) => {}
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }

    /// Writes all that is to be written now. False if some could not be.
    async fn write_all_dead(&self, writer: &mut Writer) -> bool {
        let mut is_done = true;
        for (group, place) in self.shares().dead() {
            loop {
                match self.write_dead(&group, place, writer).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(why) => {
                        writer.warn(|| {
                            tracing::warn!(%group, %why, "dead letters cannot be written now, and are tried again");
                        });
                        is_done = false;
                        break;
                    }
                }
            }
        }
        is_done
    }

    /// Writes some dead letters of a partition. False if there are none to be written.
    async fn write_dead(
        &self,
        group: &str,
        place: Place,
        writer: &mut Writer,
    ) -> Result<bool, NotNow> {
        let dead = self.shares().dead_of(group, place, RUNS_MAX);
        let Some(dead) = dead.filter(|dead| !dead.runs.is_empty()) else {
            return Ok(false);
        };
        // What is left of a deleted topic ends with it.
        let Ok(source) = self.topic_by_id(place.topic) else {
            return Ok(false);
        };
        let target = self.dead_letter_topic(group, &source);
        let target = match target {
            Ok(target) => target,
            Err(why) => {
                // Without a topic that is what was asked for, and the ledger has it.
                if !matches!(why, NoTopic::Unset) {
                    writer.warn(|| {
                        tracing::warn!(%group, topic = source.name.as_str(), %why, "records that were given up are archived without dead letters");
                    });
                }
                let ranges = dead.runs.iter().map(|(range, ..)| range.clone());
                let letters = Letters::none(ranges.collect());
                self.note_dropped((group, &source, &dead), &letters, &why, writer)
                    .await;
                self.archive_dead(group, &dead, letters).await?;
                writer.noted = None;
                return Ok(true);
            }
        };
        let copies = self.shares().settings(group).copies_dead;
        for (letters_max, copies) in [(LETTERS_MAX, copies), (1, copies), (1, false)] {
            let piece = Piece {
                letters_max,
                copies,
            };
            let letters = match self.piece(group, &dead, (&source, &target), piece).await {
                Err(NotNow::Refused(PublishRefusal::TooLarge { .. })) => continue,
                letters => letters?,
            };
            let Tally {
                dropped,
                dead_letters,
                ..
            } = letters.tally;
            let bytes = LogAppend::size_of(letters.append.as_slice()).bytes;
            self.note_dropped(
                (group, &source, &dead),
                &letters,
                &NoTopic::NotTaken,
                writer,
            )
            .await;
            if self.archive_dead(group, &dead, letters).await? {
                target.traffic.appended(dead_letters, bytes);
                writer.noted = None;
                if dropped > 0 {
                    writer.warn(|| not_taken(group, &source));
                }
                return Ok(true);
            }
        }
        writer.warn(|| not_taken(group, &source));
        let (first, ..) = &dead.runs[0];
        let first = first.start..first.start.plus(1);
        let letters = Letters::none(vec![first]);
        self.note_dropped(
            (group, &source, &dead),
            &letters,
            &NoTopic::NotTaken,
            writer,
        )
        .await;
        self.archive_dead(group, &dead, letters).await?;
        writer.noted = None;
        Ok(true)
    }

    /// Puts records that are about to be archived without dead letters into the loss ledger.
    async fn note_dropped(
        &self,
        (group, source, dead): (&str, &Topic, &Dead),
        letters: &Letters,
        why: &NoTopic,
        writer: &mut Writer,
    ) {
        let new = writer.not_noted(group, dead.place, &letters.dropped);
        let at = (source, dead.place.partition);
        self.note_given_up(group, at, &new, &why.to_string()).await;
    }

    /// Archives records with their dead letters. False if it is more than one frame takes.
    async fn archive_dead(
        &self,
        group: &str,
        dead: &Dead,
        letters: Letters,
    ) -> Result<bool, NotNow> {
        let at = (group, dead.place, dead.incarnation);
        let what = (letters.append, letters.tally);
        let archived = { self.shares() }.archive(self.storage(), at, &letters.ranges, what);
        match archived.await {
            // They ended, or began anew, meanwhile: it is looked again.
            Ok(()) | Err(NotSettled::Share(ShareError::NotHeld(_) | ShareError::NotFound)) => {
                Ok(true)
            }
            Err(NotSettled::TooMuch) => Ok(false),
            Err(NotSettled::Share(error)) => Err(error.into()),
            Err(NotSettled::Refused(error)) => Err(NotNow::Refused(state_refusal(error).into())),
        }
    }

    /// The topic that takes the dead letters of a group's records.
    fn dead_letter_topic(&self, group: &str, source: &Topic) -> Result<Arc<Topic>, NoTopic> {
        let name = self.shares().dead_letter_topic(group);
        let name = name.ok_or(NoTopic::Unset)?;
        let Ok(topic) = self.topic(&name) else {
            return Err(NoTopic::Unknown(name));
        };
        match topic.config.takes_dead_letters {
            _ if topic.id == source.id => Err(NoTopic::Itself(name)),
            true => Ok(topic),
            false => Err(NoTopic::NotEnabled(name)),
        }
    }

    /// Encodes dead letters of the first records.
    async fn piece(
        &self,
        group: &str,
        dead: &Dead,
        (source, target): (&Topic, &Topic),
        piece: Piece,
    ) -> Result<Letters, NotNow> {
        // Where a partition's are, so that they keep their order.
        let number = dead.place.partition.get() % target.partition_count();
        let gathered = self.gather(target, PartitionId::new(number));
        let mut gathered = gathered.map_err(NotNow::Refused)?;
        let mut letters = Letters::default();
        let log = source.log(dead.place.partition);
        let log = log.map_err(|refusal| NotNow::Refused(refusal.into()))?;
        let is_full = |gathered: &Gathering, tally: &Tally| {
            let count = gathered.len() as u64 + tally.dropped;
            count >= piece.letters_max as u64 || gathered.bytes() >= LETTERS_BYTES_MAX
        };
        for (offsets, count, reason) in &dead.runs {
            if is_full(&gathered, &letters.tally) {
                break;
            }
            let about = About {
                topic: source.name.as_str(),
                group,
                count: *count,
                reason: *reason,
            };
            let mut reading = Reading::within((dead.place.partition, log), offsets.clone());
            // Behind the last record that is done with.
            let mut next = offsets.start;
            let mut found = 0;
            'run: while next < offsets.end {
                let before = reading.next_offset();
                let block = reading.read(self).await?;
                for record in block.iter() {
                    if is_full(&gathered, &letters.tally) {
                        break 'run;
                    }
                    found += 1;
                    next = record.record.offset.plus(1);
                    match about.write(&record, piece.copies, &mut gathered) {
                        Ok(()) => letters.tally.dead_letters += 1,
                        Err(PublishRefusal::Refused(refusal)) => {
                            return Err(NotNow::Refused(PublishRefusal::Refused(refusal)));
                        }
                        Err(_) => {
                            letters.tally.dropped += 1;
                            letters.dropped.push(record.record.offset..next);
                        }
                    }
                }
                let is_over = reading.next_offset() == before && block.is_empty();
                if is_over || reading.next_offset() >= offsets.end {
                    // What was not found is not there any more.
                    next = offsets.end;
                }
            }
            let done = offsets.start..next;
            letters.tally.absent += next.since(offsets.start) - found;
            if !done.is_empty() {
                letters.ranges.push(done);
            }
        }
        letters.append = gathered.encoded().await.map_err(NotNow::Refused)?;
        Ok(letters)
    }
}

/// What dead letters of a run say.
struct About<'a> {
    topic: &'a str,
    group: &'a str,
    count: u16,
    reason: Reason,
}

impl About<'_> {
    /// Writes the dead letter of a record: without what it has, if that makes it too long.
    fn write(
        &self,
        record: &ReplayRecord<'_>,
        copies: bool,
        gathered: &mut Gathering,
    ) -> Result<(), PublishRefusal> {
        let partition = record.partition.to_string();
        let offset = record.record.offset.to_string();
        let count = self.count.to_string();
        let said = [
            (header::TOPIC, self.topic),
            (header::PARTITION, &partition),
            (header::OFFSET, &offset),
            (header::GROUP, self.group),
            (header::DELIVERY_COUNT, &count),
            (header::MESSAGE, self.reason.words()),
        ];
        let said = said.map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
        if copies {
            let headers: Vec<HeaderRef<'_>> =
                said.into_iter().chain(record.record.headers()).collect();
            let copy = Message {
                key: record.record.key,
                value: record.record.value,
                headers: &headers,
                time: None,
            };
            match gathered.push(&copy) {
                Err(PublishRefusal::TooLarge { .. }) => {}
                other => return other,
            }
        }
        gathered.push(&Message {
            headers: &said,
            ..Message::default()
        })
    }
}

/// What the writer remembers.
#[derive(Default)]
struct Writer {
    /// When something was told in the log.
    warned: Option<Instant>,
    /// What stands in the loss ledger and is not archived yet.
    noted: Option<(String, Place, Vec<Range<Offset>>)>,
}

impl Writer {
    fn warn(&mut self, tell: impl FnOnce()) {
        if self.warned.is_none_or(|at| at.elapsed() >= TOLD) {
            self.warned = Some(Instant::now());
            tell();
        }
    }

    /// Those of these records that are not in the ledger yet; from now on they are.
    fn not_noted(
        &mut self,
        group: &str,
        place: Place,
        dropped: &[Range<Offset>],
    ) -> Vec<Range<Offset>> {
        let noted = match &self.noted {
            Some((of, at, noted)) if of == group && *at == place => &noted[..],
            _ => &[],
        };
        let is_noted = |range: &&Range<Offset>| {
            let has = |noted: &Range<Offset>| noted.start <= range.start && range.end <= noted.end;
            noted.iter().any(has)
        };
        let new = dropped.iter().filter(|range| !is_noted(range)).cloned();
        let new = new.collect();
        self.noted = Some((group.to_owned(), place, dropped.to_vec()));
        new
    }
}
