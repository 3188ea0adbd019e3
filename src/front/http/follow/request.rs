//! What a follower asks for: the part of the path behind `?`, and the headers that count.
//!
//! Caller: `follow_topic`. Invariant: what is not understood is refused; nothing is read before all of it is.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use model::time_spec::Position as Place;
use model::{PartitionId, Timestamp};
use serde::Deserialize;

use super::position::parse;
use crate::broker::Topic;
use crate::broker::replay::{Filter, FollowRequest, KeyFilter, Order};
use crate::front::http::errors::Failure;
use crate::front::pace::Pace;

/// A reader who has nothing to read waits so long for the first record, if it does not say how long.
const WAIT: Duration = Duration::from_secs(10);
/// And no longer than this, whatever it says.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
/// Records of one answer, if its reader does not say how many.
const POLL_RECORDS: u64 = 1_000;
/// The longest pause at a pace.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// No pause is longer, whatever is asked for.
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// The bounds of a speed.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.001..=1e6;

/// The query as it stands.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FollowQuery {
    format: Option<String>,
    from: Option<String>,
    position: Option<String>,
    partition: Option<String>,
    key: Option<String>,
    key_prefix: Option<String>,
    max_records: Option<u64>,
    wait: Option<String>,
    speed: Option<f64>,
    pause_max: Option<String>,
}

/// How it is answered.
#[derive(Debug)]
pub(super) enum Form {
    /// Server-sent events, on and on, at a pace or as they come.
    Events { pace: Option<Pace> },
    /// Lines of JSON, once there are some, or when this time is over.
    Lines { wait: Duration },
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub form: Form,
    pub request: FollowRequest,
    pub max_records: u64,
    /// The topic was created again since the reader was told where to go on.
    pub is_recreated: bool,
}

fn refused(name: &str, value: &str, must: &str) -> Failure {
    Failure::Query(format!("{name}={value:?} {must}"))
}

impl FollowQuery {
    /// What is meant, of a topic of which this is the tag; durations count from `now`.
    pub(super) fn read(
        self,
        headers: &HeaderMap,
        tag: &str,
        topic: &Topic,
        now: Timestamp,
    ) -> Result<Asked, Failure> {
        let form = self.form(headers)?;
        let mut is_recreated = false;
        let resume = match position_in(headers).or(self.position.as_deref()) {
            None => None,
            Some(text) => {
                let (of, places) =
                    parse(text).map_err(|error| Failure::Query(error.to_string()))?;
                is_recreated = of != tag;
                Some(if is_recreated { Vec::new() } else { places })
            }
        };
        let from = match &self.from {
            None => Place::Latest,
            Some(text) => {
                Place::parse(text, now).map_err(|error| Failure::Query(format!("from: {error}")))?
            }
        };
        let partitions = self.partition.as_deref();
        let partitions = partitions
            .map(|text| partitions_of(text, topic))
            .transpose()?;
        let key = match (self.key, self.key_prefix) {
            (Some(_), Some(_)) => {
                let text = "key and key_prefix are one or the other".to_owned();
                return Err(Failure::Query(text));
            }
            (Some(key), None) => Some(KeyFilter::Is(Bytes::from(key))),
            (None, Some(prefix)) => Some(KeyFilter::Prefix(Bytes::from(prefix))),
            (None, None) => None,
        };
        let order = match &form {
            Form::Events { pace: Some(_) } => Order::Time,
            _ => Order::Offset,
        };
        let otherwise = match &form {
            Form::Events { .. } => u64::MAX,
            Form::Lines { .. } => POLL_RECORDS,
        };
        Ok(Asked {
            form,
            request: FollowRequest {
                partitions,
                from: from.into(),
                resume,
                filter: Filter {
                    key,
                    ..Filter::default()
                },
                order,
            },
            max_records: self.max_records.unwrap_or(otherwise),
            is_recreated,
        })
    }

    fn form(&self, headers: &HeaderMap) -> Result<Form, Failure> {
        let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
        let wants_lines = accept.is_some_and(|accept| {
            accept.contains("application/x-ndjson") && !accept.contains("text/event-stream")
        });
        let form = self.format.as_deref();
        match form.unwrap_or(if wants_lines { "ndjson" } else { "sse" }) {
            "sse" => self.events(),
            "ndjson" => self.lines(),
            other => Err(refused("format", other, "is neither sse nor ndjson")),
        }
    }

    fn events(&self) -> Result<Form, Failure> {
        if self.wait.is_some() {
            let text = "wait is for format=ndjson: events come until the reader leaves";
            return Err(Failure::Query(text.to_owned()));
        }
        let pause_max = self.pause_max.as_deref();
        let pause_max = pause_max.map(|text| duration("pause_max", text, YEAR));
        let pause_max = pause_max.transpose()?;
        let pace = match self.speed {
            None if pause_max.is_some() => {
                return Err(Failure::Query("pause_max goes with speed".to_owned()));
            }
            None => None,
            Some(speed) if SPEEDS.contains(&speed) => {
                Some(Pace::new(speed, pause_max.unwrap_or(PAUSE_MAX)))
            }
            Some(speed) => {
                let must = "must be 0.001 to 1000000";
                return Err(refused("speed", &speed.to_string(), must));
            }
        };
        Ok(Form::Events { pace })
    }

    fn lines(&self) -> Result<Form, Failure> {
        if self.speed.is_some() || self.pause_max.is_some() {
            let text = "speed and pause_max are for format=sse: an answer in lines comes at once";
            return Err(Failure::Query(text.to_owned()));
        }
        let wait = self.wait.as_deref();
        let wait = wait
            .map(|text| duration("wait", text, WAIT_MAX))
            .transpose()?;
        Ok(Form::Lines {
            wait: wait.unwrap_or(WAIT),
        })
    }
}

/// Where a reader of events was last, which its client says by itself.
pub(super) fn position_in(headers: &HeaderMap) -> Option<&str> {
    let last = headers.get("last-event-id")?.to_str().ok()?;
    (!last.is_empty()).then_some(last)
}

fn duration(name: &str, text: &str, most: Duration) -> Result<Duration, Failure> {
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    let parsed = parsed.and_then(|it| Duration::try_from(it).ok());
    parsed
        .map(|duration| duration.min(most))
        .ok_or_else(|| refused(name, text, "is no duration such as 10s or 500ms"))
}

fn partitions_of(text: &str, topic: &Topic) -> Result<Vec<PartitionId>, Failure> {
    let partition = |text: &str| {
        let number = text.trim().parse::<u32>().ok();
        number.map(PartitionId::new).filter(|it| topic.has(*it))
    };
    text.split(',')
        .map(|one| partition(one).ok_or_else(|| Failure::NoPartition(one.trim().to_owned())))
        .collect()
}
