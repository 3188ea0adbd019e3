use proptest::prelude::*;

use super::*;

/// Parses, and gives the spelling or the error.
fn check(text: &str, expected: &str) {
    let found = match text.parse::<ThinTiers>() {
        Ok(tiers) => tiers.to_string(),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected, "{text}");
}

#[test]
fn tiers_are_read_and_spelled_in_one_way() {
    check("", "");
    check("0ms:1s:first", "0ms:1s:first");
    check(
        " 7d : 60s : first + last ;30d:24h:last ",
        "7d:1m:first+last; 30d:1d:last",
    );
    check(
        "90m:1500ms:min(json)+max(csv12)",
        "90m:1500ms:min(json)+max(csv12)",
    );
    check(
        "1h:1m:min(json/a%2Fb/0/sea%20temp)",
        "1h:1m:min(json/a%2Fb/0/sea%20temp)",
    );
    check("1h:1m:max( f32@4 )", "1h:1m:max(f32@4)");
    check("1h:1m:change(u16@0 by 0.50)", "1h:1m:change(u16@0 by 0.5)");
    check(
        "1h:1m:if(json/state is-not \"ok; + (really)\")+if(csv3 at-least -0.250)",
        "1h:1m:if(json/state is-not \"ok; + (really)\")+if(csv3 at-least -0.25)",
    );
    check(
        "1d:1m:change(csv2 by 0.1)+first; 2d:1h:change(csv2 by 0.3)",
        "1d:1m:change(csv2 by 0.1)+first; 2d:1h:change(csv2 by 0.3)",
    );
}

#[test]
fn parts_have_their_meaning() {
    let tiers: ThinTiers = "7d:1m:min(f32@4)+if(json/a/0 above 1.5)"
        .parse()
        .expect("valid");
    let condition = Condition {
        value: ValueAt::Json(vec!["a".to_owned(), "0".to_owned()]),
        test: Test::Above,
        operand: Operand::Number(Decimal::parse("1.5").expect("valid")),
    };
    let value = ValueAt::Binary {
        kind: NumberKind::F32,
        position: 4,
    };
    let expected = ThinTier {
        age_ms: 604_800_000,
        window_ms: 60_000,
        keep: vec![Selector::Min(value), Selector::If(condition)],
    };
    assert_eq!(tiers.tiers(), [expected]);
}

#[test]
fn an_error_names_the_tier_and_what_is_wrong_with_it() {
    let span = "expected a length of time, such as 7d, 12h, 5m, 30s or 500ms,";
    let value = "expected a value (json/name, csv1, or a type and a position, as f32@4)";
    for (text, error) in [
        ("7", format!("tier 1: {span} where it says \"7\"")),
        ("7w:1m:first", format!("tier 1: {span} where it says \"7w:1m:first\"")),
        (":1m:first", format!("tier 1: {span} where it says \":1m:first\"")),
        ("7d", "tier 1: expected \":\" after the age at the end".to_owned()),
        ("7d:1m", "tier 1: expected \":\" after the window at the end".to_owned()),
        ("7d:0s:first", "tier 1: its window must be from 1ms to 36500d".to_owned()),
        ("36501d:1s:first", "tier 1: its age must be from 0ms to 36500d".to_owned()),
        (
            "7d:1m:median",
            "tier 1: expected a selector (first, last, min(…), max(…), change(… by …) or if(…)) where it says \"median\""
                .to_owned(),
        ),
        (
            "7d:1m:first,last",
            "tier 1: expected \"+\" and a selector, or \";\" and a tier where it says \",last\"".to_owned(),
        ),
        ("7d:1m:min", "tier 1: expected \"(\" and a value at the end".to_owned()),
        ("7d:1m:min(temp)", format!("tier 1: {value} where it says \"temp)\"")),
        ("7d:1m:min(csv01)", format!("tier 1: {value} where it says \"csv01)\"")),
        ("7d:1m:min(csv0)", "tier 1: columns are counted from 1".to_owned()),
        ("7d:1m:min(json/)", "tier 1: expected a name, which is not empty and valid UTF-8, where it says \")\"".to_owned()),
        ("7d:1m:min(json/%f)", "tier 1: expected % and two hexadecimal digits where it says \"%f)\"".to_owned()),
        ("7d:1m:min(u16)", "tier 1: expected \"@\" and the number's position where it says \")\"".to_owned()),
        ("7d:1m:min(csv1", "tier 1: expected \")\" at the end".to_owned()),
        ("7d:1m:change(csv1)", "tier 1: expected \"by\" and a width where it says \")\"".to_owned()),
        ("7d:1m:change(csv1 by 0)", "tier 1: a change is by more than 0".to_owned()),
        (
            "7d:1m:if(csv1 = 3)",
            "tier 1: expected a test (is, is-not, below, above, at-least, at-most) where it says \"= 3)\"".to_owned(),
        ),
        (
            "7d:1m:if(csv1 below \"3\")",
            "tier 1: below compares numbers, not texts; texts take is and is-not".to_owned(),
        ),
        (
            "7d:1m:if(u8@0 is \"3\")",
            "tier 1: a binary number is compared with a number, not with a text".to_owned(),
        ),
        ("7d:1m:if(csv1 is \"3)", "tier 1: expected a quote that closes the text at the end".to_owned()),
        (
            "7d:1m:if(csv1 is 1234567890123456789)",
            "tier 1: the number 1234567890123456789 has more digits than can be told apart (18 at most)".to_owned(),
        ),
        ("7d:1m:first+last+first", "tier 1: first is named twice, or with two widths".to_owned()),
        (
            "7d:1m:change(csv1 by 1)+change(csv1 by 2)",
            "tier 1: change(csv1 by 2) is named twice, or with two widths".to_owned(),
        ),
        ("7d:1m:first; ", "tier 2: expected a length of time".to_owned()),
        ("7d:1m:first; 7d:1h:first", "tier 2: its age 7d is not more than tier 1's, 7d".to_owned()),
        ("7d:1m:first; 8d:90s:first", "tier 2: its window 90s is not a multiple of tier 1's, 1m".to_owned()),
        (
            "7d:1m:first; 8d:1h:first; 9d:90m:first",
            "tier 3: its window 90m is not a multiple of tier 2's, 1h".to_owned(),
        ),
        (
            "7d:1m:last; 8d:1h:last+max(csv2)",
            "tier 2: tier 1 does not keep max(csv2), so that the records are gone when they reach this tier".to_owned(),
        ),
        (
            "7d:1m:change(csv2 by 0.2); 8d:1h:change(csv2 by 0.3)",
            "tier 2: the width 0.3 of change(csv2 by 0.3) is not a multiple of tier 1's, 0.2".to_owned(),
        ),
    ] {
        let found = text.parse::<ThinTiers>().map_err(|error| error.to_string());
        let found = found.expect_err(text);
        assert!(found.starts_with(&error), "{text}\n{found}\n{error}");
    }
    let many = |parts: Vec<String>, sign: &str| parts.join(sign);
    let tiers = many((1..=9).map(|age| format!("{age}d:1m:first")).collect(), ";");
    check(&tiers, "tier 9: there are more than 8 tiers");
    let selectors = (1..=17).map(|column| format!("min(csv{column})"));
    let tier = format!("1d:1m:{}", many(selectors.collect(), "+"));
    check(&tier, "tier 1: there are more than 16 selectors");
}

#[test]
fn lengths_of_time_are_read_and_spelled_alone_too() {
    for (text, ms, spelled) in [
        ("1h", 3_600_000, "1h"),
        ("90s", 90_000, "90s"),
        ("24h", 86_400_000, "1d"),
    ] {
        assert_eq!(parse_span(text), Some(ms));
        assert_eq!(span(ms), spelled);
    }
    for text in ["", "1", "h", "1h30m", "0s", "1w", "-1h"] {
        assert_eq!(parse_span(text), None, "{text}");
    }
}

#[test]
fn decimals_are_exact() {
    let decimal = |text| Decimal::parse(text).expect("a number");
    for (text, spelled) in [
        ("007", "7"),
        ("-0", "0"),
        ("-0.50", "-0.5"),
        ("0.001", "0.001"),
        ("10.0", "10"),
    ] {
        assert_eq!(decimal(text).to_string(), spelled);
    }
    for text in [
        "",
        "-",
        ".5",
        "5.",
        "1e3",
        "+1",
        "1.2.3",
        "--1",
        "1234567890123456789",
    ] {
        assert_eq!(Decimal::parse(text), None, "{text}");
    }
    assert_eq!(decimal("0.3").multiple_of(decimal("0.1")), Some(3));
    assert_eq!(decimal("-5").multiple_of(decimal("2.5")), Some(-2));
    assert_eq!(decimal("0.3").multiple_of(decimal("0.2")), None);
    assert_eq!(decimal("1").multiple_of(decimal("0")), None);
    assert_eq!(decimal("-2.5").to_f64(), -2.5);
}

fn value() -> impl Strategy<Value = ValueAt> {
    let kind = prop::sample::select(NumberKind::ALL.map(|(_, kind, _)| kind).to_vec());
    prop_oneof![
        prop::collection::vec("[^\\x00]{1,6}", 0..3).prop_map(ValueAt::Json),
        (1u32..).prop_map(ValueAt::Csv),
        (kind, any::<u32>()).prop_map(|(kind, position)| ValueAt::Binary { kind, position }),
    ]
}

fn decimal() -> impl Strategy<Value = Decimal> {
    "-?[0-9]{1,9}\\.[0-9]{1,9}".prop_map(|text| Decimal::parse(&text).expect("a number"))
}

fn selector() -> impl Strategy<Value = Selector> {
    let test = prop::sample::select(Test::ALL.map(|(_, test)| test).to_vec());
    let number = (value(), test, decimal()).prop_map(|(value, test, number)| Condition {
        value,
        test,
        operand: Operand::Number(number),
    });
    let text = ("[^\"]{0,8}", 1u32.., any::<bool>()).prop_map(|(text, column, is)| Condition {
        value: ValueAt::Csv(column),
        test: if is { Test::Is } else { Test::IsNot },
        operand: Operand::Text(text),
    });
    prop_oneof![
        Just(Selector::First),
        Just(Selector::Last),
        value().prop_map(Selector::Min),
        value().prop_map(Selector::Max),
        (value(), decimal())
            .prop_filter("widths are positive", |(_, by)| by.is_positive())
            .prop_map(|(value, by)| Selector::Change { value, by }),
        prop_oneof![number, text].prop_map(Selector::If),
    ]
}

proptest! {
    #[test]
    fn what_is_spelled_is_read_as_the_same(
        keep in prop::collection::vec(selector(), 1..6), age_ms in 0..SPAN_MS_MAX, window_ms in 1..SPAN_MS_MAX,
    ) {
        let mut distinct: Vec<Selector> = Vec::new();
        for selector in keep {
            if !distinct.iter().any(|known| known.repeats(&selector)) {
                distinct.push(selector);
            }
        }
        let tiers = ThinTiers([ThinTier { age_ms, window_ms, keep: distinct }].into());
        let text = tiers.to_string();
        prop_assert_eq!(text.parse::<ThinTiers>(), Ok(tiers), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9dhms:;+()/@a-z .\"%-]{0,40}") {
        if let Ok(tiers) = text.parse::<ThinTiers>() {
            let again = tiers.to_string();
            prop_assert_eq!(again.parse::<ThinTiers>(), Ok(tiers));
        }
    }
}
