//! Bounds on what one principal makes the broker keep of topics: how often they have refused, and what is held.
//! Callers: `topics`, which enforces them; metrics. Those on groups are the groups' own (`groups/ledger.rs`).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounded {
    Partitions,
    SettingsBytes,
}

/// How often each bound has refused.
#[derive(Debug, Default)]
pub(super) struct BoundsOfOne([AtomicU64; 2]);

impl BoundsOfOne {
    pub(super) fn refused(&self, bounded: Bounded) {
        self.0[bounded as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn count(&self, bounded: Bounded) -> u64 {
        self.0[bounded as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::acl::{Acl, CLUSTER_NAME, Operation, PatternType, Permission, ResourceType};
    use model::batch::{BatchBuilder, Codec};
    use model::{PartitionId, ProducerEpoch, ProducerId, Timestamp};

    use super::super::access::{AccessConfig, Authorizer, Door, Protocol, right};
    use super::super::produce::{Acks, KnownCodecs, Produce};
    use super::super::refusal::{InvalidSetting, TooManyPartitions};
    use super::super::scratch::Scratch;
    use super::super::{BrokerConfig, Layout, NewTopic, Refusal, Resource};

    async fn broker() -> Scratch {
        let broker = Scratch::with(BrokerConfig {
            access: AccessConfig {
                authorizer: Authorizer::Standard,
                super_users: vec!["root".to_owned()],
                everyone_if_none: true,
            },
            partitions_of_one_max: 5,
            settings_bytes_of_one_max: 64,
            producers_of_one_max: 2,
            ..BrokerConfig::default()
        });
        let root = broker.door_of_user("root", Protocol::Kafka);
        let cluster = root.cluster(right::Alter).expect("a super user");
        let rule = Acl {
            resource_type: ResourceType::Cluster,
            name: CLUSTER_NAME.to_owned(),
            pattern: PatternType::Literal,
            principal: "User:*".to_owned(),
            host: "*".to_owned(),
            operation: Operation::Create,
            permission: Permission::Allow,
        };
        let made = broker.create_acls(&cluster, vec![rule]).await;
        assert!(made[0].is_ok());
        broker
    }

    async fn create(
        door: &Door,
        name: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Result<(), Refusal> {
        let new = NewTopic {
            name: door.new_topic(name)?,
            layout: Layout::Counted {
                partitions: Some(partitions),
                replicas: None,
            },
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
                .collect(),
        };
        let mut made = door.broker().create_topics(vec![new], false).await;
        made.remove(0).map(drop)
    }

    fn is_too_many(refused: Result<(), Refusal>) -> bool {
        matches!(
            refused,
            Err(Refusal::TooManyPartitions(
                TooManyPartitions::OfPrincipal { .. }
            ))
        )
    }

    fn bounds(broker: &Scratch) -> Vec<(u64, u64)> {
        let bounds = broker.bounds_of_one().into_iter();
        bounds.map(|it| (it.used, it.refused)).collect()
    }

    #[tokio::test]
    async fn a_principals_partitions_are_bounded_and_nobody_elses() {
        let broker = broker().await;
        let door = |name: &str| broker.door_of_user(name, Protocol::Kafka);
        let (mallory, alice, root) = (door("mallory"), door("alice"), door("root"));
        create(&mallory, "a", 3, &[]).await.expect("room");
        assert!(is_too_many(create(&mallory, "b", 3, &[]).await));
        create(&mallory, "b", 2, &[]).await.expect("room");
        assert!(is_too_many(create(&mallory, "c", 1, &[]).await));
        create(&alice, "c", 5, &[]).await.expect("her own room");
        // Whoever adds partitions adds them to the account of who made the topic.
        let topic = root.topic("a", right::Alter).expect("a right");
        let grown = broker.grow_topic(&topic, 4, None, false).await;
        assert!(is_too_many(grown.map(drop)));
        create(&root, "d", 100, &[]).await.expect("nobody's");
        assert_eq!(bounds(&broker), [(0, 0), (5, 3), (0, 0)]);
        // What goes makes room.
        let gone = root.topic("b", right::Delete).expect("a right");
        assert!(broker.delete_topics(vec![gone]).await[0].is_ok());
        let topic = root.topic("a", right::Alter).expect("a right");
        let grown = broker.grow_topic(&topic, 5, None, false).await;
        grown.expect("room again");
        assert!(is_too_many(create(&mallory, "e", 1, &[]).await));
    }

    #[tokio::test]
    async fn the_settings_of_a_principals_topics_are_bounded() {
        let broker = broker().await;
        let mallory = broker.door_of_user("mallory", Protocol::Kafka);
        let root = broker.door_of_user("root", Protocol::Kafka);
        let is_too_much = |refused: Result<(), Refusal>| {
            matches!(
                refused,
                Err(Refusal::InvalidSetting(
                    InvalidSetting::TooMuchOfPrincipal { .. }
                ))
            )
        };
        create(&mallory, "a", 1, &[("retention.ms", "86400000")])
            .await
            .expect("20 bytes");
        create(&mallory, "b", 1, &[("retention.bytes", "86400000")])
            .await
            .expect("23 more");
        let third = create(&mallory, "c", 1, &[("retention.bytes", "86400000")]).await;
        assert!(is_too_much(third), "66 of 64");
        let set = |topic: &'static str, name: &str, value: &str| {
            let settings = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let granted = root.topic(topic, right::AlterConfigs).expect("a right");
            let broker = &broker;
            async move {
                let resource = Resource::Topic(granted);
                broker.replace_configs(&resource, settings, false).await
            }
        };
        let value = "delete,compact";
        assert!(is_too_much(
            set("a", "min.cleanable.dirty.ratio", "0.123456789012345").await
        ));
        set("a", "cleanup.policy", value).await.expect("28 bytes");
        assert_eq!(bounds(&broker)[2], (51, 2));
        set("a", "segment.ms", "1000").await.expect("less");
        assert_eq!(bounds(&broker)[2].0, 37);
    }

    /// The first batch of a producer to a partition of the topic "a".
    async fn produce(door: &Door, partition: u32, id: ProducerId) -> Result<(), Refusal> {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.producer(id, ProducerEpoch::new(0), 0);
        let now = Timestamp::from_millis(1);
        builder.push(now, None, Some(b"v"), &[]).expect("small");
        let produce = Produce {
            topic: door.topic("a", right::Write)?,
            partition: PartitionId::new(partition),
            records: builder.build().expect("a batch"),
            owner: door.owner(),
            acks: Acks::All,
            codecs: KnownCodecs::All,
        };
        let appending = door.broker().produce(produce).await;
        appending
            .map_err(|rejection| rejection.refusal)?
            .durable()
            .await
    }

    #[tokio::test]
    async fn a_principals_producers_are_bounded_and_nobody_takes_the_room_of_others() {
        let broker = broker().await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let running = (*broker).clone();
        let running = tokio::spawn(async move { running.run(stopped).await });
        let door = |name: &str| broker.door_of_user(name, Protocol::Kafka);
        let (mallory, alice, root) = (door("mallory"), door("alice"), door("root"));
        create(&root, "a", 3, &[]).await.expect("room");
        let cluster = root.cluster(right::IdempotentWrite).expect("a super user");
        let id_for = async |door: &Door| {
            let granted = broker.new_producer_id(&cluster, door.owner()).await;
            granted.expect("an id").0
        };
        let (his, hers, roots) = (
            id_for(&mallory).await,
            id_for(&alice).await,
            id_for(&root).await,
        );
        for partition in 0..2 {
            produce(&mallory, partition, his).await.expect("room");
        }
        let refused = produce(&mallory, 2, his).await;
        assert!(
            matches!(refused, Err(Refusal::TooManyProducers { .. })),
            "{refused:?}"
        );
        // Not by another's id either, nor by one of nobody's or one that nobody was given.
        let refused = produce(&mallory, 2, hers).await;
        assert!(
            matches!(refused, Err(Refusal::ForeignProducerId { .. })),
            "{refused:?}"
        );
        for id in [roots, ProducerId::new(1 << 40)] {
            let refused = produce(&mallory, 2, id).await;
            assert!(
                matches!(refused, Err(Refusal::TooManyProducers { .. })),
                "{refused:?}"
            );
        }
        produce(&alice, 2, hers).await.expect("her own room");
        for partition in 0..3 {
            produce(&root, partition, roots).await.expect("nobody's");
        }
        assert_eq!(bounds(&broker)[0], (2, 3));
        // Who has room may go on with an id from before accounts were kept, which is on his account then.
        produce(&alice, 1, ProducerId::new(1 << 41))
            .await
            .expect("room");
        let refused = produce(&alice, 1, hers).await;
        assert!(matches!(refused, Err(Refusal::TooManyProducers { .. })));
        // A partition that knows a producer takes its batches, whoever brings them.
        let again = produce(&mallory, 2, hers).await;
        again.expect("the same batch again");
        stop.send_replace(true);
        running.await.expect("it ends");
    }
}
