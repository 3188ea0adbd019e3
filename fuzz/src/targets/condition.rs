//! Conditions on records, as `where` says them: `condition chunk | key chunk | value`.

use columnar::condition::Condition;
use model::PartitionId;
use model::Timestamp;
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit};

use crate::Input;
use crate::input::put_chunk;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let text = String::from_utf8_lossy(input.chunk()).into_owned();
    let key = input.chunk();
    let Ok(condition) = Condition::parse(&text) else {
        return;
    };
    let turned = Condition::parse(&format!("not ({text})")).ok();
    let mut builder = BatchBuilder::new(Codec::None);
    let time = Timestamp::from_millis(1_700_000_000_000);
    builder
        .push(time, Some(key), Some(input.rest()), &[])
        .expect("a record");
    let batch = Batch::parse(builder.build().expect("a batch")).expect("a batch");
    let mut records = batch.records(DecompressLimit::default()).expect("records");
    let record = records.next_ref().expect("one").expect("a record");
    let partition = PartitionId::new(0);
    let is_met = condition.is_met(partition, &record);
    assert_eq!(
        condition.is_met(partition, &record),
        is_met,
        "asked again, it says the same"
    );
    if let Some(turned) = turned {
        assert_ne!(
            turned.is_met(partition, &record),
            is_met,
            "`not` turns it around"
        );
    }
}

/// What the documentation shows, and each kind of test.
pub fn seeds() -> Vec<Vec<u8>> {
    let conditions = [
        "temp > 20 and (site = 'north' or not exists(site))",
        "pos.lat >= 47.1 and note contains 'late' and timestamp < '2026-03-01T14:03Z'",
        "`a b`.c != null or key = \"k\" or value contains 'x'",
        "offset >= 0 and partition <> 1 and on == true",
        "not not (a = 1.5e3 or a <= -9007199254740993)",
    ];
    let seed = |text: &&str| {
        let mut seed = Vec::new();
        put_chunk(&mut seed, text.as_bytes());
        put_chunk(&mut seed, b"k");
        seed.extend_from_slice(
            br#"{"temp":21.5,"site":"north","pos":{"lat":47.2},"note":"too late","on":true,"a":[1]}"#,
        );
        seed
    };
    conditions.iter().map(seed).collect()
}
