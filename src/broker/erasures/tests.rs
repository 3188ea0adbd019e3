//! Erasures on a broker over a small store: their records and receipts to the byte, what is taken and what is not, and that each
//! phase is gone on with after a kill.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::batch::{Batch, BatchBuilder, Codec, crc32c};
use storage::{Env, Storage, StorageConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use witness::Report;

use super::book::Book;
use super::record::Doing;
use super::*;
use crate::broker::access::{Door, Principal, Protocol};
use crate::broker::holds::NewHold;
use crate::broker::server_settings::ServerSettings;
use crate::broker::state_log::StateRecord as _;
use crate::broker::{BrokerConfig, Layout, NewTopic};

/// Written by hand after `docs/formats.md`, its hashes by Python's hashlib.
const GOLDEN: &str = include_str!("golden/erasures.v1");
const KEY: &[u8] = b"a-device-that-is-erased";
const OTHER: &[u8] = b"a-device-that-stays";
const A_MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_golden_records_are_read_and_written_to_the_byte() {
    let mut kinds = BTreeMap::new();
    for row in GOLDEN.lines() {
        let (key, value) = row.split_once('\t').expect("a key and a value");
        let written = read_again(key.as_bytes(), value.as_bytes()).expect(row);
        assert_eq!(written.0, key.as_bytes());
        assert_eq!(std::str::from_utf8(&written.1), Ok(value));
        let (kind, _) = key.split_once('/').expect("a kind");
        *kinds.entry(kind).or_insert(0) += 1;
    }
    let counts: Vec<_> = kinds.into_iter().collect();
    let expected = [
        ("erasure", 8),
        ("erasure-part", 2),
        ("erasure-wanted", 1),
        ("receipt", 2),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn the_golden_receipts_are_a_chain_and_what_is_written_of_the_same_erasures() {
    let book = book_of_golden();
    let lines: Vec<&str> = book.receipts.values().map(|line| &**line).collect();
    let chain = witness::receipts::check(lines.iter().copied()).expect("a whole chain");
    assert_eq!(chain.count, 2);
    let store = uuid::Uuid::from_u128(0xfedc_ba98_7654_4321_8fed_cba9_8765_4321);
    let done = |records, segments, windows, undecodable: &[(u64, &str)]| PartDone {
        records,
        segments,
        windows,
        undecodable: undecodable.iter().map(|_| 2).sum(),
        undecodable_listed: (undecodable.iter())
            .map(|(offset, reason)| Unreadable {
                offset: *offset,
                reason: (*reason).to_owned(),
            })
            .collect(),
        ..PartDone::new()
    };
    let unread = |file: &str, position, offset, reason: &str| witness::Unread {
        file: PathBuf::from(file),
        position,
        offset,
        reason: reason.to_owned(),
    };
    let report = Report {
        files: 12,
        bytes: 345_678,
        batches: 90,
        records: 1234,
        unread: vec![
            unread(
                "p/00/01234567-89ab-4cde-8f01-23456789abcd-1/00000000000000000000.log",
                61,
                Some(17),
                "codec 7 is not known",
            ),
            unread(
                "wal/00000000000000000001.wal",
                4096,
                None,
                "it is no plain file",
            ),
        ],
        unread_count: 2,
        ..Report::default()
    };
    let first = receipt::write(
        &book.erasures["1a2b3c4d5e6f"],
        Outcome::Done,
        &receipt::Facts {
            number: 1,
            previous: None,
            store,
            now_ms: 1_700_000_001_000,
            parts: &[
                done(7, 2, 3, &[]),
                done(0, 0, 0, &[(17, "codec 7 is not known")]),
            ],
            verified: Some(&report),
        },
    );
    assert_eq!(first, lines[0]);
    let hash = witness::receipts::hash_of(&first).expect("a receipt");
    let second = receipt::write(
        &book.erasures["3a2b3c4d5e6f"],
        Outcome::Cancelled,
        &receipt::Facts {
            number: 2,
            previous: Some(&hash),
            store,
            now_ms: 1_700_000_003_000,
            parts: &[done(3, 1, 2, &[])],
            verified: None,
        },
    );
    assert_eq!(second, lines[1]);
}

/// What a start makes of the golden records.
fn book_of_golden() -> Book {
    let mut book = Book::default();
    for row in GOLDEN.lines() {
        let (key, value) = row.split_once('\t').expect("a key and a value");
        let record = ErasureRecord::decode(key.as_bytes(), value.as_bytes());
        book.take(record.expect("it is known"));
    }
    book
}

#[test]
fn the_last_record_of_a_key_counts_and_what_is_gone_is_forgotten() {
    let mut book = book_of_golden();
    assert_eq!(book.erasures["1a2b3c4d5e6f"].phase, Phase::Ended);
    assert_eq!(book.open().count(), 0);
    let id = || "1a2b3c4d5e6f".to_owned();
    assert_eq!(book.wanted[&id()], ["device-17".as_bytes(), b"\0\xff"]);
    book.take(ErasureRecord::WantedGone(id()));
    book.take(ErasureRecord::PartGone(id(), 0));
    assert_eq!(book.parts[&id()].len(), 1);
    book.take(ErasureRecord::PartGone(id(), 1));
    book.take(ErasureRecord::ErasureGone(id()));
    assert!(book.wanted.is_empty() && book.parts.is_empty());
    assert_eq!((book.erasures.len(), book.receipts.len()), (2, 2));
}

#[test]
fn one_that_does_not_go_on_is_left_alone_for_longer_and_longer() {
    let at = Timestamp::from_millis;
    let mut before: Option<Stopped> = None;
    let mut waits = Vec::new();
    for now in (0..9).map(|turn| turn * 1_000_000) {
        let stopped = Stopped::because("damaged", "a sector").after(before.as_ref(), at(now));
        assert!(!stopped.is_due(at(now)) && stopped.is_due(stopped.retry_at));
        waits.push(stopped.retry_at.millis() - now);
        before = Some(stopped);
    }
    let seconds = [1, 2, 4, 8, 16, 32, 60, 60, 60];
    assert_eq!(waits, seconds.map(|seconds| seconds * 1000));
    assert_eq!(before.map(|stopped| stopped.tries), Some(9));
}

/// A broker with a topic of a partition, in a directory that outlives it.
struct House {
    directory: TempDir,
    broker: Option<(Broker, Storage)>,
}

impl House {
    async fn new() -> House {
        let mut house = House {
            directory: tempfile::tempdir().expect("a directory"),
            broker: None,
        };
        house.open();
        let new = NewTopic {
            name: house.door().new_topic("readings").expect("a free name"),
            layout: Layout::Counted {
                partitions: Some(1),
                replicas: None,
            },
            settings: vec![("segment.bytes".to_owned(), Some("20000".to_owned()))],
        };
        let created = house.broker().create_topics(vec![new], false).await;
        assert!(created[0].is_ok(), "{created:?}");
        house
    }

    fn log(&self) -> Arc<storage::Log> {
        let topic = self.broker().topic("readings").expect("a topic");
        Arc::clone(topic.log(PartitionId::new(0)).expect("a log"))
    }

    fn open(&mut self) {
        let mut config = StorageConfig::new(self.directory.path());
        config.wal_file_bytes = 1 << 20;
        config.wal_files_min = 2;
        let (storage, _) = Storage::open(config, Env::real()).expect("a store");
        let (config, server) = (BrokerConfig::default(), ServerSettings::default());
        let broker =
            Broker::open(config, server, |_| None, storage.clone()).expect("a sound store");
        self.broker = Some((broker, storage));
    }

    fn broker(&self) -> &Broker {
        &self.broker.as_ref().expect("it is open").0
    }

    fn erasures(&self) -> &Erasures {
        self.broker().erasures_of()
    }

    fn door(&self) -> Door {
        self.broker().door(Caller {
            principal: Principal::Anonymous,
            address: ([127, 0, 0, 1], 1).into(),
            client_id: None,
            protocol: Protocol::Http,
        })
    }

    fn cluster<R: crate::broker::access::RightOn<Cluster>>(&self) -> Granted<Cluster, R> {
        Granted::<(), R>::on(Cluster)
    }

    async fn append(&self, batch: Batch) -> u64 {
        let admission = self.broker().storage().admit(batch.bytes().len()).await;
        let appended = self
            .log()
            .append(vec![batch.into()], admission)
            .expect("taken");
        appended.durable.await.expect("durable");
        appended.base_offset.get()
    }

    /// Appends so many batches of a record of each key; gives how many are the erased one's.
    async fn fill(&self, batches: usize) -> u64 {
        for number in 0..batches {
            let codec = Codec::ALL[number % Codec::ALL.len()];
            self.append(batch(codec, &[KEY, OTHER])).await;
        }
        batches as u64
    }

    async fn ask(&self, new: NewErasure) -> Result<ErasureState, ErasureError> {
        let door = self.door();
        let topic = door.topic("readings", right::DeleteRecords)?;
        self.broker()
            .request_erasure(&topic, new, door.caller())
            .await
    }

    /// The id of an erasure of the key.
    async fn asked(&self) -> String {
        let new = NewErasure {
            keys: vec![Bytes::from_static(KEY)],
            ..NewErasure::default()
        };
        self.ask(new).await.expect("taken").erasure.id.clone()
    }

    fn run(&self) -> Running {
        let (stop, stopped) = watch::channel(false);
        let broker = self.broker().clone();
        let task = tokio::spawn(async move { broker.run_erasures(stopped).await });
        Running { stop, task }
    }

    /// As soon as it is over or does not go on.
    async fn state(&self, id: &str) -> ErasureState {
        let state = self.broker().erasure(&self.cluster(), id, A_MINUTE).await;
        state.expect("it is known")
    }

    async fn over(&self, id: &str) -> Arc<Erasure> {
        let mut changed = self.erasures().changed.subscribe();
        let over = async {
            loop {
                let erasure = self.erasures().locked().erasures[id].clone();
                if erasure.is_ended() {
                    return erasure;
                }
                changed.changed().await.expect("the broker lives");
            }
        };
        let over = tokio::time::timeout(A_MINUTE, over).await;
        over.unwrap_or_else(|_| panic!("{:?}", self.erasures().locked().stopped.get(id)))
    }

    async fn set(&self, id: &str, change: impl FnOnce(&mut Erasure)) {
        let changed = self.erasures().change(id, |erasure| {
            change(erasure);
            true
        });
        changed.await.expect("written").expect("it is known");
    }

    fn receipts(&self) -> Vec<serde_json::Value> {
        let receipts = self.broker().receipts(&self.cluster());
        let lines = receipts.iter().map(|line| &**line);
        witness::receipts::check(lines).expect("a whole chain");
        (receipts.iter())
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Places where the key is left, by the search that shares no code with the engine.
    fn left(&self) -> Report {
        let quest = witness::Quest {
            keys: vec![KEY.to_vec()],
            topic: None,
            before: None,
        };
        witness::search(self.directory.path(), &quest, &mut |_| true).expect("it is readable")
    }

    fn close(&mut self) {
        if let Some((broker, storage)) = self.broker.take() {
            drop(broker);
            storage.shutdown();
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.close();
    }
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("it ends");
    }
}

fn batch(codec: Codec, keys: &[&[u8]]) -> Batch {
    let mut builder = BatchBuilder::new(codec);
    for key in keys {
        let time = Timestamp::from_millis(5);
        builder
            .push(time, Some(key), Some(&[b'v'; 400]), &[])
            .expect("small");
    }
    Batch::parse(builder.build().expect("small")).expect("whole")
}

/// A batch whose checksum is right, changed by somebody who did not mean well.
fn changed(batch: &Batch, change: impl FnOnce(&mut Vec<u8>)) -> Batch {
    let mut bytes = batch.bytes().to_vec();
    change(&mut bytes);
    let checksum = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    Batch::parse(bytes.into()).expect("its checksum is right")
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let house = House::new().await;
    let keys = |count: usize| vec![Bytes::from_static(KEY); count];
    let refused = [
        NewErasure::default(),
        NewErasure {
            keys: keys(KEYS_MAX + 1),
            ..NewErasure::default()
        },
        NewErasure {
            keys: keys(1),
            reason: Some("x".repeat(REASON_BYTES_MAX + 1)),
            ..NewErasure::default()
        },
        NewErasure {
            keys: keys(1),
            partition: Some(PartitionId::new(1)),
            ..NewErasure::default()
        },
    ];
    for new in refused {
        let what = format!("{new:?}");
        assert!(house.ask(new).await.is_err(), "{what}");
    }
    assert!(house.broker().erasures(&house.cluster()).is_empty());
    assert_eq!(house.erasures().log.size_of([]).bytes, 0);
    let largest = NewErasure {
        keys: keys(KEYS_MAX),
        reason: Some("x".repeat(REASON_BYTES_MAX)),
        partition: Some(PartitionId::new(0)),
        ..NewErasure::default()
    };
    let asked = house.ask(largest).await.expect("taken");
    assert_eq!(asked.erasure.keys.len(), KEYS_MAX);
}

#[tokio::test]
async fn so_many_wait_at_most_and_one_that_is_cancelled_forgets_its_key_without_a_receipt() {
    let house = House::new().await;
    let mut ids = Vec::new();
    for _ in 0..WAITING_MAX {
        ids.push(house.asked().await);
    }
    let new = NewErasure {
        keys: vec![Bytes::from_static(KEY)],
        ..NewErasure::default()
    };
    let more = house.ask(new).await;
    assert!(
        matches!(more, Err(ErasureError::TooMany { waiting }) if waiting == WAITING_MAX),
        "{more:?}"
    );
    assert!(!house.erasures().locked().wanted.is_empty());
    let door = house.door();
    for id in &ids {
        let cancelled = house
            .broker()
            .cancel_erasure(&house.cluster(), id, door.caller())
            .await;
        let cancelled = cancelled.expect("it waits");
        assert_eq!(cancelled.erasure.outcome, Some(Outcome::Cancelled));
    }
    let running = house.run();
    for id in &ids {
        let over = house.over(id).await;
        assert_eq!(
            (over.outcome, over.receipt),
            (Some(Outcome::Cancelled), None)
        );
        let receipt = house.broker().receipt(&house.cluster(), id);
        assert!(matches!(receipt, Err(ErasureError::NoReceipt(_))));
        let late = house
            .broker()
            .cancel_erasure(&house.cluster(), id, door.caller())
            .await;
        assert!(matches!(late, Err(ErasureError::TooLate(_))));
    }
    running.end().await;
    assert!(house.erasures().locked().wanted.is_empty());
    assert_eq!(house.receipts().len(), 0);
}

/// Before each phase the broker was killed; what a phase should have done was not: also then nothing of the key is left.
#[tokio::test]
async fn it_goes_on_from_every_phase_and_the_search_finds_what_was_left_out() {
    for phase in [
        Phase::Looking,
        Phase::Erasing,
        Phase::Purging,
        Phase::Verifying,
    ] {
        let mut house = House::new().await;
        let of_key = house.fill(60).await;
        let id = house.asked().await;
        house.set(&id, |erasure| erasure.phase = phase).await;
        house.close();
        house.open();
        assert!(house.left().hit_count > 0);
        let running = house.run();
        if phase == Phase::Verifying {
            let stopped = house.state(&id).await.stopped.expect("it does not end");
            assert_eq!(stopped.code, "found", "{}", stopped.detail);
        }
        let over = house.over(&id).await;
        assert_eq!(over.outcome, Some(Outcome::Done), "{phase:?}");
        running.end().await;
        let report = house.left();
        assert!(report.is_clean(), "{phase:?}: {report:?}");
        let receipts = house.receipts();
        assert_eq!(receipts.len(), 1);
        assert_eq!(receipts[0]["records_erased"], of_key, "{phase:?}");
        assert_eq!(house.log().bounds().durable_end.get(), 2 * of_key);
    }
}

#[tokio::test]
async fn a_kill_behind_the_receipt_makes_no_second_one() {
    for is_forgetting in [false, true] {
        let mut house = House::new().await;
        house.fill(10).await;
        let id = house.asked().await;
        // As the append of the conclusion leaves it, or as an append that was cut behind its first record would.
        let mut erasure = Erasure::clone(&house.erasures().locked().erasures[&id]);
        let facts = receipt::Facts {
            number: 1,
            previous: None,
            store: house.broker().storage().store_id(),
            now_ms: 5,
            parts: &[PartDone::new()],
            verified: None,
        };
        let text = receipt::write(&erasure, Outcome::Done, &facts);
        let mut records = vec![ErasureRecord::Receipt(1, text.clone().into())];
        if is_forgetting {
            erasure.phase = Phase::Forgetting;
            erasure.outcome = Some(Outcome::Done);
            erasure.receipt = Some(1);
            records.push(ErasureRecord::Erasure(Arc::new(erasure)));
        }
        let written = house.erasures().write_together(records).await;
        written.expect("written");
        house.close();
        house.open();
        let running = house.run();
        let over = house.over(&id).await;
        running.end().await;
        assert_eq!(over.receipt, Some(1));
        assert_eq!(house.receipts().len(), 1, "forgetting: {is_forgetting}");
        let receipt = house.broker().receipt(&house.cluster(), &id);
        assert_eq!(receipt.expect("there is one").as_ref(), text);
        assert!(house.erasures().locked().wanted.is_empty());
    }
}

/// What was under way when the kill came is counted if the segment is not there any more, and not if it is.
#[tokio::test]
async fn a_segment_that_was_under_way_is_counted_once() {
    let house = House::new().await;
    house.fill(60).await;
    let id = house.asked().await;
    let running = house.run();
    house.over(&id).await;
    running.end().await;
    let live = house.broker().storage().sealed_segments(house.log().id());
    let live = live.first().expect("a segment").id;
    assert!(live.generation > 0, "it was written again");
    let before = storage::segment::SegmentId {
        generation: live.generation - 1,
        ..live
    };
    for (segment, counted) in [(live, 0), (before, 4)] {
        let id = house.asked().await;
        let doing = Doing::of(&storage::cleanup::erase::Found {
            segment,
            offsets: model::Offset::ZERO..model::Offset::new(9),
            records: 4,
            windows: 2,
            unreadable_summary: false,
        });
        let done = PartDone {
            doing: Some(doing),
            ..PartDone::new()
        };
        let part = ErasureRecord::Part(id.clone(), 0, done);
        house.erasures().write(vec![part]).await.expect("written");
        house
            .set(&id, |erasure| erasure.phase = Phase::Erasing)
            .await;
        let running = house.run();
        house.over(&id).await;
        running.end().await;
        let receipts = house.receipts();
        let receipt = receipts.last().expect("a receipt");
        assert_eq!(receipt["records_erased"], counted, "{receipt}");
        assert_eq!(receipt["windows_erased"], counted / 2, "{receipt}");
    }
}

#[tokio::test]
async fn a_hold_that_comes_in_the_middle_stops_it_until_it_is_removed() {
    let house = House::new().await;
    let of_key = house.fill(60).await;
    let id = house.asked().await;
    house
        .set(&id, |erasure| erasure.phase = Phase::Erasing)
        .await;
    let door = house.door();
    let topic = Granted::<(), right::Hold>::on(house.broker().topic("readings").expect("a topic"));
    let new = NewHold {
        partition: None,
        key: None,
        from: None,
        to: None,
        reason: "case 12".to_owned(),
        expires: None,
    };
    let hold = house.broker().add_hold(&topic, new, door.caller()).await;
    let hold = hold.expect("added");
    let running = house.run();
    let stopped = house.state(&id).await.stopped.expect("it does not go on");
    assert_eq!(stopped.code, stopped::HELD);
    assert!(stopped.detail.contains("case 12"), "{}", stopped.detail);
    assert_eq!(house.erasures().locked().parts[&id][&0].records, 0);
    assert_eq!(house.broker().open_erasures(), (1, 1));
    let removed = house
        .broker()
        .remove_hold(&house.cluster(), &hold.id, door.caller())
        .await;
    removed.expect("it was there");
    let over = house.over(&id).await;
    assert_eq!(over.outcome, Some(Outcome::Done));
    running.end().await;
    assert!(house.left().is_clean());
    assert_eq!(house.receipts()[0]["records_erased"], of_key);
}

#[tokio::test]
async fn batches_that_cannot_be_read_stay_and_the_receipt_names_each() {
    let house = House::new().await;
    let of_key = house.fill(20).await;
    let unknown = changed(&batch(Codec::None, &[KEY]), |bytes| bytes[22] |= 7);
    let cut = changed(&batch(Codec::Zstd, &[KEY, OTHER]), |bytes| {
        bytes[70..].fill(0xa5);
    });
    let longer = changed(&batch(Codec::None, &[KEY, OTHER]), |bytes| {
        // The second record has a header that is not there.
        *bytes.last_mut().expect("the count of its headers") = 2;
    });
    let mut expected = Vec::new();
    for batch in [&unknown, &cut, &longer] {
        expected.push(house.append(batch.clone()).await);
    }
    let id = house.asked().await;
    let running = house.run();
    let over = house.over(&id).await;
    assert_eq!(over.outcome, Some(Outcome::Done));
    running.end().await;
    let receipts = house.receipts();
    let receipt = &receipts[0];
    assert_eq!(receipt["records_erased"], of_key, "{receipt}");
    assert_eq!(receipt["undecodable"], 3, "{receipt}");
    let named = receipt["partitions"][0]["undecodable"].as_array();
    let offsets: Vec<_> = (named.expect("they are listed").iter())
        .map(|one| one["offset"].as_u64().expect("a number"))
        .collect();
    assert_eq!(offsets, expected);
    let verified = &receipt["verified"];
    assert_eq!(
        (verified["found"].as_u64(), verified["unread"].as_u64()),
        (Some(0), Some(3)),
        "{receipt}"
    );
    // Of the last one it is known that it has a record of the key, and both say so.
    let named = "of what can be read 1 records have a key";
    for listed in [
        &receipt["partitions"][0]["undecodable"][2],
        &verified["unread_listed"][2],
    ] {
        let reason = listed["reason"].as_str().expect("a reason");
        assert!(reason.contains(named), "{receipt}");
    }
    assert!(!house.left().is_clean());
    // Where it would not stay, it is a find.
    let aside = house.directory.path().join("quarantine/left.log.0");
    std::fs::create_dir_all(aside.parent().expect("a directory")).expect("made");
    std::fs::write(&aside, longer.bytes()).expect("written");
    let id = house.asked().await;
    let running = house.run();
    let over = house.over(&id).await;
    running.end().await;
    assert_eq!(over.outcome, Some(Outcome::Refused));
    let detail = over.detail.as_deref().expect("a reason");
    assert!(detail.contains("left.log.0"), "{detail}");
}
