//! Names of topics, and filters that match them (§4.7).
//! Callers: `inbound`, `outbound`. Pure.

use std::sync::Arc;

use model::TopicName;

use crate::broker::access::parts;

/// What topics begin with that are records of a Kafka topic: `$kafka/<topic>/<key>`, and `$kafka/<topic>` of those without a key.
pub const KAFKA: &str = "$kafka/";

/// A filter of more levels would take long to match.
const FILTER_LEVELS_MAX: usize = 128;

/// Why a filter is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It has no character.
    #[error("a filter has one character at least")]
    Empty,
    /// `#` stands before the end, or beside other characters.
    #[error("# stands alone, in the last level")]
    MultiLevel,
    /// `+` stands beside other characters.
    #[error("+ stands alone in its level")]
    SingleLevel,
    /// More levels than are matched.
    #[error("a filter has {FILTER_LEVELS_MAX} levels at most")]
    Levels,
}

/// A filter that is one. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Checks it.
    pub fn parse(filter: &str) -> Result<TopicFilter, InvalidFilter> {
        if filter.is_empty() {
            return Err(InvalidFilter::Empty);
        }
        let mut levels = filter.split('/').peekable();
        let mut count = 0;
        while let Some(level) = levels.next() {
            count += 1;
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(InvalidFilter::MultiLevel);
            }
            if level.contains('+') && level != "+" {
                return Err(InvalidFilter::SingleLevel);
            }
        }
        match count > FILTER_LEVELS_MAX {
            true => Err(InvalidFilter::Levels),
            false => Ok(TopicFilter(filter.into())),
        }
    }

    /// A filter that clients may read by: one of published topics, or of one Kafka topic's records.
    pub fn readable(filter: &str) -> Option<TopicFilter> {
        let filter = TopicFilter::parse(filter).ok()?;
        match filter.kafka_topic() {
            None => !filter.0.starts_with('$'),
            Some(topic) => TopicName::parse(topic).is_ok(),
        }
        .then_some(filter)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, for whoever keeps it.
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Whether it is one of a Kafka topic's records.
    pub fn is_of_kafka(&self) -> bool {
        self.0.starts_with(KAFKA)
    }

    /// Of which Kafka topic's records it is.
    pub fn kafka_topic(&self) -> Option<&str> {
        let rest = self.0.strip_prefix(KAFKA)?;
        Some(rest.split('/').next().unwrap_or(rest))
    }

    /// Whether there may be names that both stand for.
    pub fn overlaps(&self, other: &TopicFilter) -> bool {
        parts::overlaps(&self.0, &other.0, |one, two| one == two)
    }

    /// Whether it stands for all names that the other one stands for. Both are filters of published topics.
    pub fn covers(&self, other: &TopicFilter) -> bool {
        parts::covers(&self.0, &other.0, |one, two| one == two)
    }

    /// What all names begin with that it stands for; None if it stands for one.
    pub fn prefix(&self) -> Option<&str> {
        let wildcard = self.0.find(['+', '#'])?;
        // `a/#` is `a`, too.
        let is_rest = self.0[wildcard..].starts_with('#') && wildcard > 0;
        Some(&self.0[..wildcard - usize::from(is_rest)])
    }

    /// Whether a topic's name is among those that it stands for. Wildcards in the first level leave out names that begin with `$`.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in self.0.split('/') {
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                Some(_) | None => return false,
            }
        }
        levels.next().is_none()
    }
}

/// Whether records under this name are a topic's of this front.
pub fn is_name(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0']) && topic.len() <= usize::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standards_examples_say() {
        // §4.7.1.2, §4.7.1.3 and §4.7.2 of both standards.
        for (filter, topic, matches) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/tennis/player1/#", "sport/tennis/player10", false),
            ("sport/#", "sport", true),
            ("#", "sport", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/tennis/#", "sport/tennis", true),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("ACCOUNTS", "Accounts", false),
            ("a", "a/", false),
            ("a//b", "a//b", true),
            ("a/+/b", "a//b", true),
        ] {
            let filter = TopicFilter::parse(filter).expect("a filter");
            assert_eq!(filter.matches(topic), matches, "{filter:?} {topic}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for (filter, why) in [
            ("", InvalidFilter::Empty),
            ("sport/tennis#", InvalidFilter::MultiLevel),
            ("sport/tennis/#/ranking", InvalidFilter::MultiLevel),
            ("##", InvalidFilter::MultiLevel),
            ("sport+", InvalidFilter::SingleLevel),
            ("++/a", InvalidFilter::SingleLevel),
        ] {
            assert_eq!(TopicFilter::parse(filter), Err(why), "{filter}");
        }
        let deep = "a/".repeat(FILTER_LEVELS_MAX);
        assert_eq!(TopicFilter::parse(&deep), Err(InvalidFilter::Levels));
    }

    #[test]
    fn all_names_of_a_filter_begin_with_its_prefix() {
        for (filter, prefix) in [
            ("a/b", None),
            ("#", Some("")),
            ("+/a", Some("")),
            ("a/#", Some("a")),
            ("a/+/b", Some("a/")),
            ("/#", Some("")),
            ("/+", Some("/")),
            ("a/b/+/#", Some("a/b/")),
        ] {
            let filter = TopicFilter::parse(filter).expect("a filter");
            assert_eq!(filter.prefix(), prefix, "{filter:?}");
        }
    }

    #[test]
    fn filters_overlap_and_cover_others_by_their_levels() {
        for (one, other, overlaps, covers) in [
            ("#", "a/b", true, true),
            ("a/b", "#", true, false),
            ("a/#", "a", true, true),
            ("a", "a/#", true, false),
            ("a/+", "a/#", true, false),
            ("a/#", "a/+/c", true, true),
            ("a/+/c", "a/b/+", true, false),
            ("a/+", "a/b", true, true),
            ("a/b", "a/+", true, false),
            ("a/+", "a/b/c", false, false),
            ("a/b", "a/c", false, false),
            ("+/b", "a/+", true, false),
            ("+/+", "+/+", true, true),
            ("a", "b/#", false, false),
        ] {
            let of = |filter| TopicFilter::parse(filter).expect("a filter");
            assert_eq!(of(one).overlaps(&of(other)), overlaps, "{one} {other}");
            assert_eq!(of(other).overlaps(&of(one)), overlaps, "{other} {one}");
            assert_eq!(of(one).covers(&of(other)), covers, "{one} {other}");
        }
    }

    #[test]
    fn clients_read_by_filters_of_published_topics_and_of_one_kafka_topic() {
        for (filter, topic) in [
            ("a/#", Some(None)),
            ("#", Some(None)),
            ("$kafka/orders/#", Some(Some("orders"))),
            ("$kafka/orders", Some(Some("orders"))),
            ("$kafka/orders/a/+", Some(Some("orders"))),
            ("$kafka/+/a", None),
            ("$kafka/#", None),
            ("$kafka/", None),
            ("$kafka", None),
            ("$kafka/a b/c", None),
            ("$SYS/#", None),
        ] {
            let read = TopicFilter::readable(filter);
            let read = read.as_ref().map(TopicFilter::kafka_topic);
            assert_eq!(read, topic, "{filter}");
        }
    }

    #[test]
    fn names_have_no_wildcards() {
        assert!(is_name("a/b") && is_name("/") && is_name("$x"));
        for bad in ["", "a/#", "+", "a\0"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(!is_name(&"a".repeat(65_536)));
    }
}
