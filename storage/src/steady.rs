//! The time by which records age: retention, `segment.ms`, and what is forgotten of producers and groups.
//!
//! Wall clocks jump: a machine starts with a dead battery and is in 1970 or 2099 until the network sets it right; a hand sets it
//! wrong. What is removed because of that is gone. So this time goes on by itself: with the monotonic clock while the store is
//! open, and from one start to the next with the time since the machine's boot, if it is the same boot. Only after a reboot is
//! the wall clock asked how long the store was away, and believed for [`AWAY_MAX`]. From the wall clock it is never led away
//! by more than a twentieth of what has passed, so that it comes back to it slowly, and never goes back itself.
//!
//! It is kept in `CLOCK` in the data directory (`docs/formats.md`). Without that file the wall clock is believed.
//! Callers: `storage`, which asks it, and saves it now and then. Pure but for the file.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use model::Timestamp;
use uuid::Uuid;

use crate::fields::{Fields, FormatError, envelope, open_envelope};
use crate::io::{Boot, Clock, Disk, OpenHow, read_file, write_new_file};

/// How long after a reboot the wall clock is believed that the store was away.
pub const AWAY_MAX: Duration = Duration::from_secs(24 * 3600);
/// It follows the wall clock by one part in so many of the time that passes.
const FOLLOWS_ONE_IN: i64 = 20;
pub(crate) const MAGIC: &[u8; 8] = b"logclock";
pub(crate) const VERSION: u32 = 1;
/// A sector, which is written whole or not at all.
const FILE_BYTES: usize = 512;
const FILE_NAME: &str = "CLOCK";

/// What is kept of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The time by which records age.
    pub time: Timestamp,
    /// Which boot of the machine it was, and how long since, where that is known.
    pub boot: Option<Boot>,
}

impl Kept {
    /// The bytes of `CLOCK`.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.time.millis().to_le_bytes().to_vec();
        let (id, since) = self
            .boot
            .map_or((Uuid::nil(), Duration::ZERO), |boot| (boot.id, boot.since));
        body.extend_from_slice(id.as_bytes());
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        body.extend_from_slice(&nanos.to_le_bytes());
        let mut bytes = envelope(MAGIC, VERSION, &body);
        assert!(
            bytes.len() <= FILE_BYTES,
            "a sector holds it, so that it is written whole"
        );
        bytes.resize(FILE_BYTES, 0);
        bytes
    }

    /// Reads the bytes of `CLOCK`.
    pub fn decode(bytes: &[u8]) -> Result<Kept, FormatError> {
        let opened = open_envelope(MAGIC, VERSION, bytes)?;
        let mut fields = Fields::new(opened.body);
        let time = Timestamp::from_millis(fields.i64()?);
        let id = Uuid::from_bytes(fields.array()?);
        let since = Duration::from_nanos(fields.u64()?);
        fields.finish()?;
        let boot = (!id.is_nil()).then_some(Boot { id, since });
        Ok(Kept { time, boot })
    }

    /// What time it is at a start.
    fn at_start(&self, wall: Timestamp, boot: Option<Boot>) -> Timestamp {
        let passed = match (self.boot, boot) {
            (Some(then), Some(now)) if then.id == now.id => {
                millis(now.since.saturating_sub(then.since))
            }
            _ => wall.millis_since(self.time).clamp(0, millis(AWAY_MAX)),
        };
        self.time.plus_millis(passed)
    }
}

/// The time by which records age.
#[derive(Debug)]
pub struct SteadyTime {
    clock: Arc<dyn Clock>,
    started: Timestamp,
    started_monotonic: Duration,
    /// The latest that was told: it never goes back.
    latest: AtomicI64,
}

impl SteadyTime {
    /// Goes on from what was kept.
    pub fn start(clock: Arc<dyn Clock>, kept: Option<Kept>) -> SteadyTime {
        let wall = clock.now();
        let started = kept.map_or(wall, |kept| kept.at_start(wall, clock.boot()));
        SteadyTime {
            started,
            started_monotonic: clock.monotonic(),
            latest: AtomicI64::new(started.millis()),
            clock,
        }
    }

    /// How far the wall clock is ahead of it, in milliseconds; negative if it is behind.
    pub fn wall_is_ahead_by(&self) -> i64 {
        self.clock.now().millis_since(self.now())
    }

    /// What is to be kept of it.
    pub fn to_keep(&self) -> Kept {
        Kept {
            time: self.now(),
            boot: self.clock.boot(),
        }
    }
}

impl Clock for SteadyTime {
    fn now(&self) -> Timestamp {
        let passed = millis(
            self.clock
                .monotonic()
                .saturating_sub(self.started_monotonic),
        );
        let plain = self.started.plus_millis(passed);
        let most = passed / FOLLOWS_ONE_IN;
        let followed = self.clock.now().millis_since(plain).clamp(-most, most);
        let now = plain.plus_millis(followed).millis();
        Timestamp::from_millis(self.latest.fetch_max(now, Ordering::Relaxed).max(now))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn boot(&self) -> Option<Boot> {
        self.clock.boot()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Reads `CLOCK`. None if there is none, or if it cannot be used.
pub(crate) fn load(disk: &dyn Disk, directory: &Path) -> Option<Kept> {
    let path = directory.join(FILE_NAME);
    if !disk.exists(&path).unwrap_or(false) {
        return None;
    }
    let kept = read_file(disk, &path, FILE_BYTES as u64)
        .map_err(|error| error.to_string())
        .and_then(|bytes| Kept::decode(&bytes).map_err(|error| error.to_string()));
    kept.inspect_err(|reason| {
        tracing::warn!(path = %path.display(), reason, "what was kept of the time cannot be used: records age by the wall clock");
    })
    .ok()
}

/// Writes `CLOCK`, in place: it needs no space on a full disk. What fails is only told: an older one serves as well.
pub(crate) fn store(disk: &dyn Disk, directory: &Path, kept: Kept) {
    let path = directory.join(FILE_NAME);
    let write = || {
        if !disk.exists(&path)? {
            return write_new_file(disk, &path, &kept.encode());
        }
        let file = disk.open(&path, OpenHow::ReadWrite)?;
        file.write_at(0, &kept.encode())?;
        file.sync_data()
    };
    if let Err(error) = write() {
        tracing::warn!(path = %path.display(), %error, "the time could not be kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ManualClock;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const YEAR: i64 = 365 * 24 * 3600 * 1000;
    const BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn since_begin(time: &SteadyTime) -> i64 {
        time.now().millis_since(BEGIN)
    }

    #[test]
    fn a_jump_while_the_store_is_open_moves_it_by_a_twentieth_of_what_passes() {
        for jump in [YEAR, -YEAR] {
            let clock = Arc::new(ManualClock::new(BEGIN));
            let time = SteadyTime::start(clock.clone(), None);
            clock.set_wall(BEGIN.plus_millis(jump));
            assert_eq!(since_begin(&time), 0);
            clock.advance(Duration::from_secs(20));
            assert_eq!(since_begin(&time), 20_000 + jump.signum() * 1_000);
        }
    }

    #[test]
    fn it_follows_small_corrections_and_never_goes_back() {
        let clock = Arc::new(ManualClock::new(BEGIN));
        let time = SteadyTime::start(clock.clone(), None);
        clock.set_wall(BEGIN.plus_millis(500));
        clock.advance(Duration::from_secs(60));
        assert_eq!(since_begin(&time), 60_500);
        clock.set_wall(BEGIN);
        assert_eq!(since_begin(&time), 60_500);
    }

    #[test]
    fn a_stop_in_the_same_boot_lasts_as_long_as_it_lasted() {
        for jump in [YEAR, -YEAR, 3_600_000] {
            let clock = Arc::new(ManualClock::new(BEGIN));
            let kept = SteadyTime::start(clock.clone(), None).to_keep();
            clock.advance(30 * DAY);
            clock.set_wall(BEGIN.plus_millis(jump));
            let time = SteadyTime::start(clock, Some(kept));
            assert_eq!(since_begin(&time), 30 * millis(DAY));
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_is_believed_for_a_day() {
        let cases = [
            (3_600_000, 3_600_000),
            (30 * millis(DAY), millis(DAY)),
            (YEAR, millis(DAY)),
            (-YEAR, 0),
        ];
        for (jump, counts) in cases {
            let clock = Arc::new(ManualClock::new(BEGIN));
            let kept = SteadyTime::start(clock.clone(), None).to_keep();
            clock.reboot();
            clock.set_wall(BEGIN.plus_millis(jump));
            let time = SteadyTime::start(clock, Some(kept));
            assert_eq!(since_begin(&time), counts, "away for {jump}");
        }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let boot = Some(Boot {
            id: Uuid::from_bytes([7; 16]),
            since: Duration::from_nanos(12_345),
        });
        for boot in [boot, None] {
            let kept = Kept { time: BEGIN, boot };
            assert_eq!(Kept::decode(&kept.encode()), Ok(kept));
            let mut flipped = kept.encode();
            flipped[25] ^= 4;
            assert!(Kept::decode(&flipped).is_err());
        }
    }
}
