//! From a range to offsets: where reading begins and ends in each partition.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use client::Client;
use client::admin::{Admin, At};
use model::{Offset, TopicPartition};

use crate::failure::Failure;
use model::time_spec::{Position, Range};

/// Offsets of one partition that are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: Offset,
    /// Exclusive; without it, on and on.
    pub end: Option<Offset>,
}

/// What a partition's places are found from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Places {
    earliest: Offset,
    latest: Offset,
    /// The first record at or after the range's start; none if there is no such record.
    start_time: Option<Offset>,
    /// The same for the range's end.
    end_time: Option<Offset>,
}

/// Turns a range into offsets of each partition, asking for no more than it needs. An offset that one of several partitions
/// does not have yet stands for its end.
pub(crate) async fn spans(
    client: &Client,
    partitions: &[TopicPartition],
    range: Range,
) -> Result<BTreeMap<TopicPartition, (Places, Span)>> {
    let admin = Admin::new(client);
    let ask = async |at: At| {
        let wanted: Vec<(TopicPartition, At)> = partitions
            .iter()
            .map(|partition| (partition.clone(), at))
            .collect();
        admin.list_offsets(&wanted).await
    };
    let earliest = ask(At::Earliest).await?;
    let latest = ask(At::Latest).await?;
    let start_time = match range.start {
        Position::At(time) => ask(At::Time(time)).await?,
        _ => HashMap::new(),
    };
    let end_time = match range.end {
        Some(Position::At(time)) => ask(At::Time(time)).await?,
        _ => HashMap::new(),
    };
    let spans = partitions.iter().map(|partition| {
        let offset = |places: &HashMap<TopicPartition, client::admin::Place>| {
            places.get(partition).and_then(|p| p.offset)
        };
        let places = Places {
            earliest: offset(&earliest).unwrap_or_default(),
            latest: offset(&latest).unwrap_or_default(),
            start_time: offset(&start_time),
            end_time: offset(&end_time),
        };
        (partition.clone(), (places, places.span(range)))
    });
    let spans: BTreeMap<TopicPartition, (Places, Span)> = spans.collect();
    if let Position::Offset(offset) = range.start {
        check_start(offset, &spans)?;
    }
    Ok(spans)
}

/// Refuses an offset that is beyond the end of all partitions: nothing would be read, and nothing said.
fn check_start(
    offset: Offset,
    spans: &BTreeMap<TopicPartition, (Places, Span)>,
) -> Result<(), Failure> {
    let ends = spans.values().map(|(places, _)| places.latest);
    if ends.max().is_none_or(|end| offset <= end) {
        return Ok(());
    }
    let hint = match offset.get().to_string().len() {
        10 => format!("; for a time write {offset}s"),
        13 => format!("; for a time write {offset}ms"),
        16 | 19 => format!("; for a time write @{offset}"),
        _ => String::new(),
    };
    Err(Failure::Usage(format!(
        "offset {offset} is beyond the end: {}{hint}",
        held(spans)
    )))
}

/// What partitions hold, in words.
pub(super) fn held(spans: &BTreeMap<TopicPartition, (Places, Span)>) -> String {
    const SHOWN: usize = 4;
    let shown = spans.iter().take(SHOWN).map(|(partition, (places, _))| {
        match places.earliest < places.latest {
            true => format!(
                "{partition} holds offsets {} to {}",
                places.earliest,
                places.latest.get() - 1
            ),
            false => format!("{partition} is empty, its next offset is {}", places.latest),
        }
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if spans.len() > SHOWN {
        text.push_str(&format!(", and so on for {} partitions", spans.len()));
    }
    text
}

impl Places {
    /// A start that is no longer there, or not yet, is the nearest that is; an end is one that can be reached.
    fn span(&self, range: Range) -> Span {
        let start = self.offset(range.start, self.start_time);
        let start = start.clamp(self.earliest, self.latest.max(self.earliest));
        // An end that is yet to come could never be reached where nothing more is written.
        let end = range
            .end
            .map(|end| self.offset(end, self.end_time).min(self.latest));
        Span { start, end }
    }

    fn offset(&self, position: Position, time: Option<Offset>) -> Offset {
        match position {
            Position::Earliest => self.earliest,
            Position::Latest => self.latest,
            Position::Offset(offset) => offset,
            Position::AfterEarliest(count) => self.earliest.plus(count),
            Position::BeforeLatest(count) => Offset::new(self.latest.get().saturating_sub(count)),
            Position::At(_) => time.unwrap_or(self.latest),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{PartitionId, Timestamp, TopicName};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn span(text: &str) -> (u64, Option<u64>) {
        let places = Places {
            earliest: Offset::new(100),
            latest: Offset::new(200),
            start_time: Some(Offset::new(150)),
            end_time: None,
        };
        let span = places.span(Range::parse(text, NOW).unwrap());
        (span.start.get(), span.end.map(Offset::get))
    }

    #[test]
    fn ranges_become_offsets_within_what_is_there() {
        for (text, expected) in [
            ("start", (100, None)),
            ("end", (200, None)),
            ("50", (100, None)),
            ("120", (120, None)),
            ("250", (200, None)),
            ("+5", (105, None)),
            ("-5", (195, None)),
            ("-500", (100, None)),
            (":end", (100, Some(200))),
            ("120:130", (120, Some(130))),
            ("120:500", (120, Some(200))),
            ("250:300", (200, Some(200))),
            ("+0:+5", (100, Some(105))),
            ("+0:+500", (100, Some(200))),
            ("-10m", (150, None)),
            ("-10m:-5m", (150, Some(200))),
        ] {
            assert_eq!(span(text), expected, "{text}");
        }
    }

    #[test]
    fn an_offset_beyond_every_end_is_refused_and_a_time_suggested() {
        let one = |number, latest| {
            let topic = TopicName::parse("sea").unwrap();
            let places = Places {
                latest: Offset::new(latest),
                ..Places::default()
            };
            let span = places.span(Range::ALL);
            (
                TopicPartition::new(topic, PartitionId::new(number)),
                (places, span),
            )
        };
        let spans = BTreeMap::from([one(0, 0), one(1, 200)]);
        assert!(check_start(Offset::new(200), &spans).is_ok());
        let error = check_start(Offset::new(201), &spans)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sea-1 holds offsets 0 to 199") && !error.contains("time"),
            "{error}"
        );
        let time = Offset::new(1_700_000_000_000);
        let error = check_start(time, &spans).unwrap_err().to_string();
        assert!(
            error.contains("for a time write 1700000000000ms"),
            "{error}"
        );
    }
}
