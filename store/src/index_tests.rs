//! An index that has rotted where it says where blobs lie. It is derived: no blob may be lost by it.

use std::{collections::HashSet, path::Path, sync::Arc};

use crate::SaveKind::{self, OnTop};
use crate::journal::{Loc, Pos};
use crate::sim::SimDisk;
use crate::{Appender, BlobRef, Blobs, KeyRing, Kind, Options, Secret, create};

/// A store in whose packs one blob of three is alive.
struct Third {
    appender: Appender,
    blobs: Arc<Blobs>,
    live: Vec<(BlobRef, Vec<u8>)>,
}

fn third() -> Third {
    let keys = KeyRing::new([(0, Secret::new([7; 32]))]).unwrap();
    let options = Options { pack_bytes: 64 << 10, ..Options::default() };
    let disk = Arc::new(SimDisk::new(1));
    let (mut appender, blobs) = create(disk, Path::new("/store"), keys, options).unwrap();
    let mut live = Vec::new();
    for n in 0..60_u32 {
        let content: Vec<u8> = (0..9_000 + n).flat_map(|at| (at * n).to_le_bytes()).collect();
        let blob = appender.put(Kind::Chunk, &content).unwrap();
        if n % 3 == 0 {
            live.push((blob, content));
        }
        appender.save(b"a save", SaveKind::checkpoint_if(n == 59)).unwrap();
    }
    appender.flush_index().unwrap();
    Third { appender, blobs, live }
}

/// What an entry may have become.
fn rotten(loc: Loc) -> Vec<Loc> {
    let Loc { at: Pos { pack, offset }, len } = loc;
    let length = |len| Loc { at: loc.at, len };
    let place = |pack, offset| Loc { at: Pos { pack, offset }, len };
    let lengths = [0, 7, len - 1, len + 1, len ^ 1 << 20, u32::MAX].map(length);
    let places = [place(pack + 1, offset), place(pack ^ 64, offset), place(pack, offset ^ 4)];
    lengths.into_iter().chain(places).collect()
}

fn rot(blobs: &Blobs, blob: &BlobRef, loc: Loc) {
    let mark = blobs.index.mark().unwrap().unwrap();
    blobs.index.commit(&mut [(blob.id, loc)], &[], &mark).unwrap();
}

#[test]
fn a_length_that_has_rotted_hides_no_blob() {
    let Third { appender: _appender, blobs, live } = third();
    for (blob, content) in &live {
        let right = blobs.find(&blob.id).unwrap().unwrap();
        for wrong in rotten(right) {
            rot(&blobs, blob, wrong);
            if wrong.at == right.at {
                assert_eq!(*blobs.get(blob).unwrap(), **content, "{right:?} as {wrong:?}");
                blobs.get_sealed(&blob.id).unwrap();
            } else {
                assert!(blobs.get(blob).is_err(), "{right:?} as {wrong:?}");
            }
        }
    }
}

#[test]
fn no_blob_goes_because_its_entry_has_rotted() {
    for kind in 0.. {
        let Third { mut appender, blobs, live } = third();
        let mut places = Vec::new();
        for (blob, _) in &live {
            let right = blobs.find(&blob.id).unwrap().unwrap();
            places.push(right);
            let Some(wrong) = rotten(right).get(kind).copied() else { return };
            rot(&blobs, blob, wrong);
        }
        let ids: HashSet<_> = live.iter().map(|(blob, _)| blob.id).collect();
        let packs = appender.survey().unwrap();
        let plan = appender.reclaim(&|id| ids.contains(id), &packs).unwrap();
        assert!(plan.packs > 10, "{plan:?}");
        appender.save(b"copies", OnTop).unwrap();
        appender.reclaim_finish().unwrap();
        for ((blob, content), right) in live.iter().zip(places) {
            match blobs.get(blob) {
                Ok(found) => assert_eq!(*found, **content),
                // In a pack that stayed: a new index finds it.
                Err(_) => assert!(
                    matches!(blobs.record_of(&blob.id, right), Ok(Some(_))),
                    "rot of kind {kind}: gone from {right:?}"
                ),
            }
        }
    }
}
