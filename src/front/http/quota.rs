//! Quota: what a request or its answer carries is charged to the client's byte rates, the same that Kafka's requests are charged to.
//!
//! Callers: the middleware, which makes a [`Charge`] for routes that write or read records; the door, which names the client. Who is
//! over the limit when a request comes is told when to ask again, with 429; who goes beyond it with a long body or answer is
//! slowed: after each piece nothing is taken or sent for as long as brings the rate to the limit, [`PAUSE_MAX`] at most.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use model::quota::Quota;
use tokio::time::Sleep;

use crate::broker::access::{Caller, Door, ResourceKind, Right};
use crate::broker::{Broker, Refusal};

/// A body of which nothing comes for longer is late, and readers give up some time.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is charged, and to whom.
pub(super) struct Charge {
    quota: Quota,
    client: OnceLock<(Broker, Caller)>,
}

/// What a route with these rights is charged for: bodies of those that write records, answers of those that read them.
pub(super) fn of_rights(is_get: bool, rights: &[(ResourceKind, Right)]) -> Option<Quota> {
    let has = |right| rights.contains(&(ResourceKind::Topic, right));
    let is_of_groups = rights.iter().any(|(kind, _)| *kind == ResourceKind::Group);
    match is_get {
        false if has(Right::Write) => Some(Quota::ProducerByteRate),
        true if has(Right::Read) && !is_of_groups => Some(Quota::ConsumerByteRate),
        _ => None,
    }
}

impl Charge {
    /// For a request to a route; none where nobody has such a quota.
    pub(super) fn of(quota: Option<Quota>, broker: &Broker) -> Option<Arc<Charge>> {
        let quota = quota.filter(|quota| broker.quotas().is_set(*quota))?;
        let client = OnceLock::new();
        Some(Arc::new(Charge { quota, client }))
    }

    /// Names the client; refuses one that is over its limit.
    pub(super) fn enter(&self, door: &Door) -> Result<(), Refusal> {
        let (quotas, quota) = (door.broker().quotas(), self.quota);
        let wait = quotas.overdue(quota, door.caller());
        if !wait.is_zero() {
            quotas.note(quota, wait);
            let quota = quota.name();
            return Err(Refusal::QuotaExceeded { quota, wait });
        }
        let client = (door.broker().clone(), door.caller().clone());
        let _named_before = self.client.set(client);
        Ok(())
    }

    fn is_of(&self, quota: Quota) -> bool {
        self.quota == quota
    }

    fn charge(&self, bytes: usize) -> Duration {
        let Some((broker, caller)) = self.client.get() else {
            return Duration::ZERO;
        };
        let wait = broker.quotas().charge(self.quota, caller, bytes as f64);
        let wait = wait.min(PAUSE_MAX);
        broker.quotas().note(self.quota, wait);
        wait
    }
}

/// The pauses between the pieces of a body.
#[derive(Default)]
pub(super) struct Pace {
    charge: Option<Arc<Charge>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// By the charge, if it is for this.
    pub(super) fn of(quota: Quota, charge: Option<&Arc<Charge>>) -> Pace {
        Pace {
            charge: charge.filter(|charge| charge.is_of(quota)).cloned(),
            pause: None,
        }
    }

    /// Ready when the next piece may go.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// A piece went.
    pub(super) fn went(&mut self, bytes: usize) {
        if let Some(charge) = &self.charge {
            let wait = charge.charge(bytes);
            if !wait.is_zero() {
                self.pause = Some(Box::pin(tokio::time::sleep(wait)));
            }
        }
    }
}
