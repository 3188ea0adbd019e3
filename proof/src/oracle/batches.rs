//! Batches: record batches to send, right ones and wrong ones.
//! Callers: `scenarios`, `generate`.

use bytes::Bytes;
use model::Timestamp;
use model::batch::{self, BatchBuilder, Codec};

/// A moment that both brokers accept, the same in every run.
pub const MOMENT: i64 = 1_700_000_000_000;

const CHECKED_FROM: usize = 21;
const CRC_AT: usize = 17;

/// A record's key and value.
pub type KeyValue<'a> = (Option<&'a str>, Option<&'a str>);

/// A batch that can be damaged.
#[derive(Clone)]
pub struct Batch(Vec<u8>);

impl Batch {
    /// Records of a key and a value each, a millisecond apart from `MOMENT` on.
    pub fn of(count: usize) -> Batch {
        Batch::at(
            Codec::None,
            &(0..count).map(|n| MOMENT + n as i64).collect::<Vec<_>>(),
        )
    }

    /// The same, compressed.
    pub fn compressed(codec: Codec, count: usize) -> Batch {
        Batch::at(
            codec,
            &(0..count).map(|n| MOMENT + n as i64).collect::<Vec<_>>(),
        )
    }

    /// A record for each time.
    pub fn at(codec: Codec, times: &[i64]) -> Batch {
        let mut builder = BatchBuilder::new(codec);
        for (index, time) in times.iter().enumerate() {
            let key = format!("key-{index}");
            let value = format!("value-{index}-{}", "x".repeat(20));
            builder
                .push(
                    Timestamp::from_millis(*time),
                    Some(key.as_bytes()),
                    Some(value.as_bytes()),
                    &[],
                )
                .expect("a small record");
        }
        Batch(builder.build().expect("a small batch").to_vec())
    }

    /// Records of these keys and values, a millisecond apart from `MOMENT` on.
    pub fn keyed(codec: Codec, records: &[KeyValue<'_>]) -> Batch {
        Batch::keyed_at(codec, MOMENT, records)
    }

    /// The same from another moment on.
    pub fn keyed_at(codec: Codec, first_time: i64, records: &[KeyValue<'_>]) -> Batch {
        let mut builder = BatchBuilder::new(codec);
        for ((key, value), time) in records.iter().zip(first_time..) {
            let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
            builder
                .push(Timestamp::from_millis(time), key, value, &[])
                .expect("a small record");
        }
        Batch(builder.build().expect("a small batch").to_vec())
    }

    /// One record with a value of so many bytes.
    pub fn of_bytes(value_bytes: usize) -> Batch {
        let mut builder = BatchBuilder::new(Codec::None);
        builder
            .push(
                Timestamp::from_millis(MOMENT),
                None,
                Some(&vec![7; value_bytes]),
                &[],
            )
            .expect("one record");
        Batch(builder.build().expect("a batch").to_vec())
    }

    /// By an idempotent producer.
    pub fn by(self, id: i64, epoch: i16, sequence: i32) -> Batch {
        self.set(43, &id.to_be_bytes())
            .set(51, &epoch.to_be_bytes())
            .set(53, &sequence.to_be_bytes())
    }

    /// With these bytes at this position, and the checksum that fits.
    pub fn set(self, position: usize, bytes: &[u8]) -> Batch {
        let mut batch = self.set_unchecked(position, bytes);
        let crc = batch::crc32c(&batch.0[CHECKED_FROM..]);
        batch.0[CRC_AT..CHECKED_FROM].copy_from_slice(&crc.to_be_bytes());
        batch
    }

    /// With these bytes at this position, and the checksum as it was.
    pub fn set_unchecked(mut self, position: usize, bytes: &[u8]) -> Batch {
        self.0[position..position + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Without its last bytes.
    pub fn cut(mut self, bytes: usize) -> Batch {
        self.0.truncate(self.0.len() - bytes);
        self
    }

    /// This one and then another, as one field.
    pub fn and(mut self, other: Batch) -> Batch {
        self.0.extend(other.0);
        self
    }

    /// For the message.
    pub fn bytes(self) -> Bytes {
        Bytes::from(self.0)
    }
}
