//! Where a follower is, as a text that it hands back: in the id of an event, in `Next-Offset`, in `position=`.
//!
//! ```text
//! 3f9a0c41/0:124,2:77~500@1700000000000
//! │        │     └ partition 2, next offset 77; below offset 500 only records from that time on (milliseconds since 1970)
//! │        └ partition 0, next offset 124
//! └ which topic of this name: the first 8 digits of its id
//! ```
//! A partition that is not named is at its first offset. So each text says all that is needed to go on with nothing lost and
//! nothing twice, also in partitions that the topic got later.
//!
//! Callers: [`super::stream`] and [`super::poll`] write it, [`super::request`] reads it.

use std::fmt::Write;

use model::{Offset, PartitionId, Timestamp, TopicId};

use crate::broker::replay::Resume;

/// More than this is no position of ours.
const PLACES_MAX: usize = 100_000;

/// A text that is no position.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no position: it is handed out in the ids of events and in the header Next-Offset"
)]
pub(super) struct NoPosition(String);

/// Which topic of its name: one that is created again is another.
pub(super) fn tag_of(topic: TopicId) -> String {
    let mut tag = topic.as_uuid().simple().to_string();
    tag.truncate(8);
    tag
}

/// Adds the text of a position.
pub(super) fn put(out: &mut String, tag: &str, places: &[Resume]) {
    out.push_str(tag);
    let mut before = '/';
    for place in places {
        if place.offset == Offset::ZERO && place.since.is_none() {
            continue;
        }
        write!(out, "{before}{}:{}", place.partition, place.offset).expect("memory takes it");
        if let Some((until, time)) = place.since {
            write!(out, "~{until}@{}", time.millis()).expect("memory takes it");
        }
        before = ',';
    }
    if before == '/' {
        out.push(before);
    }
}

/// Reads a position: which topic, and where.
pub(super) fn parse(text: &str) -> Result<(String, Vec<Resume>), NoPosition> {
    let no_position = || NoPosition(text.chars().take(200).collect());
    let (tag, places) = text.split_once('/').ok_or_else(no_position)?;
    let is_tag = tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_tag {
        return Err(no_position());
    }
    let places = places.split(',').filter(|place| !place.is_empty());
    let places: Option<Vec<Resume>> = places.take(PLACES_MAX).map(place).collect();
    let mut places = places.ok_or_else(no_position)?;
    places.sort_by_key(|place| place.partition);
    let is_twice = places
        .windows(2)
        .any(|two| two[0].partition == two[1].partition);
    if is_twice {
        return Err(no_position());
    }
    Ok((tag.to_owned(), places))
}

fn place(text: &str) -> Option<Resume> {
    let (place, since) = match text.split_once('~') {
        Some((place, since)) => (place, Some(since)),
        None => (text, None),
    };
    let (partition, offset) = place.split_once(':')?;
    let since = match since {
        None => None,
        Some(since) => {
            let (until, time) = since.split_once('@')?;
            Some((
                offset_of(until)?,
                Timestamp::from_millis(time.parse().ok()?),
            ))
        }
    };
    Some(Resume {
        partition: PartitionId::new(partition.parse().ok()?),
        offset: offset_of(offset)?,
        since,
    })
}

fn offset_of(text: &str) -> Option<Offset> {
    let offset: Offset = text.parse().ok()?;
    (offset <= Offset::MAX).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resume(partition: u32, offset: u64, since: Option<(u64, i64)>) -> Resume {
        let since = since.map(|(until, time)| (Offset::new(until), Timestamp::from_millis(time)));
        Resume {
            partition: PartitionId::new(partition),
            offset: Offset::new(offset),
            since,
        }
    }

    fn written(places: &[Resume]) -> String {
        let mut text = String::new();
        put(&mut text, "3f9a0c41", places);
        text
    }

    #[test]
    fn a_position_comes_back_as_it_was_written() {
        let places = [
            resume(0, 124, None),
            resume(2, 77, Some((500, 1_700_000_000_000))),
            resume(3, 0, Some((9, -5))),
        ];
        let text = written(&places);
        assert_eq!(text, "3f9a0c41/0:124,2:77~500@1700000000000,3:0~9@-5");
        assert_eq!(parse(&text), Ok(("3f9a0c41".to_owned(), places.to_vec())));
    }

    #[test]
    fn a_partition_at_its_first_offset_need_not_be_named() {
        assert_eq!(
            written(&[resume(0, 0, None), resume(1, 1, None)]),
            "3f9a0c41/1:1"
        );
        let start = written(&[resume(0, 0, None)]);
        assert_eq!(start, "3f9a0c41/");
        assert_eq!(parse(&start), Ok(("3f9a0c41".to_owned(), Vec::new())));
    }

    #[test]
    fn what_was_not_handed_out_is_refused() {
        let good = written(&[resume(0, 124, None), resume(2, 77, Some((500, 17)))]);
        for bad in [
            "",
            "0:1",
            "3f9a0c4/0:1",
            "3f9a0c4x/0:1",
            "3f9a0c41/0",
            "3f9a0c41/0:",
            "3f9a0c41/0:-1",
            "3f9a0c41/0:1,0:2",
            "3f9a0c41/0:1~5",
            "3f9a0c41/0:9223372036854775808",
            "3f9a0c41/99999999999:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        // Cut anywhere, it is another position or none; nothing panics.
        for end in 0..good.len() {
            let _ = parse(&good[..end]);
        }
    }
}
