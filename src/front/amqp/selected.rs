//! What a selector sees of a record: the fields of the message that it is to receivers, by their names in JMS and in AMQP. Pure.
//! Callers: cursors, browsers and consumers that have a selector, and `foreign`.
//!
//! JMS's header fields are mapped as Qpid JMS does it. Fields of AMQP are `amqp.` and their name with `_`, annotations `amqp.annotation.`
//! and theirs; any other name is that of an application property. How often a message was delivered is not known here.

use std::borrow::Cow;

use amqp::Value;
use amqp::message::Message;

use super::route::Record;
use super::selector::{Fields, Selector, Term};
use crate::broker::replay::ReplayRecord;

/// A record with a selector's eyes.
enum Selected<'r, 'a> {
    /// It is a message of AMQP.
    Message(Box<Message<'a>>),
    /// Another protocol has stored it.
    Foreign(&'r Record<'a>),
}

/// Whether a selector selects a record.
pub(super) fn selects(selector: &Selector, found: &ReplayRecord<'_>) -> bool {
    let record = Record::of(found);
    selector.truth(&Selected::of(&record)) == Some(true)
}

/// What a selector says of a message; None: that is unknown.
pub(super) fn truth(selector: &Selector, message: Message<'_>) -> Option<bool> {
    selector.truth(&Selected::Message(Box::new(message)))
}

impl<'r, 'a> Selected<'r, 'a> {
    fn of(record: &'r Record<'a>) -> Selected<'r, 'a> {
        match record.sections() {
            Some(message) => Selected::Message(Box::new(message)),
            None => Selected::Foreign(record),
        }
    }
}

impl Fields for Selected<'_, '_> {
    fn field(&self, name: &str) -> Term<'_> {
        let in_amqp = name.strip_prefix("amqp.");
        let message = match (self, in_amqp) {
            (Selected::Message(message), Some(name)) => return of_amqp(message, name),
            (Selected::Message(message), None) => message,
            (Selected::Foreign(record), Some(name)) => return foreign_of_amqp(record, name),
            (Selected::Foreign(record), None) => return of_foreign(record, name),
        };
        let header = message.header;
        let properties = message.properties.map(|it| it.0);
        match name {
            "JMSDeliveryMode" => mode(header.is_some_and(|it| it.durable)),
            "JMSPriority" => priority(header.map(|it| it.priority)),
            "JMSMessageID" => id(properties.and_then(|it| it.message_id), true),
            "JMSCorrelationID" => id(properties.and_then(|it| it.correlation_id), false),
            "JMSTimestamp" => {
                let time = properties.and_then(|it| it.creation_time);
                time.map_or(Term::Unknown, |it| Term::Exact(it.0))
            }
            "JMSType" => text(properties.and_then(|it| it.subject)),
            "JMSXGroupID" => text(properties.and_then(|it| it.group_id)),
            "JMSXGroupSeq" => {
                let number = properties.and_then(|it| it.group_sequence);
                number.map_or(Term::Unknown, |it| Term::Exact(it.into()))
            }
            "JMSXUserID" => bytes(properties.and_then(|it| it.user_id)),
            // No selector may ask for these (3.8.1.1).
            "JMSDestination" | "JMSReplyTo" | "JMSRedelivered" | "JMSExpiration"
            | "JMSDeliveryTime" | "JMSXDeliveryCount" => Term::Unknown,
            name => {
                let said = message.application_properties;
                let value = said.and_then(|(said, _)| said.get(name));
                value.map_or(Term::Unknown, term)
            }
        }
    }
}

/// A field by its name in AMQP.
fn of_amqp<'m>(message: &'m Message<'_>, name: &str) -> Term<'m> {
    if let Some(name) = name.strip_prefix("annotation.") {
        let annotations = message.message_annotations;
        let value = annotations.and_then(|(map, _)| map.get(name));
        return value.map_or(Term::Unknown, term);
    }
    let header = message.header;
    match name {
        "durable" => return Term::Truth(header.is_some_and(|it| it.durable)),
        "priority" => return priority(header.map(|it| it.priority)),
        "ttl" => {
            let ttl = header.and_then(|it| it.ttl);
            return ttl.map_or(Term::Unknown, |it| Term::Exact(it.into()));
        }
        _ => {}
    }
    let Some((said, _)) = message.properties else {
        return Term::Unknown;
    };
    let time =
        |it: Option<amqp::field::Timestamp>| it.map_or(Term::Unknown, |it| Term::Exact(it.0));
    let value = |it: Option<_>| it.map_or(Term::Unknown, term);
    match name {
        "message_id" => value(said.message_id),
        "user_id" => bytes(said.user_id),
        "to" => value(said.to),
        "subject" => text(said.subject),
        "reply_to" => value(said.reply_to),
        "correlation_id" => value(said.correlation_id),
        "content_type" => text(said.content_type.map(|it| it.0)),
        "content_encoding" => text(said.content_encoding.map(|it| it.0)),
        "absolute_expiry_time" => time(said.absolute_expiry_time),
        "creation_time" => time(said.creation_time),
        "group_id" => text(said.group_id),
        "group_sequence" => {
            { said.group_sequence }.map_or(Term::Unknown, |it| Term::Exact(it.into()))
        }
        "reply_to_group_id" => text(said.reply_to_group_id),
        _ => Term::Unknown,
    }
}

/// The same of a record of another protocol, which is the message that `route` makes of it.
fn foreign_of_amqp(record: &Record<'_>, name: &str) -> Term<'static> {
    match name {
        "durable" => Term::Truth(true),
        "priority" => priority(None),
        "creation_time" => Term::Exact(record.time().millis()),
        _ => Term::Unknown,
    }
}

/// A field of such a record by its name in JMS.
fn of_foreign<'r>(record: &'r Record<'_>, name: &str) -> Term<'r> {
    match name {
        "JMSDeliveryMode" => mode(true),
        "JMSPriority" => priority(None),
        "JMSTimestamp" => Term::Exact(record.time().millis()),
        name => match record.last_header(name) {
            None => Term::Unknown,
            Some(value) => bytes_or_other(value),
        },
    }
}

fn mode(is_durable: bool) -> Term<'static> {
    Term::Text(Cow::Borrowed(match is_durable {
        true => "PERSISTENT",
        false => "NON_PERSISTENT",
    }))
}

/// JMS has those from 0 to 9.
fn priority(of: Option<u8>) -> Term<'static> {
    Term::Exact(of.unwrap_or(4).min(9).into())
}

fn text(of: Option<&str>) -> Term<'_> {
    of.map_or(Term::Unknown, |it| Term::Text(Cow::Borrowed(it)))
}

fn bytes(of: Option<&[u8]>) -> Term<'_> {
    of.map_or(Term::Unknown, bytes_or_other)
}

fn bytes_or_other(bytes: &[u8]) -> Term<'_> {
    std::str::from_utf8(bytes).map_or(Term::Other, |it| Term::Text(Cow::Borrowed(it)))
}

/// An id as JMS shows it: one that is no string of JMS's says what it is.
fn id(of: Option<Value<'_>>, is_of_message: bool) -> Term<'_> {
    let shown = match of {
        None => return Term::Unknown,
        Some(Value::String(text)) if !is_of_message || text.starts_with("ID:") => {
            return Term::Text(Cow::Borrowed(text));
        }
        Some(Value::String(text)) => format!("ID:AMQP_NO_PREFIX:{text}"),
        Some(Value::Ulong(number)) => format!("ID:AMQP_ULONG:{number}"),
        Some(Value::Uuid(bytes)) => format!("ID:AMQP_UUID:{}", uuid::Uuid::from_bytes(bytes)),
        Some(Value::Binary(bytes)) => {
            let hex: String = bytes.iter().map(|it| format!("{it:02X}")).collect();
            format!("ID:AMQP_BINARY:{hex}")
        }
        Some(_) => return Term::Other,
    };
    Term::Text(Cow::Owned(shown))
}

fn term(value: Value<'_>) -> Term<'_> {
    match value {
        Value::Null => Term::Unknown,
        Value::Boolean(it) => Term::Truth(it),
        Value::Float(it) => Term::Approximate(it.into()),
        Value::Double(it) => Term::Approximate(it),
        Value::Timestamp(it) => Term::Exact(it),
        Value::Char(it) => Term::Text(Cow::Owned(it.to_string())),
        Value::Uuid(it) => Term::Text(Cow::Owned(uuid::Uuid::from_bytes(it).to_string())),
        Value::String(it) | Value::Symbol(it) => Term::Text(Cow::Borrowed(it)),
        // A ulong may be no long.
        other => match other.integer().map(i64::try_from) {
            Some(Ok(number)) => Term::Exact(number),
            _ => Term::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use amqp::field::{Symbol, Timestamp};
    use amqp::message::{Header, Properties, SectionKind, put_section};
    use amqp::{Bytes, BytesMut, Composite as _, MapBuf};

    use super::super::route::stored;
    use super::*;

    fn payload() -> Bytes {
        let mut out = BytesMut::new();
        let header = Header {
            durable: true,
            priority: 7,
            ttl: Some(60_000),
            ..Header::NONE
        };
        header.put(&mut out);
        let mut annotations = MapBuf::new();
        annotations.put_symbol("x-opt-kind", &Value::Int(3));
        let annotations = Value::Map(annotations.as_map());
        put_section(&mut out, SectionKind::MessageAnnotations, &annotations);
        let properties = Properties {
            message_id: Some(Value::String("ID:a:1")),
            correlation_id: Some(Value::Ulong(9)),
            user_id: Some(b"ann"),
            to: Some(Value::String("orders")),
            subject: Some("new"),
            content_type: Some(Symbol("text/plain")),
            creation_time: Some(Timestamp(5_000)),
            group_id: Some("g"),
            group_sequence: Some(2),
            ..Properties::NONE
        };
        properties.put(&mut out);
        let mut said = MapBuf::new();
        said.put(&Value::String("color"), &Value::String("red"));
        said.put(&Value::String("size"), &Value::Int(7));
        said.put(&Value::String("paid"), &Value::Boolean(true));
        said.put(&Value::String("huge"), &Value::Ulong(u64::MAX));
        let said = Value::Map(said.as_map());
        put_section(&mut out, SectionKind::ApplicationProperties, &said);
        put_section(&mut out, SectionKind::Value, &Value::Null);
        out.freeze()
    }

    fn check(found: &Record<'_>, cases: &[(&str, bool)]) {
        for (text, expected) in cases {
            let selector = Selector::parse(text).expect(text).expect("not blank");
            let said = selector.truth(&Selected::of(found));
            assert_eq!(said == Some(true), *expected, "{text}");
        }
    }

    #[test]
    fn fields_are_those_that_jms_and_amqp_name() {
        let now = model::Timestamp::from_millis(9_000);
        let stored = stored(&payload(), 0, None, now).expect("a message");
        let record = Record::of_stored(&stored[0], now);
        check(
            &record,
            &[
                ("JMSDeliveryMode = 'PERSISTENT'", true),
                ("JMSPriority = 7", true),
                ("JMSMessageID = 'ID:a:1'", true),
                ("JMSCorrelationID = 'ID:AMQP_ULONG:9'", true),
                ("JMSTimestamp = 5000", true),
                ("JMSType = 'new'", true),
                ("JMSXGroupID = 'g' AND JMSXGroupSeq = 2", true),
                ("JMSXUserID = 'ann'", true),
                ("JMSXDeliveryCount IS NULL", true),
                ("color = 'red' AND size > 5 AND paid", true),
                ("color = 'blue'", false),
                ("huge IS NOT NULL AND NOT huge = 1", true),
                (
                    "amqp.durable AND amqp.priority = 7 AND amqp.ttl = 60000",
                    true,
                ),
                (
                    "amqp.message_id = 'ID:a:1' AND amqp.correlation_id = 9",
                    true,
                ),
                ("amqp.to = 'orders' AND amqp.subject = 'new'", true),
                ("amqp.content_type LIKE 'text/%'", true),
                ("amqp.annotation.x-opt-kind = 3", true),
                ("amqp.annotation.x-opt-other IS NULL", true),
                ("amqp.reply_to IS NULL", true),
            ],
        );
    }

    #[test]
    fn a_record_of_another_protocol_has_its_headers_as_properties() {
        let headers: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"color", Some(b"blue")),
            (b"color", Some(b"red")),
            (b"raw", Some(b"\xff")),
            (b"none", None),
        ];
        let record = Record::foreign(headers, 5_000);
        check(
            &record,
            &[
                ("color = 'red'", true),
                ("raw IS NOT NULL AND NOT raw = 'x'", true),
                ("none IS NULL AND missing IS NULL", true),
                ("JMSTimestamp = 5000 AND JMSPriority = 4", true),
                (
                    "JMSDeliveryMode = 'PERSISTENT' AND JMSMessageID IS NULL",
                    true,
                ),
            ],
        );
    }
}
