//! Fetches of many small partitions: what a consumer of 1,000 of them costs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wire::ErrorCode;
use wire::messages::fetch::{FetchRequest, FetchResponse};

use super::partitions::{batch, wait_until_settled, write_each};
use crate::bench::broker::{self, Replayer, fetch_request};
use crate::bench::figures::Figure;
use crate::bench::{Bench, Case};
use crate::exam::probe::Probe;

/// The case.
pub const CASE: Case = Case {
    name: "fetch-many",
    about: "Fetches of 1,000 partitions by one connection, one fetch after the other; each partition has one settled record of 100 \
            bytes, which is in memory. All of them: each fetch names every partition and brings every record. Nothing new: each \
            fetch names every partition at its end, without a session. A session: it names none, and nothing is new (KIP-227).",
    uses_binary: true,
    run,
};

const TOPIC: &str = "small";
const PARTITIONS: i32 = 1000;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut all = Figure::new("all of them", "fetches/s");
    let mut at_end = Figure::new("nothing new", "fetches/s");
    let mut session = Figure::new("nothing new, in a session", "fetches/s");
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let plan = broker::plan(bench, directory.path())?.with("settle.age.ms", 200);
        let mut victim = plan.start()?;
        let mut probe = Probe::connect(&victim.kafka)?;
        probe.create_topic(TOPIC, PARTITIONS, &[])?;
        write_each(&mut probe, TOPIC, PARTITIONS, &batch()?)?;
        wait_until_settled(&victim, directory.path())?;
        let mut reader = Replayer::connect(&victim.kafka)?;
        let mut rate = |request: &FetchRequest, records: usize| -> Result<f64> {
            let mut count = |time: Duration| -> Result<f64> {
                let (began, mut fetches) = (Instant::now(), 0u32);
                while began.elapsed() < time {
                    ensure!(
                        found(&reader.ask(request)?)? == records,
                        "not every record came"
                    );
                    fetches += 1;
                }
                Ok(f64::from(fetches) / began.elapsed().as_secs_f64())
            };
            // The first pass maps the files.
            count(bench.time / 8)?;
            count(bench.time / 4)
        };
        all.runs.push(rate(
            &fetch_request(TOPIC, 0..PARTITIONS, 0),
            PARTITIONS as usize,
        )?);
        at_end
            .runs
            .push(rate(&fetch_request(TOPIC, 0..PARTITIONS, 1), 0)?);
        let in_session = in_session(&victim.kafka, bench.time / 4)?;
        session.runs.push(in_session);
        bench.progress(&format!(
            "{:.0}, {:.0} and {in_session:.0} fetches/s",
            all.runs.last().copied().unwrap_or_default(),
            at_end.runs.last().copied().unwrap_or_default(),
        ));
        victim.kill()?;
    }
    Ok(vec![all, at_end, session])
}

/// Fetches a second in a session in which nothing is new. A broker that offers none is asked about every partition.
fn in_session(address: &str, time: Duration) -> Result<f64> {
    let mut reader = Replayer::connect(address)?;
    let mut request = fetch_request(TOPIC, 0..PARTITIONS, 1);
    request.session_epoch = 0;
    let first = reader.ask(&request)?;
    if first.session_id != 0 {
        request.session_id = first.session_id;
        request.topics.clear();
    }
    let (began, mut fetches) = (Instant::now(), 0u32);
    while began.elapsed() < time {
        if request.session_id != 0 {
            request.session_epoch += 1;
        }
        ensure!(found(&reader.ask(&request)?)? == 0, "nothing is new");
        fetches += 1;
    }
    Ok(f64::from(fetches) / began.elapsed().as_secs_f64())
}

/// Partitions that brought records.
fn found(response: &FetchResponse) -> Result<usize> {
    let error = ErrorCode::from_code(response.error_code);
    ensure!(error == ErrorCode::None, "fetch: {}", error.name());
    let mut count = 0;
    for partition in response.responses.iter().flat_map(|it| &it.partitions) {
        let error = ErrorCode::from_code(partition.error_code);
        ensure!(error == ErrorCode::None, "fetch: {}", error.name());
        count += usize::from(
            partition
                .records
                .as_ref()
                .is_some_and(|records| !records.is_empty()),
        );
    }
    Ok(count)
}
