//! Remembered: which topics a connection was found to have which rights on, so that no rule is looked at for its next batch; and of which
//! parts of topics a door was.
//! Callers: fronts whose connections ask again and again have an [`Entrance`](super::Entrance) for each; the doors that it makes ask here first.
//! A connection with one door for all that it does has its parts there.
//! Invariants: what is remembered was allowed by the rules that are in force, to the same caller from the same address; a change of
//! the rules, whatever it is about, forgets all of it. What is denied is not remembered.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;

use super::book::Access;
use super::rules::{self, Resource};
use super::{Caller, Principal, Right};
use crate::broker::Refusal;

/// Topics that are remembered of a connection. One more, and it begins anew.
pub(super) const TOPICS_MAX: usize = 64;

/// What one connection was found to be allowed.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whom it is about, and by which rules.
    of: Option<(Principal, IpAddr, u64)>,
    /// Rights as bits, by topic.
    pub(super) topics: HashMap<Box<str>, u16>,
}

impl Remembered {
    /// Refuses what the caller has no right to. Access is controlled.
    pub(super) fn check(
        &self,
        access: &Access,
        caller: &Caller,
        topic: &str,
        right: Right,
    ) -> Result<(), Refusal> {
        let (address, version) = (caller.address.ip(), access.version());
        let bit = 1 << right as u16;
        {
            let mut state = self.state();
            let is_same = state.of.as_ref().is_some_and(|(who, from, by)| {
                (*from, *by) == (address, version) && *who == caller.principal
            });
            if !is_same {
                state.topics.clear();
                state.of = Some((caller.principal.clone(), address, version));
            }
            if state.topics.get(topic).is_some_and(|bits| bits & bit != 0) {
                return Ok(());
            }
        }
        rules::check_right(access, caller, Resource::Topic(topic), right)?;
        let mut state = self.state();
        let of = (caller.principal.clone(), address, version);
        if state.of.as_ref() == Some(&of) {
            match state.topics.get_mut(topic) {
                Some(bits) => *bits |= bit,
                None => {
                    if state.topics.len() >= TOPICS_MAX {
                        state.topics.clear();
                    }
                    state.topics.insert(topic.into(), bit);
                }
            }
        }
        Ok(())
    }

    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it remembers")
    }
}

/// Parts of topics that are remembered of a door: the last ones. A longer name is not remembered.
const PARTS_MAX: usize = 16;
const PART_BYTES_MAX: usize = 256;

/// Which parts of topics the caller of one door was found to be allowed.
#[derive(Debug, Default)]
pub(super) struct AllowedParts(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// By which rules.
    version: u64,
    all: VecDeque<(Box<str>, Right)>,
}

impl AllowedParts {
    /// Whether this part, a topic's name and a filter, was found to be allowed by the rules of this version.
    pub(super) fn has(&self, version: u64, (topic, filter): (&str, &str), right: Right) -> bool {
        let parts = self.parts();
        let is_it = |(name, of): &(Box<str>, Right)| {
            let rest = name.strip_prefix(topic);
            *of == right && rest.and_then(|it| it.strip_prefix('/')) == Some(filter)
        };
        parts.version == version && parts.all.iter().any(is_it)
    }

    /// This part was found to be allowed after that version of the rules was read.
    pub(super) fn add(&self, version: u64, part: String, right: Right) {
        if part.len() > PART_BYTES_MAX {
            return;
        }
        let mut parts = self.parts();
        if parts.version != version {
            parts.all.clear();
            parts.version = version;
        }
        if parts.all.len() >= PARTS_MAX {
            parts.all.pop_front();
        }
        parts.all.push_back((part.into(), right));
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.0.lock().expect("nothing panics while it remembers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_remembers_some_parts_by_the_rules_of_one_version() {
        let allowed = AllowedParts::default();
        for number in 0..3 * PARTS_MAX {
            allowed.add(7, format!("t/{number}/x"), Right::Write);
            assert!(allowed.has(7, ("t", &format!("{number}/x")), Right::Write));
            assert!(allowed.parts().all.len() <= PARTS_MAX);
        }
        let last = format!("{}/x", 3 * PARTS_MAX - 1);
        assert!(!allowed.has(7, ("t", "0/x"), Right::Write), "long ago");
        assert!(!allowed.has(7, ("t", &last), Right::Read));
        assert!(!allowed.has(7, ("t", &last[..1]), Right::Write));
        assert!(!allowed.has(7, ("", &last), Right::Write));
        assert!(!allowed.has(8, ("t", &last), Right::Write));
        allowed.add(8, "t/a".to_owned(), Right::Write);
        assert!(!allowed.has(8, ("t", &last), Right::Write));
        let long = "l".repeat(PART_BYTES_MAX);
        allowed.add(8, format!("t/{long}"), Right::Write);
        assert!(!allowed.has(8, ("t", &long), Right::Write));
        assert!(allowed.has(8, ("t", "a"), Right::Write));
    }
}
