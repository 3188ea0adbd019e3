//! The command line's grammar of places and times: the text of a place, a range, a time or a duration.

use model::Timestamp;
use model::time_spec::{Position, Range, parse_duration, parse_time};

/// 2023-11-14T22:13:20Z.
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// See the module.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let position = Position::parse(&text, NOW);
    if let Ok(position) = position
        && let Ok(range) = Range::parse(&text, NOW)
        && range.end.is_none()
    {
        assert_eq!(range.start, position, "a place alone is a range's start");
    }
    if let Ok(Range {
        start: Position::At(start),
        end: Some(Position::At(end)),
    }) = Range::parse(&text, NOW)
    {
        assert!(start < end, "no range is empty");
    }
    if let (Ok(Position::At(at)), Ok(time)) = (position, parse_time(&text, NOW)) {
        assert_eq!(at, time, "a time is the same time everywhere");
    }
    let _ = parse_duration(&text);
    // The edges of time do not overflow either.
    for now in [
        Timestamp::from_millis(i64::MIN),
        Timestamp::from_millis(i64::MAX),
    ] {
        let _ = (
            Position::parse(&text, now),
            Range::parse(&text, now),
            parse_time(&text, now),
        );
    }
}

/// What the documentation shows.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "0",
        "1700000000",
        "9223372036854775807",
        "earliest",
        "latest",
        "+3",
        "-3",
        "-10m",
        "+1h30m",
        "-1.5d",
        "1700000000s",
        "1700000000123ms",
        "1700000000123000us",
        "2023-11-14",
        "2023-11-14T22:13",
        "2023-11-14 22:13:20",
        "2023-11-14T22:13:20.1230001Z",
        "2023-11-15T00:13:20+02:00",
        "@1700000000",
        "@1700000000123456789",
        "@-48h",
        "12:20",
        "12-20",
        ":end",
        "-10m:-5m",
        "2022-02-14:+1h",
        "2022-02-14T00:00:00Z:2022-02-14T01:00:00Z",
        "@-48h:-24h",
        "@1644796800:1644800400",
        "PT10M",
        "-P1DT1H",
        "10s",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
