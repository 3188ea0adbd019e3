//! The topic that records are brought to.

use std::sync::Arc;

use super::fault::Stop;
use crate::broker::access::{Door, Granted, right};
use crate::broker::quotas::Mutation;
use crate::broker::{Refusal, Topic};

/// A topic that may be written to.
pub(super) type Written = Granted<Arc<Topic>, right::Write>;

/// The topic; made, where the broker makes topics that somebody writes to.
pub(super) async fn writable(door: &Door, name: &str) -> Result<Written, Stop> {
    let refused = |refusal: Refusal| Stop::Refused(refusal.into());
    match door.topic(name, right::Write) {
        Err(Refusal::UnknownTopicOrPartition) if door.broker().config().auto_create_topics => {
            let new = door.new_topic(name).map_err(refused)?;
            let partitions = door.broker().config().default_partitions;
            let charged = door.mutate(u64::from(partitions), Mutation::Strict);
            charged.map_err(refused)?;
            match door.broker().auto_create_topic(new).await {
                // Somebody else was faster.
                Ok(_) | Err(Refusal::TopicExists { .. }) => {}
                Err(refusal) => return Err(refused(refusal)),
            }
            door.topic(name, right::Write).map_err(refused)
        }
        found => found.map_err(refused),
    }
}
