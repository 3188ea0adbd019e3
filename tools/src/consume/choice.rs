//! Which records `consume` writes: those with a key, or that contain a text.

/// What a record must be like. Bytes are compared as they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    key: Option<Vec<u8>>,
    text: Option<Vec<u8>>,
}

impl Choice {
    pub fn new(key: Option<&str>, text: Option<&str>) -> Choice {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Choice {
            key: key.map(bytes),
            text: text.map(bytes),
        }
    }

    /// Whether it takes every record.
    pub fn is_any(&self) -> bool {
        self.key.is_none() && self.text.is_none()
    }

    pub fn takes(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        let has_key = self.key.as_deref().is_none_or(|wanted| key == Some(wanted));
        let contains = |field: Option<&[u8]>, text: &[u8]| field.is_some_and(|f| find(f, text));
        has_key
            && self
                .text
                .as_deref()
                .is_none_or(|text| contains(key, text) || contains(value, text))
    }
}

fn find(field: &[u8], text: &[u8]) -> bool {
    let Some((first, rest)) = text.split_first() else {
        return true;
    };
    let starts = field.iter().enumerate().filter(|(_, byte)| *byte == first);
    starts
        .map(|(at, _)| &field[at + 1..])
        .any(|after| after.starts_with(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_compared_whole_and_a_text_is_looked_for_in_key_and_value() {
        let takes = |key: Option<&str>,
                     text: Option<&str>,
                     record: (Option<&str>, Option<&str>)| {
            let bytes = |text: Option<&'static str>| text.map(str::as_bytes);
            let _ = bytes;
            Choice::new(key, text).takes(record.0.map(str::as_bytes), record.1.map(str::as_bytes))
        };
        let record = (Some("ride-3"), Some("aab!"));
        assert!(takes(None, None, record) && Choice::default().is_any());
        assert!(takes(Some("ride-3"), None, record));
        assert!(!takes(Some("ride"), None, record));
        assert!(!takes(Some(""), None, (None, None)));
        assert!(takes(None, Some("ab!"), record));
        assert!(takes(None, Some("e-"), record));
        assert!(takes(None, Some(""), record));
        assert!(!takes(None, Some("b!!"), record));
        assert!(!takes(Some("ride-3"), Some("x"), record));
    }
}
