//! What thinning promises, on random records, and against an oracle that computes each tier's choice record by record from the
//! words of the setting.

use model::topic_config::thin::ThinTiers;
use model::{LogId, Offset, PartitionId, Timestamp, TopicId};
use proptest::prelude::*;

use super::*;
use crate::cleanup::{Hold, LogView, SegmentView};
use crate::manifest::SegmentKind;
use crate::segment::SegmentId;
use crate::segment::summary::{self, Stats, Summary, Window, WindowKey};

/// A record of a test: its offset is its place in the list.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    offset: u64,
    key: Option<u8>,
    time: i64,
    appended: i64,
    /// Cells of a line: a value, a state. None is a value that cannot be read.
    value: Option<(i64, u8)>,
}

fn policy(tiers: &str) -> ThinPolicy {
    ThinPolicy::new(&tiers.parse::<ThinTiers>().expect(tiers)).expect("there are tiers")
}

fn line(record: &Record) -> String {
    match record.value {
        // Tenths, so that bands have edges in floats.
        Some((value, state)) => {
            let sign = if value < 0 { "-" } else { "" };
            format!("{sign}{}.{},s{state}", value.abs() / 10, value.abs() % 10)
        }
        None => "?".to_owned(),
    }
}

fn piece<'p>(policy: &'p ThinPolicy, records: &[Record], summary: Option<&Summary>) -> Piece<'p> {
    let mut piece = Piece::new(policy, 1 << 20, 1_000);
    if let Some(section) = summary {
        piece.begin_section(section, Some(Offset::ZERO));
    }
    for record in records {
        let key = record.key.map(|key| [key]);
        piece.push(Sample {
            offset: Offset::new(record.offset),
            key: key.as_ref().map(|key| &key[..]),
            time: Timestamp::from_millis(record.time),
            appended: Timestamp::from_millis(record.appended),
            value: Some(line(record).as_bytes()),
        });
    }
    piece
}

const ALL: std::ops::Range<Offset> = Offset::ZERO..Offset::new(1_000);

/// The records that are left.
fn thin(policy: &ThinPolicy, records: &[Record], now: i64) -> Vec<Record> {
    let now = Timestamp::from_millis(now);
    let decided = piece(policy, records, None).decide(now, now);
    stay(&decided, records)
}

/// Without those that go.
fn stay(decided: &Decided<'_>, records: &[Record]) -> Vec<Record> {
    let mut going = decided.going(Offset::ZERO);
    let mut stays = |record: &&Record| !going.goes(Offset::new(record.offset));
    records.iter().filter(|it| stays(it)).cloned().collect()
}

const TIERS: &str = "100ms:10ms:first+last+min(csv1)+max(csv1)+change(csv1 by 0.2)+if(csv2 is \"s3\"); \
     300ms:30ms:first+min(csv1)+max(csv1)+change(csv1 by 0.6)+if(csv2 is \"s3\"); 600ms:90ms:max(csv1)+change(csv1 by 1.2)";
/// Those whose choice does not depend on the way to it, whatever comes late.
const TIERS_OF_EXTREMES: &str = "100ms:10ms:first+last+min(csv1)+max(csv1)+if(csv2 is \"s3\"); 300ms:30ms:last+min(csv1)+max(csv1); 600ms:90ms:max(csv1)";

/// The same by the words of the setting: (age, window, keeps).
type OracleTier = (i64, i64, fn(&Record, &[&Record]) -> bool);

fn is_first(record: &Record, window: &[&Record]) -> bool {
    window
        .iter()
        .all(|it| (it.time, it.offset) >= (record.time, record.offset))
}
fn is_last(record: &Record, window: &[&Record]) -> bool {
    window
        .iter()
        .all(|it| (it.time, it.offset) <= (record.time, record.offset))
}
fn is_min(record: &Record, window: &[&Record]) -> bool {
    let rank = |it: &Record| (it.value.expect("it can be read").0, it.time, it.offset);
    window.iter().all(|it| rank(it) >= rank(record))
}
fn is_max(record: &Record, window: &[&Record]) -> bool {
    let rank = |it: &Record| (-it.value.expect("it can be read").0, it.time, it.offset);
    window.iter().all(|it| rank(it) >= rank(record))
}
/// In tenths.
fn is_change(record: &Record, window: &[&Record], by: i64) -> bool {
    let place = |it: &Record| (it.time, it.offset);
    let band = |it: &Record| it.value.expect("it can be read").0.div_euclid(by);
    let earlier = window.iter().filter(|it| place(it) < place(record));
    let before = earlier.max_by_key(|it| place(it));
    before.is_none_or(|before| band(before) != band(record))
}
fn is_state_3(record: &Record) -> bool {
    record.value.is_some_and(|(_, state)| state == 3)
}

const ORACLE: [OracleTier; 3] = [
    (100, 10, |r, w| {
        is_first(r, w)
            || is_last(r, w)
            || is_min(r, w)
            || is_max(r, w)
            || is_change(r, w, 2)
            || is_state_3(r)
    }),
    (300, 30, |r, w| {
        is_first(r, w) || is_min(r, w) || is_max(r, w) || is_change(r, w, 6) || is_state_3(r)
    }),
    (600, 90, |r, w| is_max(r, w) || is_change(r, w, 12)),
];

fn oracle(tiers: &[OracleTier], records: &[Record], now: i64) -> Vec<Record> {
    let mut left = records.to_vec();
    for (age, length, keeps) in tiers {
        let before = left.clone();
        left.retain(|record| {
            let Some(_) = record.value else {
                return true;
            };
            let in_window = |it: &&Record| {
                it.value.is_some()
                    && it.key == record.key
                    && it.time.div_euclid(*length) == record.time.div_euclid(*length)
            };
            let window: Vec<&Record> = before.iter().filter(in_window).collect();
            let is_reached = window.iter().all(|it| it.appended + age + length <= now);
            !is_reached || keeps(record, &window)
        });
    }
    left
}

/// Records as they come: appended in order, their own times near it or anywhere.
fn records(count: usize) -> impl Strategy<Value = Vec<Record>> {
    let wild = prop_oneof![4 => -15i64..15, 1 => -400i64..400];
    let key = prop::option::weighted(0.8, 0u8..3);
    let value = prop::option::weighted(0.95, (-30i64..30, 0u8..8));
    let row = (0i64..12, wild, key, value);
    prop::collection::vec(row, 0..count).prop_map(|rows| {
        let mut appended = 0;
        let mut records: Vec<Record> = Vec::new();
        for (wait, off, key, value) in rows {
            appended += wait;
            records.push(Record {
                offset: records.len() as u64,
                key,
                time: appended + off,
                appended,
                value,
            });
        }
        records
    })
}

/// A topic that is compacted too: what compaction keeps, the newest record of each key and those without a value, stays.
#[test]
fn beside_compaction_the_newest_record_of_each_key_stays() {
    let policy = policy("0ms:10ms:max(csv1)").beside_compaction();
    let record = |offset, time, value| Record {
        offset,
        key: Some(1),
        time,
        appended: 0,
        value: Some((value, 0)),
    };
    // The newest one by offset is not the last one by time.
    let records = [
        record(0, 1, 5),
        record(1, 9, 90),
        record(2, 8, 7),
        record(3, 3, 6),
    ];
    let offsets = |records: Vec<Record>| records.iter().map(|it| it.offset).collect::<Vec<_>>();
    assert_eq!(offsets(thin(&policy, &records, 1_000)), [1, 3]);
    let mut piece = Piece::new(&policy, 1 << 20, 3);
    for offset in 0..3 {
        piece.push(Sample {
            offset: Offset::new(offset),
            key: Some(b"k"),
            time: Timestamp::from_millis(0),
            appended: Timestamp::from_millis(0),
            value: (offset == 1).then_some(b"1"),
        });
    }
    let now = Timestamp::from_millis(1_000);
    assert!(!piece.decide(now, now).drops_of(&ALL));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_left_is_what_the_setting_says(records in records(120), now in 0i64..2_000) {
        prop_assert_eq!(thin(&policy(TIERS), &records, now), oracle(&ORACLE, &records, now));
    }

    #[test]
    fn thinning_twice_is_thinning_once(records in records(120), now in 0i64..2_000) {
        let policy = policy(TIERS);
        let once = thin(&policy, &records, now);
        prop_assert_eq!(thin(&policy, &once, now), once);
    }

    #[test]
    fn thinning_on_the_way_changes_nothing_of_the_end(
        records in records(120), mut times in prop::collection::vec(0i64..2_000, 1..5),
    ) {
        let policy = policy(TIERS);
        times.sort_unstable();
        let mut step_by_step = records.clone();
        for now in &times {
            step_by_step = thin(&policy, &step_by_step, *now);
        }
        prop_assert_eq!(step_by_step, thin(&policy, &records, times[times.len() - 1]));
    }

    #[test]
    fn late_records_change_nothing_of_the_choice_of_extremes(
        records in records(120), now in 0i64..1_500, later in 0i64..1_500, from in 0usize..120,
    ) {
        let policy = policy(TIERS_OF_EXTREMES);
        let (early, late) = records.split_at(from.min(records.len()));
        // The broker cannot have thinned by a time at which it had not appended the next ones.
        let now = now.min(late.first().map_or(i64::MAX, |it| it.appended));
        let later = later.max(now).max(records.last().map_or(0, |it| it.appended));
        let joined = [thin(&policy, early, now), late.to_vec()].concat();
        prop_assert_eq!(thin(&policy, &joined, later + 2_000), thin(&policy, &records, later + 2_000));
    }

    #[test]
    fn a_log_thinned_in_pieces_holds_more_until_it_is_thinned_as_one(
        records in records(120), now in 0i64..2_000, from in 0usize..120,
    ) {
        let policy = policy(TIERS_OF_EXTREMES);
        let (front, back) = records.split_at(from.min(records.len()));
        let pieces = [thin(&policy, front, now), thin(&policy, back, now)].concat();
        let whole = thin(&policy, &records, now + 2_000);
        prop_assert!(whole.iter().all(|record| pieces.contains(record)));
        prop_assert_eq!(thin(&policy, &pieces, now + 2_000), whole);
    }

    #[test]
    fn what_a_change_removes_lies_within_the_width_of_what_it_keeps(values in prop::collection::vec(-500i64..500, 1..60)) {
        let policy = policy("0ms:1000ms:change(csv1 by 2.5)");
        let record = |(offset, value): (usize, &i64)| Record {
            offset: offset as u64, key: Some(1), time: offset as i64, appended: 0, value: Some((*value, 0)),
        };
        let records: Vec<Record> = values.iter().enumerate().map(record).collect();
        let kept = thin(&policy, &records, 5_000);
        for record in &records {
            let shown = kept.iter().rev().find(|it| it.offset <= record.offset).expect("the first one is kept");
            let distance = record.value.unwrap().0 - shown.value.unwrap().0;
            prop_assert!(distance.abs() < 25, "{record:?} {shown:?}");
        }
    }

    /// Counts and sums of whole numbers are exact.
    #[test]
    fn summaries_count_every_record_once_however_often_it_is_thinned(
        mut records in records(100), mut times in prop::collection::vec(200i64..2_500, 1..5),
    ) {
        let policy = policy(TIERS);
        for record in &mut records {
            record.value = record.value.map(|(value, state)| (value * 10, state));
        }
        times.sort_unstable();
        let mut left = records.clone();
        let mut summary: Option<Summary> = None;
        for now in &times {
            let now = Timestamp::from_millis(*now);
            let decided = piece(&policy, &left, summary.as_ref()).decide(now, now);
            summary = Some(decided.summary(&ALL));
            left = stay(&decided, &left);
        }
        let summary = summary.expect("it was thinned");
        for window in &summary.windows {
            let key = window.at.key.as_deref().map(|key| key[0]);
            let range = window.at.start..window.at.start + window.at.window_ms;
            let inside = |it: &&Record| it.value.is_some() && it.key == key && range.contains(&it.time);
            let values: Vec<f64> = records.iter().filter(inside).map(|it| (it.value.unwrap().0 / 10) as f64).collect();
            prop_assert_eq!(window.count, values.len() as u64, "{:?}", window.at);
            let stats = window.stats[0];
            prop_assert_eq!(stats.sum, values.iter().sum::<f64>());
            prop_assert_eq!(stats.min, values.iter().copied().fold(f64::INFINITY, f64::min));
            prop_assert_eq!(stats.max, values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
        let gone = records.iter().filter(|record| !left.contains(record));
        for record in gone {
            let key = record.key.map(|key| vec![key]);
            let counts = |window: &&Window| {
                let range = window.at.start..window.at.start + window.at.window_ms;
                window.at.key.as_deref() == key.as_deref() && range.contains(&record.time)
            };
            prop_assert_eq!(summary.windows.iter().filter(counts).count(), 1, "{:?}", record);
        }
        let log = LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(3));
        let id = SegmentId { base: Offset::new(40), generation: 2 };
        let bytes = summary::encode(log, id, std::slice::from_ref(&summary));
        prop_assert_eq!(summary::decode(&bytes), Ok((log, id, vec![summary])));
    }
}

#[test]
fn a_summary_cut_or_flipped_anywhere_is_refused() {
    let window = |key: Option<&[u8]>, start| Window {
        at: WindowKey {
            key: key.map(Into::into),
            start,
            window_ms: 60_000,
        },
        count: 3,
        stats: vec![Stats {
            sum: 6.0,
            min: 1.0,
            max: 3.0,
        }],
    };
    let summary = Summary {
        tiers: "1d:1m:min(csv1)".to_owned(),
        tier: 1,
        counted: vec![Offset::ZERO..Offset::new(9)],
        values: vec!["csv1".to_owned()],
        windows: vec![
            window(None, -60_000),
            window(Some(b"a"), 0),
            window(Some(b"a"), 60_000),
            window(Some(b"b"), 0),
        ],
    };
    let log = LogId::new(TopicId::from_bytes([7; 16]), PartitionId::new(3));
    let later = Summary {
        counted: vec![Offset::new(9)..Offset::new(20)],
        ..summary.clone()
    };
    let id = SegmentId::first(Offset::ZERO);
    let bytes = summary::encode(log, id, &[summary.clone(), later.clone()]);
    assert!(summary::decode(&bytes).is_ok());
    for end in 0..bytes.len() {
        assert!(summary::decode(&bytes[..end]).is_err(), "cut to {end}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(summary::decode(&flipped).is_err(), "bit {bit}");
    }
    // Each section is whole, and yet they are not a file.
    let one = |section: &Summary| summary::encode(log, id, std::slice::from_ref(section));
    assert!(summary::decode(&[one(&summary), one(&later)].concat()).is_err());
    let behind = bytes.len() - (bytes.len() - one(&summary).len());
    assert!(
        summary::decode(&bytes[behind..]).is_err(),
        "without its first"
    );
    assert!(summary::decode(&summary::encode(log, id, &[later, summary])).is_err());
}

#[test]
fn a_window_is_left_alone_until_the_tier_has_reached_its_newest_record() {
    let policy = policy("100ms:10ms:last");
    let record = |offset, time, appended| Record {
        offset,
        key: None,
        time,
        appended,
        value: Some((0, 0)),
    };
    let records = [record(0, 0, 0), record(1, 5, 5), record(2, 9, 20)];
    let left = |now| thin(&policy, &records, now).len();
    assert_eq!(left(129), 3, "its newest record is 109 ms old");
    assert_eq!(left(130), 1, "age and window have passed");
    // What was appended from 25 on has not been shown: the window may go on there.
    let piece = piece(&policy, &records, None);
    let decided = piece.decide(Timestamp::from_millis(1_000), Timestamp::from_millis(25));
    assert!(!decided.drops_of(&ALL));
    assert_eq!(
        decided.lowest_tier(&(Offset::ZERO..Offset::new(3))),
        Some(0)
    );
}

#[test]
fn a_device_clock_in_another_century_neither_saves_nor_kills() {
    let policy = policy("100ms:10ms:first");
    let at = |offset, time| Record {
        offset,
        key: Some(1),
        time,
        appended: offset as i64,
        value: Some((0, 0)),
    };
    let records = [
        at(0, i64::MAX),
        at(1, i64::MAX),
        at(2, i64::MIN),
        at(3, i64::MIN),
        at(4, -1),
        at(5, 0),
        at(6, 4_000_000_000_000),
    ];
    let left: Vec<u64> = thin(&policy, &records, 500)
        .iter()
        .map(|it| it.offset)
        .collect();
    assert_eq!(left, [0, 2, 4, 5, 6]);
    assert_eq!(thin(&policy, &records, 100).len(), records.len());
}

/// Sealed segments of 10 offsets, 100 bytes and a second each, appended one after the other, all of them thinned or none.
fn view(count: u64) -> LogView {
    let segment = |number: u64| SegmentView {
        id: SegmentId::first(Offset::new(number * 10)),
        kind: SegmentKind::Plain,
        end_offset: Offset::new(number * 10 + 10),
        bytes: 100,
        records: 10,
        max_timestamp: Timestamp::from_millis(0),
        first_append_time: Timestamp::from_millis(number as i64 * 1_000),
        last_append_time: Timestamp::from_millis(number as i64 * 1_000 + 999),
        sealed: true,
    };
    LogView {
        log: LogId::new(TopicId::from_bytes([1; 16]), PartitionId::new(0)),
        start_offset: Offset::ZERO,
        compacted_to: Offset::ZERO,
        segments: (0..count).map(segment).collect(),
        tail_bytes: 0,
        tail_begin: None,
        tail_end: None,
        set_aside: Vec::new(),
    }
}

/// For each segment: its outcome, and the group that it is written with.
fn check_plan(view: &LogView, thinning: &Thinning, holds: &[Hold], now: i64, expected: &str) {
    let plan = plan(view, thinning, holds, Timestamp::from_millis(now));
    let words = plan.segments.iter().map(|one| match one.outcome.group() {
        Some(group) => format!("{} {group}", one.outcome.name()),
        None => one.outcome.rule().to_owned(),
    });
    assert_eq!(words.collect::<Vec<_>>().join(", "), expected);
}

#[test]
fn a_plan_groups_neighbours_of_a_tier_and_leaves_out_what_is_held_or_set_aside() {
    let mut thinning = Thinning {
        tiers: "10s:1s:last; 20s:2s:last".parse().expect("valid"),
        segment_bytes: 250,
        segment_ms: 60_000,
        looked: Default::default(),
    };
    let mut five = view(5);
    let young = "thin_tiers, thin_tiers, thin_tiers, thin_tiers, thin_tiers";
    check_plan(&five, &thinning, &[], 10_900, young);
    check_plan(
        &five,
        &thinning,
        &[],
        11_500,
        &young.replacen("thin_tiers", "open_window", 1),
    );
    check_plan(
        &five,
        &thinning,
        &[],
        16_000,
        "rewrite 0, rewrite 0, rewrite 1, rewrite 1, rewrite 2",
    );
    thinning.segment_ms = 1_000;
    check_plan(
        &five,
        &thinning,
        &[],
        16_000,
        "rewrite 0, rewrite 1, rewrite 2, rewrite 3, rewrite 4",
    );
    thinning.segment_ms = 60_000;
    // The first two have reached the second tier.
    check_plan(
        &five,
        &thinning,
        &[],
        24_000,
        "rewrite 0, rewrite 0, rewrite 1, rewrite 1, rewrite 2",
    );
    let hold = Hold {
        name: "audit".into(),
        offsets: Offset::new(19)..Offset::new(20),
        key: None,
    };
    five.set_aside = vec![(five.segments[3].id, "bad".into())];
    check_plan(
        &five,
        &thinning,
        &[hold],
        16_000,
        "rewrite 0, hold, rewrite 1, set_aside, rewrite 2",
    );
    // What was appended since 3,500 is not in a sealed segment: the windows before are open for as long as one lasts.
    five.set_aside.clear();
    five.tail_begin = Some(Timestamp::from_millis(3_500));
    check_plan(
        &five,
        &thinning,
        &[],
        16_000,
        "rewrite 0, rewrite 0, open_window, open_window, open_window",
    );
}

#[test]
fn many_small_segments_that_are_thinned_become_one() {
    let many = view(9);
    let looked = |tier| Looked {
        tier,
        again_at: Timestamp::from_millis(i64::MIN),
    };
    let mut thinning = Thinning {
        tiers: "10s:1s:last".parse().expect("valid"),
        segment_bytes: 1_000,
        segment_ms: 60_000,
        looked: many
            .segments
            .iter()
            .map(|one| (one.id, looked(1)))
            .collect(),
    };
    check_plan(&many, &thinning, &[], 60_000, &["merge 0"; 9].join(", "));
    thinning.segment_bytes = 700;
    check_plan(&many, &thinning, &[], 60_000, &["thinned"; 9].join(", "));
    thinning.looked.insert(many.segments[4].id, looked(0));
    let expected = [
        ["thinned"; 4].join(", "),
        "rewrite 0".to_owned(),
        ["thinned"; 4].join(", "),
    ];
    check_plan(&many, &thinning, &[], 60_000, &expected.join(", "));
}
