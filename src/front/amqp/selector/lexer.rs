//! A selector's text as words: literals, names and signs.
//! Callers: the parser. What is read borrows nothing: selectors are short.

use super::syntax::SelectorError;

/// Names that begin so may have characters in them that others have not: annotations are called so.
const ANNOTATION: &str = "amqp.annotation.";

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// An exact number, without its sign.
    Exact(u64),
    Approximate(f64),
    Text(Box<str>),
    /// A name, or a keyword, which differs by not being case sensitive.
    Name(Box<str>),
    /// One of `( ) , + - * / = <> < <= > >=`.
    Sign(&'static str),
}

impl Word {
    /// Whether it is this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Name(name) if name.eq_ignore_ascii_case(keyword))
    }

    /// As it is called where it is not expected.
    pub(super) fn shown(&self) -> String {
        match self {
            Word::Exact(number) => number.to_string(),
            Word::Approximate(number) => number.to_string(),
            Word::Text(text) => format!("'{text}'"),
            Word::Name(name) => name.to_string(),
            Word::Sign(sign) => (*sign).to_owned(),
        }
    }
}

/// The longer ones first.
const SIGNS: [&str; 13] = [
    "<>", "<=", ">=", "<", ">", "=", "(", ")", ",", "+", "-", "*", "/",
];

/// All words of a text, each with the byte at which it begins.
pub(super) fn words(text: &str) -> Result<Vec<(usize, Word)>, SelectorError> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let rest = &text[at..];
        let dot_and_digit =
            rest.starts_with('.') && rest[1..].starts_with(|it: char| it.is_ascii_digit());
        let (word, length) = if first == '\'' {
            string(rest).ok_or(SelectorError::OpenString(at))?
        } else if first.is_ascii_digit() || dot_and_digit {
            number(rest)?
        } else if begins_name(first) {
            name(rest)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Word::Sign(sign), sign.len())
        } else {
            return Err(SelectorError::Unexpected {
                expected: "a word",
                found: first.to_string(),
                at,
            });
        };
        words.push((at, word));
        at += length;
    }
    Ok(words)
}

fn begins_name(character: char) -> bool {
    character.is_alphabetic() || matches!(character, '_' | '$')
}

fn name(text: &str) -> (Word, usize) {
    let is_part = |it: char| begins_name(it) || it.is_numeric() || it == '.';
    let of_annotation = |it: char| is_part(it) || matches!(it, '-' | ':');
    let end = match text.starts_with(ANNOTATION) {
        true => text.find(|it| !of_annotation(it)),
        false => text.find(|it| !is_part(it)),
    };
    let end = end.unwrap_or(text.len());
    (Word::Name(text[..end].into()), end)
}

/// A string with its quotes; two of them in it are one.
fn string(text: &str) -> Option<(Word, usize)> {
    let mut value = String::new();
    let mut at = 1;
    loop {
        let end = at + text[at..].find('\'')?;
        value.push_str(&text[at..end]);
        at = end + 1;
        if !text[at..].starts_with('\'') {
            return Some((Word::Text(value.into()), at));
        }
        value.push('\'');
        at += 1;
    }
}

/// A number as Java writes them.
fn number(text: &str) -> Result<(Word, usize), SelectorError> {
    let mut end = 0;
    let is_hex = text.starts_with("0x") || text.starts_with("0X");
    let mut before = ' ';
    for (at, it) in text.char_indices() {
        // The sign of an exponent belongs to it.
        let is_sign = matches!(it, '+' | '-') && !is_hex && matches!(before, 'e' | 'E');
        if !it.is_ascii_alphanumeric() && it != '.' && it != '_' && !is_sign {
            break;
        }
        before = it;
        end = at + it.len_utf8();
    }
    let written = &text[..end];
    let wrong = || SelectorError::Number(written.to_owned());
    let plain = match written.starts_with('_') || written.ends_with('_') {
        true => return Err(wrong()),
        false => written.replace('_', ""),
    };
    let is_approximate = !is_hex && plain.contains(['.', 'e', 'E', 'f', 'F', 'd', 'D']);
    if is_approximate {
        let digits = plain.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(&plain);
        let is_plain = |it: char| it.is_ascii_digit() || matches!(it, '.' | 'e' | 'E' | '+' | '-');
        let value: Option<f64> = digits.parse().ok().filter(|_| digits.chars().all(is_plain));
        let value = value.filter(|it| it.is_finite()).ok_or_else(wrong)?;
        return Ok((Word::Approximate(value), end));
    }
    let digits = plain.strip_suffix(['l', 'L']).unwrap_or(&plain);
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    let value = u64::from_str_radix(digits, radix).ok();
    // Of decimal numbers one more is of use behind a minus.
    let value = value.filter(|it| *it <= 1 << 63 && !digits.starts_with('+'));
    Ok((Word::Exact(value.ok_or_else(wrong)?), end))
}
