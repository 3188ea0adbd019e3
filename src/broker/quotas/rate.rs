//! Rates: what was used a second, over the samples that Kafka takes, and Kafka's bucket of tokens. Pure: time is brought along, in
//! milliseconds of any clock that does not go back.
//! Callers: `meters`. Source: Kafka's `SampledStat`, `Rate`, `TokenBucket` and `QuotaUtils`, by their behaviour.

use std::collections::VecDeque;

/// How a rate is measured: over so many samples of so long each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// `quota.window.num`.
    pub samples: u32,
    /// `quota.window.size.seconds`, in milliseconds.
    pub sample_ms: u64,
}

impl Window {
    /// All of it.
    pub(super) fn total_ms(self) -> u64 {
        u64::from(self.samples) * self.sample_ms
    }

    /// How long its whole samples are, without the one that is begun.
    pub(super) fn whole_seconds(self) -> f64 {
        f64::from(self.samples.saturating_sub(1)) * seconds(self.sample_ms)
    }
}

/// What keeps account of one client's use.
pub(super) trait Meter: Default {
    /// Whether it says what one that was just made would say.
    fn is_idle(&self, window: Window, now_ms: u64) -> bool;
}

/// What was used in the time of one sample.
#[derive(Debug, Clone, Copy)]
struct Sample {
    began_ms: u64,
    last_ms: u64,
    sum: f64,
}

/// A rate over sliding samples. A sample counts until the window has passed since it was last added to.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<Sample>,
}

/// A rate at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) per_second: f64,
    /// What the rate is over. Always that of all whole samples at least, so that the first use is no peak.
    pub(super) elapsed_ms: u64,
}

impl Rate {
    /// Notes that so much was used; less than nothing takes back what was noted.
    pub(super) fn record(&mut self, window: Window, amount: f64, now_ms: u64) {
        let is_over = |sample: &Sample| now_ms.saturating_sub(sample.began_ms) >= window.sample_ms;
        if self.samples.back().is_none_or(is_over) {
            self.samples.push_back(Sample {
                began_ms: now_ms,
                last_ms: now_ms,
                sum: 0.0,
            });
            // One more than the window has: the oldest may have begun before it.
            if self.samples.len() > window.samples as usize + 1 {
                self.samples.pop_front();
            }
        }
        let sample = self.samples.back_mut().expect("one was just made");
        sample.sum += amount;
        sample.last_ms = now_ms;
    }

    /// The rate now.
    pub(super) fn measure(&mut self, window: Window, now_ms: u64) -> Measured {
        let is_old = |sample: &Sample| now_ms.saturating_sub(sample.last_ms) >= window.total_ms();
        while self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
        let began_ms = self
            .samples
            .front()
            .map_or(now_ms, |oldest| oldest.began_ms);
        let mut elapsed_ms = now_ms.saturating_sub(began_ms);
        let whole = elapsed_ms / window.sample_ms;
        let missing = u64::from(window.samples.saturating_sub(1)).saturating_sub(whole);
        elapsed_ms = (elapsed_ms + missing * window.sample_ms).max(1);
        let sum: f64 = self.samples.iter().map(|sample| sample.sum).sum();
        Measured {
            per_second: sum / seconds(elapsed_ms),
            elapsed_ms,
        }
    }

    /// How long nothing may be used until the rate is at the limit again: 0 if it is not above it.
    pub(super) fn throttle_ms(&mut self, window: Window, limit: f64, now_ms: u64) -> u64 {
        let Measured {
            per_second,
            elapsed_ms,
        } = self.measure(window, now_ms);
        match per_second > limit {
            true => whole_ms((per_second - limit) / limit * elapsed_ms as f64),
            false => 0,
        }
    }
}

impl Meter for Rate {
    fn is_idle(&self, window: Window, now_ms: u64) -> bool {
        let is_old = |sample: &Sample| now_ms.saturating_sub(sample.last_ms) >= window.total_ms();
        self.samples.iter().all(is_old)
    }
}

/// A bucket into which tokens fall at the rate of the limit, and which holds those of a whole window. It begins full. It may be
/// emptied below nothing.
#[derive(Debug, Default)]
pub(super) struct TokenBucket {
    state: Option<Filled>,
}

#[derive(Debug, Clone, Copy)]
struct Filled {
    tokens: f64,
    at_ms: u64,
    /// When it will be full again.
    full_ms: u64,
}

impl TokenBucket {
    fn tokens(&self, window: Window, limit: f64, now_ms: u64) -> f64 {
        let burst = burst(window, limit);
        let Some(Filled { tokens, at_ms, .. }) = self.state else {
            return burst;
        };
        burst.min(tokens + limit * seconds(now_ms.saturating_sub(at_ms)))
    }

    /// Takes so many tokens.
    pub(super) fn take(&mut self, window: Window, limit: f64, amount: f64, now_ms: u64) {
        let burst = burst(window, limit);
        let tokens = burst.min(self.tokens(window, limit, now_ms) - amount);
        self.state = Some(Filled {
            tokens,
            at_ms: now_ms,
            full_ms: now_ms.saturating_add(whole_ms((burst - tokens) / limit * 1000.0) + 1),
        });
    }

    /// How long it takes until there is not less than nothing in it.
    pub(super) fn throttle_ms(&self, window: Window, limit: f64, now_ms: u64) -> u64 {
        let tokens = self.tokens(window, limit, now_ms);
        match tokens < 0.0 {
            true => whole_ms(-tokens / limit * 1000.0).max(1),
            false => 0,
        }
    }
}

impl Meter for TokenBucket {
    fn is_idle(&self, _window: Window, now_ms: u64) -> bool {
        self.state.is_none_or(|state| now_ms >= state.full_ms)
    }
}

fn burst(window: Window, limit: f64) -> f64 {
    seconds(window.total_ms()) * limit
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// To the nearest; what is too large is the largest.
fn whole_ms(ms: f64) -> u64 {
    ms.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        samples: 11,
        sample_ms: 1000,
    };

    #[test]
    fn the_first_use_counts_as_if_all_whole_samples_had_passed() {
        let mut rate = Rate::default();
        rate.record(WINDOW, 10_000.0, 5_000);
        // 10,000 in 10 s, 1,000 a second.
        let measured = rate.measure(WINDOW, 5_000);
        assert_eq!(
            (measured.per_second, measured.elapsed_ms),
            (1_000.0, 10_000)
        );
        assert_eq!(rate.throttle_ms(WINDOW, 1_000.0, 5_000), 0);
        rate.record(WINDOW, 1.0, 5_000);
        // 1,000.1 a second: a ten-thousandth of 10 s too much.
        assert_eq!(rate.throttle_ms(WINDOW, 1_000.0, 5_000), 1);
        rate.record(WINDOW, 9_999.0, 5_000);
        assert_eq!(rate.throttle_ms(WINDOW, 1_000.0, 5_000), 10_000);
    }

    #[test]
    fn who_waits_as_long_as_told_is_at_the_limit_then() {
        for extra in [1.0, 777.0, 4_000.0, 9_000.0] {
            let mut rate = Rate::default();
            for second in 0..11 {
                rate.record(WINDOW, 1_000.0, second * 1_000);
            }
            rate.record(WINDOW, extra, 10_500);
            let wait = rate.throttle_ms(WINDOW, 1_000.0, 10_500);
            assert!(wait > 0, "{extra}");
            let after = rate.measure(WINDOW, 10_500 + wait).per_second;
            assert!(after <= 1_000.5, "{extra}: {after} after {wait} ms");
        }
    }

    #[test]
    fn a_sample_counts_until_the_window_has_passed_and_what_is_taken_back_does_not() {
        let mut rate = Rate::default();
        rate.record(WINDOW, 5_000.0, 0);
        rate.record(WINDOW, 5_000.0, 999);
        rate.record(WINDOW, 2_000.0, 6_000);
        rate.record(WINDOW, -2_000.0, 6_000);
        let per_second = |rate: &mut Rate, now| rate.measure(WINDOW, now).per_second;
        assert_eq!(per_second(&mut rate, 10_000), 1_000.0);
        // The first sample, added to at 999, goes at 11,999.
        assert!(per_second(&mut rate, 11_998) > 0.0);
        assert_eq!(per_second(&mut rate, 11_999), 0.0);
        assert!(!rate.is_idle(WINDOW, 16_999));
        assert!(rate.is_idle(WINDOW, 17_000));
        assert!(Rate::default().is_idle(WINDOW, 0));
    }

    #[test]
    fn samples_are_bounded_whatever_comes() {
        let mut rate = Rate::default();
        for second in 0..1_000 {
            rate.record(WINDOW, 1.0, second * 1_000);
        }
        assert_eq!(rate.samples.len(), 12);
    }

    #[test]
    fn a_bucket_begins_full_is_emptied_below_nothing_and_fills_at_the_rate() {
        let mut bucket = TokenBucket::default();
        // 2 a second: 22 at most.
        bucket.take(WINDOW, 2.0, 22.0, 1_000);
        assert_eq!(bucket.throttle_ms(WINDOW, 2.0, 1_000), 0);
        bucket.take(WINDOW, 2.0, 10.0, 1_000);
        assert_eq!(bucket.throttle_ms(WINDOW, 2.0, 1_000), 5_000);
        assert_eq!(bucket.throttle_ms(WINDOW, 2.0, 5_999), 1);
        assert_eq!(bucket.throttle_ms(WINDOW, 2.0, 6_000), 0);
        assert!(!bucket.is_idle(WINDOW, 17_000));
        assert!(bucket.is_idle(WINDOW, 17_001));
        // It holds no more than those of a window.
        bucket.take(WINDOW, 2.0, 24.0, 100_000);
        assert_eq!(bucket.throttle_ms(WINDOW, 2.0, 100_000), 1_000);
    }
}
