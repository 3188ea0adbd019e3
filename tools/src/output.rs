//! What commands share in telling: JSON or text, counts and sizes in words, and the question before something is destroyed.
//!
//! Nothing here is coloured, so that a pipe and a terminal get the same text. JSON is one object or one array, as each
//! command's help says; names in it are stable.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::failure::{self, Failure};

/// Writes one of the two to standard output.
pub fn print(
    json: bool,
    value: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> Result<()> {
    match json {
        true => print_text(&format!("{:#}\n", value())),
        false => print_text(&text()),
    }
}

/// Writes to standard output, and tells if nobody reads it any more.
pub fn print_text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// A line on standard output. A reader that went away is no reason to stop: the exit code may still matter.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::output::line(format_args!($($words)*))
    };
}
pub(crate) use say;

/// What [`say`] does. Where nothing can be written, it ends the process: the caller has nothing better to do.
pub(crate) fn line(words: std::fmt::Arguments<'_>) {
    match writeln!(std::io::stdout().lock(), "{words}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            note!("error: standard output: {error}");
            std::process::exit(failure::FAILED.into());
        }
        _ => {}
    }
}

/// A line on standard error, where errors, notes and questions go. Where nobody reads it, it is lost: the exit code still says
/// how the command ended.
macro_rules! note {
    ($($words:tt)*) => {
        $crate::output::aside(format_args!("{}\n", format_args!($($words)*)))
    };
}
pub(crate) use note;

/// Writes to standard error what can be written.
pub(crate) fn aside(words: std::fmt::Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(words);
}

/// `1 topic`, `2 topics`, `1,234 records`.
pub fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(count as u64))
}

/// A number with its digits in groups of three: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The name among these that is most like `name`, if one is so alike that it may have been meant.
pub fn similar<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &'a str| (strsim::jaro_winkler(other, name), other);
    let most = names.map(likeness).max_by(|a, b| a.0.total_cmp(&b.0));
    most.filter(|(likeness, _)| *likeness > 0.8)
        .map(|(_, name)| name)
}

/// Text for a terminal: control characters other than tab and line feed, and what is no UTF-8, made visible.
pub fn readable(text: &[u8]) -> Vec<u8> {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut out = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match is_plain(c) {
                true => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                false => out.extend_from_slice(c.escape_default().to_string().as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
    out
}

/// The same in one line, as a cell of a table has it.
pub fn in_one_line(text: &str) -> String {
    let text = String::from_utf8_lossy(&readable(text.as_bytes())).into_owned();
    text.replace('\n', "\\n").replace('\t', "\\t")
}

/// How many there are of which so many are shown: `12 clients, 12 shown`, `12 clients, 10 shown, 2 left out`.
pub fn shown_of(shown: usize, count: usize, thing: &str) -> String {
    let all = format!("{}, {} shown", counted(count, thing), grouped(shown as u64));
    match count.saturating_sub(shown) {
        0 => all,
        left => format!("{all}, {} left out", grouped(left as u64)),
    }
}

/// A size for people: `17 B`, `1.2 MiB`.
pub fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter();
    let mut unit = "B";
    while size >= 1024.0
        && let Some(next) = units.next()
    {
        size /= 1024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ => format!("{size:.1} {unit}"),
    }
}

/// A duration for people: two units at most.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds < 10 => format!("{:.1}s", time.as_secs_f64()),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// Asks before `what` is done, as in "delete 2 topics". Where nobody can be asked, it is refused with what to say instead.
pub fn confirm(what: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!(Failure::Usage(format!(
            "this would {what}: say so with --yes, or look first with --dry-run"
        )));
    }
    let mut letters = what.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let what: String = first.chain(letters).collect();
    aside(format_args!("{what}? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let shown = |text: &[u8]| String::from_utf8(readable(text)).unwrap();
        assert_eq!(shown("a\tb\u{e9}\n".as_bytes()), "a\tb\u{e9}\n");
        assert_eq!(shown(b"\x1b[2J\x07\r"), "\\u{1b}[2J\\u{7}\\r");
        assert_eq!(shown(b"a\xffb"), "a\\xffb");
        assert_eq!(shown("\u{9b}1m".as_bytes()), "\\u{9b}1m");
    }

    #[test]
    fn a_cell_is_one_line_and_what_is_left_out_is_told() {
        assert_eq!(in_one_line("a\nb\tc\x1b[2J"), "a\\nb\\tc\\u{1b}[2J");
        assert_eq!(shown_of(2, 2, "client"), "2 clients, 2 shown");
        let some = "12,000 clients, 10,000 shown, 2,000 left out";
        assert_eq!(shown_of(10_000, 12_000, "client"), some);
    }

    #[test]
    fn numbers_are_grouped_and_words_agree() {
        for (count, expected) in [
            (0, "0 runs"),
            (1, "1 run"),
            (999, "999 runs"),
            (1000, "1,000 runs"),
            (1_234_567, "1,234,567 runs"),
        ] {
            assert_eq!(counted(count, "run"), expected);
        }
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        let names = ["readings", "events"];
        let meant = |name| similar(name, names.into_iter());
        assert_eq!(meant("reading"), Some("readings"));
        assert_eq!(meant("raedings"), Some("readings"));
        assert_eq!(meant("nosuch"), None);
    }

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn durations_are_short() {
        for (millis, text) in [
            (0, "0.0s"),
            (1_250, "1.2s"),
            (59_999, "59s"),
            (61_000, "1m1s"),
            (3_600_000, "1h0m"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
