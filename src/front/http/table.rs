//! What is to be known of a route before it is called, by its path.
//!
//! Callers: `state`, once; `middleware`, for each request.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, Method};

use model::quota::Quota;

use super::operation::{Described, Errors, Reach};
use super::quota;

/// What is to be known of routes before they are called.
pub(super) struct Table(BTreeMap<&'static str, Vec<Row>>);

/// One method of a path.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) method: Method,
    pub(super) reach: Reach,
    pub(super) errors: Errors,
    /// It asks for no right and tells nothing of records: nobody has to say who they are.
    pub(super) is_open: bool,
    pub(super) follows: bool,
    /// What it is charged for.
    pub(super) quota: Option<Quota>,
    /// Content types of good answers.
    pub(super) types: Vec<&'static str>,
}

impl Table {
    pub(super) fn of(described: &[Described]) -> Table {
        let mut paths: BTreeMap<_, Vec<Row>> = BTreeMap::new();
        for one in described {
            let about = &one.about;
            let types = about.answers.iter().flat_map(|(_, content)| &content.types);
            paths.entry(one.path).or_default().push(Row {
                method: one.method.clone(),
                reach: about.reach,
                errors: about.errors,
                is_open: about.reach == Reach::Everybody && about.rights.is_empty(),
                follows: about.follows,
                quota: quota::of_rights(one.method == Method::GET, &about.rights),
                types: types.map(|(name, _)| *name).collect(),
            });
        }
        Table(paths)
    }

    /// All paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// The methods of a path.
    pub(super) fn rows(&self, path: Option<&str>) -> &[Row] {
        path.and_then(|path| self.0.get(path))
            .map_or(&[], |rows| rows)
    }
}

/// The methods of a path, for `Allow`.
pub(super) fn methods(rows: &[Row]) -> HeaderValue {
    let mut all: Vec<&str> = rows.iter().map(|row| row.method.as_str()).collect();
    if all.contains(&"GET") {
        all.push("HEAD");
    }
    all.push("OPTIONS");
    HeaderValue::from_str(&all.join(",")).expect("methods are letters")
}
