//! Sends at a fixed rate or flat out, and measures how long each took: from the moment it was to be sent, not from the one
//! it could be (no coordinated omission).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// A future of its own.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Sends one piece. The outer future ends when it is sent, the inner one when it is acknowledged.
pub type SendPiece = Arc<dyn Fn(usize) -> Boxed<Result<Boxed<Result<()>>>> + Send + Sync>;

/// How to send.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes of one piece.
    pub piece_bytes: u64,
    /// Pieces that one lane has under way at most.
    pub in_flight: usize,
    /// Bytes a second of all lanes; None is flat out.
    pub bytes_per_second: Option<f64>,
    /// Ends after this many bytes,
    pub bytes_max: u64,
    /// or after this time.
    pub time_max: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Paced {
    /// Acknowledged.
    pub bytes: u64,
    /// From the first send to the last acknowledgement.
    pub seconds: f64,
    /// Of every piece, in microseconds.
    pub latencies_us: Vec<u64>,
}

impl Paced {
    /// Bytes a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

/// Sends through every lane at once.
pub async fn run(pace: Pace, lanes: Vec<SendPiece>) -> Result<Paced> {
    let began = Instant::now();
    let count = lanes.len();
    let mut tasks = tokio::task::JoinSet::new();
    for (index, send) in lanes.into_iter().enumerate() {
        tasks.spawn(lane(pace, began, index, count, send));
    }
    let mut paced = Paced::default();
    while let Some(done) = tasks.join_next().await {
        let latencies = done.context("a lane")??;
        paced.bytes += latencies.len() as u64 * pace.piece_bytes;
        paced.latencies_us.extend(latencies);
    }
    paced.seconds = began.elapsed().as_secs_f64();
    Ok(paced)
}

async fn lane(
    pace: Pace,
    began: Instant,
    index: usize,
    lanes: usize,
    send: SendPiece,
) -> Result<Vec<u64>> {
    let room = Arc::new(Semaphore::new(pace.in_flight));
    let (sent, mut waiting) = mpsc::channel::<(Instant, Boxed<Result<()>>)>(pace.in_flight);
    let acknowledged = {
        let room = room.clone();
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while let Some((due, acknowledged)) = waiting.recv().await {
                if let Err(error) = acknowledged.await {
                    room.close();
                    return Err(error);
                }
                room.add_permits(1);
                latencies.push(u64::try_from(due.elapsed().as_micros())?);
            }
            Ok::<Vec<u64>, anyhow::Error>(latencies)
        })
    };
    let pieces = pace.bytes_max / pace.piece_bytes / lanes as u64;
    for piece in 0..pieces {
        let room = async || {
            room.acquire()
                .await
                .map(tokio::sync::SemaphorePermit::forget)
        };
        let due = match pace.bytes_per_second {
            Some(rate) => {
                let place = piece as f64 * lanes as f64 + index as f64;
                let due = began + Duration::from_secs_f64(place * pace.piece_bytes as f64 / rate);
                tokio::time::sleep_until(due).await;
                if room().await.is_err() {
                    break;
                }
                due
            }
            None => {
                if room().await.is_err() {
                    break;
                }
                Instant::now()
            }
        };
        if began.elapsed() > pace.time_max {
            break;
        }
        let answer = send(usize::try_from(piece)?).await?;
        if sent.send((due, answer)).await.is_err() {
            break;
        }
    }
    drop(sent);
    // A room that was closed has its reason here.
    acknowledged.await.context("acknowledgements")?
}
