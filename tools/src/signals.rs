//! The signals by which a command or a broker is asked to end.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears SIGINT and SIGTERM from its making on: one that comes while the command looks elsewhere is not lost, and does
/// not end the process in the middle of its work.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Fails if the system refuses a handler.
    pub fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
        })
    }

    /// Ends when the user or the system asks the command to stop. Cancelling it loses no signal.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_is_heard_that_came_before_anybody_waited_for_it() {
        for signal in [Signal::INT, Signal::TERM] {
            let mut signals = StopSignals::listen().expect("handlers");
            // Without a handler this would be the end of the test.
            kill_process(getpid(), signal).expect("it is this process");
            tokio::time::timeout(Duration::from_secs(30), signals.asked())
                .await
                .expect("it was heard");
        }
    }
}
