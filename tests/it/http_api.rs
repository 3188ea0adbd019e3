//! The HTTP port as a whole: what is described is what is answered, other origins are kept out, and many follow at once.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binary::{Running, create_topic, serve};

fn running(settings: &[&str]) -> (tempfile::TempDir, Running) {
    let data = tempfile::tempdir().expect("a directory");
    let mut command = serve(data.path());
    for setting in settings {
        command.args(["-X", setting]);
    }
    let running = Running::start(&mut command);
    (data, running)
}

/// The text behind a head.
fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// A header's value.
fn header_of<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// What does not fit a schema, by our few words of JSON Schema.
fn misfits(schema: &Value, value: &Value, document: &Value, at: &str) -> Vec<String> {
    if let Some(place) = schema["$ref"].as_str() {
        let found = document.pointer(place.trim_start_matches('#'));
        return misfits(found.expect("it is there"), value, document, at);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = |choice: &Value| misfits(choice, value, document, at).is_empty();
        return if choices.iter().any(fits) {
            Vec::new()
        } else {
            vec![format!("{at}: {value}")]
        };
    }
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("a type that no schema here has: {other}"),
    };
    let fits = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is),
        _ => true,
    };
    if !fits {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    let mut wrong = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        if value.is_object() && value.get(name).is_none() {
            wrong.push(format!("{at}.{name} is not there"));
        }
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(part) = value.get(name) {
            wrong.extend(misfits(schema, part, document, &format!("{at}.{name}")));
        }
    }
    for (index, part) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(misfits(
            &schema["items"],
            part,
            document,
            &format!("{at}[{index}]"),
        ));
    }
    wrong
}

/// A value for a parameter, which need not name anything that is there.
fn sample(parameter: &Value) -> String {
    let schema = &parameter["schema"];
    match (
        parameter["name"].as_str(),
        schema["enum"][0].as_str(),
        schema["type"].as_str(),
    ) {
        (Some("topic"), _, _) => "readings".to_owned(),
        (Some("at" | "before"), _, _) => "earliest".to_owned(),
        (_, Some(word), _) => word.to_owned(),
        (_, _, Some("integer")) => "0".to_owned(),
        (_, _, Some("boolean")) => "true".to_owned(),
        _ => "x".to_owned(),
    }
}

/// The path of an operation with values for what it must be given.
fn filled(path: &str, operation: &Value) -> String {
    let mut filled = path.to_owned();
    let mut query = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().expect("a name");
        match (parameter["in"].as_str(), parameter["required"].as_bool()) {
            (Some("path"), _) => {
                filled = filled.replace(&format!("{{{name}}}"), &sample(parameter))
            }
            (Some("query"), Some(true)) => query.push(format!("{name}={}", sample(parameter))),
            _ => {}
        }
        // Nothing is to be deleted on the way.
        if name == "dry_run" {
            query.push("dry_run=true".to_owned());
        }
    }
    match query.is_empty() {
        true => filled,
        false => format!("{filled}?{}", query.join("&")),
    }
}

/// Whether the document says of an answer that it may be so.
fn is_described(operation: &Value, status: u16, answer: &str, document: &Value) -> Vec<String> {
    let Some(response) = operation["responses"].get(status.to_string()) else {
        return vec![format!("{status} is not described: {}", body_of(answer))];
    };
    let Some(content) = response["content"].as_object() else {
        return Vec::new();
    };
    let kind = header_of(answer, "content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let Some(described) = content.get(kind) else {
        return vec![format!("{kind} is not described of {status}")];
    };
    let is_whole = header_of(answer, "transfer-encoding").is_none();
    match is_whole && ["application/json", "application/problem+json"].contains(&kind) {
        true => {
            let value = serde_json::from_str(body_of(answer)).expect("JSON");
            misfits(&described["schema"], &value, document, "")
        }
        false => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_what_the_document_says() {
    let (_data, running) = running(&[]);
    create_topic(&running, "readings", 2, &[]).await;
    let (_, document) = running.ask_json("GET /api/v1/openapi.json", "");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 30, "{}", paths.len());
    let mut wrong = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            let what = format!("{} {}", method.to_uppercase(), filled(path, operation));
            // One without an end is not read to it here.
            if what.contains("/follow") || method == "head" {
                continue;
            }
            let headers = "Content-Type: application/json\r\n";
            for body in ["{}", "", "[1", "{\"nosuch\": 1}"] {
                let (status, answer) = running.ask(&what, headers, body);
                let found = is_described(operation, status, &answer, &document);
                wrong.extend(
                    found
                        .into_iter()
                        .map(|found| format!("{what} {body}: {found}")),
                );
                assert!(status < 500, "{what} {body}: {answer}");
            }
            let (status, answer) = running.ask(&what, "Origin: http://evil.example\r\n", "");
            let found = is_described(operation, status, &answer, &document);
            wrong.extend(
                found
                    .into_iter()
                    .map(|found| format!("{what}, another origin: {found}")),
            );
            let is_public = !path.starts_with("/api/v1/")
                && !path.starts_with("/topics")
                && !path.starts_with("/v3")
                && path != "/brokers"
                && path != "/connections";
            if !is_public && path != "/api/v1/openapi.json" {
                assert_eq!(status, 403, "{what}");
            }
        }
        let bare = path.replace(['{', '}'], "");
        let (status, answer) = running.ask(&format!("OPTIONS {bare}"), "", "");
        assert_eq!(status, 204, "{path}");
        let allowed = header_of(&answer, "allow").expect("what is allowed");
        for method in methods.as_object().expect("methods").keys() {
            assert!(
                allowed
                    .split(',')
                    .any(|one| one.eq_ignore_ascii_case(method)),
                "{path}: {allowed}"
            );
        }
        let (status, answer) = running.ask(&format!("BREW {bare}"), "", "");
        assert_eq!(status, 405, "{path}");
        assert!(header_of(&answer, "allow").is_some(), "{path}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_groups_are_made_shown_changed_and_removed() {
    let (_data, running) = running(&[]);
    let ask = |what: &str, body: Value| running.ask_json(what, &body.to_string());
    let new = |dry_run| json!({ "name": "t", "partitions": 3, "settings": { "retention.ms": "60000" }, "dry_run": dry_run });
    assert_eq!(ask("POST /api/v1/topics", new(true)).0, 200);
    assert_eq!(ask("GET /api/v1/topics/t", json!({})).0, 404);
    assert_eq!(ask("POST /api/v1/topics", new(false)).0, 201);
    let (status, answer) = ask("POST /api/v1/topics", new(false));
    assert_eq!((status, &answer["code"]), (409, &json!("name_taken")));

    let setting = |name: &str| {
        let (_, topic) = ask("GET /api/v1/topics/t", json!({}));
        let settings = topic["settings"].as_array().expect("settings").clone();
        let found = settings.into_iter().find(|one| one["name"] == name);
        found.expect("it is there")
    };
    let change = |dry_run| json!({ "set": { "retention.ms": "5000" }, "dry_run": dry_run });
    let (_, tried) = ask("PATCH /api/v1/topics/t/settings", change(true));
    assert_eq!(setting("retention.ms")["value"], "60000");
    let (_, made) = ask("PATCH /api/v1/topics/t/settings", change(false));
    assert_eq!(tried["changes"], made["changes"]);
    assert_eq!(setting("retention.ms")["value"], "5000");
    let unset = json!({ "unset": ["retention.ms"] });
    assert_eq!(ask("PATCH /api/v1/topics/t/settings", unset).0, 200);
    assert_eq!(setting("retention.ms")["origin"], "default");
    let bad = json!({ "set": { "retention.ms": "soon" } });
    assert_eq!(
        ask("PATCH /api/v1/topics/t/settings", bad).1["code"],
        "invalid_setting"
    );

    assert_eq!(
        ask("POST /api/v1/topics/t/partitions", json!({ "count": 5 })).1["after"],
        5
    );
    assert_eq!(
        ask("POST /api/v1/topics/t/partitions", json!({ "count": 2 })).0,
        400
    );
    let (_, partitions) = ask("GET /api/v1/topics/t/partitions", json!({}));
    assert_eq!(partitions["partitions"].as_array().map(Vec::len), Some(5));
    assert_eq!(
        ask("GET /api/v1/topics/t/partitions/5", json!({})).1["code"],
        "unknown_partition"
    );

    let reset = |dry_run| json!({ "topic": "t", "to": "latest", "dry_run": dry_run });
    assert_eq!(ask("POST /api/v1/groups/g/reset", reset(true)).0, 200);
    assert_eq!(
        ask("GET /api/v1/groups/g", json!({})).1["code"],
        "unknown_group"
    );
    assert_eq!(ask("POST /api/v1/groups/g/reset", reset(false)).0, 200);
    let (_, group) = ask("GET /api/v1/groups/g", json!({}));
    assert_eq!(group["offsets"].as_array().map(Vec::len), Some(5));
    assert_eq!(
        ask(
            "DELETE /api/v1/groups/g/offsets?topic=t&partition=4",
            json!({})
        )
        .0,
        200
    );
    assert_eq!(
        ask(
            "DELETE /api/v1/groups/g/offsets?topic=t&partition=4",
            json!({})
        )
        .1["code"],
        "unknown_offset"
    );
    assert_eq!(ask("DELETE /api/v1/groups/g", json!({})).0, 200);
    assert_eq!(
        ask("DELETE /api/v1/topics/t?dry_run=true", json!({})).0,
        200
    );
    assert_eq!(ask("DELETE /api/v1/topics/t", json!({})).0, 200);
    assert_eq!(ask("DELETE /api/v1/topics/t", json!({})).0, 404);
}

#[test]
fn a_page_of_another_origin_gets_in_only_where_a_setting_names_it() {
    let (_data, running) = running(&[
        "http.cors.allow.origins=http://good.example",
        "http.hosts=broker.example",
    ]);
    let asked = |headers: &str| running.ask("GET /api/v1/topics", headers, "");
    let (status, answer) = asked("Origin: http://good.example\r\nSec-Fetch-Site: cross-site\r\n");
    assert_eq!(status, 200);
    assert_eq!(
        header_of(&answer, "access-control-allow-origin"),
        Some("http://good.example")
    );
    let (status, answer) = asked("Origin: http://evil.example\r\n");
    assert_eq!(status, 403);
    assert_eq!(header_of(&answer, "access-control-allow-origin"), None);
    assert_eq!(asked("Sec-Fetch-Site: same-site\r\n").0, 403);
    assert_eq!(asked("Sec-Fetch-Site: same-origin\r\n").0, 200);
    let preflight = |origin: &str| {
        let headers = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n"
        );
        running.ask("OPTIONS /api/v1/topics", &headers, "")
    };
    let (status, answer) = preflight("http://good.example");
    assert_eq!(status, 204);
    assert_eq!(
        header_of(&answer, "access-control-allow-headers"),
        Some("content-type")
    );
    assert!(
        header_of(&answer, "access-control-allow-methods").is_some_and(|all| all.contains("POST"))
    );
    assert_eq!(preflight("http://evil.example").0, 403);
    for (host, expected) in [
        ("broker.example:99", 200),
        ("localhost", 200),
        ("127.0.0.1", 200),
        ("evil.example", 421),
    ] {
        let mut stream = TcpStream::connect(&running.http).expect("it listens");
        write!(
            stream,
            "GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{host}: {answer}"
        );
    }
}

#[test]
fn requests_have_ids_and_are_counted_by_their_route() {
    let (_data, running) = running(&[]);
    let (_, answer) = running.ask("GET /api/v1/topics/nosuch", "X-Request-Id: mine-1\r\n", "");
    assert_eq!(header_of(&answer, "x-request-id"), Some("mine-1"));
    let problem: Value = serde_json::from_str(body_of(&answer)).expect("JSON");
    assert_eq!(problem["request_id"], "mine-1");
    for at in 0..50 {
        running.get(&format!("/api/v1/topics/nosuch-{at}"));
        running.get(&format!("/nosuch/{at}"));
    }
    let (_, page) = running.get("/metrics");
    let series: BTreeMap<&str, &str> = page
        .lines()
        .filter(|line| line.starts_with("alluvium_http_requests_total{"))
        .filter_map(|line| line.rsplit_once(' '))
        .collect();
    let of = |route: &str| {
        format!("alluvium_http_requests_total{{route=\"{route}\",method=\"GET\",status=\"4xx\"}}")
    };
    assert_eq!(series.get(&*of("/api/v1/topics/{topic}")), Some(&"51"));
    assert_eq!(series.get(&*of("unmatched")), Some(&"50"));
    assert_eq!(series.len(), 2, "{series:?}");
}

#[test]
fn what_is_too_long_is_refused_and_says_how_long_it_may_be() {
    let (_data, running) = running(&[]);
    let long = "x".repeat(20_000);
    let (status, answer) = running.get(&format!("/api/v1/topics?pattern={long}"));
    assert_eq!(status, 414);
    assert!(answer.contains("16384"), "{answer}");
    let headers: String = (0..4).map(|at| format!("X-{at}: {long}\r\n")).collect();
    assert_eq!(running.ask("GET /api/v1/topics", &headers, "").0, 431);
    let body = format!("{{\"name\": \"{long}\"}}");
    let (status, answer) = running.ask_json("POST /api/v1/topics", &body);
    assert_eq!((status, &answer["code"]), (413, &json!("body_too_large")));
}

#[test]
fn a_body_is_asked_for_only_if_it_is_wanted() {
    let (_data, running) = running(&[]);
    let answer = |origin: &str| {
        let mut stream = TcpStream::connect(&running.http).expect("it listens");
        let body = b"{\"name\": \"new\"}";
        let head = format!(
            "POST /api/v1/topics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             {origin}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("an answer");
        if &first == b"HTTP/1.1 100" {
            stream.write_all(body).expect("sent");
        }
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("an answer");
        (String::from_utf8_lossy(&first).into_owned(), rest)
    };
    let (first, rest) = answer("");
    assert_eq!(first, "HTTP/1.1 100");
    assert!(rest.contains("HTTP/1.1 201"), "{rest}");
    assert_eq!(answer("Origin: http://evil.example\r\n").0, "HTTP/1.1 403");
}

#[test]
fn requests_in_one_write_are_answered_in_their_order() {
    let (_data, running) = running(&[]);
    let mut stream = TcpStream::connect(&running.http).expect("it listens");
    let one =
        |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    let all = one("/healthz", "") + &one("/nosuch", "") + &one("/version", "Connection: close\r\n");
    stream.write_all(all.as_bytes()).expect("sent");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers");
    let statuses: Vec<&str> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_records_is_answered_when_the_server_ends_and_keeps_nobody_out() {
    const WAITING: usize = 1_000;
    let (_data, running) = running(&[]);
    create_topic(&running, "readings", 1, &[]).await;
    let mut waiting: Vec<TcpStream> = (0..WAITING)
        .map(|_| {
            let mut stream = TcpStream::connect(&running.http).expect("it listens");
            let path = "/topics/readings/partitions/0/records?offset=0&timeout=30000";
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            stream
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, page) = running.get("/metrics");
        assert_eq!(status, 200);
        if page.contains(&format!(
            "alluvium_http_requests_answering {}\n",
            WAITING + 1
        )) {
            break;
        }
        assert!(Instant::now() < until, "not all of them wait: {page}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(running.get("/healthz").0, 200);
    assert_eq!(running.get("/api/v1/topics").0, 200);
    let (code, _) = running.end(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0));
    for stream in &mut waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("[]"),
            "{answer}"
        );
    }
}

#[test]
fn silent_connections_beyond_the_limit_keep_nobody_out() {
    let (_data, running) = running(&["http.connections.max=20"]);
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(&running.http).expect("it listens"))
        .collect();
    let until = Instant::now() + Duration::from_secs(60);
    while running.get("/healthz").0 != 200 {
        assert!(Instant::now() < until, "health is locked out");
    }
    let (_, page) = running.get("/metrics");
    assert!(
        page.contains("alluvium_http_connections_max 20\n"),
        "{page}"
    );
    drop(silent);
}
