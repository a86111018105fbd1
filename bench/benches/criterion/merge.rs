//! Merging: heads that are equal or one behind the other, and ten changes on each side of a large
//! tree; with what is loaded for it.

#![allow(clippy::print_stdout, reason = "counts stand beside the times")]

use std::convert::Infallible;
use std::hint::black_box;

use cairnfs_merge::{Edit, Indexed, NodeId, Relation, Side, lookup, merge};
use criterion::{BenchmarkId, Criterion};

// The tests of the crate assert what is only printed here.
#[path = "../../../merge/tests/support/large.rs"]
mod large;

use large::{B, C, Pair, counted, differing, diverged, forest, name, op, write};

/// A million files with ten changes on each side are to merge in less than 50 ms.
pub(crate) fn merging(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge/ten changes on each side, files in the tree");
    for files in [1_000, 10_000, 100_000, 1_000_000] {
        // Criterion calls the closure for every sample, and a bench that is left out never.
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(files), |b| {
            let (ours, theirs, items) = made.get_or_insert_with(|| {
                let (ours, theirs) = diverged(files / 100, 100);
                // See the store's bench for the cost of the diff.
                let items = differing(&ours, &theirs);
                (ours, theirs, items)
            });
            b.iter(|| {
                let items = items.iter().cloned().map(Ok::<_, Infallible>);
                let ours = Side { tree: &*ours, vv: &ours.state().vv };
                let theirs = Side { tree: &*theirs, vv: &theirs.state().vv };
                black_box(merge(ours, theirs, items, C).unwrap())
            });
        });
        if let Some((ours, theirs, items)) = made {
            let (nodes, reads, _) = counted(&ours, &theirs, &items);
            println!("{files} files, 20 changed: {nodes} nodes loaded, {reads} index reads");
        }
    }
    group.finish();
}

/// A directory of 100,000 files is renamed on one side, a file in it changed on the other.
pub(crate) fn renaming(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge/rename of a directory and an edit in it, files");
    for files in [1_000, 100_000] {
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(files), |b| {
            let (ours, theirs, items) = made.get_or_insert_with(|| renamed(files));
            b.iter(|| black_box(counted(ours, theirs, items)));
        });
        if let Some((ours, theirs, items)) = made {
            let (nodes, reads, _) = counted(&ours, &theirs, &items);
            println!("{files} files: {nodes} nodes loaded, {reads} index reads");
        }
    }
    group.finish();
}

/// Two trees of one directory: renamed in one, a file in it changed in the other; and where they
/// differ.
fn renamed(files: u32) -> (Indexed<u8>, Indexed<u8>, Vec<Pair>) {
    let base = forest(1, files);
    let (mut ours, mut theirs) = (base.clone(), base);
    let dir = lookup(&ours, &[NodeId::Root], &name("d0")).unwrap().unwrap();
    let edited = {
        let mut edit = Edit::new(&ours, op(2, B));
        edit.rename(&dir, &[NodeId::Root], &name("moved")).unwrap();
        edit.finish()
    };
    ours.apply_derived(edited.nodes, edited.index);
    ours.vv_mut().learn(&op(2, B));
    write(&mut theirs, op(2, C), "d0", "f7", 1);
    let items = differing(&ours, &theirs);
    (ours, theirs, items)
}

/// Nothing to merge: decided by the version vectors alone, without a tree to load from.
pub(crate) fn relating(c: &mut Criterion) {
    let base = forest(10, 10);
    let mut ahead = base.clone();
    write(&mut ahead, op(2, B), "d1", "f1", 1);
    let (old, new) = (&base.state().vv, &ahead.state().vv);
    let mut group = c.benchmark_group("merge/heads");
    group.bench_function("equal", |b| b.iter(|| Relation::of(black_box(old), black_box(old))));
    group.bench_function("dominated", |b| b.iter(|| Relation::of(black_box(old), black_box(new))));
    group.finish();
    // Heads that are so related are not merged; and a merge without differences loads nothing.
    let (nodes, reads, _) = counted(&base, &base, &[]);
    println!("equal heads: {nodes} nodes loaded, {reads} index reads");
}
