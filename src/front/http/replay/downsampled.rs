//! A topic in windows of time (`resolution=`): a row for each partition, key and window, in the formats that a replay has.
//!
//! Caller: the replay's route. All windows are known before the first byte leaves, within a bound, so that what cannot be told is an
//! error and no broken body. Invariant: rows are written as their reader takes them, and what was written is not held twice.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use columnar::{Column, Columns, EncodeError, Encoder, Format, Observer, Row, Schema};
use hyper::body::Frame;
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit};
use model::schema::FieldType;
use model::topic_config::thin::ValueAt;
use model::{PartitionId, Timestamp};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::frames::{Frames, body_of};
use super::look::newest_schema;
use crate::broker::access::{Door, Granted, right};
use crate::broker::replay::{
    DownsampleRequest, Downsampled, DownsampledWindow, Order, Sources, Stats, WindowKey,
};
use crate::broker::{Broker, Topic};
use crate::front::http::errors::Failure;

/// Values that are told at most.
pub(super) const VALUES_MAX: usize = 32;
/// Rows that are encoded at a time.
const ROWS: usize = 1_000;
const TRAILERS: &str = "Alluvium-Records, Alluvium-Scanned-Records, Alluvium-Scanned-Bytes, Alluvium-Skipped-Bytes, Alluvium-Summed-Windows, \
     Alluvium-Gaps";

type ReadTopic = Granted<Arc<Topic>, right::Read>;
type Window = (PartitionId, WindowKey, DownsampledWindow);

/// What is asked, and how it is written.
pub(super) struct AskedWindows {
    pub format: Format,
    pub columns: Option<Columns>,
    pub summary: bool,
    pub order: Order,
    /// None: those that the topic's thinning looks at, or the numbers of its schema.
    pub values: Option<Vec<ValueAt>>,
    /// But for its values.
    pub request: DownsampleRequest,
}

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("the encoder panicked")]
    Panicked,
}

struct Pump {
    topic: Arc<str>,
    windows: VecDeque<Window>,
    names: Arc<[String]>,
    /// None once the body has ended.
    encoder: Option<Encoder>,
    /// The last line, for NDJSON with a summary.
    last_line: Option<String>,
    trailers: Option<HeaderMap>,
    _places: [OwnedSemaphorePermit; 2],
}

/// Tells the windows.
pub(super) async fn answer(
    door: &Door,
    topic: ReadTopic,
    asked: AskedWindows,
    places: [OwnedSemaphorePermit; 2],
) -> Result<Response, Failure> {
    let broker = door.broker();
    let values = match asked.values {
        Some(values) => values,
        None => values_of(broker, &topic).await?,
    };
    let names: Arc<[String]> = values.iter().map(name_of).collect();
    let mut request = asked.request;
    request.values = values;
    let window_ms = request.window_ms;
    let mut found = broker.downsample(&topic, request, door.caller()).await?;
    if asked.order == Order::Time {
        let place = |(partition, at, _): &Window| (at.start, *partition, at.key.clone());
        found.windows.sort_by_cached_key(place);
    }
    let schema = schema_of(&found.windows, &names);
    let columns = asked.columns.unwrap_or_else(|| columns_of(&schema));
    let encoder = Encoder::new(asked.format, Some(&columns), &schema)?;
    let sources = sources_of(&found.windows);
    let mut headers = HeaderMap::new();
    let content_type = HeaderValue::from_static(asked.format.content_type());
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::TRAILER, HeaderValue::from_static(TRAILERS));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "alluvium-sources",
        HeaderValue::from_static(name_of_sources(sources)),
    );
    headers.insert("alluvium-resolution-ms", window_ms.into());
    let pump = Pump {
        topic: topic.name.as_str().into(),
        last_line: asked.summary.then(|| summary_of(&found, sources)),
        trailers: Some(trailers_of(&found)),
        windows: std::mem::take(&mut found.windows).into(),
        names,
        encoder: Some(encoder),
        _places: places,
    };
    Ok((headers, body_of(pump)).into_response())
}

/// The values that are told if none are named.
async fn values_of(broker: &Broker, topic: &ReadTopic) -> Result<Vec<ValueAt>, Failure> {
    let thinned = broker.thinned_values(topic);
    if !thinned.is_empty() {
        return Ok(thinned);
    }
    let schema = newest_schema(broker, topic).await?;
    let numbers = schema
        .fields
        .iter()
        .filter(|field| matches!(field.kind, FieldType::Int | FieldType::Float));
    let paths = numbers.map(|field| field.path.split('.').map(str::to_owned).collect());
    Ok(paths.map(ValueAt::Json).take(VALUES_MAX).collect())
}

/// What a value's columns begin with: the path of a JSON field, as a replay's column has it; else as `thin.tiers` spells it.
fn name_of(value: &ValueAt) -> String {
    match value {
        ValueAt::Json(path) if !path.is_empty() => path.join("."),
        other => other.to_string(),
    }
}

/// What the rows have: the types of all columns, and whether all keys are text.
fn schema_of(windows: &[Window], names: &[String]) -> Schema {
    let one = DownsampledWindow {
        records: 1,
        values: vec![(1, Some(Stats::one(0.5))); names.len()],
        sources: Sources::default(),
    };
    let mut observer = Observer::new(Schema::default());
    observer.observe(None, Some(value_of(1, &one, names).as_bytes()));
    for (_, at, _) in windows {
        observer.observe(at.key.as_deref(), None);
    }
    observer.into_schema()
}

fn columns_of(schema: &Schema) -> Columns {
    let fields = schema.fields.iter();
    [Column::Partition, Column::Key, Column::Timestamp]
        .into_iter()
        .chain(fields.map(|field| Column::Field(field.path.clone())))
        .collect()
}

/// A row's value: JSON, of which the columns are made.
fn value_of(window_ms: i64, window: &DownsampledWindow, names: &[String]) -> String {
    let (records, source) = (window.records, name_of_sources(window.sources));
    let mut text = format!(r#"{{"window_ms":{window_ms},"records":{records},"source":"{source}""#);
    for (name, (count, stats)) in names.iter().zip(&window.values) {
        let number = |of: fn(&Stats, f64) -> f64| {
            let number = stats.as_ref().map(|stats| of(stats, *count as f64));
            json!(number).to_string()
        };
        let (sum, min) = (number(|it, _| it.sum), number(|it, _| it.min));
        let (max, mean) = (number(|it, _| it.max), number(|it, count| it.sum / count));
        let name = json!(name);
        text.push_str(&format!(
            r#",{name}:{{"count":{count},"sum":{sum},"min":{min},"max":{max},"mean":{mean}}}"#
        ));
    }
    text.push('}');
    text
}

fn sources_of(windows: &[Window]) -> Sources {
    let mut all = Sources::default();
    for (_, _, window) in windows {
        all |= window.sources;
    }
    all
}

fn name_of_sources(sources: Sources) -> &'static str {
    match (sources.raw, sources.summary, sources.kept) {
        (false, false, false) => "none",
        (true, false, false) => "raw",
        (false, true, false) => "summary",
        (true, true, false) => "raw+summary",
        (false, false, true) => "kept",
        (true, false, true) => "raw+kept",
        (false, true, true) => "summary+kept",
        (true, true, true) => "raw+summary+kept",
    }
}

fn trailers_of(found: &Downsampled) -> HeaderMap {
    let numbers = [
        ("alluvium-records", found.windows.len() as u64),
        ("alluvium-scanned-records", found.scanned.records),
        ("alluvium-scanned-bytes", found.scanned.bytes),
        ("alluvium-skipped-bytes", found.scanned.skipped_bytes),
        ("alluvium-summed-windows", found.summed_windows),
        ("alluvium-gaps", found.gaps),
    ];
    let mut trailers = HeaderMap::new();
    for (name, number) in numbers {
        trailers.insert(name, number.into());
    }
    trailers
}

fn summary_of(found: &Downsampled, sources: Sources) -> String {
    let summary = json!({ "summary": {
        "records": found.windows.len(), "scanned_records": found.scanned.records, "scanned_bytes": found.scanned.bytes,
        "skipped_bytes": found.scanned.skipped_bytes, "summed_windows": found.summed_windows, "gaps": found.gaps,
        "sources": name_of_sources(sources),
    } });
    format!("{summary}\n")
}

impl Frames for Pump {
    type Broken = Broken;

    const WHAT: &'static str = "an answer in windows";

    fn topic(&self) -> &str {
        &self.topic
    }

    async fn frame(&mut self) -> Result<Option<Frame<Bytes>>, Broken> {
        while let Some(encoder) = self.encoder.take() {
            let count = self.windows.len().min(ROWS);
            let some: Vec<Window> = self.windows.drain(..count).collect();
            let (topic, names) = (Arc::clone(&self.topic), Arc::clone(&self.names));
            let work = move || encode(encoder, &topic, &names, &some);
            let done = tokio::task::spawn_blocking(work).await;
            let (encoder, mut bytes) = done.map_err(|_| Broken::Panicked)??;
            self.encoder = encoder;
            if self.encoder.is_none()
                && let Some(line) = self.last_line.take()
            {
                bytes = [&bytes[..], line.as_bytes()].concat().into();
            }
            if !bytes.is_empty() {
                return Ok(Some(Frame::data(bytes)));
            }
        }
        Ok(self.trailers.take().map(Frame::trailers))
    }
}

/// Writes rows; without any it ends the output. Gives what is ready.
fn encode(
    mut encoder: Encoder,
    topic: &str,
    names: &[String],
    windows: &[Window],
) -> Result<(Option<Encoder>, Bytes), EncodeError> {
    if windows.is_empty() {
        return Ok((None, encoder.finish()?.bytes));
    }
    let mut builder = BatchBuilder::new(Codec::None);
    for (_, at, window) in windows {
        let value = value_of(at.window_ms, window, names);
        let time = Timestamp::from_millis(at.start);
        let pushed = builder.push(time, at.key.as_deref(), Some(value.as_bytes()), &[]);
        pushed.expect("a row is shorter than a batch may be");
    }
    let batch = builder.build().expect("rows are a batch");
    let batch = Batch::parse(batch).expect("it was just built");
    let records = batch.records(DecompressLimit::default());
    let mut records = records.expect("it was just built");
    for (partition, ..) in windows {
        let record = records.next_ref().expect("a record for each row");
        let row = Row {
            topic,
            partition: *partition,
            record: record.expect("it was just built"),
        };
        encoder.push(&row)?;
    }
    let bytes = encoder.ready().unwrap_or_default();
    Ok((Some(encoder), bytes))
}
