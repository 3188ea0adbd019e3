//! The signals by which a command or a broker is asked to end.

use std::future::poll_fn;
use std::task::Poll;

use anyhow::{Context as _, Result};
use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that ask for the end, or whose default would be the end without a drain. SIGQUIT keeps its own meaning: it ends the
/// process at once.
const ASKING: [(Number, &str); 8] = [
    (Number::INT, "SIGINT"),
    (Number::TERM, "SIGTERM"),
    (Number::HUP, "SIGHUP"),
    (Number::USR1, "SIGUSR1"),
    (Number::USR2, "SIGUSR2"),
    (Number::ALARM, "SIGALRM"),
    (Number::XCPU, "SIGXCPU"),
    (Number::POWER, "SIGPWR"),
];

/// Receives the signals that ask for the end. The handlers are installed at construction, so that a signal that arrives before
/// anyone waits for it is not lost, and does not end the process in the middle of its work. SIGHUP stays ignored where the
/// process was started so, which is what `nohup` is for. The others count all the same: a shell without job control starts what
/// goes to the background with SIGINT ignored, and whoever sends one means it.
#[derive(Debug)]
pub struct StopSignals {
    signals: Vec<Signal>,
}

impl StopSignals {
    /// Fails if the system refuses a handler.
    pub fn listen() -> Result<Self> {
        let ignored = ignored();
        let wanted = ASKING
            .iter()
            .filter(|(number, _)| *number != Number::HUP || !is_in(ignored, *number));
        let signals = wanted.map(|(number, name)| {
            signal(SignalKind::from_raw(number.as_raw()))
                .with_context(|| format!("listen for {name}"))
        });
        Ok(Self {
            signals: signals.collect::<Result<_>>()?,
        })
    }

    /// Ends when the user or the system asks the command to stop. Cancelling it loses no signal.
    pub async fn asked(&mut self) {
        poll_fn(|context| {
            let mut came = self
                .signals
                .iter_mut()
                .map(|signal| signal.poll_recv(context));
            match came.any(|polled| polled.is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// The set of signals that are ignored, a bit each; none where the system does not say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status)
}

fn ignored_in(status: &str) -> u64 {
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

fn is_in(set: u64, number: Number) -> bool {
    let bit = u32::try_from(number.as_raw() - 1).unwrap_or(u32::MAX);
    set.checked_shr(bit).is_some_and(|set| set & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_is_heard_that_came_before_anybody_waited_for_it() {
        let ignored = ignored();
        for (signal, name) in ASKING {
            if signal == Number::HUP && is_in(ignored, signal) {
                // What runs the tests was started by `nohup`.
                continue;
            }
            let mut signals = StopSignals::listen().expect("handlers");
            // Without a handler this would be the end of the test.
            kill_process(getpid(), signal).expect("it is this process");
            tokio::time::timeout(Duration::from_secs(30), signals.asked())
                .await
                .unwrap_or_else(|_| panic!("{name} was not heard"));
        }
    }

    #[test]
    fn a_signal_that_is_ignored_at_the_start_stays_ignored() {
        let set = ignored_in("Name:\tx\nSigIgn:\t0000000000001001\n");
        assert!(is_in(set, Number::HUP) && !is_in(set, Number::INT));
        assert_eq!(ignored_in(""), 0);
    }
}
