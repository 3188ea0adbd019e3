use super::*;
use model::Timestamp;
use model::batch::{Batch, BatchBuilder, Codec, DecompressLimit};

fn is_met(condition: &str, value: &str) -> bool {
    let condition = Condition::parse(condition).expect(condition);
    let mut builder = BatchBuilder::new(Codec::None);
    let time = Timestamp::from_millis(1_700_000_000_000);
    builder
        .push(time, Some(b"truck-7"), Some(value.as_bytes()), &[])
        .expect("it fits");
    let batch = Batch::parse(builder.build().expect("a batch")).expect("a batch");
    let mut records = batch.records(DecompressLimit::default()).expect("records");
    let record = records.next_ref().expect("one").expect("a record");
    condition.is_met(PartitionId::new(3), &record)
}

#[test]
fn tests_follow_the_types_of_json() {
    let value = r#"{"temp":21.5,"n":9007199254740993,"s":"a'b","on":true,"none":null,"p":{"lat":-1},"l":[1],"key":"x"}"#;
    let met = [
        "temp = 21.5",
        "temp > 21 and temp < 22",
        "temp >= 21.5 AND NOT temp > 21.5",
        "n = 9007199254740993",
        "n > 9007199254740992.0",
        "n != 9007199254740992",
        "s = 'a''b'",
        "s = \"a'b\"",
        "s = 'a\\'b'",
        "s contains \"'\"",
        "on = true",
        "on != false",
        "none = null",
        "nothing = null",
        "none exists",
        "exists(p.lat)",
        "p.lat < 0",
        "`p.lat` = -1",
        "l exists",
        "not exists(nothing)",
        "key = 'truck-7'",
        "value.key = 'x'",
        "partition = 3",
        "offset = 0",
        "timestamp >= '2023-11-14' and timestamp < '2023-11-15T00:00:00Z'",
        "timestamp = 1700000000000",
        "value contains '21.5'",
        "temp = 0 or (temp = 1 or on = true) and n > 0",
    ];
    for condition in met {
        assert!(is_met(condition, value), "{condition}");
    }
    let unmet = [
        "temp = '21.5'",
        "s = 1",
        "nothing != 1",
        "none != 1",
        "temp = null",
        "l = 1",
        "l contains '1'",
        "n = 9007199254740992",
        "n = 9007199254740992.0",
        "on = 'true'",
        "on < true",
        "not (temp > 21)",
        "temp = 21.5 and not on = true",
    ];
    for condition in unmet {
        assert!(!is_met(condition, value), "{condition}");
    }
    assert!(!is_met("temp exists", "no JSON"));
    assert!(!is_met("a exists", "{\"a\":1"));
    assert!(is_met("not a = 1", "no JSON"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let at = |text: &str| Condition::parse(text).map(|_| ()).expect_err(text).at;
    assert_eq!(at(""), 1);
    assert_eq!(at("temp"), 5);
    assert_eq!(at("temp ="), 7);
    assert_eq!(at("é = 1 &"), 7);
    assert_eq!(at("a = 1 b = 2"), 7);
    assert_eq!(at("(a = 1"), 7);
    assert_eq!(at("a = 'x"), 5);
    assert_eq!(at("a < null"), 5);
    assert_eq!(at("a contains 1"), 12);
    assert_eq!(at("timestamp > 'soon'"), 13);
    assert_eq!(at("headers = 1"), 1);
    assert_eq!(at("a = 1e999"), 5);
}

#[test]
fn conditions_are_bounded() {
    let deep = format!(
        "{}a = 1{}",
        "(".repeat(DEPTH_MAX - 1),
        ")".repeat(DEPTH_MAX - 1)
    );
    Condition::parse(&deep).expect("as deep as it may be");
    let deeper = format!("({deep})");
    assert!(Condition::parse(&deeper).is_err());
    let many = vec!["a=1"; TESTS_MAX].join(" or ");
    Condition::parse(&many).expect("as many as there may be");
    assert!(Condition::parse(&format!("{many} or a=1")).is_err());
    assert!(Condition::parse(&" ".repeat(BYTES_MAX + 1)).is_err());
    let nots = format!("{} a = 1", "not ".repeat(1_000));
    assert!(Condition::parse(&nots).is_err());
}
