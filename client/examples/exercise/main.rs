//! Goes through everything that the client can do against a broker, and measures how fast it produces and consumes:
//! `cargo run -p alluvium-client --example exercise -- HOST:PORT [RECORDS]`. Leaves nothing behind.

extern crate alluvium_client as client;

mod run;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> run::Outcome {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("which broker? HOST:PORT")?;
    let records = arguments.next().map_or(Ok(200_000), |n| n.parse())?;
    run::run(&address, records).await
}
