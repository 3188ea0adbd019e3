//! Many followers at once: each is given every record once and in order, and what that takes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::bench::figures::Figure;
use crate::bench::{Bench, Case, broker};
use crate::exam::probe::Probe;
use crate::http::Http;

/// The case.
pub const CASE: Case = Case {
    name: "http-follow",
    about: "1,000 followers of one topic of 4 partitions at once, by server-sent events, and 2,000 records that come while all of them \
            wait, 20 in each body. Each follower checks that it is given every record once, in each partition in order; they are one \
            process beside the server. Flat out, and then a body every 200 ms, where it is told how long a record is under way to the last \
            follower.",
    uses_binary: true,
    run,
};

const TOPIC: &str = "followed";
const PARTITIONS: usize = 4;
const FOLLOWERS: usize = 1_000;
const RECORDS: usize = 2_000;
const BODY: usize = 20;
const SLOW_BODIES: usize = 30;
const SLOW_EVERY: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(120);

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    broker::more_descriptors(8_192)?;
    let mut given = Figure::new("records given, each once and in order", "records/s");
    let mut slow = Figure::new(
        "from the request to the last follower, at 100 records/s, p99",
        "ms",
    );
    let mut alone = Figure::new("memory of the server, alone", "MiB");
    let mut waiting = Figure::new("memory with all of them waiting", "MiB");
    let mut most = Figure::new("memory at most", "MiB");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let runtime = broker::runtime()?;
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let mut victim = broker::plan(bench, directory.path())?.start()?;
        alone.runs.push(mib(victim.resident_bytes()?));
        let partitions = i32::try_from(PARTITIONS)?;
        Probe::connect(&victim.kafka)?.create_topic(TOPIC, partitions, &[])?;
        let mut producer = Http::connect(&victim.http)?;
        runtime.block_on(async {
            let total = RECORDS + SLOW_BODIES * BODY;
            let (progress, _) = watch::channel(0);
            let followers: Vec<_> = (0..FOLLOWERS)
                .map(|_| {
                    let (address, progress) = (victim.http.clone(), progress.clone());
                    tokio::spawn(async move { follow(&address, total, &progress).await })
                })
                .collect();
            wait_for_followers(&victim.http).await?;
            waiting.runs.push(mib(victim.resident_bytes()?));
            let began = Instant::now();
            for first in (0..RECORDS).step_by(BODY) {
                produce(&mut producer, first)?;
            }
            wait_for(&progress, RECORDS * FOLLOWERS).await?;
            let seconds = began.elapsed().as_secs_f64();
            given.runs.push((RECORDS * FOLLOWERS) as f64 / seconds);
            let mut times = Vec::new();
            for body in 0..SLOW_BODIES {
                let began = Instant::now();
                let first = RECORDS + body * BODY;
                produce(&mut producer, first)?;
                wait_for(&progress, (first + BODY) * FOLLOWERS).await?;
                times.push(u64::try_from(began.elapsed().as_micros())?);
                tokio::time::sleep(SLOW_EVERY.saturating_sub(began.elapsed())).await;
            }
            let p99 = crate::bench::figures::quantile(&mut times, 0.99);
            slow.runs.push(p99 as f64 / 1e3);
            for follower in followers {
                tokio::time::timeout(PATIENCE, follower).await???;
            }
            anyhow::Ok(())
        })?;
        most.runs.push(mib(victim.peak_resident_bytes()?));
        bench.progress(&format!(
            "{:.0} records/s, p99 {:.0} ms, {:.0} MiB at most",
            given.runs.last().unwrap_or(&0.0),
            slow.runs.last().unwrap_or(&0.0),
            most.runs.last().unwrap_or(&0.0)
        ));
        victim.kill()?;
    }
    Ok(vec![given, slow, alone, waiting, most])
}

fn produce(http: &mut Http, first: usize) -> Result<()> {
    let line = |n: usize| format!("{{\"k\":{},\"n\":{n}}}\n", n % 7);
    let body: String = (first..first + BODY).map(line).collect();
    let path = format!("/api/v1/topics/{TOPIC}/records?key_field=/k");
    let answer = http.post(&path, body.as_bytes())?;
    let wanted = format!("\"records\":{BODY},");
    ensure!(answer.contains(&wanted), "refused: {answer}");
    Ok(())
}

/// Waits until so many records were given to all followers together.
async fn wait_for(progress: &watch::Sender<usize>, wanted: usize) -> Result<()> {
    let mut watched = progress.subscribe();
    let reached = watched.wait_for(|given| *given >= wanted);
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    reached.with_context(|| format!("{} of {wanted} records were given", *progress.borrow()))??;
    Ok(())
}

/// Waits until the server counts all of them.
async fn wait_for_followers(address: &str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let page = Http::connect(address)?.get("/metrics")?;
        let following = page
            .lines()
            .find_map(|line| line.strip_prefix("alluvium_http_following "));
        if following
            .is_some_and(|count| count.trim().parse::<f64>().unwrap_or(0.0) >= FOLLOWERS as f64)
        {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "not all of them follow: {following:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Follows until it has so many records; checks that each comes once and in order.
async fn follow(address: &str, wanted: usize, progress: &watch::Sender<usize>) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /api/v1/topics/{TOPIC}/follow?from=earliest HTTP/1.0\r\nHost: {address}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut lines = BufReader::new(stream);
    let (mut line, mut next) = (String::new(), [0; PARTITIONS]);
    let mut seen = vec![false; wanted];
    let (mut count, mut told) = (0, 0);
    while count < wanted {
        line.clear();
        ensure!(
            lines.read_line(&mut line).await? > 0,
            "a stream ended after {count} records"
        );
        if let Some(data) = line.strip_prefix("data: {\"topic\"") {
            let record: Value = serde_json::from_str(&format!("{{\"topic\"{data}"))?;
            let number = |of: &Value| -> Result<usize> {
                Ok(usize::try_from(of.as_u64().context("a number")?)?)
            };
            let (partition, offset) = (number(&record["partition"])?, number(&record["offset"])?);
            let n = number(&record["value"]["n"])?;
            ensure!(
                offset == next[partition],
                "offset {offset} of {partition}, not {}",
                next[partition]
            );
            ensure!(
                !std::mem::replace(&mut seen[n], true),
                "record {n} came twice"
            );
            next[partition] += 1;
            count += 1;
        } else if line.starts_with("event: gap") {
            anyhow::bail!("a gap");
        }
        // All that is at hand is told at once.
        if count > told && (lines.buffer().is_empty() || count == wanted) {
            let more = count - told;
            told = count;
            progress.send_modify(|given| *given += more);
        }
    }
    Ok(())
}
