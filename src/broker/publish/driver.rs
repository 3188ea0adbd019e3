//! The driver of one lane: a task that appends its batches in order, as long as there are any.
//!
//! Callers: `publish`, which starts one for a new lane. A full batch is appended at once; the open one when all that were
//! appended before it are durable: what comes while the disk works is the next batch. There is no timer. It ends when its lane
//! is empty, and with the store, which decides every append.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use model::Offset;
use storage::{AppendBatch, Durable};

use super::batch::{Encoded, OpenBatch};
use super::lanes::Lane;
use super::outcome::Promise;
use super::refusal::PublishRefusal;
use super::together::decided;
use crate::broker::Broker;

/// A lane whose driver runs: it does not outlive it.
struct Driven {
    broker: Broker,
    lane: Arc<Lane>,
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.broker.shared.lanes.abandon(&self.lane);
    }
}

/// Appends the lane's batches until there are none.
pub(super) fn drive(broker: Broker, lane: Arc<Lane>) -> impl Future<Output = ()> {
    let driven = Driven { broker, lane };
    async move { append_all(&driven).await }
}

async fn append_all(driven: &Driven) {
    let Driven { broker, lane } = driven;
    let mut appended = FuturesOrdered::new();
    loop {
        if let Some(batch) = lane.next(appended.is_empty()) {
            let append = append(broker, lane, batch);
            tokio::pin!(append);
            // Answers leave also while an append waits for its admission.
            let done = loop {
                tokio::select! {
                    biased;
                    Some(()) = appended.next() => {}
                    done = &mut append => break done,
                }
            };
            if let Some((base, durable, promise)) = done {
                appended.push_back(settle(base, durable, promise));
            }
        } else if appended.is_empty() {
            if broker.shared.lanes.retire(lane) {
                return;
            }
        } else {
            tokio::select! {
                Some(()) = appended.next() => {}
                () = lane.moved.notified() => {}
            }
        }
    }
}

/// Appends one batch; None if it was refused, and those who wait for it know.
async fn append(
    broker: &Broker,
    lane: &Lane,
    batch: OpenBatch,
) -> Option<(Offset, Durable, Promise)> {
    if batch.holds_keyless {
        batch.topic.keyless.go_on();
    }
    let now = broker.now();
    let encoded = batch.encoded(now).await?;
    let Encoded {
        topic,
        batch,
        permit,
        promise,
    } = encoded;
    let records = u64::try_from(batch.header().record_count).unwrap_or(0);
    let bytes = batch.bytes().len();
    let admission = broker.storage().admit(bytes).await;
    let log = topic.log(lane.log.partition).map_err(PublishRefusal::from);
    let appended = log.and_then(|log| Ok(log.append(vec![AppendBatch::from(batch)], admission)?));
    // From here on the store's own bound counts it.
    drop(permit);
    match appended {
        Ok(appended) => {
            topic.traffic.appended(records, bytes as u64);
            Some((appended.base_offset, appended.durable, promise))
        }
        Err(refusal) => {
            broker.shared.refused.fetch_add(1, Relaxed);
            promise.keep(Err(refusal));
            None
        }
    }
}

/// Tells those who wait, once it is decided.
async fn settle(base: Offset, durable: Durable, promise: Promise) {
    promise.keep(decided(durable).await.map(|()| base));
}
