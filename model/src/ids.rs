//! Numbers and identifiers that must not be swapped. The wire's sentinels (-1, -2, ...) are parsed away by `from_wire`.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A record's place in its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);
    /// The largest offset that the wire's i64 can carry.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// The offset with this number. Numbers above [`Offset::MAX`] cannot be written to the wire.
    pub const fn new(offset: u64) -> Offset {
        Offset(offset)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As the wire's i64; what lies above [`Offset::MAX`] is cut to it.
    pub const fn to_wire(self) -> i64 {
        if self.0 > i64::MAX as u64 {
            i64::MAX
        } else {
            self.0 as i64
        }
    }

    /// From the wire's i64; None for every negative number, which are all sentinels.
    pub const fn from_wire(offset: i64) -> Option<Offset> {
        if offset < 0 {
            None
        } else {
            Some(Offset(offset as u64))
        }
    }

    /// The offset `count` records further on. Saturates, which no log reaches.
    pub const fn plus(self, count: u64) -> Offset {
        Offset(self.0.saturating_add(count))
    }

    /// The offset `count` records further on; None beyond [`Offset::MAX`].
    pub const fn checked_plus(self, count: u64) -> Option<Offset> {
        match self.0.checked_add(count) {
            Some(sum) if sum <= i64::MAX as u64 => Some(Offset(sum)),
            _ => None,
        }
    }

    /// How many offsets lie in `earlier..self`; zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Offset {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Offset, Self::Err> {
        text.parse().map(Offset)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z. May lie before it; -1 means "none" on the wire, which callers handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// What the wire writes where there is no timestamp.
    pub const NONE: Timestamp = Timestamp(-1);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    /// As milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whether this is the wire's "none".
    pub const fn is_none(self) -> bool {
        self.0 == -1
    }

    /// This timestamp moved later by `millis` (earlier if negative). Saturates.
    pub const fn plus_millis(self, millis: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this timestamp; negative if it is later. Saturates.
    pub const fn millis_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition's number within its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u32);

impl PartitionId {
    /// The partition with this number. Numbers above `i32::MAX` cannot be written to the wire.
    pub const fn new(partition: u32) -> PartitionId {
        PartitionId(partition)
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As the wire's i32; what lies above its range is cut to it.
    pub const fn to_wire(self) -> i32 {
        if self.0 > i32::MAX as u32 {
            i32::MAX
        } else {
            self.0 as i32
        }
    }

    /// From the wire's i32; None if negative.
    pub const fn from_wire(partition: i32) -> Option<PartitionId> {
        if partition < 0 {
            None
        } else {
            Some(PartitionId(partition as u32))
        }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PartitionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<PartitionId, Self::Err> {
        text.parse().map(PartitionId)
    }
}

/// Which start of the broker wrote a batch; rises at every start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(u32);

impl LeaderEpoch {
    /// The epoch with this number.
    pub const fn new(epoch: u32) -> LeaderEpoch {
        LeaderEpoch(epoch)
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As the wire's i32; what lies above its range is cut to it.
    pub const fn to_wire(self) -> i32 {
        if self.0 > i32::MAX as u32 {
            i32::MAX
        } else {
            self.0 as i32
        }
    }

    /// From the wire's i32; None if negative ("unknown").
    pub const fn from_wire(epoch: i32) -> Option<LeaderEpoch> {
        if epoch < 0 {
            None
        } else {
            Some(LeaderEpoch(epoch as u32))
        }
    }

    /// The epoch of the next start. Saturates.
    pub const fn next(self) -> LeaderEpoch {
        LeaderEpoch(self.0.saturating_add(1))
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A producer's number, handed out by the broker and never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(i64);

impl ProducerId {
    /// The producer with this number.
    pub const fn new(id: i64) -> ProducerId {
        ProducerId(id)
    }

    /// The number itself.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// From the wire's i64; None if negative ("not idempotent").
    pub const fn from_wire(id: i64) -> Option<ProducerId> {
        if id < 0 { None } else { Some(ProducerId(id)) }
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which incarnation of a producer wrote a batch; an older one is fenced by a newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(i16);

impl ProducerEpoch {
    /// The epoch with this number.
    pub const fn new(epoch: i16) -> ProducerEpoch {
        ProducerEpoch(epoch)
    }

    /// The number itself.
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl fmt::Display for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic's identity: new at every creation, so that a deleted topic never comes back under its old name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(Uuid);

impl TopicId {
    /// The wire's "no topic id".
    pub const ZERO: TopicId = TopicId(Uuid::nil());

    /// A fresh random identity; never [`TopicId::ZERO`] nor one of the reserved ones.
    pub fn random() -> TopicId {
        TopicId(Uuid::new_v4())
    }

    /// From a UUID.
    pub const fn from_uuid(uuid: Uuid) -> TopicId {
        TopicId(uuid)
    }

    /// As a UUID.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }

    /// From its sixteen bytes, as they stand on disk and on the wire.
    pub const fn from_bytes(bytes: [u8; 16]) -> TopicId {
        TopicId(Uuid::from_bytes(bytes))
    }

    /// Its sixteen bytes, as they stand on disk and on the wire.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// Whether this is [`TopicId::ZERO`].
    pub fn is_zero(self) -> bool {
        self.0.is_nil()
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for TopicId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<TopicId, uuid::Error> {
        text.parse().map(TopicId)
    }
}

/// What storage calls a partition. Shown and parsed as `<topic uuid>-<partition>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The topic's identity.
    pub topic_id: TopicId,
    /// The partition's number within the topic.
    pub partition: PartitionId,
}

impl LogId {
    /// The log of this topic's partition.
    pub const fn new(topic_id: TopicId, partition: PartitionId) -> LogId {
        LogId {
            topic_id,
            partition,
        }
    }

    /// The state log with this number, which is not 0.
    pub const fn of_state(number: u8) -> LogId {
        assert!(number > 0);
        let mut bytes = [0; 16];
        bytes[15] = number;
        LogId {
            topic_id: TopicId::from_bytes(bytes),
            partition: PartitionId::new(0),
        }
    }

    /// The number of a state log, also of one that this release does not know; None for a topic's log. The range is that of
    /// the UUIDs that are zero but for their last byte: no random UUID is.
    pub fn state_number(self) -> Option<u8> {
        let [zeros @ .., number] = self.topic_id.to_bytes();
        (zeros == [0; 15] && number > 0).then_some(number)
    }

    /// Whether this log belongs to the store itself and to no topic.
    pub fn is_reserved(self) -> bool {
        self.state_number().is_some()
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

/// A text that is not `<uuid>-<number>` in the one spelling that [`LogId`] is shown in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a log id (<topic uuid>-<partition>): {text:?}")]
pub struct InvalidLogId {
    /// What was to be parsed.
    pub text: String,
}

impl FromStr for LogId {
    type Err = InvalidLogId;

    /// Only the spelling that `Display` writes is taken: a directory has one name.
    fn from_str(text: &str) -> Result<LogId, InvalidLogId> {
        let parse = || {
            let (uuid, partition) = text.rsplit_once('-')?;
            let id = LogId {
                topic_id: uuid.parse().ok()?,
                partition: PartitionId(partition.parse().ok()?),
            };
            (id.to_string() == text).then_some(id)
        };
        parse().ok_or_else(|| InvalidLogId {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_keep_the_wires_sentinels_out() {
        assert_eq!(Offset::from_wire(-1), None);
        assert_eq!(Offset::from_wire(i64::MIN), None);
        assert_eq!(Offset::from_wire(7), Some(Offset::new(7)));
        assert_eq!(Offset::new(u64::MAX).to_wire(), i64::MAX);
        assert_eq!(Offset::MAX.checked_plus(1), None);
        assert_eq!(Offset::new(3).since(Offset::new(5)), 0);
        assert_eq!(PartitionId::from_wire(-1), None);
        assert_eq!(LeaderEpoch::from_wire(-1), None);
        assert_eq!(ProducerId::from_wire(-1), None);
    }

    #[test]
    fn log_ids_are_parsed_back_from_their_one_spelling() {
        for id in [
            LogId::METADATA,
            LogId::OFFSETS,
            LogId::new(TopicId::random(), PartitionId::new(0)),
            LogId::new(TopicId::random(), PartitionId::new(u32::MAX)),
        ] {
            assert_eq!(id.to_string().parse::<LogId>(), Ok(id));
        }
        let id = LogId::METADATA.to_string();
        for bad in [
            "",
            "-",
            "x-1",
            &id[..36],
            &format!("{id}-1"),
            &id.replace("-0", "-+0"),
        ] {
            assert!(bad.parse::<LogId>().is_err(), "{bad}");
        }
        assert!(
            format!("{}-01", LogId::METADATA.topic_id)
                .parse::<LogId>()
                .is_err()
        );
    }

    #[test]
    fn random_topic_ids_are_never_reserved() {
        let id = LogId::new(TopicId::random(), PartitionId::new(0));
        assert!(!id.is_reserved());
        assert!(!id.topic_id.is_zero());
        assert!(!LogId::new(TopicId::ZERO, PartitionId::new(0)).is_reserved());
        assert!(LogId::METADATA.is_reserved() && LogId::OFFSETS.is_reserved());
    }

    #[test]
    fn a_range_of_ids_is_reserved_for_state_logs_of_later_releases() {
        for number in 1..=u8::MAX {
            let id = LogId::of_state(number);
            assert_eq!(id.state_number(), Some(number));
            let other_partition = LogId::new(id.topic_id, PartitionId::new(7));
            assert!(other_partition.is_reserved());
        }
        for byte in 0..15 {
            let mut bytes = LogId::METADATA.topic_id.to_bytes();
            bytes[byte] = 1;
            let id = LogId::new(TopicId::from_bytes(bytes), PartitionId::new(0));
            assert!(!id.is_reserved(), "byte {byte}");
        }
    }
}
