//! Long lists in pages: in the order of names, from behind one, as far as a pattern fits.
//!
//! Callers: the lists of topics and of groups.

use serde::Deserialize;

use crate::front::http::errors::Failure;
use crate::front::http::operation::Operation;
use crate::front::http::schema::{integer_in, text};

/// Entries of a page if the request does not say how many.
const LIMIT: usize = 1_000;
/// Entries of a page at most.
const LIMIT_MAX: usize = 10_000;

/// Which part of a list is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    pattern: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// A page, and the name behind which the next one begins, if there is one.
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    pub(super) next_after: Option<String>,
}

impl Listing {
    /// Its parameters, described.
    pub(super) fn describe(about: Operation) -> Operation {
        about
            .query(
                "pattern",
                text(),
                "names that fit: `*` stands for any letters, `?` for one",
            )
            .query(
                "after",
                text(),
                "names behind this one: `next_after` of the page before",
            )
            .query(
                "limit",
                integer_in(1..=LIMIT_MAX as i64),
                "entries at most; 1000 without it",
            )
    }

    /// The part of `all`, whose names are read by `name`.
    pub(super) fn page<T>(
        &self,
        all: Vec<T>,
        name: impl Fn(&T) -> &str,
    ) -> Result<Page<T>, Failure> {
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Failure::Query(format!("limit must be 1 to {LIMIT_MAX}")));
        }
        let mut fitting = all;
        fitting.retain(|one| {
            let name = name(one);
            let fits = self
                .pattern
                .as_deref()
                .is_none_or(|pattern| fits(pattern, name));
            fits && self.after.as_deref().is_none_or(|after| name > after)
        });
        fitting.sort_by(|one, other| name(one).cmp(name(other)));
        let is_cut = fitting.len() > limit;
        fitting.truncate(limit);
        let last = fitting.last().filter(|_| is_cut);
        Ok(Page {
            next_after: last.map(|last| name(last).to_owned()),
            entries: fitting,
        })
    }
}

/// Whether a name fits a pattern with `*` and `?`. Takes time by the product of their lengths at most.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut to) = (0, 0);
    // Where the last star is, and how much of the name it stands for.
    let mut star: Option<(usize, usize)> = None;
    while to < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, to));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == name[to] => (at, to) = (at + 1, to + 1),
            _ => {
                let Some((place, covered)) = star else {
                    return false;
                };
                star = Some((place, covered + 1));
                (at, to) = (place + 1, covered + 1);
            }
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_a_shells_do() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "a"),
            ("a*", "a"),
            ("a?c", "abc"),
            ("*b*", "abc"),
            ("a*b*c", "axxbyyc"),
            ("abc", "abc"),
            ("**", "x"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("a", ""),
            ("a?", "a"),
            ("b*", "abc"),
            ("*b", "abc"),
            ("a*b*c", "axxbyy"),
            ("ABC", "abc"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn pages_follow_one_another_without_gap_or_overlap() {
        let names = || ["c", "a", "e", "b", "d"].map(str::to_owned).to_vec();
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let listing = Listing {
                after: after.clone(),
                limit: Some(2),
                pattern: None,
            };
            let page = listing.page(names(), |name| name).expect("a page");
            seen.extend(page.entries);
            after = page.next_after;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
        let bad = Listing {
            limit: Some(0),
            ..Listing::default()
        };
        assert!(bad.page(names(), |name| name).is_err());
    }
}
