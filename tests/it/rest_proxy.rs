//! Confluent's REST proxy, versions 2 and 3: what their producers send, and what they are answered.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::binary::{Running, create_topic, serve};
use crate::produce_http::{post, records};

const SECOND_JSON: &str =
    "Content-Type: application/vnd.kafka.json.v2+json\r\nAccept: application/vnd.kafka.v2+json\r\n";
const SECOND_BINARY: &str = "Content-Type: application/vnd.kafka.binary.v2+json\r\n";
const THIRD: &str = "Content-Type: application/json\r\n";

async fn running(data: &std::path::Path) -> Running {
    let running = Running::start(serve(data).args(["-X", "auto.create.topics.enable=false"]));
    create_topic(&running, "t", 2, &[("max.message.bytes", "5000")]).await;
    running
}

fn cluster(running: &Running) -> String {
    let (_, answer) = running.get("/version");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let version: Value = serde_json::from_str(body).expect("JSON");
    version["cluster_id"].as_str().expect("an id").to_owned()
}

async fn stored(running: &Running, partition: u32) -> Vec<(Option<String>, Option<String>)> {
    let text = |bytes: Option<bytes::Bytes>| {
        bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
    };
    let records = records(running, "t", partition).await.into_iter();
    records.map(|it| (text(it.key), text(it.value))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn version_2_writes_json_and_binary_and_tells_an_offset_or_an_error_for_each() {
    let data = tempfile::tempdir().expect("a directory");
    let running = running(data.path()).await;
    let body = json!({ "records": [
        { "key": "k", "value": { "foo": "bar" }, "partition": 1 },
        { "value": [1.50], "partition": 0 },
        { "value": "x".repeat(6000), "partition": 0 },
        { "value": 1, "partition": 7 },
        { "key": { "a": 1 }, "value": null, "partition": 1 },
    ]});
    let (status, head, answer) = post(
        &running,
        "/topics/t",
        SECOND_JSON,
        body.to_string().as_bytes(),
    );
    assert_eq!(status, 200, "{answer}");
    assert!(
        head.contains("content-type: application/vnd.kafka.v2+json"),
        "{head}"
    );
    assert_eq!(
        answer["offsets"][0],
        json!({ "partition": 1, "offset": 0, "error_code": null, "error": null })
    );
    assert_eq!(
        answer["offsets"][1],
        json!({ "partition": 0, "offset": 0, "error_code": null, "error": null })
    );
    assert_eq!(answer["offsets"][2]["error_code"], 50002);
    assert_eq!(answer["offsets"][3]["error_code"], 40402);
    assert_eq!(answer["offsets"][4]["offset"], 1);
    assert!(answer["key_schema_id"].is_null() && answer["value_schema_id"].is_null());
    let body = br#"{"records":[{"key":"a2V5","value":"S2Fma2E="}]}"#;
    let (status, _, answer) = post(&running, "/topics/t/partitions/1", SECOND_BINARY, body);
    assert_eq!(
        (status, &answer["offsets"][0]["offset"]),
        (200, &json!(2)),
        "{answer}"
    );
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(stored(&running, 0).await, [(None, some("[1.5]"))]);
    assert_eq!(
        stored(&running, 1).await,
        [
            (some("\"k\""), some(r#"{"foo":"bar"}"#)),
            (some(r#"{"a":1}"#), None),
            (some("key"), some("Kafka"))
        ]
    );
    for (path, headers, body, status, code) in [
        (
            "/topics/nosuch",
            SECOND_JSON,
            r#"{"records":[{"value":1}]}"#,
            404,
            40401,
        ),
        (
            "/topics/t/partitions/9",
            SECOND_JSON,
            r#"{"records":[{"value":1}]}"#,
            404,
            40402,
        ),
        ("/topics/t", SECOND_JSON, r#"{"records":[]}"#, 422, 422),
        ("/topics/t", SECOND_JSON, r#"{"records":"#, 422, 422),
        (
            "/topics/t",
            SECOND_JSON,
            r#"{"value_schema":"x","records":[{"value":1}]}"#,
            422,
            422,
        ),
        (
            "/topics/t",
            SECOND_BINARY,
            r#"{"records":[{"value":"%"}]}"#,
            422,
            422,
        ),
        (
            "/topics/t",
            "Content-Type: application/vnd.kafka.avro.v2+json\r\n",
            "{}",
            415,
            415,
        ),
    ] {
        let (got, _, answer) = post(&running, path, headers, body.as_bytes());
        assert_eq!(
            (got, answer["error_code"].as_u64()),
            (status, Some(code)),
            "{path} {body}: {answer}"
        );
        assert!(answer["message"].is_string(), "{answer}");
    }
}

/// What the npm package `kafka-rest` sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_version_1_is_answered_in_its_version() {
    let data = tempfile::tempdir().expect("a directory");
    let running = running(data.path()).await;
    let accept = "Accept: application/vnd.kafka.v1+json, application/vnd.kafka+json; q=0.9, application/json; q=0.8\r\n";
    let headers = format!("Content-Type: application/vnd.kafka.binary.v1+json\r\n{accept}");
    let body = br#"{"records":[{"key":"aw==","value":"dg==","partition":0}]}"#;
    let (status, head, answer) = post(&running, "/topics/t", &headers, body);
    assert_eq!(
        (status, &answer["offsets"][0]["offset"]),
        (200, &json!(0)),
        "{answer}"
    );
    assert!(
        head.contains("content-type: application/vnd.kafka.v1+json"),
        "{head}"
    );
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(stored(&running, 0).await, [(some("k"), some("v"))]);
    let (status, head, answer) = post(&running, "/topics/nosuch", &headers, body);
    assert_eq!(
        (status, answer["error_code"].as_u64()),
        (404, Some(40401)),
        "{answer}"
    );
    assert!(
        head.contains("content-type: application/vnd.kafka.v1+json"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_reports_each_record_while_the_request_goes_on() {
    let data = tempfile::tempdir().expect("a directory");
    let running = running(data.path()).await;
    let cluster = cluster(&running);
    let mut stream = TcpStream::connect(&running.http).expect("it listens");
    write!(
        stream,
        "POST /v3/clusters/{cluster}/topics/t/records HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{THIRD}\r\n",
        running.http
    )
    .expect("sent");
    let chunk = |text: &str| {
        write!(
            stream.try_clone().expect("a socket"),
            "{:x}\r\n{text}\r\n",
            text.len()
        )
        .expect("sent")
    };
    let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
    let mut report = || loop {
        let line = lines.next().expect("the answer goes on").expect("text");
        if line.starts_with('{') {
            return serde_json::from_str::<Value>(&line).expect("JSON");
        }
    };
    // The next record is sent when the report of the one before has come.
    chunk(
        r#"{"partition_id":1,"key":{"type":"BINARY","data":"aw=="},"value":{"type":"JSON","data":{"a": 1}},"timestamp":"2023-11-14T22:13:20Z"}"#,
    );
    let first = report();
    let wanted = json!({
        "error_code": 200, "cluster_id": cluster, "topic_name": "t", "partition_id": 1, "offset": 0,
        "timestamp": "2023-11-14T22:13:20.000Z", "key": { "type": "BINARY", "size": 1 }, "value": { "type": "JSON", "size": 8 },
    });
    assert_eq!(first, wanted);
    chunk(r#"{"partition_id":1,"value":{"type":"AVRO","data":1}}{"partition_id":1,"#);
    assert_eq!(report()["error_code"], 400);
    chunk(
        r#""value":{"type":"STRING","data":"text"}} {"partition_id":8,"value":{"type":"STRING","data":""}}"#,
    );
    assert_eq!(report()["offset"], 1);
    assert_eq!(report()["error_code"], 40403);
    chunk("x");
    assert_eq!(report()["error_code"], 400);
    chunk("");
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        stored(&running, 1).await,
        [(some("k"), some("{\"a\": 1}")), (None, some("text"))]
    );
    for (path, code) in [
        (
            format!("/v3/clusters/{cluster}/topics/nosuch/records"),
            40403,
        ),
        ("/v3/clusters/other/topics/t/records".to_owned(), 404),
        ("/v3/clusters/other/topics/t/records:batch".to_owned(), 404),
    ] {
        let (status, _, answer) = post(&running, &path, THIRD, b"{}");
        assert_eq!(
            (status, answer["error_code"].as_u64()),
            (404, Some(code)),
            "{path}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_writes_a_batch_and_reports_by_ids() {
    let data = tempfile::tempdir().expect("a directory");
    let running = running(data.path()).await;
    let cluster = cluster(&running);
    let path = format!("/v3/clusters/{cluster}/topics/t/records:batch");
    let body = json!({ "entries": [
        { "id": "a", "partition_id": 0, "value": { "type": "STRING", "data": "one" } },
        { "id": "b", "partition_id": 0, "value": { "type": "BINARY", "data": "%" } },
        { "id": "c", "partition_id": 0, "value": { "type": "BINARY", "data": "dHdv" } },
        { "id": "d", "partition_id": 9 },
    ]});
    let (status, _, answer) = post(&running, &path, THIRD, body.to_string().as_bytes());
    assert_eq!(status, 207, "{answer}");
    let ids = |part: &str, field: &str| -> Vec<(String, u64)> {
        let list = answer[part].as_array().expect("a list").iter();
        list.map(|it| {
            (
                it["id"].as_str().expect("an id").to_owned(),
                it[field].as_u64().expect("a number"),
            )
        })
        .collect()
    };
    assert_eq!(
        ids("successes", "offset"),
        [("a".to_owned(), 0), ("c".to_owned(), 1)]
    );
    assert_eq!(
        ids("failures", "error_code"),
        [("b".to_owned(), 400), ("d".to_owned(), 40403)]
    );
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        stored(&running, 0).await,
        [(None, some("one")), (None, some("two"))]
    );
    let (status, _, answer) = post(&running, &path, THIRD, br#"{"entries":[{"value":{}}]}"#);
    assert_eq!(
        (status, answer["error_code"].as_u64()),
        (400, Some(400)),
        "{answer}"
    );
}
