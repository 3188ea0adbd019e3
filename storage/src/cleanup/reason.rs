//! Why a plan does something to a segment, and what holds it back: each a value with its figures, and in words by `Display`.

use std::fmt;
use std::sync::Arc;

use model::Timestamp;

use super::policy::Policy;

/// Why something happens to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All its records lie before the start offset: somebody deleted them.
    BelowStart,
    /// Its last batch was appended longer ago than `retention.ms`.
    Age {
        /// How long ago.
        age_ms: u64,
        /// The limit.
        retention_ms: u64,
    },
    /// Without it the log still holds `retention.bytes`.
    Size {
        /// What the log holds with it.
        log_bytes: u64,
        /// The limit.
        retention_bytes: u64,
    },
    /// With it the whole store holds more than `store.bytes.max`, and nothing sealed is older.
    StoreSize {
        /// What the store holds with it.
        store_bytes: u64,
        /// The limit.
        store_bytes_max: u64,
    },
    /// More of the log is dirty than `min.cleanable.dirty.ratio`.
    DirtyRatio(DirtyRatio),
    /// The first record that compaction has not seen was appended longer ago than `max.compaction.lag.ms`.
    CompactionLag {
        /// How long ago.
        age_ms: u64,
        /// The limit.
        max_lag_ms: u64,
    },
    /// A tier of `thin.tiers` has reached its records.
    Tier {
        /// Which one, from 1.
        tier: u8,
        /// How long ago the last one was appended.
        age_ms: u64,
        /// The tier's age.
        tier_age_ms: u64,
    },
    /// Somebody asked for it to be done now.
    Asked,
    /// It and its neighbours are small enough to be one segment.
    SmallNeighbours {
        /// How many segments become one.
        count: usize,
        /// What they hold together.
        bytes: u64,
    },
}

/// How much of what may be compacted is dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyRatio {
    /// Bytes of segments that compaction has not seen.
    pub dirty_bytes: u64,
    /// Bytes of all segments that may be compacted.
    pub bytes: u64,
    /// The least ratio, in millionths.
    pub min_ppm: u32,
}

impl DirtyRatio {
    /// The ratio in millionths; 0 of nothing.
    pub fn ppm(&self) -> u32 {
        if self.bytes == 0 {
            return 0;
        }
        let ppm = u128::from(self.dirty_bytes) * 1_000_000 / u128::from(self.bytes);
        u32::try_from(ppm).unwrap_or(u32::MAX)
    }

    /// Whether it is dirty enough: more than the least ratio, as Kafka compares.
    pub fn is_reached(&self) -> bool {
        u128::from(self.dirty_bytes) * 1_000_000 > u128::from(self.bytes) * u128::from(self.min_ppm)
    }
}

/// The first rule that keeps a segment as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// The topic's `cleanup.policy` does not name the policy.
    PolicyNotSet(Policy),
    /// Neither `retention.ms` nor `retention.bytes` limits the log.
    NoLimit,
    /// `store.bytes.max` is not set, or not reached.
    StoreBelowSize,
    /// The broker's own log.
    OwnLog,
    /// It is compacted, and no retention removes from it: `store.bytes.max` leaves it alone.
    OnlyCompacted,
    /// It holds nothing.
    Empty,
    /// All its records lie before the start offset: retention removes it.
    BelowStart,
    /// It is written to.
    ActiveSegment,
    /// It is younger than `retention.ms`.
    Young {
        /// How long ago its last batch was appended.
        age_ms: u64,
        /// The limit.
        retention_ms: u64,
    },
    /// Without it the log would hold less than `retention.bytes`.
    BelowSize {
        /// What the log holds with it.
        log_bytes: u64,
        /// The limit.
        retention_bytes: u64,
    },
    /// Segments go from the front, and an older one stays.
    BehindKept,
    /// A hold wants records of it.
    Hold {
        /// Which.
        name: Arc<str>,
    },
    /// A hold wants records before it, and compaction goes no further than the first of them.
    BehindHold {
        /// Which.
        name: Arc<str>,
    },
    /// Records of it were appended less than `min.compaction.lag.ms` ago.
    CompactionLag {
        /// How long ago its last batch was appended.
        age_ms: u64,
        /// The limit.
        min_lag_ms: u64,
    },
    /// An older segment may not be compacted yet, and compaction goes in order.
    BehindLag,
    /// Less of the log is dirty than `min.cleanable.dirty.ratio`.
    DirtyRatio(DirtyRatio),
    /// Compaction has seen all of it, and nothing newer could replace a record.
    Clean,
    /// It is younger than the first tier of `thin.tiers`.
    TierAge {
        /// How long ago its last batch was appended.
        age_ms: u64,
        /// The tier's age.
        tier_age_ms: u64,
    },
    /// A tier of `thin.tiers` has reached it, but its last windows may still get records.
    OpenWindow {
        /// Which tier, from 1.
        tier: u8,
        /// The length of its windows.
        window_ms: u64,
    },
    /// It is thinned as far as its age asks for.
    Thinned {
        /// By which tier, from 1.
        tier: u8,
    },
    /// It could not be rewritten.
    SetAside {
        /// What went wrong.
        error: Arc<str>,
    },
}

impl Reason {
    /// A short name of the rule, for machines.
    pub const fn name(&self) -> &'static str {
        match self {
            Reason::BelowStart => "below_start",
            Reason::Age { .. } => "retention_ms",
            Reason::Size { .. } => "retention_bytes",
            Reason::StoreSize { .. } => "store_bytes_max",
            Reason::DirtyRatio(_) => "min_cleanable_dirty_ratio",
            Reason::CompactionLag { .. } => "max_compaction_lag_ms",
            Reason::Tier { .. } => "thin_tiers",
            Reason::Asked => "asked",
            Reason::SmallNeighbours { .. } => "small_neighbours",
        }
    }
}

impl HeldBack {
    /// A short name of the rule, for machines.
    pub const fn name(&self) -> &'static str {
        match self {
            HeldBack::PolicyNotSet(_) => "policy_not_set",
            HeldBack::NoLimit => "no_limit",
            HeldBack::StoreBelowSize => "store_bytes_max",
            HeldBack::OwnLog => "own_log",
            HeldBack::OnlyCompacted => "only_compacted",
            HeldBack::Empty => "empty",
            HeldBack::ActiveSegment => "active_segment",
            HeldBack::Young { .. } => "retention_ms",
            HeldBack::BelowSize { .. } => "retention_bytes",
            HeldBack::BehindKept => "behind_kept",
            HeldBack::Hold { .. } => "hold",
            HeldBack::BehindHold { .. } => "behind_hold",
            HeldBack::CompactionLag { .. } => "min_compaction_lag_ms",
            HeldBack::BehindLag => "behind_lag",
            HeldBack::DirtyRatio(_) => "min_cleanable_dirty_ratio",
            HeldBack::Clean => "clean",
            HeldBack::BelowStart => "below_start",
            HeldBack::TierAge { .. } => "thin_tiers",
            HeldBack::OpenWindow { .. } => "open_window",
            HeldBack::Thinned { .. } => "thinned",
            HeldBack::SetAside { .. } => "set_aside",
        }
    }
}

/// How long before `now` something was, in milliseconds; 0 for what lies ahead.
pub(super) fn age_ms(now: Timestamp, then: Timestamp) -> u64 {
    u64::try_from(now.millis_since(then)).unwrap_or(0)
}

/// A duration with the unit that suits it.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        match ms {
            0..10_000 => write!(f, "{ms} ms"),
            10_000..600_000 => write!(f, "{} s", ms / 1000),
            600_000..36_000_000 => write!(f, "{} min", ms / 60_000),
            36_000_000..864_000_000 => write!(f, "{} h", ms / 3_600_000),
            _ => write!(f, "{} days", ms / 86_400_000),
        }
    }
}

impl fmt::Display for DirtyRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ppm, min) = (self.ppm(), self.min_ppm);
        write!(
            f,
            "{} of {} bytes that may be compacted are dirty ({}.{:04} %), min.cleanable.dirty.ratio is {}.{:04} %",
            self.dirty_bytes,
            self.bytes,
            ppm / 10_000,
            ppm % 10_000,
            min / 10_000,
            min % 10_000
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reason::BelowStart => f.write_str("all its records lie before the log start offset"),
            Reason::Age {
                age_ms,
                retention_ms,
            } => write!(
                f,
                "its last record was appended {} ago, retention.ms is {}",
                Span(age_ms),
                Span(retention_ms)
            ),
            Reason::Size {
                log_bytes,
                retention_bytes,
            } => write!(
                f,
                "the partition holds {log_bytes} bytes with it, retention.bytes is {retention_bytes}"
            ),
            Reason::StoreSize {
                store_bytes,
                store_bytes_max,
            } => write!(
                f,
                "the store holds {store_bytes} bytes with it, store.bytes.max is {store_bytes_max}"
            ),
            Reason::DirtyRatio(ratio) => ratio.fmt(f),
            Reason::CompactionLag { age_ms, max_lag_ms } => write!(
                f,
                "the first dirty record was appended {} ago, max.compaction.lag.ms is {}",
                Span(age_ms),
                Span(max_lag_ms)
            ),
            Reason::Tier {
                tier,
                age_ms,
                tier_age_ms,
            } => write!(
                f,
                "its last record was appended {} ago, tier {tier} of thin.tiers begins at {}",
                Span(age_ms),
                Span(tier_age_ms)
            ),
            Reason::Asked => f.write_str("asked for"),
            Reason::SmallNeighbours { count, bytes } => write!(
                f,
                "{count} neighbouring segments hold {bytes} bytes together"
            ),
        }
    }
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeldBack::PolicyNotSet(policy) => {
                write!(f, "cleanup.policy of the topic does not name {policy}")
            }
            HeldBack::NoLimit => f.write_str("no limit: retention.ms and retention.bytes are not set, or cleanup.policy does not name delete"),
            HeldBack::StoreBelowSize => f.write_str("the store holds no more than store.bytes.max"),
            HeldBack::OwnLog => f.write_str("it is a log of the broker's own"),
            HeldBack::OnlyCompacted => f.write_str(
                "the topic is compacted without retention: its oldest record may be the only one of its key",
            ),
            HeldBack::Empty => f.write_str("it holds nothing"),
            HeldBack::BelowStart => {
                f.write_str("all its records lie before the log start offset: retention removes it")
            }
            HeldBack::ActiveSegment => f.write_str("it is the active segment"),
            HeldBack::Young {
                age_ms,
                retention_ms,
            } => write!(
                f,
                "its last record was appended {} ago, retention.ms is {}",
                Span(*age_ms),
                Span(*retention_ms)
            ),
            HeldBack::BelowSize {
                log_bytes,
                retention_bytes,
            } => write!(
                f,
                "the partition holds {log_bytes} bytes with it, and would hold less than retention.bytes ({retention_bytes}) without it"
            ),
            HeldBack::BehindKept => {
                f.write_str("segments are removed from the front, and an older one is kept")
            }
            HeldBack::Hold { name } => write!(f, "held by {name}"),
            HeldBack::BehindHold { name } => {
                write!(f, "records before it are held by {name}")
            }
            HeldBack::CompactionLag { age_ms, min_lag_ms } => write!(
                f,
                "its last record was appended {} ago, min.compaction.lag.ms is {}",
                Span(*age_ms),
                Span(*min_lag_ms)
            ),
            HeldBack::BehindLag => {
                f.write_str("min.compaction.lag.ms is not over for a segment before it")
            }
            HeldBack::DirtyRatio(ratio) => ratio.fmt(f),
            HeldBack::Clean => {
                f.write_str("nothing to do: it is compacted, and nothing after it is dirty")
            }
            HeldBack::TierAge {
                age_ms,
                tier_age_ms,
            } => write!(
                f,
                "its last record was appended {} ago, the first tier of thin.tiers begins at {}",
                Span(*age_ms),
                Span(*tier_age_ms)
            ),
            HeldBack::OpenWindow { tier, window_ms } => write!(
                f,
                "its last windows of {} may still get records, so that tier {tier} of thin.tiers waits",
                Span(*window_ms)
            ),
            HeldBack::Thinned { tier } => {
                write!(f, "nothing to do: tier {tier} of thin.tiers has thinned it")
            }
            HeldBack::SetAside { error } => write!(f, "it could not be rewritten: {error}"),
        }
    }
}
