//! The keys of the map that holds the tree. They sort as bytes: what belongs together lies together.
//!
//! | key | value |
//! |---|---|
//! | `1 node` | the node |
//! | `2 directory name 0 node` | kind: the children index |
//! | `3 directory node` | nothing: the directories among the children, to count them |
//! | `4 directory name` | nothing: a contested name |
//! | `5 node` | the links that do not hang where their registers say |
//!
//! A node id is `0` for the root, `1 lamport n device` for a node born by an operation, `2 hash` for
//! a conflict copy that became a file. Lamport times and counters are big-endian, so that nodes made
//! together are neighbours and one save touches few map nodes.

use cairnfs_merge::{DeviceId, Kind, Name, NodeId, OpId};

const NODE: u8 = 1;
const CHILD: u8 = 2;
const SUBDIR: u8 = 3;
const CONTESTED: u8 = 4;
const DISPLACED: u8 = 5;

/// A key and the end of a range are both plain bytes.
pub(crate) type Key = Vec<u8>;

pub(crate) fn node(id: &NodeId) -> Key {
    with_node(NODE, id)
}

/// All keys between this and [`end`] of it are children of `dir`.
pub(crate) fn children(dir: &NodeId) -> Key {
    with_node(CHILD, dir)
}

/// All keys between this and [`end`] of it are children of `dir` under `name`.
pub(crate) fn named(dir: &NodeId, name: &Name) -> Key {
    let mut key = with_node(CHILD, dir);
    key.extend_from_slice(name.as_bytes());
    key.push(0);
    key
}

pub(crate) fn child(dir: &NodeId, name: &Name, id: &NodeId) -> Key {
    let mut key = named(dir, name);
    push_node(&mut key, id);
    key
}

pub(crate) fn subdirs(dir: &NodeId) -> Key {
    with_node(SUBDIR, dir)
}

pub(crate) fn subdir(dir: &NodeId, id: &NodeId) -> Key {
    let mut key = subdirs(dir);
    push_node(&mut key, id);
    key
}

pub(crate) fn contested_in(dir: &NodeId) -> Key {
    with_node(CONTESTED, dir)
}

pub(crate) fn contested(dir: &NodeId, name: &Name) -> Key {
    let mut key = contested_in(dir);
    key.extend_from_slice(name.as_bytes());
    key
}

pub(crate) fn all_contested() -> Key {
    vec![CONTESTED]
}

pub(crate) fn displaced(id: &NodeId) -> Key {
    with_node(DISPLACED, id)
}

pub(crate) fn all_displaced() -> Key {
    vec![DISPLACED]
}

pub(crate) fn all_nodes() -> Key {
    vec![NODE]
}

/// The first key behind all those that begin with `prefix`.
pub(crate) fn end(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    let last = end.last_mut().expect("because every prefix begins with a small tag");
    *last += 1;
    end
}

/// Every name of every directory.
pub(crate) fn all_children() -> Key {
    vec![CHILD]
}

/// Reads back directory, name and node of any key made by [`child`].
pub(crate) fn parse_any_child(key: &[u8]) -> Option<(NodeId, Name, NodeId)> {
    let rest = key.strip_prefix(&[CHILD])?;
    let (dir, _) = rest.split_at_checked(node_len(rest)?)?;
    let dir = parse_node(dir)?;
    let (name, id) = parse_child(&dir, key)?;
    Some((dir, name, id))
}

/// Reads back the name and node of a key made by [`child`]; `None` if it is not one of `dir`.
pub(crate) fn parse_child(dir: &NodeId, key: &[u8]) -> Option<(Name, NodeId)> {
    let rest = key.strip_prefix(children(dir).as_slice())?;
    let zero = rest.iter().position(|byte| *byte == 0)?;
    let (name, id) = rest.split_at(zero);
    Some((Name::new(name).ok()?, parse_node(id.get(1..)?)?))
}

/// Reads back the directory and name of a key made by [`contested`].
pub(crate) fn parse_contested(key: &[u8]) -> Option<(NodeId, Name)> {
    let rest = key.strip_prefix(&[CONTESTED])?;
    let (dir, name) = rest.split_at_checked(node_len(rest)?)?;
    Some((parse_node(dir)?, Name::new(name).ok()?))
}

/// Reads back the node of a key made by [`node`] or [`displaced`].
pub(crate) fn parse_only_node(key: &[u8]) -> Option<NodeId> {
    parse_node(key.get(1..)?)
}

/// A child's kind, as the value of its index entry.
pub(crate) fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Dir => 0,
        Kind::File => 1,
        Kind::Symlink => 2,
        Kind::Fifo => 3,
        Kind::Socket => 4,
        Kind::CharDevice => 5,
        Kind::BlockDevice => 6,
    }
}

pub(crate) fn parse_kind(value: &[u8]) -> Option<Kind> {
    Some(match value {
        [0] => Kind::Dir,
        [1] => Kind::File,
        [2] => Kind::Symlink,
        [3] => Kind::Fifo,
        [4] => Kind::Socket,
        [5] => Kind::CharDevice,
        [6] => Kind::BlockDevice,
        _ => return None,
    })
}

fn with_node(tag: u8, id: &NodeId) -> Key {
    let mut key = Vec::with_capacity(64);
    key.push(tag);
    push_node(&mut key, id);
    key
}

#[allow(clippy::big_endian_bytes, reason = "keys sort as bytes")]
fn push_node(key: &mut Key, id: &NodeId) {
    match id {
        NodeId::Root => key.push(0),
        NodeId::Born { op, n } => {
            key.push(1);
            key.extend_from_slice(&op.lamport.to_be_bytes());
            key.extend_from_slice(&n.to_be_bytes());
            key.extend_from_slice(&op.device.0);
        }
        NodeId::Split(hash) => {
            key.push(2);
            key.extend_from_slice(hash);
        }
    }
}

fn node_len(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        0 => Some(1),
        1 => Some(29),
        2 => Some(17),
        _ => None,
    }
}

#[allow(clippy::big_endian_bytes, reason = "keys sort as bytes")]
fn parse_node(bytes: &[u8]) -> Option<NodeId> {
    match bytes {
        [0] => Some(NodeId::Root),
        [1, rest @ ..] => {
            let (lamport, rest) = rest.split_first_chunk::<8>()?;
            let (n, device) = rest.split_first_chunk::<4>()?;
            let device = DeviceId(device.try_into().ok()?);
            let op = OpId { lamport: u64::from_be_bytes(*lamport), device };
            Some(NodeId::Born { op, n: u32::from_be_bytes(*n) })
        }
        [2, hash @ ..] => Some(NodeId::Split(hash.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Vec<NodeId> {
        let op = |lamport| OpId { lamport, device: DeviceId([7; 16]) };
        vec![
            NodeId::Root,
            NodeId::Born { op: op(1), n: 0 },
            NodeId::Born { op: op(1), n: 256 },
            NodeId::Born { op: op(300), n: 1 },
            NodeId::Split([3; 16]),
        ]
    }

    #[test]
    fn keys_read_back() {
        let name = Name::new(b"a name").unwrap();
        for dir in ids() {
            assert_eq!(parse_only_node(&node(&dir)), Some(dir));
            assert_eq!(parse_contested(&contested(&dir, &name)), Some((dir, name.clone())));
            for id in ids() {
                let key = child(&dir, &name, &id);
                assert_eq!(parse_child(&dir, &key), Some((name.clone(), id)));
                assert_eq!(parse_any_child(&key), Some((dir, name.clone(), id)));
            }
        }
    }

    #[test]
    fn keys_of_nodes_sort_by_birth() {
        let keys: Vec<Key> = ids().iter().map(node).collect();
        assert!(keys.is_sorted());
    }

    #[test]
    fn a_prefix_ends_before_its_neighbour() {
        for dir in ids() {
            let (from, to) = (children(&dir), end(&children(&dir)));
            for other in ids() {
                let key = child(&other, &Name::new(b"x").unwrap(), &NodeId::Root);
                assert_eq!(from <= key && key < to, other == dir, "{other} in {dir}");
            }
        }
    }
}
