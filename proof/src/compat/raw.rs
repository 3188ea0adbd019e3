//! A consumer of a few requests, written by hand from the protocol's description: the judge of
//! what the broker stored. It shares no code with the broker, so that an error in the broker's
//! codec cannot hide here.
//! Callers: `session`, when a client program asks what was stored; `peer`, to see that a broker is up.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The header of one stored batch, as far as anybody asks.
pub struct StoredBatch {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Number of records.
    pub record_count: i32,
    /// Codec in bits 0 to 2.
    pub attributes: i16,
    /// The idempotent producer's id, or -1.
    pub producer_id: i64,
}

impl StoredBatch {
    /// The codec's name as Kafka spells it.
    pub fn codec(&self) -> &'static str {
        match self.attributes & 7 {
            0 => "none",
            1 => "gzip",
            2 => "snappy",
            3 => "lz4",
            4 => "zstd",
            _ => "unknown",
        }
    }
}

/// True if a broker answers Metadata version 1 at `address` and lists itself.
pub fn answers(address: &str) -> bool {
    let attempt = || -> Result<bool> {
        let mut body = Vec::new();
        body.extend(0_i32.to_be_bytes());
        let response = request(address, 3, 1, &body)?;
        Ok(Fields(&response).i32()? > 0)
    };
    attempt().unwrap_or(false)
}

/// Fetches every batch of a partition, from offset 0 to the high watermark, with Fetch version 4.
pub fn stored_batches(address: &str, topic: &str, partition: i32) -> Result<Vec<StoredBatch>> {
    let mut batches = Vec::new();
    let mut from = 0;
    loop {
        let (high_watermark, records) = fetch(address, topic, partition, from)?;
        let mut rest = Fields(&records);
        let before = batches.len();
        while let Some((batch, next_offset)) = rest.batch()? {
            from = next_offset;
            batches.push(batch);
        }
        if from >= high_watermark {
            return Ok(batches);
        }
        ensure!(
            batches.len() > before,
            "{topic}-{partition} returned nothing at {from}, below its high watermark {high_watermark}"
        );
    }
}

fn fetch(address: &str, topic: &str, partition: i32, from: i64) -> Result<(i64, Vec<u8>)> {
    let mut body = Vec::new();
    body.extend((-1_i32).to_be_bytes()); // replica
    body.extend(100_i32.to_be_bytes()); // max wait
    body.extend(1_i32.to_be_bytes()); // min bytes
    body.extend(8_388_608_i32.to_be_bytes());
    body.push(0); // read uncommitted
    body.extend(1_i32.to_be_bytes());
    body.extend(string(topic));
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(from.to_be_bytes());
    body.extend(8_388_608_i32.to_be_bytes());
    let response = request(address, 1, 4, &body)?;
    let mut fields = Fields(&response);
    fields.i32()?; // throttle
    ensure!(fields.i32()? == 1, "one topic was asked for");
    let name_bytes = fields.i16()?;
    fields.take(usize::try_from(name_bytes)?)?;
    ensure!(fields.i32()? == 1, "one partition was asked for");
    fields.i32()?;
    let error = fields.i16()?;
    ensure!(
        error == 0,
        "fetch of {topic}-{partition} at {from}: error {error}"
    );
    let high_watermark = fields.i64()?;
    fields.i64()?; // last stable offset
    for _ in 0..fields.i32()?.max(0) {
        fields.take(16)?; // aborted transactions
    }
    let records_bytes = usize::try_from(fields.i32()?.max(0))?;
    Ok((high_watermark, fields.take(records_bytes)?.to_vec()))
}

fn request(address: &str, key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    let timeout = Some(Duration::from_secs(10));
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
    stream.set_read_timeout(timeout)?;
    stream.set_write_timeout(timeout)?;
    let mut frame = Vec::new();
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7_i32.to_be_bytes()); // correlation id
    frame.extend(string("xtask"));
    frame.extend(body);
    stream.write_all(&u32::try_from(frame.len())?.to_be_bytes())?;
    stream.write_all(&frame)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    if !(4..64 << 20).contains(&length) {
        bail!("a response of {length} bytes");
    }
    let mut response = vec![0; length];
    stream.read_exact(&mut response)?;
    Ok(response.split_off(4))
}

fn string(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).expect("names here are short");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// What is left of a response: big-endian fields in a row.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (head, tail) = self
            .0
            .split_at_checked(bytes)
            .context("the response ends too early")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take returns N bytes"))
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// The next whole batch and the offset after it; none at the end or before a cut batch.
    fn batch(&mut self) -> Result<Option<(StoredBatch, i64)>> {
        if self.0.len() < 61 {
            return Ok(None);
        }
        let mut peek = Fields(self.0);
        let base_offset = peek.i64()?;
        let length = usize::try_from(peek.i32()?)?;
        if self.0.len() < 12 + length {
            return Ok(None);
        }
        let mut fields = Fields(self.take(12 + length)?);
        fields.take(16)?;
        let magic = fields.array::<1>()?[0];
        ensure!(magic == 2, "a batch of magic {magic} at {base_offset}");
        fields.i32()?; // crc
        let attributes = fields.i16()?;
        let last_offset_delta = fields.i32()?;
        fields.take(16)?; // timestamps
        let producer_id = fields.i64()?;
        fields.take(6)?; // epoch, sequence
        let record_count = fields.i32()?;
        let batch = StoredBatch {
            base_offset,
            record_count,
            attributes,
            producer_id,
        };
        Ok(Some((
            batch,
            base_offset + i64::from(last_offset_delta) + 1,
        )))
    }
}
