//! What a selector is once it was read, and why a text is none.
//! Callers: the parser makes it, the evaluation walks it. Chains of one operator are lists, so that it is no deeper than its text is nested.

/// A selector has no more bytes.
pub(super) const BYTES_MAX: usize = 4 << 10;
/// Parentheses and operators before an operand are nested no deeper.
pub(super) const DEPTH_MAX: usize = 64;

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::front::amqp) enum SelectorError {
    /// More bytes than there may be.
    #[error("a selector has at most {BYTES_MAX} bytes")]
    Long,
    /// Nested deeper than it may be.
    #[error("a selector is nested at most {DEPTH_MAX} deep")]
    Deep,
    /// It ends too early.
    #[error("the selector ends where {0} is expected")]
    Ends(&'static str),
    /// Something else stands where something is expected.
    #[error("the selector has {found} at byte {at}, where {expected} is expected")]
    Unexpected {
        /// What.
        expected: &'static str,
        /// Instead of it.
        found: String,
        /// Where.
        at: usize,
    },
    /// A string without its end.
    #[error("the string at byte {0} does not end")]
    OpenString(usize),
    /// A number that is none, or out of range.
    #[error("{0} is no number of the range")]
    Number(String),
    /// An operator with an operand that it cannot have.
    #[error("{operator} cannot have such an operand")]
    Operand {
        /// Which.
        operator: &'static str,
    },
    /// A pattern whose escape stands before something else than itself, `%` or `_`, or is not one character.
    #[error("the escape of the pattern is not one character, or escapes nothing")]
    Escape,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

impl Comparison {
    /// Whether it asks for an order, which only numbers have.
    pub(super) fn is_of_order(self) -> bool {
        !matches!(self, Comparison::Equal | Comparison::Unequal)
    }
}

/// How two numbers make a third.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wild {
    /// This character.
    Char(char),
    /// Any one.
    One,
    /// Any number of any.
    Many,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Truth(bool),
    Exact(i64),
    Approximate(f64),
    Text(Box<str>),
    /// What a field of the message has.
    Field(Box<str>),
    Minus(Box<Expression>),
    /// A value, and what is done with it, from left to right.
    Chain(Box<Expression>, Vec<(Arithmetic, Expression)>),
    Compare(Comparison, Box<[Expression; 2]>),
    /// A value, and the two that it is to lie between.
    Between(Box<[Expression; 3]>),
    /// Whether a field is one of these.
    In(Box<str>, Vec<Box<str>>),
    /// Whether a field is like this.
    Like(Box<str>, Vec<Wild>),
    IsNull(Box<str>),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Expression {
    /// Whether it may be true.
    pub(super) fn is_condition(&self) -> bool {
        !matches!(
            self,
            Expression::Exact(_)
                | Expression::Approximate(_)
                | Expression::Text(_)
                | Expression::Minus(_)
                | Expression::Chain(..)
        )
    }

    /// Whether it may be a number.
    pub(super) fn is_numeric(&self) -> bool {
        matches!(
            self,
            Expression::Exact(_)
                | Expression::Approximate(_)
                | Expression::Field(_)
                | Expression::Minus(_)
                | Expression::Chain(..)
        )
    }
}
