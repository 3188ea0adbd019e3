//! Many MQTT sessions that outlive a SIGKILL.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use crate::bench::figures::{Figure, Mark};
use crate::bench::mqtt::connection::Connection;
use crate::bench::{Bench, Case, broker};

/// The case.
pub const CASE: Case = Case {
    name: "mqtt-sessions",
    about: "100,000 MQTT sessions that stay, each with a filter of its own, made once, 256 at a time; then SIGKILL, and the time from the start \
            of the process until one of these clients has its session again. Every thousandth is asked for afterwards, and has to be \
            there. Memory is what the process has resident then, by the number of sessions.",
    uses_binary: true,
    run,
};

const SESSIONS: usize = 100_000;
const AT_ONCE: usize = 256;
const ASKED_EVERY: usize = 1_000;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    broker::more_descriptors(4_096)?;
    let mut made = Figure::new("sessions made, each on the disk", "sessions/s");
    let mut back =
        Figure::new("a client has its session again after SIGKILL", "s").marked(Mark::AtMost(2.0));
    let mut ready = Figure::new("of it until the process is ready", "s");
    let mut memory = Figure::new("resident then, for each session", "KiB");
    let runtime = broker::runtime()?;
    let directory = bench.directory()?;
    let plan = broker::mqtt_plan(bench, directory.path())?;
    let mut victim = plan.start()?;
    let began = Instant::now();
    runtime.block_on(make(&broker::mqtt_address(&victim)?))?;
    let rate = SESSIONS as f64 / began.elapsed().as_secs_f64();
    made.runs.push(rate);
    bench.progress(&format!("{SESSIONS} sessions, {rate:.0} a second"));
    for run in 0..bench.runs as usize {
        victim.kill()?;
        let began = Instant::now();
        victim = plan.start()?;
        let address = broker::mqtt_address(&victim)?;
        runtime.block_on(resume(&address, run))?;
        let seconds = began.elapsed().as_secs_f64();
        back.runs.push(seconds);
        ready.runs.push(victim.up_in.as_secs_f64());
        memory
            .runs
            .push(victim.resident_bytes()? as f64 / 1024.0 / SESSIONS as f64);
        runtime.block_on(async {
            for session in (0..SESSIONS).step_by(ASKED_EVERY) {
                resume(&address, session).await?;
            }
            anyhow::Ok(())
        })?;
        bench.progress(&format!("a session is back in {seconds:.2} s"));
    }
    victim.kill()?;
    Ok(vec![made, back, ready, memory])
}

async fn make(address: &str) -> Result<()> {
    let mut tasks = JoinSet::new();
    for lane in 0..AT_ONCE {
        let address = address.to_owned();
        tasks.spawn(async move {
            for session in (lane..SESSIONS).step_by(AT_ONCE) {
                let name = format!("device-{session}");
                let mut connection = Connection::open(&address, &name, false).await?;
                ensure!(!connection.is_resumed, "{name} had a session before");
                let filter = format!("site/{session}/command/#");
                connection.subscribe(&filter, 1).await?;
                connection.leave().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn resume(address: &str, session: usize) -> Result<()> {
    let name = format!("device-{session}");
    let connection = Connection::open(address, &name, false).await?;
    ensure!(connection.is_resumed, "the session of {name} is lost");
    // Gone before the next kill, so that each start finds the same.
    tokio::time::timeout(Duration::from_secs(10), connection.close()).await?
}
