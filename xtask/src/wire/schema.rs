//! The facts of a Kafka message, and the notation in which `wire/schema/` keeps them.
//!
//! One file per API key. A line is one thing; two spaces of indent put a field into the struct above it.
//! ```text
//! key 11 JoinGroup
//! request 0-9 flexible 6+
//!   GroupId string 0+
//!   GroupInstanceId string 5+ null 5+ default null
//!   Protocols []JoinGroupRequestProtocol 0+
//!     Name string 0+
//! response 0-9 flexible 6+
//!   ...
//!   struct Named 0+        (a struct that several fields refer to)
//! ```
//! After type and versions a field may carry: `null VERSIONS`, `tag NUMBER VERSIONS`, `default VALUE`, `ignorable`
//! (a sender may leave the field out in versions that lack it, even if it is set).

use std::fmt::Write as _;

/// A closed range of versions; `last` is `i16::MAX` for "and all later ones".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// First version.
    pub first: i16,
    /// Last version, inclusive.
    pub last: i16,
}

impl Versions {
    /// No version at all.
    pub const NONE: Versions = Versions { first: 0, last: -1 };

    /// Reads `none`, `3`, `0-9` or `6+`.
    pub fn parse(text: &str) -> Option<Versions> {
        if text == "none" {
            return Some(Versions::NONE);
        }
        if let Some(first) = text.strip_suffix('+') {
            return Some(Versions {
                first: first.parse().ok()?,
                last: i16::MAX,
            });
        }
        match text.split_once('-') {
            Some((first, last)) => Some(Versions {
                first: first.parse().ok()?,
                last: last.parse().ok()?,
            }),
            None => text.parse().ok().map(|v| Versions { first: v, last: v }),
        }
    }

    /// Whether the version lies in the range.
    pub fn contains(self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    /// What both ranges hold.
    pub fn and(self, other: Versions) -> Versions {
        let both = Versions {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        };
        if both.is_none() { Versions::NONE } else { both }
    }

    /// Whether the range is empty.
    pub fn is_none(self) -> bool {
        self.first > self.last
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.first, self.last) {
            (first, last) if first > last => f.write_str("none"),
            (first, i16::MAX) => write!(f, "{first}+"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// One file of facts.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// The key's number; none for data that has no key of its own.
    pub key: Option<i16>,
    /// `JoinGroup`.
    pub name: String,
    /// Request and response, or several pieces of data.
    pub messages: Vec<Message>,
}

/// A request, a response, or a piece of data.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// `request`, `response`, or the name of the data.
    pub role: String,
    /// Versions that exist.
    pub versions: Versions,
    /// Versions with compact lengths and tagged fields.
    pub flexible: Versions,
    /// Top-level fields.
    pub fields: Vec<Field>,
    /// Structs that fields refer to by name.
    pub structs: Vec<Struct>,
}

/// A struct that several fields refer to.
#[derive(Clone, Debug, PartialEq)]
pub struct Struct {
    /// Its name.
    pub name: String,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// One field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// In the schema's spelling, `GroupId`.
    pub name: String,
    /// `string`, `[]int32`, `[]Topic`, `Cursor`.
    pub kind: String,
    /// Versions that carry it.
    pub versions: Versions,
    /// Versions in which it may be null.
    pub nullable: Versions,
    /// Its tag and the versions in which it is tagged.
    pub tag: Option<(u32, Versions)>,
    /// Default, if not the type's own.
    pub default: Option<String>,
    /// May be left out silently by versions that lack it.
    pub ignorable: bool,
    /// Fields of the struct that is declared here.
    pub fields: Vec<Field>,
}

impl Module {
    /// Reads a file of facts.
    pub fn parse(text: &str) -> Result<Module, String> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let body = line.trim_start();
            if body.is_empty() || body.starts_with('#') {
                continue;
            }
            lines.push(Line {
                number: number + 1,
                depth: (line.len() - body.len()) / 2,
                words: body.split_whitespace().collect(),
            });
        }
        let mut rest = lines.as_slice();
        let head = rest.split_off_first().ok_or("empty file of facts")?;
        let (key, name) = match head.words.as_slice() {
            ["key", number, name] => (Some(head.number_in(number)?), name.to_string()),
            ["data", name] => (None, name.to_string()),
            _ => return Err(head.error("expected `key NUMBER NAME` or `data NAME`")),
        };
        let mut messages = Vec::new();
        while let Some(line) = rest.split_off_first() {
            messages.push(Message::parse(line, &mut rest)?);
        }
        Ok(Module {
            key,
            name,
            messages,
        })
    }

    /// Writes the file that `parse` reads.
    pub fn print(&self, source: &str) -> String {
        let mut out = format!("# {source}\n");
        match self.key {
            Some(key) => writeln!(out, "key {key} {}", self.name).expect("a String takes all"),
            None => writeln!(out, "data {}", self.name).expect("a String takes all"),
        }
        for message in &self.messages {
            writeln!(
                out,
                "\n{} {} flexible {}",
                message.role, message.versions, message.flexible
            )
            .expect("a String takes all");
            print_fields(&message.fields, 1, &mut out);
            for named in &message.structs {
                writeln!(out, "  struct {}", named.name).expect("a String takes all");
                print_fields(&named.fields, 2, &mut out);
            }
        }
        out
    }
}

impl Message {
    fn parse(line: &Line<'_>, rest: &mut &[Line<'_>]) -> Result<Message, String> {
        let [role, versions, "flexible", flexible] = line.words.as_slice() else {
            return Err(line.error("expected `ROLE VERSIONS flexible VERSIONS`"));
        };
        let mut message = Message {
            role: role.to_string(),
            versions: line.versions(versions)?,
            flexible: line.versions(flexible)?,
            fields: Vec::new(),
            structs: Vec::new(),
        };
        while rest.first().is_some_and(|next| next.depth == 1) {
            if let ["struct", name] = rest[0].words.as_slice() {
                let name = name.to_string();
                *rest = &rest[1..];
                message.structs.push(Struct {
                    name,
                    fields: parse_fields(2, rest)?,
                });
            } else {
                message.fields.push(parse_field(1, rest)?);
            }
        }
        Ok(message)
    }
}

struct Line<'a> {
    number: usize,
    depth: usize,
    words: Vec<&'a str>,
}

impl Line<'_> {
    fn error(&self, what: &str) -> String {
        format!("line {}: {what}: {}", self.number, self.words.join(" "))
    }

    fn versions(&self, text: &str) -> Result<Versions, String> {
        Versions::parse(text).ok_or_else(|| self.error("not a range of versions"))
    }

    fn number_in<N: std::str::FromStr>(&self, text: &str) -> Result<N, String> {
        text.parse().map_err(|_| self.error("not a number"))
    }
}

fn parse_fields(depth: usize, rest: &mut &[Line<'_>]) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    while rest.first().is_some_and(|next| next.depth == depth) {
        fields.push(parse_field(depth, rest)?);
    }
    Ok(fields)
}

fn parse_field(depth: usize, rest: &mut &[Line<'_>]) -> Result<Field, String> {
    let line = &rest[0];
    let [name, kind, versions, facts @ ..] = line.words.as_slice() else {
        return Err(line.error("expected `NAME TYPE VERSIONS`"));
    };
    let mut field = Field {
        name: name.to_string(),
        kind: kind.to_string(),
        versions: line.versions(versions)?,
        nullable: Versions::NONE,
        tag: None,
        default: None,
        ignorable: false,
        fields: Vec::new(),
    };
    let mut facts = facts;
    loop {
        facts = match facts {
            [] => break,
            ["null", versions, more @ ..] => {
                field.nullable = line.versions(versions)?;
                more
            }
            ["tag", number, versions, more @ ..] => {
                field.tag = Some((line.number_in(number)?, line.versions(versions)?));
                more
            }
            ["default", value, more @ ..] => {
                field.default = Some(value.to_string());
                more
            }
            ["ignorable", more @ ..] => {
                field.ignorable = true;
                more
            }
            _ => return Err(line.error("unknown fact")),
        };
    }
    *rest = &rest[1..];
    field.fields = parse_fields(depth + 1, rest)?;
    Ok(field)
}

fn print_fields(fields: &[Field], depth: usize, out: &mut String) {
    for field in fields {
        write!(
            out,
            "{:indent$}{} {} {}",
            "",
            field.name,
            field.kind,
            field.versions,
            indent = depth * 2
        )
        .expect("a String takes all");
        if !field.nullable.is_none() {
            write!(out, " null {}", field.nullable).expect("a String takes all");
        }
        if let Some((number, versions)) = field.tag {
            write!(out, " tag {number} {versions}").expect("a String takes all");
        }
        if let Some(default) = &field.default {
            write!(out, " default {default}").expect("a String takes all");
        }
        out.push_str(if field.ignorable {
            " ignorable\n"
        } else {
            "\n"
        });
        print_fields(&field.fields, depth + 1, out);
    }
}
