//! Topics that come into being when somebody writes to them, or takes messages of them as of a queue.
//! Callers: fronts whose protocols name a node where Kafka's clients would ask for metadata first.

use std::sync::Arc;

use crate::broker::access::{Door, Granted, RightOn, right};
use crate::broker::quotas::Mutation;
use crate::broker::{Refusal, Topic};

/// A topic that may be written to.
pub(in crate::front) type Writable = Granted<Arc<Topic>, right::Write>;

/// The topic with a right to it; made, where the broker makes topics that are used and the caller may.
pub(in crate::front) async fn made<R: RightOn<Arc<Topic>> + Copy>(
    door: &Door,
    name: &str,
    right: R,
) -> Result<Granted<Arc<Topic>, R>, Refusal> {
    match door.topic(name, right) {
        Err(Refusal::UnknownTopicOrPartition) if door.broker().config().auto_create_topics => {
            match door.new_topic(name) {
                Ok(new) => {
                    let partitions = door.broker().config().default_partitions;
                    door.mutate(u64::from(partitions), Mutation::Strict)?;
                    match door.broker().auto_create_topic(new, door.caller()).await {
                        Ok(_) | Err(Refusal::TopicExists { .. }) => {}
                        Err(refusal) => return Err(refusal),
                    }
                }
                // Somebody else was faster.
                Err(Refusal::TopicExists { .. }) => {}
                Err(refusal) => return Err(refusal),
            }
            door.topic(name, right)
        }
        found => found,
    }
}
