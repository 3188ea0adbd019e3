//! How fast MQTT clients come and go, beside another broker.

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bench::figures::{Figure, Mark};
use crate::bench::mqtt::connection::Connection;
use crate::bench::peers::{Kept, Peer};
use crate::bench::{Bench, Case, broker};

/// The case.
pub const CASE: Case = Case {
    name: "mqtt-connects",
    about: "MQTT clients that connect with a clean session, are let in, say that they go and close, 64 at a time, each under a name of its \
            own. The column of limits has mosquitto without persistence.",
    uses_binary: true,
    run,
};

const AT_ONCE: u8 = 64;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    broker::more_descriptors(4_096)?;
    let mut let_in = Figure::new("let in", "clients/s").marked(Mark::OfLimit(0.7));
    let runtime = broker::runtime()?;
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let mut victim = broker::mqtt_plan(bench, directory.path())?.start()?;
        let ours = runtime.block_on(connects(&broker::mqtt_address(&victim)?, bench))?;
        victim.kill()?;
        let peer = Peer::mosquitto(directory.path(), Kept::Nothing)?;
        let theirs = runtime.block_on(connects(&peer.address, bench))?;
        let_in.runs.push(ours);
        let_in.limits.push(theirs);
        bench.progress(&format!("{ours:.0} clients/s, mosquitto {theirs:.0}"));
    }
    Ok(vec![let_in])
}

/// Clients a second that were let in.
async fn connects(address: &str, bench: &Bench) -> Result<f64> {
    let began = Instant::now();
    let until = began + bench.time;
    let mut tasks = JoinSet::new();
    for lane in 0..AT_ONCE {
        let address = address.to_owned();
        tasks.spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < until {
                let name = format!("come-and-go-{lane}-{count}");
                let connection = Connection::open_from(lane + 2, &address, &name, true).await?;
                connection.leave().await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
