//! The producers of the demonstration: a gateway for each topic, with an idempotent producer of its own. A record is in the
//! ledger before it is sent, and its ack is noted after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use client::{Client, Delivery, Producer, ProducerConfig, ProducerRecord};
use model::{Timestamp, TopicName};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fleet::Recording;
use super::host::Host;
use super::ledger::{Device, Entry, Ledger, hash_of};

/// How often gateways look what is due.
const TICK: Duration = Duration::from_millis(10);
/// How often the host is looked at.
const HOST_INTERVAL: Duration = Duration::from_millis(100);
/// What a gateway holds for a broker that is away; then its devices wait.
const BUFFER_BYTES: usize = 16 << 20;
/// Acknowledgements that may be outstanding; then the gateway waits.
const OUTSTANDING_MAX: usize = 100_000;
/// How long a part of the recordings is that is sent before another device has its turn.
const TURN_READINGS: usize = 50;

/// A device that plays a recording.
#[derive(Clone, Debug)]
pub(super) struct Player {
    /// The records' key.
    pub(super) name: String,
    /// What it plays.
    pub(super) recording: Arc<Recording>,
    /// When it begins.
    pub(super) delay: Duration,
    /// How long it takes from the first reading to the last.
    pub(super) duration: Duration,
}

impl Player {
    /// How many readings are due at a time.
    pub(super) fn due(&self, elapsed: Duration) -> usize {
        let played = elapsed.saturating_sub(self.delay).as_secs_f64();
        let share = (played / self.duration.as_secs_f64()).min(1.0);
        // A share of a count that fits.
        (self.recording.readings.len() as f64 * share) as usize
    }
}

/// A producer of one topic and the task that waits for its acknowledgements.
#[derive(Debug)]
pub(super) struct Gateway {
    topic: TopicName,
    producer: Producer,
    ledger: Arc<Ledger>,
    outstanding: mpsc::Sender<(Entry, Delivery)>,
    collector: JoinHandle<Vec<client::Error>>,
}

impl Gateway {
    /// A gateway to a topic.
    pub(super) fn open(
        client: &Client,
        topic: &TopicName,
        ledger: &Arc<Ledger>,
    ) -> Result<Gateway> {
        let config = ProducerConfig {
            buffer_bytes: BUFFER_BYTES,
            create_topics: false,
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&client.separate(), config)?;
        let (outstanding, deliveries) = mpsc::channel(OUTSTANDING_MAX);
        Ok(Gateway {
            topic: topic.clone(),
            producer,
            ledger: ledger.clone(),
            outstanding,
            collector: tokio::spawn(collect(deliveries, ledger.clone())),
        })
    }

    async fn send(&self, device: Device, key: Bytes, at: Timestamp, json: Bytes) -> Result<()> {
        let entry = self
            .ledger
            .sent(device, at, hash_of(Some(&key), at, Some(&json)));
        let record = ProducerRecord::new(self.topic.clone(), json)
            .key(key)
            .timestamp(at);
        let delivery = self.producer.send(record).await?;
        let queued = self.outstanding.send((entry, delivery)).await;
        queued.ok().context("nobody waits for acknowledgements")
    }

    /// Plays recordings to their end.
    pub(super) async fn play(&self, players: &[Player]) -> Result<()> {
        let devices: Vec<(Device, Bytes)> = players
            .iter()
            .map(|p| (self.ledger.device(&p.name), Bytes::from(p.name.clone())))
            .collect();
        let mut played = vec![0; players.len()];
        let begun = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            let elapsed = begun.elapsed();
            loop {
                let mut is_behind = false;
                for ((player, played), (device, key)) in
                    players.iter().zip(&mut played).zip(&devices)
                {
                    let due = player.due(elapsed);
                    let until = due.min(*played + TURN_READINGS);
                    for reading in &player.recording.readings[*played..until] {
                        self.send(*device, key.clone(), reading.at, reading.json.clone())
                            .await?;
                    }
                    *played = until;
                    is_behind |= until < due;
                }
                if !is_behind {
                    break;
                }
            }
            let is_over =
                |(player, played): (&Player, &usize)| *played == player.recording.readings.len();
            if players.iter().zip(&played).all(is_over) {
                return Ok(());
            }
        }
    }

    /// Sends this host's telemetry, until it is told to stop.
    pub(super) async fn watch_host(&self, mut host: Host, stop: &AtomicBool) -> Result<()> {
        let mut tick = tokio::time::interval(HOST_INTERVAL);
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let at = jiff::Timestamp::now().as_millisecond();
            for (key, json) in host.read() {
                let device = self.ledger.device(&String::from_utf8_lossy(&key));
                self.send(device, key, Timestamp::from_millis(at), json)
                    .await?;
            }
        }
        Ok(())
    }

    /// Waits until everything is acknowledged or has failed for good. Yields what failed.
    pub(super) async fn close(self) -> Result<Vec<client::Error>> {
        let Gateway {
            producer,
            outstanding,
            collector,
            ..
        } = self;
        // The collector tells what failed.
        let _ = producer.close().await;
        drop(outstanding);
        collector.await.context("wait for acknowledgements")
    }
}

/// Notes each acknowledgement in the ledger, in the order in which the readings were sent. Yields what failed.
async fn collect(
    mut deliveries: mpsc::Receiver<(Entry, Delivery)>,
    ledger: Arc<Ledger>,
) -> Vec<client::Error> {
    let mut failures = Vec::new();
    while let Some((entry, delivery)) = deliveries.recv().await {
        match delivery.wait().await {
            Ok(delivered) => ledger.acked(entry, delivered.partition, delivered.offset),
            Err(error) => failures.push(error),
        }
    }
    failures
}
