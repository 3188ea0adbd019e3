//! Messages that an earlier connection of a session was sent and has not acknowledged, as they are read again.
//! Callers: `resume`, which begins it and sends what it reads; `outbound`. Invariant: it ends where the logs ended when it began.

use std::collections::VecDeque;

use super::ending::Ending;
use super::naming::Naming;
use super::readable::{Readable, renew_all};
use super::subscriptions::Subscriptions;
use crate::broker::access::Door;
use crate::broker::replay::{self, Block, Event};

/// Messages of an earlier connection that are read again, topic by topic.
pub(super) struct Again {
    /// There is one at least.
    pub(super) topics: VecDeque<OfTopic>,
    /// What was read, of the first topic, and how much of it was sent.
    pub(super) block: Option<(Block, usize)>,
}

/// Those of one Kafka topic.
pub(super) struct OfTopic {
    /// What the session subscribes to of it. What it does not is looked at message by message.
    pub(super) subscriptions: Subscriptions,
    pub(super) subscription: replay::Subscription,
    pub(super) topic: Readable,
    pub(super) naming: Naming,
}

impl Again {
    /// Whether all that was read is sent.
    pub(super) fn is_empty(&self) -> bool {
        self.block.is_none()
    }

    /// Reads on; true at the end. What is given up loses nothing.
    pub(super) async fn read(&mut self, door: &Door) -> Result<bool, Ending> {
        let Some(first) = self.topics.front_mut() else {
            return Ok(true);
        };
        let event = first.subscription.next().await.map_err(|error| {
            tracing::debug!(%error, "what a session was sent cannot be read");
            Ending::Unreadable
        })?;
        match event {
            Event::Records(block) => {
                // The right may have been taken since.
                let renewed = renew_all(door, &first.topic, &first.subscriptions);
                renewed.map_err(|_| Ending::Denied)?;
                self.block = Some((block, 0));
                Ok(false)
            }
            // What is not there any more, nobody waits for.
            Event::Gap(_) => Ok(false),
            Event::CaughtUp => {
                self.topics.pop_front();
                Ok(self.topics.is_empty())
            }
        }
    }
}
