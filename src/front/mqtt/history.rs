//! History as a subscription: `$replay/<from>/<filter>` gives what the log has of the filter's topics from some place on, and then what
//! comes; `$replay/<from>..<to>/<filter>` gives what lies between, and nothing more; `$replay/@<offsets>/<filter>` goes on behind the messages
//! that have these `log-offset`s. In MQTT 5 user properties of SUBSCRIBE say the same.
//! Callers: `outbound`. Pure.

use std::fmt;

use model::time_spec::Position;
use model::{Offset, PartitionId, Timestamp};

use super::packet::Properties;
use super::routes::DEFAULT_TOPIC;

/// What such filters begin with.
pub(super) const PREFIX: &str = "$replay/";
/// Where gaps are told to whoever subscribes to it.
pub(super) const STATUS: &str = "$replay/status";
/// The user properties that say it.
const FROM: &str = "replay-from";
const TO: &str = "replay-to";
const LIMIT: &str = "replay-limit";
const SPEED: &str = "replay-speed";

/// Faster than this is as they come.
const SPEED_MAX: f64 = 1e6;

/// A range of what there is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Replay {
    /// Where to begin.
    pub(super) from: From,
    /// Where to end; without it, it goes on with what comes.
    pub(super) to: Option<Position>,
    /// The end after so many messages.
    pub(super) limit: Option<u64>,
    /// So many times as fast as they came.
    pub(super) speed: Option<f64>,
}

/// Where a range begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum From {
    /// A place or time.
    At(Position),
    /// Behind the last message that was taken of each of these partitions; of others nothing was.
    Behind(Vec<Taken>),
}

/// A message that was taken, as its `log-offset` says it: `<partition>:<offset>`, with the Kafka topic and a colon before it unless that is
/// the one of messages that no route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) topic: Box<str>,
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taken {
            topic,
            partition,
            offset,
        } = self;
        write!(f, "{}{partition}:{offset}", head_of(topic))
    }
}

/// What stands before partition and offset.
pub(super) fn head_of(topic: &str) -> String {
    match topic {
        DEFAULT_TOPIC => String::new(),
        topic => format!("{topic}:"),
    }
}

impl Taken {
    fn parse(text: &str) -> Result<Taken, NoReplay> {
        let (place, offset) = text.rsplit_once(':').ok_or(NoReplay)?;
        let (topic, partition) = place.rsplit_once(':').unwrap_or((DEFAULT_TOPIC, place));
        let offset: u64 = offset.parse().map_err(|_| NoReplay)?;
        if offset >= Offset::MAX.get() {
            return Err(NoReplay);
        }
        Ok(Taken {
            topic: topic.into(),
            partition: PartitionId::new(partition.parse().map_err(|_| NoReplay)?),
            offset: Offset::new(offset),
        })
    }

    fn is_in(&self, other: &Taken) -> bool {
        self.topic == other.topic && self.partition == other.partition
    }
}

/// What is wrong with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoReplay;

impl Replay {
    /// Reads what stands behind the prefix: places by the grammar of all commands, and a filter of topics, which is given back. A
    /// duration counts from `now`. An offset is no place here, as it would mean another one in each partition.
    pub(super) fn parse(text: &str, now: Timestamp) -> Result<(Replay, &str), NoReplay> {
        let (range, filter) = text.split_once('/').ok_or(NoReplay)?;
        let (from, to) = match range.split_once("..") {
            Some((from, to)) => (from, Some(place(to, now)?)),
            None => (range, None),
        };
        let replay = Replay {
            from: begin(from, now)?,
            to,
            limit: None,
            speed: None,
        };
        Ok((replay.checked()?, filter))
    }

    /// What user properties ask for beside a filter, if any does: without a place to begin there is nothing to replay.
    pub(super) fn of_properties(
        properties: &Properties<'_>,
        now: Timestamp,
    ) -> Result<Option<Replay>, NoReplay> {
        let mut given = [None; 4];
        for (name, value) in &properties.user {
            let index = [FROM, TO, LIMIT, SPEED].iter().position(|it| it == name);
            if let Some(index) = index
                && given[index].replace(*value).is_some()
            {
                return Err(NoReplay);
            }
        }
        let [from, to, limit, speed] = given;
        let Some(from) = from else {
            return match given.iter().flatten().next() {
                Some(_) => Err(NoReplay),
                None => Ok(None),
            };
        };
        let limit = limit.map(|it| it.parse::<u64>().ok().filter(|it| *it > 0).ok_or(NoReplay));
        let speed = speed.map(|it| {
            let speed = it.parse::<f64>().ok();
            let speed = speed.filter(|it| *it > 0.0 && *it <= SPEED_MAX);
            speed.ok_or(NoReplay)
        });
        let replay = Replay {
            from: begin(from, now)?,
            to: to.map(|to| place(to, now)).transpose()?,
            limit: limit.transpose()?,
            speed: speed.transpose()?,
        };
        replay.checked().map(Some)
    }

    /// What goes on behind offsets goes on with what comes.
    fn checked(self) -> Result<Replay, NoReplay> {
        match (&self.from, self.to) {
            (From::Behind(_), Some(_)) => Err(NoReplay),
            _ => Ok(self),
        }
    }
}

/// Where to begin: a place, or `@` and the offsets of messages, each as its `log-offset` says it, with commas between them.
fn begin(text: &str, now: Timestamp) -> Result<From, NoReplay> {
    let Some(offsets) = text.strip_prefix('@') else {
        return place(text, now).map(From::At);
    };
    let mut behind: Vec<Taken> = Vec::new();
    for offset in offsets.split(',') {
        let taken = Taken::parse(offset)?;
        if behind.iter().any(|other| other.is_in(&taken)) {
            return Err(NoReplay);
        }
        behind.push(taken);
    }
    Ok(From::Behind(behind))
}

fn place(text: &str, now: Timestamp) -> Result<Position, NoReplay> {
    match Position::parse(text, now) {
        Ok(Position::Offset(_)) | Err(_) => Err(NoReplay),
        Ok(place) => Ok(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(10_000_000);

    #[test]
    fn a_replay_is_a_range_and_a_filter() {
        let at = |millis| Position::At(Timestamp::from_millis(millis));
        let hour_ago = at(10_000_000 - 3_600_000);
        for (text, from, to, filter) in [
            ("-1h/site/17/#", hour_ago, None, "site/17/#"),
            ("earliest/#", Position::Earliest, None, "#"),
            ("-5/a", Position::BeforeLatest(5), None, "a"),
            ("7000ms//a", at(7_000), None, "/a"),
            ("-1h..-1m/a", hour_ago, Some(at(10_000_000 - 60_000)), "a"),
            (
                "earliest..latest/$kafka/t/#",
                Position::Earliest,
                Some(Position::Latest),
                "$kafka/t/#",
            ),
        ] {
            let (read, rest) = Replay::parse(text, NOW).expect("a replay");
            assert_eq!(
                (read.from, read.to, rest),
                (From::At(from), to, filter),
                "{text}"
            );
        }
        for bad in [
            "", "earliest", "x/a", "7/a", "-1h../a", "..-1h/a", "-1h..7/a",
        ] {
            assert_eq!(Replay::parse(bad, NOW), Err(NoReplay), "{bad}");
        }
    }

    #[test]
    fn a_replay_goes_on_behind_the_offsets_of_messages() {
        let of = |topic: &str, partition, offset| Taken {
            topic: topic.into(),
            partition: PartitionId::new(partition),
            offset: Offset::new(offset),
        };
        for (text, behind) in [
            ("@3:42/a/+", vec![of("mqtt", 3, 42)]),
            ("@3:42,0:7/a/+", vec![of("mqtt", 3, 42), of("mqtt", 0, 7)]),
            (
                "@site.1:3:42,3:7/a/+",
                vec![of("site.1", 3, 42), of("mqtt", 3, 7)],
            ),
        ] {
            let shown: Vec<String> = behind.iter().map(Taken::to_string).collect();
            assert!(text.contains(&format!("@{}/", shown.join(","))), "{text}");
            let (read, rest) = Replay::parse(text, NOW).expect("a replay");
            assert_eq!((read.from, rest), (From::Behind(behind), "a/+"), "{text}");
        }
        for bad in [
            "@/a",
            "@3/a",
            "@3:/a",
            "@x:1/a",
            "@3:-1/a",
            "@3:1,3:2/a",
            "@3:1,/a",
            "@t:3:1,t:3:2/a",
            "@3:1..latest/a",
            "@3:18446744073709551615/a",
            "-1h..@3:1/a",
        ] {
            assert_eq!(Replay::parse(bad, NOW), Err(NoReplay), "{bad}");
        }
    }

    #[test]
    fn user_properties_say_it_too() {
        let of = |user: &[(&'static str, &'static str)]| {
            let properties = Properties {
                user: user.to_vec(),
                ..Properties::default()
            };
            Replay::of_properties(&properties, NOW)
        };
        assert_eq!(of(&[("unit", "K")]), Ok(None));
        let all = [
            ("replay-from", "earliest"),
            ("replay-to", "7000ms"),
            ("replay-limit", "5"),
            ("replay-speed", "2.5"),
        ];
        let expected = Replay {
            from: From::At(Position::Earliest),
            to: Some(Position::At(Timestamp::from_millis(7_000))),
            limit: Some(5),
            speed: Some(2.5),
        };
        assert_eq!(of(&all), Ok(Some(expected)));
        for bad in [
            &[("replay-to", "-1h")][..],
            &[("replay-from", "x")],
            &[("replay-from", "earliest"), ("replay-from", "earliest")],
            &[("replay-from", "earliest"), ("replay-limit", "0")],
            &[("replay-from", "earliest"), ("replay-speed", "-1")],
            &[("replay-from", "earliest"), ("replay-speed", "NaN")],
        ] {
            assert_eq!(of(bad), Err(NoReplay), "{bad:?}");
        }
    }
}
