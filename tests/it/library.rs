//! Our own client library against our own broker: what its example shows, with fewer records.

use crate::server::Server;

#[path = "../../client/examples/exercise/run.rs"]
mod exercise;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_does_with_our_broker_all_that_it_can() {
    let server = Server::with_wal_files_of(8 << 20).await;
    exercise::run(&server.address.to_string(), 20_000)
        .await
        .expect("every step holds");
}
