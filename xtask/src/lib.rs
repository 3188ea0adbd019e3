//! The project's chores, as `cargo xtask NAME`: `check` is the inner loop, `test` the README's second command, `fuzz` feeds the
//! broker garbage, `package` builds the Debian package, `wire` writes the generated messages. One module per chore.
//! What drives a whole broker (exam, oracle, chaos, soak, compat, bench) is the crate `proof`, a program of its own that
//! [`proof`] builds and runs, so that no chore waits for its compilation unless it needs it.
//! Callers: `main.rs`; the crate `proof`, for [`run`], [`debian`] and [`Tally`].
//! Invariant: depends on none of the project's own crates.

pub mod check;
pub mod debian;
pub mod fuzz;
pub mod package;
pub mod proof;
pub mod run;
pub mod test;
pub mod wire;

mod tally;

pub use tally::Tally;
