//! Quotas: how much a client may use of the broker, as Kafka's client quotas say it, and what it has used.
//! Callers: fronts, which charge what a request takes and have the client wait as long as they are told; `changes` changes them.
//!
//! What is charged is counted for whom the limit is: a user, a client id, both, or an address. Where no quota of a kind is set
//! nothing is counted, and asking costs one load. Invariants: what is counted is bounded (`meters`), and what is told to wait is
//! what brings the measured rate to the limit, as in Kafka (`rate`).

mod book;
mod changes;
mod limits;
mod meters;
mod rate;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;

use model::quota::{Quota, QuotaRecord};
use storage::{Clock, Storage};

use super::Refusal;
use super::access::Caller;
use super::state_log::StateLog;
use crate::metrics::{Families, Family, Kind};

pub use book::{Alteration, ENTITIES_MAX, QuotaError, QuotasError};
pub use rate::Window;

use book::Book;
use limits::{Limit, Limits, Shared, bit};
use meters::Meters;
use rate::{Rate, TokenBucket};

impl Default for Window {
    fn default() -> Window {
        Window {
            samples: 11,
            sample_ms: 1000,
        }
    }
}

/// The quotas, and what was used of them.
pub struct Quotas {
    log: StateLog<QuotaRecord>,
    book: RwLock<Book>,
    /// Changes run one at a time.
    changes: tokio::sync::Mutex<()>,
    limits: RwLock<Arc<Limits>>,
    /// Which quotas are set for anybody.
    set: AtomicU8,
    window: Window,
    clock: Arc<dyn Clock>,
    produced: Meters<Rate>,
    consumed: Meters<Rate>,
    worked: Meters<Rate>,
    mutated: Meters<TokenBucket>,
    connected: Meters<Rate>,
    throttled: [Throttled; Quota::ALL.len()],
}

/// How often and for how long clients were told to wait.
#[derive(Debug, Default)]
struct Throttled {
    times: AtomicU64,
    ms: AtomicU64,
}

/// Whether a change that is beyond the limit is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// It is refused.
    Strict,
    /// It is made, and its client waits: for those who do not know the refusal.
    Permissive,
}

/// Whose use is counted together.
#[derive(Hash)]
enum Whose<'a> {
    User(&'a str),
    ClientId(&'a str),
    UserClientId(&'a str, &'a str),
}

impl Limit {
    fn whose<'a>(&self, user: &'a str, client_id: &'a str) -> Whose<'a> {
        match self.shared {
            Shared::User => Whose::User(user),
            Shared::ClientId => Whose::ClientId(client_id),
            Shared::UserClientId => Whose::UserClientId(user, client_id),
        }
    }
}

/// A user's name and its client's id; one that is not given is empty.
fn names(caller: &Caller) -> (&str, &str) {
    let client_id = caller.client_id.as_deref().unwrap_or_default();
    (caller.principal.name(), client_id)
}

impl Quotas {
    /// Reads the log. Blocks on the disk.
    pub(super) fn open(
        storage: &Storage,
        clock: Arc<dyn Clock>,
        window: Window,
    ) -> Result<Quotas, QuotasError> {
        let (log, records) = StateLog::open(storage, clock.clone())?;
        let mut book = Book::new();
        for record in records {
            let QuotaRecord { entity, values } = record?;
            book.insert(entity, values);
        }
        let quotas = Quotas {
            log,
            book: RwLock::default(),
            changes: tokio::sync::Mutex::default(),
            limits: RwLock::default(),
            set: AtomicU8::new(0),
            window,
            clock,
            produced: Meters::new(),
            consumed: Meters::new(),
            worked: Meters::new(),
            mutated: Meters::new(),
            connected: Meters::new(),
            throttled: Default::default(),
        };
        quotas.heed(&book);
        *quotas.book.write().expect("nobody else has it yet") = book;
        Ok(quotas)
    }

    fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.book
            .read()
            .expect("nothing panics while it holds the book")
    }

    /// Puts in force what the book says.
    fn heed(&self, book: &Book) {
        let limits = Limits::of(book.iter());
        let bits = limits.bits();
        *self
            .limits
            .write()
            .expect("nothing panics while it holds the limits") = Arc::new(limits);
        self.set.store(bits, Relaxed);
    }

    fn limits(&self) -> Arc<Limits> {
        let limits = self.limits.read();
        let limits = limits.expect("nothing panics while it holds the limits");
        Arc::clone(&limits)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether anybody has a limit of this quota.
    pub fn is_set(&self, quota: Quota) -> bool {
        self.set.load(Relaxed) & bit(quota) != 0
    }

    /// Whether any client has a limit, of whatever a request uses.
    pub fn limits_requests(&self) -> bool {
        self.set.load(Relaxed) & !bit(Quota::ConnectionCreationRate) != 0
    }

    fn limit(&self, quota: Quota, caller: &Caller) -> Option<Limit> {
        if !self.is_set(quota) {
            return None;
        }
        let (user, client_id) = names(caller);
        self.limits().find(quota, user, client_id)
    }

    fn rates(&self, quota: Quota) -> &Meters<Rate> {
        match quota {
            Quota::ProducerByteRate => &self.produced,
            Quota::ConsumerByteRate => &self.consumed,
            Quota::RequestPercentage => &self.worked,
            Quota::ConnectionCreationRate => &self.connected,
            Quota::ControllerMutationRate => unreachable!("it has a bucket"),
        }
    }

    /// Charges what was used; for how long the client is to wait.
    pub fn charge(&self, quota: Quota, caller: &Caller, amount: f64) -> Duration {
        let Some(limit) = self.limit(quota, caller) else {
            return Duration::ZERO;
        };
        let (user, client_id) = names(caller);
        let (whose, now_ms) = (limit.whose(user, client_id), self.now_ms());
        let window = self.window;
        let mut ms = self.rates(quota).with(&whose, window, now_ms, |rate| {
            rate.record(window, amount, now_ms);
            rate.throttle_ms(window, limit.per_second, now_ms)
        });
        if quota == Quota::RequestPercentage {
            // As in Kafka: who asks for little is not kept from it for long because a request was dear.
            ms = ms.min(window.sample_ms);
        }
        Duration::from_millis(ms)
    }

    /// For how long a client would have to wait that uses nothing more.
    pub fn overdue(&self, quota: Quota, caller: &Caller) -> Duration {
        self.charge(quota, caller, 0.0)
    }

    /// Takes back what was charged: it was not used after all.
    pub fn give_back(&self, quota: Quota, caller: &Caller, amount: f64) {
        self.charge(quota, caller, -amount);
    }

    /// The most that can be used at once without having to wait, by who has used nothing before; None is without limit.
    pub fn most_at_once(&self, quota: Quota, caller: &Caller) -> Option<usize> {
        let limit = self.limit(quota, caller)?;
        Some((limit.per_second * self.window.whole_seconds()) as usize)
    }

    /// Charges the creation or deletion of partitions; for how long the client is to wait, if it is to be done.
    pub fn mutate(
        &self,
        caller: &Caller,
        partitions: u64,
        mutation: Mutation,
    ) -> Result<Duration, Refusal> {
        let quota = Quota::ControllerMutationRate;
        let Some(limit) = self.limit(quota, caller) else {
            return Ok(Duration::ZERO);
        };
        let (user, client_id) = names(caller);
        let (whose, now_ms) = (limit.whose(user, client_id), self.now_ms());
        let (window, limit) = (self.window, limit.per_second);
        let throttle = self.mutated.with(&whose, window, now_ms, |bucket| {
            let before_ms = bucket.throttle_ms(window, limit, now_ms);
            if mutation == Mutation::Strict && before_ms > 0 {
                return Err(before_ms);
            }
            bucket.take(window, limit, partitions as f64, now_ms);
            Ok(match mutation {
                // The next one is refused.
                Mutation::Strict => 0,
                Mutation::Permissive => bucket.throttle_ms(window, limit, now_ms),
            })
        });
        let wait = Duration::from_millis;
        throttle.map(wait).map_err(|ms| Refusal::QuotaExceeded {
            quota: quota.name(),
            wait: wait(ms),
        })
    }

    /// Charges a connection; for how long its address is to wait for one, if this one is more than it may have.
    pub fn connect(&self, address: IpAddr) -> Option<Duration> {
        let quota = Quota::ConnectionCreationRate;
        if !self.is_set(quota) {
            return None;
        }
        let limit = self.limits().of_address(address)?;
        let (address, now_ms) = (address.to_canonical(), self.now_ms());
        let window = self.window;
        let ms = self.connected.with(&address, window, now_ms, |rate| {
            rate.record(window, 1.0, now_ms);
            let ms = rate.throttle_ms(window, limit, now_ms);
            if ms > 0 {
                rate.record(window, -1.0, now_ms);
            }
            ms.min(window.sample_ms)
        });
        let wait = Duration::from_millis(ms);
        self.note(quota, wait);
        (ms > 0).then_some(wait)
    }

    /// Counts that a client is made to wait.
    pub fn note(&self, quota: Quota, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let throttled = &self.throttled[quota as usize];
        throttled.times.fetch_add(1, Relaxed);
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        throttled.ms.fetch_add(ms, Relaxed);
    }

    /// Adds what it counts.
    pub(super) fn add_metrics(&self, families: &mut Families<'_>) {
        let book = self.book().len();
        families.gauge(
            "alluvium_quota_entities",
            "Entities that have quotas.",
            book,
        );
        let counts = [
            self.produced.count(),
            self.consumed.count(),
            self.worked.count(),
            self.mutated.count(),
            self.connected.count(),
        ];
        let mut meters = Family::new(
            Kind::Gauge,
            "alluvium_quota_clients",
            "Those whose use of a quota is counted: idle ones are forgotten.",
            &["quota"],
        );
        let mut times = Family::new(
            Kind::Counter,
            "alluvium_quota_throttled_total",
            "Requests, or connections, whose clients were made to wait.",
            &["quota"],
        );
        let mut seconds = Family::new(
            Kind::Counter,
            "alluvium_quota_throttled_seconds_total",
            "For how long in all.",
            &["quota"],
        );
        for (quota, count) in Quota::ALL.into_iter().zip(counts) {
            let throttled = &self.throttled[quota as usize];
            meters.sample(&[quota.name()], count as u64);
            times.sample(&[quota.name()], throttled.times.load(Relaxed));
            let ms = throttled.ms.load(Relaxed);
            seconds.sample(&[quota.name()], ms as f64 / 1000.0);
        }
        for family in [meters, times, seconds] {
            families.add(family);
        }
    }
}
