//! Messages that an earlier connection of a session was sent and has not acknowledged, as they are read again.
//! Callers: `resume`, which begins it and sends what it reads; `outbound`. Invariant: it ends where the log ended when it began.

use std::sync::Arc;

use super::ending::Ending;
use super::subscriptions::Subscriptions;
use crate::broker::Topic;
use crate::broker::access::{Door, Granted, right};
use crate::broker::replay::{self, Block, Event};

/// Messages of an earlier connection that are read again.
pub(super) struct Again {
    /// What the session subscribes to.
    pub(super) subscriptions: Subscriptions,
    pub(super) subscription: replay::Subscription,
    pub(super) topic: Granted<Arc<Topic>, right::Read>,
    /// What was read, and how much of it was sent.
    pub(super) block: Option<(Block, usize)>,
}

impl Again {
    /// Whether all that was read is sent.
    pub(super) fn is_empty(&self) -> bool {
        self.block.is_none()
    }

    /// Reads on; true at the end. What is given up loses nothing.
    pub(super) async fn read(&mut self, door: &Door) -> Result<bool, Ending> {
        let event = self.subscription.next().await.map_err(|error| {
            tracing::debug!(%error, "what a session was sent cannot be read");
            Ending::Unreadable
        })?;
        match event {
            Event::Records(block) => {
                // The right may have been taken since.
                let renewed = door.renew(&self.topic);
                self.topic = renewed.map_err(|_| Ending::Denied)?;
                self.block = Some((block, 0));
                Ok(false)
            }
            // What is not there any more, nobody waits for.
            Event::Gap(_) => Ok(false),
            Event::CaughtUp => Ok(true),
        }
    }
}
