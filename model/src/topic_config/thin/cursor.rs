//! Reads a setting's text from left to right. Spaces may stand between words and signs, not within a value.

use super::{Decimal, TierFault};

/// How much of the text an error shows.
const FOUND_CHARS_MAX: usize = 24;

/// What is left of the text.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Cursor<'a> {
        Cursor { rest: text.trim() }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.trim_start().is_empty()
    }

    /// The error that something else was expected here.
    pub fn fault(&self, expected: &'static str) -> TierFault {
        let rest = self.rest.trim_start();
        let mut found: String = rest.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < rest.len() {
            found.push('…');
        }
        TierFault::Expected { expected, found }
    }

    /// Takes a sign, after spaces, if it stands here.
    pub fn eat(&mut self, sign: &str) -> bool {
        match self.rest.trim_start().strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a sign that must not stand apart.
    pub fn eat_close(&mut self, sign: &str) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub fn expect(&mut self, sign: &str, expected: &'static str) -> Result<(), TierFault> {
        match self.eat(sign) {
            true => Ok(()),
            false => Err(self.fault(expected)),
        }
    }

    /// Takes what is so, after spaces; may be empty. Between the parts of a length of time no space may stand, so that
    /// nothing is skipped before a letter that follows a digit.
    pub fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let trimmed = self.rest.trim_start();
        let end = trimmed.find(|c| !is_part(c)).unwrap_or(trimmed.len());
        let (part, rest) = trimmed.split_at(end);
        self.rest = rest;
        part
    }

    pub fn take_number(&mut self) -> Result<Decimal, TierFault> {
        let fault = self.fault("a number, such as 5, -3 or 0.25,");
        let number = self.take_while(|c| c.is_ascii_digit() || c == '-' || c == '.');
        match Decimal::parse(number) {
            Some(decimal) => Ok(decimal),
            None if number.bytes().filter(u8::is_ascii_digit).count() > 18 => {
                let number = number.to_owned();
                Err(TierFault::Digits { number })
            }
            None => Err(fault),
        }
    }

    /// Takes a text in double quotes; None if none begins here.
    pub fn take_text(&mut self) -> Result<Option<String>, TierFault> {
        if !self.eat("\"") {
            return Ok(None);
        }
        let Some((text, rest)) = self.rest.split_once('"') else {
            self.rest = "";
            return Err(self.fault("a quote that closes the text"));
        };
        self.rest = rest;
        Ok(Some(text.to_owned()))
    }

    /// Takes a name of a path, in which special characters are written as `%` and two hexadecimal digits.
    pub fn take_name(&mut self) -> Result<String, TierFault> {
        let end = self.rest.find(is_special).unwrap_or(self.rest.len());
        let (mut part, mut after) = self.rest.split_at(end);
        let mut bytes = Vec::new();
        loop {
            bytes.extend_from_slice(part.as_bytes());
            let Some(escaped) = after.strip_prefix('%') else {
                break;
            };
            let expected = "% and two hexadecimal digits";
            let byte = escaped
                .get(..2)
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let Some(byte) = byte else {
                self.rest = after;
                return Err(self.fault(expected));
            };
            bytes.push(byte);
            let rest = &escaped[2..];
            let end = rest.find(is_special).unwrap_or(rest.len());
            (part, after) = rest.split_at(end);
        }
        let fault = self.fault("a name, which is not empty and valid UTF-8,");
        self.rest = after;
        String::from_utf8(bytes)
            .ok()
            .filter(|name| !name.is_empty())
            .ok_or(fault)
    }
}

/// What has a meaning in the setting or in the tools that carry it (`,` and `=` part settings in Kafka's).
fn is_special(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "%/()+;:,=\"[]".contains(c)
}

/// A name as [`Cursor::take_name`] takes it.
pub(super) fn escape(name: &str) -> String {
    let mut out = String::new();
    let mut bytes = [0; 4];
    for c in name.chars() {
        if is_special(c) {
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}
