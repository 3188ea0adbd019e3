//! Fetch (1): slices of the log, sent as they are. Fetch sessions are in `front/kafka/sessions.rs`.

use std::sync::Arc;
use std::time::Duration;

use model::quota::Quota;
use model::{LeaderEpoch, Offset, TopicId};
use tokio::time::Instant;
use wire::Records;
use wire::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse,
    PartitionData,
};

use super::{Call, held_partition};
use crate::broker::access::{Granted, right};
use crate::broker::open_readers::ReaderName;
use crate::broker::{Fetch, FetchPartition, Fetched, Refusal, Topic};
use crate::front::kafka::errors::{self, Misuse};
use crate::front::kafka::sessions::{Asked, Begun, Found, TopicName, VERSION_TOPIC_IDS, asked_of};

/// Reads that see only committed transactions.
const READ_COMMITTED: i8 = 1;
/// A fetch of so many partitions that it holds much memory waits no longer than this, whatever it asks for.
const LARGE_WAIT_MAX: Duration = Duration::from_secs(1);
/// A fetch in a session is small, and holds memory all the same.
const LARGE_PARTITIONS: usize = 2048;

pub(super) async fn answer(request: FetchRequest, call: Call) -> FetchResponse {
    let begun = call.sessions.begin(&request, call.version, Instant::now());
    let begun = match begun {
        Ok(begun) => begun,
        Err(misuse) => return refused(&misuse),
    };
    let (asked, watch): (Vec<Asked>, _) = match &begun {
        Begun::Sessionless => (asked_of(&request).collect(), None),
        Begun::New(watch) => (asked_of(&request).collect(), Some(watch.clone())),
        Begun::Next(next) => (next.asked(), Some(next.watch.clone())),
    };
    let (topics, partitions) = wanted_of(&asked, &call);
    let wait_max = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let fetch = Fetch {
        partitions,
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        bytes_max: usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(call.broker().config().fetch_bytes_max)
            .min(bytes_within_quota(&call)),
        wait_max: match call.is_large() || asked.len() > LARGE_PARTITIONS {
            true => wait_max.min(LARGE_WAIT_MAX),
            false => wait_max,
        },
        watch,
    };
    let answers = call.broker().fetch(fetch).await;
    if is_throttled(&answers, &call) {
        // Nothing was told, so nothing is noted: the same will be fetched again.
        let id = match &begun {
            Begun::Next(next) => next.id,
            Begun::Sessionless | Begun::New(_) => 0,
        };
        return respond(id, Vec::new());
    }
    let committed = request.isolation_level == READ_COMMITTED;
    let mut found = Vec::with_capacity(asked.len());
    for ((asked, topic), answer) in asked.into_iter().zip(topics).zip(answers) {
        found.push(found_of(asked, topic, answer, committed));
    }
    match begun {
        Begun::Sessionless => respond(0, found),
        Begun::New(watch) => {
            let created = call
                .sessions
                .create(call.version, watch, &found, Instant::now());
            let reader = ReaderName::of(call.door.caller());
            call.sessions.name(created, reader);
            respond(created, found)
        }
        Begun::Next(next) => match next.finish(found) {
            Ok(news) => respond(next.id, news),
            Err(misuse) => refused(&misuse),
        },
    }
}

/// The most bytes that the client's quota allows at once, so that every fetch can be answered in the end.
fn bytes_within_quota(call: &Call) -> usize {
    let quotas = call.broker().quotas();
    let most = quotas.most_at_once(Quota::ConsumerByteRate, call.door.caller());
    most.unwrap_or(usize::MAX)
}

/// Charges what was found, and the time that it took; true if the client has to wait, and gets nothing of it.
fn is_throttled(answers: &[Option<Result<Fetched, Refusal>>], call: &Call) -> bool {
    let Some(throttle) = &call.throttle else {
        return false;
    };
    let found = answers.iter().flatten().flatten();
    let bytes = found.map(Fetched::bytes).sum::<usize>() as f64;
    let wait = throttle.charge(Quota::ConsumerByteRate, bytes);
    throttle.charge_work();
    let is_throttled = !wait.is_zero() || throttle.wire_ms() > 0;
    if is_throttled {
        let quotas = call.broker().quotas();
        quotas.give_back(Quota::ConsumerByteRate, call.door.caller(), bytes);
    }
    is_throttled
}

fn refused(misuse: &Misuse) -> FetchResponse {
    FetchResponse {
        error_code: misuse.code(),
        ..FetchResponse::default()
    }
}

type FoundTopic = Result<Granted<Arc<Topic>, right::Read>, Refusal>;

/// What the broker is asked, and of which topics. A topic is looked up where a partition of it is not idle.
fn wanted_of(asked: &[Asked], call: &Call) -> (Vec<FoundTopic>, Vec<FetchPartition>) {
    let mut topics: Vec<FoundTopic> = Vec::with_capacity(asked.len());
    let mut partitions = Vec::with_capacity(asked.len());
    let mut last: Option<(&Arc<TopicName>, FoundTopic)> = None;
    for Asked { key, wanted, idle } in asked {
        let still_idle = idle.as_ref().filter(|(_, idle)| idle.is_still());
        let found = match (still_idle, &last) {
            (Some((topic, _)), _) => call.door.renew(topic),
            (None, Some((name, found))) if Arc::ptr_eq(name, &key.topic) => found.clone(),
            (None, _) => {
                let found = match call.version >= VERSION_TOPIC_IDS {
                    true => call
                        .door
                        .topic_by_id(TopicId::from_uuid(key.topic.id), right::Read),
                    false => call.door.topic(&key.topic.name, right::Read),
                };
                last = Some((&key.topic, found.clone()));
                found
            }
        };
        let held = found.as_ref().map_err(Clone::clone);
        let held = held.and_then(|topic| held_partition(topic, wanted.partition));
        partitions.push(FetchPartition {
            topic: held.clone().and(found.clone()),
            partition: held.unwrap_or_default(),
            offset: Offset::from_wire(wanted.fetch_offset),
            bytes_max: usize::try_from(wanted.partition_max_bytes).unwrap_or(0),
            leader_epoch: LeaderEpoch::from_wire(wanted.current_leader_epoch),
            last_fetched_epoch: LeaderEpoch::from_wire(wanted.last_fetched_epoch),
            idle: still_idle.map(|(_, idle)| idle.clone()),
        });
        topics.push(found);
    }
    (topics, partitions)
}

/// One partition's part of the answer; its bytes are counted for its topic.
fn found_of(
    asked: Asked,
    topic: FoundTopic,
    answer: Option<Result<Fetched, Refusal>>,
    committed: bool,
) -> Found {
    let Some(mut answer) = answer else {
        let idle = asked.idle.clone();
        return Found {
            asked,
            data: None,
            idle,
        };
    };
    let idle = answer.as_mut().ok().and_then(|fetched| {
        let idle = fetched.idle.take()?;
        Some((topic.as_ref().ok()?.clone(), idle))
    });
    if let (Ok(topic), Ok(fetched)) = (&topic, &answer) {
        topic.traffic.fetched(fetched.bytes() as u64);
    }
    let data = described(asked.key.partition, answer, committed);
    Found {
        asked,
        data: Some(data),
        idle,
    }
}

/// The answer: neighbours of one topic stand together.
fn respond(session_id: i32, found: Vec<Found>) -> FetchResponse {
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut last: Option<Arc<TopicName>> = None;
    for Found { asked, data, .. } in found {
        let Some(data) = data else { continue };
        let name = asked.key.topic;
        if !last
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, &name) || *last == name)
        {
            responses.push(FetchableTopicResponse {
                topic: name.name.clone(),
                topic_id: name.id,
                partitions: Vec::new(),
            });
        }
        last = Some(name);
        let response = responses.last_mut().expect("a topic was just named");
        response.partitions.push(data);
    }
    FetchResponse {
        session_id,
        responses,
        ..FetchResponse::default()
    }
}

/// Kafka tells no aborted transactions of a partition that it does not know or does not give, and nothing of one that it
/// cannot read.
fn aborted_of_none(refusal: &Refusal) -> Option<Vec<AbortedTransaction>> {
    match refusal {
        Refusal::UnknownTopicOrPartition | Refusal::UnknownTopicId | Refusal::Denied { .. } => {
            Some(Vec::new())
        }
        _ => None,
    }
}

fn described(
    partition_index: i32,
    result: Result<Fetched, Refusal>,
    committed: bool,
) -> PartitionData {
    let fetched = match result {
        Ok(fetched) => fetched,
        Err(refusal) => {
            return PartitionData {
                partition_index,
                error_code: errors::code(&refusal),
                high_watermark: -1,
                last_stable_offset: -1,
                log_start_offset: -1,
                aborted_transactions: aborted_of_none(&refusal),
                records: Some(Records::EMPTY),
                ..PartitionData::default()
            };
        }
    };
    let diverging_epoch = fetched
        .diverging
        .map_or_else(EpochEndOffset::default, |(epoch, end)| EpochEndOffset {
            epoch: epoch.to_wire(),
            end_offset: end.to_wire(),
        });
    PartitionData {
        partition_index,
        high_watermark: fetched.high_watermark.to_wire(),
        last_stable_offset: fetched.high_watermark.to_wire(),
        log_start_offset: fetched.start_offset.to_wire(),
        diverging_epoch,
        aborted_transactions: committed.then(Vec::new),
        records: Some(Records::from_slices(fetched.slices)),
        ..PartitionData::default()
    }
}
