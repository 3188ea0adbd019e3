//! Files of rows as `import` reads them: `choices u8 | file`. The lowest two bits say the format, the next ones whether a row is a
//! value as a whole, and the unit of times.

use bytes::Bytes;
use columnar::{
    BodyColumns, BodyError, BodyRow, Encoder, Exact, Format, Row, RowReader, Schema, TimeUnit,
};
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit};
use model::{Offset, PartitionId, Timestamp};

use crate::Input;

/// No file of this length has more.
const ROWS_MAX: usize = 70_000;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.u8();
    let format = Format::ALL[usize::from(choices & 3)];
    let whole_row = choices & 4 != 0;
    let columns = BodyColumns {
        key: (choices & 16 != 0).then(|| "k".to_owned()),
        exact: Some(Exact {
            whole_row,
            time_unit: (choices & 8 != 0).then_some(TimeUnit::Millis),
        }),
        ..BodyColumns::default()
    };
    let rows = read(format, input.rest(), columns.clone());
    let Ok(rows) = rows else { return };
    let good: Vec<BodyRow<'static>> = rows.into_iter().flatten().collect();
    for row in &good {
        assert!(
            row.value.is_some() || !whole_row,
            "a row as a whole is something"
        );
    }
    // What was read comes back from lines as it is, but for the space around JSON.
    if whole_row || good.len() > 200 {
        return;
    }
    let lines = written(&good);
    let columns = BodyColumns {
        exact: Some(Exact {
            whole_row: false,
            time_unit: Some(TimeUnit::Millis),
        }),
        ..BodyColumns::default()
    };
    let again = read(Format::Ndjson, &lines, columns).expect("what was written can be read");
    assert_eq!(again.len(), good.len(), "as many rows");
    for (row, again) in good.iter().zip(again) {
        let again = again.expect("each of them");
        assert_eq!(row.key, again.key, "the same key");
        assert_eq!(row.headers, again.headers, "the same headers");
        assert_eq!(
            row.value.is_none(),
            again.value.is_none(),
            "a value or none"
        );
    }
}

type Rows = Vec<Option<BodyRow<'static>>>;

fn read(format: Format, bytes: &[u8], columns: BodyColumns) -> Result<Rows, BodyError> {
    let bytes = Bytes::copy_from_slice(bytes);
    let mut reader = RowReader::of_bytes(format, bytes, columns, b',')?;
    let mut rows = Vec::new();
    let mut before = 0;
    while let Some((place, row)) = reader.next_row()? {
        assert!(place > before, "each row stands behind the one before");
        before = place;
        rows.push(row.ok().map(owned));
        if rows.len() == ROWS_MAX {
            break;
        }
    }
    Ok(rows)
}

fn owned(row: BodyRow<'_>) -> BodyRow<'static> {
    BodyRow {
        topic: row.topic.map(|bytes| bytes.into_owned().into()),
        key: row.key.map(|bytes| bytes.into_owned().into()),
        value: row.value.map(|bytes| bytes.into_owned().into()),
        partition: row.partition,
        offset: row.offset,
        timestamp: row.timestamp,
        headers: row.headers,
    }
}

/// Rows as NDJSON.
fn written(rows: &[BodyRow<'_>]) -> Vec<u8> {
    let mut encoder =
        Encoder::new(Format::Ndjson, None, &Schema::default()).expect("the fixed columns");
    let mut out = Vec::new();
    for row in rows {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.base_offset(Offset::ZERO);
        let headers = row.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (&name[..], value.as_deref()))
            .collect();
        let time = row.timestamp.unwrap_or(Timestamp::NONE);
        builder
            .push(time, row.key.as_deref(), row.value.as_deref(), &headers)
            .expect("a record");
        let batch = Batch::parse(builder.build().expect("a batch")).expect("a batch");
        let mut records = batch.records(DecompressLimit::default()).expect("records");
        let record = records.next_ref().expect("one").expect("a record");
        encoder
            .push(&Row {
                topic: "t",
                partition: PartitionId::new(0),
                record,
            })
            .expect("lines take anything");
        out.extend_from_slice(&encoder.take());
    }
    out.extend_from_slice(&encoder.finish().expect("an end").bytes);
    out
}

/// Lines, tables, and lines as a whole.
pub fn seeds() -> Vec<Vec<u8>> {
    let number = |wanted: Format| {
        let place = Format::ALL.iter().position(|format| *format == wanted);
        u8::try_from(place.expect("one of them")).expect("few")
    };
    let (lines, csv) = (number(Format::Ndjson), number(Format::Csv));
    let seeds: [(u8, &str); 5] = [
        (
            lines,
            "{\"topic\":\"t\",\"partition\":0,\"offset\":5,\"timestamp\":\"2026-03-01T14:03:05.250Z\",\"key\":\"k\",\"headers\":[{\"key\":\"a\",\"value\":null}],\"value\":{\"temp\":21.5}}\n{\"offset\":1,\"key\":\"/w==\",\"key_encoding\":\"base64\",\"timestamp\":null,\"value\":\"x\",\"value_encoding\":\"text\",\"temp\":1}\n",
        ),
        (
            lines | 8,
            "{\"value\":null,\"value_encoding\":\"json\",\"timestamp\":17}\n{\"value\":null}\n\n17\n",
        ),
        (lines | 4 | 16, "{\"k\":\"a\"}\r\n{\"k\":{\"a\":1}}\n[1]\n"),
        (
            csv,
            "topic,partition,offset,timestamp,key_base64,headers,value\r\nt,0,1,1969-12-31T23:59:59.000Z,/w==,\"[{\"\"key\"\":\"\"a\"\",\"\"value\"\":\"\"b\"\"}]\",\"\"\r\nt,0,2,,,,\"a\r\nb\"\r\n",
        ),
        (csv | 4 | 8 | 16, "k,n\n1,\n\"a\"\"b\",1e5\nx\n"),
    ];
    let seed = |(choices, text): &(u8, &str)| [&[*choices][..], text.as_bytes()].concat();
    seeds.iter().map(seed).collect()
}
