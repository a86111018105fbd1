//! What resolvers decided about one name stays decided, and decides nothing about another.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeSet;

use cairnfs_merge::{
    ConflictKind, Content, Context, DeviceId, Edit, Indexed, NodeId, PathOpLog, Strategy,
};
use support::peer::{Peer, Text, content, name};

type Log = PathOpLog<Text>;

const NO_TEXT: Context<'static, Text> = Context { text: None };

fn log(n: u8) -> Log {
    Log::new(DeviceId([n; 16]))
}

/// Two logs that know the same.
fn exchanged(mut a: Log, mut b: Log) -> [Log; 2] {
    let before = a.clone();
    a.merge(&b).unwrap();
    b.merge(&before).unwrap();
    assert_eq!(a.tree(), b.tree());
    [a, b]
}

/// Two logs in which the files `paths` were written by both, and a strategy has decided.
fn decided(paths: [&str; 2]) -> [Log; 2] {
    let mut a = log(1);
    for path in paths {
        a.write(path.as_bytes(), content(&format!("{path} 0"))).unwrap();
    }
    let mut b = log(2);
    b.merge(&a).unwrap();
    for path in paths {
        a.write(path.as_bytes(), content(&format!("{path} 1"))).unwrap();
        b.write(path.as_bytes(), content(&format!("{path} 2"))).unwrap();
    }
    a.merge_with_resolver(&b, &Strategy::LastWriteWins, &NO_TEXT).unwrap();
    b.merge(&a).unwrap();
    assert_eq!(texts(&b), paths.map(|path| format!("{path} 2")).into());
    [a, b]
}

fn texts(log: &Log) -> BTreeSet<String> {
    log.entries().into_values().filter_map(|entry| Some(entry.content?.body)).collect()
}

fn kinds(log: &Log) -> Vec<ConflictKind> {
    log.conflicts().iter().map(|conflict| conflict.kind).collect()
}

#[test]
fn two_decided_files_that_are_moved_to_one_name_are_both_shown() {
    let [mut a, mut b] = decided(["f", "g"]);
    a.rename(b"f", b"t").unwrap();
    b.rename(b"g", b"t").unwrap();
    for log in exchanged(a, b) {
        assert_eq!(texts(&log), ["f 2".to_owned(), "g 2".to_owned()].into());
        assert_eq!(kinds(&log), [ConflictKind::Name]);
    }
}

/// An answer and what a person does next may go by one operation.
#[test]
fn files_decided_and_moved_to_one_name_by_one_operation_are_both_shown() {
    let mut a = Peer::new('A');
    a.write("f", "f 1").unwrap();
    a.write("g", "g 1").unwrap();
    let mut b = Peer::new('B');
    b.pull(&a);
    for (peer, path) in [(&mut a, "f"), (&mut b, "g")] {
        let content = Content { auto: true, ..content(&format!("{path} 2")) };
        let (entry, to) = (peer.get(path).unwrap(), name("t").unwrap());
        let moves = |edit: &mut Edit<'_, Text, Indexed<Text>>, _| {
            edit.resolve(&entry, content)?;
            let entry = edit.view().lookup(&entry.dirs, &entry.name).unwrap().unwrap();
            Ok(edit.rename(&entry, &[NodeId::Root], &to)?)
        };
        peer.act(moves).unwrap();
        peer.publish();
    }
    a.pull(&b);
    let shown: BTreeSet<String> = a.show().into_values().flatten().collect();
    assert_eq!(shown, ["f 2".to_owned(), "g 2".to_owned()].into());
}

/// Copies of what a strategy wrote, each given the same name by somebody else.
#[test]
fn copies_of_decided_versions_that_are_moved_to_one_name_are_both_shown() {
    let [mut a, mut b] = decided(["f", "g"]);
    let mut c = log(3);
    c.merge(&a).unwrap();
    // The strategy decides once more, and people write meanwhile: its version is shown as a copy.
    for path in ["f", "g"] {
        a.write(path.as_bytes(), content(&format!("{path} 3"))).unwrap();
        b.write(path.as_bytes(), content(&format!("{path} 4"))).unwrap();
    }
    a.merge_with_resolver(&b, &Strategy::LastWriteWins, &NO_TEXT).unwrap();
    for path in ["f", "g"] {
        for n in 5..9 {
            c.write(path.as_bytes(), content(&format!("{path} {n}"))).unwrap();
        }
    }
    let [mut a, mut c] = exchanged(a, c);
    let copy = |log: &Log, path: &str| {
        let found = log.entries().into_iter().find(|(at, entry)| {
            at.starts_with(format!("{path}@").as_bytes())
                && entry
                    .content
                    .as_ref()
                    .is_some_and(|it| it.auto && it.body == format!("{path} 4"))
        });
        found.unwrap().0
    };
    a.rename(&copy(&a, "f"), b"t").unwrap();
    c.rename(&copy(&c, "g"), b"t").unwrap();
    for log in exchanged(a, c) {
        assert!(texts(&log).is_superset(&["f 4".to_owned(), "g 4".to_owned()].into()));
        assert_eq!(kinds(&log), [ConflictKind::Name]);
    }
}

/// Two files of one name, and each side keeps its own, and says so once more.
#[test]
fn answers_that_keep_different_files_are_no_conflict() {
    let (mut a, mut b) = (log(1), log(2));
    a.write(b"t", content("1")).unwrap();
    b.write(b"t", content("2")).unwrap();
    for round in 0..2 {
        let before = a.clone();
        a.merge_with_resolver(&b, &Strategy::BaseWins, &NO_TEXT).unwrap();
        b.merge_with_resolver(&before, &Strategy::BaseWins, &NO_TEXT).unwrap();
        [a, b] = exchanged(a, b);
        assert_eq!((texts(&a).len(), kinds(&a)), (1, Vec::new()), "round {round}");
        assert_eq!(texts(&a), texts(&b));
        // Somebody puts another file there that neither knows.
        let mut c = log(3_u8.saturating_add(round));
        c.write(b"t", content("3")).unwrap();
        a.merge(&c).unwrap();
        b.merge(&c).unwrap();
    }
}

#[test]
fn answers_about_a_name_in_united_directories_are_no_conflict() {
    let (mut a, mut b) = (log(1), log(2));
    a.write(b"d/t", content("1")).unwrap();
    b.write(b"d/t", content("2")).unwrap();
    let before = a.clone();
    let mine = a.merge_with_resolver(&b, &Strategy::BaseWins, &NO_TEXT).unwrap();
    let theirs = b.merge_with_resolver(&before, &Strategy::BaseWins, &NO_TEXT).unwrap();
    assert!(mine.resolved_by.is_some() && theirs.resolved_by.is_some());
    for log in exchanged(a, b) {
        assert_eq!((texts(&log).len(), kinds(&log)), (1, Vec::new()));
    }
}
