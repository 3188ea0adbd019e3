//! Operators move messages of a queue to another topic, give dead letters back to where they came from, and discard what nobody has taken.
//! Callers: fronts, by way of the door.
//! Invariants: a message that is moved is stored there, and finished here, in one frame: a power cut leaves it in one of both places. What
//! somebody holds is left alone. One call does a bounded piece; whoever calls goes on until nothing is left.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use model::batch::HeaderRef;
use model::{Offset, PartitionId, Timestamp, partition_of_key};
use storage::{Log, LogAppend};

use super::coordinator::{NotSettled, Settlement};
use super::dead_letters::header;
use super::machine::{Makers, Wanted};
use super::partition::Verdict;
use super::record::Place;
use super::{QUEUES, ShareError};
use crate::broker::access::{Granted, Group, right};
use crate::broker::publish::{Gathering, Message, PublishRefusal};
use crate::broker::replay::{Block, Reading, ReplayError, ReplayRecord};
use crate::broker::{Broker, Refusal, Topic, state_refusal};

/// About so many bytes are moved in one frame.
const PIECE_BYTES: usize = 256 << 10;
/// Letters that are told of at most.
const TOLD_MAX: usize = 100;
/// Who holds messages while they are moved. They come back by themselves if that breaks off.
const MEMBER: &str = "transfer";

/// What is to be moved.
pub struct Transfer<'a> {
    /// From which topic.
    pub from: &'a Granted<Arc<Topic>, right::Read>,
    /// To which.
    pub to: &'a Granted<Arc<Topic>, right::Write>,
    /// Only dead letters of that topic and this group, as they were before; None: all messages, as they are.
    pub dead_of: Option<&'a str>,
    /// So many at most.
    pub count_max: u64,
    /// They are counted, and nothing is done.
    pub dry_run: bool,
}

/// What was moved.
#[derive(Debug, Default)]
pub struct Transferred {
    /// So many, or, if it was tried only, would be.
    pub moved: u64,
    /// Dead letters that have nothing of their message, and stay.
    pub empty: u64,
    /// The first dead letters, if it was tried only.
    pub letters: Vec<Letter>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it is.
    pub partition: PartitionId,
    /// Where it is.
    pub offset: Offset,
    /// When it was written.
    pub time: Timestamp,
    /// What it is about: partition, offset, how often it was delivered, and why it was given up; as its headers say.
    pub about: [String; 4],
}

/// Why nothing, or no more, is moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The group.
    #[error(transparent)]
    Group(#[from] ShareError),
    /// The topic that messages come from.
    #[error(transparent)]
    Read(#[from] ReplayError),
    /// The topic that they go to.
    #[error(transparent)]
    Publish(#[from] PublishRefusal),
    /// Messages of a topic would come again without end.
    #[error("messages are moved to another topic than the one that they are in")]
    SameTopic,
}

impl From<Refusal> for TransferError {
    fn from(refusal: Refusal) -> TransferError {
        TransferError::Read(refusal.into())
    }
}

/// A message that is chosen, by its place in a block.
struct Chosen {
    index: usize,
    offset: Offset,
}

impl Broker {
    /// Discards what nobody has taken of a topic's messages: they are finished, and nobody gets them. How many. Durable when it returns.
    pub async fn discard_shared(
        &self,
        group: &Granted<Group<'_>, right::Read>,
        topic: &Granted<Arc<Topic>, right::Read>,
    ) -> Result<u64, TransferError> {
        group.check_kind()?;
        let mut records = 0;
        for partition in topic.partitions() {
            let place = place(topic, partition);
            if self.shares().has_begun(group.id(), place) {
                let bounds = topic.log(partition)?.bounds();
                let range = bounds.start..bounds.durable_end;
                let discarded = self.shares().discard(group.id(), place, range);
                records += discarded.await?;
            }
        }
        Ok(records)
    }

    /// Moves messages that nobody has taken. Durable when it returns.
    pub async fn transfer(
        &self,
        group: &Granted<Group<'_>, right::Read>,
        transfer: &Transfer<'_>,
    ) -> Result<Transferred, TransferError> {
        group.check_kind()?;
        if transfer.from.id == transfer.to.id {
            return Err(TransferError::SameTopic);
        }
        let mut done = Transferred::default();
        for partition in transfer.from.partitions() {
            let place = place(transfer.from, partition);
            let log = transfer.from.log(partition)?;
            let shares = self.shares();
            if !shares.has_begun(group.id(), place) {
                // A queue is there from the first message of its topic on, whoever has come for it.
                if group.id() != QUEUES {
                    continue;
                }
                if !transfer.dry_run {
                    let start = log.bounds().start;
                    let makers = Makers {
                        group: group.maker(),
                        topic: transfer.from.owner.as_ref(),
                    };
                    shares.begin((group.id(), makers), place, start).await?;
                }
            }
            let work = Work {
                broker: self,
                group: group.id(),
                transfer,
                place,
                log,
            };
            work.run(&mut done).await?;
            if done.moved >= transfer.count_max {
                break;
            }
        }
        Ok(done)
    }
}

fn place(topic: &Topic, partition: PartitionId) -> Place {
    Place {
        topic: topic.id,
        partition,
    }
}

/// One partition's messages.
struct Work<'a> {
    broker: &'a Broker,
    group: &'a str,
    transfer: &'a Transfer<'a>,
    place: Place,
    log: &'a Log,
}

impl Work<'_> {
    async fn run(&self, done: &mut Transferred) -> Result<(), TransferError> {
        let bounds = self.log.bounds();
        let mut at = bounds.start;
        while at < bounds.durable_end && done.moved < self.transfer.count_max {
            let Some(first) = self.next(at..bounds.durable_end) else {
                break;
            };
            let of = (self.place.partition, self.log);
            let mut reading = Reading::within(of, first..bounds.durable_end);
            let block = reading.read(self.broker).await?;
            let (chosen, next) = self.choose(&block, done);
            let next = next.unwrap_or(reading.next_offset());
            if next <= first {
                break;
            }
            at = next;
            match self.transfer.dry_run {
                true => self.tell(&block, &chosen, done),
                false => self.move_all(&block, chosen, done).await?,
            }
        }
        Ok(())
    }

    /// The first message that nobody has.
    fn next(&self, within: Range<Offset>) -> Option<Offset> {
        let shares = self.broker.shares();
        match shares.has_begun(self.group, self.place) {
            true => shares.first_available(self.group, self.place, within),
            false => Some(within.start),
        }
    }

    /// The messages of a block that are wanted, and where to go on if that is not its end.
    fn choose(&self, block: &Block, done: &mut Transferred) -> (Vec<Chosen>, Option<Offset>) {
        let left = self.transfer.count_max - done.moved;
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        for (index, found) in block.iter().enumerate() {
            let record = &found.record;
            if chosen.len() as u64 >= left || bytes >= PIECE_BYTES {
                return (chosen, Some(record.offset));
            }
            if let Some(group) = self.transfer.dead_of {
                if !is_letter_of(&found, self.transfer.to.name.as_str(), group) {
                    continue;
                }
                if record.key.is_none() && record.value.is_none() && own_headers(&found) == 0 {
                    done.empty += 1;
                    continue;
                }
            }
            bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            chosen.push(Chosen {
                index,
                offset: record.offset,
            });
        }
        (chosen, None)
    }

    /// Counts those that nobody has.
    fn tell(&self, block: &Block, chosen: &[Chosen], done: &mut Transferred) {
        for Chosen { index, offset } in chosen {
            let one = *offset..offset.plus(1);
            if self.next(one) != Some(*offset) {
                continue;
            }
            done.moved += 1;
            let found = block.get(*index).expect("it was chosen of it");
            if self.transfer.dead_of.is_some() && done.letters.len() < TOLD_MAX {
                let names = [
                    header::PARTITION,
                    header::OFFSET,
                    header::DELIVERY_COUNT,
                    header::MESSAGE,
                ];
                done.letters.push(Letter {
                    partition: found.partition,
                    offset: *offset,
                    time: found.record.timestamp,
                    about: names.map(|name| text_of(&found, name)),
                });
            }
        }
    }

    /// Takes those that nobody has, and moves them.
    async fn move_all(
        &self,
        block: &Block,
        chosen: Vec<Chosen>,
        done: &mut Transferred,
    ) -> Result<(), TransferError> {
        if chosen.is_empty() {
            return Ok(());
        }
        let mut within: Vec<Range<Offset>> = Vec::new();
        for Chosen { offset, .. } in &chosen {
            match within.last_mut() {
                Some(last) if last.end == *offset => last.end = offset.plus(1),
                _ => within.push(*offset..offset.plus(1)),
            }
        }
        let log_start = self.log.bounds().start;
        let wanted = Wanted {
            place: self.place,
            within,
            absent: Vec::new(),
            count_max: chosen.len(),
            ends: Vec::new(),
            // An operator moves also what no consumer would be given once more.
            deliveries_max: Some(u16::MAX),
            log_start,
        };
        let shares = self.broker.shares();
        let acquired = shares.acquire(self.group, MEMBER, &wanted).await?;
        let ranges: Vec<_> = acquired.into_iter().map(|piece| piece.offsets).collect();
        let is_taken = |it: &&Chosen| ranges.iter().any(|range| range.contains(&it.offset));
        let taken: Vec<_> = chosen.iter().filter(is_taken).collect();
        if taken.is_empty() {
            return Ok(());
        }
        let verdicts = |verdict| -> Vec<_> {
            let ranges = ranges.iter().cloned();
            ranges.map(|range| (range, verdict)).collect()
        };
        let moved = async {
            let appends = self.appends(block, &taken).await?;
            let bytes = LogAppend::size_of(&appends).bytes;
            let settlement = [Settlement {
                group: self.group.into(),
                member: MEMBER.into(),
                place: self.place,
                verdicts: verdicts(Verdict::Accept),
                log_start,
            }];
            let settled = shares.settle_together(self.broker.storage(), &settlement, appends);
            let refused = |error| PublishRefusal::from(state_refusal(error));
            match settled.await {
                Ok(durable) => Ok(durable.await.map(|()| bytes).map_err(refused)?),
                Err(NotSettled::Share(error)) => Err(error.into()),
                Err(NotSettled::Refused(error)) => Err(refused(error).into()),
                Err(NotSettled::TooMuch) => {
                    let bytes_max = self.broker.storage().batch_bytes_max();
                    Err(PublishRefusal::TooMuch { bytes, bytes_max }.into())
                }
            }
        };
        match moved.await {
            Ok(bytes) => {
                let count = taken.len() as u64;
                self.transfer.to.traffic.appended(count, bytes);
                done.moved += count;
            }
            Err(error) => {
                let returned = verdicts(Verdict::Return);
                let settled = shares.settle(self.group, MEMBER, self.place, &returned, log_start);
                // Otherwise they come back when they were held for long enough.
                let _ = settled.await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// The messages as they go to the other topic, to the partition that their keys decide; without one, to that of the same number.
    async fn appends(
        &self,
        block: &Block,
        taken: &[&Chosen],
    ) -> Result<Vec<LogAppend>, TransferError> {
        let to = self.transfer.to;
        let count = to.partition_count();
        let mut gathered: BTreeMap<PartitionId, Gathering> = BTreeMap::new();
        for Chosen { index, .. } in taken {
            let found = block.get(*index).expect("it was chosen of it");
            let number = match found.record.key {
                Some(key) => partition_of_key(key, count),
                None => self.place.partition.get() % count,
            };
            let partition = PartitionId::new(number);
            let strips = self.transfer.dead_of.is_some();
            let headers = found.record.headers();
            let headers: Vec<HeaderRef<'_>> = headers
                .filter(|(name, _)| !(strips && is_ours(name)))
                .collect();
            let message = Message {
                key: found.record.key,
                value: found.record.value,
                headers: &headers,
                time: (!strips).then_some(found.record.timestamp),
            };
            let of = match gathered.entry(partition) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.broker.gather(to, partition)?),
            };
            of.push(&message)?;
        }
        let mut appends = Vec::with_capacity(gathered.len());
        for (_, of) in gathered {
            appends.extend(of.encoded().await?);
        }
        Ok(appends)
    }
}

fn is_ours(name: &[u8]) -> bool {
    header::ALL.iter().any(|ours| ours.as_bytes() == name)
}

fn own_headers(found: &ReplayRecord<'_>) -> usize {
    let headers = found.record.headers();
    headers.filter(|(name, _)| !is_ours(name)).count()
}

/// What a header of a dead letter says. Those of the letter stand before those of its message.
fn text_of(found: &ReplayRecord<'_>, name: &str) -> String {
    let mut headers = found.record.headers();
    let value = headers.find(|(it, _)| *it == name.as_bytes());
    let value = value.and_then(|(_, value)| value).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn is_letter_of(found: &ReplayRecord<'_>, topic: &str, group: &str) -> bool {
    text_of(found, header::TOPIC) == topic && text_of(found, header::GROUP) == group
}
