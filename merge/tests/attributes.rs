//! The attributes of versions that conflict: each has those that its author gave it, on every peer and
//! whatever becomes of the others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeMap;

use cairnfs_merge::{ConflictKind, Decision, Edit, Indexed, NodeId, OpId};
use support::peer::{Done, Peer, Text, hash};

/// Two peers with a file `f`, which is open to nobody else.
fn two() -> (Peer, Peer) {
    let mut a = Peer::new('A');
    a.write("f", "0").unwrap();
    a.set_attr("f", "mode", "600").unwrap();
    let mut b = a.clone();
    b.device = Peer::new('B').device;
    a.publish();
    b.publish();
    (a, b)
}

/// As [`two`], after both have written to the file; `f` shows what `B` wrote. What each did besides is
/// given.
fn parted(with_a: impl Fn(&mut Peer), with_b: impl Fn(&mut Peer)) -> (Peer, Peer) {
    let (mut a, mut b) = two();
    a.write("f", "a").unwrap();
    with_a(&mut a);
    b.write("pad", "1").unwrap();
    b.publish();
    b.write("pad", "2").unwrap();
    b.publish();
    b.write("f", "b").unwrap();
    with_b(&mut b);
    meet(&mut a, &mut b);
    assert_eq!(a.get("f").unwrap().content.unwrap().body, "b");
    (a, b)
}

fn meet(a: &mut Peer, b: &mut Peer) {
    a.pull(b);
    b.pull(a);
    assert_eq!(a.tree, b.tree);
}

fn open_to_all(peer: &mut Peer) {
    peer.set_attr("f", "mode", "644").unwrap();
}

/// The name of the version with the text `text`.
fn copy(text: &str) -> String {
    format!("f@{}", &hash(text).to_hex()[..8])
}

/// The modes of the two versions.
fn modes(peer: &Peer) -> [String; 2] {
    ["a", "b"].map(|text| {
        let items = peer.render().items;
        let is_it = |text_of: &Option<cairnfs_merge::Content<Text>>| {
            text_of.as_ref().is_some_and(|content| content.body == text)
        };
        let item = items.iter().find(|item| is_it(&item.entry.content)).unwrap();
        peer.attr(&item.entry.name.to_string(), "mode").unwrap()
    })
}

fn act(peer: &mut Peer, action: impl FnOnce(&mut Edit<'_, Text, Indexed<Text>>, NodeId) -> Done) {
    peer.act(action).unwrap();
    peer.publish();
}

#[test]
fn a_version_that_loses_its_name_keeps_what_its_author_set() {
    let set = |mode: &'static str| move |peer: &mut Peer| peer.set_attr("f", "mode", mode).unwrap();
    let (a, b) = parted(set("640"), set("644"));
    assert_eq!((modes(&a), modes(&b)), (modes(&b), ["640".into(), "644".into()]));
    let kinds: Vec<_> = a.kinds().into_iter().collect();
    assert_eq!(kinds, [ConflictKind::Content], "each value came with a version that is shown");
}

#[test]
fn what_nobody_else_set_is_that_of_all_versions() {
    let (a, _) = parted(|_| (), open_to_all);
    assert_eq!(modes(&a), ["644", "644"]);
}

#[test]
fn the_versions_keep_their_attributes_when_one_of_them_is_changed_or_goes() {
    let expected = ["640".to_owned(), "644".to_owned()];
    let part = || parted(|a| a.set_attr("f", "mode", "640").unwrap(), open_to_all);
    let lost = copy("a");
    type Act = fn(&mut Peer, &str);
    let changes: [(Act, [&str; 2]); 8] = [
        (|peer, copy| peer.write(copy, "a2").unwrap(), ["640", "644"]),
        (|peer, _| peer.write("f", "b2").unwrap(), ["640", "644"]),
        (|peer, copy| peer.rm(copy).unwrap(), ["", "644"]),
        (|peer, _| peer.rm("f").unwrap(), ["640", ""]),
        (|peer, copy| peer.mv(copy, "kept").unwrap(), ["640", "644"]),
        (|peer, _| peer.mv("f", "moved").unwrap(), ["640", "644"]),
        (|peer, _| peer.save("f", "b2").unwrap(), ["640", "644"]),
        (|peer, _| peer.set_attr("f", "mode", "600").unwrap(), ["640", "600"]),
    ];
    for (n, (change, wanted)) in changes.into_iter().enumerate() {
        for by in 0..3 {
            let (mut a, mut b) = part();
            let mut c = a.clone();
            c.device = Peer::new('C').device;
            let actor = [&mut a, &mut b, &mut c].into_iter().nth(by).unwrap();
            assert_eq!(modes(actor), expected);
            change(actor, &lost);
            let mut left: BTreeMap<String, String> = BTreeMap::new();
            for item in actor.render().items {
                let text = item.entry.content.unwrap().body;
                let mode = actor.attr(&item.entry.name.to_string(), "mode");
                left.insert(text[..1].to_owned(), mode.unwrap_or_default());
            }
            for (text, mode) in ["a", "b"].into_iter().zip(wanted) {
                // Who wrote the losing version and sets an attribute now sets it for both.
                let mode = if (n, by, text) == (7, 0, "a") { "600" } else { mode };
                let is = left.get(text).map_or("", String::as_str);
                assert_eq!(is, mode, "change {n} by {by}: {text} of {left:?}");
            }
            assert!(!actor.kinds().contains(&ConflictKind::Meta), "change {n} by {by}");
        }
    }
}

#[test]
fn a_decision_leaves_the_version_that_it_keeps_its_attributes() {
    let part = || parted(|a| a.set_attr("f", "mode", "640").unwrap(), open_to_all);
    let nobody = |_: &OpId| false;
    for (name, mode) in [("f".to_owned(), "644"), (copy("a"), "640")] {
        let (mut a, mut b) = part();
        let kept = b.get(&name).unwrap();
        act(&mut b, |edit, _| {
            edit.decide(&kept.dirs, kept.slot(), &Decision::Only(&kept), &nobody)?;
            Ok(())
        });
        meet(&mut a, &mut b);
        assert_eq!((a.attr("f", "mode").as_deref(), a.kinds().len()), (Some(mode), 0));
        let (mut a, mut b) = part();
        let (winner, kept) = (b.get("f").unwrap(), b.get(&name).unwrap());
        act(&mut b, |edit, _| Ok(edit.resolve(&winner, kept.content.unwrap())?));
        meet(&mut a, &mut b);
        assert_eq!((a.attr("f", "mode").as_deref(), a.kinds().len()), (Some(mode), 0));
    }
    let (mut a, mut b) = part();
    let winner = b.get("f").unwrap();
    act(&mut b, |edit, _| {
        edit.decide(&winner.dirs, &winner.name, &Decision::All, &nobody)?;
        Ok(())
    });
    meet(&mut a, &mut b);
    assert_eq!((modes(&a), a.kinds().len()), (["640".into(), "644".into()], 0));
}

#[test]
fn a_version_of_another_file_brings_its_attributes_where_it_is_kept() {
    let (mut a, mut b) = two();
    for (peer, mode) in [(&mut a, "640"), (&mut b, "644")] {
        peer.write("new", mode).unwrap();
        peer.set_attr("new", "mode", mode).unwrap();
    }
    meet(&mut a, &mut b);
    let winner = a.get("new").unwrap();
    let [other] = a.copies("new").unwrap().try_into().unwrap();
    let kept = a.get(&other).unwrap().content.unwrap();
    let mode = kept.body.clone();
    act(&mut a, |edit, _| Ok(edit.resolve(&winner, kept)?));
    assert_eq!(a.attr("new", "mode"), Some(mode));
}

#[test]
fn a_time_that_follows_from_writing_conflicts_with_nothing() {
    let touch = |peer: &mut Peer, time: &str| peer.set_attr("f", "mtime", time).unwrap();
    let unset = |peer: &mut Peer| {
        let id = peer.get("f").unwrap().id();
        peer.act(|edit, _| Ok(edit.set_attr(&id, "mtime".try_into().unwrap(), None)?)).unwrap();
    };
    let start = || {
        let (mut a, mut b) = two();
        touch(&mut a, "1");
        meet(&mut a, &mut b);
        (a.batches, b.batches) = (true, true);
        (a, b)
    };
    // An edit here, a touch there.
    let (mut a, mut b) = start();
    a.write("f", "a").unwrap();
    unset(&mut a);
    touch(&mut b, "2");
    meet(&mut a, &mut b);
    assert!(a.kinds().is_empty(), "{:?}", a.kinds());
    assert_eq!(a.attr("f", "mtime"), None, "the version has the time of its writing");
    // The same bytes, unpacked on both sides.
    let (mut a, mut b) = start();
    for (peer, time) in [(&mut a, "2"), (&mut b, "3")] {
        peer.write("f", "same").unwrap();
        touch(peer, time);
    }
    meet(&mut a, &mut b);
    assert!(a.kinds().is_empty(), "{:?}", a.kinds());
    // Two times that two people set.
    let (mut a, mut b) = start();
    touch(&mut a, "2");
    touch(&mut b, "3");
    meet(&mut a, &mut b);
    assert_eq!(a.kinds().into_iter().collect::<Vec<_>>(), [ConflictKind::Meta]);
    // A time that came with one version is not that of the other.
    let (a, _) = parted(|a| touch(a, "2"), |_| ());
    assert_eq!(a.attr(&copy("a"), "mtime").as_deref(), Some("2"));
    assert_eq!(a.attr("f", "mtime"), None);
}

#[test]
fn a_time_that_came_with_a_version_goes_with_it() {
    let lost = copy("a");
    let nobody = |_: &OpId| false;
    type Act = Box<dyn Fn(&mut Peer)>;
    let changes: [Act; 4] = [
        Box::new(|peer| peer.rm(&copy("a")).unwrap()),
        Box::new(|peer| peer.mv(&copy("a"), "kept").unwrap()),
        Box::new(|peer| peer.write(&copy("a"), "a2").unwrap()),
        Box::new(move |peer| {
            let kept = peer.get("f").unwrap();
            act(peer, |edit, _| {
                edit.decide(&kept.dirs, kept.slot(), &Decision::Only(&kept), &nobody)?;
                Ok(())
            });
        }),
    ];
    for (n, change) in changes.iter().enumerate() {
        let (_, mut b) = parted(|a| a.set_attr("f", "mtime", "2").unwrap(), |_| ());
        assert_eq!((b.attr(&lost, "mtime").as_deref(), b.attr("f", "mtime")), (Some("2"), None));
        change(&mut b);
        assert_eq!(b.attr("f", "mtime"), None, "change {n}");
    }
}

#[test]
fn opposite_modes_of_one_version_conflict_still_and_writing_does_not_settle_them() {
    let (mut a, mut b) = two();
    a.set_attr("f", "mode", "640").unwrap();
    open_to_all(&mut b);
    meet(&mut a, &mut b);
    for peer in [&mut a, &mut b] {
        assert_eq!(peer.kinds().into_iter().collect::<Vec<_>>(), [ConflictKind::Meta]);
        let before = peer.attr("f", "mode");
        peer.write("f", "more").unwrap();
        assert_eq!(peer.attr("f", "mode"), before, "whoever wrote it, it is the same file");
        assert_eq!(peer.kinds().into_iter().collect::<Vec<_>>(), [ConflictKind::Meta]);
    }
}
