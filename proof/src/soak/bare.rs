//! The machine's own fsync latency beside the broker's: every 20 ms a block of 4 KiB is written over in a file that is full of
//! zeros, and synced, timed from the moment when it was due. What slows this down is not the broker. Caller: `soak::run`.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(20);
const BLOCK: [u8; 4096] = [7; 4096];
const BLOCKS: u32 = 256;

/// The loop, which goes on until it is stopped.
pub struct Bare {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    latencies: Mutex<Vec<Duration>>,
}

impl Bare {
    /// Begins, with a file of its own.
    pub fn start(file: &Path) -> Result<Bare> {
        std::fs::write(file, vec![0; BLOCK.len() * BLOCKS as usize])?;
        let file = File::options().write(true).open(file)?;
        file.sync_all()?;
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = shared.clone();
            std::thread::spawn(move || write(&file, &shared))
        };
        Ok(Bare { shared, thread })
    }

    /// What each took since the last call.
    pub fn latencies(&self) -> Vec<Duration> {
        std::mem::take(
            &mut self
                .shared
                .latencies
                .lock()
                .expect("nothing panics under this lock"),
        )
    }

    /// Ends it.
    pub fn stop(self) -> Result<()> {
        self.shared.stop.store(true, Relaxed);
        self.thread.join().ok().context("the loop panicked")?
    }
}

fn write(file: &File, shared: &Shared) -> Result<()> {
    let begun = Instant::now();
    for turn in 0.. {
        let due = EVERY * turn;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if shared.stop.load(Relaxed) {
            break;
        }
        file.write_all_at(&BLOCK, u64::from(turn % BLOCKS) * BLOCK.len() as u64)?;
        file.sync_data()?;
        let took = begun.elapsed().saturating_sub(due);
        shared
            .latencies
            .lock()
            .expect("nothing panics under this lock")
            .push(took);
    }
    Ok(())
}
