//! Checkpoints: `mend u8 | file`.

use storage::checkpoint::{Checkpoint, MAGIC, VERSION};

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
    if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
    }
}

/// The golden file.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_bytes!("../../../storage/tests/golden/checkpoint.v1");
    vec![[&[1], &golden[..]].concat(), [&[0], &golden[..]].concat()]
}
