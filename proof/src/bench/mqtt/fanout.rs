//! One client that publishes, and many that are sent each of its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{self, Clients, Connection, PATIENCE};
use super::packet::{self, Template};

/// Messages that not all have, at most: as many subscribers keep up, and no broker gathers a queue.
const AHEAD: u64 = 64;
const TOPIC: &str = "bench/fanout";
const TICK: Duration = Duration::from_millis(1);

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct FannedOut {
    /// Messages that were published.
    pub published: u64,
    /// How often one was given to a subscriber.
    pub delivered: u64,
    /// From the first message to the last delivery.
    pub seconds: f64,
}

impl FannedOut {
    /// Deliveries a second.
    pub fn rate(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }
}

/// Publishes to so many subscribers, QoS 1 both ways, for this long. Each has to be given every message once and in order.
pub async fn run(
    address: &str,
    subscribers: usize,
    payload_bytes: usize,
    time: Duration,
) -> Result<FannedOut> {
    let clients = Clients {
        name: "subscriber",
        count: subscribers,
        is_clean: true,
        filter: Some(TOPIC),
    };
    let connections = connection::connect_all(address, clients).await?;
    let delivered = Arc::new(AtomicU64::new(0));
    // How many there will be; not known before the end.
    let total = Arc::new(AtomicU64::new(u64::MAX));
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(subscriber(connection, delivered.clone(), total.clone()));
    }
    let mut publisher = Connection::open(address, "publisher", true).await?;
    let template = Template::new(1, TOPIC, payload_bytes);
    let (mut sent, mut acknowledged) = (0_u64, 0_u64);
    let began = Instant::now();
    let until = began + time;
    while Instant::now() < until || acknowledged < sent {
        let all_have = delivered.load(Ordering::Relaxed) / subscribers as u64;
        while Instant::now() < until && sent < all_have + AHEAD && sent < acknowledged + AHEAD {
            let id = u16::try_from(sent % 60_000)? + 1;
            template.write(&mut publisher.outgoing, id, &sent.to_be_bytes());
            sent += 1;
        }
        publisher.flush().await?;
        let receive = publisher.receive(|packet, _| {
            ensure!(packet.kind() == packet::PUBACK, "{packet:?} is no PUBACK");
            acknowledged += 1;
            Ok(())
        });
        // A tick ends the wait: subscribers that have got on are not told.
        if let Ok(received) = tokio::time::timeout(TICK, receive).await {
            received?;
        }
        ensure!(began.elapsed() < time + PATIENCE, "no PUBACK came");
        if let Some(ended) = tasks.try_join_next() {
            ended.context("a subscriber")??;
        }
    }
    total.store(sent, Ordering::Relaxed);
    while delivered.load(Ordering::Relaxed) < sent * subscribers as u64 {
        ensure!(
            began.elapsed() < time + PATIENCE,
            "{} of {} deliveries came",
            delivered.load(Ordering::Relaxed),
            sent * subscribers as u64
        );
        tokio::time::sleep(TICK).await;
        if let Some(ended) = tasks.try_join_next() {
            ended.context("a subscriber")??;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    tasks.shutdown().await;
    Ok(FannedOut {
        published: sent,
        delivered: delivered.load(Ordering::Relaxed),
        seconds,
    })
}

async fn subscriber(
    mut connection: Connection,
    delivered: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
) -> Result<()> {
    let mut next = 0_u64;
    while next < total.load(Ordering::Relaxed) {
        let before = next;
        connection
            .receive(|packet, out| {
                let publish = packet.publish()?;
                let number = number(publish.payload)?;
                ensure!(number == next, "message {number} came, not {next}");
                next += 1;
                out.extend(packet::ack(packet::PUBACK, publish.id));
                Ok(())
            })
            .await?;
        connection.flush().await?;
        delivered.fetch_add(next - before, Ordering::Relaxed);
    }
    Ok(())
}

/// The number that a payload begins with.
pub fn number(payload: &[u8]) -> Result<u64> {
    let bytes = payload
        .first_chunk()
        .context("a payload without a number")?;
    Ok(u64::from_be_bytes(*bytes))
}
