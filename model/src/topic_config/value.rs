//! Parsing and checking one setting's value; lists, as incremental changes edit them.

use super::{Holds, Setting, ThinTiers, Values};

/// Checks `value` and gives it in its one spelling, or the reason why not.
pub(super) fn check(setting: &Setting, value: &str) -> Result<String, String> {
    let value = value.trim();
    if setting.name == "compression.gzip.level" && value == "0" {
        return Err("must be -1 or a whole number from 1 to 9".to_owned());
    }
    let normal = in_range(setting.values, value)?;
    match setting.holds {
        Holds::Refused(reason) if normal != setting.default => Err(reason.to_owned()),
        _ => Ok(normal),
    }
}

fn in_range(values: Values, value: &str) -> Result<String, String> {
    match values {
        Values::Boolean => match value {
            _ if value.eq_ignore_ascii_case("true") => Ok("true".to_owned()),
            _ if value.eq_ignore_ascii_case("false") => Ok("false".to_owned()),
            _ => Err("must be true or false".to_owned()),
        },
        Values::Integer { min, max } => match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
            _ => Err(format!("must be a whole number from {min} to {max}")),
        },
        Values::Real { min, max } => match value.parse::<f64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(text_of_real(number)),
            _ => Err(format!("must be a number from {min} to {max}")),
        },
        Values::OneOf(known) => match known.contains(&value) {
            true => Ok(value.to_owned()),
            false => Err(format!("must be one of {}", known.join(", "))),
        },
        Values::ListOf(known) => {
            if value.is_empty() {
                return Ok(String::new());
            }
            if value.split(',').any(|item| item.trim().is_empty()) {
                return Err("an item of the list is empty".to_owned());
            }
            if !parse_list(value).iter().all(|item| known.contains(item)) {
                return Err(format!("must be a list of {}", known.join(", ")));
            }
            Ok(list_append("", value))
        }
        Values::ThinTiers => match value.parse::<ThinTiers>() {
            Ok(tiers) => Ok(tiers.to_string()),
            Err(error) => Err(error.to_string()),
        },
        Values::Names => {
            if !value.is_empty() && value.split(',').any(|item| item.trim().is_empty()) {
                return Err("an item of the list is empty".to_owned());
            }
            Ok(list_append("", value))
        }
        Values::Replicas => {
            let items = parse_list(value);
            if items != ["*"] && !items.iter().all(|item| is_replica(item)) {
                return Err(
                    "must be * or pairs of partition:broker, separated by commas".to_owned(),
                );
            }
            Ok(items.join(","))
        }
    }
}

/// As Java writes a double, and so Kafka's tools: with a digit after the point, small ones with an exponent.
fn text_of_real(number: f64) -> String {
    if number == 0.0 || number.abs() >= 1e-3 {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

fn is_replica(item: &str) -> bool {
    item.split_once(':').is_some_and(|(partition, broker)| {
        partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
    })
}

/// A list's items, without the spaces around them; the empty text has none.
pub fn parse_list(value: &str) -> Vec<&str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

/// A list with `added` at its end; what it has already is not repeated.
pub fn list_append(value: &str, added: &str) -> String {
    let mut items = parse_list(value);
    for item in parse_list(added) {
        if !items.contains(&item) {
            items.push(item);
        }
    }
    items.join(",")
}

/// A list without `removed`.
pub fn list_subtract(value: &str, removed: &str) -> String {
    let removed = parse_list(removed);
    let mut items = parse_list(value);
    items.retain(|item| !removed.contains(item));
    items.join(",")
}
