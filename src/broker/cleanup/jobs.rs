//! Jobs: runs of a cleanup that somebody asked for, as a table: those that wait, the one that runs, and the results of the last
//! ones.
//!
//! Callers: `cleanup`, whose worker takes one job after the other. Pure but for the counts in [`Control`], which the
//! running job and those who look share. Invariants: at most [`WAITING_MAX`] jobs wait, one runs, [`ENDED_MAX`] are remembered;
//! an id is never given twice, not in a later start either.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{PartitionId, Timestamp, TopicId, TopicName};
use storage::cleanup::Policy;
use storage::cleanup::run::Progress;

use super::bounds::{ENDED_MAX, WAITING_MAX};
use super::error::CleanupError;
use super::outcome::Outcome;

/// A job's name: the leader epoch of the start that it belongs to, and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    epoch: u32,
    number: u64,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl FromStr for JobId {
    type Err = CleanupError;

    fn from_str(text: &str) -> Result<JobId, CleanupError> {
        let parse = || {
            let (epoch, number) = text.split_once('-')?;
            let (epoch, number) = (epoch.parse().ok()?, number.parse().ok()?);
            Some(JobId { epoch, number })
        };
        // One spelling each, so that an id is one resource.
        let id = parse().filter(|id| id.to_string() == text);
        id.ok_or_else(|| CleanupError::UnknownJob {
            id: text.chars().take(64).collect(),
        })
    }
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// By which policy.
    pub policy: Policy,
    /// The topic's name when it was asked for.
    pub topic: TopicName,
    /// The topic itself: one that is made anew under the name is another.
    pub topic_id: TopicId,
    /// The partitions, in order.
    pub partitions: Vec<PartitionId>,
    /// Whether all partitions of the topic were asked for.
    pub whole_topic: bool,
    /// The active segment is rolled first.
    pub now: bool,
    /// Everything is read and nothing is changed.
    pub dry_run: bool,
    /// Bytes read and written a second at most; None is what the server is set to.
    pub bytes_per_second: Option<u64>,
    /// Who asked.
    pub asked_by: String,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Others are before it.
    Waiting,
    /// It is its turn.
    Running,
    /// All of it was done.
    Done,
    /// Something of it could not be done; the result names the partitions.
    Failed,
    /// Somebody or the end of the server stopped it; what was done until then is in the result.
    Cancelled,
}

impl State {
    /// Whether it has ended.
    pub fn is_ended(self) -> bool {
        match self {
            State::Waiting | State::Running => false,
            State::Done | State::Failed | State::Cancelled => true,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}

/// What the running job and those who look at it share.
#[derive(Debug, Default)]
pub struct Control {
    /// Bytes, and the way to stop.
    pub progress: Progress,
    partitions_done: AtomicU64,
}

impl Control {
    /// One partition more is done.
    pub(super) fn partition_done(&self) {
        self.partitions_done.fetch_add(1, Ordering::Relaxed);
    }

    /// Partitions that are done.
    pub fn partitions_done(&self) -> u64 {
        self.partitions_done.load(Ordering::Relaxed)
    }
}

/// A job as it is now.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What is to be run.
    pub request: Arc<Request>,
    /// How far it is.
    pub state: State,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// When its turn came.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Progress, while it runs.
    pub control: Arc<Control>,
    /// What was done, once it has ended.
    pub outcome: Option<Arc<Outcome>>,
}

/// All jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    epoch: u32,
    last: u64,
    waiting: VecDeque<JobId>,
    /// In the order in which they ended.
    ended: VecDeque<JobId>,
    all: BTreeMap<JobId, Job>,
}

impl Jobs {
    /// None yet.
    pub fn new(epoch: u32) -> Jobs {
        Jobs {
            epoch,
            last: 0,
            waiting: VecDeque::new(),
            ended: VecDeque::new(),
            all: BTreeMap::new(),
        }
    }

    /// Takes a job.
    pub fn submit(&mut self, request: Request, now: Timestamp) -> Result<Job, CleanupError> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(CleanupError::TooManyJobs {
                waiting_max: WAITING_MAX,
            });
        }
        self.last += 1;
        let id = JobId {
            epoch: self.epoch,
            number: self.last,
        };
        let job = Job {
            id,
            request: Arc::new(request),
            state: State::Waiting,
            asked_at: now,
            started_at: None,
            ended_at: None,
            control: Arc::default(),
            outcome: None,
        };
        self.waiting.push_back(id);
        let before = self.all.insert(id, job.clone());
        assert!(before.is_none(), "an id is given once");
        Ok(job)
    }

    /// The next job's turn has come.
    pub fn take(&mut self, now: Timestamp) -> Option<Job> {
        let id = self.waiting.pop_front()?;
        let job = self.all.get_mut(&id).expect("what waits is in the table");
        job.state = State::Running;
        job.started_at = Some(now);
        Some(job.clone())
    }

    /// A job that ran has ended.
    pub fn end(&mut self, id: JobId, outcome: Outcome, now: Timestamp) -> Job {
        let job = self.all.get_mut(&id).expect("what runs is in the table");
        assert!(job.state == State::Running, "only what runs ends so");
        job.state = match (outcome.is_cut_short, outcome.failed) {
            (true, _) => State::Cancelled,
            (false, 0) => State::Done,
            (false, _) => State::Failed,
        };
        self.close(id, outcome, now)
    }

    /// Stops a job: one that waits ends at once, one that runs when it notices. One that has ended stays as it is.
    pub fn cancel(&mut self, id: JobId, now: Timestamp) -> Result<Job, CleanupError> {
        let job = self.get(id)?;
        job.control.progress.cancel();
        if job.state != State::Waiting {
            return Ok(job);
        }
        self.waiting.retain(|waiting| *waiting != id);
        let job = self.all.get_mut(&id).expect("it was just found");
        job.state = State::Cancelled;
        Ok(self.close(id, Outcome::cut_short(), now))
    }

    /// Stops all of them: the server ends.
    pub fn cancel_all(&mut self, now: Timestamp) {
        let open: Vec<JobId> = self
            .all
            .values()
            .filter(|job| !job.state.is_ended())
            .map(|job| job.id)
            .collect();
        for id in open {
            self.cancel(id, now).expect("it is in the table");
        }
    }

    fn close(&mut self, id: JobId, outcome: Outcome, now: Timestamp) -> Job {
        let job = self.all.get_mut(&id).expect("it is in the table");
        job.outcome = Some(Arc::new(outcome));
        job.ended_at = Some(now);
        let job = job.clone();
        self.ended.push_back(id);
        while self.ended.len() > ENDED_MAX {
            let oldest = self.ended.pop_front().expect("there are too many");
            self.all.remove(&oldest);
        }
        job
    }

    /// One of them. Errors: there is none of this name, or it was forgotten.
    pub fn get(&self, id: JobId) -> Result<Job, CleanupError> {
        let found = self.all.get(&id).cloned();
        found.ok_or_else(|| CleanupError::UnknownJob { id: id.to_string() })
    }

    /// All that are known, the newest first.
    pub fn list(&self) -> Vec<Job> {
        self.all.values().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            policy: Policy::Retention,
            topic: TopicName::parse("readings").expect("a name"),
            topic_id: TopicId::from_bytes([1; 16]),
            partitions: vec![PartitionId::new(0)],
            whole_topic: true,
            now: false,
            dry_run: false,
            bytes_per_second: None,
            asked_by: "a test".to_owned(),
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn outcome(failed: u64, is_cut_short: bool) -> Outcome {
        Outcome {
            failed,
            is_cut_short,
            ..Outcome::default()
        }
    }

    /// The states of all jobs, the newest first.
    fn states(jobs: &Jobs) -> String {
        let states: Vec<&str> = jobs.list().iter().map(|job| job.state.name()).collect();
        states.join(" ")
    }

    #[test]
    fn jobs_run_in_the_order_in_which_they_came_and_end_as_their_outcome_says() {
        let mut jobs = Jobs::new(7);
        for (outcome, state) in [
            (outcome(0, false), State::Done),
            (outcome(2, false), State::Failed),
            (outcome(2, true), State::Cancelled),
        ] {
            let first = jobs.submit(request(), at(1)).expect("there is room");
            let second = jobs.submit(request(), at(2)).expect("there is room");
            let taken = jobs.take(at(3)).expect("one waits");
            assert_eq!((taken.id, taken.state), (first.id, State::Running));
            let ended = jobs.end(taken.id, outcome, at(5));
            assert_eq!(ended.state, state);
            assert_eq!(
                (ended.started_at, ended.ended_at),
                (Some(at(3)), Some(at(5)))
            );
            let next = jobs.take(at(6)).expect("the other one");
            assert_eq!(next.id, second.id);
            jobs.end(next.id, Outcome::default(), at(7));
            assert!(jobs.take(at(8)).is_none());
        }
    }

    #[test]
    fn who_waits_is_cancelled_at_once_and_who_runs_is_asked() {
        let mut jobs = Jobs::new(7);
        let running = jobs.submit(request(), at(1)).expect("there is room").id;
        let waiting = jobs.submit(request(), at(1)).expect("there is room").id;
        jobs.take(at(2));
        let asked = jobs.cancel(running, at(3)).expect("it is known");
        assert_eq!(asked.state, State::Running);
        assert!(asked.control.progress.is_cancelled());
        let gone = jobs.cancel(waiting, at(3)).expect("it is known");
        assert_eq!(gone.state, State::Cancelled);
        assert!(gone.outcome.is_some_and(|outcome| outcome.is_cut_short));
        // It had finished before it noticed: what was done is told as it was.
        jobs.end(running, outcome(0, false), at(4));
        assert_eq!(states(&jobs), "cancelled done");
        assert_eq!(
            jobs.cancel(running, at(5)).expect("known").state,
            State::Done
        );
        for _ in 0..3 {
            jobs.submit(request(), at(6)).expect("there is room");
        }
        jobs.take(at(6));
        jobs.cancel_all(at(7));
        assert_eq!(states(&jobs), "cancelled cancelled running cancelled done");
        assert!(jobs.take(at(8)).is_none());
    }

    #[test]
    fn jobs_that_wait_and_results_are_bounded() {
        let mut jobs = Jobs::new(7);
        for _ in 0..WAITING_MAX {
            jobs.submit(request(), at(1)).expect("there is room");
        }
        let refused = jobs.submit(request(), at(1));
        assert!(matches!(refused, Err(CleanupError::TooManyJobs { .. })));
        let first = jobs.take(at(1)).expect("one waits").id;
        jobs.end(first, Outcome::default(), at(1));
        for _ in 0..ENDED_MAX {
            jobs.submit(request(), at(2)).expect("there is room again");
            let id = jobs.take(at(2)).expect("one waits").id;
            jobs.end(id, Outcome::default(), at(2));
        }
        let forgotten = jobs.get(first);
        assert!(matches!(forgotten, Err(CleanupError::UnknownJob { .. })));
        assert_eq!(jobs.list().len(), ENDED_MAX + WAITING_MAX - 1);
    }

    #[test]
    fn an_id_has_one_spelling_and_is_not_given_again_after_a_start() {
        let id = |epoch| {
            let job = Jobs::new(epoch).submit(request(), at(1));
            job.expect("there is room").id
        };
        assert_eq!(id(7).to_string(), "7-1");
        assert_ne!(id(7), id(8));
        assert_eq!("7-1".parse::<JobId>().expect("an id"), id(7));
        for text in ["", "7", "7-", "-1", "07-1", "7-01", "+7-1", "7-1 ", "a-1"] {
            assert!(text.parse::<JobId>().is_err(), "{text:?}");
        }
    }
}
