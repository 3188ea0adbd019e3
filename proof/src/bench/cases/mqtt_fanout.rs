//! One message to many subscribers, beside another broker.

use anyhow::Result;

use crate::bench::figures::{Figure, Mark};
use crate::bench::mqtt::fanout::{self, FannedOut};
use crate::bench::peers::{Kept, Peer};
use crate::bench::{Bench, Case, broker};

/// The case.
pub const CASE: Case = Case {
    name: "mqtt-fanout",
    about: "One MQTT client publishes 100 bytes with QoS 1, and 1,000 others are sent each message with QoS 1 and acknowledge it. At most \
            64 messages are under way that not all of them have. Each checks that it is given every message once and in order. The \
            column of limits has mosquitto without persistence.",
    uses_binary: true,
    run,
};

const SUBSCRIBERS: usize = 1_000;
const PAYLOAD_BYTES: usize = 100;

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    broker::more_descriptors(4_096)?;
    let mut given = Figure::new("1 to 1,000, QoS 1", "deliveries/s").marked(Mark::OfLimit(1.0));
    let runtime = broker::runtime()?;
    for _ in 0..bench.runs {
        let directory = bench.directory()?;
        let fan_out = |address: &str| -> Result<FannedOut> {
            runtime.block_on(fanout::run(address, SUBSCRIBERS, PAYLOAD_BYTES, bench.time))
        };
        let mut victim = broker::mqtt_plan(bench, directory.path())?.start()?;
        let ours = fan_out(&broker::mqtt_address(&victim)?)?;
        victim.kill()?;
        let peer = Peer::mosquitto(directory.path(), Kept::Nothing)?;
        let theirs = fan_out(&peer.address)?;
        given.runs.push(ours.rate());
        given.limits.push(theirs.rate());
        bench.progress(&format!(
            "{:.0} deliveries/s of {} messages, mosquitto {:.0} of {}",
            ours.rate(),
            ours.published,
            theirs.rate(),
            theirs.published
        ));
    }
    Ok(vec![given])
}
