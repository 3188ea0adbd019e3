//! What the part of the path behind `?` asks of a replay.

use std::sync::Arc;

use bytes::Bytes;
use columnar::condition::Condition;
use columnar::{Column, Columns, Format};
use model::time_spec::Position;
use model::topic_config::thin::{ValueAt, parse_span, parse_value};
use model::{Offset, PartitionId, Timestamp};
use serde::Deserialize;

use super::downsampled::{AskedWindows, VALUES_MAX};
use crate::broker::replay::{DownsampleRequest, Filter, KeyFilter, Order, Place, ReplayRequest};
use crate::front::http::errors::Failure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayQuery {
    format: Option<String>,
    from: Option<String>,
    to: Option<String>,
    resume: Option<String>,
    partition: Option<String>,
    key: Option<String>,
    key_prefix: Option<String>,
    #[serde(rename = "where")]
    condition: Option<String>,
    columns: Option<String>,
    order: Option<String>,
    max_records: Option<u64>,
    resolution: Option<String>,
    values: Option<String>,
    #[serde(default)]
    summary: bool,
}

/// What is asked.
pub(super) enum Asks {
    Records(Asked),
    Windows(AskedWindows),
}

/// A replay, and how it is written.
pub(super) struct Asked {
    pub format: Format,
    pub columns: Option<Columns>,
    pub summary: bool,
    pub request: ReplayRequest,
}

impl ReplayQuery {
    pub fn read(self, now: Timestamp) -> Result<Asks, Failure> {
        match &self.resolution {
            Some(resolution) => Ok(Asks::Windows(self.windows(resolution, now)?)),
            None if self.values.is_some() => Err(wrong("values goes with resolution")),
            None => Ok(Asks::Records(self.records(now)?)),
        }
    }

    /// With a resolution.
    fn windows(&self, resolution: &str, now: Timestamp) -> Result<AskedWindows, Failure> {
        let window_ms = parse_span(resolution).and_then(|span| i64::try_from(span).ok());
        let window_ms = window_ms.ok_or_else(|| {
            Failure::Query(format!(
                "resolution {resolution:?} is not a length of time: it is written as 500ms, 30s, 1m, 12h or 7d"
            ))
        })?;
        if self.condition.is_some() || self.resume.is_some() || self.max_records.is_some() {
            let reason = "where, resume and max_records do not go with resolution: what was thinned is known as sums";
            return Err(wrong(reason));
        }
        let values = self.values.as_deref().map(values).transpose()?;
        let asked = self.records(now)?;
        let time = |place: Option<Place>| match place {
            Some(Place::Time(time)) => Ok(Some(time)),
            Some(Place::Earliest | Place::Latest) | None => Ok(None),
            Some(_) => Err(wrong("with resolution, from and to are times")),
        };
        if asked.request.from == Place::Latest || asked.request.to == Some(Place::Earliest) {
            return Err(wrong("there is nothing between from and to"));
        }
        let has_no = |column: &Column| matches!(column, Column::Offset | Column::Headers);
        if asked.columns.iter().flat_map(Columns::iter).any(has_no) {
            return Err(wrong("windows have no offset and no headers"));
        }
        Ok(AskedWindows {
            format: asked.format,
            columns: asked.columns,
            summary: asked.summary,
            order: asked.request.order,
            values,
            request: DownsampleRequest {
                window_ms,
                partitions: asked.request.partitions,
                from: time(Some(asked.request.from))?,
                to: time(asked.request.to)?,
                key: asked.request.filter.key,
                values: Vec::new(),
            },
        })
    }

    fn records(&self, now: Timestamp) -> Result<Asked, Failure> {
        let format = match &self.format {
            None => Format::Ndjson,
            Some(name) => Format::parse(name).ok_or_else(|| {
                let known = Format::ALL.map(Format::name).join(", ");
                Failure::Query(format!(
                    "format {name:?} is not known: it is one of {known}"
                ))
            })?,
        };
        if self.summary && format != Format::Ndjson {
            let reason = "summary is for format=ndjson; other formats have it in trailers";
            return Err(Failure::Query(reason.to_owned()));
        }
        let place = |text: &str| {
            let position = Position::parse(text, now);
            position.map_err(|error| Failure::Query(error.to_string()))
        };
        let from = self.from.as_deref().map_or(Ok(Position::Earliest), place)?;
        let to = self.to.as_deref().map(place).transpose()?;
        let columns = self.columns.as_deref().map(Columns::parse).transpose()?;
        Ok(Asked {
            format,
            columns,
            summary: self.summary,
            request: ReplayRequest {
                partitions: self.partition.as_deref().map(partitions).transpose()?,
                from: from.into(),
                to: to.map(Into::into),
                resume: self.resume.as_deref().map_or(Ok(Vec::new()), offsets)?,
                filter: self.filter()?,
                order: match self.order.as_deref() {
                    None | Some("offset") => Order::Offset,
                    Some("time") => Order::Time,
                    Some(other) => {
                        let reason = format!("order {other:?} is not known: it is offset or time");
                        return Err(Failure::Query(reason));
                    }
                },
                max_records: self.max_records,
            },
        })
    }

    fn filter(&self) -> Result<Filter, Failure> {
        let key = match (&self.key, &self.key_prefix) {
            (Some(_), Some(_)) => {
                let reason = "key and key_prefix do not go together";
                return Err(Failure::Query(reason.to_owned()));
            }
            (Some(key), None) => Some(KeyFilter::Is(Bytes::from(key.clone()))),
            (None, Some(prefix)) => Some(KeyFilter::Prefix(Bytes::from(prefix.clone()))),
            (None, None) => None,
        };
        let mut filter = Filter {
            key,
            ..Filter::default()
        };
        if let Some(condition) = &self.condition {
            let condition = Condition::parse(condition)?;
            filter.accept = Some(Arc::new(move |partition, record| {
                condition.is_met(partition, record)
            }));
        }
        Ok(filter)
    }
}

fn wrong(reason: &str) -> Failure {
    Failure::Query(reason.to_owned())
}

/// Values as `thin.tiers` names them, or paths of JSON fields, with commas between.
fn values(text: &str) -> Result<Vec<ValueAt>, Failure> {
    let value = |name: &str| {
        let name = name.trim();
        if name.is_empty() {
            return Err(wrong("a value has no name"));
        }
        Ok(parse_value(name)
            .unwrap_or_else(|| ValueAt::Json(name.split('.').map(str::to_owned).collect())))
    };
    let values: Vec<ValueAt> = text.split(',').map(value).collect::<Result<_, _>>()?;
    if values.len() > VALUES_MAX {
        return Err(Failure::Query(format!(
            "{VALUES_MAX} values can be asked for at most"
        )));
    }
    let is_twice = |at: usize| values[..at].contains(&values[at]);
    match (0..values.len()).any(is_twice) {
        true => Err(wrong("a value is named twice")),
        false => Ok(values),
    }
}

fn partitions(text: &str) -> Result<Vec<PartitionId>, Failure> {
    text.split(',').map(partition).collect()
}

fn partition(text: &str) -> Result<PartitionId, Failure> {
    let number = text
        .trim()
        .parse()
        .ok()
        .filter(|number| *number <= i32::MAX as u32);
    let number =
        number.ok_or_else(|| Failure::Query(format!("{text:?} is no partition's number")))?;
    Ok(PartitionId::new(number))
}

/// `0:12,1:7`, as the header `Next-Offset` has it.
fn offsets(text: &str) -> Result<Vec<(PartitionId, Offset)>, Failure> {
    let offset = |pair: &str| {
        let wrong = || Failure::Query(format!("{pair:?} is not partition:offset"));
        let (of, offset) = pair.trim().split_once(':').ok_or_else(wrong)?;
        let offset = offset
            .parse()
            .ok()
            .and_then(Offset::from_wire)
            .ok_or_else(wrong)?;
        Ok((partition(of)?, offset))
    };
    text.split(',').map(offset).collect()
}

/// The same, the other way round.
pub(super) fn offsets_text(offsets: &[(PartitionId, Offset)]) -> String {
    let texts: Vec<String> = offsets
        .iter()
        .map(|(partition, offset)| format!("{partition}:{offset}"))
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_they_are_written() {
        let pairs = vec![
            (PartitionId::new(0), Offset::new(12)),
            (PartitionId::new(3), Offset::ZERO),
        ];
        assert_eq!(offsets_text(&pairs), "0:12,3:0");
        assert_eq!(offsets("0:12,3:0").expect("offsets"), pairs);
        for wrong in [
            "",
            "0",
            "0:",
            ":1",
            "0:-1",
            "-1:0",
            "0:1;1:2",
            "4294967295:1",
        ] {
            assert!(offsets(wrong).is_err(), "{wrong}");
        }
    }
}
