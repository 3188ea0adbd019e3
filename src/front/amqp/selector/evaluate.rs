//! What a selector says of a message: true, false, or unknown, as SQL's logic has it.
//! Callers: `Selector::selects`. A field that is not there is unknown, and so is what is made of it; unlike values are not equal, and not unequal either.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::syntax::{Arithmetic, Comparison, Expression, Wild};

/// What a field of a message has.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::front::amqp) enum Term<'a> {
    /// Nothing: it is not there, or null.
    Unknown,
    Truth(bool),
    Exact(i64),
    Approximate(f64),
    Text(Cow<'a, str>),
    /// What selectors know no values of: it is there, and equal to nothing.
    Other,
}

/// A message as a selector sees it.
pub(in crate::front::amqp) trait Fields {
    /// What the field of this name has.
    fn field(&self, name: &str) -> Term<'_>;
}

/// True, false; None for unknown.
type Truth = Option<bool>;

/// Whether an expression is true.
pub(super) fn truth(of: &Expression, fields: &dyn Fields) -> Truth {
    match of {
        Expression::Truth(it) => Some(*it),
        Expression::Not(of) => truth(of, fields).map(|it| !it),
        Expression::All(parts) => {
            let mut all = Some(true);
            for part in parts {
                match truth(part, fields) {
                    Some(false) => return Some(false),
                    Some(true) => {}
                    None => all = None,
                }
            }
            all
        }
        Expression::Any(parts) => {
            let mut any = Some(false);
            for part in parts {
                match truth(part, fields) {
                    Some(true) => return Some(true),
                    Some(false) => {}
                    None => any = None,
                }
            }
            any
        }
        Expression::Compare(how, both) => {
            let [left, right] = &**both;
            compared(*how, &term(left, fields), &term(right, fields))
        }
        Expression::Between(three) => {
            let [value, low, high] = &**three;
            let value = term(value, fields);
            let above = compared(Comparison::MoreOrEqual, &value, &term(low, fields));
            let below = compared(Comparison::LessOrEqual, &value, &term(high, fields));
            match (above, below) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            }
        }
        Expression::In(name, all) => match fields.field(name) {
            Term::Unknown => None,
            Term::Text(text) => Some(all.iter().any(|it| **it == *text)),
            _ => Some(false),
        },
        Expression::Like(name, pattern) => match fields.field(name) {
            Term::Unknown => None,
            Term::Text(text) => Some(is_like(&text, pattern)),
            _ => Some(false),
        },
        Expression::IsNull(name) => Some(fields.field(name) == Term::Unknown),
        Expression::Field(name) => match fields.field(name) {
            Term::Truth(it) => Some(it),
            Term::Unknown => None,
            _ => Some(false),
        },
        Expression::Exact(_)
        | Expression::Approximate(_)
        | Expression::Text(_)
        | Expression::Minus(_)
        | Expression::Chain(..) => Some(false),
    }
}

/// What an expression has.
fn term<'a>(of: &'a Expression, fields: &'a dyn Fields) -> Term<'a> {
    match of {
        Expression::Exact(number) => Term::Exact(*number),
        Expression::Approximate(number) => Term::Approximate(*number),
        Expression::Text(text) => Term::Text(Cow::Borrowed(text)),
        Expression::Field(name) => fields.field(name),
        Expression::Minus(of) => match term(of, fields) {
            Term::Exact(number) => Term::Exact(number.wrapping_neg()),
            Term::Approximate(number) => Term::Approximate(-number),
            _ => Term::Unknown,
        },
        Expression::Chain(first, rest) => {
            let mut all = term(first, fields);
            for (how, next) in rest {
                all = made(*how, &all, &term(next, fields));
            }
            all
        }
        condition => truth(condition, fields).map_or(Term::Unknown, Term::Truth),
    }
}

/// What arithmetic makes of two values, as Java has it; of what are no numbers, nothing is known.
fn made(how: Arithmetic, left: &Term<'_>, right: &Term<'_>) -> Term<'static> {
    if let (Term::Exact(left), Term::Exact(right)) = (left, right) {
        return match how {
            Arithmetic::Add => Term::Exact(left.wrapping_add(*right)),
            Arithmetic::Subtract => Term::Exact(left.wrapping_sub(*right)),
            Arithmetic::Multiply => Term::Exact(left.wrapping_mul(*right)),
            Arithmetic::Divide if *right == 0 => Term::Unknown,
            Arithmetic::Divide => Term::Exact(left.wrapping_div(*right)),
        };
    }
    let (Some(left), Some(right)) = (approximate(left), approximate(right)) else {
        return Term::Unknown;
    };
    Term::Approximate(match how {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
    })
}

fn approximate(of: &Term<'_>) -> Option<f64> {
    match of {
        Term::Exact(number) => Some(*number as f64),
        Term::Approximate(number) => Some(*number),
        _ => None,
    }
}

fn compared(how: Comparison, left: &Term<'_>, right: &Term<'_>) -> Truth {
    let order = match (left, right) {
        (Term::Unknown, _) | (_, Term::Unknown) => return None,
        (Term::Exact(left), Term::Exact(right)) => Some(left.cmp(right)),
        (Term::Text(left), Term::Text(right)) if !how.is_of_order() => {
            Some(left.as_ref().cmp(right.as_ref()))
        }
        (Term::Truth(left), Term::Truth(right)) if !how.is_of_order() => Some(left.cmp(right)),
        (left, right) => match (approximate(left), approximate(right)) {
            (Some(left), Some(right)) => match left.partial_cmp(&right) {
                // What is no number differs from every number.
                None => return Some(how == Comparison::Unequal),
                order => order,
            },
            // Unlike values.
            _ => return Some(false),
        },
    };
    order.map(|order| match how {
        Comparison::Equal => order == Ordering::Equal,
        Comparison::Unequal => order != Ordering::Equal,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
        Comparison::More => order == Ordering::Greater,
        Comparison::MoreOrEqual => order != Ordering::Less,
    })
}

/// Whether a text is as a pattern says: where one that takes any number took too little, the last one takes one more.
fn is_like(text: &str, pattern: &[Wild]) -> bool {
    let (mut rest, mut at) = (text.chars(), 0);
    let mut again: Option<(std::str::Chars<'_>, usize)> = None;
    loop {
        match pattern.get(at) {
            Some(Wild::Many) if at + 1 == pattern.len() => return true,
            Some(Wild::Many) => {
                at += 1;
                again = Some((rest.clone(), at));
                continue;
            }
            wanted => {
                let next = rest.next();
                let fits = match (wanted, next) {
                    (None, None) => return true,
                    (Some(Wild::Char(wanted)), Some(next)) => *wanted == next,
                    (Some(Wild::One), Some(_)) => true,
                    _ => false,
                };
                if fits {
                    at += 1;
                    continue;
                }
                if next.is_none() && wanted.is_some() {
                    return false;
                }
            }
        }
        let Some((from, behind)) = &mut again else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (rest, at) = (from.clone(), *behind);
    }
}
