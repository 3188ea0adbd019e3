//! JMS's selectors: conditions on the fields of a message, as Jakarta Messaging 3.1, 3.8 has them. Pure.
//! Callers: `filter` reads them, `selected` says what a message's fields are, cursors and consumers ask them of each record.
//! Invariants: a text has at most 4 KiB and is nested at most 64 deep; a message is selected if its condition is true, and not if it is
//! false or unknown.

mod evaluate;
mod lexer;
mod parser;
mod syntax;

use std::sync::Arc;

pub(super) use evaluate::{Fields, Term};
use syntax::Expression;
pub(super) use syntax::SelectorError;

/// A selector. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    text: Arc<str>,
    condition: Arc<Expression>,
}

impl Selector {
    /// Reads a selector. None: it is blank, which is none (3.8.1).
    pub(super) fn parse(text: &str) -> Result<Option<Selector>, SelectorError> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(Selector {
            condition: Arc::new(parser::parse(text)?),
            text: text.trim().into(),
        }))
    }

    /// Its text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What it says of a message: true, false, or None for unknown. The message is selected if it is true.
    pub(super) fn truth(&self, fields: &dyn Fields) -> Option<bool> {
        evaluate::truth(&self.condition, fields)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    /// A message of some fields.
    struct Order;

    impl Fields for Order {
        fn field(&self, name: &str) -> Term<'_> {
            match name {
                "color" => Term::Text(Cow::Borrowed("red")),
                "quoted" => Term::Text(Cow::Borrowed("it's 100%")),
                "size" => Term::Exact(7),
                "weight" => Term::Approximate(2.5),
                "paid" => Term::Truth(true),
                "photo" => Term::Other,
                "amqp.annotation.x-opt-kind" => Term::Exact(1),
                _ => Term::Unknown,
            }
        }
    }

    fn said(text: &str) -> Option<bool> {
        let selector = Selector::parse(text);
        let selector = selector.unwrap_or_else(|error| panic!("{text}: {error}"));
        let selector = selector.expect("it is not blank");
        evaluate::truth(&selector.condition, &Order)
    }

    #[test]
    fn a_condition_is_true_false_or_unknown_as_sql_has_it() {
        for (text, expected) in [
            ("TRUE", Some(true)),
            ("paid", Some(true)),
            ("NOT paid", Some(false)),
            ("missing", None),
            ("color", Some(false)),
            ("color = 'red'", Some(true)),
            ("color <> 'red'", Some(false)),
            ("'red' = color", Some(true)),
            ("missing = 'red'", None),
            ("missing <> 'red'", None),
            ("NOT (missing = 'red')", None),
            // AND and OR with what is unknown.
            ("paid AND missing", None),
            ("missing AND paid", None),
            ("missing AND NOT paid", Some(false)),
            ("paid OR missing", Some(true)),
            ("missing OR NOT paid", None),
            ("missing = 1 OR missing = 2 OR size = 7", Some(true)),
            // AND binds closer than OR, NOT closer than AND.
            ("paid OR paid AND NOT paid", Some(true)),
            ("(paid OR paid) AND NOT paid", Some(false)),
            ("not paid and paid Or PAID is null", Some(true)),
            // Numbers.
            ("size = 7", Some(true)),
            ("size = 7.0", Some(true)),
            ("size <> 7", Some(false)),
            (
                "size > 6 AND size >= 7 AND size < 8 AND size <= 7",
                Some(true),
            ),
            ("weight = 2.5", Some(true)),
            ("weight = 25e-1", Some(true)),
            ("weight = 2.5f", Some(true)),
            ("size = 0x7", Some(true)),
            ("size + 1 = 010", Some(true)),
            ("size = 7L", Some(true)),
            ("size = 1_0 - 3", Some(true)),
            ("-size = -7", Some(true)),
            ("- - size = +7", Some(true)),
            ("size > -9223372036854775808", Some(true)),
            ("size < 9223372036854775807", Some(true)),
            ("size / 2 = 3", Some(true)),
            ("size / 2.0 = 3.5", Some(true)),
            ("size * 2 + 1 = 15", Some(true)),
            ("1 + size * 2 = 15", Some(true)),
            ("(1 + size) * 2 = 16", Some(true)),
            ("10 - 2 - 1 = size", Some(true)),
            ("size / 0 = 1", None),
            ("size / 0.0 > 1", Some(true)),
            ("size + missing = 1", None),
            ("color + 1 = 1", None),
            (".5 < weight AND 7. = size", Some(true)),
            // Unlike values are neither equal nor unequal.
            ("size = 'red'", Some(false)),
            ("size <> 'red'", Some(false)),
            ("paid = 'red'", Some(false)),
            ("paid = TRUE", Some(true)),
            ("(size = 7) = paid", Some(true)),
            ("color > 3", Some(false)),
            ("photo = 'red'", Some(false)),
            ("photo IS NOT NULL", Some(true)),
            ("amqp.annotation.x-opt-kind = 1", Some(true)),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn between_in_like_and_null_are_what_the_grammar_says() {
        for (text, expected) in [
            ("size BETWEEN 7 AND 9", Some(true)),
            ("size NOT BETWEEN 7 AND 9", Some(false)),
            ("size BETWEEN 8 AND 9", Some(false)),
            ("size BETWEEN 8 AND missing", Some(false)),
            ("size BETWEEN 1 AND missing", None),
            ("missing BETWEEN 1 AND 2", None),
            ("size BETWEEN 6 AND 8 AND paid", Some(true)),
            ("color IN ('blue', 'red')", Some(true)),
            ("color IN ('blue')", Some(false)),
            ("color NOT IN ('blue')", Some(true)),
            ("missing IN ('blue')", None),
            ("missing NOT IN ('blue')", None),
            ("size IN ('7')", Some(false)),
            ("missing IS NULL", Some(true)),
            ("missing IS NOT NULL", Some(false)),
            ("color IS NULL", Some(false)),
            ("color LIKE 'red'", Some(true)),
            ("color LIKE 'r%'", Some(true)),
            ("color LIKE 'r_d'", Some(true)),
            ("color LIKE 'r_'", Some(false)),
            ("color LIKE '___'", Some(true)),
            ("color LIKE '____'", Some(false)),
            ("color LIKE '%'", Some(true)),
            ("color LIKE '%%d'", Some(true)),
            ("color LIKE '%e%'", Some(true)),
            ("color LIKE '%x%'", Some(false)),
            ("color LIKE '%re%d%'", Some(true)),
            ("color LIKE '%ed_'", Some(false)),
            ("color LIKE ''", Some(false)),
            ("color NOT LIKE 'b%'", Some(true)),
            ("missing LIKE '%'", None),
            ("missing NOT LIKE '%'", None),
            ("size LIKE '7'", Some(false)),
            ("quoted = 'it''s 100%'", Some(true)),
            ("quoted LIKE '%100!%' ESCAPE '!'", Some(true)),
            ("quoted LIKE '%1!_0%' ESCAPE '!'", Some(false)),
            ("quoted LIKE '%1_0%' ESCAPE '!'", Some(true)),
            ("quoted LIKE 'it''s%'", Some(true)),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn what_the_grammar_does_not_have_is_refused() {
        for text in [
            "color =",
            "= 'red'",
            "color = 'red",
            "color == 'red'",
            "color = 'red' AND",
            "(color = 'red'",
            "color = 'red')",
            "color LIKE red",
            "color LIKE 'a' ESCAPE 'ab'",
            "color LIKE 'a!b' ESCAPE '!'",
            "color LIKE 'a!' ESCAPE '!'",
            "color IN ()",
            "color IN ('a',)",
            "color IN (1)",
            "color IS 1",
            "color NOT 'red'",
            "size BETWEEN 1",
            "'red' LIKE 'r%'",
            "5 IN ('5')",
            "1 IS NULL",
            "'red'",
            "5",
            "size + 1",
            "-size",
            "size AND 5",
            "NOT 'red'",
            "color > 'a'",
            "TRUE > FALSE",
            "'a' + 1 = 2",
            "-'a' = 2",
            "size = 9223372036854775808",
            "size = 99999999999999999999",
            "size = 0x",
            "size = 08",
            "size = 1.2.3",
            "size = 1e",
            "NULL = color",
            "color = NULL",
            "AND",
            "size # 1",
            "size = 1 size = 2",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        assert!(Selector::parse(" \t").is_ok_and(|it| it.is_none()));
    }

    #[test]
    fn long_and_deep_texts_are_refused_and_long_chains_are_no_depth() {
        let deep = |depth: usize| format!("{}paid{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(said(&deep(64)), Some(true));
        let refused = |text: &str| Selector::parse(text).expect_err("refused");
        assert_eq!(refused(&deep(65)), SelectorError::Deep);
        assert_eq!(refused(&"NOT ".repeat(65)), SelectorError::Deep);
        assert_eq!(
            refused(&format!("{}1 = 1", "- ".repeat(66))),
            SelectorError::Deep
        );
        let chain = ["paid"; 400].join(" AND ");
        assert_eq!(said(&chain), Some(true));
        let sum = format!("size + {} = 1007", ["1"; 1_000].join("+"));
        assert_eq!(said(&sum), Some(true));
        let long = format!("color = '{}'", "x".repeat(4_096));
        assert_eq!(refused(&long), SelectorError::Long);
    }

    /// Texts that are no selectors are refused, and never panic.
    #[test]
    fn no_text_panics() {
        let seeds = [
            "size BETWEEN 6 AND 8 AND color LIKE 'r!%%' ESCAPE '!' OR -1.5e+3 < weight",
            "ü = 'ö' AND $x IS NOT NULL OR a.b IN ('', '''')",
        ];
        for seed in seeds {
            for (start, _) in seed.char_indices() {
                for (end, _) in seed[start..].char_indices() {
                    if let Ok(Some(selector)) = Selector::parse(&seed[start..start + end]) {
                        selector.truth(&Order);
                    }
                }
            }
        }
    }
}
