//! The summary of a thinned segment, by its description in `docs/formats.md`: which of its windows have a key.

use crate::Quest;

const MAGIC: &[u8; 8] = b"thinsums";

struct Fields<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Fields<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.number()?)).ok()
    }

    fn blob(&mut self) -> Option<&'b [u8]> {
        let count = self.count()?;
        self.take(count)
    }
}

/// Where the windows with one of the keys stand. None if this is no summary of a version that is known.
pub fn windows_of(bytes: &[u8], quest: &Quest) -> Option<Vec<u64>> {
    let mut fields = Fields { bytes, at: 0 };
    let mut found = Vec::new();
    while fields.at < bytes.len() {
        section(&mut fields, quest, &mut found)?;
    }
    (!bytes.is_empty()).then_some(found)
}

fn section(fields: &mut Fields<'_>, quest: &Quest, found: &mut Vec<u64>) -> Option<()> {
    if fields.take(8)? != MAGIC {
        return None;
    }
    let version = u32::from_le_bytes(fields.number()?);
    if !(1..=2).contains(&version) {
        return None;
    }
    let body = fields.count()?;
    fields.take(4)?;
    let end = fields.at.checked_add(body)?;
    let topic: [u8; 16] = fields.number()?;
    let partition = u32::from_le_bytes(fields.number()?);
    let base = u64::from_le_bytes(fields.number()?);
    fields.take(if version == 1 { 4 } else { 9 })?;
    fields.blob()?;
    fields.take(1)?;
    let ranges = fields.count()?;
    fields.take(ranges.checked_mul(16)?)?;
    let values = fields.count()?;
    for _ in 0..values {
        fields.blob()?;
    }
    let is_meant = quest.is_at(Some((topic, partition)), base);
    let mut is_wanted = false;
    for _ in 0..fields.count()? {
        let at = fields.at as u64;
        match fields.number::<1>()? {
            [0] => is_wanted = false,
            [1] => is_wanted = quest.is_key(fields.blob()?),
            [2] => {}
            _ => return None,
        }
        fields.take(24)?;
        fields.take(values.checked_mul(24)?)?;
        if is_wanted && is_meant {
            found.push(at);
        }
    }
    (fields.at == end).then_some(())
}
