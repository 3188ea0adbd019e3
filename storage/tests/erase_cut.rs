//! The power is cut during every operation of an erasure, one after the other: sealing, rewriting segment by segment, and the purge of
//! the write-ahead log. After each cut the log has every record of another key, and of the erased one those that were not gone yet; the
//! next run finishes, and then no file holds a byte of the key's records. So it is where the disk fills up in its middle.

#![allow(clippy::unwrap_used)]

mod rewriting;

use std::collections::BTreeSet;

use alluvium_storage::cleanup::erase::{EraseError, EraseWatch, Found, Known, Wanted, WatchFailed};
use alluvium_storage::cleanup::run::Progress;
use alluvium_storage::rewrite::Rewritten;
use bytes::Bytes;
use model::Offset;

use rewriting::{House, log_id};

const KEY: &str = "the-key-that-is-erased";

/// Counts what it hears of.
#[derive(Default)]
struct Watched {
    begun: u64,
    records: u64,
}

impl EraseWatch for Watched {
    fn begin(&mut self, _: &Found) -> Result<(), WatchFailed> {
        self.begun += 1;
        Ok(())
    }

    fn end(&mut self, found: &Found, rewritten: Option<&Rewritten>) {
        if rewritten.is_some() {
            self.records += found.records;
        }
    }
}

/// Takes the disk's last free byte before the segment of this number is written again.
struct Fills<'h> {
    house: &'h House,
    at: u64,
    watched: Watched,
}

impl EraseWatch for Fills<'_> {
    fn begin(&mut self, found: &Found) -> Result<(), WatchFailed> {
        self.watched.begin(found)?;
        if self.watched.begun == self.at {
            self.house.disk.fill();
        }
        Ok(())
    }

    fn end(&mut self, found: &Found, rewritten: Option<&Rewritten>) {
        self.watched.end(found, rewritten);
    }
}

/// A log of several segments and a tail, and the offsets of the key's records that are to go.
fn house() -> (House, BTreeSet<u64>, u64) {
    let mut house = House::new(5);
    let mut erased = BTreeSet::new();
    let mut append = |house: &mut House, keys: &[&str], goes: bool| {
        let base = house.end;
        assert!(house.try_append_keyed(keys));
        let offsets = (base..).zip(keys).filter(|(_, key)| goes && **key == KEY);
        erased.extend(offsets.map(|(offset, _)| offset));
    };
    for round in 0..6 {
        append(&mut house, &["a", KEY, "b"], true);
        append(
            &mut house,
            if round % 3 == 0 {
                &[KEY, KEY]
            } else {
                &["c", "d"]
            },
            true,
        );
        house.settle();
    }
    // In the write-ahead log only, and behind the end of what is meant.
    append(&mut house, &[KEY, "e"], true);
    let before = house.end;
    append(&mut house, &["f", KEY], false);
    (house, erased, before)
}

/// False if the disk failed.
fn erase(house: &House, before: u64, watched: &mut Watched) -> bool {
    let wanted = Wanted::new([Bytes::from_static(KEY.as_bytes())], Offset::new(before));
    let storage = house.storage();
    let (mut known, progress) = (Known::new(), Progress::default());
    let erased = storage.erase(log_id(), &wanted, &mut known, &progress, watched);
    erased.is_ok() && storage.purge_wal().is_ok()
}

fn contents(house: &House) -> BTreeSet<u64> {
    let start = house.log().bounds().start.get();
    let read = house.read_on(start, 1 << 20);
    read.into_iter().map(|(offset, _)| offset).collect()
}

/// Everything of other keys is there, and no byte of what was erased in any file.
fn require_gone(house: &mut House, erased: &BTreeSet<u64>, name: &str) {
    let gone: Vec<Bytes> = (house.records.iter())
        .filter(|(offset, _)| erased.contains(offset))
        .map(|(_, (_, value))| value.clone())
        .collect();
    assert!(!gone.is_empty(), "{name}: there was something to erase");
    for (path, bytes) in house.disk.files() {
        for value in &gone {
            let is_there = bytes.windows(value.len()).any(|window| window == value);
            assert!(!is_there, "{name}: {} holds {value:?}", path.display());
        }
    }
    house.records.retain(|offset, _| !erased.contains(offset));
    house.check();
    house.check_offline();
    assert!(house.quarantined().is_empty(), "{name}");
}

#[test]
fn a_cut_at_any_operation_of_an_erasure_loses_nothing_else_and_the_next_run_finishes() {
    let (mut whole, erased, before) = house();
    let begin = whole.disk.operations();
    let mut watched = Watched::default();
    assert!(erase(&whole, before, &mut watched));
    let end = whole.disk.operations();
    assert_eq!(watched.records, erased.len() as u64);
    assert!(watched.begun > 3, "several segments: {}", watched.begun);
    require_gone(&mut whole, &erased, "without a cut");
    let (mut between, mut cuts) = (0, 0);
    for cut in begin + 1..=end {
        let (mut house, erased, before) = house();
        let all: BTreeSet<u64> = house.records.keys().copied().collect();
        house.disk.cut_power_during(cut);
        erase(&house, before, &mut Watched::default());
        house.disk.cut_power();
        house.close();
        house.disk.restart(cut);
        house.open();
        let name = format!("cut during operation {cut} of {begin}..{end}");
        let left = contents(&house);
        let gone: BTreeSet<u64> = all.difference(&left).copied().collect();
        assert!(gone.is_subset(&erased), "{name}: {gone:?}");
        between += u32::from(!gone.is_empty() && gone.len() < erased.len());
        cuts += 1;
        assert!(erase(&house, before, &mut Watched::default()), "{name}");
        require_gone(&mut house, &erased, &name);
        // Once more changes nothing.
        let mut watched = Watched::default();
        assert!(erase(&house, before, &mut watched), "{name}");
        assert_eq!(watched.begun, 0, "{name}");
        house.restart();
        house.check();
        house.close();
    }
    println!("erase_cut: {cuts} cuts, {between} left a part of it erased");
    assert!(between > 0, "cuts must come between segments");
}

#[test]
fn on_a_disk_that_fills_up_in_its_middle_it_stops_between_segments_and_goes_on_when_there_is_room()
{
    let segments = {
        let (whole, _, before) = house();
        let mut watched = Watched::default();
        assert!(erase(&whole, before, &mut watched));
        watched.begun
    };
    for at in 1..=segments {
        for is_killed in [false, true] {
            let name = format!("full before segment {at} of {segments}, killed: {is_killed}");
            let (mut house, erased, before) = house();
            let all: BTreeSet<u64> = house.records.keys().copied().collect();
            let mut watch = Fills {
                house: &house,
                at,
                watched: Watched::default(),
            };
            let wanted = Wanted::new([Bytes::from_static(KEY.as_bytes())], Offset::new(before));
            let (mut known, progress) = (Known::new(), Progress::default());
            let storage = house.storage();
            let ended = storage.erase(log_id(), &wanted, &mut known, &progress, &mut watch);
            assert!(
                matches!(ended, Err(EraseError::DiskFull)),
                "{name}: {ended:?}"
            );
            let done = watch.watched;
            assert_eq!(done.begun, at, "{name}: it ends there");
            let gone = |house: &House| -> BTreeSet<u64> {
                all.difference(&contents(house)).copied().collect()
            };
            let went = gone(&house);
            assert!(went.is_subset(&erased), "{name}: {went:?}");
            assert_eq!(
                went.len() as u64,
                done.records,
                "{name}: what is told is what went"
            );
            if is_killed {
                house.kill();
                assert_eq!(gone(&house), went, "{name}: nothing is back");
            }
            house.disk.set_capacity(u64::MAX);
            // The write-ahead log makes files ahead again when it sees that there is room.
            while house.storage().prepare_once().unwrap() {}
            assert!(erase(&house, before, &mut Watched::default()), "{name}");
            require_gone(&mut house, &erased, &name);
            house.close();
        }
    }
}
