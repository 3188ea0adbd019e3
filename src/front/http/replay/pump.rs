//! Writes a replay as the body of an answer: encodes where that may take time, reads on meanwhile, and hands on what is ready.
//!
//! A format of batches is encoded in parts, as many at a time as there are cores, so that all of them work for one reader; any other
//! a block at a time. Caller: the route. Invariants: the first bytes leave only when the columns are known; a body ends well only if
//! all rows are in it, in their order; what is held is bounded by the parts that are under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use columnar::{Counts, EncodeError, Encoded, Encoder, Format, Part, Row, Schema};
use hyper::body::Frame;
use model::PartitionId;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::asked::{Asked, offsets_text};
use super::frames::{Frames, body_of};
use super::look::{learn, newest_schema, seen_in, some_records};
use crate::broker::access::{Door, Granted, right};
use crate::broker::replay::{Block, Place, Replay, ReplayError, ReplayRecord};
use crate::broker::{Broker, Topic};
use crate::front::http::errors::Failure;

/// Records that are looked at before the columns are fixed, if they come soon.
const LOOK_RECORDS: usize = 4_096;
/// How long it is waited for them.
const LOOK_TIME: Duration = Duration::from_secs(2);
/// Bytes of records of a part, about.
const PART_BYTES: usize = 2 << 20;
/// So many parts are made at a time at most, beside the one that waits for its turn.
const CORES_MAX: usize = 4;
/// With so many records more the schema is told what was seen, so that a reader that leaves early has taught something.
const LEARN_RECORDS: u64 = 1_000_000;

const NEXT_OFFSET: HeaderName = HeaderName::from_static("next-offset");
/// What stands in trailers, beside `Next-Offset`.
const TRAILERS: &str = "Next-Offset, Alluvium-Records, Alluvium-Scanned-Records, Alluvium-Scanned-Bytes, \
                        Alluvium-Skipped-Bytes, Alluvium-Undecodable, Alluvium-Unfit, Alluvium-New-Fields, Alluvium-Gaps";

type ReadTopic = Granted<Arc<Topic>, right::Read>;

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("the encoder panicked")]
    Panicked,
}

struct Pump {
    broker: Broker,
    topic: ReadTopic,
    replay: Replay,
    /// Read before the columns were fixed.
    held: VecDeque<Block>,
    /// Read while the block before it was encoded.
    ahead: Option<Result<Option<Block>, ReplayError>>,
    /// Parts that are being made, in the order of their rows.
    making: VecDeque<JoinHandle<Result<Part, (EncodeError, Schema)>>>,
    making_max: usize,
    /// All of it was read.
    is_read: bool,
    /// None once the body has ended.
    encoder: Option<Encoder>,
    summary: bool,
    /// What is left to say.
    trailers: Option<HeaderMap>,
    learn_at: u64,
    _place: OwnedSemaphorePermit,
}

/// Begins a replay; the answer goes on with it.
pub(super) async fn answer(
    door: &Door,
    topic: ReadTopic,
    asked: Asked,
    place: OwnedSemaphorePermit,
) -> Result<Response, Failure> {
    let Asked {
        format,
        columns,
        summary,
        request,
    } = asked;
    let is_bounded = request.max_records.is_some();
    let from = request.from;
    let broker = door.broker().clone();
    let mut replay = broker.replay(&topic, request).await?;
    replay.open_as(&topic, door.caller());
    let mut held = VecDeque::new();
    let schema = match format.needs_schema() {
        true => look(&broker, &topic, from, &mut replay, &mut held).await?,
        false => broker.schema(&topic),
    };
    let encoder = Encoder::new(format, columns.as_ref(), &schema)?;
    let mut headers = HeaderMap::new();
    let content_type = HeaderValue::from_static(format.content_type());
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::TRAILER, HeaderValue::from_static(TRAILERS));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("alluvium-schema-version", schema.version.into());
    if !is_bounded {
        headers.insert(NEXT_OFFSET, text_value(offsets_text(&replay.ends())));
    }
    if format != Format::Ndjson {
        headers.insert(header::CONTENT_DISPOSITION, disposition(&topic, format));
    }
    let pump = Pump {
        broker,
        topic,
        replay,
        held,
        ahead: None,
        making: VecDeque::new(),
        making_max: std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(CORES_MAX)
            + 1,
        is_read: false,
        encoder: Some(encoder),
        summary,
        trailers: None,
        learn_at: LEARN_RECORDS,
        _place: place,
    };
    Ok((headers, body_of(pump)).into_response())
}

/// Reads the beginning, and fixes the columns: what is known of the topic, what its newest records have, and what is seen here, in
/// each partition.
async fn look(
    broker: &Broker,
    topic: &ReadTopic,
    from: Place,
    replay: &mut Replay,
    held: &mut VecDeque<Block>,
) -> Result<Arc<Schema>, Failure> {
    let known = newest_schema(broker, topic).await?;
    let until = tokio::time::Instant::now() + LOOK_TIME;
    let mut records = 0;
    while records < LOOK_RECORDS {
        // A call that is given up loses nothing.
        match tokio::time::timeout_at(until, replay.next()).await {
            Ok(Ok(Some(block))) => {
                records += block.len();
                held.push_back(block);
            }
            Ok(Ok(None)) | Err(_) => break,
            Ok(Err(error)) => return Err(error.into()),
        }
    }
    let mut blocks: Vec<Block> = held.iter().cloned().collect();
    let partitions: Vec<PartitionId> = replay.ends().into_iter().map(|(it, _)| it).collect();
    if partitions.len() > 1 {
        blocks.extend(some_records(broker, topic, &partitions, from).await?);
    }
    let seen = tokio::task::spawn_blocking(move || seen_in(Schema::clone(&known), &blocks)).await;
    let seen = seen.map_err(|error| Failure::Internal(std::io::Error::other(error)))?;
    Ok(learn(broker, topic, seen).await)
}

fn row_of<'a>(topic: &'a Topic, found: ReplayRecord<'a>) -> Row<'a> {
    Row {
        topic: topic.name.as_str(),
        partition: found.partition,
        record: found.record,
    }
}

impl Frames for Pump {
    type Broken = Broken;

    const WHAT: &'static str = "a replay";

    fn topic(&self) -> &str {
        self.topic.name.as_str()
    }

    async fn frame(&mut self) -> Result<Option<Frame<Bytes>>, Broken> {
        while self.encoder.is_some() {
            self.make_parts().await?;
            let bytes = match self.making.pop_front() {
                Some(made) => self.put(made).await?,
                None => match self.next_block().await? {
                    Some(block) => self.encode(block).await?,
                    None => Some(self.finish().await?),
                },
            };
            if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                return Ok(Some(Frame::data(bytes)));
            }
        }
        Ok(self.trailers.take().map(Frame::trailers))
    }
}

impl Pump {
    async fn next_block(&mut self) -> Result<Option<Block>, ReplayError> {
        match (self.held.pop_front(), self.ahead.take()) {
            (Some(block), ahead) => {
                self.ahead = ahead;
                Ok(Some(block))
            }
            (None, Some(ahead)) => ahead,
            (None, None) => self.replay.next().await,
        }
    }

    /// Runs work on the encoder where it may take time, and reads on meanwhile. The encoder is given back but where the work has ended
    /// it.
    async fn with_encoder<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(Encoder) -> (Option<Encoder>, T) + Send + 'static,
    ) -> Result<T, Broken> {
        let encoder = self.encoder.take().expect("the body has not ended");
        let done = tokio::task::spawn_blocking(move || work(encoder));
        if self.held.is_empty() && self.ahead.is_none() {
            self.ahead = Some(self.replay.next().await);
        }
        let (encoder, done) = done.await.map_err(|_| Broken::Panicked)?;
        self.encoder = encoder;
        Ok(done)
    }

    /// Has the next rows made into parts, if the format has any, as many as are made at a time.
    async fn make_parts(&mut self) -> Result<(), ReplayError> {
        while self.making.len() < self.making_max && !self.is_read {
            let encoder = self.encoder.as_mut();
            let part = encoder.expect("the body has not ended").part();
            let Some(mut part) = part else { return Ok(()) };
            let (mut blocks, mut bytes) = (Vec::new(), 0);
            while bytes < PART_BYTES {
                let Some(block) = self.next_block().await? else {
                    self.is_read = true;
                    break;
                };
                bytes += block.memory_bytes();
                blocks.push(block);
            }
            if blocks.is_empty() {
                return Ok(());
            }
            let topic = Arc::clone(&self.topic);
            self.making.push_back(tokio::task::spawn_blocking(move || {
                for found in blocks.iter().flat_map(Block::iter) {
                    let row = row_of(&topic, found);
                    if let Err(error) = part.push(&row) {
                        return Err((error, part.into_schema()));
                    }
                }
                Ok(part)
            }));
        }
        Ok(())
    }

    /// Puts a part behind what there is.
    async fn put(
        &mut self,
        made: JoinHandle<Result<Part, (EncodeError, Schema)>>,
    ) -> Result<Option<Bytes>, Broken> {
        let part = match made.await.map_err(|_| Broken::Panicked)? {
            Ok(part) => part,
            Err((error, seen)) => {
                learn(&self.broker, &self.topic, seen).await;
                return Err(error.into());
            }
        };
        let work = move |mut encoder: Encoder| match encoder.put(part) {
            Ok(()) => {
                let bytes = encoder.ready();
                (Some(encoder), Ok(bytes))
            }
            Err(error) => (None, Err(error)),
        };
        let bytes = self.with_encoder(work).await??;
        self.learn_meanwhile().await;
        Ok(bytes)
    }

    async fn encode(&mut self, block: Block) -> Result<Option<Bytes>, Broken> {
        let topic = Arc::clone(&self.topic);
        let work = move |mut encoder: Encoder| {
            for found in block.iter() {
                let row = row_of(&topic, found);
                if let Err(error) = encoder.push(&row) {
                    return (None, Err((error, encoder.into_schema())));
                }
            }
            let bytes = encoder.ready();
            (Some(encoder), Ok(bytes))
        };
        match self.with_encoder(work).await? {
            Ok(bytes) => {
                self.learn_meanwhile().await;
                Ok(bytes)
            }
            Err((error, seen)) => {
                learn(&self.broker, &self.topic, seen).await;
                Err(error.into())
            }
        }
    }

    /// Tells the schema what was seen, now and then.
    async fn learn_meanwhile(&mut self) {
        let Some(encoder) = &self.encoder else { return };
        if encoder.counts().rows < self.learn_at {
            return;
        }
        self.learn_at += LEARN_RECORDS;
        let seen = encoder.schema().clone();
        learn(&self.broker, &self.topic, seen).await;
    }

    async fn finish(&mut self) -> Result<Bytes, Broken> {
        let ended = self
            .with_encoder(|encoder| (None, encoder.finish()))
            .await??;
        let Encoded {
            bytes,
            counts,
            schema,
        } = ended;
        learn(&self.broker, &self.topic, schema).await;
        self.trailers = Some(self.trailers_of(counts));
        if !self.summary {
            return Ok(bytes);
        }
        let mut with_summary = Vec::from(bytes);
        with_summary.extend_from_slice(self.summary_of(counts).as_bytes());
        Ok(with_summary.into())
    }

    fn trailers_of(&self, counts: Counts) -> HeaderMap {
        let scanned = self.replay.scanned();
        let (gaps, more_gaps) = self.replay.gaps();
        let gaps = gaps.len() as u64 + more_gaps;
        let mut trailers = HeaderMap::new();
        let next = offsets_text(&self.replay.next_offsets());
        trailers.insert(NEXT_OFFSET, text_value(next));
        let numbers = [
            ("alluvium-records", counts.rows),
            ("alluvium-scanned-records", scanned.records),
            ("alluvium-scanned-bytes", scanned.bytes),
            ("alluvium-skipped-bytes", scanned.skipped_bytes),
            ("alluvium-undecodable", counts.undecodable),
            ("alluvium-unfit", counts.unfit),
            ("alluvium-new-fields", counts.new_fields),
            ("alluvium-gaps", gaps),
        ];
        for (name, number) in numbers {
            trailers.insert(name, number.into());
        }
        trailers
    }

    fn summary_of(&self, counts: Counts) -> String {
        let scanned = self.replay.scanned();
        let next: serde_json::Map<_, _> = self
            .replay
            .next_offsets()
            .into_iter()
            .map(|(partition, offset)| (partition.to_string(), offset.get().into()))
            .collect();
        let (gaps, more_gaps) = self.replay.gaps();
        let gaps: Vec<_> = gaps
            .iter()
            .map(|gap| {
                json!({
                    "partition": gap.partition.get(), "from": gap.offsets.start.get(), "to": gap.offsets.end.get(),
                    "missing": gap.missing, "reason": gap.reason.name(),
                })
            })
            .collect();
        let summary = json!({ "summary": {
            "records": counts.rows, "scanned_records": scanned.records, "scanned_bytes": scanned.bytes,
            "skipped_bytes": scanned.skipped_bytes, "cleaned_offsets": scanned.cleaned, "late_records": scanned.late,
            "next_offset": next, "gaps": gaps, "more_gaps": more_gaps,
        } });
        format!("{summary}\n")
    }
}

fn text_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits, colons and commas are a header's value")
}

/// What a browser saves it as.
fn disposition(topic: &Topic, format: Format) -> HeaderValue {
    let name = format!(
        "inline; filename=\"{}.{}\"",
        topic.name.as_str(),
        format.name()
    );
    HeaderValue::try_from(name).expect("a topic's name is of letters, digits and . _ -")
}
