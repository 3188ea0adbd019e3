//! What receivers are sent: records from a place in the log on, which nothing remembers when they are gone.
//! Callers: `connection`. Invariants: nothing is queued for a receiver: it has a cursor in the log, and without credit nothing is read
//! for it. A drain is answered when what is there was sent (part 2, 2.6.7). A message that is longer than the receiver takes is
//! passed over and counted, and holds up nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use amqp::endpoint::{Endpoint, LinkId};
use futures_util::future::select_all;
use model::PartitionId;

use super::bounds::{CURSORS_MAX, UNSENT_BYTES_MAX};
use super::errors::NoLink;
use super::route::Record;
use super::state::Front;
use crate::broker::Topic;
use crate::broker::access::{Door, Granted, right};
use crate::broker::replay::{Block, Event, Filter, FollowRequest, Order, Place, Subscription};

/// The cursors of a connection.
pub(super) struct Cursors {
    front: Arc<Front>,
    all: Vec<Cursor>,
}

struct Cursor {
    link: LinkId,
    subscription: Subscription,
    topic: Granted<Arc<Topic>, right::Read>,
    block: Option<(Block, usize)>,
    /// Whether all that was there was given.
    is_caught_up: bool,
    /// Whether its receiver has credit and nothing to be sent.
    wants_more: bool,
    /// Whether deliveries are sent settled.
    sends_settled: bool,
    /// Whether RabbitMQ's annotations are wanted.
    is_rabbit: bool,
}

impl Cursor {
    fn take(&mut self, front: &Front, event: Event) {
        match event {
            Event::Records(block) => {
                self.is_caught_up = false;
                self.block = Some((block, 0));
            }
            Event::Gap(gap) => {
                front.stats.skipped.fetch_add(gap.missing, Relaxed);
            }
            Event::CaughtUp => self.is_caught_up = true,
        }
    }

    /// Sends what was read, as far as there is room; gives how many bytes.
    fn send(
        &mut self,
        front: &Front,
        door: &Door,
        endpoint: &mut Endpoint,
    ) -> Result<usize, NoLink> {
        if !endpoint.can_send(self.link) {
            return Ok(0);
        }
        let Some((block, mut index)) = self.block.take() else {
            return Ok(0);
        };
        // The right may have been taken since.
        self.topic = door.renew(&self.topic)?;
        let mut bytes = 0;
        while endpoint.can_send(self.link) && endpoint.output().len() < UNSENT_BYTES_MAX {
            let Some(record) = block.get(index) else {
                return Ok(bytes);
            };
            index += 1;
            let message = Record::of(&record).message(self.is_rabbit);
            if !endpoint.takes(self.link, message.len()) {
                front.stats.skipped.fetch_add(1, Relaxed);
                continue;
            }
            bytes += message.len();
            endpoint.send(self.link, self.sends_settled, message);
            front.stats.delivered.fetch_add(1, Relaxed);
        }
        if index < block.len() {
            self.block = Some((block, index));
        }
        Ok(bytes)
    }
}

impl Cursors {
    pub(super) fn new(front: &Arc<Front>) -> Cursors {
        Cursors {
            front: Arc::clone(front),
            all: Vec::new(),
        }
    }

    /// Opens a cursor in a topic, or a partition of it, from a place on.
    pub(super) fn open(
        &mut self,
        door: &Door,
        link: LinkId,
        (topic, partition, from): (Granted<Arc<Topic>, right::Read>, Option<u32>, Place),
        is_rabbit: bool,
        sends_settled: bool,
    ) -> Result<(), NoLink> {
        if self.all.len() >= CURSORS_MAX {
            return Err(NoLink::TooMany);
        }
        let count = topic.partition_count();
        if matches!(from, Place::Offset(_)) && partition.is_none() && count != 1 {
            return Err(NoLink::Offset(count));
        }
        let request = FollowRequest {
            partitions: partition.map(|it| vec![PartitionId::new(it)]),
            from,
            resume: None,
            filter: Filter::default(),
            order: Order::Offset,
        };
        let mut subscription = self.front.broker.follow(&topic, request)?;
        subscription.open_as(door.caller());
        self.all.push(Cursor {
            link,
            subscription,
            topic,
            block: None,
            is_caught_up: false,
            wants_more: false,
            sends_settled,
            is_rabbit,
        });
        self.front.stats.cursors.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Links are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool) {
        let before = self.all.len();
        self.all.retain(|it| !is_gone(it.link));
        let gone = (before - self.all.len()) as u64;
        self.front.stats.cursors.fetch_sub(gone, Relaxed);
    }

    /// Whether the log is to be asked for more.
    pub(super) fn wants_more(&mut self, endpoint: &Endpoint) -> bool {
        for cursor in &mut self.all {
            cursor.wants_more = cursor.block.is_none() && endpoint.credit(cursor.link) > 0;
        }
        self.all.iter().any(|it| it.wants_more)
    }

    /// Reads on in the log, and waits for something there. What is given up loses nothing. An error ends its link.
    pub(super) async fn read(&mut self) -> Result<(), (LinkId, NoLink)> {
        let wanting = self.all.iter_mut().filter(|it| it.wants_more);
        let next: Vec<_> = wanting
            .map(|cursor| Box::pin(async move { (cursor.subscription.next().await, cursor) }))
            .collect();
        if next.is_empty() {
            return Ok(());
        }
        let ((event, cursor), ..) = select_all(next).await;
        let link = cursor.link;
        let event = event.map_err(|error| (link, error.into()))?;
        cursor.take(&self.front, event);
        Ok(())
    }

    /// Sends what was read, as far as there is room, and answers drains. Gives how many bytes were sent, and a link that ends.
    pub(super) fn fill(
        &mut self,
        door: &Door,
        endpoint: &mut Endpoint,
    ) -> (usize, Option<(LinkId, NoLink)>) {
        let mut bytes = 0;
        let mut ended = None;
        for cursor in &mut self.all {
            match cursor.send(&self.front, door, endpoint) {
                Ok(sent) => bytes += sent,
                Err(why) => ended = Some((cursor.link, why)),
            }
            if !endpoint.drains(cursor.link) {
                continue;
            }
            // What came since it was caught up is there, too, be it in memory or not.
            if cursor.is_caught_up && cursor.block.is_none() {
                cursor.is_caught_up = !cursor.subscription.may_have_more();
            }
            let is_done = cursor.is_caught_up && cursor.block.is_none();
            if is_done || endpoint.credit(cursor.link) == 0 {
                endpoint.drained(cursor.link);
            }
        }
        (bytes, ended)
    }
}

impl Drop for Cursors {
    fn drop(&mut self) {
        let count = self.all.len() as u64;
        self.front.stats.cursors.fetch_sub(count, Relaxed);
    }
}
