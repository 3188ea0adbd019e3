//! Decompression under a limit, and back: `codec u8 | limit u32 | bytes`.

use bytes::Bytes;
use model::codec::{Codec, CodecError, DecompressLimit, compress, decompress};

use crate::Input;
use crate::seeds::produced_batches;

/// Limits are below this, so that an input that allocates without one is told from those that may.
const LIMIT_BYTES_MAX: u32 = 1 << 20;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let codec = Codec::ALL[usize::from(input.u8()) % Codec::ALL.len()];
    let limit = (input.u32() % LIMIT_BYTES_MAX) as usize;
    let bytes = Bytes::copy_from_slice(input.rest());
    match decompress(codec, &bytes, DecompressLimit::bytes(limit)) {
        Ok(plain) => {
            assert!(plain.len() <= limit, "{codec}: {} of {limit}", plain.len());
            // The limit decides nothing but whether there is a result.
            let exact = DecompressLimit::bytes(plain.len());
            assert_eq!(decompress(codec, &bytes, exact).as_ref(), Ok(&plain));
            if let Some(less) = plain.len().checked_sub(1) {
                let short = decompress(codec, &bytes, DecompressLimit::bytes(less));
                assert_eq!(short, Err(CodecError::TooLarge { limit: less }), "{codec}");
            }
        }
        Err(CodecError::TooLarge { limit: told }) => assert_eq!(told, limit),
        Err(_) => {}
    }
    let mut compressed = Vec::new();
    compress(codec, &bytes, &mut compressed).expect("whatever fits memory");
    let back = decompress(
        codec,
        &compressed.into(),
        DecompressLimit::bytes(bytes.len()),
    );
    assert_eq!(back, Ok(bytes), "{codec}: what was compressed comes back");
}

/// The payloads of recorded batches, and small ones of each codec.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut push = |codec: usize, payload: &[u8]| {
        let mut seed = vec![u8::try_from(codec).expect("there are five")];
        seed.extend_from_slice(&(LIMIT_BYTES_MAX - 1).to_be_bytes());
        seed.extend_from_slice(payload);
        seeds.push(seed);
    };
    for batch in produced_batches() {
        if let Some(payload) = batch.get(61..) {
            push(usize::from(batch[22] & 7), payload);
        }
    }
    for (number, codec) in Codec::ALL.into_iter().enumerate() {
        for plain in [&b""[..], b"a", &[7; 3000], &b"0123456789".repeat(40)] {
            let mut payload = Vec::new();
            compress(codec, plain, &mut payload).expect("small");
            push(number, &payload);
        }
    }
    seeds
}
