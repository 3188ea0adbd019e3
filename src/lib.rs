//! The broker library behind the `alluvium` binary.
