//! Gaps that are told, and replays by key indexes against replays without.

use model::Timestamp;
use model::batch::{Batch, BatchBuilder, Codec, HeaderRef, NAME_HEADER};

use super::*;
use crate::broker::access::Protocol;
use crate::broker::replay::Scanned;
use crate::broker::scratch::Scratch;
use crate::broker::{Layout, NewTopic};
use crate::front::mqtt::packet::Qos;
use crate::front::mqtt::routes::Routes;
use crate::front::mqtt::subscriptions::Subscribed;
use crate::front::mqtt::topic::TopicFilter;

#[test]
fn a_gap_takes_no_other_ones_place_and_those_that_are_one_are_told_as_one() {
    let of = |partition, offsets: Range<u64>| Missing {
        partition: PartitionId::new(partition),
        offsets: Offset::new(offsets.start)..Offset::new(offsets.end),
    };
    let mut gaps = Vec::new();
    for new in [of(0, 0..5), of(3, 7..9), of(0, 5..8), of(0, 12..13)] {
        add_gap(&mut gaps, new);
    }
    let told: Vec<String> = gaps.iter().map(Missing::to_string).collect();
    assert_eq!(told, ["0:0..8", "3:7..9", "0:12..13"]);
}

/// How much is read for a filter, once there are key indexes.
#[derive(Clone, Copy)]
enum Reads {
    Few,
    Many,
    All,
}

/// Filters, whether something is called so, and how much is read for them.
const FILTERS: &[(&str, bool, Reads)] = &[
    ("site/40/temp", true, Reads::Few),
    ("site/96/temp", true, Reads::Few),
    ("site/97/temp", false, Reads::Few),
    ("$kafka/mqtt/site/40/temp", true, Reads::Few),
    ("$kafka/mqtt/", false, Reads::Few),
    // These are in every batch.
    ("site/3/temp", true, Reads::Many),
    ("x", false, Reads::Many),
    ("pump", false, Reads::Many),
    ("$kafka/mqtt/pump", true, Reads::Many),
    ("site/+/temp", true, Reads::All),
    ("$kafka/mqtt", true, Reads::All),
    ("$kafka/mqtt/#", true, Reads::All),
];

/// A topic in which records are called in all the ways that there are.
struct House {
    broker: Scratch,
    records: u64,
}

const PARTITIONS: u32 = 2;
const BATCH_RECORDS: u64 = 60;
const NAMES: u64 = 97;
const SEGMENT_BYTES: u64 = 300_000;

impl House {
    async fn new() -> House {
        let broker = Scratch::new();
        let own = broker.own_door(Protocol::Mqtt);
        let new = NewTopic {
            name: own.new_topic("mqtt").expect("a name"),
            layout: Layout::Counted {
                partitions: Some(PARTITIONS),
                replicas: None,
            },
            settings: vec![("segment.bytes".to_owned(), Some(SEGMENT_BYTES.to_string()))],
        };
        let created = broker.create_topics(vec![new], false).await;
        assert!(created[0].is_ok());
        House { broker, records: 0 }
    }

    fn topic(&self) -> Granted<Arc<Topic>, right::Read> {
        let own = self.broker.own_door(Protocol::Mqtt);
        own.topic("mqtt", right::Read).expect("it is there")
    }

    /// A batch of records of one name, some of which are called otherwise.
    async fn append(&mut self, number: u64) {
        let name = format!("site/{}/temp", number % NAMES);
        let name = name.as_bytes();
        let (header, other) = (NAME_HEADER.as_bytes(), &b"site/3/temp"[..]);
        let mut builder = BatchBuilder::new([Codec::None, Codec::Lz4][number as usize % 2]);
        for _ in 0..BATCH_RECORDS {
            let n = self.records;
            let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            let value = random.repeat(14);
            let all: (Option<&[u8]>, Option<&[u8]>, &[HeaderRef<'_>]) = match n % 31 {
                // Of a route whose key is another one, of now or of once; or of a Kafka client.
                0 => (Some(b"pump"), Some(&value), &[(header, Some(name))]),
                1 => (None, Some(&value), &[(b"unit", None), (header, Some(name))]),
                2 => (Some(b"pump"), None, &[(header, Some(name))]),
                // Its key is called otherwise.
                3 => (Some(name), Some(&value), &[(header, Some(other))]),
                4 => (Some(name), Some(&value), &[(header, Some(b"a/+"))]),
                5 => (
                    Some(other),
                    Some(&value),
                    &[(header, Some(name)), (header, Some(b"x"))],
                ),
                // A header that says nothing.
                6 => (
                    Some(name),
                    Some(&value),
                    &[(header, None), (header, Some(other))],
                ),
                // A tombstone, and what has no name.
                7 => (Some(name), None, &[]),
                8 => (Some(b"\xff"), Some(&value), &[]),
                9 => (None, Some(&value), &[]),
                _ => (Some(name), Some(&value), &[(b"mqtt.qos", Some(b"1"))]),
            };
            let time = Timestamp::from_millis(1_700_000_000_000 + n as i64);
            let pushed = builder.push(time, all.0, all.1, all.2);
            pushed.expect("small records");
            self.records += 1;
        }
        let batch = Batch::parse(builder.build().expect("a batch")).expect("just built");
        let partition = PartitionId::new((number % u64::from(PARTITIONS)) as u32);
        let log = self.topic().log_id(partition);
        self.broker.append_batch(log, batch).await;
    }

    async fn replay(&self, filter: Filter) -> (Vec<(PartitionId, Offset)>, Scanned) {
        let request = ReplayRequest {
            filter,
            ..ReplayRequest::default()
        };
        let begun = self.broker.replay(&self.topic(), request).await;
        let mut replay = begun.expect("it begins");
        let mut found = Vec::new();
        while let Some(block) = replay.next().await.expect("it goes on") {
            let of_block = block.iter().map(|it| (it.partition, it.record.offset));
            found.extend(of_block);
        }
        (found, replay.scanned())
    }

    /// Compares what filters are given with and without the key index, by keys that are names and by such that are not; gives how
    /// much was read with it, and without.
    async fn compare(&self, filters: &[(&str, bool, Reads)]) -> (u64, u64) {
        let keyed = r#"[{"filter": "{site}/#", "topic": "mqtt2", "key": "{site}"}]"#;
        let keyed = Routes::parse(keyed).expect("routes");
        let of_keyed = keyed.naming(&"mqtt2".parse().expect("a name"));
        let by_key = Routes::default().naming(&"mqtt".parse().expect("a name"));
        let by_header = Naming {
            topic: by_key.topic.clone(),
            ..of_keyed
        };
        assert!(by_key.keys_are_names && !by_header.keys_are_names);
        let (mut with, mut without) = (0, 0);
        for (filter, is_there, reads) in filters.iter().copied() {
            for naming in [&by_key, &by_header] {
                let subscriptions = Subscriptions::default();
                subscriptions.insert(Subscribed {
                    filter: TopicFilter::readable(filter).expect("a filter"),
                    qos: Qos::AtMostOnce,
                    no_local: false,
                    retain_as_published: false,
                    id: None,
                    since: [].into(),
                });
                let plain = wanted(&subscriptions, naming);
                let (expected, all) = self.replay(plain).await;
                let by_index = wanted_by_replay(&subscriptions, naming);
                let (found, read) = self.replay(by_index).await;
                assert!(found == expected, "{filter} {naming:?}");
                assert_eq!(!found.is_empty(), is_there, "{filter} {naming:?}");
                assert_eq!(all.skipped_bytes, 0);
                assert!(read.bytes <= all.bytes, "{filter}");
                match reads {
                    Reads::Few => (with, without) = (with + read.bytes, without + all.bytes),
                    Reads::Many => {}
                    Reads::All => assert_eq!(read.skipped_bytes, 0, "{filter}"),
                }
            }
        }
        (with, without)
    }

    /// Compares until there are key indexes, by which less is read: one filter, and then all.
    async fn compare_until_indexed(&self) {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            let (with, without) = self.compare(&FILTERS[..1]).await;
            if with * 2 < without {
                break;
            }
            assert!(Instant::now() < until, "{with} of {without} bytes are read");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (with, without) = self.compare(FILTERS).await;
        assert!(with * 2 < without, "{with} of {without} bytes are read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_one_name_gives_by_key_indexes_what_it_gives_without_and_reads_less() {
    let mut house = House::new().await;
    for number in 0..450 {
        house.append(number).await;
    }
    house.compare_until_indexed().await;
    // The same where cleanup has taken records, and made other segments.
    let topic = house.topic();
    let partitions = (0..PARTITIONS).map(PartitionId::new);
    let removed = partitions.map(|it| house.broker.compact(topic.log_id(it), SEGMENT_BYTES));
    assert!(removed.sum::<u64>() > 0);
    for number in 450..600 {
        house.append(number).await;
    }
    house.compare_until_indexed().await;
}
