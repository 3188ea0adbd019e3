//! Taking a format apart: literal text, and verbs with their modifiers. The same for output and input.

use super::FormatError;

/// A part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Text that stands for itself.
    Literal(Vec<u8>),
    /// `%` and a letter, perhaps with a modifier in braces.
    Verb {
        letter: char,
        modifier: Option<Modifier<'a>>,
    },
}

/// What stands in a verb's braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modifier<'a> {
    /// The word: `hex`, `big32`, `compression;number`. For `%h` everything in the braces.
    pub word: &'a str,
    /// What follows the word between delimiters of its own: `unpack[...]`, `go##...##`.
    pub argument: Option<&'a str>,
}

pub(super) fn tokens(layout: &str) -> Result<Vec<Token<'_>>, FormatError> {
    let mut tokens = Vec::new();
    let mut literal = Vec::new();
    let mut rest = layout;
    while let Some(position) = rest.find(['%', '\\']) {
        literal.extend_from_slice(&rest.as_bytes()[..position]);
        let is_verb = rest.as_bytes()[position] == b'%';
        rest = &rest[position + 1..];
        if !is_verb {
            literal.push(take_escape(&mut rest)?);
            continue;
        }
        let mut after = rest.chars();
        let letter = after
            .next()
            .ok_or_else(|| FormatError::new("a % at the end"))?;
        rest = after.as_str();
        if matches!(letter, '%' | '{' | '}') {
            literal.push(letter as u8);
            continue;
        }
        if !literal.is_empty() {
            tokens.push(Token::Literal(std::mem::take(&mut literal)));
        }
        let modifier = match rest.strip_prefix('{') {
            Some(inside) if letter == 'h' => Some(take_nested(inside, &mut rest)?),
            Some(inside) => Some(take_modifier(inside, &mut rest)?),
            None => None,
        };
        tokens.push(Token::Verb { letter, modifier });
    }
    literal.extend_from_slice(rest.as_bytes());
    if !literal.is_empty() {
        tokens.push(Token::Literal(literal));
    }
    Ok(tokens)
}

fn take_escape(rest: &mut &str) -> Result<u8, FormatError> {
    let mut chars = rest.chars();
    let byte = match chars.next() {
        Some('t') => b'\t',
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('\\') => b'\\',
        Some('x') => {
            let digits = rest
                .get(1..3)
                .ok_or_else(|| FormatError::new("\\x wants two hexadecimal digits"))?;
            let byte = digits
                .bytes()
                .all(|digit| digit.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(digits, 16));
            *rest = &rest[3..];
            return match byte {
                Some(Ok(byte)) => Ok(byte),
                _ => Err(FormatError::new(format!(
                    "\\x{digits} is not a byte in hexadecimal"
                ))),
            };
        }
        Some(other) => return Err(FormatError::new(format!("unknown escape \\{other}"))),
        None => return Err(FormatError::new("a \\ at the end")),
    };
    *rest = chars.as_str();
    Ok(byte)
}

/// A header's format: everything up to the brace that closes it, where `%{` and `%}` are signs and no braces.
fn take_nested<'a>(inside: &'a str, rest: &mut &'a str) -> Result<Modifier<'a>, FormatError> {
    let bytes = inside.as_bytes();
    let mut depth = 1;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' if matches!(bytes.get(at + 1), Some(b'%' | b'{' | b'}')) => at += 1,
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            *rest = &inside[at + 1..];
            return Ok(Modifier {
                word: &inside[..at],
                argument: None,
            });
        }
        at += 1;
    }
    Err(FormatError::new("%h{ is not closed"))
}

fn take_modifier<'a>(inside: &'a str, rest: &mut &'a str) -> Result<Modifier<'a>, FormatError> {
    let open = || FormatError::new(format!("{{{inside} is not closed"));
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ';' | '_');
    let end = inside.find(|c| !is_word(c)).ok_or_else(open)?;
    let (word, after) = inside.split_at(end);
    if let Some(after) = after.strip_prefix('}') {
        *rest = after;
        return Ok(Modifier {
            word,
            argument: None,
        });
    }
    let delimiter = after.chars().next().ok_or_else(open)?;
    let text = after.trim_start_matches(delimiter);
    let count = (after.len() - text.len()) / delimiter.len_utf8();
    let closing = match delimiter {
        '{' => '}',
        '[' => ']',
        '(' => ')',
        other => other,
    };
    let closing = closing.to_string().repeat(count);
    let (argument, after) = text.split_once(&closing).ok_or_else(open)?;
    *rest = after.strip_prefix('}').ok_or_else(open)?;
    Ok(Modifier {
        word,
        argument: Some(argument),
    })
}

/// How a number is written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// Decimal digits.
    Ascii,
    /// This many hexadecimal digits.
    Hex(usize),
    /// As many hexadecimal digits as it needs.
    HexShortest,
    /// This many bytes, most significant first.
    Big(usize),
    /// This many bytes, least significant first.
    Little(usize),
    /// `true` or `false`.
    Bool,
}

impl Number {
    pub(super) fn parse(word: &str) -> Option<Number> {
        Some(match word {
            "ascii" | "number" => Number::Ascii,
            "hex64" => Number::Hex(16),
            "hex32" => Number::Hex(8),
            "hex16" => Number::Hex(4),
            "hex8" => Number::Hex(2),
            "hex4" => Number::Hex(1),
            "hex" => Number::HexShortest,
            "big64" => Number::Big(8),
            "big32" => Number::Big(4),
            "big16" => Number::Big(2),
            "little64" => Number::Little(8),
            "little32" => Number::Little(4),
            "little16" => Number::Little(2),
            "byte" | "big8" | "little8" => Number::Big(1),
            "bool" => Number::Bool,
            _ => return None,
        })
    }
}
