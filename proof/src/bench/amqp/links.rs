//! Links that send to a queue, and links that empty it.

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
    /// Sent in all, and settled as accepted in all.
    pub sent: u64,
    /// From sending to settling, in microseconds, of those that are counted.
    pub latencies_us: Vec<u64>,
    /// How long was measured.
    pub seconds: f64,
}

impl Sent {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.counted as f64 / self.seconds
    }
}

/// Sends durable messages to a queue by so many links, each on a connection of its own, until the broker has accepted all of
/// them.
pub async fn send(address: &str, queue: &str, links: u64, time: Duration) -> Result<Sent> {
    let mut clients = Vec::new();
    for link in 0..links {
        let mut client = Client::open(address, &format!("sender-{link}")).await?;
        client.sends_to(queue).await?;
        clients.push(client);
    }
    let counts_from = Instant::now() + WARM_UP;
    let mut tasks = JoinSet::new();
    for (link, client) in (0..).zip(clients) {
        tasks.spawn(sender(client, link, counts_from, counts_from + time));
    }
    let mut all = Sent {
        seconds: time.as_secs_f64(),
        ..Sent::default()
    };
    while let Some(done) = tasks.join_next().await {
        let one = done.context("a sender")??;
        all.counted += one.counted;
        all.sent += one.sent;
        all.latencies_us.extend(one.latencies_us);
    }
    Ok(all)
}

async fn sender(
    mut client: Client,
    link: u64,
    counts_from: Instant,
    until: Instant,
) -> Result<Sent> {
    let message = Message::new(MESSAGE_BYTES);
    // Of each delivery from `first` on: when it was sent, if it is not settled.
    let (mut under_way, mut first) = (VecDeque::<Option<Instant>>::new(), 0_u32);
    let mut done = Sent::default();
    loop {
        let now = Instant::now();
        while now < until && client.may_send() > 0 && under_way.len() < WINDOW as usize {
            let number = link << 40 | done.sent;
            client.send(&message, &number.to_be_bytes());
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

/// Receives and accepts so many messages of a queue by so many links, each on a connection of its own. Gives messages a second.
/// Each message has to come, once.
pub async fn empty(address: &str, queue: &str, links: u64, messages: u64) -> Result<f64> {
    let mut clients = Vec::new();
    for link in 0..links {
        let mut client = Client::open(address, &format!("receiver-{link}")).await?;
        client.receives_from(queue).await?;
        clients.push(client);
    }
    let came = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(receiver(client, came.clone(), messages));
    }
    let (mut numbers, mut seconds) = (Vec::new(), 0.0_f64);
    while let Some(done) = tasks.join_next().await {
        let (some, last) = done.context("a receiver")??;
        numbers.extend(some);
        seconds = seconds.max(last.saturating_duration_since(began).as_secs_f64());
    }
    numbers.sort_unstable();
    numbers.dedup();
    ensure!(
        numbers.len() as u64 == messages,
        "{} of {messages} messages came",
        numbers.len()
    );
    Ok(messages as f64 / seconds)
}

/// The numbers that came, and when the last of them did.
async fn receiver(
    mut client: Client,
    came: Arc<AtomicU64>,
    messages: u64,
) -> Result<(Vec<u64>, Instant)> {
    let (mut numbers, mut last) = (Vec::new(), Instant::now());
    let mut granted = WINDOW;
    client.credit(0, WINDOW);
    client.flush().await?;
    let silent_since = Instant::now();
    let mut heard = silent_since;
    while came.load(Ordering::Relaxed) < messages {
        let mut ids: Option<(u32, u32)> = None;
        let before = numbers.len();
        let receive = client.receive(|performative, payload| {
            if let Performative::Transfer(it) = performative {
                ensure!(!it.more, "a message came in parts");
                let id = it.delivery_id.context("a delivery without an id")?;
                numbers.push(u64::from_be_bytes(beginning(payload)?));
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
                "{} of {messages} messages came",
                came.load(Ordering::Relaxed)
            ),
        }
        if let Some((first, id)) = ids {
            last = Instant::now();
            client.accept(first, id);
            let count = u32::try_from(numbers.len())?;
            if granted - count < WINDOW / 2 {
                client.credit(count, WINDOW);
                granted = count + WINDOW;
            }
            client.flush().await?;
            came.fetch_add((numbers.len() - before) as u64, Ordering::Relaxed);
        }
    }
    // What is accepted and not heard of would come again.
    client.close().await?;
    Ok((numbers, last))
}
