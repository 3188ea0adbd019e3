//! Names: those that collide in metrics, and those that Kafka keeps for itself.
//! Callers: `scenarios`.

use super::produce::one_batch;
use super::topics::{create, topic};
use crate::oracle::batches::Batch;
use crate::oracle::pair::Pair;
use anyhow::Result;
use wire::Uuid;
use wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use wire::messages::create_topics::CreateTopicsRequest;
use wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    collide(pair)?;
    internal(pair);
    Ok(())
}

fn ask_for(pair: &mut Pair, names: &[&str], validate_only: bool) {
    pair.ask_each(|_, _| CreateTopicsRequest {
        topics: names.iter().map(|name| topic(name, 1, &[])).collect(),
        timeout_ms: 10_000,
        validate_only,
    });
}

fn collide(pair: &mut Pair) -> Result<()> {
    create(
        pair,
        vec![
            topic("colliding.name", 1, &[]),
            topic("colliding_alone", 1, &[]),
        ],
    )?;
    for names in [
        &["colliding_name"][..],
        &["colliding.alone"],
        &["colliding-name", "colliding"],
        &["colliding.name"],
        &["colliding_name", "colliding.alone", "colliding.name"],
        &["colliding_name", "colliding_name"],
    ] {
        pair.scene = format!("create {names:?} beside colliding.name and colliding_alone");
        ask_for(pair, names, true);
    }
    pair.scene = "create what collides".into();
    ask_for(pair, &["colliding_name", "colliding.alone"], false);
    pair.scene = "create two that collide with each other".into();
    ask_for(pair, &["both.new", "both_new"], true);
    pair.settle()?;
    pair.scene = "create what collided with a topic that is gone".into();
    let gone = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some("colliding.name".into()),
            topic_id: Uuid::nil(),
        }],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    pair.ask(6, |_| gone.clone());
    pair.settle()?;
    pair.forget_topic("colliding.name");
    ask_for(pair, &["colliding_name"], true);
    Ok(())
}

fn internal(pair: &mut Pair) {
    for name in ["__consumer_offsets", "__cluster_metadata"] {
        pair.scene = format!("the internal topic {name}: create");
        ask_for(pair, &[name], true);
        pair.scene = format!("the internal topic {name}: look");
        for version in 4..=13 {
            pair.ask(version, |_| MetadataRequest {
                topics: Some(vec![MetadataRequestTopic {
                    name: Some(name.into()),
                    topic_id: Uuid::nil(),
                }]),
                allow_auto_topic_creation: false,
                ..MetadataRequest::default()
            });
        }
        pair.scene = format!("the internal topic {name}: produce");
        pair.ask_each(|_, _| one_batch(name, 0, Some(Batch::of(1).bytes())));
        pair.scene = format!("the internal topic {name}: delete records");
        pair.ask_each(|_, _| DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: name.into(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: 0,
                    offset: 0,
                }],
            }],
            timeout_ms: 10_000,
        });
        pair.scene = format!("the internal topic {name}: more partitions");
        pair.ask_each(|_, _| CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.into(),
                count: 60,
                assignments: None,
            }],
            timeout_ms: 10_000,
            validate_only: true,
        });
    }
}
