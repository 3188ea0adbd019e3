//! Stop: how what serves connections learns that the server stops.
//! Callers: the listener, the watch of its files, and each front's connections.

use tokio::sync::watch;

/// Waits until the server stops; whoever would say so being gone is that too.
pub(in crate::front) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
