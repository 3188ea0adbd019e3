//! The broker's service, free of any protocol's words.

pub mod groups;
