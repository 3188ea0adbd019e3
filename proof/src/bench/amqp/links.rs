//! Links that send to a queue, and links that empty it.
//!
//! A message's body begins with its number: its round, its link, and its place among what the link sent. So what comes is judged by
//! sets and not by counts: everything that was acknowledged has to come, and nothing may that was not sent. A broker may deliver again
//! what it was told is done with as the connection ended; from an earlier round, too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amqp::performative::Performative;
use amqp::state::DeliveryState;
use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Client, Message, PATIENCE, beginning};

/// Deliveries that a link has under way at most, either way.
pub const WINDOW: u32 = 1_000;
const MESSAGE_BYTES: usize = 1_024;
/// What happens before this is not counted.
const WARM_UP: Duration = Duration::from_millis(500);

/// What came of sending.
#[derive(Debug, Default)]
pub struct Sent {
    /// Messages that were settled as accepted while it was measured.
    pub counted: u64,
    /// From sending to settling, in microseconds, of those that are counted.
    pub latencies_us: Vec<u64>,
    /// How long was measured.
    pub seconds: f64,
    /// What each link sent in all, all of it settled as accepted.
    pub links: Vec<u64>,
}

impl Sent {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.counted as f64 / self.seconds
    }

    /// Messages in all.
    pub fn messages(&self) -> u64 {
        self.links.iter().sum()
    }
}

/// Which message: its round, its link, and its place among what the link sent.
fn number(round: u64, link: u64, place: u64) -> u64 {
    assert!(round < 1 << 8 && link < 1 << 16 && place < 1 << 40);
    round << 56 | link << 40 | place
}

/// The same, apart.
fn parts(number: u64) -> (u64, u64, u64) {
    let (round, link) = (number >> 56, number >> 40 & 0xffff);
    (round, link, number & ((1 << 40) - 1))
}

/// Sends durable messages to a queue by so many links, each on a connection of its own, until the broker has accepted all of
/// them. Each time that this is done to a queue is another round, from 0 on.
pub async fn send(
    address: &str,
    queue: &str,
    (round, links): (u64, u64),
    time: Duration,
) -> Result<Sent> {
    let mut clients = Vec::new();
    for link in 0..links {
        let mut client = Client::open(address, &format!("sender-{link}")).await?;
        client.sends_to(queue).await?;
        clients.push(client);
    }
    let counts_from = Instant::now() + WARM_UP;
    let mut tasks = JoinSet::new();
    for (link, client) in (0..).zip(clients) {
        let begins = number(round, link, 0);
        let sending = sender(client, begins, counts_from, counts_from + time);
        tasks.spawn(async move { (link, sending.await) });
    }
    let mut all = Sent {
        seconds: time.as_secs_f64(),
        links: vec![0; usize::try_from(links)?],
        ..Sent::default()
    };
    while let Some(done) = tasks.join_next().await {
        let (link, one) = done.context("a sender")?;
        let one = one?;
        all.counted += one.counted;
        all.latencies_us.extend(one.latencies_us);
        all.links[usize::try_from(link)?] = one.sent;
    }
    Ok(all)
}

/// What came of one link's sending.
#[derive(Default)]
struct OfLink {
    counted: u64,
    sent: u64,
    latencies_us: Vec<u64>,
}

/// Sends messages whose numbers begin here.
async fn sender(
    mut client: Client,
    begins: u64,
    counts_from: Instant,
    until: Instant,
) -> Result<OfLink> {
    let message = Message::new(MESSAGE_BYTES);
    // Of each delivery from `first` on: when it was sent, if it is not settled.
    let (mut under_way, mut first) = (VecDeque::<Option<Instant>>::new(), 0_u32);
    let mut done = OfLink::default();
    loop {
        let now = Instant::now();
        while now < until && client.may_send() > 0 && under_way.len() < WINDOW as usize {
            client.send(&message, &(begins + done.sent).to_be_bytes());
            under_way.push_back(Some(now));
            done.sent += 1;
        }
        client.flush().await?;
        if under_way.is_empty() && now >= until {
            client.close().await?;
            return Ok(done);
        }
        // Who has no credit and nothing under way may not hear anything before the end.
        let wake = match under_way.is_empty() {
            true => until,
            false => now + PATIENCE,
        };
        let receive = client.receive(|performative, _| {
            let Performative::Disposition(it) = performative else {
                return Ok(());
            };
            let is_accepted = matches!(it.state, Some(DeliveryState::Accepted));
            ensure!(is_accepted && it.settled, "{it:?}");
            let now = Instant::now();
            for id in it.first..=it.last.unwrap_or(it.first) {
                let place = id.wrapping_sub(first) as usize;
                let sent = under_way.get_mut(place).and_then(Option::take);
                let sent = sent.with_context(|| format!("{id} is not under way"))?;
                if now >= counts_from && now < until {
                    done.counted += 1;
                    let took = now.saturating_duration_since(sent);
                    done.latencies_us.push(u64::try_from(took.as_micros())?);
                }
            }
            while under_way.front().is_some_and(Option::is_none) {
                under_way.pop_front();
                first = first.wrapping_add(1);
            }
            Ok(())
        });
        match tokio::time::timeout_at(wake, receive).await {
            Ok(received) => received?,
            Err(_) => ensure!(
                under_way.is_empty(),
                "{} of {} messages are not settled",
                under_way.len(),
                done.sent
            ),
        }
    }
}

/// What came out of a queue.
#[derive(Debug)]
pub struct Received {
    /// Messages a second, each counted once.
    pub rate: f64,
    /// Deliveries of what had come before, in this round or an earlier one.
    pub again: u64,
}

/// Receives and accepts what the last round sent to a queue, by as many links as sent it, each on a connection of its own. All of it has
/// to come; what comes beside it was sent earlier.
pub async fn empty(address: &str, queue: &str, round: u64, sent: &Sent) -> Result<Received> {
    let mut clients = Vec::new();
    for link in 0..sent.links.len() {
        let mut client = Client::open(address, &format!("receiver-{link}")).await?;
        client.receives_from(queue).await?;
        clients.push(client);
    }
    let arrived = Arc::new(Arrived::new(round, &sent.links));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(receiver(client, Arc::clone(&arrived)));
    }
    let mut seconds = 0.0_f64;
    while let Some(done) = tasks.join_next().await {
        let last = done.context("a receiver")??;
        seconds = seconds.max(last.saturating_duration_since(began).as_secs_f64());
    }
    assert!(arrived.is_complete(), "receivers end when all is there");
    Ok(Received {
        rate: sent.messages() as f64 / seconds,
        again: arrived.again.load(Ordering::Relaxed),
    })
}

/// Which messages of a round have come.
struct Arrived {
    round: u64,
    /// What each link sent, and a bit for each of it.
    links: Vec<(u64, Vec<AtomicU64>)>,
    missing: AtomicU64,
    again: AtomicU64,
}

impl Arrived {
    fn new(round: u64, links: &[u64]) -> Arrived {
        let bits = |count: u64| (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Arrived {
            round,
            links: links.iter().map(|count| (*count, bits(*count))).collect(),
            missing: AtomicU64::new(links.iter().sum()),
            again: AtomicU64::new(0),
        }
    }

    fn is_complete(&self) -> bool {
        self.missing.load(Ordering::Relaxed) == 0
    }

    /// A message came. An error if nobody sent it.
    fn note(&self, number: u64) -> Result<()> {
        let (round, link, place) = parts(number);
        if round < self.round {
            self.again.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let sent = usize::try_from(link).ok().and_then(|it| self.links.get(it));
        let (_, bits) = sent
            .filter(|(count, _)| round == self.round && place < *count)
            .with_context(|| {
                format!("message {place} of link {link} came, which it did not send")
            })?;
        let bit = 1 << (place % 64);
        let before = bits[usize::try_from(place / 64)?].fetch_or(bit, Ordering::Relaxed);
        match before & bit {
            0 => self.missing.fetch_sub(1, Ordering::Relaxed),
            _ => self.again.fetch_add(1, Ordering::Relaxed),
        };
        Ok(())
    }
}

/// Receives until everything has come to somebody. Gives when the last message came to this one.
async fn receiver(mut client: Client, arrived: Arc<Arrived>) -> Result<Instant> {
    let (mut came, mut granted) = (0_u32, WINDOW);
    client.credit(0, WINDOW);
    client.flush().await?;
    let mut last = Instant::now();
    let mut heard = last;
    while !arrived.is_complete() {
        let mut ids: Option<(u32, u32)> = None;
        let receive = client.receive(|performative, payload| {
            if let Performative::Transfer(it) = performative {
                ensure!(!it.more, "a message came in parts");
                let id = it.delivery_id.context("a delivery without an id")?;
                arrived.note(u64::from_be_bytes(beginning(payload)?))?;
                came = came.wrapping_add(1);
                ids = Some((ids.map_or(id, |(first, _)| first), id));
            }
            Ok(())
        });
        match tokio::time::timeout(Duration::from_millis(50), receive).await {
            Ok(received) => {
                received?;
                heard = Instant::now();
            }
            Err(_) => ensure!(
                heard.elapsed() < PATIENCE,
                "{} messages that were accepted do not come",
                arrived.missing.load(Ordering::Relaxed)
            ),
        }
        if let Some((first, id)) = ids {
            last = Instant::now();
            client.accept(first, id);
            if granted.wrapping_sub(came) < WINDOW / 2 {
                client.credit(came, WINDOW);
                granted = came.wrapping_add(WINDOW);
            }
            client.flush().await?;
        }
    }
    // What is accepted and not heard of would come again.
    client.close().await?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_acknowledged_has_to_come_and_nothing_that_nobody_sent() {
        let arrived = Arrived::new(1, &[100, 1]);
        for place in 0..100 {
            assert!(!arrived.is_complete());
            arrived.note(number(1, 0, place)).unwrap();
        }
        assert!(!arrived.is_complete(), "the other link's is not there");
        arrived.note(number(1, 0, 7)).unwrap();
        arrived.note(number(0, 5, 1_000_000)).unwrap();
        assert!(!arrived.is_complete(), "what comes again is not counted");
        for nobodys in [number(1, 0, 100), number(1, 2, 0), number(2, 0, 0)] {
            assert!(arrived.note(nobodys).is_err(), "{nobodys:x}");
        }
        arrived.note(number(1, 1, 0)).unwrap();
        assert!(arrived.is_complete());
        assert_eq!(arrived.again.load(Ordering::Relaxed), 2);
    }
}
