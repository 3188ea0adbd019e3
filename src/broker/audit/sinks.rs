//! Sinks: where the audit log goes, and what each of these places does not have.
//! Callers: `writer`. Pure: the time is given. Invariants: a place is told what it lacks, and no other; it is told as soon as it can be
//! written to, and no more than once in [`TOLD_AGAIN`].

use std::time::Duration;

use model::Timestamp;

use super::AuditConfig;
use super::event::{Event, What, Who};

/// What was lost is told no sooner than this after the last time, and a place that fails is tried no sooner without an event.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Where the audit log goes.
#[derive(Debug)]
pub(super) struct Sinks {
    /// The server's own log, which tells what there was no place for in memory.
    pub(super) log: Sink,
    pub(super) topic: Option<Sink>,
    pub(super) file: Option<Sink>,
}

/// One such place.
#[derive(Debug, Default)]
pub(super) struct Sink {
    /// So many events are missing there, and it does not say so yet.
    lost: u64,
    told_at: Option<Duration>,
    /// When writing to it failed the last time, if it did.
    failed_at: Option<Duration>,
}

/// How writing to a place ended.
#[derive(Debug)]
pub(super) struct Written<E> {
    /// Events that are not there.
    pub(super) lost: u64,
    /// Whether it was told of those that were lost before.
    pub(super) is_told: bool,
    /// Why some are not.
    pub(super) error: Option<E>,
}

impl<E> Default for Written<E> {
    fn default() -> Written<E> {
        Written {
            lost: 0,
            is_told: false,
            error: None,
        }
    }
}

impl Sinks {
    pub(super) fn of(config: &AuditConfig) -> Sinks {
        Sinks {
            log: Sink::default(),
            topic: config.has_topic.then(Sink::default),
            file: config.file.is_some().then(Sink::default),
        }
    }

    /// Whether events are written anywhere.
    pub(super) fn is_any(&self) -> bool {
        self.topic.is_some() || self.file.is_some()
    }

    /// So many events are nowhere.
    pub(super) fn lose(&mut self, count: u64) {
        let written = [self.topic.as_mut(), self.file.as_mut()];
        let all = std::iter::once(&mut self.log).chain(written.into_iter().flatten());
        all.for_each(|sink| sink.lost += count);
    }
}

impl Sink {
    /// What is to be said of those that were lost, beside events or alone; `is_last` says it however recent.
    pub(super) fn owed(
        &self,
        (at, now): (Timestamp, Duration),
        is_alone: bool,
        is_last: bool,
    ) -> Option<Event> {
        let is_recent =
            |time: Option<Duration>| time.is_some_and(|it| now.saturating_sub(it) < TOLD_AGAIN);
        let waits = is_recent(self.told_at) || (is_alone && is_recent(self.failed_at));
        (self.lost > 0 && (is_last || !waits)).then(|| Event {
            at,
            since: None,
            count: self.lost,
            who: Who::default(),
            client: None,
            what: What::Lost,
        })
    }

    /// Notes how writing ended. Whether it fails, and went well before.
    pub(super) fn ended<E>(&mut self, written: &Written<E>, now: Duration) -> bool {
        if written.is_told {
            (self.lost, self.told_at) = (0, Some(now));
        }
        self.lost += written.lost;
        let was_failing = self.failed_at.is_some();
        self.failed_at = written.error.is_some().then_some(now);
        self.failed_at.is_some() && !was_failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Written<()> = Written {
        lost: 3,
        is_told: false,
        error: Some(()),
    };

    fn owed(sink: &Sink, seconds: u64, is_alone: bool) -> Option<u64> {
        let time = (Timestamp::from_millis(0), Duration::from_secs(seconds));
        sink.owed(time, is_alone, false).map(|event| event.count)
    }

    #[test]
    fn what_was_lost_is_told_when_it_can_be_and_once_a_minute() {
        let mut sink = Sink::default();
        assert_eq!(owed(&sink, 0, false), None);
        assert!(sink.ended(&FAILED, Duration::from_secs(0)), "it is news");
        assert!(!sink.ended(&FAILED, Duration::from_secs(1)), "it is not");
        // Without an event it is tried once in a minute; with one it is told beside it.
        assert_eq!(owed(&sink, 2, true), None);
        assert_eq!(owed(&sink, 2, false), Some(6));
        assert_eq!(owed(&sink, 61, true), Some(6));
        let told = Written::<()> {
            lost: 0,
            is_told: true,
            error: None,
        };
        assert!(!sink.ended(&told, Duration::from_secs(61)));
        assert_eq!(owed(&sink, 200, false), None);
        assert!(sink.ended(&FAILED, Duration::from_secs(62)));
        assert_eq!(owed(&sink, 63, false), None, "it was told a moment ago");
        assert_eq!(owed(&sink, 121, false), Some(3));
        let time = (Timestamp::from_millis(0), Duration::from_secs(63));
        assert!(sink.owed(time, true, true).is_some(), "at the end");
    }
}
