//! What every generated message can do.

use crate::{ApiKey, DecodeError, EncodeError, Reader, Writer};

/// A message, or a piece of data with versions of its own.
pub trait Message: Sized + std::fmt::Debug {
    /// The type's name, for errors.
    const NAME: &'static str;
    /// First and last version that this crate reads and writes.
    const VERSIONS: (i16, i16);

    /// Reads one message. What follows it in the reader stays there.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Writes one message. After an error the writer holds a part of it and must be thrown away.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError>;

    /// Refuses versions outside `VERSIONS`.
    fn check_decode(version: i16) -> Result<(), DecodeError> {
        if version < Self::VERSIONS.0 || version > Self::VERSIONS.1 {
            return Err(DecodeError::Version {
                message: Self::NAME,
                version,
            });
        }
        Ok(())
    }

    /// Refuses versions outside `VERSIONS`.
    fn check_encode(version: i16) -> Result<(), EncodeError> {
        if version < Self::VERSIONS.0 || version > Self::VERSIONS.1 {
            return Err(EncodeError::Version {
                message: Self::NAME,
                version,
            });
        }
        Ok(())
    }
}

/// A request: its key, and what answers it.
pub trait Request: Message {
    /// The API key.
    const KEY: ApiKey;
    /// The answer.
    type Response: Response;
}

/// The answer to a request.
pub trait Response: Message {
    /// The API key.
    const KEY: ApiKey;

    /// Says for how long the client is throttled, where the answer has a field for it.
    fn set_throttle_time_ms(&mut self, _ms: i32) {}
}

impl ApiKey {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The first version that this crate knows.
    pub const fn version_min(self) -> i16 {
        self.versions().0
    }

    /// The last version that this crate knows.
    pub const fn version_max(self) -> i16 {
        self.versions().1
    }

    /// Whether the version has compact lengths and tagged fields.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.versions().2
    }

    /// The version of the request header that goes with a version of this key, also for versions not known here.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the response header. ApiVersions always answers with 0, so that a client that guessed too high
    /// can read the answer.
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, ApiKey::ApiVersions) {
            1
        } else {
            0
        }
    }
}
