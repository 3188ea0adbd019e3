//! The frame reader, as a connection uses it: `read bytes u16 | bytes max u16 | stream`. The stream comes in pieces; however
//! it is cut, the same frames come out, and each is read as a request: header, then message.

use bytes::{Bytes, BytesMut};
use wire::frame::{PREFIX_BYTES, missing, split};
use wire::{Reader, RequestHeader, Writer, decode_response_header};

use crate::Input;
use crate::seeds::{Direction, traffic};
use crate::targets::messages;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let read_bytes = usize::from(input.u16()).max(1);
    let bytes_max = usize::from(input.u16());
    let stream = input.rest();
    let whole = frames(stream, stream.len().max(1), bytes_max);
    assert_eq!(
        frames(stream, read_bytes, bytes_max),
        whole,
        "frames do not depend on how the stream is cut"
    );
    for frame in whole.frames {
        read_request(frame);
    }
}

#[derive(Debug, PartialEq)]
struct Read {
    frames: Vec<Bytes>,
    refused: bool,
    rest: usize,
}

fn frames(stream: &[u8], read_bytes: usize, bytes_max: usize) -> Read {
    let mut buffer = BytesMut::new();
    let (mut frames, mut refused) = (Vec::new(), false);
    let mut taken = 0;
    for piece in stream.chunks(read_bytes) {
        buffer.extend_from_slice(piece);
        taken += piece.len();
        loop {
            let lacking = missing(&buffer);
            match split(&mut buffer, bytes_max) {
                Ok(Some(frame)) => {
                    assert_eq!(lacking, 0, "a whole frame lacks nothing");
                    assert!(frame.len() <= bytes_max);
                    frames.push(frame);
                }
                Ok(None) => {
                    assert!(lacking > 0 && lacking <= PREFIX_BYTES + bytes_max);
                    break;
                }
                Err(_) => {
                    refused = true;
                    break;
                }
            }
        }
        if refused {
            break;
        }
    }
    let framed: usize = frames.iter().map(|frame| frame.len() + PREFIX_BYTES).sum();
    assert_eq!(framed + buffer.len(), taken, "no byte is lost");
    // What stands behind a refused length is never read, so how much of it came does not count.
    let rest = if refused { 0 } else { buffer.len() };
    Read {
        frames,
        refused,
        rest,
    }
}

fn read_request(frame: Bytes) {
    let mut reader = Reader::new(frame);
    let Ok(header) = RequestHeader::decode(&mut reader) else {
        return;
    };
    let mut writer = Writer::new();
    header.encode(&mut writer).expect("what decoded encodes");
    let again = RequestHeader::decode(&mut Reader::new(writer.into_bytes()));
    assert_eq!(again.as_ref(), Ok(&header));
    let message = reader
        .take(reader.remaining())
        .expect("what remains is there");
    let mut answer = Reader::new(message.clone());
    let _ = decode_response_header(&mut answer, header.key, header.version);
    messages::read(header.key, header.version, false, message);
}

/// Recorded requests, some in one stream.
pub fn seeds() -> Vec<Vec<u8>> {
    let requests: Vec<Vec<u8>> = traffic()
        .into_iter()
        .filter(|exchange| exchange.direction == Direction::Request)
        .map(|exchange| {
            let bytes = u32::try_from(exchange.frame.len()).expect("frames are short");
            [&bytes.to_be_bytes()[..], &exchange.frame].concat()
        })
        .collect();
    let head = [0, 100, 0xff, 0xff];
    let streams = requests.chunks(3).map(|chunk| chunk.concat());
    let single = requests.iter().cloned();
    let mut seeds: Vec<Vec<u8>> = single
        .chain(streams)
        .map(|stream| [&head[..], &stream].concat())
        .collect();
    seeds.push([&head[..], &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat());
    seeds
}
