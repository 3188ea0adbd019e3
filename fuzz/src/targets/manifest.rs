//! Manifests: `mend u8 | file`.

use storage::manifest::{MAGIC, Manifest, VERSION};

use crate::Input;
use crate::targets::mend_envelope;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mend = input.u8() & 1 != 0;
    let bytes = match mend {
        true => mend_envelope(MAGIC, VERSION, input.rest()),
        false => input.rest().to_vec(),
    };
    let Ok(manifest) = Manifest::decode(&bytes) else {
        return;
    };
    let _ = (manifest.active(), manifest.sealed().rev().count());
    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
}

/// The golden file.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_bytes!("../../../storage/tests/golden/manifest.v1");
    vec![[&[1], &golden[..]].concat(), [&[0], &golden[..]].concat()]
}
