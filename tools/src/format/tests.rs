use model::batch::{Attributes, Batch, BatchBuilder, Codec, DecompressLimit, HeaderRef};
use proptest::prelude::*;

use super::*;

const HEADERS: &[HeaderRef<'static>] = &[(b"unit", Some(b"C")), (b"none", None)];

fn record() -> OutputRecord<'static> {
    OutputRecord {
        leader_epoch: 3,
        timestamp: 1_700_000_000_123,
        attributes: Attributes::from_bits(0b1010 | 0b10_0000),
        producer_id: 4001,
        producer_epoch: 7,
        key: Some(b"k\xff"),
        value: Some(b"value"),
        headers: Headers::Slice(HEADERS),
        log_start_offset: 1,
        last_stable_offset: 90,
        high_watermark: 100,
        ..OutputRecord::new("topic", 2, 45)
    }
}

fn written(layout: &str) -> Vec<u8> {
    let mut out = Vec::new();
    OutputFormat::parse(layout)
        .unwrap()
        .write(&record(), &mut out);
    out
}

fn check(table: &[(&str, &[u8])]) {
    for (layout, expected) in table {
        let out = written(layout);
        assert_eq!(
            out,
            *expected,
            "{layout}: {}",
            String::from_utf8_lossy(&out)
        );
    }
}

#[test]
fn every_letter_writes_its_field() {
    check(&[
        ("%t %T", b"topic 5"),
        ("%k %K %v %V", b"k\xff 2 value 5"),
        ("%p %o %e %d %x %y %i", b"2 45 3 1700000000123 4001 7 1"),
        ("%[ %| %]", b"1 90 100"),
        ("%H%h{ %k=%v}", b"2 unit=C none="),
        ("%%%{%}\\t\\n\\r\\\\\\x41\\xff", b"%{}\t\n\r\\A\xff"),
        ("plain ä", "plain ä".as_bytes()),
    ]);
}

#[test]
fn numbers_take_every_modifier() {
    check(&[
        (
            "%o{ascii} %o{hex64} %o{hex32} %o{hex16} %o{hex8} %o{hex4} %o{hex}",
            b"45 000000000000002d 0000002d 002d 2d d 2d",
        ),
        (
            "%o{big64}%o{big32}%o{big16}%o{big8}",
            b"\0\0\0\0\0\0\0\x2d\0\0\0\x2d\0\x2d\x2d",
        ),
        (
            "%o{little64}%o{little32}%o{little16}%o{little8}%o{byte}",
            b"\x2d\0\0\0\0\0\0\0\x2d\0\0\0\x2d\0\x2d\x2d",
        ),
        ("%o{bool} %d{hex}", b"true 18bcfe5687b"),
        ("%d{hex8}", b"7b"),
    ]);
}

#[test]
fn text_takes_every_modifier() {
    check(&[
        ("%k{hex} %k{base64} %k{base64raw} %t{base64}", b"6bff a/8= a/8 dG9waWM="),
        ("%h{%K{big16}%k{hex};}", b"\0\x04756e6974;\0\x046e6f6e65;"),
        ("%v{unpack[>H]} %v{unpack{<h}} %v{unpack##cx.s##} %v{unpack[bB]}", b"30305 24950 value 11897"),
        ("%v{unpack[I$]} %v{unpack[q]} %v{unpack[cccccc]}", b"1970037110%!$(not end-of-input) %!(have 5 bytes, need 8) value%!c(no bytes available)"),
        ("%k{unpack[cb$]}", b"k-1"),
    ]);
}

#[test]
fn attributes_are_written_as_names_or_numbers() {
    check(&[
        (
            "%a{compression} %a{compression;number} %a{compression;hex8}",
            b"snappy 2 02",
        ),
        (
            "%a{timestamp-type} %a{transactional-bit} %a{control-bit;bool}",
            b"1 0 true",
        ),
    ]);
}

#[test]
fn times_are_written_as_go_and_strftime_do() {
    check(&[
        (
            "%d{go[2006-01-02T15:04:05.999Z07:00]}",
            b"2023-11-14T22:13:20.123Z",
        ),
        (
            "%d{go##Mon Jan _2 3:04:05.000000PM MST 06 002##}",
            b"Tue Nov 14 10:13:20.123000PM UTC 23 318",
        ),
        (
            "%d{go[Monday, January 2 -0700 Janus 5.05]}",
            b"Tuesday, November 14 +0000 Janus 20.20",
        ),
        ("%d{strftime[%F %T]}", b"2023-11-14 22:13:20"),
        ("%d{strftime### [%F] ###}", b" [2023-11-14] "),
    ]);
}

#[test]
fn formats_that_say_nothing_clear_are_refused() {
    for layout in [
        "",
        "%",
        "%z",
        "%v{",
        "%v{foo}",
        "%o{hex65}",
        "%h",
        "%h{%o}",
        "%h{%k",
        "\\",
        "\\q",
        "\\x4",
        "\\xzz",
        "\\x+1",
        "%a",
        "%a{compression;no}",
        "%v{unpack[z]}",
        "%v{unpack[sb]}",
        "%v{unpack[b}",
        "%d{strftime[%!]}",
        "%v{hex[x]}",
    ] {
        assert!(OutputFormat::parse(layout).is_err(), "{layout}");
    }
}

#[test]
fn json_has_kcats_keys_and_is_lossless() {
    assert_eq!(
        String::from_utf8(written("json")).unwrap(),
        "{\"topic\":\"topic\",\"partition\":2,\"offset\":45,\"tstype\":\"logappend\",\"ts\":1700000000123,\
         \"headers\":[\"unit\",\"C\",\"none\",null],\"key\":\"a/8=\",\"key_encoding\":\"base64\",\"payload\":\"value\"}\n"
    );
    let mut out = Vec::new();
    let odd = OutputRecord {
        value: Some("\"\\\n\u{1}ä\u{7f}".as_bytes()),
        ..OutputRecord::new("t", 0, 0)
    };
    OutputFormat::json().write(&odd, &mut out);
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["payload"], "\"\\\n\u{1}ä\u{7f}");
    assert_eq!(value["key"], serde_json::Value::Null);
    assert_eq!(value["tstype"], "unknown");
    assert!(value.get("headers").is_none());
}

#[derive(Debug, Default, PartialEq, Clone)]
struct Owned {
    topic: Option<Vec<u8>>,
    partition: Option<i32>,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn kv(key: &str, value: &str) -> Owned {
    Owned {
        key: Some(key.into()),
        ..v(value)
    }
}

fn v(value: &str) -> Owned {
    Owned {
        value: Some(value.into()),
        ..Owned::default()
    }
}

/// Hands out so many bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.1.min(self.0.len()).min(out.len());
        out[..bytes].copy_from_slice(&self.0[..bytes]);
        self.0 = &self.0[bytes..];
        Ok(bytes)
    }
}

fn read(layout: &str, input: &[u8], step: usize) -> Result<Vec<Owned>, String> {
    let format = InputFormat::parse(layout).map_err(|error| error.to_string())?;
    let mut reader = InputReader::new(Trickle(input, step), format);
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().map_err(|error| error.to_string())? {
        records.push(Owned {
            topic: record.topic.map(<[u8]>::to_vec),
            partition: record.partition,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
                .collect(),
        });
    }
    Ok(records)
}

#[test]
fn input_is_cut_at_delimiters_and_by_sizes() {
    let headers = |pairs: &[(&str, &str)]| -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).into(), Some((*value).into())))
            .collect()
    };
    let table: &[(&str, &[u8], Vec<Owned>)] = &[
        ("%v\\n", b"a\n\nb\n", vec![v("a"), v(""), v("b")]),
        ("%v\\n", b"a\nno newline", vec![v("a"), v("no newline")]),
        ("%v\\n", b"", vec![]),
        ("%k %v\\n", b"k v w\nl x", vec![kv("k", "v w"), kv("l", "x")]),
        ("%k::%v\\r\\n", b"a:b::c\rd\r\ne::f\r\n", vec![kv("a:b", "c\rd"), kv("e", "f")]),
        ("%v", b"all\nof it", vec![v("all\nof it")]),
        ("%K{big16}%k%V%v", b"\0\x02ab3xyz\0\x01c0\0\0", vec![kv("ab", "xyz"), kv("c", ""), ]),
        ("%T{2}%K{1}%V{1}%t%k%v", b"t1ab", vec![Owned { topic: Some(b"t1".to_vec()), ..kv("a", "b") }]),
        ("%p %d %o %v\\n", b"3 1700 -1 x\n", vec![Owned { partition: Some(3), timestamp: Some(1700), ..v("x") }]),
        ("%v{hex} %k{base64}\\n", b"6162 Yw==\n", vec![kv("c", "ab")]),
        ("%v{json}\\n", b"{ \"a b\" : [ 1 , \"\\\" \" ] }\n", vec![v("{\"a b\":[1,\"\\\" \"]}")]),
        ("%H{2}%h{%k=%v,}%v\\n", b"a=b,c=d,val\n", vec![Owned { headers: headers(&[("a", "b"), ("c", "d")]), ..v("val") }]),
        ("%H %h{%K{hex4}%V{hex4}%k%v}%v\\n", b"1 12abb!\n0 !\n", vec![Owned { headers: headers(&[("a", "bb")]), ..v("!") }, v("!")]),
        ("json", b"{\"payload\":\"x\",\"key\":null,\"ts\":5,\"offset\":1,\"tstype\":\"create\",\"broker\":1}\n\n {\"key\":\"YQ==\",\"key_encoding\":\"base64\",\"payload\":null}", vec![
            Owned { timestamp: Some(5), ..v("x") },
            Owned { key: Some(b"a".to_vec()), ..Owned::default() },
        ]),
    ];
    for (layout, input, expected) in table {
        for step in [1, 2, 7, 1000] {
            let input = match *layout {
                // A sized record's last bytes must be there.
                "%K{big16}%k%V%v" => &input[..input.len() - 2],
                _ => input,
            };
            assert_eq!(
                read(layout, input, step).as_ref(),
                Ok(expected),
                "{layout} by {step}"
            );
        }
    }
}

#[test]
fn input_that_does_not_match_is_told_with_its_record() {
    for (layout, input, reason) in [
        (
            "%k %v\\n",
            &b"a b\nnothing"[..],
            "record 2 of the input: its line ends before the format's \" \", after \"nothing\"",
        ),
        (
            "%k:%v\\n",
            b"nokey\n:emptykey\n",
            "record 1 of the input: its line ends",
        ),
        (
            "%k\\t%v\\n",
            b"a\tb\nc\n\nd\te\n",
            "record 2 of the input: its line ends",
        ),
        (
            "%H{1}%h{%k=%v;}%v\\n",
            b"a=b\nc;x\n",
            "record 1 of the input: its line ends",
        ),
        ("%v{hex}\\n", b"zz\n", "hexadecimal"),
        ("%v{base64}\\n", b"a\n", "base64"),
        ("%v{json}\\n", b"{\n", "JSON"),
        (
            "%V{big64}%v",
            b"\xff\xff\xff\xff\xff\xff\xff\xffx",
            "at most",
        ),
        ("%V{big32}%v", b"\0\0\0\x05abc", "ends within"),
        ("%p %v\\n", b"x y\n", "not a number"),
        ("%p %v\\n", b"-2 y\n", "not a partition"),
        ("a%v\\n", b"b\n", "instead of"),
        ("json", b"[1]\n", "line 1"),
        (
            "json",
            b"{\"headers\":[\"a\"],\"payload\":null}\n",
            "by turns",
        ),
        (
            "json",
            b"{\"payload\":\"a\"}\n\n{\"temperature\":1}\n",
            "line 3 of the input: unknown key `temperature`",
        ),
        ("json", b"{\"value\":\"p\"}\n", "did you mean `payload`?"),
        ("json", b"{\"payloud\":\"p\"}\n", "did you mean `payload`?"),
        ("json", b"{\"key\":\"p\"}\n", "no `payload`"),
        ("json", b"{\"payload\":{\"a\":1}}\n", "expected"),
        ("json", b"17\n", "leave out -f"),
        ("json", b"{\"payload\": nonsense\n", "line 1 of the input"),
    ] {
        let error = read(layout, input, 3).unwrap_err();
        assert!(error.contains(reason), "{layout}: {error}");
    }
}

#[test]
fn fields_of_json_lines_become_key_and_time_and_the_line_stays_as_it_is() {
    let read = |key: Option<&str>, time: Option<&str>, input: &str| {
        let format = InputFormat::fields(key.map(str::to_owned), time.map(str::to_owned));
        let mut reader = InputReader::new(input.as_bytes(), format);
        let record = reader.next_record().map_err(|error| error.to_string())?;
        let record = record.expect("a record");
        assert_eq!(record.value, Some(input.trim_end_matches('\n').as_bytes()));
        let key = record
            .key
            .map(|key| String::from_utf8_lossy(key).into_owned());
        Ok::<_, String>((key, record.timestamp))
    };
    let key = |text: &str| Some(text.to_owned());
    let seconds = "{\"d\":\"a\",\"t\":1700000000}\n";
    for (key_field, time_field, input, expected) in [
        (
            Some("d"),
            Some("t"),
            seconds,
            (key("a"), Some(1_700_000_000_000)),
        ),
        (Some("d"), None, "{ \"d\": 7 }", (key("7"), None)),
        (Some("d"), None, "{\"d\":null}", (None, None)),
        (
            Some("a.b"),
            None,
            "{\"a\":{\"b\":true}}",
            (key("true"), None),
        ),
        (
            Some("a.b"),
            None,
            "{\"a.b\":1,\"a\":{\"b\":2}}",
            (key("1"), None),
        ),
        (
            None,
            Some("t"),
            "{\"t\":1700000000123}",
            (None, Some(1_700_000_000_123)),
        ),
        (
            None,
            Some("t"),
            "{\"t\":1700000000.5}",
            (None, Some(1_700_000_000_500)),
        ),
        (
            None,
            Some("t"),
            "{\"t\":\"2023-11-14T22:13:20Z\"}",
            (None, Some(1_700_000_000_000)),
        ),
        (None, Some("t"), "{\"t\":-5}", (None, Some(0))),
    ] {
        assert_eq!(read(key_field, time_field, input), Ok(expected), "{input}");
    }
    for (input, reason) in [
        ("{\"d\":1}", "line 1 of the input: it has no field `t`"),
        ("{\"t\":1}", "it has no field `d`"),
        ("{\"d\":1,\"t\":\"-10m\"}", "not a time"),
        ("{\"d\":1,\"t\":[]}", "not a time"),
        ("no json", "line 1"),
        ("[1]", "no field"),
    ] {
        let error = read(Some("d"), Some("t"), input).unwrap_err();
        assert!(error.contains(reason), "{input}: {error}");
    }
}

#[test]
fn a_long_line_is_searched_once_however_it_comes() {
    // By single bytes a search from the line's start each time would look at 2 * 10^10 bytes.
    let line = vec![b'x'; 200_000];
    let records = read("%v\\n", &line, 1).expect("one record");
    assert_eq!(records.len(), 1);
    let format = InputFormat::parse("%v\\n").unwrap();
    let mut reader = InputReader::new(std::io::repeat(b'x'), format);
    reader.limit(4 << 20);
    let error = reader.next_record().unwrap_err().to_string();
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn input_formats_that_cannot_be_read_back_are_refused() {
    for layout in [
        "",
        "\\n",
        "%k%v",
        "%v%V",
        "%V%V%v",
        "%v%v",
        "%h{%k}",
        "%H%h",
        "%H%h{%k}",
        "%H%h{=}",
        "%H{1}%h{%o;}",
        "%V{0}%v",
        "%o{hex}",
        "%v{unpack[b]}",
        "%v{re[a]}",
        "%i",
    ] {
        assert!(InputFormat::parse(layout).is_err(), "{layout}");
    }
}

#[test]
fn a_record_larger_than_the_buffer_is_read_whole() {
    let long = vec![b'x'; 5 << 20];
    let records = read("%v\\n", &[&long[..], b"\nshort\n"].concat(), 1 << 30).unwrap();
    assert_eq!(records.len(), 2);
    assert!(records[0].value.as_deref() == Some(&long));
}

#[test]
fn headers_of_a_fetched_batch_are_written_like_those_in_memory() {
    let mut builder = BatchBuilder::new(Codec::None);
    builder
        .push(model::Timestamp::from_millis(5), None, None, HEADERS)
        .unwrap();
    let batch = Batch::parse(builder.build().unwrap()).unwrap();
    let mut records = batch.records(DecompressLimit::default()).unwrap();
    let fetched = records.next_ref().unwrap().unwrap();
    let output = OutputRecord {
        headers: Headers::Batch(fetched.headers()),
        ..OutputRecord::new("t", 0, 0)
    };
    let mut out = Vec::new();
    OutputFormat::parse("%h{%k=%v;}")
        .unwrap()
        .write(&output, &mut out);
    assert_eq!(out, b"unit=C;none=;");
}

proptest! {
    #[test]
    fn no_layout_panics(layout: String, input: Vec<u8>) {
        if let Ok(mut format) = OutputFormat::parse(&layout) {
            format.write(&record(), &mut Vec::new());
        }
        let _ = read(&layout, &input, 16);
    }

    #[test]
    fn no_layout_of_verbs_panics(
        layout in "(%[tTkKvVhHpoedaxyi\\[|\\]]|[ ,\\n]|\\{(hex|big16|ascii|3|go\\[06\\]|unpack\\[<bIs\\])\\}|\\{|\\}){0,12}",
        input: Vec<u8>,
    ) {
        if let Ok(mut format) = OutputFormat::parse(&layout) {
            format.write(&record(), &mut Vec::new());
        }
        let _ = read(&layout, &input, 3);
    }

    #[test]
    fn any_record_comes_back_by_sizes(
        records in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>(), prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..3)), 0..20),
        step in 1usize..50,
    ) {
        let layout = "%T %t%K{little32}%k%V{big64}%v%d %p{hex8}%H{big16}%h{%K %k%V{hex32}%v}";
        // In the input the blank after a number stands for itself, as in the output.
        let mut format = OutputFormat::parse(layout).unwrap();
        let mut out = Vec::new();
        for (key, value, headers) in &records {
            let headers: Vec<HeaderRef> = headers.iter().map(|(key, value)| (&key[..], Some(&value[..]))).collect();
            let record = OutputRecord {
                key: Some(key), value: Some(value), timestamp: -12, headers: Headers::Slice(&headers), ..OutputRecord::new("sea", 9, 0)
            };
            format.write(&record, &mut out);
        }
        let expected: Vec<Owned> = records.into_iter().map(|(key, value, headers)| Owned {
            topic: Some(b"sea".to_vec()),
            partition: Some(9),
            timestamp: Some(-12),
            key: Some(key),
            value: Some(value),
            headers: headers.into_iter().map(|(key, value)| (key, Some(value))).collect(),
        }).collect();
        prop_assert_eq!(read(layout, &out, step), Ok(expected));
    }

    #[test]
    fn any_record_comes_back_from_json(
        key: Option<Vec<u8>>, value: Option<Vec<u8>>, text: String, timestamp: i64,
        headers in prop::collection::vec((any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..3),
        step in 1usize..50,
    ) {
        let mut out = Vec::new();
        let mut expected = Vec::new();
        let refs: Vec<HeaderRef> = headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        for (key, value) in [(&key, &value), (&value, &Some(text.clone().into_bytes()))] {
            let record = OutputRecord {
                key: key.as_deref(), value: value.as_deref(), timestamp, headers: Headers::Slice(&refs), ..OutputRecord::new("sea", 4, 5)
            };
            OutputFormat::json().write(&record, &mut out);
            expected.push(Owned {
                topic: Some(b"sea".to_vec()),
                partition: Some(4),
                timestamp: Some(timestamp).filter(|&timestamp| timestamp != -1),
                key: key.clone(),
                value: value.clone(),
                headers: headers.clone(),
            });
        }
        for line in out.split_inclusive(|&byte| byte == b'\n') {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok());
        }
        prop_assert_eq!(read("json", &out, step), Ok(expected));
    }

    #[test]
    fn base64_comes_back(bytes: Vec<u8>, padded: bool) {
        let mut out = Vec::new();
        text::put_base64(&mut out, &bytes, padded);
        prop_assert_eq!(text::from_base64(&out), Some(bytes));
    }
}
