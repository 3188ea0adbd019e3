//! What a start does for kept sessions and shared subscriptions whose messages go to other Kafka topics than before, as routes have changed.
//! Callers: `Front::serve`, before anybody is served. Invariant: what is published from this start on is read for whoever subscribed before,
//! and what was published before is not given twice: each begins in its new topics where these end now.

use std::sync::Arc;
use std::time::Duration;

use model::TopicId;

use super::publishing::routed;
use super::routes::Route;
use super::shared;
use super::state::Front;
use super::topic::TopicFilter;
use crate::broker::Refusal;
use crate::broker::access::{Door, Protocol, right};
use crate::broker::replay::ReplayError;
use crate::broker::sessions::{Cursor, KeptSession, Positions, SessionRefusal};
use crate::broker::share::{Begin, ShareReadError};

/// How long it is waited before it is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why they have not begun.
#[derive(Debug, thiserror::Error)]
enum NotBegun {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Read(#[from] ReplayError),
    #[error(transparent)]
    Session(#[from] SessionRefusal),
    #[error(transparent)]
    Shared(#[from] ShareReadError),
}

/// Has all of them begin. It tries until the store takes it: nobody is served before.
pub(super) async fn begin(front: &Front) {
    let mut pause = PAUSE_MIN;
    while let Err(error) = begin_all(front).await {
        tracing::warn!(%error, "MQTT is not served yet: sessions cannot begin in topics of new routes");
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

async fn begin_all(front: &Front) -> Result<(), NotBegun> {
    let own = front.broker.own_door(Protocol::Mqtt);
    for filter in front.sharing.filters() {
        if let Some(topics) = shared::parse(&filter) {
            begin_shared(front, &own, (&filter, &topics)).await?;
        }
    }
    let lacking = lacking(front, &own);
    if lacking.is_empty() {
        return Ok(());
    }
    let mut ends = Positions::default();
    for route in lacking {
        let topic = routed(front, &own, (route, "#"), right::Read).await?;
        ends.set_topic(topic.id, front.broker.durable_ends(&topic)?);
    }
    let change = |session: &KeptSession, cursor: &Cursor| {
        let new = new_to(front, &own, session);
        if new.is_empty() {
            return None;
        }
        let (mut session, mut cursor) = (session.clone(), cursor.clone());
        for (at, route) in new {
            let topic = own.topic(&route.topic, right::Read).ok()?;
            if !ends.has(topic.id) {
                continue;
            }
            let end = ends.of_topic(topic.id).to_vec();
            if !cursor.read.has(topic.id) {
                cursor.read.set_topic(topic.id, end.clone());
            }
            session.subscriptions[at].since.set_topic(topic.id, end);
        }
        Some((session, cursor))
    };
    let count = front.broker.change_sessions(change).await?;
    tracing::info!(
        sessions = count,
        "MQTT sessions go on in topics of new routes"
    );
    Ok(())
}

async fn begin_shared(
    front: &Front,
    own: &Door,
    (filter, topics): (&str, &TopicFilter),
) -> Result<(), NotBegun> {
    if topics.is_of_kafka() {
        return Ok(());
    }
    let group = own.group(filter, right::Read)?;
    let member: Arc<str> = "mqtt-start".into();
    for route in front.settings.routes.read_by(topics) {
        let topic = routed(front, own, (route, "#"), right::Read).await?;
        let member = (Arc::clone(&member), own.caller());
        // It takes nothing: the group begins here, where it has not.
        let begun = front
            .broker
            .share_reader(&topic, &group, Begin::Latest, member);
        drop(begun.await?);
    }
    Ok(())
}

/// The routes to topics that subscriptions of sessions have no place in.
fn lacking<'a>(front: &'a Front, own: &Door) -> Vec<&'a Route> {
    let mut found: Vec<&Route> = Vec::new();
    front.broker.look_at_sessions(|session, _| {
        for (_, route) in new_to(front, own, session) {
            if found.iter().all(|it| it.topic != route.topic) {
                found.push(route);
            }
        }
    });
    found
}

/// Routes to topics that a session's subscriptions have no place in, each with the subscription. Where a topic is gone that one was in, another
/// may stand for it: that is read from its start.
fn new_to<'a>(front: &'a Front, own: &Door, session: &KeptSession) -> Vec<(usize, &'a Route)> {
    let mut found: Vec<(usize, &Route)> = Vec::new();
    for (at, kept) in session.subscriptions.iter().enumerate() {
        let filter = TopicFilter::readable(&kept.filter);
        let Some(filter) = filter.filter(|it| !it.is_of_kafka()) else {
            continue;
        };
        let known: Vec<TopicId> = kept.since.topics().map(|(id, _)| id).collect();
        if !known.iter().all(|id| front.broker.has_topic(*id)) {
            continue;
        }
        for route in front.settings.routes.read_by(&filter) {
            let topic = own.topic(&route.topic, right::Read).ok();
            if topic.is_none_or(|topic| !known.contains(&topic.id)) {
                found.push((at, route));
            }
        }
    }
    found
}
