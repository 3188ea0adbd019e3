//! What the demonstration shows: lines on standard output, and on a terminal a line of progress that moves.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often progress is a line of its own where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(2);
/// How often the moving line moves.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Where the story is told.
#[derive(Debug)]
pub(super) struct Screen {
    begun: Instant,
    /// Nothing but the summary goes to standard output, as JSON.
    json: bool,
    bar: Option<ProgressBar>,
    last: Mutex<Instant>,
}

impl Screen {
    /// For people, or for programs.
    pub(super) fn new(json: bool) -> Screen {
        let is_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = (is_terminal && !json).then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            let bar = ProgressBar::new_spinner();
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Screen {
            begun: Instant::now(),
            json,
            bar,
            last: Mutex::new(Instant::now()),
        }
    }

    /// Tells what happened, with the time since the start.
    pub(super) fn show_event(&self, text: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut lines = text.lines();
        self.print(&format!(
            "{seconds:5.1} s  {}",
            lines.next().unwrap_or_default()
        ));
        for line in lines {
            self.print(&format!("         {line}"));
        }
    }

    /// Prints lines as they are.
    pub(super) fn print(&self, text: &str) {
        if self.json {
            return;
        }
        // Whoever closes the other end of a pipe has seen enough.
        let write = || {
            let _ = writeln!(std::io::stdout(), "{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Prints the summary for programs.
    pub(super) fn print_json(&self, value: &impl serde::Serialize) -> serde_json::Result<()> {
        if self.json {
            let text = serde_json::to_string(value)?;
            let _ = writeln!(std::io::stdout(), "{text}");
        }
        Ok(())
    }

    /// How far things are; called often.
    pub(super) fn progress(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            bar.tick();
            return;
        }
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        if last.elapsed() >= LINE_INTERVAL {
            *last = Instant::now();
            self.show_event(text);
        }
    }

    /// The moving line goes.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A number with its thousands apart.
pub(super) fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        let texts = [0_u64, 999, 1_000, 123_456, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }
}
