//! What reads rows out of a body, whatever its form.
//!
//! Callers: the forms, each of which is one; `body.rs`, which feeds it.

use super::fault::Stop;
use super::rows::Rows;

/// Reads rows out of a body.
pub(super) trait Format: Send {
    /// Takes the next bytes, and adds the rows that are whole by now. Errors: what ends the body here.
    fn feed(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), Stop>;

    /// The body is at its end: adds what is left.
    fn finish(&mut self, rows: &mut Rows) -> Result<(), Stop>;

    /// How many bytes it holds of a row that is not whole yet.
    fn held(&self) -> usize;
}
