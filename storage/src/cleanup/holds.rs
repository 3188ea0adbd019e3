//! Holds: what forbids cleanup to remove something. They come in as data; a policy asks here whether it may.
//!
//! The broker says what is to be held of a log ([`HoldsOf`]), in its own terms: for ever, what was appended in a time, what a
//! reader has not read yet, a key. [`resolve`] makes offsets of it, from what a policy is shown of the log and what is known of keys
//! in segments, so that plans stay pure.

use std::ops::Range;
use std::sync::Arc;

use model::{LogId, Offset, Timestamp};

use super::view::{LogView, SegmentView};
use crate::segment::SegmentId;

/// A veto on the removal of records of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What it is called, in words that an operator knows.
    pub name: Arc<str>,
    /// The records that it keeps.
    pub offsets: Range<Offset>,
    /// Of these only those of this key; what cannot tell them apart keeps all.
    pub key: Option<Arc<[u8]>>,
}

/// The first hold on some records of a range.
pub fn first_on<'a>(
    holds: impl IntoIterator<Item = &'a Hold>,
    range: &Range<Offset>,
) -> Option<&'a Hold> {
    holds
        .into_iter()
        .find(|hold| hold.offsets.start < range.end && range.start < hold.offsets.end)
}

/// What is to be held of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// What was appended in this time, by the store's own time. Whole segments: those in which something was.
    Appended(Range<Timestamp>),
    /// The records of a key in what was appended in this time. Segments that have one, or may have one.
    Key {
        /// The key.
        key: Arc<[u8]>,
        /// When they were appended.
        appended: Range<Timestamp>,
    },
    /// What lies from an offset on, as far as two limits allow.
    Unread {
        /// The first offset that is not read.
        from: Offset,
        /// No more than the newest so many bytes; None is any number.
        bytes_max: Option<u64>,
        /// Nothing that was appended longer ago; None is any time.
        ms_max: Option<u64>,
    },
}

/// A hold as the broker knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldWish {
    /// What it is called, in words that an operator knows.
    pub name: Arc<str>,
    /// What is to be held.
    pub held: Held,
    /// Whether it holds against the bound of the whole store too.
    pub is_absolute: bool,
}

/// Gives what is to be held of a log now. Called by the cleaner before it plans; must not wait for the disk.
pub type HoldsOf = Arc<dyn Fn(LogId) -> Vec<HoldWish> + Send + Sync>;

/// A key, and when what is held of it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldKey {
    pub key: Arc<[u8]>,
    pub appended: Range<Timestamp>,
}

impl HeldKey {
    /// Whether something of a segment was appended in its time.
    pub fn touches(&self, segment: &SegmentView) -> bool {
        let times = &self.appended;
        segment.first_append_time < times.end && times.start <= segment.last_append_time
    }
}

/// Which offsets a wish is about. `may_hold` says whether a sealed segment may hold a key.
pub fn resolve(
    view: &LogView,
    wish: &HoldWish,
    now: Timestamp,
    may_hold: &dyn Fn(SegmentId, &[u8]) -> bool,
) -> Vec<Hold> {
    let hold = |offsets, key| Hold {
        name: Arc::clone(&wish.name),
        offsets,
        key,
    };
    let offsets = match &wish.held {
        Held::Key { key, appended } => {
            let held = HeldKey {
                key: Arc::clone(key),
                appended: appended.clone(),
            };
            let places = with_key(view, &held, may_hold).into_iter();
            return places
                .map(|offsets| hold(offsets, Some(Arc::clone(key))))
                .collect();
        }
        Held::Appended(times) => appended_in(view, times),
        Held::Unread {
            from,
            bytes_max,
            ms_max,
        } => {
            let limit = newest_bytes(view, *bytes_max).max(newest_ms(view, now, *ms_max));
            limit.max(*from)..Offset::MAX
        }
    };
    vec![hold(offsets, None)]
}

/// The segments that may hold a key, and what is in the WAL only.
fn with_key(
    view: &LogView,
    held: &HeldKey,
    may_hold: &dyn Fn(SegmentId, &[u8]) -> bool,
) -> Vec<Range<Offset>> {
    let has = |segment: &&SegmentView| {
        held.touches(segment) && (!segment.sealed || may_hold(segment.id, &held.key))
    };
    let with = view.segments.iter().filter(has);
    let mut places: Vec<Range<Offset>> = with
        .map(|segment| segment.id.base..segment.end_offset)
        .collect();
    if let Some((end, last)) = view.tail_end {
        let first = view.tail_begin.unwrap_or(last);
        let settled = view.segments.last();
        let from = settled.map_or(view.start_offset, |segment| segment.end_offset);
        if first < held.appended.end && held.appended.start <= last {
            places.push(from..end);
        }
    }
    places
}

/// From the first segment in which something was appended in this time to the last one. What is in the WAL only is newer than
/// all segments.
fn appended_in(view: &LogView, times: &Range<Timestamp>) -> Range<Offset> {
    let touches = |first: Timestamp, last: Timestamp| first < times.end && times.start <= last;
    let mut found: Option<Range<Offset>> = None;
    let mut add = |range: Range<Offset>| {
        let from = found.as_ref().map_or(range.start, |found| found.start);
        found = Some(from..range.end);
    };
    for segment in &view.segments {
        if touches(segment.first_append_time, segment.last_append_time) {
            add(segment.id.base..segment.end_offset);
        }
    }
    if let Some((end, last)) = view.tail_end
        && touches(view.tail_begin.unwrap_or(last), last)
    {
        let from = view
            .segments
            .last()
            .map_or(view.start_offset, |segment| segment.end_offset);
        add(from..end);
    }
    found.unwrap_or(Offset::ZERO..Offset::ZERO)
}

/// Where the newest so many bytes begin: whole segments, no more than that.
fn newest_bytes(view: &LogView, bytes_max: Option<u64>) -> Offset {
    let Some(bytes_max) = bytes_max else {
        return Offset::ZERO;
    };
    let mut bytes = view.tail_bytes;
    let mut from = view
        .segments
        .last()
        .map_or(view.start_offset, |segment| segment.end_offset);
    for segment in view.segments.iter().rev() {
        bytes += segment.bytes;
        if bytes > bytes_max {
            break;
        }
        from = segment.id.base;
    }
    from
}

/// Where what was appended within so long begins: whole segments.
fn newest_ms(view: &LogView, now: Timestamp, ms_max: Option<u64>) -> Offset {
    let Some(ms_max) = ms_max else {
        return Offset::ZERO;
    };
    let is_older =
        |last: Timestamp| u64::try_from(now.millis_since(last)).is_ok_and(|age| age > ms_max);
    let older = view
        .segments
        .iter()
        .rev()
        .find(|segment| is_older(segment.last_append_time));
    older.map_or(Offset::ZERO, |segment| segment.end_offset)
}

#[cfg(test)]
mod tests {
    use model::{PartitionId, TopicId};

    use super::*;
    use crate::cleanup::SegmentView;
    use crate::manifest::SegmentKind;
    use crate::segment::SegmentId;

    /// Four segments of 10 offsets and 100 bytes each, appended at 100..=109, 200..=209 and so on, and a tail at 500..=509.
    fn view() -> LogView {
        let at = |millis: u64| Timestamp::from_millis(i64::try_from(millis).unwrap());
        let segment = |n: u64| SegmentView {
            id: SegmentId::first(Offset::new(n * 10)),
            kind: SegmentKind::Plain,
            end_offset: Offset::new(n * 10 + 10),
            bytes: 100,
            records: 10,
            max_timestamp: at(1),
            first_append_time: at(n * 100 + 100),
            last_append_time: at(n * 100 + 109),
            sealed: n < 3,
        };
        LogView {
            log: LogId::new(TopicId::from_bytes([1; 16]), PartitionId::new(0)),
            start_offset: Offset::ZERO,
            compacted_to: Offset::ZERO,
            segments: (0..4).map(segment).collect(),
            tail_bytes: 50,
            tail_begin: Some(at(500)),
            tail_end: Some((Offset::new(45), at(509))),
            set_aside: Vec::new(),
        }
    }

    fn held(held: Held) -> Range<u64> {
        let wish = HoldWish {
            name: "a".into(),
            held,
            is_absolute: true,
        };
        let now = Timestamp::from_millis(600);
        let holds = resolve(&view(), &wish, now, &|_, _| true);
        let [hold] = &holds[..] else {
            panic!("one range: {holds:?}");
        };
        hold.offsets.start.get()..hold.offsets.end.get()
    }

    #[test]
    fn a_time_holds_the_segments_in_which_something_was_appended() {
        let appended = |from, to| {
            held(Held::Appended(
                Timestamp::from_millis(from)..Timestamp::from_millis(to),
            ))
        };
        assert_eq!(appended(0, 1000), 0..45);
        assert_eq!(appended(205, 305), 10..30);
        assert_eq!(appended(209, 210), 10..20);
        assert_eq!(appended(500, 501), 40..45);
        for (from, to) in [(0, 100), (210, 300), (510, 900)] {
            assert!(appended(from, to).is_empty(), "{from}..{to}");
        }
    }

    #[test]
    fn a_key_holds_the_segments_that_may_have_it() {
        let held = |from, to, with: u64| {
            let wish = HoldWish {
                name: "a".into(),
                held: Held::Key {
                    key: (*b"k").into(),
                    appended: Timestamp::from_millis(from)..Timestamp::from_millis(to),
                },
                is_absolute: true,
            };
            let may_hold = |segment: SegmentId, key: &[u8]| {
                assert_eq!(key, b"k");
                segment.base.get() / 10 == with
            };
            let holds = resolve(&view(), &wish, Timestamp::from_millis(600), &may_hold);
            assert!(holds.iter().all(|hold| hold.key.as_deref() == Some(b"k")));
            let range = |hold: &Hold| (hold.offsets.start.get(), hold.offsets.end.get());
            holds.iter().map(range).collect::<Vec<_>>()
        };
        // What is not sealed may have any key.
        assert_eq!(held(i64::MIN, i64::MAX, 1), [(10, 20), (30, 40), (40, 45)]);
        assert_eq!(held(i64::MIN, i64::MAX, 7), [(30, 40), (40, 45)]);
        assert_eq!(held(100, 300, 1), [(10, 20)]);
        assert_eq!(held(210, 300, 1), []);
    }

    #[test]
    fn what_is_unread_is_held_within_both_limits() {
        let unread = |from, bytes_max, ms_max| {
            let from = Offset::new(from);
            held(Held::Unread {
                from,
                bytes_max,
                ms_max,
            })
            .start
        };
        assert_eq!(unread(7, None, None), 7);
        for (bytes, from) in [(0, 40), (149, 40), (150, 30), (349, 20), (1000, 0)] {
            assert_eq!(unread(0, Some(bytes), None), from, "{bytes} bytes");
        }
        for (ms, from) in [(50, 40), (190, 40), (191, 30), (391, 10), (491, 0)] {
            assert_eq!(unread(0, None, Some(ms)), from, "{ms} ms");
        }
        assert_eq!(unread(35, Some(349), Some(391)), 35);
    }

    #[test]
    fn a_hold_is_found_on_what_it_overlaps_and_nowhere_else() {
        let hold = Hold {
            name: "a".into(),
            offsets: Offset::new(10)..Offset::new(20),
            key: None,
        };
        let on = |from, to| {
            first_on(
                std::slice::from_ref(&hold),
                &(Offset::new(from)..Offset::new(to)),
            )
            .is_some()
        };
        assert!(on(0, 11) && on(19, 30) && on(12, 13));
        assert!(!on(0, 10) && !on(20, 30));
    }
}
