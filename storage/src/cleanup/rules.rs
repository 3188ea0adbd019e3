//! What a policy goes by for one log, and the way from there to its plan: a file for each policy.
//!
//! [`plan`] is pure. Callers: the cleaner, which has the plan executed, and whoever wants to know beforehand.

use model::Timestamp;

use super::compaction::{self, Compaction};
use super::holds::Hold;
use super::plan::Plan;
use super::policy::Policy;
use super::reason::HeldBack;
use super::retention::{self, Retention};
use super::thinning::{self, Thinning};
use super::view::LogView;
use crate::log::LogSettings;

/// What a log's own policy goes by. The bound of the whole store is planned over all logs, by [`super::store_bound::plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rules {
    /// See [`retention`].
    Retention(Retention),
    /// See [`compaction`].
    Compaction(Compaction),
    /// See [`thinning`].
    Thin(Thinning),
    /// The log's `cleanup.policy` does not name it.
    NotSet(Policy),
}

impl Rules {
    /// The rules of a log for a policy, and of a run that is asked for or not. None for the bound of the store.
    pub fn of(policy: Policy, settings: &LogSettings, asked: bool) -> Option<Rules> {
        match policy {
            Policy::Retention => Some(Rules::Retention(Retention::of(settings))),
            Policy::Thin => {
                let rules = Thinning::of(settings);
                Some(rules.map_or(Rules::NotSet(policy), Rules::Thin))
            }
            Policy::StoreBound => None,
            Policy::Compaction => {
                let rules = Compaction::of(settings, asked);
                Some(rules.map_or(Rules::NotSet(policy), Rules::Compaction))
            }
        }
    }
}

/// Plans what a log's rules want done. `now` is the time by which records age.
pub fn plan(view: &LogView, rules: &Rules, holds: &[Hold], now: Timestamp) -> Plan {
    match rules {
        Rules::Retention(limits) => retention::plan(view, *limits, holds, now),
        Rules::Compaction(rules) => compaction::plan(view, rules, holds, now),
        Rules::Thin(rules) => thinning::plan(view, rules, holds, now),
        Rules::NotSet(policy) => Plan::keep_all(*policy, view, &HeldBack::PolicyNotSet(*policy)),
    }
}
