//! A part of the machines, with their queue of answers and their timers.
//! Callers: the runtime. A machine belongs to the shard that its key's hash says, for as long as the process lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{mpsc, watch};

use futures_util::future::{BoxFuture, Shared};

use super::cell::{Cell, Stopped};
use super::machine::{Answer as _, Machine};
use super::timers::Timers;
use crate::broker::state_log::{StateLogError, Written};

pub(super) struct Shard<M: Machine> {
    cells: Mutex<HashMap<M::Key, Arc<Cell<M>>>>,
    pub(super) timers: Timers<M::Key>,
    deliveries: mpsc::Sender<Delivery<M>>,
}

/// A place in a shard's queue, taken before the step.
pub(super) type Place<M> = mpsc::OwnedPermit<Delivery<M>>;

/// That something is durable, for several who wait.
pub type Durably = Shared<BoxFuture<'static, Result<(), StateLogError>>>;

/// What a delivery waits for.
pub(super) enum Waits {
    /// Its own records.
    Alone(Written),
    /// Those of several machines, which are appended together.
    Together(Durably),
}

/// What leaves when `written`, and all before it in the queue, is durable.
pub(super) struct Delivery<M: Machine> {
    pub(super) cell: Arc<Cell<M>>,
    pub(super) written: Option<Waits>,
    pub(super) mark: Option<M::Mark>,
    pub(super) answers: Vec<M::Answer>,
}

impl<M: Machine> Shard<M> {
    /// An empty shard whose queue has this many places, and the queue's other end.
    pub(super) fn new(places: usize) -> (Shard<M>, mpsc::Receiver<Delivery<M>>) {
        let (deliveries, queue) = mpsc::channel(places);
        let shard = Shard {
            cells: Mutex::new(HashMap::new()),
            timers: Timers::new(),
            deliveries,
        };
        (shard, queue)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<M::Key, Arc<Cell<M>>>> {
        self.cells.lock().expect("nothing panics under this lock")
    }

    /// How many places the queue has.
    pub(super) fn places(&self) -> usize {
        self.deliveries.max_capacity()
    }

    /// Waits for a place in the queue.
    pub(super) async fn place(&self) -> Result<Place<M>, Stopped> {
        let place = self.deliveries.clone().reserve_owned().await;
        place.map_err(|_| Stopped)
    }
}

impl<M: Machine> Delivery<M> {
    async fn run(mut self) {
        let stored = match self.written.take() {
            Some(Waits::Alone(written)) => written.wait().await,
            Some(Waits::Together(durable)) => durable.await,
            None => Ok(()),
        };
        let cell = Arc::clone(&self.cell);
        let mut inner = cell.lock();
        assert!(
            inner.undelivered > 0,
            "every delivery was counted when it was queued"
        );
        inner.undelivered -= 1;
        if let Some(mark) = self.mark.take()
            && stored.is_ok()
        {
            inner.machine.on_durable(mark);
            inner.machine.on_settled();
        }
        // Under the lock, so that no later answer of this machine overtakes these.
        self.tell(stored.as_ref().map(drop));
    }

    /// Whoever no longer waits is not missed.
    pub(super) fn tell(self, stored: Result<(), &StateLogError>) {
        for answer in self.answers {
            answer.tell(stored);
        }
    }
}

/// Lets answers leave in the order of the queue until `stop` turns true; then those that are left, and returns.
pub(super) async fn deliver<M: Machine>(
    mut queue: mpsc::Receiver<Delivery<M>>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            delivery = queue.recv() => match delivery {
                Some(delivery) => delivery.run().await,
                None => return,
            },
            () = stopped(&mut stop) => {
                queue.close();
                while let Some(delivery) = queue.recv().await {
                    delivery.run().await;
                }
                return;
            }
        }
    }
}

/// Returns when it is told to stop, or when nobody is left to tell.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
