//! Throttle: what one request is charged to its client's quotas, and for how long its connection is not read because of it.
//! Callers: the table, which makes one for a request if there are quotas; the handlers that charge; `call`, which puts the time into
//! the answer; `connection`, which mutes. Source: KIP-219: the answer leaves at once, and then the connection is not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use model::quota::Quota;

use crate::broker::Broker;
use crate::broker::access::Caller;

/// See the module.
pub(super) struct Throttle {
    broker: Broker,
    caller: Caller,
    /// The longest time that any quota asks for, and which.
    wait_ms: AtomicU64,
    quota: AtomicU64,
    /// How long the request was worked on.
    busy_nanos: AtomicU64,
    is_work_charged: AtomicBool,
}

impl Throttle {
    /// For a request of this caller; none where no client has a quota.
    pub(super) fn of(broker: &Broker, caller: &Caller) -> Option<Arc<Throttle>> {
        if !broker.quotas().limits_requests() {
            return None;
        }
        Some(Arc::new(Throttle {
            broker: broker.clone(),
            caller: caller.clone(),
            wait_ms: AtomicU64::new(0),
            quota: AtomicU64::new(0),
            busy_nanos: AtomicU64::new(0),
            is_work_charged: AtomicBool::new(false),
        }))
    }

    /// Charges what the request uses; how long that alone asks to wait.
    pub(super) fn charge(&self, quota: Quota, amount: f64) -> Duration {
        let wait = self.broker.quotas().charge(quota, &self.caller, amount);
        self.wait(quota, wait);
        wait
    }

    /// Has the client wait so long at least.
    pub(super) fn wait(&self, quota: Quota, wait: Duration) {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        // One task works on a request.
        if ms > self.wait_ms.load(Relaxed) {
            self.wait_ms.store(ms, Relaxed);
            self.quota.store(quota as u64, Relaxed);
        }
    }

    /// Charges the time that the request was worked on, once.
    pub(super) fn charge_work(&self) {
        if !self.is_work_charged.swap(true, Relaxed) {
            let busy = Duration::from_nanos(self.busy_nanos.load(Relaxed));
            self.charge(Quota::RequestPercentage, busy.as_secs_f64() * 100.0);
        }
    }

    /// How long the client is to wait, as the answer says it.
    pub(super) fn wire_ms(&self) -> i32 {
        i32::try_from(self.wait_ms.load(Relaxed)).unwrap_or(i32::MAX)
    }

    /// How long the connection is not to be read, counted as such.
    pub(super) fn mute(&self) -> Duration {
        let wait = Duration::from_millis(self.wait_ms.load(Relaxed));
        let of = self.quota.load(Relaxed);
        if let Some(quota) = Quota::ALL.into_iter().find(|quota| *quota as u64 == of) {
            self.broker.quotas().note(quota, wait);
        }
        wait
    }
}

/// Does the work, and notes how long the processor was on it.
pub(super) async fn timed<F: Future>(throttle: Option<Arc<Throttle>>, work: F) -> F::Output {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let Some(throttle) = &throttle else {
            return work.as_mut().poll(context);
        };
        let began = Instant::now();
        let polled: Poll<F::Output> = work.as_mut().poll(context);
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        throttle.busy_nanos.fetch_add(nanos, Relaxed);
        polled
    })
    .await
}
