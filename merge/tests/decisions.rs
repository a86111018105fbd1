//! Deciding conflicts by hand, in random histories: nothing goes but what the decision names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use cairnfs_merge::{Conflict, ContentId, Decision, DeviceId, NodeId, OpId, at_name, conflicts};
use support::peer::{Done, Peer, Text};
use support::random::{Rng, met};

/// More conflicts than a history has.
const MANY: usize = 500;

fn listed(peer: &Peer) -> Vec<Conflict<Text>> {
    conflicts(&peer.view()).unwrap()
}

fn decide(
    peer: &mut Peer,
    conflict: &Conflict<Text>,
    decision: &Decision<'_, Text>,
    prefers: &dyn Fn(&OpId) -> bool,
) -> Done<bool> {
    let mut preferred = false;
    peer.act(|edit, _| {
        preferred = edit.decide(&conflict.dirs, &conflict.slot, decision, prefers)?;
        Ok(())
    })?;
    peer.publish();
    Ok(preferred)
}

fn is_over(peer: &Peer, conflict: &Conflict<Text>) -> bool {
    at_name(&peer.view(), &conflict.dirs, &conflict.slot).unwrap().is_empty()
}

fn contents(peer: &Peer) -> BTreeSet<ContentId> {
    let rendered = peer.render();
    rendered.items.iter().filter_map(|item| Some(item.entry.content.as_ref()?.id)).collect()
}

/// The file that each name shows.
fn files(peer: &Peer) -> BTreeMap<String, (NodeId, ContentId)> {
    let rendered = peer.render();
    let entries = rendered.by_path().into_iter().filter_map(|(path, entry)| {
        let content = entry.content.as_ref()?.id;
        Some((String::from_utf8(path).unwrap(), (entry.id(), content)))
    });
    entries.collect()
}

/// What was one file under several names still is. (Two versions of another contested name may have
/// exchanged their names.)
fn check_links(peer: &Peer, before: &BTreeMap<String, (NodeId, ContentId)>) {
    let after = files(peer);
    let mut now: BTreeMap<(NodeId, ContentId), &(NodeId, ContentId)> = BTreeMap::new();
    for (path, file) in before {
        let Some(is) = after.get(path).filter(|is| is.1 == file.1) else { continue };
        let first = now.entry(*file).or_insert(is);
        assert_eq!(*first, is, "{path} was parted from its other names: {:?}", peer.show());
    }
}

fn check_agreement(peers: &mut [Peer]) {
    let first = peers[0].clone();
    for peer in &mut peers[1..] {
        peer.pull(&first);
        assert_eq!(peer.tree, first.tree);
    }
}

fn keep_all(number: u64) -> usize {
    let (_, mut peers) = met(11, number);
    let many = listed(&peers[0]).len();
    for _ in 0..MANY {
        let Some(conflict) = listed(&peers[0]).into_iter().next() else { break };
        let (shown, files) = (contents(&peers[0]), files(&peers[0]));
        decide(&mut peers[0], &conflict, &Decision::All, &|_| false).unwrap();
        assert!(is_over(&peers[0], &conflict), "{conflict:?} is not over");
        assert_eq!(contents(&peers[0]), shown, "after deciding {}", conflict.slot);
        check_links(&peers[0], &files);
    }
    assert!(listed(&peers[0]).is_empty());
    check_agreement(&mut peers);
    many
}

fn keep_one(rng: &mut Rng, peers: &mut [Peer]) -> usize {
    let (mut decided, mut tried) = (0, BTreeSet::new());
    for _ in 0..MANY {
        let mut open = listed(&peers[0]).into_iter();
        let Some(conflict) = open.find(|it| !tried.contains(&it.path)) else { break };
        tried.insert(conflict.path.clone());
        let Some(kept) = conflict.versions.get(rng.below(conflict.versions.len().max(1))) else {
            continue;
        };
        let device = DeviceId([b'A' + u8::try_from(rng.below(3)).unwrap(); 16]);
        let prefers = |op: &OpId| op.device == device;
        let (before, shown) = (contents(&peers[0]), peers[0].show());
        if decide(&mut peers[0], &conflict, &Decision::Only(&kept.entry), &prefers).is_err() {
            assert_eq!(peers[0].show(), shown, "refused, and changed all the same");
            continue;
        }
        decided += 1;
        assert!(is_over(&peers[0], &conflict), "{conflict:?} is not over");
        let after = contents(&peers[0]);
        let of = |entry: &cairnfs_merge::Entry<Text>| Some(entry.content.as_ref()?.id);
        assert!(of(&kept.entry).is_none_or(|id| after.contains(&id)), "{kept:?} is lost");
        let named: BTreeSet<_> = conflict.versions.iter().filter_map(|it| of(&it.entry)).collect();
        let lost: Vec<_> = before.difference(&after).filter(|id| !named.contains(id)).collect();
        assert!(lost.is_empty(), "{lost:?} went: {shown:?} {:?}", peers[0].show());
    }
    check_agreement(peers);
    decided
}

/// Histories run one after another; a panic names the one that failed.
fn each(count: u64, mut run: impl FnMut(u64) -> usize + std::panic::UnwindSafe + Copy) -> usize {
    (0..count)
        .map(|number| match std::panic::catch_unwind(move || run(number)) {
            Ok(decided) => decided,
            Err(_) => panic!("history {number}"),
        })
        .sum()
}

#[test]
fn keeping_all_drops_nothing_and_ends_every_conflict() {
    assert!(each(4_000, keep_all) > 1_000);
}

#[test]
fn keeping_one_drops_only_what_it_says() {
    let run = |number| {
        let (mut rng, mut peers) = met(12, number);
        keep_one(&mut rng, &mut peers)
    };
    assert!(each(4_000, run) > 1_000);
}
