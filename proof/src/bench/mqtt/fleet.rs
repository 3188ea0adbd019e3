//! The history of a fleet of devices, brought in by Kafka's protocol, and a check of what a subscriber is given of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use client::{ClientConfig, Connection, Pending};
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use wire::ErrorCode;
use wire::messages::produce::ProduceRequest;

use super::fanout::number;
use super::packet::Publish;
use crate::bench::broker;

/// Devices, which take turns.
pub const DEVICES: u64 = 10_000;
/// Partitions of the topic `mqtt`.
pub const PARTITIONS: u32 = 16;
/// One in so many records is followed by one of a device that says nothing else.
pub const RARE_EVERY: u64 = 2_000_000;
const PAYLOAD_BYTES: usize = 100;
const BATCH_BYTES: usize = 256 << 10;
const IN_FLIGHT: usize = 32;

/// The MQTT topic of a device.
pub fn topic(device: u64) -> String {
    format!("site/{device}/temp")
}

/// The MQTT topic of a device that says one thing only.
pub fn rare_topic(index: u64) -> String {
    format!("rare/{index}/temp")
}

/// Appends so many records of the fleet, and some of rare devices, to the topic `mqtt`. Gives how many in all.
pub async fn fill(kafka: &str, records: u64) -> Result<u64> {
    let connection = Connection::open(kafka, &ClientConfig::new(kafka)).await?;
    let mut filling = Filling {
        connection,
        open: (0..PARTITIONS)
            .map(|_| BatchBuilder::new(Codec::None))
            .collect(),
        under_way: std::collections::VecDeque::new(),
    };
    let devices: Vec<(String, u32)> = (0..DEVICES).map(|device| keyed(topic(device))).collect();
    let mut value = vec![b'v'; PAYLOAD_BYTES];
    let mut count = 0;
    for record in 0..records {
        value[..8].copy_from_slice(&record.to_be_bytes());
        let (key, partition) = &devices[usize::try_from(record % DEVICES)?];
        filling.push(key, *partition, &value).await?;
        count += 1;
        if record % RARE_EVERY == RARE_EVERY / 2 {
            let (key, partition) = keyed(rare_topic(record / RARE_EVERY));
            filling.push(&key, partition, &value).await?;
            count += 1;
        }
    }
    filling.finish().await?;
    Ok(count)
}

fn keyed(topic: String) -> (String, u32) {
    let partition = model::partition_of_key(topic.as_bytes(), PARTITIONS);
    (topic, partition)
}

/// A batch under way for each partition.
struct Filling {
    connection: Connection,
    open: Vec<BatchBuilder>,
    under_way: std::collections::VecDeque<Pending<ProduceRequest>>,
}

impl Filling {
    async fn push(&mut self, key: &str, partition: u32, value: &[u8]) -> Result<()> {
        let builder = &mut self.open[partition as usize];
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let now = Timestamp::from_millis(i64::try_from(now.as_millis())?);
        builder.push(now, Some(key.as_bytes()), Some(value), &[])?;
        if builder.plain_bytes() > BATCH_BYTES {
            self.send(partition).await?;
        }
        Ok(())
    }

    async fn send(&mut self, partition: u32) -> Result<()> {
        let full = std::mem::replace(
            &mut self.open[partition as usize],
            BatchBuilder::new(Codec::None),
        );
        let batch: Bytes = full.build()?;
        let request = broker::produce_request("mqtt", i32::try_from(partition)?, &batch);
        if self.under_way.len() >= IN_FLIGHT {
            self.wait_for_one().await?;
        }
        let pending = self
            .connection
            .start(&request, broker::PRODUCE_VERSION)
            .await?;
        self.under_way.push_back(pending);
        Ok(())
    }

    async fn wait_for_one(&mut self) -> Result<()> {
        let oldest = self.under_way.pop_front().context("nothing is under way")?;
        let response = oldest.wait(Duration::from_secs(60)).await?;
        for topic in &response.responses {
            for partition in &topic.partition_responses {
                let error = ErrorCode::from_code(partition.error_code);
                ensure!(error == ErrorCode::None, "refused: {}", error.name());
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        for partition in 0..PARTITIONS {
            if !self.open[partition as usize].is_empty() {
                self.send(partition).await?;
            }
        }
        while !self.under_way.is_empty() {
            self.wait_for_one().await?;
        }
        Ok(())
    }
}

/// What a subscriber to the whole fleet has been given: of each device everything, once and in order.
pub struct Given {
    next: Vec<u64>,
    /// How many messages.
    pub count: u64,
}

impl Given {
    /// From the beginning on.
    pub fn nothing() -> Given {
        Given {
            next: (0..DEVICES).collect(),
            count: 0,
        }
    }

    /// Takes note of a message.
    pub fn note(&mut self, publish: &Publish<'_>) -> Result<()> {
        let number = number(publish.payload)?;
        let device = usize::try_from(number % DEVICES)?;
        let wanted = self.next[device];
        ensure!(
            number == wanted,
            "record {number} of device {device} came, not {wanted}"
        );
        self.next[device] += DEVICES;
        self.count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_left_out_or_comes_twice_is_seen() {
        let payload = |number: u64| number.to_be_bytes();
        let mut given = Given::nothing();
        let mut note = |number| {
            given.note(&Publish {
                topic: b"",
                id: 0,
                payload: &payload(number),
            })
        };
        note(7).unwrap();
        note(3).unwrap();
        note(7 + DEVICES).unwrap();
        assert!(note(3).is_err());
        assert!(note(7 + 3 * DEVICES).is_err());
        assert_eq!(given.count, 3);
    }
}
