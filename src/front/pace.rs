//! The pace of a replay: when the next record is due, so that records come with their own spacing.
//!
//! Callers: `http/follow`, and `mqtt` for subscriptions with a speed. Pure: times come in, times go out. Invariants: nobody waits a negative time, and no wait is longer
//! than the longest pause, whatever devices' clocks say.
//!
//! The pace has a clock of its own, in the records' time. A record later than it is due so much later, divided by the speed, and
//! sets the clock. One that is a little older, as neighbours out of order are, is due at once and does not move the clock. A jump
//! ahead by more than the longest pause is cut to it; a record that is older by more than that sets the clock back, at once: it was
//! a wrong clock that went ahead, or is one that is behind.

use std::time::Duration;

use model::Timestamp;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(in crate::front) struct Pace {
    speed: f64,
    pause_max: Duration,
    /// The clock, and when it got there.
    at: Option<(Timestamp, Instant)>,
}

impl Pace {
    /// So many times as fast as the records came, and no pause longer than this.
    pub fn new(speed: f64, pause_max: Duration) -> Pace {
        assert!(speed > 0.0 && speed.is_finite(), "a speed is positive");
        Pace {
            speed,
            pause_max,
            at: None,
        }
    }

    /// When a record of this time is due, if the one before it was given at its time.
    pub fn due(&mut self, time: Timestamp, now: Instant) -> Instant {
        let Some((clock, reached)) = self.at else {
            self.at = Some((time, now));
            return now;
        };
        let ahead = time.millis_since(clock);
        let wait = Duration::from_millis(ahead.unsigned_abs()).as_secs_f64() / self.speed;
        let is_long = wait > self.pause_max.as_secs_f64();
        let due = match (ahead >= 0, is_long) {
            (true, false) => reached + Duration::from_secs_f64(wait),
            (true, true) => now + self.pause_max,
            (false, true) => now,
            (false, false) => return now.max(reached),
        };
        self.at = Some((time, due));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When records of these times are due, in milliseconds from the first.
    fn dues(speed: f64, millis: &[i64]) -> Vec<u128> {
        let start = Instant::now();
        let mut pace = Pace::new(speed, Duration::from_secs(60));
        let mut now = start;
        let due = |millis: &i64| {
            // Whoever gives records waits until each is due.
            now = pace.due(Timestamp::from_millis(*millis), now).max(now);
            (now - start).as_millis()
        };
        millis.iter().map(due).collect()
    }

    #[test]
    fn records_keep_their_spacing_at_any_speed() {
        assert_eq!(dues(1.0, &[5000, 6000, 6500]), [0, 1000, 1500]);
        assert_eq!(dues(10.0, &[5000, 6000, 6500]), [0, 100, 150]);
        assert_eq!(dues(0.5, &[0, 1000]), [0, 2000]);
    }

    #[test]
    fn records_a_little_out_of_order_come_at_once_and_slow_nothing_down() {
        assert_eq!(
            dues(1.0, &[0, 1000, 400, 900, 2000]),
            [0, 1000, 1000, 1000, 2000]
        );
    }

    #[test]
    fn a_clock_that_is_wrong_by_years_costs_one_pause() {
        let year = 365 * 86_400_000;
        let expected = [0, 60_000, 60_000, 61_000];
        assert_eq!(dues(1.0, &[0, year, 1000, 2000]), expected);
        assert_eq!(dues(1.0, &[year, 0, 1000, 2000]), [0, 0, 1000, 2000]);
        assert_eq!(dues(1.0, &[0, i64::MAX, i64::MIN, 0])[..2], [0, 60_000]);
    }

    #[test]
    fn a_reader_who_is_late_is_given_what_is_due_and_no_more() {
        let start = Instant::now();
        let mut pace = Pace::new(1.0, Duration::from_secs(60));
        let millis = Timestamp::from_millis;
        assert_eq!(pace.due(millis(0), start), start);
        let late = start + Duration::from_secs(10);
        assert!(pace.due(millis(5_000), late) <= late);
        assert_eq!(
            pace.due(millis(11_000), late),
            start + Duration::from_secs(11)
        );
    }
}
