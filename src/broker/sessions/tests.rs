//! Sessions as they are written, and when their cursors and the mark are.

use std::sync::Arc;
use std::time::Duration;

use model::hex::{from_hex, to_hex};
use model::{Offset, PartitionId, Timestamp, TopicId};

use super::Due;
use super::book::{Book, Moved, Wanted};
use super::positions::Positions;
use super::record::{Cursor, KeptSession, KeptWill, SessionKey, SessionRecord, read_again};
use crate::broker::access::{AccessConfig, Authorizer, Principal};
use crate::broker::allowance::{Allowance, Limit};
use crate::broker::place::Place;
use crate::broker::replay::ReadTo;

const GOLDEN: &str = include_str!("golden/sessions.v1");

#[test]
fn the_golden_records_are_read_and_written_to_the_byte() {
    let mut count = 0;
    for row in GOLDEN.lines() {
        let (key, value) = row.split_once('\t').expect("a key and a value");
        let of_hex = |text| from_hex(text).expect("hexadecimal digits");
        let (key, value) = (of_hex(key), of_hex(value));
        let (written_key, written) = read_again(&key, &value).expect(row);
        assert_eq!(
            (to_hex(&written_key), to_hex(&written)),
            (to_hex(&key), to_hex(&value))
        );
        for cut in 0..value.len() {
            assert_eq!(read_again(&key, &value[..cut]), None, "{cut}");
        }
        let more = [&value[..], &[0]].concat();
        assert_eq!(read_again(&key, &more), None);
        let later = [&[2], &value[1..]].concat();
        assert_eq!(read_again(&key, &later), None);
        assert_eq!(read_again(&key[1..], &value), None);
        count += 1;
    }
    assert_eq!(count, 7);
}

const TOPIC: TopicId = TopicId::from_uuid(uuid::Uuid::from_u128(42));

fn key(client_id: &str) -> SessionKey {
    SessionKey {
        owner: Principal::Anonymous,
        client_id: client_id.into(),
    }
}

fn at(offset: u64) -> Place {
    Place {
        topic: TOPIC,
        partition: PartitionId::new(0),
        offset: Offset::new(offset),
    }
}

fn ends(offset: u64) -> Positions {
    let mut positions = Positions::default();
    positions.set(at(offset));
    positions
}

fn kept() -> KeptSession {
    KeptSession {
        expiry_seconds: 60,
        ended_at: None,
        will: None,
        subscriptions: Vec::new(),
    }
}

/// What is to be written before a mark.
fn moved(book: &Book, mark: &Positions) -> Vec<Moved> {
    let mut looked = book.look_at_left();
    let mut behind = None;
    loop {
        let (some, last) = book.look(behind, 1);
        looked.extend(some);
        behind = last;
        if behind.is_none() {
            break;
        }
    }
    let all = looked.into_iter();
    all.filter_map(|it| it.moved(mark, &book.mark)).collect()
}

/// What is written before the mark, which is applied as well.
fn marked(book: &mut Book, mark: &Positions) -> Vec<(String, Cursor)> {
    let moved = moved(book, mark);
    let mut written = Vec::new();
    for it in &moved {
        assert!(book.is_still(it));
        let record = SessionRecord::Cursor(it.key.clone(), Some(Arc::clone(&it.cursor)));
        book.apply(&record);
        written.push((it.key.client_id.to_string(), Cursor::clone(&it.cursor)));
    }
    book.apply(&SessionRecord::Mark(mark.clone()));
    written.sort_by(|one, other| one.0.cmp(&other.0));
    written
}

#[test]
fn who_keeps_up_costs_a_mark_and_who_does_not_has_a_cursor_that_passes_nothing() {
    let mut book = Book::default();
    let read_to = Arc::new(ReadTo::default());
    let mut holds = Vec::new();
    for client in ["fast", "slow"] {
        book.apply(&SessionRecord::Session(key(client), Some(Arc::new(kept()))));
        let (_, progress) = book.hold(&key(client).into()).expect("nobody holds it");
        // Nothing is told of it before it tells itself.
        assert_eq!(moved(&book, &ends(5)).len(), holds.len());
        read_to.set(PartitionId::new(0), Offset::new(5));
        progress.follows(TOPIC, Arc::<ReadTo>::clone(&read_to));
        progress.begin();
        holds.push(progress);
    }
    let up = |offset| Cursor {
        keeps_up: true,
        read: ends(offset),
        unacked: Vec::new(),
    };
    let both = [("fast".to_owned(), up(5)), ("slow".to_owned(), up(5))];
    assert_eq!(marked(&mut book, &ends(5)), both);
    assert!(marked(&mut book, &ends(5)).is_empty(), "nothing has moved");
    // Both read on; one does not acknowledge.
    holds[1].sent(7, at(6));
    read_to.set(PartitionId::new(0), Offset::new(9));
    let behind = Cursor {
        keeps_up: false,
        read: ends(9),
        unacked: vec![(7, at(6))],
    };
    let slow = [("slow".to_owned(), behind)];
    assert_eq!(marked(&mut book, &ends(9)), slow);
    read_to.set(PartitionId::new(0), Offset::new(20));
    holds[1].acked(7);
    assert_eq!(marked(&mut book, &ends(9)), [("slow".to_owned(), up(20))]);
    // The server is killed: both go on at the mark or their own place, whichever is later.
    assert!(marked(&mut book, &ends(15)).is_empty());
    let mut again = Book::default();
    for client in ["fast", "slow"] {
        let of = &book.entries[&key(client)].state;
        let session = SessionRecord::Session(key(client), of.session.clone());
        again.apply(&session);
        let cursor = Arc::clone(&of.cursor);
        again.apply(&SessionRecord::Cursor(key(client), Some(cursor)));
    }
    again.apply(&SessionRecord::Mark(book.mark.clone()));
    again.opened();
    let read = |client| again.entries[&key(client)].state.cursor.read.clone();
    assert_eq!((read("fast"), read("slow")), (ends(15), ends(20)));
    // Before there is a new mark they have cursors of their own: they are not with it.
    let written = marked(&mut again, &ends(100));
    assert!(written.iter().all(|(_, cursor)| !cursor.keeps_up));
    assert_eq!(written.len(), 2);
}

#[test]
fn who_waits_for_a_session_waits_for_whoever_holds_it_now() {
    let mut book = Book::default();
    let key = Arc::new(key("a"));
    let (number, _) = book.hold(&key).expect("nobody holds it");
    let first = book.hold(&key).expect_err("it is held");
    assert!(book.tells(&key, &first));
    book.leave(&key, number);
    assert!(!book.tells(&key, &first), "nobody holds it");
    book.hold(&key).expect("nobody holds it");
    assert!(
        !book.tells(&key, &first),
        "that one's end is told elsewhere"
    );
    let second = book.hold(&key).expect_err("it is held");
    assert!(book.tells(&key, &second));
}

#[test]
fn a_session_is_held_by_one_at_a_time_and_what_is_not_kept_is_forgotten() {
    let mut book = Book::default();
    let (number, _) = book.hold(&key("a").into()).expect("nobody holds it");
    assert!(book.hold(&key("a").into()).is_err());
    book.leave(&key("a"), number + 1);
    assert!(
        book.hold(&key("a").into()).is_err(),
        "another's end is not its"
    );
    book.leave(&key("a"), number);
    assert!(book.entries.is_empty());
    book.apply(&SessionRecord::Session(key("a"), Some(Arc::new(kept()))));
    book.apply(&SessionRecord::Received(key("a"), 7, true));
    assert_eq!(book.kept(), 1);
    book.apply(&SessionRecord::Session(key("a"), None));
    book.apply(&SessionRecord::Received(key("a"), 7, false));
    assert_eq!((book.kept(), book.entries.len()), (0, 0));
}

#[test]
fn a_mark_passes_no_session_that_does_not_tell_its_place() {
    let up = Cursor {
        keeps_up: true,
        read: ends(5),
        unacked: Vec::new(),
    };
    let mut book = Book::default();
    book.apply(&SessionRecord::Session(key("a"), Some(Arc::new(kept()))));
    book.apply(&SessionRecord::Cursor(key("a"), Some(Arc::new(up))));
    book.apply(&SessionRecord::Mark(ends(9)));
    book.opened();
    // Somebody comes back to it before the first mark, and has not begun to tell.
    let (number, _) = book.hold(&key("a").into()).expect("nobody holds it");
    let own = |offset| Cursor {
        keeps_up: false,
        read: ends(offset),
        unacked: Vec::new(),
    };
    let wanted = [("a".to_owned(), own(9))];
    assert_eq!(marked(&mut book, &ends(20)), wanted);
    // Its connection is killed while it is with the mark: it has come as far as the last one.
    book.apply(&SessionRecord::Cursor(
        key("a"),
        Some(Arc::new(Cursor {
            keeps_up: true,
            ..own(20)
        })),
    ));
    book.apply(&SessionRecord::Mark(ends(30)));
    book.leave(&key("a"), number);
    let state = book.state(&key("a")).expect("it is kept");
    assert_eq!(state.cursor.read, ends(30));
    let wanted = [("a".to_owned(), own(30))];
    assert_eq!(marked(&mut book, &ends(40)), wanted);
    assert!(marked(&mut book, &ends(50)).is_empty());
}

#[test]
fn who_only_publishes_and_who_ends_with_its_connection_cost_no_cursor() {
    let mut book = Book::default();
    let read_to = Arc::new(ReadTo::default());
    read_to.set(PartitionId::new(0), Offset::new(9));
    for (client, expiry_seconds, reads) in [("pump", 60, false), ("will", 0, true)] {
        let session = KeptSession {
            expiry_seconds,
            ..kept()
        };
        book.apply(&SessionRecord::Session(
            key(client),
            Some(Arc::new(session)),
        ));
        let (_, progress) = book.hold(&key(client).into()).expect("nobody holds it");
        if reads {
            progress.follows(TOPIC, Arc::<ReadTo>::clone(&read_to));
        }
        progress.begin();
    }
    assert!(marked(&mut book, &ends(9)).is_empty());
}

#[test]
fn the_last_mark_passes_nobody_while_the_next_one_names_nothing() {
    let mut book = Book::default();
    assert!(marked(&mut book, &ends(9)).is_empty());
    book.apply(&SessionRecord::Session(key("a"), Some(Arc::new(kept()))));
    let (number, progress) = book.hold(&key("a").into()).expect("nobody holds it");
    let read_to = Arc::new(ReadTo::default());
    read_to.set(PartitionId::new(0), Offset::new(9));
    progress.follows(TOPIC, Arc::<ReadTo>::clone(&read_to));
    progress.sent(1, at(4));
    progress.begin();
    // Nobody read a topic when the ends were looked at: no such mark is written, and the last one holds.
    for it in moved(&book, &Positions::default()) {
        book.apply(&SessionRecord::Cursor(it.key, Some(it.cursor)));
    }
    let state = book.state(&key("a")).expect("it is kept");
    let unacked = vec![(1, at(4))];
    assert_eq!(
        (&state.cursor.read, &state.cursor.unacked),
        (&ends(9), &unacked)
    );
    // The same if the server is killed.
    book.leave(&key("a"), number);
    book.opened();
    let state = book.state(&key("a")).expect("it is kept");
    assert_eq!(
        (&state.cursor.read, &state.cursor.unacked),
        (&ends(9), &unacked)
    );
}

#[test]
fn what_a_connection_leaves_is_not_replaced_by_what_it_told_before() {
    let mut book = Book::default();
    book.apply(&SessionRecord::Session(key("a"), Some(Arc::new(kept()))));
    let (number, progress) = book.hold(&key("a").into()).expect("nobody holds it");
    let read_to = Arc::new(ReadTo::default());
    read_to.set(PartitionId::new(0), Offset::new(9));
    progress.follows(TOPIC, read_to);
    progress.sent(1, at(9));
    progress.begin();
    let before = moved(&book, &ends(9));
    assert!(before[0].cursor.keeps_up);
    progress.end();
    let left = Cursor {
        keeps_up: false,
        read: ends(10),
        unacked: vec![(1, at(9))],
    };
    let record = SessionRecord::Cursor(key("a"), Some(Arc::new(left.clone())));
    book.apply(&record);
    // Until the next connection of its client may hold it, and then.
    assert!(!book.is_still(&before[0]));
    assert!(moved(&book, &ends(9)).is_empty());
    book.leave(&key("a"), number);
    assert!(moved(&book, &ends(9)).is_empty());
    assert_eq!(*book.state(&key("a")).expect("it is kept").cursor, left);
}

#[test]
fn what_is_not_acknowledged_of_a_topic_that_is_read_no_longer_is_not_passed() {
    const OTHER: TopicId = TopicId::from_uuid(uuid::Uuid::from_u128(43));
    let mut book = Book::default();
    book.apply(&SessionRecord::Session(key("a"), Some(Arc::new(kept()))));
    let (_, progress) = book.hold(&key("a").into()).expect("nobody holds it");
    let read_to = Arc::new(ReadTo::default());
    read_to.set(PartitionId::new(0), Offset::new(9));
    progress.follows(TOPIC, Arc::<ReadTo>::clone(&read_to));
    progress.follows(OTHER, read_to);
    let place = Place {
        topic: OTHER,
        ..at(4)
    };
    progress.sent(1, place);
    progress.begin();
    progress.left(OTHER);
    let written = marked(&mut book, &ends(9));
    assert_eq!(written[0].1.unacked, [(1, place)]);
    progress.acked(1);
    let written = marked(&mut book, &ends(9));
    assert!(written[0].1.keeps_up && written[0].1.unacked.is_empty());
}

#[test]
fn what_waits_to_be_kept_is_not_passed() {
    let mut book = Book::default();
    book.apply(&SessionRecord::Session(key("a"), Some(Arc::new(kept()))));
    let (_, progress) = book.hold(&key("a").into()).expect("nobody holds it");
    let read_to = Arc::new(ReadTo::default());
    read_to.set(PartitionId::new(0), Offset::new(9));
    progress.follows(TOPIC, read_to);
    progress.begin();
    progress.takes(at(7));
    let read = |written: Vec<(String, Cursor)>| written[0].1.read.clone();
    assert_eq!(read(marked(&mut book, &ends(9))), ends(7));
    progress.kept(&[at(7)]);
    assert_eq!(read(marked(&mut book, &ends(9))), ends(9));
}

#[test]
fn the_time_of_a_session_that_was_cut_with_its_server_runs_over_further_starts() {
    let at = Timestamp::from_millis;
    let mut book = Book::default();
    book.apply(&SessionRecord::Session(key("a"), Some(Arc::new(kept()))));
    book.opened();
    let due = |book: &Book, started, now| {
        let state = book.state(&key("a")).expect("it is kept");
        Due::of(&state, (at(started), at(now)), Duration::from_secs(30))
    };
    assert!(!due(&book, 1_000, 30_000).is_any(), "it has some grace");
    let ended = due(&book, 1_000, 31_000);
    assert_eq!((ended.session, ended.ended_at), (false, Some(at(1_000))));
    let session = KeptSession {
        ended_at: ended.ended_at,
        ..kept()
    };
    book.apply(&SessionRecord::Session(key("a"), Some(Arc::new(session))));
    // The server is killed again.
    book.opened();
    assert!(!due(&book, 55_000, 60_000).is_any());
    assert!(due(&book, 55_000, 1_000 + 60_000).session);
}

#[test]
fn who_is_due_is_found_without_a_look_at_the_others() {
    let at = Timestamp::from_millis;
    let grace = Duration::from_secs(30);
    let will = |delay_seconds| {
        Some(Arc::new(KeptWill {
            delay_seconds,
            topic: "t".to_owned(),
            payload: bytes::Bytes::new(),
            retain: false,
            expiry_seconds: None,
            headers: Vec::new(),
        }))
    };
    let mut book = Book::default();
    let mut names = Vec::new();
    for expiry_seconds in [0, 10, 60] {
        for ended_at in [None, Some(at(1_000)), Some(at(40_000))] {
            for will in [None, will(0), will(5), will(100)] {
                let name = names.len().to_string();
                let session = KeptSession {
                    expiry_seconds,
                    ended_at,
                    will,
                    ..kept()
                };
                let session = Some(Arc::new(session));
                book.apply(&SessionRecord::Session(key(&name), session));
                names.push(name);
            }
        }
    }
    // A remnant.
    book.apply(&SessionRecord::Received(key("remnant"), 1, true));
    names.push("remnant".to_owned());
    let check = |book: &Book| {
        for now in [
            0, 999, 1_000, 6_000, 11_000, 29_999, 30_500, 45_000, 61_000, 200_000,
        ] {
            let times = (at(500), at(now));
            let mut found = book.due(times, grace);
            found.sort_by(|one, other| one.client_id.cmp(&other.client_id));
            let is_due = |name: &&String| {
                let entry = book.entries.get(&key(name));
                entry.is_some_and(|entry| {
                    entry.holder.is_none() && Due::of(&entry.state, times, grace).is_any()
                })
            };
            let mut wanted: Vec<_> = names.iter().filter(is_due).map(|it| key(it)).collect();
            wanted.sort_by(|one, other| one.client_id.cmp(&other.client_id));
            assert_eq!(found, wanted, "at {now}");
        }
    };
    check(&book);
    book.opened();
    check(&book);
    let held: Vec<_> = names.iter().step_by(3).collect();
    let numbers: Vec<u64> = held
        .iter()
        .map(|name| book.hold(&key(name).into()).expect("nobody holds it").0)
        .collect();
    check(&book);
    for (name, number) in held.iter().zip(numbers) {
        book.leave(&key(name), number);
    }
    check(&book);
    for name in names.iter().step_by(2) {
        book.apply(&SessionRecord::Session(key(name), None));
    }
    check(&book);
}

#[test]
fn a_session_is_on_the_account_of_its_user_and_makes_room_when_it_goes() {
    let access = AccessConfig {
        authorizer: Authorizer::Standard,
        super_users: vec!["root".to_owned()],
        everyone_if_none: false,
    };
    let of = |user: &str, client_id: &str| SessionKey {
        owner: Principal::User(user.into()),
        client_id: client_id.into(),
    };
    let session = Arc::new(kept());
    let mut book = Book::new(access.accounts());
    let limit = |setting, max| Limit { setting, max };
    let count = Allowance {
        all: limit("all", 5),
        of_one: limit("of one", 2),
    };
    let bytes = Allowance {
        all: limit("bytes", u64::MAX),
        of_one: limit("bytes of one", 2_000),
    };
    book.allow(count, bytes);
    let check = |book: &mut Book, key: &SessionKey| {
        let wanted = Wanted {
            session: Some(&session),
            ..Wanted::default()
        };
        book.check(key, wanted)
    };
    let keep = |book: &mut Book, key: SessionKey| {
        check(book, &key)?;
        let record = SessionRecord::Session(key, Some(Arc::clone(&session)));
        book.apply(&record);
        Ok(())
    };
    // Of the same client id each user has a session of its own, which counts for that user.
    for (user, client_id, told) in [
        ("alice", "pump", Ok(())),
        ("alice", "fan", Ok(())),
        ("alice", "lamp", Err(count.of_one)),
        ("alice", "pump", Ok(())),
        ("bob", "pump", Ok(())),
        ("root", "a", Ok(())),
        ("root", "b", Ok(())),
        ("root", "c", Err(count.all)),
    ] {
        assert_eq!(
            keep(&mut book, of(user, client_id)),
            told,
            "{user} {client_id}"
        );
    }
    let used = |book: &Book| -> Vec<u64> {
        let bounds = book.bounds(true);
        bounds.iter().map(|it| it.used).collect()
    };
    assert_eq!(used(&book)[..2], [5, 2]);
    // What is kept of it beside counts, too.
    let before = used(&book)[3];
    let cursor = Cursor {
        keeps_up: false,
        read: ends(7),
        unacked: vec![(1, at(3)); 20],
    };
    let moved = SessionRecord::Cursor(of("alice", "fan"), Some(Arc::new(cursor)));
    book.apply(&moved);
    assert!(used(&book)[3] > before + 20 * 24);
    let wanted = Wanted {
        received: 1,
        ..Wanted::default()
    };
    assert_eq!(book.check(&of("alice", "pump"), wanted), Err(bytes.of_one));
    assert_eq!(book.check(&of("bob", "pump"), wanted), Ok(()));
    for key in [of("alice", "fan"), of("alice", "pump")] {
        book.apply(&SessionRecord::Session(key.clone(), None));
        book.apply(&SessionRecord::Cursor(key, None));
    }
    assert_eq!(used(&book)[..2], [3, 1]);
    assert_eq!(keep(&mut book, of("alice", "lamp")), Ok(()));
}
