//! Warm: brings both brokers to where they answer everything at once: Kafka creates the log of committed offsets and
//! fetches producer ids on the first request for them, and says until then that it is not ready.
//! Callers: `pair`.

use super::pair::{Pair, Side};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use wire::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::init_producer_id::InitProducerIdRequest;
use wire::messages::offset_fetch::OffsetFetchRequest;

/// The topic whose setting marks moments; see `Pair::settle`.
pub const MARK_TOPIC: &str = "oracle-mark";

/// Waits until both are ready, and creates the mark.
pub fn up(pair: &mut Pair, at_most: Duration) -> Result<()> {
    let deadline = Instant::now() + at_most;
    for side in [Side::Ours, Side::Theirs] {
        let create = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: MARK_TOPIC.to_owned(),
                num_partitions: 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        pair.ask_one(side, 7, &create)?;
        while !is_ready(pair, side)? {
            ensure!(Instant::now() < deadline, "{side:?} does not get ready");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    pair.settle()?;
    pair.topic_id(MARK_TOPIC)?;
    Ok(())
}

fn is_ready(pair: &mut Pair, side: Side) -> Result<bool> {
    let find = FindCoordinatorRequest {
        key: "warm".to_owned(),
        ..FindCoordinatorRequest::default()
    };
    let fetch = OffsetFetchRequest {
        group_id: "warm".to_owned(),
        topics: Some(Vec::new()),
        ..OffsetFetchRequest::default()
    };
    let init = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    Ok(pair.ask_one(side, 3, &find)?.error_code == 0
        && pair.ask_one(side, 5, &fetch)?.error_code == 0
        && pair.ask_one(side, 4, &init)?.error_code == 0)
}
