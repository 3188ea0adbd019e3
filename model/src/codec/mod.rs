//! The four codecs of record batches, both ways, in memory.
//!
//! Called by `batch` and by the command line. Invariants: no input makes these functions panic; no buffer is sized by a
//! length that the input claims without the input being long enough to fill it; output never exceeds the caller's limit.
//! gzip may have several members, zstd and lz4 several frames, snappy comes raw or in the framing of xerial's
//! `SnappyOutputStream`, which Kafka's Java client writes and expects.

mod lz4;
mod snappy;
mod zstandard;

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use bytes::Bytes;

/// How a batch's records are compressed. The discriminant is the number in the batch's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks in xerial's framing (raw is read as well).
    Snappy = 2,
    /// LZ4's frame format.
    Lz4 = 3,
    /// Zstandard, RFC 8878.
    Zstd = 4,
}

/// A name that is not one of `none, gzip, snappy, lz4, zstd`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown codec {name:?}: none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCodec {
    /// The name.
    pub name: String,
}

impl Codec {
    /// Every codec, by number.
    pub const ALL: [Codec; 5] = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];

    /// The bits of the attributes that hold the codec.
    pub const MASK: i16 = 7;

    /// From a batch's attributes (the lowest three bits); None for the unused numbers 5, 6 and 7.
    pub const fn from_bits(attributes: i16) -> Option<Codec> {
        match attributes & Codec::MASK {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// The number in the attributes.
    pub const fn bits(self) -> i16 {
        self as i16
    }

    /// Kafka's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Codec, UnknownCodec> {
        let known = Codec::ALL
            .into_iter()
            .find(|codec| codec.name().eq_ignore_ascii_case(name));
        known.ok_or_else(|| UnknownCodec {
            name: name.to_owned(),
        })
    }
}

/// A codec and how hard it should try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compression {
    /// The codec.
    pub codec: Codec,
    /// The codec's own level (gzip 1..=9, zstd -131072..=22); None is its default. Snappy and lz4 have none here.
    pub level: Option<i32>,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Compression {
        Compression { codec, level: None }
    }
}

/// The most bytes that decompressing one batch may yield: what stands between the broker and a compression bomb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecompressLimit(usize);

impl DecompressLimit {
    /// At most this many bytes.
    pub const fn bytes(bytes: usize) -> DecompressLimit {
        DecompressLimit(bytes)
    }

    /// The number of bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl Default for DecompressLimit {
    /// 128 MiB: above every batch that a client sends at default settings, below what hurts.
    fn default() -> DecompressLimit {
        DecompressLimit(128 << 20)
    }
}

/// Why bytes could not be compressed or decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The output would be larger than the caller allows.
    #[error("decompresses to more than {limit} bytes")]
    TooLarge {
        /// The caller's limit.
        limit: usize,
    },
    /// The bytes are not what the codec writes.
    #[error("malformed {codec} data: {reason}")]
    Malformed {
        /// The codec.
        codec: Codec,
        /// What is wrong with it.
        reason: String,
    },
    /// Compressing failed: input beyond what the codec can take.
    #[error("cannot compress with {codec}: {reason}")]
    Compress {
        /// The codec.
        codec: Codec,
        /// What is wrong.
        reason: String,
    },
}

impl CodecError {
    fn malformed(codec: Codec, reason: impl fmt::Display) -> CodecError {
        CodecError::Malformed {
            codec,
            reason: reason.to_string(),
        }
    }

    fn compress(codec: Codec, reason: impl fmt::Display) -> CodecError {
        CodecError::Compress {
            codec,
            reason: reason.to_string(),
        }
    }
}

/// Decompresses the whole of `input`. Shares `input` where there is nothing to decompress (the limit holds there too).
pub fn decompress(
    codec: Codec,
    input: &Bytes,
    limit: DecompressLimit,
) -> Result<Bytes, CodecError> {
    match codec {
        Codec::None if input.len() > limit.get() => {
            Err(CodecError::TooLarge { limit: limit.get() })
        }
        Codec::None => Ok(input.clone()),
        Codec::Gzip => gunzip(input, limit).map(Bytes::from),
        Codec::Snappy => snappy::decompress(input, limit).map(Bytes::from),
        Codec::Lz4 => lz4::decompress(input, limit).map(Bytes::from),
        Codec::Zstd => zstandard::decompress(input, limit).map(Bytes::from),
    }
}

/// Appends `input`, compressed, to `out`.
pub fn compress(
    how: impl Into<Compression>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let how = how.into();
    match how.codec {
        Codec::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Codec::Gzip => gzip(how.level, input, out),
        Codec::Snappy => snappy::compress(input, out),
        Codec::Lz4 => lz4::compress(input, out),
        Codec::Zstd => zstandard::compress(how.level, input, out),
    }
}

/// A first size for a buffer of unknown final size: follows the input, never a claim.
fn first_capacity(input: &[u8], limit: DecompressLimit) -> usize {
    input.len().saturating_mul(4).max(1024).min(limit.get())
}

fn gunzip(input: &[u8], limit: DecompressLimit) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(first_capacity(input, limit));
    let bound = (limit.get() as u64).saturating_add(1);
    flate2::bufread::MultiGzDecoder::new(input)
        .take(bound)
        .read_to_end(&mut out)
        .map_err(|error| CodecError::malformed(Codec::Gzip, error))?;
    if out.len() > limit.get() {
        return Err(CodecError::TooLarge { limit: limit.get() });
    }
    Ok(out)
}

fn gzip(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let level = match level {
        Some(level) => flate2::Compression::new(level.clamp(0, 9).unsigned_abs()),
        None => flate2::Compression::default(),
    };
    let mut encoder = flate2::write::GzEncoder::new(out, level);
    encoder
        .write_all(input)
        .map_err(|error| CodecError::compress(Codec::Gzip, error))?;
    encoder
        .finish()
        .map_err(|error| CodecError::compress(Codec::Gzip, error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compressed(how: impl Into<Compression>, input: &[u8]) -> Bytes {
        let mut out = Vec::new();
        compress(how, input, &mut out).unwrap();
        out.into()
    }

    fn sample(bytes: usize) -> Vec<u8> {
        (0..bytes)
            .map(|i| ((i * i) >> 7) as u8 ^ (i as u8 & 3))
            .collect()
    }

    #[test]
    fn codecs_have_kafkas_names_and_numbers() {
        for (bits, name) in [
            (0, "none"),
            (1, "gzip"),
            (2, "snappy"),
            (3, "lz4"),
            (4, "zstd"),
        ] {
            let codec = Codec::from_bits(bits | 0x38).unwrap();
            assert_eq!((codec.bits(), codec.name()), (bits, name));
            assert_eq!(name.parse(), Ok(codec));
        }
        assert_eq!(Codec::from_bits(5), None);
        assert!("brotli".parse::<Codec>().is_err());
    }

    #[test]
    fn every_codec_gives_back_what_it_took() {
        for codec in Codec::ALL {
            for bytes in [0, 1, 100, 32 << 10, (64 << 10) + 1, 1 << 20] {
                let input = sample(bytes);
                let output = decompress(
                    codec,
                    &compressed(codec, &input),
                    DecompressLimit::bytes(bytes),
                )
                .unwrap();
                assert!(output == input, "{codec} {bytes}");
            }
        }
    }

    #[test]
    fn levels_are_taken() {
        let input = sample(100_000);
        for (codec, levels) in [(Codec::Gzip, [1, 9]), (Codec::Zstd, [-5, 19])] {
            let sizes = levels.map(|level| {
                compressed(
                    Compression {
                        codec,
                        level: Some(level),
                    },
                    &input,
                )
            });
            assert!(sizes[1].len() < sizes[0].len(), "{codec}");
            for bytes in sizes {
                assert!(decompress(codec, &bytes, DecompressLimit::default()).unwrap() == input);
            }
        }
    }

    #[test]
    fn output_is_capped_for_every_codec() {
        let bomb = vec![0u8; 4 << 20];
        for codec in Codec::ALL {
            let bytes = compressed(codec, &bomb);
            let limit = DecompressLimit::bytes(bomb.len() - 1);
            let error = decompress(codec, &bytes, limit).unwrap_err();
            assert_eq!(
                error,
                CodecError::TooLarge { limit: limit.get() },
                "{codec}"
            );
        }
    }

    #[test]
    fn members_and_frames_may_follow_each_other() {
        let (first, second) = (sample(1000), vec![7; 70_000]);
        for codec in Codec::ALL {
            let joined = [compressed(codec, &first), compressed(codec, &second)].concat();
            let output = decompress(codec, &joined.into(), DecompressLimit::default()).unwrap();
            assert!(output == [&first[..], &second[..]].concat(), "{codec}");
        }
    }

    #[test]
    fn cut_data_is_an_error_at_every_byte() {
        let input = sample(300);
        for codec in &Codec::ALL[1..] {
            let bytes = compressed(*codec, &input);
            for end in 1..bytes.len() {
                let result = decompress(*codec, &bytes.slice(..end), DecompressLimit::default());
                // What was framed whole before the cut may come out; the rest never does.
                assert!(
                    result.as_ref().is_err() || result.as_ref().unwrap().len() < input.len(),
                    "{codec} {end}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_nor_pass_the_limit(input: Vec<u8>, bits in 0i16..5, limit in 0usize..5000) {
            let codec = Codec::from_bits(bits).unwrap();
            if let Ok(output) = decompress(codec, &input.into(), DecompressLimit::bytes(limit)) {
                prop_assert!(output.len() <= limit);
            }
        }

        #[test]
        fn damaged_data_never_panics(position: prop::sample::Index, value: u8, bits in 1i16..5) {
            let codec = Codec::from_bits(bits).unwrap();
            let mut bytes = compressed(codec, &sample(5000)).to_vec();
            let position = position.index(bytes.len());
            bytes[position] = value;
            let _ = decompress(codec, &bytes.into(), DecompressLimit::bytes(1 << 20));
        }

        #[test]
        fn any_bytes_come_back(input: Vec<u8>, bits in 0i16..5) {
            let codec = Codec::from_bits(bits).unwrap();
            let output = decompress(codec, &compressed(codec, &input), DecompressLimit::default()).unwrap();
            prop_assert_eq!(&output[..], &input[..]);
        }
    }
}
