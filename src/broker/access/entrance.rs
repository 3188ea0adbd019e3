//! The way of a connection into the broker: what it was found to be allowed is remembered from one request to the next.
//! Callers: fronts whose connections ask again and again.

use std::sync::Arc;

use super::remembered::Remembered;
use super::{Caller, Door};
use crate::broker::Broker;

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use model::acl::{Acl, AclFilter, Operation, PatternType, Permission, ResourceType};

    use super::super::remembered::TOPICS_MAX;
    use super::super::{Principal, Protocol, right};
    use super::*;
    use crate::broker::Refusal;
    use crate::broker::scratch::Scratch;

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
        let broker = Scratch::with_access_control();
        let root = broker.door(caller("root"));
        let name = root.new_topic("readings").expect("a free name");
        broker
            .auto_create_topic(name, root.caller())
            .await
            .expect("a topic");
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
        let broker = Scratch::with_access_control();
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
