//! Cleanup of a running server, over HTTP.
//!
//! Callers: the cleanup commands. A run that is waited for is shown on a terminal as it goes, and cancelled by Ctrl-C.

use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use storage::cleanup::Policy;

use super::report::{self, Job, Plan};
use super::{RunArgs, Selection, ServerArgs, name_of};
use crate::cli::Common;
use crate::http::{self, HttpServer};
use crate::output::note;
use crate::signals::StopSignals;

/// How long the server waits with its answer for the end of a run.
const WAIT: Duration = Duration::from_millis(500);

/// The server.
pub(super) struct Server {
    http: HttpServer,
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<Job>,
}

impl Server {
    /// Where the command's options say.
    pub(super) fn of(args: &ServerArgs, common: &Common) -> Result<Server> {
        Ok(Server {
            http: common.http(args.http.as_deref())?,
        })
    }

    pub(super) async fn plan(&self, policy: Policy, selection: &Selection) -> Result<Plan> {
        let mut pairs = vec![
            ("policy", name_of(policy).to_owned()),
            ("topic", selection.topic.as_str().to_owned()),
            ("now", selection.now.to_string()),
        ];
        pairs.extend(
            selection
                .partition
                .map(|one| ("partition", one.to_string())),
        );
        let path = format!("/api/v1/cleanup/plan?{}", http::query(&pairs));
        let plan = self
            .http
            .get(&path)
            .await
            .with_context(|| about(selection))?;
        serde_json::from_value(plan).context("the server's plan")
    }

    pub(super) async fn jobs(&self) -> Result<Vec<Job>> {
        let jobs = self.http.get("/api/v1/cleanup/jobs").await?;
        let jobs: Jobs = serde_json::from_value(jobs).context("the server's jobs")?;
        Ok(jobs.jobs)
    }

    pub(super) async fn job(&self, id: &str) -> Result<Job> {
        self.job_in(id, Duration::ZERO).await
    }

    /// The job as it is once it has ended, or after so long.
    async fn job_in(&self, id: &str, wait: Duration) -> Result<Job> {
        let pairs = [("wait_ms", wait.as_millis().to_string())];
        let path = format!("{}?{}", path_of(id), http::query(&pairs));
        let job = self.http.get(&path).await?;
        serde_json::from_value(job).context("the server's job")
    }

    pub(super) async fn cancel(&self, id: &str) -> Result<Job> {
        let job = self.http.delete(&path_of(id)).await?;
        serde_json::from_value(job).context("the server's job")
    }

    /// Has it run. Gives the job as it was taken, or, if that is to be waited for, as it ended.
    pub(super) async fn run(&self, policy: Policy, args: &RunArgs) -> Result<Job> {
        let selection = &args.selection;
        let body = json!({
            "policy": name_of(policy), "topic": selection.topic.as_str(), "partition": selection.partition,
            "now": selection.now, "dry_run": args.dry_run, "bytes_per_second": args.throttle,
        });
        let waits = args.wait || args.dry_run;
        // From here on Ctrl-C is a wish to cancel the job, and not the end of the command.
        let stop = waits.then(StopSignals::listen).transpose()?;
        let started = self.http.post("/api/v1/cleanup/jobs", &body).await;
        let started = started.with_context(|| about(selection))?;
        let job: Job = serde_json::from_value(started).context("the server's job")?;
        match stop {
            Some(stop) => self.wait(job, stop).await,
            None => Ok(job),
        }
    }

    /// Waits for the end of a job. The first signal cancels it, the second ends the waiting.
    async fn wait(&self, mut job: Job, mut stop: StopSignals) -> Result<Job> {
        let id = job.id.clone().context("the server names its jobs")?;
        // Drawn on standard error, and only if that is a terminal.
        let style = ProgressStyle::with_template("{spinner} {msg}")?;
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        let mut is_cancelled = false;
        while !job.is_ended() {
            let progress = report::progress_text(&job.progress);
            bar.set_message(format!("{} {}: {progress}", job.policy, job.state));
            tokio::select! {
                looked = self.job_in(&id, WAIT) => job = looked?,
                () = stop.asked() => {
                    if is_cancelled {
                        bar.finish_and_clear();
                        anyhow::bail!("job {id} is cancelled, and has not ended yet");
                    }
                    is_cancelled = true;
                    bar.suspend(|| note!("note: cancelling job {id}"));
                    job = self.cancel(&id).await?;
                }
            }
        }
        bar.finish_and_clear();
        Ok(job)
    }
}

fn path_of(id: &str) -> String {
    format!("/api/v1/cleanup/jobs/{}", http::escaped(id))
}

/// What a request was about, for its error.
fn about(selection: &Selection) -> String {
    match selection.partition {
        Some(partition) => format!("topic {}, partition {partition}", selection.topic),
        None => format!("topic {}", selection.topic),
    }
}
