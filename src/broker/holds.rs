//! Holds: what cleanup must not remove. An operator's hold is on a topic, or a partition of it, and a time, or the records of a
//! key in it; it has a reason, and an end if it is to have one. A topic's `retention.hold.groups` hold what these groups have not read.
//!
//! Callers: fronts, which add, list and remove operators' holds; the store's cleaner asks for all that concern a log, by a function
//! that knows the broker. Invariants: a hold is in force exactly if its record is in the state log `holds` and its end has not
//! come; it is durable before whoever added it hears of it. Deleting records or a topic that an operator holds is refused.

mod book;

use std::sync::Arc;

use bytes::Bytes;
use model::hex::to_hex;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId, TopicName};
use storage::cleanup::holds::{Held, HoldWish};

use super::access::{Caller, Cluster, Granted, asked_by, right};
use super::audit::On;
use super::catalog::Topic;
use super::groups::CommittedPlace;
use super::{Broker, Refusal, on_blocking_pool};
pub(super) use book::Holds;
pub use book::{HOLDS_MAX, Hold, HoldError, HoldsError, UnknownHold};
use book::{HoldRecord, version};

/// The longest reason.
pub const REASON_BYTES_MAX: usize = 1_000;

/// The longest key of a hold.
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// A hold that is to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewHold {
    /// One partition, or all.
    pub partition: Option<PartitionId>,
    /// What was appended from then on.
    pub from: Option<Timestamp>,
    /// What was appended before then.
    pub to: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// The records of this key only.
    pub key: Option<Bytes>,
}

impl Broker {
    /// Has the store heed what has changed.
    async fn heed(&self, hold: &Hold) {
        let id = TopicId::from_uuid(hold.topic_id);
        let topic = self.shared.catalog.by_id(id);
        let partitions = topic.iter().flat_map(|topic| topic.partitions());
        let logs: Vec<LogId> = partitions
            .map(|partition| LogId::new(id, partition))
            .collect();
        let storage = self.storage().clone();
        on_blocking_pool(move || storage.holds_changed(&logs)).await;
        self.retry_held_erasures();
    }

    /// Adds a hold. It is in force when this returns.
    pub async fn add_hold(
        &self,
        topic: &Granted<Arc<Topic>, right::Hold>,
        new: NewHold,
        caller: &Caller,
    ) -> Result<Arc<Hold>, HoldError> {
        let now = self.now();
        check(topic, &new, now)?;
        let holds = &self.shared.holds;
        let _change = holds.changes.lock().await;
        let ended: Vec<String> = holds
            .read()
            .values()
            .filter(|hold| !hold.is_in_force(now))
            .map(|hold| hold.id.clone())
            .collect();
        for id in ended {
            holds.write(&HoldRecord::Removed(id)).await?;
        }
        if holds.read().len() >= HOLDS_MAX {
            return Err(HoldError::TooMany);
        }
        let id = loop {
            let id = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
            if !holds.read().contains_key(&id) {
                break id;
            }
        };
        let hold = Arc::new(Hold {
            version: version(new.key.is_some()),
            id,
            topic: topic.name.as_str().to_owned(),
            topic_id: topic.id.as_uuid(),
            partition: new.partition.map(PartitionId::get),
            from_ms: new.from.map(Timestamp::millis),
            to_ms: new.to.map(Timestamp::millis),
            reason: new.reason,
            by: asked_by(caller),
            added_ms: now.millis(),
            expires_ms: new.expires.map(Timestamp::millis),
            key_hex: new.key.as_deref().map(to_hex),
        });
        holds.write(&HoldRecord::Added(Arc::clone(&hold))).await?;
        self.heed(&hold).await;
        tracing::info!(
            hold = hold.id,
            topic = hold.topic,
            reason = hold.reason,
            by = hold.by,
            "a hold was added"
        );
        let on = On::Topic(hold.topic.as_str());
        self.note_change(caller, "hold", on, &format!("hold {}", hold.id));
        Ok(hold)
    }

    /// Ends a hold. It is not in force any more when this returns.
    pub async fn remove_hold(
        &self,
        _cluster: &Granted<Cluster, right::Hold>,
        id: &str,
        caller: &Caller,
    ) -> Result<Arc<Hold>, HoldError> {
        let holds = &self.shared.holds;
        let _change = holds.changes.lock().await;
        let known = holds.read().get(id).cloned();
        let hold = known.ok_or_else(|| HoldError::Unknown(id.to_owned()))?;
        holds.write(&HoldRecord::Removed(hold.id.clone())).await?;
        self.heed(&hold).await;
        tracing::info!(
            hold = hold.id,
            topic = hold.topic,
            by = asked_by(caller),
            "a hold was removed"
        );
        let on = On::Topic(hold.topic.as_str());
        self.note_change(caller, "remove_hold", on, &format!("hold {}", hold.id));
        Ok(hold)
    }

    /// The holds that are in force, oldest first.
    pub fn holds(&self, _cluster: &Granted<Cluster, right::Describe>) -> Vec<Arc<Hold>> {
        let now = self.now();
        let book = self.shared.holds.read();
        let mut holds: Vec<Arc<Hold>> = book
            .values()
            .filter(|hold| hold.is_in_force(now))
            .cloned()
            .collect();
        holds.sort_by_key(|hold| hold.added_ms);
        holds
    }

    /// How many holds are in force.
    pub(super) fn hold_count(&self) -> usize {
        let now = self.now();
        let book = self.shared.holds.read();
        book.values().filter(|hold| hold.is_in_force(now)).count()
    }

    /// An operator's hold on a topic that keeps it from being deleted.
    /// Refuses the deletion of a topic that is held, as deleting it would.
    pub fn check_deletion(
        &self,
        topic: &Granted<Arc<Topic>, right::Delete>,
    ) -> Result<(), Refusal> {
        self.check_topic_deletion(topic)
    }

    pub(super) fn check_topic_deletion(&self, topic: &Topic) -> Result<(), Refusal> {
        let now = self.now();
        let book = self.shared.holds.read();
        let is_on = |hold: &&Arc<Hold>| {
            TopicId::from_uuid(hold.topic_id) == topic.id && hold.is_in_force(now)
        };
        match book.values().find(is_on) {
            Some(hold) => Err(Refusal::Held {
                topic: topic.name.clone(),
                hold: hold.wish().name.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// What must not be removed of a log. Called by the cleaner; never waits for the disk.
    pub(super) fn hold_wishes(&self, log: LogId) -> Vec<HoldWish> {
        let Some(topic) = self.shared.catalog.by_id(log.topic_id) else {
            return Vec::new();
        };
        let now = self.now();
        let mut wishes: Vec<HoldWish> = {
            let book = self.shared.holds.read();
            let on = book
                .values()
                .filter(|hold| hold.concerns(topic.id, log.partition));
            on.filter(|hold| hold.is_in_force(now))
                .map(|hold| hold.wish())
                .collect()
        };
        let config = &topic.config.hold;
        for group in &config.groups {
            wishes.push(HoldWish {
                name: format!("group {group} (retention.hold.groups)").into(),
                held: Held::Unread {
                    from: self
                        .committed(group, &topic, log.partition)
                        .unwrap_or(Offset::ZERO),
                    bytes_max: config.bytes,
                    ms_max: config.ms,
                },
                is_absolute: false,
            });
        }
        wishes
    }

    /// The next record that a group reads of a partition, as it committed it.
    pub(super) fn committed(
        &self,
        group: &str,
        topic: &Topic,
        partition: PartitionId,
    ) -> Option<Offset> {
        let wanted = [(topic.name.clone(), partition)];
        let found = self.groups().fetch(group, &wanted).pop().flatten()?;
        match found.offset {
            CommittedPlace::Next(offset) if found.topic_id == topic.id => Some(offset),
            _ => None,
        }
    }
}

fn check(topic: &Topic, new: &NewHold, now: Timestamp) -> Result<(), HoldError> {
    let invalid = |reason: &str| Err(HoldError::Invalid(reason.to_owned()));
    if new.partition.is_some_and(|partition| !topic.has(partition)) {
        return Err(Refusal::UnknownTopicOrPartition.into());
    }
    if new.reason.trim().is_empty() {
        return invalid("a hold needs a reason");
    }
    if new.reason.len() > REASON_BYTES_MAX {
        return invalid("the reason is longer than 1,000 bytes");
    }
    if new.from.zip(new.to).is_some_and(|(from, to)| from >= to) {
        return invalid("the time ends before it begins");
    }
    if new
        .key
        .as_ref()
        .is_some_and(|key| key.len() > KEY_BYTES_MAX)
    {
        return invalid("the key is longer than 64 KiB");
    }
    if new.expires.is_some_and(|end| end <= now) {
        return invalid("the hold would have ended already");
    }
    Ok(())
}

/// The name of a topic as a refusal tells it.
pub(super) fn held(topic: &TopicName, hold: &storage::cleanup::Hold) -> Refusal {
    Refusal::Held {
        topic: topic.clone(),
        hold: hold.name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::state_log::StateRecord as _;

    fn hold() -> Hold {
        Hold {
            version: 1,
            id: "1a2b3c4d".to_owned(),
            topic: "readings".to_owned(),
            topic_id: uuid::Uuid::from_u128(7),
            partition: None,
            from_ms: Some(5),
            to_ms: None,
            reason: "audit".to_owned(),
            by: "anonymous".to_owned(),
            added_ms: 1,
            expires_ms: Some(9),
            key_hex: None,
        }
    }

    #[test]
    fn a_hold_comes_back_as_it_was_written_and_in_the_documented_form() {
        let (key, value) = HoldRecord::Added(Arc::new(hold())).encode();
        assert_eq!(key, "hold/1a2b3c4d");
        let value = value.expect("a value");
        let expected = "{\"version\":1,\"id\":\"1a2b3c4d\",\"topic\":\"readings\",\"topic_id\":\"00000000-0000-0000-0000-000000000007\",\
            \"partition\":null,\"from_ms\":5,\"to_ms\":null,\"reason\":\"audit\",\"by\":\"anonymous\",\"added_ms\":1,\
            \"expires_ms\":9}";
        assert_eq!(value, expected);
        match HoldRecord::decode(&key, &value) {
            Ok(HoldRecord::Added(read)) => assert_eq!(*read, hold()),
            _ => panic!("a hold"),
        }
        let keyed = Hold {
            version: 2,
            key_hex: Some("6b00ff".to_owned()),
            ..hold()
        };
        let value_of_keyed = HoldRecord::Added(Arc::new(keyed.clone())).encode().1;
        let of_keyed = expected.replace("\"version\":1", "\"version\":2");
        let of_keyed = of_keyed.replace(":9}", ":9,\"key_hex\":\"6b00ff\"}");
        assert_eq!(value_of_keyed.expect("a value"), of_keyed);
        match HoldRecord::decode(&key, of_keyed.as_bytes()) {
            Ok(HoldRecord::Added(read)) => {
                assert_eq!(*read, keyed);
                assert_eq!(read.key().as_deref(), Some(&b"k\x00\xff"[..]));
            }
            _ => panic!("a hold"),
        }
        for wrong in [
            expected.replace("\"version\":1", "\"version\":2"),
            expected.replace("\"version\":1", "\"version\":3"),
            of_keyed.replace("\"version\":2", "\"version\":1"),
            of_keyed.replace("6b00ff", "6b00f"),
            of_keyed.replace("6b00ff", "6b00fg"),
        ] {
            assert!(
                HoldRecord::decode(&key, wrong.as_bytes()).is_err(),
                "{wrong}"
            );
        }
        assert!(HoldRecord::decode(b"hole/1", &value).is_err());
    }

    #[test]
    fn a_hold_ends_at_its_time_and_concerns_its_partition_only() {
        let mut hold = hold();
        assert!(hold.is_in_force(Timestamp::from_millis(8)));
        assert!(!hold.is_in_force(Timestamp::from_millis(9)));
        hold.expires_ms = None;
        assert!(hold.is_in_force(Timestamp::from_millis(i64::MAX)));
        let topic = TopicId::from_uuid(uuid::Uuid::from_u128(7));
        assert!(hold.concerns(topic, PartitionId::new(3)));
        hold.partition = Some(2);
        assert!(!hold.concerns(topic, PartitionId::new(3)));
        let other = TopicId::from_uuid(uuid::Uuid::from_u128(8));
        assert!(!hold.concerns(other, PartitionId::new(2)));
    }
}
