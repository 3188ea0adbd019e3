//! `erase verify`: the chain of receipts, and a search for what may be left of a key, by a server or in a data directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use model::TopicName;
use serde_json::{Value, json};
use witness::Quest;
use witness::receipts::{self, Chain, ChainError};

use super::{Erasures, KeyArgs, text};
use crate::failure::{self, Failure};
use crate::output::{note, print};

pub(super) const EXAMPLES: &str = "\
Without a topic only the chain of receipts is checked: that each has the SHA-256 that it says, and follows the one before. With a \
topic and keys every file of the store is searched too. With --dir no server is asked, and nothing is changed; beside a running server \
what it writes just then may be seen in part.
--json: an object: receipts (count, last, error), search (null without a topic; clean, files, bytes, batches, records, found, unread, \
found_listed, unread_listed).

Examples:
  alluvium erase verify
  alluvium erase verify --receipt kept.json                are receipts that were kept still in the chain
  alluvium erase verify readings device-17
  alluvium erase verify readings device-17 --dir data

Exit codes: 0 nothing was found and the chain is whole; 2 wrong usage; 3 no such topic or directory; 4 no server reached; 5 something \
of a key is left, or could not be read, or the chain is broken.";

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The topic
    topic: Option<TopicName>,
    #[command(flatten)]
    keys: KeyArgs,
    /// Look into a data directory instead of asking a server
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Receipts that were kept, a line each: each must be in the chain
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

impl VerifyArgs {
    pub(super) fn is_offline(&self) -> bool {
        self.dir.is_some()
    }

    pub(super) async fn run(&self, server: &Erasures, json: bool) -> Result<ExitCode> {
        let lines = server
            .http
            .get_text("/api/v1/cleanup/erasures/receipts")
            .await?;
        let search = match &self.topic {
            Some(topic) => server.look("verify", &self.keys.body(topic)?).await?,
            None => Value::Null,
        };
        let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        self.report(&lines, search, json)
    }

    pub(super) fn run_offline(&self, json: bool) -> Result<ExitCode> {
        let directory = self.dir.as_deref().expect("it is offline");
        let place = directory.display();
        if !directory.join("STORE").exists() {
            bail!(Failure::NotFound(format!(
                "{place} is no data directory: it has no file STORE"
            )));
        }
        let lines = witness::receipts_below(directory).with_context(|| place.to_string())?;
        let search = match &self.topic {
            Some(topic) => self.search(directory, topic)?,
            None => Value::Null,
        };
        self.report(&lines, search, json)
    }

    fn search(&self, directory: &Path, topic: &TopicName) -> Result<Value> {
        // Checks that there is one.
        self.keys.body(topic)?;
        let id = crate::log::topic_id(directory, topic)?;
        let quest = Quest {
            keys: self.keys.bytes()?,
            topic: Some(id.to_bytes()),
            before: None,
        };
        let mut read = |_| true;
        let report = witness::search(directory, &quest, &mut read);
        Ok(report
            .with_context(|| directory.display().to_string())?
            .to_json())
    }

    fn report(&self, lines: &[String], search: Value, json: bool) -> Result<ExitCode> {
        let chain = receipts::check(lines.iter().map(String::as_str));
        let missing = self.missing(lines)?;
        let is_whole = chain.is_ok() && missing.is_empty();
        let is_clean = search.is_null() || search["clean"] == true;
        print(
            json,
            || json!({ "receipts": of_chain(&chain, &missing), "search": search }),
            || {
                let chain = match &chain {
                    Ok(chain) if chain.count == 0 => "there are no receipts\n".to_owned(),
                    Ok(chain) => format!("receipts 1 to {}: the chain is whole\n", chain.count),
                    Err(error) => format!("the chain of receipts is broken: {error}\n"),
                };
                let search = match search.is_null() {
                    true => String::new(),
                    false => text::of_search(&search),
                };
                format!("{chain}{search}")
            },
        )?;
        for line in &missing {
            note!("error: a receipt that was kept is not in the chain: {line}");
        }
        Ok(match is_whole && is_clean {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(failure::DAMAGED),
        })
    }

    /// Receipts that were kept and are not in the chain.
    fn missing(&self, lines: &[String]) -> Result<Vec<String>> {
        let Some(path) = &self.receipt else {
            return Ok(Vec::new());
        };
        let kept = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let kept = kept.lines().filter(|line| !line.trim().is_empty());
        let missing = kept.filter(|line| !lines.iter().any(|one| one == line));
        Ok(missing.map(str::to_owned).collect())
    }
}

fn of_chain(chain: &Result<Chain, ChainError>, missing: &[String]) -> Value {
    match chain {
        Ok(chain) => {
            json!({ "count": chain.count, "last": chain.last, "error": null, "missing": missing.len() })
        }
        Err(error) => {
            json!({ "count": null, "last": null, "error": error.to_string(), "missing": missing.len() })
        }
    }
}
