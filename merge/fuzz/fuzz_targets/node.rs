//! Any bytes as a node with what its author knows, as a store hands them over one by one: refused,
//! or joined without a panic.

#![no_main]

use cairnfs_merge::{Joiner, Node, NodeId, VersionVector, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((vv, id, node)) = postcard::from_bytes::<(VersionVector, NodeId, Node<Vec<u8>>)>(bytes)
    else {
        return;
    };
    if verify::node(&vv, &id, &node).is_ok() {
        let joiner = Joiner::new(vv, VersionVector::new());
        assert_eq!(joiner.node(Some(&node), Some(&node)).as_ref(), Some(&node));
        let _alone = (joiner.node(Some(&node), None), joiner.node(None, Some(&node)));
    }
});
