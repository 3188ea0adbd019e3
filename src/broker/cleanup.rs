//! Cleanup that somebody asks for: what would go and what holds the rest back, for a topic or a partition, and runs of it as
//! jobs. What the store does by itself, by its own clock, does not come by here.
//!
//! Callers: fronts; `Broker::run` drives the worker. Invariants: one job runs at a time; jobs and their results are bounded
//! (`jobs`); who asked for a job and how it ended is logged once. A plan looks at what is in memory, and never waits for the
//! disk.

mod bounds;
mod error;
mod jobs;
mod outcome;
mod queue;
mod run;

use std::sync::Arc;
use std::time::Duration;

use model::{PartitionId, TopicName};
use storage::Bounds;
pub use storage::cleanup::run::{CleanupError as Fault, Report};
pub use storage::cleanup::{Plan, Policy, SegmentPlan};
pub use storage::segment::SegmentId;
use tokio::sync::watch;

use super::access::{Caller, Cluster, Granted, asked_by, right};
use super::audit::On;
use super::catalog::Topic;
use super::{Broker, Refusal};
pub use bounds::{ENDED_MAX, WAITING_MAX};
pub use error::CleanupError;
pub use jobs::{Control, Job, JobId, Request, State};
pub use outcome::{Outcome, PartitionRun, Removed};
pub(super) use queue::Cleanup;

/// Segments that a plan lists at most; what more there are is counted.
pub const SEGMENTS_LISTED_MAX: usize = 10_000;

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// By which policy.
    pub policy: Policy,
    /// One partition, or all.
    pub partition: Option<PartitionId>,
    /// As if, or so that, the active segment were rolled first.
    pub now: bool,
}

/// How a run is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Everything is read and nothing is changed.
    pub dry_run: bool,
    /// Bytes read and written a second at most; None is what the server is set to.
    pub bytes_per_second: Option<u64>,
}

/// What would be done to a topic.
#[derive(Debug)]
pub struct TopicPlan {
    /// Its name.
    pub topic: TopicName,
    /// By which policy.
    pub policy: Policy,
    /// Each partition, in order.
    pub partitions: Vec<PartitionPlan>,
}

/// What would be done to one partition.
#[derive(Debug)]
pub struct PartitionPlan {
    /// Which.
    pub partition: PartitionId,
    /// Where it begins and ends.
    pub bounds: Bounds,
    /// Bytes of its batches, those in the write-ahead log too.
    pub bytes: u64,
    /// What happens to each segment.
    pub plan: Plan,
    /// How many of the first segments of the plan are listed.
    pub listed: usize,
}

impl Broker {
    /// What a cleanup would do now.
    pub fn plan_cleanup(
        &self,
        topic: &Granted<Arc<Topic>, right::Describe>,
        selection: Selection,
    ) -> Result<TopicPlan, CleanupError> {
        let mut left = SEGMENTS_LISTED_MAX;
        let mut partitions = Vec::new();
        for partition in selected(topic, selection.partition)? {
            let log = topic.log_id(partition);
            let planned = self
                .storage()
                .plan_cleanup(log, selection.policy, selection.now);
            let plan = planned.map_err(|fault| match fault {
                // The topic was deleted since it was granted.
                Fault::NoLog(_) => Refusal::UnknownTopicOrPartition.into(),
                other => CleanupError::from(other),
            })?;
            let listed = plan.segments.len().min(left);
            left -= listed;
            let log = topic.log(partition)?;
            partitions.push(PartitionPlan {
                partition,
                bounds: log.bounds(),
                bytes: log.size_bytes(),
                plan,
                listed,
            });
        }
        Ok(TopicPlan {
            topic: topic.name.clone(),
            policy: selection.policy,
            partitions,
        })
    }

    /// Has a cleanup run as a job, and returns it as it waits for its turn.
    pub fn start_cleanup(
        &self,
        topic: &Granted<Arc<Topic>, right::Clean>,
        selection: Selection,
        way: Way,
        caller: &Caller,
    ) -> Result<Job, CleanupError> {
        let request = Request {
            policy: selection.policy,
            topic: topic.name.clone(),
            topic_id: topic.id,
            partitions: selected(topic, selection.partition)?,
            whole_topic: selection.partition.is_none(),
            now: selection.now,
            dry_run: way.dry_run,
            bytes_per_second: way.bytes_per_second,
            asked_by: asked_by(caller),
        };
        let cleanup = &self.shared.cleanup;
        let job = cleanup.locked().submit(request, self.now())?;
        cleanup.changed.send_replace(());
        if !way.dry_run {
            let on = On::Topic(topic.name.as_str());
            self.note_change(caller, "clean", on, &format!("job {}", job.id));
        }
        Ok(job)
    }

    /// All jobs that are known, the newest first.
    pub fn cleanup_jobs(&self, _cluster: &Granted<Cluster, right::Describe>) -> Vec<Job> {
        self.shared.cleanup.locked().list()
    }

    /// One job: as soon as it has ended, or after `wait` as it is then.
    pub async fn cleanup_job(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        id: JobId,
        wait: Duration,
    ) -> Result<Job, CleanupError> {
        let cleanup = &self.shared.cleanup;
        let mut changed = cleanup.changed.subscribe();
        let ended = async {
            loop {
                let job = cleanup.locked().get(id)?;
                if job.state.is_ended() {
                    return Ok(job);
                }
                // The sender lives as long as the broker.
                let _ = changed.changed().await;
            }
        };
        match tokio::time::timeout(wait, ended).await {
            Ok(job) => job,
            Err(_) => cleanup.locked().get(id),
        }
    }

    /// Stops a job. One that runs ends where that does no harm; what it did until then stays done.
    pub fn cancel_cleanup(
        &self,
        _cluster: &Granted<Cluster, right::Clean>,
        id: JobId,
        caller: &Caller,
    ) -> Result<Job, CleanupError> {
        let cleanup = &self.shared.cleanup;
        let job = cleanup.locked().cancel(id, self.now())?;
        cleanup.changed.send_replace(());
        if !job.request.dry_run {
            let on = On::Topic(job.request.topic.as_str());
            self.note_change(caller, "cancel_clean", on, &format!("job {id}"));
        }
        Ok(job)
    }

    /// Runs jobs, one after the other, until `shutdown` turns true; the one that runs then is stopped and waited for.
    pub(super) async fn run_cleanup(&self, mut shutdown: watch::Receiver<bool>) {
        let cleanup = &self.shared.cleanup;
        let mut changed = cleanup.changed.subscribe();
        loop {
            let next = cleanup.locked().take(self.now());
            let stopped = asked_to_stop(&mut shutdown);
            let Some(job) = next else {
                tokio::select! {
                    _ = changed.changed() => continue,
                    () = stopped => break,
                }
            };
            let work = tokio::task::spawn_blocking({
                let (storage, job) = (self.storage().clone(), job.clone());
                move || run::run(&storage, &job.request, &job.control)
            });
            tokio::pin!(work);
            let (ran, stops) = tokio::select! {
                ran = &mut work => (ran, false),
                () = stopped => {
                    job.control.progress.cancel();
                    ((&mut work).await, true)
                }
            };
            let outcome = ran.unwrap_or_else(|error| {
                tracing::error!(job = %job.id, %error, "a cleanup job panicked");
                Outcome::unknown(job.request.partitions.len() as u64)
            });
            let job = cleanup.locked().end(job.id, outcome, self.now());
            run::log(&job);
            cleanup.changed.send_replace(());
            if stops {
                break;
            }
        }
        cleanup.locked().cancel_all(self.now());
        cleanup.changed.send_replace(());
    }
}

/// Ends when it turns true, or when nobody is left who could turn it.
async fn asked_to_stop(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The partitions that are meant.
fn selected(topic: &Topic, partition: Option<PartitionId>) -> Result<Vec<PartitionId>, Refusal> {
    match partition {
        None => Ok(topic.partitions().collect()),
        Some(one) if topic.has(one) => Ok(vec![one]),
        Some(_) => Err(Refusal::UnknownTopicOrPartition),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::TopicId;

    use super::*;
    use crate::broker::access::{Door, Principal, Protocol};
    use crate::broker::records::TopicRecord;
    use crate::broker::scratch::Scratch;

    const SELECTION: Selection = Selection {
        policy: Policy::Retention,
        partition: None,
        now: false,
    };

    fn broker() -> Scratch {
        let broker = Scratch::new();
        let record = TopicRecord {
            id: TopicId::random(),
            name: TopicName::parse("readings").expect("a name"),
            partitions: 3,
            settings: BTreeMap::new(),
            owner: None,
        };
        broker.attach(record).expect("a topic");
        broker
    }

    fn door(broker: &Scratch) -> Door {
        broker.door(Caller {
            principal: Principal::Anonymous,
            address: ([127, 0, 0, 1], 1).into(),
            client_id: Some("x".repeat(300)),
            protocol: Protocol::Http,
        })
    }

    fn start(door: &Door, selection: Selection) -> Result<Job, CleanupError> {
        let topic = door.topic("readings", right::Clean)?;
        door.broker()
            .start_cleanup(&topic, selection, Way::default(), door.caller())
    }

    #[tokio::test]
    async fn a_job_runs_over_every_partition_and_who_waits_for_it_is_told() {
        let broker = broker();
        let door = door(&broker);
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let broker = broker.clone();
            async move { broker.run_cleanup(stopped).await }
        });
        let job = start(&door, SELECTION).expect("it is taken");
        assert_eq!(job.request.partitions.len(), 3);
        assert!(job.request.asked_by.len() < 200, "{}", job.request.asked_by);
        let cluster = door.cluster(right::Describe).expect("a right");
        let wait = Duration::from_secs(60);
        let ended = broker.cleanup_job(&cluster, job.id, wait).await;
        let ended = ended.expect("it is known");
        assert_eq!(ended.state, State::Done);
        assert_eq!(ended.control.partitions_done(), 3);
        stop.send_replace(true);
        running.await.expect("it ends");
        // Nobody is left to run this one.
        let late = start(&door, SELECTION).expect("it is taken").id;
        let now = broker.cleanup_job(&cluster, late, Duration::ZERO).await;
        assert_eq!(now.expect("it is known").state, State::Waiting);
    }

    #[tokio::test]
    async fn the_end_of_the_server_cancels_what_waits() {
        let broker = broker();
        let door = door(&broker);
        let job = start(&door, SELECTION).expect("it is taken");
        let cancelled = start(&door, SELECTION).expect("it is taken");
        let cluster = door.cluster(right::Clean).expect("a right");
        let cancelled = broker.cancel_cleanup(&cluster, cancelled.id, door.caller());
        assert_eq!(cancelled.expect("it is known").state, State::Cancelled);
        // What waits is not begun, or is begun and stopped; it is not left open.
        let (_stop, stopped) = watch::channel(true);
        broker.run_cleanup(stopped).await;
        let cluster = door.cluster(right::Describe).expect("a right");
        let ended = broker.cleanup_job(&cluster, job.id, Duration::ZERO).await;
        assert!(ended.expect("it is known").state.is_ended());
    }

    #[tokio::test]
    async fn a_partition_that_is_not_there_is_refused_before_a_job_is_taken() {
        let broker = broker();
        let door = door(&broker);
        let selection = Selection {
            partition: Some(PartitionId::new(3)),
            ..SELECTION
        };
        let refused = start(&door, selection);
        let is_unknown = |refused: CleanupError| {
            matches!(
                refused,
                CleanupError::Refused(Refusal::UnknownTopicOrPartition)
            )
        };
        assert!(refused.is_err_and(is_unknown));
        let topic = door.topic("readings", right::Describe).expect("a right");
        let refused = broker.plan_cleanup(&topic, selection);
        assert!(refused.is_err_and(is_unknown));
        let cluster = door.cluster(right::Describe).expect("a right");
        assert!(broker.cleanup_jobs(&cluster).is_empty());
    }
}
