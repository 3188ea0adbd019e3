//! Where settings are given: the lines of a TOML file, and the variables of the environment.
//!
//! Callers: `Config::load`. A setting that is a list of tables (`[[key]]`) is a JSON array elsewhere. Every setting comes with its [`Place`], so that an error can name file and line, or the variable.
//! Variables that a container platform sets for a service with our name are no settings, and are left alone.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::refusal::{ConfigError, Place};

/// What the names of our variables begin with.
const PREFIX: &str = "ALLUVIUM_";
/// Variables that mean something else than a setting, without the prefix.
const RESERVED_VARIABLES: &[&str] = &[
    "LOG",
    "CONFIG",
    "BROKERS",
    "HTTP",
    "BIN",
    "COMPAT_CACHE",
    "SUITES_CACHE",
];

/// One setting as it was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// Its name.
    pub(super) key: String,
    /// Its value.
    pub(super) value: String,
    /// Where it stands.
    pub(super) place: Place,
}

/// The file's settings in the order of its lines: `a.b = 1` and `[a]` `b = 1` are the same.
pub(super) fn of_file(path: &Path) -> Result<Vec<Given>, ConfigError> {
    let refuse = |reason: String| ConfigError::File {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table = DeTable::parse(&text).map_err(|error| refuse(error.to_string()))?;
    let mut found = Vec::new();
    flatten("", table.get_ref(), &mut found);
    found.sort_by_key(|entry| entry.position);
    let line_of = |position: usize| 1 + text[..position].matches('\n').count();
    let mut lines: HashMap<String, usize> = HashMap::new();
    let mut given = Vec::new();
    for Entry {
        key,
        position,
        value,
    } in found
    {
        let line = line_of(position);
        let value = value
            .map_err(|kind| refuse(format!("line {line}: {key}: {kind} is no setting's value")))?;
        if let Some(first) = lines.insert(key.clone(), line) {
            return Err(refuse(format!(
                "line {line}: {key} is set already, in line {first}"
            )));
        }
        let place = Place::File {
            path: path.to_owned(),
            line,
        };
        given.push(Given { key, value, place });
    }
    Ok(given)
}

/// A key of the file, where it begins, and its value, or the name of a type that no setting has.
struct Entry {
    key: String,
    position: usize,
    value: Result<String, &'static str>,
}

fn flatten(prefix: &str, table: &DeTable<'_>, found: &mut Vec<Entry>) {
    for (name, value) in table.iter() {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        let value = match value.get_ref() {
            DeValue::Table(table) => {
                flatten(&key, table, found);
                continue;
            }
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(|number| number.to_string())
                .map_err(|_| "an integer of more than 64 bits"),
            DeValue::Boolean(on) => Ok(on.to_string()),
            DeValue::Float(_) => Err("a float"),
            DeValue::Datetime(_) => Err("a datetime"),
            DeValue::Array(array) => json_of_tables(array),
        };
        found.push(Entry {
            key,
            position: name.span().start,
            value,
        });
    }
}

/// An array of tables, `[[key]]`, as a JSON array of objects; or the name of a type that no setting has.
fn json_of_tables(array: &[Spanned<DeValue<'_>>]) -> Result<String, &'static str> {
    let tables = array.iter().map(|value| match value.get_ref() {
        DeValue::Table(table) => json_of(table),
        _ => Err("an array"),
    });
    let tables: Vec<serde_json::Value> = tables.collect::<Result<_, _>>()?;
    match tables.is_empty() {
        true => Err("an array"),
        false => Ok(serde_json::Value::from(tables).to_string()),
    }
}

fn json_of(table: &DeTable<'_>) -> Result<serde_json::Value, &'static str> {
    let mut object = serde_json::Map::new();
    for (name, value) in table.iter() {
        let value = match value.get_ref() {
            DeValue::String(text) => text.to_string().into(),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| "an integer of more than 64 bits")?
                .into(),
            DeValue::Boolean(on) => (*on).into(),
            _ => return Err("a table that holds other than texts, integers and booleans"),
        };
        object.insert(name.get_ref().to_string(), value);
    }
    Ok(object.into())
}

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct FromEnvironment {
    /// The settings.
    pub(super) given: Vec<Given>,
    /// Variables with our prefix that a container platform has set.
    pub(super) ignored: Vec<String>,
}

/// The environment's settings: `ALLUVIUM_NUM_PARTITIONS` is `num.partitions`.
pub(super) fn of_environment(
    variables: &[(OsString, OsString)],
    is_setting: impl Fn(&str) -> bool,
) -> Result<FromEnvironment, ConfigError> {
    let mut found = FromEnvironment::default();
    for (variable, value) in variables {
        let variable = variable.to_string_lossy().into_owned();
        let Some(name) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        if RESERVED_VARIABLES.contains(&name) {
            continue;
        }
        let key = name.to_ascii_lowercase().replace('_', ".");
        if !is_setting(&key) && is_platforms(name, value) {
            found.ignored.push(variable);
            continue;
        }
        let Some(value) = value.to_str() else {
            return Err(ConfigError::NotText { variable });
        };
        found.given.push(Given {
            key,
            value: value.to_owned(),
            place: Place::Environment { variable },
        });
    }
    Ok(found)
}

/// Whether a platform sets such a variable for a service that is called `alluvium`, or `alluvium-` and something.
///
/// Kubernetes sets `<SERVICE>_SERVICE_HOST`, `_SERVICE_PORT`, `_SERVICE_PORT_<NAME>`, `_PORT` (an address with its protocol) and
/// `_PORT_<NUMBER>_<PROTOCOL>` with `_PROTO`, `_PORT`, `_ADDR` or nothing behind it, as Docker's links do, which add `_NAME` (the
/// containers' names, which begin with a slash) and `_ENV_<VARIABLE>`.
fn is_platforms(name: &str, value: &OsStr) -> bool {
    let value = value.to_string_lossy();
    let words: Vec<&str> = name.split('_').collect();
    let protocols = ["TCP", "UDP", "SCTP"];
    let of_port = |behind: &[&str]| match behind {
        [number, protocol] | [number, protocol, "PROTO" | "PORT" | "ADDR"] => {
            number.parse::<u16>().is_ok() && protocols.contains(protocol)
        }
        _ => false,
    };
    let starts_in = |at: usize| match &words[at..] {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        ["PORT"] => ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| value.starts_with(scheme)),
        ["PORT", behind @ ..] => of_port(behind),
        ["NAME"] => value.starts_with('/'),
        ["ENV", _, ..] => true,
        _ => false,
    };
    (0..words.len()).any(starts_in)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> FromEnvironment {
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect();
        of_environment(&variables, |key| key == "num.partitions").unwrap()
    }

    fn file(text: &str) -> Result<Vec<(String, String, usize)>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.toml");
        std::fs::write(&path, text).unwrap();
        let given = of_file(&path).map_err(|error| error.to_string())?;
        let line = |place| match place {
            Place::File { line, .. } => line,
            other => panic!("{other:?}"),
        };
        Ok(given
            .into_iter()
            .map(|given| (given.key, given.value, line(given.place)))
            .collect())
    }

    #[test]
    fn variables_that_a_platform_sets_are_no_settings() {
        // As kubelet and Docker write them for services `alluvium` and `alluvium-edge`, and a container that is linked.
        let platforms = [
            ("ALLUVIUM_SERVICE_HOST", "10.96.7.7"),
            ("ALLUVIUM_SERVICE_PORT", "9092"),
            ("ALLUVIUM_SERVICE_PORT_KAFKA", "9092"),
            ("ALLUVIUM_PORT", "tcp://10.96.7.7:9092"),
            ("ALLUVIUM_PORT_9092_TCP", "tcp://10.96.7.7:9092"),
            ("ALLUVIUM_PORT_9092_TCP_PROTO", "tcp"),
            ("ALLUVIUM_PORT_9092_TCP_PORT", "9092"),
            ("ALLUVIUM_PORT_9092_TCP_ADDR", "10.96.7.7"),
            ("ALLUVIUM_EDGE_SERVICE_HOST", "10.96.7.8"),
            ("ALLUVIUM_EDGE_PORT", "udp://10.96.7.8:53"),
            ("ALLUVIUM_EDGE_PORT_53_UDP_ADDR", "10.96.7.8"),
            ("ALLUVIUM_NAME", "/web/alluvium"),
            ("ALLUVIUM_ENV_PATH", "/usr/bin"),
        ];
        let found = environment(&platforms);
        assert_eq!(found.given, []);
        assert_eq!(found.ignored, platforms.map(|(name, _)| name));
    }

    #[test]
    fn what_no_platform_sets_is_a_setting_or_a_mistake() {
        for (name, value, key) in [
            ("ALLUVIUM_NUM_PARTITIONS", "3", "num.partitions"),
            // Somebody meant a setting by these: they have to be told that there is none.
            ("ALLUVIUM_PORT", "9092", "port"),
            ("ALLUVIUM_PORT_KAFKA", "9092", "port.kafka"),
            ("ALLUVIUM_NAME", "store", "name"),
            ("ALLUVIUM_HOST", "0.0.0.0", "host"),
        ] {
            let found = environment(&[(name, value), ("PATH", "/bin"), ("ALLUVIUM_LOG", "debug")]);
            let place = Place::Environment {
                variable: name.into(),
            };
            let given = Given {
                key: key.into(),
                value: value.into(),
                place,
            };
            assert_eq!(found.given, [given]);
            assert!(found.ignored.is_empty());
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_refused_and_not_left_out() {
        let variables = [(
            "ALLUVIUM_NUM_PARTITIONS".into(),
            OsString::from_vec(vec![0xff]),
        )];
        let error = of_environment(&variables, |_| true).unwrap_err();
        assert!(
            error.to_string().contains("ALLUVIUM_NUM_PARTITIONS"),
            "{error}"
        );
    }

    #[test]
    fn every_setting_of_a_file_has_its_line() {
        let text =
            "# a comment\nnum.partitions = 2\n\n[log.retention]\nms = 0x10\nbytes = \"-1\"\n";
        let expected = [
            ("num.partitions", "2", 2),
            ("log.retention.ms", "16", 5),
            ("log.retention.bytes", "-1", 6),
        ];
        let expected = expected.map(|(key, value, line)| (key.to_owned(), value.to_owned(), line));
        assert_eq!(file(text).unwrap(), expected);
    }

    #[test]
    fn tables_of_a_key_are_one_setting_as_json() {
        let text = "node.id = 1\n[[mqtt.route]]\nfilter = \"a/#\"\npartitions = 4\n[[mqtt.route]]\nfilter = \"b\"\n";
        let given = file(text).unwrap();
        let routes = r#"[{"filter":"a/#","partitions":4},{"filter":"b"}]"#;
        assert_eq!(given[1], ("mqtt.route".into(), routes.into(), 2));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_line() {
        for (text, said) in [
            (
                "node.id = 1\nnum.partitions = [1]\n",
                "line 2: num.partitions: an array",
            ),
            (
                "node.id = 1\n\"node.id\" = 2\n",
                "line 2: node.id is set already, in line 1",
            ),
            ("node.id = 1\nnum.partitions = \n", "line 2"),
            (
                "[[mqtt.route]]\nfilter = [\"a\"]\n",
                "line 1: mqtt.route: a table that holds other",
            ),
            (
                "node.id = 99999999999999999999\n",
                "line 1: node.id: an integer of more than 64 bits",
            ),
        ] {
            let error = file(text).unwrap_err();
            assert!(
                error.contains("server.toml") && error.contains(said),
                "{error}"
            );
        }
    }
}
