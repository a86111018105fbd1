//! What merging loads, counted: in proportion to what changed and its depth, never to the tree.

#![allow(clippy::print_stdout, reason = "times are shown, not asserted")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "support/large.rs"]
mod large;

use cairnfs_merge::{Edit, NodeId, Relation, lookup};
use large::{B, C, Counting, counted, differing, diverged, forest, name, op, write};

#[test]
fn case_235_a_million_files_with_ten_changes_on_each_side() {
    let (ours, theirs) = diverged(1_000, 1_000);
    let items = differing(&ours, &theirs);
    let start = std::time::Instant::now();
    let (nodes, reads, _) = counted(&ours, &theirs, &items);
    let ms = start.elapsed().as_millis();
    // Twenty files and twenty directories differ.
    assert!(nodes <= 8 * 40, "{nodes} nodes loaded");
    assert!(reads <= 20 * 40, "{reads} index reads");
    println!("{nodes} nodes, {reads} index reads, {ms} ms warm");
}

#[test]
fn case_236_equal_and_dominated_heads_load_nothing() {
    let base = forest(10, 10);
    let mut ahead = base.clone();
    write(&mut ahead, op(2, B), "d1", "f1", 1);
    let (old, new) = (&base.state().vv, &ahead.state().vv);
    assert_eq!(Relation::of(old, old), Relation::Same);
    assert_eq!(Relation::of(new, old), Relation::Ahead);
    assert_eq!(Relation::of(old, new), Relation::Behind);
    // The relation is that of the version vectors; and a merge of nothing reads nothing.
    let (nodes, reads, merged) = counted(&base, &base, &differing(&base, &base));
    assert_eq!((nodes, reads, merged.nodes.len()), (0, 0, 0));
}

#[test]
fn case_237_renaming_a_large_directory_against_an_edit_inside() {
    let base = forest(1, 100_000);
    let (mut ours, mut theirs) = (base.clone(), base);
    let dir = lookup(&ours, &[NodeId::Root], &name("d0")).unwrap().unwrap();
    let counting = Counting::new(&ours);
    let mut edit = Edit::new(&counting, op(2, B));
    edit.rename(&dir, &[NodeId::Root], &name("moved")).unwrap();
    let edited = edit.finish();
    assert!(counting.nodes.get() + counting.reads.get() < 60);
    ours.apply_derived(edited.nodes, edited.index);
    ours.vv_mut().learn(&op(2, B));
    write(&mut theirs, op(2, C), "d0", "f7", 1);
    let (nodes, reads, merged) = counted(&ours, &theirs, &differing(&ours, &theirs));
    assert!(!merged.nodes.is_empty());
    assert!(nodes < 40 && reads < 60, "{nodes} nodes, {reads} index reads");
}
