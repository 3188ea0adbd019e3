//! From the input to the producer: a record of the input gets what the options add to it, and is sent.
//!
//! Called by `produce`, on a thread of its own.

use std::io::{Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use client::{Delivery, Error, Producer};
use model::batch::{HeaderRef, RecordBody};
use model::{PartitionId, Timestamp, TopicName};
use tokio::sync::mpsc;

use super::ProduceArgs;
use crate::failure::Failure;
use crate::format::{Headers, InputReader, InputRecord, OutputFormat, OutputRecord};
use crate::output::note;
use model::time_spec::parse_time;

/// What every record gets that does not bring its own.
pub(super) struct Fallback {
    pub topic: Option<TopicName>,
    pub partition: Option<PartitionId>,
    pub timestamp: Option<Timestamp>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub tombstone: bool,
    /// Whether a record's own partition counts. That of a JSON line belongs to the topic that the line names.
    pub own_partition: bool,
}

/// A record on its way that will be reported.
pub(super) struct Report {
    delivery: Delivery,
    timestamp: Option<Timestamp>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Fallback {
    /// As the options say; relative times count from `now`.
    pub fn new(args: &ProduceArgs, now: Timestamp) -> Result<Fallback> {
        Ok(Fallback {
            topic: args.topic.as_deref().map(TopicName::parse).transpose()?,
            partition: args.partition.map(PartitionId::new),
            timestamp: args
                .timestamp
                .as_deref()
                .map(|text| parse_time(text, now))
                .transpose()
                .context("--timestamp")?,
            key: args.key.clone().map(String::into_bytes),
            headers: args.headers.clone(),
            tombstone: args.tombstone,
            own_partition: !args.is_json() || (args.topic.is_none() && args.partition.is_none()),
        })
    }
}

/// Reads records and pushes them to the producer.
pub(super) struct Pump<R> {
    pub reader: InputReader<R>,
    pub fallback: Fallback,
    pub producer: Producer,
    pub reports: Option<mpsc::Sender<Report>>,
    pub counts: Arc<Counts>,
}

/// How far the pump is.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Records that were handed to the producer.
    pub sent: AtomicU64,
    /// Records that no batch of their topic can hold, which were left out.
    pub too_large: AtomicU64,
}

/// How many records that are too large are named; the others are counted.
const NAMED_MAX: u64 = 10;

impl<R: Read> Pump<R> {
    /// Returns how many records and bytes were handed to the producer.
    pub async fn run(mut self) -> Result<(u64, u64)> {
        let (mut records, mut bytes) = (0, 0);
        let mut topic = self.fallback.topic.clone();
        while let Some(record) = self.reader.next_record()? {
            let name = target(&mut topic, &self.fallback, record.topic)?;
            let record = with_fallback(record, &self.fallback);
            let record_bytes =
                (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
            let body = RecordBody {
                key: record.key,
                value: record.value,
                headers: &record.headers,
            };
            let partition = record
                .partition
                .filter(|_| self.fallback.own_partition)
                .and_then(PartitionId::from_wire)
                .or(self.fallback.partition);
            let timestamp = record
                .timestamp
                .map(Timestamp::from_millis)
                .or(self.fallback.timestamp);
            // A report tells the time that the record got, so it is chosen here.
            let timestamp = timestamp.or_else(|| self.reports.as_ref().map(|_| clock()));
            let sent = self
                .producer
                .send_body(name, partition, timestamp, body)
                .await;
            let number = records + self.counts.too_large.load(Relaxed) + 1;
            let delivery = match sent {
                Ok(delivery) => delivery,
                // It harms nobody but itself.
                Err(error @ Error::RecordTooLarge { .. }) => {
                    if self.counts.too_large.fetch_add(1, Relaxed) < NAMED_MAX {
                        note!("note: record {number} of the input was not stored: {error}");
                    }
                    continue;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("record {number} of the input"));
                }
            };
            records += 1;
            bytes += record_bytes;
            self.counts.sent.store(records, Relaxed);
            if let Some(reports) = &self.reports {
                let report = Report::new(delivery, timestamp, &record);
                if reports.send(report).await.is_err() {
                    bail!("standard output was closed");
                }
            }
        }
        Ok((records, bytes))
    }
}

fn clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The topic of a record; a name is only checked again when it differs from the last one.
fn target<'a>(
    last: &'a mut Option<TopicName>,
    fallback: &Fallback,
    named: Option<&[u8]>,
) -> Result<&'a TopicName> {
    // A JSON line brings the topic that it was read from; the one on the command line goes before it.
    let named = named.filter(|name| fallback.topic.is_none() && !name.is_empty());
    if let Some(name) = named
        && last.as_ref().is_none_or(|last| last.as_bytes() != name)
    {
        let text = std::str::from_utf8(name).context("the topic's name is not UTF-8")?;
        *last = Some(TopicName::parse(text)?);
    }
    let missing =
        || Failure::Usage("no topic: name one as an argument, or with %t in the format".to_owned());
    Ok(last.as_ref().ok_or_else(missing)?)
}

fn with_fallback<'a>(mut record: InputRecord<'a>, fallback: &'a Fallback) -> InputRecord<'a> {
    record.key = record.key.or(fallback.key.as_deref());
    if fallback.tombstone && record.value.is_some_and(<[u8]>::is_empty) {
        record.value = None;
    }
    if !fallback.headers.is_empty() {
        let fixed = fallback
            .headers
            .iter()
            .map(|(key, value)| (key.as_bytes(), Some(value.as_bytes())));
        record.headers = fixed.chain(record.headers).collect();
    }
    record
}

impl Report {
    fn new(delivery: Delivery, timestamp: Option<Timestamp>, record: &InputRecord<'_>) -> Report {
        Report {
            delivery,
            timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

/// Writes a line for each record, once it is acknowledged. Flushes whenever nothing more waits.
pub(super) async fn print_reports(
    mut output: OutputFormat,
    mut reports: mpsc::Receiver<Report>,
) -> Result<()> {
    let mut stdout = std::io::stdout();
    let mut out = Vec::new();
    while let Some(report) = reports.recv().await {
        // The failure itself is the producer's to tell.
        let Ok(delivered) = report.delivery.wait().await else {
            continue;
        };
        let headers: Vec<HeaderRef<'_>> = report
            .headers
            .iter()
            .map(|(key, value)| (&key[..], value.as_deref()))
            .collect();
        let time = delivered
            .append_time
            .or(report.timestamp)
            .unwrap_or(Timestamp::NONE);
        let partition = &delivered.partition;
        output.write(
            &OutputRecord {
                timestamp: time.millis(),
                key: report.key.as_deref(),
                value: report.value.as_deref(),
                headers: Headers::Slice(&headers),
                ..OutputRecord::new(
                    &partition.topic,
                    partition.partition.to_wire(),
                    delivered.offset.map_or(-1, |offset| offset.to_wire()),
                )
            },
            &mut out,
        );
        if reports.is_empty() || out.len() >= 64 << 10 {
            stdout.write_all(&out)?;
            stdout.flush()?;
            out.clear();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback() -> Fallback {
        Fallback {
            topic: None,
            partition: None,
            timestamp: None,
            key: Some(b"k".to_vec()),
            headers: vec![("a".to_owned(), "b".to_owned())],
            tombstone: true,
            own_partition: true,
        }
    }

    #[test]
    fn what_the_input_brings_goes_before_what_the_options_say() {
        let fallback = fallback();
        let bare = with_fallback(
            InputRecord {
                value: Some(b""),
                ..InputRecord::default()
            },
            &fallback,
        );
        assert_eq!((bare.key, bare.value), (Some(&b"k"[..]), None));
        assert_eq!(bare.headers, [(&b"a"[..], Some(&b"b"[..]))]);
        let own = InputRecord {
            key: Some(b"own"),
            value: Some(b"v"),
            headers: vec![(b"c", None)],
            ..InputRecord::default()
        };
        let own = with_fallback(own, &fallback);
        assert_eq!((own.key, own.value), (Some(&b"own"[..]), Some(&b"v"[..])));
        assert_eq!(own.headers, [(&b"a"[..], Some(&b"b"[..])), (b"c", None)]);
    }

    #[test]
    fn a_record_needs_a_topic_and_the_command_lines_goes_first() {
        let mut last = None;
        assert!(target(&mut last, &fallback(), None).is_err());
        assert_eq!(
            target(&mut last, &fallback(), Some(b"sea"))
                .unwrap()
                .as_str(),
            "sea"
        );
        assert!(target(&mut last, &fallback(), Some(b"a/b")).is_err());
        let topic = Some(TopicName::parse("land").unwrap());
        let fixed = Fallback {
            topic: topic.clone(),
            ..fallback()
        };
        let mut last = topic;
        assert_eq!(
            target(&mut last, &fixed, Some(b"sea")).unwrap().as_str(),
            "land"
        );
    }
}
