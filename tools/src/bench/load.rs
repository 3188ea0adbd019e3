//! The load of `bench`: sends batches flat out (closed loop) or at a fixed rate (open loop), and measures ack latency.
//!
//! Batches are built once, so that this client costs little beside the broker. An idempotent producer stamps and sends them,
//! so that what is counted is stored once. At a fixed rate a batch's time counts from when it was due, not from when
//! it left: a broker that stalls delays those behind it too, and that is in the figures (no coordinated omission).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use client::{Client, Delivery, Producer, ProducerConfig};
use model::batch::{BatchBuilder, Codec, Compression};
use model::{Timestamp, TopicPartition};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What all batches of one producer that are under way may take.
const BUFFER_BYTES_MIN: usize = 8 << 20;

/// The batch that is sent over and over.
pub(super) struct Load {
    pub batch: Bytes,
    pub records: u64,
}

impl Load {
    /// A batch of about so many bytes before compression. Values look random, with some repetition: half of each is the same.
    pub fn new(codec: Codec, batch_bytes: usize, record_bytes: usize) -> Result<Load> {
        let mut builder = BatchBuilder::new(Compression::from(codec));
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut value = vec![b'.'; record_bytes];
        let now = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
        let need = BatchBuilder::record_bytes_max(0, record_bytes);
        let mut records = 0;
        while records == 0 || builder.plain_bytes() + need <= batch_bytes {
            for byte in value.iter_mut().take(record_bytes / 2) {
                // Xorshift: the same batch every time.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *byte = b'a' + (random % 26) as u8;
            }
            builder.push(now, None, Some(&value), &[])?;
            records += 1;
        }
        Ok(Load {
            batch: builder.build()?,
            records,
        })
    }
}

/// How batches are sent.
pub(super) struct Sending<'a> {
    pub client: &'a Client,
    pub partitions: &'a [TopicPartition],
    pub producers: u32,
    pub load: &'a Load,
    pub time: Duration,
}

impl Sending<'_> {
    fn producers(&self, buffer_bytes: usize) -> Result<Vec<Producer>> {
        let config = ProducerConfig {
            linger: Duration::ZERO,
            buffer_bytes: buffer_bytes.max(self.load.batch.len() * 8),
            ..ProducerConfig::default()
        };
        (0..self.producers)
            .map(|_| Ok(Producer::new(&self.client.separate(), config.clone())?))
            .collect()
    }

    /// Sends as fast as batches are acknowledged. Yields acknowledged bytes a second.
    pub async fn flat_out(&self) -> Result<f64> {
        let mut tasks = JoinSet::new();
        let begun = Instant::now();
        let until = begun + self.time;
        for (number, producer) in self.producers(BUFFER_BYTES_MIN)?.into_iter().enumerate() {
            let partitions = self.partitions.to_vec();
            let batch = self.load.batch.clone();
            tasks.spawn(async move {
                let (sent, outcomes) = mpsc::channel(1 << 16);
                let counting = tokio::spawn(acknowledged(outcomes, until));
                let mut next = number;
                while Instant::now() < until {
                    let partition = &partitions[next % partitions.len()];
                    next += 1;
                    let delivery = producer.send_batch(partition, batch.clone()).await?;
                    sent.send(delivery).await.ok();
                }
                drop(sent);
                let count = counting.await.context("the count of a producer")??;
                producer.close().await?;
                anyhow::Ok(count)
            });
        }
        let mut batches = 0;
        while let Some(count) = tasks.join_next().await {
            batches += count.context("a producer")??;
        }
        let bytes = batches as f64 * self.load.batch.len() as f64;
        Ok(bytes / self.time.as_secs_f64())
    }

    /// Sends `rate` bytes a second. Yields the time of each batch, from when it was due to its acknowledgement.
    pub async fn paced(&self, rate: f64) -> Result<Vec<Duration>> {
        let producers = self.producers(64 << 20)?;
        let interval = Duration::from_secs_f64(self.load.batch.len() as f64 / rate);
        let count = (self.time.as_secs_f64() / interval.as_secs_f64())
            .ceil()
            .max(1.0) as u32;
        let (due, mut dues) = mpsc::channel(1 << 16);
        // A thread sleeps more exactly than the runtime's timer, whose steps are a millisecond. Where it falls behind, what it
        // hands over late was due all the same.
        let begun = Instant::now();
        let pacer = std::thread::Builder::new().spawn(move || {
            for number in 0..count {
                let at = begun + interval * number;
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if due.blocking_send(at).is_err() {
                    return;
                }
            }
        })?;
        let mut waiting = JoinSet::new();
        let mut times = Vec::new();
        let mut next = 0;
        while let Some(at) = dues.recv().await {
            let partition = &self.partitions[next % self.partitions.len()];
            // A partition stays with its producer, whose sequence numbers it follows.
            let producer = &producers[next % self.partitions.len() % producers.len()];
            next += 1;
            let delivery = producer
                .send_batch(partition, self.load.batch.clone())
                .await?;
            waiting.spawn(async move {
                delivery.wait().await?;
                anyhow::Ok(at.elapsed())
            });
            while let Some(time) = waiting.try_join_next() {
                times.push(time.context("a wait")??);
            }
        }
        while let Some(time) = waiting.join_next().await {
            times.push(time.context("a wait")??);
        }
        for producer in producers {
            producer.close().await?;
        }
        tokio::task::spawn_blocking(move || pacer.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the pacer ended in a panic"))?;
        Ok(times)
    }
}

/// How many batches were acknowledged in time; all are waited for.
async fn acknowledged(mut outcomes: mpsc::Receiver<Delivery>, until: Instant) -> Result<u64> {
    let mut count = 0;
    while let Some(delivery) = outcomes.recv().await {
        delivery.wait().await?;
        count += u64::from(Instant::now() <= until);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use model::batch::Batch;

    use super::*;

    #[test]
    fn a_batch_has_about_the_size_that_was_asked_for() {
        for (batch_bytes, record_bytes) in [(64 << 10, 512), (1 << 20, 100), (4096, 4000)] {
            let load = Load::new(Codec::None, batch_bytes, record_bytes).unwrap();
            let batch = Batch::parse(load.batch.clone()).unwrap();
            assert_eq!(
                u64::from(batch.header().record_count.unsigned_abs()),
                load.records
            );
            let bytes = load.batch.len();
            assert!(
                bytes <= batch_bytes + 128 && bytes + record_bytes + 128 > batch_bytes,
                "{bytes}"
            );
        }
        let packed = Load::new(Codec::Zstd, 64 << 10, 512).unwrap();
        assert!(packed.batch.len() < 60 << 10);
    }
}
