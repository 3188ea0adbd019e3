//! ShareFetch (78): gives a member of a share group records that are its own for a while, and takes what it says of earlier ones.
//! Share sessions are in `front/kafka/share_sessions.rs`.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use model::Offset;
use model::quota::Quota;
use wire::Records;
use wire::messages::share_fetch::{
    AcquiredRecords, PartitionData, ShareFetchRequest, ShareFetchResponse,
    ShareFetchableTopicResponse,
};

use super::Call;
use super::acknowledgements::{Batch, RENEWS, Said, Topics, Trouble, member_id, settle};
use crate::broker::access::{Granted, Group, right};
use crate::broker::share::{Acquired, Take, TakeError, TakeFrom, Taken};
use crate::front::kafka::errors::{Failure, Misuse};
use crate::front::kafka::share_sessions::{Begun, News, SessionKey, SharedPlace, Wish};

/// Records up to the last whole batch, which is [`Take::whole_batches`]; the other mode keeps to the number of records (KIP-1206).
const BATCH_OPTIMIZED: i8 = 0;
const RECORD_LIMIT: i8 = 1;
/// Who gets no session is answered after its time to wait, and not later than this.
const REFUSED_WAIT_MAX: Duration = Duration::from_secs(5);
/// A fetch of so many partitions that it holds much memory waits no longer than this, whatever it asks for.
const LARGE_WAIT_MAX: Duration = Duration::from_secs(1);
/// A fetch in a session is small, and holds memory all the same.
const LARGE_PARTITIONS: usize = 2048;

type ReadGroup<'a> = Granted<Group<'a>, right::Read>;

pub(super) async fn answer(request: ShareFetchRequest, call: Call) -> ShareFetchResponse {
    match fetch(request, &call).await {
        Ok(response) => response,
        Err(failure) => ShareFetchResponse {
            error_code: failure.code(),
            error_message: Some(failure.to_string()),
            ..ShareFetchResponse::default()
        },
    }
}

async fn fetch(mut request: ShareFetchRequest, call: &Call) -> Result<ShareFetchResponse, Failure> {
    let id = request.group_id.clone();
    let id = id.ok_or(Misuse::Share("Invalid group id in the request."))?;
    let group = call.door.group(&id, right::Read)?;
    let member = request.member_id.clone();
    let member = member_id(member.as_deref())?;
    check(&request, call.version)?;
    let said = said_of(&mut request);
    let key = SessionKey {
        group: id.clone(),
        member: member.to_owned(),
    };
    let begun = begin(&key, &request, !said.is_empty(), call).await?;
    let settled = settle(said, (&group, member), request.is_renew_ack, call);
    let lock = group.share_settings().lock;
    let (done, found, epoch) = match begun {
        Begun::Final => {
            let done = settled.await;
            release(&group, &key, call).await;
            (done, Vec::new(), None)
        }
        // What was renewed is not to expire while more is read (KIP-1222).
        Begun::Fetch(_, epoch) if request.is_renew_ack => (settled.await, Vec::new(), Some(epoch)),
        Begun::Fetch(places, epoch) => {
            let taken = take(&group, member, &request, places, call);
            let (done, found) = tokio::join!(settled, taken);
            (done, found?, Some(epoch))
        }
    };
    // The first answer of a session names all of its partitions.
    let is_first = request.share_session_epoch == 0;
    let told = match epoch {
        Some(epoch) => {
            let news: Vec<News> = found.iter().map(news_of).collect();
            call.shares.note(&key, epoch, &news)?
        }
        None => Vec::new(),
    };
    let told = told.into_iter().map(|it| it || is_first);
    let told = told.chain(std::iter::repeat(false));
    Ok(ShareFetchResponse {
        acquisition_lock_timeout_ms: i32::try_from(lock.as_millis()).unwrap_or(i32::MAX),
        responses: responses(found.into_iter().zip(told), done, &request),
        ..ShareFetchResponse::default()
    })
}

/// Releases what a member holds whose session ends.
pub(super) async fn release(group: &ReadGroup<'_>, key: &SessionKey, call: &Call) {
    call.shares.end(key);
    if let Err(error) = group.release(&key.member).await {
        // It comes back when it was held for long enough.
        tracing::debug!(%error, group = key.group, "what a member holds is not released");
    }
}

/// Refuses what makes no sense together.
fn check(request: &ShareFetchRequest, version: i16) -> Result<(), Misuse> {
    if version >= RENEWS {
        let limits = [
            request.max_bytes,
            request.min_bytes,
            request.max_records,
            request.max_wait_ms,
        ];
        if request.is_renew_ack && limits != [0; 4] {
            return Err(Misuse::Share(
                "maxBytes, minBytes, maxRecords and maxWaitMs must be set to 0, if isRenewAck is true.",
            ));
        }
        if ![BATCH_OPTIMIZED, RECORD_LIMIT].contains(&request.share_acquire_mode) {
            return Err(Misuse::Share("Unknown share acquire mode."));
        }
    }
    Ok(())
}

/// Takes the acknowledgements out of a request.
fn said_of(request: &mut ShareFetchRequest) -> Vec<Said> {
    let mut said = Vec::new();
    for topic in &mut request.topics {
        for partition in &mut topic.partitions {
            let batches = std::mem::take(&mut partition.acknowledgement_batches);
            if batches.is_empty() {
                continue;
            }
            let batches = batches.into_iter().map(|batch| Batch {
                first: batch.first_offset,
                last: batch.last_offset,
                types: batch.acknowledge_types,
            });
            said.push(Said {
                place: (topic.topic_id, partition.partition_index),
                batches: batches.collect(),
            });
        }
    }
    said
}

async fn begin(
    key: &SessionKey,
    request: &ShareFetchRequest,
    has_acknowledgements: bool,
    call: &Call,
) -> Result<Begun, Misuse> {
    let added = request.topics.iter().flat_map(|topic| {
        let of = topic.partitions.iter();
        of.map(|partition| (topic.topic_id, partition.partition_index))
    });
    let forgotten = request.forgotten_topics_data.iter();
    let forgotten = forgotten.flat_map(|topic| {
        let of = topic.partitions.iter();
        of.map(|partition| (topic.topic_id, *partition))
    });
    let wish = Wish {
        epoch: request.share_session_epoch,
        added: added.collect(),
        forgotten: forgotten.collect(),
        has_acknowledgements,
    };
    let begun = call.shares.begin(key, wish);
    if matches!(begun, Err(Misuse::ShareSessionLimit)) {
        tokio::time::sleep(wait_max(request).min(REFUSED_WAIT_MAX)).await;
    }
    begun
}

fn wait_max(request: &ShareFetchRequest) -> Duration {
    Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0))
}

/// What came of a partition.
type Found = (SharedPlace, Result<Taken, Trouble>);

async fn take(
    group: &ReadGroup<'_>,
    member: &str,
    request: &ShareFetchRequest,
    places: Vec<SharedPlace>,
    call: &Call,
) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::with_capacity(places.len());
    let mut from = Vec::with_capacity(places.len());
    let mut asked = Vec::with_capacity(places.len());
    let mut topics = Topics::default();
    let wait_max = match call.is_large() || places.len() > LARGE_PARTITIONS {
        true => wait_max(request).min(LARGE_WAIT_MAX),
        false => wait_max(request),
    };
    for place in places {
        match topics.find(place, call) {
            Ok((topic, partition)) => {
                from.push(TakeFrom { topic, partition });
                asked.push(place);
            }
            Err(refusal) => found.push((place, Err(TakeError::from(refusal).into()))),
        }
    }
    let size = |value: i32| usize::try_from(value).unwrap_or(0);
    let broker = call.broker();
    let quotas = broker.quotas();
    let within_quota = quotas.most_at_once(Quota::ConsumerByteRate, call.door.caller());
    let bytes_max = size(request.max_bytes)
        .min(broker.config().fetch_bytes_max)
        .min(within_quota.unwrap_or(usize::MAX));
    let must_wait = call.throttle.as_ref().is_some_and(|throttle| {
        let wait = throttle.charge(Quota::ConsumerByteRate, 0.0);
        !wait.is_zero()
    });
    let take = Take {
        records_max: match must_wait || bytes_max == 0 {
            true => 0,
            false => size(request.max_records),
        },
        whole_batches: request.share_acquire_mode == BATCH_OPTIMIZED,
        bytes_min: size(request.min_bytes),
        bytes_max,
        // Errors are told at once.
        wait_max: match must_wait || from.is_empty() || !found.is_empty() {
            true => Duration::ZERO,
            false => wait_max,
        },
        from,
    };
    if take.records_max == 0 || take.from.is_empty() {
        let empty = asked.into_iter().map(|place| (place, Ok(Taken::default())));
        found.extend(empty);
        return Ok(found);
    }
    let taken = group.take(member, &take).await?;
    let mut bytes = 0;
    for ((place, from), taken) in asked.into_iter().zip(&take.from).zip(taken) {
        if let Ok(taken) = &taken {
            bytes += taken.bytes();
            from.topic.traffic.fetched(taken.bytes() as u64);
        }
        found.push((place, taken.map_err(Trouble::from)));
    }
    // The records are the member's already: it gets them, and waits afterwards.
    if let Some(throttle) = &call.throttle {
        throttle.charge(Quota::ConsumerByteRate, bytes as f64);
    }
    Ok(found)
}

fn news_of((place, found): &Found) -> News {
    News {
        place: *place,
        has_records: found.as_ref().is_ok_and(|taken| !taken.slices.is_empty()),
        is_error: found.is_err(),
    }
}

/// The answer: what was found, and what came of the acknowledgements. Partitions of a topic stand together.
fn responses(
    found: impl Iterator<Item = (Found, bool)>,
    done: Vec<(SharedPlace, Result<(), Trouble>)>,
    request: &ShareFetchRequest,
) -> Vec<ShareFetchableTopicResponse> {
    let mut acknowledged: HashMap<SharedPlace, Result<(), Trouble>> = done.into_iter().collect();
    let mut partitions = Vec::new();
    for ((place, found), is_told) in found {
        let acknowledgement = acknowledged.remove(&place);
        if is_told || acknowledgement.is_some() {
            partitions.push((place, found, acknowledgement));
        }
    }
    let rest = acknowledged.into_iter();
    partitions.extend(rest.map(|(place, result)| (place, Ok(Taken::default()), Some(result))));
    let mut topics: Vec<ShareFetchableTopicResponse> = Vec::new();
    let mut at = HashMap::new();
    for ((topic_id, index), found, acknowledgement) in partitions {
        let at = *at.entry(topic_id).or_insert_with(|| {
            topics.push(ShareFetchableTopicResponse {
                topic_id,
                partitions: Vec::new(),
            });
            topics.len() - 1
        });
        let data = described(index, found, acknowledgement, request);
        topics[at].partitions.push(data);
    }
    topics
}

fn described(
    partition_index: i32,
    found: Result<Taken, Trouble>,
    acknowledgement: Option<Result<(), Trouble>>,
    request: &ShareFetchRequest,
) -> PartitionData {
    let mut data = PartitionData {
        partition_index,
        records: Records::EMPTY,
        ..PartitionData::default()
    };
    if let Some(Err(trouble)) = acknowledgement {
        data.acknowledge_error_code = trouble.code;
        data.acknowledge_error_message = Some(trouble.text);
    }
    match found {
        Ok(taken) => {
            let batch_size = match request.share_acquire_mode {
                BATCH_OPTIMIZED => u64::try_from(request.batch_size).unwrap_or(0),
                _ => u64::MAX,
            };
            data.acquired_records = pieces(&taken.acquired, &taken.ends, batch_size);
            data.records = Records::from_slices(taken.slices);
        }
        Err(trouble) => {
            data.error_code = trouble.code;
            data.error_message = Some(trouble.text);
        }
    }
    data
}

/// What was acquired, cut where batches end into pieces of about as many records as are wanted.
fn pieces(acquired: &[Acquired], ends: &[Offset], batch_size: u64) -> Vec<AcquiredRecords> {
    let mut pieces = Vec::new();
    for Acquired { offsets, count } in acquired {
        let mut put = |range: Range<Offset>| {
            pieces.push(AcquiredRecords {
                first_offset: range.start.to_wire(),
                last_offset: range.end.to_wire() - 1,
                delivery_count: i16::try_from(*count).unwrap_or(i16::MAX),
            });
        };
        let mut start = offsets.start;
        let from = ends.partition_point(|end| *end <= start);
        for end in &ends[from..] {
            if *end >= offsets.end {
                break;
            }
            if end.since(start) >= batch_size {
                put(start..*end);
                start = *end;
            }
        }
        put(start..offsets.end);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acquired_is_cut_where_batches_end() {
        let cut = |batch_size| {
            let offsets = Offset::new(2)..Offset::new(25);
            let acquired = [Acquired { offsets, count: 3 }];
            let ends = [5, 10, 15, 20, 30].map(Offset::new);
            let pieces = pieces(&acquired, &ends, batch_size);
            assert!(pieces.iter().all(|piece| piece.delivery_count == 3));
            let range = |piece: &AcquiredRecords| (piece.first_offset, piece.last_offset);
            pieces.iter().map(range).collect::<Vec<_>>()
        };
        assert_eq!(cut(8), [(2, 9), (10, 19), (20, 24)]);
        assert_eq!(cut(u64::MAX), [(2, 24)]);
    }
}
