//! Times in Go's layouts (`2006-01-02T15:04:05Z07:00`), always in UTC. Source: the documentation of Go's package `time`.

use jiff::civil::DateTime;

use super::text::put_unsigned;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// The layouts' elements, longest first where one begins like another.
const ELEMENTS: [(&str, Element); 37] = [
    ("January", Element::Month),
    ("Jan", Element::MonthShort),
    ("Monday", Element::Day),
    ("Mon", Element::DayShort),
    ("MST", Element::ZoneName),
    ("002", Element::DayOfYear(b'0')),
    ("01", Element::MonthNumber(2)),
    ("02", Element::DayOfMonth(b'0')),
    ("03", Element::Hour12(2)),
    ("04", Element::Minute(2)),
    ("05", Element::Second(2)),
    ("06", Element::YearShort),
    ("__2", Element::DayOfYear(b' ')),
    ("_2006", Element::UnderscoreYear),
    ("_2", Element::DayOfMonth(b' ')),
    ("2006", Element::Year),
    ("15", Element::Hour),
    ("1", Element::MonthNumber(1)),
    ("2", Element::DayOfMonth(0)),
    ("3", Element::Hour12(1)),
    ("4", Element::Minute(1)),
    ("5", Element::Second(1)),
    ("PM", Element::Half(["AM", "PM"])),
    ("pm", Element::Half(["am", "pm"])),
    ("-07:00:00", Element::Text("+00:00:00")),
    ("-070000", Element::Text("+000000")),
    ("-07:00", Element::Text("+00:00")),
    ("-0700", Element::Text("+0000")),
    ("-07", Element::Text("+00")),
    ("Z07:00:00", Element::Text("Z")),
    ("Z070000", Element::Text("Z")),
    ("Z07:00", Element::Text("Z")),
    ("Z0700", Element::Text("Z")),
    ("Z07", Element::Text("Z")),
    (".0", Element::Fraction),
    (",0", Element::Fraction),
    (".9", Element::Fraction),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    Literal(char),
    Text(&'static str),
    Year,
    UnderscoreYear,
    YearShort,
    Month,
    MonthShort,
    MonthNumber(usize),
    Day,
    DayShort,
    DayOfMonth(u8),
    DayOfYear(u8),
    Hour,
    Hour12(usize),
    Minute(usize),
    Second(usize),
    Half([&'static str; 2]),
    ZoneName,
    Fraction,
    FractionOf {
        separator: u8,
        digits: usize,
        trimmed: bool,
    },
}

/// A layout, taken apart once.
#[derive(Clone, Debug)]
pub(super) struct GoLayout(Vec<Element>);

impl GoLayout {
    pub(super) fn parse(layout: &str) -> GoLayout {
        let mut elements = Vec::new();
        let mut rest = layout;
        while let Some(first) = rest.chars().next() {
            match ELEMENTS.iter().find(|(text, _)| rest.starts_with(text)) {
                Some((_, Element::Fraction)) => {
                    let digit = char::from(rest.as_bytes()[1]);
                    let after = rest[1..].trim_start_matches(digit);
                    let digits = rest.len() - 1 - after.len();
                    // A digit after it: no fraction, but text.
                    if digits > 9 || after.starts_with(|c: char| c.is_ascii_digit()) {
                        elements.push(Element::Literal(first));
                        rest = &rest[1..];
                    } else {
                        let separator = first as u8;
                        elements.push(Element::FractionOf {
                            separator,
                            digits,
                            trimmed: digit == '9',
                        });
                        rest = after;
                    }
                }
                // "Jan" in "January" is found first; in "Janus" Go takes no month.
                Some(("Jan" | "Mon", _))
                    if rest[3..].starts_with(|c: char| c.is_ascii_lowercase()) =>
                {
                    elements.push(Element::Literal(first));
                    rest = &rest[first.len_utf8()..];
                }
                Some((text, element)) => {
                    elements.push(*element);
                    rest = &rest[text.len()..];
                }
                None => {
                    elements.push(Element::Literal(first));
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        GoLayout(elements)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, at: DateTime) {
        for element in &self.0 {
            element.write(out, at);
        }
    }
}

impl Element {
    fn write(self, out: &mut Vec<u8>, at: DateTime) {
        let number = |value: i8| u64::from(value.unsigned_abs());
        let year = at.year();
        match self {
            Element::Literal(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Element::Text(text) => out.extend_from_slice(text.as_bytes()),
            Element::Year | Element::UnderscoreYear => {
                if self == Element::UnderscoreYear {
                    out.push(b'_');
                }
                if year < 0 {
                    out.push(b'-');
                }
                put_padded(out, u64::from(year.unsigned_abs()), 4, b'0');
            }
            Element::YearShort => put_padded(out, u64::from(year.unsigned_abs() % 100), 2, b'0'),
            Element::Month => out.extend_from_slice(month(at).as_bytes()),
            Element::MonthShort => out.extend_from_slice(&month(at).as_bytes()[..3]),
            Element::MonthNumber(width) => put_padded(out, number(at.month()), width, b'0'),
            Element::Day => out.extend_from_slice(day(at).as_bytes()),
            Element::DayShort => out.extend_from_slice(&day(at).as_bytes()[..3]),
            Element::DayOfMonth(0) => put_unsigned(out, number(at.day())),
            Element::DayOfMonth(fill) => put_padded(out, number(at.day()), 2, fill),
            Element::DayOfYear(fill) => {
                put_padded(out, u64::from(at.day_of_year().unsigned_abs()), 3, fill)
            }
            Element::Hour => put_padded(out, number(at.hour()), 2, b'0'),
            Element::Hour12(width) => {
                put_padded(out, (number(at.hour()) + 11) % 12 + 1, width, b'0')
            }
            Element::Minute(width) => put_padded(out, number(at.minute()), width, b'0'),
            Element::Second(width) => put_padded(out, number(at.second()), width, b'0'),
            Element::Half(names) => {
                out.extend_from_slice(names[usize::from(at.hour() >= 12)].as_bytes())
            }
            Element::ZoneName => out.extend_from_slice(b"UTC"),
            Element::Fraction => {}
            Element::FractionOf {
                separator,
                digits,
                trimmed,
            } => {
                put_fraction(
                    out,
                    at.subsec_nanosecond().unsigned_abs(),
                    separator,
                    digits,
                    trimmed,
                );
            }
        }
    }
}

fn month(at: DateTime) -> &'static str {
    MONTHS[usize::from(at.month().unsigned_abs()) - 1]
}

fn day(at: DateTime) -> &'static str {
    DAYS[usize::from(at.weekday().to_monday_zero_offset().unsigned_abs())]
}

fn put_padded(out: &mut Vec<u8>, value: u64, width: usize, fill: u8) {
    let start = out.len();
    put_unsigned(out, value);
    while out.len() - start < width {
        out.insert(start, fill);
    }
}

fn put_fraction(out: &mut Vec<u8>, nanos: u32, separator: u8, digits: usize, trimmed: bool) {
    let start = out.len();
    out.push(separator);
    put_padded(out, u64::from(nanos), 9, b'0');
    out.truncate(start + 1 + digits);
    if trimmed {
        while out.len() > start && matches!(out.last(), Some(b'0')) {
            out.pop();
        }
        if out.len() == start + 1 {
            out.pop();
        }
    }
}
