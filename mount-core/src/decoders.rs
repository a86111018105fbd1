//! Every decoder of this crate, of bytes that a peer or a disk may bring, behind one door: for the
//! fuzzer in `fuzz/` and the tests. None of them may panic, or take memory or time out of proportion.

use cairnfs_merge::NodeId;

use crate::{
    file::{Base, File},
    manifest::Manifest,
    tree::{BaseTree, keys},
    writer::record::SaveRecord,
};

/// A name, and what says whether bytes are accepted.
pub type Decoder = (&'static str, fn(&[u8]) -> bool);

/// All of them. The number of one is its place in the list.
pub const ALL: [Decoder; 9] = [
    ("manifest", |bytes| Manifest::open(bytes).is_ok()),
    ("save", |bytes| SaveRecord::decode(bytes).is_ok_and(apply)),
    ("node", |bytes| BaseTree::decode_long(bytes).is_ok()),
    ("node-outside", |bytes| BaseTree::outside(bytes).is_some()),
    ("child", |bytes| keys::parse_child(&NodeId::Root, bytes).is_some()),
    ("any-child", |bytes| keys::parse_any_child(bytes).is_some()),
    ("contested", |bytes| keys::parse_contested(bytes).is_some()),
    ("node-key", |bytes| keys::parse_only_node(bytes).is_some()),
    ("kind", |bytes| keys::parse_kind(bytes).is_some()),
];

/// Has the decoder with this number read `bytes`. True if it accepts them.
#[must_use]
pub fn decode(which: u8, bytes: &[u8]) -> bool {
    ALL.get(usize::from(which) % ALL.len()).is_some_and(|(_, accepts)| accepts(bytes))
}

/// Has contents take over what a record says of them. True if one does, or none is spoken of.
fn apply(record: SaveRecord) -> bool {
    let mut applied = record.files.is_empty();
    for (_, file) in record.files {
        let fresh = File::new(Base::empty());
        let mut content = fresh.lock();
        if content.apply(file).is_ok() {
            drop(content.snapshot());
            applied = true;
        }
    }
    applied
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::golden;

    fn samples() -> Vec<(&'static str, Vec<u8>)> {
        let save = golden::save_record();
        let (id, node) = save.nodes[0].clone();
        let name = cairnfs_merge::Name::new(b"name").unwrap();
        vec![
            ("manifest", golden::manifest().sign(&golden::key())),
            ("save", save.encode()),
            ("node", postcard::to_stdvec(&node.unwrap()).unwrap()),
            ("child", keys::child(&NodeId::Root, &name, &id)),
            ("any-child", keys::child(&id, &name, &id)),
            ("contested", keys::contested(&id, &name)),
            ("node-key", keys::node(&id)),
        ]
    }

    /// The seeds of the fuzzer are what today's code writes.
    #[test]
    fn the_corpus_is_what_is_written_and_accepted() {
        let corpus = PathBuf::from_iter([env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", "mount"]);
        let bless = std::env::var_os("CAIRNFS_BLESS").is_some();
        for (name, bytes) in samples() {
            let which = ALL.iter().position(|(known, _)| *known == name).unwrap();
            let seed = [&[u8::try_from(which).unwrap()], &bytes[..]].concat();
            assert!(decode(seed[0], &bytes), "{name}: refused");
            let path = corpus.join(format!("{name}.bin"));
            if bless {
                fs::write(&path, &seed).unwrap();
            }
            assert_eq!(fs::read(&path).unwrap(), seed, "{}", path.display());
        }
    }
}
