//! Writes the golden batches `alluvium-<codec>.hex` into the folder given; `tests/golden/README.md` tells when.

use alluvium_model::batch::{BatchBuilder, Codec, HeaderRef};
use alluvium_model::{Offset, ProducerEpoch, ProducerId};

#[path = "../tests/golden/records.rs"]
mod records;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).ok_or("write_golden DIR")?);
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(codec);
        builder.base_offset(Offset::new(1000)).producer(
            ProducerId::new(4001),
            ProducerEpoch::new(3),
            70_000,
        );
        for (timestamp, key, value, headers) in records::golden_records() {
            let headers: Vec<HeaderRef> = headers
                .iter()
                .map(|(key, value)| (&key[..], value.as_deref()))
                .collect();
            builder.push(timestamp, key.as_deref(), value.as_deref(), &headers)?;
        }
        let text: String = builder
            .build()?
            .chunks(64)
            .map(|line| hex(line) + "\n")
            .collect();
        std::fs::write(folder.join(format!("alluvium-{codec}.hex")), text)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
