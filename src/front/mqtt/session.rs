//! A client's session (§4.1): what is kept of it while it is not connected, and how that becomes what its connection works with.
//! Callers: `greeting` takes it over, `inbound` and `outbound` change it, `connection` leaves it. Invariants: of a session that ends with
//! its connection nothing is kept but its will; nobody else has the session until this is dropped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::ending::{Ending, NotConnected};
use super::errors;
use super::packet::{Connect, Qos, Version};
use super::publishing;
use super::record::Message;
use super::sharing::Part;
use super::state::Front;
use super::topic::KAFKA;
use crate::broker::Refusal;
use crate::broker::publish::PublishRefusal;
use crate::broker::sessions::{
    Cursor, HeldSession, KeptSession, KeptSubscription, KeptWill, SHARED, Sending, SessionRecord,
    SessionRefusal, SessionState,
};

/// A session that is connected.
pub(super) struct Session {
    pub(super) held: HeldSession,
    /// How long it outlives its connection, in seconds.
    pub(super) expiry_seconds: u32,
    /// What is published when its client goes without a word.
    pub(super) will: Option<Arc<KeptWill>>,
}

/// How a subscription is kept: the bits of §3.8.3.1 that hold for as long as it lasts.
pub(super) fn options_of(qos: Qos, no_local: bool, retain_as_published: bool) -> u8 {
    qos.number() | u8::from(no_local) << 2 | u8::from(retain_as_published) << 3
}

/// The same, read.
pub(super) fn read_options(options: u8) -> (Qos, bool, bool) {
    let qos = Qos::of(options & 3).unwrap_or(Qos::AtMostOnce);
    (qos, options & 4 != 0, options & 8 != 0)
}

/// Takes over the session that the client asks for, or begins one; with what is there of it, if it goes on.
pub(super) async fn take_over(
    front: &Front,
    connect: &Connect<'_>,
    held: HeldSession,
    will: Option<KeptWill>,
) -> Result<(Session, Option<SessionState>, Vec<Part>), NotConnected> {
    let longest = front.settings.session_expiry_max_seconds();
    let expiry_seconds = match (connect.version, connect.clean_start) {
        (Version::V311, true) => 0,
        (Version::V311, false) => longest,
        (Version::V5, _) => connect.properties.session_expiry.unwrap_or(0).min(longest),
    };
    let session = Session {
        held,
        expiry_seconds,
        will: will.map(Arc::new),
    };
    let state = session.held.state();
    let goes_on = !connect.clean_start && is_alive(front, &state);
    let left = state.session.as_ref().and_then(|it| it.will.clone());
    // What was before ends first: nothing of this connection comes before its will.
    if !goes_on {
        // Its client did not come back to it. One that was cut by the server's own end, and comes back at once, left nothing.
        let left = left.filter(|_| connect.clean_start || !state.was_cut);
        let ends = session.held.ends();
        match left {
            Some(will) => publish_will(front, &session.held, &will, ends).await?,
            None => session.held.discard().await?,
        }
    } else if let (Some(will), Some(kept)) = (left, &state.session)
        && session.held.due(front.settings.will_grace()).will
    {
        let without = session.held.kept_as(KeptSession {
            will: None,
            ..KeptSession::clone(kept)
        });
        publish_will(front, &session.held, &will, vec![without]).await?;
    }
    let state = goes_on.then_some(state);
    let parts = { state.iter() }
        .flat_map(|state| parts(front, state))
        .collect();
    if session.is_kept() || session.will.is_some() {
        let kept = state.as_ref().and_then(|it| it.session.as_ref());
        // What ends with its connection has nothing that is to be found again.
        let subscriptions = kept.filter(|_| session.is_kept());
        let subscriptions = subscriptions.map(|it| it.subscriptions.clone());
        let cursor = state.as_ref().map(|state| Cursor {
            keeps_up: false,
            ..Cursor::clone(&state.cursor)
        });
        let now = (cursor.filter(|_| session.is_kept()), None);
        session.save(subscriptions.unwrap_or_default(), now).await?;
    } else if state.is_some() {
        // It goes on, and ends with this connection.
        session.held.discard().await?;
    }
    Ok((session, state, parts))
}

/// Has a part in each of the shared subscriptions that a session has.
fn parts(front: &Front, state: &SessionState) -> Vec<Part> {
    let kept = state.session.iter().flat_map(|it| &it.subscriptions);
    let shared = kept.filter(|it| it.filter.starts_with(SHARED));
    shared.map(|it| front.sharing.hold(&it.filter)).collect()
}

fn is_alive(front: &Front, state: &SessionState) -> bool {
    state.session.as_ref().is_some_and(|session| {
        let lasts = i64::from(session.expiry_seconds) * 1_000;
        let ended_at = session.ended_at;
        session.expiry_seconds > 0
            && ended_at.is_none_or(|ended| ended.plus_millis(lasts) > front.broker.steady_now())
    })
}

impl Session {
    /// Whether it outlives its connection.
    pub(super) fn is_kept(&self) -> bool {
        self.expiry_seconds > 0
    }

    fn as_kept(&self, subscriptions: Vec<KeptSubscription>) -> KeptSession {
        KeptSession {
            expiry_seconds: self.expiry_seconds,
            ended_at: None,
            will: self.will.clone(),
            subscriptions,
        }
    }

    /// Keeps it as it is now, while it is connected.
    pub(super) async fn save(
        &self,
        subscriptions: Vec<KeptSubscription>,
        now: (Option<Cursor>, Option<Sending>),
    ) -> Result<(), SessionRefusal> {
        self.held.keep(self.as_kept(subscriptions), now).await
    }

    /// Whether it may be kept with these subscriptions.
    pub(super) fn takes(&self, subscriptions: Vec<KeptSubscription>) -> bool {
        !self.is_kept() || self.held.takes(self.as_kept(subscriptions)).is_ok()
    }

    /// Its connection has ended; with what is to be kept of it, or as it was before if nothing is known of that. It tries until that is
    /// stored: nobody else has the session before.
    pub(super) async fn leave(&self, front: &Front, how: Leaving, left: Option<Left>) {
        // What it knows may be less than what is left, and nothing of that is to be replaced by it.
        self.held.progress().end();
        let will = self.will.clone().filter(|_| how.with_will);
        let is_kept = how.expiry_seconds > 0;
        let waits = |will: &Arc<KeptWill>| is_kept && will.delay_seconds > 0;
        let now = will.clone().filter(|will| !waits(will));
        let later = will.filter(waits);
        let left = left.unwrap_or_else(|| self.as_it_was());
        let ended_at = Some(front.broker.steady_now());
        let with = |will: Option<Arc<KeptWill>>| {
            let mut records = vec![self.held.kept_as(KeptSession {
                expiry_seconds: how.expiry_seconds,
                ended_at,
                will,
                subscriptions: match is_kept {
                    true => left.subscriptions.clone(),
                    false => Vec::new(),
                },
            })];
            if is_kept {
                // Always: a mark that looked before may note another place, unless there is a newer one.
                records.push(self.held.is_at(left.cursor.clone()));
                records.extend(self.held.sends(left.sending.clone()));
            }
            records
        };
        let mut pause = PAUSE_MIN;
        loop {
            let records = match is_kept {
                true => with(later.clone()),
                false => self.held.ends(),
            };
            let stored = match &now {
                Some(will) => publish_will(front, &self.held, will, records).await,
                None => self.held.write(records).await,
            };
            let Err(error) = stored else { return };
            tracing::debug!(%error, "the end of an MQTT connection is not kept yet");
            if let Some(will) = &now {
                // It is due at once, whatever becomes of the server.
                let due = KeptWill {
                    delay_seconds: 0,
                    ..KeptWill::clone(will)
                };
                if self.held.write(with(Some(Arc::new(due)))).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    fn as_it_was(&self) -> Left {
        let state = self.held.state();
        let kept = state.session.as_ref();
        Left {
            subscriptions: kept.map(|it| it.subscriptions.clone()).unwrap_or_default(),
            cursor: Cursor {
                keeps_up: false,
                ..Cursor::clone(&state.cursor)
            },
            sending: Sending::clone(&state.sending),
        }
    }
}

/// What is left of a subscriber's side.
pub(super) struct Left {
    pub(super) subscriptions: Vec<KeptSubscription>,
    pub(super) cursor: Cursor,
    pub(super) sending: Sending,
}

/// How a client leaves its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    /// Whether it wants its will published.
    pub(super) with_will: bool,
    /// How long the session is kept.
    pub(super) expiry_seconds: u32,
}

/// Publishes a will, and changes the session in the same frame. One that its topic never takes is given up: there is nobody who could be
/// told. Errors: the store takes nothing now, and nothing is changed.
async fn publish_will(
    front: &Front,
    held: &HeldSession,
    will: &KeptWill,
    records: Vec<SessionRecord>,
) -> Result<(), SessionRefusal> {
    use std::sync::atomic::Ordering::Relaxed;
    let message = Message {
        topic: will.topic.clone().into(),
        value: will.payload.clone(),
        headers: will.headers.clone(),
        retain: will.retain,
        expiry: will.expiry_seconds,
    };
    let published = async {
        let published = publishing::publish_will_of(front, held, &message, records.clone());
        published.await?.durable().await
    };
    let Err(error) = published.await else {
        front.stats.wills.fetch_add(1, Relaxed);
        return Ok(());
    };
    // The Kafka topic that it named itself may have been deleted since.
    let is_gone = matches!(&error, PublishRefusal::Refused(why) if matches!(**why, Refusal::UnknownTopicOrPartition));
    let is_gone = is_gone && will.topic.starts_with(KAFKA);
    let never = match errors::of_publish(&error) {
        errors::NotStored::Never(_) => true,
        errors::NotStored::End(_) => is_gone,
    };
    if never {
        tracing::warn!(%error, client = &*held.key().client_id, "a will could not be published");
        return held.write(records).await;
    }
    match error {
        PublishRefusal::Refused(why) => Err(SessionRefusal::Refused(why)),
        _ => Err(SessionRefusal::Abandoned),
    }
}

/// How often it is looked whose time has come.
const LOOK: Duration = Duration::from_secs(1);
/// Sessions that are ended at the same time: one sync of the log carries many.
const ENDED_AT_ONCE: usize = 256;
/// How long it is waited before the end of a connection is tried again that the store did not take.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Ends sessions whose time is over, and publishes wills whose time has come, for ever. Shared subscriptions end with the last session.
pub(super) async fn keep_time(front: &Front) {
    let grace = front.settings.will_grace();
    loop {
        tokio::time::sleep(LOOK).await;
        let due = futures_util::stream::iter(front.broker.due_sessions(grace));
        let ends = due.for_each_concurrent(ENDED_AT_ONCE, |key| async move {
            // Its client may have been faster, and stay for long.
            let Some(held) = front.broker.try_hold_session(key) else {
                return;
            };
            if let Err(error) = end_what_is_due(front, &held, grace).await {
                tracing::debug!(%error, "a session whose time is over stays for now");
            }
        });
        ends.await;
        front.sharing.end_unused().await;
    }
}

async fn end_what_is_due(
    front: &Front,
    held: &HeldSession,
    grace: Duration,
) -> Result<(), SessionRefusal> {
    let due = held.due(grace);
    if !due.is_any() {
        return Ok(());
    }
    let session = held.state().session;
    let will = session.as_ref().and_then(|it| it.will.clone());
    let records = match &session {
        Some(session) if !due.session => vec![held.kept_as(KeptSession {
            will: will.clone().filter(|_| !due.will),
            ended_at: session.ended_at.or(due.ended_at),
            ..KeptSession::clone(session)
        })],
        _ => held.ends(),
    };
    match will.filter(|_| due.will) {
        Some(will) => publish_will(front, held, &will, records).await,
        None => held.write(records).await,
    }
}

impl From<SessionRefusal> for NotConnected {
    fn from(refusal: SessionRefusal) -> NotConnected {
        match refusal {
            SessionRefusal::TooMany(_) | SessionRefusal::TooLong { .. } => {
                NotConnected::TooManySessions
            }
            SessionRefusal::Refused(_) | SessionRefusal::Abandoned => NotConnected::StoreFailed,
        }
    }
}

/// Why a connection ends whose session cannot be kept.
pub(super) fn ending_of(refusal: SessionRefusal) -> Ending {
    match refusal {
        SessionRefusal::TooMany(_) | SessionRefusal::TooLong { .. } => Ending::SessionFull,
        SessionRefusal::Abandoned => Ending::Stopping,
        SessionRefusal::Refused(refusal) => {
            match errors::of_publish(&PublishRefusal::Refused(refusal)) {
                errors::NotStored::End(ending) => ending,
                errors::NotStored::Never(never) => never.ending(),
            }
        }
    }
}
