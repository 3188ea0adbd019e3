//! A client's part in a shared subscription: what it is given, and what it says of it.
//! Callers: `shared_out`, which sends what it is given. Two tasks stand behind it: one takes messages, in turn with the other members, as many as
//! its client has room for; the other tells the group what became of them.
//! Invariants: nothing is taken that was not asked for. What is not finished when it ends goes back to the group, behind what its client
//! said before.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::select_all;
use model::{Offset, TopicId};
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use super::ending::Ending;
use super::errors::NotSubscribed;
use super::readable::{Readable, renew};
use super::session::options_of;
use super::sharing::Part;
use super::state::Front;
use super::subscriptions::Subscribed;
use super::topic::TopicFilter;
use crate::broker::access::{Door, right};
use crate::broker::place::Place;
use crate::broker::sessions::{KeptSubscription, Positions, SHARED};
use crate::broker::share::{
    Choice, Given, Place as Partition, ShareConsumer, ShareError, ShareReadError, ShareReader,
    Verdict,
};

/// The filter stands in each record of its group, whose ids have so many bytes at most.
const FILTER_BYTES_MAX: usize = 1_024;
/// Messages that are taken in one turn, while there are more than members take.
const TAKEN_MAX: usize = 64;
/// Words of its client that are told the group at once.
const SETTLED_MAX: usize = 1_024;

type Taken = Result<Given, ShareReadError>;

/// The filter of topics behind the name of a shared subscription (§4.8.2); None if it is none that is offered.
pub(super) fn parse(filter: &str) -> Option<TopicFilter> {
    let (name, topics) = filter.strip_prefix(SHARED)?.split_once('/')?;
    let is_name = !name.is_empty() && !name.contains(['+', '#']);
    let is_offered = is_name && filter.len() <= FILTER_BYTES_MAX;
    TopicFilter::readable(topics).filter(|_| is_offered)
}

/// See the module.
pub(super) struct Shared {
    /// It is the client's only one with this number.
    pub(super) number: u64,
    /// As it was written.
    pub(super) filter: Arc<str>,
    /// What its client asked for; the filter is that of topics.
    pub(super) asked: Subscribed,
    /// For what is said of messages.
    pub(super) said: ShareConsumer,
    /// What was taken, and how much of it was sent.
    pub(super) given: Option<(Given, usize)>,
    topics: Vec<Readable>,
    /// None when it takes nothing more.
    open: Option<Open>,
    verdicts: UnboundedSender<(Place, Verdict)>,
    takes: JoinHandle<()>,
    settles: JoinHandle<()>,
    part: Arc<Part>,
}

struct Open {
    wants: Sender<usize>,
    taken: Receiver<Taken>,
    is_asked: bool,
}

impl Shared {
    /// Joins, or goes on.
    pub(super) async fn join(
        front: &Front,
        door: &Door,
        topics: Vec<Readable>,
        (number, filter, asked): (u64, &str, Subscribed),
        goes_on: bool,
    ) -> Result<Shared, NotSubscribed> {
        let member: Arc<str> = format!("mqtt-{}", uuid::Uuid::new_v4().simple()).into();
        let joined = front
            .sharing
            .join(door, &topics, (filter, goes_on), member)
            .await?;
        let (part, mut readers) = joined;
        let part = Arc::new(part);
        for (reader, topic) in readers.iter_mut().zip(&topics) {
            let wanted = asked.filter.clone();
            let naming = front.settings.routes.naming(&topic.name);
            reader.choose(Choice {
                wants: Arc::new(move |found| naming.names(&found.record).is_matched_by(&wanted)),
                // All members want the same: it is the group's filter.
                finishes_others: true,
            });
            reader.deliver_until_finished();
        }
        // Each is the same member.
        let said = readers.first().map(ShareReader::consumer);
        let said = said.ok_or(NotSubscribed::Filter)?;
        let (wants, asks) = mpsc::channel(1);
        // Besides what was taken, the word that nothing more is.
        let (gives, taken) = mpsc::channel(2);
        let (verdicts, says) = mpsc::unbounded_channel();
        Ok(Shared {
            number,
            filter: filter.into(),
            asked,
            topics,
            given: None,
            open: Some(Open {
                wants,
                taken,
                is_asked: false,
            }),
            verdicts,
            takes: tokio::spawn(take(readers, Arc::clone(&part), asks, gives.clone())),
            settles: tokio::spawn(settle(said.clone(), says, gives)),
            said,
            part,
        })
    }

    /// Whether its client has not ended it.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// As it is kept.
    pub(super) fn kept(&self) -> KeptSubscription {
        let asked = &self.asked;
        KeptSubscription {
            filter: Arc::clone(&self.filter),
            options: options_of(asked.qos, asked.no_local, asked.retain_as_published),
            id: asked.id.unwrap_or(0),
            since: Positions::default(),
            retained: None,
        }
    }

    /// The topic of this id that it reads.
    pub(super) fn topic(&self, id: TopicId) -> Option<&Readable> {
        self.topics.iter().find(|topic| topic.id == id)
    }

    /// Asks for so many messages at most, if nothing is there and nothing was asked for.
    pub(super) fn ask(&mut self, count_max: usize) {
        if let (None, Some(open)) = (&self.given, &mut self.open)
            && !open.is_asked
            && count_max > 0
        {
            open.is_asked = open.wants.try_send(count_max).is_ok();
        }
    }

    /// Whether something is on its way.
    pub(super) fn waits(&self) -> bool {
        self.given.is_none() && self.open.as_ref().is_some_and(|open| open.is_asked)
    }

    /// Gets what was taken.
    pub(super) fn poll(
        &mut self,
        door: &Door,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Ending>> {
        let Some(open) = self.open.as_mut().filter(|open| open.is_asked) else {
            return Poll::Pending;
        };
        let taken = std::task::ready!(open.taken.poll_recv(context));
        open.is_asked = false;
        Poll::Ready(match taken {
            Some(Ok(given)) => {
                self.given = Some((given, 0));
                self.renew(door)
            }
            Some(Err(error)) => Err(ending_of(&error)),
            None => Err(Ending::Unreadable),
        })
    }

    /// The rights may have been taken since.
    fn renew(&mut self, door: &Door) -> Result<(), Ending> {
        for topic in &self.topics {
            renew(door, topic, &self.asked.filter).map_err(|_| Ending::Denied)?;
        }
        let group = door.group(&self.filter, right::Read);
        group.map(drop).map_err(|_| Ending::Denied)
    }

    /// Says what became of a message that it was given.
    pub(super) fn say(&self, place: Place, verdict: Verdict) {
        // Whoever tells it ends behind this.
        let _ = self.verdicts.send((place, verdict));
    }

    /// Takes nothing more. What was taken and not sent goes back.
    pub(super) fn close(&mut self) {
        self.open = None;
        let Some((given, sent)) = self.given.take() else {
            return;
        };
        for index in sent..given.len() {
            if let Some((found, _)) = given.get(index) {
                let place = place_of(given.place, found.record.offset);
                self.say(place, Verdict::Return);
            }
        }
    }

    /// Ends it: what is not finished goes back.
    pub(super) async fn end(mut self) {
        self.close();
        let Shared {
            said,
            verdicts,
            takes,
            settles,
            part,
            ..
        } = self;
        drop(verdicts);
        // Both see that nobody is there any more.
        let _ = tokio::join!(takes, settles);
        if let Err(error) = said.give_back().await {
            tracing::debug!(%error, "what a shared subscription held is held until the next start");
        }
        drop(part);
    }
}

/// Waits for something that one of them is given. What is given up loses nothing.
pub(super) async fn next_given(all: &mut [Shared], door: &Door) -> Result<(), Ending> {
    poll_fn(|context| {
        let mut given = all.iter_mut().filter(|it| it.waits());
        let ready = given.find_map(|it| match it.poll(door, context) {
            Poll::Ready(given) => Some(given),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Where a record is.
pub(super) fn place_of(of: Partition, offset: Offset) -> Place {
    Place {
        topic: of.topic,
        partition: of.partition,
        offset,
    }
}

fn ending_of(error: &ShareReadError) -> Ending {
    match error {
        ShareReadError::Group(ShareError::NotAvailable) => Ending::StoreFailed,
        ShareReadError::Group(_) | ShareReadError::Read(_) => Ending::Unreadable,
    }
}

/// Takes what is asked for, in turn with the others: one message while they are as fast as what comes, and more and more of them
/// while they are not.
async fn take(
    mut readers: Vec<ShareReader>,
    part: Arc<Part>,
    mut asks: Receiver<usize>,
    gives: Sender<Taken>,
) {
    let mut at_once = 1;
    while let Some(room) = asks.recv().await {
        let turn = tokio::select! {
            turn = part.turn() => turn,
            () = gives.closed() => return,
        };
        let taken = loop {
            match take_of_any(&mut readers, room.min(at_once)).await {
                Ok(Some(given)) => {
                    at_once = (2 * at_once).min(TAKEN_MAX);
                    break Ok(given);
                }
                Ok(None) => at_once = 1,
                Err(error) => break Err(error),
            }
            let wait = select_all(readers.iter_mut().map(|reader| Box::pin(reader.wait())));
            tokio::select! {
                (waited, ..) = wait => if let Err(error) = waited {
                    break Err(error);
                },
                () = gives.closed() => return,
            }
        };
        drop(turn);
        let is_end = taken.is_err();
        if gives.send(taken).await.is_err() || is_end {
            return;
        }
    }
}

/// Takes of the first topic that has something. Each has its turn.
async fn take_of_any(
    readers: &mut [ShareReader],
    count_max: usize,
) -> Result<Option<Given>, ShareReadError> {
    for at in 0..readers.len() {
        if let Some(given) = readers[at].take(count_max).await? {
            readers.rotate_left(at + 1);
            return Ok(Some(given));
        }
    }
    Ok(None)
}

/// Tells the group what its client says, until nothing more is said.
async fn settle(
    said: ShareConsumer,
    mut says: UnboundedReceiver<(Place, Verdict)>,
    gives: Sender<Taken>,
) {
    let mut all = Vec::new();
    while says.recv_many(&mut all, SETTLED_MAX).await > 0 {
        let settled = settle_all(&said, all.drain(..)).await;
        if let Err(error) = settled {
            // Its client is told, and what it said is not: the messages come again.
            let _ = gives.try_send(Err(error.into()));
            return;
        }
    }
}

/// A message that is to be finished for the others before it leaves.
#[derive(Clone)]
pub(super) struct Finishing {
    pub(super) number: u64,
    pub(super) said: ShareConsumer,
    pub(super) place: Place,
    pub(super) packet_id: u16,
}

/// Finishes messages. Durable when it returns.
pub(super) async fn finish(all: Vec<Finishing>) -> Result<(), Ending> {
    for of_one in all.chunk_by(|one, other| one.number == other.number) {
        let places = of_one.iter().map(|it| (it.place, Verdict::Accept));
        let settled = settle_all(&of_one[0].said, places).await;
        settled.map_err(|error| match error {
            ShareError::NotAvailable => Ending::StoreFailed,
            _ => Ending::Unreadable,
        })?;
    }
    Ok(())
}

/// Does what is said of messages, with as few words as it takes. Those that are not held any more, as the log or the group is gone, are
/// nobody's.
async fn settle_all(
    said: &ShareConsumer,
    all: impl Iterator<Item = (Place, Verdict)>,
) -> Result<(), ShareError> {
    let mut by_partition: BTreeMap<Partition, Vec<(Range<Offset>, Verdict)>> = BTreeMap::new();
    for (place, verdict) in all {
        let Place {
            topic,
            partition,
            offset,
        } = place;
        let ranges = by_partition
            .entry(Partition { topic, partition })
            .or_default();
        match ranges.last_mut() {
            Some((range, same)) if range.end == offset && *same == verdict => {
                range.end = offset.plus(1);
            }
            _ => ranges.push((offset..offset.plus(1), verdict)),
        }
    }
    for (partition, ranges) in by_partition {
        match said.settle(partition, &ranges).await {
            Ok(()) | Err(ShareError::NotFound) => {}
            // All or nothing: then one by one.
            Err(ShareError::NotHeld(_)) => {
                for (range, verdict) in ranges {
                    for offset in range.start.get()..range.end.get() {
                        let offset = Offset::new(offset);
                        let one = [(offset..offset.plus(1), verdict)];
                        match said.settle(partition, &one).await {
                            Ok(()) | Err(ShareError::NotHeld(_) | ShareError::NotFound) => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_filter_has_a_name_and_a_filter_of_topics() {
        for (filter, topics) in [
            ("$share/g/a", Some("a")),
            ("$share/g/a/+/#", Some("a/+/#")),
            ("$share/g//", Some("/")),
            ("$share/g", None),
            ("$share/g/", None),
            ("$share//a", None),
            ("$share/g+/a", None),
            ("$share/#/a", None),
            ("$share/g/a#", None),
            ("$share/g/$replay/-1h/a", None),
            ("$share/g/$kafka/t/#", Some("$kafka/t/#")),
            ("$share/g/$kafka/#", None),
            ("$shared/g/a", None),
        ] {
            let read = parse(filter);
            assert_eq!(read.as_ref().map(TopicFilter::as_str), topics, "{filter}");
        }
        assert!(parse(&format!("$share/g/{}", "a".repeat(1_015))).is_some());
        assert!(parse(&format!("$share/g/{}", "a".repeat(1_016))).is_none());
    }
}
