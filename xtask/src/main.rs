//! The project's own chores.

mod wire;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own chores")]
enum Chore {
    /// Write the Kafka protocol's messages (wire/src/messages) from the facts in wire/schema.
    Wire(wire::Args),
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Wire(args) => wire::run(&args),
    }
}
