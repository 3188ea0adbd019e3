//! What the wire may make us allocate, and what the writer may copy.

use bytes::BytesMut;
use wire::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use wire::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::{
    ApiKey, Bytes, DecodeError, EncodeError, Message, Reader, Records, RequestHeader, Writer, frame,
};

#[test]
fn a_length_beyond_the_frame_is_refused_before_anything_is_allocated() {
    let frame = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
    let result = MetadataRequest::decode(&mut Reader::new(frame), 1);
    assert_eq!(
        result,
        // 2 bytes for the length of each name.
        Err(DecodeError::Truncated {
            position: 4,
            wanted: 0x7fff_ffff * 2,
            left: 0
        })
    );
}

#[test]
fn a_negative_length_other_than_null_is_refused() {
    let frame = Bytes::from_static(&[0xff, 0xff, 0xff, 0xfe]);
    let result = MetadataRequest::decode(&mut Reader::new(frame), 1);
    assert_eq!(
        result,
        Err(DecodeError::Length {
            position: 4,
            length: -2
        })
    );
}

#[test]
fn text_beyond_kafkas_bound_is_refused_in_both_directions_whatever_its_length_can_say() {
    let request = |bytes: usize| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("x".repeat(bytes)),
            ..Default::default()
        }]),
        ..Default::default()
    };
    for version in [1, 9, 12] {
        let mut writer = Writer::new();
        request(0x7fff).encode(&mut writer, version).unwrap();
        let longest = writer.into_bytes();
        let read = MetadataRequest::decode(&mut Reader::new(longest.clone()), version).unwrap();
        assert_eq!(read, request(0x7fff));
        let refused = request(0x8000).encode(&mut Writer::new(), version);
        assert_eq!(refused, Err(EncodeError::TooLong { length: 0x8000 }));
    }
    // Version 9: one topic, and a name with its compact length in three bytes, one more than the longest.
    let mut bytes = vec![2, 0x81, 0x80, 0x02];
    bytes.resize(4 + 0x8000 + 8, b'x');
    let refused = MetadataRequest::decode(&mut Reader::new(Bytes::from(bytes)), 9);
    let length = 0x8000;
    assert_eq!(
        refused,
        Err(DecodeError::Length {
            position: 4,
            length
        })
    );
}

#[test]
fn many_tiny_elements_cannot_grow_into_a_large_memory() {
    // Empty names: 2 bytes each on the wire, far more in memory.
    let count = 1_000_000;
    let mut bytes = vec![0; 4 + 2 * count];
    bytes[..4].copy_from_slice(&(count as i32).to_be_bytes());
    let bytes_max = count * size_of::<MetadataRequestTopic>() - 1;
    let mut reader = Reader::with_allocation_bound(Bytes::from(bytes.clone()), bytes_max);
    assert_eq!(
        MetadataRequest::decode(&mut reader, 1),
        Err(DecodeError::TooLarge { bytes_max })
    );
    let mut reader = Reader::with_allocation_bound(Bytes::from(bytes), bytes_max + 1);
    assert_eq!(
        MetadataRequest::decode(&mut reader, 1)
            .unwrap()
            .topics
            .unwrap()
            .len(),
        count
    );
}

#[test]
fn the_bound_on_memory_holds_for_the_whole_frame_and_not_for_each_list() {
    let topic = |name: &str| MetadataRequestTopic {
        name: Some(name.into()),
        ..Default::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic("abc"), topic("defg")]),
        ..Default::default()
    };
    let mut writer = Writer::new();
    request.encode(&mut writer, 1).unwrap();
    let bytes = writer.into_bytes();
    let needed = 2 * size_of::<MetadataRequestTopic>() + 7;
    let decode = |bound| {
        MetadataRequest::decode(&mut Reader::with_allocation_bound(bytes.clone(), bound), 1)
    };
    assert_eq!(decode(needed).unwrap(), request);
    assert_eq!(
        decode(needed - 1),
        Err(DecodeError::TooLarge {
            bytes_max: needed - 1
        })
    );
}

fn produce(records: Records) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData {
        index: 3,
        records: Some(records),
    }];
    let topic = TopicProduceData {
        name: "t".into(),
        partition_data,
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![topic],
        ..Default::default()
    }
}

#[test]
fn records_are_slices_of_the_frame_that_was_read() {
    for version in 3..=12 {
        let mut writer = Writer::new();
        produce(Bytes::from_static(b"a batch").into())
            .encode(&mut writer, version)
            .unwrap();
        let frame = writer.into_bytes();
        let mut request = ProduceRequest::decode(&mut Reader::new(frame.clone()), version).unwrap();
        let records = request.topic_data[0].partition_data[0]
            .records
            .take()
            .unwrap()
            .into_bytes();
        assert_eq!(records, "a batch");
        assert!(
            frame.as_ptr_range().contains(&records.as_ptr()),
            "version {version} copied the records"
        );
    }
}

#[test]
fn written_records_stand_in_the_pieces_where_they_lie() {
    let slices = [
        Bytes::from_static(b"from a segment"),
        Bytes::new(),
        Bytes::from_static(b"from the tail"),
    ];
    let partition = |records| PartitionData {
        records: Some(records),
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic: "t".into(),
            partitions: vec![
                partition(Records::from_slices(slices.to_vec())),
                partition(Records::EMPTY),
                partition(slices[0].clone().into()),
            ],
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in 4..=12 {
        let pieces = frame::response(77, version, &response).unwrap();
        for slice in slices.iter().filter(|s| !s.is_empty()) {
            assert!(
                pieces
                    .iter()
                    .any(|p| p.as_ptr() == slice.as_ptr() && p.len() == slice.len())
            );
        }
        assert!(pieces.iter().all(|p| !p.is_empty()));
        let whole = Records::from_slices(pieces).into_bytes();
        assert_eq!(whole[..4], (whole.len() as u32 - 4).to_be_bytes());
        let mut reader = Reader::new(whole.slice(4..));
        assert_eq!(
            wire::decode_response_header(&mut reader, ApiKey::Fetch, version),
            Ok(77)
        );
        assert_eq!(
            FetchResponse::decode(&mut reader, version).unwrap(),
            response
        );
        assert_eq!(reader.remaining(), 0);
    }
}

#[test]
fn null_records_and_empty_records_are_told_apart() {
    let mut request = produce(Records::EMPTY);
    for version in [3, 9] {
        for records in [None, Some(Records::EMPTY)] {
            request.topic_data[0].partition_data[0].records = records;
            let mut writer = Writer::new();
            request.encode(&mut writer, version).unwrap();
            let back =
                ProduceRequest::decode(&mut Reader::new(writer.into_bytes()), version).unwrap();
            assert_eq!(back, request);
        }
    }
}

#[test]
fn a_frame_longer_than_the_bound_is_refused_by_its_prefix() {
    assert_eq!(frame::check_length(100i32.to_be_bytes(), 100), Ok(100));
    for (length, bytes_max) in [(101, 100), (-1, 100), (i32::MIN, usize::MAX)] {
        assert_eq!(
            frame::check_length(length.to_be_bytes(), bytes_max),
            Err(frame::FrameTooLarge { length, bytes_max })
        );
    }
}

#[test]
fn frames_come_off_a_buffer_one_by_one() {
    let header = RequestHeader {
        key: ApiKey::Produce,
        version: 9,
        correlation_id: 1,
        client_id: None,
    };
    let one = Records::from_slices(
        frame::request(&header, &produce(Bytes::from_static(b"x").into())).unwrap(),
    )
    .into_bytes();
    let mut buffer = BytesMut::new();
    for byte in &one {
        assert_eq!(frame::split(&mut buffer, 1 << 20), Ok(None));
        buffer.extend_from_slice(&[*byte]);
    }
    buffer.extend_from_slice(&one[..3]);
    assert_eq!(frame::split(&mut buffer, 1 << 20), Ok(Some(one.slice(4..))));
    assert_eq!(frame::split(&mut buffer, 1 << 20), Ok(None));
    assert_eq!(buffer.len(), 3);
}

#[test]
fn what_does_not_fit_its_length_field_is_refused() {
    let mut writer = Writer::new();
    let long = "x".repeat(40_000);
    for flexible in [false, true] {
        assert_eq!(
            writer.text(Some(&long), flexible),
            Err(EncodeError::TooLong { length: 40_000 })
        );
    }
}

#[test]
fn a_field_that_the_version_lacks_is_refused_unless_it_may_be_left_out() {
    let mut request = produce(Records::EMPTY);
    request.topic_data[0].topic_id = wire::Uuid::from_u128(1);
    // The topic's name and its id are both ignorable.
    assert_eq!(request.encode(&mut Writer::new(), 12), Ok(()));
    assert_eq!(request.encode(&mut Writer::new(), 13), Ok(()));
    let metadata = MetadataRequest {
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    assert_eq!(
        metadata.encode(&mut Writer::new(), 3),
        Err(EncodeError::Absent {
            message: "MetadataRequest",
            field: "allow_auto_topic_creation",
            version: 3
        })
    );
    let metadata = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    assert_eq!(
        metadata.encode(&mut Writer::new(), 0),
        Err(EncodeError::Null("topics"))
    );
}
