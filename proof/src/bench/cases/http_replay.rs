//! A topic into an analytics engine: replay as Arrow and as Parquet, beside what a user does without them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bench::figures::{Figure, Mark};
use crate::bench::{Bench, Case, broker};
use crate::compat::clients::ENGINES_KIT;
use crate::compat::install::{self, Kit, Places};
use crate::exam::probe::Probe;
use crate::exam::victim::Victim;
use crate::http::Http;
use xtask::run;

/// The case.
pub const CASE: Case = Case {
    name: "http-replay",
    about: "The same sum over 3 million readings of about 125 bytes of JSON, in DuckDB: by `kcat -J` into a file and `read_json`, and by \
            a replay as Arrow (pyarrow) and as Parquet (a file), one after the other in each run, each answer checked. Here the \
            column of limits has kcat with DuckDB in the same run, so that the ratio says how many times as fast it is; MB are of the \
            log. The sealed files are what the topic's segments hold of them, 16 MiB each.",
    uses_binary: true,
    run,
};

const TOPIC: &str = "readings";
const READINGS: usize = 3_000_000;
/// Readings of a body.
const BODY: usize = 20_000;
/// The goal.
const TIMES: f64 = 10.0;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let places = Places::find();
    let kcat = Kit::Debian {
        program: "kcat",
        package: "kcat",
    };
    install::install(&places, [kcat, ENGINES_KIT])?;
    let directory = bench.directory()?;
    let plan = broker::plan(bench, directory.path())?;
    let mut victim = plan.start()?;
    Probe::connect(&victim.kafka)?.create_topic(TOPIC, 4, &[("segment.bytes", "16777216")])?;
    let mut http = Http::connect(&victim.http)?;
    load(&mut http)?;
    // All of it has settled.
    victim.terminate()?;
    victim = plan.start()?;
    let log_bytes = scanned_bytes(&mut Http::connect(&victim.http)?)?;
    bench.progress(&format!(
        "3 million readings are {} MB of the log",
        log_bytes / 1_000_000
    ));
    let ways = [
        ("arrow", "replay as Arrow, all columns", Some(TIMES)),
        (
            "arrow-column",
            "replay as Arrow, the column asked for",
            Some(TIMES),
        ),
        ("parquet", "replay as Parquet, all columns", None),
        (
            "parquet-column",
            "replay as Parquet, the column asked for",
            None,
        ),
        (
            "files",
            "Parquet files that were made before, by httpfs",
            None,
        ),
    ];
    let mut figures = vec![Figure::new("kcat into a file, read_json", "rows/s")];
    for (_, what, goal) in ways {
        let mut rows = Figure::new(what, "rows/s");
        rows.mark = goal.map(Mark::OfLimit);
        figures.extend([rows, Figure::new(what, "MB/s")]);
    }
    let way = |victim: &Victim, way| measured(&places, victim, way, directory.path());
    // The first one makes the files.
    way(&victim, "files")?;
    for _ in 0..bench.runs {
        let kcat = way(&victim, "kcat")?.rate(READINGS)?;
        figures[0].runs.push(kcat);
        let mut told = format!("kcat {kcat:.0} rows/s");
        for (at, (name, ..)) in ways.iter().enumerate() {
            let found = way(&victim, name)?;
            let rows = match *name {
                "files" => found.rows,
                _ => READINGS,
            };
            let rate = found.rate(rows)?;
            let bytes_of_row = log_bytes as f64 / READINGS as f64;
            for (figure, factor) in [(1 + 2 * at, 1.0), (2 + 2 * at, bytes_of_row / 1e6)] {
                figures[figure].runs.push(rate * factor);
                figures[figure].limits.push(kcat * factor);
            }
            told.push_str(&format!(", {name} {:.1} times", rate / kcat));
        }
        bench.progress(&told);
    }
    victim.kill()?;
    Ok(figures)
}

/// The reading of a number; its `count` is what is summed.
fn reading(n: usize) -> String {
    format!(
        "{{\"device\":\"sensor-{:04}\",\"at\":{},\"temperature\":{}.{},\"humidity\":{}.5,\"battery\":3.{:02},\"count\":{},\"ok\":{}}}\n",
        n * 7 % 2_000,
        1_700_000_000_000 + n,
        n % 40,
        n % 10,
        n % 100,
        n % 97,
        n % 1_009,
        !n.is_multiple_of(11)
    )
}

fn load(http: &mut Http) -> Result<()> {
    let path = format!("/api/v1/topics/{TOPIC}/records?key_field=/device");
    for first in (0..READINGS).step_by(BODY) {
        let body: String = (first..first + BODY).map(reading).collect();
        let answer = http.post(&path, body.as_bytes())?;
        let wanted = format!("\"records\":{BODY},");
        ensure!(answer.contains(&wanted), "refused: {answer}");
    }
    Ok(())
}

/// How much of the log a replay reads.
fn scanned_bytes(http: &mut Http) -> Result<u64> {
    let query = "columns=offset&max_records=1&where=count%20%3C%200&summary=true";
    let body = http.get(&format!("/api/v1/topics/{TOPIC}/replay?{query}"))?;
    let summary: Value = serde_json::from_str(body.lines().last().unwrap_or_default())?;
    let bytes = summary["summary"]["scanned_bytes"].as_u64();
    bytes.context("a summary tells how much was scanned")
}

/// What a way came to.
struct Found {
    time: Duration,
    rows: usize,
}

impl Found {
    fn rate(&self, rows: usize) -> Result<f64> {
        ensure!(
            self.rows == rows && rows > 0,
            "{} rows and not {rows}",
            self.rows
        );
        Ok(rows as f64 / self.time.as_secs_f64())
    }
}

fn measured(places: &Places, victim: &Victim, way: &str, work: &Path) -> Result<Found> {
    let mut command = Command::new(places.python(Some("engines")));
    command
        .arg(places.sources.join("engines/ways.py"))
        .args([way, &victim.kafka, &victim.http, TOPIC])
        .arg(work);
    let said = run::quiet(&mut command).with_context(|| format!("the way {way}"))?;
    let said: Value = serde_json::from_str(said.trim())?;
    let number = |name: &str| {
        said[name]
            .as_u64()
            .with_context(|| format!("no {name}: {said}"))
    };
    let rows = usize::try_from(number("rows")?)?;
    let sum: usize = (0..READINGS).map(|n| n % 1_009).sum();
    let expected = u64::try_from(sum)?;
    ensure!(
        rows < READINGS || number("sum")? == expected,
        "{way}: {said}, and the sum is {expected}"
    );
    let seconds = said["seconds"].as_f64().context("no seconds")?;
    Ok(Found {
        time: Duration::from_secs_f64(seconds),
        rows,
    })
}
