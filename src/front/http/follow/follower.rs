//! One follower: a subscription, what of its last block was not written yet, and where it is, record by record.
//!
//! Callers: [`super::stream`] and [`super::poll`]. Invariant: the position tells of exactly what was written: whoever goes on there
//! gets the next record and none twice, and each gap was told before a record behind it.

use columnar::{Encoder, Format, Row, Schema};
use model::Offset;
use model::{PartitionId, Timestamp};

use super::position::put;
use crate::broker::replay::{Block, Event, Gap, ReplayError, Resume, Subscription};

/// See the module.
pub(super) struct Follower {
    topic: String,
    tag: String,
    subscription: Subscription,
    lines: Encoder,
    places: Vec<Resume>,
    block: Option<(Block, usize)>,
    /// Records that are still to be written.
    left: u64,
}

const HAS_NEXT: &str = "a block is dropped behind its last record";

/// What comes next.
pub(super) enum Next {
    /// A record of this time.
    Record(Timestamp),
    Gap(Gap),
    CaughtUp,
}

impl Follower {
    pub fn new(
        topic: String,
        tag: String,
        subscription: Subscription,
        max_records: u64,
    ) -> Follower {
        let lines = Encoder::new(Format::Ndjson, None, &Schema::default());
        Follower {
            topic,
            tag,
            places: subscription.position(),
            subscription,
            lines: lines.expect("the columns that every topic has are known"),
            block: None,
            left: max_records,
        }
    }

    /// Whether the next record is at hand.
    pub fn has_more_at_hand(&self) -> bool {
        self.block.is_some()
    }

    /// Whether as many records were written as are wanted.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// What comes next; a record stays the next one until it is taken. Waits for it. A call that is given up loses nothing.
    pub async fn next(&mut self) -> Result<Next, ReplayError> {
        if let Some((block, index)) = &self.block {
            let found = block.get(*index).expect(HAS_NEXT);
            return Ok(Next::Record(found.record.timestamp));
        }
        match self.subscription.next().await? {
            Event::Records(block) => {
                let first = block.get(0).expect("a block has a record");
                let time = first.record.timestamp;
                self.block = Some((block, 0));
                // What lies among these records is told before them: the reader may come again behind any of them.
                match self.subscription.gap_of_records() {
                    Some(gap) => Ok(Next::Gap(gap)),
                    None => Ok(Next::Record(time)),
                }
            }
            Event::Gap(gap) => {
                self.places = self.subscription.position();
                Ok(Next::Gap(gap))
            }
            Event::CaughtUp => Ok(Next::CaughtUp),
        }
    }

    /// The next record at hand as a line of JSON with its line break, and goes on behind it.
    pub fn take_line(&mut self) -> Option<bytes::Bytes> {
        let (block, index) = self.block.as_ref()?;
        let found = block.get(*index).expect(HAS_NEXT);
        let (partition, record) = (found.partition, found.record);
        let topic = &self.topic;
        let row = Row {
            topic,
            partition,
            record,
        };
        self.lines.push(&row).expect("any record is a line");
        let offset = record.offset.plus(1);
        let is_last = *index + 1 == block.len();
        self.passed(partition, offset);
        match &mut self.block {
            Some((_, index)) if !is_last => *index += 1,
            block => *block = None,
        }
        self.left -= 1;
        Some(self.lines.take())
    }

    /// Goes on behind what was searched in vain. For when nothing is at hand: nothing came, or the end of what is there.
    pub fn pass_what_was_searched(&mut self) {
        if self.block.is_none() {
            self.places = self.subscription.position();
        }
    }

    fn passed(&mut self, partition: PartitionId, offset: Offset) {
        let at = self.places.iter().position(|at| at.partition == partition);
        let at = at.unwrap_or_else(|| {
            self.places.push(Resume {
                partition,
                offset,
                since: None,
            });
            self.places.len() - 1
        });
        let place = &mut self.places[at];
        place.offset = offset;
        place.since = place.since.filter(|(until, _)| *until > offset);
    }

    /// Where it is: behind the last record that was taken.
    pub fn position(&self) -> String {
        let mut text = String::new();
        put(&mut text, &self.tag, &self.places);
        text
    }

    /// What is told of a gap, as JSON.
    pub fn gap_text(&self, gap: &Gap) -> String {
        let told = serde_json::json!({
            "topic": self.topic, "partition": gap.partition.get(), "from": gap.offsets.start.get(),
            "to": gap.offsets.end.get(), "missing": gap.missing, "reason": gap.reason.name(),
        });
        told.to_string()
    }

    /// What is told where the topic was created again.
    pub fn recreated_text(&self) -> String {
        serde_json::json!({ "topic": self.topic, "reason": "recreated" }).to_string()
    }
}
