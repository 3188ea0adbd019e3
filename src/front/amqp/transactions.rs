//! A connection's transactions: what its clients send and settle in them, until they are discharged (part 4).
//! Callers: `producing` for what is sent and for what the coordinator is told, `connection` for what is settled.
//! Invariants: what is sent waits in memory, in bounds, and what is settled stays held, so that nobody else is given it. A commit is one frame
//! of the log, over all topics and queues: all of it or nothing, and it is answered when it is durable. A transaction of which something could
//! not be taken cannot be committed. One whose coordinator's link is gone is rolled back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use amqp::Bytes;
use amqp::endpoint::LinkId;
use tokio::time::Instant;

use super::bounds::{PINS_MAX, TRANSACTION_BYTES_MAX, TRANSACTIONS_MAX};
use super::errors::{NoCommit, NotStored, of_full, of_no_commit};
use super::outgoing::{Headers, Part};
use super::pinned::{Pinned, Pins};
use super::state::Front;
use super::stats::Became;
use crate::broker::access::Door;
use crate::broker::publish::{OfTopic, Publishing};

/// A transaction that something was done in ends so much later, or is rolled back.
const TRANSACTION_MAX: Duration = Duration::from_secs(3_600);

/// The transactions of a connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Transactions(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    open: BTreeMap<Bytes, Transaction>,
    /// How many there were.
    count: u64,
    /// What is held of all of them.
    bytes: usize,
}

/// One that is open.
pub(super) struct Transaction {
    coordinator: LinkId,
    parts: Vec<Part>,
    bytes: usize,
    pins: Pins,
    /// Why it cannot be committed.
    doomed: Option<NoCommit>,
    /// When something was first done in it.
    began_at: Option<Instant>,
}

/// What became of a discharge.
pub(super) struct Ended {
    pub(super) became: Result<Option<Publishing>, NotStored>,
    /// What was settled in it and is the consumer's again, or what it is to be told.
    pub(super) pins: Pinned,
}

impl Transactions {
    pub(super) fn new() -> Transactions {
        Transactions(Arc::default())
    }

    fn locked(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("nothing panics while it is changed")
    }

    /// What is held in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.locked().bytes
    }

    /// When the first of them has taken too long.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        let table = self.locked();
        let open = table.open.values().filter(|it| it.doomed.is_none());
        open.filter_map(|it| it.began_at)
            .min()
            .map(|at| at + TRANSACTION_MAX)
    }

    /// Begins one. None: there are as many as there may be.
    pub(super) fn declare(&self, coordinator: LinkId) -> Option<Bytes> {
        let mut table = self.locked();
        if table.open.len() >= TRANSACTIONS_MAX {
            return None;
        }
        table.count += 1;
        let id = Bytes::copy_from_slice(&table.count.to_be_bytes());
        let transaction = Transaction {
            coordinator,
            parts: Vec::new(),
            bytes: 0,
            pins: Pins::default(),
            doomed: None,
            began_at: None,
        };
        table.open.insert(id.clone(), transaction);
        Some(id)
    }

    /// Whether there is such a one.
    pub(super) fn has(&self, id: &[u8]) -> bool {
        self.locked().open.contains_key(id)
    }

    /// Takes messages of a delivery into one; or it cannot be committed any more, as they could not be taken. Errors: why they are not.
    pub(super) fn add(
        &self,
        id: &[u8],
        parts: Result<Vec<Part>, NotStored>,
    ) -> Result<(), NotStored> {
        let mut guard = self.locked();
        let table = &mut *guard;
        let Some(transaction) = table.open.get_mut(id) else {
            return Err(of_no_commit(&NoCommit::Unknown));
        };
        transaction.began_at.get_or_insert_with(Instant::now);
        let parts = match parts {
            Ok(parts) if transaction.doomed.is_none() => parts,
            // What is not going to be committed need not be kept.
            Ok(_) => return Ok(()),
            Err(why) => {
                table.bytes -= transaction.doom(NoCommit::NotTaken);
                return Err(why);
            }
        };
        let bytes: usize = parts.iter().map(bytes_of).sum();
        if table.bytes + bytes > TRANSACTION_BYTES_MAX {
            table.bytes -= transaction.doom(NoCommit::TooMuch);
            return Err(of_full());
        }
        transaction.parts.extend(parts);
        transaction.bytes += bytes;
        table.bytes += bytes;
        Ok(())
    }

    /// Takes what was settled into one. What there is no such one for is given back.
    pub(super) fn pin(&self, id: &[u8], pins: Pinned) -> Pinned {
        let mut guard = self.locked();
        let table = &mut *guard;
        let Some(transaction) = table.open.get_mut(id) else {
            return pins;
        };
        transaction.began_at.get_or_insert_with(Instant::now);
        transaction.pins.add(pins);
        if transaction.pins.len() > PINS_MAX {
            table.bytes -= transaction.doom(NoCommit::TooMuch);
        }
        Pinned::default()
    }

    /// Ends one for whoever is to discharge it.
    pub(super) fn take(&self, id: &[u8]) -> Option<Transaction> {
        let mut table = self.locked();
        let transaction = table.open.remove(id)?;
        table.bytes -= transaction.bytes;
        Some(transaction)
    }

    /// Rolls back those whose coordinators are gone. Gives what is their consumers' again.
    pub(super) fn forget(&self, is_gone: impl Fn(LinkId) -> bool) -> Pinned {
        let mut guard = self.locked();
        let table = &mut *guard;
        let gone = table.open.extract_if(.., |_, it| is_gone(it.coordinator));
        let gone: Vec<Transaction> = gone.map(|(_, it)| it).collect();
        table.bytes -= gone.iter().map(|it| it.bytes).sum::<usize>();
        let mut pins = Pinned::default();
        gone.into_iter().for_each(|it| pins.add(it.roll_back()));
        pins
    }

    /// Gives up those that have taken too long. Gives what is their consumers' again.
    pub(super) fn look_at_time(&self, now: Instant) -> Pinned {
        let mut guard = self.locked();
        let table = &mut *guard;
        let mut pins = Pinned::default();
        let is_late = |it: &&mut Transaction| {
            let began = it.began_at.filter(|_| it.doomed.is_none());
            began.is_some_and(|at| now >= at + TRANSACTION_MAX)
        };
        let mut freed = 0;
        for transaction in table.open.values_mut().filter(is_late) {
            freed += transaction.doom(NoCommit::Timeout);
            pins.add(std::mem::take(&mut transaction.pins).roll_back());
        }
        table.bytes -= freed;
        pins
    }
}

fn bytes_of(part: &Part) -> usize {
    let stored = &part.stored;
    let headers = stored
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len());
    let key = stored.key.as_ref().map_or(0, Bytes::len);
    let value = stored.value.as_ref().map_or(0, Bytes::len);
    // Each costs more than its bytes.
    size_of::<Part>() + key + value + headers.sum::<usize>()
}

impl Transaction {
    /// It cannot be committed. Gives how many bytes are held no more.
    fn doom(&mut self, why: NoCommit) -> usize {
        self.doomed.get_or_insert(why);
        self.parts = Vec::new();
        std::mem::take(&mut self.bytes)
    }

    /// Nothing of it is done. Gives what is its consumers' again; the rest others may have.
    pub(super) fn roll_back(self) -> Pinned {
        self.pins.roll_back()
    }

    /// Does all of it, or nothing. It is done also if nobody waits any more.
    pub(super) async fn commit(self, front: Arc<Front>, door: Arc<Door>, seed: u32) -> Ended {
        if let Some(why) = &self.doomed {
            let became = Err(of_no_commit(why));
            let pins = self.roll_back();
            return Ended { became, pins };
        }
        let done = tokio::spawn(async move {
            let Transaction { parts, pins, .. } = self;
            match published(&front, &door, seed, &parts, &pins).await {
                Ok(publishing) => {
                    parts
                        .iter()
                        .for_each(|_| front.stats.became(Became::Accepted));
                    Ended {
                        became: Ok(publishing),
                        pins: pins.committed(),
                    }
                }
                Err(why) => Ended {
                    became: Err(why),
                    pins: pins.roll_back(),
                },
            }
        });
        done.await.unwrap_or_else(|_| Ended {
            became: Err(NotStored::Unknown),
            pins: Pinned::default(),
        })
    }
}

async fn published(
    front: &Front,
    door: &Door,
    seed: u32,
    parts: &[Part],
    pins: &Pins,
) -> Result<Option<Publishing>, NotStored> {
    if parts.is_empty() && pins.len() == 0 {
        return Ok(None);
    }
    let mut by_topic: BTreeMap<_, Vec<&Part>> = BTreeMap::new();
    for part in parts {
        by_topic.entry(part.to.topic.id).or_default().push(part);
    }
    let by_topic: Vec<Vec<&Part>> = by_topic.into_values().collect();
    let headers = by_topic
        .iter()
        .map(|parts| Headers::of(parts.iter().copied()));
    let headers: Vec<Headers<'_>> = headers.collect();
    let mut outgoing: Vec<OfTopic<'_>> = Vec::with_capacity(by_topic.len());
    for (parts, headers) in by_topic.iter().zip(&headers) {
        // The right may have been taken since.
        let topic = door.renew(&parts[0].to.topic);
        let topic = topic.map_err(|why| of_no_commit(&NoCommit::Failed(why.to_string())))?;
        let messages = headers.outgoing(parts.iter().copied(), seed, topic.partition_count());
        outgoing.push((topic, messages));
    }
    let settlements = pins.settlements();
    let done = front.broker.publish_and_settle(&outgoing, &settlements);
    let done = done.await;
    done.map(Some)
        .map_err(|why| of_no_commit(&NoCommit::Failed(why.to_string())))
}

#[cfg(test)]
mod tests {
    use amqp::BytesMut;
    use amqp::endpoint::{Endpoint, Event, Settings};
    use amqp::frame::{self, FrameKind, Protocol};

    use super::*;

    /// The link of a client to the coordinator.
    fn coordinator() -> LinkId {
        let settings = Settings {
            container_id: "s".to_owned(),
            frame_bytes_max: 4_096,
            channel_max: 0,
            handle_max: 0,
            links_max: 1,
            silence_max: Duration::from_secs(60),
            window: 10,
            message_bytes_max: 1_000,
            partial_bytes_max: 1_000,
            unsettled_max: 10,
            first_id: 0,
            mechanisms: Vec::new(),
            allows_bare: true,
        };
        let now = std::time::Instant::now();
        let mut endpoint = Endpoint::new(settings, now);
        let mut input = BytesMut::from(&Protocol::Amqp.bytes()[..]);
        // open, begin, and attach as a sender to a coordinator.
        let open = &b"\x00\x53\x10\xc0\x04\x01\xa1\x01c"[..];
        let begin = b"\x00\x53\x11\xc0\x07\x04\x40\x43\x52\x09\x52\x09";
        let attach =
            b"\x00\x53\x12\xc0\x10\x0a\xa1\x01t\x43\x42\x40\x40\x40\x00\x53\x30\x45\x40\x40\x43";
        for performative in [open, begin, attach] {
            frame::put(&mut input, FrameKind::Amqp, 0, |out| {
                out.extend_from_slice(performative);
            });
        }
        loop {
            let frame = endpoint.cut(&mut input, now).expect("a frame");
            match endpoint.receive(&frame) {
                Some(Event::Open(_)) => endpoint.accept_open(&[], None),
                Some(Event::Attach { link, .. }) => return link,
                None => {}
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    /// Docs promise an hour, from the first thing that is done in it on, and what a client is told behind that.
    #[test]
    fn a_transaction_that_is_open_for_an_hour_cannot_be_committed() {
        const MOMENT: Duration = Duration::from_millis(1);
        let transactions = Transactions::new();
        let link = coordinator();
        let [idle, late, young] =
            [(); 3].map(|()| transactions.declare(link).expect("there is room"));
        let began = |id: &Bytes| transactions.locked().open[id].began_at;
        let doomed = |id: &Bytes| transactions.locked().open[id].doomed.clone();
        assert_eq!(transactions.ends_at(), None, "nothing was done in any");
        assert_eq!(transactions.add(&late, Ok(Vec::new())), Ok(()));
        let first = began(&late).expect("something was done in it");
        // What is done later does not make it longer.
        drop(transactions.pin(&late, Pinned::default()));
        assert_eq!(began(&late), Some(first));
        let end = first + TRANSACTION_MAX;
        assert_eq!(end - first, Duration::from_secs(60 * 60));
        assert_eq!(transactions.ends_at(), Some(end));
        transactions.look_at_time(end - MOMENT);
        assert_eq!(doomed(&late), None);
        transactions
            .locked()
            .open
            .get_mut(&young)
            .expect("it is there")
            .began_at = Some(first + MOMENT);
        transactions.look_at_time(end);
        assert_eq!(doomed(&late), Some(NoCommit::Timeout));
        assert_eq!((doomed(&idle), doomed(&young)), (None, None));
        assert_eq!(transactions.ends_at(), Some(end + MOMENT), "the next one");
        // It is there until it is discharged, and then its client is told why nothing of it was done.
        let taken = transactions.take(&late).expect("it is there");
        let told = of_no_commit(&taken.doomed.expect("it is too late"));
        let NotStored::Rejected(condition, _) = told else {
            panic!("{told:?}");
        };
        assert_eq!(condition.symbol(), "amqp:transaction:timeout");
        assert!(!transactions.has(&late));
    }
}
