//! The book of what is to be written: events in order, and sums of what happens again and again.
//! Callers: whoever notes an event; `writer`, which takes them. Nothing here waits but for a lock that is held for moments.
//! Invariants: at most [`QUEUE_MAX`] events wait, of which those that anybody can cause are half; one more is counted as lost. Of
//! denials and logins that are alike the first is an event at once, and those of the minute after it are one more with their
//! count; so many are told apart ([`SUMS_MAX`]), those beyond are one sum for each kind.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::Timestamp;
use storage::Clock;
use tokio::sync::Notify;

use super::AuditConfig;
use super::event::{Event, LoginOutcome, On, What, Who, detail, name, resource};
use super::sinks::Sinks;
use crate::broker::access::{Caller, Principal, Protocol};

/// Events that wait to be written.
pub(super) const QUEUE_MAX: usize = 4096;
/// Sums that are told apart.
pub(super) const SUMS_MAX: usize = 1024;
/// Over how long they are summed.
pub(super) const SUMMED: Duration = Duration::from_secs(60);

/// What is to be written.
pub(in crate::broker) struct Audit {
    pub(super) config: AuditConfig,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Where it goes. One task writes.
    pub(super) sinks: tokio::sync::Mutex<Sinks>,
    pub(super) wake: Notify,
}

/// What is to be written now.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) events: Vec<Event>,
    /// So many more there were, and no place for them.
    pub(super) lost: u64,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Event>,
    sums: HashMap<(Who, What), Sum>,
    /// Not written yet that so many were lost.
    lost: u64,
    totals: Totals,
}

/// Those that were not told yet.
struct Sum {
    began: Duration,
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

/// Since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) changed: u64,
    pub(super) denied: u64,
    pub(super) logins: u64,
    pub(super) lost: u64,
}

impl Audit {
    pub(in crate::broker) fn new(config: AuditConfig, clock: Arc<dyn Clock>) -> Audit {
        Audit {
            sinks: tokio::sync::Mutex::new(Sinks::of(&config)),
            config,
            clock,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Notes a change that was made.
    pub(in crate::broker) fn changed(
        &self,
        caller: &Caller,
        operation: &'static str,
        on: On<'_>,
        text: &str,
    ) {
        let what = What::Changed {
            operation,
            resource: on.text(),
            detail: detail(text),
        };
        let event = self.event(who(caller), client(caller), what);
        let mut state = self.state();
        state.totals.changed += 1;
        state.push(event, QUEUE_MAX);
        drop(state);
        self.wake.notify_one();
    }

    /// Notes that a right was asked for and is not there.
    pub(in crate::broker) fn denied(
        &self,
        caller: &Caller,
        operation: &'static str,
        (kind, named): (&str, &str),
    ) {
        let what = What::Denied {
            operation,
            resource: Some(resource(kind, named)),
        };
        self.summed(who(caller), client(caller), what);
    }

    /// Notes how a login ended; of a user who does not exist no name is given.
    pub(in crate::broker) fn login(
        &self,
        (mechanism, protocol): (&'static str, Protocol),
        user: Option<&str>,
        address: IpAddr,
        outcome: LoginOutcome,
    ) {
        let who = Who {
            principal: user.map(|user| Principal::User(name(user).into()).to_string()),
            address: Some(address.to_canonical()),
            protocol: Some(protocol.name()),
        };
        self.summed(who, None, What::Login { mechanism, outcome });
    }

    fn summed(&self, who: Who, client: Option<String>, what: What) {
        let (now, began) = (self.clock.now(), self.clock.monotonic());
        let mut guard = self.state();
        let state = &mut *guard;
        match &what {
            What::Denied { .. } => state.totals.denied += 1,
            _ => state.totals.logins += 1,
        }
        let mut key = (who, what);
        let (is_known, is_full) = (state.sums.contains_key(&key), state.sums.len() >= SUMS_MAX);
        if !is_known && is_full {
            key = (Who::default(), any(key.1));
        }
        if let Some(sum) = state.sums.get_mut(&key) {
            if sum.count == 0 {
                sum.first = now;
            }
            sum.last = now;
            sum.count += 1;
            return;
        }
        let event = Event {
            at: now,
            since: None,
            count: 1,
            who: key.0.clone(),
            client: client.filter(|_| key.0.principal.is_some()),
            what: key.1.clone(),
        };
        let sum = Sum {
            began,
            first: now,
            last: now,
            count: 0,
        };
        state.sums.insert(key, sum);
        state.push(event, QUEUE_MAX / 2);
        drop(guard);
        self.wake.notify_one();
    }

    /// What is to be written now, in order; `is_last` tells all sums, however young.
    pub(super) fn take(&self, is_last: bool) -> Taken {
        let monotonic = self.clock.monotonic();
        let mut guard = self.state();
        let state = &mut *guard;
        let mut events: Vec<Event> = state.queue.drain(..).collect();
        state.sums.retain(|(who, what), sum| {
            if !is_last && monotonic.saturating_sub(sum.began) < SUMMED {
                return true;
            }
            if sum.count == 0 {
                return false;
            }
            events.push(Event {
                at: sum.last,
                since: Some(sum.first),
                count: sum.count,
                who: who.clone(),
                client: None,
                what: what.clone(),
            });
            (sum.began, sum.count) = (monotonic, 0);
            !is_last
        });
        let lost = std::mem::take(&mut state.lost);
        Taken { events, lost }
    }

    /// Counts events that could not be written somewhere.
    pub(super) fn note_unwritten(&self, count: u64) {
        self.state().totals.lost += count;
    }

    /// What time it is, by both clocks.
    pub(super) fn now(&self) -> (Timestamp, Duration) {
        (self.clock.now(), self.clock.monotonic())
    }

    pub(super) fn totals(&self) -> Totals {
        self.state().totals
    }

    fn event(&self, who: Who, client: Option<String>, what: What) -> Event {
        Event {
            at: self.clock.now(),
            since: None,
            count: 1,
            who,
            client,
            what,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the book")
    }
}

impl State {
    fn push(&mut self, event: Event, most: usize) {
        match self.queue.len() < most {
            true => self.queue.push_back(event),
            false => self.lose(event.count),
        }
    }

    fn lose(&mut self, count: u64) {
        self.lost += count;
        self.totals.lost += count;
    }
}

fn who(caller: &Caller) -> Who {
    Who {
        principal: Some(name(&caller.principal.to_string())),
        address: Some(caller.address.ip().to_canonical()),
        protocol: Some(caller.protocol.name()),
    }
}

fn client(caller: &Caller) -> Option<String> {
    let id = caller.client_id.as_deref().filter(|id| !id.is_empty());
    id.map(name)
}

/// Of those that are not told apart.
fn any(what: What) -> What {
    match what {
        What::Denied { .. } => What::Denied {
            operation: "any",
            resource: None,
        },
        What::Login { outcome, .. } => What::Login {
            mechanism: "any",
            outcome,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use storage::ManualClock;

    use super::*;

    fn audit() -> (Audit, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
        let audit = Audit::new(AuditConfig::default(), clock.clone());
        (audit, clock)
    }

    fn caller(name: &str) -> Caller {
        Caller {
            principal: Principal::User(name.into()),
            address: ([127, 0, 0, 1], 1).into(),
            client_id: Some("app".to_owned()),
            protocol: Protocol::Kafka,
        }
    }

    fn counts(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.count).collect()
    }

    #[test]
    fn a_denial_is_told_at_once_and_those_of_the_minute_after_it_as_one() {
        let (audit, clock) = audit();
        let deny = || audit.denied(&caller("alice"), "write", ("topic", "readings"));
        (0..10).for_each(|_| deny());
        audit.denied(&caller("alice"), "read", ("topic", "readings"));
        assert_eq!(counts(&audit.take(false).events), [1, 1]);
        clock.advance(Duration::from_millis(59_999));
        deny();
        assert!(audit.take(false).events.is_empty());
        clock.advance(Duration::from_millis(1));
        let events = audit.take(false).events;
        assert_eq!(counts(&events), [10]);
        assert_eq!(events[0].since, Some(Timestamp::from_millis(0)));
        assert_eq!(events[0].at, Timestamp::from_millis(59_999));
        // As long as it goes on, a line a minute.
        deny();
        clock.advance(SUMMED);
        assert_eq!(counts(&audit.take(false).events), [1]);
        clock.advance(SUMMED);
        assert!(audit.take(false).events.is_empty());
        assert!(audit.state().sums.is_empty());
        deny();
        assert_eq!(counts(&audit.take(false).events), [1]);
        deny();
        assert_eq!(counts(&audit.take(true).events), [1]);
    }

    #[test]
    fn whoever_asks_for_much_fills_neither_memory_nor_the_place_of_changes() {
        let (audit, _) = audit();
        let asked = 3 * QUEUE_MAX;
        for number in 0..asked {
            audit.denied(&caller("eve"), "read", ("topic", &number.to_string()));
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(number).expect("small"));
            let kind = ("PLAIN", Protocol::Kafka);
            audit.login(kind, None, address.into(), LoginOutcome::Failed);
        }
        assert!(audit.state().sums.len() <= SUMS_MAX + 2);
        assert!(audit.state().queue.len() <= QUEUE_MAX / 2);
        audit.changed(&caller("root"), "create", On::Topic("readings"), "");
        let events = audit.take(true).events;
        let is_change = |event: &Event| matches!(event.what, What::Changed { .. });
        assert!(events.iter().any(is_change));
        let all: u64 = counts(&events).iter().sum();
        assert_eq!(all, 2 * asked as u64 + 1, "each is in a sum");

        for _ in 0..QUEUE_MAX + 5 {
            audit.changed(&caller("root"), "create", On::Topic("readings"), "");
        }
        let taken = audit.take(false);
        assert_eq!((taken.events.len(), taken.lost), (QUEUE_MAX, 5));
        assert_eq!(audit.totals().lost, 5);
    }
}
