//! Reads a selector (Jakarta Messaging 3.1, 3.8.1.1), and refuses what the grammar does not have.
//! Callers: `Selector::parse`. A text is read once, from left to right, no deeper than it may be nested.

use super::lexer::{Word, words};
use super::syntax::{
    Arithmetic, BYTES_MAX, Comparison, DEPTH_MAX, Expression, SelectorError, Wild,
};

/// What no name may be called.
const KEYWORDS: [&str; 11] = [
    "NULL", "TRUE", "FALSE", "NOT", "AND", "OR", "BETWEEN", "LIKE", "IN", "IS", "ESCAPE",
];

/// Reads a selector.
pub(super) fn parse(text: &str) -> Result<Expression, SelectorError> {
    if text.len() > BYTES_MAX {
        return Err(SelectorError::Long);
    }
    let mut parser = Parser {
        words: words(text)?,
        at: 0,
        depth: 0,
    };
    let whole = parser.any()?;
    if let Some((at, word)) = parser.words.get(parser.at) {
        return Err(SelectorError::Unexpected {
            expected: "an operator",
            found: word.shown(),
            at: *at,
        });
    }
    condition(whole, "the selector")
}

struct Parser {
    words: Vec<(usize, Word)>,
    at: usize,
    depth: usize,
}

fn condition(of: Expression, operator: &'static str) -> Result<Expression, SelectorError> {
    match of.is_condition() {
        true => Ok(of),
        false => Err(SelectorError::Operand { operator }),
    }
}

fn numeric(of: Expression, operator: &'static str) -> Result<Expression, SelectorError> {
    match of.is_numeric() {
        true => Ok(of),
        false => Err(SelectorError::Operand { operator }),
    }
}

impl Parser {
    fn peek(&self) -> Option<&Word> {
        self.words.get(self.at).map(|(_, word)| word)
    }

    fn is_next(&self, keyword: &str) -> bool {
        self.peek().is_some_and(|it| it.is(keyword))
    }

    /// Takes a keyword, if it is the next word.
    fn takes(&mut self, keyword: &str) -> bool {
        let takes = self.is_next(keyword);
        self.at += usize::from(takes);
        takes
    }

    /// Takes one of some signs, if one of them is the next word.
    fn takes_sign<T: Copy>(&mut self, signs: &[(&str, T)]) -> Option<T> {
        let Some(Word::Sign(next)) = self.peek() else {
            return None;
        };
        let found = signs.iter().find(|(sign, _)| sign == next);
        let found = found.map(|(_, meant)| *meant);
        self.at += usize::from(found.is_some());
        found
    }

    fn wrong(&self, expected: &'static str) -> SelectorError {
        match self.words.get(self.at) {
            None => SelectorError::Ends(expected),
            Some((at, word)) => SelectorError::Unexpected {
                expected,
                found: word.shown(),
                at: *at,
            },
        }
    }

    fn wants_sign(&mut self, sign: &'static str) -> Result<(), SelectorError> {
        self.takes_sign(&[(sign, ())])
            .ok_or_else(|| self.wrong(sign))
    }

    fn wants(&mut self, keyword: &'static str) -> Result<(), SelectorError> {
        match self.takes(keyword) {
            true => Ok(()),
            false => Err(self.wrong(keyword)),
        }
    }

    fn text(&mut self) -> Result<Box<str>, SelectorError> {
        match self.peek() {
            Some(Word::Text(text)) => {
                let text = text.clone();
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.wrong("a string")),
        }
    }

    /// Reads what lies a level deeper.
    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Parser) -> Result<Expression, SelectorError>,
    ) -> Result<Expression, SelectorError> {
        if self.depth == DEPTH_MAX {
            return Err(SelectorError::Deep);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn any(&mut self) -> Result<Expression, SelectorError> {
        let first = self.all()?;
        if !self.is_next("OR") {
            return Ok(first);
        }
        let mut parts = vec![condition(first, "OR")?];
        while self.takes("OR") {
            parts.push(condition(self.all()?, "OR")?);
        }
        Ok(Expression::Any(parts))
    }

    fn all(&mut self) -> Result<Expression, SelectorError> {
        let first = self.negation()?;
        if !self.is_next("AND") {
            return Ok(first);
        }
        let mut parts = vec![condition(first, "AND")?];
        while self.takes("AND") {
            parts.push(condition(self.negation()?, "AND")?);
        }
        Ok(Expression::All(parts))
    }

    fn negation(&mut self) -> Result<Expression, SelectorError> {
        if self.takes("NOT") {
            let of = self.deeper(Parser::negation)?;
            return Ok(Expression::Not(Box::new(condition(of, "NOT")?)));
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Result<Expression, SelectorError> {
        let left = self.chain()?;
        let compared = self.takes_sign(&[
            ("=", Comparison::Equal),
            ("<>", Comparison::Unequal),
            ("<", Comparison::Less),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::More),
            (">=", Comparison::MoreOrEqual),
        ]);
        if let Some(how) = compared {
            let right = self.chain()?;
            let both = match how.is_of_order() {
                true => [
                    numeric(left, "a comparison")?,
                    numeric(right, "a comparison")?,
                ],
                false => [left, right],
            };
            return Ok(Expression::Compare(how, Box::new(both)));
        }
        if self.takes("IS") {
            let is_not = self.takes("NOT");
            self.wants("NULL")?;
            let is_null = Expression::IsNull(field(left, "IS NULL")?);
            return Ok(negated(is_null, is_not));
        }
        let is_not = self.takes("NOT");
        let found = if self.takes("BETWEEN") {
            let low = self.chain()?;
            self.wants("AND")?;
            let high = self.chain()?;
            let of = |it| numeric(it, "BETWEEN");
            Expression::Between(Box::new([of(left)?, of(low)?, of(high)?]))
        } else if self.takes("IN") {
            let name = field(left, "IN")?;
            self.wants_sign("(")?;
            let mut all = vec![self.text()?];
            while self.takes_sign(&[(",", ())]).is_some() {
                all.push(self.text()?);
            }
            self.wants_sign(")")?;
            Expression::In(name, all)
        } else if self.takes("LIKE") {
            let name = field(left, "LIKE")?;
            let text = self.text()?;
            let escape = match self.takes("ESCAPE") {
                true => Some(self.text()?),
                false => None,
            };
            Expression::Like(name, pattern(&text, escape.as_deref())?)
        } else if is_not {
            return Err(self.wrong("BETWEEN, IN or LIKE"));
        } else {
            return Ok(left);
        };
        Ok(negated(found, is_not))
    }

    fn chain(&mut self) -> Result<Expression, SelectorError> {
        let signs = [("+", Arithmetic::Add), ("-", Arithmetic::Subtract)];
        self.chained(&signs, Parser::product)
    }

    fn product(&mut self) -> Result<Expression, SelectorError> {
        let signs = [("*", Arithmetic::Multiply), ("/", Arithmetic::Divide)];
        self.chained(&signs, Parser::signed)
    }

    fn chained(
        &mut self,
        signs: &[(&str, Arithmetic)],
        part: fn(&mut Parser) -> Result<Expression, SelectorError>,
    ) -> Result<Expression, SelectorError> {
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some(how) = self.takes_sign(signs) {
            rest.push((how, numeric(part(self)?, "arithmetic")?));
        }
        match rest.is_empty() {
            true => Ok(first),
            false => Ok(Expression::Chain(
                Box::new(numeric(first, "arithmetic")?),
                rest,
            )),
        }
    }

    fn signed(&mut self) -> Result<Expression, SelectorError> {
        let sign = self.takes_sign(&[("-", true), ("+", false)]);
        let Some(is_minus) = sign else {
            return self.operand();
        };
        if let Some(Word::Exact(number)) = self.peek()
            && is_minus
        {
            // The least long is one further from zero than the greatest.
            let number = 0_i64.checked_sub_unsigned(*number);
            let number = number.ok_or_else(|| self.wrong("a number of the range"))?;
            self.at += 1;
            return Ok(Expression::Exact(number));
        }
        let of = numeric(self.deeper(Parser::signed)?, "a sign")?;
        Ok(match is_minus {
            true => Expression::Minus(Box::new(of)),
            false => of,
        })
    }

    fn operand(&mut self) -> Result<Expression, SelectorError> {
        if self.takes_sign(&[("(", ())]).is_some() {
            let inside = self.deeper(Parser::any)?;
            self.wants_sign(")")?;
            return Ok(inside);
        }
        let operand = match self.peek() {
            Some(Word::Exact(number)) => {
                let number = i64::try_from(*number).ok();
                number.map(Expression::Exact)
            }
            Some(Word::Approximate(number)) => Some(Expression::Approximate(*number)),
            Some(Word::Text(text)) => Some(Expression::Text(text.clone())),
            Some(word) if word.is("TRUE") => Some(Expression::Truth(true)),
            Some(word) if word.is("FALSE") => Some(Expression::Truth(false)),
            Some(word) if KEYWORDS.iter().any(|it| word.is(it)) => None,
            Some(Word::Name(name)) => Some(Expression::Field(name.clone())),
            Some(Word::Sign(_)) | None => None,
        };
        let operand = operand.ok_or_else(|| self.wrong("a value"))?;
        self.at += 1;
        Ok(operand)
    }
}

fn negated(of: Expression, is_not: bool) -> Expression {
    match is_not {
        true => Expression::Not(Box::new(of)),
        false => of,
    }
}

fn field(of: Expression, operator: &'static str) -> Result<Box<str>, SelectorError> {
    match of {
        Expression::Field(name) => Ok(name),
        _ => Err(SelectorError::Operand { operator }),
    }
}

fn pattern(text: &str, escape: Option<&str>) -> Result<Vec<Wild>, SelectorError> {
    let escape = match escape.map(|it| (it.chars().next(), it.chars().count())) {
        None => None,
        Some((Some(character), 1)) => Some(character),
        Some(_) => return Err(SelectorError::Escape),
    };
    let mut pattern: Vec<Wild> = Vec::new();
    let mut characters = text.chars();
    while let Some(it) = characters.next() {
        let wild = match it {
            it if Some(it) == escape => {
                let escaped = characters.next();
                let escaped = escaped.filter(|it| matches!(it, '%' | '_') || Some(*it) == escape);
                Wild::Char(escaped.ok_or(SelectorError::Escape)?)
            }
            '%' => Wild::Many,
            '_' => Wild::One,
            it => Wild::Char(it),
        };
        if wild != Wild::Many || pattern.last() != Some(&Wild::Many) {
            pattern.push(wild);
        }
    }
    Ok(pattern)
}
