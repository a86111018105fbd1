//! The threads that hash and seal where one would take too long.
//!
//! They come with the first batch that is worth it and go with [`super::Appender::rest`]. What a thread keeps
//! for itself, such as the tables of zstd, lies in the heap where there was room when it first
//! worked, and all that is free below it stays with the process: idle threads kept 40 MiB and more
//! that a large write had taken (2 cores, 2026-11).

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool of one thread a core, named `seal-N`, or none.
#[derive(Debug, Default)]
pub(super) struct Sealers(Option<Arc<ThreadPool>>);

impl Sealers {
    /// The pool, started if need be; `None` if it cannot be: then the caller does the work alone.
    pub(super) fn wake(&mut self) -> Option<Arc<ThreadPool>> {
        if self.0.is_none() {
            let pool =
                ThreadPoolBuilder::new().thread_name(|index| format!("seal-{index}")).build();
            let pool = pool.inspect_err(|err| log::warn!("sealers started=no reason={err}"));
            self.0 = pool.ok().map(Arc::new);
        }
        self.0.clone()
    }

    /// Ends the threads, until they are needed again.
    pub(super) fn rest(&mut self) {
        self.0 = None;
    }
}
