//! Calls of the libraries on foreign bytes. They check what they read; where one fails to and panics, the body is broken all the
//! same, and nothing of it is printed: whoever sends bodies must not fill the log of a server.
//!
//! Callers: the readers of Arrow streams and of Parquet files. Invariant: any other panic goes to the hook that stood before.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// This thread is in such a call.
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The hook of the process, which is put before the one that is there.
static HOOK: Once = Once::new();

/// What `call` gives; None if it panicked.
pub(super) fn contained<T>(call: impl FnOnce() -> T) -> Option<T> {
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_CONTAINED.get() {
                before(panic);
            }
        }));
    });
    let was = IS_CONTAINED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(call));
    IS_CONTAINED.set(was);
    done.ok()
}
