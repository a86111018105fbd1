//! Conflicts, settled by hand and by strategies.

use super::{
    Peer,
    conflicts::{chmod, mode},
    sync, two,
};
use crate::{Error, Keep, MergeStep, Role, Settings, Strategy};

pub(super) fn link(peer: &Peer, from: &str, to: &str) {
    peer.mount().link(peer.walk(from).unwrap(), crate::Ino::ROOT, to.as_bytes()).unwrap();
}

/// Settles `path` on the first device, and sees on the second that nothing conflicts any more.
fn settle(a: &Peer, b: &Peer, path: &str, keep: &Keep) {
    assert!(!a.mount().conflicts(Some(path.as_bytes())).unwrap().is_empty(), "{path}");
    a.resolve(path.as_bytes(), keep).unwrap();
    sync(a, b);
    assert_eq!(b.mount().conflicts(None).unwrap(), [], "{keep:?}");
}

#[test]
fn conflicts_are_settled_on_all_devices() {
    for (keep, expected) in
        [(Keep::Ours, vec!["x=a"]), (Keep::Theirs, vec!["x=b"]), (Keep::Shown, vec!["x=b"])]
    {
        let (a, b) = two();
        a.unlink("old");
        sync(&a, &b);
        a.write("x", "a");
        b.write("pad", "1");
        b.mount().publish().unwrap();
        b.unlink("pad");
        b.write("x", "b");
        sync(&a, &b);
        let found = a.mount().conflicts(Some(b"x")).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].sides.len(), 2, "{found:?}");
        assert_eq!(found[0].sides.iter().filter(|side| side.author.ours).count(), 1);
        a.resolve(b"x", &keep).unwrap();
        sync(&a, &b);
        assert_eq!(b.tree(), expected, "{keep:?}");
        assert!(b.mount().conflicts(None).unwrap().is_empty());
    }
}

const KEEPS: [Keep; 4] = [Keep::Ours, Keep::Theirs, Keep::Both, Keep::Shown];

#[test]
fn a_version_that_came_after_a_conflict_was_looked_at_is_not_dropped() {
    for keep in KEEPS {
        let (a, b) = two();
        let c = a.invite(Role::Writer);
        for (peer, text) in [(&a, "a"), (&b, "b"), (&c, "c")] {
            peer.write("x", text);
        }
        sync(&a, &b);
        let seen = a.seen(b"x");
        sync(&a, &c);
        let tree = a.tree();
        let settled = a.mount().resolve(b"x", &keep, &seen);
        assert!(matches!(settled, Err(Error::Changed)), "{keep:?}: {settled:?}");
        assert_eq!(a.tree(), tree);
        // Who looks again may decide.
        a.resolve(b"x", &keep).unwrap();
        assert_eq!(a.mount().conflicts(None).unwrap(), []);
    }
}

#[test]
fn what_is_written_here_after_a_conflict_was_looked_at_is_not_dropped() {
    for keep in KEEPS {
        let (a, b) = two();
        a.write("x", "a");
        b.write("x", "b");
        sync(&a, &b);
        // What is in no version yet when it is looked at is seen.
        a.write("x", "looked at");
        let seen = a.seen(b"x");
        a.write("x", "not looked at");
        let settled = a.mount().resolve(b"x", &keep, &seen);
        assert!(matches!(settled, Err(Error::Changed)), "{keep:?}: {settled:?}");
        assert!(a.tree().contains(&"x=not looked at".to_owned()), "{:?}", a.tree());
        a.resolve(b"x", &Keep::Shown).unwrap();
        assert!(a.tree().contains(&"x=not looked at".to_owned()), "{:?}", a.tree());
    }
}

#[test]
fn what_was_set_after_a_conflict_was_looked_at_is_not_dropped() {
    for keep in KEEPS {
        let (a, b) = two();
        let c = a.invite(Role::Writer);
        for (peer, bits) in [(&a, 0o600), (&b, 0o640), (&c, 0o400)] {
            chmod(peer, "old", bits);
        }
        sync(&a, &b);
        let seen = a.seen(b"old");
        sync(&a, &c);
        let settled = a.mount().resolve(b"old", &keep, &seen);
        assert!(matches!(settled, Err(Error::Changed)), "{keep:?}: {settled:?}");
        assert_eq!(a.mount().conflicts(None).unwrap()[0].settings.len(), 3);
        a.resolve(b"old", &keep).unwrap();
        assert_eq!(a.mount().conflicts(None).unwrap(), []);
    }
}

#[test]
fn keeping_both_makes_two_files_of_a_conflict() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    sync(&a, &b);
    let names = a.names("x");
    a.resolve(names[1].as_bytes(), &Keep::Both).unwrap();
    sync(&a, &b);
    assert_eq!(b.names("x"), names);
    assert!(b.mount().conflicts(None).unwrap().is_empty());
    assert!(matches!(a.resolve(b"x", &Keep::Both), Err(Error::NotFound)));
}

#[test]
fn keeping_both_of_a_file_and_a_folder_keeps_both() {
    let (a, b) = two();
    a.mkdir("m");
    a.write("m/notes", "0");
    sync(&a, &b);
    a.write("m/notes", "edit");
    b.unlink("m/notes");
    b.mkdir("m/notes");
    b.write("m/notes/a", "n");
    sync(&a, &b);
    let tree = a.tree();
    assert!(tree.contains(&"m/notes/a=n".to_owned()), "{tree:?}");
    a.resolve(b"m/notes", &Keep::Both).unwrap();
    sync(&a, &b);
    assert_eq!(b.tree(), tree);
    assert!(b.mount().conflicts(None).unwrap().is_empty());
}

#[test]
fn attributes_that_differ_are_settled() {
    for (keep, expected) in [(Keep::Ours, 0o600), (Keep::Theirs, 0o640), (Keep::Both, 0)] {
        let (a, b) = two();
        chmod(&a, "old", 0o600);
        chmod(&b, "old", 0o640);
        sync(&a, &b);
        let expected = if keep == Keep::Both { mode(&a, "old") } else { expected };
        settle(&a, &b, "old", &keep);
        assert_eq!((mode(&a, "old"), mode(&b, "old")), (expected, expected), "{keep:?}");
    }
}

#[test]
fn two_renames_are_settled() {
    for (keep, expected) in [(Keep::Ours, "ours"), (Keep::Theirs, "theirs"), (Keep::Both, "")] {
        let (a, b) = two();
        a.rename("old", "ours");
        b.rename("old", "theirs");
        sync(&a, &b);
        let [shown] = a.names("").try_into().unwrap();
        settle(&a, &b, &shown, &keep);
        let expected = if keep == Keep::Both { &*shown } else { expected };
        assert_eq!(b.tree(), [format!("{expected}=0")], "{keep:?}");
    }
}

#[test]
fn a_name_that_is_taken_is_not_taken_away_by_settling_two_renames() {
    let (a, b) = two();
    a.rename("old", "ours");
    b.rename("old", "theirs");
    sync(&a, &b);
    let [shown] = a.names("").try_into().unwrap();
    let (lost, keep) =
        if shown == "ours" { ("theirs", Keep::Theirs) } else { ("ours", Keep::Ours) };
    a.write(lost, "new");
    let tree = a.tree();
    assert!(matches!(a.resolve(shown.as_bytes(), &keep), Err(Error::Exists)));
    assert_eq!(a.tree(), tree);
}

#[test]
fn folders_moved_into_each_other_are_settled() {
    let ours = ["m2/", "m2/m1/", "m2/m1/x=1", "old=0"];
    let theirs = ["m1/", "m1/m2/", "m1/x=1", "old=0"];
    for keep in [Keep::Ours, Keep::Theirs, Keep::Both] {
        let (a, b) = two();
        a.mkdir("m1");
        a.write("m1/x", "1");
        a.mkdir("m2");
        sync(&a, &b);
        a.rename("m1", "m2/m1");
        b.rename("m2", "m1/m2");
        sync(&a, &b);
        let before = a.tree();
        let found = a.mount().conflicts(None).unwrap();
        let path = String::from_utf8(found[0].path.clone()).unwrap();
        settle(&a, &b, &path, &keep);
        match keep {
            Keep::Ours => assert_eq!(b.tree(), ours),
            Keep::Theirs => assert_eq!(b.tree(), theirs),
            _ => assert_eq!(b.tree(), before),
        }
    }
}

#[test]
fn a_folder_removed_here_and_added_to_there_is_settled() {
    for keep in [Keep::Theirs, Keep::Both] {
        let (a, b) = two();
        a.mkdir("e");
        sync(&a, &b);
        a.mount().rmdir(crate::Ino::ROOT, b"e").unwrap();
        b.write("e/new", "1");
        sync(&a, &b);
        // To remove a folder is no version of it.
        assert!(matches!(a.resolve(b"e", &Keep::Ours), Err(Error::NotFound)));
        settle(&a, &b, "e", &keep);
        assert_eq!(b.tree(), ["e/", "e/new=1", "old=0"]);
    }
}

#[test]
fn names_of_one_file_are_its_names_still_when_both_are_kept() {
    for other in ["h2", "h3"] {
        let (a, b) = two();
        a.write("h1", "a");
        link(&a, "h1", "h2");
        b.write("h1", "b");
        link(&b, "h1", other);
        sync(&a, &b);
        let names = a.names("h");
        assert_eq!(names.len(), 4, "{names:?}");
        a.resolve(b"h1", &Keep::Both).unwrap();
        a.resolve(b"h2", &Keep::Both).ok();
        sync(&a, &b);
        assert_eq!(b.mount().conflicts(None).unwrap(), []);
        assert_eq!(b.names("h"), names);
        for name in &names {
            let attr = b.mount().getattr(b.walk(name).unwrap()).unwrap();
            assert_eq!(attr.nlink, 2, "{name} of {names:?}");
        }
    }
}

#[test]
fn a_file_that_loses_a_name_keeps_its_others_and_what_they_hold() {
    for keep in [Keep::Ours, Keep::Theirs] {
        let (a, b) = two();
        a.write("h1", "a");
        link(&a, "h1", "h2");
        b.write("h1", "b");
        link(&b, "h1", "h3");
        sync(&a, &b);
        let content = if keep == Keep::Ours { "a" } else { "b" };
        settle(&a, &b, "h1", &keep);
        assert_eq!(b.tree(), [&*format!("h1={content}"), "h2=a", "h3=b", "old=0"]);
    }
}

#[test]
fn a_folder_stays_whichever_file_of_its_name_is_kept() {
    let (a, b) = two();
    a.write("k", "file");
    b.mkdir("k");
    b.write("k/x", "1");
    sync(&a, &b);
    let tree = a.tree();
    settle(&a, &b, "k", &Keep::Ours);
    assert_eq!(b.tree(), tree);
}

#[test]
fn the_strategy_travels_and_decides() {
    let (a, b) = two();
    let rules = vec![("*.txt".to_owned(), Strategy::MergeText)];
    let settings = Settings { strategy: Strategy::LastWriteWins, rules };
    assert!(matches!(b.mount().set_settings(settings.clone()), Err(Error::NotPermitted)));
    a.mount().set_settings(settings.clone()).unwrap();
    a.write("notes.txt", "one\ntwo\nthree\nfour\nfive\n");
    sync(&a, &b);
    assert_eq!(b.mount().settings(), settings);
    a.write("x", "a");
    a.write("notes.txt", "ONE\ntwo\nthree\nfour\nfive\n");
    b.write("x", "b");
    b.write("notes.txt", "one\ntwo\nthree\nfour\nFIVE\n");
    sync(&a, &b);
    let tree = a.tree();
    assert!(tree.contains(&"notes.txt=ONE\ntwo\nthree\nfour\nFIVE\n".to_owned()), "{tree:?}");
    assert_eq!(a.names("x").len(), 1, "{tree:?}");
    assert!(a.mount().conflicts(None).unwrap().is_empty());
}

#[test]
fn what_is_written_after_a_merge_that_settled_something_is_no_part_of_it() {
    let (a, b) = two();
    let settings = Settings { strategy: Strategy::LastWriteWins, rules: Vec::new() };
    a.mount().set_settings(settings).unwrap();
    a.write("x", "0");
    sync(&a, &b);
    // The clock here is far ahead of the one there.
    for n in 0..5 {
        a.write("pad", &n.to_string());
        a.mount().publish().unwrap();
    }
    a.write("x", "a");
    b.write("x", "b");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
    assert_eq!(b.pull(&a).unwrap(), MergeStep::FastForward);
    a.write("after", "1");
    sync(&a, &b);
    assert_eq!(b.tree(), ["after=1", "old=0", "pad=4", "x=a"]);
}
