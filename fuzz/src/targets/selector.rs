//! JMS's selectors, and messages that are asked by them: `selector chunk | message`.

use alluvium::front::amqp::foreign::{Said, select};
use amqp::BytesMut;
use amqp::message::{SectionKind, put_section};
use amqp::{MapBuf, Value};

use crate::Input;
use crate::input::put_chunk;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let text = String::from_utf8_lossy(input.chunk()).into_owned();
    let message = input.rest();
    let Some(said) = select(&text, message) else {
        return;
    };
    assert_eq!(
        select(&text, message),
        Some(said),
        "asked again, it says the same"
    );
    // They are longer, and nested deeper by one: either may be more than there may be.
    let turned = match said {
        Said::True => Said::False,
        Said::False => Said::True,
        Said::Unknown => Said::Unknown,
    };
    for (more, expected) in [
        (format!("NOT ({text})"), turned),
        (format!("({text}) AND TRUE"), said),
        (format!("FALSE OR ({text})"), said),
    ] {
        if let Some(found) = select(&more, message) {
            assert_eq!(found, expected, "{more}");
        }
    }
}

/// Each part of the language, and a message of each kind of field.
pub fn seeds() -> Vec<Vec<u8>> {
    let selectors = [
        "color = 'red' AND (size >= 6 OR weight < 2.5e0) AND NOT paid",
        "size BETWEEN 0x10 AND 7L OR -size * 2 + 1 / 3.0 <> 4",
        "color IN ('red', 'it''s') OR color NOT IN ('blue')",
        "color LIKE 'r%d!_' ESCAPE '!' OR color NOT LIKE '_e%'",
        "missing IS NULL AND color IS NOT NULL AND TRUE",
        "JMSPriority > 4 AND JMSDeliveryMode = 'PERSISTENT' AND JMSMessageID LIKE 'ID:%'",
        "amqp.annotation.x-opt-kind = 1 OR amqp.ttl > 9 OR amqp.creation_time > 1700000000000",
    ];
    let message = message();
    let seed = |text: &&str| {
        let mut seed = Vec::new();
        put_chunk(&mut seed, text.as_bytes());
        seed.extend_from_slice(&message);
        seed
    };
    selectors.iter().map(seed).collect()
}

fn message() -> BytesMut {
    let mut out = BytesMut::new();
    // durable, priority 7, ttl 60,000.
    out.extend_from_slice(b"\x00\x53\x70\xc0\x09\x03\x41\x50\x07\x70\x00\x00\xea\x60");
    let mut annotations = MapBuf::new();
    annotations.put_symbol("x-opt-kind", &Value::Int(1));
    let kind = SectionKind::MessageAnnotations;
    put_section(&mut out, kind, &Value::Map(annotations.as_map()));
    // The message id is a string.
    out.extend_from_slice(b"\x00\x53\x73\xc0\x07\x01\xa1\x04ID:1");
    let mut properties = MapBuf::new();
    for (name, value) in [
        ("color", Value::String("red")),
        ("size", Value::Int(7)),
        ("weight", Value::Double(2.5)),
        ("paid", Value::Boolean(true)),
    ] {
        properties.put(&Value::String(name), &value);
    }
    let kind = SectionKind::ApplicationProperties;
    put_section(&mut out, kind, &Value::Map(properties.as_map()));
    put_section(&mut out, SectionKind::Data, &Value::Binary(b"body"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_say_something_of_their_message() {
        let message = message();
        let said = |text: &str| select(text, &message);
        assert_eq!(
            said("color = 'red' AND JMSPriority = 7 AND amqp.ttl = 60000"),
            Some(Said::True)
        );
        assert_eq!(said("amqp.annotation.x-opt-kind = 2"), Some(Said::False));
        assert_eq!(
            said("JMSMessageID = 'ID:1' AND missing = 1"),
            Some(Said::Unknown)
        );
        assert_eq!(said("color ="), None);
        for seed in seeds() {
            let mut input = Input::new(&seed);
            let text = String::from_utf8_lossy(input.chunk()).into_owned();
            assert!(select(&text, input.rest()).is_some(), "{text}");
        }
    }
}
