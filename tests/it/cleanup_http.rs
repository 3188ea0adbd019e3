//! `/api/v1/cleanup` as any HTTP client sees it: what `docs/http-api.md` shows, and what is refused.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::binary::Running;
use crate::log_tool::{settle, written};

fn running(data: &std::path::Path) -> Running {
    let settings = ["-X", "settle.age.ms=10", "-X", "log.retention.bytes=20000"];
    let running = written(data, &settings);
    settle(&running);
    running
}

/// An example of the page: what is asked, and what is answered.
struct Example {
    what: String,
    body: String,
    status: u16,
    answer: Value,
}

/// The examples: a block `http` with the request, and the next block with status and answer.
fn examples(page: &str) -> Vec<Example> {
    let mut blocks = page.split("```http\n").skip(1).map(|rest| {
        let (block, _) = rest.split_once("```").expect("a block ends");
        block.split_once('\n').expect("a block has a line")
    });
    let mut found = Vec::new();
    while let Some((what, rest)) = blocks.next() {
        let (status, answer) = blocks.next().expect("a request has its answer");
        let body = rest.rsplit("\n\n").next().unwrap_or_default().trim();
        let number = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let answer = answer.strip_prefix('\n').expect("an answer has a body");
        found.push(Example {
            what: what
                .strip_suffix(" HTTP/1.1")
                .expect("a request line")
                .to_owned(),
            body: body.to_owned(),
            status: number.expect("a status"),
            answer: serde_json::from_str(answer).expect("JSON"),
        });
    }
    found
}

/// The shape of a value: its names and types. Null stands for whatever is not there yet.
fn differs(shown: &Value, got: &Value, at: &str) -> Vec<String> {
    match (shown, got) {
        (Value::Object(shown), Value::Object(got)) => {
            let names = |map: &serde_json::Map<String, Value>| {
                let mut names: Vec<String> = map.keys().cloned().collect();
                names.sort();
                names
            };
            if names(shown) != names(got) {
                return vec![format!("{at}: {:?} and not {:?}", names(got), names(shown))];
            }
            let parts = shown.iter();
            parts
                .flat_map(|(name, value)| differs(value, &got[name], &format!("{at}.{name}")))
                .collect()
        }
        (Value::Array(shown), Value::Array(got)) => match (shown.first(), got.first()) {
            (Some(shown), Some(got)) => differs(shown, got, &format!("{at}[0]")),
            _ => Vec::new(),
        },
        (Value::Null, _) | (_, Value::Null) => Vec::new(),
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => Vec::new(),
        _ => vec![format!("{at}: {got} and not {shown}")],
    }
}

#[test]
fn every_example_of_the_page_is_answered_as_it_shows() {
    let data = tempfile::tempdir().expect("a directory");
    let running = running(data.path());
    let examples = examples(include_str!("../../docs/http-api.md"));
    let mut job = String::new();
    for example in &examples {
        // The page's job is the one that its own example started.
        let what = example.what.replace("7-1", &job);
        let (status, answer) = running.ask_json(&what, &example.body);
        assert_eq!(status, example.status, "{what}: {answer}");
        let wrong = differs(&example.answer, &answer, "");
        assert!(wrong.is_empty(), "{what}: {wrong:?}");
        if status >= 400 {
            assert_eq!(answer["code"], example.answer["code"], "{what}");
        }
        if status == 202 {
            job = answer["id"].as_str().expect("a name").to_owned();
        }
    }
    let whats: Vec<&str> = examples
        .iter()
        .map(|example| example.what.as_str())
        .collect();
    for route in [
        "GET /api/v1/cleanup/plan?",
        "POST /api/v1/cleanup/jobs",
        "GET /api/v1/cleanup/jobs",
        "GET /api/v1/cleanup/jobs/",
        "DELETE /api/v1/cleanup/jobs/",
    ] {
        assert!(whats.iter().any(|what| what.starts_with(route)), "{route}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_a_code_and_health_answers_all_the_while() {
    let data = tempfile::tempdir().expect("a directory");
    let running = running(data.path());
    let good = json!({ "policy": "retention", "topic": "readings" });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body.to_string()
    };
    let long = with("topic", json!("x".repeat(20_000)));
    for (what, body, status, code) in [
        (
            "GET /api/v1/cleanup/plan",
            String::new(),
            400,
            "invalid_query",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=retention",
            String::new(),
            400,
            "invalid_query",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=zap&topic=readings",
            String::new(),
            400,
            "invalid_query",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=retention&topic=readings&more=1",
            String::new(),
            400,
            "invalid_query",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=retention&topic=readings&now=2",
            String::new(),
            400,
            "invalid_query",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=retention&topic=readings&partition=-1",
            String::new(),
            400,
            "invalid_query",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=retention&topic=readings&partition=1",
            String::new(),
            404,
            "unknown_topic",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=retention&topic=nosuch",
            String::new(),
            404,
            "unknown_topic",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=retention&topic=%ff",
            String::new(),
            404,
            "unknown_topic",
        ),
        (
            "GET /api/v1/cleanup/plan?policy=retention&topic=__cluster_metadata",
            String::new(),
            404,
            "unknown_topic",
        ),
        (
            "PUT /api/v1/cleanup/plan",
            String::new(),
            405,
            "method_not_allowed",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            String::new(),
            400,
            "invalid_body",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            "{".to_owned(),
            400,
            "invalid_body",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            "[]".to_owned(),
            400,
            "invalid_body",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            json!({ "policy": "retention" }).to_string(),
            400,
            "invalid_body",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            with("policy", json!("zap")),
            400,
            "invalid_body",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            with("more", json!(1)),
            400,
            "invalid_body",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            with("now", json!("yes")),
            400,
            "invalid_body",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            with("partition", json!(1)),
            404,
            "unknown_topic",
        ),
        (
            "POST /api/v1/cleanup/jobs",
            with("topic", json!("nosuch")),
            404,
            "unknown_topic",
        ),
        ("POST /api/v1/cleanup/jobs", long, 413, "body_too_large"),
        (
            "GET /api/v1/cleanup/jobs/1",
            String::new(),
            404,
            "unknown_job",
        ),
        (
            "GET /api/v1/cleanup/jobs/0-99",
            String::new(),
            404,
            "unknown_job",
        ),
        (
            "GET /api/v1/cleanup/jobs/0-99?wait_ms=2001",
            String::new(),
            400,
            "invalid_query",
        ),
        (
            "GET /api/v1/cleanup/jobs/0-99?x=1",
            String::new(),
            400,
            "invalid_query",
        ),
        (
            "GET /api/v1/cleanup/jobs/%ff",
            String::new(),
            404,
            "unknown_job",
        ),
        (
            "DELETE /api/v1/cleanup/jobs/0-99",
            String::new(),
            404,
            "unknown_job",
        ),
        (
            "PATCH /api/v1/cleanup/jobs/0-99",
            String::new(),
            405,
            "method_not_allowed",
        ),
        ("GET /api/v1/cleanup/", String::new(), 404, "not_found"),
    ] {
        let (got, problem) = running.ask_json(what, &body);
        assert_eq!(
            (got, problem["code"].as_str()),
            (status, Some(code)),
            "{what} {body:.80}: {problem}"
        );
        assert_eq!(problem["status"], got);
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
        assert_eq!(running.get("/healthz").0, 200);
    }
    // What a page of another site can have a browser send without asking first.
    for kind in ["", "Content-Type: text/plain\r\n"] {
        let (status, answer) = running.ask("POST /api/v1/cleanup/jobs", kind, &good.to_string());
        assert_eq!(status, 415, "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    let (_, jobs) = running.ask_json("GET /api/v1/cleanup/jobs", "");
    assert_eq!(jobs, json!({ "jobs": [] }), "nothing of it began");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let data = tempfile::tempdir().expect("a directory");
    let running = running(data.path());
    let mut stream = TcpStream::connect(&running.http).expect("it listens");
    let head = "POST /api/v1/cleanup/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\nConnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).expect("sent");
    assert_eq!(
        running.get("/healthz").0,
        200,
        "others are answered meanwhile"
    );
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"code\":\"body_late\""), "{answer}");
}
