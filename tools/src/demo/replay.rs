//! What did one device say from then on? A time seek in the device's partition, and its key.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use client::admin::At;
use client::consumer::Start;
use client::{Admin, Client, Consumer, ConsumerConfig, producer};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};

use super::ledger::{Hash, Ledger, hash_of};

const POLL_WAIT_MAX: Duration = Duration::from_secs(1);
/// For what takes less than a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    /// The device.
    pub(super) device: &'a str,
    /// Its topic.
    pub(super) topic: &'a TopicName,
    /// From when on.
    pub(super) from: Timestamp,
}

/// What came.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    /// Where the time seek led to.
    pub(super) seek: Offset,
    /// The partition.
    pub(super) partition: TopicPartition,
    /// Records that were looked at.
    pub(super) scanned: u64,
    /// Readings of the device.
    pub(super) readings: u64,
    /// The first reading.
    pub(super) first: Option<Bytes>,
    /// How long it took.
    pub(super) took: Duration,
    /// What did not agree with the ledger.
    pub(super) failure: Option<String>,
}

/// Replays a device to the end of what is there now, and compares it with what was acknowledged before.
pub(super) async fn replay(
    client: &Client,
    ledger: &Ledger,
    question: &Question<'_>,
) -> Result<Replay> {
    let known = client.topic(question.topic.as_str(), false).await?;
    let count = u32::try_from(known.partitions.len()).context("partitions of a topic")?;
    let number = producer::partition_of_key(question.device.as_bytes(), count);
    let partition = TopicPartition::new(question.topic.clone(), PartitionId::new(number));
    let expected = ledger.acked_since(ledger.device(question.device), question.from);
    let expected_seek = ledger.first_since(&partition, question.from);

    let begun = Instant::now();
    let admin = Admin::new(client);
    let place = |at| {
        let (admin, wanted) = (&admin, [(partition.clone(), at)]);
        async move {
            let found = admin.list_offsets(&wanted).await?;
            anyhow::Ok(found.values().next().and_then(|place| place.offset))
        }
    };
    let end = place(At::Latest).await?.context("a partition has an end")?;
    let Some(seek) = place(At::Time(question.from)).await? else {
        bail!(
            "{}: no record at or after {}",
            partition,
            question.from.millis()
        );
    };
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    consumer.assign(partition.clone(), Start::Offset(seek));
    let mut scanned = 0;
    let mut first = None;
    let mut hashes: Vec<Hash> = Vec::new();
    while consumer.position(&partition).is_some_and(|at| at < end) {
        if begun.elapsed() > PATIENCE {
            bail!("{partition} could not be read to offset {}", end.get());
        }
        for fetched in consumer.poll(POLL_WAIT_MAX).await? {
            fetched.for_each_record(|record| {
                scanned += 1;
                let is_asked_for = record.key == Some(question.device.as_bytes());
                if is_asked_for && record.timestamp >= question.from {
                    hashes.push(hash_of(record.key, record.timestamp, record.value));
                    first = first.take().or(record.value.map(Bytes::copy_from_slice));
                }
            })?;
        }
    }
    Ok(Replay {
        failure: disagreement(&expected, &hashes, expected_seek, seek),
        seek,
        partition,
        scanned,
        readings: hashes.len() as u64,
        first,
        took: begun.elapsed(),
    })
}

/// What was acknowledged before must come first and in the same order; more may have come since.
fn disagreement(
    expected: &[Hash],
    came: &[Hash],
    expected_seek: Option<Offset>,
    seek: Offset,
) -> Option<String> {
    if expected_seek.is_some_and(|offset| offset != seek) {
        let expected = expected_seek.map(Offset::get);
        return Some(format!(
            "the time seek led to offset {}, and not to {expected:?}",
            seek.get()
        ));
    }
    if !came.starts_with(expected) {
        let same = expected.iter().zip(came).take_while(|(e, c)| e == c);
        return Some(format!(
            "of {} acknowledged readings only the first {} came as they were sent",
            expected.len(),
            same.count()
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use model::Offset;

    use super::disagreement;

    #[test]
    fn a_replay_must_hold_what_was_acknowledged_in_order_from_the_right_place() {
        let reading = |n: u8| [n; 16];
        let sent = [reading(1), reading(2)];
        let place = Offset::new(3);
        let more = [reading(1), reading(2), reading(3)];
        let came = [
            (&sent[..], place),
            (&more[..], place),
            (&sent[..1], place),
            (&more[1..], place),
            (&sent[..], Offset::new(2)),
            (&sent[..], Offset::new(4)),
        ];
        let agrees =
            came.map(|(came, seek)| disagreement(&sent, came, Some(place), seek).is_none());
        assert_eq!(agrees, [true, true, false, false, false, false]);
    }
}
