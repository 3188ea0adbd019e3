//! Drives machines of one kind: admission, steps, appends, answers, time.
//! Callers: the coordinators, which hold a [`Runtime`]; `Broker::run`, which runs the [`RuntimeTask`].

use std::borrow::Borrow as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use storage::io::Clock;
use storage::{Admission, AppendAllError, AppendSize, LogAppend, Purpose, Storage};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::cell::{Cell, Inner, Stopped};
use super::machine::{Machine, Moment, Step};
use super::shard::{Delivery, Durably, Place, Shard, Waits, deliver, stopped};
use crate::broker::state_log::{StateLog, StateLogError, Written};

/// How machines are spread.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Shards; one at least.
    pub shards: usize,
    /// Places in the queue of each: steps whose answers wait for a sync. When so many do, further steps of the shard's
    /// machines wait for a place before they take effect.
    pub places: usize,
}

/// All machines of one kind. Cheap to clone.
pub struct Runtime<M: Machine> {
    shared: Arc<Shared<M>>,
}

struct Shared<M: Machine> {
    log: StateLog<M::Record>,
    clock: Arc<dyn Clock>,
    hasher: RandomState,
    shards: Vec<Shard<M>>,
    /// Held by who waits for places of several machines: who holds some waits for nobody who wants them.
    together: tokio::sync::Mutex<()>,
}

/// Why a step of several machines was not taken.
#[derive(Debug)]
pub enum NotTogether<E> {
    /// The runtime stops.
    Stopped,
    /// It is more than one frame of the log takes, or than a shard has places for.
    TooMuch,
    /// A machine has refused it.
    Machine(E),
    /// It could not be appended.
    Refused(StateLogError),
}

/// What is done with each of several machines, by its place among them.
type ActOn<'a, M, E> =
    &'a mut (dyn FnMut(usize, &mut M, Moment, &mut Step<M>) -> Result<(), E> + Send);

/// What of several machines takes a step together.
struct Together<'a, M: Machine> {
    storage: &'a Storage,
    cells: &'a [Arc<Cell<M>>],
    appends: Vec<LogAppend>,
}

/// The runtime's own work: it must be run for answers to leave and for time to pass.
pub struct RuntimeTask<M: Machine> {
    runtime: Runtime<M>,
    queues: Vec<mpsc::Receiver<Delivery<M>>>,
}

impl<M: Machine> Clone for Runtime<M> {
    fn clone(&self) -> Self {
        Runtime {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M: Machine> Runtime<M> {
    /// Without machines, over a log that stores what they say.
    pub fn new(
        shape: Shape,
        log: StateLog<M::Record>,
        clock: Arc<dyn Clock>,
    ) -> (Runtime<M>, RuntimeTask<M>) {
        assert!(shape.shards > 0 && shape.places > 0);
        let (shards, queues) = (0..shape.shards).map(|_| Shard::new(shape.places)).unzip();
        let shared = Shared {
            log,
            clock,
            hasher: RandomState::new(),
            shards,
            together: tokio::sync::Mutex::new(()),
        };
        let runtime = Runtime {
            shared: Arc::new(shared),
        };
        let task = RuntimeTask {
            runtime: runtime.clone(),
            queues,
        };
        (runtime, task)
    }

    /// The log below.
    pub fn log(&self) -> &StateLog<M::Record> {
        &self.shared.log
    }

    /// The time, as machines are told it.
    pub fn now(&self) -> Moment {
        Moment {
            monotonic: self.shared.clock.monotonic(),
            wall: self.shared.clock.now(),
        }
    }

    // Machines.

    fn shard_of(&self, key: &M::Name) -> usize {
        let hash = self.shared.hasher.hash_one(key);
        let shards = self.shared.shards.len() as u64;
        usize::try_from(hash % shards).expect("below a number of shards, which is a usize")
    }

    /// The machine with this key.
    pub fn cell(&self, key: &M::Name) -> Option<Arc<Cell<M>>> {
        let shard = &self.shared.shards[self.shard_of(key)];
        shard.lock().get(key).cloned()
    }

    /// The machine with this key, or the one that is made for it; None if none is made.
    pub fn cell_or(&self, key: M::Key, make: impl FnOnce() -> Option<M>) -> Option<Arc<Cell<M>>> {
        let index = self.shard_of(key.borrow());
        let mut cells = self.shared.shards[index].lock();
        if let Some(cell) = cells.get(key.borrow()) {
            return Some(Arc::clone(cell));
        }
        let cell = Arc::new(Cell::new(key.clone(), index, make()?));
        cells.insert(key, Arc::clone(&cell));
        Some(cell)
    }

    /// All machines.
    pub fn cells(&self) -> Vec<Arc<Cell<M>>> {
        let of_shard = |shard: &Shard<M>| shard.lock().values().cloned().collect::<Vec<_>>();
        self.shared.shards.iter().flat_map(of_shard).collect()
    }

    /// Frees the key of a machine that has ended.
    pub fn forget_if_gone(&self, cell: &Arc<Cell<M>>) {
        let mut cells = self.shared.shards[cell.shard].lock();
        let is_current = cells
            .get(cell.key.borrow())
            .is_some_and(|current| Arc::ptr_eq(current, cell));
        if is_current && cell.read(M::is_gone) {
            cells.remove(cell.key.borrow());
        }
    }

    // Steps.

    /// One step of a machine. `record_bytes` tells, of the machine as it is, how long the records are that the step may come
    /// to at most: so much is admitted before the machine's lock is taken, and again if the machine has grown meanwhile.
    /// What the step tells leaves when it is durable; what `act` returns, at once.
    pub async fn step<R>(
        &self,
        cell: &Arc<Cell<M>>,
        purpose: Purpose,
        record_bytes: impl Fn(&M) -> Vec<usize>,
        act: impl FnOnce(&mut M, Moment, &mut Step<M>) -> R,
    ) -> Result<R, Stopped> {
        self.step_inner(cell, purpose, record_bytes, |inner, now, step| {
            act(&mut inner.machine, now, step)
        })
        .await
    }

    /// A step that neither stores nor tells anything, so that it need not wait.
    pub fn touch<R>(&self, cell: &Arc<Cell<M>>, act: impl FnOnce(&mut M, Moment) -> R) -> R {
        let mut inner = cell.lock();
        let result = act(&mut inner.machine, self.now());
        self.schedule(cell, &mut inner);
        result
    }

    async fn step_inner<R>(
        &self,
        cell: &Arc<Cell<M>>,
        purpose: Purpose,
        record_bytes: impl Fn(&M) -> Vec<usize>,
        act: impl FnOnce(&mut Inner<M>, Moment, &mut Step<M>) -> R,
    ) -> Result<R, Stopped> {
        let size = |machine: &M| self.shared.log.size_of(record_bytes(machine));
        let mut admitted = cell.read(size);
        loop {
            let place = self.shared.shards[cell.shard].place().await?;
            let admission = match admitted {
                AppendSize { batches: 0, .. } => None,
                size => Some(self.shared.log.admit(size, purpose).await),
            };
            let mut inner = cell.lock();
            let needed = size(&inner.machine);
            if admitted.holds(needed) {
                return Ok(self.step_admitted(cell, &mut inner, place, admission, act));
            }
            admitted = needed;
        }
    }

    fn step_admitted<R>(
        &self,
        cell: &Arc<Cell<M>>,
        inner: &mut Inner<M>,
        place: Place<M>,
        admission: Option<Admission>,
        act: impl FnOnce(&mut Inner<M>, Moment, &mut Step<M>) -> R,
    ) -> R {
        let now = self.now();
        let mut step = Step::default();
        let result = act(inner, now, &mut step);
        let Step {
            records,
            mut answers,
            change,
        } = step;
        let mut delivery = Delivery {
            cell: Arc::clone(cell),
            written: None,
            mark: None,
            answers: Vec::new(),
        };
        if !records.is_empty() {
            match self.append(&records, admission) {
                Ok(written) => {
                    delivery.written = Some(Waits::Alone(written));
                    delivery.mark = inner.machine.on_appended(change);
                }
                Err(error) => {
                    tracing::warn!(kind = M::KIND, key = %cell.key, %error, "records of the broker's own state could not be appended");
                    inner.machine.withdraw(change, now, &error, &mut answers);
                }
            }
        }
        delivery.answers = answers;
        inner.machine.on_settled();
        self.schedule(cell, inner);
        if delivery.written.is_none() && inner.undelivered == 0 {
            delivery.tell(Ok(()));
        } else {
            inner.undelivered += 1;
            place.send(delivery);
        }
        result
    }

    fn append(
        &self,
        records: &[M::Record],
        admission: Option<Admission>,
    ) -> Result<Written, StateLogError> {
        let admission = admission.expect("a step with records said before that it may have some");
        self.shared.log.append(records, admission)
    }

    // Steps of several machines.

    /// A step of several machines, whose records become durable in one frame with appends to other logs: all of it, or nothing. The
    /// machines stand in the order of their keys, each once; `act` is told which one it is asked for. One that refuses takes back what the others did.
    pub async fn step_together<E: Send>(
        &self,
        storage: &Storage,
        cells: &[Arc<Cell<M>>],
        appends: Vec<LogAppend>,
        record_bytes: impl Fn(usize, &M) -> Vec<usize>,
        act: ActOn<'_, M, E>,
    ) -> Result<Durably, NotTogether<E>> {
        assert!(cells.is_sorted_by(|one, next| one.key < next.key));
        let mut together = Together {
            storage,
            cells,
            appends,
        };
        let lengths = cells.iter().enumerate();
        let lengths = lengths.flat_map(|(at, cell)| cell.read(|it| record_bytes(at, it)));
        let mut admitted = self.size_together(&together, lengths.collect());
        // Who waited for more places than a queue has would wait for ever, and all behind it.
        for (at, shard) in self.shared.shards.iter().enumerate() {
            let wanted = cells.iter().filter(|cell| cell.shard == at).count();
            if wanted > shard.places() {
                return Err(NotTogether::TooMuch);
            }
        }
        let _turn = self.shared.together.lock().await;
        loop {
            if !storage.takes_all(admitted) {
                return Err(NotTogether::TooMuch);
            }
            let mut places = Vec::with_capacity(cells.len());
            for cell in cells {
                let place = self.shared.shards[cell.shard].place().await;
                places.push(place.map_err(|Stopped| NotTogether::Stopped)?);
            }
            let admission = match admitted {
                AppendSize { batches: 0, .. } => None,
                size => Some(storage.admit_all(size, Purpose::Records).await),
            };
            let admission = (admitted, admission);
            match self.try_together(&mut together, places, admission, &record_bytes, act) {
                Ok(done) => return done,
                Err(needed) => admitted = needed,
            }
        }
    }

    fn size_together(&self, together: &Together<'_, M>, lengths: Vec<usize>) -> AppendSize {
        let others = LogAppend::size_of(&together.appends);
        let ours = self.shared.log.size_of(lengths);
        AppendSize {
            batches: ours.batches + others.batches,
            bytes: ours.bytes + others.bytes,
        }
    }

    /// Takes it, if what was admitted is enough; otherwise says what is.
    fn try_together<E>(
        &self,
        together: &mut Together<'_, M>,
        places: Vec<Place<M>>,
        (admitted, admission): (AppendSize, Option<Admission>),
        record_bytes: &impl Fn(usize, &M) -> Vec<usize>,
        act: ActOn<'_, M, E>,
    ) -> Result<Result<Durably, NotTogether<E>>, AppendSize> {
        let cells = together.cells;
        let mut inners: Vec<_> = cells.iter().map(|cell| cell.lock()).collect();
        let lengths = inners.iter().enumerate();
        let lengths = lengths.flat_map(|(at, inner)| record_bytes(at, &inner.machine));
        let needed = self.size_together(together, lengths.collect());
        if !admitted.holds(needed) {
            return Err(needed);
        }
        let now = self.now();
        let mut steps: Vec<Step<M>> = Vec::with_capacity(cells.len());
        let mut became = Ok(());
        for (at, inner) in inners.iter_mut().enumerate() {
            let mut step = Step::default();
            became = act(at, &mut inner.machine, now, &mut step);
            steps.push(step);
            if became.is_err() {
                break;
            }
        }
        let appended = match became {
            Err(refused) => Err(NotTogether::Machine(refused)),
            Ok(()) => self
                .append_together(together, &mut steps, admission)
                .map_err(NotTogether::Refused),
        };
        let why = match &appended {
            Err(NotTogether::Refused(error)) => error.clone(),
            _ => StateLogError::Storage("another machine has refused it".to_owned()),
        };
        let all = cells.iter().zip(&mut inners).zip(places).zip(steps);
        for (((cell, inner), place), step) in all {
            let Step {
                change,
                mut answers,
                ..
            } = step;
            let mut delivery = Delivery {
                cell: Arc::clone(cell),
                written: None,
                mark: None,
                answers: Vec::new(),
            };
            match &appended {
                Ok(durable) => {
                    delivery.written = Some(Waits::Together(durable.clone()));
                    delivery.mark = inner.machine.on_appended(change);
                }
                Err(_) => inner.machine.withdraw(change, now, &why, &mut answers),
            }
            delivery.answers = answers;
            inner.machine.on_settled();
            self.schedule(cell, inner);
            inner.undelivered += 1;
            place.send(delivery);
        }
        Ok(appended)
    }

    fn append_together(
        &self,
        together: &mut Together<'_, M>,
        steps: &mut [Step<M>],
        admission: Option<Admission>,
    ) -> Result<Durably, StateLogError> {
        let records = steps.iter_mut().map(|it| std::mem::take(&mut it.records));
        let records: Vec<M::Record> = records.flatten().collect();
        let mut appends = std::mem::take(&mut together.appends);
        if !records.is_empty() {
            let log = &self.shared.log;
            appends.push(LogAppend {
                log: Arc::clone(log.log()),
                batches: log.batches(&records)?,
            });
        }
        let Some(admission) = admission.filter(|_| !appends.is_empty()) else {
            return Ok(std::future::ready(Ok(())).boxed().shared());
        };
        let appended = together.storage.append_all(&appends, admission);
        let durable = appended.map_err(|error| match error {
            AppendAllError::Refused(error) | AppendAllError::Log { source: error, .. } => {
                StateLogError::Append(error)
            }
            other => StateLogError::Storage(other.to_string()),
        })?;
        let durable = durable.durable;
        let durable = async move {
            let stored = durable.await;
            stored.map_err(|error| StateLogError::Storage(error.to_string()))
        };
        Ok(durable.boxed().shared())
    }

    // Time.

    /// Notes when a machine that was read back must be looked at.
    pub fn begin(&self) {
        for cell in self.cells() {
            self.schedule(&cell, &mut cell.lock());
        }
    }

    fn schedule(&self, cell: &Cell<M>, inner: &mut Inner<M>) {
        if let Some(at) = inner.machine.wake_at()
            && inner.scheduled.is_none_or(|scheduled| at < scheduled)
        {
            inner.scheduled = Some(at);
            let timers = &self.shared.shards[cell.shard].timers;
            timers.add(at, cell.key.clone());
        }
    }

    /// Applies every deadline that has passed, of all shards.
    pub async fn run_due(&self) -> Result<(), Stopped> {
        for shard in 0..self.shared.shards.len() {
            self.run_due_of(shard).await?;
        }
        Ok(())
    }

    async fn run_due_of(&self, shard: usize) -> Result<(), Stopped> {
        let shard = &self.shared.shards[shard];
        while let Some((at, key)) = shard.timers.take_due(self.now().monotonic) {
            let Some(cell) = self.cell(key.borrow()) else {
                continue;
            };
            let record_bytes = M::record_bytes_on_time;
            self.step_inner(&cell, Purpose::State, record_bytes, |inner, now, step| {
                if inner.scheduled == Some(at) {
                    inner.scheduled = None;
                    inner.machine.on_time(now, step);
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn keep_time(&self, shard: usize) {
        let timers = &self.shared.shards[shard].timers;
        loop {
            let now = self.now().monotonic;
            let wait = match timers.next() {
                Some(at) => at.saturating_sub(now),
                None => Duration::MAX,
            };
            if wait.is_zero() {
                if self.run_due_of(shard).await.is_err() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = timers.earlier() => {}
            }
        }
    }
}

impl<M: Machine> RuntimeTask<M> {
    /// Delivers answers and keeps the time until `shutdown` turns true; then delivers what is left and returns.
    pub async fn run(self, shutdown: watch::Receiver<bool>) {
        let RuntimeTask { runtime, queues } = self;
        let mut work = JoinSet::new();
        for (shard, queue) in queues.into_iter().enumerate() {
            work.spawn(deliver(queue, shutdown.clone()));
            let (runtime, mut stop) = (runtime.clone(), shutdown.clone());
            work.spawn(async move {
                tokio::select! {
                    () = stopped(&mut stop) => {}
                    () = runtime.keep_time(shard) => {}
                }
            });
        }
        while let Some(ended) = work.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}
