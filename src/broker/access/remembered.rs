//! Remembered: which topics a connection was found to have which rights on, so that no rule is looked at for its next batch.
//! Callers: fronts whose connections ask again and again have an [`Entrance`](super::Entrance) for each; the doors that it makes ask here first.
//! Invariants: what is remembered was allowed by the rules that are in force, to the same caller from the same address; a change of
//! the rules, whatever it is about, forgets all of it. What is denied is not remembered.

use std::collections::HashMap;
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
