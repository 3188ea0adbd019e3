//! The rules of the house without the broker's tests around them: compiled in seconds, for `cargo xtask check`.

#[path = "../../tests/it/circles.rs"]
mod circles;
#[path = "../../tests/it/stations.rs"]
mod stations;
#[path = "../../tests/it/tidy.rs"]
mod tidy;
