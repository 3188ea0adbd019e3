//! Transactions: they are refused, in a code that every client takes for final. Kafka finds a coordinator for each.
//! Callers: `scenarios`.

use crate::oracle::pair::Pair;
use anyhow::Result;
use wire::messages::find_coordinator::FindCoordinatorRequest;

const TRANSACTION: i8 = 1;

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    pair.scene = "coordinators of transactions".into();
    pair.ask_each(|_, version| {
        let name = "some-transaction".to_owned();
        FindCoordinatorRequest {
            // Version 0 knows groups only.
            key_type: if version >= 1 { TRANSACTION } else { 0 },
            key: if version < 4 {
                name.clone()
            } else {
                String::new()
            },
            coordinator_keys: if version >= 4 { vec![name] } else { Vec::new() },
        }
    });
    Ok(())
}
