//! What merging loads, counted: in proportion to what changed and its depth, never to the tree.

#![allow(clippy::print_stdout, reason = "times are shown, not asserted")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;

use cairnfs_merge::{
    Carry, Child, Content, ContentId, DeviceId, Displaced, Edit, Found, Indexed, Kind, LinkId,
    Name, Node, NodeId, OpId, Place, Reg, Relation, Side, SmallMap, State, Tree, lookup, merge,
};

const A: DeviceId = DeviceId([1; 16]);
const B: DeviceId = DeviceId([2; 16]);
const C: DeviceId = DeviceId([3; 16]);

/// Counts the nodes that are loaded and the index reads.
struct Counting<'t> {
    tree: &'t Indexed<u8>,
    nodes: Cell<usize>,
    reads: Cell<usize>,
}

impl<'t> Counting<'t> {
    fn new(tree: &'t Indexed<u8>) -> Self {
        Self { tree, nodes: Cell::new(0), reads: Cell::new(0) }
    }

    fn read(&self) {
        self.reads.set(self.reads.get() + 1);
    }
}

impl Tree<u8> for Counting<'_> {
    type Error = Infallible;

    fn node(&self, id: &NodeId) -> Result<Found<u8>, Infallible> {
        self.nodes.set(self.nodes.get() + 1);
        self.tree.node(id)
    }

    fn named(&self, dir: &NodeId, name: &Name) -> Result<Vec<(NodeId, Kind)>, Infallible> {
        self.read();
        self.tree.named(dir, name)
    }

    fn children(
        &self,
        dir: &NodeId,
        after: Option<(&Name, &NodeId)>,
        limit: usize,
    ) -> Result<Vec<Child>, Infallible> {
        let page = self.tree.children(dir, after, limit)?;
        self.reads.set(self.reads.get() + page.len() + 1);
        Ok(page)
    }

    fn contested(&self, dir: &NodeId) -> Result<Vec<Name>, Infallible> {
        self.read();
        self.tree.contested(dir)
    }

    fn contested_dirs(&self) -> Result<Vec<NodeId>, Infallible> {
        self.tree.contested_dirs()
    }

    fn displaced(&self, id: &NodeId) -> Result<Option<Displaced>, Infallible> {
        self.read();
        self.tree.displaced(id)
    }

    fn all_displaced(&self) -> Result<Vec<NodeId>, Infallible> {
        self.tree.all_displaced()
    }
}

fn op(lamport: u64, device: DeviceId) -> OpId {
    OpId { lamport, device }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// `dirs` directories of `files` files each.
fn forest(dirs: u32, files: u32) -> Indexed<u8> {
    let first = op(1, A);
    let node = |kind, parent, text: &str| {
        let mut node = Node::empty(kind);
        node.places = SmallMap::one(LinkId::FIRST, Reg::one(first, Place::new(parent, name(text))));
        if kind == Kind::File {
            node.content = Reg::one(first, Content::new(ContentId([0; 32]), 1, 0));
        }
        node.live = Reg::one(first, Carry::Same);
        Arc::new(node)
    };
    let mut state = State::default();
    state.vv.learn(&first);
    for dir in 0..dirs {
        let id = NodeId::Born { op: first, n: dir * (files + 1) };
        state.nodes.insert(id, node(Kind::Dir, NodeId::Root, &format!("d{dir}")));
        for file in 0..files {
            let n = dir * (files + 1) + file + 1;
            let file = node(Kind::File, id, &format!("f{file}"));
            state.nodes.insert(NodeId::Born { op: first, n }, file);
        }
    }
    Indexed::new(state)
}

/// Writes `value` to the file `file` of directory `dir`.
fn write(tree: &mut Indexed<u8>, op: OpId, dir: &str, file: &str, value: u8) {
    let ids = lookup(tree, &[NodeId::Root], &name(dir)).unwrap().unwrap().ids;
    let entry = lookup(tree, &ids, &name(file)).unwrap().unwrap();
    let mut edit = Edit::new(tree, op);
    edit.write(&entry, Content::new(ContentId([value; 32]), 1, value)).unwrap();
    let edited = edit.finish();
    tree.apply_derived(edited.nodes, edited.index);
    tree.vv_mut().learn(&op);
}

/// Merges, given the nodes in which both differ, and returns the nodes loaded, the index reads and
/// the milliseconds.
fn counted(ours: &Indexed<u8>, theirs: &Indexed<u8>) -> (usize, usize, u128) {
    let (left, right) = (ours.state(), theirs.state());
    let differ = |id: &&NodeId| left.nodes.get(id) != right.nodes.get(id);
    let ids: Vec<NodeId> = left.nodes.keys().filter(differ).copied().collect();
    let find = |state: &State<u8>, id| state.nodes.get(id).cloned();
    let items: Vec<_> = ids.iter().map(|id| Ok((*id, find(left, id), find(right, id)))).collect();
    let (a, b) = (Counting::new(ours), Counting::new(theirs));
    let start = std::time::Instant::now();
    let merged = merge(Side { tree: &a, vv: &left.vv }, Side { tree: &b, vv: &right.vv }, items, C);
    let ms = start.elapsed().as_millis();
    assert!(!merged.unwrap().nodes.is_empty());
    (a.nodes.get() + b.nodes.get() + 2 * ids.len(), a.reads.get() + b.reads.get(), ms)
}

#[test]
fn case_235_a_million_files_with_ten_changes_on_each_side() {
    let base = forest(1_000, 1_000);
    let (mut ours, mut theirs) = (base.clone(), base);
    for n in 0..10 {
        write(&mut ours, op(2, B), &format!("d{n}"), "f1", 1);
        write(&mut theirs, op(2, C), &format!("d{}", n + 20), "f1", 2);
    }
    let (nodes, reads, ms) = counted(&ours, &theirs);
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
    let (nodes, reads, _) = counted(&ours, &theirs);
    assert!(nodes < 40 && reads < 60, "{nodes} nodes, {reads} index reads");
}
