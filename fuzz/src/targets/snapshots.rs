//! Producers' state and leader epochs, as checkpoints and indexes hold them: `which u8 | argument i64 | bytes`.

use model::{LeaderEpoch, Offset, Timestamp};
use storage::epochs::Epochs;
use storage::producers::Producers;
use storage::segment::IndexFile;

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (which, argument) = (input.u8(), input.i64());
    if which.is_multiple_of(2) {
        let Ok(mut producers) = Producers::decode(input.rest()) else {
            return;
        };
        let again = Producers::decode(&producers.encode());
        assert_eq!(again.as_ref(), Ok(&producers));
        producers.expire(Timestamp::from_millis(argument));
        assert!(producers.iter().count() == producers.len());
    } else {
        let Ok(mut epochs) = Epochs::decode(input.rest()) else {
            return;
        };
        let again = Epochs::decode(&epochs.encode());
        assert_eq!(again.as_ref(), Ok(&epochs));
        let offset = Offset::from_wire(argument).unwrap_or(Offset::ZERO);
        let _ = (epochs.epoch_at(offset), epochs.newest());
        if let Ok(epoch) = u32::try_from(argument) {
            let _ = epochs.end_offset_for(LeaderEpoch::new(epoch), Offset::MAX);
        }
        epochs.forget_before(offset);
        epochs.forget_from(offset);
        assert_eq!(Epochs::decode(&epochs.encode()), Ok(epochs));
    }
}

/// What the golden index holds.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_bytes!("../../../storage/tests/golden/segment.v1.idx");
    let golden = IndexFile::decode(golden).expect("the golden index is whole");
    let head = |which: u8| [&[which][..], &1_030i64.to_be_bytes()].concat();
    vec![
        [head(0), golden.producers.encode()].concat(),
        [head(1), golden.epochs.encode()].concat(),
    ]
}
