//! The criterion benches: `cargo bench -p cairnfs-bench`, or a part of them with `-- NAME`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench stops at the first surprise")]

mod chunking;
mod flush;
mod level;
mod merge;
mod replay;
mod sealing;
mod store;

use cairnfs_bench::{awake::Awake, workplace};
use criterion::{Criterion, criterion_group};

criterion_group!(
    benches,
    store::saving,
    store::by_bytes,
    store::putting,
    store::map,
    sealing::limits,
    sealing::sealing,
    chunking::cutting,
    flush::by_bytes,
    flush::by_writers,
    flush::by_size,
    replay::opening,
    merge::relating,
    merge::merging,
    merge::renaming,
);

fn main() {
    let place = workplace::new(None).unwrap();
    let awake = Awake::if_needed(place.path()).unwrap();
    benches();
    Criterion::default().configure_from_args().final_summary();
    drop(awake);
}
