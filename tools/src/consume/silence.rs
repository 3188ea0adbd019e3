//! What `consume` does when nothing comes for long.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use client::{Client, Error, ErrorCode};

use crate::failure::Failure;
use crate::output::note;

/// After how long a silence it is looked whether there still is something to wait for.
const SILENCE: Duration = Duration::from_secs(3);
/// How long that may take.
const LOOK: Duration = Duration::from_secs(5);
/// Polls wait out whatever may pass. This looks, when nothing comes for long, whether it can: a topic may be deleted, and
/// a reader that is to come to an end must not wait for a broker for ever.
pub(super) struct Silence<'a> {
    client: &'a Client,
    topics: &'a [String],
    has_end: bool,
    since: Instant,
    unreachable_since: Option<Instant>,
}

impl<'a> Silence<'a> {
    pub(super) fn new(client: &'a Client, topics: &'a [String], has_end: bool) -> Silence<'a> {
        Silence {
            client,
            topics,
            has_end,
            since: Instant::now(),
            unreachable_since: None,
        }
    }

    /// What the poll yields. Dropping the future loses nothing if that is so of the poll.
    pub(super) async fn over<T>(
        &mut self,
        poll: impl Future<Output = client::Result<Vec<T>>>,
    ) -> Result<Vec<T>> {
        let yielded = poll.await?;
        if !yielded.is_empty() {
            self.since = Instant::now();
            self.answered();
        } else if self.since.elapsed() >= SILENCE {
            self.check_topics().await?;
            self.since = Instant::now();
        }
        Ok(yielded)
    }

    async fn check_topics(&mut self) -> Result<()> {
        for topic in self.topics {
            let look = self.client.topic_anew(topic, false);
            match tokio::time::timeout(LOOK, look).await {
                Ok(Ok(_)) => self.answered(),
                Ok(Err(error)) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                    bail!(Failure::NotFound(format!("topic {topic} was deleted")));
                }
                Ok(Err(_)) | Err(_) => return self.unreachable(),
            }
        }
        Ok(())
    }

    fn answered(&mut self) {
        if self.unreachable_since.take().is_some() {
            note!("note: the broker answers again");
        }
    }

    fn unreachable(&mut self) -> Result<()> {
        let Some(since) = self.unreachable_since else {
            // Addresses that cannot be reached are named elsewhere.
            if self.client.troubles().current().is_empty() {
                note!("note: no broker answers: going on when one does");
            }
            self.unreachable_since = Some(Instant::now());
            return Ok(());
        };
        let after = self.client.config().retry_timeout;
        if self.has_end && since.elapsed() > after {
            let what = "reading".to_owned();
            bail!(Error::TimedOut { what, after });
        }
        Ok(())
    }
}
