//! History as a subscription: `$replay/<from>/<filter>` gives what the log has of the filter's topics from some place on, and then what
//! comes. Callers: `outbound`. Pure.

use model::Timestamp;
use model::time_spec::Position;

use super::topic::TopicFilter;

/// What such filters begin with.
pub(super) const PREFIX: &str = "$replay/";

/// A filter with a place to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replay {
    /// Where to begin.
    pub(super) from: Position,
    /// Which topics.
    pub(super) filter: TopicFilter,
}

impl Replay {
    /// Reads what stands behind the prefix: a place by the grammar of all commands, and a filter of topics. A duration counts from
    /// `now`. None if it is no such thing; an offset is none, as it would mean another place in each partition.
    pub(super) fn parse(text: &str, now: Timestamp) -> Option<Replay> {
        let (from, filter) = text.split_once('/')?;
        let from = Position::parse(from, now).ok()?;
        if matches!(from, Position::Offset(_)) || filter.starts_with('$') {
            return None;
        }
        let filter = TopicFilter::parse(filter).ok()?;
        Some(Replay { from, filter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_a_place_and_a_filter() {
        let now = Timestamp::from_millis(10_000_000);
        let hour_ago = Position::At(Timestamp::from_millis(10_000_000 - 3_600_000));
        for (text, from, filter) in [
            ("-1h/site/17/#", hour_ago, "site/17/#"),
            ("earliest/#", Position::Earliest, "#"),
            ("-5/a", Position::BeforeLatest(5), "a"),
            (
                "7000ms//a",
                Position::At(Timestamp::from_millis(7_000)),
                "/a",
            ),
        ] {
            let read = Replay::parse(text, now).expect("a replay");
            assert_eq!((read.from, read.filter.as_str()), (from, filter));
        }
        for bad in [
            "",
            "earliest",
            "earliest/",
            "x/a",
            "7/a",
            "-1h..-1m/a",
            "-1h/a#",
            "-1h/$x",
        ] {
            assert_eq!(Replay::parse(bad, now), None, "{bad}");
        }
    }
}
