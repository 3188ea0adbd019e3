//! Goes over JSON text without a tree: where the leaves of an object stand, and whether it is JSON at all.
//!
//! Callers: `fields`, `outline`. Each byte is looked at once. What is JSON is exactly what `serde_json` takes (a test compares them): an unpaired
//! surrogate is one in a value, and none in a name that becomes a path. Nothing is copied but names with escapes and paths of nested
//! objects, and the stack grows by no more than [`DEPTH_MAX`] objects, however deep a value is.

use std::borrow::Cow;

use crate::schema::FieldType;

/// Objects within objects that become paths.
pub const DEPTH_MAX: usize = 8;

/// A number of no more bytes is exact as a float, as its digits are.
const PLAIN_NUMBER_BYTES_MAX: usize = 15;

/// A place in a text.
pub struct Scan<'a> {
    text: &'a str,
    at: usize,
}

/// A string's place, its quotes included.
struct Text<'a> {
    raw: &'a str,
    has_escapes: bool,
}

/// What a leaf is at the first glance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plain {
    /// To be seen by its text.
    No,
    Null,
    Bool(bool),
    /// An integer that a float holds exactly, too. Never `-0`.
    Int(i64),
    /// A number with a point and without an exponent that has few digits.
    Float(f64),
    /// A string without escapes.
    Text,
}

impl Plain {
    /// Whether a field of this type stays what it is with such a leaf.
    pub fn fits(self, kind: FieldType) -> bool {
        match self {
            Plain::No => false,
            Plain::Null => true,
            Plain::Bool(_) => kind == FieldType::Bool,
            Plain::Int(_) => matches!(kind, FieldType::Int | FieldType::Float),
            Plain::Float(_) => kind == FieldType::Float,
            Plain::Text => kind == FieldType::Text,
        }
    }
}

impl<'a> Scan<'a> {
    pub fn new(text: &'a str) -> Scan<'a> {
        Scan { text, at: 0 }
    }

    /// Whether the text is one JSON value, with space around it.
    pub fn is_value(&mut self) -> bool {
        self.space();
        self.value().is_some() && self.is_at_end()
    }

    /// Shows each leaf of the object that the text is. False if it is none; leaves may have been shown by then.
    pub fn leaves(mut self, path: &mut String, show: &mut dyn FnMut(&str, &'a str)) -> bool {
        path.clear();
        self.space();
        self.object(path, DEPTH_MAX, show).is_some() && self.is_at_end()
    }

    /// Where in the text it stands.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What comes.
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Takes a leaf, and tells what it is. None if none comes: an object is none, it has leaves of its own.
    pub fn leaf(&mut self) -> Option<Plain> {
        Some(match self.peek()? {
            b'"' => match self.string()?.has_escapes {
                true => Plain::No,
                false => Plain::Text,
            },
            b't' => self.word("true").map(|()| Plain::Bool(true))?,
            b'f' => self.word("false").map(|()| Plain::Bool(false))?,
            b'n' => self.word("null").map(|()| Plain::Null)?,
            b'[' => self.nested().map(|()| Plain::No)?,
            b'{' => return None,
            _ => self.plain_number()?,
        })
    }

    fn is_at_end(&mut self) -> bool {
        self.space();
        self.at == self.text.len()
    }

    fn object(
        &mut self,
        path: &mut String,
        depth: usize,
        show: &mut dyn FnMut(&str, &'a str),
    ) -> Option<()> {
        self.take(b'{')?;
        self.space();
        if self.take(b'}').is_some() {
            return Some(());
        }
        let base = path.len();
        loop {
            let name = self.name()?;
            let goes_deeper = self.peek() == Some(b'{') && depth > 1;
            if base > 0 || goes_deeper {
                path.truncate(base);
                if base > 0 {
                    path.push('.');
                }
                path.push_str(&name);
            }
            if goes_deeper {
                self.object(path, depth - 1, show)?;
            } else {
                let start = self.at;
                self.value()?;
                let shown = if base > 0 { path.as_str() } else { &name };
                show(shown, &self.text[start..self.at]);
            }
            self.space();
            match self.next()? {
                b',' => self.space(),
                b'}' => break,
                _ => return None,
            }
        }
        path.truncate(base);
        Some(())
    }

    /// A member's name, and what stands before its value.
    fn name(&mut self) -> Option<Cow<'a, str>> {
        let name = self.string()?;
        self.space();
        self.take(b':')?;
        self.space();
        match name.has_escapes {
            true => serde_json::from_str(name.raw).ok().map(Cow::Owned),
            false => Some(Cow::Borrowed(&name.raw[1..name.raw.len() - 1])),
        }
    }

    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'{' | b'[' => self.nested(),
            _ => self.scalar(),
        }
    }

    /// An array or an object, whatever is in it.
    fn nested(&mut self) -> Option<()> {
        let mut closers = Vec::new();
        loop {
            match self.peek()? {
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    self.space();
                    let closer = if open == b'{' { b'}' } else { b']' };
                    if self.take(closer).is_none() {
                        closers.push(closer);
                        self.before_value(closer)?;
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            loop {
                let Some(closer) = closers.last().copied() else {
                    return Some(());
                };
                self.space();
                match self.next()? {
                    b',' => {
                        self.space();
                        self.before_value(closer)?;
                        break;
                    }
                    found if found == closer => {
                        closers.pop();
                    }
                    _ => return None,
                }
            }
        }
    }

    /// In an object a name stands before each value.
    fn before_value(&mut self, closer: u8) -> Option<()> {
        if closer == b'}' {
            self.string()?;
            self.space();
            self.take(b':')?;
            self.space();
        }
        Some(())
    }

    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    /// Takes exactly this.
    pub fn word(&mut self, word: &str) -> Option<()> {
        let rest = &self.text.as_bytes()[self.at..];
        rest.starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
        })
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek().is_some_and(|next| next.is_ascii_digit()) {
            return None;
        }
        if self.take(b'.').is_some() {
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    /// A number, read while its digits are looked at. It is exact: digits and the power of ten are floats, and a division rounds once.
    fn plain_number(&mut self) -> Option<Plain> {
        const POWERS: [f64; PLAIN_NUMBER_BYTES_MAX] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14,
        ];
        let start = self.at;
        let is_negative = self.take(b'-').is_some();
        let first = self.at;
        let mut number = self.read_digits(0);
        let digits = self.at - first;
        let is_padded = digits > 1 && self.text.as_bytes()[first] == b'0';
        if digits == 0 || is_padded {
            return None;
        }
        let point = self.at;
        let mut places = None;
        if self.take(b'.').is_some() {
            number = self.read_digits(number);
            let count = self.at - point - 1;
            if count == 0 {
                return None;
            }
            places = Some(count);
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent || self.at - start > PLAIN_NUMBER_BYTES_MAX {
            self.at = start;
            return self.number().map(|()| Plain::No);
        }
        Some(match places {
            Some(places) => {
                let number = number as f64 / POWERS[places];
                Plain::Float(if is_negative { -number } else { number })
            }
            None if is_negative && number == 0 => Plain::No,
            None => Plain::Int(if is_negative { -number } else { number }),
        })
    }

    /// Takes digits behind those of a number. More than fit a number make it any.
    fn read_digits(&mut self, mut number: i64) -> i64 {
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number
                .wrapping_mul(10)
                .wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        number
    }

    fn some_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.digits();
        (self.at > start).then_some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|next| next.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<Text<'a>> {
        let start = self.at;
        self.take(b'"')?;
        let mut has_escapes = false;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.escape()?;
                }
                // A control character.
                _ => return None,
            }
        }
        Some(Text {
            raw: &self.text[start..self.at],
            has_escapes,
        })
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek() == Some(wanted)).then(|| self.at += 1)
    }
}

/// How many bytes there are before the first quote, backslash or control character: eight at a time.
fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        let found = specials(u64::from_le_bytes(*eight));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    let rest = &bytes[at..];
    at + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// The highest bit of each byte that ends a plain run; right for the lowest such byte, behind which a borrow may set more.
fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, b' ') | equal(b'"') | equal(b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// What `serde_json` says of it.
    fn is_json(text: &str) -> bool {
        serde_json::from_str::<&RawValue>(text).is_ok()
    }

    /// Pieces that are JSON more often than not when they stand in a row.
    fn piece() -> impl Strategy<Value = String> {
        let pieces = [
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"a\"",
            "\"b\":",
            "\"\\u00e9\"",
            "\"\\ud800\"",
            "\"\\n\"",
            "\"\\x\"",
            "\"\\u00g0\"",
            "\"long enough for eight\"",
            "\"\u{7}\"",
            "\"é€😀\"",
            "\"",
            "\\",
            " ",
            "\n",
            "\u{a0}",
            "0",
            "-0",
            "01",
            "1",
            "-1.50",
            "1.",
            ".5",
            "1e5",
            "1E+05",
            "1e",
            "-",
            "+1",
            "true",
            "false",
            "null",
            "nul",
            "NaN",
            "\"a\":{\"b\":[1,{}],\"c\":\"\"}",
            "{\"a\":1}",
            "[]",
            "{}",
        ];
        prop::sample::select(pieces.map(str::to_owned).to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn what_is_json_is_what_serde_json_takes(pieces in prop::collection::vec(piece(), 0..9), quoted: bool) {
            let mut text = pieces.concat();
            if quoted {
                text = format!("{{\"a\":{text}}}");
            }
            prop_assert_eq!(Scan::new(&text).is_value(), is_json(&text), "{}", text);
            // All that is an object has leaves, but for one with a name that is no text.
            let is_object = is_json(&text) && text.trim_start_matches([' ', '\n']).starts_with('{');
            let named = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let found = Scan::new(&text).leaves(&mut String::new(), &mut |_, raw| assert!(is_json(raw)));
            prop_assert!(!found || is_object, "{}", text);
            prop_assert!(found || !named || !is_object, "{}", text);
        }

        #[test]
        fn a_plain_leaf_is_what_its_text_says(raw in "-?(0|[1-9][0-9]{0,16})(\\.[0-9]{0,15})?([eE][+-]?[0-9]{0,2})?") {
            let mut scan = Scan::new(&raw);
            let leaf = scan.leaf();
            let is_whole = leaf.is_some() && scan.rest().is_empty();
            prop_assert_eq!(is_whole, is_json(&raw), "{}", raw);
            match leaf.filter(|_| is_whole) {
                Some(Plain::Int(number)) => {
                    prop_assert_eq!(number.to_string(), raw.as_str());
                    prop_assert!(number.unsigned_abs() < 1 << 53, "{}", raw);
                }
                Some(Plain::Float(number)) => {
                    let parsed: f64 = raw.parse().expect("a number");
                    prop_assert_eq!(number.to_bits(), parsed.to_bits(), "{}", raw);
                }
                other => prop_assert!(matches!(other, None | Some(Plain::No)), "{} {:?}", raw, other),
            }
        }

        #[test]
        fn a_plain_run_ends_at_the_first_byte_that_is_not(bytes in prop::collection::vec(prop_oneof![0_u8..=255, Just(b'a'), Just(b'"'), Just(0x1f)], 0..40)) {
            let is_special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
            prop_assert_eq!(plain(&bytes), bytes.iter().position(is_special).unwrap_or(bytes.len()));
        }
    }

    #[test]
    fn a_value_may_be_deeper_than_a_stack() {
        let deep = |count: usize| "[".repeat(count) + &"]".repeat(count);
        assert!(Scan::new(&deep(1_000_000)).is_value());
        assert!(!Scan::new(&deep(1_000)[1..]).is_value());
    }
}
