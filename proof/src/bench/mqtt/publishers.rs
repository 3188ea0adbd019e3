//! Many clients that publish, as fast as they are acknowledged or at a fixed rate.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{self, Clients, Connection, PATIENCE};
use super::packet::{self, Template};

/// What happens before this is not counted: the first messages find nothing in any cache.
const WARM_UP: Duration = Duration::from_millis(300);

/// How to publish.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// So many clients, each with a topic of its own.
    pub clients: usize,
    /// Messages that one has under way at most.
    pub window: u16,
    /// 1 or 2.
    pub qos: u8,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// How long is measured.
    pub time: Duration,
    /// Messages a second of all clients; None is as fast as they are acknowledged.
    pub rate: Option<f64>,
    /// Whether what is under way at the end is waited for.
    pub is_drained: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Published {
    /// Acknowledged while it was measured.
    pub counted: u64,
    /// Acknowledged in all.
    pub acknowledged: u64,
    /// Sent in all.
    pub sent: u64,
    /// Of each message that is counted, in microseconds: from when it was sent, or was due, to its last acknowledgement.
    pub latencies_us: Vec<u64>,
    /// How long was measured.
    pub seconds: f64,
}

impl Published {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.counted as f64 / self.seconds
    }
}

/// Connects all clients, and has them publish at the same time.
pub async fn run(address: &str, load: Load) -> Result<Published> {
    ensure!(matches!(load.qos, 1 | 2), "QoS {}", load.qos);
    let clients = Clients {
        name: "publisher",
        count: load.clients,
        is_clean: true,
        filter: None,
    };
    let connections = connection::connect_all(address, clients).await?;
    let span = Span::from(Instant::now(), load.time);
    let mut tasks = JoinSet::new();
    for (index, connection) in connections.into_iter().enumerate() {
        tasks.spawn(publish(connection, load, index, span));
    }
    let mut published = Published {
        seconds: load.time.as_secs_f64(),
        ..Published::default()
    };
    while let Some(done) = tasks.join_next().await {
        let one = done.context("a publisher")??;
        published.counted += one.counted;
        published.acknowledged += one.acknowledged;
        published.sent += one.sent;
        published.latencies_us.extend(one.latencies_us);
    }
    Ok(published)
}

/// What is measured of a run.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: Instant,
    counts_from: Instant,
    until: Instant,
}

impl Span {
    fn from(began: Instant, time: Duration) -> Span {
        Span {
            began,
            counts_from: began + WARM_UP,
            until: began + WARM_UP + time,
        }
    }
}

/// What one client has under way: the identifiers from 1 to its window.
struct Window {
    sent: Vec<Option<Instant>>,
    free: Vec<u16>,
}

impl Window {
    fn new(size: u16) -> Window {
        Window {
            sent: vec![None; usize::from(size)],
            free: (1..=size).rev().collect(),
        }
    }

    /// Takes an identifier, if one is free.
    fn take(&mut self, at: Instant) -> Option<u16> {
        let id = self.free.pop()?;
        self.sent[usize::from(id) - 1] = Some(at);
        Some(id)
    }

    /// When the message of this identifier was sent. It is free from then on.
    fn give_back(&mut self, id: u16) -> Result<Instant> {
        let sent = self.sent.get_mut(usize::from(id).wrapping_sub(1));
        let sent = sent.and_then(Option::take);
        let sent = sent.with_context(|| format!("{id} was acknowledged and not under way"))?;
        self.free.push(id);
        Ok(sent)
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.sent.len()
    }
}

async fn publish(
    mut connection: Connection,
    load: Load,
    index: usize,
    span: Span,
) -> Result<Published> {
    let template = Template::new(load.qos, &format!("bench/{index}"), load.payload_bytes);
    let mut window = Window::new(load.window);
    let mut done = Published::default();
    let due = |sent: u64| match load.rate {
        // Clients take turns.
        Some(rate) => {
            let place = sent as f64 * load.clients as f64 + index as f64;
            span.began + Duration::from_secs_f64(place / rate)
        }
        None => span.began,
    };
    loop {
        let now = Instant::now();
        let has_ended = now >= span.until;
        if has_ended && (window.is_empty() || !load.is_drained) {
            break;
        }
        while !has_ended && due(done.sent) <= now {
            // A message that had to wait is as late as it is.
            let at = if load.rate.is_some() {
                due(done.sent)
            } else {
                now
            };
            let Some(id) = window.take(at) else {
                break;
            };
            template.write(&mut connection.outgoing, id, &done.sent.to_be_bytes());
            done.sent += 1;
        }
        connection.flush().await?;
        let next = due(done.sent);
        let wake = if has_ended {
            span.until + PATIENCE
        } else if next > now && next < span.until {
            next
        } else {
            span.until
        };
        let receive = connection.receive(|packet, out| {
            let id = packet.id()?;
            match (load.qos, packet.kind()) {
                (1, packet::PUBACK) | (2, packet::PUBCOMP) => {
                    let sent = window.give_back(id)?;
                    let now = Instant::now();
                    done.acknowledged += 1;
                    if now >= span.counts_from && now < span.until {
                        done.counted += 1;
                        let took = now.saturating_duration_since(sent);
                        done.latencies_us.push(u64::try_from(took.as_micros())?);
                    }
                }
                (2, packet::PUBREC) => out.extend(packet::ack(packet::PUBREL, id)),
                _ => bail!("{packet:?} is no acknowledgement"),
            }
            Ok(())
        });
        match tokio::time::timeout_at(wake, receive).await {
            Ok(received) => received?,
            Err(_) => ensure!(!has_ended, "what is under way is not acknowledged"),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_used_again_when_it_is_acknowledged() {
        let mut window = Window::new(2);
        let now = Instant::now();
        assert_eq!(
            [window.take(now), window.take(now), window.take(now)],
            [Some(1), Some(2), None]
        );
        assert_eq!(window.give_back(1).unwrap(), now);
        assert!(window.give_back(1).is_err());
        assert!(window.give_back(0).is_err());
        assert!(window.give_back(3).is_err());
        assert!(!window.is_empty());
        assert_eq!(window.take(now), Some(1));
        window.give_back(1).unwrap();
        window.give_back(2).unwrap();
        assert!(window.is_empty());
    }
}
