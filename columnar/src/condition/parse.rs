//! Reads conditions.

use super::{BYTES_MAX, Comparison, Condition, DEPTH_MAX, Literal, Node, Subject, TESTS_MAX, Test};
use crate::columns::Column;

/// A text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at} of the condition: {reason}")]
pub struct ConditionError {
    /// Where, in characters, from 1.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name or a word: paths are put together of names and dots already.
    Word(String),
    /// A path in backticks: never a word of the grammar.
    Path(String),
    Text(String),
    Number(String),
    Symbol(&'static str),
    End,
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
    token: Token,
    /// Where the token begins.
    at: usize,
    fields: Vec<String>,
    tests: usize,
    depth: usize,
}

type Parsed<T> = Result<T, ConditionError>;

pub fn parse(text: &str) -> Parsed<Condition> {
    let mut parser = Parser {
        text,
        position: 0,
        token: Token::End,
        at: 0,
        fields: Vec::new(),
        tests: 0,
        depth: 0,
    };
    if text.len() > BYTES_MAX {
        return Err(parser.error(format!("it has more than {BYTES_MAX} bytes")));
    }
    parser.advance()?;
    let root = parser.any()?;
    if parser.token != Token::End {
        return Err(parser.error("the end, \"and\" or \"or\" is expected"));
    }
    Ok(Condition {
        root,
        fields: parser.fields,
    })
}

const SYMBOLS: [&str; 10] = ["==", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")"];

impl Parser<'_> {
    fn error(&self, reason: impl Into<String>) -> ConditionError {
        ConditionError {
            at: self.text[..self.at].chars().count() + 1,
            reason: reason.into(),
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(&self.token, Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn any(&mut self) -> Parsed<Node> {
        let mut nodes = vec![self.all()?];
        while self.is_word("or") {
            self.advance()?;
            nodes.push(self.all()?);
        }
        Ok(match nodes.len() {
            1 => nodes.remove(0),
            _ => Node::Or(nodes),
        })
    }

    fn all(&mut self) -> Parsed<Node> {
        let mut nodes = vec![self.not()?];
        while self.is_word("and") {
            self.advance()?;
            nodes.push(self.not()?);
        }
        Ok(match nodes.len() {
            1 => nodes.remove(0),
            _ => Node::And(nodes),
        })
    }

    fn not(&mut self) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("it is nested deeper than {DEPTH_MAX}")));
        }
        let node = if self.is_word("not") {
            self.advance()?;
            Node::Not(Box::new(self.not()?))
        } else if self.token == Token::Symbol("(") {
            self.advance()?;
            let node = self.any()?;
            self.close()?;
            node
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn close(&mut self) -> Parsed<()> {
        if self.token != Token::Symbol(")") {
            return Err(self.error("\")\" is expected"));
        }
        self.advance()
    }

    fn test(&mut self) -> Parsed<Node> {
        self.tests += 1;
        if self.tests > TESTS_MAX {
            return Err(self.error(format!("it has more than {TESTS_MAX} tests")));
        }
        if self.is_word("exists") && self.text[self.position..].trim_start().starts_with('(') {
            self.advance()?;
            self.advance()?;
            let subject = self.subject()?;
            self.close()?;
            return Ok(Node::Test(subject, Test::Exists));
        }
        let subject = self.subject()?;
        if self.is_word("exists") {
            self.advance()?;
            return Ok(Node::Test(subject, Test::Exists));
        }
        if self.is_word("contains") {
            self.advance()?;
            let Token::Text(part) = self.token.clone() else {
                return Err(self.error("a text in quotes is expected"));
            };
            self.advance()?;
            return Ok(Node::Test(subject, Test::Contains(part)));
        }
        let comparison = self.comparison()?;
        let literal = self.literal(&subject, comparison)?;
        Ok(Node::Test(subject, Test::Compare(comparison, literal)))
    }

    fn subject(&mut self) -> Parsed<Subject> {
        let name = match &self.token {
            Token::Word(name) | Token::Path(name) if !name.is_empty() => name.clone(),
            _ => return Err(self.error("a field is expected")),
        };
        let subject = match Column::parse(&name) {
            Column::Topic | Column::Headers => {
                return Err(self.error(format!("{name} cannot be asked about")));
            }
            Column::Field(path) => {
                let known = self.fields.iter().position(|field| *field == path);
                Subject::Field(known.unwrap_or_else(|| {
                    self.fields.push(path);
                    self.fields.len() - 1
                }))
            }
            fixed => Subject::Fixed(fixed),
        };
        self.advance()?;
        Ok(subject)
    }

    fn comparison(&mut self) -> Parsed<Comparison> {
        let comparison = match &self.token {
            Token::Symbol("=" | "==") => Comparison::Equal,
            Token::Symbol("!=" | "<>") => Comparison::NotEqual,
            Token::Symbol("<") => Comparison::Less,
            Token::Symbol("<=") => Comparison::LessOrEqual,
            Token::Symbol(">") => Comparison::Greater,
            Token::Symbol(">=") => Comparison::GreaterOrEqual,
            _ => return Err(self.error("a comparison, \"contains\" or \"exists\" is expected")),
        };
        self.advance()?;
        Ok(comparison)
    }

    fn literal(&mut self, subject: &Subject, comparison: Comparison) -> Parsed<Literal> {
        let is_time = *subject == Subject::Fixed(Column::Timestamp);
        let literal = match self.token.clone() {
            Token::Text(text) if is_time => match model::time_spec::fixed_time(&text) {
                Some(time) => Literal::Integer(time.millis()),
                None => return Err(self.error(format!("{text:?} is no time"))),
            },
            Token::Text(text) => Literal::Text(text),
            Token::Number(text) => match (text.parse(), text.parse::<f64>()) {
                (Ok(integer), _) => Literal::Integer(integer),
                (_, Ok(number)) if number.is_finite() => Literal::Number(number),
                _ => return Err(self.error(format!("{text} is no number"))),
            },
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => {
                if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
                    return Err(self.error("null is compared by = and != only"));
                }
                Literal::Null
            }
            _ => {
                return Err(
                    self.error("a number, a text in quotes, true, false or null is expected")
                );
            }
        };
        self.advance()?;
        Ok(literal)
    }

    fn advance(&mut self) -> Parsed<()> {
        let rest = self.text[self.position..].trim_start();
        self.at = self.text.len() - rest.len();
        self.position = self.at;
        let Some(first) = rest.chars().next() else {
            self.token = Token::End;
            return Ok(());
        };
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            self.position += symbol.len();
            self.token = Token::Symbol(symbol);
            return Ok(());
        }
        self.token = match first {
            '\'' | '"' => Token::Text(self.quoted(first)?),
            '`' => Token::Path(self.quoted(first)?),
            '0'..='9' | '-' | '+' => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
                Token::Number(self.taken(rest, is_part))
            }
            c if is_name(c) => Token::Word(self.taken(rest, is_name)),
            other => return Err(self.error(format!("{other:?} is not expected here"))),
        };
        Ok(())
    }

    fn taken(&mut self, rest: &str, is_part: impl Fn(char) -> bool) -> String {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.position += end;
        rest[..end].to_owned()
    }

    fn quoted(&mut self, quote: char) -> Parsed<String> {
        let mut text = String::new();
        let mut rest = self.text[self.position + 1..].char_indices().peekable();
        while let Some((index, c)) = rest.next() {
            if c == quote {
                if rest.peek().is_none_or(|(_, next)| *next != quote) {
                    self.position += 1 + index + 1;
                    return Ok(text);
                }
                rest.next();
            }
            match c {
                '\\' if quote != '`' => text.extend(rest.next().map(|(_, escaped)| escaped)),
                other => text.push(other),
            }
        }
        Err(self.error("the quotes do not end"))
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '@' | '$' | '/')
}
