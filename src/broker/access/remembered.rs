//! Remembered: which topics a connection was found to have which rights on, so that no rule is looked at for its next batch.
//! Callers: fronts whose connections ask again and again have an [`Entrance`] for each; the doors that it makes ask here first.
//! Invariants: what is remembered was allowed by the rules that are in force, to the same caller from the same address; a change of
//! the rules, whatever it is about, forgets all of it. What is denied is not remembered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::book::Access;
use super::rules::{self, Resource};
use super::{Caller, Door, Principal, Right};
use crate::broker::{Broker, Refusal};

/// Topics that are remembered of a connection. One more, and it begins anew.
const TOPICS_MAX: usize = 64;

/// The way of one connection into the broker.
pub struct Entrance {
    broker: Broker,
    remembered: Arc<Remembered>,
}

impl Entrance {
    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Lets the connection's caller in, for one request.
    pub fn door(&self, caller: Caller) -> Door {
        self.broker.door_by(caller, Arc::clone(&self.remembered))
    }
}

impl Broker {
    /// A way in for a connection that asks again and again.
    pub fn entrance(&self) -> Entrance {
        Entrance {
            broker: self.clone(),
            remembered: Arc::default(),
        }
    }
}

/// What one connection was found to be allowed.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whom it is about, and by which rules.
    of: Option<(Principal, IpAddr, u64)>,
    /// Rights as bits, by topic.
    topics: HashMap<Box<str>, u16>,
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

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it remembers")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use model::acl::{Acl, AclFilter, Operation, PatternType, Permission, ResourceType};

    use super::super::{AccessConfig, Authorizer, Protocol, right};
    use super::*;
    use crate::broker::BrokerConfig;
    use crate::broker::scratch::Scratch;

    fn broker() -> Scratch {
        Scratch::with(BrokerConfig {
            access: AccessConfig {
                authorizer: Authorizer::Standard,
                super_users: vec!["root".to_owned()],
                everyone_if_none: false,
            },
            ..BrokerConfig::default()
        })
    }

    fn caller(name: &str) -> Caller {
        Caller {
            principal: Principal::User(name.into()),
            address: ([127, 0, 0, 1], 1).into(),
            client_id: None,
            protocol: Protocol::Kafka,
        }
    }

    async fn allow_writing(broker: &Broker, topic: &str) {
        let door = broker.door(caller("root"));
        let cluster = door.cluster(right::Alter).expect("a super user");
        let rule = Acl {
            resource_type: ResourceType::Topic,
            name: topic.to_owned(),
            pattern: PatternType::Literal,
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation: Operation::Write,
            permission: Permission::Allow,
        };
        let made = broker.create_acls(&cluster, vec![rule]).await;
        made.into_iter()
            .for_each(|made| drop(made.expect("a rule")));
    }

    async fn remove_rules(broker: &Broker) {
        let door = broker.door(caller("root"));
        let cluster = door.cluster(right::Alter).expect("a super user");
        let filters = [AclFilter::default()];
        let removed = broker.delete_acls(&cluster, &filters).await;
        removed.expect("access is controlled");
    }

    fn asked(broker: &Broker) -> u64 {
        broker.shared.access.asked.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn what_was_checked_asks_no_rule_again_until_the_rules_change() {
        let broker = broker();
        let root = broker.door(caller("root"));
        let name = root.new_topic("readings").expect("a free name");
        broker.auto_create_topic(name).await.expect("a topic");
        allow_writing(&broker, "readings").await;
        let entrance = broker.entrance();
        let may = |who: &str| {
            entrance
                .door(caller(who))
                .topic("readings", right::Write)
                .is_ok()
        };
        assert!(may("alice"));
        let before = asked(&broker);
        assert!((0..10).all(|_| may("alice")));
        assert_eq!(asked(&broker), before, "of a batch that was checked before");

        // It holds for nobody else, for no other right, and not for a denial.
        assert!(!may("bob"));
        assert!(may("alice"));
        let other = entrance.door(caller("alice"));
        assert!(other.topic("readings", right::Read).is_err());
        remove_rules(&broker).await;
        assert!(!may("alice"));
        allow_writing(&broker, "readings").await;
        assert!(may("alice"));
    }

    #[tokio::test]
    async fn a_connection_makes_nobody_remember_more_than_some_topics() {
        let broker = broker();
        let entrance = broker.entrance();
        allow_writing(&broker, "*").await;
        for number in 0..3 * TOPICS_MAX {
            let door = entrance.door(caller("alice"));
            let found = door.topic(&format!("topic-{number}"), right::Write);
            assert!(matches!(found, Err(Refusal::UnknownTopicOrPartition)));
            assert!(entrance.remembered.state().topics.len() <= TOPICS_MAX);
        }
    }
}
