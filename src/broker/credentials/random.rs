//! Random bytes, for salts and secrets.
//! Callers: the files beside it.

use zeroize::Zeroizing;

/// Bytes that nobody can guess.
pub(super) fn random<const BYTES: usize>() -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; BYTES]);
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}
