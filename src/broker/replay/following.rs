//! Subscriptions over a store that settles as it likes: each record once, gaps told, and nothing missed where one resumes.

use std::time::Duration;

use model::Timestamp;
use model::batch::Codec;

use super::tests::House;
use super::*;

fn everything(resume: Option<Vec<Resume>>) -> FollowRequest {
    FollowRequest {
        partitions: None,
        from: Place::Earliest,
        resume,
        filter: Filter::default(),
        order: Order::Offset,
    }
}

fn subscription(house: &House, request: FollowRequest) -> Subscription {
    house.broker.follow(&house.topic(), request).unwrap()
}

/// What an event tells: partition and offsets.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Records(u32, Vec<u64>),
    Gap(u32, std::ops::Range<u64>, GapReason),
    CaughtUp,
}

async fn next(subscription: &mut Subscription) -> Told {
    let event = tokio::time::timeout(Duration::from_secs(60), subscription.next());
    match event.await.expect("an event comes").unwrap() {
        Event::CaughtUp => Told::CaughtUp,
        Event::Gap(gap) => {
            let offsets = gap.offsets.start.get()..gap.offsets.end.get();
            Told::Gap(gap.partition.get(), offsets, gap.reason)
        }
        Event::Records(block) => {
            let offsets = block.iter().map(|found| found.record.offset.get());
            let partition = block.get(0).unwrap().partition.get();
            Told::Records(partition, offsets.collect())
        }
    }
}

/// All records up to where it is caught up.
async fn caught_up(subscription: &mut Subscription) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    loop {
        match next(subscription).await {
            Told::Records(partition, offsets) => {
                found.extend(offsets.into_iter().map(|offset| (partition, offset)));
            }
            Told::CaughtUp => return found,
            Told::Gap(..) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_comes_first_and_then_what_comes() {
    let mut house = House::new(2);
    house.append(0, Codec::None, &[(1, 1), (2, 1)]).await;
    let mut follower = subscription(&house, everything(None));
    assert_eq!(next(&mut follower).await, Told::Records(0, vec![0, 1]));
    assert_eq!(next(&mut follower).await, Told::CaughtUp);
    // A call that is given up loses nothing.
    let soon = tokio::time::timeout(Duration::from_millis(5), follower.next());
    assert!(soon.await.is_err());
    house.append(1, Codec::Zstd, &[(3, 1)]).await;
    assert_eq!(next(&mut follower).await, Told::Records(1, vec![0]));
    assert_eq!(next(&mut follower).await, Told::CaughtUp);
    house.append(0, Codec::Lz4, &[(4, 1)]).await;
    assert_eq!(next(&mut follower).await, Told::Records(0, vec![2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_resumes_anywhere_gets_the_rest_and_nothing_twice() {
    let mut house = House::new(3);
    for round in 0..30 {
        let codec = [Codec::None, Codec::Lz4][round as usize % 2];
        house
            .append(round % 3, codec, &[(5, 1), (6, 2), (7, 3)])
            .await;
    }
    for order in [Order::Offset, Order::Time] {
        for cut in 0..20 {
            let request = FollowRequest {
                order,
                ..everything(None)
            };
            let mut follower = subscription(&house, request);
            let mut found = Vec::new();
            for _ in 0..cut {
                match next(&mut follower).await {
                    Told::Records(partition, offsets) => {
                        found.extend(offsets.into_iter().map(|offset| (partition, offset)));
                    }
                    Told::CaughtUp => break,
                    other => panic!("{other:?}"),
                }
            }
            let mut rest = subscription(&house, everything(Some(follower.position())));
            found.extend(caught_up(&mut rest).await);
            found.sort_unstable();
            let expected: Vec<_> = (0..3)
                .flat_map(|partition| (0..30).map(move |offset| (partition, offset)))
                .collect();
            assert_eq!(found, expected, "cut after {cut} events, {order:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partition_that_is_begun_with_is_read_to_its_end_and_then_all_have_turns() {
    let mut house = House::new(3);
    for round in 0..9 {
        house.append(round % 3, Codec::None, &[(5, 1)]).await;
    }
    let mut follower = subscription(&house, everything(None));
    follower.begin_with(PartitionId::new(2));
    let mut found = Vec::new();
    while found.len() < 9 {
        match next(&mut follower).await {
            Told::Records(partition, offsets) => {
                found.extend(offsets.into_iter().map(|offset| (partition, offset)));
                // What comes to it meanwhile is not what it had: others are not kept from their turns.
                house.append(2, Codec::None, &[(6, 1)]).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(found[..3], [(2, 0), (2, 1), (2, 2)]);
    let others = found[3..].iter().filter(|(partition, _)| *partition != 2);
    assert!(others.count() > 0, "{found:?}");
    let mut rest = caught_up(&mut follower).await;
    rest.extend(found);
    rest.retain(|(partition, _)| *partition != 2);
    rest.sort_unstable();
    let expected: Vec<_> = (0..2)
        .flat_map(|partition| (0..3).map(move |offset| (partition, offset)))
        .collect();
    assert_eq!(rest, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_overtaken_by_a_removal_is_told_what_is_gone() {
    let mut house = House::new(1);
    house.append(0, Codec::None, &[(1, 1), (2, 1)]).await;
    let mut follower = subscription(&house, everything(None));
    assert_eq!(next(&mut follower).await, Told::Records(0, vec![0, 1]));
    for millis in 3..10 {
        house.append(0, Codec::None, &[(millis, 1)]).await;
    }
    let topic = house.topic();
    let log = topic.log(PartitionId::new(0)).unwrap();
    log.delete_records(Offset::new(6)).unwrap().await.unwrap();
    assert_eq!(
        next(&mut follower).await,
        Told::Gap(0, 2..6, GapReason::Removed)
    );
    assert_eq!(caught_up(&mut follower).await, [(0, 6), (0, 7), (0, 8)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_behind_the_end_is_told_that_the_log_was_cut() {
    let mut house = House::new(1);
    house.append(0, Codec::None, &[(1, 1), (2, 1)]).await;
    let behind = Resume {
        partition: PartitionId::new(0),
        offset: Offset::new(5),
        since: None,
    };
    let mut follower = subscription(&house, everything(Some(vec![behind])));
    assert_eq!(
        next(&mut follower).await,
        Told::Gap(0, 2..5, GapReason::Rewound)
    );
    assert_eq!(next(&mut follower).await, Told::CaughtUp);
    house.append(0, Codec::None, &[(3, 1)]).await;
    assert_eq!(next(&mut follower).await, Told::Records(0, vec![2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_bounds_what_was_there_and_not_what_comes() {
    let mut house = House::new(1);
    house
        .append(0, Codec::None, &[(100, 1), (200, 1), (50, 1), (300, 1)])
        .await;
    let request = FollowRequest {
        from: Place::Time(Timestamp::from_millis(150)),
        ..everything(None)
    };
    let mut follower = subscription(&house, request);
    assert_eq!(
        follower.position()[0].since,
        Some((Offset::new(4), Timestamp::from_millis(150)))
    );
    // One that resumes before it has read what was there leaves out the same.
    let mut later = subscription(&house, everything(Some(follower.position())));
    house.append(0, Codec::None, &[(10, 1)]).await;
    for follower in [&mut follower, &mut later] {
        assert_eq!(caught_up(follower).await, [(0, 1), (0, 3), (0, 4)]);
        assert_eq!(follower.position()[0].since, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_take_turns_by_the_time_of_their_next_records() {
    let mut house = House::new(2);
    house
        .append(0, Codec::None, &[(10, 1), (30, 1), (20, 1), (50, 1)])
        .await;
    house.append(1, Codec::None, &[(15, 1), (40, 1)]).await;
    let request = FollowRequest {
        order: Order::Time,
        ..everything(None)
    };
    let mut follower = subscription(&house, request);
    assert_eq!(
        caught_up(&mut follower).await,
        [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_the_topic_gets_are_followed_too() {
    let mut house = House::new(1);
    let mut follower = subscription(&house, everything(None));
    assert_eq!(next(&mut follower).await, Told::CaughtUp);
    let topic = Granted::<(), right::Alter>::on(house.broker.topic("readings").unwrap());
    house
        .broker
        .grow_topic(&topic, 2, None, false)
        .await
        .unwrap();
    house.append(1, Codec::None, &[(1, 1)]).await;
    assert_eq!(next(&mut follower).await, Told::Records(1, vec![0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_topic_ends_a_subscription() {
    let mut house = House::new(1);
    house.append(0, Codec::None, &[(1, 1)]).await;
    let mut follower = subscription(&house, everything(None));
    assert_eq!(caught_up(&mut follower).await, [(0, 0)]);
    let topic = Granted::<(), right::Delete>::on(house.broker.topic("readings").unwrap());
    let deleted = house.broker.delete_topics(vec![topic]).await;
    assert!(deleted[0].is_ok());
    let ended = tokio::time::timeout(Duration::from_secs(60), follower.next()).await;
    assert!(matches!(ended.unwrap(), Err(ReplayError::Refused(_))));
}
