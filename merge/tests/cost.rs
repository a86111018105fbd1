//! What merging loads, counted: in proportion to what changed and its depth, never to the tree.

#![allow(clippy::print_stdout, reason = "times are shown, not asserted")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "support/large.rs"]
mod large;

use std::sync::Arc;

use cairnfs_merge::{
    Carry, Content, ContentId, Edit, Found, Indexed, Kind, LinkId, NewNode, Node, NodeId, Place,
    Reg, Relation, SmallMap, Tree, View, at_name, lookup,
};
use large::{A, B, C, Counting, counted, differing, diverged, forest, name, op, write, write_at};

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

/// `count` files, each below `depth` directories of its own.
fn chains(count: u32, depth: u32) -> Indexed<u8> {
    let mut tree = Indexed::default();
    let first = op(1, A);
    for chain in 0..count {
        let mut edit = Edit::new(&tree, first);
        let mut dir = NodeId::Root;
        for level in 0..depth {
            let id = NodeId::Born { op: first, n: chain * (depth + 1) + level };
            let called = if level == 0 { name(&format!("d{chain}")) } else { name("d") };
            edit.create(&[dir], NewNode::dir(id, called)).unwrap();
            dir = id;
        }
        let id = NodeId::Born { op: first, n: chain * (depth + 1) + depth };
        let old = Content::new(ContentId([0; 32]), 1, 0);
        edit.create(&[dir], NewNode::file(id, name("f"), old)).unwrap();
        let edited = edit.finish();
        tree.apply_derived(edited.nodes, edited.index);
    }
    tree.vv_mut().learn(&first);
    tree
}

#[test]
fn case_235_what_is_loaded_grows_with_the_depth_of_the_changes_and_no_faster() {
    for depth in [1, 4, 16, 64] {
        let base = chains(20, depth);
        let (mut ours, mut theirs) = (base.clone(), base);
        for n in 0..20 {
            let (tree, device) = if n < 10 { (&mut ours, B) } else { (&mut theirs, C) };
            let top = format!("d{n}");
            let mut dirs = vec!["d"; usize::try_from(depth).unwrap()];
            dirs[0] = &top;
            write_at(tree, op(2, device), &dirs, "f", 1);
        }
        let (nodes, reads, _) = counted(&ours, &theirs, &differing(&ours, &theirs));
        let changed = 20 * (usize::try_from(depth).unwrap() + 1);
        println!("{depth} deep, {changed} nodes changed: {nodes} loaded, {reads} index reads");
        assert!(nodes <= 4 * changed, "{nodes} nodes loaded of {changed} changed, {depth} deep");
        assert!(reads <= 4 * changed, "{reads} index reads for {changed} changed, {depth} deep");
    }
}

/// A file with `links` names in one directory.
fn with_links(links: u32) -> Indexed<u8> {
    let mut tree = forest(1, 1);
    let first = op(2, A);
    let dirs = lookup(&tree, &[NodeId::Root], &name("d0")).unwrap().unwrap().into_ids();
    let file = lookup(&tree, &dirs, &name("f0")).unwrap().unwrap();
    let mut edit = Edit::new(&tree, first);
    for n in 1..links {
        let link = LinkId::Later { op: first, n };
        edit.link(&file, &dirs, name(&format!("l{n}")), link).unwrap();
    }
    let edited = edit.finish();
    tree.apply_derived(edited.nodes, edited.index);
    tree.vv_mut().learn(&first);
    tree
}

#[test]
fn an_action_on_a_file_of_many_names_loads_as_little_as_on_one_of_few() {
    for links in [3, 3_000] {
        let mut tree = with_links(links);
        let dirs = lookup(&tree, &[NodeId::Root], &name("d0")).unwrap().unwrap().into_ids();
        // The first one under an operation, and one behind it.
        for n in 0..2 {
            let counting = Counting::new(&tree);
            let find = |edit: &Edit<'_, u8, _>, at: &str| {
                edit.view().lookup(&dirs, &name(at)).unwrap().unwrap()
            };
            let mut edit = Edit::new(&counting, op(3, B));
            let file = find(&edit, "f0");
            let link = LinkId::Later { op: op(3, B), n };
            edit.link(&file, &dirs, name("new"), link).unwrap();
            edit.rename(&find(&edit, "new"), &dirs, &name("newer")).unwrap();
            edit.write(&find(&edit, "l1"), Content::new(ContentId([9; 32]), 1, 9)).unwrap();
            edit.unlink(&find(&edit, "newer")).unwrap();
            let edited = edit.finish();
            let (nodes, reads) = (counting.nodes.get(), counting.reads.get());
            println!("{links} names: {nodes} nodes, {reads} index reads");
            assert!(nodes < 100 && reads < 200, "{links} names: {nodes} nodes, {reads} reads");
            tree.apply_derived(edited.nodes, edited.index);
        }
    }
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

/// A file in a directory that never was.
fn orphan(n: u32) -> (NodeId, Found<u8>) {
    let hostile = op(2, C);
    let gone = NodeId::Born { op: hostile, n: u32::MAX };
    let mut node = Node::empty(Kind::File);
    let place = Place::new(gone, name(&format!("lost{n}")));
    node.places = SmallMap::one(LinkId::FIRST, Reg::one(hostile, place));
    node.content = Reg::one(hostile, Content::new(ContentId([0; 32]), 1, 0));
    node.live = Reg::one(hostile, Carry::Same);
    (NodeId::Born { op: hostile, n }, Some(Arc::new(node)))
}

/// One directory with `count` files of which two sides have written different bytes each.
fn contested(count: u32) -> Indexed<u8> {
    let base = forest(1, count);
    let (mut ours, mut theirs) = (base.clone(), base);
    for n in 0..count {
        write(&mut ours, op(2, B), "d0", &format!("f{n}"), 1);
        write(&mut theirs, op(2, C), "d0", &format!("f{n}"), 2);
    }
    let (_, _, merged) = counted(&ours, &theirs, &differing(&ours, &theirs));
    ours.apply_derived(merged.nodes, merged.index);
    *ours.vv_mut() = merged.vv;
    ours
}

#[test]
fn a_copy_costs_the_same_however_many_names_are_contested_beside_it() {
    let cost = |count| {
        let tree = contested(count);
        let dirs = lookup(&tree, &[NodeId::Root], &name("d0")).unwrap().unwrap().into_ids();
        assert_eq!(tree.contested(&dirs[0]).unwrap().len(), count as usize);
        let counting = Counting::new(&tree);
        let view = View::new(&counting);
        let [copy] = view.copies(&dirs, &name("f1")).unwrap().try_into().unwrap();
        assert_eq!(view.lookup(&dirs, &copy.name).unwrap().as_ref(), Some(&copy));
        assert_eq!(at_name(&view, &dirs, &copy.name).unwrap().len(), 1);
        let mut edit = Edit::new(&counting, op(3, B));
        edit.pin(&copy).unwrap();
        edit.unlink(&edit.view().lookup(&dirs, &name("f1")).unwrap().unwrap()).unwrap();
        (counting.nodes.get(), counting.reads.get())
    };
    let (few, many) = (cost(4), cost(1_000));
    println!("{few:?} and {many:?} nodes and index reads");
    assert_eq!(few, many);
}

#[test]
fn orphans_cost_no_action_that_leaves_directories_where_they_are() {
    let cost = |count| {
        let mut tree = forest(1, 10);
        tree.apply((0..count).map(orphan).collect());
        assert_eq!(tree.all_displaced().unwrap().len(), count as usize);
        let dirs = lookup(&tree, &[NodeId::Root], &name("d0")).unwrap().unwrap().into_ids();
        let counting = Counting::new(&tree);
        let mut edit = Edit::new(&counting, op(3, B));
        let find = |edit: &Edit<'_, u8, _>, at: &str| {
            edit.view().lookup(&dirs, &name(at)).unwrap().unwrap()
        };
        let id = NodeId::Born { op: op(3, B), n: 0 };
        let new = Content::new(ContentId([9; 32]), 1, 9);
        edit.create(&dirs, NewNode::file(id, name("new"), new.clone())).unwrap();
        edit.write(&find(&edit, "f1"), new).unwrap();
        edit.rename(&find(&edit, "f2"), &dirs, &name("f3")).unwrap();
        edit.unlink(&find(&edit, "f4")).unwrap();
        let files = (counting.nodes.get(), counting.reads.get());
        let top = &[NodeId::Root];
        let dir = edit.view().lookup(top, &name("d0")).unwrap().unwrap();
        edit.rename(&dir, top, &name("moved")).unwrap();
        (files, counting.nodes.get())
    };
    let (few, many) = (cost(4), cost(1_000));
    println!("{few:?} and {many:?} nodes and index reads");
    assert_eq!(few, many);
}
