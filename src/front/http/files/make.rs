//! Makes a file: reads its range, and writes it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use columnar::{Encoder, Format, Row, Schema};
use model::hex::to_hex;
use sha2::{Digest, Sha256};

use super::cache::{Cache, Made};
use super::name::FileName;
use crate::broker::access::{Granted, right};
use crate::broker::ranges::SealedRange;
use crate::broker::replay::{Block, Place, ReplayRequest};
use crate::broker::{Broker, Topic};
use crate::front::http::errors::Failure;

/// A file that is being written. It goes when this is dropped before its end.
struct Writing {
    file: File,
    path: Option<PathBuf>,
    hash: Sha256,
    bytes: u64,
    encoder: Encoder,
    topic: String,
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, path = %path.display(), "an unfinished file is left over until the next start");
        }
    }
}

impl Writing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn push(&mut self, block: &Block) -> Result<(), Failure> {
        for found in block.iter() {
            self.encoder.push(&Row {
                topic: &self.topic,
                partition: found.partition,
                record: found.record,
            })?;
        }
        if let Some(ready) = self.encoder.ready() {
            self.write(&ready)?;
        }
        Ok(())
    }
}

/// Makes the file of a range by this schema, and takes it into the cache.
pub(super) async fn make(
    cache: &Cache,
    broker: &Broker,
    topic: &Granted<Arc<Topic>, right::Read>,
    name: &FileName,
    range: &SealedRange,
    schema: Schema,
) -> Result<Made, Failure> {
    let request = ReplayRequest {
        partitions: Some(vec![range.partition]),
        from: Place::Offset(range.offsets.start),
        to: Some(Place::Offset(range.offsets.end)),
        ..ReplayRequest::default()
    };
    let mut replay = broker.replay(topic, request).await?;
    let (file, path) = cache.create()?;
    let mut writing = Writing {
        file,
        path: Some(path),
        hash: Sha256::new(),
        bytes: 0,
        encoder: Encoder::new(Format::Parquet, None, &schema)?,
        topic: topic.name.as_str().to_owned(),
    };
    while let Some(block) = replay.next().await? {
        writing = on_thread(move || {
            let pushed = writing.push(&block);
            (writing, pushed)
        })
        .await?;
    }
    let empty = Encoder::new(Format::Ndjson, None, &Schema::default())?;
    let encoder = std::mem::replace(&mut writing.encoder, empty);
    let (mut writing, seen) = on_thread_with(move || {
        let end = encoder.finish()?;
        writing.write(&end.bytes)?;
        Ok((writing, end.schema))
    })
    .await?;
    // What was seen is in the next version; this file is of its own.
    if let Err(error) = broker.learn_schema(topic, &seen).await {
        tracing::warn!(%error, "what was seen of a topic's values is not kept");
    }
    let digest = writing.hash.finalize_reset();
    let etag = format!("\"{}\"", to_hex(&digest[..16]));
    let file = writing.file.try_clone()?;
    let path = writing.path.take().expect("it was not taken before");
    let bytes = writing.bytes;
    cache.add(topic.name.as_str(), name, path, bytes, etag.clone());
    Ok(Made { file, bytes, etag })
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> (T, Result<(), Failure>) + Send + 'static,
) -> Result<T, Failure> {
    on_thread_with(move || {
        let (value, done) = work();
        done.map(|()| value)
    })
    .await
}

async fn on_thread_with<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::Internal(std::io::Error::other(error)))?
}
