//! One device's history out of many: how long a replay by key takes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bench::figures::{Figure, Mark, quantile};
use crate::bench::{Bench, Case, broker};
use crate::exam::probe::Probe;
use crate::http::Http;

/// The case.
pub const CASE: Case = Case {
    name: "http-history",
    about: "One device's history over HTTP: 1,000 records of one of 10,000 devices, which take turns in a topic of 10 million records \
            in 4 partitions, as NDJSON, each compared with what was sent. It is measured when the key indexes are made, in the \
            background; the active segments are as they are then. 100 devices, one after the other, on one connection.",
    uses_binary: true,
    run,
};

const TOPIC: &str = "fleet";
const DEVICES: usize = 10_000;
const RECORDS: usize = 10_000_000;
/// Records of a body.
const BODY: usize = 50_000;
const ASKED: usize = 100;
/// An active segment's index has its turn every 30 seconds.
const INDEX_TURN: Duration = Duration::from_secs(35);
const INDEX_PATIENCE: Duration = Duration::from_secs(180);

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut middle = Figure::new("a device's history, p50 of 100", "ms").marked(Mark::AtMost(50.0));
    let mut worst = Figure::new("a device's history, p99 of 100", "ms");
    let mut first = Figure::new("the first one after a start", "ms");
    let mut read = Figure::new("of the records, looked at for one", "%");
    let directory = bench.directory()?;
    let plan = broker::plan(bench, directory.path())?;
    let mut victim = plan.start()?;
    Probe::connect(&victim.kafka)?.create_topic(TOPIC, 4, &[("segment.bytes", "67108864")])?;
    load(&mut Http::connect(&victim.http)?)?;
    bench.progress("10 million records are there");
    wait_for_indexes(&mut Http::connect(&victim.http)?)?;
    for round in 0..bench.runs as usize {
        victim.terminate()?;
        victim = plan.start()?;
        let mut http = Http::connect(&victim.http)?;
        let began = Instant::now();
        history(&mut http, DEVICES - 1 - round)?;
        first.runs.push(began.elapsed().as_secs_f64() * 1e3);
        let (mut times, mut looked_at) = (Vec::new(), 0);
        for asked in 0..ASKED {
            let began = Instant::now();
            looked_at += history(&mut http, asked * (DEVICES / ASKED) + round)?;
            times.push(u64::try_from(began.elapsed().as_micros())?);
        }
        middle.runs.push(quantile(&mut times, 0.5) as f64 / 1e3);
        worst.runs.push(quantile(&mut times, 0.99) as f64 / 1e3);
        read.runs
            .push(looked_at as f64 / (ASKED * RECORDS) as f64 * 100.0);
        bench.progress(&format!(
            "p50 {:.1} ms, p99 {:.1} ms, the first {:.0} ms",
            middle.runs.last().unwrap_or(&0.0),
            worst.runs.last().unwrap_or(&0.0),
            first.runs.last().unwrap_or(&0.0)
        ));
    }
    victim.kill()?;
    Ok(vec![middle, worst, first, read])
}

fn load(http: &mut Http) -> Result<()> {
    let path = format!("/api/v1/topics/{TOPIC}/records?key_field=/d");
    for first in (0..RECORDS).step_by(BODY) {
        let line = |n: usize| format!("{{\"d\":\"dev-{}\",\"n\":{n}}}\n", n % DEVICES);
        let body: String = (first..first + BODY).map(line).collect();
        let answer = http.post(&path, body.as_bytes())?;
        let wanted = format!("\"records\":{BODY},");
        ensure!(answer.contains(&wanted), "refused: {answer}");
    }
    Ok(())
}

/// Waits until a replay by key looks at no less than before, through a turn of the indexes.
fn wait_for_indexes(http: &mut Http) -> Result<()> {
    let until = Instant::now() + INDEX_PATIENCE;
    let (mut before, mut since) = (usize::MAX, Instant::now());
    while since.elapsed() < INDEX_TURN && Instant::now() < until {
        let looked_at = history(http, 0)?;
        if looked_at != before {
            (before, since) = (looked_at, Instant::now());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// Reads a device's history, which has to be what was sent; gives how many records were looked at.
fn history(http: &mut Http, device: usize) -> Result<usize> {
    let query = format!("key=dev-{device}&columns=offset,n&summary=true");
    let body = http.get(&format!("/api/v1/topics/{TOPIC}/replay?{query}"))?;
    let mut expected = (device..RECORDS).step_by(DEVICES);
    let mut looked_at = None;
    for line in body.lines() {
        let line: Value = serde_json::from_str(line)?;
        match line.get("summary") {
            Some(summary) => looked_at = summary["scanned_records"].as_u64(),
            None => {
                let next = expected.next().map(|n| n as u64);
                ensure!(line["n"].as_u64() == next, "{line}, and not {next:?}");
            }
        }
    }
    ensure!(
        expected.next().is_none(),
        "the history of {device} has an end too early"
    );
    Ok(usize::try_from(looked_at.context("a summary")?)?)
}
