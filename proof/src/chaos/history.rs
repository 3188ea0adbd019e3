//! What happened in a group under chaos, as plain facts: what members told, what was sent, what the broker was seen to
//! say. Callers: `run` writes it down, `checker` judges it. Times are the machine's clock in microseconds: a fact that
//! was told is noted at its end, an attempt at its begin.

use serde::{Deserialize, Deserializer, de::Error};
use std::collections::BTreeMap;

/// A partition's number.
pub type Partition = u32;

/// All that happened, by time.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// How many partitions the topic has.
    pub partition_count: u32,
    /// What happened, in the order of `at_us`.
    pub events: Vec<Event>,
}

/// One fact.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was noted.
    pub at_us: u64,
    /// What it is.
    pub what: What,
}

/// A fact about a member, about the topic, or about what the broker says.
#[derive(Clone, Debug)]
pub enum What {
    /// A member's program was started.
    Started(Who),
    /// A member told something.
    Told(Who, Telling),
    /// A member wrote a line that is none of a log.
    Garbled(Who, String),
    /// A member's program ended.
    Ended(Who, Ending),
    /// A record was acknowledged at this place.
    Produced {
        /// Where it is.
        partition: Partition,
        /// Its offset.
        offset: u64,
        /// What it says.
        value: String,
    },
    /// The broker answered which offsets are committed; asked at `begun_us`.
    Fetched {
        /// When it was asked.
        begun_us: u64,
        /// The partitions that have one.
        offsets: BTreeMap<Partition, u64>,
    },
    /// The broker described the group as stable, with these members.
    Stable(Vec<Described>),
    /// Nothing is done to anyone any more: the group is complete, and all that was sent is committed.
    Settled,
}

/// A member of a stable group, as the broker describes it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its member id.
    pub member_id: String,
    /// What it is assigned.
    pub partitions: Vec<Partition>,
}

/// A running program, and whose place in the group it takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The program: a new name for each start.
    pub process: String,
    /// The static member's instance id, which several programs bear one after the other; otherwise the program.
    pub owner: String,
}

/// A line of a member's log (`tests/compat/python/logbook.py`).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Telling {
    /// It owns these partitions since this generation; a generation of -1 is one that is lost already.
    Assigned {
        /// The group's generation.
        generation: i64,
        /// What it owns.
        partitions: Vec<Partition>,
    },
    /// It gave all up.
    Revoked,
    /// It has lost all.
    Lost,
    /// It was shown records.
    Seen {
        /// Where they are.
        partition: Partition,
        /// Their offsets and values.
        records: Vec<(u64, String)>,
    },
    /// It is about to commit.
    Committing {
        /// Its generation before the attempt.
        generation: i64,
        /// The next offsets to read.
        #[serde(deserialize_with = "by_partition")]
        offsets: BTreeMap<Partition, u64>,
    },
    /// Its last attempt was acknowledged.
    Committed {
        /// Its generation afterwards.
        generation: i64,
    },
    /// Its last attempt was refused, or nobody knows.
    Refused {
        /// The client's error.
        why: String,
    },
    /// Another program has taken its instance id.
    Fenced {
        /// The client's error.
        why: String,
    },
    /// The client met an error that it lives with.
    Trouble {
        /// The client's error.
        why: String,
    },
}

/// How a member's program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was killed.
    Killed,
    /// It was told to leave and did, or it was fenced and said so.
    Left,
    /// By itself, or not as it should.
    Failed,
}

impl History {
    /// Notes a fact; they may come out of order.
    pub fn note(&mut self, at_us: u64, what: What) {
        self.events.push(Event { at_us, what });
    }

    /// Puts the facts in order.
    pub fn sort(&mut self) {
        self.events.sort_by_key(|event| event.at_us);
    }
}

/// JSON's keys are texts.
fn by_partition<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Partition, u64>, D::Error> {
    BTreeMap::<String, u64>::deserialize(from)?
        .into_iter()
        .map(|(partition, offset)| Ok((partition.parse().map_err(D::Error::custom)?, offset)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_each_kind_is_understood() {
        let read = |line: &str| serde_json::from_str::<Telling>(line).unwrap();
        assert_eq!(
            read(r#"{"event":"assigned","generation":3,"partitions":[0,2],"at_us":1}"#),
            Telling::Assigned {
                generation: 3,
                partitions: vec![0, 2]
            }
        );
        assert_eq!(
            read(r#"{"at_us":1,"event":"committing","generation":3,"offsets":{"10":7}}"#),
            Telling::Committing {
                generation: 3,
                offsets: BTreeMap::from([(10, 7)])
            }
        );
        assert_eq!(
            read(r#"{"event":"seen","at_us":1,"partition":1,"records":[[5,"x"]]}"#),
            Telling::Seen {
                partition: 1,
                records: vec![(5, "x".to_owned())]
            }
        );
        assert_eq!(
            read(r#"{"event":"lost","at_us":1,"count":2}"#),
            Telling::Lost
        );
    }
}
