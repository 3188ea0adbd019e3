//! Routes: which Kafka topic the messages of a topic go to, and under which key (`mqtt.route`).
//! Callers: `settings` reads them; `publishing` and `reading` ask them; operators see them. Pure.
//! Invariants: the first route whose filter matches takes a message, so that each is stored once; behind those that are set stands one for
//! everything. Kafka topics are named in full, so that the routes bound their number. No route is out of reach of all messages.

use std::borrow::Cow;
use std::sync::Arc;

use model::TopicName;
use serde::{Deserialize, Serialize};

use super::naming::Naming;
use super::topic::{KAFKA, TopicFilter};
use crate::broker::access::is_temporary;

/// Where everything goes that no other route takes.
pub(super) const DEFAULT_TOPIC: &str = "mqtt";
/// How many partitions a topic gets when it is made, if nothing else is said.
const DEFAULT_PARTITIONS: u32 = 16;
/// Each message is held against each of them.
const ROUTES_MAX: usize = 64;
/// The most partitions that a route asks for.
const PARTITIONS_MAX: u32 = 10_000;
/// What stands for the whole topic in a key.
const WHOLE: &str = "topic";

/// All of them, in order. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes(Arc<[Route]>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// As it is written.
    pub(super) written: Written,
    /// With `+` where names stand.
    filter: TopicFilter,
    pub(super) topic: TopicName,
    key: Key,
    pub(super) partitions: u32,
}

/// A route as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) filter: String,
    pub(super) topic: String,
    #[serde(default = "whole_topic")]
    pub(super) key: String,
    #[serde(default = "default_partitions")]
    pub(super) partitions: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    /// The topic.
    Whole,
    Parts(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Whole,
    /// A level of the topic.
    Level(usize),
}

/// A name of a filter, and which level it stands for.
type Named<'a> = (&'a str, usize);

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To<'a> {
    /// By a route.
    Route {
        route: &'a Route,
        key: Cow<'a, [u8]>,
    },
    /// To a Kafka topic that its own topic names, whether there is such a topic or not.
    Kafka {
        topic: &'a str,
        key: Option<&'a [u8]>,
    },
}

impl To<'_> {
    /// The key that it gets.
    pub(super) fn key(&self) -> Option<&[u8]> {
        match self {
            To::Route { key, .. } => Some(key),
            To::Kafka { key, .. } => *key,
        }
    }

    /// Whether a header has to say its topic.
    pub(super) fn needs_topic(&self) -> bool {
        matches!(self, To::Route { route, .. } if !route.keys_are_names())
    }
}

fn whole_topic() -> String {
    format!("{{{WHOLE}}}")
}

fn default_partitions() -> u32 {
    DEFAULT_PARTITIONS
}

impl Default for Routes {
    fn default() -> Routes {
        Routes([Route::of_everything(DEFAULT_PARTITIONS)].into())
    }
}

impl Routes {
    /// Reads them: a JSON array of objects, in order. Errors: which one cannot be, and why.
    pub(super) fn parse(text: &str) -> Result<Routes, String> {
        let array: Vec<serde_json::Value> = serde_json::from_str(text)
            .map_err(|error| format!("must be a JSON array of routes: {error}"))?;
        if array.len() > ROUTES_MAX {
            return Err(format!("there may be {ROUTES_MAX} routes at most"));
        }
        let mut all: Vec<Route> = Vec::new();
        for (number, value) in (1..).zip(array) {
            let of_route = |reason: String| format!("route {number}: {reason}");
            let written: Written =
                serde_json::from_value(value).map_err(|error| of_route(error.to_string()))?;
            let route = Route::of(written).map_err(of_route)?;
            for (before, other) in (1..).zip(&all) {
                route.check_beside(other, before).map_err(of_route)?;
            }
            if &*route.topic == DEFAULT_TOPIC && !route.keys_are_names() {
                return Err(of_route(format!(
                    "the key of records in the topic {DEFAULT_TOPIC} is {{{WHOLE}}}: messages that no route takes go there"
                )));
            }
            all.push(route);
        }
        let mut to_default = all.iter().filter(|it| &*it.topic == DEFAULT_TOPIC);
        let partitions = to_default.next().map(|it| it.partitions);
        let partitions = partitions.unwrap_or(DEFAULT_PARTITIONS);
        all.push(Route::of_everything(partitions));
        Ok(Routes(all.into()))
    }

    /// As they are set, in one spelling.
    pub(super) fn text(&self) -> String {
        let written: Vec<&Written> = self.set().iter().map(|route| &route.written).collect();
        serde_json::to_string(&written).expect("text and numbers are JSON")
    }

    /// Those that are set.
    fn set(&self) -> &[Route] {
        &self.0[..self.0.len() - 1]
    }

    /// Those that take messages: all that are set, and the one for everything, unless they leave nothing for it.
    pub(super) fn all(&self) -> &[Route] {
        let (last, set) = self.0.split_last().expect("one is for everything");
        let leaves_nothing = set.iter().any(|route| route.filter.covers(&last.filter));
        match leaves_nothing {
            true => set,
            false => &self.0,
        }
    }

    /// Whether it is the one for everything, which nobody has set.
    pub(super) fn is_default(&self, route: &Route) -> bool {
        self.0.last().is_some_and(|last| std::ptr::eq(last, route))
    }

    /// Where messages of a topic go; None if nobody publishes there.
    pub(super) fn to<'a>(&'a self, name: &'a str) -> Option<To<'a>> {
        if let Some(rest) = name.strip_prefix(KAFKA) {
            let (topic, key) = match rest.split_once('/') {
                Some((topic, key)) => (topic, Some(key.as_bytes())),
                None => (rest, None),
            };
            return TopicName::parse(topic)
                .is_ok()
                .then_some(To::Kafka { topic, key });
        }
        let route = self.of(name)?;
        let key = route.key.of(name);
        Some(To::Route { route, key })
    }

    fn of(&self, name: &str) -> Option<&Route> {
        self.0.iter().find(|route| route.filter.matches(name))
    }

    /// Whether messages of a published topic go to this Kafka topic.
    pub(super) fn leads(&self, name: &str, topic: &TopicName) -> bool {
        self.of(name).is_some_and(|route| route.topic == *topic)
    }

    /// A route to each Kafka topic that messages go to which a filter of published topics matches.
    pub(super) fn read_by(&self, filter: &TopicFilter) -> Vec<&Route> {
        let mut found: Vec<&Route> = Vec::new();
        for route in self.0.iter() {
            if !route.filter.overlaps(filter) {
                continue;
            }
            if found.iter().all(|it| it.topic != route.topic) {
                found.push(route);
            }
            if route.filter.covers(filter) {
                // Nothing is left for those behind it.
                break;
            }
        }
        found
    }

    /// A route to each further Kafka topic where such messages may be that came before a route was put before others.
    pub(super) fn once_read_by(&self, filter: &TopicFilter) -> Vec<&Route> {
        let now = self.read_by(filter);
        let mut found: Vec<&Route> = Vec::new();
        for route in self.0.iter().filter(|it| it.filter.overlaps(filter)) {
            let mut known = now.iter().chain(&found);
            if known.all(|it| it.topic != route.topic) {
                found.push(route);
            }
        }
        found
    }

    /// What the records of a Kafka topic are called. One that no route leads to may have been a route's: those have the topic as a header, or
    /// as the key.
    pub(super) fn naming(&self, topic: &TopicName) -> Naming {
        let mut to_topic = self.0.iter().filter(|route| route.topic == *topic);
        Naming {
            topic: topic.clone(),
            keys_are_names: to_topic.next().is_none_or(Route::keys_are_names),
        }
    }
}

impl Route {
    fn of_everything(partitions: u32) -> Route {
        let written = Written {
            filter: "#".to_owned(),
            topic: DEFAULT_TOPIC.to_owned(),
            key: whole_topic(),
            partitions,
        };
        Route::of(written).expect("a route")
    }

    fn of(written: Written) -> Result<Route, String> {
        let (filter, names) = read_filter(&written.filter)?;
        let topic = TopicName::parse(&written.topic)
            .map_err(|error| format!("topic {:?}: {error}", written.topic))?;
        if TopicName::is_reserved(&topic) || is_temporary(&topic) {
            return Err(format!("topic {topic}: no client writes to it"));
        }
        let key = Key::read(&written.key, &names)
            .map_err(|reason| format!("key {:?}: {reason}", written.key))?;
        let partitions = written.partitions;
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(format!("partitions must be 1 to {PARTITIONS_MAX}"));
        }
        Ok(Route {
            written,
            filter,
            topic,
            key,
            partitions,
        })
    }

    /// Whether the key of its records is their topic.
    pub(super) fn keys_are_names(&self) -> bool {
        self.key == Key::Whole
    }

    /// Whether it may stand behind another one, which is the so-manyth.
    fn check_beside(&self, other: &Route, number: usize) -> Result<(), String> {
        let filter = &self.written.filter;
        if other.filter.covers(&self.filter) {
            return Err(format!(
                "filter {filter}: route {number}, {}, takes all of its messages",
                other.written.filter
            ));
        }
        let topic = &self.topic;
        if *topic != other.topic {
            let key = topic.collision_key();
            if key.is_some() && key == other.topic.collision_key() {
                return Err(format!(
                    "topic {topic} collides with {}, the topic of route {number}",
                    other.topic
                ));
            }
            return Ok(());
        }
        if self.partitions != other.partitions {
            return Err(format!(
                "topic {topic} has {} partitions, and {} by route {number}",
                self.partitions, other.partitions
            ));
        }
        match self.keys_are_names() == other.keys_are_names() {
            true => Ok(()),
            false => Err(format!(
                "the key of records in the topic {topic} is the topic of their messages by one of the routes {number} and this one: it is \
                 by all of them, or by none"
            )),
        }
    }
}

/// The filter with `+` for each name, and which level each name is.
fn read_filter(text: &str) -> Result<(TopicFilter, Vec<Named<'_>>), String> {
    let of_filter = |reason: &str| format!("filter {text:?}: {reason}");
    let mut names: Vec<Named<'_>> = Vec::new();
    let mut levels: Vec<&str> = Vec::new();
    for (index, level) in text.split('/').enumerate() {
        let inner = level.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        match inner {
            Some(name) => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if name.is_empty() || !name.chars().all(is_word) {
                    return Err(of_filter("a name has letters, digits and _"));
                }
                if name == WHOLE {
                    return Err(of_filter("{topic} is the whole topic, in a key"));
                }
                if names.iter().any(|(other, _)| *other == name) {
                    return Err(of_filter(&format!("{{{name}}} stands there twice")));
                }
                names.push((name, index));
                levels.push("+");
            }
            None if level.contains(['{', '}']) => {
                return Err(of_filter("a name in braces stands alone in its level"));
            }
            None => levels.push(level),
        }
    }
    if text.starts_with('$') {
        return Err(of_filter("nobody publishes below $"));
    }
    if text.contains('\0') || text.len() > usize::from(u16::MAX) {
        return Err(of_filter("it is none of MQTT"));
    }
    let filter = TopicFilter::parse(&levels.join("/"));
    let filter = filter.map_err(|error| of_filter(&error.to_string()))?;
    Ok((filter, names))
}

impl Key {
    fn read(text: &str, names: &[Named<'_>]) -> Result<Key, String> {
        if text == whole_topic() {
            return Ok(Key::Whole);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, behind) = behind.split_once('}').ok_or("a { has no }")?;
            parts.push(Part::Text(plain(before)?.into()));
            parts.push(match names.iter().find(|(it, _)| *it == name) {
                Some((_, level)) => Part::Level(*level),
                None if name == WHOLE => Part::Whole,
                None => return Err(format!("the filter has no {{{name}}}")),
            });
            rest = behind;
        }
        parts.push(Part::Text(plain(rest)?.into()));
        parts.retain(|part| *part != Part::Text("".into()));
        match parts.is_empty() {
            true => Err("it has one character at least".to_owned()),
            false => Ok(Key::Parts(parts)),
        }
    }

    /// That of a message of this topic.
    fn of<'a>(&self, name: &'a str) -> Cow<'a, [u8]> {
        let parts = match self {
            Key::Whole => return Cow::Borrowed(name.as_bytes()),
            Key::Parts(parts) => parts,
        };
        let level = |index: usize| name.split('/').nth(index).unwrap_or_default();
        if let [Part::Level(index)] = parts[..] {
            return Cow::Borrowed(level(index).as_bytes());
        }
        let texts = parts.iter().map(|part| match part {
            Part::Text(text) => text,
            Part::Whole => name,
            Part::Level(index) => level(*index),
        });
        Cow::Owned(texts.collect::<String>().into_bytes())
    }
}

fn plain(text: &str) -> Result<&str, String> {
    match text.contains('}') {
        true => Err("a } has no {".to_owned()),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Routes {
        Routes::parse(text).expect("routes")
    }

    fn shown(routes: &Routes, name: &str) -> (String, String) {
        let Some(To::Route { route, key }) = routes.to(name) else {
            panic!("{name}");
        };
        let key = String::from_utf8(key.into_owned()).expect("text");
        (route.topic.to_string(), key)
    }

    const THREE: &str = r#"[
        {"filter": "site/{site}/{device}/#", "topic": "telemetry", "key": "{device}", "partitions": 4},
        {"filter": "site/#", "topic": "sites"},
        {"filter": "{a}/{b}/alarm", "topic": "alarms", "key": "{b}.{a}:{topic}"}
    ]"#;

    #[test]
    fn the_first_route_that_matches_takes_a_message_and_says_its_key() {
        let routes = routes(THREE);
        for (name, topic, key) in [
            ("site/17/pump/temp", "telemetry", "pump"),
            ("site/17/pump", "telemetry", "pump"),
            ("site/17", "sites", "site/17"),
            ("site", "sites", "site"),
            ("x/y/alarm", "alarms", "y.x:x/y/alarm"),
            ("site/x/alarm", "telemetry", "alarm"),
            ("//alarm", "alarms", ".://alarm"),
            ("other", "mqtt", "other"),
        ] {
            let found = shown(&routes, name);
            assert_eq!(found, (topic.to_owned(), key.to_owned()), "{name}");
            assert!(routes.leads(name, &TopicName::parse(topic).expect("a name")));
        }
        assert_eq!(routes.to("$SYS/x"), None);
        assert_eq!(routes.to("$kafka/a b/x"), None);
        let of = |topic, key| Some(To::Kafka { topic, key });
        assert_eq!(routes.to("$kafka/t/a/b"), of("t", Some(&b"a/b"[..])));
        assert_eq!(routes.to("$kafka/t"), of("t", None));
        assert_eq!(routes.to("$kafka/t/"), of("t", Some(&b""[..])));
    }

    #[test]
    fn a_filter_reads_the_topics_that_its_messages_go_to() {
        let routes = routes(THREE);
        let names = |found: Vec<&Route>| -> Vec<String> {
            found.iter().map(|it| it.topic.to_string()).collect()
        };
        for (filter, now, once) in [
            ("#", &["telemetry", "sites", "alarms", "mqtt"][..], &[][..]),
            ("site/17/pump/temp", &["telemetry"], &["sites", "mqtt"]),
            ("site/+", &["sites"], &["mqtt"]),
            ("site/#", &["telemetry", "sites"], &["alarms", "mqtt"]),
            ("a/+/alarm", &["alarms"], &["mqtt"]),
            ("other", &["mqtt"], &[]),
        ] {
            let filter = TopicFilter::parse(filter).expect("a filter");
            assert_eq!(names(routes.read_by(&filter)), now, "{filter:?}");
            assert_eq!(names(routes.once_read_by(&filter)), once, "{filter:?}");
        }
        let default = Routes::default();
        assert_eq!(
            names(default.read_by(&TopicFilter::parse("a/#").expect("a filter"))),
            ["mqtt"]
        );
    }

    #[test]
    fn routes_are_shown_as_they_are_read() {
        let shown = routes(THREE).text();
        assert_eq!(routes(&shown), routes(THREE));
        assert!(
            shown.contains(r#""key":"{topic}","partitions":16"#),
            "{shown}"
        );
        assert_eq!(routes("[]"), Routes::default());
        assert_eq!(Routes::default().text(), "[]");
        assert_eq!(
            (routes(THREE).all().len(), Routes::default().all().len()),
            (4, 1)
        );
        let all = routes(r##"[{"filter": "#", "topic": "all"}]"##);
        assert_eq!(
            all.all().len(),
            1,
            "nothing is left for the one of everything"
        );
    }

    #[test]
    fn routes_that_cannot_be_are_refused_with_their_reason() {
        let two = |one: &str, two: &str| format!("[{{{one}}}, {{{two}}}]");
        for (text, said) in [
            ("x".to_owned(), "must be a JSON array"),
            (
                r#"[{"filter": "a"}]"#.to_owned(),
                "route 1: missing field `topic`",
            ),
            (
                r#"[{"filter": "a", "topic": "t", "x": 1}]"#.to_owned(),
                "unknown field `x`",
            ),
            (
                r#"[{"filter": "a/#/b", "topic": "t"}]"#.to_owned(),
                "# stands alone",
            ),
            (
                r#"[{"filter": "", "topic": "t"}]"#.to_owned(),
                "one character at least",
            ),
            (
                r#"[{"filter": "$x/a", "topic": "t"}]"#.to_owned(),
                "below $",
            ),
            (
                r#"[{"filter": "a{b}", "topic": "t"}]"#.to_owned(),
                "stands alone in its level",
            ),
            (
                r#"[{"filter": "{a}/{a}", "topic": "t"}]"#.to_owned(),
                "{a} stands there twice",
            ),
            (
                r#"[{"filter": "{}", "topic": "t"}]"#.to_owned(),
                "letters, digits and _",
            ),
            (
                r#"[{"filter": "{topic}", "topic": "t"}]"#.to_owned(),
                "the whole topic",
            ),
            (
                r#"[{"filter": "a", "topic": "a/b"}]"#.to_owned(),
                "a topic name consists of",
            ),
            (
                r#"[{"filter": "a", "topic": "__consumer_offsets"}]"#.to_owned(),
                "no client writes to it",
            ),
            (
                r#"[{"filter": "{a}", "topic": "t", "key": "{b}"}]"#.to_owned(),
                "the filter has no {b}",
            ),
            (
                r#"[{"filter": "{a}", "topic": "t", "key": "{a"}]"#.to_owned(),
                "a { has no }",
            ),
            (
                r#"[{"filter": "{a}", "topic": "t", "key": "a}"}]"#.to_owned(),
                "a } has no {",
            ),
            (
                r#"[{"filter": "{a}", "topic": "t", "key": ""}]"#.to_owned(),
                "one character at least",
            ),
            (
                r#"[{"filter": "a", "topic": "t", "partitions": 0}]"#.to_owned(),
                "partitions must be 1 to",
            ),
            (
                r#"[{"filter": "{a}/b", "topic": "mqtt", "key": "{a}"}]"#.to_owned(),
                "that no route takes go there",
            ),
            (
                two(
                    r#""filter": "a/+", "topic": "t""#,
                    r#""filter": "a/{b}", "topic": "u""#,
                ),
                "route 2: filter a/{b}: route 1, a/+, takes all of its messages",
            ),
            (
                two(
                    r#""filter": "a/b", "topic": "t.x""#,
                    r#""filter": "c", "topic": "t_x""#,
                ),
                "route 2: topic t_x collides with t.x, the topic of route 1",
            ),
            (
                two(
                    r#""filter": "a", "topic": "t""#,
                    r#""filter": "b", "topic": "t", "partitions": 3"#,
                ),
                "route 2: topic t has 3 partitions, and 16 by route 1",
            ),
            (
                two(
                    r#""filter": "a", "topic": "t""#,
                    r#""filter": "{b}/c", "topic": "t", "key": "{b}""#,
                ),
                "by all of them, or by none",
            ),
        ] {
            let refused = Routes::parse(&text).expect_err("no routes");
            assert!(refused.contains(said), "{text}: {refused}");
        }
        let many = vec![r#"{"filter": "a", "topic": "t"}"#; ROUTES_MAX + 1].join(",");
        assert!(Routes::parse(&format!("[{many}]")).is_err());
    }
}
