//! A large tree, and one that counts what is read of it.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;

use cairnfs_merge::{
    Carry, Child, Content, ContentId, DeviceId, Displaced, Edit, Found, Indexed, Kind, LinkId,
    Merged, Name, Node, NodeId, OpId, Place, Reg, Side, SmallMap, State, Tree, lookup, merge,
};

pub(crate) const A: DeviceId = DeviceId([1; 16]);
pub(crate) const B: DeviceId = DeviceId([2; 16]);
pub(crate) const C: DeviceId = DeviceId([3; 16]);

/// Counts the nodes that are loaded and the index reads.
pub(crate) struct Counting<'t> {
    tree: &'t Indexed<u8>,
    pub(crate) nodes: Cell<usize>,
    pub(crate) reads: Cell<usize>,
}

impl<'t> Counting<'t> {
    pub(crate) fn new(tree: &'t Indexed<u8>) -> Self {
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
        let names = self.tree.contested(dir)?;
        self.reads.set(self.reads.get() + names.len() + 1);
        Ok(names)
    }

    fn is_contested(&self, dir: &NodeId, name: &Name) -> Result<bool, Infallible> {
        self.read();
        self.tree.is_contested(dir, name)
    }

    fn once_copies(&self, dir: &NodeId, stem: &Name) -> Result<Vec<Name>, Infallible> {
        self.read();
        self.tree.once_copies(dir, stem)
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

pub(crate) fn op(lamport: u64, device: DeviceId) -> OpId {
    OpId { lamport, device }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn node(kind: Kind, parent: NodeId, text: &str) -> Arc<Node<u8>> {
    let first = op(1, A);
    let mut node = Node::empty(kind);
    node.places = SmallMap::one(LinkId::FIRST, Reg::one(first, Place::new(parent, name(text))));
    if kind == Kind::File {
        node.content = Reg::one(first, Content::new(ContentId([0; 32]), 1, 0));
    }
    node.live = Reg::one(first, Carry::Same);
    Arc::new(node)
}

const fn born(n: u32) -> NodeId {
    NodeId::Born { op: OpId { lamport: 1, device: A }, n }
}

/// `dirs` directories of `files` files each.
pub(crate) fn forest(dirs: u32, files: u32) -> Indexed<u8> {
    let mut state = State::default();
    state.vv.learn(&op(1, A));
    for dir in 0..dirs {
        let id = born(dir * (files + 1));
        state.nodes.insert(id, node(Kind::Dir, NodeId::Root, &format!("d{dir}")));
        for file in 0..files {
            let n = dir * (files + 1) + file + 1;
            state.nodes.insert(born(n), node(Kind::File, id, &format!("f{file}")));
        }
    }
    Indexed::new(state)
}

/// Writes `value` to the file `file` of directory `dir`.
pub(crate) fn write(tree: &mut Indexed<u8>, op: OpId, dir: &str, file: &str, value: u8) {
    write_at(tree, op, &[dir], file, value);
}

/// Writes `value` to the file `file` below `dirs`, each in the one before.
pub(crate) fn write_at(tree: &mut Indexed<u8>, op: OpId, dirs: &[&str], file: &str, value: u8) {
    let mut ids = vec![NodeId::Root];
    for dir in dirs {
        ids = lookup(tree, &ids, &name(dir)).unwrap().unwrap().into_ids();
    }
    let entry = lookup(tree, &ids, &name(file)).unwrap().unwrap();
    let mut edit = Edit::new(tree, op);
    edit.write(&entry, Content::new(ContentId([value; 32]), 1, value)).unwrap();
    let edited = edit.finish();
    tree.apply_derived(edited.nodes, edited.index);
    tree.vv_mut().learn(&op);
}

/// Two trees of `dirs` directories of `files` files, with ten changes in different directories on
/// each side since they were one.
pub(crate) fn diverged(dirs: u32, files: u32) -> (Indexed<u8>, Indexed<u8>) {
    let base = forest(dirs, files);
    let (mut ours, mut theirs) = (base.clone(), base);
    for n in 0..10 {
        write(&mut ours, op(2, B), &format!("d{}", n % dirs), &format!("f{n}"), 1);
        write(&mut theirs, op(2, C), &format!("d{}", (n + 20) % dirs), &format!("f{n}"), 2);
    }
    (ours, theirs)
}

/// One node of both sides.
pub(crate) type Pair = (NodeId, Found<u8>, Found<u8>);

/// The nodes in which two trees differ. A store finds them by the diff of two maps.
pub(crate) fn differing(ours: &Indexed<u8>, theirs: &Indexed<u8>) -> Vec<Pair> {
    let (left, right) = (&ours.state().nodes, &theirs.state().nodes);
    let differ = left.iter().filter(|(id, node)| right.get(id) != Some(node));
    differ.map(|(id, node)| (*id, Some(Arc::clone(node)), right.get(id).cloned())).collect()
}

/// Merges, given the nodes in which both differ; counts the nodes loaded, the given ones included,
/// and the index reads.
pub(crate) fn counted(
    ours: &Indexed<u8>,
    theirs: &Indexed<u8>,
    items: &[Pair],
) -> (usize, usize, Merged<u8>) {
    let (a, b) = (Counting::new(ours), Counting::new(theirs));
    let (left, right) = (&ours.state().vv, &theirs.state().vv);
    let given = items.iter().cloned().map(Ok);
    let merged = merge(Side { tree: &a, vv: left }, Side { tree: &b, vv: right }, given, C);
    let nodes = a.nodes.get() + b.nodes.get() + 2 * items.len();
    (nodes, a.reads.get() + b.reads.get(), merged.unwrap())
}
