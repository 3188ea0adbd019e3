//! Takes the facts out of Kafka's own message schemas, and leaves their prose behind.
//! The schemas are resources of the kafka-clients jar: unpack its `common/message/*.json` and pass that folder.

use super::schema::{Field, Message, Module, Struct, Versions};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;

/// Keys whose messages are generated: everything that a client may send to a broker, but for delegation tokens and
/// streams groups.
const KEYS: &[i16] = &[
    0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
    29, 30, 31, 32, 33, 34, 35, 36, 37, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 55, 57, 60, 61, 65,
    66, 68, 69, 71, 72, 74, 75, 76, 77, 78, 79, 90, 91, 92,
];

/// What consumers write into JoinGroup and SyncGroup.
const CONSUMER_PROTOCOL: &[&str] = &["ConsumerProtocolSubscription", "ConsumerProtocolAssignment"];

/// Reads a folder of schemas; yields file names and the facts.
pub fn import(folder: &Path) -> Result<Vec<(String, Module)>> {
    let mut modules = Vec::new();
    let mut requests = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.ends_with("Request.json") {
            let schema = load(&path)?;
            let key = i16::try_from(schema["apiKey"].as_i64().context("no apiKey")?)?;
            if KEYS.contains(&key) {
                requests.push((
                    key,
                    name.trim_end_matches("Request.json").to_owned(),
                    schema,
                ));
            }
        }
    }
    requests.sort_by_key(|(key, ..)| *key);
    if requests.len() != KEYS.len() {
        bail!("{} of {} keys found", requests.len(), KEYS.len());
    }
    for (key, name, schema) in requests {
        let response = load(&folder.join(format!("{name}Response.json")))?;
        let messages = vec![
            message("request", &schema)?,
            message("response", &response)?,
        ];
        modules.push((
            format!("{key:02}_{}.txt", super::snake(&name)),
            Module {
                key: Some(key),
                name,
                messages,
            },
        ));
    }
    let messages = CONSUMER_PROTOCOL
        .iter()
        .map(|name| message(name, &load(&folder.join(format!("{name}.json")))?))
        .collect::<Result<_>>()?;
    let module = Module {
        key: None,
        name: "ConsumerProtocol".into(),
        messages,
    };
    modules.push(("consumer_protocol.txt".into(), module));
    Ok(modules)
}

fn load(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let plain: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    serde_json::from_str(&plain).with_context(|| path.display().to_string())
}

fn message(role: &str, schema: &Value) -> Result<Message> {
    let structs = array(&schema["commonStructs"])
        .iter()
        .map(|named| {
            Ok(Struct {
                name: text(&named["name"])?,
                fields: fields(&named["fields"])?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Message {
        role: role.to_owned(),
        versions: versions(&schema["validVersions"])?,
        flexible: versions(&schema["flexibleVersions"])?,
        fields: fields(&schema["fields"])?,
        structs,
    })
}

fn fields(list: &Value) -> Result<Vec<Field>> {
    array(list).iter().map(field).collect()
}

fn field(schema: &Value) -> Result<Field> {
    let tag = match schema["tag"].as_u64() {
        Some(number) => Some((u32::try_from(number)?, versions(&schema["taggedVersions"])?)),
        None => None,
    };
    let default = match &schema["default"] {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Ok(Field {
        name: text(&schema["name"])?,
        kind: text(&schema["type"])?,
        versions: versions(&schema["versions"])?,
        nullable: versions(&schema["nullableVersions"])?,
        tag,
        default,
        ignorable: schema["ignorable"].as_bool().unwrap_or(false) || schema["ignorable"] == "true",
        fields: fields(&schema["fields"])?,
    })
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Result<String> {
    Ok(value
        .as_str()
        .with_context(|| format!("expected text, found {value}"))?
        .to_owned())
}

fn versions(value: &Value) -> Result<Versions> {
    match value {
        Value::Null => Ok(Versions::NONE),
        value => Versions::parse(&text(value)?)
            .with_context(|| format!("not a range of versions: {value}")),
    }
}
