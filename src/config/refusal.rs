//! Where a value stands, and why one is refused there.
//! Callers: those who read the sources (`config/sources.rs`), and `Config`, which remembers the place of each value.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File,
    /// An `ALLUVIUM_…` variable.
    Environment,
    /// A flag.
    Flag,
    /// `wal.profile`.
    Profile,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
            Origin::Profile => "wal.profile",
        })
    }
}

/// Where exactly a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is the default.
    Default,
    /// In a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In a variable of the environment.
    Environment {
        /// Its whole name.
        variable: String,
    },
    /// On the command line.
    Flag,
    /// In a profile that was chosen.
    Profile,
}

impl Place {
    /// The kind of source.
    pub fn origin(&self) -> Origin {
        match self {
            Place::Default => Origin::Default,
            Place::File { .. } => Origin::File,
            Place::Environment { .. } => Origin::Environment,
            Place::Flag => Origin::Flag,
            Place::Profile => Origin::Profile,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Place::Environment { variable } => write!(f, "environment variable {variable}"),
            Place::Default | Place::Flag | Place::Profile => self.origin().fmt(f),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("{place}: unknown setting `{key}`{}", did_you_mean(.suggestion))]
    Unknown {
        /// The name.
        key: String,
        /// A name that is close.
        suggestion: Option<String>,
        /// Where it stands.
        place: Place,
    },
    /// The value cannot be.
    #[error("{place}: {key}={value}: {reason}")]
    Invalid {
        /// The setting.
        key: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
        /// Where it stands.
        place: Place,
    },
    /// A variable's value is not UTF-8.
    #[error("environment variable {variable}: its value is not UTF-8")]
    NotText {
        /// Its name.
        variable: String,
    },
    /// The file cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn did_you_mean(known: &Option<String>) -> String {
    known
        .as_ref()
        .map_or_else(String::new, |known| format!("; did you mean `{known}`?"))
}
