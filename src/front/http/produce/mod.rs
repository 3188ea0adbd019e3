//! Produce over HTTP, at `/api/v1/topics/{topic}/records`: bodies of rows become records. The page `docs/http-api.md` describes it.
//!
//! Callers: `http::routes`. Invariants: a value's bytes are the row's; what an answer says is written is durable; a body of any
//! length needs bounded memory, and one that comes slowly holds nothing open: what is whole is published as it comes.

mod array;
mod arrow;
mod body;
mod concat;
mod fault;
mod field;
mod foreign;
mod format;
mod lines;
mod options;
mod proxy;
mod proxy_record;
mod reader;
mod report;
mod rows;
mod table;
mod time;
mod topic;
mod whole;

use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use model::{Offset, PartitionId};
use serde_json::Value;
use sha2::Sha256;

use super::errors;
use super::routes::{Operation, Routes};
use super::schema::{anything, integer_from, list, object, text};
use super::state::Front;
use crate::broker::access::{Door, ResourceKind, Right};
use crate::broker::once::{Begun, OnceTicket};
use crate::broker::publish::{DoneOnce, Outgoing, PublishRefusal, Together};
use body::BodyReader;
pub(super) use body::Memory;
use fault::RowFault;
pub(super) use fault::Stop;
pub(super) use foreign::read_foreign;
use options::{OnError, Options};
use reader::Format;
use report::OnTheWay;
pub(super) use report::Report;
use rows::{Rows, Template};
use topic::{Written, writable};

/// Where records are brought.
const RECORDS: &str = "/api/v1/topics/{topic}/records";
/// Rows of one body that may be on their way to the disk.
const ROWS_ON_THE_WAY_MAX: usize = 20_000;
/// Rows that are published at a time: a piece holds their topic's lanes for as long as it takes to copy it.
const PIECE_ROWS: usize = 1_000;
/// What a row that is not whole may hold without asking.
const ROW_BYTES_FREE: usize = 64 << 10;

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "records", summary);
    let span = object([
        ("partition", integer_from(0)),
        ("base_offset", integer_from(0)),
        ("end_offset", integer_from(0)),
        ("records", integer_from(1)),
    ]);
    let fault = object([
        ("line", integer_from(1)),
        ("code", text()),
        ("detail", text()),
    ]);
    let written = object([
        ("topic", text()),
        ("records", integer_from(0)),
        ("offsets", list(span)),
        ("refused", integer_from(0)),
        ("errors", list(fault)),
        ("errors_left_out", integer_from(0)),
    ]);
    let body = vec![
        ("application/x-ndjson", text()),
        ("application/json", anything()),
        ("text/csv", text()),
        ("application/octet-stream", text()),
        ("application/vnd.apache.arrow.stream", text()),
    ];
    Routes::new().post(
        RECORDS,
        produce,
        of("produceRecords", "Writes each row of the body as a record")
            .details("What is answered as written is durable. Rows that are no records are named, and the others are written, unless on_error=reject.")
            .needs(ResourceKind::Topic, Right::Write)
            .path("topic", text(), "the topic's name")
            .query("format", text(), "ndjson, json, csv, raw or arrow, if the content type does not say it")
            .query("partition", integer_from(0), "the partition of every record")
            .query("key", text(), "the key of every record; also as header Alluvium-Key")
            .query("key_field", text(), "where the key stands in each row, as /device")
            .query("timestamp", text(), "the timestamp of every record; also as header Alluvium-Timestamp")
            .query("timestamp_field", text(), "where the timestamp stands in each row")
            .query("timestamp_unit", text(), "s, ms, us, ns or rfc3339; needed with a timestamp")
            .query("header", text(), "a header of every record, as name: value; may be repeated; also as header Alluvium-Header")
            .query("on_error", text(), "skip (the good rows are written) or reject (nothing is, if a row is bad)")
            .query("delimiter", text(), "of CSV: one character, or tab")
            .query("value_column", text(), "of CSV and Arrow: the column that is the value, in place of all as an object")
            .header("Content-Encoding", text(), "gzip or zstd")
            .header("Idempotency-Key", text(), "sent again with the same key, the body is written once")
            .takes("rows", body)
            .answers_json(200, "every row is written", written)
            .refuses(400, "invalid_query, invalid_body")
            .refuses(404, "unknown_topic")
            .refuses(408, "body_late")
            .refuses(413, "body_too_large, body_inflates")
            .refuses(409, "idempotency_key_running")
            .refuses(415, "unsupported_media_type, unsupported_encoding")
            .refuses(422, "records_refused, idempotency_key_reused")
            .refuses(429, "too_many_idempotency_keys")
            .refuses(503, "overloaded, storage, not_enough_replicas")
            .refuses(507, "disk_full"),
    )
    .merge(proxy::routes())
}

async fn produce(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    topic: Result<Path<String>, PathRejection>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    body: Body,
) -> Response {
    let mut report = Report::default();
    let name = topic.map(|Path(topic)| topic).unwrap_or_default();
    let query = query.map(|Query(pairs)| pairs);
    let query = query.map_err(|rejection| Stop::Query(rejection.body_text()));
    let done = match query.and_then(|query| Options::read(query, &headers)) {
        Ok(options) => take(&front, &door, &name, options, body, &mut report).await,
        Err(stop) => Err(stop),
    };
    let mut fields = report.fields();
    fields.shift_insert(0, "topic".to_owned(), name.as_str().into());
    match done {
        Ok(Taken::Now) => Json(Value::Object(fields)).into_response(),
        Ok(Taken::Before(answer)) => again(&name, &answer),
        Err(stop) => errors::stopped(&stop, fields),
    }
}

/// What was done of a body.
enum Taken {
    /// It was written.
    Now,
    /// It was written before, and this was answered.
    Before(Arc<str>),
}

/// The answer of a request that was done before.
fn again(name: &str, answer: &str) -> Response {
    let mut fields: serde_json::Map<String, Value> = match serde_json::from_str(answer) {
        Ok(fields) => fields,
        Err(error) => return errors::internal(&error),
    };
    fields.shift_insert(0, "topic".to_owned(), name.into());
    let refused = fields.get("refused").and_then(Value::as_u64);
    let mut answer = match refused {
        Some(refused) if refused > 0 => errors::stopped(&Stop::SomeRefused { refused }, fields),
        _ => Json(Value::Object(fields)).into_response(),
    };
    let replayed = HeaderValue::from_static("true");
    answer
        .headers_mut()
        .insert("idempotency-replayed", replayed);
    answer
}

/// Takes the body, and says in the report what has become of it.
async fn take(
    front: &Front,
    door: &Door,
    name: &str,
    options: Options,
    body: Body,
    report: &mut Report,
) -> Result<Taken, Stop> {
    let topic = writable(door, name).await?;
    let mut reader = BodyReader::new(body, &options.encoding, &front.bodies).await?;
    let row_bytes_max = usize::try_from(topic.config.max_message_bytes).unwrap_or(usize::MAX);
    let template = &options.template;
    let format = options.kind.reader(template, &options.table, row_bytes_max);
    let mut intake = Intake {
        door,
        topic: &topic,
        template,
        on_the_way: OnTheWay::default(),
        report,
    };
    let memory = front.bodies.holder();
    let read = match (options.once, options.on_error) {
        (None, OnError::Skip) => intake.read(&mut reader, format, memory).await,
        (None, OnError::Reject) => intake.read_whole(&mut reader, format, memory).await,
        (Some(once), on_error) => {
            intake
                .read_once(&mut reader, format, memory, (once, on_error))
                .await
        }
    };
    // Whatever ended the body: what was published is told.
    let written = intake.on_the_way.wait_down_to(0, intake.report).await;
    match written.map_err(Stop::Refused).and(read) {
        Ok(Taken::Now) if report.refused > 0 => Err(Stop::SomeRefused {
            refused: report.refused,
        }),
        done => done,
    }
}

/// A body on its way into the log.
struct Intake<'a> {
    door: &'a Door,
    topic: &'a Written,
    template: &'a Template,
    on_the_way: OnTheWay,
    report: &'a mut Report,
}

impl Intake<'_> {
    async fn read(
        &mut self,
        reader: &mut BodyReader,
        mut format: Box<dyn Format>,
        mut memory: body::Held,
    ) -> Result<Taken, Stop> {
        let mut rows = Rows::default();
        loop {
            let bytes = reader.next().await?;
            let fed = match &bytes {
                Some(bytes) => format.feed(bytes, &mut rows),
                None => format.finish(&mut rows),
            };
            self.publish(&mut rows).await?;
            fed?;
            if format.held() > ROW_BYTES_FREE {
                // A buffer grows by doubling.
                memory.grow_to(2 * format.held())?;
            }
            if bytes.is_none() {
                return Ok(Taken::Now);
            }
        }
    }

    /// Reads all rows before any is published.
    async fn gather(
        &mut self,
        reader: &mut BodyReader,
        mut format: Box<dyn Format>,
        memory: &mut body::Held,
    ) -> Result<Rows, Stop> {
        let bytes_max = self.door.broker().together_bytes_max();
        let mut rows = Rows::default();
        loop {
            let bytes = reader.next().await?;
            match &bytes {
                Some(bytes) => format.feed(bytes, &mut rows)?,
                None => format.finish(&mut rows)?,
            }
            for (line, fault) in rows.faults.drain(..) {
                self.report.refuse(line, &fault);
            }
            if rows.held() as u64 > bytes_max {
                let what = "a body that is written whole or not at all takes, by what one frame of the log takes,";
                return Err(Stop::TooLarge { what, bytes_max });
            }
            memory.grow_to(2 * (format.held() + rows.held()))?;
            if bytes.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Publishes all rows together, if none is bad.
    async fn read_whole(
        &mut self,
        reader: &mut BodyReader,
        format: Box<dyn Format>,
        mut memory: body::Held,
    ) -> Result<Taken, Stop> {
        let rows = self.gather(reader, format, &mut memory).await?;
        self.publish_together(&rows, OnError::Reject, None).await
    }

    /// Publishes all rows together, if that was not done before.
    async fn read_once(
        &mut self,
        reader: &mut BodyReader,
        format: Box<dyn Format>,
        mut memory: body::Held,
        ((name, hash), on_error): ((String, Sha256), OnError),
    ) -> Result<Taken, Stop> {
        reader.hash(hash);
        let rows = self.gather(reader, format, &mut memory).await?;
        let fingerprint = reader.hashed().expect("the body was hashed");
        match self
            .door
            .broker()
            .begin_once(self.topic, &name, fingerprint)?
        {
            Begun::Answered(answer) => Ok(Taken::Before(answer)),
            Begun::Now(ticket) => self.publish_together(&rows, on_error, Some(ticket)).await,
        }
    }

    async fn publish_together(
        &mut self,
        rows: &Rows,
        on_error: OnError,
        ticket: Option<OnceTicket>,
    ) -> Result<Taken, Stop> {
        let broker = self.door.broker();
        let headers = self.template.header_refs();
        let own = rows.own_headers(&headers);
        let outgoing: Vec<Outgoing<'_>> = rows.outgoing(self.template, &headers, &own).collect();
        let refusals = broker
            .refusals(self.topic, &outgoing)
            .map_err(Stop::Refused)?;
        let mut is_good = vec![true; outgoing.len()];
        for (index, refusal) in refusals {
            is_good[index] = false;
            self.refuse(rows.line(index), refusal)?;
        }
        let refused = self.report.refused;
        if on_error == OnError::Reject && refused > 0 {
            return Err(Stop::AllRefused { refused });
        }
        let good = |index: &usize| is_good[*index];
        let good: Vec<usize> = (0..outgoing.len()).filter(good).collect();
        let outgoing: Vec<Outgoing<'_>> = good.iter().map(|index| outgoing[*index]).collect();
        let report = &*self.report;
        let answer = |ranges: &[(PartitionId, Range<Offset>)]| {
            Value::Object(report.placed(ranges).fields()).to_string()
        };
        let once = ticket.map(|ticket| DoneOnce {
            ticket,
            answer: &answer,
        });
        let together = broker.publish_together(self.topic, &outgoing, once).await;
        match together.map_err(Stop::Refused)? {
            // The topic's rules changed this moment.
            Together::Refused(refusals) => {
                for (index, refusal) in refusals {
                    self.refuse(rows.line(good[index]), refusal)?;
                }
                let refused = self.report.refused;
                Err(Stop::AllRefused { refused })
            }
            Together::Publishing(publishing) => {
                for (index, publishing) in good.into_iter().zip(publishing) {
                    self.on_the_way.push(rows.line(index), publishing);
                }
                Ok(Taken::Now)
            }
        }
    }

    /// Publishes the rows, and waits while too many are on their way.
    async fn publish(&mut self, rows: &mut Rows) -> Result<(), Stop> {
        for (line, fault) in rows.faults.drain(..) {
            self.report.refuse(line, &fault);
        }
        let headers = self.template.header_refs();
        let own = rows.own_headers(&headers);
        let outgoing: Vec<Outgoing<'_>> = rows.outgoing(self.template, &headers, &own).collect();
        let mut lines = rows.lines();
        for piece in outgoing.chunks(PIECE_ROWS) {
            let published = self.door.broker().publish_all(self.topic, piece).await;
            let published = published.map_err(Stop::Refused)?;
            // In this order: what is zipped first is asked first, and a line that is taken is gone.
            for (publishing, line) in published.into_iter().zip(lines.by_ref()) {
                match publishing {
                    Ok(publishing) => self.on_the_way.push(line, publishing),
                    Err(refusal) => self.refuse(line, refusal)?,
                }
            }
            self.on_the_way
                .wait_down_to(ROWS_ON_THE_WAY_MAX, self.report)
                .await
                .map_err(Stop::Refused)?;
        }
        drop((outgoing, lines));
        drop(own);
        rows.clear();
        Ok(())
    }

    /// A row that the topic does not take. What is no row's fault ends the body.
    fn refuse(&mut self, line: u64, refusal: PublishRefusal) -> Result<(), Stop> {
        self.report
            .refuse(line, &RowFault::Refused(refusal.clone()));
        match refusal {
            PublishRefusal::Record(_) | PublishRefusal::TooLarge { .. } => Ok(()),
            PublishRefusal::TooMuch { .. }
            | PublishRefusal::Retained(_)
            | PublishRefusal::Refused(_)
            | PublishRefusal::Abandoned => Err(Stop::Refused(refusal)),
        }
    }
}
