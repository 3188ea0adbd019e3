//! What a state machine is to the runtime that drives it.

use std::borrow::Borrow;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use model::Timestamp;

use crate::broker::state_log::{StateLogError, StateRecord};

/// A point in time as a machine needs it: timers run on the monotonic clock, what is stored carries the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time since an arbitrary start that never goes backwards.
    pub monotonic: Duration,
    /// The time of day.
    pub wall: Timestamp,
}

/// What a step tells somebody.
pub trait Answer: Send + 'static {
    /// Leaves. With an error, what it rests on was appended and never became durable: good news turns into that.
    fn tell(self, stored: Result<(), &StateLogError>);
}

/// One kind of keyed state machine. Its methods are called under its own lock, and neither wait nor do I/O.
pub trait Machine: Sized + Send + 'static {
    /// What such a machine is called in a log line.
    const KIND: &'static str;
    /// Names one machine among its kind.
    type Key: Clone + Ord + Hash + Display + Send + Sync + Borrow<Self::Name>;
    /// A key as it is looked up.
    type Name: Eq + Hash + ?Sized;
    /// What its steps store.
    type Record: StateRecord;
    /// What its steps tell.
    type Answer: Answer;
    /// What a step has to say about itself once it is known whether its records were appended.
    type Change: Default;
    /// What becomes visible when a step is durable.
    type Mark: Send;

    /// The records of the step that said this are appended.
    fn on_appended(&mut self, change: Self::Change) -> Option<Self::Mark>;

    /// They are durable, and so is all that was appended before them.
    fn on_durable(&mut self, mark: Self::Mark);

    /// They were refused: the machine takes back what the step decided, and what it was about to tell.
    fn withdraw(
        &mut self,
        change: Self::Change,
        now: Moment,
        refused: &StateLogError,
        answers: &mut Vec<Self::Answer>,
    );

    /// The time by which [`Machine::on_time`] must be called, if nothing else happens. May be early, never late.
    fn wake_at(&self) -> Option<Duration>;

    /// How long the records may be, key and value together, that [`Machine::on_time`] comes to.
    fn record_bytes_on_time(&self) -> Vec<usize>;

    /// Applies every deadline that has passed.
    fn on_time(&mut self, now: Moment, step: &mut Step<Self>);

    /// Called after each step and after each change that became visible: for accounts, and for what is logged.
    fn on_settled(&mut self) {}

    /// Whether it has ended, so that its key is free.
    fn is_gone(&self) -> bool {
        false
    }
}

/// What one step of a machine stores and tells: the records first, the answers once they are durable.
pub struct Step<M: Machine> {
    /// Appended in this order, all or none.
    pub records: Vec<M::Record>,
    /// Told in this order.
    pub answers: Vec<M::Answer>,
    /// For [`Machine::on_appended`] or [`Machine::withdraw`], if there are records.
    pub change: M::Change,
}

impl<M: Machine> Default for Step<M> {
    fn default() -> Self {
        Step {
            records: Vec::new(),
            answers: Vec::new(),
            change: M::Change::default(),
        }
    }
}
