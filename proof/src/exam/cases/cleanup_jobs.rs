//! Cleanup jobs over HTTP, for cases that have cleanup run again and again; and what a store's directory holds beside the segments
//! that it knows.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::exam::cases::files;

const PATIENCE: Duration = Duration::from_secs(60);

/// One request to the server's HTTP port. Gives the status and the JSON of the answer.
pub fn call(http: &str, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
    let address: SocketAddr = http.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("half an answer to {method} {path}"))?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("an answer without a status")?;
    let value = serde_json::from_str(body)
        .with_context(|| format!("{method} {path} was answered {body:?}"))?;
    Ok((status, value))
}

/// Has cleanup run over all of a topic at once, and waits for its end. Gives the job as it ended.
pub fn run_now(http: &str, policy: &str, topic: &str) -> Result<Value> {
    let wanted = json!({ "policy": policy, "topic": topic, "now": true });
    let (status, job) = call(http, "POST", "/api/v1/cleanup/jobs", Some(&wanted))?;
    ensure!(
        status == 202,
        "a job of {policy} was answered {status}: {job}"
    );
    let id = job["id"].as_str().context("a job without an id")?;
    let path = format!("/api/v1/cleanup/jobs/{id}?wait_ms=1000");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, job) = call(http, "GET", &path, None)?;
        ensure!(status == 200, "job {id} was answered {status}: {job}");
        if !matches!(job["state"].as_str(), Some("waiting" | "running")) {
            return Ok(job);
        }
        ensure!(Instant::now() < deadline, "job {id} does not end: {job}");
    }
}

/// Waits until the directories of these topics' partitions hold the segments that the server knows and no other file of a segment:
/// neither a file of a rewrite that was cut off nor one whose place another took.
pub fn require_no_leftovers(http: &str, data: &Path, topics: &[String]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match leftovers(http, data, topics)? {
            None => return Ok(()),
            Some(what) => ensure!(Instant::now() < deadline, "{what}, after {PATIENCE:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn leftovers(http: &str, data: &Path, topics: &[String]) -> Result<Option<String>> {
    let mut directories = segments_on_disk(data)?;
    for topic in topics {
        let path = format!("/api/v1/cleanup/plan?policy=retention&topic={topic}");
        let (status, plan) = call(http, "GET", &path, None)?;
        ensure!(
            status == 200,
            "the plan of {topic} was answered {status}: {plan}"
        );
        for partition in plan["partitions"].as_array().context("no partitions")? {
            let segments = partition["segments"].as_array().context("no segments")?;
            let mut known: Vec<u64> = segments
                .iter()
                .filter_map(|segment| segment["base_offset"].as_u64())
                .collect();
            known.sort_unstable();
            let Some(at) = directories.iter().position(|bases| *bases == known) else {
                return Ok(Some(format!(
                    "no directory holds exactly the segments of {topic}-{} that begin at {known:?}; there are {directories:?}",
                    partition["partition"]
                )));
            };
            directories.swap_remove(at);
        }
    }
    Ok(None)
}

/// Base offsets of the segments of each partition's directory, a generation each.
fn segments_on_disk(data: &Path) -> Result<Vec<Vec<u64>>> {
    let mut directories: std::collections::BTreeMap<_, Vec<u64>> =
        std::collections::BTreeMap::new();
    for path in files::files_below(&data.join("p"))? {
        let directory = path
            .parent()
            .context("a file without a directory")?
            .to_owned();
        let bases = directories.entry(directory).or_default();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(base) = name
            .strip_suffix(".log")
            .and_then(|name| name.split('.').next())
        {
            bases.push(base.parse().with_context(|| format!("the name {name}"))?);
        }
    }
    let mut all: Vec<Vec<u64>> = directories.into_values().collect();
    all.iter_mut().for_each(|bases| bases.sort_unstable());
    Ok(all)
}
