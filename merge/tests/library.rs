//! The library cases: logs, resolvers, three-way merges, hostile input, heads.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use cairnfs_merge::text::merge_lines;
use cairnfs_merge::verify::{self, Reject};
use cairnfs_merge::{
    BadName, Carry, Conflict, ConflictKind, ConflictResolver, Content, ContentId, Context,
    DeviceId, Indexed, Kind, LinkId, LogError, MergeContent, Name, Node, NodeId, OpId, PathOpLog,
    PathRules, Place, PlainEntry, PlainTree, Policy, Reg, Relation, Renames, Resolution, SmallMap,
    State, Strategy, VersionVector, join, three_way,
};
use support::peer::{Peer, Text, content, hash};
use support::random::Rng;

const A: DeviceId = DeviceId([b'A'; 16]);
const B: DeviceId = DeviceId([b'B'; 16]);
const C: DeviceId = DeviceId([b'C'; 16]);

type Log = PathOpLog<Text>;

const NO_TEXT: Context<'static, Text> = Context { text: None };

fn merge(log: &mut Log, other: &Log, resolver: &dyn ConflictResolver<Text>) -> Vec<ContentId> {
    log.merge_with_resolver(other, resolver, &NO_TEXT).unwrap().discarded
}

/// Paths and texts of a log.
fn shown(log: &Log) -> Vec<(String, String)> {
    let entries = log.entries().into_iter();
    let leaves = entries.filter_map(|(path, entry)| Some((path, entry.content?.body)));
    leaves.map(|(path, text)| (String::from_utf8(path).unwrap(), text)).collect()
}

/// Two logs with a common file `t` = 0, then `t` = 1 at A and `t` = 2 at B.
fn edit_edit() -> (Log, Log) {
    let mut a = Log::new(A);
    a.write(b"t", content("0")).unwrap();
    let mut b = Log::new(B);
    b.merge(&a).unwrap();
    a.write(b"t", content("1")).unwrap();
    b.write(b"t", content("2")).unwrap();
    (a, b)
}

#[test]
fn an_operation_tells_its_node_and_where_it_put_it() {
    let mut log = Log::new(A);
    log.write(b"d/f", content("1")).unwrap();
    log.mkdir(b"d/d").unwrap();
    log.rename(b"d/f", b"d/d/g").unwrap();
    log.write(b"d/d/g", content("2")).unwrap();
    log.remove(b"d/d/g").unwrap();
    let told: Vec<_> = log.operations().map(|op| (op.node(), op.parent(), op.name())).collect();
    let id = |lamport, n| born(op(lamport, A), n);
    let (d, f, inner) = (id(1, 0), id(1, 1), id(2, 0));
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    assert_eq!(told[0], (Some(f), Some(d), Some(&name("f"))));
    assert_eq!(told[1], (Some(inner), Some(d), Some(&name("d"))));
    assert_eq!(told[2], (Some(f), Some(inner), Some(&name("g"))));
    assert_eq!(told[3], (Some(f), None, None));
    assert_eq!(told[4], (None, None, None));
    assert!(log.operations().nth(4).unwrap().nodes().any(|node| node == f));
}

#[test]
fn case_201_logs_merge_in_either_order() {
    let (mut a, mut b) = (Log::new(A), Log::new(B));
    a.write(b"f", content("1")).unwrap();
    b.write(b"f", content("2")).unwrap();
    let (a_before, b_before) = (a.clone(), b.clone());
    merge(&mut a, &b_before, &Strategy::ConflictFile);
    merge(&mut b, &a_before, &Strategy::ConflictFile);
    assert!(a.operations().eq(b.operations()));
    assert_eq!(a.entries(), b.entries());
    assert_eq!(a.conflicts().len(), 1);
    assert_eq!(shown(&a).len(), 2);
}

#[test]
fn case_202_a_log_merged_with_itself_gains_nothing() {
    let (mut a, _) = edit_edit();
    let same = a.clone();
    assert_eq!(a.merge(&same).unwrap(), 0);
    assert!(a.conflicts().is_empty());
}

#[test]
fn case_203_an_operation_that_saw_the_other_is_no_conflict() {
    let mut a = Log::new(A);
    a.write(b"f", content("1")).unwrap();
    let mut b = Log::new(B);
    b.merge(&a).unwrap();
    b.write(b"f", content("2")).unwrap();
    assert!(!b.operations().last().unwrap().pred.is_empty());
    a.merge(&b).unwrap();
    assert_eq!(shown(&a), [("f".to_owned(), "2".to_owned())]);
    assert!(a.conflicts().is_empty());
}

#[test]
fn case_204_add_and_remove_arrive_together() {
    let mut b = Log::new(B);
    b.write(b"f", content("1")).unwrap();
    b.remove(b"f").unwrap();
    let mut a = Log::new(A);
    a.merge(&b).unwrap();
    assert!(a.entries().is_empty() && a.conflicts().is_empty());
}

#[test]
fn case_205_three_logs_in_all_six_orders() {
    let mut logs = [Log::new(A), Log::new(B), Log::new(C)];
    for (n, log) in logs.iter_mut().enumerate() {
        log.write(b"d/f", content(&n.to_string())).unwrap();
    }
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let outcomes: Vec<_> = orders
        .iter()
        .map(|order| {
            let mut log = Log::new(A);
            for n in order {
                log.merge(&logs[*n]).unwrap();
            }
            (log.tree().clone(), log.entries())
        })
        .collect();
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn case_208_a_resolver_does_not_discard_a_later_human_edit() {
    let (mut a, mut b) = edit_edit();
    let before = b.clone();
    b.write(b"t", content("2'")).unwrap();
    merge(&mut a, &before, &Strategy::BaseWins);
    merge(&mut a, &b, &Strategy::ConflictFile);
    merge(&mut b, &a, &Strategy::ConflictFile);
    let texts: BTreeSet<String> = shown(&a).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["1".to_owned(), "2'".to_owned()].into());
    assert_eq!(a.conflicts()[0].kind, ConflictKind::Content);
    assert_eq!(a.entries(), b.entries());
}

#[test]
fn case_209_last_write_wins_on_both_sides() {
    let (mut a, mut b) = edit_edit();
    let (a_before, b_before) = (a.clone(), b.clone());
    let lost_a = merge(&mut a, &b_before, &Strategy::LastWriteWins);
    let lost_b = merge(&mut b, &a_before, &Strategy::LastWriteWins);
    assert_eq!((lost_a.clone(), shown(&a)), (lost_b, shown(&b)));
    assert_eq!((lost_a, shown(&a).len()), (vec![hash("1")], 1));
}

#[test]
fn case_210_fork_lists_what_stays_unresolved() {
    let (mut a, mut b) = edit_edit();
    let (a_before, b_before) = (a.clone(), b.clone());
    let fork = Strategy::ForkOnConflict;
    let left = a.merge_with_resolver(&b_before, &fork, &NO_TEXT).unwrap();
    let right = b.merge_with_resolver(&a_before, &fork, &NO_TEXT).unwrap();
    let paths = |merged: &[Conflict<Text>]| -> Vec<_> {
        merged.iter().map(|conflict| (conflict.path.clone(), conflict.kind)).collect()
    };
    assert_eq!(paths(&left.unresolved), paths(&right.unresolved));
    assert_eq!((left.unresolved.len(), left.resolved_by), (1, None));
    assert_eq!(shown(&a).len(), 2);
}

/// Keeps what is there, whatever was deleted elsewhere.
struct NeverDelete;

impl ConflictResolver<Text> for NeverDelete {
    fn resolve(&self, conflict: &Conflict<Text>, _: &Context<'_, Text>) -> Resolution<Text> {
        match conflict.kind {
            ConflictKind::DeleteModify => Resolution::UseVersion(conflict.versions[0].op),
            _ => Resolution::KeepBoth,
        }
    }
}

#[test]
fn case_211_a_resolver_that_never_deletes_makes_it_an_event() {
    let (mut a, mut b) = edit_edit();
    a.remove(b"t").unwrap();
    merge(&mut b, &a, &NeverDelete);
    assert!(b.conflicts().is_empty());
    merge(&mut a, &b, &Strategy::ConflictFile);
    assert_eq!(shown(&a), [("t".to_owned(), "2".to_owned())]);
    assert!(a.conflicts().is_empty());
}

/// Answers every conflict with the same path.
struct MoveTo(&'static [u8]);

impl ConflictResolver<Text> for MoveTo {
    fn resolve(&self, _: &Conflict<Text>, _: &Context<'_, Text>) -> Resolution<Text> {
        Resolution::RenameIncoming { new_path: self.0.to_vec() }
    }
}

#[test]
fn case_212_an_unusable_path_changes_nothing() {
    let (mut a, b) = edit_edit();
    a.write(b"taken", content("x")).unwrap();
    for path in [b"".as_slice(), b"../x", b"a//b", b"taken", b"nowhere/x"] {
        let before = a.tree().clone();
        assert!(a.merge_with_resolver(&b, &MoveTo(path), &NO_TEXT).is_err());
        assert_eq!(*a.tree(), before);
    }
    merge(&mut a, &b, &MoveTo(b"theirs"));
    let all: Vec<_> = shown(&a).into_iter().filter(|(path, _)| path != "taken").collect();
    let all: Vec<_> = all.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert_eq!(all, [("t", "1"), ("theirs", "2")]);
}

/// Says it is symmetric and is not.
struct Liar;

impl ConflictResolver<Text> for Liar {
    fn resolve(&self, _: &Conflict<Text>, _: &Context<'_, Text>) -> Resolution<Text> {
        Resolution::UseBase
    }

    fn symmetric(&self) -> bool {
        true
    }
}

/// The law of symmetric resolvers: both sides show the same at once.
fn keeps_its_promise(resolver: &dyn ConflictResolver<Text>) -> bool {
    let (mut a, mut b) = edit_edit();
    let (a_before, b_before) = (a.clone(), b.clone());
    merge(&mut a, &b_before, resolver);
    merge(&mut b, &a_before, resolver);
    !resolver.symmetric() || shown(&a) == shown(&b)
}

#[test]
fn case_213_a_false_promise_of_symmetry_is_caught() {
    assert!(!keeps_its_promise(&Liar));
    for strategy in [Strategy::LastWriteWins, Strategy::BaseWins, Strategy::ConflictFile] {
        assert!(keeps_its_promise(&strategy), "{strategy:?}");
    }
}

/// Merges texts whose base is known.
struct Texts(Vec<&'static str>);

impl MergeContent<Text> for Texts {
    fn merge(&self, base: ContentId, sides: &[&Content<Text>]) -> Option<Content<Text>> {
        let base = self.0.iter().find(|text| hash(text) == base)?;
        let sides: Vec<&[u8]> = sides.iter().map(|side| side.body.as_bytes()).collect();
        Some(content(&String::from_utf8(merge_lines(base.as_bytes(), &sides)?).ok()?))
    }
}

#[test]
fn case_214_three_rules_in_one_merge() {
    let mut a = Log::new(A);
    for path in [b"x.lock".as_slice(), b"notes/n", b"other"] {
        a.write(path, content("a\nb\nc")).unwrap();
    }
    let mut b = Log::new(B);
    b.merge(&a).unwrap();
    for path in [b"x.lock".as_slice(), b"notes/n", b"other"] {
        a.write(path, content("A\nb\nc")).unwrap();
        b.write(path, content("a\nb\nC")).unwrap();
    }
    let rules = PathRules::new(Strategy::ConflictFile)
        .rule("*.lock", Strategy::LastWriteWins)
        .and_then(|rules| rules.rule("notes/**", Strategy::MergeText))
        .unwrap();
    let texts = Texts(vec!["a\nb\nc"]);
    let context = Context { text: Some(&texts) };
    a.merge_with_resolver(&b, &rules, &context).unwrap();
    let all = shown(&a);
    let at = |path: &str| -> Vec<&str> {
        let here = all.iter().filter(|(other, _)| other.starts_with(path));
        here.map(|(_, text)| text.as_str()).collect()
    };
    assert_eq!(at("x.lock"), ["a\nb\nC"]);
    assert_eq!(at("notes/n"), ["A\nb\nC"]);
    assert_eq!(at("other").len(), 2);
}

/// Wants none of the versions.
struct Neither;

impl ConflictResolver<Text> for Neither {
    fn resolve(&self, _: &Conflict<Text>, _: &Context<'_, Text>) -> Resolution<Text> {
        Resolution::SkipBoth
    }
}

#[test]
fn case_215_skipping_both_is_an_event() {
    let (mut a, mut b) = edit_edit();
    let done = a.merge_with_resolver(&b, &Neither, &NO_TEXT).unwrap();
    assert_eq!(done.discarded.len(), 2);
    assert!(a.operations().any(|op| Some(op.id) == done.resolved_by && op.auto));
    merge(&mut b, &a, &Strategy::ConflictFile);
    assert!(shown(&a).is_empty() && shown(&b).is_empty());
}

#[test]
fn case_217_the_clock_survives_a_save_without_operations() {
    let (mut a, b) = edit_edit();
    a.merge(&b).unwrap();
    let bytes = postcard::to_stdvec(&a).unwrap();
    let again: Log = postcard::from_bytes(&bytes).unwrap();
    let bytes = postcard::to_stdvec(&again).unwrap();
    let mut loaded: Log = postcard::from_bytes(&bytes).unwrap();
    let seen = loaded.operations().map(|op| op.id).max().unwrap();
    loaded.write(b"new", content("n")).unwrap();
    assert!(loaded.operations().map(|op| op.id).max().unwrap() > seen);
}

#[test]
fn a_state_and_a_log_can_be_json() {
    let (mut a, b) = edit_edit();
    a.rename(b"t", b"d/t").unwrap();
    a.merge(&b).unwrap();
    let json = serde_json::to_string(&a).unwrap();
    let log: Log = serde_json::from_str(&json).unwrap();
    assert_eq!(log.entries(), a.entries());
    let state = a.tree().state();
    let json = serde_json::to_string(state).unwrap();
    assert_eq!(serde_json::from_str::<State<Text>>(&json).unwrap(), *state);
}

fn plain(entries: &[(&str, &str)]) -> PlainTree<Text> {
    let file = |text: &str| PlainEntry { kind: Kind::File, content: Some(content(text)) };
    entries.iter().map(|(path, text)| (path.as_bytes().to_vec(), file(text))).collect()
}

/// The files of a three-way merge.
fn merged(
    base: &PlainTree<Text>,
    ours: &PlainTree<Text>,
    theirs: &PlainTree<Text>,
    renames: Renames,
) -> Vec<(String, String)> {
    let outcome = three_way(base, ours, theirs, renames, Policy::default()).unwrap();
    let entries = outcome.tree.by_path().into_iter();
    let files = entries.filter_map(|(path, entry)| Some((path, entry.content.clone()?.body)));
    files.map(|(path, text)| (String::from_utf8(path).unwrap(), text)).collect()
}

fn files(tree: &PlainTree<Text>) -> Vec<(String, String)> {
    let files = tree.iter().filter_map(|(path, entry)| Some((path, entry.content.clone()?.body)));
    files.map(|(path, text)| (String::from_utf8(path.clone()).unwrap(), text)).collect()
}

#[test]
fn case_218_three_way_identities() {
    let b = plain(&[("a", "0"), ("d/x", "1"), ("d/y", "2")]);
    let x = plain(&[("a", "9"), ("d/x", "1"), ("new/z", "3")]);
    let y = plain(&[("a", "8"), ("d", "now a file")]);
    for renames in [Renames::Ignore, Renames::ExactContent] {
        assert_eq!(merged(&b, &b, &y, renames), files(&y));
        assert_eq!(merged(&b, &x, &x, renames), files(&x));
        assert_eq!(merged(&b, &x, &y, renames), merged(&b, &y, &x, renames));
    }
}

#[test]
fn case_219_three_way_without_a_base() {
    let none = plain(&[]);
    let x = plain(&[("a", "1"), ("d/b", "2")]);
    assert_eq!(merged(&none, &x, &x, Renames::Ignore), files(&x));
    let y = plain(&[("a", "9"), ("d/b", "2")]);
    assert_eq!(merged(&none, &x, &y, Renames::Ignore).len(), 3);
}

#[test]
fn case_220_three_way_with_exact_renames() {
    let (base, ours) = (plain(&[("f", "0")]), plain(&[("g", "0")]));
    let theirs = plain(&[("f", "1")]);
    let own = |pairs: &[(&str, &str)]| files(&plain(pairs));
    assert_eq!(merged(&base, &ours, &theirs, Renames::ExactContent), own(&[("g", "1")]));
    assert_eq!(merged(&base, &ours, &theirs, Renames::Ignore), own(&[("f", "1"), ("g", "0")]));
}

#[test]
fn case_221_pairing_refuses_doubt() {
    let base = plain(&[("f", "0"), ("h", "0")]);
    let ours = plain(&[("g", "0"), ("h", "0")]);
    let theirs = plain(&[("f", "1"), ("h", "0")]);
    let outcome = merged(&base, &ours, &theirs, Renames::ExactContent);
    assert_eq!(outcome, files(&plain(&[("f", "1"), ("g", "0"), ("h", "0")])));
}

#[test]
fn a_file_that_made_room_for_a_directory_is_paired_with_nothing() {
    let base = plain(&[("f", "0")]);
    let ours = plain(&[("f/x", "1"), ("g", "0")]);
    assert_eq!(merged(&base, &ours, &base, Renames::ExactContent), files(&ours));
}

fn op(lamport: u64, device: DeviceId) -> OpId {
    OpId { lamport, device }
}

fn vv(entries: &[(DeviceId, u64)]) -> VersionVector {
    entries.iter().copied().collect()
}

fn node_at(op: OpId, parent: NodeId, name: &str, text: Option<&str>) -> Node<Text> {
    let mut node = Node::empty(if text.is_some() { Kind::File } else { Kind::Dir });
    let place = Place::new(parent, Name::new(name.as_bytes()).unwrap());
    node.places = SmallMap::one(LinkId::FIRST, Reg::one(op, place));
    node.content = text.map_or_else(Reg::default, |text| Reg::one(op, content(text)));
    node.live = Reg::one(op, Carry::Same);
    node
}

fn state(vv: VersionVector, nodes: Vec<(NodeId, Node<Text>)>) -> State<Text> {
    State { vv, nodes: nodes.into_iter().map(|(id, node)| (id, Arc::new(node))).collect() }
}

fn born(op: OpId, n: u32) -> NodeId {
    NodeId::Born { op, n }
}

#[test]
fn case_222_a_clock_at_its_end_is_refused() {
    let last = op(u64::MAX, B);
    let bad = state(vv(&[(B, u64::MAX)]), vec![]);
    assert!(matches!(verify::state(&bad), Err(Reject::Lamport { .. })));
    let known = vv(&[(A, 3)]);
    let claim = vv(&[(A, 3), (B, last.lamport)]);
    let refused = verify::knowledge(B, &claim, u64::MAX, &[&known]);
    assert!(matches!(refused, Err(Reject::Lamport { .. })));
}

#[test]
fn case_223_a_clock_far_ahead_is_refused() {
    let known = vv(&[(A, 7)]);
    let check = |lamport| verify::knowledge(B, &vv(&[(A, 7), (B, lamport)]), 3, &[&known]);
    assert_eq!(check(8), Ok(()));
    assert_eq!(check(10), Ok(()));
    assert!(check(11).is_err() && check(1_000_007).is_err() && check(7).is_err());
}

#[test]
fn case_224_forged_knowledge_is_refused() {
    let known = vv(&[(A, 1), (B, 2)]);
    let forged = vv(&[(A, 1), (B, 9), (C, 3)]);
    let refused = verify::knowledge(C, &forged, 1, &[&known]);
    assert_eq!(refused, Err(Reject::ForgedKnowledge { device: B }));
    assert_eq!(verify::knowledge(C, &vv(&[(A, 1), (B, 2), (C, 3)]), 1, &[&known]), Ok(()));
}

/// `log` as its author might have written it who lies: `lie` gets its operations.
fn forged(log: &Log, lie: impl FnOnce(&mut Vec<serde_json::Value>)) -> Result<Log, String> {
    let mut json = serde_json::to_value(log).unwrap();
    lie(json["ops"].as_array_mut().unwrap());
    serde_json::from_value(json).map_err(|err| err.to_string())
}

#[test]
fn a_log_that_replaces_what_it_cannot_have_seen_is_refused() {
    let mut b = Log::new(B);
    b.write(b"f", content("0")).unwrap();
    let mut c = Log::new(C);
    c.merge(&b).unwrap();
    c.write(b"f", content("2")).unwrap();
    let replacing = |others: &[OpId]| {
        forged(&c, |ops| {
            let write = ops.last_mut().unwrap();
            let others = others.iter().map(|op| serde_json::to_value(op).unwrap());
            let replaced: Vec<_> = others.collect();
            for register in ["live", "content"] {
                write["effects"][0][1][register]["gone"] = replaced.clone().into();
            }
            write["pred"] = replaced.into();
        })
    };
    assert!(replacing(&[op(1, B)]).unwrap().operations().eq(c.operations()));
    // What B does next, once it has seen this.
    let refused = replacing(&[op(1, B), op(3, B)]).unwrap_err();
    let unseen = |replaced| LogError::Unseen { op: op(2, C), replaced }.to_string();
    assert_eq!(refused, unseen(op(3, B)));
    assert_eq!(replacing(&[op(1, A)]).unwrap_err(), unseen(op(1, A)), "nobody did it");
    assert_eq!(replacing(&[op(1, B), op(2, C)]).unwrap_err(), unseen(op(2, C)), "itself");
    let hidden = forged(&c, |ops| ops[1]["pred"] = serde_json::json!([])).unwrap_err();
    assert_eq!(hidden, LogError::Pred { op: op(2, C) }.to_string());
}

#[test]
fn a_file_of_65000_names_is_believed_and_one_of_a_million_is_not() {
    let seen = op(1, B);
    let verdict = |links: u32| {
        let mut node = node_at(seen, NodeId::Root, "f", Some("x"));
        let place = |n: u32| Place::new(NodeId::Root, Name::new(n.to_string().as_bytes()).unwrap());
        let more = (1..links).map(|n| (LinkId::Later { op: seen, n }, Reg::one(seen, place(n))));
        node.places =
            node.places.iter().map(|(link, reg)| (*link, reg.clone())).chain(more).collect();
        verify::node(&vv(&[(B, 1)]), &born(seen, 0), &node)
    };
    assert_eq!(verdict(65_000), Ok(()));
    assert!(matches!(verdict(1_000_000), Err(Reject::TooMany { .. })));
}

#[test]
fn case_225_an_uncovered_operation_is_refused() {
    let seen = op(5, B);
    let bad = state(
        vv(&[(B, 4)]),
        vec![(born(op(1, B), 0), node_at(seen, NodeId::Root, "f", Some("x")))],
    );
    assert!(matches!(verify::state(&bad), Err(Reject::Uncovered { .. })));
}

#[test]
fn a_node_of_another_kind_is_refused() {
    let (mut a, mut b) = (Peer::new('A'), Peer::new('B'));
    a.write("t", "1").unwrap();
    b.pull(&a);
    let id = a.get("t").unwrap().id();
    let mut forged = a.tree.state().clone();
    let node = forged.nodes.get_mut(&id).map(Arc::make_mut).unwrap();
    (node.kind, node.content) = (Kind::Dir, Reg::default());
    assert_eq!(verify::state(&forged), Ok(()), "by itself it is sound");
    let (ours, theirs) = (&b.tree.state().nodes[&id], &forged.nodes[&id]);
    assert_eq!(verify::joinable(&id, Some(ours), theirs), Err(Reject::OtherKind { node: id }));
    assert_eq!(verify::joinable(&id, None, theirs), Ok(()));
}

#[test]
fn case_226_one_operation_with_two_payloads_shows_both() {
    let (id, twice) = (born(op(1, A), 0), op(1, A));
    let one = state(vv(&[(A, 1)]), vec![(id, node_at(twice, NodeId::Root, "f", Some("x")))]);
    let two = state(vv(&[(A, 1)]), vec![(id, node_at(twice, NodeId::Root, "f", Some("y")))]);
    let both = join(&one, &two);
    assert_eq!(both, join(&two, &one));
    let peer = Peer { tree: Indexed::new(both), ..Peer::new('A') };
    assert_eq!(peer.show().len(), 2);
    let mut x = Log::new(A);
    x.write(b"f", content("x")).unwrap();
    let mut y = Log::new(A);
    y.write(b"f", content("y")).unwrap();
    assert!(matches!(x.merge(&y), Err(LogError::Equivocation { .. })));
}

/// A file with the names `a`, `d/b` and `c`, contested by `y` (the later one) and `x`; `c` was
/// lost to another file.
fn contested_links() -> Peer {
    let mut a = Peer::new('A');
    a.write("a", "0").unwrap();
    a.mkdir("d").unwrap();
    a.hard_link("a", "d/b").unwrap();
    let mut b = Peer::new('B');
    b.pull(&a);
    a.write("a", "x").unwrap();
    a.hard_link("a", "c").unwrap();
    b.write("a", "y").unwrap();
    b.write("d/b", "y2").unwrap();
    b.write("d/b", "y").unwrap();
    b.write("e", "e").unwrap();
    b.write("c", "z").unwrap();
    a.pull(&b);
    a
}

#[test]
fn names_of_one_file_keep_what_they_show() {
    let copy = |name: &str, text: &str| format!("{name}@{}", &hash(text).to_hex()[..8]);
    let peer = contested_links();
    let before = peer.show();
    let expected = [
        ("a".to_owned(), "y"),
        (copy("a", "x"), "x"),
        ("c".to_owned(), "z"),
        (copy("c", "y"), "y"),
        (copy("c", "x"), "x"),
        ("d/b".to_owned(), "y"),
        (copy("d/b", "x"), "x"),
        ("e".to_owned(), "e"),
    ];
    let leaves = before.iter().filter_map(|(path, text)| Some((path.clone(), text.as_deref()?)));
    assert_eq!(leaves.collect::<Vec<_>>(), expected);

    for path in before.keys().filter(|path| !path.ends_with('/')) {
        let mut removed = peer.clone();
        removed.rm(path).unwrap();
        let mut left = before.clone();
        left.remove(path);
        assert_eq!(removed.show(), left, "after removing {path}");

        let mut moved = peer.clone();
        moved.mv(path, "moved").unwrap();
        left.insert("moved".to_owned(), before[path].clone());
        assert_eq!(moved.show(), left, "after moving {path}");

        let mut written = peer.clone();
        written.write(path, "new").unwrap();
        let mut now = before.clone();
        now.insert(path.clone(), Some("new".to_owned()));
        for link in ["a", "d/b"].into_iter().filter(|_| ["a", "d/b"].contains(&path.as_str())) {
            now.insert(link.to_owned(), Some("new".to_owned()));
        }
        assert_eq!(written.show(), now, "after writing {path}");
    }
}

#[test]
fn case_227_a_node_twice_is_refused() {
    let one = node_at(op(1, A), NodeId::Root, "f", Some("x"));
    let id = born(op(1, A), 0);
    let bytes = postcard::to_stdvec(&vec![(id, one.clone()), (id, one)]).unwrap();
    assert!(postcard::from_bytes::<SmallMap<NodeId, Node<Text>>>(&bytes).is_err());
    let one = node_at(op(1, A), NodeId::Root, "f", Some("x"));
    let good = state(vv(&[(A, 1)]), vec![(id, one.clone())]);
    let encode =
        |nodes: Vec<(NodeId, Node<Text>)>| postcard::to_stdvec(&(&good.vv, nodes)).unwrap();
    let read = postcard::from_bytes::<State<Text>>(&encode(vec![(id, one.clone())]));
    assert_eq!(read.unwrap(), good);
    let twice = encode(vec![(id, one.clone()), (id, one)]);
    assert!(postcard::from_bytes::<State<Text>>(&twice).is_err());
}

#[test]
fn case_228_a_cycle_of_one_device_is_refused() {
    let (x, y) = (born(op(1, A), 0), born(op(1, A), 1));
    let bad = state(
        vv(&[(A, 1)]),
        vec![(x, node_at(op(1, A), y, "x", None)), (y, node_at(op(1, A), x, "y", None))],
    );
    assert!(matches!(verify::state(&bad), Err(Reject::Cycle { .. })));
    let own = state(vv(&[(A, 1)]), vec![(x, node_at(op(1, A), x, "x", None))]);
    assert!(matches!(verify::state(&own), Err(Reject::Malformed { .. })));
}

#[test]
fn case_229_illegal_names_are_refused() {
    let long = [b'x'; 256];
    for bad in [b"".as_slice(), b".", b"..", b"a/b", b"a\0", &long] {
        assert!(Name::new(bad).is_err());
        let mut log = Log::new(A);
        assert!(bad == b"a/b" || log.write(bad, content("x")).is_err());
    }
    assert_eq!(Name::new(b""), Err(BadName::Empty));
}

#[test]
fn case_230_a_hundred_thousand_directories_deep() {
    let depth = 100_000;
    let mut parent = NodeId::Root;
    let mut nodes = Vec::new();
    for n in 0..depth {
        nodes.push((born(op(1, A), n), node_at(op(1, A), parent, "d", None)));
        parent = born(op(1, A), n);
    }
    nodes.push((born(op(1, A), depth), node_at(op(1, A), parent, "f", Some("x"))));
    let deep = state(vv(&[(A, 1)]), nodes);
    verify::state(&deep).unwrap();
    let mut peer = Peer { tree: Indexed::new(deep), ..Peer::new('B') };
    assert_eq!(peer.render().items.len(), 100_001);
    let other = peer.clone();
    let entry = peer.view().lookup(&[parent], &Name::new(b"f").unwrap()).unwrap().unwrap();
    let mut edit = cairnfs_merge::Edit::new(&peer.tree, op(2, B));
    edit.write(&entry, content("y")).unwrap();
    let edited = edit.finish();
    assert_eq!(edited.nodes.len(), 100_001);
    peer.tree.apply_derived(edited.nodes, edited.index);
    peer.tree.vv_mut().learn(&op(2, B));
    peer.pull(&other);
}

#[test]
fn case_231_a_million_entries_of_which_one_differs() {
    let nodes = (0..1_000_000_u32).map(|n| {
        let node = node_at(op(1, A), NodeId::Root, &format!("f{n}"), Some("x"));
        (born(op(1, A), n), node)
    });
    let base = Indexed::new(state(vv(&[(A, 1)]), nodes.collect()));
    let id = born(op(1, A), 77);
    let edited = |device: DeviceId, text: &str| {
        let mut node = node_at(op(1, A), NodeId::Root, "f77", Some("x"));
        node.content = Reg::one(op(2, device), content(text));
        node.live = Reg::one(op(2, device), Carry::Same);
        let mut tree = base.clone();
        tree.apply([(id, Some(Arc::new(node)))].into());
        tree.vv_mut().learn(&op(2, device));
        tree
    };
    let (mut left, right) = (edited(B, "b"), edited(C, "c"));
    left.merge(&right, B).unwrap();
    let peer = Peer { tree: left, ..Peer::new('B') };
    assert_eq!(peer.kinds(), [ConflictKind::Content].into());
    assert_eq!(peer.view().copies(&[NodeId::Root], &Name::new(b"f77").unwrap()).unwrap().len(), 1);
}

/// `logs` merged two by two, and what comes of that likewise.
fn in_pairs(mut logs: Vec<Log>) -> Log {
    while logs.len() > 1 {
        let pairs = logs.chunks(2).map(|pair| {
            let mut merged = pair[0].clone();
            merged.merge(pair.last().unwrap()).unwrap();
            merged
        });
        logs = pairs.collect();
    }
    logs.remove(0)
}

#[test]
fn many_devices_add_each_a_file_to_one_directory() {
    let mut base = Log::new(A);
    base.mkdir(b"docs").unwrap();
    // As many as a bucket may have members.
    for devices in [100, 256_u16] {
        let adding = |n: u16| {
            let mut device = [0; 16];
            device[..2].copy_from_slice(&n.to_le_bytes());
            let mut log = Log::new(DeviceId(device));
            log.merge(&base).unwrap();
            log.write(format!("docs/{n}").as_bytes(), content(&n.to_string())).unwrap();
            log
        };
        let logs: Vec<Log> = (0..devices).map(adding).collect();
        let mut one_by_one = base.clone();
        let mut tree = Indexed::default();
        for log in logs.iter().rev() {
            let changed = log.tree().state();
            let nodes = changed.nodes.iter();
            let ours = |id| tree.state().nodes.get(id).map(AsRef::as_ref);
            nodes.for_each(|(id, node)| verify::joinable(id, ours(id), node).unwrap());
            tree.merge(log.tree(), A).unwrap();
            one_by_one.merge(log).unwrap();
        }
        let paired = in_pairs(logs);
        assert_eq!(paired.entries().len(), usize::from(devices) + 1);
        assert!(paired.conflicts().is_empty());
        assert_eq!(paired.tree(), one_by_one.tree());
        assert_eq!(*paired.tree(), tree);
        let state = tree.state();
        assert_eq!(verify::state(state), Ok(()));
        for (id, node) in &state.nodes {
            assert_eq!(verify::joinable(id, None, node), Ok(()), "others may change it too");
        }
        let bytes = postcard::to_stdvec(state).unwrap();
        assert_eq!(postcard::from_bytes::<State<Text>>(&bytes).unwrap(), *state);
    }
}

#[test]
fn case_232_ten_thousand_values_in_one_register() {
    let device = |n: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        DeviceId(bytes)
    };
    let ops = (0..10_000).map(|n| op(1, device(n)));
    let mut node = node_at(op(1, device(0)), NodeId::Root, "f", Some("x"));
    node.content = ops.clone().map(|op| (op, content("x"))).collect();
    let vv: VersionVector = ops.map(|op| (op.device, op.lamport)).collect();
    let id = born(op(1, device(0)), 0);
    let bad = state(vv, vec![(id, node)]);
    assert_eq!(verify::state(&bad), Err(Reject::TooMany { node: id }));
    assert_eq!(join(&bad, &bad), bad);
    let bytes = postcard::to_stdvec(&bad).unwrap();
    assert!(postcard::from_bytes::<State<Text>>(&bytes).is_err());
}

/// Runs bytes through every decoder; what is believed must join and render.
fn decode(bytes: &[u8]) -> bool {
    let log = postcard::from_bytes::<Log>(bytes);
    let vector = postcard::from_bytes::<VersionVector>(bytes);
    let node = postcard::from_bytes::<Node<Text>>(bytes);
    if let (Ok(vector), Ok(node)) = (vector, &node) {
        let _verdict = verify::node(&vector, &born(op(1, A), 0), node);
    }
    let state = postcard::from_bytes::<State<Text>>(bytes);
    let state = state.ok().filter(|state| verify::state(state).is_ok());
    if let Some(state) = &state {
        assert_eq!(join(state, state), *state);
        let peer = Peer { tree: Indexed::new(state.clone()), ..Peer::new('Z') };
        let (_shown, _kinds) = (peer.render(), peer.kinds());
    }
    log.is_ok() || state.is_some()
}

#[test]
fn case_233_the_corpus_and_damaged_bytes_never_panic() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut rng = Rng::new(233, 0);
    let mut seeds = 0;
    for target in ["state", "log"] {
        for file in std::fs::read_dir(corpus.join(target)).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            // What `cargo fuzz` found has a hash for a name, and need not be valid.
            if path.extension().is_some() {
                let sound = !path.ends_with("refused.bin");
                assert_eq!(decode(&bytes), sound, "{}", path.display());
                seeds += 1;
            }
            for _ in 0..2_000 {
                let mut damaged = bytes.clone();
                for _ in 0..=rng.below(3) {
                    let at = rng.below(damaged.len());
                    damaged[at] = u8::try_from(rng.below(256)).unwrap();
                }
                if rng.chance(20) {
                    damaged.truncate(rng.below(damaged.len()));
                }
                decode(&damaged);
            }
        }
    }
    assert!(seeds >= 4);
}

#[test]
fn case_234_a_restored_backup_takes_a_new_incarnation() {
    let mut peer = Peer::new('A');
    peer.write("f", "1").unwrap();
    let backup = peer.clone();
    for n in 2..7 {
        peer.write("f", &n.to_string()).unwrap();
    }
    let mut restored = backup;
    // Another head knows more of this device than it does itself.
    assert!(peer.tree.state().vv.get(&A) > restored.tree.state().vv.get(&A));
    restored.device = C;
    restored.publish();
    restored.write("f", "mine").unwrap();
    restored.pull(&peer);
    peer.pull(&restored);
    assert_eq!(peer.tree, restored.tree);
    let texts: BTreeSet<_> = peer.show().into_values().flatten().collect();
    assert_eq!(texts, ["6".to_owned(), "mine".to_owned()].into());
}

#[test]
fn case_239_240_241_merges_of_equal_heads_are_equal_and_silent() {
    let (a, b) = edit_edit();
    let (mut left, mut right) = (a.tree().clone(), b.tree().clone());
    left.merge(b.tree(), A).unwrap();
    right.merge(a.tree(), B).unwrap();
    assert_eq!(left, right);
    assert_eq!(Relation::of(&left.state().vv, &right.state().vv), Relation::Same);
    let before = left.clone();
    for _ in 0..10 {
        assert_eq!(left.merge(&right, C).unwrap(), None);
    }
    assert_eq!(left, before);
}

#[test]
fn case_242_a_thousand_heads_fold() {
    let mut all = Peer::new('A');
    for n in 0..1_000_u32 {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        let mut peer = Peer::new('B');
        peer.device = DeviceId(bytes);
        peer.write(&format!("f{n}"), "x").unwrap();
        all.pull(&peer);
    }
    assert_eq!(all.show().len(), 1_000);
}

#[test]
fn case_243_a_long_name_is_cut_at_a_character() {
    let long = format!("{}\u{20ac}", "x".repeat(252));
    let (mut a, mut b) = (Peer::new('A'), Peer::new('B'));
    a.write(&long, "1").unwrap();
    b.write(&long, "2").unwrap();
    a.pull(&b);
    let shown = a.show();
    let copy = shown.keys().find(|path| **path != long).unwrap();
    assert!(copy.len() <= 255 && copy.starts_with("xxx"));
    assert_eq!(copy.rsplit_once('@').unwrap().1.len(), 8);
}

#[test]
fn case_244_copies_with_one_prefix_get_longer_ones() {
    let id = |last: u8| {
        let mut bytes = [9; 32];
        bytes[31] = last;
        bytes[7] = last;
        ContentId(bytes)
    };
    let mut node = node_at(op(1, A), NodeId::Root, "t", Some("x"));
    let values = [(A, 1), (B, 2), (C, 3)];
    node.content = values
        .map(|(device, n)| (op(1, device), Content::new(id(n), 1, n.to_string())))
        .into_iter()
        .collect();
    let tree = Indexed::new(state(vv(&[(A, 1), (B, 1), (C, 1)]), vec![(born(op(1, A), 0), node)]));
    let peer = Peer { tree, ..Peer::new('A') };
    let lens: BTreeSet<usize> = peer.show().keys().map(String::len).collect();
    assert_eq!(lens, [1, 10, 18].into());
}

#[test]
fn case_245_a_version_is_found_by_node_and_operation_whoever_wins() {
    let (mut a, mut b) = (Peer::new('A'), Peer::new('B'));
    a.write("t", "1").unwrap();
    b.pull(&a);
    a.write("t", "2").unwrap();
    b.write("t", "3").unwrap();
    let open = a.get("t").unwrap();
    let (node, version) = (open.id(), *open.owners[&open.id()].first().unwrap());
    a.pull(&b);
    let state = a.tree.state();
    let held = state.nodes[&node].content.iter().find(|(op, _)| **op == version).unwrap();
    assert_eq!(held.1.body, "2");
}
