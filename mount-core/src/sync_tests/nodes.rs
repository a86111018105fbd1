//! Nodes that alone are what a node may be, and joined with a change of an honest device's are not.

use std::sync::Arc;

use cairnfs_merge::{
    AttrKey, Edited, Kind, Node, NodeEdits, OpId, Reg, Tree, derive, verify::ATTRS_MAX,
};

use super::{Peer, forging::is_refused, two};
use crate::{
    SetXattr,
    inodes::Bound,
    tree::{Data, attrs},
};

/// Operations that are made at once, to have as many values in a register.
const OPS: u64 = Reg::<()>::MAX_VALUES as u64;

impl Peer {
    /// Publishes a version in which a node is what no call makes of it, by the last of so many
    /// operations.
    fn alter(&self, path: &str, alter: impl FnOnce(&mut Node<Data>, OpId)) {
        let ino = self.walk(path).unwrap();
        let shared = self.mount().shared();
        let bound = shared.inodes.lock().resolve(ino);
        let Some(Bound::Shown(shown)) = bound else { panic!("nothing is shown there") };
        let mut guard = shared.core.write();
        let core = &mut *guard;
        let mut node = core.tree.node(&shown.node).unwrap().unwrap().as_ref().clone();
        core.op.lamport += OPS;
        alter(&mut node, core.op);
        let nodes = NodeEdits::from([(shown.node, Some(Arc::new(node)))]);
        let index = derive(&core.tree, &nodes).unwrap();
        core.tree.apply(Edited { nodes, index });
        core.unsaved.insert(shown.node);
        drop(guard);
        self.mount().publish().unwrap();
    }

    /// That it neither merges what `hostile` has nor, having nothing of its own, stands on that.
    #[track_caller]
    fn takes_nothing_of(&mut self, hostile: &Self, says: &str, change: impl FnOnce(&Self)) {
        is_refused(self, hostile, says);
        change(self);
        is_refused(self, hostile, says);
        let tree = self.tree();
        self.restart(true);
        assert_eq!(self.tree(), tree);
    }
}

#[test]
fn a_register_that_has_no_room_for_another_value_is_refused() {
    let (mut a, b) = two();
    b.alter("", |root, last| {
        let value = |n| {
            let op = OpId { lamport: last.lamport - n, ..last };
            (op, Some(attrs::encode(&n)))
        };
        root.attrs.insert(attrs::times_key(), (0..OPS).map(value).collect());
    });
    a.takes_nothing_of(&b, "too many values", |a| a.write("new", "1"));
}

#[test]
fn a_file_that_becomes_a_directory_is_refused() {
    let (mut a, b) = two();
    b.alter("old", |old, _| {
        old.kind = Kind::Dir;
        old.content = Reg::default();
    });
    a.takes_nothing_of(&b, "of another kind", |a| a.write("old", "1"));
}

#[test]
fn more_attributes_than_others_believe_are_not_joined() {
    let (mut a, b) = two();
    b.alter("old", |old, last| {
        for n in old.attrs.len()..ATTRS_MAX {
            let key = AttrKey::new(format!("user.{n}").as_bytes()).unwrap();
            old.attrs.insert(key, Reg::one(last, Some(attrs::number(0))));
        }
    });
    let ino = a.walk("old").unwrap();
    a.mount().setxattr(ino, b"user.mine", b"1", SetXattr::Create).unwrap();
    is_refused(&a, &b, "too many values");
    a.restart(true);
    let ino = a.walk("old").unwrap();
    assert_eq!(a.mount().getxattr(ino, b"user.mine").unwrap(), b"1");
}
