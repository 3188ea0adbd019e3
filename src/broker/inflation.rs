//! Inflation: what decompressing batches may hold in memory, all of them together.
//! Callers: produce and offset lookups. A batch of a few KiB may hold a hundred MiB, and a client may send many of them at once.
//! Invariant: whatever clients send, no more than [`INFLATED_MIB_MAX`] is decompressed at a time; who comes later waits.

use model::batch::{BatchError, CodecError, DecompressLimit};
use tokio::sync::Semaphore;

/// What may be decompressed at a time, in MiB; no less than the largest batch.
const INFLATED_MIB_MAX: u32 = 256;
/// A batch is first expected to be no larger than so many times its bytes, which telemetry hardly ever is.
const RATIO_EXPECTED: usize = 16;
const MIB: usize = 1 << 20;

/// Work for which a batch turned out to be larger than expected.
#[derive(Debug)]
pub struct TooLarge;

impl TooLarge {
    /// Whether this is why a batch could not be read.
    pub fn is(error: &BatchError) -> bool {
        matches!(error, BatchError::Codec(CodecError::TooLarge { .. }))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Inflation {
    /// A permit for each MiB.
    permits: Semaphore,
}

impl Inflation {
    /// Nothing is decompressed yet.
    pub fn new() -> Inflation {
        Inflation {
            permits: Semaphore::new(INFLATED_MIB_MAX as usize),
        }
    }

    /// Runs work that decompresses one batch of `bytes` at a time, on the blocking pool. It is told how large the batch may be;
    /// if that was too little it is run once more with the largest limit there is, for which it waits longer.
    pub async fn run<T, W>(&self, bytes: usize, work: W) -> T
    where
        T: Send + 'static,
        W: Fn(DecompressLimit, bool) -> Result<T, TooLarge> + Clone + Send + 'static,
    {
        let expected = bytes.saturating_mul(RATIO_EXPECTED).max(MIB);
        if expected < DecompressLimit::default().get() {
            let limit = DecompressLimit::bytes(expected);
            let first = work.clone();
            if let Ok(done) = self.within(limit, move || first(limit, false)).await {
                return done;
            }
        }
        let limit = DecompressLimit::default();
        self.within(limit, move || work(limit, true))
            .await
            .unwrap_or_else(|TooLarge| {
                unreachable!("the last limit is a refusal, not a reason to try again")
            })
    }

    /// Runs work that decompresses batches of any size, one at a time.
    pub async fn run_any<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.within(DecompressLimit::default(), work).await
    }

    async fn within<T: Send + 'static>(
        &self,
        limit: DecompressLimit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let mib = u32::try_from(limit.get().div_ceil(MIB)).unwrap_or(INFLATED_MIB_MAX);
        let permits = self.permits.acquire_many(mib.min(INFLATED_MIB_MAX)).await;
        let _permits = permits.expect("nobody closes the semaphore");
        super::on_blocking_pool(work).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_is_decompressed_at_a_time_than_fits() {
        let inflation = Arc::new(Inflation::new());
        let (held, highest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let (inflation, held, highest) = (
                    Arc::clone(&inflation),
                    Arc::clone(&held),
                    Arc::clone(&highest),
                );
                tokio::spawn(async move {
                    let work = move |limit: DecompressLimit, is_last: bool| {
                        let now = held.fetch_add(limit.get(), Ordering::SeqCst) + limit.get();
                        highest.fetch_max(now, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                        held.fetch_sub(limit.get(), Ordering::SeqCst);
                        is_last.then_some(limit.get()).ok_or(TooLarge)
                    };
                    inflation.run(10_000, work).await
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), DecompressLimit::default().get());
        }
        let highest = highest.load(Ordering::SeqCst);
        assert!(highest <= INFLATED_MIB_MAX as usize * MIB, "{highest}");
        assert!(
            highest > DecompressLimit::default().get(),
            "more than one at a time"
        );
    }

    #[tokio::test]
    async fn a_batch_of_the_expected_size_takes_little() {
        let inflation = Inflation::new();
        let work = |limit: DecompressLimit, _| Ok::<_, TooLarge>(limit.get());
        assert_eq!(inflation.run(1_000_000, work).await, 16_000_000);
        assert_eq!(inflation.run(100, work).await, MIB);
        assert_eq!(
            inflation.run(100_000_000, work).await,
            DecompressLimit::default().get()
        );
    }
}
