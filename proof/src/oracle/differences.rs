//! Differences: the checked-in list of what is known to differ between the two brokers, each with its reason, in
//! `tests/compat/oracle-differences.toml`.
//! Callers: `oracle::main`; `page`.
//! Invariant: a difference that no entry names fails the command, and so does an entry that nothing shows any more.

use super::pair::Finding;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use xtask::run;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    difference: Vec<Entry>,
}

/// One known difference. In every text but `api`, `*` stands for anything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name of the API.
    pub api: String,
    /// First and last version; all if not given.
    #[serde(default)]
    pub versions: Option<(i16, i16)>,
    /// The field, as in `topics[*].error_code`; empty for the answer as a whole.
    pub path: String,
    /// What Alluvium says.
    pub ours: String,
    /// What Apache Kafka says.
    pub theirs: String,
    /// Where it shows; anywhere if not given.
    #[serde(default)]
    pub scene: Option<String>,
    /// Why it stays.
    pub reason: String,
}

impl Entry {
    /// Whether it shows in drawn requests only, and so not under every seed.
    pub fn is_of_draws(&self) -> bool {
        self.scene
            .as_ref()
            .is_some_and(|scene| scene.starts_with("seed "))
    }

    fn names(&self, finding: &Finding) -> bool {
        let difference = &finding.difference;
        let in_versions = self
            .versions
            .is_none_or(|(first, last)| (first..=last).contains(&finding.version));
        in_versions
            && self.api == finding.key.name()
            && matches(&self.path, &difference.path)
            && matches(&self.ours, &difference.ours)
            && matches(&self.theirs, &difference.theirs)
            && self
                .scene
                .as_ref()
                .is_none_or(|scene| matches(scene, &finding.scene))
    }
}

/// The list.
pub struct Differences {
    /// As it is in the file.
    pub entries: Vec<Entry>,
}

/// What the list says of a run.
pub struct Judgement<'a> {
    /// Findings that no entry names.
    pub unlisted: Vec<&'a Finding>,
    /// Findings for each entry, in the list's order.
    pub counts: Vec<usize>,
}

impl Differences {
    /// Reads the checked-in list.
    pub fn read() -> Result<Differences> {
        let file = run::workspace().join("tests/compat/oracle-differences.toml");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let file: File = toml::from_str(&text)?;
        Ok(Differences {
            entries: file.difference,
        })
    }

    /// Puts each finding to the first entry that names it.
    pub fn judge<'a>(&self, findings: &'a [Finding]) -> Judgement<'a> {
        let mut judgement = Judgement {
            unlisted: Vec::new(),
            counts: vec![0; self.entries.len()],
        };
        for finding in findings {
            match self.entries.iter().position(|entry| entry.names(finding)) {
                Some(index) => judgement.counts[index] += 1,
                None => judgement.unlisted.push(finding),
            }
        }
        judgement
    }
}

/// Findings that say the same of the same field, for a person to read.
pub fn summary(findings: &[&Finding]) -> String {
    let mut groups: BTreeMap<(i16, String, String, String), Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        let key = (
            finding.key.code(),
            without_names(&finding.difference.path),
            finding.difference.ours.clone(),
            finding.difference.theirs.clone(),
        );
        groups.entry(key).or_default().push(finding);
    }
    let mut text = String::new();
    for ((_, path, ours, theirs), group) in groups {
        let first = group[0];
        let mut versions: Vec<i16> = group.iter().map(|finding| finding.version).collect();
        versions.sort_unstable();
        versions.dedup();
        let mut scenes: Vec<&str> = group.iter().map(|finding| finding.scene.as_str()).collect();
        scenes.dedup();
        let request: String = first.request.chars().take(600).collect();
        text += &format!(
            "{} v{versions:?} {path}\n  alluvium: {ours}\n  kafka:    {theirs}\n  at: {}\n  e.g. {} of {request}\n",
            first.key.name(),
            scenes.join("; "),
            first.difference.path,
        );
    }
    text
}

fn without_names(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for character in path.chars() {
        match character {
            '[' => out.push_str("[*"),
            ']' => out.push(']'),
            other if !inside => out.push(other),
            _ => {}
        }
        inside = character == '[' || inside && character != ']';
    }
    out
}

/// Whether `text` is `pattern`, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{Differences, Entry, matches, without_names};

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("topics[*].error_code", "topics[a].error_code"));
        assert!(!matches("topics[*].error_code", "topics[a].name"));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "a1b2c"));
        assert!(!matches("a*b*c", "a1c"));
        assert!(!matches("a", "ab"));
        assert!(!matches("ab*ba", "aba"));
    }

    #[test]
    fn a_path_is_told_without_the_names_in_it() {
        assert_eq!(without_names("topics[a].p[0].x"), "topics[*].p[*].x");
    }

    #[test]
    fn every_listed_difference_has_a_reason_and_names_an_api() {
        for entry in Differences::read().unwrap().entries {
            assert!(entry.reason.len() > 20, "{}: {}", entry.api, entry.path);
            let known = wire::ApiKey::ALL.iter().any(|key| key.name() == entry.api);
            assert!(known, "no API is called {}", entry.api);
        }
    }

    #[test]
    fn no_difference_is_listed_twice() {
        let mut listed = std::collections::HashSet::new();
        for Entry {
            api,
            versions,
            path,
            ours,
            theirs,
            scene,
            ..
        } in Differences::read().unwrap().entries
        {
            let told = format!("{api} {versions:?} {path}: {ours}, {theirs}, {scene:?}");
            assert!(listed.insert(told.clone()), "{told}");
        }
    }
}
