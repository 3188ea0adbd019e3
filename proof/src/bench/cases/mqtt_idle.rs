//! What an MQTT connection costs that says nothing, beside another broker.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench::figures::{Figure, Mark};
use crate::bench::mqtt::connection::{self, Clients};
use crate::bench::peers::{Kept, Peer};
use crate::bench::{Bench, Case, broker};

/// The case.
pub const CASE: Case = Case {
    name: "mqtt-idle",
    about: "Memory of an MQTT connection that says nothing: what the process has resident with 10,000 more of them, or as many as \
            descriptors allow, by their number, 20 s after the last has come; 500 are there before. Once with clean sessions \
            without a subscription, once with sessions that stay and have a filter each. The column of limits has mosquitto \
            without persistence. The kernel's own memory for a socket is not in it.",
    uses_binary: true,
    run,
};

const CONNECTIONS: usize = 10_000;
const BEFORE: usize = 500;
/// Descriptors that are for something else.
const OTHERS: usize = 1_000;
const OTHER_CONNECTIONS: usize = 64;
/// Until what was needed for connecting is given back.
const SETTLES: Duration = Duration::from_secs(20);

/// A kind of session.
struct Kind {
    what: &'static str,
    is_clean: bool,
    filter: Option<&'static str>,
    kib: f64,
}

const KINDS: [Kind; 2] = [
    Kind {
        what: "clean session",
        is_clean: true,
        filter: None,
        kib: 2.0,
    },
    Kind {
        what: "session that stays, one filter",
        is_clean: false,
        filter: Some("site/{}/command/#"),
        kib: 4.0,
    },
];

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let allowed = usize::try_from(broker::more_descriptors(20_000)?)?;
    ensure!(
        allowed > 2 * OTHERS + BEFORE,
        "only {allowed} descriptors are allowed"
    );
    // Of its descriptors the server leaves half to Kafka's clients, and one of sixteen places to those that have not connected
    // as a client yet.
    let count = CONNECTIONS.min((allowed - OTHERS) / 2 / 16 * 15 - BEFORE);
    let runtime = broker::runtime()?;
    let mut rows = Vec::new();
    for kind in &KINDS {
        let what = kind.what;
        let mut each = Figure::new(format!("{what}: resident, each of {count}"), "KiB")
            .marked(Mark::AtMost(kind.kib));
        let mut own = Figure::new(format!("{what}: of it not of files"), "KiB");
        let mut million = Figure::new(format!("{what}: a million by that"), "GiB");
        for _ in 0..bench.runs {
            let directory = bench.directory()?;
            let grown = |address: &str, looks: &dyn Fn() -> Result<[u64; 2]>| -> Result<[f64; 2]> {
                runtime.block_on(grown(address, kind, count, looks))
            };
            // Descriptors are shared out to what may need them: here MQTT gets what it can.
            let plan = broker::mqtt_plan(bench, directory.path())?
                .with("http.connections.max", OTHER_CONNECTIONS)
                .with("amqp.connections.max", OTHER_CONNECTIONS)
                .with("segments.open.max", OTHER_CONNECTIONS);
            let mut victim = plan.start()?;
            let looks = || Ok([victim.resident_bytes()?, victim.anonymous_bytes()?]);
            let ours = grown(&broker::mqtt_address(&victim)?, &looks)?;
            victim.kill()?;
            let peer = Peer::mosquitto(directory.path(), Kept::Nothing)?;
            let theirs = grown(&peer.address, &|| Ok([peer.resident_bytes()?; 2]))?;
            each.runs.push(ours[0]);
            each.limits.push(theirs[0]);
            own.runs.push(ours[1]);
            million.runs.push(ours[0] * 1e6 / f64::from(1 << 20));
            million.limits.push(theirs[0] * 1e6 / f64::from(1 << 20));
            bench.progress(&format!(
                "{what}: {:.2} KiB each, {:.2} not of files; mosquitto {:.2}",
                ours[0], ours[1], theirs[0]
            ));
        }
        rows.extend([each, own, million]);
    }
    Ok(rows)
}

/// By how much a process grows for each connection, in KiB.
async fn grown(
    address: &str,
    kind: &Kind,
    count: usize,
    looks: &dyn Fn() -> Result<[u64; 2]>,
) -> Result<[f64; 2]> {
    let clients = |name, count| Clients {
        name,
        count,
        is_clean: kind.is_clean,
        filter: kind.filter,
    };
    let first = connection::connect_all(address, clients("first", BEFORE)).await?;
    tokio::time::sleep(SETTLES).await;
    let before = looks()?;
    let more = connection::connect_all(address, clients("more", count)).await?;
    tokio::time::sleep(SETTLES).await;
    let with_all = looks()?;
    drop((first, more));
    let each =
        |index: usize| with_all[index].saturating_sub(before[index]) as f64 / count as f64 / 1024.0;
    Ok([each(0), each(1)])
}
