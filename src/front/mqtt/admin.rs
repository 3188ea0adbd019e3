//! What operators see of this front, and how they end a client's connection.
//! Callers: the HTTP front, by way of `serve`.

use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;

use super::session::read_options;
use super::state::Front;
use super::topic::TopicFilter;
use crate::broker::access::Principal;
use crate::broker::retained::{KeptAt, Looked};
use crate::broker::sessions::SessionKey;
use crate::front::Administered;
use crate::front::administered::{RetainedPage, RetainedShown, SessionShown};

/// Retained messages that are listed at once.
const RETAINED_MAX: usize = 1_000;
/// Looks at their names that are taken for one list.
const LOOKS_MAX: usize = 100;

impl Front {
    /// See the module.
    pub fn administered(self: &Arc<Front>) -> Administered {
        let front = || Arc::clone(self);
        let (listed, ended, shown, retained) = (front(), front(), front(), front());
        Administered {
            clients: Box::new(move |count_max| listed.clients.list(count_max)),
            end: Box::new(move |client_id| ended.clients.end(client_id)),
            session: Box::new(move |user, client_id| shown.show_session(user, client_id)),
            retained: Box::new(move |filter, behind| retained.list_retained(filter, behind)),
        }
    }

    fn show_session(&self, user: Option<&str>, client_id: &str) -> Option<SessionShown> {
        let key = SessionKey {
            owner: user.map_or(Principal::Anonymous, |user| Principal::User(user.into())),
            client_id: client_id.into(),
        };
        let (state, is_connected) = self.broker.session(&key)?;
        let session = state.session.as_ref()?;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let subscriptions = session.subscriptions.iter().map(|it| {
            let (qos, ..) = read_options(it.options);
            (it.filter.to_string(), qos.number())
        });
        let ended_at = session.ended_at.filter(|_| !is_connected);
        Some(SessionShown {
            principal: key.owner.to_string(),
            is_connected,
            expiry: seconds(session.expiry_seconds),
            absent: ended_at.map(|ended| between(ended, self.broker.steady_now())),
            will: session.will.as_ref().map(|will| {
                let delay = seconds(will.delay_seconds);
                (will.topic.clone(), delay)
            }),
            subscriptions: subscriptions.collect(),
            unacknowledged: state.cursor.unacked.len() + state.sending.pending.len(),
            unreleased: state.received.len(),
        })
    }

    fn list_retained(&self, filter: &str, behind: Option<&str>) -> Result<RetainedPage, String> {
        let filter = TopicFilter::parse(filter).map_err(|error| error.to_string())?;
        let prefix = filter.prefix().unwrap_or(filter.as_str());
        let now = self.broker.steady_now();
        let mut behind = behind.map(str::to_owned);
        let mut found = Vec::new();
        for _ in 0..LOOKS_MAX + RETAINED_MAX {
            let wants = |name: &str| filter.matches(name);
            match self.broker.next_retained(prefix, behind.as_deref(), wants) {
                Looked::Found(KeptAt { kept, .. }) => {
                    behind = Some(kept.name.to_string());
                    found.push(RetainedShown {
                        topic: kept.name.to_string(),
                        bytes: kept.value.len(),
                        age: between(kept.at, now),
                        left: kept.expires_at.map(|end| between(now, end)),
                    });
                }
                Looked::Further(name) => behind = Some(name.to_string()),
                Looked::End => return Ok((found, None)),
            }
            if found.len() == RETAINED_MAX {
                break;
            }
        }
        Ok((found, behind))
    }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    let millis = to.millis().saturating_sub(from.millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
