//! A setting of the server as data, and how values are read.
//! Callers: each part brings a table of its own settings over its own typed configuration (`broker/settings.rs`,
//! `front/*/settings.rs`, `config/storage.rs`); `config` puts the tables together.
//! Invariant: a row gives back what it was given, in one spelling, so that what is shown is what is in force.

use std::ops::RangeInclusive;
use std::time::Duration;

pub use model::topic_config::Kind;

/// The largest value of settings that are an `Int` to clients.
pub const SIZE_MAX: u64 = i32::MAX as u64;

/// One setting of a part of the server whose configuration is a `T`.
pub struct Setting<T> {
    /// Its name, Kafka's where Kafka has it.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its value when nobody sets it, as it is written.
    pub default: &'static str,
    /// Whether it may be changed while the server runs; all others are read at the start.
    pub is_live: bool,
    /// What it means, with unit and range.
    pub doc: &'static str,
    /// Its value, as it is written.
    pub get: fn(&T) -> String,
    /// Reads a value and puts it into the configuration; or says what a value must be.
    pub set: fn(&mut T, &str) -> Result<(), String>,
}

/// A whole number.
pub fn number(value: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number: u64 = value.parse().map_err(|_| "not a whole number".to_owned())?;
    if range.contains(&number) {
        return Ok(number);
    }
    match *range.end() {
        u64::MAX => Err(format!("must be {} or more", range.start())),
        end => Err(format!("must be {} to {end}", range.start())),
    }
}

/// A number of things in memory.
pub fn size(value: &str, range: RangeInclusive<u64>) -> Result<usize, String> {
    let number = number(value, range)?;
    usize::try_from(number).map_err(|error| error.to_string())
}

/// A time in milliseconds, of so many or more.
pub fn millis(value: &str, least: u64) -> Result<Duration, String> {
    number(value, least..=i64::MAX as u64).map(Duration::from_millis)
}

/// The same, as it is written.
pub fn text_of_millis(time: Duration) -> String {
    time.as_millis().to_string()
}

/// `true` or `false`.
pub fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// Where a front listens, `host:port`.
pub fn address(value: &str) -> Result<String, String> {
    let (host, port) = value.rsplit_once(':').ok_or("must be host:port")?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("must be host:port, with a port from 0 to 65535".to_owned());
    }
    Ok(value.to_owned())
}
