//! Filters of a source: where a cursor begins, and which messages are wanted. Pure.
//! Callers: `receiving`. Filters are known by their descriptors, and RabbitMQ's by its key too, as its own clients leave the
//! descriptor out. A filter that would leave messages out and is not offered is refused: to ignore it would send what nobody wants.

use amqp::{Map, MapBuf, Value};
use model::{Offset, Timestamp};

use super::selector::{Selector, SelectorError};
use crate::broker::replay::Place;

const STREAM_OFFSET: &str = "rabbitmq:stream-offset-spec";
const SELECTOR: &str = "apache.org:selector-filter:string";
const SELECTOR_CODE: u64 = 0x0000_468c_0000_0004;
const NO_LOCAL: &str = "apache.org:no-local-filter:list";
const NO_LOCAL_CODE: u64 = 0x0000_468c_0000_0003;

/// What the filters of a source ask for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Where it begins, if they say.
    pub(super) from: Option<Place>,
    /// Which messages are wanted; None for all.
    pub(super) selector: Option<Selector>,
    /// Those that are in force.
    pub(super) in_force: MapBuf,
    /// Whether RabbitMQ's annotations are wanted.
    pub(super) is_rabbit: bool,
}

/// Why filters are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Not offered.
    #[error("this filter is not offered: {0}")]
    NotOffered(&'static str),
    /// Not one that says where to begin.
    #[error("this filter names no place: {0}")]
    NoPlace(&'static str),
    /// No selector.
    #[error(transparent)]
    Selector(#[from] SelectorError),
}

/// Reads the filters of a source, at a time.
pub(super) fn read(filters: Option<Map<'_>>, now: Timestamp) -> Result<Asked, Refused> {
    let mut asked = Asked::default();
    for (key, filter) in filters.iter().flat_map(Map::iter) {
        let (descriptor, value) = match filter {
            Value::Described(it) => (it.descriptor(), it.value()),
            value => (key, value),
        };
        let is = |symbol, code| match descriptor {
            Value::Ulong(it) => it == code,
            other => other.text() == Some(symbol),
        };
        if is(STREAM_OFFSET, u64::MAX) {
            let place = stream_offset(&value, now).ok_or(Refused::NoPlace(STREAM_OFFSET))?;
            asked.from = Some(place);
            asked.is_rabbit = true;
        } else if is(SELECTOR, SELECTOR_CODE) {
            let text = value.text().ok_or(Refused::NoPlace(SELECTOR))?;
            match place_of(text) {
                Some(place) => asked.from = Some(place),
                None => asked.selector = Selector::parse(text)?,
            }
        } else if is(NO_LOCAL, NO_LOCAL_CODE) {
            return Err(Refused::NotOffered(NO_LOCAL));
        } else {
            // Not known: not in force, which the reply says by leaving it out.
            continue;
        }
        asked.in_force.put(&key, &filter);
    }
    Ok(asked)
}

/// RabbitMQ's: a name, an age, an offset, or a time.
fn stream_offset(value: &Value<'_>, now: Timestamp) -> Option<Place> {
    if let Value::Timestamp(millis) = value {
        return Some(Place::Time(Timestamp::from_millis(*millis)));
    }
    if let Some(offset) = value.integer() {
        return offset_of(u64::try_from(offset).ok()?);
    }
    match value.text()? {
        "first" => Some(Place::Earliest),
        "last" => Some(Place::BeforeLatest(1)),
        "next" => Some(Place::Latest),
        age => {
            let unit = age.char_indices().next_back()?;
            let seconds = match unit.1 {
                'Y' => 365 * 86_400,
                'M' => 30 * 86_400,
                'D' => 86_400,
                'h' => 3_600,
                'm' => 60,
                's' => 1,
                _ => return None,
            };
            let count: i64 = age[..unit.0].parse().ok().filter(|it| *it >= 0)?;
            let millis = count.checked_mul(seconds)?.checked_mul(1_000)?;
            let from = now.millis().saturating_sub(millis);
            Some(Place::Time(Timestamp::from_millis(from)))
        }
    }
}

fn offset_of(offset: u64) -> Option<Place> {
    (offset <= i64::MAX as u64).then(|| Place::Offset(Offset::new(offset)))
}

/// Event Hubs': an annotation behind a value. None: a selector that is no place.
fn place_of(text: &str) -> Option<Place> {
    let rest = text.trim().strip_prefix("amqp.annotation.x-opt-")?;
    let (name, rest) = rest.split_once(' ').unwrap_or_else(|| {
        let end = rest.find('>').unwrap_or(rest.len());
        rest.split_at(end)
    });
    let rest = rest.trim_start().strip_prefix('>')?;
    let (is_inclusive, rest) = match rest.strip_prefix('=') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let value = rest.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    let after = i64::from(!is_inclusive);
    match name {
        "offset" | "sequence-number" => match value {
            "-1" => Some(Place::Earliest),
            "@latest" => Some(Place::Latest),
            number => {
                let offset = number
                    .parse::<u64>()
                    .ok()?
                    .checked_add(u64::from(!is_inclusive));
                offset_of(offset?)
            }
        },
        "enqueued-time" | "enqueuedtimeutc" => {
            let millis = value.parse::<i64>().ok()?.checked_add(after)?;
            Some(Place::Time(Timestamp::from_millis(millis)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str, value: &Value<'_>) -> Result<Option<Place>, Refused> {
        let mut filters = MapBuf::new();
        filters.put_symbol(key, value);
        let read = read(
            Some(filters.as_map()),
            Timestamp::from_millis(1_000_000_000),
        );
        read.map(|asked| asked.from)
    }

    #[test]
    fn places_are_read_as_rabbitmqs_and_azures_clients_write_them() {
        let time = |millis| Place::Time(Timestamp::from_millis(millis));
        let at = |offset| Place::Offset(Offset::new(offset));
        for (key, value, expected) in [
            (STREAM_OFFSET, Value::String("first"), Place::Earliest),
            (STREAM_OFFSET, Value::Symbol("next"), Place::Latest),
            (STREAM_OFFSET, Value::String("last"), Place::BeforeLatest(1)),
            (
                STREAM_OFFSET,
                Value::String("10m"),
                time(1_000_000_000 - 600_000),
            ),
            (STREAM_OFFSET, Value::Ulong(7), at(7)),
            (STREAM_OFFSET, Value::Timestamp(5), time(5)),
            (
                SELECTOR,
                Value::String("amqp.annotation.x-opt-offset > '41'"),
                at(42),
            ),
            (
                SELECTOR,
                Value::String("amqp.annotation.x-opt-offset >= '41'"),
                at(41),
            ),
            (
                SELECTOR,
                Value::String("amqp.annotation.x-opt-offset > '-1'"),
                Place::Earliest,
            ),
            (
                SELECTOR,
                Value::String("amqp.annotation.x-opt-offset > '@latest'"),
                Place::Latest,
            ),
            (
                SELECTOR,
                Value::String("amqp.annotation.x-opt-sequence-number >= '3'"),
                at(3),
            ),
            (
                SELECTOR,
                Value::String("amqp.annotation.x-opt-enqueued-time > '99'"),
                time(100),
            ),
        ] {
            assert_eq!(place(key, &value), Ok(Some(expected)), "{value:?}");
        }
        // A filter that nobody knows is left out, and not in force.
        assert_eq!(place("x", &Value::String("y")), Ok(None));
        assert!(place(STREAM_OFFSET, &Value::String("soon")).is_err());
        assert!(place(STREAM_OFFSET, &Value::Long(-1)).is_err());
        // A condition is no place, and what is neither is refused.
        let selector = |text| place(SELECTOR, &Value::String(text));
        assert_eq!(selector("color = 'red'"), Ok(None));
        assert!(matches!(selector("color ="), Err(Refused::Selector(_))));
        let refused = place(NO_LOCAL, &Value::Null);
        assert_eq!(refused, Err(Refused::NotOffered(NO_LOCAL)));
    }
}
