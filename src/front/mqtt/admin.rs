//! What operators see of this front, and how they end a client's connection.
//! Callers: the HTTP front, by way of `serve`.

use std::sync::Arc;
use std::time::Duration;

use model::{Timestamp, partition_of_key};

use super::routes::To;
use super::session::read_options;
use super::state::Front;
use super::topic::{self, TopicFilter};
use crate::broker::access::{Principal, Protocol, right};
use crate::broker::retained::{KeptAt, Looked};
use crate::broker::sessions::SessionKey;
use crate::front::Administered;
use crate::front::administered::{RetainedPage, RetainedShown, RouteShown, Routed, SessionShown};

/// Retained messages that are listed at once.
const RETAINED_MAX: usize = 1_000;
/// Looks at their names that are taken for one list.
const LOOKS_MAX: usize = 100;

impl Front {
    /// See the module.
    pub fn administered(self: &Arc<Front>) -> Administered {
        let front = || Arc::clone(self);
        let (listed, ended, shown, retained) = (front(), front(), front(), front());
        let (routes, route) = (front(), front());
        Administered {
            clients: Box::new(move |count_max| listed.clients.list(count_max)),
            end: Box::new(move |client_id| ended.clients.end(client_id)),
            session: Box::new(move |user, client_id| shown.show_session(user, client_id)),
            retained: Box::new(move |filter, behind| retained.list_retained(filter, behind)),
            routes: Box::new(move || routes.list_routes()),
            route: Box::new(move |topic| route.route(topic)),
        }
    }

    fn list_routes(&self) -> Vec<RouteShown> {
        let routes = &self.settings.routes;
        let shown = routes.all().iter().map(|route| RouteShown {
            filter: route.written.filter.clone(),
            topic: route.written.topic.clone(),
            key: route.written.key.clone(),
            partitions: route.partitions,
            is_default: routes.is_default(route),
        });
        shown.collect()
    }

    fn route(&self, name: &str) -> Result<Routed, String> {
        let routes = &self.settings.routes;
        let to = routes.to(name).filter(|_| topic::is_name(name));
        let to = to.ok_or_else(|| format!("nobody publishes to {name}"))?;
        let (route, topic, partitions) = match &to {
            To::Route { route, .. } => {
                let at = routes.all().iter().position(|it| std::ptr::eq(it, *route));
                let number = at.map(|at| at + 1);
                (number, route.topic.as_str(), Some(route.partitions))
            }
            To::Kafka { topic, .. } => (None, *topic, None),
        };
        let own = self.broker.own_door(Protocol::Mqtt);
        let found = own.topic(topic, right::Describe).ok();
        let partitions = found.map(|it| it.partition_count()).or(partitions);
        let key = to.key();
        let partition = key.zip(partitions);
        Ok(Routed {
            route,
            topic: topic.to_owned(),
            key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
            partition: partition.map(|(key, count)| partition_of_key(key, count)),
        })
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
