//! Reading on from any offset of one partition, block by block.
//! Callers: `share`, whose consumers do not read in order.

use std::ops::Range;

use model::{Offset, PartitionId};
use storage::Log;

use super::block::Block;
use super::reader::{Found, Reader, Sizes};
use super::request::{Filter, ReplayError};
use crate::broker::Broker;
use crate::broker::open_readers::ReaderName;

/// See the module.
pub(in crate::broker) struct Reading(Reader);

impl Reading {
    /// Reads from an offset on. Nothing is read before it is asked for. Who is overtaken by a removal is in the loss ledger.
    pub(in crate::broker) fn new(
        broker: &Broker,
        who: &ReaderName,
        (partition, log): (PartitionId, &Log),
        from: Offset,
    ) -> Reading {
        let offsets = from..Offset::MAX;
        let mut reader = Reader::new(partition, log, offsets, Filter::default(), Sizes::FOLLOWER);
        reader.open_as(broker, who, log.id());
        Reading(reader)
    }

    /// Reads a range for the broker itself: nobody in the loss ledger. Nothing is read before it is asked for.
    pub(in crate::broker) fn within(
        (partition, log): (PartitionId, &Log),
        offsets: Range<Offset>,
    ) -> Reading {
        Reading(Reader::new(
            partition,
            log,
            offsets,
            Filter::default(),
            Sizes::FOLLOWER,
        ))
    }

    /// The first offset that it has not passed.
    pub(in crate::broker) fn next_offset(&self) -> Offset {
        self.0.next_offset()
    }

    /// The next records. None of them: it has passed offsets without records, or, if it has passed none, is at the end of the log.
    pub(in crate::broker) async fn read(&mut self, broker: &Broker) -> Result<Block, ReplayError> {
        Ok(match self.0.step(broker).await?.found {
            Found::Records(block) => block,
            Found::Gap(_) | Found::Nothing | Found::End => Block::default(),
        })
    }
}
