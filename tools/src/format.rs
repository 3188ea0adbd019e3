//! Records as text, both ways: rpk's `%` letters for `consume` and `produce`, and kcat's JSON.
//!
//! Called by `consume` (records to bytes) and `produce` (bytes to records). Pure: no I/O but the reader that `input` is
//! given. Invariants: what is written is exact to the byte, whatever the record holds; JSON is always valid JSON, and what
//! is not UTF-8 is marked and comes back unharmed; no input makes these functions panic.
//!
//! Letters: `%t %T` topic and its length, `%k %K` key, `%v %V` value, `%h{...} %H` headers and their number, `%p`
//! partition, `%o` offset, `%e` leader epoch, `%d` time, `%a{...}` attributes, `%x %y` producer id and epoch, `%[ %| %]`
//! log start offset, last stable offset and high watermark, `%i` number of the record; `%% %{ %}` the signs themselves;
//! `\t \n \r \\ \xNN`. Modifiers stand in braces after the letter.

mod go_time;
mod input;
mod json;
mod layout;
mod output;
mod text;

pub use input::{InputError, InputFormat, InputReader, InputRecord};
pub use output::{Headers, OutputFormat, OutputRecord};

/// What is wrong with a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid format: {0}")]
pub struct FormatError(pub(crate) String);

impl FormatError {
    fn new(reason: impl Into<String>) -> FormatError {
        FormatError(reason.into())
    }
}

#[cfg(test)]
mod tests;
