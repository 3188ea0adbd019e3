//! A body that is one record's value, whatever it is.

use super::fault::Stop;
use super::reader::Format;
use super::rows::Rows;

/// See the module.
pub(super) struct Whole {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Whole {
    pub fn new(bytes_max: usize) -> Whole {
        let bytes = Vec::new();
        Whole { bytes, bytes_max }
    }
}

impl Format for Whole {
    fn feed(&mut self, bytes: &[u8], _rows: &mut Rows) -> Result<(), Stop> {
        if self.bytes.len() + bytes.len() > self.bytes_max {
            return Err(Stop::TooLarge {
                what: "a body that is one record has, by max.message.bytes of the topic,",
                bytes_max: self.bytes_max as u64,
            });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self, rows: &mut Rows) -> Result<(), Stop> {
        rows.add(1, &self.bytes, None, None);
        Ok(())
    }

    fn held(&self) -> usize {
        self.bytes.len()
    }
}
