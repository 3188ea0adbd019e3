//! How long a message is under way from its publisher to its subscriber, at a fixed rate. Threads that wait in their calls:
//! timers of the runtime are too coarse for it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::connection::Blocking;
use super::fanout::number;
use super::packet::{self, Template};

const TOPIC: &str = "bench/latency";

/// Publishes so many messages a second, QoS 1, to one subscriber, QoS 1. Gives how long each was under way, in
/// microseconds, from when it was due. Every one has to come, once and in order.
pub fn run(address: &str, rate: f64, payload_bytes: usize, time: Duration) -> Result<Vec<u64>> {
    let count = (rate * time.as_secs_f64()) as u64;
    let mut subscriber = Blocking::open(address, "subscriber")?;
    subscriber.subscribe(TOPIC, 1)?;
    let mut publisher = Blocking::open(address, "publisher")?;
    let mut acknowledged = publisher.for_sending()?;
    let template = Template::new(1, TOPIC, payload_bytes);
    let began = Instant::now() + Duration::from_millis(100);
    let due = |number: u64| began + Duration::from_secs_f64(number as f64 / rate);
    std::thread::scope(|scope| {
        let received = scope.spawn(move || -> Result<Vec<u64>> {
            let mut latencies = Vec::new();
            for wanted in 0..count {
                let id = subscriber.next(|packet| {
                    let publish = packet.publish()?;
                    let number = number(publish.payload)?;
                    ensure!(number == wanted, "message {number} came, not {wanted}");
                    Ok(publish.id)
                })?;
                latencies.push(u64::try_from(due(wanted).elapsed().as_micros())?);
                subscriber.send(&packet::ack(packet::PUBACK, id))?;
            }
            Ok(latencies)
        });
        let answered = scope.spawn(move || -> Result<()> {
            for _ in 0..count {
                acknowledged.next(|packet| {
                    ensure!(packet.kind() == packet::PUBACK, "{packet:?} is no PUBACK");
                    Ok(())
                })?;
            }
            Ok(())
        });
        let mut message = Vec::new();
        for number in 0..count {
            std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
            message.clear();
            let id = u16::try_from(number % 60_000)? + 1;
            template.write(&mut message, id, &number.to_be_bytes());
            publisher.send(&message)?;
        }
        let panicked = || anyhow::anyhow!("a thread panicked");
        answered
            .join()
            .map_err(|_| panicked())?
            .context("the publisher")?;
        received
            .join()
            .map_err(|_| panicked())?
            .context("the subscriber")
    })
}
