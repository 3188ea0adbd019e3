//! Request and response headers. Written by hand, as they are the exceptions to the rules of the rest:
//! the client id is never compact, and ApiVersions answers with header 0 always.

use crate::{ApiKey, DecodeError, EncodeError, Reader, Writer};

/// What stands before every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// What is asked for.
    pub key: ApiKey,
    /// In which version; may be one that nobody knows.
    pub version: i16,
    /// Comes back with the answer.
    pub correlation_id: i32,
    /// How the client calls itself.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads a header; which of its versions it is follows from the key and the version in it. For an unknown key
    /// nothing more can be said of the frame.
    pub fn decode(reader: &mut Reader) -> Result<RequestHeader, DecodeError> {
        let code = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let key = ApiKey::from_code(code).ok_or(DecodeError::Key { code })?;
        let client_id = reader.nullable_string(false)?;
        if key.request_header_version(version) >= 2 {
            reader.skip_tags()?;
        }
        Ok(RequestHeader {
            key,
            version,
            correlation_id,
            client_id,
        })
    }

    /// Writes a header.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.i16(self.key.code());
        writer.i16(self.version);
        writer.i32(self.correlation_id);
        writer.string(self.client_id.as_ref(), false)?;
        if self.key.request_header_version(self.version) >= 2 {
            writer.no_tags();
        }
        Ok(())
    }
}

/// Writes what stands before an answer to this version of a key.
pub fn encode_response_header(writer: &mut Writer, key: ApiKey, version: i16, correlation_id: i32) {
    writer.i32(correlation_id);
    if key.response_header_version(version) >= 1 {
        writer.no_tags();
    }
}

/// Reads what stands before an answer to this version of a key; yields the correlation id.
pub fn decode_response_header(
    reader: &mut Reader,
    key: ApiKey,
    version: i16,
) -> Result<i32, DecodeError> {
    let correlation_id = reader.i32()?;
    if key.response_header_version(version) >= 1 {
        reader.skip_tags()?;
    }
    Ok(correlation_id)
}
