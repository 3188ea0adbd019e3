//! What Event Hubs' clients need beside links to topics: tokens, questions about a hub and its partitions, and owner levels.

use ::amqp::message::{Body, Message, Properties, SectionKind, put_section};
use ::amqp::performative::SenderSettleMode;
use ::amqp::sasl::{SaslFrame, SaslInit};
use ::amqp::{BytesMut, Composite as _, MapBuf, Symbol, Value};

use super::wire::{Amqp, source};
use super::{ROW, row, send, serve_amqp};
use crate::binary::Running;
use crate::denied::control;
use crate::oauth::Provider;
use crate::tls::Place;

const LEVEL: &str = "com.microsoft:epoch";
const PATH: &str = "events/ConsumerGroups/$Default/Partitions/0";

/// A request with an id, application properties, and a text as its value.
fn request(id: u64, said: &[(&str, &str)], text: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    Properties {
        message_id: Some(Value::Ulong(id)),
        ..Properties::NONE
    }
    .put(&mut out);
    let mut map = MapBuf::new();
    for (name, value) in said {
        map.put(&Value::String(name), &Value::String(value));
    }
    let said = Value::Map(map.as_map());
    put_section(&mut out, SectionKind::ApplicationProperties, &said);
    put_section(&mut out, SectionKind::Value, &Value::String(text));
    out.to_vec()
}

/// A question and its answers: links 0 and 1 to a node.
async fn ask_at(amqp: &mut Amqp, node: &str) {
    amqp.sender(0, Some(node)).await;
    amqp.until("flow Some(0)").await;
    amqp.receiver_as(1, source(node, None), "answers", None)
        .await;
    amqp.until("attach 1").await;
    amqp.credit(1, 0, 100, false).await;
}

/// Asks, and waits for the answer: its status, and its message.
async fn ask(amqp: &mut Amqp, id: u32, request: &[u8]) -> (i32, Vec<u8>) {
    amqp.transfer(0, id, request).await;
    loop {
        let (words, payload) = amqp.next().await;
        if !words.starts_with("transfer") {
            let settled = format!("disposition {id}..{id} accepted");
            assert!(
                words == settled || words.starts_with("flow"),
                "{words}, and no answer"
            );
            continue;
        }
        let message = Message::of(&payload).expect("a message");
        let (said, _) = message.application_properties.expect("what is said");
        let Some(Value::Int(status)) = said.get("status-code") else {
            panic!("{said:?} has no status");
        };
        let asked = Message::of(request).expect("a message").properties;
        let answered = message.properties.expect("properties").0.correlation_id;
        assert_eq!(answered, asked.expect("properties").0.message_id);
        return (status, payload);
    }
}

#[tokio::test]
async fn a_hub_and_its_partitions_are_told_to_whoever_asks_management() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let (status, _) = running.ask(
        "POST /api/v1/topics",
        "Content-Type: application/json\r\n",
        r#"{"name":"events","partitions":3}"#,
    );
    assert!(status < 300, "{status}");
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    // Without somebody who could hear the answer nothing is done.
    amqp.sender(0, Some("$management")).await;
    amqp.until("flow Some(0)").await;
    let hub = [
        ("operation", "READ"),
        ("type", "com.microsoft:eventhub"),
        ("name", "events"),
    ];
    amqp.transfer(0, 0, &request(0, &hub, "")).await;
    let said = amqp.until("disposition").await;
    assert_eq!(said, "disposition 0..0 rejected amqp:precondition-failed");
    amqp.detach(0, true).await;

    send(&mut amqp, 2, "events/Partitions/1", 1, &[ROW, ROW]).await;
    ask_at(&mut amqp, "$management").await;
    let (status, answer) = ask(&mut amqp, 3, &request(3, &hub, "")).await;
    assert_eq!(status, 200);
    let Body::Value(Value::Map(told)) = Message::of(&answer).expect("a message").body else {
        panic!("no map");
    };
    assert_eq!(told.get("name"), Some(Value::String("events")));
    assert_eq!(told.get("partition_count"), Some(Value::Int(3)));
    // That for Go takes an answer without it for none.
    let copies = told.get("georeplication_factor");
    assert_eq!(copies, Some(Value::Int(1)));
    let Some(Value::Array(ids)) = told.get("partition_ids") else {
        panic!("no array, which is what clients take: {told:?}");
    };
    let ids: Vec<_> = ids.iter().map(|it| it.text().map(str::to_owned)).collect();
    assert_eq!(ids, ["0", "1", "2"].map(|it| Some(it.to_owned())));

    for (id, partition, last, is_empty) in [(4, "1", 1, false), (5, "0", -1, true)] {
        let of = [
            ("operation", "READ"),
            ("type", "com.microsoft:partition"),
            ("name", "events"),
            ("partition", partition),
        ];
        let (status, answer) = ask(&mut amqp, id, &request(id.into(), &of, "")).await;
        assert_eq!(status, 200);
        let Body::Value(Value::Map(told)) = Message::of(&answer).expect("a message").body else {
            panic!("no map");
        };
        let number = |name| told.get(name).and_then(|it| it.integer());
        assert_eq!(number("begin_sequence_number"), Some(0));
        assert_eq!(number("last_enqueued_sequence_number"), Some(last));
        let offset = last.to_string();
        let told_offset = told.get("last_enqueued_offset");
        assert_eq!(told_offset, Some(Value::String(&offset)));
        let told_empty = told.get("is_partition_empty");
        assert_eq!(told_empty, Some(Value::Boolean(is_empty)));
        let Some(Value::Timestamp(time)) = told.get("last_enqueued_time_utc") else {
            panic!("no time");
        };
        assert_eq!(time < 0, is_empty, "no time is that of the year 1");
    }
    let of = |kind, partition| {
        let operation = ("operation", "READ");
        [operation, ("type", kind), ("name", "events"), partition]
    };
    let partition = "com.microsoft:partition";
    for (id, said, expected) in [
        (6, of(partition, ("partition", "9")), 404),
        (7, of(partition, ("partition", "x")), 404),
        (8, of(partition, ("x", "0")), 400),
        (9, of("com.microsoft:other", ("partition", "0")), 501),
    ] {
        let (status, _) = ask(&mut amqp, id, &request(id.into(), &said, "")).await;
        assert_eq!(status, expected, "{said:?}");
    }
}

/// Attaches a receiver of the partition with an owner level.
async fn attach(amqp: &mut Amqp, handle: u32, path: &str, level: Option<i64>) {
    let mut properties = MapBuf::new();
    if let Some(level) = level {
        properties.put_symbol(LEVEL, &Value::Long(level));
    }
    let properties = Some(properties.as_map());
    amqp.receiver_as(handle, source(path, None), "here", properties)
        .await;
}

#[tokio::test]
async fn a_partition_is_read_by_who_has_the_highest_owner_level_over_all_connections() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut first = Amqp::connect(running.other("AMQP")).await;
    let mut second = Amqp::connect(running.other("AMQP")).await;
    send(&mut first, 0, "events", 0, &[ROW]).await;
    attach(&mut first, 1, PATH, None).await;
    first.until("attach 1").await;
    attach(&mut second, 1, PATH, Some(0)).await;
    second.until("attach 1").await;
    assert_eq!(first.until("detach").await, "detach 1 amqp:link:stolen");
    // Another group's reader is another one; in this group none without a level, or with a lower one, is let in.
    let other = "events/ConsumerGroups/other/Partitions/0";
    attach(&mut first, 2, other, None).await;
    first.until("attach 2 0").await;
    attach(&mut first, 3, PATH, None).await;
    assert_eq!(first.until("detach").await, "detach 3 amqp:link:stolen");
    attach(&mut first, 4, PATH, Some(5)).await;
    first.until("attach 4").await;
    assert_eq!(second.until("detach").await, "detach 1 amqp:link:stolen");
    attach(&mut second, 2, PATH, Some(4)).await;
    assert_eq!(second.until("detach").await, "detach 2 amqp:link:stolen");
    // The owner is sent what there is, and what is lost is the link alone.
    first.credit(4, 0, 10, false).await;
    let (words, _) = first.next().await;
    assert!(words.starts_with("transfer"), "{words}");
    send(&mut second, 0, "events", 0, &[&row(7)]).await;
    assert_eq!(first.delivery().await.1, 7);
    // An owner that is gone leaves the partition to anybody.
    first.detach(4, true).await;
    attach(&mut second, 3, PATH, None).await;
    assert_eq!(second.until("attach 3").await, "attach 3 0");
    // A level is a partition's in a group, and a number.
    for (handle, path, level) in [
        (5, "events", 1),
        (6, "events/Partitions/0", 1),
        (7, PATH, -1),
    ] {
        attach(&mut second, handle, path, Some(level)).await;
        let told = second.until("detach").await;
        assert_eq!(told, format!("detach {handle} amqp:invalid-field"));
    }
}

#[tokio::test]
async fn who_reads_a_partition_for_a_group_is_sent_all_settled_unless_it_wants_to_settle() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = Amqp::connect(running.other("AMQP")).await;
    send(&mut amqp, 0, "events", 0, &[ROW]).await;
    for (handle, mode, end) in [
        (1, SenderSettleMode::Mixed, " settled"),
        (2, SenderSettleMode::Settled, " settled"),
        (3, SenderSettleMode::Unsettled, ")"),
    ] {
        let source = source(PATH, None);
        amqp.receiver_in_mode(handle, source, mode).await;
        amqp.until(&format!("attach {handle}")).await;
        amqp.credit(handle, 0, 1, false).await;
        let words = amqp.until("transfer").await;
        assert!(words.ends_with(end), "{mode:?}: {words}");
    }
    // Others may say what becomes of what they are sent.
    amqp.receiver(4, source("events/Partitions/0", None)).await;
    amqp.until("attach 4").await;
    amqp.credit(4, 0, 1, false).await;
    let words = amqp.until("transfer").await;
    assert!(words.ends_with(')'), "{words}");
}

/// A request to take a token of a kind.
fn put(id: u64, kind: &str, token: &str) -> Vec<u8> {
    let said = [
        ("operation", "put-token"),
        ("type", kind),
        ("name", "sb://here/events"),
    ];
    request(id, &said, token)
}

/// A connection that has logged in as nobody.
async fn anonymous(running: &Running) -> Amqp {
    let mut amqp = Amqp::open(running.other("AMQP")).await;
    amqp.raw(b"AMQP\x03\x01\x00\x00").await;
    amqp.until("mechanisms").await;
    amqp.log_in(SaslFrame::Init(SaslInit {
        mechanism: Symbol("ANONYMOUS"),
        initial_response: None,
        hostname: None,
    }))
    .await;
    assert_eq!(amqp.next().await.0, "outcome Ok");
    amqp.begin().await;
    amqp
}

const SAS: &str = "servicebus.windows.net:sastoken";

#[tokio::test]
async fn any_token_is_taken_where_access_is_not_controlled() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::start(&mut serve_amqp(directory.path()));
    let mut amqp = anonymous(&running).await;
    ask_at(&mut amqp, "$cbs").await;
    let token = put(0, SAS, "SharedAccessSignature sr=x");
    assert_eq!(ask(&mut amqp, 0, &token).await.0, 202);
    let deletes = request(1, &[("operation", "delete-token")], "");
    assert_eq!(ask(&mut amqp, 1, &deletes).await.0, 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_access_is_controlled_a_signed_token_lets_in_and_nothing_else_does() {
    let place = Place::new();
    let provider = Provider::new("1");
    let path = place.put("jwks.json", &provider.set(), 0o644);
    let mut command = serve_amqp(&place.path("data"));
    control(&mut command, &place.path("."));
    let source_of_keys = format!(
        "sasl.oauthbearer.jwks.endpoint.url=file://{}",
        path.display()
    );
    for setting in [
        source_of_keys.as_str(),
        "sasl.oauthbearer.expected.audience=here",
        "connection.failed.authentication.delay.ms=0",
        "failed.logins.per.ip.max=100000",
        "super.users=User:root;User:press4",
    ] {
        command.args(["-X", setting]);
    }
    let running = Running::start(&mut command);
    let mut silent = anonymous(&running).await;
    let mut amqp = anonymous(&running).await;
    // Before a token was shown there is nothing else.
    let denied = "amqp:unauthorized-access";
    amqp.sender(5, Some("events")).await;
    assert_eq!(amqp.until("detach").await, format!("detach 5 {denied}"));
    amqp.sender(6, Some("$management")).await;
    assert_eq!(amqp.until("detach").await, format!("detach 6 {denied}"));
    ask_at(&mut amqp, "$cbs").await;
    let other = Provider::new("1");
    let good = provider.token("press4", "here", 600);
    for (id, kind, token, expected) in [
        (0, SAS, "SharedAccessSignature sr=x", 401),
        (1, SAS, good.as_str(), 401),
        (2, "jwt", &other.token("press4", "here", 600), 401),
        (3, "jwt", &provider.token("press4", "there", 600), 401),
        (4, "jwt", &provider.token("press4", "here", -600), 401),
        (5, "jwt", &good, 202),
        // A connection is one user's.
        (6, "jwt", &provider.token("press5", "here", 600), 401),
    ] {
        let (status, _) = ask(&mut amqp, id, &put(id.into(), kind, token)).await;
        assert_eq!(status, expected, "{id}");
    }
    send(&mut amqp, 2, "events", 7, &[ROW]).await;
    // One that is over ends its connection, unless a newer one was put.
    let short = provider.token("press4", "here", 3);
    assert_eq!(ask(&mut amqp, 8, &put(8, "jwt", &short)).await.0, 202);
    assert_eq!(amqp.until("close").await, format!("close {denied}"));
    // And so is one who shows none.
    assert_eq!(silent.until("close").await, format!("close {denied}"));
}
