//! How far `produce` is, on a terminal.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::pump::Counts;

/// Tells how far it is while it goes on, on a terminal only.
pub(super) struct Progress(Option<(ProgressBar, tokio::task::JoinHandle<()>)>);

impl Progress {
    /// How often it is told.
    const EVERY: Duration = Duration::from_millis(200);

    /// Not `wanted` where somebody types the records, or reads their reports.
    pub fn start(wanted: bool, counts: Arc<Counts>) -> Progress {
        if !wanted || !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
        let told = bar.clone();
        let telling = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Progress::EVERY);
            let begun = Instant::now();
            loop {
                ticks.tick().await;
                let sent = counts.sent.load(Relaxed);
                let rate = sent as f64 / begun.elapsed().as_secs_f64().max(1e-3);
                told.set_message(format!("{sent} records sent, {rate:.0} a second"));
                told.tick();
            }
        });
        Progress(Some((bar, telling)))
    }

    pub fn end(self) {
        if let Some((bar, telling)) = self.0 {
            telling.abort();
            bar.finish_and_clear();
        }
    }
}
