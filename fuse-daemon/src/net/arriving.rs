//! Buckets that are just being joined, each by one command at a time: from before a ticket is presented
//! until the bucket is here, so that nobody else's ticket is used up for what cannot be here twice.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cairnfs_mount_core::BucketId;

use crate::order::{self, Condvar, Mutex};

/// How often who waits is asked whether to go on.
const TICK: Duration = Duration::from_millis(200);

/// See the module's doc.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    under_way: Mutex<BTreeSet<BucketId>, order::Arrivals>,
    over: Condvar,
}

/// Keeps others from joining a bucket.
#[derive(Debug)]
#[must_use = "others may join the bucket when this is dropped"]
pub(super) struct Arrival {
    all: Arc<Arrivals>,
    bucket: BucketId,
}

impl Arrivals {
    /// Waits until nobody else joins the bucket; none if `wait` does not want to.
    pub(super) fn begin(
        self: &Arc<Self>,
        bucket: BucketId,
        wait: &mut dyn FnMut() -> bool,
    ) -> Option<Arrival> {
        loop {
            let mut under_way = self.under_way.lock();
            let is_taken = |under_way: &mut BTreeSet<_>| under_way.contains(&bucket);
            self.over.wait_while_for(&mut under_way, is_taken, TICK);
            if under_way.insert(bucket) {
                return Some(Arrival { all: Arc::clone(self), bucket });
            }
            drop(under_way);
            if !wait() {
                return None;
            }
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.all.under_way.lock().remove(&self.bucket);
        self.all.over.notify_all();
    }
}
