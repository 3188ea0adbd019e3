//! The setting `thin.tiers`, and records that are thinned by it: `bytes u8 | so many bytes of text | values, a line each`.

use model::topic_config::thin::ThinTiers;
use model::{Offset, Timestamp};
use storage::cleanup::thinning::{Piece, Sample, ThinPolicy};

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let bytes = usize::from(input.u8());
    let rest = input.rest();
    let (text, values) = rest.split_at(bytes.min(rest.len()));
    let Ok(tiers) = String::from_utf8_lossy(text).parse::<ThinTiers>() else {
        return;
    };
    assert_eq!(tiers.to_string().parse(), Ok(tiers.clone()));
    let Some(policy) = ThinPolicy::new(&tiers) else {
        return;
    };
    let mut piece = Piece::new(&policy, 1 << 20, values.len() as u64);
    let mut end = Offset::ZERO;
    for value in values.split(|byte| *byte == b'\n') {
        piece.push(Sample {
            offset: end,
            key: value.get(..1),
            time: Timestamp::from_millis(value.len() as i64),
            appended: Timestamp::from_millis(0),
            value: Some(value),
        });
        end = end.plus(1);
    }
    let all = Offset::ZERO..end;
    let now = Timestamp::from_millis(i64::MAX);
    let decided = piece.decide(now, now);
    let mut going = decided.going(Offset::ZERO);
    let gone = (0..end.get()).filter(|offset| going.goes(Offset::new(*offset)));
    assert_eq!(gone.count() > 0, decided.drops_of(&all));
    let records = |range| -> u64 {
        let summary = decided.summary(&range);
        summary.windows.iter().map(|window| window.count).sum()
    };
    // In parts it tells of the same records.
    let parts = decided.parts(&all, 2);
    assert_eq!(parts.into_iter().map(records).sum::<u64>(), records(all));
}

/// Tiers of all kinds, and values for each.
pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |tiers: &str, values: &[u8]| {
        let bytes = u8::try_from(tiers.len()).expect("seeds are short");
        [&[bytes], tiers.as_bytes(), values].concat()
    };
    let json = "0ms:1s:first+min(json/a/0)+if(json/b is \"x\"); 1d:1m:min(json/a/0)";
    let cells = "7d:1m:last+max(csv2)+change(csv2 by 0.5); 30d:1h:change(csv2 by 1.5)";
    vec![
        seed(
            json,
            b"{\"a\":[1.5],\"b\":\"x\"}\n{\"a\":[-2e3],\"b\":\"y\"}\n{",
        ),
        seed(cells, b"1,2.5\n\"1,\"\"\",3\n4"),
        seed("1h:1m:max(f32@4)+min(i64@0)", b"12345678\n123456789\n"),
    ]
}
