//! Produce as Confluent's REST proxy has it: version 2 at `/topics/{topic}`, version 3 at `/v3/clusters/{cluster_id}/topics/{topic}/records`.
//!
//! Callers: `http::routes`. Source: Confluent's reference of both versions. Invariants: a report with an offset is of a durable
//! record; reports come in the order of the records. Version 3 answers while the request goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use model::{Offset, PartitionId, Timestamp};
use serde_json::{Value, json};

use super::body::{BodyReader, Held};
use super::concat::Objects;
use super::fault::Stop;
use super::proxy_record::{Form, ProxyRecord, read_batch, read_second, read_third};
use super::topic::{Written, writable};
use crate::broker::Broker;
use crate::broker::access::{Door, ResourceKind, Right};
use crate::broker::publish::{Outgoing, PublishRefusal, Publishing};
use crate::front::http::errors::{self, ProxyFault};
use crate::front::http::request::At;
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{Schema, anything, integer, integer_from, list, object, text};
use crate::front::http::state::Front;

/// The longest body that is read whole.
const BODY_BYTES_MAX: usize = 8 << 20;
/// The content type of version 2's answers.
const SECOND: &str = "application/vnd.kafka.v2+json";
/// What else answers are called if a client accepts nothing newer: the clients of the registries speak version 1, whose produce
/// is the same but for its name.
const OLDER: [&str; 3] = [
    "application/vnd.kafka.v1+json",
    "application/vnd.kafka+json",
    "application/json",
];
/// Records of one request of version 3 that may be on their way to the disk.
const REPORTS_OPEN_MAX: usize = 10_000;

pub(super) fn routes() -> Routes {
    let of = |id, summary| {
        Operation::new(id, "rest-proxy", summary)
            .told_as_proxy()
            .needs(ResourceKind::Topic, Right::Write)
            .path("topic", text(), "the topic's name")
    };
    let offset = object([
        ("partition", integer_from(0).or_null()),
        ("offset", integer_from(0).or_null()),
        ("error_code", integer().or_null()),
        ("error", text().or_null()),
    ]);
    let offsets = || {
        object([
            ("offsets", list(offset.clone())),
            ("key_schema_id", integer().or_null()),
            ("value_schema_id", integer().or_null()),
        ])
    };
    let records = || object([("records", list(anything()))]);
    let second = |operation: Operation| {
        operation
            .takes(
                "records, as JSON or in base64",
                vec![
                    ("application/vnd.kafka.json.v2+json", records()),
                    ("application/vnd.kafka.binary.v2+json", records()),
                    ("application/vnd.kafka.json.v1+json", records()),
                    ("application/vnd.kafka.binary.v1+json", records()),
                ],
            )
            .answers(200, "an offset or an error for each record", {
                let types = std::iter::once(SECOND).chain(OLDER);
                types.map(|kind| (kind, offsets())).collect()
            })
            .refuses(404, "40401, 40402")
            .refuses(415, "415")
            .refuses(422, "422")
    };
    let third = |operation: Operation| {
        operation
            .path("cluster_id", text(), "the cluster's id")
            .refuses(404, "404, 40403")
    };
    Routes::new()
        .post(
            "/topics/{topic}",
            produce_second,
            second(of("proxyProduce", "Writes records, version 2")),
        )
        .post(
            "/topics/{topic}/partitions/{partition}",
            produce_second_partition,
            second(of(
                "proxyProducePartition",
                "Writes records to a partition, version 2",
            ))
            .path("partition", integer_from(0), "the partition"),
        )
        .post(
            "/v3/clusters/{cluster_id}/topics/{topic}/records",
            produce_third,
            third(of(
                "proxyProduceStream",
                "Writes records as they come, version 3",
            ))
            .takes_json("records, one JSON object after the other", anything())
            .answers_json(
                200,
                "a report for each record, one JSON object after the other",
                report_schema(),
            ),
        )
        .post(
            "/v3/clusters/{cluster_id}/topics/{topic}/records:batch",
            produce_batch,
            third(of("proxyProduceBatch", "Writes records, version 3"))
                .takes_json("records with ids", object([("entries", list(anything()))]))
                .answers_json(
                    207,
                    "a report for each record",
                    object([
                        ("successes", list(anything())),
                        ("failures", list(anything())),
                    ]),
                )
                .refuses(400, "400"),
        )
}

fn report_schema() -> Schema {
    object([("error_code", integer())]).optional([
        ("message", text()),
        ("cluster_id", text()),
        ("topic_name", text()),
        ("partition_id", integer_from(0)),
        ("offset", integer_from(0)),
        ("timestamp", text()),
        ("key", anything()),
        ("value", anything()),
    ])
}

/// Reads a body whole.
async fn whole(front: &Front, headers: &HeaderMap, body: Body) -> Result<(String, Held), Stop> {
    let mut reader = reader(front, headers, body).await?;
    let mut memory = front.bodies.holder();
    let mut whole = Vec::new();
    while let Some(bytes) = reader.next().await? {
        if whole.len() + bytes.len() > BODY_BYTES_MAX {
            let what = "a body that is read whole has";
            let bytes_max = BODY_BYTES_MAX as u64;
            return Err(Stop::TooLarge { what, bytes_max });
        }
        whole.extend_from_slice(&bytes);
        // The body, its parts, and the batch.
        memory.grow_to(3 * whole.len())?;
    }
    let text = String::from_utf8(whole).map_err(|error| Stop::Body(error.to_string()))?;
    Ok((text, memory))
}

async fn reader(front: &Front, headers: &HeaderMap, body: Body) -> Result<BodyReader, Stop> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    let encoding = encoding.map_or(Ok(""), |encoding| encoding.to_str());
    let encoding = encoding.map_err(|_| Stop::Encoding("not ASCII".to_owned()))?;
    BodyReader::new(body, encoding, &front.bodies).await
}

/// How version 2 says what a body holds.
fn form_of(headers: &HeaderMap) -> Result<Form, ProxyFault> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    match kind.to_ascii_lowercase().as_str() {
        "application/vnd.kafka.json.v2+json" | "application/vnd.kafka.json.v1+json" => {
            Ok(Form::Json)
        }
        "application/vnd.kafka.binary.v2+json" | "application/vnd.kafka.binary.v1+json" => {
            Ok(Form::Binary)
        }
        other if other == SECOND || OLDER.contains(&other) => Ok(Form::Binary),
        _ => Err(ProxyFault::ContentType(kind.to_owned())),
    }
}

/// What an answer is called, for this client.
fn answer_type(headers: &HeaderMap) -> &'static str {
    let accepts: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or("").trim())
        .collect();
    let named = |kind: &&str| accepts.iter().any(|it| it.eq_ignore_ascii_case(kind));
    if named(&SECOND) {
        return SECOND;
    }
    OLDER.into_iter().find(named).unwrap_or(SECOND)
}

async fn produce_second(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At(topic): At<String>,
    body: Body,
) -> Response {
    let answer = second(&front, &door, (&topic, None), &headers, body).await;
    answer.unwrap_or_else(|fault| errors::proxy_refused(&fault, answer_type(&headers)))
}

async fn produce_second_partition(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((topic, partition)): At<(String, u32)>,
    body: Body,
) -> Response {
    let partition = Some(PartitionId::new(partition));
    let answer = second(&front, &door, (&topic, partition), &headers, body).await;
    answer.unwrap_or_else(|fault| errors::proxy_refused(&fault, answer_type(&headers)))
}

async fn second(
    front: &Front,
    door: &Door,
    (name, partition): (&str, Option<PartitionId>),
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ProxyFault> {
    let form = form_of(headers)?;
    let topic = writable(door, name).await.map_err(ProxyFault::Second)?;
    if partition.is_some_and(|partition| !topic.has(partition)) {
        return Err(ProxyFault::UnknownPartition);
    }
    let (body, _memory) = whole(front, headers, body)
        .await
        .map_err(ProxyFault::Second)?;
    let mut records = read_second(&body, form).map_err(ProxyFault::Invalid)?;
    if records.is_empty() {
        let detail = "records is empty: there is nothing to write";
        return Err(ProxyFault::Invalid(detail.to_owned()));
    }
    for record in &mut records {
        record.partition = partition.or(record.partition);
    }
    let mut offsets = Vec::with_capacity(records.len());
    for (partition, result) in publish(door.broker(), &topic, &records).await {
        offsets.push(match result {
            Ok(offset) => json!({
                "partition": partition.map(PartitionId::get), "offset": offset.get(), "error_code": null, "error": null,
            }),
            Err(refusal) => json!({
                "partition": null, "offset": null, "error_code": errors::proxy_code_second(&refusal),
                "error": refusal.to_string(),
            }),
        });
    }
    let answer = json!({ "offsets": offsets, "key_schema_id": null, "value_schema_id": null });
    let kind = [(header::CONTENT_TYPE, answer_type(headers))];
    Ok((kind, answer.to_string()).into_response())
}

type Fate = (Option<PartitionId>, Result<Offset, PublishRefusal>);

/// Writes records, and waits for all of them.
async fn publish(broker: &Broker, topic: &Written, records: &[ProxyRecord]) -> Vec<Fate> {
    let mut fates = Vec::with_capacity(records.len());
    for publishing in begin(broker, topic, records).await {
        let partition = publishing.as_ref().ok().map(|it| it.partition);
        let fate = match publishing {
            Ok(publishing) => publishing.durable().await,
            Err(refusal) => Err(refusal),
        };
        fates.push((partition, fate));
    }
    fates
}

/// Publishes records; one answer for each.
async fn begin(
    broker: &Broker,
    topic: &Written,
    records: &[ProxyRecord],
) -> Vec<Result<Publishing, PublishRefusal>> {
    let headers: Vec<_> = records.iter().map(ProxyRecord::header_refs).collect();
    let outgoing: Vec<Outgoing<'_>> = records
        .iter()
        .zip(&headers)
        .map(|(record, headers)| record.outgoing(headers))
        .collect();
    match broker.publish_all(topic, &outgoing).await {
        Ok(published) => published,
        Err(refusal) => records.iter().map(|_| Err(refusal.clone())).collect(),
    }
}

/// The topic, of this cluster.
async fn topic_of(
    front: &Front,
    door: &Door,
    cluster: &str,
    topic: &str,
) -> Result<Written, ProxyFault> {
    if cluster != front.broker.cluster_id() {
        return Err(ProxyFault::UnknownCluster(cluster.to_owned()));
    }
    writable(door, topic).await.map_err(ProxyFault::Third)
}

/// What a report says beside the offset.
struct Reported {
    time: Timestamp,
    /// Form and length of key and value.
    parts: [Option<(Form, usize)>; 2],
}

impl Reported {
    fn of(record: &ProxyRecord, now: Timestamp) -> Reported {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let [key, value] = record.forms;
        Reported {
            time: record.time.unwrap_or(now),
            parts: [
                key.map(|form| (form, length(&record.key))),
                value.map(|form| (form, length(&record.value))),
            ],
        }
    }

    fn value(&self, cluster: &str, topic: &str, partition: PartitionId, offset: Offset) -> Value {
        let mut report = json!({
            "cluster_id": cluster, "topic_name": topic, "partition_id": partition.get(), "offset": offset.get(),
        });
        if let Ok(time) = jiff::Timestamp::from_millisecond(self.time.millis()) {
            report["timestamp"] = format!("{time:.3}").into();
        }
        for (name, part) in ["key", "value"].into_iter().zip(self.parts) {
            if let Some((form, size)) = part {
                report[name] = json!({ "type": form.name(), "size": size });
            }
        }
        report
    }
}

async fn produce_batch(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((cluster, topic)): At<(String, String)>,
    body: Body,
) -> Response {
    let answer = batch(&front, &door, (&cluster, &topic), &headers, body).await;
    match answer {
        Ok(answer) => errors::multi_status(answer.to_string()),
        Err(fault) => errors::proxy_refused(&fault, "application/json"),
    }
}

async fn batch(
    front: &Front,
    door: &Door,
    (cluster, name): (&str, &str),
    headers: &HeaderMap,
    body: Body,
) -> Result<Value, ProxyFault> {
    let topic = topic_of(front, door, cluster, name).await?;
    let (body, _memory) = whole(front, headers, body)
        .await
        .map_err(ProxyFault::Third)?;
    let entries = read_batch(&body).map_err(ProxyFault::InvalidThird)?;
    let now = door.broker().now();
    let (mut successes, mut failures) = (Vec::new(), Vec::new());
    let (mut ids, mut records) = (Vec::new(), Vec::new());
    for (id, record) in entries {
        match record {
            Ok(mut record) => {
                record.time.get_or_insert(now);
                ids.push(id);
                records.push(record);
            }
            Err(message) => {
                let code = errors::PROXY_INVALID_RECORD;
                failures.push(json!({ "id": id, "error_code": code, "message": message }));
            }
        }
    }
    let fates = publish(door.broker(), &topic, &records).await;
    for ((id, record), (partition, fate)) in ids.into_iter().zip(&records).zip(fates) {
        match (partition, fate) {
            (Some(partition), Ok(offset)) => {
                let mut report = Reported::of(record, now).value(cluster, name, partition, offset);
                report["id"] = id.into();
                successes.push(report);
            }
            (_, fate) => {
                let refusal = fate.err().unwrap_or(PublishRefusal::Abandoned);
                let code = errors::proxy_code_third(&refusal);
                failures
                    .push(json!({ "id": id, "error_code": code, "message": refusal.to_string() }));
            }
        }
    }
    Ok(json!({ "successes": successes, "failures": failures }))
}

async fn produce_third(
    State(front): State<Arc<Front>>,
    door: Door,
    headers: HeaderMap,
    At((cluster, name)): At<(String, String)>,
    body: Body,
) -> Response {
    let begun = async {
        let topic = topic_of(&front, &door, &cluster, &name).await?;
        let reader = reader(&front, &headers, body).await;
        Ok((topic, reader.map_err(ProxyFault::Third)?))
    };
    let (topic, reader) = match begun.await {
        Ok(begun) => begun,
        Err(fault) => return errors::proxy_refused(&fault, "application/json"),
    };
    // What a record takes in base64, and beside it.
    let record_bytes_max = usize::try_from(topic.config.max_message_bytes).unwrap_or(usize::MAX);
    let exchange = Exchange {
        memory: front.bodies.holder(),
        objects: Objects::new(record_bytes_max.saturating_mul(2).saturating_add(4096)),
        door,
        cluster,
        name,
        topic,
        reader,
        open: VecDeque::new(),
        at_end: false,
    };
    let reports = unfold(exchange, |mut exchange| async move {
        let reports = exchange.next().await?;
        Some((Ok::<_, std::convert::Infallible>(reports), exchange))
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, Body::from_stream(reports)).into_response()
}

/// A record whose report has not left.
enum Open {
    OnTheWay(Publishing, Reported),
    Refused { code: u32, message: String },
}

/// A request of version 3 and its answer, which go on at the same time.
struct Exchange {
    door: Door,
    cluster: String,
    name: String,
    topic: Written,
    reader: BodyReader,
    objects: Objects,
    memory: Held,
    open: VecDeque<Open>,
    at_end: bool,
}

impl Exchange {
    /// The next reports. None when all have left, and the body is at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut reports = String::new();
        loop {
            while let Some(report) = self.known() {
                reports.push_str(&report);
                reports.push_str("\r\n");
            }
            if !reports.is_empty() {
                return Some(reports.into());
            }
            let first = match self.open.front() {
                Some(Open::OnTheWay(publishing, _)) => Some(publishing.clone()),
                _ => None,
            };
            let may_read = !self.at_end && self.open.len() < REPORTS_OPEN_MAX;
            match (first, may_read) {
                (None, false) => return None,
                (Some(first), false) => drop(first.durable().await),
                (first, true) => {
                    let known = async {
                        match first {
                            Some(first) => drop(first.durable().await),
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        read = self.reader.next() => self.take(read).await,
                        () = known => {}
                    }
                }
            }
        }
    }

    /// Publishes what came, or ends.
    async fn take(&mut self, read: Result<Option<Bytes>, Stop>) {
        let mut whole = Vec::new();
        let taken = match read {
            Ok(Some(bytes)) => self.objects.feed(&bytes, &mut whole),
            Ok(None) => {
                self.at_end = true;
                self.objects.finish()
            }
            Err(stop) => Err(stop),
        };
        let taken = taken.and_then(|()| self.memory.grow_to(2 * self.objects.held()));
        self.publish(&whole).await;
        if let Err(stop) = taken {
            self.at_end = true;
            let fault = ProxyFault::Third(stop);
            self.open.push_back(Open::Refused {
                code: errors::proxy_code(&fault),
                message: fault.to_string(),
            });
        }
    }

    async fn publish(&mut self, whole: &[Vec<u8>]) {
        let now = self.door.broker().now();
        let mut records = Vec::with_capacity(whole.len());
        // In the order of the records: what is wrong has its place among those that are published.
        let mut wrong: VecDeque<(usize, String)> = VecDeque::new();
        for (index, object) in whole.iter().enumerate() {
            match read_third(object) {
                Ok((_, mut record)) => {
                    record.time.get_or_insert(now);
                    records.push(record);
                }
                Err(message) => wrong.push_back((index, message)),
            }
        }
        let published = begin(self.door.broker(), &self.topic, &records).await;
        let mut published = published.into_iter().zip(&records);
        for index in 0..whole.len() {
            if let Some((_, message)) = wrong.pop_front_if(|(at, _)| *at == index) {
                let code = errors::PROXY_INVALID_RECORD;
                self.open.push_back(Open::Refused { code, message });
                continue;
            }
            let (publishing, record) = published.next().expect("each record has its answer");
            self.open.push_back(match publishing {
                Ok(publishing) => Open::OnTheWay(publishing, Reported::of(record, now)),
                Err(refusal) => refused(&refusal),
            });
        }
    }

    /// The first report, if it is known.
    fn known(&mut self) -> Option<String> {
        let fate = match self.open.front()? {
            Open::OnTheWay(publishing, _) => Some(publishing.known()?),
            Open::Refused { .. } => None,
        };
        let open = self.open.pop_front().expect("it was looked at just now");
        let report = match (open, fate) {
            (Open::OnTheWay(publishing, reported), Some(Ok(offset))) => {
                let partition = publishing.partition;
                let mut report = reported.value(&self.cluster, &self.name, partition, offset);
                if let Some(report) = report.as_object_mut() {
                    report.shift_insert(0, "error_code".to_owned(), 200.into());
                }
                report
            }
            (Open::OnTheWay(..), Some(Err(refusal))) => report_of(refused(&refusal)),
            (open, _) => report_of(open),
        };
        Some(report.to_string())
    }
}

fn refused(refusal: &PublishRefusal) -> Open {
    Open::Refused {
        code: errors::proxy_code_third(refusal),
        message: refusal.to_string(),
    }
}

fn report_of(open: Open) -> Value {
    match open {
        Open::Refused { code, message } => json!({ "error_code": code, "message": message }),
        Open::OnTheWay(..) => unreachable!("its report has its offset"),
    }
}
