//! Door: gives resources to a caller, each with the right that was asked for and that the caller has.
//! Callers: fronts, one door for each request. Invariant: nothing outside the broker obtains a topic, a group or the cluster
//! but through here.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{TopicId, TopicName};

use super::remembered::{AllowedParts, Remembered};
use super::rules::{self, Resource};
use super::{
    Caller, Cluster, Granted, Group, NewName, Owner, Principal, Protocol, ResourceKind, Right,
    RightOn, right,
};
use crate::broker::catalog::{Topic, TopicKey};
use crate::broker::groups::GroupListing;
use crate::broker::quotas::Mutation;
use crate::broker::share::ShareListing;
use crate::broker::{Broker, Refusal};

/// A broker as one caller may use it.
pub struct Door {
    broker: Broker,
    caller: Caller,
    /// The broker's own: it asks no rules.
    is_own: bool,
    /// What its connection was found to be allowed before.
    remembered: Option<Arc<Remembered>>,
    /// Parts of topics that it was found to be allowed.
    parts: OnceLock<Box<AllowedParts>>,
    /// Which rights were asked for.
    #[cfg(test)]
    asked: Asked,
}

/// The rights that a door was asked for, on which kinds of resources.
#[cfg(test)]
pub(crate) type Asked = Arc<std::sync::Mutex<std::collections::BTreeSet<(ResourceKind, Right)>>>;

impl Door {
    /// The broker's operations, which take what this door gives.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Who has come.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller has a right, as it may be told: rights that come from those on other resources are left out.
    pub fn may(&self, resource: Resource<'_>, right: Right) -> bool {
        self.is_own || rules::is_given(&self.broker.shared.access, &self.caller, resource, right)
    }

    /// On whose account what the caller makes is put. It is nobody's where access is not controlled, as anybody may call
    /// themselves anything there; nor is what super users and the broker itself make.
    pub fn owner(&self) -> Option<&str> {
        let accounts = self.broker.shared.access.accounts();
        accounts.of(&self.caller.principal).filter(|_| !self.is_own)
    }

    /// Charges the creation or deletion of partitions to the caller; for how long it is to wait, if that is to be done.
    pub fn mutate(&self, partitions: u64, mutation: Mutation) -> Result<Duration, Refusal> {
        let quotas = self.broker.quotas();
        quotas.mutate(&self.caller, partitions, mutation)
    }

    /// A topic by name.
    pub fn topic<R: RightOn<Arc<Topic>>>(
        &self,
        name: &str,
        _right: R,
    ) -> Result<Granted<Arc<Topic>, R>, Refusal> {
        self.check(Resource::Topic(name), R::RIGHT)?;
        self.broker.topic(name).map(Granted::new)
    }

    /// As [`Door::topic`], for what is left out where the right is not there: that is no denial, and no event of the audit log.
    pub fn topic_if_allowed<R: RightOn<Arc<Topic>>>(
        &self,
        name: &str,
        _right: R,
    ) -> Option<Granted<Arc<Topic>, R>> {
        self.judge(Resource::Topic(name), R::RIGHT).ok()?;
        self.broker.topic(name).map(Granted::new).ok()
    }

    /// As [`Door::topic_if_allowed`], by whichever was given.
    pub fn topic_by_key_if_allowed<R: RightOn<Arc<Topic>>>(
        &self,
        key: &TopicKey,
        _right: R,
    ) -> Option<Granted<Arc<Topic>, R>> {
        let topic = match key {
            TopicKey::Name(name) => self.broker.topic(name),
            TopicKey::Id(id) => self.broker.topic_by_id(*id),
        };
        self.note(ResourceKind::Topic, R::RIGHT);
        let topic = topic.ok()?;
        self.judge(Resource::Topic(&topic.name), R::RIGHT).ok()?;
        Some(Granted::new(topic))
    }

    /// A topic by id.
    pub fn topic_by_id<R: RightOn<Arc<Topic>>>(
        &self,
        id: TopicId,
        _right: R,
    ) -> Result<Granted<Arc<Topic>, R>, Refusal> {
        let topic = match self.broker.topic_by_id(id) {
            Ok(topic) => topic,
            Err(refusal) => {
                // Nothing is there to be denied.
                self.note(ResourceKind::Topic, R::RIGHT);
                return Err(refusal);
            }
        };
        let on = Resource::Topic(&topic.name);
        self.check(on, R::RIGHT).map_err(|refusal| match refusal {
            Refusal::UnknownTopicOrPartition => Refusal::UnknownTopicId,
            // Whether somebody's topic has this id is not told.
            Refusal::Denied { .. } if !self.may(on, Right::Describe) => Refusal::UnknownTopicId,
            other => other,
        })?;
        Ok(Granted::new(topic))
    }

    /// A topic by whichever was given.
    pub fn topic_by_key<R: RightOn<Arc<Topic>>>(
        &self,
        key: &TopicKey,
        right: R,
    ) -> Result<Granted<Arc<Topic>, R>, Refusal> {
        match key {
            TopicKey::Name(name) => self.topic(name, right),
            TopicKey::Id(id) => self.topic_by_id(*id, right),
        }
    }

    /// A topic that was granted before, perhaps to another caller: what outlives a request is asked for again by the next. It is
    /// not looked up again, and may be gone.
    pub fn renew<R: RightOn<Arc<Topic>>>(
        &self,
        granted: &Granted<Arc<Topic>, R>,
    ) -> Result<Granted<Arc<Topic>, R>, Refusal> {
        self.check(Resource::Topic(&granted.name), R::RIGHT)?;
        Ok(granted.clone())
    }

    /// A topic, for messages whose names a filter stands for: rules may give such a part of it alone. Whoever is given it keeps to the filter.
    pub fn part<R: RightOn<Arc<Topic>>>(
        &self,
        topic: &str,
        filter: &str,
        _right: R,
    ) -> Result<Granted<Arc<Topic>, R>, Refusal> {
        self.check_part(topic, filter, R::RIGHT)?;
        self.broker.topic(topic).map(Granted::new)
    }

    /// As [`Door::part`], for what is left out where the right is not there: that is no denial, and no event of the audit log.
    pub fn part_if_allowed<R: RightOn<Arc<Topic>>>(
        &self,
        topic: &str,
        filter: &str,
        _right: R,
    ) -> Option<Granted<Arc<Topic>, R>> {
        self.judge(Resource::Part(&part_of(topic, filter)), R::RIGHT)
            .ok()?;
        self.broker.topic(topic).map(Granted::new).ok()
    }

    /// As [`Door::part`], by the topic's id. Whether somebody's topic has it is not told.
    pub fn part_by_id<R: RightOn<Arc<Topic>>>(
        &self,
        id: TopicId,
        filter: &str,
        right: R,
    ) -> Result<Granted<Arc<Topic>, R>, Refusal> {
        let topic = self.broker.topic_by_id(id)?;
        let granted = self.part(&topic.name, filter, right);
        granted.map_err(|_| Refusal::UnknownTopicId)
    }

    /// As [`Door::renew`], for a part.
    pub fn renew_part<R: RightOn<Arc<Topic>>>(
        &self,
        granted: &Granted<Arc<Topic>, R>,
        filter: &str,
    ) -> Result<(), Refusal> {
        self.check_part(&granted.name, filter, R::RIGHT)
    }

    /// Which rules are in force: what was allowed under them holds as long as this stays the same.
    pub fn rules_version(&self) -> u64 {
        self.broker.shared.access.version()
    }

    fn check_part(&self, topic: &str, filter: &str, right: Right) -> Result<(), Refusal> {
        let access = &self.broker.shared.access;
        if self.is_own || !access.is_on() {
            // No rule is looked at.
            return self.check(Resource::Topic(topic), right);
        }
        let version = access.version();
        let known = self.parts.get();
        if known.is_some_and(|parts| parts.has(version, (topic, filter), right)) {
            self.note(ResourceKind::Topic, right);
            return Ok(());
        }
        let part = part_of(topic, filter);
        self.check(Resource::Part(&part), right)?;
        let parts = self.parts.get_or_init(Box::default);
        parts.add(version, part, right);
        Ok(())
    }

    /// The topics on which the caller has the right, by name.
    pub fn topics<R: RightOn<Arc<Topic>>>(&self, _right: R) -> Vec<Granted<Arc<Topic>, R>> {
        self.note(ResourceKind::Topic, R::RIGHT);
        let is_granted =
            |topic: &Arc<Topic>| self.judge(Resource::Topic(&topic.name), R::RIGHT).is_ok();
        let topics = self.broker.topics().into_iter();
        topics.filter(is_granted).map(Granted::new).collect()
    }

    /// A name for a new topic. That no topic has it yet is checked again when it is created.
    pub fn new_topic(&self, name: &str) -> Result<Granted<NewName, right::Create>, Refusal> {
        let parsed = TopicName::parse(name)?;
        let resource = Resource::Topic(name);
        self.check_right(resource, Right::Create)?;
        let checked = rules::check_name(&self.caller, resource, Right::Create);
        if self.broker.topic(name).is_ok() {
            return Err(Refusal::TopicExists { name: parsed });
        }
        let owner = self.owner().map(Owner::from);
        let name = NewName {
            name: parsed,
            owner,
        };
        checked.map(|()| Granted::new(name))
    }

    /// A group, be it there or not.
    pub fn group<'a, R: RightOn<Group<'a>>>(
        &'a self,
        id: &'a str,
        _right: R,
    ) -> Result<Granted<Group<'a>, R>, Refusal> {
        self.check(Resource::Group(id), R::RIGHT)?;
        Ok(Granted::new(Group::new(id, self.owner(), &self.broker)))
    }

    /// As [`Door::group`], for what is left out where the right is not there: that is no denial, and no event of the audit log.
    pub fn group_if_allowed<'a, R: RightOn<Group<'a>>>(
        &'a self,
        id: &'a str,
        _right: R,
    ) -> Option<Granted<Group<'a>, R>> {
        self.judge(Resource::Group(id), R::RIGHT).ok()?;
        Some(Granted::new(Group::new(id, self.owner(), &self.broker)))
    }

    /// The groups that the caller may know of.
    pub fn groups(&self) -> Vec<GroupListing> {
        self.known(self.broker.groups().list(), |group| &group.id)
    }

    /// The groups that share records, as far as the caller may know of them.
    pub fn share_groups(&self) -> Vec<ShareListing> {
        self.known(self.broker.shares().list(), |group| &group.id)
    }

    /// Those of some groups that the caller may know of.
    fn known<T>(&self, mut groups: Vec<T>, id: impl Fn(&T) -> &str) -> Vec<T> {
        self.note(ResourceKind::Group, Right::Describe);
        // Who may describe the cluster sees all of it, as in Kafka.
        if self.may(Resource::Cluster, Right::Describe) {
            return groups;
        }
        groups.retain(|group| {
            let group = Resource::Group(id(group));
            self.judge(group, Right::Describe).is_ok()
        });
        groups
    }

    /// The cluster.
    pub fn cluster<R: RightOn<Cluster>>(&self, _right: R) -> Result<Granted<Cluster, R>, Refusal> {
        self.check(Resource::Cluster, R::RIGHT)?;
        Ok(Granted::new(Cluster))
    }

    /// All topics, for who has a right on the cluster that they belong to.
    pub fn topics_of<R>(&self, _cluster: &Granted<Cluster, R>) -> Vec<Arc<Topic>> {
        let mut topics = self.broker.topics();
        topics.retain(|topic| !rules::is_hidden(&topic.name));
        topics
    }

    /// One of all topics.
    pub fn topic_of<R>(
        &self,
        _cluster: &Granted<Cluster, R>,
        name: &str,
    ) -> Result<Arc<Topic>, Refusal> {
        match rules::is_hidden(name) {
            true => Err(Refusal::UnknownTopicOrPartition),
            false => self.broker.topic(name),
        }
    }

    /// Refuses what the caller may not do. A denial is an event of the audit log.
    fn check(&self, resource: Resource<'_>, right: Right) -> Result<(), Refusal> {
        self.check_right(resource, right)?;
        rules::check_name(&self.caller, resource, right)
    }

    fn check_right(&self, resource: Resource<'_>, right: Right) -> Result<(), Refusal> {
        let judged = self.judge_right(resource, right);
        if judged.is_err() {
            let (kind, name) = rules::named(resource);
            let audit = &self.broker.shared.audit;
            audit.denied(&self.caller, right.operation().name(), (kind.name(), name));
        }
        judged
    }

    /// What is decided, where nobody is to be told of a denial.
    fn judge(&self, resource: Resource<'_>, right: Right) -> Result<(), Refusal> {
        self.judge_right(resource, right)?;
        rules::check_name(&self.caller, resource, right)
    }

    fn judge_right(&self, resource: Resource<'_>, right: Right) -> Result<(), Refusal> {
        self.note(resource.kind(), right);
        let access = &self.broker.shared.access;
        if self.is_own || !access.is_on() {
            return Ok(());
        }
        match (&self.remembered, resource) {
            (Some(remembered), Resource::Topic(name)) => {
                remembered.check(access, &self.caller, name, right)
            }
            _ => rules::check_right(access, &self.caller, resource, right),
        }
    }

    /// In tests, that a right was asked for.
    #[cfg(test)]
    fn note(&self, kind: ResourceKind, right: Right) {
        let mut asked = self
            .asked
            .lock()
            .expect("nothing panics while it notes a right");
        asked.insert((kind, right));
    }

    #[cfg(not(test))]
    fn note(&self, _kind: ResourceKind, _right: Right) {}

    /// Where it notes the rights that it is asked for.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> Asked {
        self.asked.clone()
    }
}

/// A part of a topic, as rules name it.
fn part_of(topic: &str, filter: &str) -> String {
    format!("{topic}/{filter}")
}

impl Broker {
    /// Lets a caller in.
    pub fn door(&self, caller: Caller) -> Door {
        self.door_of(caller, false)
    }

    /// Lets in a caller whose connection has come here before.
    pub(super) fn door_by(&self, caller: Caller, remembered: Arc<Remembered>) -> Door {
        Door {
            remembered: Some(remembered),
            ..self.door_of(caller, false)
        }
    }

    /// A door for what a front does by itself, on nobody's request.
    pub(crate) fn own_door(&self, protocol: Protocol) -> Door {
        let caller = Caller {
            principal: Principal::Anonymous,
            address: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            client_id: None,
            protocol,
        };
        self.door_of(caller, true)
    }

    fn door_of(&self, caller: Caller, is_own: bool) -> Door {
        Door {
            broker: self.clone(),
            caller,
            is_own,
            remembered: None,
            parts: OnceLock::new(),
            #[cfg(test)]
            asked: Asked::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::records::TopicRecord;
    use crate::broker::scratch::Scratch;

    fn caller(protocol: Protocol) -> Caller {
        Caller {
            principal: Principal::Anonymous,
            address: ([127, 0, 0, 1], 1).into(),
            client_id: None,
            protocol,
        }
    }

    /// A broker over a store that holds these topics, however they came there.
    fn broker_with(names: &[&str]) -> Scratch {
        let broker = Scratch::new();
        for name in names {
            let record = TopicRecord {
                id: TopicId::random(),
                name: TopicName::parse(name).expect("a name"),
                partitions: 1,
                settings: std::collections::BTreeMap::new(),
                owner: None,
            };
            broker.attach(record).expect("a topic");
        }
        broker
    }

    #[tokio::test]
    async fn a_topic_under_the_metadatas_name_is_seen_by_nobody_and_can_be_deleted() {
        const HIDDEN: &str = "__cluster_metadata";
        let broker = broker_with(&["readings", "__consumer_offsets", HIDDEN]);
        let id = broker.topic(HIDDEN).expect("it is there").id;
        let door = broker.door(caller(Protocol::Kafka));
        let names = |topics: Vec<&str>| topics.join(" ");
        let seen = door.topics(right::Describe);
        let seen = names(seen.iter().map(|topic| topic.name.as_str()).collect());
        assert_eq!(seen, "__consumer_offsets readings");
        let cluster = door.cluster(right::Alter).expect("a right");
        let seen = door.topics_of(&cluster);
        let seen = names(seen.iter().map(|topic| topic.name.as_str()).collect());
        assert_eq!(seen, "__consumer_offsets readings");
        for found in [
            door.topic(HIDDEN, right::Read).err(),
            door.topic_of(&cluster, HIDDEN).err(),
        ] {
            assert!(matches!(found, Some(Refusal::UnknownTopicOrPartition)));
        }
        let found = door.topic_by_id(id, right::Describe).err();
        assert!(matches!(found, Some(Refusal::UnknownTopicId)));
        let found = door.topic("__consumer_offsets", right::Write).err();
        assert!(matches!(found, Some(Refusal::InternalTopic { .. })));
        let granted = door.topic(HIDDEN, right::Delete).expect("a right");
        let deleted = broker.delete_topics(vec![granted]).await;
        assert!(deleted[0].is_ok());
        assert!(broker.topic(HIDDEN).is_err());
    }

    #[tokio::test]
    async fn an_id_that_no_topic_has_is_no_denial() {
        let broker = Scratch::with_access_control();
        let denials = || broker.denials();
        let eve = broker.door_of_user("eve", Protocol::Kafka);
        let found = eve.topic_by_id(TopicId::random(), right::Read).err();
        assert!(matches!(found, Some(Refusal::UnknownTopicId)));
        assert_eq!(denials(), 0);
        let root = broker.door_of_user("root", Protocol::Kafka);
        let name = root.new_topic("readings").expect("a free name");
        let made = broker.auto_create_topic(name, root.caller()).await;
        let id = made.expect("a topic").id;
        let found = eve.topic_by_id(id, right::Read).err();
        assert!(matches!(found, Some(Refusal::UnknownTopicId)));
        assert_eq!(denials(), 1);
        // To look whether something may be done asks for nothing.
        let key = TopicKey::Id(id);
        assert!(eve.topic_by_key_if_allowed(&key, right::Delete).is_none());
        assert_eq!(denials(), 1);
    }

    #[tokio::test]
    async fn who_has_a_part_of_a_topic_has_nothing_else_of_it() {
        let broker = Scratch::with_access_control();
        let root = broker.door_of_user("root", Protocol::Kafka);
        let name = root.new_topic("readings").expect("a free name");
        let made = broker.auto_create_topic(name, root.caller()).await;
        let id = made.expect("a topic").id;
        let cluster = root.cluster(right::Alter).expect("a super user");
        let rule = model::acl::Acl {
            resource_type: model::acl::ResourceType::Topic,
            name: "readings/site/+/#".to_owned(),
            pattern: model::acl::PatternType::Literal,
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation: model::acl::Operation::Read,
            permission: model::acl::Permission::Allow,
        };
        let version = root.rules_version();
        let made = broker.create_acls(&cluster, vec![rule]).await;
        assert!(made[0].is_ok());
        assert_ne!(root.rules_version(), version);
        let alice = broker.door_of_user("alice", Protocol::Mqtt);
        let part = alice.part("readings", "site/1/temp", right::Read);
        let part = part.expect("her part");
        assert!(alice.part_by_id(id, "site/#", right::Read).is_err());
        assert!(alice.part_by_id(id, "site/+/#", right::Read).is_ok());
        let site = |filter| alice.part_if_allowed("readings", filter, right::Read);
        assert!(site("site/1/#").is_some() && site("#").is_none());
        assert!(alice.renew_part(&part, "site/1/temp").is_ok());
        assert!(alice.renew_part(&part, "other").is_err() && alice.renew(&part).is_err());
        assert!(alice.may(Resource::Part("readings/site/1/x"), Right::Read));
        assert!(!alice.may(Resource::Part("readings/site/1/x"), Right::Write));
        for whole in [Right::Read, Right::Describe, Right::Write] {
            assert!(!alice.may(Resource::Topic("readings"), whole));
        }
        assert!(alice.topic("readings", right::Read).is_err());
        assert!(alice.topics(right::Describe).is_empty());
    }

    #[tokio::test]
    async fn a_part_that_was_allowed_asks_no_rule_again_until_the_rules_change() {
        let broker = Scratch::with_access_control();
        let root = broker.door_of_user("root", Protocol::Kafka);
        let name = root.new_topic("readings").expect("a free name");
        let made = broker.auto_create_topic(name, root.caller()).await;
        made.expect("a topic");
        let rule = |principal: &str, permission| model::acl::Acl {
            resource_type: model::acl::ResourceType::Topic,
            name: "readings/site/#".to_owned(),
            pattern: model::acl::PatternType::Literal,
            principal: principal.to_owned(),
            host: "*".to_owned(),
            operation: model::acl::Operation::Write,
            permission,
        };
        let add = async |rule| {
            let cluster = root.cluster(right::Alter).expect("a super user");
            let made = broker.create_acls(&cluster, vec![rule]).await;
            assert!(made[0].is_ok());
        };
        use model::acl::Permission::{Allow, Deny};
        add(rule("User:alice", Allow)).await;
        let alice = broker.door_of_user("alice", Protocol::Mqtt);
        let may = |filter| alice.part("readings", filter, right::Write).is_ok();
        let asked = || {
            let access = &broker.shared.access;
            access.asked.load(std::sync::atomic::Ordering::Relaxed)
        };
        assert!(may("site/1") && may("site/2") && !may("other"));
        let before = asked();
        assert!((0..10).all(|_| may("site/1") && may("site/2")));
        assert_eq!(asked(), before);
        // A denial and another right are asked for each time, and a rule that changes holds at once.
        assert!(!may("other") && alice.part("readings", "site/1", right::Read).is_err());
        assert!(asked() > before);
        add(rule("User:bob", Deny)).await;
        assert!(may("site/1"));
        add(rule("User:alice", Deny)).await;
        assert!(!may("site/1") && !may("site/2"));
        let cluster = root.cluster(right::Alter).expect("a super user");
        let denials = model::acl::AclFilter {
            permission: Some(Deny),
            ..model::acl::AclFilter::default()
        };
        let removed = broker.delete_acls(&cluster, &[denials]).await;
        removed.expect("access is controlled");
        assert!(may("site/1"));
    }

    #[tokio::test]
    async fn what_was_granted_before_the_topic_was_made_anew_does_not_hold_for_the_new_one() {
        let broker = broker_with(&["readings"]);
        let door = broker.door(caller(Protocol::Kafka));
        let alter = door.topic("readings", right::Alter).expect("a right");
        let delete = || vec![door.topic("readings", right::Delete).expect("a right")];
        let stale = delete();
        assert!(broker.delete_topics(delete()).await[0].is_ok());
        let name = door.new_topic("readings").expect("a free name");
        broker
            .auto_create_topic(name, door.caller())
            .await
            .expect("a new topic");
        let grown = broker.grow_topic(&alter, 2, None, false).await;
        assert!(matches!(grown, Err(Refusal::UnknownTopicOrPartition)));
        let deleted = broker.delete_topics(stale).await;
        assert!(matches!(deleted[0], Err(Refusal::UnknownTopicOrPartition)));
        assert!(door.topic("readings", right::Describe).is_ok());
    }
}
