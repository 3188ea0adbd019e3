//! Retained messages as they are written and looked for.

use std::sync::Arc;

use bytes::Bytes;
use model::hex::{from_hex, to_hex};
use model::{Timestamp, TopicId, state_log::RETAINED_KEY_HEAD};

use super::super::allowance::{Allowance, Limit};
use super::book::{Book, KeptAt, Looked};
use super::record::{Kept, KeptOf, read_again};

const GOLDEN: [&str; 3] = [
    include_str!("golden/retained.v1"),
    include_str!("golden/retained.v2"),
    include_str!("golden/retained.v3"),
];

#[test]
fn the_golden_records_are_read_and_written_to_the_byte() {
    let mut count = 0;
    for row in GOLDEN.iter().flat_map(|golden| golden.lines()) {
        let (key, value) = row.split_once('\t').expect("a key and a value");
        let bytes = from_hex(value).expect("hexadecimal digits");
        let (written_key, written) = read_again(key.as_bytes(), &bytes).expect(row);
        assert_eq!(written_key, key.as_bytes());
        assert_eq!(to_hex(&written), value);
        // Nothing may be missing, nothing more be there, and no other version.
        for cut in 0..bytes.len() {
            assert_eq!(read_again(key.as_bytes(), &bytes[..cut]), None, "{cut}");
        }
        let more = [&bytes[..], &[0]].concat();
        assert_eq!(read_again(key.as_bytes(), &more), None);
        // Each other version has more, or less.
        for other in (1..=4).filter(|other| *other != bytes[0]) {
            let other = [&[other], &bytes[1..]].concat();
            assert_eq!(read_again(key.as_bytes(), &other), None);
        }
        assert_eq!(read_again(&key.as_bytes()[1..], &bytes), None);
        count += 1;
    }
    assert_eq!(count, 9);
    assert_eq!(RETAINED_KEY_HEAD, "retained/");
}

fn at(name: &str, value: &'static [u8], expires_ms: Option<i64>) -> KeptAt {
    let kept = Kept {
        name: name.into(),
        value: Bytes::from_static(value),
        headers: vec![(Bytes::from_static(b"k"), Bytes::from_static(b"v"))],
        at: Timestamp::from_millis(0),
        expires_at: expires_ms.map(Timestamp::from_millis),
        of: None,
    };
    KeptAt {
        kept: Arc::new(kept),
        place: None,
    }
}

#[test]
fn a_look_goes_on_by_steps_and_finds_each_name_below_its_prefix_once() {
    let mut book = Book::default();
    for name in ["a", "a!", "a/1", "a/2", "a/3", "aa", "b"] {
        book.insert(at(name, b"x", None));
    }
    for looked_max in 1..5 {
        let (mut found, mut behind) = (Vec::new(), None::<Arc<str>>);
        loop {
            let wants = |name: &str| name.starts_with("a/") && name != "a/2";
            match book.next("a", behind.as_deref(), looked_max, wants) {
                Looked::Found(it) => {
                    found.push(it.kept.name.to_string());
                    behind = Some(Arc::clone(&it.kept.name));
                }
                Looked::Further(name) => behind = Some(name),
                Looked::End => break,
            }
        }
        assert_eq!(found, ["a/1", "a/3"], "{looked_max} at a time");
    }
}

#[test]
fn what_is_held_is_counted_and_what_is_overdue_is_found() {
    let mut book = Book::default();
    book.insert(at("a", b"x", Some(10)));
    let bytes = book.bytes();
    let limit = |setting, max| Limit { setting, max };
    book.allow(Allowance {
        all: limit("all", 2 * bytes),
        of_one: limit("of one", bytes),
    });
    assert_eq!(book.check(&at("b", b"x", None).kept), Ok(()));
    assert_eq!(book.check(&at("a", b"xyz", None).kept), Ok(()));
    assert!(book.check(&at("b", b"xy", None).kept).is_err());
    book.insert(at("b", b"x", Some(20)));
    book.insert(at("a", b"x", Some(30)));
    assert_eq!((book.count(), book.bytes()), (2, 2 * bytes));
    let now = Timestamp::from_millis;
    let overdue = |millis| {
        let names = book.overdue(now(millis), 9);
        names.iter().map(|it| it.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(overdue(19), Vec::<String>::new());
    assert_eq!(overdue(20), ["b"]);
    assert_eq!(overdue(30), ["b", "a"]);
    assert!(book.is_overdue("b", now(20)) && !book.is_overdue("b", now(19)));
    book.remove("a");
    book.remove("b");
    assert_eq!((book.count(), book.bytes()), (0, 0));
    assert!(book.overdue(now(100), 9).is_empty());
}

#[test]
fn a_retained_message_is_on_the_account_of_who_published_it_last() {
    let owned = |name: &str, owner: Option<&str>| {
        let kept = Kept::clone(&at(name, b"x", None).kept);
        let of = Some(KeptOf {
            topic: TopicId::from_uuid(uuid::Uuid::from_u128(1)),
            key: None,
            owner: owner.map(Arc::from),
        });
        KeptAt {
            kept: Arc::new(Kept { of, ..kept }),
            place: None,
        }
    };
    let mut book = Book::default();
    book.insert(owned("a", Some("alice")));
    let one = book.bytes();
    let limit = |setting, max| Limit { setting, max };
    book.allow(Allowance {
        all: limit("all", 10 * one),
        of_one: limit("of one", one),
    });
    let of_one = Err(limit("of one", one));
    assert_eq!(book.check(&owned("b", Some("alice")).kept), of_one);
    assert_eq!(book.check(&owned("a", Some("alice")).kept), Ok(()));
    // Nobody's has the bound on all alone.
    for name in ["c", "d", "e"] {
        let nobodys = owned(name, None);
        assert_eq!(book.check(&nobodys.kept), Ok(()));
        book.insert(nobodys);
    }
    book.insert(owned("a", Some("carol")));
    assert_eq!(book.check(&owned("b", Some("alice")).kept), Ok(()));
    assert_eq!(book.check(&owned("b", Some("carol")).kept), of_one);
    let used: Vec<u64> = book.bounds(true).iter().map(|it| it.used).collect();
    assert_eq!(used, [book.bytes(), one]);
    book.remove("a");
    assert_eq!(book.check(&owned("b", Some("carol")).kept), Ok(()));
}
