//! What a request says beside its body: in the query, and in headers.

use axum::http::{HeaderMap, header};
use model::PartitionId;
use sha2::{Digest as _, Sha256};

use super::fault::Stop;
use super::field::Pointer;
use super::format::{KINDS, Kind};
use super::rows::Template;
use super::table::TableOptions;
use super::time::Unit;

/// The key of every record.
pub(super) const KEY: &str = "alluvium-key";
/// The timestamp of every record.
pub(super) const TIMESTAMP: &str = "alluvium-timestamp";
/// A header of every record, as `name: value`; may stand several times.
pub(super) const HEADER: &str = "alluvium-header";
/// The key by which a request is done once (draft-ietf-httpapi-idempotency-key-header).
pub(super) const ONCE: &str = "idempotency-key";
/// Headers of a record at most.
const HEADERS_MAX: usize = 100;

/// What happens to good rows where others are bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    /// They are written.
    Skip,
    /// Nothing is written.
    Reject,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Options {
    pub kind: Kind,
    pub encoding: String,
    pub on_error: OnError,
    /// The request is to be done once, by this name; and what it says beside its body.
    pub once: Option<(String, Sha256)>,
    pub template: Template,
    pub table: TableOptions,
}

type Pairs = Vec<(String, String)>;

/// Parameters, each of which is taken once; what is left was not known.
struct Given(Pairs);

impl Given {
    fn take(&mut self, name: &str) -> Result<Option<String>, Stop> {
        let mut found = self.take_all(name);
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => Err(Stop::Query(format!("parameter {name} is given twice"))),
        }
    }

    fn take_all(&mut self, name: &str) -> Vec<String> {
        let (found, rest): (Pairs, Pairs) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(key, _)| key == name);
        self.0 = rest;
        found.into_iter().map(|(_, value)| value).collect()
    }
}

impl Options {
    /// Reads them. `query` is the part of the path behind `?`, in pairs.
    pub fn read(query: Pairs, headers: &HeaderMap) -> Result<Options, Stop> {
        let once = once_of(&query, headers)?;
        let mut given = Given(query);
        let kind = kind_of(given.take("format")?, headers)?;
        let on_error = match given.take("on_error")?.as_deref() {
            None | Some("skip") => OnError::Skip,
            Some("reject") => OnError::Reject,
            Some(other) => {
                let detail = format!("on_error {other:?} is not known: it is skip or reject");
                return Err(Stop::Query(detail));
            }
        };
        let template = template(&mut given, headers)?;
        let table = table(&mut given, kind)?;
        if let Some((name, _)) = given.0.first() {
            return Err(Stop::Query(format!("unknown parameter {name:?}")));
        }
        let has_fields = template.key_field.is_some() || template.time_field.is_some();
        if kind == Kind::Raw && has_fields {
            let detail = "a body of raw bytes has no fields: key_field and timestamp_field do not go with it";
            return Err(Stop::Query(detail.to_owned()));
        }
        if kind == Kind::Arrow && template.time_field.is_some() {
            let detail = "an Arrow stream has its timestamps in the column timestamp, whose type says their unit";
            return Err(Stop::Query(detail.to_owned()));
        }
        let encoding = text_of(headers, header::CONTENT_ENCODING.as_str())?;
        Ok(Options {
            kind,
            encoding: encoding.unwrap_or_default(),
            on_error,
            once,
            template,
            table,
        })
    }
}

/// The key by which the request is done once, with or without the quotes that a text has in structured headers (RFC 8941). What
/// the request says beside its body belongs to its payload.
fn once_of(query: &Pairs, headers: &HeaderMap) -> Result<Option<(String, Sha256)>, Stop> {
    let Some(key) = text_of(headers, ONCE)? else {
        return Ok(None);
    };
    let unquoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    let key = unquoted.unwrap_or(&key).to_owned();
    let mut hash = Sha256::new();
    let mut note = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (name, value) in query {
        note(name.as_bytes());
        note(value.as_bytes());
    }
    let mut names = vec![KEY, TIMESTAMP, HEADER];
    names.extend([
        header::CONTENT_TYPE.as_str(),
        header::CONTENT_ENCODING.as_str(),
    ]);
    for name in names {
        for value in headers.get_all(name) {
            note(name.as_bytes());
            note(value.as_bytes());
        }
    }
    Ok(Some((key, hash)))
}

/// A header's text, if it is there.
fn text_of(headers: &HeaderMap, name: &str) -> Result<Option<String>, Stop> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Stop::Query(format!("header {name} is given twice")));
    }
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| Stop::Query(format!("header {name} is no UTF-8")))?;
    Ok(Some(text.to_owned()))
}

fn kind_of(format: Option<String>, headers: &HeaderMap) -> Result<Kind, Stop> {
    let known = || {
        let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        known.join(", ")
    };
    if let Some(format) = format {
        let found = KINDS.iter().find(|(name, _)| *name == format);
        let unknown = || Stop::Query(format!("format {format:?} is not known: it is {}", known()));
        return found.map(|(_, kind)| *kind).ok_or_else(unknown);
    }
    let content_type = text_of(headers, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or("").trim();
    Kind::of_type(content_type).ok_or_else(|| {
        Stop::ContentType(format!(
            "content type {content_type:?} says nothing of rows: it is application/x-ndjson, application/json, text/csv, \
             application/octet-stream or application/vnd.apache.arrow.stream, or the parameter format says {}",
            known()
        ))
    })
}

/// One of several places where something may be said, and no more.
fn one_of<T>(what: &str, places: [Option<T>; 2]) -> Result<Option<T>, Stop> {
    match places {
        [Some(_), Some(_)] => Err(Stop::Query(format!("{what} is given in two ways"))),
        [one, other] => Ok(one.or(other)),
    }
}

fn template(given: &mut Given, headers: &HeaderMap) -> Result<Template, Stop> {
    let pointer = |field: Option<String>| {
        let field = field.map(|field| Pointer::parse(&field));
        field.transpose().map_err(Stop::Query)
    };
    let partition = given.take("partition")?.map(|number| {
        let parsed = number.parse::<u32>();
        parsed.map_err(|_| Stop::Query(format!("partition {number:?} is no number")))
    });
    let key = one_of("the key", [given.take("key")?, text_of(headers, KEY)?])?;
    let key_field = pointer(given.take("key_field")?)?;
    if key.is_some() && key_field.is_some() {
        return Err(Stop::Query("the key is given in two ways".to_owned()));
    }
    let time = one_of(
        "the timestamp",
        [given.take("timestamp")?, text_of(headers, TIMESTAMP)?],
    )?;
    let time_field = pointer(given.take("timestamp_field")?)?;
    if time.is_some() && time_field.is_some() {
        return Err(Stop::Query("the timestamp is given in two ways".to_owned()));
    }
    let unit = given.take("timestamp_unit")?;
    let unit = unit.map(|unit| Unit::parse(&unit)).transpose();
    let unit = unit.map_err(Stop::Query)?;
    let unit = match (unit, time.is_some() || time_field.is_some()) {
        (None, true) => {
            let detail = "a timestamp needs timestamp_unit, which is s, ms, us, ns or rfc3339: it is not guessed";
            return Err(Stop::Query(detail.to_owned()));
        }
        (Some(_), false) => {
            let detail = "timestamp_unit says how to read timestamp or timestamp_field, and neither is given";
            return Err(Stop::Query(detail.to_owned()));
        }
        (unit, _) => unit.unwrap_or(Unit::Rfc3339),
    };
    let time = time.map(|time| unit.read(&time)).transpose();
    let time = time.map_err(|fault| Stop::Query(fault.to_string()))?;
    Ok(Template {
        partition: partition.transpose()?.map(PartitionId::new),
        key: key.map(String::into_bytes),
        key_field,
        time,
        time_field: time_field.map(|field| (field, unit)),
        headers: record_headers(given, headers)?,
    })
}

fn record_headers(given: &mut Given, headers: &HeaderMap) -> Result<Pairs, Stop> {
    let mut texts = given.take_all("header");
    for value in headers.get_all(HEADER) {
        let text = std::str::from_utf8(value.as_bytes());
        let text = text.map_err(|_| Stop::Query(format!("header {HEADER} is no UTF-8")))?;
        texts.push(text.to_owned());
    }
    if texts.len() > HEADERS_MAX {
        let detail = format!("a record has {HEADERS_MAX} headers at most");
        return Err(Stop::Query(detail));
    }
    let pair = |text: String| {
        let pair = text.split_once(':').map(|(name, value)| {
            let value = value.strip_prefix(' ').unwrap_or(value);
            (name.to_owned(), value.to_owned())
        });
        let detail = || Stop::Query(format!("record header {text:?} is not as name: value"));
        pair.filter(|(name, _)| !name.is_empty()).ok_or_else(detail)
    };
    texts.into_iter().map(pair).collect()
}

fn table(given: &mut Given, kind: Kind) -> Result<TableOptions, Stop> {
    let delimiter = given.take("delimiter")?;
    let value_column = given.take("value_column")?;
    if kind != Kind::Csv && delimiter.is_some() {
        let detail = "delimiter says how to read CSV, and the body is none";
        return Err(Stop::Query(detail.to_owned()));
    }
    if !matches!(kind, Kind::Csv | Kind::Arrow) && value_column.is_some() {
        let detail = "value_column says how to read CSV and Arrow, and the body is neither";
        return Err(Stop::Query(detail.to_owned()));
    }
    let delimiter = match delimiter.as_deref() {
        None => b',',
        Some("tab") => b'\t',
        Some(other) => match other.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => *byte,
            _ => {
                let detail = format!("delimiter {other:?} must be one ASCII character, or tab");
                return Err(Stop::Query(detail));
            }
        },
    };
    Ok(TableOptions {
        delimiter,
        value_column,
    })
}
