//! Concatenated JSON: objects one after the other, with white space between them or without, cut out as they come.

use super::fault::Stop;

/// Cuts objects out of bytes.
#[derive(Debug, Default)]
pub(super) struct Objects {
    object: Vec<u8>,
    bytes_max: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Objects {
    /// Objects of so many bytes at most.
    pub fn new(bytes_max: usize) -> Objects {
        Objects {
            bytes_max,
            ..Objects::default()
        }
    }

    /// Takes the next bytes, and gives the objects that are whole by now. Errors: the objects up to there are given all the
    /// same.
    pub fn feed(&mut self, bytes: &[u8], whole: &mut Vec<Vec<u8>>) -> Result<(), Stop> {
        let mut from = 0;
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' if self.depth > 0 => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' => {
                    if self.depth == 0 {
                        from = index;
                    }
                    self.depth += 1;
                }
                b'}' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.keep(&bytes[from..=index])?;
                        whole.push(std::mem::take(&mut self.object));
                        from = index + 1;
                    }
                }
                _ if self.depth == 0 && !byte.is_ascii_whitespace() => {
                    let found = char::from(*byte);
                    let detail = format!("{found:?} stands where a record, a JSON object, should");
                    return Err(Stop::Body(detail));
                }
                _ => {}
            }
        }
        match self.depth {
            0 => Ok(()),
            _ => self.keep(&bytes[from..]),
        }
    }

    /// The body is at its end.
    pub fn finish(&self) -> Result<(), Stop> {
        match self.depth {
            0 => Ok(()),
            _ => Err(Stop::Body("the body breaks off in a record".to_owned())),
        }
    }

    /// How many bytes it holds of an object that is not whole.
    pub fn held(&self) -> usize {
        self.object.len()
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        if self.object.len() + bytes.len() > self.bytes_max {
            return Err(Stop::TooLarge {
                what: "a record of the request has",
                bytes_max: self.bytes_max as u64,
            });
        }
        self.object.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_cut_out_however_their_bytes_come() {
        let body = br#" {"a":"}{\""}{}
{"b":{"c":[{}]}} "#;
        for size in 1..body.len() {
            let (mut objects, mut whole) = (Objects::new(100), Vec::new());
            for piece in body.chunks(size) {
                objects.feed(piece, &mut whole).expect("sound");
            }
            objects.finish().expect("whole");
            let whole: Vec<_> = whole.iter().map(|it| String::from_utf8_lossy(it)).collect();
            assert_eq!(
                whole,
                [r#"{"a":"}{\""}"#, "{}", r#"{"b":{"c":[{}]}}"#],
                "{size}"
            );
        }
        let mut whole = Vec::new();
        assert!(Objects::new(100).feed(b"{} x", &mut whole).is_err());
        assert_eq!(whole.len(), 1);
        assert!(Objects::new(3).feed(b"{\"a\":1}", &mut whole).is_err());
        let mut begun = Objects::new(100);
        begun.feed(b"{", &mut whole).expect("begun");
        assert!(begun.finish().is_err());
    }
}
