//! Where a follower was, as its client says it in the header Last-Event-ID. What is read is written again as the same place.

use alluvium::front::http::foreign::read_position;

/// See the module.
pub fn run(data: &[u8]) {
    let Some(text) = read_position(data) else {
        return;
    };
    assert_eq!(read_position(text.as_bytes()).as_ref(), Some(&text));
    let (tag, places) = text.split_once('/').expect("a topic, and places in it");
    assert!(data.starts_with(tag.as_bytes()), "the same topic");
    let partitions: Vec<u32> = places.split(',').filter_map(partition).collect();
    assert!(
        partitions.windows(2).all(|two| two[0] < two[1]),
        "each partition once, in their order"
    );
    let given = String::from_utf8_lossy(data);
    for place in places.split(',').filter(|place| !place.is_empty()) {
        let numbers = |text: &str| -> Vec<String> {
            let digits = text.split([':', '~', '@']);
            digits.map(same_number).collect()
        };
        let (_, given) = given.split_once('/').expect("it was read");
        assert!(
            given
                .split(',')
                .any(|given| numbers(given) == numbers(place)),
            "{place} was not given"
        );
    }
}

fn partition(place: &str) -> Option<u32> {
    place.split_once(':')?.0.parse().ok()
}

/// A number without what says nothing: zeros before it, and a plus.
fn same_number(text: &str) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => format!("{sign}{digits}"),
    }
}

/// Places as they are handed out.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "3f9a0c41/0:124,2:77~500@1700000000000,3:0~9@-5",
        "3f9a0c41/",
        "00000000/4294967295:9223372036854775807",
        "3f9a0c41/10:1,2:2,",
        "3f9a0c41/0:1,0:2",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
