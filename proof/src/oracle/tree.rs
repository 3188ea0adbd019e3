//! Tree: a message as a tree of named fields, read from what `Debug` derives for the generated messages, so that every
//! field of every message is compared without code for each.
//! Callers: `compare`.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;

/// A value of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// A number, a boolean, a name, an id; `null` for what is absent. Texts stand in quotes.
    Leaf(String),
    /// Bytes.
    Bytes(Bytes),
    /// A message or a part of one.
    Struct(Vec<(String, Tree)>),
    /// An array.
    List(Vec<Tree>),
}

impl Tree {
    /// The tree of a message.
    pub fn of(message: &impl std::fmt::Debug) -> Result<Tree> {
        let text = format!("{message:?}");
        let mut parser = Parser { rest: &text };
        let tree = parser
            .value()
            .with_context(|| format!("cannot read {text}"))?;
        ensure!(parser.rest.is_empty(), "{} is left of {text}", parser.rest);
        Ok(tree)
    }

    /// The field of a struct.
    pub fn field(&self, name: &str) -> Option<&Tree> {
        match self {
            Tree::Struct(fields) => fields
                .iter()
                .find(|(field, _)| field == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// As it is shown to a person.
    pub fn text(&self) -> String {
        match self {
            Tree::Leaf(text) => text.clone(),
            Tree::Bytes(bytes) => format!("{bytes:?}"),
            Tree::Struct(_) => "{…}".to_owned(),
            Tree::List(values) => {
                let texts: Vec<String> = values.iter().map(Tree::text).collect();
                format!("[{}]", texts.join(", "))
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Tree> {
        if self.rest.starts_with('[') {
            return Ok(Tree::List(self.list()?));
        }
        if self.rest.starts_with("b\"") {
            self.rest = &self.rest[1..];
            return Ok(Tree::Bytes(Bytes::from(self.quoted()?)));
        }
        if self.rest.starts_with('"') {
            let text = self.quoted()?;
            return Ok(Tree::Leaf(format!("{:?}", String::from_utf8_lossy(&text))));
        }
        let word = self.word();
        if self.take(" {") {
            return self.fields();
        }
        if word == "Some" && self.take("(") {
            let inner = self.value()?;
            ensure!(self.take(")"), "Some does not end at {}", self.rest);
            return Ok(inner);
        }
        ensure!(!word.is_empty(), "no value at {}", self.rest);
        let text = if word == "None" { "null" } else { &word };
        Ok(Tree::Leaf(text.to_owned()))
    }

    fn fields(&mut self) -> Result<Tree> {
        let mut fields = Vec::new();
        loop {
            self.rest = self.rest.trim_start_matches([' ', ',']);
            if self.take("}") {
                return Ok(Tree::Struct(fields));
            }
            let name = self.word();
            ensure!(self.take(": "), "no field at {}", self.rest);
            fields.push((name, self.value()?));
        }
    }

    fn list(&mut self) -> Result<Vec<Tree>> {
        ensure!(self.take("["), "no list at {}", self.rest);
        let mut values = Vec::new();
        loop {
            self.rest = self.rest.trim_start_matches([' ', ',']);
            if self.take("]") {
                return Ok(values);
            }
            values.push(self.value()?);
        }
    }

    fn word(&mut self) -> String {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "_-+.".contains(c)))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn take(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A text or bytes in quotes, with Rust's escapes.
    fn quoted(&mut self) -> Result<Vec<u8>> {
        ensure!(self.take("\""), "no quote at {}", self.rest);
        let mut bytes = Vec::new();
        let mut characters = self.rest.char_indices();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[index + 1..];
                    return Ok(bytes);
                }
                '\\' => {
                    let (_, escape) = characters.next().context("an escape of nothing")?;
                    match escape {
                        'n' => bytes.push(b'\n'),
                        'r' => bytes.push(b'\r'),
                        't' => bytes.push(b'\t'),
                        '0' => bytes.push(0),
                        '\\' | '"' | '\'' => bytes.push(escape as u8),
                        'x' => {
                            let digits: String =
                                characters.by_ref().take(2).map(|(_, c)| c).collect();
                            bytes.push(u8::from_str_radix(&digits, 16)?);
                        }
                        'u' => {
                            let digits: String = characters
                                .by_ref()
                                .map(|(_, c)| c)
                                .skip_while(|c| *c == '{')
                                .take_while(|c| *c != '}')
                                .collect();
                            let code = u32::from_str_radix(&digits, 16)?;
                            let character = char::from_u32(code).context("no character")?;
                            bytes.extend(character.to_string().as_bytes());
                        }
                        other => bail!("unknown escape {other}"),
                    }
                }
                other => bytes.extend(other.to_string().as_bytes()),
            }
        }
        bail!("a quote does not end")
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use bytes::Bytes;

    #[derive(Debug)]
    struct Inner {
        _code: i16,
        _name: Option<String>,
    }

    #[derive(Debug)]
    struct Outer {
        _rows: Vec<Inner>,
        _bytes: Bytes,
        _nothing: Option<i32>,
        _id: wire::Uuid,
    }

    #[test]
    fn what_debug_prints_of_a_message_is_read_back_field_by_field() {
        let message = Outer {
            _rows: vec![
                Inner {
                    _code: -3,
                    _name: Some("a \"quoted\" {é}\n".into()),
                },
                Inner {
                    _code: 4,
                    _name: None,
                },
            ],
            _bytes: Bytes::from_static(b"\0\xff\"x\\"),
            _nothing: None,
            _id: wire::Uuid::nil(),
        };
        let tree = Tree::of(&message).unwrap();
        let Some(Tree::List(rows)) = tree.field("_rows") else {
            panic!("rows are a list: {tree:?}");
        };
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].field("_code"), Some(&Tree::Leaf("-3".into())));
        let name = format!("{:?}", "a \"quoted\" {é}\n");
        assert_eq!(rows[0].field("_name"), Some(&Tree::Leaf(name)));
        assert_eq!(rows[1].field("_name"), Some(&Tree::Leaf("null".into())));
        let bytes = Bytes::from_static(b"\0\xff\"x\\");
        assert_eq!(tree.field("_bytes"), Some(&Tree::Bytes(bytes)));
        assert_eq!(tree.field("_nothing"), Some(&Tree::Leaf("null".into())));
        let id = "00000000-0000-0000-0000-000000000000";
        assert_eq!(tree.field("_id"), Some(&Tree::Leaf(id.into())));
    }
}
