//! A body that is read and not published. Caller: `http::foreign`.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use futures_util::stream;

use super::body::{BodyReader, Memory};
use super::fault::Stop;
use super::options::Options;
use super::rows::Rows;
use crate::front::http::foreign::{ForeignBody, ForeignRow};

/// Reads a body that comes in these pieces.
pub(in crate::front::http) fn read_foreign(
    query: Vec<(String, String)>,
    headers: &HeaderMap,
    pieces: Vec<Bytes>,
    row_bytes_max: usize,
) -> ForeignBody {
    let mut found = ForeignBody::default();
    let options = match Options::read(query, headers) {
        Ok(options) => options,
        Err(stop) => {
            found.stopped = Some(stop.to_string());
            return found;
        }
    };
    let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without threads");
    let read = runtime.block_on(read(&options, body, row_bytes_max, &mut found));
    found.stopped = read.err().map(|stop| stop.to_string());
    found
}

async fn read(
    options: &Options,
    body: Body,
    row_bytes_max: usize,
    found: &mut ForeignBody,
) -> Result<(), Stop> {
    let mut reader = BodyReader::new(body, &options.encoding, &Memory::new()).await?;
    let template = &options.template;
    let mut format = options.kind.reader(template, &options.table, row_bytes_max);
    loop {
        let mut rows = Rows::default();
        let bytes = reader.next().await?;
        let fed = match &bytes {
            Some(bytes) => format.feed(bytes, &mut rows),
            None => format.finish(&mut rows),
        };
        add(found, &rows, options);
        fed?;
        if bytes.is_none() {
            return Ok(());
        }
    }
}

fn add(found: &mut ForeignBody, rows: &Rows, options: &Options) {
    let faults = rows.faults.iter();
    found
        .faults
        .extend(faults.map(|(line, fault)| (*line, fault.to_string())));
    let headers = options.template.header_refs();
    let own = rows.own_headers(&headers);
    let outgoing = rows.outgoing(&options.template, &headers, &own);
    for (line, outgoing) in rows.lines().zip(outgoing) {
        let message = outgoing.message;
        let headers = message.headers.iter();
        found.rows.push(ForeignRow {
            line,
            key: message.key.map(<[u8]>::to_vec),
            value: message.value.map(<[u8]>::to_vec),
            time: message.time,
            headers: headers
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        });
    }
}
