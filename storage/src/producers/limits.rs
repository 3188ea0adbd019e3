//! How many idempotent producers are remembered: in one log, in all logs together, and of one account.
//!
//! Callers: an append, which makes room for new ones or refuses them; the settler and the cleaner, which forget those that have
//! expired. The counts of all logs are exact after each look at all of them, and off by what was appended meanwhile in between.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use model::{ProducerId, Timestamp};

/// Producers that are idle for so long make room for new ones where there are too many. Clients give a batch up after two
/// minutes (`delivery.timeout.ms`).
pub(crate) const PRODUCER_IDLE_MS: i64 = 15 * 60_000;

/// On whose accounts producers are: whoever opens the store knows it, by their ids.
pub trait ProducerAccounts: Send + Sync {
    /// Whose a producer is; None if it is nobody's. Asked under a log's lock, and about all that are remembered at each look at all
    /// logs: it neither waits nor appends.
    fn account_of(&self, id: ProducerId) -> Option<Arc<str>>;
}

/// The accounts, and how many producers each may have.
struct Accounts {
    of: Arc<dyn ProducerAccounts>,
    one_max: u64,
}

/// Producers of each account.
pub(crate) type OfAccounts = HashMap<Arc<str>, u64>;

/// Producers that appended nothing since these times are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptSince {
    /// They have expired.
    pub expired: Timestamp,
    /// They have been idle for long enough: the same time, or a later one while there are nearly as many as there may be.
    pub idle: Timestamp,
}

/// The bound on one account.
const OF_ONE: &str = "producer.ids.per.principal.max";

/// A bound that more producers would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    /// How many there are.
    pub count: u64,
    /// The setting that is the bound.
    pub setting: &'static str,
}

/// The bounds, and how many there are.
pub(crate) struct ProducerLimits {
    per_log_max: usize,
    all_max: u64,
    expiry_ms: i64,
    accounts: OnceLock<Accounts>,
    known: AtomicU64,
    of_one: Mutex<OfAccounts>,
    forgotten: AtomicU64,
    refused: AtomicU64,
    refused_to_one: AtomicU64,
}

impl ProducerLimits {
    pub fn new(per_log_max: usize, all_max: u64, expiry: Duration) -> ProducerLimits {
        ProducerLimits {
            per_log_max,
            all_max,
            expiry_ms: i64::try_from(expiry.as_millis()).unwrap_or(i64::MAX),
            accounts: OnceLock::new(),
            known: AtomicU64::new(0),
            of_one: Mutex::default(),
            forgotten: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refused_to_one: AtomicU64::new(0),
        }
    }

    /// From now on each account has so many at most.
    pub fn keep_accounts(&self, of: Arc<dyn ProducerAccounts>, one_max: u64) {
        let set = self.accounts.set(Accounts { of, one_max });
        assert!(set.is_ok(), "accounts are kept from the start on");
    }

    fn of_one(&self) -> MutexGuard<'_, OfAccounts> {
        self.of_one.lock().expect("nothing panics under this lock")
    }

    /// On whose accounts these are: how many on each.
    pub fn accounts_of(&self, ids: impl IntoIterator<Item = ProducerId>) -> OfAccounts {
        let mut all = OfAccounts::new();
        if let Some(accounts) = self.accounts.get() {
            for account in ids.into_iter().filter_map(|id| accounts.of.account_of(id)) {
                *all.entry(account).or_default() += 1;
            }
        }
        all
    }

    /// Of whoever has most producers how many; and how often producers were refused as their account had too many.
    pub fn of_accounts(&self) -> (u64, u64) {
        let most = self.of_one().values().copied().max();
        (most.unwrap_or(0), self.refused_to_one.load(Relaxed))
    }

    /// Producers that one log remembers at most.
    pub fn per_log_max(&self) -> usize {
        self.per_log_max
    }

    /// Producers that all logs remember.
    pub fn known(&self) -> u64 {
        self.known.load(Relaxed)
    }

    /// Producers that were forgotten before they expired.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// Batches of new producers that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// The bound that these producers pass, which are new in a log that knows `known`, if they pass one.
    pub fn passed_by(&self, known: usize, new: &[ProducerId]) -> Option<TooMany> {
        let all = self.known();
        if known + new.len() > self.per_log_max {
            let (count, setting) = (known as u64, "producer.ids.per.partition.max");
            return Some(TooMany { count, setting });
        }
        if all + new.len() as u64 > self.all_max {
            let (count, setting) = (all, "producer.ids.max");
            return Some(TooMany { count, setting });
        }
        let one_max = self.accounts.get()?.one_max;
        let more = self.accounts_of(new.iter().copied());
        let of_one = self.of_one();
        let passed = more.into_iter().find_map(|(account, more)| {
            let count = of_one.get(&account).copied().unwrap_or(0);
            (count + more > one_max).then_some(count)
        });
        passed.map(|count| TooMany {
            count,
            setting: OF_ONE,
        })
    }

    /// A log remembers these too.
    pub fn added(&self, new: &[ProducerId]) {
        if new.is_empty() {
            return;
        }
        self.known.fetch_add(new.len() as u64, Relaxed);
        let more = self.accounts_of(new.iter().copied());
        let mut of_one = self.of_one();
        for (account, more) in more {
            *of_one.entry(account).or_default() += more;
        }
    }

    /// These are gone with their log.
    pub fn gone(&self, ids: &[ProducerId]) {
        // What was counted anew meanwhile may be less.
        let less = |known: u64| Some(known.saturating_sub(ids.len() as u64));
        let _ = self.known.fetch_update(Relaxed, Relaxed, less);
        let fewer = self.accounts_of(ids.iter().copied());
        let mut of_one = self.of_one();
        for (account, fewer) in fewer {
            if let Some(count) = of_one.get_mut(&account) {
                *count = count.saturating_sub(fewer);
            }
        }
        of_one.retain(|_, count| *count > 0);
    }

    /// These were forgotten before they expired, and are gone.
    pub fn forgot(&self, ids: &[ProducerId]) {
        self.gone(ids);
        self.forgot_early(ids.len() as u64);
    }

    /// So many were forgotten before they expired.
    pub fn forgot_early(&self, count: u64) {
        self.forgotten.fetch_add(count, Relaxed);
    }

    /// A batch of a new producer was refused.
    pub fn refuse(&self, passed: TooMany) {
        self.refused.fetch_add(1, Relaxed);
        if passed.setting == OF_ONE {
            self.refused_to_one.fetch_add(1, Relaxed);
        }
    }

    /// All logs were looked at. What was appended meanwhile may count twice or not at all until the next time.
    pub fn recounted(&self, known: u64, of_one: OfAccounts) {
        self.known.store(known, Relaxed);
        *self.of_one() = of_one;
    }

    /// The accounts that have nearly as many as they may.
    pub fn nearly_full(&self) -> HashSet<Arc<str>> {
        let Some(accounts) = self.accounts.get() else {
            return HashSet::new();
        };
        let from = accounts.one_max - accounts.one_max / 10;
        let of_one = self.of_one();
        let full = of_one.iter().filter(|(_, count)| **count >= from);
        full.map(|(account, _)| Arc::clone(account)).collect()
    }

    /// Whether a producer is on one of these accounts.
    pub fn is_of(&self, id: ProducerId, some: &HashSet<Arc<str>>) -> bool {
        let accounts = self.accounts.get().filter(|_| !some.is_empty());
        let account = accounts.and_then(|accounts| accounts.of.account_of(id));
        account.is_some_and(|account| some.contains(&account))
    }

    /// Since when those are idle that are forgotten where an account has nearly as many as it may.
    pub fn idle_since(&self, now: Timestamp) -> Timestamp {
        now.plus_millis(-self.expiry_ms.min(PRODUCER_IDLE_MS))
    }

    /// Which producers are kept at this time.
    pub fn kept_since(&self, now: Timestamp) -> KeptSince {
        let idle_ms = if self.known() >= self.all_max - self.all_max / 10 {
            self.expiry_ms.min(PRODUCER_IDLE_MS)
        } else {
            self.expiry_ms
        };
        assert!(idle_ms <= self.expiry_ms, "what has expired is idle");
        KeptSince {
            expired: now.plus_millis(-self.expiry_ms),
            idle: now.plus_millis(-idle_ms),
        }
    }
}

impl std::fmt::Debug for ProducerLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("ProducerLimits");
        shown.field("known", &self.known());
        shown.finish_non_exhaustive()
    }
}
