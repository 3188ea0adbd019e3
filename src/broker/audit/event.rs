//! One event of the audit log, and its JSON.
//! Callers: `book`, which gathers events; `writer`, which writes them. Pure.

use std::fmt;
use std::net::IpAddr;

use model::Timestamp;
use serde::Serialize;

/// Characters of a name that are kept; topics' names are never longer.
const NAME_CHARS_MAX: usize = 256;
/// Characters of what a change is told by.
const DETAIL_CHARS_MAX: usize = 1024;

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginOutcome {
    /// The caller is let in.
    Succeeded,
    /// What was shown is not enough.
    Failed,
    /// It was not looked at: the address has failed too often.
    Limited,
}

/// What a change was made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On<'a> {
    /// A topic, by name.
    Topic(&'a str),
    /// A consumer group, by id.
    Group(&'a str),
    /// A user, by name.
    User(&'a str),
    /// A broker, by its number; empty for all of them.
    Broker(&'a str),
    /// Those whom quotas are for, as in `user alice, client-id app`.
    Quotas(&'a str),
    /// What a rule is about: the type of resource, and its name.
    Ruled(&'static str, &'a str),
}

impl<'a> On<'a> {
    fn kind(self) -> &'static str {
        match self {
            On::Topic(_) => "topic",
            On::Group(_) => "group",
            On::User(_) => "user",
            On::Broker(_) => "broker",
            On::Quotas(_) => "quotas",
            On::Ruled(kind, _) => kind,
        }
    }

    fn name(self) -> &'a str {
        match self {
            On::Topic(name)
            | On::Group(name)
            | On::User(name)
            | On::Broker(name)
            | On::Quotas(name)
            | On::Ruled(_, name) => name,
        }
    }

    /// As events have it.
    pub(super) fn text(self) -> String {
        resource(self.kind(), self.name())
    }
}

/// In words.
impl fmt::Display for On<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            On::Broker("") => f.write_str("all brokers"),
            On::Group(id) => write!(f, "group {id:?}"),
            On::Quotas(of) => write!(f, "quotas of {of}"),
            other => write!(f, "{} {}", other.kind(), other.name()),
        }
    }
}

/// A resource by its kind and name, as events have it.
pub(super) fn resource(kind: &str, named: &str) -> String {
    match named.is_empty() {
        true => kind.to_owned(),
        false => format!("{kind}:{}", name(named)),
    }
}

/// Who did it, as far as is known. All of it unknown where events of many are summed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Who {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<&'static str>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum What {
    /// A change was made.
    Changed {
        operation: &'static str,
        resource: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// A right was asked for and is not there.
    Denied {
        operation: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
    /// Somebody showed who they are, or tried to.
    Login {
        mechanism: &'static str,
        outcome: LoginOutcome,
    },
    /// So many events were too much, and are not in the log.
    Lost,
}

/// An event, or a number of them that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The last one's time.
    pub(super) at: Timestamp,
    /// The first one's time, where they are many.
    pub(super) since: Option<Timestamp>,
    pub(super) count: u64,
    pub(super) who: Who,
    /// What the client calls itself.
    pub(super) client: Option<String>,
    pub(super) what: What,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    what: &'a What,
    #[serde(flatten)]
    who: &'a Who,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

impl Event {
    /// As a line of JSON, without its end.
    pub(super) fn to_json(&self) -> String {
        let line = Line {
            time: text_of(self.at),
            what: &self.what,
            who: &self.who,
            client: self.client.as_deref(),
            count: self.count,
            since: self.since.map(text_of),
        };
        serde_json::to_string(&line).expect("texts and numbers")
    }
}

/// RFC 3339, in UTC with milliseconds; beyond the calendar, milliseconds.
fn text_of(time: Timestamp) -> String {
    let millis = time.millis();
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => millis.to_string(),
    }
}

/// A name from outside, no longer than any that is good.
pub(super) fn name(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

/// What a change is told by, no longer than may be.
pub(super) fn detail(text: &str) -> String {
    let mut detail: String = text.chars().take(DETAIL_CHARS_MAX).collect();
    if detail.len() < text.len() {
        detail.push('…');
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object_whatever_names_hold() {
        let event = Event {
            at: Timestamp::from_millis(1_700_000_000_123),
            since: Some(Timestamp::from_millis(1_700_000_000_000)),
            count: 3,
            who: Who {
                principal: Some("User:a\"\n{".to_owned()),
                address: Some([10, 0, 0, 7].into()),
                protocol: Some("kafka"),
            },
            client: None,
            what: What::Denied {
                operation: "write",
                resource: Some("topic:readings".to_owned()),
            },
        };
        let expected = r#"{"time":"2023-11-14T22:13:20.123Z","event":"denied","operation":"write","resource":"topic:readings","principal":"User:a\"\n{","address":"10.0.0.7","protocol":"kafka","count":3,"since":"2023-11-14T22:13:20.000Z"}"#;
        assert_eq!(event.to_json(), expected);
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(name(&"ä".repeat(1000)).chars().count(), NAME_CHARS_MAX);
        assert!(detail(&"x".repeat(5000)).ends_with("x…"));
        assert_eq!(detail("short"), "short");
    }

    #[test]
    fn a_resource_is_told_by_its_kind_and_name_whatever_stands_in_the_name() {
        for (on, text, words) in [
            (On::Topic("readings"), "topic:readings", "topic readings"),
            (On::Group("a b: c"), "group:a b: c", "group \"a b: c\""),
            (On::User("topic x"), "user:topic x", "user topic x"),
            (On::Broker("1"), "broker:1", "broker 1"),
            (On::Broker(""), "broker", "all brokers"),
            (
                On::Quotas("user a b"),
                "quotas:user a b",
                "quotas of user a b",
            ),
            (
                On::Ruled("cluster", "kafka-cluster"),
                "cluster:kafka-cluster",
                "cluster kafka-cluster",
            ),
        ] {
            assert_eq!((on.text().as_str(), on.to_string().as_str()), (text, words));
        }
    }
}
