//! Each format gives back what went in: rows of every shape, read by other code than that which wrote them.

use alluvium_columnar::{
    ArrowReader, BodyColumns, BodyError, BodyRow, Columns, EncodeError, Encoder, Exact, Format,
    Observer, ParquetReader, Row, RowReader, Schema, TimeUnit,
};
use bytes::Bytes;
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit, HeaderRef};
use model::{Offset, PartitionId, Timestamp};

struct Case {
    time: i64,
    key: Option<&'static [u8]>,
    value: Option<&'static [u8]>,
    headers: &'static [HeaderRef<'static>],
}

const fn case(time: i64, key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> Case {
    let headers = &[];
    Case {
        time,
        key,
        value,
        headers,
    }
}

const TEXTS: [Case; 9] = [
    case(
        1_700_000_000_123,
        Some(b"a"),
        Some(br#"{"temp":21.5,"n":1,"s":"x,\"y\"\n"}"#),
    ),
    case(
        0,
        Some(b""),
        Some(b"{\r\n \"temp\": 22,\n \"pos\": {\"lat\": -1.25}}"),
    ),
    case(-1, None, Some(b"")),
    case(1, Some(b"a,b"), None),
    case(2, Some(b"\"q\""), Some(b"null")),
    case(3, Some(b" edge "), Some(b"not JSON, \"but\" text\r\n")),
    case(
        i64::MAX,
        Some("\u{e9}".as_bytes()),
        Some(br#"{"n":"one","on":true,"l":[1, 2]}"#),
    ),
    Case {
        time: 4,
        key: None,
        value: Some(b"17"),
        headers: &[
            (b"h", Some(b"v")),
            (b"h", None),
            (b"\xff", Some(b"\x00\xfe")),
            (b"", Some(b"")),
        ],
    },
    case(5, Some(b"a"), Some(br#"{"temp":null}"#)),
];

fn with_rows(cases: &[Case], mut show: impl FnMut(Row<'_>)) {
    for (index, case) in cases.iter().enumerate() {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.base_offset(Offset::new(index as u64 * 10));
        let time = Timestamp::from_millis(case.time);
        builder
            .push(time, case.key, case.value, case.headers)
            .expect("it fits");
        let batch = Batch::parse(builder.build().expect("a batch")).expect("a batch");
        let mut records = batch.records(DecompressLimit::default()).expect("records");
        show(Row {
            topic: "t",
            partition: PartitionId::new(2),
            record: records.next_ref().expect("one").expect("a record"),
        });
    }
}

fn schema_of(cases: &[Case]) -> Schema {
    let mut observer = Observer::new(Schema::default());
    with_rows(cases, |row| {
        observer.observe(row.record.key, row.record.value);
    });
    observer.into_schema()
}

fn encoded(format: Format, columns: Option<&str>, cases: &[Case]) -> Bytes {
    let columns = columns.map(|columns| Columns::parse(columns).expect("columns"));
    let mut encoder =
        Encoder::new(format, columns.as_ref(), &schema_of(cases)).expect("an encoder");
    let mut out = Vec::new();
    with_rows(cases, |row| {
        encoder.push(&row).expect("a row");
        encoder.flush().expect("a batch");
        out.extend_from_slice(&encoder.take());
    });
    let end = encoder.finish().expect("an end");
    assert_eq!(end.counts.rows, cases.len() as u64);
    out.extend_from_slice(&end.bytes);
    out.into()
}

fn check(case: &Case, index: usize, row: &BodyRow<'_>) {
    assert_eq!(row.partition, Some(PartitionId::new(2)));
    assert_eq!(row.offset, Some(Offset::new(index as u64 * 10)));
    let time = (case.time != -1).then(|| Timestamp::from_millis(case.time));
    assert_eq!(row.timestamp, time);
    assert_eq!(row.key.as_deref(), case.key);
    assert_eq!(row.value.as_deref(), case.value);
    let headers: Vec<_> = case
        .headers
        .iter()
        .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
        .collect();
    assert_eq!(row.headers, headers);
}

fn arrow_round_trip(cases: &[Case], piece: usize) {
    let bytes = encoded(Format::Arrow, None, cases);
    let mut reader = ArrowReader::new(BodyColumns::default(), 1 << 20);
    let mut index = 0;
    for at in (0..bytes.len()).step_by(piece) {
        reader.push(bytes.slice(at..bytes.len().min(at + piece)));
        while let Some(rows) = reader.next_rows().expect("rows") {
            for row in 0..rows.len() {
                check(&cases[index], index, &rows.get(row).expect("a row"));
                index += 1;
            }
        }
    }
    reader.finish().expect("the end");
    assert_eq!(index, cases.len());
}

#[test]
fn an_arrow_stream_gives_back_each_record() {
    arrow_round_trip(&TEXTS, usize::MAX / 2);
    arrow_round_trip(&TEXTS, 7);
    arrow_round_trip(
        &[
            case(1, Some(b"\xff"), Some(b"\xfe\x00")),
            case(2, None, Some(b"text")),
        ],
        64,
    );
}

#[test]
fn an_arrow_stream_that_is_cut_looks_cut() {
    let bytes = encoded(Format::Arrow, None, &TEXTS);
    let mut seen = 0;
    // The end-of-stream mark alone may be missing: it is told too, as what lies before is whole.
    for cut in 0..bytes.len() - 8 {
        let mut reader = ArrowReader::new(BodyColumns::default(), 1 << 20);
        reader.push(bytes.slice(..cut));
        while let Ok(Some(rows)) = reader.next_rows() {
            seen = seen.max(rows.len());
        }
        let whole = reader.finish().is_ok();
        // Between two messages the format has no mark: each record was flushed alone here.
        assert!(!whole || cut % 8 == 0, "{cut}");
    }
    assert_eq!(seen, 1);
    let mut reader = ArrowReader::new(BodyColumns::default(), 100);
    reader.push(bytes.slice(..200));
    assert!(matches!(
        reader.next_rows(),
        Err(BodyError::BatchTooLarge { bytes_max: 100 })
    ));
    assert!(matches!(
        ArrowReader::new(BodyColumns::default(), 100).finish(),
        Err(BodyError::Cut)
    ));
}

#[test]
fn a_parquet_file_gives_back_each_record_and_has_the_same_bytes_again() {
    let bytes = encoded(Format::Parquet, None, &TEXTS);
    assert_eq!(bytes, encoded(Format::Parquet, None, &TEXTS));
    let path = std::env::temp_dir().join(format!("columnar-{}.parquet", std::process::id()));
    std::fs::write(&path, &bytes).expect("a file");
    let file = std::fs::File::open(&path).expect("the file");
    std::fs::remove_file(&path).expect("no file");
    let mut reader = ParquetReader::open(file, BodyColumns::default()).expect("a file");
    let mut index = 0;
    while let Some(rows) = reader.next_rows().expect("rows") {
        for row in 0..rows.len() {
            check(&TEXTS[index], index, &rows.get(row).expect("a row"));
            index += 1;
        }
    }
    assert_eq!(index, TEXTS.len());
}

#[test]
fn ndjson_keeps_json_verbatim_and_says_what_is_none() {
    let text = encoded(Format::Ndjson, None, &TEXTS);
    let text = std::str::from_utf8(&text).expect("text");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), TEXTS.len());
    assert_eq!(
        lines[0],
        r#"{"topic":"t","partition":2,"offset":0,"timestamp":"2023-11-14T22:13:20.123Z","key":"a","headers":[],"value":{"temp":21.5,"n":1,"s":"x,\"y\"\n"}}"#
    );
    assert!(
        lines[1].ends_with(r#""value":{   "temp": 22,  "pos": {"lat": -1.25}}}"#),
        "{}",
        lines[1]
    );
    assert!(lines[2].ends_with(
        r#""timestamp":null,"key":null,"headers":[],"value":"","value_encoding":"text"}"#
    ));
    assert!(lines[3].ends_with(r#""value":null}"#));
    assert!(lines[4].ends_with(r#""value":null,"value_encoding":"json"}"#));
    assert!(lines[6].contains(r#""timestamp":9223372036854775807"#));
    let headers = r#"[{"key":"h","value":"v"},{"key":"h","value":null},{"key":"/w==","key_encoding":"base64","value":"AP4=","value_encoding":"base64"},{"key":"","value":""}]"#;
    assert!(lines[7].contains(headers), "{}", lines[7]);
    let fields = encoded(Format::Ndjson, Some("offset,pos.lat,l,value.key"), &TEXTS);
    let fields = std::str::from_utf8(&fields).expect("text");
    assert_eq!(
        fields.lines().nth(1),
        Some(r#"{"offset":10,"pos.lat":-1.25,"l":null,"value.key":null}"#)
    );
    assert_eq!(
        fields.lines().nth(6),
        Some(r#"{"offset":60,"pos.lat":null,"l":[1, 2],"value.key":null}"#)
    );
}

#[test]
fn csv_is_read_back_by_another_reader_and_tells_null_from_empty() {
    let bytes = encoded(Format::Csv, Some("offset,key,value,temp,n,on"), &TEXTS);
    let mut reader = csv::ReaderBuilder::new().from_reader(&bytes[..]);
    assert_eq!(
        reader.headers().expect("names"),
        vec!["offset", "key", "value", "temp", "n", "on"]
    );
    for (case, row) in TEXTS.iter().zip(reader.into_byte_records()) {
        let row = row.expect("a row");
        assert_eq!(&row[1], case.key.unwrap_or_default());
        assert_eq!(&row[2], case.value.unwrap_or_default());
    }
    let text = std::str::from_utf8(&bytes).expect("text");
    assert!(
        text.contains("\r\n10,\"\",\"{\r\n"),
        "an empty key is quoted: {text}"
    );
    assert!(
        text.contains("\r\n20,,\"\",,,\r\n"),
        "no key and an empty value: {text}"
    );
    assert!(text.contains("\r\n30,\"a,b\",,,,\r\n"), "no value: {text}");
    assert!(
        text.contains(",21.5,1,\r\n")
            && text.contains(",22.0,,\r\n")
            && text.contains(",,one,true\r\n"),
        "{text}"
    );
    let bytes = encoded(
        Format::Csv,
        Some("key,value"),
        &[case(0, Some(b"\xff"), Some(b"t"))],
    );
    assert_eq!(&bytes[..], b"key_base64,value\r\n/w==,t\r\n");
}

#[test]
fn a_column_that_turns_out_to_be_no_text_is_an_error_and_is_learned() {
    let columns = Columns::parse("offset,value").expect("columns");
    for format in [Format::Arrow, Format::Csv, Format::Parquet] {
        let mut encoder =
            Encoder::new(format, Some(&columns), &Schema::default()).expect("an encoder");
        with_rows(&[case(0, Some(b"\xff"), Some(b"t"))], |row| {
            encoder.push(&row).expect("the key is not shown")
        });
        with_rows(&[case(0, None, Some(b"\xff"))], |row| {
            assert!(matches!(
                encoder.push(&row),
                Err(EncodeError::NotText { .. })
            ));
        });
        let schema = encoder.into_schema();
        assert!(schema.binary_keys_since.is_some() && schema.binary_values_since.is_some());
    }
}

#[test]
fn fields_that_come_later_are_counted_and_learned() {
    let mut encoder =
        Encoder::new(Format::Arrow, None, &schema_of(&TEXTS[..1])).expect("an encoder");
    with_rows(&TEXTS, |row| encoder.push(&row).expect("a row"));
    let end = encoder.finish().expect("an end");
    assert_eq!((end.counts.rows, end.counts.undecodable), (9, 4));
    assert_eq!((end.counts.new_fields, end.counts.unfit), (3, 1));
    let paths: Vec<_> = end.schema.fields.iter().map(|field| &*field.path).collect();
    assert_eq!(paths, ["temp", "n", "s", "pos.lat", "on", "l"]);
}

/// Rows of a file as the command line brings them in.
fn read_back(
    format: Format,
    bytes: &Bytes,
    columns: BodyColumns,
) -> Vec<Result<BodyRow<'static>, u64>> {
    let path = tempfile_with(bytes);
    let file = std::fs::File::open(&path).expect("the file");
    std::fs::remove_file(&path).expect("no file");
    let mut reader = RowReader::open(format, file, columns, b',').expect("a file");
    let mut rows = Vec::new();
    while let Some((place, row)) = reader.next_row().expect("rows") {
        rows.push(row.map(owned).map_err(|_| place));
    }
    rows
}

fn tempfile_with(bytes: &[u8]) -> std::path::PathBuf {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("columnar-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

fn owned(row: BodyRow<'_>) -> BodyRow<'static> {
    use std::borrow::Cow;
    let bytes = |cell: Option<Cow<'_, [u8]>>| cell.map(|cell| Cow::Owned(cell.into_owned()));
    BodyRow {
        topic: bytes(row.topic),
        key: bytes(row.key),
        value: bytes(row.value),
        partition: row.partition,
        offset: row.offset,
        timestamp: row.timestamp,
        headers: row.headers,
    }
}

fn exact(time_unit: Option<TimeUnit>) -> BodyColumns {
    BodyColumns {
        exact: Some(Exact {
            whole_row: false,
            time_unit,
        }),
        ..BodyColumns::default()
    }
}

#[test]
fn every_format_gives_back_each_record_to_the_row_reader() {
    let bytes_of = [
        case(1, Some(b"\xff"), Some(b"\xfe\x00")),
        case(2, Some(b""), Some(b"text")),
        case(3, None, Some(b"")),
        case(4, Some(b"k"), None),
    ];
    for cases in [&TEXTS[..], &bytes_of] {
        for format in Format::ALL {
            let bytes = encoded(format, None, cases);
            // One time is no calendar's, and stands as a number in texts.
            let rows = read_back(format, &bytes, exact(Some(TimeUnit::Millis)));
            assert_eq!(rows.len(), cases.len());
            for (index, (case, row)) in cases.iter().zip(rows).enumerate() {
                let mut row = row.unwrap_or_else(|at| panic!("{format:?}: row {at} cannot be"));
                assert_eq!(row.topic.as_deref(), Some(&b"t"[..]));
                assert_eq!(row.timestamp, Some(Timestamp::from_millis(case.time)));
                row.timestamp = row.timestamp.filter(|time| !time.is_none());
                if format == Format::Ndjson
                    && case
                        .value
                        .is_some_and(|v| v.contains(&b'\n') && v[0] == b'{')
                {
                    let value = row.value.take().expect("a value");
                    assert_eq!(value, &b"{   \"temp\": 22,  \"pos\": {\"lat\": -1.25}}"[..]);
                    row.value = case.value.map(|value| value.to_vec().into());
                }
                check(case, index, &row);
            }
        }
    }
    // Without a unit the number is refused, and nothing else.
    for format in [Format::Csv, Format::Ndjson] {
        let rows = read_back(format, &encoded(format, None, &TEXTS), exact(None));
        let wrong: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].is_err()).collect();
        assert_eq!(wrong, [6], "{format:?}");
    }
}

#[test]
fn rows_that_would_lose_something_are_refused() {
    let open = |format, text: &str, columns| {
        let path = tempfile_with(text.as_bytes());
        let file = std::fs::File::open(&path).expect("the file");
        std::fs::remove_file(&path).expect("no file");
        RowReader::open(format, file, columns, b',').map(drop)
    };
    let csv = |text: &str, columns| open(Format::Csv, text, columns);
    let lost = csv("timestamp,value,site\n", exact(None));
    assert!(matches!(lost, Err(BodyError::LeftOut(names)) if names == ["site"]));
    assert!(csv("offset,timestamp,value,site\n", exact(None)).is_ok());
    let none = csv("timestamp,key\n", exact(None));
    assert!(matches!(none, Err(BodyError::NoColumn(name)) if name == "value"));
    let twice = csv("value,value\n", exact(None));
    assert!(matches!(twice, Err(BodyError::Twice(name)) if name == "value"));
    assert!(matches!(
        csv("", exact(None)),
        Err(BodyError::Malformed { .. })
    ));
    assert!(matches!(
        open(Format::Arrow, "ARROW1\0\0", exact(None)),
        Err(BodyError::Malformed { .. })
    ));
    let lines = concat!(
        "{\"value\":1,\"site\":2}\n",
        "{\"key\":\"k\"}\n",
        "{\"value\":\"x\",\"value_encoding\":\"rot13\"}\n",
        "{\"value\":1,\"value\":2}\n",
        "{\"value\":1,\"timestamp\":5}\n",
        "{\"value\":1,\"partition\":-1}\n",
        "not JSON\n\n",
        "{\"value\":1,\"key\":null,\"timestamp\":null}\n",
        "{\"offset\":1,\"value\":1,\"site\":2}",
    );
    let rows = read_back(Format::Ndjson, &Bytes::from(lines), exact(None));
    let wrong: Vec<u64> = rows
        .iter()
        .filter_map(|row| row.as_ref().err().copied())
        .collect();
    assert_eq!((rows.len(), wrong), (9, vec![1, 2, 3, 4, 5, 6, 7]));
}

#[test]
fn a_row_as_a_whole_becomes_a_value_with_its_key_and_time() {
    let columns = BodyColumns {
        key: Some("id".to_owned()),
        timestamp: Some("at".to_owned()),
        value: None,
        exact: Some(Exact {
            whole_row: true,
            time_unit: Some(TimeUnit::Seconds),
        }),
    };
    let show = |format, text: &'static str| -> Vec<Option<(String, String, i64)>> {
        let rows = read_back(format, &Bytes::from(text), columns.clone());
        let show = |row: &BodyRow<'_>| {
            let text = |cell: &Option<std::borrow::Cow<'_, [u8]>>| {
                String::from_utf8(cell.as_deref().unwrap_or_default().to_vec()).expect("text")
            };
            (
                text(&row.key),
                text(&row.value),
                row.timestamp.map_or(-2, Timestamp::millis),
            )
        };
        rows.iter().map(|row| row.as_ref().ok().map(show)).collect()
    };
    let row = |key: &str, value: &str, time| Some((key.to_owned(), value.to_owned(), time));
    assert_eq!(
        show(Format::Csv, "id,at,value,n\n7,1.5,x,2\n,2,,01\n8,,y,\n9\n"),
        [
            row("7", r#"{"id":7,"at":1.5,"value":"x","n":2}"#, 1_500),
            row("", r#"{"id":null,"at":2,"value":null,"n":"01"}"#, 2_000),
            None,
            None,
        ]
    );
    assert_eq!(
        show(
            Format::Ndjson,
            "{\"id\": \"a\", \"at\":\"2026-03-01T00:00:00Z\"}\n{\"id\":true,\"at\":3}\n{\"at\":3}\n{\"id\":[],\"at\":3}\n17\n"
        ),
        [
            row(
                "a",
                "{\"id\": \"a\", \"at\":\"2026-03-01T00:00:00Z\"}",
                1_772_323_200_000
            ),
            row("true", "{\"id\":true,\"at\":3}", 3_000),
            None,
            None,
            None,
        ]
    );
}
