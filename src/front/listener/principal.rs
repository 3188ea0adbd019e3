//! Principal mapping: the name of whoever shows a certificate, by `ssl.principal.mapping.rules`.
//! Callers: the settings, which parse the rules; `tls`, which applies them to a certificate's subject.
//! Pure. Source: the documentation of `ssl.principal.mapping.rules`, and what Kafka's `SslPrincipalMapper` does with Java's
//! regular expressions: a rule applies if its pattern matches the whole subject, and then all that the pattern finds in it is
//! replaced. Look-around, references inside of a pattern and possessive quantifiers are refused.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;

/// One rule, as the whole list is cut into them and as each is read.
const RULE: &str = r"(DEFAULT)|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?).*?|.*?";

/// The rules, in their order.
#[derive(Clone, Debug)]
pub struct PrincipalRules {
    rules: Vec<Rule>,
    /// As they were written.
    text: String,
}

#[derive(Clone, Debug)]
enum Rule {
    /// The subject as it is.
    Default,
    Replace(Box<Replace>),
}

#[derive(Clone, Debug)]
struct Replace {
    /// Matches the whole of a subject that the rule is for.
    whole: Regex,
    /// Finds what is replaced.
    pattern: Regex,
    replacement: Vec<Piece>,
    case: Case,
}

/// A piece of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Kept,
    Lower,
    Upper,
}

impl Default for PrincipalRules {
    fn default() -> PrincipalRules {
        PrincipalRules {
            rules: vec![Rule::Default],
            text: "DEFAULT".to_owned(),
        }
    }
}

impl fmt::Display for PrincipalRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PrincipalRules {
    /// Reads `RULE:pattern/replacement/[LU]` and `DEFAULT`, with commas between them. Empty rules count as none.
    pub fn parse(text: &str) -> Result<PrincipalRules, String> {
        static SPLITTER: LazyLock<Regex> = LazyLock::new(|| {
            let space = r"[ \t\n\x0B\f\r]*";
            Regex::new(&format!(r"{space}({RULE}){space}(?:,{space}|$)")).expect("it is a pattern")
        });
        let mut rules = Vec::new();
        for found in SPLITTER.captures_iter(text.trim()) {
            let rule = found.get(1).map_or("", |rule| rule.as_str());
            if !rule.is_empty() {
                rules.push(Rule::parse(rule)?);
            }
        }
        Ok(PrincipalRules {
            rules,
            text: text.trim().to_owned(),
        })
    }

    /// The name by the first rule that applies to this subject (RFC 2253); None if none does.
    pub fn name(&self, subject: &str) -> Option<String> {
        self.rules.iter().find_map(|rule| rule.apply(subject))
    }
}

impl Rule {
    fn parse(rule: &str) -> Result<Rule, String> {
        static PARSER: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(&format!("^(?:{RULE})")).expect("it is a pattern"));
        let refuse = |why: &str| Err(format!("the rule `{rule}` {why}"));
        let Some(found) = PARSER.captures(rule).filter(|it| it[0].len() == rule.len()) else {
            return refuse(
                "is neither DEFAULT nor RULE:pattern/replacement/ with L, U or nothing behind it",
            );
        };
        if found.get(1).is_some() {
            return Ok(Rule::Default);
        }
        let (Some(pattern), Some(replacement)) = (found.get(2), found.get(3)) else {
            return refuse("is empty");
        };
        let java = in_ascii(pattern.as_str());
        let compiled = |text: &str| {
            Regex::new(text).map_err(|error| {
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default().trim();
                format!("the rule `{rule}` has a pattern that cannot be used: {last}")
            })
        };
        let pattern = compiled(&java)?;
        let whole = compiled(&format!(r"\A(?:{java})\z"))?;
        let replacement = pieces(replacement.as_str(), &pattern)
            .map_err(|why| format!("the rule `{rule}`: {why}"))?;
        let case = match found.get(4).map_or("", |case| case.as_str()) {
            "L" => Case::Lower,
            "U" => Case::Upper,
            _ => Case::Kept,
        };
        Ok(Rule::Replace(Box::new(Replace {
            whole,
            pattern,
            replacement,
            case,
        })))
    }

    fn apply(&self, subject: &str) -> Option<String> {
        let replace = match self {
            Rule::Default => return Some(subject.to_owned()),
            Rule::Replace(replace) => replace,
        };
        if !replace.whole.is_match(subject) {
            return None;
        }
        let name = replace.all(subject);
        Some(match replace.case {
            Case::Kept => name,
            Case::Lower => name.to_lowercase(),
            Case::Upper => name.to_uppercase(),
        })
    }
}

impl Replace {
    /// Replaces each place that the pattern finds. Unlike the `regex` crate's own, and like Java's, this also replaces an empty
    /// match right behind another match.
    fn all(&self, subject: &str) -> String {
        let mut name = String::new();
        let (mut from, mut copied) = (0, 0);
        while from <= subject.len() {
            let Some(found) = self.pattern.captures_at(subject, from) else {
                break;
            };
            let place = found.get(0).expect("a match has a place").range();
            name.push_str(&subject[copied..place.start]);
            for piece in &self.replacement {
                match piece {
                    Piece::Text(text) => name.push_str(text),
                    Piece::Group(group) => {
                        name.push_str(found.get(*group).map_or("", |group| group.as_str()));
                    }
                }
            }
            copied = place.end;
            let step = match place.is_empty() {
                true => subject[place.end..]
                    .chars()
                    .next()
                    .map_or(1, char::len_utf8),
                false => 0,
            };
            from = place.end + step;
        }
        name.push_str(&subject[copied..]);
        name
    }
}

/// The pattern with Java's meaning of its classes, which is ASCII's.
fn in_ascii(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('w') => text.push_str("[0-9A-Za-z_]"),
            Some('W') => text.push_str("[^0-9A-Za-z_]"),
            Some('d') => text.push_str("[0-9]"),
            Some('D') => text.push_str("[^0-9]"),
            Some('s') => text.push_str(r"[ \t\n\x0B\f\r]"),
            Some('S') => text.push_str(r"[^ \t\n\x0B\f\r]"),
            Some('b') => text.push_str(r"(?-u:\b)"),
            Some('B') => text.push_str(r"(?-u:\B)"),
            Some('Z') => text.push_str(r"\z"),
            // What is no letter stands for itself.
            Some(other) if !other.is_ascii_alphanumeric() => {
                text.push_str(&regex::escape(other.encode_utf8(&mut [0; 4])));
            }
            Some(other) => text.extend(['\\', other]),
            None => text.push('\\'),
        }
    }
    text
}

/// A replacement: `$1` is a group, as many digits as there are groups for; where there is no such group, it is text. What
/// stands behind a backslash is text.
fn pieces(replacement: &str, pattern: &Regex) -> Result<Vec<Piece>, String> {
    let groups = pattern.captures_len() - 1;
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = replacement;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let escaped = rest
                    .chars()
                    .next()
                    .ok_or("a backslash at the end of its replacement")?;
                rest = &rest[escaped.len_utf8()..];
                text.push(escaped);
            }
            '$' => {
                let (group, length) = group_of(rest, pattern)?;
                match group {
                    Some(group) => {
                        if !text.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut text)));
                        }
                        pieces.push(Piece::Group(group));
                        rest = &rest[length..];
                    }
                    None if groups == 0 => {
                        return Err(format!(
                            "its replacement has ${rest}, but its pattern has no group"
                        ));
                    }
                    None => text.push('$'),
                }
            }
            other => text.push(other),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// The group that is named behind a `$`, and the length of its name; None if there is no such group.
fn group_of(rest: &str, pattern: &Regex) -> Result<(Option<usize>, usize), String> {
    let groups = pattern.captures_len() - 1;
    if let Some((name, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        let position = pattern
            .capture_names()
            .position(|known| known == Some(name));
        let position = position.ok_or_else(|| format!("its pattern has no group {name}"))?;
        return Ok((Some(position), name.len() + 2));
    }
    let mut digits = rest
        .bytes()
        .map_while(|byte| byte.is_ascii_digit().then(|| usize::from(byte - b'0')));
    let first = digits
        .next()
        .ok_or(r"a $ in its replacement that no group's number follows; write \$ for the sign")?;
    if first > groups {
        return Ok((None, 0));
    }
    let (mut group, mut length) = (first, 1);
    for digit in digits {
        if group * 10 + digit > groups {
            break;
        }
        group = group * 10 + digit;
        length += 1;
    }
    Ok((Some(group), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(rules: &str, subject: &str) -> Option<String> {
        PrincipalRules::parse(rules)
            .expect("good rules")
            .name(subject)
    }

    #[test]
    fn what_kafka_refuses_is_refused() {
        for bad in [
            "default",
            "DEFAUL",
            "DEFAULT/L",
            "DEFAULT/U",
            "RULE:CN=(.*?),OU=ServiceUsers.*/$1",
            "rule:^CN=(.*?),OU=ServiceUsers.*$/$1/",
            "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L/U",
            "RULE:^CN=(.*?),OU=ServiceUsers.*$/L",
            "RULE:^CN=(.*?),OU=ServiceUsers.*$/LU",
            // What Kafka would refuse at each connection.
            "RULE:^CN=.*$/$1/",
            "RULE:^CN=(.*)$/$/",
            // What the patterns here do not have.
            "RULE:^CN=(?=a).*$/a/",
            "RULE:^CN=(/$1/",
        ] {
            assert!(PrincipalRules::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_the_whole_subject_names_it() {
        let rules = "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L, \
             RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L, \
             RULE:^cn=(.*?),ou=(.*?),dc=(.*?),dc=(.*?)$/$1@$2/U, \
             RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U, DEFAULT";
        for (subject, name) in [
            ("CN=Duke,OU=ServiceUsers,O=Org,C=US", "duke"),
            ("CN=Duke,OU=SME,O=mycp,L=Fulton,ST=MD,C=US", "duke@sme"),
            ("cn=duke,ou=sme,dc=mycp,dc=com", "DUKE@SME"),
            ("cN=duke,OU=JavaSoft,O=Sun Microsystems", "DUKE"),
            (
                "OU=JavaSoft,O=Sun Microsystems,C=US",
                "OU=JavaSoft,O=Sun Microsystems,C=US",
            ),
        ] {
            assert_eq!(named(rules, subject).as_deref(), Some(name), "{subject}");
        }
    }

    #[test]
    fn without_a_rule_that_applies_there_is_no_name() {
        assert_eq!(named("RULE:^CN=(.*?),O=x$/$1/", "CN=a,O=y"), None);
        assert_eq!(named("", "CN=a"), None);
        assert_eq!(named(" , ,", "CN=a"), None);
        // A part of the subject is not enough.
        assert_eq!(named("RULE:CN=(a)/$1/", "CN=ab"), None);
    }

    #[test]
    fn rules_are_cut_at_commas_outside_of_them() {
        let comma = r"RULE:^CN=((\\, *|\w)+)(,.*|$)/$1/,DEFAULT";
        let subject = r"CN=Tkac\, Adam,OU=ITZ,DC=geodis,DC=cz";
        assert_eq!(named(comma, subject).as_deref(), Some(r"Tkac\, Adam"));
        let spaced = "  RULE:([A-Z]*)/$1/U   ,RULE:([a-z]+)/<$1>/,   DEFAULT  ";
        assert_eq!(named(spaced, "abc").as_deref(), Some("<abc>"));
        assert_eq!(
            named(",,RULE:a\\/b/c\\/d/,,,", "a/b").as_deref(),
            Some("c/d")
        );
    }

    #[test]
    fn a_replacement_is_read_as_java_reads_it() {
        for (rule, subject, name) in [
            // A group that is not there is text, and digits beyond the groups are.
            ("RULE:^(a)(b)$/$1@$4/", "ab", "a@$4"),
            ("RULE:^(a)(b)$/$12/", "ab", "a2"),
            ("RULE:^(a)(b)$/$0-$2/", "ab", "ab-b"),
            (r"RULE:^(a)(b)$/\$1/", "ab", "$1"),
            ("RULE:^(?<who>a)b$/${who}/", "ab", "a"),
            // Java finds what is empty at the end, too.
            ("RULE:.*/x/", "abc", "xx"),
            ("RULE:^.*$/x/", "abc", "x"),
        ] {
            assert_eq!(named(rule, subject).as_deref(), Some(name), "{rule}");
        }
    }
}
