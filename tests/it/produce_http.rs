//! Records that come over HTTP, in every form, read back over Kafka and compared byte for byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use client::consumer::Start;
use client::{Client, ClientConfig, Consumer, ConsumerConfig};
use model::batch::Record;
use model::{Offset, PartitionId, TopicName, TopicPartition};
use serde_json::{Value, json};

use crate::binary::{Running, create_topic, serve};

/// Sends a request whose body may be any bytes; gives status, head and JSON.
pub fn post(running: &Running, path: &str, headers: &str, body: &[u8]) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(&running.http).expect("it listens");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        running.http,
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    // A server that has seen enough may answer before all is sent.
    let _ = stream.write_all(body);
    answer(&mut stream)
}

/// Status, head and JSON of the answer that comes.
pub fn answer(stream: &mut TcpStream) -> (u16, String, Value) {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    (status.expect("a status"), head.to_ascii_lowercase(), body)
}

/// All records of a partition, by Kafka's protocol.
pub async fn records(running: &Running, topic: &str, partition: u32) -> Vec<Record> {
    let config = ClientConfig::new(&running.kafka);
    let client = Client::connect(config).await.expect("a client");
    let mut consumer = Consumer::new(&client, ConsumerConfig::default());
    let topic = TopicName::parse(topic).expect("a name");
    let partition = TopicPartition::new(topic, PartitionId::new(partition));
    consumer.assign(partition, Start::Offset(Offset::ZERO));
    let mut records: Vec<Record> = Vec::new();
    loop {
        let fetched = consumer
            .poll(Duration::from_secs(10))
            .await
            .expect("fetched");
        for fetched in fetched {
            records.extend(fetched.records().expect("sound"));
            if fetched.end() >= fetched.high_watermark {
                return records;
            }
        }
    }
}

fn shown(record: &Record) -> String {
    let text = |bytes: Option<&bytes::Bytes>| {
        bytes.map_or("-".to_owned(), |bytes| {
            String::from_utf8_lossy(bytes).into_owned()
        })
    };
    let headers: Vec<String> = record
        .headers
        .iter()
        .map(|it| {
            format!(
                " {}={}",
                String::from_utf8_lossy(&it.key),
                text(it.value.as_ref())
            )
        })
        .collect();
    let (key, value) = (text(record.key.as_ref()), text(record.value.as_ref()));
    format!(
        "{key}|{value}|{}{}",
        record.timestamp.millis(),
        headers.concat()
    )
}

struct Case {
    name: &'static str,
    query: &'static str,
    headers: &'static str,
    body: &'static [u8],
    status: u16,
    /// Key, value and timestamp of each record, with its headers.
    records: &'static [&'static str],
    /// Line and code of each fault; or the code of the answer.
    faults: &'static [(u64, &'static str)],
}

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const JSON: &str = "Content-Type: application/json; charset=utf-8\r\n";
const CSV: &str = "Content-Type: text/csv\r\n";

const CASES: &[Case] = &[
    Case {
        name: "values are kept byte for byte, whatever ends their lines",
        query: "?timestamp=1000&timestamp_unit=ms",
        headers: NDJSON,
        body: b"\xef\xbb\xbf{\"a\": 1.50,\"b\":\"\\u00e4\" }\r\n\n  \n [1 , 2]\n\"x\"",
        status: 200,
        records: &[
            "-|{\"a\": 1.50,\"b\":\"\\u00e4\" }|1000",
            "-| [1 , 2]|1000",
            "-|\"x\"|1000",
        ],
        faults: &[],
    },
    Case {
        name: "key, time and headers from fields and from the request",
        query: "?key_field=/meta/device&timestamp_field=/t&timestamp_unit=s&header=unit:%20C&header=a:b:c",
        headers: "Content-Type: application/jsonl\r\nAlluvium-Header: from: head\r\n",
        body: b"{\"meta\":{\"device\":\"d\\u00fc1\"},\"t\":1.7}\n{\"t\":\"1700000000.123\",\"meta\":{\"device\":17}}\n",
        status: 200,
        records: &[
            "d\u{fc}1|{\"meta\":{\"device\":\"d\\u00fc1\"},\"t\":1.7}|1700 unit=C a=b:c from=head",
            "17|{\"t\":\"1700000000.123\",\"meta\":{\"device\":17}}|1700000000123 unit=C a=b:c from=head",
        ],
        faults: &[],
    },
    Case {
        name: "bad lines are named one by one and the good ones are written",
        query: "?key_field=/k&timestamp=5&timestamp_unit=ms",
        headers: NDJSON,
        body: b"{\"k\":1}\n{\"k\":1\n{\"k\":\"\xff\"}\n{}\n{\"k\":null}\n{\"k\":[1]}\n\n{\"k\":true}\n{\"k\":1}}\n",
        status: 422,
        records: &["1|{\"k\":1}|5", "true|{\"k\":true}|5"],
        faults: &[
            (2, "invalid_json"),
            (3, "invalid_utf8"),
            (4, "key_missing"),
            (5, "key_missing"),
            (6, "key_not_scalar"),
            (9, "invalid_json"),
        ],
    },
    Case {
        name: "with on_error=reject one bad line keeps all out",
        query: "?on_error=reject&timestamp=5&timestamp_unit=ms",
        headers: NDJSON,
        body: b"{}\nx\n{}\n",
        status: 422,
        records: &[],
        faults: &[(2, "invalid_json")],
    },
    Case {
        name: "with on_error=reject good lines are written",
        query: "?on_error=reject&timestamp=5&timestamp_unit=ms",
        headers: NDJSON,
        body: b"{}\n{}\n",
        status: 200,
        records: &["-|{}|5", "-|{}|5"],
        faults: &[],
    },
    Case {
        name: "an array's items are rows",
        query: "?timestamp=5&timestamp_unit=ms&key=all",
        headers: JSON,
        body: b" [ {\"a\":[1,\"],\"]} ,2 , \"\\\"]\" ,[[]],nul ] ",
        status: 422,
        records: &[
            "all|{\"a\":[1,\"],\"]}|5",
            "all|2|5",
            "all|\"\\\"]\"|5",
            "all|[[]]|5",
        ],
        faults: &[(5, "invalid_json")],
    },
    Case {
        name: "one JSON value that is no array is one row",
        query: "?timestamp=5&timestamp_unit=ms",
        headers: "Content-Type: application/json\r\nAlluvium-Key: k\r\n",
        body: b"{\"a\":\n1}\n",
        status: 200,
        records: &["k|{\"a\":\n1}|5"],
        faults: &[],
    },
    Case {
        name: "an array that breaks off keeps what was whole",
        query: "?timestamp=5&timestamp_unit=ms",
        headers: JSON,
        body: b"[1,2,{\"a\"",
        status: 400,
        records: &["-|1|5", "-|2|5"],
        faults: &[],
    },
    Case {
        name: "rows of a table become objects",
        query: "?key_field=/device&timestamp_field=/time&timestamp_unit=rfc3339",
        headers: CSV,
        body: b"\xef\xbb\xbfdevice,time,v,note\r\nd1,1970-01-01T00:00:01Z,1.50,\"a, \"\"b\"\"\r\nc\"\r\n007,1970-01-01T00:00:02Z,007,\r\nd3,never,1,x\r\nd4,1\r\n,1970-01-01T00:00:02Z,,\r\n1e5,1970-01-01T00:00:03Z,true,-1",
        status: 422,
        records: &[
            "d1|{\"device\":\"d1\",\"time\":\"1970-01-01T00:00:01Z\",\"v\":1.50,\"note\":\"a, \\\"b\\\"\\r\\nc\"}|1000",
            "007|{\"device\":\"007\",\"time\":\"1970-01-01T00:00:02Z\",\"v\":\"007\",\"note\":null}|2000",
            "1e5|{\"device\":1e5,\"time\":\"1970-01-01T00:00:03Z\",\"v\":true,\"note\":-1}|3000",
        ],
        faults: &[
            (5, "timestamp_invalid"),
            (6, "wrong_columns"),
            (7, "key_missing"),
        ],
    },
    Case {
        name: "a column of a table is the value",
        query: "?value_column=v&delimiter=tab&timestamp=5&timestamp_unit=ms&format=csv",
        headers: "",
        body: b"a\tv\n1\tx y\n2\t\"q\"\"\"\n",
        status: 200,
        records: &["-|x y|5", "-|q\"|5"],
        faults: &[],
    },
    Case {
        name: "a raw body is one value",
        query: "?timestamp=2023-11-14T22:13:20Z&timestamp_unit=rfc3339",
        headers: "Content-Type: application/octet-stream\r\n",
        body: b"a\r\n\nb\n",
        status: 200,
        records: &["-|a\r\n\nb\n|1700000000000"],
        faults: &[],
    },
];

/// What is refused before anything is written: the query, the headers, the body, and the code.
const REFUSED: &[(&str, &str, &[u8], u16, &str)] = &[
    ("?nosuch=1", NDJSON, b"1", 400, "invalid_query"),
    ("?key=a&key_field=/a", NDJSON, b"1", 400, "invalid_query"),
    ("?key=a&key=b", NDJSON, b"1", 400, "invalid_query"),
    ("?key_field=a", NDJSON, b"1", 400, "invalid_query"),
    ("?timestamp_field=/t", NDJSON, b"1", 400, "invalid_query"),
    ("?timestamp_unit=s", NDJSON, b"1", 400, "invalid_query"),
    (
        "?timestamp=1&timestamp_unit=min",
        NDJSON,
        b"1",
        400,
        "invalid_query",
    ),
    (
        "?timestamp=x&timestamp_unit=ms",
        NDJSON,
        b"1",
        400,
        "invalid_query",
    ),
    ("?header=x", NDJSON, b"1", 400, "invalid_query"),
    ("?partition=-1", NDJSON, b"1", 400, "invalid_query"),
    ("?on_error=maybe", NDJSON, b"1", 400, "invalid_query"),
    ("?delimiter=;", NDJSON, b"1", 400, "invalid_query"),
    ("?format=xml", NDJSON, b"1", 400, "invalid_query"),
    ("?format=raw&key_field=/a", "", b"1", 400, "invalid_query"),
    ("?partition=9", NDJSON, b"1", 404, "unknown_topic"),
    (
        "",
        "Content-Type: text/plain\r\n",
        b"1",
        415,
        "unsupported_media_type",
    ),
    ("", "", b"1", 415, "unsupported_media_type"),
    (
        "?format=ndjson",
        "Content-Encoding: br\r\n",
        b"1",
        415,
        "unsupported_encoding",
    ),
    (
        "?format=ndjson",
        "Content-Encoding: gzip\r\n",
        b"no gzip",
        400,
        "invalid_body",
    ),
    (
        "?format=ndjson",
        "Content-Encoding: zstd\r\n",
        b"no zstd",
        400,
        "invalid_body",
    ),
    ("", JSON, b"", 400, "invalid_body"),
    ("", JSON, b"[] 1", 400, "invalid_body"),
    ("", JSON, b"[,1]", 400, "invalid_body"),
    ("", CSV, b"", 400, "invalid_body"),
    ("", CSV, b"a,a\n1,2\n", 400, "invalid_body"),
    ("?key_field=/b", CSV, b"a\n1\n", 400, "invalid_body"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_body_becomes_records_byte_for_byte() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    for (number, case) in CASES.iter().enumerate() {
        // Whole, and one byte at a time; compressed, too.
        for way in ["whole", "bytes", "gzip", "zstd"] {
            let topic = format!("case-{number}-{way}");
            create_topic(&running, &topic, 1, &[]).await;
            let path = format!("/api/v1/topics/{topic}/records{}", case.query);
            let name = format!("{} ({way})", case.name);
            let (status, head, answer) = match way {
                "bytes" => chunked(&running, &path, case.headers, case.body),
                "gzip" => {
                    let mut gzip =
                        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    gzip.write_all(case.body).expect("into memory");
                    let headers = format!("{}Content-Encoding: gzip\r\n", case.headers);
                    post(&running, &path, &headers, &gzip.finish().expect("gzip"))
                }
                "zstd" => {
                    let body = zstd::encode_all(case.body, 1).expect("zstd");
                    let headers = format!("{}Content-Encoding: zstd\r\n", case.headers);
                    post(&running, &path, &headers, &body)
                }
                _ => post(&running, &path, case.headers, case.body),
            };
            assert_eq!(status, case.status, "{name}: {answer}");
            let kind = if status == 200 {
                "application/json"
            } else {
                "application/problem+json"
            };
            assert!(head.contains(kind), "{name}: {head}");
            let faults: Vec<(u64, &str)> = answer["errors"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|it| {
                    (
                        it["line"].as_u64().expect("a line"),
                        it["code"].as_str().expect("a code"),
                    )
                })
                .collect();
            assert_eq!(faults, case.faults, "{name}");
            assert_eq!(answer["records"], case.records.len(), "{name}: {answer}");
            if case.records.is_empty() {
                assert_eq!(answer["offsets"], json!([]), "{name}");
                continue;
            }
            let stored = records(&running, &topic, 0).await;
            let stored: Vec<String> = stored.iter().map(shown).collect();
            assert_eq!(stored, case.records, "{name}");
            let end = stored.len();
            let offsets =
                json!([{ "partition": 0, "base_offset": 0, "end_offset": end, "records": end }]);
            assert_eq!(answer["offsets"], offsets, "{name}");
        }
    }
    create_topic(&running, "refused", 1, &[]).await;
    for (query, headers, body, status, code) in REFUSED {
        let path = format!("/api/v1/topics/refused/records{query}");
        let (got, _, answer) = post(&running, &path, headers, body);
        assert_eq!(
            (got, answer["code"].as_str()),
            (*status, Some(*code)),
            "{path} {headers}: {answer}"
        );
        assert_eq!(answer["records"], 0, "{path}: {answer}");
    }
}

/// Sends a body one byte at a time, each in a chunk of its own.
fn chunked(running: &Running, path: &str, headers: &str, body: &[u8]) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(&running.http).expect("it listens");
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{headers}\r\n",
        running.http
    )
    .into_bytes();
    for byte in body {
        request.extend_from_slice(b"1\r\n");
        request.push(*byte);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    stream.write_all(&request).expect("sent");
    answer(&mut stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topics_rules_and_the_limits_hold_over_http() {
    let data = tempfile::tempdir().expect("a directory");
    let running =
        Running::start(serve(data.path()).args(["-X", "auto.create.topics.enable=false"]));
    let settings = [("cleanup.policy", "compact"), ("max.message.bytes", "2000")];
    create_topic(&running, "compacted", 1, &settings).await;
    let path = "/api/v1/topics/compacted/records?format=ndjson";
    let (status, _, answer) = post(&running, path, "", b"1\n2\n");
    assert_eq!((status, answer["records"].as_u64()), (422, Some(0)));
    assert_eq!(
        answer["errors"][1],
        json!({
            "line": 2, "code": "no_key", "detail": "a compacted topic takes no record without a key",
        })
    );
    // Every row is counted, and a refused one is named by its own line, however many come at a time.
    let long = format!("\"{}\"\n", "y".repeat(1_950));
    let many = format!("{}{long}{}", "1\n".repeat(2_399), "1\n".repeat(1_200));
    let (_, _, answer) = post(&running, &format!("{path}&key=k"), "", many.as_bytes());
    assert_eq!(answer["records"], 3_599, "{answer}");
    assert_eq!(answer["offsets"][0]["end_offset"], 3_599, "{answer}");
    assert_eq!(answer["errors"][0]["line"], 2_400, "{answer}");
    // A line that is too long is read to its end and named, and the next is taken.
    let long = format!(
        "\"{}\"\n1\n\"{}\"\n2",
        "x".repeat(1_000_000),
        "y".repeat(1_950)
    );
    let (status, _, answer) = post(&running, &format!("{path}&key=k"), "", long.as_bytes());
    assert_eq!((status, &answer["records"]), (422, &json!(2)), "{answer}");
    let lines: Vec<_> = (0..2)
        .map(|it| answer["errors"][it]["line"].clone())
        .collect();
    assert_eq!(lines, [1, 3]);
    assert_eq!(answer["errors"][0]["code"], "record_too_large");
    let path = "/api/v1/topics/compacted/records?format=raw&key=k";
    let (status, _, answer) = post(&running, path, "", &[b'x'; 2_001]);
    assert_eq!(
        (status, answer["code"].as_str()),
        (413, Some("body_too_large"))
    );
    assert!(
        answer["detail"]
            .as_str()
            .is_some_and(|it| it.contains("2000")),
        "{answer}"
    );
    // Faults are counted, and named as far as the list goes.
    let many = "x\n".repeat(300);
    let (_, _, answer) = post(
        &running,
        "/api/v1/topics/compacted/records?format=ndjson&key=k",
        "",
        many.as_bytes(),
    );
    assert_eq!(
        (
            answer["refused"].as_u64(),
            answer["errors_left_out"].as_u64()
        ),
        (Some(300), Some(200))
    );
    // What is decompressed is bounded.
    create_topic(&running, "bombed", 1, &[]).await;
    let bomb = zstd::encode_all(std::io::repeat(b'\n').take(1 << 30), 1).expect("zstd");
    let (status, _, answer) = post(
        &running,
        "/api/v1/topics/bombed/records?format=ndjson",
        "Content-Encoding: zstd\r\n",
        &bomb,
    );
    assert_eq!(
        (status, answer["code"].as_str()),
        (413, Some("body_inflates")),
        "{answer}"
    );
    // All or nothing is bounded by a frame.
    let much = "{}\n".repeat(7_000_000);
    let (status, _, answer) = post(
        &running,
        "/api/v1/topics/bombed/records?format=ndjson&on_error=reject",
        "",
        much.as_bytes(),
    );
    assert_eq!(
        (status, answer["code"].as_str()),
        (413, Some("body_too_large")),
        "{answer}"
    );
    let (status, _, answer) = post(
        &running,
        "/api/v1/topics/nosuch/records?format=ndjson",
        "",
        b"1\n",
    );
    assert_eq!(
        (status, answer["code"].as_str()),
        (404, Some("unknown_topic"))
    );
    let (status, _, answer) = post(
        &running,
        "/api/v1/topics/__consumer_offsets/records?format=ndjson",
        "",
        b"1\n",
    );
    assert_eq!(
        (status, answer["code"].as_str()),
        (403, Some("internal_topic")),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_slowly_is_written_as_it_comes_and_a_topic_is_made_where_the_broker_makes_topics()
 {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(serve(data.path()).args(["-X", "auto.create.topics.enable=true"]));
    // A name that no topic can have is the client's fault, in every form of the API.
    let body = b"{\"records\":[{\"value\":1}]}";
    let second = "Content-Type: application/vnd.kafka.json.v2+json\r\n";
    let (status, _, refused) = post(&running, "/topics/no$such", second, body);
    assert_eq!(
        (status, refused["error_code"].as_u64()),
        (400, Some(400)),
        "{refused}"
    );
    let (status, _, refused) = post(&running, "/api/v1/topics/no$such/records", NDJSON, b"1");
    assert_eq!(
        (status, refused["code"].as_str()),
        (400, Some("invalid_topic_name")),
        "{refused}"
    );
    let mut stream = TcpStream::connect(&running.http).expect("it listens");
    let head = format!(
        "POST /api/v1/topics/slow/records?key=k HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{NDJSON}\r\n",
        running.http
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(b"7\r\n{}\n{}\n1\r\n").expect("sent");
    // Its whole lines are there while the body goes on.
    let until = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let (status, _) = running.get("/healthz");
        assert_eq!(status, 200);
        let config = ClientConfig::new(&running.kafka);
        let client = Client::connect(config).await.expect("a client");
        if client.topic("slow", false).await.is_ok()
            && records(&running, "slow", 0).await.len() == 2
        {
            break;
        }
        assert!(
            std::time::Instant::now() < until,
            "the rows are not written"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stream.write_all(b"2\r\n2\n\r\n0\r\n\r\n").expect("sent");
    let (status, _, answer) = answer(&mut stream);
    assert_eq!(
        (status, answer["records"].as_u64()),
        (200, Some(3)),
        "{answer}"
    );
    let values: Vec<_> = records(&running, "slow", 0)
        .await
        .iter()
        .map(shown)
        .collect();
    assert!(values[2].starts_with("k|12|"), "{values:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replay_gives_as_arrow_can_be_brought_back() {
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve(data.path()));
    create_topic(&running, "from", 1, &[]).await;
    create_topic(&running, "to", 1, &[]).await;
    let path = "/api/v1/topics/from/records?key_field=/device&timestamp_field=/at&timestamp_unit=ms&header=unit:C";
    let lines: String = (0..3_000)
        .map(|it| {
            format!(
                "{{\"device\":\"d{}\",\"at\":{}, \"v\":{}.50}}\n",
                it % 7,
                1_000 + it,
                it
            )
        })
        .collect();
    let (status, _, answer) = post(&running, path, NDJSON, lines.as_bytes());
    assert_eq!(
        (status, &answer["records"]),
        (200, &json!(3_000)),
        "{answer}"
    );
    let mut stream = TcpStream::connect(&running.http).expect("it listens");
    let head = format!(
        "GET /api/v1/topics/from/replay?format=arrow HTTP/1.0\r\nHost: {}\r\n\r\n",
        running.http
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut table = Vec::new();
    stream.read_to_end(&mut table).expect("an answer");
    let begin = table
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .expect("a head")
        + 4;
    let arrow = "Content-Type: application/vnd.apache.arrow.stream\r\n";
    let path = "/api/v1/topics/to/records";
    let (status, _, answer) = post(&running, path, arrow, &table[begin..]);
    assert_eq!(
        (status, &answer["records"]),
        (200, &json!(3_000)),
        "{answer}"
    );
    let shown = |records: Vec<Record>| records.iter().map(shown).collect::<Vec<_>>();
    let (from, to) = (
        records(&running, "from", 0).await,
        records(&running, "to", 0).await,
    );
    assert_eq!(shown(to), shown(from));
    // One that breaks off has written what was whole, and says so.
    let cut = &table[begin..table.len() - 200];
    let (status, _, answer) = post(&running, path, arrow, cut);
    assert_eq!(
        (status, answer["code"].as_str()),
        (400, Some("invalid_body")),
        "{answer}"
    );
    let (status, _, answer) = post(&running, path, arrow, b"no table");
    assert_eq!(
        (status, answer["code"].as_str()),
        (400, Some("invalid_body")),
        "{answer}"
    );
}

/// A request with a key, whose lines are told apart.
fn keyed(running: &Running, key: usize) -> (u16, String, Value) {
    let lines: String = (0..60)
        .map(|line| format!("{{\"device\":{line},\"request\":{key}}}\n"))
        .collect();
    let headers = format!("{NDJSON}Idempotency-Key: \"request-{key}\"\r\n");
    let path = "/api/v1/topics/keyed/records?key_field=/device";
    post(running, path, &headers, lines.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_key_is_done_once_over_kills_and_restarts() {
    const REQUESTS: usize = 60;
    let data = tempfile::tempdir().expect("a directory");
    let mut running = Running::start(&mut serve(data.path()));
    create_topic(&running, "keyed", 3, &[]).await;
    let mut answered: Vec<Option<Value>> = vec![None; REQUESTS];
    for kill in 0..4usize {
        // Killed while requests are on their way: one of them has no answer, and may be done.
        let from = kill * REQUESTS / 5;
        let killed = std::thread::scope(|scope| {
            let server = &running;
            let requests = scope.spawn(move || {
                let mut answers = Vec::new();
                for key in from..REQUESTS {
                    let request = std::panic::catch_unwind(|| keyed(server, key));
                    let Ok((200, _, answer)) = request else {
                        break;
                    };
                    answers.push((key, answer));
                }
                answers
            });
            while records_stored(server) < 5 * 60 && !requests.is_finished() {
                std::thread::yield_now();
            }
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(server.id().cast_signed()).expect("a process"),
                rustix::process::Signal::KILL,
            )
            .expect("killed");
            requests.join().expect("no panic")
        });
        for (key, answer) in killed {
            answered[key] = Some(answer);
        }
        drop(running);
        running = Running::start(&mut serve(data.path()));
    }
    for (key, before) in answered.iter().enumerate() {
        let (status, head, answer) = keyed(&running, key);
        assert_eq!((status, &answer["records"]), (200, &json!(60)), "{answer}");
        if let Some(before) = before {
            assert_eq!(answer, *before, "request {key}");
            assert!(head.contains("idempotency-replayed: true"), "{head}");
        }
        let (_, _, again) = keyed(&running, key);
        assert_eq!(again, answer);
    }
    let mut stored = std::collections::BTreeMap::new();
    for partition in 0..3 {
        for record in records(&running, "keyed", partition).await {
            *stored.entry(record.value.expect("a value")).or_insert(0) += 1;
        }
    }
    assert_eq!(stored.len(), REQUESTS * 60);
    assert!(stored.values().all(|count| *count == 1), "twice");
    // Another payload, and a key that is none.
    let path = "/api/v1/topics/keyed/records?key_field=/device";
    let headers = format!("{NDJSON}Idempotency-Key: request-1\r\n");
    let (status, _, answer) = post(&running, path, &headers, b"{\"device\":1}\n");
    assert_eq!(
        (status, answer["code"].as_str()),
        (422, Some("idempotency_key_reused"))
    );
    let headers = format!("{NDJSON}Idempotency-Key: \r\n");
    let (status, _, answer) = post(&running, path, &headers, b"{\"device\":1}\n");
    assert_eq!(
        (status, answer["code"].as_str()),
        (400, Some("invalid_idempotency_key")),
        "{answer}"
    );
    // Bad rows are part of the answer, and of what comes again.
    let headers = format!("{NDJSON}Idempotency-Key: bad\r\n");
    let (first, _, answer) = post(&running, path, &headers, b"{\"device\":1}\nx\n{}\n");
    let (second, head, again) = post(&running, path, &headers, b"{\"device\":1}\nx\n{}\n");
    assert_eq!((first, second), (422, 422), "{answer}");
    // A problem names its request, and everything else is as it was.
    let named = |mut answer: Value| {
        answer
            .as_object_mut()
            .expect("an object")
            .remove("request_id");
        answer
    };
    let (answer, again) = (named(answer), named(again));
    assert_eq!(answer, again);
    assert_eq!(
        (&answer["records"], &answer["refused"]),
        (&json!(1), &json!(2))
    );
    assert!(head.contains("idempotency-replayed: true"), "{head}");
}

/// How many records the topic with keys has taken since the start.
fn records_stored(running: &Running) -> u64 {
    let (_, page) = running.get("/metrics");
    let line = page.lines().find(|line| {
        line.starts_with("alluvium_topic_appended_records_total") && line.contains("\"keyed\"")
    });
    let count = line.and_then(|line| line.rsplit(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}
