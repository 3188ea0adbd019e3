//! The runtime that commands and the server run on, and what the process asks of the system before it begins.
//!
//! Callers: `cli`, and `serve` of the binary. A limit on threads is met here, with a sentence: in the runtime it would be a
//! panic, and a task on its pool that waits for ever.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// What to do about a limit on threads.
const LIMIT: &str = "the limit on threads is reached: raise `ulimit -u`, TasksMax of the service or the container's limit on \
                     processes (pids)";

/// Builds a runtime of as many threads as there are processors, if that many and `others` more can be started. From then on
/// a write beyond the limit on file sizes fails, and does not end the process (SIGXFSZ).
pub fn build(others: usize) -> Result<Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    try_threads(workers + others)?;
    let built = quietly(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
    });
    let Some(built) = built else {
        bail!("cannot start {workers} threads: {LIMIT}");
    };
    let runtime = built.context("start the runtime")?;
    let within = runtime.enter();
    // The handler stays when this is dropped; nobody waits for the signal.
    drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).context("handle SIGXFSZ")?);
    drop(within);
    Ok(runtime)
}

/// Fails if `count` threads cannot be there at the same time.
fn try_threads(count: usize) -> Result<()> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().expect("nobody else has it yet");
    let mut threads = Vec::with_capacity(count);
    let mut failed = None;
    for number in 0..count {
        let gate = Arc::clone(&gate);
        let started = std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || drop(gate.lock()));
        match started {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                failed = Some((number, error));
                break;
            }
        }
    }
    drop(closed);
    for thread in threads {
        // It does nothing that could panic.
        let _ = thread.join();
    }
    match failed {
        Some((number, error)) => Err(error)
            .with_context(|| format!("only {number} of {count} threads can be started: {LIMIT}")),
        None => Ok(()),
    }
}

/// What `work` gives; None if it panicked, of which nothing is printed.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    done.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_there_can_be_are_a_sentence() {
        assert!(try_threads(3).is_ok());
        // No process may have so many: the system's own bound is below.
        let limit = std::fs::read_to_string("/proc/sys/kernel/threads-max").expect("Linux");
        let limit: usize = limit.trim().parse().expect("a number");
        if limit < 20_000 {
            let error = try_threads(limit + 1).expect_err("over the system's bound");
            assert!(format!("{error:#}").contains("ulimit -u"), "{error:#}");
        }
    }

    #[test]
    fn a_panic_of_the_runtimes_is_no_panic_of_ours() {
        assert_eq!(quietly(|| 7), Some(7));
        assert_eq!(quietly(|| panic!("no thread")), None::<()>);
    }
}
