//! Deciding conflicts by hand, in random histories: nothing goes but what the decision names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use cairnfs_merge::{
    Conflict, ConflictKind, ContentId, Context, Decision, DeviceId, Kind, NodeId, OpId, Strategy,
    VersionVector, at_name, conflicts, resolve,
};
use support::peer::{Done, Peer, Text, split};
use support::random::{Rng, met, parted};

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

/// What was one file under several names still is.
fn check_links(peer: &Peer, before: &BTreeMap<String, (NodeId, ContentId)>) {
    let after = files(peer);
    let mut now: BTreeMap<(NodeId, ContentId), &(NodeId, ContentId)> = BTreeMap::new();
    for (path, file) in before {
        let Some(is) = after.get(path).filter(|is| is.1 == file.1) else { continue };
        let first = now.entry(*file).or_insert(is);
        assert_eq!(*first, is, "{path} was parted from its other names: {:?}", peer.show());
    }
}

/// No other name shows another content than before.
fn check_other_names(
    peer: &Peer,
    conflict: &Conflict<Text>,
    before: &BTreeMap<String, (NodeId, ContentId)>,
) {
    let after = files(peer);
    let decided = String::from_utf8(conflict.path.clone()).unwrap();
    for (path, (_, content)) in before {
        let is_of_decided = path.strip_prefix(&*decided).is_some_and(|rest| !rest.contains('/'));
        if let Some((_, now)) = after.get(path).filter(|_| !is_of_decided) {
            assert_eq!(now, content, "{path}, by deciding {decided}: {:?}", peer.show());
        }
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
        check_other_names(&peers[0], &conflict, &files);
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

/// Has `strategy` answer all conflicts that `peer` has; returns the contents that it discarded.
fn answer(peer: &mut Peer, strategy: Strategy, local: &VersionVector) -> BTreeSet<ContentId> {
    let library = peer.library.clone();
    let context = Context { text: Some(&library) };
    let op = peer.tree.state().vv.next_op(peer.device).unwrap();
    let resolved = resolve(&peer.tree, peer.policy(), op, local, &strategy, &context)
        .unwrap_or_else(|err| panic!("{strategy:?}: {err}: {:?}", peer.show()));
    let unique: BTreeSet<_> = resolved.discarded.iter().copied().collect();
    assert_eq!(unique.len(), resolved.discarded.len(), "discarded twice");
    if !resolved.edited.nodes.is_empty() {
        peer.tree.apply_derived(resolved.edited.nodes, resolved.edited.index);
        peer.tree.vv_mut().learn(&op);
    }
    unique
}

/// What a strategy can decide: not where a directory has the name.
fn decidable(peer: &Peer) -> Vec<Conflict<Text>> {
    use ConflictKind::{Content, DeleteModify, Name, Type};
    let all = listed(peer);
    let types: BTreeSet<_> =
        all.iter().filter(|it| it.kind == Type).map(|it| (&it.dirs, &it.slot)).collect();
    let open = |it: &&Conflict<Text>| {
        matches!(it.kind, Content | Name | DeleteModify) && !types.contains(&(&it.dirs, &it.slot))
    };
    all.iter().filter(open).cloned().collect()
}

#[test]
fn a_strategy_that_decides_leaves_nothing_to_decide_for_long() {
    let run = |number| {
        let (_, peers) = met(13, number);
        let (known, none) = (peers[1].tree.state().vv.clone(), VersionVector::default());
        let mut many = 0;
        for strategy in [Strategy::LastWriteWins, Strategy::BaseWins, Strategy::MergeText] {
            for local in [&known, &none] {
                let mut peer = peers[0].clone();
                many += listed(&peer).len();
                answer(&mut peer, strategy, local);
                // What is decided of one name may bring back a file that another had lost.
                answer(&mut peer, strategy, local);
                let left = decidable(&peer);
                assert!(
                    strategy == Strategy::MergeText || left.is_empty(),
                    "{strategy:?}: {left:?}"
                );
            }
        }
        many
    };
    assert!(each(2_000, run) > 1_000);
}

/// One of two names of a file that both wrote to is contested by another file besides.
#[test]
fn a_strategy_decides_a_name_as_what_it_decided_of_another_has_left_it() {
    let wanted = [(Strategy::LastWriteWins, "v3"), (Strategy::BaseWins, "v1")];
    for (strategy, of_b) in wanted {
        let (mut a, mut b) = (Peer::new('A'), Peer::new('B'));
        a.write("A", "v0").unwrap();
        b.pull(&a);
        a.hard_link("A", "b").unwrap();
        a.publish();
        a.write("A", "v1").unwrap();
        b.write("A", "v2").unwrap();
        b.publish();
        b.write("b", "v3").unwrap();
        let local = a.tree.state().vv.clone();
        a.pull(&b);
        answer(&mut a, strategy, &local);
        assert!(decidable(&a).is_empty(), "{strategy:?}");
        assert_eq!(a.show()["b"].as_deref(), Some(of_b), "{strategy:?}: {:?}", a.show());
    }
}

/// What `peer` shows under the names that no two versions contend for.
fn undisputed(peer: &Peer) -> BTreeMap<String, (NodeId, ContentId)> {
    let of_versions = listed(peer).into_iter().filter(|conflict| conflict.kind.is_of_versions());
    let mut disputed = BTreeSet::new();
    for conflict in of_versions {
        let (dir, _) = split(std::str::from_utf8(&conflict.path).unwrap());
        let dir = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let shown = conflict.versions.iter().map(|version| &version.entry.name);
        disputed.extend(shown.chain([&conflict.slot]).map(|name| format!("{dir}{name}")));
    }
    let mut files = files(peer);
    files.retain(|path, _| !disputed.contains(path));
    files
}

/// What contends with another version for a name that a strategy can decide.
fn contending(peer: &Peer) -> (BTreeSet<NodeId>, BTreeSet<ContentId>) {
    let versions: Vec<_> = decidable(peer).into_iter().flat_map(|it| it.versions).collect();
    let contents = versions.iter().filter_map(|it| Some(it.entry.content.as_ref()?.id));
    (versions.iter().map(|it| it.entry.id()).collect(), contents.collect())
}

/// Has `strategy` answer, and checks that nothing changes but what it answers.
fn answer_in_place(peer: &mut Peer, strategy: Strategy, local: &VersionVector) {
    let (before, shown, kept) = (peer.show(), contents(peer), undisputed(peer));
    let (nodes, versions) = contending(peer);
    let old: BTreeSet<NodeId> = peer.tree.state().nodes.keys().copied().collect();
    let discarded = answer(peer, strategy, local);
    let context = || format!("{strategy:?}: {before:?} {:?}", peer.show());
    let after = files(peer);
    for (path, (node, content)) in &kept {
        // A merged text is an edit of a file, whatever the name through which that was made.
        let is_edited = strategy == Strategy::MergeText && nodes.contains(node);
        let now = after.get(path).map(|(_, now)| now);
        assert!(now == Some(content) || (is_edited && now.is_some()), "{path}, {}", context());
    }
    let lost: BTreeSet<_> = shown.difference(&contents(peer)).copied().collect();
    assert!(lost.is_subset(&versions), "what did not contend is gone, {}", context());
    assert!(lost.is_subset(&discarded), "what is gone is not reported, {}", context());
    let new = peer.tree.state().nodes.keys().find(|id| !old.contains(id));
    assert_eq!(new, None, "a file is made, {}", context());
}

#[test]
fn a_strategy_changes_what_no_undisputed_name_shows() {
    let run = |number| {
        let (_, peers) = met(14, number);
        let (known, none) = (peers[1].tree.state().vv.clone(), VersionVector::default());
        for strategy in [Strategy::LastWriteWins, Strategy::BaseWins, Strategy::MergeText] {
            for local in [&known, &none] {
                let mut peer = peers[0].clone();
                answer_in_place(&mut peer, strategy, local);
                answer_in_place(&mut peer, strategy, local);
            }
        }
        decidable(&peers[0]).len()
    };
    assert!(each(4_000, run) > 1_000);
}

/// `k` is contested by nobody: B has made `f`, and A has linked `k` to `f`, after as many operations.
fn linked_to_a_contested_name(of_a: usize, of_b: usize) -> (Peer, Peer) {
    let (mut a, mut b) = (Peer::new('A'), Peer::new('B'));
    a.write("k", "of a").unwrap();
    b.pull(&a);
    for (peer, operations) in [(&mut a, of_a), (&mut b, of_b)] {
        for n in 0..operations {
            peer.write("counted", &n.to_string()).unwrap();
        }
        peer.rm("counted").unwrap();
    }
    a.hard_link("k", "f").unwrap();
    b.write("f", "of b").unwrap();
    (a, b)
}

/// Has B hear of A and answer, then A of B.
fn check_linked(mut a: Peer, mut b: Peer, strategy: Strategy) {
    let local = b.tree.state().vv.clone();
    b.pull(&a);
    let discarded = answer(&mut b, strategy, &local);
    a.pull(&b);
    assert_eq!(a.tree, b.tree);
    let wanted = [("f", "of b"), ("k", "of a")];
    let wanted = wanted.map(|(name, text)| (name.to_owned(), Some(text.to_owned())));
    assert_eq!(a.show(), BTreeMap::from(wanted), "{strategy:?}");
    assert_eq!((listed(&a), discarded), (Vec::new(), BTreeSet::new()), "{strategy:?}");
}

#[test]
fn a_file_that_a_strategy_takes_a_name_from_keeps_the_others() {
    for strategy in [Strategy::LastWriteWins, Strategy::BaseWins] {
        let (a, b) = linked_to_a_contested_name(9, 1);
        check_linked(a, b, strategy);
    }
}

#[test]
fn a_file_that_a_strategy_takes_a_name_from_leaves_no_copy_there() {
    for strategy in [Strategy::LastWriteWins, Strategy::BaseWins] {
        let (a, b) = linked_to_a_contested_name(1, 9);
        check_linked(a, b, strategy);
    }
}

#[test]
fn a_link_that_a_strategy_keeps_stays_a_link() {
    for (of_a, of_b) in [(Kind::Symlink, Kind::File), (Kind::File, Kind::Symlink)] {
        let (mut a, mut b) = (Peer::new('A'), Peer::new('B'));
        a.put("f", "of a", of_a).unwrap();
        b.put("f", "of b", of_b).unwrap();
        let locals = [a.tree.state().vv.clone(), b.tree.state().vv.clone()];
        b.pull(&a);
        for (local, kind, text) in [(&locals[0], of_a, "of a"), (&locals[1], of_b, "of b")] {
            let mut peer = b.clone();
            answer(&mut peer, Strategy::BaseWins, local);
            let kept = peer.get("f").unwrap();
            assert_eq!((kept.kind, &*kept.content.unwrap().body), (kind, text));
        }
    }
}

/// Has everybody hear all and answer, until nobody has anything to say; returns the rounds it took.
fn fall_quiet(peers: &mut [Peer], strategies: &[Strategy]) -> usize {
    let knowledge = |peers: &[Peer]| -> Vec<VersionVector> {
        peers.iter().map(|peer| peer.tree.state().vv.clone()).collect()
    };
    for round in 0..20 {
        let before = peers.to_vec();
        for ((n, peer), strategy) in peers.iter_mut().enumerate().zip(strategies) {
            let local = peer.tree.state().vv.clone();
            for (_, other) in before.iter().enumerate().filter(|(m, _)| n != *m) {
                peer.pull(other);
            }
            answer(peer, *strategy, &local);
        }
        if knowledge(peers) == knowledge(&before) {
            return round;
        }
    }
    panic!("the strategies never fall quiet");
}

#[test]
fn strategies_fall_quiet_where_files_have_several_names() {
    use Strategy::{BaseWins, ConflictFile, LastWriteWins, MergeText};
    let run = |number| {
        let (mut rng, mut peers) = parted(15, number);
        let strategies: Vec<_> = peers
            .iter()
            .map(|_| *rng.pick(&[LastWriteWins, BaseWins, ConflictFile, MergeText]))
            .collect();
        let rounds = fall_quiet(&mut peers, &strategies);
        assert!(rounds <= 3, "{strategies:?} take {rounds} rounds");
        check_agreement(&mut peers);
        rounds
    };
    assert!(each(2_500, run) > 2_500);
}
