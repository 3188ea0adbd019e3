//! The receipts of erasures: a JSON object a line, each with the SHA-256 of the one before, so that none can be taken out or
//! changed unseen.
//!
//! A line ends with `"previous"` (the `sha256` of the line before, or null in the first) and `"sha256"`: of the line's bytes
//! before the comma that precedes `"sha256"`. `"number"` counts from 1.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::hex;

const LAST_FIELD: &str = ",\"sha256\":\"";

/// What is wrong with a chain of receipts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It is no receipt at all.
    #[error("line {line} is no receipt: {reason}")]
    NoReceipt {
        /// From 1.
        line: u64,
        /// Why not.
        reason: String,
    },
    /// It was changed.
    #[error("receipt {number} was changed: its SHA-256 is {computed}, and it says {stored}")]
    Changed {
        /// Which.
        number: u64,
        /// What its bytes come to.
        computed: String,
        /// What it says.
        stored: String,
    },
    /// One before it is missing, or was changed and given a new SHA-256.
    #[error("receipt {number} does not follow the one before: {reason}")]
    Broken {
        /// Which.
        number: u64,
        /// What does not match.
        reason: String,
    },
}

/// A chain that is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// How many receipts.
    pub count: u64,
    /// The `sha256` of the last one.
    pub last: Option<String>,
}

/// The hash of a key in a receipt: SHA-256 of the receipt's salt and the key.
pub fn hash_of_key(salt: &[u8], key: &[u8]) -> String {
    hex(&Sha256::new()
        .chain_update(salt)
        .chain_update(key)
        .finalize())
}

/// Ends a receipt, a JSON object without `previous` and `sha256`.
pub fn seal(body: &str, previous: Option<&str>) -> String {
    let open = body.strip_suffix('}').unwrap_or(body);
    let previous = previous.map_or("null".to_owned(), |hash| format!("\"{hash}\""));
    let text = format!("{open},\"previous\":{previous}");
    let hash = hex(&Sha256::digest(&text));
    format!("{text}{LAST_FIELD}{hash}\"}}")
}

/// The `sha256` that a receipt says, if its bytes come to it.
pub fn hash_of(line: &str) -> Result<String, String> {
    let (text, rest) = line.rsplit_once(LAST_FIELD).ok_or("it has no sha256")?;
    let stored = rest
        .strip_suffix("\"}")
        .ok_or("sha256 is not its last field")?;
    let computed = hex(&Sha256::digest(text));
    match computed == stored {
        true => Ok(computed),
        false => Err(format!("its SHA-256 is {computed}, and it says {stored}")),
    }
}

/// Checks receipts, from the first one on.
pub fn check<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Chain, ChainError> {
    let mut chain = Chain::default();
    for line in lines {
        let number = chain.count + 1;
        let no_receipt = |reason: String| ChainError::NoReceipt {
            line: number,
            reason,
        };
        let value: Value =
            serde_json::from_str(line).map_err(|error| no_receipt(error.to_string()))?;
        let (text, rest) = line
            .rsplit_once(LAST_FIELD)
            .ok_or_else(|| no_receipt("it has no sha256".to_owned()))?;
        let said = value["number"]
            .as_u64()
            .ok_or_else(|| no_receipt("it has no number".to_owned()))?;
        // Nothing may follow it: of two fields of a name the last would count.
        let stored = rest.strip_suffix("\"}").unwrap_or(rest);
        let computed = hex(&Sha256::digest(text));
        if stored != computed {
            return Err(ChainError::Changed {
                number: said,
                computed,
                stored: stored.to_owned(),
            });
        }
        let broken = |reason: String| ChainError::Broken {
            number: said,
            reason,
        };
        if said != number {
            return Err(broken(format!("number {number} is missing")));
        }
        if value["previous"].as_str() != chain.last.as_deref() {
            return Err(broken(format!(
                "it names {} as the SHA-256 before, which is {}",
                value["previous"],
                chain.last.as_deref().unwrap_or("null")
            )));
        }
        chain = Chain {
            count: number,
            last: Some(computed),
        };
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for number in 1..=3 {
            let previous = lines.last().map(|line| hash_of(line).expect("a receipt"));
            let body = format!("{{\"version\":1,\"number\":{number},\"topic\":\"a\"}}");
            lines.push(seal(&body, previous.as_deref()));
        }
        lines
    }

    fn checked(lines: &[String]) -> Result<u64, ChainError> {
        check(lines.iter().map(String::as_str)).map(|chain| chain.count)
    }

    #[test]
    fn a_chain_is_whole_and_one_without_a_receipt_or_with_a_changed_one_is_not() {
        let lines = three();
        assert_eq!(checked(&lines), Ok(3));
        for dropped in [0, 1] {
            let mut less = lines.clone();
            less.remove(dropped);
            assert!(matches!(checked(&less), Err(ChainError::Broken { .. })));
        }
        let mut changed = lines.clone();
        changed[1] = changed[1].replace("\"a\"", "\"b\"");
        assert!(matches!(
            checked(&changed),
            Err(ChainError::Changed { number: 2, .. })
        ));
        // With a right SHA-256 of its own, the next one does not follow it.
        let first = hash_of(&lines[0]).expect("a receipt");
        changed[1] = seal("{\"version\":1,\"number\":2,\"topic\":\"b\"}", Some(&first));
        assert!(matches!(
            checked(&changed),
            Err(ChainError::Broken { number: 3, .. })
        ));
        let mut swapped = lines.clone();
        swapped.swap(1, 2);
        assert!(checked(&swapped).is_err());
        // Fields behind the SHA-256 would count before those that it covers.
        for (number, more) in [(2, ",\"topic\":\"b\""), (3, ",\"x\":1")] {
            let mut longer = lines.clone();
            let line = &mut longer[number - 1];
            line.insert_str(line.len() - 1, more);
            assert!(
                matches!(checked(&longer), Err(ChainError::Changed { number: at, .. }) if at == number as u64),
                "{more}"
            );
        }
    }

    #[test]
    fn the_hash_is_that_of_the_bytes_before_it() {
        // Computed with coreutils: printf '{"number":1,"previous":null' | sha256sum
        let line = seal("{\"number\":1}", None);
        assert_eq!(
            line,
            "{\"number\":1,\"previous\":null,\"sha256\":\"086af0fc085a310944b85642ffce9e0bf9e0e2d63ba4d0da6c01b3fc07ef5969\"}"
        );
    }
}
