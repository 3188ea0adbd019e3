//! `thin.tiers`: which of its records a topic keeps as they age. The words of the setting, as types.
//!
//! Called by the table of settings (check and spell) and by storage, which thins by them. Invariant of [`ThinTiers`]: ages
//! rise, each window is a multiple of the one before, and what a tier keeps the tier before keeps too, so that a record that
//! a later tier wants is still there. `docs/thinning.md` explains the syntax with examples.
//!
//! ```text
//! tiers     = tier { ";" tier }
//! tier      = age ":" window ":" selector { "+" selector }
//! selector  = "first" | "last" | "min(" value ")" | "max(" value ")"
//!           | "change(" value "by" number ")" | "if(" value test operand ")"
//! value     = "json" { "/" name } | "csv" column | type "@" position
//! test      = "is" | "is-not" | "below" | "above" | "at-least" | "at-most"
//! age, window = a whole number and "ms", "s", "m", "h" or "d"
//! ```

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

mod cursor;
mod number;

use cursor::Cursor;
pub use number::Decimal;

/// More tiers than anybody needs, so that a record's age is found by a short search.
pub const TIERS_MAX: usize = 8;
/// Selectors of one tier.
pub const SELECTORS_MAX: usize = 16;
/// A hundred years: longer ages and windows are slips of the keyboard.
pub const SPAN_MS_MAX: u64 = 36_500 * DAY_MS;

const DAY_MS: u64 = 86_400_000;
/// Units from the longest; the last one divides everything.
const UNITS: [(&str, u64); 5] = [
    ("d", DAY_MS),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// All tiers of a topic, the youngest first. Cheap to clone; empty if the topic has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThinTiers(Arc<[ThinTier]>);

/// What is kept of records from an age on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThinTier {
    /// How long ago the broker appended them, at least.
    pub age_ms: u64,
    /// The length of a window of record time. Windows begin at multiples of it since 1970.
    pub window_ms: u64,
    /// What is kept of each key in each window: a record that one of them selects.
    pub keep: Vec<Selector>,
}

/// Which records of a key and window are kept. Records are in the order of their time, those of the same time in that of offsets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The first one.
    First,
    /// The last one.
    Last,
    /// The first one with the smallest value.
    Min(ValueAt),
    /// The first one with the largest value.
    Max(ValueAt),
    /// Each one whose value lies in another band than that of the record before, and the window's first.
    /// Bands have this width and begin at its multiples.
    Change {
        /// Which value.
        value: ValueAt,
        /// The width of a band; more than zero.
        by: Decimal,
    },
    /// Each one for which this holds.
    If(Condition),
}

/// Where a value stands in a record's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueAt {
    /// In a JSON document, under these names; a number counts an array's items from 0. Empty: the document itself.
    Json(Vec<String>),
    /// In a line of cells between commas, in quotes or not (RFC 4180): which one, from 1.
    Csv(u32),
    /// A little-endian number.
    Binary {
        /// Its type.
        kind: NumberKind,
        /// How many bytes stand before it.
        position: u32,
    },
}

/// The type of a binary number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum NumberKind {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

impl NumberKind {
    const ALL: [(&'static str, NumberKind, u32); 10] = [
        ("i8", NumberKind::I8, 1),
        ("u8", NumberKind::U8, 1),
        ("i16", NumberKind::I16, 2),
        ("u16", NumberKind::U16, 2),
        ("i32", NumberKind::I32, 4),
        ("u32", NumberKind::U32, 4),
        ("i64", NumberKind::I64, 8),
        ("u64", NumberKind::U64, 8),
        ("f32", NumberKind::F32, 4),
        ("f64", NumberKind::F64, 8),
    ];

    fn row(self) -> (&'static str, NumberKind, u32) {
        *NumberKind::ALL
            .iter()
            .find(|(_, kind, _)| *kind == self)
            .expect("every type is in the list")
    }

    /// How many bytes it takes.
    pub fn bytes(self) -> u32 {
        self.row().2
    }
}

/// What must hold of a record's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which value.
    pub value: ValueAt,
    /// How it is compared.
    pub test: Test,
    /// With what.
    pub operand: Operand,
}

/// How a value is compared with an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Test {
    Is,
    IsNot,
    Below,
    Above,
    AtLeast,
    AtMost,
}

impl Test {
    const ALL: [(&'static str, Test); 6] = [
        ("is", Test::Is),
        ("is-not", Test::IsNot),
        ("below", Test::Below),
        ("above", Test::Above),
        ("at-least", Test::AtLeast),
        ("at-most", Test::AtMost),
    ];

    /// Whether it asks for an order, which only numbers have.
    fn is_order(self) -> bool {
        !matches!(self, Test::Is | Test::IsNot)
    }
}

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A number.
    Number(Decimal),
    /// A text, in double quotes: JSON's strings, `"true"` and `"false"`, or a cell.
    Text(String),
}

/// Which tier cannot be, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tier {tier}: {fault}")]
pub struct TierError {
    /// Which one, from 1.
    pub tier: usize,
    /// What is wrong with it.
    pub fault: TierFault,
}

/// What is wrong with a tier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierFault {
    /// Something else was expected here.
    #[error("expected {expected} {}", at(.found))]
    Expected {
        /// What.
        expected: &'static str,
        /// The text from here on, as it stands; empty at the end.
        found: String,
    },
    /// An age or a window that is too long, or a window of no length.
    #[error("{what} must be from {least} to 36500d")]
    Span {
        /// Age or window.
        what: &'static str,
        /// The least that it may be.
        least: &'static str,
    },
    /// A number that has too many digits.
    #[error("the number {number} has more digits than can be told apart (18 at most)")]
    Digits {
        /// It.
        number: String,
    },
    /// A width that is not more than zero.
    #[error("a change is by more than 0")]
    Width,
    /// A column 0.
    #[error("columns are counted from 1")]
    Column,
    /// An order of texts.
    #[error("{test} compares numbers, not texts; texts take is and is-not")]
    Order {
        /// The test.
        test: &'static str,
    },
    /// A binary number compared with a text.
    #[error("a binary number is compared with a number, not with a text")]
    BinaryText,
    /// The same selector twice, or two changes of one value.
    #[error("{selector} is named twice, or with two widths")]
    Twice {
        /// As it is spelled.
        selector: String,
    },
    /// Too many.
    #[error("there are more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most there may be.
        max: usize,
    },
    /// Not older than the tier before.
    #[error("its age {age} is not more than tier {before}'s, {age_before}")]
    Age {
        /// Its age.
        age: String,
        /// The tier before.
        before: usize,
        /// That one's age.
        age_before: String,
    },
    /// A window that does not consist of whole windows of the tier before.
    #[error("its window {window} is not a multiple of tier {before}'s, {window_before}")]
    Nesting {
        /// Its window.
        window: String,
        /// The tier before.
        before: usize,
        /// That one's window.
        window_before: String,
    },
    /// A selector of which the tier before has removed what it would select.
    #[error(
        "tier {before} does not keep {selector}, so that the records are gone when they reach this tier"
    )]
    NotKept {
        /// As it is spelled.
        selector: String,
        /// The tier before.
        before: usize,
    },
    /// A width that does not consist of whole bands of the tier before.
    #[error("the width {by} of {selector} is not a multiple of tier {before}'s, {by_before}")]
    BandNesting {
        /// As it is spelled.
        selector: String,
        /// Its width.
        by: Decimal,
        /// The tier before.
        before: usize,
        /// That one's width.
        by_before: Decimal,
    },
}

fn at(found: &str) -> String {
    match found.is_empty() {
        true => "at the end".to_owned(),
        false => format!("where it says {found:?}"),
    }
}

impl ThinTiers {
    /// The tiers, the youngest first.
    pub fn tiers(&self) -> &[ThinTier] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for ThinTiers {
    type Err = TierError;

    /// Reads the setting. The empty text has no tiers.
    fn from_str(text: &str) -> Result<ThinTiers, TierError> {
        let mut cursor = Cursor::new(text);
        let mut tiers: Vec<ThinTier> = Vec::new();
        while !cursor.is_at_end() {
            let tier = tiers.len() + 1;
            let named = |fault| TierError { tier, fault };
            if tier > TIERS_MAX {
                let (what, max) = ("tiers", TIERS_MAX);
                return Err(named(TierFault::TooMany { what, max }));
            }
            if let Some(fault) = (tier > 1)
                .then(|| {
                    cursor
                        .expect(";", "\"+\" and a selector, or \";\" and a tier")
                        .err()
                })
                .flatten()
            {
                let tier = tier - 1;
                return Err(TierError { tier, fault });
            }
            let parsed = take_tier(&mut cursor).map_err(named)?;
            if let Some(before) = tiers.last() {
                check_nesting(before, &parsed, tier - 1).map_err(named)?;
            }
            tiers.push(parsed);
        }
        Ok(ThinTiers(tiers.into()))
    }
}

fn take_tier(cursor: &mut Cursor<'_>) -> Result<ThinTier, TierFault> {
    let age_ms = take_span(cursor, "its age", 0)?;
    cursor.expect(":", "\":\" after the age")?;
    let window_ms = take_span(cursor, "its window", 1)?;
    cursor.expect(":", "\":\" after the window")?;
    let mut keep: Vec<Selector> = Vec::new();
    loop {
        let selector = take_selector(cursor)?;
        if keep.iter().any(|known| known.repeats(&selector)) {
            let selector = selector.to_string();
            return Err(TierFault::Twice { selector });
        }
        keep.push(selector);
        if keep.len() > SELECTORS_MAX {
            let (what, max) = ("selectors", SELECTORS_MAX);
            return Err(TierFault::TooMany { what, max });
        }
        if !cursor.eat("+") {
            break;
        }
    }
    Ok(ThinTier {
        age_ms,
        window_ms,
        keep,
    })
}

fn take_span(cursor: &mut Cursor<'_>, what: &'static str, least: u64) -> Result<u64, TierFault> {
    let expected = "a length of time, such as 7d, 12h, 5m, 30s or 500ms,";
    let fault = cursor.fault(expected);
    let digits = cursor.take_while(|c| c.is_ascii_digit());
    let unit = cursor.take_while(|c| c.is_ascii_alphabetic());
    let Some((_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(fault);
    };
    let number: u64 = digits.parse().map_err(|_| fault)?;
    number
        .checked_mul(*unit_ms)
        .filter(|span| (least..=SPAN_MS_MAX).contains(span))
        .ok_or(TierFault::Span {
            what,
            least: if least == 0 { "0ms" } else { "1ms" },
        })
}

fn take_selector(cursor: &mut Cursor<'_>) -> Result<Selector, TierFault> {
    let fault = cursor.fault("a selector (first, last, min(…), max(…), change(… by …) or if(…))");
    let selector = match cursor.take_while(|c| c.is_ascii_alphabetic()) {
        "first" => return Ok(Selector::First),
        "last" => return Ok(Selector::Last),
        name @ ("min" | "max" | "change" | "if") => {
            cursor.expect("(", "\"(\" and a value")?;
            let value = take_value(cursor)?;
            match name {
                "min" => Selector::Min(value),
                "max" => Selector::Max(value),
                "change" => take_change(cursor, value)?,
                _ => Selector::If(take_condition(cursor, value)?),
            }
        }
        _ => return Err(fault),
    };
    cursor.expect(")", "\")\"")?;
    Ok(selector)
}

fn take_value(cursor: &mut Cursor<'_>) -> Result<ValueAt, TierFault> {
    let fault = cursor.fault("a value (json/name, csv1, or a type and a position, as f32@4)");
    let word = cursor.take_while(|c| c.is_ascii_alphanumeric());
    if word == "json" {
        let mut path = Vec::new();
        while cursor.eat_close("/") {
            path.push(cursor.take_name()?);
        }
        return Ok(ValueAt::Json(path));
    }
    if let Some(column) = word.strip_prefix("csv") {
        return match column.parse::<u32>() {
            Ok(0) => Err(TierFault::Column),
            Ok(column) if column.to_string() == word[3..] => Ok(ValueAt::Csv(column)),
            _ => Err(fault),
        };
    }
    let Some((_, kind, _)) = NumberKind::ALL.iter().find(|(name, ..)| *name == word) else {
        return Err(fault);
    };
    if !cursor.eat_close("@") {
        return Err(cursor.fault("\"@\" and the number's position"));
    }
    let fault = cursor.fault("the number's position");
    let position = cursor.take_while(|c| c.is_ascii_digit()).parse();
    Ok(ValueAt::Binary {
        kind: *kind,
        position: position.map_err(|_| fault)?,
    })
}

fn take_change(cursor: &mut Cursor<'_>, value: ValueAt) -> Result<Selector, TierFault> {
    let fault = cursor.fault("\"by\" and a width");
    if cursor.take_while(|c| c.is_ascii_alphabetic()) != "by" {
        return Err(fault);
    }
    let by = cursor.take_number()?;
    if !by.is_positive() {
        return Err(TierFault::Width);
    }
    Ok(Selector::Change { value, by })
}

fn take_condition(cursor: &mut Cursor<'_>, value: ValueAt) -> Result<Condition, TierFault> {
    let fault = cursor.fault("a test (is, is-not, below, above, at-least, at-most)");
    let word = cursor.take_while(|c| c.is_ascii_alphabetic() || c == '-');
    let Some(&(name, test)) = Test::ALL.iter().find(|(name, _)| *name == word) else {
        return Err(fault);
    };
    let operand = match cursor.take_text()? {
        Some(_) if test.is_order() => return Err(TierFault::Order { test: name }),
        Some(_) if matches!(value, ValueAt::Binary { .. }) => return Err(TierFault::BinaryText),
        Some(text) => Operand::Text(text),
        None => Operand::Number(cursor.take_number()?),
    };
    Ok(Condition {
        value,
        test,
        operand,
    })
}

/// What makes thinning by `before` and then by `tier` the same as thinning by `tier` alone.
fn check_nesting(before: &ThinTier, tier: &ThinTier, number: usize) -> Result<(), TierFault> {
    if tier.age_ms <= before.age_ms {
        return Err(TierFault::Age {
            age: span(tier.age_ms),
            before: number,
            age_before: span(before.age_ms),
        });
    }
    if !tier.window_ms.is_multiple_of(before.window_ms) {
        return Err(TierFault::Nesting {
            window: span(tier.window_ms),
            before: number,
            window_before: span(before.window_ms),
        });
    }
    for selector in &tier.keep {
        check_kept(before, selector, number)?;
    }
    Ok(())
}

fn check_kept(before: &ThinTier, selector: &Selector, number: usize) -> Result<(), TierFault> {
    let Some(known) = before.keep.iter().find(|known| known.repeats(selector)) else {
        return Err(TierFault::NotKept {
            selector: selector.to_string(),
            before: number,
        });
    };
    match (known, selector) {
        (Selector::Change { by: by_before, .. }, Selector::Change { by, .. })
            if by.multiple_of(*by_before).is_none() =>
        {
            Err(TierFault::BandNesting {
                selector: selector.to_string(),
                by: *by,
                before: number,
                by_before: *by_before,
            })
        }
        _ => Ok(()),
    }
}

impl Selector {
    /// Whether they are the same but for the width of a change.
    pub fn repeats(&self, other: &Selector) -> bool {
        match (self, other) {
            (Selector::Change { value, .. }, Selector::Change { value: other, .. }) => {
                value == other
            }
            _ => self == other,
        }
    }

    /// The value that it looks at, if it does.
    pub fn value(&self) -> Option<&ValueAt> {
        match self {
            Selector::First | Selector::Last => None,
            Selector::Min(value) | Selector::Max(value) | Selector::Change { value, .. } => {
                Some(value)
            }
            Selector::If(condition) => Some(&condition.value),
        }
    }
}

/// Reads where a value stands, as selectors name it; None if it is written otherwise.
pub fn parse_value(text: &str) -> Option<ValueAt> {
    let mut cursor = Cursor::new(text);
    let value = take_value(&mut cursor).ok()?;
    cursor.is_at_end().then_some(value)
}

/// Reads a length of time as ages and windows are written, in milliseconds; None if it is written otherwise or of no length.
pub fn parse_span(text: &str) -> Option<u64> {
    let mut cursor = Cursor::new(text);
    let span = take_span(&mut cursor, "it", 1).ok()?;
    cursor.is_at_end().then_some(span)
}

/// A length of time in its one spelling.
pub fn span(ms: u64) -> String {
    let (unit, unit_ms) = UNITS
        .iter()
        .find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms) && ms > 0)
        .unwrap_or(&UNITS[4]);
    format!("{}{unit}", ms / unit_ms)
}

impl Display for ThinTiers {
    /// The setting in its one spelling.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, tier) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { "; " };
            write!(f, "{before}{tier}")?;
        }
        Ok(())
    }
}

impl Display for ThinTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", span(self.age_ms), span(self.window_ms))?;
        for (index, selector) in self.keep.iter().enumerate() {
            let before = if index == 0 { "" } else { "+" };
            write!(f, "{before}{selector}")?;
        }
        Ok(())
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::First => f.write_str("first"),
            Selector::Last => f.write_str("last"),
            Selector::Min(value) => write!(f, "min({value})"),
            Selector::Max(value) => write!(f, "max({value})"),
            Selector::Change { value, by } => write!(f, "change({value} by {by})"),
            Selector::If(condition) => write!(f, "if({condition})"),
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let test = Test::ALL.iter().find(|(_, test)| *test == self.test);
        let (name, _) = test.expect("every test is in the list");
        match &self.operand {
            Operand::Number(number) => write!(f, "{} {name} {number}", self.value),
            Operand::Text(text) => write!(f, "{} {name} \"{text}\"", self.value),
        }
    }
}

impl Display for ValueAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueAt::Json(path) => {
                f.write_str("json")?;
                path.iter()
                    .try_for_each(|name| write!(f, "/{}", cursor::escape(name)))
            }
            ValueAt::Csv(column) => write!(f, "csv{column}"),
            ValueAt::Binary { kind, position } => write!(f, "{}@{position}", kind.row().0),
        }
    }
}

#[cfg(test)]
mod tests;
