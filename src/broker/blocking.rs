//! Work that blocks, off the threads that answer.
//! Callers: every operation that may wait for the disk or for a processor.

/// Runs what blocks where it may.
pub(super) async fn on_blocking_pool<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
