//! Laws over generated actions: a failing case shrinks, and proptest's seed replays it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::sync::Arc;

use cairnfs_merge::{
    Carry, ContentId, DeviceId, Indexed, Kind, LinkId, Name, Node, NodeEdits, NodeId, OpId,
    PathOpLog, Place, PlainEntry, PlainTree, Policy, Reg, Relation, Renames, SmallMap, State, View,
    at_name, conflicts, in_directory, join, three_way, verify,
};
use proptest::prelude::*;
use support::peer::{Peer, Text, content};

/// One action on one of three peers; paths are chosen from a small set, so that they meet.
#[derive(Clone, Debug)]
enum Action {
    Write(usize, usize, u8),
    Mkdir(usize, usize),
    Move(usize, usize, usize),
    Remove(usize, usize),
    RemoveTree(usize, usize),
    Attr(usize, usize, u8),
    Pull(usize, usize),
}

const PATHS: [&str; 10] = ["a", "b", "p", "q", "p/a", "q/a", "p/q", "q/p", "p/q/a", "q/p/a"];

fn action() -> impl Strategy<Value = Action> {
    let (peer, path) = (0..3_usize, 0..PATHS.len());
    prop_oneof![
        4 => (peer.clone(), path.clone(), 0..4_u8).prop_map(|(p, at, t)| Action::Write(p, at, t)),
        3 => (peer.clone(), path.clone()).prop_map(|(p, at)| Action::Mkdir(p, at)),
        4 => (peer.clone(), path.clone(), path.clone()).prop_map(|(p, a, b)| Action::Move(p, a, b)),
        2 => (peer.clone(), path.clone()).prop_map(|(p, at)| Action::Remove(p, at)),
        1 => (peer.clone(), path.clone()).prop_map(|(p, at)| Action::RemoveTree(p, at)),
        1 => (peer.clone(), path, 0..3_u8).prop_map(|(p, at, v)| Action::Attr(p, at, v)),
        2 => (peer.clone(), peer).prop_map(|(a, b)| Action::Pull(a, b)),
    ]
}

/// What becomes of one of a few nodes: gone, or by which operation it hangs where, and hung before.
type Hanging = (u32, Option<(u64, usize, Option<usize>)>);

/// The nodes 1 to 5 are directories, 6 and 7 files; 8 never is.
fn hangings() -> impl Strategy<Value = Vec<Vec<Hanging>>> {
    let place = (1..9_u64, 0..9_usize, prop::option::of(0..9_usize));
    let one = (1..8_u32, prop::option::weighted(0.8, place));
    prop::collection::vec(prop::collection::vec(one, 1..4), 1..12)
}

fn hung(id: NodeId, n: u32, hanging: (u64, NodeId, Option<NodeId>)) -> Node<Text> {
    let (lamport, parent, prev) = hanging;
    let op = OpId { lamport, device: DeviceId([1; 16]) };
    let name = |text: &str| Name::new(format!("{text}{n}").as_bytes()).unwrap();
    let not_itself = |dir: NodeId| if dir == id { NodeId::Root } else { dir };
    let prev = prev.map(|dir| (not_itself(dir), name("before")));
    let place = Place { parent: not_itself(parent), name: name("f"), prev };
    let mut node = Node::empty(if n < 6 { Kind::Dir } else { Kind::File });
    node.places = SmallMap::one(LinkId::FIRST, Reg::one(op, place));
    if n >= 6 {
        node.content = Reg::one(op, content("x"));
    }
    node.live = Reg::one(op, Carry::Same);
    node
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(action(), 1..40)
}

/// Three peers after the actions; what is refused is left out.
fn peers(actions: &[Action]) -> Vec<Peer> {
    let mut peers: Vec<Peer> = "ABC".chars().map(Peer::new).collect();
    for action in actions {
        let _refused = match *action {
            Action::Write(p, at, t) => peers[p].write(PATHS[at], &t.to_string()),
            Action::Mkdir(p, at) => peers[p].mkdir(PATHS[at]),
            Action::Move(p, a, b) => peers[p].mv(PATHS[a], PATHS[b]),
            Action::Remove(p, at) => peers[p].rm(PATHS[at]),
            Action::RemoveTree(p, at) => peers[p].rmr(PATHS[at]),
            Action::Attr(p, at, v) => peers[p].set_attr(PATHS[at], "x", &v.to_string()),
            Action::Pull(a, b) => {
                let other = peers[b].clone();
                peers[a].pull(&other);
                Ok(())
            }
        };
    }
    peers
}

fn states(actions: &[Action]) -> [State<Text>; 3] {
    let states = peers(actions).into_iter().map(|peer| peer.tree.state().clone());
    states.collect::<Vec<_>>().try_into().unwrap()
}

/// Records the actions of one peer in a log.
fn record(log: &mut PathOpLog<Text>, actions: &[Action], who: usize) {
    for action in actions {
        let _refused = match *action {
            Action::Write(p, at, t) if p == who => {
                log.write(PATHS[at].as_bytes(), content(&t.to_string()))
            }
            Action::Mkdir(p, at) if p == who => log.mkdir(PATHS[at].as_bytes()),
            Action::Move(p, a, b) if p == who => {
                log.rename(PATHS[a].as_bytes(), PATHS[b].as_bytes())
            }
            Action::Remove(p, at) | Action::RemoveTree(p, at) if p == who => {
                log.remove(PATHS[at].as_bytes())
            }
            _ => Ok(()),
        };
    }
}

fn plain(actions: &[Action], who: usize) -> PlainTree<Text> {
    let tree = peers(actions).swap_remove(who).tree;
    let rendered = View::new(&tree).render().unwrap();
    let entries = rendered.by_path().into_iter().map(|(path, entry)| {
        (path, PlainEntry { kind: entry.kind, content: entry.content.clone() })
    });
    entries.collect()
}

fn merged(base: &PlainTree<Text>, ours: &PlainTree<Text>, theirs: &PlainTree<Text>) -> Shown {
    let outcome = three_way(base, ours, theirs, Renames::Ignore, Policy::default()).unwrap();
    let entries = outcome.tree.by_path().into_iter();
    entries.map(|(path, entry)| (path, entry.content.as_ref().map(|content| content.id))).collect()
}

type Shown = Vec<(Vec<u8>, Option<ContentId>)>;

fn ids(tree: &PlainTree<Text>) -> Shown {
    let entries = tree.iter();
    entries.map(|(path, entry)| (path.clone(), entry.content.as_ref().map(|c| c.id))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn indexes_derived_change_by_change_are_those_of_the_whole(changes in hangings()) {
        let op = OpId { lamport: 1, device: DeviceId([1; 16]) };
        let ids: Vec<NodeId> = std::iter::once(NodeId::Root)
            .chain((1..9).map(|n| NodeId::Born { op, n }))
            .collect();
        let mut tree = Indexed::default();
        for step in changes {
            let node = |(n, to): Hanging| {
                let id = ids[n as usize];
                let to = to.map(|(op, parent, prev)| (op, ids[parent], prev.map(|dir| ids[dir])));
                (id, to.map(|to| Arc::new(hung(id, n, to))))
            };
            tree.apply(step.into_iter().map(node).collect::<NodeEdits<Text>>());
            prop_assert_eq!(&tree, &Indexed::new(tree.state().clone()));
        }
    }

    #[test]
    fn p1_p2_p3_joining_is_a_lattice(actions in actions()) {
        let [a, b, c] = states(&actions);
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert_eq!(join(&join(&a, &b), &a), join(&a, &b));
    }

    #[test]
    fn p4_p15_equal_knowledge_is_equal_bytes_and_an_equal_tree(actions in actions()) {
        let [a, b, _] = states(&actions);
        let (ab, ba) = (join(&a, &b), join(&b, &a));
        let bytes = postcard::to_stdvec(&ab).unwrap();
        prop_assert_eq!(&bytes, &postcard::to_stdvec(&ba).unwrap());
        prop_assert_eq!(&postcard::from_bytes::<State<Text>>(&bytes).unwrap(), &ab);
        prop_assert_eq!(verify::state(&ab), Ok(()));
        let (left, right) = (Indexed::new(ab), Indexed::new(ba));
        let (left, right) = (View::new(&left), View::new(&right));
        prop_assert_eq!(left.render().unwrap(), right.render().unwrap());
        prop_assert_eq!(conflicts(&left).unwrap(), conflicts(&right).unwrap());
    }

    #[test]
    fn whatever_is_listed_is_found_as_it_is_listed(actions in actions()) {
        let [a, b, c] = states(&actions);
        let tree = Indexed::new(join(&join(&a, &b), &c));
        let view = View::new(&tree);
        let mut todo = vec![vec![NodeId::Root]];
        while let Some(dirs) = todo.pop() {
            for entry in view.entries(&dirs).unwrap() {
                let found = view.lookup(&dirs, &entry.name).unwrap();
                prop_assert_eq!(found.as_ref(), Some(&entry));
                let claimed = view.claimed(&dirs, entry.slot()).unwrap();
                prop_assert!(claimed.contains(&entry), "{:?}", entry.name);
                if entry.kind.is_dir() {
                    todo.push(entry.into_ids());
                }
            }
            let found = in_directory(&view, &dirs).unwrap();
            for conflict in &found {
                let mut all = at_name(&view, &dirs, &conflict.slot).unwrap();
                all.retain(|other| other.slot == conflict.slot);
                let wanted = found.iter().filter(|other| other.slot == conflict.slot);
                prop_assert_eq!(all, wanted.cloned().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn p7_p12_a_stream_of_differences_does_what_a_full_join_does(actions in actions()) {
        let mut peers = peers(&actions);
        let other = peers[1].clone();
        let full = join(peers[0].tree.state(), other.tree.state());
        let device = peers[0].device;
        let restored = peers[0].tree.merge(&other.tree, device).unwrap();
        if restored.is_none() {
            prop_assert_eq!(peers[0].tree.state(), &full);
        }
        prop_assert!(peers[0].tree.state().vv.dominates(&full.vv));
        prop_assert_eq!(Indexed::new(peers[0].tree.clone().into_state()), peers[0].tree.clone());
    }

    #[test]
    fn case_238_a_merge_that_skips_is_a_full_join(actions in actions()) {
        let states = states(&actions);
        for (a, b) in states.iter().flat_map(|a| states.iter().map(move |b| (a, b))) {
            let full = join(a, b);
            match Relation::of(&a.vv, &b.vv) {
                Relation::Same => prop_assert!(full == *a && full == *b),
                Relation::Ahead => prop_assert_eq!(&full, a),
                Relation::Behind => prop_assert_eq!(&full, b),
                Relation::Concurrent => {
                    let mut tree = Indexed::new(a.clone());
                    if tree.merge(&Indexed::new(b.clone()), DeviceId([9; 16])).unwrap().is_none() {
                        prop_assert_eq!(tree.state(), &full);
                    }
                }
            }
        }
    }

    #[test]
    fn p10_the_tree_of_a_union_is_the_join_of_the_trees(first in actions(), second in actions()) {
        let mut a = PathOpLog::new(DeviceId([1; 16]));
        record(&mut a, &first, 0);
        let mut b = PathOpLog::new(DeviceId([2; 16]));
        b.merge(&a).unwrap();
        record(&mut a, &first, 1);
        record(&mut b, &second, 1);
        let joined = join(a.tree().state(), b.tree().state());
        a.merge(&b).unwrap();
        prop_assert_eq!(a.tree().state(), &joined);
        prop_assert_eq!(a.tree(), &Indexed::new(joined));
    }

    #[test]
    fn p11_three_way_identities(actions in actions()) {
        let (b, x, y) = (plain(&actions, 0), plain(&actions, 1), plain(&actions, 2));
        prop_assert_eq!(merged(&b, &b, &y), ids(&y));
        prop_assert_eq!(merged(&b, &x, &x), ids(&x));
        prop_assert_eq!(merged(&b, &x, &y), merged(&b, &y, &x));
    }

    #[test]
    fn p14_any_bytes_are_refused_or_fit(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(state) = postcard::from_bytes::<State<Text>>(&bytes) {
            let _verdict = verify::state(&state);
        }
        let _log = postcard::from_bytes::<PathOpLog<Text>>(&bytes);
    }

    #[test]
    fn p14_damaged_states_are_refused_or_fit(
        actions in actions(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let [a, b, _] = states(&actions);
        let mut bytes = postcard::to_stdvec(&a).unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(state) = postcard::from_bytes::<State<Text>>(&bytes)
            && verify::state(&state).is_ok()
        {
            let tree = Indexed::new(join(&state, &b));
            let view = View::new(&tree);
            view.render().unwrap();
            conflicts(&view).unwrap();
        }
    }
}
