//! Publish: the door in for single messages, from any number of connections, whatever their protocol.
//!
//! Callers: fronts whose protocols know messages and no batches. A message goes to the partition that is asked for, or that its
//! key decides as Kafka's clients do, or that the topic's keyless messages go to now. There it joins the open batch, which is
//! appended when the one before it is durable, or when it is full: one batch for a partition and a sync, however many publish.
//! Invariants: what is published is durable when [`Publishing::durable`] says so, once and whole; messages of one publisher to one
//! partition keep their order; a message that its topic does not take is refused by itself. What waits is bounded, and
//! reaching the bound makes publishers wait. A dropped wait takes nothing back.

mod across;
mod batch;
mod beside;
mod driver;
mod keyless;
mod lanes;
mod message;
mod outcome;
mod place;
mod refusal;
#[cfg(test)]
mod tests;
mod together;

use std::sync::Arc;

use model::PartitionId;

use super::Broker;
use super::access::{Granted, right};
use super::catalog::Topic;
pub use across::OfTopic;
pub(in crate::broker) use across::promised;
pub(in crate::broker) use beside::{Gathering, Ready};
pub(super) use keyless::Keyless;
use lanes::Checked;
pub(super) use lanes::Lanes;
use message::Rules;
pub use message::{Message, Outgoing};
pub use outcome::Publishing;
use place::{partition_of, publishable};
pub use refusal::PublishRefusal;
pub use together::{DoneOnce, Placed, Together};

/// What each message of a call became: its place, or why it is refused.
pub type Published = Vec<Result<Publishing, PublishRefusal>>;

impl Broker {
    /// Publishes one message. Waits only while too much waits for the disk.
    pub async fn publish(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        partition: Option<PartitionId>,
        message: Message<'_>,
    ) -> Result<Publishing, PublishRefusal> {
        let outgoing = Outgoing { partition, message };
        let mut published = self.publish_all(topic, &[outgoing]).await?;
        published.pop().expect("one answer for one message")
    }

    /// Publishes messages in order, each for itself: one that is refused does not hold back the others. Errors: what concerns
    /// all of them; nothing is published then. Waits only while too much waits for the disk; a caller with much to publish
    /// brings it in pieces.
    pub async fn publish_all(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        outgoing: &[Outgoing<'_>],
    ) -> Result<Published, PublishRefusal> {
        let topic = publishable(self, topic)?;
        let now = self.now();
        let rules = Rules::of(&topic.config, now, self.storage().batch_bytes_max());
        let mut published = Published::with_capacity(outgoing.len());
        // By partition, each part in the order in which it came.
        let mut order: Vec<(PartitionId, u32)> = Vec::with_capacity(outgoing.len());
        let mut bytes_all = 0usize;
        for (index, outgoing) in (0u32..).zip(outgoing) {
            let partition = partition_of(&topic, outgoing);
            let checked = partition.and_then(|partition| {
                let bytes = rules.check(&outgoing.message, now)?;
                Ok((partition, bytes))
            });
            match checked {
                Ok((partition, bytes)) => {
                    bytes_all = bytes_all.saturating_add(bytes);
                    order.push((partition, index));
                    // Until it has its place.
                    published.push(Err(PublishRefusal::Abandoned));
                }
                Err(refusal) => published.push(Err(refusal)),
            }
        }
        if order.is_empty() {
            return Ok(published);
        }
        order.sort_unstable();
        let mut permit = self.shared.lanes.admit(bytes_all).await;
        for group in order.chunk_by(|one, next| one.0 == next.0) {
            let messages = group.iter().map(|(_, index)| {
                let outgoing = &outgoing[*index as usize];
                Checked::new(outgoing)
            });
            let mut indices = group.iter().map(|(_, index)| *index as usize);
            let taken = |result| {
                let index = indices.next().expect("one answer for each");
                published[index] = result;
            };
            let at = (&topic, group[0].0);
            let lane = self
                .shared
                .lanes
                .push(at, messages, &mut permit, now, taken);
            if let Some(lane) = lane {
                // Its end is the store's: every append is decided, at the latest when the store stops.
                tokio::spawn(driver::drive(self.clone(), lane));
            }
        }
        Ok(published)
    }
}
