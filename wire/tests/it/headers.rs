//! Headers, the consumers' own data, and the exceptions of ApiVersions.

use wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use wire::messages::consumer_protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use wire::{ApiKey, Bytes, DecodeError, Message, Reader, RequestHeader, Writer, consumer, frame};

fn bytes_of(header: &RequestHeader) -> Bytes {
    let mut writer = Writer::new();
    header.encode(&mut writer).unwrap();
    writer.into_bytes()
}

#[test]
fn the_client_id_is_never_compact_and_may_be_null() {
    let header = |version, client_id: Option<&str>| RequestHeader {
        key: ApiKey::Metadata,
        version,
        correlation_id: 0x0102_0304,
        client_id: client_id.map(str::to_owned),
    };
    let cases: &[(i16, Option<&str>, &[u8])] = &[
        (8, Some("ab"), &[0, 3, 0, 8, 1, 2, 3, 4, 0, 2, b'a', b'b']),
        (
            9,
            Some("ab"),
            &[0, 3, 0, 9, 1, 2, 3, 4, 0, 2, b'a', b'b', 0],
        ),
        (8, None, &[0, 3, 0, 8, 1, 2, 3, 4, 0xff, 0xff]),
        (9, None, &[0, 3, 0, 9, 1, 2, 3, 4, 0xff, 0xff, 0]),
    ];
    for (version, client_id, wanted) in cases {
        let header = header(*version, *client_id);
        assert_eq!(bytes_of(&header), *wanted);
        assert_eq!(
            RequestHeader::decode(&mut Reader::new(bytes_of(&header))).unwrap(),
            header
        );
    }
}

#[test]
fn a_header_of_a_version_that_nobody_knows_can_be_read() {
    let header = RequestHeader {
        key: ApiKey::ApiVersions,
        version: 99,
        correlation_id: 5,
        client_id: Some("c".into()),
    };
    assert_eq!(
        RequestHeader::decode(&mut Reader::new(bytes_of(&header))).unwrap(),
        header
    );
}

#[test]
fn an_unknown_key_is_named() {
    let bytes = Bytes::from_static(&[0x03, 0xe7, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(
        RequestHeader::decode(&mut Reader::new(bytes)),
        Err(DecodeError::Key { code: 999 })
    );
}

#[test]
fn api_versions_answers_with_the_oldest_header_in_every_version() {
    for version in 0..=4 {
        let frame = frame::response(9, version, &ApiVersionsResponse::default()).unwrap();
        let mut reader = Reader::new(frame[0].slice(4..));
        assert_eq!(
            wire::decode_response_header(&mut reader, ApiKey::ApiVersions, version),
            Ok(9)
        );
        assert_eq!(reader.position(), 4);
        assert_eq!(
            ApiVersionsResponse::decode(&mut reader, version).unwrap(),
            ApiVersionsResponse::default()
        );
    }
    let request = ApiVersionsRequest {
        client_software_name: "n".into(),
        client_software_version: "1".into(),
    };
    assert!(
        request.encode(&mut Writer::new(), 0).is_ok(),
        "name and version may be left out"
    );
}

#[test]
fn consumer_data_of_a_newer_version_is_read_as_the_newest_known() {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["a".into(), "b".into()],
        user_data: Some(Bytes::from_static(b"u")),
        generation_id: 7,
        rack_id: Some("r".into()),
        ..Default::default()
    };
    let mut bytes = consumer::encode_subscription(&subscription, 3)
        .unwrap()
        .to_vec();
    assert_eq!(
        consumer::decode_subscription(Bytes::from(bytes.clone())).unwrap(),
        subscription
    );
    bytes[1] = 9;
    bytes.extend(b"added later");
    assert_eq!(
        consumer::decode_subscription(Bytes::from(bytes)).unwrap(),
        subscription
    );
    let none = consumer::decode_assignment(Bytes::new()).unwrap();
    assert_eq!(none, ConsumerProtocolAssignment::default());
}
