use wire::Records;
use wire::messages::fetch::{FetchTopic, ForgottenTopic};

use super::*;

const VERSION: i16 = 12;

fn request(id: i32, epoch: i32, partitions: &[(i32, i64)], forgotten: &[i32]) -> FetchRequest {
    let wanted = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        ..FetchPartition::default()
    };
    let topic = "t".to_owned();
    FetchRequest {
        session_id: id,
        session_epoch: epoch,
        topics: vec![FetchTopic {
            topic: topic.clone(),
            partitions: partitions.iter().map(wanted).collect(),
            ..FetchTopic::default()
        }],
        forgotten_topics_data: vec![ForgottenTopic {
            topic,
            partitions: forgotten.to_vec(),
            ..ForgottenTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// What a broker finds whose partitions all end at `end`; those in `full` have records.
fn found(asked: impl IntoIterator<Item = Asked>, end: i64, full: &[i32]) -> Vec<Found> {
    let one = |asked: Asked| {
        let records = match full.contains(&asked.key.partition) {
            true => Records::from_slices(vec![vec![1; 70].into()]),
            false => Records::EMPTY,
        };
        let data = PartitionData {
            partition_index: asked.key.partition,
            high_watermark: end,
            records: Some(records),
            ..PartitionData::default()
        };
        Found {
            asked,
            data: Some(data),
            idle: None,
        }
    };
    asked.into_iter().map(one).collect()
}

fn create(sessions: &Sessions, partitions: i32, now: Instant) -> i32 {
    let all: Vec<(i32, i64)> = (0..partitions).map(|partition| (partition, 0)).collect();
    let request = request(NO_SESSION, EPOCH_INITIAL, &all, &[]);
    let begun = sessions.begin(&request, VERSION, now).unwrap();
    let Begun::New(watch) = begun else {
        panic!("a full fetch: {begun:?}");
    };
    let found = found(asked_of(&request), 0, &[]);
    sessions.create(VERSION, watch, &found, now)
}

fn next(sessions: &Sessions, request: &FetchRequest, now: Instant) -> Result<Next, Misuse> {
    match sessions.begin(request, VERSION, now)? {
        Begun::Next(next) => Ok(next),
        other => panic!("an incremental fetch: {other:?}"),
    }
}

fn order(next: &Next) -> Vec<(i32, i64)> {
    let asked = next.asked();
    let place = |asked: &Asked| (asked.key.partition, asked.wanted.fetch_offset);
    asked.iter().map(place).collect()
}

fn told(news: &[Found]) -> Vec<i32> {
    news.iter().map(|news| news.asked.key.partition).collect()
}

#[test]
fn an_incremental_fetch_names_what_changed_and_is_told_what_is_new() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let id = create(&sessions, 4, now);
    assert!(id > 0);

    // Nothing changed, and nothing is new.
    let first = next(&sessions, &request(id, 1, &[], &[]), now).unwrap();
    assert_eq!(order(&first), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    let news = first.finish(found(first.asked(), 0, &[])).unwrap();
    assert!(told(&news).is_empty());

    // Records of one partition: it is told, and goes to the end.
    let second = next(&sessions, &request(id, 2, &[], &[]), now).unwrap();
    let news = second.finish(found(second.asked(), 0, &[1])).unwrap();
    assert_eq!(told(&news), [1]);

    // It moves on, one is forgotten, one is new; and all of them end elsewhere now.
    let third = request(id, 3, &[(1, 9), (7, 5)], &[0]);
    let third = next(&sessions, &third, now).unwrap();
    assert_eq!(order(&third), [(2, 0), (3, 0), (1, 9), (7, 5)]);
    let news = third.finish(found(third.asked(), 10, &[])).unwrap();
    assert_eq!(told(&news), [2, 3, 1, 7]);
    let fourth = next(&sessions, &request(id, 4, &[], &[]), now).unwrap();
    let news = fourth.finish(found(fourth.asked(), 10, &[])).unwrap();
    assert!(told(&news).is_empty());
}

#[test]
fn trouble_is_told_every_time_and_its_end_once() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let id = create(&sessions, 1, now);
    for (epoch, error_code, is_told) in [(1, 6, true), (2, 6, true), (3, 0, true), (4, 0, false)] {
        let next = next(&sessions, &request(id, epoch, &[], &[]), now).unwrap();
        let mut found = found(next.asked(), 0, &[]);
        let data = found[0].data.as_mut().unwrap();
        data.error_code = error_code;
        let news = next.finish(found).unwrap();
        assert_eq!(news.len() == 1, is_told, "epoch {epoch}");
    }
}

#[test]
fn what_is_idle_is_not_told() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let id = create(&sessions, 2, now);
    let next = next(&sessions, &request(id, 1, &[], &[]), now).unwrap();
    let mut found = found(next.asked(), 5, &[]);
    found[0].data = None;
    assert_eq!(told(&next.finish(found).unwrap()), [1]);
}

#[test]
fn an_unknown_session_an_epoch_out_of_turn_and_a_change_of_names_are_refused() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let id = create(&sessions, 1, now);
    let begin = |request: &FetchRequest| sessions.begin(request, VERSION, now).err();
    let unknown = Some(Misuse::FetchSessionIdNotFound);
    assert_eq!(begin(&request(id ^ 1, 1, &[], &[])), unknown);
    assert_eq!(begin(&request(NO_SESSION, 1, &[], &[])), unknown);
    let out_of_turn = Some(Misuse::InvalidFetchSessionEpoch);
    for epoch in [2, -2, i32::MAX] {
        assert_eq!(begin(&request(id, epoch, &[], &[])), out_of_turn);
    }
    let by_id = sessions.begin(&request(id, 1, &[], &[]), 13, now);
    assert_eq!(by_id.err(), Some(Misuse::FetchSessionTopicId));

    // The refusals cost nothing, and an answer that another fetch has overtaken is not given.
    let slow = next(&sessions, &request(id, 1, &[], &[]), now).unwrap();
    assert_eq!(begin(&request(id, 1, &[], &[])), out_of_turn);
    let fast = next(&sessions, &request(id, 2, &[], &[]), now).unwrap();
    let overtaken = slow.finish(found(slow.asked(), 0, &[])).err();
    assert_eq!(overtaken, out_of_turn);
    assert!(fast.finish(found(fast.asked(), 0, &[])).is_ok());
}

#[test]
fn a_full_fetch_and_the_last_partition_forgotten_end_a_session() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    for epoch in [EPOCH_INITIAL, EPOCH_FINAL] {
        let id = create(&sessions, 2, now);
        let full = sessions.begin(&request(id, epoch, &[(0, 0)], &[]), VERSION, now);
        assert!(matches!(full, Ok(Begun::New(_) | Begun::Sessionless)));
        let gone = sessions.begin(&request(id, 1, &[], &[]), VERSION, now);
        assert_eq!(gone.err(), Some(Misuse::FetchSessionIdNotFound));
    }
    let id = create(&sessions, 2, now);
    let last = sessions.begin(&request(id, 1, &[], &[0, 1]), VERSION, now);
    assert!(matches!(last, Ok(Begun::Sessionless)));
    assert!(sessions.slots().by_id.is_empty());
    assert_eq!(sessions.slots().partitions, 0);
}

#[test]
fn epochs_begin_again_with_one() {
    assert_eq!(next_epoch(EPOCH_INITIAL), 1);
    assert_eq!(next_epoch(i32::MAX), 1);
}

#[test]
fn places_are_bounded_and_go_to_whoever_needs_them_more() {
    let (sessions, begin) = (Sessions::default(), Instant::now());
    let first = create(&sessions, 2, begin);
    let ids: Vec<i32> = (1..SLOTS_MAX)
        .map(|_| create(&sessions, 3, begin))
        .collect();
    assert!(!ids.contains(&NO_SESSION));
    assert_eq!(create(&sessions, 9, begin), NO_SESSION, "all are in use");

    // All are used, and old enough to make room for a larger one: the smallest goes, and no larger one.
    let used = begin + EVICTION_AGE;
    for id in ids.iter().chain([&first]) {
        next(&sessions, &request(*id, 1, &[], &[]), used).unwrap();
    }
    let later = used + Duration::from_secs(1);
    assert_eq!(create(&sessions, 2, later), NO_SESSION);
    assert_ne!(create(&sessions, 3, later), NO_SESSION);
    let gone = sessions.begin(&request(first, 2, &[], &[]), VERSION, later);
    assert_eq!(gone.err(), Some(Misuse::FetchSessionIdNotFound));
    assert_eq!(create(&sessions, 3, later), NO_SESSION, "none is smaller");

    // One that nobody uses any more makes room for any.
    let much_later = later + EVICTION_AGE;
    assert_ne!(create(&sessions, 1, much_later), NO_SESSION);
    assert_eq!(sessions.slots().by_id.len(), SLOTS_MAX);
}

#[test]
fn the_partitions_of_all_sessions_are_bounded() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let half = i32::try_from(PARTITIONS_MAX / 2).unwrap();
    let id = create(&sessions, half, now);
    assert_ne!(create(&sessions, half, now), NO_SESSION);
    assert_eq!(create(&sessions, 1, now), NO_SESSION);
    let more = request(id, 1, &[(half, 0)], &[]);
    let too_large = sessions.begin(&more, VERSION, now);
    assert_eq!(too_large.err(), Some(Misuse::FetchSessionIdNotFound));
    assert_ne!(create(&sessions, 1, now), NO_SESSION);
}
