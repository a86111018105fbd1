//! Merging: heads that are equal or one behind the other, and ten changes on each side of a large
//! tree.

use std::{convert::Infallible, hint::black_box, sync::Arc};

use cairnfs_merge::{
    Carry, Content, ContentId, DeviceId, Edit, Indexed, Kind, LinkId, Name, Node, NodeId, OpId,
    Place, Reg, Relation, Side, SmallMap, State, lookup, merge,
};
use criterion::{BenchmarkId, Criterion};

const A: DeviceId = DeviceId([1; 16]);
const B: DeviceId = DeviceId([2; 16]);
const C: DeviceId = DeviceId([3; 16]);

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

fn write(tree: &mut Indexed<u8>, op: OpId, dir: &str, file: &str, value: u8) {
    let ids = lookup(tree, &[NodeId::Root], &name(dir)).unwrap().unwrap().ids;
    let entry = lookup(tree, &ids, &name(file)).unwrap().unwrap();
    let mut edit = Edit::new(tree, op);
    edit.write(&entry, Content::new(ContentId([value; 32]), 1, value)).unwrap();
    let edited = edit.finish();
    tree.apply_derived(edited.nodes, edited.index);
    tree.vv_mut().learn(&op);
}

/// Two trees of `files` files with ten changes each since they were one.
fn diverged(files: u32) -> (Indexed<u8>, Indexed<u8>) {
    let dirs = files / 100;
    let base = forest(dirs, 100);
    let (mut ours, mut theirs) = (base.clone(), base);
    for n in 0..10 {
        write(&mut ours, op(2, B), &format!("d{}", n % dirs), &format!("f{n}"), 1);
        write(&mut theirs, op(2, C), &format!("d{}", (n + 5) % dirs), &format!("f{n}"), 2);
    }
    (ours, theirs)
}

pub(crate) fn merging(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge/ten changes on each side, files in the tree");
    for files in [1_000, 10_000, 100_000] {
        group.bench_function(BenchmarkId::from_parameter(files), |b| {
            let (ours, theirs) = diverged(files);
            let (left, right) = (ours.state(), theirs.state());
            // A store finds these by the diff of two maps; see the store's bench for its cost.
            let differ = |id: &&NodeId| left.nodes.get(id) != right.nodes.get(id);
            let ids: Vec<NodeId> = left.nodes.keys().filter(differ).copied().collect();
            b.iter(|| {
                let find = |state: &State<u8>, id| state.nodes.get(id).cloned();
                let items = ids
                    .iter()
                    .map(|id| Ok::<_, Infallible>((*id, find(left, id), find(right, id))));
                let ours = Side { tree: &ours, vv: &left.vv };
                let theirs = Side { tree: &theirs, vv: &right.vv };
                black_box(merge(ours, theirs, items, C).unwrap())
            });
        });
    }
    group.finish();
}

/// Nothing to merge: decided by the version vectors alone.
pub(crate) fn relating(c: &mut Criterion) {
    let base = forest(10, 10);
    let mut ahead = base.clone();
    write(&mut ahead, op(2, B), "d1", "f1", 1);
    let (old, new) = (&base.state().vv, &ahead.state().vv);
    let mut group = c.benchmark_group("merge/heads");
    group.bench_function("equal", |b| b.iter(|| Relation::of(black_box(old), black_box(old))));
    group.bench_function("dominated", |b| b.iter(|| Relation::of(black_box(old), black_box(new))));
    group.finish();
}
